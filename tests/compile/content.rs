//! What a plan says once every number is replaced by what it means: two plans that mean the same are the same text, however
//! they were come to.

use std::collections::{BTreeMap, BTreeSet};

use porin::compile::plan::{Plan, PolicyTable};
use porin::types::{Family, Labels, Peer};

pub fn of(plan: &Plan) -> BTreeMap<String, String> {
    let peers = Peers::new(plan);
    let mut all = BTreeMap::new();
    let mut add = |key: String, value: String| {
        assert_eq!(all.insert(key, value), None);
    };
    for (address, slot) in &*plan.addresses {
        add(format!("address {address}"), plan.endpoints[slot].endpoint.name.to_string());
    }
    for planned in plan.endpoints.values() {
        let endpoint = &planned.endpoint;
        let name = &endpoint.name;
        add(
            format!("endpoint {name}"),
            format!("{} {:?} {:?}", endpoint.labels, endpoint.ports, planned.features),
        );
        let tables = [("", Some(planned.policy)), (" in shadow", planned.shadow)];
        for (kind, slot) in tables {
            let text = slot.map(|slot| peers.table(plan, &plan.policies[&slot]));
            add(format!("table of {name}{kind}"), text.unwrap_or_default());
        }
    }
    for planned in plan.uplinks.values() {
        add(format!("uplink {}", planned.uplink.interface), format!("{:?}", planned.features));
    }
    for (prefix, value) in &plan.prefixes.entries {
        let whose = peers.meaning(value.peer);
        add(format!("prefix {prefix}"), format!("{whose} {} {}", value.host, value.pool));
    }
    add("sources".to_owned(), format!("{:?}", plan.sources.runs));
    add("rules".to_owned(), format!("{:?}", plan.rules));
    add("host sources".to_owned(), format!("{:?}", plan.host_sources));
    // Nothing is kept that nobody uses.
    let used = plan.endpoints.values().flat_map(|e| [Some(e.policy), e.shadow]).flatten();
    add(
        "tables".to_owned(),
        (plan.policies.len() - used.collect::<BTreeSet<_>>().len()).to_string(),
    );
    let mut classes: Vec<&str> = plan.classes.keys().map(|class| peers.meaning(*class)).collect();
    classes.sort();
    add("classes".to_owned(), classes.join("; "));
    all
}

/// Who is meant by a number in tables.
struct Peers(BTreeMap<Peer, String>);

impl Peers {
    fn new(plan: &Plan) -> Self {
        let mut bearers: BTreeMap<Peer, (BTreeSet<String>, &Labels)> = BTreeMap::new();
        for planned in plan.endpoints.values() {
            let endpoint = &planned.endpoint;
            for (family, peer) in Family::BOTH.into_iter().zip(planned.peers) {
                let (names, labels) =
                    bearers.entry(peer).or_insert((BTreeSet::new(), &endpoint.labels));
                names.insert(format!("{}/{family}", endpoint.name));
                assert_eq!(**labels, *endpoint.labels, "one number, two identities");
            }
        }
        let bearers = bearers.into_iter();
        let mut all: BTreeMap<Peer, String> =
            bearers.map(|(peer, (names, labels))| (peer, format!("{names:?} {labels}"))).collect();
        for (peer, class) in plan.classes.iter() {
            let prefixes = plan.prefixes.entries.iter();
            let own = prefixes.filter(|(_, value)| value.peer == *peer);
            let families: BTreeSet<Family> = own.map(|(net, _)| Family::of(net.addr())).collect();
            all.insert(*peer, format!("{class:?} {families:?}"));
        }
        all.insert(Peer::ANY, "any".to_owned());
        Peers(all)
    }

    fn meaning(&self, peer: Peer) -> &str {
        self.0.get(&peer).unwrap_or_else(|| panic!("{peer} is nobody"))
    }

    fn table(&self, plan: &Plan, table: &PolicyTable) -> String {
        let line = |(key, value): &(_, _)| {
            let (key, value): (
                &porin::compile::plan::PolicyKey,
                &porin::compile::plan::PolicyValue,
            ) = (key, value);
            let rule = plan.rules.get(&value.cookie).map(|rule| (&rule.policy, rule.rule));
            format!(
                "{} {} {} {:?}: {} {:x} {rule:?}",
                key.direction,
                self.meaning(key.peer),
                key.source.0,
                key.ports,
                value.verdict,
                value.precedence,
            )
        };
        table
            .entries
            .iter()
            .map(line)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join("\n")
    }
}
