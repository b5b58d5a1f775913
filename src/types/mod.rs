//! The vocabulary of porin: labels, selectors, addresses, ports, numbers, verdicts.
//!
//! Pure values. What can be built is valid; what is not valid cannot be built, and says why.
//! Nothing here knows of files, kernels or clocks.

pub mod addr;
pub mod entity;
pub mod http;
pub mod icmp;
pub mod id;
pub mod label;
pub mod name;
pub mod origin;
pub mod port;
pub mod port_text;
pub mod publication;
pub mod selector;
pub mod verdict;

pub use addr::{AddressKey, Family, Mac};
pub use entity::Entity;
pub use id::{Cookie, Generation, Identity, Peer, PolicySlot, RulesetId, Side, Slot};
pub use label::{Label, LabelKey, Labels};
pub use name::Name;
pub use origin::Origin;
pub use port::{PortMatch, PortRange, PortSpec, Protocol};
pub use publication::Publication;
pub use selector::Selector;
pub use verdict::{Action, Direction, Mode, Tier, Verdict};

/// Text that does not make a valid value: what is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Invalid {
    /// One sentence without a full stop: what is wrong.
    pub what: String,
    /// What to write instead, if that can be said.
    pub hint: Option<String>,
    /// Byte offset into the text that was parsed, where that is known.
    pub at: Option<usize>,
}

impl Invalid {
    pub fn new(what: impl Into<String>) -> Self {
        Invalid { what: what.into(), hint: None, at: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn at(mut self, offset: usize) -> Self {
        self.at = Some(offset);
        self
    }
}
