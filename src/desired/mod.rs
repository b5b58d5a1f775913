//! What should be: identities, addresses, endpoints, selectors. Pure: no I/O, no clock.

pub mod snapshot;
