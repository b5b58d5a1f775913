//! Methods of requests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::is_token;
use crate::types::Invalid;

/// A method as it is sent (RFC 9110 section 9): 1 to 32 characters of a token, upper and lower case being different.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Method(Box<str>);

impl Method {
    pub const MAX: usize = 32;

    /// What nobody means by another case.
    const COMMON: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_connect(&self) -> bool {
        &*self.0 == "CONNECT"
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Method {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let rules = "a method is a word like GET or PROPFIND, of 32 characters at most";
        if text.is_empty() || text.len() > Self::MAX {
            return Err(Invalid::new(format!("the method has {} bytes", text.len())).hint(rules));
        }
        if let Some((at, c)) =
            text.char_indices().find(|(_, c)| !c.is_ascii() || !is_token(*c as u8))
        {
            let hint = if c == '*' || c == ',' {
                "leave `method` out for any; write a rule for each"
            } else {
                rules
            };
            return Err(Invalid::new(format!("{c:?} cannot stand in a method")).hint(hint).at(at));
        }
        if text == "*" {
            return Err(Invalid::new("`*` is no method").hint("leave `method` out for any"));
        }
        let upper = text.to_ascii_uppercase();
        if upper != text && Self::COMMON.contains(&upper.as_str()) {
            return Err(Invalid::new(format!("`{text}` is no method: their case matters"))
                .hint(format!("write {upper}")));
        }
        Ok(Method(text.into()))
    }
}
