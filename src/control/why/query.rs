//! What is asked, as it is written: `FROM TO PORT/PROTO`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::port;
use crate::compile::view::{Party, View};
use crate::control::names;
use crate::types::label::check_value;
use crate::types::{Entity, Family, Invalid, Label, Labels, Name, PortMatch, PortSpec, Protocol};

/// One question, on the socket and in a line of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    pub from: String,
    pub to: String,
    pub port: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
}

/// What it means where it is asked.
pub struct Meant {
    pub from: Party,
    pub to: Party,
    pub protocol: Protocol,
    /// As in [`View::judge`].
    pub port: u16,
    pub source_port: Option<u16>,
    /// What the person who asks may not expect.
    pub notes: Vec<String>,
}

impl Query {
    /// `FROM TO PORT/PROTO`, or a JSON object.
    pub fn of_line(line: &str) -> Result<Query, Invalid> {
        if line.starts_with('{') {
            return serde_json::from_str(line).map_err(|error| {
                Invalid::new(format!("not a question: {error}"))
                    .hint("members are from, to, port and source_port")
            });
        }
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(from), Some(to), Some(port), None) => Ok(Query {
                from: from.to_owned(),
                to: to.to_owned(),
                port: port.to_owned(),
                source_port: None,
            }),
            _ => Err(Invalid::new("not a question").hint("write FROM TO PORT/PROTO")),
        }
    }

    pub fn meant(&self, view: &View, guess: &mut Guess) -> Result<Meant, Invalid> {
        let mut notes = Vec::new();
        let from = party(&self.from, view, guess, &mut notes)?;
        let to = party(&self.to, view, guess, &mut notes)?;
        if let (Some(one), Some(other)) = (from.family(), to.family())
            && one != other
        {
            let what = format!("no packet goes from {one} to {other}");
            return Err(Invalid::new(what).hint("ask for two addresses of one family"));
        }
        let (protocol, port) = match port::one(&self.port)? {
            PortSpec::Match(ports) => (ports.protocol, port::number(&self.port, ports)?),
            PortSpec::Named { name, protocol } => {
                let ports = named(&self.to, &to, &name, protocol)?;
                (protocol, port::number(&self.port, ports)?)
            }
        };
        let (from, to, port) = led(view, from, to, protocol, port, &mut notes);
        if self.source_port.is_some() && !protocol.has_ports() {
            return Err(Invalid::new(format!("{protocol} has no source ports"))
                .hint("leave the source port out"));
        }
        if self.source_port == Some(0) {
            return Err(Invalid::new("0 is not a source port").hint("ports are 1 to 65535"));
        }
        Ok(Meant { from, to, protocol, port, source_port: self.source_port, notes })
    }
}

/// Whom a port of the host's leads to, if it is published; and who that then comes from.
fn led(
    view: &View,
    from: Party,
    to: Party,
    protocol: Protocol,
    port: u16,
    notes: &mut Vec<String>,
) -> (Party, Party, u16) {
    let Party::Outside { address, .. } = to else { return (from, to, port) };
    let Some((member, own)) = view.published(&from, address, protocol, port) else {
        return (from, to, port);
    };
    let name = member.name.as_ref().map(Name::as_str).unwrap_or_default();
    let at = SocketAddr::new(address, port);
    notes.push(format!("{at}/{protocol} is published: it is `{name}`'s port {own}/{protocol}"));
    let family = Some(Family::of(address.to_canonical()));
    // Who is led there from the loopback comes from another address of the host's.
    let from = match from {
        Party::Outside { address, .. } if address.is_loopback() => Party::Entity(Entity::Host),
        from => from,
    };
    (from, Party::Endpoint { member: Arc::clone(member), family }, own)
}

/// The receiver's port of that name.
fn named(text: &str, to: &Party, name: &Name, protocol: Protocol) -> Result<PortMatch, Invalid> {
    let fault = |why: &str| {
        let what = format!("`{text}` has no port {name}/{protocol}{why}");
        Err(Invalid::new(what).hint("write its number"))
    };
    let Some(member) = to.member() else { return fault(": it is no endpoint") };
    match member.ports.get(name) {
        Some(ports) if ports.protocol == protocol => Ok(*ports),
        Some(ports) => fault(&format!(": there it is {ports}")),
        None => fault(""),
    }
}

fn party(
    text: &str,
    view: &View,
    guess: &mut Guess,
    notes: &mut Vec<String>,
) -> Result<Party, Invalid> {
    if let Ok(name) = text.parse::<Name>()
        && let Some(member) = view.endpoint(&name)
    {
        return Ok(Party::Endpoint { member: Arc::clone(member), family: None });
    }
    if let Some(entity) = text.strip_prefix("entity:") {
        return Ok(Party::Entity(entity.parse()?));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let party = view.who(address);
        let unknown = matches!(party, Party::Unassigned(_))
            && view.has_unknown_addresses(Family::of(address));
        if unknown {
            notes.push(format!("who has {address} is not known without the daemon"));
        }
        return Ok(party);
    }
    if let Ok(entity) = text.parse::<Entity>() {
        return Ok(Party::Entity(entity));
    }
    if text.contains('=') {
        let labels = labels(text)?;
        for (key, _) in labels.iter().filter(|(key, _)| !view.wants(key)) {
            notes.push(format!("the label {key} is left out: [labels] of porin.toml says so"));
        }
        let member = Arc::new(view.hypothetical(labels));
        return Ok(Party::Endpoint { member, family: None });
    }
    let names = view.endpoints().filter_map(|member| Some(member.name.as_ref()?.as_str()));
    if let Some(name) = names::meant(text, names)?
        && let Some(member) = view.endpoint(&name.parse()?)
    {
        notes.push(format!("`{text}` is taken for the endpoint `{name}`"));
        return Ok(Party::Endpoint { member: Arc::clone(member), family: None });
    }
    let unknown = Invalid::new(format!("there is no endpoint `{text}`"));
    Err(match guess.nearest(text, view) {
        Some(name) => unknown.hint(format!("did you mean `{name}`?")),
        None => unknown.hint(
            "write an endpoint's name, labels (app=web,env=prod), an address, or an entity \
             (host, world, ...)",
        ),
    })
}

/// `app=x,env=y`.
fn labels(text: &str) -> Result<Labels, Invalid> {
    let mut labels = Labels::default();
    for pair in text.split(',') {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Invalid::new(format!("`{pair}` is not a label"))
                .hint("labels are written app=web,env=prod"));
        };
        check_value(value)?;
        if !labels.insert(Label { key: key.parse()?, value: value.to_owned() }) {
            return Err(Invalid::new(format!("the label `{key}` is there twice"))
                .hint("an endpoint has one value of each key"));
        }
    }
    Ok(labels)
}

/// What a name that is wrong could be meant to be: of all questions that are asked together, the first such name is worth
/// comparing with those that there are.
#[derive(Debug, Default)]
pub struct Guess {
    made: bool,
}

impl Guess {
    /// Names that a text is compared with.
    const MOST: usize = 1000;
    /// Below, a suggestion is none.
    const ALIKE: f64 = 0.85;

    fn nearest<'a>(&mut self, text: &str, view: &'a View) -> Option<&'a Name> {
        if text.len() > Name::MAX || std::mem::replace(&mut self.made, true) {
            return None;
        }
        let mut names: Vec<&Name> =
            view.endpoints().filter_map(|member| member.name.as_ref()).collect();
        if names.len() > Self::MOST {
            // Those that begin alike and are about as long.
            let first = text.as_bytes().first();
            names.select_nth_unstable_by_key(Self::MOST, |name| {
                let other = name.as_str();
                (other.as_bytes().first() != first, other.len().abs_diff(text.len()), *name)
            });
            names.truncate(Self::MOST);
        }
        let scored =
            names.into_iter().map(|name| (strsim::jaro_winkler(text, name.as_str()), name));
        let best = scored.max_by(|(a, x), (b, y)| a.total_cmp(b).then(y.cmp(x)));
        best.filter(|(score, _)| *score >= Self::ALIKE).map(|(_, name)| name)
    }
}
