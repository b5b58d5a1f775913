//! ICMP and ICMPv6 echo by raw sockets (RFC 792, RFC 4443 section 4).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::place::Place;

/// Whether `to` answers an echo request of `size` bytes of data within `timeout`.
pub fn ping(place: &Place, to: IpAddr, size: usize, timeout: Duration) -> bool {
    static IDENTIFIER: AtomicU16 = AtomicU16::new(1);
    let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed);
    let (domain, protocol, request, reply, skip) = match to {
        // A raw IPv4 socket hands over the IP header, too.
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0, 20),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129, 0),
    };
    let raw = place
        .enter(|| socket_with(domain, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)))
        .unwrap_or_else(|e| panic!("{}: raw socket: {e}", place.name()));
    // Sending and receiving with addresses works for raw sockets just as for datagram sockets.
    let socket = UdpSocket::from(raw);
    let mut packet = vec![request, 0, 0, 0, 0, 0, 0, 1];
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet.resize(8 + size, 0x55);
    // The kernel fills in ICMPv6's checksum, not ICMP's.
    let sum = if to.is_ipv4() { checksum(&packet) } else { 0 };
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    if socket.send_to(&packet, SocketAddr::from((to, 0))).is_err() {
        return false;
    }
    let end = Instant::now() + timeout;
    let mut buffer = vec![0; 64 << 10];
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        socket.set_read_timeout(Some(left)).expect("timeout");
        let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some(message) = buffer[..n].get(skip..) else { continue };
        let ours = message.len() == packet.len() && message[4..6] == identifier.to_be_bytes();
        if from.ip() == to && message[0] == reply && ours {
            return true;
        }
    }
    false
}

/// RFC 1071.
fn checksum(data: &[u8]) -> u16 {
    let words =
        data.chunks(2).map(|c| u32::from(c[0]) << 8 | c.get(1).map_or(0, |b| u32::from(*b)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
