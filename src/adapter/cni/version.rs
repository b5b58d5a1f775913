//! Versions of the specification, and how their forms differ.

use std::fmt;

use super::failure::{Code, Failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    pub const ALL: [Version; 4] =
        [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
    pub const NEWEST: Version = Version::V1_1_0;

    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// A configuration that names none is of a version before 0.2.0.
    ///
    /// # Errors
    /// The specification's code 1.
    pub fn of(text: Option<&str>) -> Result<Self, Failure> {
        let text = text.unwrap_or("0.1.0");
        let found = Version::ALL.into_iter().find(|version| version.as_str() == text);
        found.ok_or_else(|| {
            let all = Version::ALL.map(Version::as_str).join(", ");
            Failure::new(Code::IncompatibleVersion, format!("cniVersion {text:?} is not supported"))
                .details(format!("supported: {all}"))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
