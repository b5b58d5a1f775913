//! Errors as runtimes read them: a code of the specification's, what, and more of it.

use std::fmt;

use serde_json::{Value, json};

use super::version::Version;

/// Of the specification, section 5, "Error"; 100 and above are the plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    IncompatibleVersion = 1,
    /// A field of the network configuration that is known and cannot be honoured.
    Unsupported = 2,
    /// The runtime need not clean up after this.
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidNetwork = 7,
    TryAgainLater = 11,
    /// STATUS: an ADD would fail.
    Unavailable = 50,
    /// porin's: the daemon refuses it, as things are.
    Refused = 100,
    /// porin's: it is attached already.
    Exists = 101,
}

impl Code {
    #[cfg(test)]
    const ALL: [Code; 11] = [
        Code::IncompatibleVersion,
        Code::Unsupported,
        Code::UnknownContainer,
        Code::InvalidEnvironment,
        Code::Io,
        Code::Decode,
        Code::InvalidNetwork,
        Code::TryAgainLater,
        Code::Unavailable,
        Code::Refused,
        Code::Exists,
    ];
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub what: String,
    pub details: String,
}

impl Failure {
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Failure { code, what: what.into(), details: String::new() }
    }

    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    pub fn to_json(&self, version: Version) -> Value {
        let mut json = json!({
            "cniVersion": version.as_str(),
            "code": self.code as u32,
            "msg": self.what,
        });
        if !self.details.is_empty() {
            json["details"] = self.details.as_str().into();
        }
        json
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, " ({})", self.details) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_man_page() {
        let page = include_str!("../../../man/porin-cni.8");
        let (_, section) = page.split_once(".Sh EXIT STATUS").unwrap();
        let (section, _) = section.split_once("\n.Sh ").unwrap();
        let items = section.lines().filter_map(|line| line.strip_prefix(".It ")?.parse().ok());
        assert_eq!(items.collect::<Vec<u32>>(), Code::ALL.map(|code| code as u32));
    }
}
