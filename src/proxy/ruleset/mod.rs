//! Which requests pass: the judge made of what both ends' rules say.

mod glob;
mod judge;

pub use crate::types::http::{Side, SideRule};
pub use judge::{Denial, Headers, Matcher, Refusal, Request, Rules, Verdict};
