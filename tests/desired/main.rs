//! `desired`: numbers, addresses, leases, and snapshots from changes.

mod ipam;
mod leases;
mod numbering;
mod selectors;
mod state;
