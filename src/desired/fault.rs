//! What keeps a valid configuration from being in force, as it is here and now.
//!
//! Faults in the files themselves are `config`'s; these come from what the files meet: namespaces, pools, limits.

use std::fmt;

use serde::Serialize;

use crate::types::{Name, Origin};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The endpoint that stays closed for it. None: it is about the whole, which is refused if this came as an error.
    pub endpoint: Option<Name>,
    /// One sentence without a full stop.
    pub what: String,
    /// The cause, if there is more to say of it.
    pub why: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where what is concerned was written.
    pub origin: Option<Origin>,
    /// Goes away by itself when further generations have been committed.
    pub passing: bool,
}

impl Fault {
    /// A fault about everything.
    pub fn whole(what: impl Into<String>) -> Self {
        Fault {
            endpoint: None,
            what: what.into(),
            why: None,
            hint: None,
            origin: None,
            passing: false,
        }
    }

    /// A fault that keeps one endpoint closed.
    pub fn endpoint(name: &Name, what: impl Into<String>) -> Self {
        Fault { endpoint: Some(name.clone()), ..Fault::whole(what) }
    }

    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn origin(mut self, origin: &Origin) -> Self {
        self.origin = Some(origin.clone());
        self
    }

    pub fn passing(mut self) -> Self {
        self.passing = true;
        self
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        f.write_str(&self.what)?;
        if let Some(why) = &self.why {
            write!(f, ": {why}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}
