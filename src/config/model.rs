//! What the operator's files say, checked: every value valid, every cross-reference right.
//!
//! This is the only form in which configuration leaves this module.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use ipnet::IpNet;
use serde::Serialize;

pub use super::docker::Docker;
use crate::types::http::L7;
use crate::types::{
    Action, Direction, Entity, Family, LabelKey, Labels, Mac, Mode, Name, Origin, PortMatch,
    PortRange, PortSpec, Publication, Selector, Tier,
};

/// Everything. Endpoints, policies and groups are in the order of their names, which are unique.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    pub host: Host,
    pub endpoints: Vec<Arc<Endpoint>>,
    pub policies: Policies,
    /// Every [`Peer::Group`] names one of them.
    pub groups: Vec<Arc<Group>>,
    /// In the order of their places.
    pub asserts: Vec<Arc<Assert>>,
}

impl Config {
    pub fn endpoint(&self, name: &Name) -> Option<&Arc<Endpoint>> {
        let at = self.endpoints.binary_search_by(|endpoint| endpoint.name.cmp(name)).ok()?;
        self.endpoints.get(at)
    }
}

/// By name. Versions share what they have in common: a copy is cheap, and what differs is found without going
/// through all.
pub type Policies = OrdMap<Name, Arc<Policy>>;

pub fn by_name(policies: impl IntoIterator<Item = Arc<Policy>>) -> Policies {
    policies.into_iter().map(|policy| (policy.name.clone(), policy)).collect()
}

/// `porin.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    pub boot: Boot,
    /// In the order written; their networks do not overlap.
    pub pools: Vec<Pool>,
    pub uplinks: Vec<Uplink>,
    pub labels: LabelFilter,
    pub masquerade: Masquerade,
    pub conntrack: Conntrack,
    pub flows: Flows,
    pub reload: Reload,
    pub docker: Docker,
    /// Other hosts' addresses: `entity:remote-host`.
    pub remote_hosts: Vec<IpNet>,
    /// Networks of containers that are not porin's: `entity:unmanaged`.
    pub unmanaged: Vec<IpNet>,
    /// MTU of endpoints' interfaces in bytes; none: the smallest of the uplinks', or 1500 without any.
    pub mtu: Option<u16>,
}

/// What becomes of containers that start before the first generation of a boot is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// They start. Those that are adopted are not judged until then.
    Open,
    /// They wait.
    Closed,
}

/// Where addresses come from: `[[pool]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub name: Name,
    /// Host bits are zero.
    pub network: IpNet,
    /// Never given out automatically; inside `network`.
    pub reserved: Vec<IpNet>,
    pub origin: Origin,
}

/// An interface to the outside: one of `uplinks`.
#[derive(Debug, Clone, PartialEq)]
pub struct Uplink {
    pub interface: String,
    pub origin: Origin,
}

/// Which labels make identities: `[labels]`. Excludes win over includes; patterns may end in `*`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelFilter {
    /// Empty: all.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

impl LabelFilter {
    pub fn wants(&self, key: &LabelKey) -> bool {
        let hit = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => key.as_str().starts_with(prefix),
            None => key.as_str() == pattern,
        };
        (self.include.is_empty() || self.include.iter().any(hit)) && !self.exclude.iter().any(hit)
    }
}

/// `[masquerade]`: IPv4 from pools to the outside takes the uplink's address.
#[derive(Debug, Clone, PartialEq)]
pub struct Masquerade {
    pub enabled: bool,
    /// Outside the kernel's ephemeral range (`net.ipv4.ip_local_port_range`).
    pub ports: PortRange,
}

/// `[conntrack]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Conntrack {
    /// Flows per family that are tracked at most.
    pub entries: u32,
    /// Packets and bytes per flow.
    pub accounting: bool,
}

/// `[flows]`: the flow log.
#[derive(Debug, Clone, PartialEq)]
pub struct Flows {
    pub enabled: bool,
    /// Denials and drops reported per second and CPU; the rest are only counted.
    pub rate: u32,
}

/// `[reload]`: when edited files are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// After the last change.
    pub quiet: Duration,
    /// After the first change, however many follow.
    pub at_most: Duration,
}

impl Default for Host {
    fn default() -> Self {
        let nat = PortRange::new(61000, 65535).unwrap_or(PortRange::ALL);
        Host {
            boot: Boot::Open,
            pools: Vec::new(),
            uplinks: Vec::new(),
            labels: LabelFilter::default(),
            masquerade: Masquerade { enabled: true, ports: nat },
            conntrack: Conntrack { entries: 131_072, accounting: true },
            flows: Flows { enabled: true, rate: 1000 },
            reload: Reload {
                quiet: Duration::from_millis(50),
                at_most: Duration::from_millis(500),
            },
            docker: Docker::default(),
            remote_hosts: Vec::new(),
            unmanaged: Vec::new(),
            mtu: None,
        }
    }
}

/// One endpoint given by hand: `[[endpoint]]` in `endpoints.d/*.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub name: Name,
    /// As written, not filtered.
    pub labels: Labels,
    pub attachment: Attachment,
    /// Of an adopted endpoint: fixed or none.
    pub ipv6: AddressWish,
    pub ipv4: AddressWish,
    /// Named ports.
    pub ports: BTreeMap<Name, PortMatch>,
    /// Ports of the host that are its. Of all endpoints together, no two meet. Never of an adopted endpoint.
    pub publish: Vec<Publication>,
    /// That its interface is to have; none: one derived from its name. Never of an adopted endpoint.
    pub mac: Option<Mac>,
    /// Nothing passes, whatever policy says; all else of it is there. Never of an adopted endpoint.
    pub shut: bool,
    pub origin: Origin,
}

/// Where systemd-machined notes each machine that is running, by name.
pub const MACHINES: &str = "/run/systemd/machines";

/// Whose an endpoint's interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// Porin's, which makes it.
    Made {
        /// Absolute path of a network namespace (`/run/netns/web`, `/proc/123/ns/net`), or of a machine in [`MACHINES`],
        /// which means the namespace of its first process.
        namespace: PathBuf,
        /// Its name inside; default `eth0`.
        interface: String,
    },
    /// Porin's, which makes it on the host; a container runtime then takes the one end, moves it into a namespace and configures
    /// it. Porin keeps the other.
    HandedOver {
        /// What the end that is taken is called on the host.
        interface: String,
    },
    /// Another's, as is the network that it is in: porin judges what passes, and does nothing else.
    Adopted {
        /// Its name on the host.
        interface: String,
    },
}

impl Endpoint {
    /// The namespace that porin makes its interface in.
    pub fn namespace(&self) -> Option<&Path> {
        match &self.attachment {
            Attachment::Made { namespace, .. } => Some(namespace),
            Attachment::HandedOver { .. } | Attachment::Adopted { .. } => None,
        }
    }

    /// The machine of systemd's that it is.
    pub fn machine(&self) -> Option<&str> {
        let path = self.namespace()?;
        let machine = path.parent() == Some(Path::new(MACHINES));
        path.file_name().filter(|_| machine)?.to_str()
    }

    /// Its name inside the namespace or, if there is none, on the host.
    pub fn interface(&self) -> &str {
        match &self.attachment {
            Attachment::Made { interface, .. }
            | Attachment::HandedOver { interface }
            | Attachment::Adopted { interface } => interface,
        }
    }

    pub fn is_adopted(&self) -> bool {
        matches!(self.attachment, Attachment::Adopted { .. })
    }

    /// What the end is called that a runtime takes.
    pub fn handed_over(&self) -> Option<&str> {
        match &self.attachment {
            Attachment::HandedOver { interface } => Some(interface),
            Attachment::Made { .. } | Attachment::Adopted { .. } => None,
        }
    }

    /// Whether it may have an address of the family.
    pub fn may_have(&self, family: Family) -> bool {
        let wish = match family {
            Family::Ipv6 => self.ipv6,
            Family::Ipv4 => self.ipv4,
        };
        wish != AddressWish::None
    }

    /// What it publishes, as far as it may have the addresses for that.
    pub fn published(&self) -> impl Iterator<Item = Publication> {
        let within = |one: &Publication| one.within(|family| self.may_have(family));
        self.publish.iter().filter_map(within)
    }

    /// The addresses that it is to have whatever the pools have.
    pub fn fixed_addresses(&self) -> impl Iterator<Item = IpAddr> {
        [self.ipv6, self.ipv4].into_iter().filter_map(|wish| match wish {
            AddressWish::Fixed(address) => Some(address),
            AddressWish::Auto | AddressWish::None => None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressWish {
    /// From the pools of that family; none if there is no pool of it.
    Auto,
    Fixed(IpAddr),
    None,
}

/// `[[policy]]` in `policies.d/*.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Policy {
    pub name: Name,
    pub subject: Selector,
    pub tier: Tier,
    /// Of the admin and baseline tiers, 0 to [`Policy::PRIORITIES`], lower first; 0 in the normal tier.
    pub priority: u16,
    /// Whether what no rule of the tier matches is denied at the tier's end, in the directions that the policy speaks of.
    pub default_deny: bool,
    pub mode: Mode,
    /// None: the policy does not speak of this direction.
    pub ingress: Option<Vec<Rule>>,
    pub egress: Option<Vec<Rule>>,
    /// Where it begins.
    pub origin: Origin,
    /// Where it makes ingress and egress default deny: the first rule's place, or that of `ingress = []`.
    pub ingress_origin: Option<Origin>,
    pub egress_origin: Option<Origin>,
}

impl Policy {
    /// The last priority.
    pub const PRIORITIES: u16 = 1000;

    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Where `direction` becomes default deny.
    pub fn default_origin(&self, direction: Direction) -> &Origin {
        let origin = match direction {
            Direction::Ingress => &self.ingress_origin,
            Direction::Egress => &self.egress_origin,
        };
        origin.as_ref().unwrap_or(&self.origin)
    }
}

/// `[[policy.ingress]]` and `[[policy.egress]]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Rule {
    pub action: Action,
    /// `from` or `to`. Empty: every peer.
    pub peers: Vec<Peer>,
    /// The receiver's. Empty: every protocol and port.
    pub ports: Vec<PortSpec>,
    /// The sender's, of protocols that have ports (see [`Protocol::has_ports`](crate::types::Protocol::has_ports)).
    /// Empty: any, and none.
    pub source_ports: Vec<PortRange>,
    /// The rule's networks (those of its groups too) also match the endpoints whose address is in them.
    pub match_endpoints: bool,
    /// Of `allow` with TCP ports only: what of their connections is allowed. Empty: all of it.
    #[serde(skip_serializing_if = "L7::is_empty")]
    pub l7: L7,
    pub origin: Origin,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    Selector(Selector),
    Entity(Entity),
    Cidr(CidrSet),
    /// Of this name in [`Config::groups`].
    Group(Name),
}

/// `[[group]]`: peers under a name. The networks are one set: an address is in it if it is in any of
/// `networks` and in none of `except`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Group {
    pub name: Name,
    pub selectors: Vec<Selector>,
    pub entities: Vec<Entity>,
    /// Sorted; none inside another or inside one of `except`.
    pub networks: Vec<IpNet>,
    /// Sorted, each inside one of `networks`.
    pub except: Vec<IpNet>,
    pub origin: Origin,
}

/// `[[assert]]`: what must hold in every generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Assert {
    pub kind: AssertKind,
    /// Empty: everyone.
    pub from: Vec<Peer>,
    /// Empty: everyone.
    pub to: Vec<Peer>,
    /// Empty: every protocol and port.
    pub ports: Vec<PortSpec>,
    pub origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssertKind {
    /// No packet that begins a flow passes.
    Never,
    /// All of them pass.
    Always,
}

/// Addresses inside `network` and outside all of `except`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct CidrSet {
    pub network: IpNet,
    /// Sorted, each inside `network`.
    pub except: Vec<IpNet>,
}
