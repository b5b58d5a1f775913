//! Regular expressions of the `regex` crate: what they match takes linear time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::Invalid;

/// The text of a valid regular expression of bounded size, about bytes (no Unicode classes).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Regular(Box<str>);

impl Regular {
    /// Bytes of its text.
    pub const MAX: usize = 1024;
    /// Bytes that it takes compiled.
    const MAX_COMPILED: usize = 256 << 10;
    /// Bytes of the states that it keeps per thread that it runs in.
    const MAX_STATES: usize = 64 << 10;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Matches if all of the text does.
    ///
    /// # Errors
    /// None for what was parsed before, as the bounds are the same.
    pub fn compile(&self) -> Result<regex::bytes::Regex, regex::Error> {
        compile(&self.0)
    }
}

fn compile(source: &str) -> Result<regex::bytes::Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(&format!("\\A(?:{source})\\z"))
        .unicode(false)
        .size_limit(Regular::MAX_COMPILED)
        .dfa_size_limit(Regular::MAX_STATES)
        .nest_limit(32)
        .build()
}

impl fmt::Display for Regular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Regular {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > Self::MAX {
            return Err(Invalid::new(format!("the regular expression has {} bytes", text.len()))
                .hint("1 to 1024 bytes are allowed"));
        }
        // By itself first: `a)(?:b` is none, though it would be one in parentheses.
        let alone = regex::bytes::RegexBuilder::new(text)
            .unicode(false)
            .size_limit(Self::MAX_COMPILED)
            .nest_limit(32)
            .build();
        match alone.clone().and_then(|_| compile(text)) {
            Ok(_) => Ok(Regular(text.into())),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err(Invalid::new("the regular expression is too large")
                    .hint("lower its repetition counts"))
            }
            Err(_) if alone.is_ok() => {
                Err(Invalid::new("the regular expression ends in a comment")
                    .hint("leave the comment out"))
            }
            Err(error) => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or("").trim().trim_start_matches("error: ");
                Err(Invalid::new(format!("not a regular expression: {last}"))
                    .hint("the syntax is that of the Rust crate regex, without Unicode classes"))
            }
        }
    }
}
