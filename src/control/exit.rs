//! How `porinctl` ends.

use std::process::ExitCode;

/// Exit statuses, as porinctl(1) documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well: what was asked for was shown; `check` found no error; for `why`, it is allowed.
    Ok = 0,
    /// `check` found errors; for `status`, no generation is in force, or not what the files say; for `why`, it is not
    /// allowed.
    Faults = 1,
    /// The command line is wrong, or what it names cannot be read; `why` was asked what cannot be answered.
    Usage = 2,
    /// The daemon is not running.
    NotRunning = 3,
    /// The daemon's socket is not for this user.
    Denied = 4,
    /// The daemon answered with an error, broke off, or speaks another version.
    Failed = 5,
}

impl Exit {
    pub const ALL: [Exit; 6] =
        [Exit::Ok, Exit::Faults, Exit::Usage, Exit::NotRunning, Exit::Denied, Exit::Failed];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
