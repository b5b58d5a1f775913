//! Which Docker network has which subnet, and which of its addresses are given out. Pure: who wants it to be remembered writes
//! it down.
//!
//! A *subnet* is what Docker calls a pool; its id is its network as text. Of each, the network's own address, the gateway and
//! (IPv4) the broadcast address are nobody's. An address is given out once until it is released.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::desired::ipam::pool::{address, number};
use crate::types::{Family, Invalid};

/// Subnets at most.
const SUBNETS: usize = 1024;
/// Addresses given out of one subnet at most.
const ADDRESSES: usize = 65_536;
/// Length of the prefix of a subnet that nobody asked for by name, where it fits.
const LENGTHS: [(Family, u8); 2] = [(Family::Ipv6, 80), (Family::Ipv4, 24)];

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnets {
    #[serde(default, rename = "subnet")]
    all: Vec<Subnet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub network: IpNet,
    /// Where automatic addresses come from; inside `network`.
    pub range: IpNet,
    pub gateway: IpAddr,
    /// Id of the Docker network that it is of. None: not yet of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<String>,
    /// The last automatic one: the next one comes after it, so that what was released is not given out again at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<IpAddr>,
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
}

impl Subnet {
    /// Its first and last address that somebody can have.
    fn bounds(&self) -> (u128, u128) {
        bounds(&self.network)
    }

    /// With the subnet's prefix length, as Docker wants it.
    pub fn with_length(&self, address: IpAddr) -> String {
        format!("{address}/{}", self.network.prefix_len())
    }
}

/// IPv6 knows no broadcast; its first address is the routers' (RFC 4291, section 2.6.1).
fn bounds(network: &IpNet) -> (u128, u128) {
    let (first, last) = (number(network.network()), number(network.broadcast()));
    match network {
        IpNet::V4(_) => (first.saturating_add(1), last.saturating_sub(1)),
        IpNet::V6(_) => (first.saturating_add(1), last),
    }
}

impl Subnets {
    /// Makes a subnet in one of `ranges`: this one or, if none is wanted, the next that is free.
    pub fn make(
        &mut self,
        ranges: &[IpNet],
        family: Family,
        wanted: Option<IpNet>,
        automatic: Option<IpNet>,
    ) -> Result<&Subnet, Invalid> {
        if self.all.len() >= SUBNETS {
            return Err(Invalid::new(format!("there are {SUBNETS} subnets already")));
        }
        let ranges: Vec<&IpNet> =
            ranges.iter().filter(|range| Family::of(range.addr()) == family).collect();
        let network = match wanted {
            Some(network) => self.check(&ranges, family, network.trunc())?,
            None => self.next(&ranges, family)?,
        };
        let range = automatic.map_or(network, |range| range.trunc());
        if !network.contains(&range) {
            return Err(Invalid::new(format!(
                "the range {range} is not inside the subnet {network}"
            )));
        }
        let gateway = address(family, bounds(&network).0);
        let subnet = Subnet {
            network,
            range,
            gateway,
            docker: None,
            last: None,
            addresses: BTreeSet::new(),
        };
        self.all.push(subnet);
        // It was put there just now.
        self.all.last().ok_or_else(|| Invalid::new("there is no subnet"))
    }

    fn check(&self, ranges: &[&IpNet], family: Family, network: IpNet) -> Result<IpNet, Invalid> {
        let longest = family.bits() - 2;
        if network.prefix_len() > longest {
            return Err(Invalid::new(format!(
                "the subnet {network} has no room for a gateway and a container"
            ))
            .hint(format!("its prefix may have {longest} bits")));
        }
        if !ranges.iter().any(|range| range.contains(&network)) {
            let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
            let hint = match ranges.is_empty() {
                true => format!("there are no {family} networks in [docker] of porin.toml"),
                false => format!("[docker] of porin.toml has {}", ranges.join(", ")),
            };
            return Err(Invalid::new(format!(
                "the subnet {network} is not one of porin's for Docker"
            ))
            .hint(hint));
        }
        match self.overlapping(&network) {
            Some(other) => {
                let what =
                    format!("the subnet {network} overlaps {}, which is in use", other.network);
                Err(Invalid::new(what)
                    .hint("take another one, or none: the next free one is taken"))
            }
            None => Ok(network),
        }
    }

    fn next(&self, ranges: &[&IpNet], family: Family) -> Result<IpNet, Invalid> {
        let usual = LENGTHS.iter().find(|(of, _)| *of == family).map_or(0, |(_, length)| *length);
        for range in ranges.iter().filter(|range| range.prefix_len() <= family.bits() - 2) {
            let length = usual.max(range.prefix_len());
            let end = number(range.broadcast());
            let mut at = number(range.network());
            // Each turn passes a subnet that is there.
            while let Ok(candidate) = IpNet::new(address(family, at), length) {
                match self.overlapping(&candidate) {
                    None => return Ok(candidate),
                    Some(other) => {
                        let behind =
                            number(candidate.broadcast()).max(number(other.network.broadcast()));
                        let Some(next) = behind.checked_add(1).filter(|next| *next <= end) else {
                            break;
                        };
                        at = next;
                    }
                }
            }
        }
        let what = format!("no {family} subnet is left for another Docker network");
        Err(Invalid::new(what).hint("add to `networks` of [docker] in porin.toml"))
    }

    fn overlapping(&self, network: &IpNet) -> Option<&Subnet> {
        let meets = |one: &&Subnet| one.network.contains(network) || network.contains(&one.network);
        self.all.iter().find(meets)
    }

    /// By its id.
    pub fn get(&self, id: &str) -> Option<&Subnet> {
        let network: IpNet = id.parse().ok()?;
        self.all.iter().find(|subnet| subnet.network == network)
    }

    fn get_mut(&mut self, id: &str) -> Result<&mut Subnet, Invalid> {
        let network = id.parse::<IpNet>().ok();
        let found = self.all.iter_mut().find(|subnet| Some(subnet.network) == network);
        found.ok_or_else(|| unknown(id))
    }

    pub fn around(&self, address: IpAddr) -> Option<&Subnet> {
        self.all.iter().find(|subnet| subnet.network.contains(&address))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Subnet> {
        self.all.iter()
    }

    /// False: there was none.
    pub fn remove(&mut self, id: &str) -> bool {
        let before = self.all.len();
        let network = id.parse::<IpNet>().ok();
        self.all.retain(|subnet| Some(subnet.network) != network);
        self.all.len() < before
    }

    /// Forgets subnets that are of no Docker network, which `old` picks: a daemon died while it made one.
    pub fn forget_unused(&mut self, old: impl Fn(&Subnet) -> bool) {
        self.all.retain(|subnet| subnet.docker.is_some() || !old(subnet));
    }

    pub fn bind(&mut self, id: &str, docker: &str) -> Result<(), Invalid> {
        let subnet = self.get_mut(id)?;
        match &subnet.docker {
            Some(other) if other != docker => {
                let what = format!("the subnet {id} is another Docker network's");
                Err(Invalid::new(what).hint(other.clone()))
            }
            _ => {
                subnet.docker = Some(docker.to_owned());
                Ok(())
            }
        }
    }

    /// The Docker network is gone; its subnets stay until they are released. Returns them.
    pub fn unbind(&mut self, docker: &str) -> Vec<IpNet> {
        let its = |subnet: &&mut Subnet| subnet.docker.as_deref() == Some(docker);
        let unbind = |subnet: &mut Subnet| {
            subnet.docker = None;
            subnet.network
        };
        self.all.iter_mut().filter(its).map(unbind).collect()
    }

    /// Forgets all that was a Docker network's that is gone.
    pub fn forget(&mut self, docker: &str) {
        self.all.retain(|subnet| subnet.docker.as_deref() != Some(docker));
    }

    /// Another gateway than the first address.
    pub fn set_gateway(&mut self, id: &str, wanted: Option<IpAddr>) -> Result<&Subnet, Invalid> {
        let subnet = self.get_mut(id)?;
        if let Some(gateway) = wanted.filter(|gateway| *gateway != subnet.gateway) {
            in_bounds(subnet, gateway)?;
            if subnet.addresses.contains(&gateway) {
                return Err(Invalid::new(format!("{gateway} is given out already")));
            }
            subnet.gateway = gateway;
        }
        Ok(subnet)
    }

    /// Gives out the wanted address, or the next one. `taken`: those that others than Docker's containers have.
    pub fn give(
        &mut self,
        id: &str,
        wanted: Option<IpAddr>,
        taken: impl Fn(IpAddr) -> bool,
    ) -> Result<(IpAddr, &Subnet), Invalid> {
        let subnet = self.get_mut(id)?;
        if subnet.addresses.len() >= ADDRESSES {
            return Err(Invalid::new(format!(
                "{ADDRESSES} addresses of {id} are given out already"
            )));
        }
        let given = match wanted {
            Some(address) => {
                in_bounds(subnet, address)?;
                if address == subnet.gateway {
                    return Err(Invalid::new(format!("{address} is the gateway of {id}")));
                }
                if subnet.addresses.contains(&address) || taken(address) {
                    return Err(Invalid::new(format!("{address} is in use")));
                }
                address
            }
            None => {
                let next = next_address(subnet, taken).ok_or_else(|| {
                    Invalid::new(format!("no address of {} is left", subnet.range))
                })?;
                subnet.last = Some(next);
                next
            }
        };
        subnet.addresses.insert(given);
        Ok((given, subnet))
    }

    /// It is fine if it is not given out.
    pub fn release(&mut self, id: &str, address: IpAddr) {
        if let Ok(subnet) = self.get_mut(id) {
            subnet.addresses.remove(&address);
        }
    }
}

fn unknown(id: &str) -> Invalid {
    Invalid::new(format!("porin has no subnet `{}`", shortened(id)))
        .hint("remove the Docker network, and make it again")
}

/// For messages: what a stranger says may be long.
pub fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn in_bounds(subnet: &Subnet, address: IpAddr) -> Result<(), Invalid> {
    let (first, last) = subnet.bounds();
    let inside = subnet.network.contains(&address) && (first..=last).contains(&number(address));
    match inside {
        true => Ok(()),
        false => Err(Invalid::new(format!("{address} is none of {} to be had", subnet.network))),
    }
}

/// The next free one of the range, round its end.
fn next_address(subnet: &Subnet, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let family = Family::of(subnet.network.addr());
    let (first, last) = subnet.bounds();
    let first = first.max(number(subnet.range.network()));
    let last = last.min(number(subnet.range.broadcast()));
    let after = subnet.last.map(number).filter(|last| (first..=*last).contains(last));
    let start = after.and_then(|last| last.checked_add(1)).unwrap_or(first);
    let free = |number: &u128| {
        let address = address(family, *number);
        address != subnet.gateway && !subnet.addresses.contains(&address) && !taken(address)
    };
    // Of a large subnet no more need be looked at than can be in use.
    let most = ADDRESSES * 2;
    let mut found = (start..=last).take(most).find(free);
    if found.is_none() {
        found = (first..=last).take_while(|number| *number < start).take(most).find(free);
    }
    found.map(|number| address(family, number))
}

#[cfg(test)]
#[path = "subnets_tests.rs"]
mod tests;
