//! What no file can tell alone: names, addresses and networks that must not meet. Both places are told.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;

use super::assertion::WrittenAssert;
use super::endpoint::WrittenEndpoint;
use super::fault::{Fault, Faults};
use super::group::WrittenGroup;
use super::host::{Merged, POOLS};
use super::model::{AddressWish, Host, MACHINES, Peer, Pool};
use super::policy::WrittenPolicy;
use super::published;
use super::source::Source;
use super::table::nearest;
use super::value::overlap;
use crate::types::{Direction, Name};

/// A thing with the text that it stands in.
pub type In<'a, T> = (&'a Arc<Source>, &'a T);

pub fn host(merged: &Merged, faults: &mut Faults) {
    if let Some((source, first)) = merged.pools.get(POOLS) {
        let what = format!("{} pools are more than the {POOLS} that fit", merged.pools.len());
        let fault = Fault::error(source.place(&first.name), what);
        faults.push(fault.hint("have fewer and larger ones"));
        return;
    }
    for (i, (source, later)) in merged.pools.iter().enumerate() {
        for (other, earlier) in &merged.pools[..i] {
            let name = &later.pool.name;
            if *name == earlier.pool.name {
                let fault = Fault::error(
                    source.place(&later.name),
                    format!("two pools are named `{name}`"),
                );
                faults
                    .push(fault.related(other.place(&earlier.name), "the other pool of this name"));
            }
            let (network, before) = (later.pool.network, earlier.pool.network);
            if overlap(&network, &before) {
                let what = format!("the pool {network} overlaps the pool {before}");
                let fault = Fault::error(source.place(&later.network), what);
                faults.push(fault.related(other.place(&earlier.network), "the other pool"));
            }
        }
    }
    disjoint(merged, faults);
    docker(merged, faults);
    let reload = &merged.host.reload;
    if let Some((source, span)) = merged.reload
        && reload.quiet > reload.at_most
    {
        let what =
            format!("`quiet` ({:?}) is longer than `at-most` ({:?})", reload.quiet, reload.at_most);
        faults.push(
            Fault::error(source.place(span), what).hint("at-most counts from the first change"),
        );
    }
}

/// Docker's subnets are parts of pools.
fn docker(merged: &Merged, faults: &mut Faults) {
    let networks = merged.docker_networks.iter();
    for (source, (network, span)) in networks.flat_map(|(s, all)| all.iter().map(move |n| (s, n))) {
        if !merged.host.pools.iter().any(|pool| pool.network.contains(network)) {
            let what = format!("`networks` of [docker]: {network} is not inside one pool");
            let hint = "take a part of a [[pool]]'s network";
            faults.push(Fault::error(source.place(span), what).hint(hint));
        }
    }
    if let Some((source, span)) = merged.docker_driver
        && merged.host.docker.driver
        && merged.host.docker.networks.is_empty()
    {
        let what = "Docker's driver has no addresses to give out";
        let parts: Vec<String> =
            merged.pools.iter().filter_map(|(_, pool)| upper_half(pool.pool.network)).collect();
        let hint = match parts.is_empty() {
            true => "add a [[pool]], and name a part of it as `networks`".to_owned(),
            false => format!("name parts of pools: networks = [{}]", parts.join(", ")),
        };
        faults.push(Fault::error(source.place(span), what).hint(hint));
    }
}

/// For a hint: what endpoints given by hand are least likely to have.
fn upper_half(network: IpNet) -> Option<String> {
    let length = network.prefix_len().checked_add(1)?;
    let half = network.subnets(length).ok()?.last()?;
    Some(format!("\"{half}\""))
}

/// An address is of one kind: an endpoint's, another host's or an unmanaged container's.
fn disjoint(merged: &Merged, faults: &mut Faults) {
    type Placed<'a> = (IpNet, &'static str, &'a Source, &'a Range<usize>);
    let mut all: Vec<Placed> = Vec::new();
    for (source, pool) in &merged.pools {
        all.push((pool.pool.network, "pool", source, &pool.network));
    }
    for (kind, said) in [("remote-hosts", &merged.remote_hosts), ("unmanaged", &merged.unmanaged)] {
        if let Some((source, networks)) = said {
            all.extend(networks.iter().map(|(network, span)| (*network, kind, &***source, span)));
        }
    }
    all.sort_by_key(|(network, ..)| *network);
    // Those that the network at hand is inside of.
    let mut around: Vec<Placed> = Vec::new();
    for inner in all {
        around.retain(|(outer, ..)| outer.contains(&inner.0));
        for outer in around.iter().filter(|outer| outer.1 != inner.1) {
            // Pools are what others must keep out of.
            let (wrong, right) = if inner.1 == "pool" { (outer, &inner) } else { (&inner, outer) };
            let what = match right.1 {
                "pool" => format!("`{}`: {} overlaps the pool {}", wrong.1, wrong.0, right.0),
                _ => format!("`{}`: {} overlaps {} of `{}`", wrong.1, wrong.0, right.0, right.1),
            };
            let fault = Fault::error(wrong.2.place(wrong.3), what);
            faults.push(fault.related(right.2.place(right.3), "the other network"));
        }
        around.push(inner);
    }
}

/// `host`: none if it is not known because of faults.
pub fn endpoints(endpoints: &[In<WrittenEndpoint>], host: Option<&Host>, faults: &mut Faults) {
    published::check(endpoints, host, faults);
    let pools = host.map(|host| host.pools.as_slice());
    unique(
        endpoints,
        faults,
        |written| Some((&written.endpoint.name, &written.name)),
        |name| format!("two endpoints are named `{name}`"),
    );
    unique(
        endpoints,
        faults,
        |written| {
            let endpoint = &written.endpoint;
            Some(((endpoint.namespace()?, endpoint.interface()), &written.place))
        },
        |(path, interface)| match path.strip_prefix(MACHINES) {
            Ok(machine) => {
                format!("two endpoints have `{interface}` in the machine `{}`", machine.display())
            }
            Err(_) => {
                format!("two endpoints have `{interface}` in the namespace `{}`", path.display())
            }
        },
    );
    unique(
        endpoints,
        faults,
        |written| {
            let endpoint = &written.endpoint;
            endpoint.is_adopted().then(|| (endpoint.interface(), &written.place))
        },
        |interface| format!("two endpoints are behind the interface `{interface}`"),
    );
    unique(
        endpoints,
        faults,
        |written| Some((written.endpoint.handed_over()?, &written.place)),
        |interface| format!("two endpoints hand over the interface `{interface}`"),
    );
    for (source, written) in endpoints.iter().filter(|(_, w)| w.endpoint.is_adopted()) {
        let interface = written.endpoint.interface();
        if host.is_some_and(|host| host.uplinks.iter().any(|u| u.interface == interface)) {
            let what = format!("`{interface}` is an uplink, which no endpoint is behind");
            let hint = "name the interface that leads to the endpoint alone; or was `namespace` forgotten?";
            faults.push(Fault::error(source.place(&written.place), what).hint(hint));
        }
    }
    for family in [ipv6, ipv4] {
        unique(
            endpoints,
            faults,
            |written| match family(written) {
                (AddressWish::Fixed(address), span) => Some((address, span)),
                _ => None,
            },
            |address| format!("two endpoints have the address {address}"),
        );
        for (source, written) in endpoints {
            let place = match written.endpoint.is_adopted() {
                true => taken,
                false => misplaced,
            };
            if let (AddressWish::Fixed(address), span) = family(written)
                && let Some((what, hint)) = pools.and_then(|pools| place(address, pools))
            {
                faults.push(Fault::error(source.place(span), what).hint(hint));
            }
        }
    }
}

pub fn policies(policies: &[In<WrittenPolicy>], faults: &mut Faults) {
    unique(
        policies,
        faults,
        |written| Some((&written.policy.name, &written.name)),
        |name| format!("two policies are named `{name}`"),
    );
}

pub fn groups(groups: &[In<WrittenGroup>], faults: &mut Faults) {
    unique(
        groups,
        faults,
        |written| Some((&written.group.name, &written.name)),
        |name| format!("two groups are named `{name}`"),
    );
}

/// Every group that is named must be one of `groups`.
pub fn references(
    policies: &[In<WrittenPolicy>],
    groups: &[In<WrittenGroup>],
    asserts: &[In<WrittenAssert>],
    faults: &mut Faults,
) {
    let known: HashSet<&Name> = groups.iter().map(|(_, written)| &written.group.name).collect();
    let mut check = |source: &Source, peers: &[Peer], spans: &[Range<usize>]| {
        for (peer, span) in peers.iter().zip(spans) {
            let Peer::Group(name) = peer else { continue };
            if known.contains(name) {
                continue;
            }
            let fault = Fault::error(source.place(span), format!("no group is named `{name}`"));
            // To compare with very many takes long, once for each fault.
            const MOST: usize = 1000;
            let names = || groups.iter().take(MOST).map(|(_, written)| written.group.name.as_str());
            faults.push(fault.hint(match nearest(name.as_str(), names()) {
                Some(near) => format!("did you mean `group:{near}`?"),
                None => "add a [[group]] of this name".to_owned(),
            }));
        }
    };
    for (source, written) in policies {
        for direction in Direction::BOTH {
            for (rule, places) in written.rules(direction) {
                check(source, &rule.peers, &places.peers);
            }
        }
    }
    for (source, written) in asserts {
        check(source, &written.assert.from, &written.from);
        check(source, &written.assert.to, &written.to);
    }
}

pub fn ipv6(written: &WrittenEndpoint) -> (AddressWish, &Range<usize>) {
    (written.endpoint.ipv6, &written.ipv6)
}

pub fn ipv4(written: &WrittenEndpoint) -> (AddressWish, &Range<usize>) {
    (written.endpoint.ipv4, &written.ipv4)
}

fn unique<'a, T, K: Copy + Hash + Eq>(
    things: &[In<'a, T>],
    faults: &mut Faults,
    key: impl Fn(&'a T) -> Option<(K, &'a Range<usize>)>,
    what: impl Fn(K) -> String,
) {
    let mut seen = HashMap::with_capacity(things.len());
    for (source, thing) in things {
        let Some((key, span)) = key(thing) else { continue };
        match seen.entry(key) {
            Entry::Vacant(vacant) => drop(vacant.insert((source, span))),
            Entry::Occupied(first) => {
                let (other, other_span) = first.get();
                let fault = Fault::error(source.place(span), what(key));
                faults.push(fault.related(other.place(other_span), "the other one"));
            }
        }
    }
}

/// Hosts route pools to porin, and the datapath takes any other address for the outside: so a fixed
/// address must be in a pool. It may be in a reserved part: that is what those are for.
fn misplaced(address: IpAddr, pools: &[Pool]) -> Option<(String, String)> {
    let Some(pool) = pools.iter().find(|pool| pool.network.contains(&address)) else {
        let networks: Vec<String> = pools.iter().map(|pool| pool.network.to_string()).collect();
        let hint = match networks.is_empty() {
            true => "add a [[pool]] to porin.toml".to_owned(),
            false => format!("pools are: {}", networks.join(", ")),
        };
        return Some((format!("{address} is not inside any pool"), hint));
    };
    let what = match address {
        _ if address == pool.network.network() => "the network's own address",
        _ if address == first_host(pool.network) => "the pool's first, which is the host's own",
        // IPv6 knows no broadcast.
        IpAddr::V4(_) if address == pool.network.broadcast() => "the network's broadcast address",
        _ => return None,
    };
    Some((format!("{address} is {what}"), format!("take another one in {}", pool.network)))
}

/// The other way round: porin gives out what is in its pools, and routes it to interfaces of its own.
fn taken(address: IpAddr, pools: &[Pool]) -> Option<(String, String)> {
    let pool = pools.iter().find(|pool| pool.network.contains(&address))?;
    let what = format!("{address} is inside the pool {}, which is porin's", pool.network);
    let hint =
        "an endpoint that porin makes no interface for is in a network of its own".to_owned();
    Some((what, hint))
}

pub fn first_host(network: IpNet) -> IpAddr {
    match network {
        IpNet::V4(v4) => IpAddr::V4((u32::from(v4.network()) + 1).into()),
        IpNet::V6(v6) => IpAddr::V6((u128::from(v6.network()) + 1).into()),
    }
}
