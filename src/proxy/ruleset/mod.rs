//! Which requests pass: what both ends' rules say, as data, and the judge made of it.

mod glob;
mod judge;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use crate::types::http::{Side, SideRule};
pub use judge::{Denial, Headers, Matcher, Refusal, Request, Verdict};

/// The rules of one kind of connection, which never change: other rules are another ruleset. A request must be allowed
/// by the sender's side and by the receiver's; a side that is not there allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ruleset {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Side>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Side>,
}

/// The name of a ruleset: equal for equal ones, and for no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Ruleset {
    /// SHA-256 of its JSON, whose order is that of the fields.
    pub fn digest(&self) -> Digest {
        // Nothing in it is a map, and memory takes all: it does not fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        Digest(Sha256::digest(json).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let invalid = "a digest has 64 hexadecimal digits";
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid);
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
            *byte = digit(digits[0]) << 4 | digit(digits[1]);
        }
        Ok(Digest(bytes))
    }
}
