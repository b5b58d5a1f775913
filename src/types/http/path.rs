//! Patterns of paths.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Ambiguity, Regular, ambiguity};
use crate::types::Invalid;

/// What a request's path, without its query, is compared with, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PathPattern {
    /// `/v1/items`
    Exact(Box<str>),
    /// `/v1/**`: see [`Glob`].
    Glob(Glob),
    /// `regex:/v[0-9]+/.*`: the whole path.
    Regex(Regular),
}

/// A path in which `*` stands for any characters within a segment (at least one if it is the whole segment), and a
/// segment `**` for any number of segments, none among them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob(Box<str>);

impl PathPattern {
    /// Bytes of an exact path or glob.
    pub const MAX: usize = 1024;
    /// Asterisks of a glob.
    pub const MAX_WILD: usize = 16;
}

impl Glob {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Those between its slashes; `/` has one, which is empty.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.strip_prefix('/').unwrap_or(&self.0).split('/')
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathPattern::Exact(text) | PathPattern::Glob(Glob(text)) => f.write_str(text),
            PathPattern::Regex(regular) => write!(f, "regex:{regular}"),
        }
    }
}

impl FromStr for PathPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const PREFIX: &str = "regex:";
        if let Some(source) = text.strip_prefix(PREFIX) {
            let further = |invalid: Invalid| match invalid.at {
                Some(at) => invalid.at(at + PREFIX.len()),
                None => invalid,
            };
            return source.parse().map(PathPattern::Regex).map_err(further);
        }
        if text.len() > Self::MAX {
            return Err(Invalid::new(format!("the path has {} bytes", text.len()))
                .hint("1024 bytes are allowed"));
        }
        if matches!(text, "*" | "**") {
            return Err(Invalid::new(format!("`{text}` is no path")).hint("write /** for any path"));
        }
        if let Some(at) = text.find(['?', '#']) {
            return Err(Invalid::new("a path has no query and no fragment")
                .hint("leave it out: the query is not matched")
                .at(at));
        }
        if let Some(why) = ambiguity(text.as_bytes()) {
            return Err(Invalid::new(format!("nothing can match this: {why}")).hint(mend(why)));
        }
        if !text.contains('*') {
            return Ok(PathPattern::Exact(text.into()));
        }
        if let Some(segment) = text.split('/').find(|s| s.contains("**") && *s != "**") {
            return Err(Invalid::new(format!("`**` is not alone in its segment `{segment}`"))
                .hint("write * within a segment, /**/ for any number of segments"));
        }
        if text.matches('*').count() > Self::MAX_WILD {
            return Err(Invalid::new("the path has more than 16 asterisks")
                .hint("write a shorter pattern, or a regex:"));
        }
        Ok(PathPattern::Glob(Glob(text.into())))
    }
}

fn mend(why: Ambiguity) -> &'static str {
    match why {
        Ambiguity::Relative => "begin with /, or with regex:",
        Ambiguity::Byte => "write it as it is sent: %20 for a space, %C3%A9 for é",
        Ambiguity::Escape => "write two hexadecimal digits after %, like %20",
        _ => "requests whose path servers could read in different ways are always denied",
    }
}
