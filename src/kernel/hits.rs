//! Counters of rules that are no more.
//!
//! A cookie is its rule's for as long as the rule does and matches what it does, wherever in its policy it stands and over
//! restarts too, so its counter goes on with it. What no plan in force has any more makes room: once no packet can be judged by it, and before the number may
//! be another's.

use std::collections::BTreeSet;

use super::datapath::{Maps, Result, abi};
use crate::compile::plan::RuleTable;
use crate::types::Cookie;

/// Deletes the counters of what is not in `rules`. `before`: what it was when this was done last; none: not
/// known, so that all counters are looked at.
pub fn forget(maps: &Maps, before: Option<&RuleTable>, rules: &RuleTable) -> Result<()> {
    let gone: BTreeSet<Cookie> = match before {
        Some(before) => before.gone(rules).collect(),
        None => {
            let counted = maps.hits()?.into_iter().map(|(key, _)| Cookie(key.cookie));
            counted.filter(|cookie| !rules.contains_key(cookie)).collect()
        }
    };
    for cookie in gone {
        for shadow in [0, 1] {
            maps.delete_hits(&abi::HitKey { cookie: cookie.0, shadow })?;
        }
    }
    Ok(())
}
