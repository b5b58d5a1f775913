//! Numbers, each its own type, so that none is mistaken for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A committed state of the whole host. 0: nothing was ever committed.
    Generation
}
number! {
    /// A security identity: one number per distinct set of security-relevant labels, local to the host.
    Identity
}
number! {
    /// What policy maps call the other side: 0 any, an identity, or an address class (from `Peer::CLASS`).
    Peer
}
number! {
    /// Index of an endpoint or uplink in the datapath's tables. 0: nobody.
    Slot
}
number! {
    /// Index of a policy table in the datapath. 0: nobody's.
    PolicySlot
}
number! {
    /// What one end's policies ask of requests, in the datapath's tables and flows: up to [`RulesetId::LAST`].
    RulesetId
}
number! {
    /// Names a rule (or a default) in events and flows. 0: the default without any policy.
    Cookie
}

impl RulesetId {
    /// `PORIN_MAX_RULESETS`: a flow has 16 bits for it.
    pub const LAST: u32 = 65_535;
}

impl Identity {
    /// Identities below are reserved.
    pub const FIRST: u32 = 256;
}

impl Peer {
    pub const ANY: Peer = Peer(0);
    /// Roles, parts of identities, are numbered from here; identities are below.
    pub const ROLE: u32 = 0x80_0000;
    /// Address classes are numbered from here; roles are below.
    pub const CLASS: u32 = 0x100_0000;

    pub fn is_class(self) -> bool {
        self.0 >= Self::CLASS
    }
}

impl From<Identity> for Peer {
    fn from(identity: Identity) -> Self {
        Peer(identity.0)
    }
}

impl Cookie {
    pub const NONE: Cookie = Cookie(0);
}

impl Default for Generation {
    fn default() -> Self {
        Self::NONE
    }
}

impl Generation {
    pub const NONE: Generation = Generation(0);

    /// The one after. Skips 0, which means "nothing committed", when the number wraps round.
    /// Two are skipped then, so that the side always changes.
    pub fn next(self) -> Generation {
        match self.0.wrapping_add(1) {
            0 => Generation(2),
            n => Generation(n),
        }
    }

    pub fn side(self) -> Side {
        Side((self.0 & 1) as u8)
    }
}

/// One of the two copies of every table that policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Side(u8);

impl Side {
    pub const BOTH: [Side; 2] = [Side(0), Side(1)];

    pub fn other(self) -> Side {
        Side(self.0 ^ 1)
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_always_changes_the_side_and_is_never_none() {
        for n in [0, 1, 2, u32::MAX - 1, u32::MAX] {
            let next = Generation(n).next();
            assert_ne!(next, Generation::NONE);
            assert_eq!(next.side(), Generation(n).side().other(), "{n}");
        }
    }
}
