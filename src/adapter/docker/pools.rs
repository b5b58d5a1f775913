//! The IPAM half: subnets and addresses for Docker's networks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Failure;
use super::subnets::{Subnets, shortened};
use super::wire::{
    Address, CreateNetwork, Pool, ReleaseAddress, ReleasePool, RequestAddress, RequestPool,
};
use crate::control::server::Handler;
use crate::control::wire::{Request, Response};
use crate::types::Family;

/// How Docker calls a gateway, in its requests and in answers.
const GATEWAY: &str = "com.docker.network.gateway";
const KIND: &str = "RequestAddressType";
/// Docker makes a network right after it has asked for its subnet. One that no network has after that long was left by a
/// daemon that died.
pub const UNUSED: Duration = Duration::from_secs(60);

pub type Save = Box<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// Where the daemon keeps what is given out.
pub struct Store {
    /// For messages.
    pub path: PathBuf,
    /// What was saved last.
    pub text: Option<String>,
    /// Replaces it, whole or not at all.
    pub save: Save,
}

/// Addresses, by the id of the Docker network that they are of.
pub type Given = BTreeMap<String, BTreeSet<IpAddr>>;

/// How many Docker networks there are in what was saved; none if that cannot be read.
pub fn networks_in(saved: &str) -> usize {
    let subnets: Subnets = toml::from_str(saved).unwrap_or_default();
    subnets.iter().filter_map(|subnet| subnet.docker.as_ref()).collect::<BTreeSet<_>>().len()
}

pub struct Pools {
    ranges: Vec<IpNet>,
    handler: Arc<dyn Handler>,
    state: Mutex<State>,
    save: Save,
}

struct State {
    /// Another one has taken over what is saved.
    closed: bool,
    subnets: Subnets,
    /// When those were made that are of no Docker network yet.
    made: BTreeMap<IpNet, Instant>,
}

impl Pools {
    /// `ranges`: `networks` of `[docker]`.
    ///
    /// # Errors
    /// What was saved cannot be read: to begin anew could give out twice what containers have.
    pub fn open(
        ranges: Vec<IpNet>,
        store: Store,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, String> {
        let subnets = match &store.text {
            Some(text) => toml::from_str(text).map_err(|error| {
                let path = store.path.display();
                format!(
                    "{path} cannot be read, which says what Docker was given: {}",
                    error.message()
                )
            })?,
            None => Subnets::default(),
        };
        let state = Mutex::new(State { closed: false, subnets, made: BTreeMap::new() });
        Ok(Pools { ranges, handler, state, save: store.save })
    }

    pub fn request_pool(&self, asked: RequestPool) -> Result<Pool, Failure> {
        if let Some((option, _)) = asked.options.iter().next() {
            let what = format!("the IPAM option `{}` is not known", shortened(option));
            return Err(what.into());
        }
        let wanted = network(&asked.pool)?;
        let range = network(&asked.sub_pool)?;
        let family = match wanted {
            Some(network) => Family::of(network.addr()),
            None if asked.v6 => Family::Ipv6,
            None => Family::Ipv4,
        };
        self.change(|state| {
            let State { subnets, made, .. } = state;
            let subnet = subnets.make(&self.ranges, family, wanted, range)?;
            made.insert(subnet.network, Instant::now());
            let gateway = subnet.with_length(subnet.gateway);
            Ok(Pool {
                id: subnet.network.to_string(),
                network: subnet.network.to_string(),
                data: BTreeMap::from([(GATEWAY, gateway)]),
            })
        })
    }

    pub fn release_pool(&self, asked: ReleasePool) -> Result<(), Failure> {
        self.change(|state| {
            state.subnets.remove(&asked.pool);
            Ok(())
        })
    }

    pub fn request_address(&self, asked: RequestAddress) -> Result<Address, Failure> {
        let wanted = match asked.address.as_str() {
            "" => None,
            text => Some(address(text)?),
        };
        if asked.options.get(KIND).is_some_and(|kind| kind == GATEWAY) {
            return self.change(|state| {
                let subnet = state.subnets.set_gateway(&asked.pool, wanted)?;
                Ok(Address { address: subnet.with_length(subnet.gateway) })
            });
        }
        let others = self.others();
        self.change(|state| {
            let taken = |address| others.contains(&address);
            let (given, subnet) = state.subnets.give(&asked.pool, wanted, taken)?;
            Ok(Address { address: subnet.with_length(given) })
        })
    }

    pub fn release_address(&self, asked: ReleaseAddress) -> Result<(), Failure> {
        let address = address(&asked.address)?;
        self.change(|state| {
            state.subnets.release(&asked.pool, address);
            Ok(())
        })
    }

    /// A Docker network that is made of subnets that were given out here.
    pub fn bind(&self, asked: &CreateNetwork) -> Result<(), Failure> {
        let pools: Vec<&str> =
            asked.ipv4.iter().chain(&asked.ipv6).map(|data| data.pool.as_str()).collect();
        if pools.is_empty() {
            return Err("the network has no subnet".to_owned().into());
        }
        self.change(|state| {
            for pool in pools {
                if state.subnets.get(pool).is_none() {
                    let what =
                        format!("the subnet {} is not of porin's IPAM driver", shortened(pool));
                    return Err(
                        Failure::from(what).hint("create the network with --ipam-driver porin")
                    );
                }
                state.subnets.bind(pool, &asked.network)?;
            }
            Ok(())
        })
    }

    /// Docker releases its subnets next; until then they are nobody else's.
    pub fn unbind(&self, docker: &str) -> Result<(), Failure> {
        self.change(|state| {
            let unbound = state.subnets.unbind(docker);
            state.made.extend(unbound.into_iter().map(|network| (network, Instant::now())));
            Ok(())
        })
    }

    /// Whether there are subnets that are not of a network of porin's driver: another driver may have taken one, or nobody.
    pub fn has_loose(&self) -> bool {
        self.lock().subnets.iter().any(|subnet| subnet.docker.is_none())
    }

    /// Forgets loose ones that are old and, by what Docker says, of no network. `used`: of all networks.
    pub fn sweep(&self, used: &BTreeSet<IpNet>) -> Result<(), Failure> {
        self.change(|state| {
            let State { subnets, made, .. } = state;
            subnets.forget_unused(|one| {
                let old = made.get(&one.network).is_none_or(|at| at.elapsed() > UNUSED);
                old && !used.contains(&one.network)
            });
            Ok(())
        })
    }

    /// From here on nothing is changed.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// What is given out, by Docker network.
    pub fn given(&self) -> Given {
        let mut given = Given::new();
        for subnet in self.lock().subnets.iter() {
            if let Some(docker) = &subnet.docker {
                given.entry(docker.clone()).or_default().extend(&subnet.addresses);
            }
        }
        given
    }

    /// These addresses of a Docker network are nobody's, though they were given out.
    pub fn take_back(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), Failure> {
        let others = self.others();
        self.change(|state| {
            for address in addresses.difference(&others) {
                let id = state.subnets.around(*address).map(|subnet| subnet.network.to_string());
                id.into_iter().for_each(|id| state.subnets.release(&id, *address));
            }
            Ok(())
        })
    }

    /// Docker has no such network any more.
    pub fn forget(&self, docker: &str) -> Result<(), Failure> {
        self.change(|state| {
            state.subnets.forget(docker);
            Ok(())
        })
    }

    /// Of the subnet that an address is in.
    pub fn gateway(&self, address: IpAddr) -> Option<IpAddr> {
        Some(self.lock().subnets.around(address)?.gateway)
    }

    /// Nothing is changed that is not written down.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut state = self.lock();
        if state.closed {
            return Err("porin's driver is just being started anew".to_owned().into());
        }
        let mut next =
            State { closed: false, subnets: state.subnets.clone(), made: state.made.clone() };
        let answer = change(&mut next)?;
        if next.subnets != state.subnets {
            let failed =
                |why: String| Failure::from(format!("what is given out cannot be saved: {why}"));
            let text = toml::to_string(&next.subnets).map_err(|error| failed(error.to_string()))?;
            (self.save)(&format!(
                "# Subnets of Docker networks, and addresses given out.\n\n{text}"
            ))
            .map_err(|error| failed(error.to_string()))?;
        }
        next.made.retain(|network, _| next.subnets.get(&network.to_string()).is_some());
        *state = next;
        Ok(answer)
    }

    /// Addresses that endpoints have, Docker's or not.
    fn others(&self) -> BTreeSet<IpAddr> {
        match self.handler.handle(Request::Endpoints) {
            Response::Endpoints(rows) => {
                let addresses = |row: &crate::control::view::EndpointView| {
                    [row.ipv6.map(IpAddr::V6), row.ipv4.map(IpAddr::V4)]
                };
                rows.iter().flat_map(addresses).flatten().collect()
            }
            // Then who joins with somebody else's address is refused.
            _ => BTreeSet::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is replaced whole: a panic elsewhere leaves the one before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn network(text: &str) -> Result<Option<IpNet>, Failure> {
    match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| format!("`{}` is not a network", shortened(text)).into()),
    }
}

/// With a length, or without.
fn address(text: &str) -> Result<IpAddr, Failure> {
    let bare = text.split_once('/').map_or(text, |(address, _)| address);
    bare.parse().map_err(|_| format!("`{}` is not an address", shortened(text)).into())
}
