//! The network half: Docker's endpoints as attachments.
//!
//! Docker creates an endpoint, joins it to a container that has no namespace yet, and takes the interface only when that is there. It
//! never tells whose endpoint it is: its API does, once Docker has answered itself that the endpoint is joined. So an endpoint is
//! attached *shut* when it is joined, and opened when its container's labels are known: before the container starts where Docker
//! asks for external connectivity (which it does for one endpoint of a container), and right after for all others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Failure;
use super::api::Api;
use super::is_id;
use super::opener::Told;
use super::pools::Pools;
use super::published::published;
use super::subnets::shortened;
use super::wire::{
    Connectivity, CreateEndpoint, CreateNetwork, Created, CreatedInterface, Info, InterfaceName,
    Joined, OfEndpoint, Pool, RequestPool,
};
use crate::control::attach::{Attach, Attached, AttachmentId, Place};
use crate::control::server::Handler;
use crate::control::wire::{Request, Response};
use crate::types::{Labels, Mac, Name, Publication};

pub const ADAPTER: &str = "docker";
/// Options of networks and endpoints.
const GENERIC: &str = "com.docker.network.generic";
const INTERNAL: &str = "com.docker.network.internal";
/// Endpoints that are remembered at most.
const KNOWN: usize = 4096;

pub struct Driver {
    pub pools: Pools,
    api: Api,
    handler: Arc<dyn Handler>,
    opener: Sender<Told>,
    /// That Docker has spoken of since this began.
    endpoints: Mutex<BTreeMap<OfEndpoint, Arc<Mutex<Stage>>>>,
}

/// How far an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Created(Wanted),
    /// Attached, by this daemon or an earlier one.
    Joined {
        open: bool,
    },
    /// Its container is gone; it may still be there.
    Left,
    Deleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    ipv6: Option<Ipv6Addr>,
    ipv4: Option<Ipv4Addr>,
    mac: Mac,
}

impl Driver {
    pub fn new(
        pools: Pools,
        socket: &Path,
        handler: Arc<dyn Handler>,
        opener: Sender<Told>,
    ) -> Self {
        let endpoints = Mutex::default();
        Driver { pools, api: Api::new(socket), handler, opener, endpoints }
    }

    pub fn api(&self) -> &Api {
        &self.api
    }

    pub fn request_pool(&self, asked: RequestPool) -> Result<Pool, Failure> {
        // What is in the way may be nobody's. It ends with this daemon, and then nobody needs to be told.
        let _ = self.opener.send(Told::Subnet);
        self.pools.request_pool(asked)
    }

    /// Forgets subnets that nobody has made a network of. Whether some may be left.
    ///
    /// # Errors
    /// Docker does not say which networks there are.
    pub fn sweep_subnets(&self) -> Result<bool, Failure> {
        if !self.pools.has_loose() {
            return Ok(false);
        }
        let used = self.api.subnets().map_err(|error| error.to_string())?;
        self.pools.sweep(&used)?;
        Ok(self.pools.has_loose())
    }

    pub fn create_network(&self, asked: &CreateNetwork) -> Result<(), Failure> {
        check_id("network", &asked.network)?;
        if asked.options.get(INTERNAL).is_some_and(|internal| *internal == true) {
            let what = "porin has no internal networks".to_owned();
            return Err(Failure::from(what)
                .hint("leave --internal out; policies say what its containers may reach"));
        }
        let generic = asked.options.get(GENERIC).and_then(|options| options.as_object());
        if let Some((option, _)) = generic.and_then(|options| options.iter().next()) {
            return Err(format!("the driver option `{}` is not known", shortened(option)).into());
        }
        self.pools.bind(asked)
    }

    pub fn delete_network(&self, network: &str) -> Result<(), Failure> {
        // Docker releases its subnets next, if it lives to do so.
        let _ = self.opener.send(Told::Subnet);
        self.pools.unbind(network)
    }

    pub fn create_endpoint(&self, asked: CreateEndpoint) -> Result<Created, Failure> {
        let CreateEndpoint { of, interface, options } = asked;
        check(&of)?;
        // Here, for nobody is to find out when the container is about to start.
        published(&options)?;
        let (ipv4, ipv6) = (bare(&interface.ipv4)?, bare(&interface.ipv6)?);
        if ipv4.is_none() && ipv6.is_none() {
            return Err("the endpoint has no address".to_owned().into());
        }
        let given = match interface.mac.as_str() {
            "" => None,
            text => Some(text.parse::<Mac>()?),
        };
        let mac = given.unwrap_or_else(|| derived_mac(&id(&of)));
        let stage = Stage::Created(Wanted { ipv6, ipv4, mac });
        let mut endpoints = self.lock();
        make_room(&mut endpoints)?;
        endpoints.insert(of, Arc::new(Mutex::new(stage)));
        drop(endpoints);
        let mac_address = given.is_none().then(|| mac.to_string());
        Ok(Created { interface: CreatedInterface { mac_address } })
    }

    /// Makes the interface, and lets nothing pass it yet.
    pub fn join(&self, of: &OfEndpoint) -> Result<Joined, Failure> {
        check(of)?;
        let known = self.known(of)?;
        let mut stage = locked(&known);
        let attached = match *stage {
            Stage::Created(wanted) => {
                // Of an endpoint that left and comes again, everything is made anew.
                self.detach(&id(of))?;
                self.attach(shut(of, wanted)?)?
            }
            // The answer to the same question got lost, or an earlier daemon knew it, or it has left another container.
            _ => {
                let wanted = match self.look(&id(of))? {
                    Some(Attached { ipv6, ipv4, mac, .. }) => {
                        Wanted { ipv6, ipv4, mac: mac.parse()? }
                    }
                    None => self.recall(of)?,
                };
                let (again, replaces) = (true, true);
                self.attach(Attach { again, replaces, ..shut(of, wanted)? })?
            }
        };
        *stage = Stage::Joined { open: false };
        drop(stage);
        let gateway = |address: Option<IpAddr>| {
            let gateway = address.and_then(|address| self.pools.gateway(address));
            gateway.map_or_else(String::new, |gateway| gateway.to_string())
        };
        // It ends with this daemon, and then nobody needs to be told.
        let _ = self.opener.send(Told::Joined(of.clone()));
        Ok(Joined {
            interface_name: InterfaceName { src_name: attached.interface, dst_prefix: "eth" },
            gateway: gateway(attached.ipv4.map(IpAddr::V4)),
            gateway6: gateway(attached.ipv6.map(IpAddr::V6)),
        })
    }

    /// What an endpoint was created with, from Docker, which has written it down.
    fn recall(&self, of: &OfEndpoint) -> Result<Wanted, Failure> {
        let network = self.api.network(&of.network).map_err(|error| error.to_string())?;
        let endpoint = network.endpoints.get(&of.endpoint);
        let unknown = || Failure::from("neither porin nor Docker knows this endpoint".to_owned());
        let endpoint = endpoint.ok_or_else(|| unknown().hint("start the container again"))?;
        let mac = endpoint.mac.unwrap_or_else(|| derived_mac(&id(of)));
        Ok(Wanted { ipv6: endpoint.ipv6, ipv4: endpoint.ipv4, mac })
    }

    /// Lets pass what policy says of the container's labels. Answers when that is in force.
    ///
    /// # Errors
    /// The labels are not known, or cannot be put in force: it stays shut.
    pub fn open(&self, of: &OfEndpoint) -> Result<(), Failure> {
        check(of)?;
        self.change(of, None)
    }

    /// The endpoint is the one by which its container is reached from outside: opens it, with the ports that are published.
    pub fn connect(&self, asked: &Connectivity) -> Result<(), Failure> {
        check(&asked.of)?;
        self.change(&asked.of, Some(published(&asked.options)?))
    }

    /// It is not any more: another endpoint of the container's may be about to have its ports.
    pub fn disconnect(&self, of: &OfEndpoint) -> Result<(), Failure> {
        check(of)?;
        // Mostly there are none, and what is about to go is left alone.
        match self.look(&id(of)) {
            Ok(Some(attached)) if !attached.publish.is_empty() => self.change(of, Some(Vec::new())),
            _ => Ok(()),
        }
    }

    /// `publish`: none, if they stay as they are.
    fn change(&self, of: &OfEndpoint, publish: Option<Vec<Publication>>) -> Result<(), Failure> {
        let known = self.known(of)?;
        let mut stage = locked(&known);
        match *stage {
            Stage::Joined { open: true } if publish.is_none() => return Ok(()),
            Stage::Joined { .. } => {}
            Stage::Created(_) | Stage::Left | Stage::Deleted => {
                return Err("the endpoint is in no container".to_owned().into());
            }
        }
        let id = id(of);
        let Some(attached) = self.look(&id)? else {
            *stage = Stage::Deleted;
            self.lock().remove(of);
            return Err("porin has no such endpoint".to_owned().into());
        };
        let publish = publish.unwrap_or_else(|| attached.publish.clone());
        if *stage == (Stage::Joined { open: true }) && publish == attached.publish {
            return Ok(());
        }
        let container = self.api.container(&of.network, &of.endpoint).map_err(|error| {
            Failure::from(format!("the container's labels are not known: {error}"))
                .hint("see `socket` in the [docker] table of porin.toml")
        })?;
        let name = format!("{}-{}", container.name, id.short()).parse();
        self.attach(Attach {
            about: about(of, &container.name),
            name: name.or_else(|_| fallback(&id))?,
            place: Place::HandOver(attached.interface),
            labels: container.labels,
            ipv6: attached.ipv6,
            ipv4: attached.ipv4,
            publish,
            mac: Some(attached.mac.parse()?),
            shut: false,
            again: true,
            replaces: true,
            id,
        })?;
        *stage = Stage::Joined { open: true };
        Ok(())
    }

    pub fn info(&self, of: &OfEndpoint) -> Result<Info, Failure> {
        check(of)?;
        // While it is being opened it is not in force; Docker needs nothing of this.
        let attached = self.look(&id(of)).ok().flatten();
        let value = attached.map(|attached| ("porin.host-interface", attached.host_interface));
        Ok(Info { value: value.into_iter().collect() })
    }

    /// Whatever joins it next is another container: see [`Driver::join`]. Nobody opens it before.
    pub fn leave(&self, of: &OfEndpoint) -> Result<(), Failure> {
        check(of)?;
        let known = self.lock().get(of).cloned();
        if let Some(known) = known {
            let mut stage = locked(&known);
            if matches!(*stage, Stage::Joined { .. }) {
                *stage = Stage::Left;
            }
        }
        Ok(())
    }

    /// Answers when nothing passes any more. It is fine if there is none.
    pub fn delete_endpoint(&self, of: &OfEndpoint) -> Result<(), Failure> {
        check(of)?;
        let known = self.known(of)?;
        let mut stage = locked(&known);
        self.detach(&id(of))?;
        // Whoever is waiting to open it must not; who comes later finds that there is none.
        *stage = Stage::Deleted;
        self.lock().remove(of);
        Ok(())
    }

    /// Whether it is joined and still to be opened.
    pub fn is_shut(&self, of: &OfEndpoint) -> bool {
        let known = self.lock().get(of).cloned();
        known.is_some_and(|stage| *locked(&stage) == Stage::Joined { open: false })
    }

    /// Of endpoints that are created, and not yet joined.
    pub fn awaited(&self) -> BTreeSet<IpAddr> {
        let stages: Vec<_> = self.lock().values().cloned().collect();
        let addresses = |stage: &Arc<Mutex<Stage>>| match *locked(stage) {
            Stage::Created(wanted) => [wanted.ipv6.map(IpAddr::V6), wanted.ipv4.map(IpAddr::V4)],
            Stage::Joined { .. } | Stage::Left | Stage::Deleted => [None, None],
        };
        stages.iter().flat_map(addresses).flatten().collect()
    }

    /// Attachments that are there now, whoever made them.
    pub fn attachments(&self) -> Result<Vec<AttachmentId>, Failure> {
        match self.handler.handle(Request::Attachments { prefix: format!("{ADAPTER}-") }) {
            Response::Attachments(all) => Ok(all),
            other => Err(refusal(other)),
        }
    }

    /// Whether Docker has spoken of it since this began.
    pub fn knows(&self, id: &AttachmentId) -> bool {
        self.lock().keys().any(|of| self::id(of) == *id)
    }

    pub fn detach(&self, id: &AttachmentId) -> Result<(), Failure> {
        match self.handler.handle(Request::Detach { id: id.clone() }) {
            Response::Detached {} => Ok(()),
            other => Err(refusal(other)),
        }
    }

    fn attach(&self, attach: Attach) -> Result<Attached, Failure> {
        match self.handler.handle(Request::Attach { attach: Box::new(attach) }) {
            Response::Attached(attached) => Ok(*attached),
            other => Err(refusal(other)),
        }
    }

    fn look(&self, id: &AttachmentId) -> Result<Option<Attached>, Failure> {
        use crate::control::wire::ErrorCode;
        match self.handler.handle(Request::Attachment { id: id.clone() }) {
            Response::Attached(attached) => Ok(Some(*attached)),
            Response::Error(error) if error.code == ErrorCode::Unknown => Ok(None),
            other => Err(refusal(other)),
        }
    }

    /// One that was never heard of is an earlier daemon's.
    fn known(&self, of: &OfEndpoint) -> Result<Arc<Mutex<Stage>>, Failure> {
        let mut endpoints = self.lock();
        if let Some(known) = endpoints.get(of) {
            return Ok(known.clone());
        }
        make_room(&mut endpoints)?;
        let earlier = Arc::new(Mutex::new(Stage::Joined { open: false }));
        endpoints.insert(of.clone(), earlier.clone());
        Ok(earlier)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OfEndpoint, Arc<Mutex<Stage>>>> {
        // Each change is one insertion or removal: a panic elsewhere leaves it whole.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is joined already can be learned again. Nothing that Docker says makes this grow without end.
fn make_room(endpoints: &mut BTreeMap<OfEndpoint, Arc<Mutex<Stage>>>) -> Result<(), Failure> {
    if endpoints.len() < KNOWN {
        return Ok(());
    }
    endpoints.retain(|_, shared| match shared.try_lock() {
        // Who has it in hands without a lock yet would have another than who asks next.
        Ok(stage) => matches!(*stage, Stage::Created(_)) || Arc::strong_count(shared) > 1,
        Err(_) => true,
    });
    match endpoints.len() < KNOWN {
        true => Ok(()),
        false => Err(format!("{KNOWN} endpoints were created and never joined").into()),
    }
}

fn locked(stage: &Arc<Mutex<Stage>>) -> MutexGuard<'_, Stage> {
    // It is one value.
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn id(of: &OfEndpoint) -> AttachmentId {
    AttachmentId::new(ADAPTER, &of.network, &[&of.endpoint])
}

fn shut(of: &OfEndpoint, wanted: Wanted) -> Result<Attach, Failure> {
    let id = id(of);
    Ok(Attach {
        about: about(of, ""),
        name: fallback(&id)?,
        place: Place::HandOver(format!("pnd{}", id.short())),
        labels: Labels::default(),
        ipv6: wanted.ipv6,
        ipv4: wanted.ipv4,
        publish: Vec::new(),
        mac: Some(wanted.mac),
        shut: true,
        again: false,
        replaces: false,
        id,
    })
}

fn fallback(id: &AttachmentId) -> Result<Name, Failure> {
    Ok(format!("{ADAPTER}-{}", id.short()).parse()?)
}

fn about(of: &OfEndpoint, container: &str) -> String {
    let container = match container {
        "" => String::new(),
        name => format!(", container {name}"),
    };
    format!("Docker network {}, endpoint {}{container}", of.network, of.endpoint)
}

/// Locally administered, of no group (IEEE 802 section 8.4).
fn derived_mac(id: &AttachmentId) -> Mac {
    let mut mac = [0; 6];
    for (octet, digits) in mac.iter_mut().zip(id.short().as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *octet = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    mac[0] = mac[0] & 0xfc | 0x02;
    if Mac(mac) == Mac::GATEWAY {
        mac[5] ^= 1;
    }
    Mac(mac)
}

/// An address of a family, from one with a length. None if there is none.
fn bare<T: FromStr>(text: &str) -> Result<Option<T>, Failure> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    match address {
        "" => Ok(None),
        address => address
            .parse()
            .map(Some)
            .map_err(|_| format!("`{}` is not an address of its family", shortened(text)).into()),
    }
}

fn check(of: &OfEndpoint) -> Result<(), Failure> {
    check_id("network", &of.network)?;
    check_id("endpoint", &of.endpoint)
}

fn check_id(what: &str, id: &str) -> Result<(), Failure> {
    match is_id(id) {
        true => Ok(()),
        false => Err(format!("`{}` is not the id of a Docker {what}", shortened(id)).into()),
    }
}

fn refusal(response: Response) -> Failure {
    match response {
        Response::Error(error) => {
            let failure = Failure::from(error.what);
            error.hint.into_iter().fold(failure, Failure::hint)
        }
        _ => "porind answered something else than was asked for".to_owned().into(),
    }
}
