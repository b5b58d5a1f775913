//! What should be, at one moment: what `compile` turns into kernel objects.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use crate::config::model::{Assert, Group, Host, Policies};
use crate::types::{Identity, Labels, Mac, Name, PortMatch, Publication, Slot};

/// Immutable and cheap to clone: unchanged parts are shared with the snapshot before.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub host: Arc<Host>,
    /// Addresses of this host, sorted.
    pub host_addresses: Arc<Vec<IpAddr>>,
    /// The uplinks that exist, with what netlink says of them.
    pub uplinks: Arc<Vec<Uplink>>,
    /// The endpoints whose namespaces or interfaces exist, by slot.
    pub endpoints: Arc<BTreeMap<Slot, Arc<Endpoint>>>,
    /// Every identity that an endpoint of this snapshot has, with its labels.
    pub identities: Arc<BTreeMap<Identity, Arc<Labels>>>,
    pub policies: Policies,
    /// Sorted by name.
    pub groups: Arc<Vec<Arc<Group>>>,
    pub asserts: Arc<Vec<Arc<Assert>>>,
    /// Addresses of adopted endpoints, of those that are closed too: nobody else's. Sorted.
    pub reserved: Arc<Vec<IpAddr>>,
}

/// An interface to the outside as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    pub interface: String,
    pub ifindex: u32,
    pub mac: Mac,
    pub mtu: u32,
    pub slot: Slot,
    /// First global address: what IPv4 is masqueraded as.
    pub address4: Option<Ipv4Addr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub name: Name,
    pub slot: Slot,
    /// Security-relevant labels; those of `identity`.
    pub labels: Arc<Labels>,
    pub identity: Identity,
    pub ipv6: Option<Ipv6Addr>,
    pub ipv4: Option<Ipv4Addr>,
    pub ports: BTreeMap<Name, PortMatch>,
    /// Ports of the host that are its.
    pub publish: Vec<Publication>,
    pub attachment: Attachment,
    /// Nothing passes, whatever policy says.
    pub shut: bool,
    /// Interface on the host. Of porin's own: `pn` and 12 hex digits of a digest of the name, or of the name of what is
    /// handed over.
    pub host_interface: String,
    /// Digest of name, place and addresses: another incarnation gets another slot.
    pub incarnation: [u8; 16],
}

/// Whose an endpoint's interface is, as found on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    Made(Made),
    Adopted(Adopted),
}

/// An interface that porin makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// None: it is made on the host, and handed over to a runtime.
    pub namespace: Option<Namespace>,
    /// Its name in the namespace, or on the host until it is taken.
    pub interface: String,
    /// Its MAC there.
    pub mac: Mac,
    pub mtu: u32,
}

/// An interface that is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Adopted {
    pub ifindex: u32,
    /// ifindex of what the host's stack reaches it by: of the bridge that it is a port of, or its own.
    pub via: u32,
}

impl Made {
    /// What its other end on the host bears. One that is handed over has no neighbour entries, and sends all to its own MAC.
    pub fn host_mac(&self) -> Mac {
        match self.namespace {
            Some(_) => Mac::GATEWAY,
            None => self.mac,
        }
    }
}

impl Endpoint {
    pub fn made(&self) -> Option<&Made> {
        match &self.attachment {
            Attachment::Made(made) => Some(made),
            Attachment::Adopted(_) => None,
        }
    }

    pub fn adopted(&self) -> Option<Adopted> {
        match &self.attachment {
            Attachment::Made(_) => None,
            Attachment::Adopted(adopted) => Some(*adopted),
        }
    }
}

/// A network namespace: the path that was written, and which one it is now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace {
    pub path: PathBuf,
    /// Device and inode of the nsfs file (namespaces(7)).
    pub device: u64,
    pub inode: u64,
}

/// Of endpoints by name; what is wrong with one, if it cannot be used. Cloning is cheap.
pub type Namespaces = OrdMap<Name, Result<Namespace, String>>;

/// Likewise of adopted endpoints.
pub type Interfaces = OrdMap<Name, Result<Adopted, String>>;

impl Snapshot {
    pub fn pools(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.host.pools.iter().map(|pool| pool.network)
    }
}
