//! What a rule asks of a request's headers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Regular, is_token};
use crate::types::Invalid;

/// One header of a request: it must be there, and if a value is asked for, *every* field line of that name must have
/// it, as servers do not agree about which one counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    pub name: HeaderName,
    /// None: it is enough that it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<HeaderValue>,
}

/// In lower case: 1 to 128 characters of a token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderName(Box<str>);

/// Compared with all of a field line's value without the blanks around it, upper and lower case being different.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HeaderValue {
    Equals(Box<str>),
    /// `regex:...`
    Regex(Regular),
}

impl HeaderName {
    pub const MAX: usize = 128;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HeaderValue {
    pub const MAX: usize = 1024;
}

/// `"name" = "value"`, `"name" = true`.
impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "\"{}\" = \"{value}\"", self.name),
            None => write!(f, "\"{}\" = true", self.name),
        }
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HeaderName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let rules = "a header's name is like content-type or x-team, of 128 characters at most";
        if text.is_empty() || text.len() > Self::MAX {
            return Err(
                Invalid::new(format!("the header's name has {} bytes", text.len())).hint(rules)
            );
        }
        if let Some((at, c)) =
            text.char_indices().find(|(_, c)| !c.is_ascii() || !is_token(*c as u8))
        {
            return Err(Invalid::new(format!("{c:?} cannot stand in a header's name"))
                .hint(rules)
                .at(at));
        }
        let name = text.to_ascii_lowercase();
        if name == "host" {
            return Err(Invalid::new("the host is not matched as a header")
                .hint("write host = \"api.example.org\" beside `method` and `path`"));
        }
        Ok(HeaderName(name.into()))
    }
}

impl fmt::Display for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderValue::Equals(text) => f.write_str(text),
            HeaderValue::Regex(regular) => write!(f, "regex:{regular}"),
        }
    }
}

impl FromStr for HeaderValue {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(source) = text.strip_prefix("regex:") {
            return source.parse().map(HeaderValue::Regex);
        }
        if text.len() > Self::MAX {
            return Err(Invalid::new(format!("the header's value has {} bytes", text.len()))
                .hint("1024 bytes are allowed"));
        }
        if let Some((at, c)) = text.char_indices().find(|(_, c)| c.is_control()) {
            return Err(Invalid::new(format!("{c:?} cannot stand in a header's value"))
                .hint("values are text without control characters")
                .at(at));
        }
        if text.trim_matches(' ') != text {
            return Err(Invalid::new("the header's value begins or ends with a blank")
                .hint("leave it out: blanks around values do not count"));
        }
        Ok(HeaderValue::Equals(text.into()))
    }
}
