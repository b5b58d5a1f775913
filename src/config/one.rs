//! A single file of endpoints, read as the loader reads it: for who writes one and must not write a wrong one.

use std::path::Path;
use std::sync::Arc;

use super::files::Kind;
use super::model::Endpoint;
use super::parse::{Content, parse};
use super::report::Report;
use super::source::Source;

/// The endpoints that a file `path` of `endpoints.d` with this text has, or all its faults. What it may not have in
/// common with other files (names, namespaces, addresses) is not looked at.
pub fn endpoints(path: &Path, text: String) -> Result<Vec<Arc<Endpoint>>, Report> {
    let source = Source::new(path.into(), text);
    match parse(Kind::Endpoints, &source) {
        (Some(Content::Endpoints(written)), faults) if faults.errors() == 0 => {
            Ok(written.into_iter().map(|written| written.endpoint).collect())
        }
        (_, faults) => Err(Report::new(faults)),
    }
}
