//! Whom selectors pick, and which of those have a named port, without trying every endpoint for each.

use std::collections::HashMap;

use super::check::In;
use super::endpoint::WrittenEndpoint;
use super::model::{Host, Peer};
use crate::types::selector::Requirement;
use crate::types::{Entity, Labels, Name, PortSpec, Protocol, Selector};

pub struct Picks<'a> {
    host: &'a Host,
    /// What identities are made of.
    labels: Vec<Labels>,
    /// Indices into `labels`.
    bearers: HashMap<(String, String), Vec<usize>>,
    known: HashMap<Selector, bool>,
    /// The labels of those that have the named port.
    named: HashMap<(&'a Name, Protocol), Vec<Labels>>,
    known_named: HashMap<(Name, Protocol, Selector), bool>,
}

impl<'a> Picks<'a> {
    pub fn new(host: &'a Host, endpoints: &[In<'a, WrittenEndpoint>]) -> Self {
        let labels = |(_, written): &In<WrittenEndpoint>| {
            written.endpoint.labels.filtered(|key| host.labels.wants(key))
        };
        let mut named: HashMap<_, Vec<Labels>> = HashMap::new();
        for each in endpoints {
            for (name, port) in &each.1.endpoint.ports {
                named.entry((name, port.protocol)).or_default().push(labels(each));
            }
        }
        for bearers in named.values_mut() {
            bearers.sort();
            bearers.dedup();
        }
        let mut labels: Vec<Labels> = endpoints.iter().map(labels).collect();
        labels.sort();
        labels.dedup();
        let mut bearers: HashMap<_, Vec<usize>> = HashMap::new();
        for (i, labels) in labels.iter().enumerate() {
            for (key, value) in labels.iter() {
                bearers.entry((key.to_string(), value.to_owned())).or_default().push(i);
            }
        }
        let (known, known_named) = (HashMap::new(), HashMap::new());
        Picks { host, labels, bearers, known, named, known_named }
    }

    /// Why `selector` picks no endpoint, and what to do; none if it picks any.
    pub fn nobody(&mut self, selector: &Selector) -> Option<(String, String)> {
        let mut positive = selector.requirements().filter(|requirement| {
            matches!(requirement, Requirement::Exists(_) | Requirement::In(..))
        });
        if let Some(ignored) =
            positive.find(|requirement| !self.host.labels.wants(requirement.key()))
        {
            let key = ignored.key();
            return Some((
                format!("picks nobody: [labels] leaves the label `{key}` out"),
                format!("include `{key}` in [labels] of porin.toml"),
            ));
        }
        let picks = match self.known.get(selector) {
            Some(picks) => *picks,
            None => {
                let picks = self.any(selector);
                self.known.insert(selector.clone(), picks);
                picks
            }
        };
        let hint = "see `porinctl endpoints` for the labels that there are";
        (!picks).then(|| ("picks no endpoint".to_owned(), hint.to_owned()))
    }

    fn any(&self, selector: &Selector) -> bool {
        let bearers = |requirement: &Requirement| match requirement {
            Requirement::In(key, values) if values.len() == 1 => {
                let value = values.first().cloned().unwrap_or_default();
                Some(self.bearers.get(&(key.to_string(), value)).map_or(&[][..], Vec::as_slice))
            }
            _ => None,
        };
        match selector.requirements().filter_map(bearers).min_by_key(|bearers| bearers.len()) {
            Some(few) => few.iter().any(|i| selector.matches(&self.labels[*i])),
            None => self.labels.iter().any(|labels| selector.matches(labels)),
        }
    }

    /// Why no receiver has any of `specs`, a named port of some protocols, and what to do.
    pub fn nowhere(
        &mut self,
        specs: &[PortSpec],
        receivers: &Receivers,
    ) -> Option<(String, String)> {
        let mut exists = false;
        let mut protocols = Vec::new();
        let mut named = None;
        for spec in specs {
            let PortSpec::Named { name, protocol } = spec else { return None };
            if self.has(name, *protocol, receivers)? {
                return None;
            }
            exists |= self.named.contains_key(&(name, *protocol));
            protocols.push(protocol.to_string());
            named = Some(name);
        }
        let (name, protocols) = (named?, protocols.join("+"));
        Some(match exists {
            true => (
                format!("no endpoint that receives has a port `{name}` of {protocols}"),
                "others have; see `porinctl endpoints` for the labels that there are".to_owned(),
            ),
            false => (
                format!("no endpoint has a port `{name}` of {protocols}"),
                format!("name it in `ports` of [[endpoint]], like {name} = \"8080/tcp\""),
            ),
        })
    }

    /// None: nobody can tell.
    fn has(&mut self, name: &Name, protocol: Protocol, receivers: &Receivers) -> Option<bool> {
        let Some(bearers) = self.named.get(&(name, protocol)) else { return Some(false) };
        let known = &mut self.known_named;
        let mut has = |selector: &Selector| {
            let key = (name.clone(), protocol, selector.clone());
            *known.entry(key).or_insert_with(|| {
                bearers.len() > MOST || bearers.iter().any(|labels| selector.matches(labels))
            })
        };
        let peer = |peer: &Peer| match peer {
            Peer::Selector(selector) => Some(has(selector)),
            Peer::Entity(entity) => Some(matches!(entity, Entity::All | Entity::Cluster)),
            Peer::Cidr(_) | Peer::Group(_) => None,
        };
        match receivers {
            Receivers::Subject(subject) => Some(has(subject)),
            Receivers::Peers([]) => Some(true),
            Receivers::Peers(peers) => {
                let each: Option<Vec<bool>> = peers.iter().map(peer).collect();
                Some(each?.contains(&true))
            }
        }
    }
}

/// Label sets that are tried for each selector: of more, it is not told.
const MOST: usize = 1000;

/// Whose port a rule's is.
pub enum Receivers<'a> {
    Subject(&'a Selector),
    Peers(&'a [Peer]),
}
