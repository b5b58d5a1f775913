//! What should be: identities, addresses, endpoints, selectors. Pure: no I/O, no clock.
//!
//! Everything enters as a [`Change`]; what comes out is a [`snapshot::Snapshot`] for `compile`.

mod change;
mod conflicts;
mod describe;
pub mod digest;
mod fault;
mod identities;
pub mod ipam;
pub mod limits;
pub mod numbering;
pub mod selectors;
pub mod snapshot;
mod state;

pub use change::{Change, HostNetwork, UplinkFact};
pub use fault::Fault;
pub use ipam::Leases;
pub use state::Desired;
