//! `[[group]]`: peers under a name, valid by themselves.

use std::ops::Range;
use std::sync::Arc;

use super::model::{Group, Peer};
use super::table::Table;
use super::{networks, peer};
use crate::types::Name;

#[derive(Debug, Clone)]
pub struct WrittenGroup {
    pub group: Arc<Group>,
    pub name: Range<usize>,
    /// Of each of the group's selectors, and of each of its networks.
    pub selectors: Vec<Range<usize>>,
    pub networks: Vec<Range<usize>>,
}

pub fn read(table: &Table) -> Option<WrittenGroup> {
    // All first, so that every fault of the table is told.
    let name = table.required("name");
    let name = name.and_then(|item| Some((item.parse::<Name>()?, item.span)));
    let members = table.required("members").and_then(|item| peer::each(&item.peers()?));
    let except = table.optional("except").map(|item| peer::exceptions(&item)).unwrap_or_default();
    let mut nested = false;
    let (mut selectors, mut entities, mut networks) = (Vec::new(), Vec::new(), Vec::new());
    for (member, span) in members? {
        match member {
            Peer::Selector(selector) => selectors.push((selector, span)),
            Peer::Entity(entity) => entities.push(entity),
            Peer::Cidr(set) => networks.push((set.network, span)),
            Peer::Group(other) => {
                table.sink.error(&span, format!("the group `{other}` cannot be in a group"));
                nested = true;
            }
        }
    }
    let networks = networks::merged(networks);
    let except = networks::exceptions(&networks, except);
    let (name, name_span) = name?;
    if nested {
        return None;
    }
    let (selectors, selector_spans) = selectors.into_iter().unzip();
    let (networks, network_spans) = networks.into_iter().unzip();
    let origin = table.sink.origin(&table.span);
    Some(WrittenGroup {
        group: Arc::new(Group { name, selectors, entities, networks, except, origin }),
        name: name_span,
        selectors: selector_spans,
        networks: network_spans,
    })
}
