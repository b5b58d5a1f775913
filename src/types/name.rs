//! Names of endpoints, policies, pools and ports, as operators write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// 1 to 253 characters: letters, digits, `.`, `_`, `-`, `/`; begins and ends with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Name {
    pub const MAX: usize = 253;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let rules = "a name has 1 to 253 letters, digits, `.`, `_`, `-`, `/`, and begins and ends with a letter or digit";
        if text.is_empty() {
            return Err(Invalid::new("the name is empty").hint(rules));
        }
        if text.len() > Self::MAX {
            return Err(Invalid::new(format!("the name has {} bytes", text.len())).hint(rules));
        }
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        if let Some((at, c)) = text.char_indices().find(|(_, c)| !inner(*c)) {
            return Err(Invalid::new(format!("{c:?} cannot stand in a name")).hint(rules).at(at));
        }
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        if !edge(text.chars().next()) || !edge(text.chars().last()) {
            return Err(Invalid::new("the name begins or ends with punctuation").hint(rules));
        }
        Ok(Name(text.to_owned()))
    }
}
