//! Which endpoint has, or had, which address.
//!
//! An endpoint has at most one lease per family, an address at most one. Leases of endpoints that are gone are
//! remembered, in the order in which they were released; that order is counted, not timed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::desired::Fault;
use crate::types::{Family, Name};

/// Released leases remembered at most. Names that come once and never again must not fill the memory.
const REMEMBERED: usize = 4096;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leases {
    by_address: BTreeMap<IpAddr, Lease>,
    by_endpoint: BTreeMap<Name, [Option<IpAddr>; 2]>,
    released: BTreeMap<u64, IpAddr>,
    releases: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub endpoint: Name,
    /// The how-manieth release it was. None: the endpoint is there.
    pub released: Option<u64>,
}

impl Leases {
    pub fn address(&self, endpoint: &Name, family: Family) -> Option<IpAddr> {
        self.by_endpoint.get(endpoint)?[family as usize]
    }

    pub fn lease(&self, address: IpAddr) -> Option<&Lease> {
        self.by_address.get(&address)
    }

    /// In the order of addresses, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Lease)> {
        self.by_address.iter().map(|(address, lease)| (*address, lease))
    }

    pub fn between(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = (IpAddr, &Lease)> {
        self.by_address.range(first..=last).map(|(address, lease)| (*address, lease))
    }

    /// Gives `address` to `endpoint`, whoever had it, and whatever the endpoint had in that family.
    pub(super) fn hold(&mut self, endpoint: &Name, address: IpAddr) {
        self.insert(endpoint, address, None);
    }

    /// Remembers a lease whose endpoint is gone.
    pub(super) fn release(&mut self, address: IpAddr) {
        let Some(lease) = self.by_address.get_mut(&address).filter(|l| l.released.is_none()) else {
            return;
        };
        lease.released = Some(self.releases);
        self.released.insert(self.releases, address);
        self.releases += 1;
        while self.released.len() > REMEMBERED {
            match self.released.first_key_value() {
                Some((_, oldest)) => self.forget(*oldest),
                None => break,
            }
        }
    }

    pub(super) fn forget(&mut self, address: IpAddr) {
        let Some(lease) = self.by_address.remove(&address) else { return };
        if let Some(order) = lease.released {
            self.released.remove(&order);
        }
        if let Some(addresses) = self.by_endpoint.get_mut(&lease.endpoint) {
            addresses[Family::of(address) as usize] = None;
            if *addresses == [None, None] {
                self.by_endpoint.remove(&lease.endpoint);
            }
        }
    }

    /// The lease released longest ago among those that `picks` accepts.
    pub(super) fn oldest_released(&self, mut picks: impl FnMut(IpAddr) -> bool) -> Option<IpAddr> {
        self.released.values().copied().find(|address| picks(*address))
    }

    fn insert(&mut self, endpoint: &Name, address: IpAddr, released: Option<u64>) {
        if let Some(before) = self.address(endpoint, Family::of(address)) {
            self.forget(before);
        }
        self.forget(address);
        self.by_address.insert(address, Lease { endpoint: endpoint.clone(), released });
        let addresses = self.by_endpoint.entry(endpoint.clone()).or_default();
        addresses[Family::of(address) as usize] = Some(address);
        if let Some(order) = released {
            self.released.insert(order, address);
        }
    }

    /// The written form: `[[lease]]` tables, IPv6 first.
    pub fn write(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// Reads the written form. What makes no sense is left out and reported.
    pub fn read(text: &str) -> (Leases, Vec<Fault>) {
        let mut faults = Vec::new();
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                let fault = Fault::whole("the leases cannot be read").why(error.message());
                return (Leases::default(), vec![fault]);
            }
        };
        let mut live = Vec::new();
        let mut released = Vec::new();
        for (key, value) in &table {
            let entries = match value {
                toml::Value::Array(entries) if key == "lease" => entries,
                _ => {
                    faults.push(Fault::whole(format!("`{key}` means nothing among leases")));
                    continue;
                }
            };
            for (index, entry) in entries.iter().enumerate() {
                match read_entry(entry) {
                    Ok((endpoint, address, Some(order))) => {
                        released.push((order, address, endpoint));
                    }
                    Ok((endpoint, address, None)) => live.push((address, endpoint)),
                    Err(why) => faults
                        .push(Fault::whole(format!("lease {} is left out", index + 1)).why(why)),
                }
            }
        }
        live.sort_unstable();
        released.sort_unstable();
        let mut leases = Leases::default();
        let live = live.into_iter().map(|(address, endpoint)| (endpoint, address, false));
        let rest = released.into_iter().map(|(_, address, endpoint)| (endpoint, address, true));
        for (endpoint, address, released) in live.chain(rest) {
            let taken = leases.lease(address).is_some()
                || leases.address(&endpoint, Family::of(address)).is_some();
            if taken {
                let what = format!("the lease of {address} by `{endpoint}` is left out");
                faults.push(Fault::whole(what).why("the address or the endpoint has one already"));
                continue;
            }
            leases.insert(&endpoint, address, None);
            if released {
                leases.release(address);
            }
        }
        (leases, faults)
    }
}

fn read_entry(entry: &toml::Value) -> Result<(Name, IpAddr, Option<i64>), String> {
    let text = |key: &str| {
        let value = entry.get(key).and_then(toml::Value::as_str);
        value.ok_or_else(|| format!("it has no `{key}` that is text"))
    };
    let endpoint = text("endpoint")?;
    let endpoint: Name = endpoint.parse().map_err(|e| format!("`{endpoint}`: {e}"))?;
    let address = text("address")?;
    let address: IpAddr = address.parse().map_err(|e| format!("`{address}`: {e}"))?;
    let released = match entry.get("released") {
        None => None,
        Some(order) => Some(order.as_integer().ok_or("`released` is not a number")?),
    };
    Ok((endpoint, address, released))
}

#[derive(Serialize)]
struct Written<'a> {
    endpoint: &'a Name,
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    released: Option<u64>,
}

impl Serialize for Leases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut v6, v4): (Vec<_>, Vec<_>) =
            self.iter().partition(|(address, _)| address.is_ipv6());
        v6.extend(v4);
        let list: Vec<Written> = v6
            .into_iter()
            .map(|(address, lease)| Written {
                endpoint: &lease.endpoint,
                address,
                released: lease.released,
            })
            .collect();
        let mut table = serializer.serialize_struct("Leases", 1)?;
        table.serialize_field("lease", &list)?;
        table.end()
    }
}
