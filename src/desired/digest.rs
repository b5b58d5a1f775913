//! What is derived from names by digest: the same on every start, without anything to remember.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use crate::types::{Mac, Name};

use super::snapshot::{Adopted, Namespace};

/// SHA-256 of the parts, each preceded by its length, so that no two lists of parts run together.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    sha.finalize().into()
}

/// The first `N` bytes of a digest.
pub fn head<const N: usize>(digest: [u8; 32]) -> [u8; N] {
    let mut head = [0; N];
    for (to, from) in head.iter_mut().zip(digest) {
        *to = from;
    }
    head
}

/// Who an endpoint is to the kernel. The namespace counts by what it is, not by the path it is reached by. `mac`: if it is not to be
/// derived from this.
pub fn incarnation(
    name: &Name,
    namespace: &Namespace,
    interface: &str,
    addresses: impl IntoIterator<Item = IpAddr>,
    mac: Option<Mac>,
) -> [u8; 16] {
    let device = namespace.device.to_be_bytes();
    let inode = namespace.inode.to_be_bytes();
    let addresses = addresses.into_iter().map(|a| a.to_string());
    let addresses: Vec<String> = addresses.chain(mac.map(|mac| mac.to_string())).collect();
    let fixed: [&[u8]; 5] =
        [b"endpoint", name.as_str().as_bytes(), &device, &inode, interface.as_bytes()];
    head(digest(fixed.into_iter().chain(addresses.iter().map(|a| a.as_bytes()))))
}

/// The same of one whose interface is handed over: it keeps the interface though it is called otherwise.
pub fn handed_incarnation(
    interface: &str,
    addresses: impl IntoIterator<Item = IpAddr>,
    mac: Option<Mac>,
) -> [u8; 16] {
    let addresses = addresses.into_iter().map(|a| a.to_string());
    let addresses: Vec<String> = addresses.chain(mac.map(|mac| mac.to_string())).collect();
    let fixed: [&[u8]; 2] = [b"handed over", interface.as_bytes()];
    head(digest(fixed.into_iter().chain(addresses.iter().map(|a| a.as_bytes()))))
}

/// The same of an adopted endpoint: an interface made anew, or put elsewhere, is another.
pub fn adopted_incarnation(
    name: &Name,
    interface: &str,
    adopted: Adopted,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> [u8; 16] {
    let (ifindex, via) = (adopted.ifindex.to_be_bytes(), adopted.via.to_be_bytes());
    let addresses: Vec<String> = addresses.into_iter().map(|a| a.to_string()).collect();
    let fixed: [&[u8]; 5] =
        [b"adopted", name.as_str().as_bytes(), interface.as_bytes(), &ifindex, &via];
    head(digest(fixed.into_iter().chain(addresses.iter().map(|a| a.as_bytes()))))
}

/// Who an uplink is to the kernel: an interface made anew is another.
pub fn uplink_incarnation(interface: &str, ifindex: u32) -> [u8; 16] {
    head(digest([b"uplink".as_slice(), interface.as_bytes(), &ifindex.to_be_bytes()]))
}

/// Locally administered, unicast (IEEE 802 section 8.4), and never the gateway's.
pub fn mac(name: &str, incarnation: &[u8; 16]) -> Mac {
    let mut mac: [u8; 6] = head(digest([b"mac".as_slice(), name.as_bytes(), incarnation]));
    mac[0] = mac[0] & 0xfc | 0x02;
    if mac == Mac::GATEWAY.0 {
        mac[5] ^= 1;
    }
    Mac(mac)
}

/// `pn` and 12 hex digits: 14 bytes, one less than an interface's name may have.
pub fn host_interface(name: &Name) -> String {
    own_name(b"interface", name.as_str())
}

/// The same of the other end of what is handed over.
pub fn handed_host_interface(interface: &str) -> String {
    own_name(b"handed over", interface)
}

fn own_name(kind: &[u8], name: &str) -> String {
    let head: [u8; 6] = head(digest([kind, name.as_bytes()]));
    head.iter().fold("pn".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}
