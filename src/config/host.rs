//! `porin.toml` and its drop-ins: each to a part, all parts to one [`Host`].

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::docker::{self, DockerPart};
use super::keys;
use super::model::{Boot, Host, Pool, Uplink};
use super::source::Source;
use super::table::{Item, Table};
use super::{networks, value};
use crate::types::{Invalid, PortRange};

/// Uplinks at most.
const UPLINKS: usize = 64;
/// Pools at most, of all files. Each is compared with each.
pub const POOLS: usize = 1024;

/// What one file says. None: it does not speak of it.
#[derive(Debug, Clone, Default)]
pub struct HostPart {
    pub boot: Option<Boot>,
    pub mtu: Option<u16>,
    pub uplinks: Option<Vec<Uplink>>,
    pub remote_hosts: Option<Vec<WrittenNetwork>>,
    pub unmanaged: Option<Vec<WrittenNetwork>>,
    pub pools: Vec<WrittenPool>,
    pub include: Option<Vec<String>>,
    pub exclude: Option<Vec<String>>,
    pub masquerade: Option<bool>,
    pub masquerade_ports: Option<PortRange>,
    pub entries: Option<u32>,
    pub accounting: Option<bool>,
    pub flows: Option<bool>,
    pub rate: Option<u32>,
    pub quiet: Option<(Duration, Range<usize>)>,
    pub at_most: Option<(Duration, Range<usize>)>,
    pub docker: DockerPart,
}

#[derive(Debug, Clone)]
pub struct WrittenPool {
    pub pool: Pool,
    pub name: Range<usize>,
    pub network: Range<usize>,
}

/// A network with its place.
pub type WrittenNetwork = (IpNet, Range<usize>);

pub fn read(root: &Table) -> HostPart {
    let mut part = HostPart {
        boot: root.optional("boot").and_then(|item| item.parse_by(boot)),
        mtu: root.optional("mtu").and_then(|item| item.integer(1280..=65535)).map(|mtu| mtu as u16),
        uplinks: uplinks(root),
        remote_hosts: networks(root, "remote-hosts"),
        unmanaged: networks(root, "unmanaged"),
        pools: root.tables("pool", &keys::POOL).iter().filter_map(pool).collect(),
        docker: docker::read(root),
        ..HostPart::default()
    };
    if let Some(labels) = root.table("labels", &keys::LABELS) {
        part.include = patterns(&labels, "include");
        part.exclude = patterns(&labels, "exclude");
    }
    if let Some(masquerade) = root.table("masquerade", &keys::MASQUERADE) {
        part.masquerade = masquerade.optional("enabled").and_then(|item| item.boolean());
        part.masquerade_ports = masquerade_ports(&masquerade);
    }
    if let Some(conntrack) = root.table("conntrack", &keys::CONNTRACK) {
        let entries = conntrack.optional("entries");
        part.entries = entries.and_then(|item| item.integer(1024..=16_777_216));
        part.accounting = conntrack.optional("accounting").and_then(|item| item.boolean());
    }
    if let Some(flows) = root.table("flows", &keys::FLOWS) {
        part.flows = flows.optional("enabled").and_then(|item| item.boolean());
        part.rate = flows.optional("rate").and_then(|item| item.integer(1..=1_000_000));
    }
    if let Some(reload) = root.table("reload", &keys::RELOAD) {
        part.quiet = duration(&reload, "quiet");
        part.at_most = duration(&reload, "at-most");
    }
    part
}

fn boot(text: &str) -> Result<Boot, Invalid> {
    match text {
        "open" => Ok(Boot::Open),
        "closed" => Ok(Boot::Closed),
        _ => Err(Invalid::new(format!("`{text}` is not open or closed"))),
    }
}

fn uplinks(root: &Table) -> Option<Vec<Uplink>> {
    let mut uplinks: Vec<Uplink> = Vec::new();
    let written = root.optional("uplinks")?;
    let items = written.list()?;
    if items.len() > UPLINKS {
        let what = format!("{} uplinks are more than the {UPLINKS} that fit", items.len());
        written.error(what);
        return None;
    }
    for item in items {
        let Some(interface) = item.parse_by(value::uplink) else {
            continue;
        };
        if uplinks.iter().any(|uplink| uplink.interface == interface) {
            item.error(format!("the uplink `{interface}` is named twice"));
        }
        uplinks.push(Uplink { interface, origin: item.sink.origin(&item.span) });
    }
    Some(uplinks)
}

/// Sorted, none inside another.
pub fn networks(root: &Table, key: &'static str) -> Option<Vec<WrittenNetwork>> {
    let items = root.optional(key)?.list()?;
    let network = |item: Item| Some((item.parse_by(value::network_or_address)?, item.span));
    Some(networks::merged(items.into_iter().filter_map(network).collect()))
}

fn pool(table: &Table) -> Option<WrittenPool> {
    let name = table.required("name");
    let network = table.required("network");
    let value = network.as_ref().and_then(|item| item.parse_by(value::pool_network));
    let mut reserved = Vec::new();
    for item in table.optional("reserved").and_then(|item| item.list()).unwrap_or_default() {
        let Some(range) = item.parse_by(value::network_or_address) else {
            continue;
        };
        match value {
            Some(network) if !network.contains(&range) => {
                item.fault(
                    format!("`{range}` is not inside the pool {network}"),
                    "reserve parts of the pool's own network",
                );
            }
            _ => reserved.push(range),
        }
    }
    let (name, network) = (name?, network?);
    Some(WrittenPool {
        pool: Pool {
            name: name.parse()?,
            network: value?,
            reserved,
            origin: table.sink.origin(&table.span),
        },
        name: name.span,
        network: network.span,
    })
}

fn patterns(labels: &Table, key: &'static str) -> Option<Vec<String>> {
    let items = labels.optional(key)?.list()?;
    Some(items.iter().filter_map(|item| item.parse_by(value::label_pattern)).collect())
}

/// Whether the host's own sockets have them, only the host can tell.
fn masquerade_ports(masquerade: &Table) -> Option<PortRange> {
    let item = masquerade.optional("ports")?;
    item.parse_by(value::port_range)
}

fn duration(table: &Table, key: &'static str) -> Option<(Duration, Range<usize>)> {
    let item = table.optional(key)?;
    Some((item.parse_by(value::duration)?, item.span))
}

/// All files' parts in the order in which they apply: what a later one says counts. Its pools are
/// added, but one of a known name replaces the earlier one.
#[derive(Default)]
pub struct Merged<'a> {
    pub host: Host,
    pub pools: Vec<(&'a Arc<Source>, &'a WrittenPool)>,
    /// Where the last lists of [`Host::remote_hosts`] and [`Host::unmanaged`] are.
    pub remote_hosts: Option<(&'a Arc<Source>, &'a [WrittenNetwork])>,
    pub unmanaged: Option<(&'a Arc<Source>, &'a [WrittenNetwork])>,
    /// Where Docker's driver was last turned on or off, and the last list of its networks.
    pub docker_driver: Option<(&'a Arc<Source>, &'a Range<usize>)>,
    pub docker_networks: Option<(&'a Arc<Source>, &'a [WrittenNetwork])>,
    /// Where `quiet` and `at-most` were last set.
    pub reload: Option<(&'a Arc<Source>, &'a Range<usize>)>,
}

pub fn merge<'a>(parts: impl Iterator<Item = (&'a Arc<Source>, &'a HostPart)>) -> Merged<'a> {
    let mut merged = Merged::default();
    let host = &mut merged.host;
    for (source, part) in parts {
        set(&mut host.boot, &part.boot);
        set(&mut host.labels.include, &part.include);
        set(&mut host.labels.exclude, &part.exclude);
        set(&mut host.uplinks, &part.uplinks);
        set(&mut host.masquerade.enabled, &part.masquerade);
        set(&mut host.masquerade.ports, &part.masquerade_ports);
        set(&mut host.conntrack.entries, &part.entries);
        set(&mut host.conntrack.accounting, &part.accounting);
        set(&mut host.flows.enabled, &part.flows);
        set(&mut host.flows.rate, &part.rate);
        part.docker.merge_into(&mut host.docker);
        host.mtu = part.mtu.or(host.mtu);
        if let Some((quiet, span)) = &part.quiet {
            host.reload.quiet = *quiet;
            merged.reload = Some((source, span));
        }
        if let Some((at_most, span)) = &part.at_most {
            host.reload.at_most = *at_most;
            merged.reload = Some((source, span));
        }
        if let Some((_, span)) = &part.docker.driver {
            merged.docker_driver = Some((source, span));
        }
        if let Some(networks) = &part.docker.networks {
            merged.docker_networks = Some((source, networks));
        }
        if let Some(networks) = &part.remote_hosts {
            host.remote_hosts = networks.iter().map(|(network, _)| *network).collect();
            merged.remote_hosts = Some((source, networks));
        }
        if let Some(networks) = &part.unmanaged {
            host.unmanaged = networks.iter().map(|(network, _)| *network).collect();
            merged.unmanaged = Some((source, networks));
        }
        // Two of one name in the same file are not an override but a mistake: `check` tells.
        let named: HashSet<_> = part.pools.iter().map(|pool| &pool.pool.name).collect();
        merged.pools.retain(|(_, earlier)| !named.contains(&earlier.pool.name));
        merged.pools.extend(part.pools.iter().map(|pool| (source, pool)));
    }
    host.pools = merged.pools.iter().map(|(_, pool)| pool.pool.clone()).collect();
    for network in &host.docker.networks {
        if let Some(pool) = host.pools.iter_mut().find(|pool| pool.network.contains(network))
            && !pool.reserved.contains(network)
        {
            pool.reserved.push(*network);
        }
    }
    merged
}

fn set<T: Clone>(value: &mut T, said: &Option<T>) {
    if let Some(said) = said {
        value.clone_from(said);
    }
}
