//! Endpoints on request: what an adapter asks of the daemon, and what it is told.
//!
//! Adapters are programs of their own that turn another system's words (CNI's, Docker's) into these; the daemon knows
//! none of those. An *attachment* is one interface of one container, by whatever name its system knows it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::types::{Generation, Invalid, Labels, Mac, Name, Publication};

/// Who makes attachments: the first word of their files' names.
pub const ADAPTERS: &[&str] = &["cni", "netavark", "docker", "adopt"];

/// Which attachment: the name of its file without `.toml`.
///
/// `ADAPTER-<16 hex digits>-<32 hex digits>`: a digest of the network and one of the attachment in it, so that whatever a
/// runtime calls them makes a safe name, and those of one network can be listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttachmentId(String);

impl AttachmentId {
    /// `adapter` is one of [`ADAPTERS`]. `parts`: what tells the attachment from all others of its network.
    pub fn new(adapter: &str, network: &str, parts: &[&str]) -> Self {
        let parts = [network].into_iter().chain(parts.iter().copied());
        AttachmentId(format!("{}{}", Self::prefix(adapter, network), hex(parts, 16)))
    }

    /// How the ids of all attachments of a network begin.
    pub fn prefix(adapter: &str, network: &str) -> String {
        format!("{adapter}-{}-", hex([network], 8))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One of [`ADAPTERS`].
    pub fn adapter(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }

    /// Twelve hex digits, to tell names apart that would be the same.
    pub fn short(&self) -> &str {
        let hex = self.0.rsplit('-').next().unwrap_or_default();
        hex.get(..12).unwrap_or(hex)
    }
}

/// Of a digest in which no two lists of parts run together.
fn hex<'a>(parts: impl IntoIterator<Item = &'a str>, bytes: usize) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    let digest: [u8; 32] = sha.finalize().into();
    digest.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

impl FromStr for AttachmentId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_hex = |part: Option<&str>, digits: usize| {
            part.is_some_and(|part| {
                let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                part.len() == digits && part.bytes().all(lower)
            })
        };
        let mut parts = text.split('-');
        let known = parts.next().is_some_and(|adapter| ADAPTERS.contains(&adapter));
        if known && is_hex(parts.next(), 16) && is_hex(parts.next(), 32) && parts.next().is_none() {
            return Ok(AttachmentId(text.to_owned()));
        }
        Err(Invalid::new("this is no attachment")
            .hint("they are called ADAPTER-<16 hex digits>-<32 hex digits>"))
    }
}

impl TryFrom<String> for AttachmentId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<AttachmentId> for String {
    fn from(id: AttachmentId) -> String {
        id.0
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The file of an attachment, given the daemon's run directory.
pub fn file(run: &Path, id: &AttachmentId) -> PathBuf {
    run.join("endpoints.d").join(format!("{id}.toml"))
}

/// An endpoint that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    pub id: AttachmentId,
    /// What a person sees in its file: which network, which container.
    pub about: String,
    pub name: Name,
    pub place: Place,
    #[serde(default)]
    pub labels: Labels,
    /// Fixed addresses; none: from a pool. Of another's interface, or one that is handed over: no address of this family.
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
    #[serde(default)]
    pub ipv4: Option<Ipv4Addr>,
    /// Ports of the host that are to be its.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publication>,
    /// None: derived from the name.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Nothing passes yet: what it is to be is not known.
    #[serde(default)]
    pub shut: bool,
    /// The same was asked before and no answer came: that it is there already is no fault.
    #[serde(default)]
    pub again: bool,
    /// What is attached under this id already becomes this.
    #[serde(default)]
    pub replaces: bool,
}

impl Attach {
    /// Bytes of [`Attach::about`] at most.
    pub const ABOUT_MAX: usize = 1024;

    /// Asked for the first time, and nothing in particular.
    pub fn new(id: AttachmentId, about: String, name: Name, place: Place, labels: Labels) -> Self {
        Attach {
            id,
            about,
            name,
            place,
            labels,
            ipv6: None,
            ipv4: None,
            publish: Vec::new(),
            mac: None,
            shut: false,
            again: false,
            replaces: false,
        }
    }

    pub fn fixed(&self) -> impl Iterator<Item = IpAddr> {
        let ipv6 = self.ipv6.map(IpAddr::V6);
        ipv6.into_iter().chain(self.ipv4.map(IpAddr::V4))
    }
}

/// Where an endpoint is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Place {
    /// In a network namespace: porin makes an interface of this name in it. The path is absolute.
    Inside { namespace: PathBuf, interface: String },
    /// Behind an interface of the host's that another program made: porin judges what passes it, and does nothing else.
    /// The number tells it from one of the same name that came later.
    Behind { interface: String, ifindex: u32 },
    /// On the host under this name, for the runtime to move it into a namespace.
    HandOver(String),
}

/// An endpoint that is in force, behind an interface that porin made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub name: String,
    /// None: the interface is handed over.
    pub namespace: Option<PathBuf>,
    /// Inside, or as it is handed over.
    pub interface: String,
    pub host_interface: String,
    pub mac: String,
    pub host_mac: String,
    pub mtu: u32,
    pub ipv6: Option<Ipv6Addr>,
    pub ipv4: Option<Ipv4Addr>,
    /// Ports of the host that are its.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publication>,
    pub generation: Generation,
}

/// An endpoint that is in force, behind an interface that another program made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    pub name: String,
    pub host_interface: String,
    pub ifindex: u32,
    pub ipv6: Option<Ipv6Addr>,
    pub ipv4: Option<Ipv4Addr>,
    pub generation: Generation,
}

impl Adopted {
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv6 = self.ipv6.map(IpAddr::V6);
        ipv6.into_iter().chain(self.ipv4.map(IpAddr::V4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_names_of_whatever_runtimes_say() {
        let id = AttachmentId::new("cni", "../net\n", &["c/../../etc", "eth0"]);
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert!(id.as_str().starts_with(&AttachmentId::prefix("cni", "../net\n")));
        assert_eq!(id.adapter(), "cni");
        assert_ne!(id, AttachmentId::new("cni", "../net\n", &["c/../../etc", "eth1"]));
        assert_ne!(
            AttachmentId::new("cni", "n", &["ab", "c"]),
            AttachmentId::new("cni", "n", &["a", "bc"])
        );
    }

    #[test]
    fn nothing_else_is_an_id() {
        let good = AttachmentId::new("cni", "n", &["c", "eth0"]).to_string();
        let upper = good.to_uppercase();
        let longer = format!("{good}0");
        let dotted = good.replace("cni-", "cni-.");
        for bad in ["", "cni", "shop", "../cni-00-00", &upper, &longer, &dotted, "cni--"] {
            assert!(bad.parse::<AttachmentId>().is_err(), "{bad}");
        }
    }
}
