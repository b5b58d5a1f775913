//! Whether a rule matches all that another matches. No means that it is not certain.

use super::model::{CidrSet, Peer, Rule};
use crate::types::{Entity, PortRange, PortSpec};

/// Of comparing two rules.
pub fn cost(wide: &Rule, narrow: &Rule) -> usize {
    1 + wide.peers.len() * narrow.peers.len()
        + wide.ports.len() * narrow.ports.len()
        + wide.source_ports.len() * narrow.source_ports.len()
}

pub fn rule(wide: &Rule, narrow: &Rule) -> bool {
    // What is allowed of connections is compared as it is written.
    (wide.l7.is_empty() || wide.l7 == narrow.l7)
        && each(&wide.ports, &narrow.ports, port)
        && each(&wide.source_ports, &narrow.source_ports, range)
        && (everyone(wide) || each(&wide.peers, &narrow.peers, |a, b| peer(wide, a, narrow, b)))
}

/// Whether it matches every packet of its direction.
pub fn is_everything(rule: &Rule) -> bool {
    everyone(rule) && rule.ports.is_empty() && rule.source_ports.is_empty() && rule.l7.is_empty()
}

fn everyone(rule: &Rule) -> bool {
    rule.peers.is_empty() || rule.peers.contains(&Peer::Entity(Entity::All))
}

/// Empty lists mean everything.
fn each<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    let one = |narrow| wide.iter().any(|wide| covers(wide, narrow));
    wide.is_empty() || !narrow.is_empty() && narrow.iter().all(one)
}

fn port(wide: &PortSpec, narrow: &PortSpec) -> bool {
    match (wide, narrow) {
        (PortSpec::Match(wide), PortSpec::Match(narrow)) => {
            wide.protocol == narrow.protocol && range(&wide.ports, &narrow.ports)
        }
        (PortSpec::Match(wide), PortSpec::Named { protocol, .. }) => {
            wide.protocol == *protocol && wide.ports == PortRange::ALL
        }
        (wide, narrow) => wide == narrow,
    }
}

fn range(wide: &PortRange, narrow: &PortRange) -> bool {
    wide.first() <= narrow.first() && narrow.last() <= wide.last()
}

fn peer(wide_rule: &Rule, wide: &Peer, narrow_rule: &Rule, narrow: &Peer) -> bool {
    // Networks that match endpoints are more than networks that do not.
    let reach = wide_rule.match_endpoints || !narrow_rule.match_endpoints;
    match (wide, narrow) {
        (Peer::Selector(wide), Peer::Selector(narrow)) => wide.covers(narrow),
        (Peer::Entity(Entity::Cluster), Peer::Selector(_)) => true,
        (Peer::Entity(wide), Peer::Entity(narrow)) => entity(*wide, *narrow),
        (Peer::Cidr(wide), Peer::Cidr(narrow)) => reach && cidr(wide, narrow),
        (Peer::Group(wide), Peer::Group(narrow)) => reach && wide == narrow,
        _ => false,
    }
}

fn entity(wide: Entity, narrow: Entity) -> bool {
    use Entity::{Cluster, Host, RemoteHost, Unmanaged, World, WorldIpv4, WorldIpv6};
    match wide {
        World => matches!(narrow, World | WorldIpv4 | WorldIpv6),
        Cluster => matches!(narrow, Cluster | Host | RemoteHost | Unmanaged),
        _ => wide == narrow,
    }
}

fn cidr(wide: &CidrSet, narrow: &CidrSet) -> bool {
    // What is taken out of the wide one must not be in the narrow one.
    let spared = |except: &ipnet::IpNet| {
        let apart = !except.contains(&narrow.network) && !narrow.network.contains(except);
        apart || narrow.except.iter().any(|spared| spared.contains(except))
    };
    wide.network.contains(&narrow.network)
        && (wide.except == narrow.except || wide.except.iter().all(spared))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::http::{HttpRule, L7};
    use crate::types::{Action, Origin};

    fn with(l7: L7) -> Rule {
        Rule {
            action: Action::Allow,
            peers: Vec::new(),
            ports: Vec::new(),
            source_ports: Vec::new(),
            match_endpoints: false,
            l7,
            origin: Origin { file: std::path::Path::new("f").into(), line: 1, column: 1 },
        }
    }

    #[test]
    fn a_rule_about_requests_is_less_than_one_about_packets() {
        let packets = with(L7::default());
        let requests = with(L7 { http: vec![HttpRule::default()], tls: None });
        assert!(rule(&packets, &requests) && rule(&requests, &requests));
        assert!(!rule(&requests, &packets));
        assert!(is_everything(&packets) && !is_everything(&requests));
    }
}
