//! What the operator wrote: TOML files to a checked [`model::Config`], or every fault in them at once.

pub mod model;
