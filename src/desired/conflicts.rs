//! What of the host a configuration must not meet: its networks, and the ports of its own sockets.
//!
//! Either would take from the host what it lives by, so both refuse the whole.

use ipnet::IpNet;

use crate::config::model;
use crate::types::{Family, PortRange};

use super::{Fault, HostNetwork};

/// The faults of `host` where it is.
pub(super) fn check(
    host: &model::Host,
    networks: &[HostNetwork],
    local_ports: &[PortRange],
) -> Result<(), Vec<Fault>> {
    let mut faults = Vec::new();
    for pool in &host.pools {
        for HostNetwork { interface, network } in networks {
            if overlap(&pool.network, network) {
                let what = format!(
                    "the pool {} overlaps {network}, which this host reaches over `{interface}`",
                    pool.network
                );
                let fault = Fault::whole(what).origin(&pool.origin);
                faults.push(fault.hint(
                    "take a network that nobody else has, or the host is cut off from its own",
                ));
            }
        }
    }
    let ports = host.masquerade.ports;
    if let Some(local) = local_ports.iter().find(|local| meet(ports, **local))
        && masquerades(host)
    {
        let (first, last) = (ports.first(), ports.last());
        let what = format!(
            "the ports {first}-{last} of [masquerade] overlap {}-{}, which the kernel gives to the host's own sockets",
            local.first(),
            local.last()
        );
        let hint = format!(
            "set `ports` to others, or sysctl net.ipv4.ip_local_reserved_ports={first}-{last}"
        );
        faults.push(Fault::whole(what).hint(hint));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Whether any packet may be.
fn masquerades(host: &model::Host) -> bool {
    let ipv4 = |pool: &model::Pool| Family::of(pool.network.addr()) == Family::Ipv4;
    host.masquerade.enabled && !host.uplinks.is_empty() && host.pools.iter().any(ipv4)
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn meet(a: PortRange, b: PortRange) -> bool {
    a.first() <= b.last() && b.first() <= a.last()
}
