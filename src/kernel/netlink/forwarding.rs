//! Tells when forwarding is turned off on an interface (`RTM_NEWNETCONF`). The kernel turns it off
//! everywhere at once when someone writes `net.ipv4.ip_forward` or `net.ipv6.conf.all.forwarding`.
//!
//! rtnetlink does not know these messages, so they are read here. It knows no interface of porin's.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::unix::AsyncFd;

use crate::kernel::sys;

pub struct Forwarding {
    socket: AsyncFd<OwnedFd>,
}

impl Forwarding {
    /// Watches the calling thread's namespace, from now on. To be called on a runtime.
    pub fn watch() -> io::Result<Self> {
        /// `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF`
        const GROUPS: u32 = 1 << 23 | 1 << 24;
        // No protocol is NETLINK_ROUTE.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Forwarding { socket: sys::wait_on(socket)? })
    }

    /// Waits until it was turned off somewhere, or may have been.
    pub async fn lost(&self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        let mut lost = false;
        while !lost {
            let mut ready = self.socket.readable().await?;
            // One wake-up tells of all interfaces.
            loop {
                match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                    Ok((count, _)) => lost |= tells_of_loss(buffer.get(..count).unwrap_or(&[])),
                    Err(Errno::AGAIN) => break,
                    Err(Errno::NOBUFS) => lost = true,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            ready.clear_ready();
        }
        Ok(())
    }
}

/// Whether a message of these says that forwarding is off now, and nothing else: what a new interface
/// begins with, a message with all its settings, is no loss.
fn tells_of_loss(mut messages: &[u8]) -> bool {
    const NEW_NETCONF: u16 = 80;
    const HEADER: usize = 16;
    /// `struct netconfmsg`, padded.
    const FAMILY: usize = 4;
    while let Some(length) = u32_at(messages, 0).map(|length| length as usize) {
        if length < HEADER {
            return false;
        }
        let body = messages.get(HEADER + FAMILY..length);
        if u16_at(messages, 4) == Some(NEW_NETCONF) && body.is_some_and(only_forwarding_off) {
            return true;
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    false
}

fn only_forwarding_off(mut attributes: &[u8]) -> bool {
    const IFINDEX: u16 = 1;
    const FORWARDING: u16 = 2;
    let mut off = false;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        match kind {
            IFINDEX => {}
            FORWARDING => off = u32_at(attributes, 4) == Some(0),
            _ => return false,
        }
        let next = usize::from(length).max(4).next_multiple_of(4);
        attributes = attributes.get(next..).unwrap_or(&[]);
    }
    off
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this type with these attributes.
    fn message(kind: u16, attributes: &[(u16, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((20 + 8 * attributes.len() as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10 + 4]);
        for (kind, value) in attributes {
            bytes.extend(8u16.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn only_the_end_of_forwarding_is_a_loss() {
        let off = message(80, &[(1, 7), (2, 0)]);
        assert!(tells_of_loss(&off));
        assert!(!tells_of_loss(&message(80, &[(1, 7), (2, 1)])), "on");
        assert!(!tells_of_loss(&message(80, &[(1, 7), (2, 0), (3, 0)])), "all settings");
        assert!(!tells_of_loss(&message(81, &[(1, 7), (2, 0)])), "of an interface that is gone");
        assert!(tells_of_loss(&[message(80, &[(1, 1), (2, 1)]), off.clone()].concat()));
        for end in 0..off.len() {
            assert!(!tells_of_loss(&off[..end]), "cut short at {end}");
        }
        assert!(!tells_of_loss(&[0; 64]));
    }
}
