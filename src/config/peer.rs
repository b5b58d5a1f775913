//! Peers, as written: selectors, `cidr:NETWORK`, `entity:NAME`, `group:NAME`; and what a rule's `except` takes out.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::fault::Fault;
use super::model::{CidrSet, Peer};
use super::table::{Item, Table, nearest};
use super::{selector, value};
use crate::types::{Entity, Invalid, Selector};

/// Kinds of peers, those of later versions too.
const KINDS: [&str; 5] = ["cidr", "entity", "group", "name", "service"];

/// `from` and `to`: each peer once, with its place. Not there: none.
pub fn list(table: &Table, key: &'static str) -> Option<Vec<(Peer, Range<usize>)>> {
    let Some(item) = table.optional(key) else {
        return Some(Vec::new());
    };
    let items = not_empty(&item, item.peers()?, "peer")?;
    each(&items)
}

/// Said twice is said once.
pub fn each(items: &[Item]) -> Option<Vec<(Peer, Range<usize>)>> {
    let peers: Vec<_> = items.iter().map(|item| Some((read(item)?, item.span.clone()))).collect();
    let mut peers = peers.into_iter().collect::<Option<Vec<_>>>()?;
    let mut seen = HashSet::with_capacity(peers.len());
    peers.retain(|(peer, _)| seen.insert(peer.clone()));
    Some(peers)
}

/// For a list that restricts: an empty one would restrict to nothing, and looks like everything.
pub fn not_empty<'a>(item: &Item, items: Vec<Item<'a>>, of: &str) -> Option<Vec<Item<'a>>> {
    if items.is_empty() {
        let hint = format!(
            "to mean every {of}, leave `{}` out; what matches nothing need not be written",
            item.key
        );
        item.fault(format!("`{}` is empty", item.key), hint);
        return None;
    }
    Some(items)
}

fn read(item: &Item) -> Option<Peer> {
    if item.is_table() {
        return selector::read(item).map(Peer::Selector);
    }
    let text = item.text()?;
    if let Some(kind) = peer_kind(text) {
        return kind.read(item, text);
    }
    if is_address(text) {
        let what = format!("`{text}` is an address, but stands where a selector is expected");
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address).to_string(),
            Err(_) => text.to_owned(),
        };
        item.fault(what, format!("write cidr:{network}"));
        return None;
    }
    if text == "*" {
        let hint = format!("leave `{}` out, or write entity:all", item.key);
        item.fault("`*` is not a selector", hint);
        return None;
    }
    let selector: Selector = item.parse()?;
    if Entity::NAMES.iter().any(|(name, _)| *name == text) {
        let what = format!("`{text}` picks endpoints with the label key `{text}`");
        let fault = Fault::warning(item.sink.place(&item.span), what);
        item.sink.push(fault.hint(format!("if the entity is meant, write entity:{text}")));
    }
    Some(Peer::Selector(selector))
}

enum Kind {
    Cidr,
    Entity,
    Group,
    Later(&'static str),
    /// Hardly a label key: a misspelt kind. As a selector it would pick nobody, and weaken a deny.
    Misspelt(&'static str),
}

/// Whether `text`, if it is a selector, is read as one.
pub fn is_selector(text: &str) -> bool {
    peer_kind(text).is_none() && !is_address(text)
}

fn is_address(text: &str) -> bool {
    text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok()
}

fn peer_kind(text: &str) -> Option<Kind> {
    let (written, _) = text.split_once(':')?;
    let kind = match KINDS.iter().find(|name| **name == written) {
        Some(&"cidr") => Kind::Cidr,
        Some(&"entity") => Kind::Entity,
        Some(&"group") => Kind::Group,
        Some(name) => Kind::Later(name),
        None => {
            let lower = written.to_ascii_lowercase();
            Kind::Misspelt(nearest(&lower, KINDS.into_iter())?)
        }
    };
    Some(kind)
}

impl Kind {
    fn read(self, item: &Item, text: &str) -> Option<Peer> {
        match self {
            Kind::Cidr => {
                let network = item.parse_by(cidr)?;
                Some(Peer::Cidr(CidrSet { network, except: Vec::new() }))
            }
            Kind::Entity => {
                let parse = |text: &str| text.strip_prefix("entity:").unwrap_or(text).parse();
                Some(Peer::Entity(item.parse_by(parse)?))
            }
            Kind::Group => {
                let parse = |text: &str| text.strip_prefix("group:").unwrap_or(text).parse();
                Some(Peer::Group(item.parse_by(parse)?))
            }
            Kind::Later(kind) => {
                let what = format!("`{kind}:` peers are not supported by this version");
                item.fault(what, "write a selector, cidr:NETWORK, entity:NAME or group:NAME");
                None
            }
            Kind::Misspelt(near) => {
                let what = format!("`{text}` is no kind of peer that there is");
                item.fault(what, format!("did you mean `{near}:`?"));
                None
            }
        }
    }
}

fn cidr(text: &str) -> Result<IpNet, Invalid> {
    let (prefix, network) = text.split_at("cidr:".len().min(text.len()));
    let as_peer =
        |hint: String| hint.replace("write ", "write cidr:").replace(", or ", ", or cidr:");
    value::network(network).map_err(|mut invalid| {
        debug_assert_eq!(prefix, "cidr:");
        invalid.hint = invalid.hint.map(as_peer);
        invalid
    })
}

/// The networks of `except` that are sound, each once, with its first place.
pub fn exceptions<'a>(item: &Item<'a>) -> Vec<(IpNet, Item<'a>)> {
    let items = item.list().unwrap_or_default();
    let mut seen = HashSet::new();
    let sound = items.into_iter().filter_map(|item| Some((exception(&item)?, item)));
    sound.filter(|(network, _)| seen.insert(*network)).collect()
}

fn exception(item: &Item) -> Option<IpNet> {
    let text = item.text()?;
    if text.starts_with("cidr:") {
        return item.parse_by(cidr);
    }
    let hint = match text.parse::<IpNet>() {
        Ok(network) => format!("write cidr:{network}"),
        Err(_) => "write cidr:NETWORK; to spare endpoints, use a selector like app!=web".to_owned(),
    };
    item.fault("`except` takes only networks", hint);
    None
}

/// Pairs of a network and an exception that one rule may name: each network keeps its exceptions.
const PAIRS: usize = 100_000;

/// Takes each exception out of every network that it is inside of.
pub fn except(table: &Table, peers: &mut [(Peer, Range<usize>)], exceptions: &[(IpNet, Item)]) {
    let networks = peers.iter().filter(|(peer, _)| matches!(peer, Peer::Cidr(_))).count();
    if networks.saturating_mul(exceptions.len()) > PAIRS {
        let what = format!(
            "this rule takes {} exceptions out of {networks} networks: more than {PAIRS} pairs",
            exceptions.len()
        );
        let fault = Fault::error(table.sink.place(&table.span), what);
        table.sink.push(fault.hint("split the rule, or name wider networks"));
        return;
    }
    for (exception, item) in exceptions {
        let mut found = false;
        for (peer, _) in peers.iter_mut() {
            let Peer::Cidr(set) = peer else { continue };
            if set.network == *exception {
                item.error(format!(
                    "`{}` leaves nothing of the peer cidr:{}",
                    item.key, set.network
                ));
            }
            if set.network.contains(exception) {
                found = true;
                set.except.push(*exception);
            }
        }
        if !found {
            let what = format!("{exception} is not inside any network that this rule names");
            item.fault(what, "`except` takes parts out of the rule's own cidr: peers");
        }
    }
    for (peer, _) in peers {
        if let Peer::Cidr(set) = peer {
            set.except.sort();
        }
    }
}
