//! Frames: built by hand, checksums and all, and taken apart again.

use std::net::{Ipv4Addr, Ipv6Addr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// An address of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

pub fn ip(text: &str) -> Ip {
    match text.parse().expect("an address") {
        std::net::IpAddr::V4(a) => Ip::V4(a),
        std::net::IpAddr::V6(a) => Ip::V6(a),
    }
}

impl Ip {
    /// IPv4 as IPv4-mapped.
    pub fn mapped(self) -> [u8; 16] {
        match self {
            Self::V4(a) => a.to_ipv6_mapped().octets(),
            Self::V6(a) => a.octets(),
        }
    }
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::V4(a) => a.octets().to_vec(),
            Self::V6(a) => a.octets().to_vec(),
        }
    }
    pub fn is4(self) -> bool {
        matches!(self, Self::V4(_))
    }
}

/// One's complement sum (RFC 1071), not yet complemented.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum()
}

pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut total: u32 = parts.iter().map(|p| sum(p)).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

fn pseudo(source: Ip, destination: Ip, protocol: u8, length: usize) -> Vec<u8> {
    let mut p = [source.bytes(), destination.bytes()].concat();
    p.extend((length as u32).to_be_bytes());
    p.extend([0, 0, 0, protocol]);
    p
}

/// Fills in the checksum of a transport header at `at`.
fn seal(mut l4: Vec<u8>, at: usize, source: Ip, destination: Ip, protocol: u8) -> Vec<u8> {
    let pseudo =
        if protocol == ICMP { Vec::new() } else { pseudo(source, destination, protocol, l4.len()) };
    let sum = checksum(&[&pseudo, &l4]);
    let sum = if sum == 0 && protocol == UDP { 0xffff } else { sum };
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    l4
}

/// What to put into a frame, with the usual defaults.
#[derive(Clone, Debug)]
pub struct Frame {
    pub source_mac: [u8; 6],
    pub destination_mac: [u8; 6],
    pub source: Ip,
    pub destination: Ip,
    pub protocol: u8,
    pub hop_limit: u8,
    /// IPv4: identification; IPv6: of the fragment header, if there is one.
    pub id: u32,
    /// Offset in bytes, more to come.
    pub fragment: Option<(u16, bool)>,
    pub options: Vec<u8>,
    /// IPv6 extension headers, each (type, bytes from the second on).
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub l4: Vec<u8>,
}

impl Frame {
    pub fn new(source: Ip, destination: Ip, protocol: u8, l4: Vec<u8>) -> Self {
        Self {
            source_mac: [0; 6],
            destination_mac: *b"\x02porin",
            source,
            destination,
            protocol,
            hop_limit: 64,
            id: 0x1234,
            fragment: None,
            options: Vec::new(),
            extensions: Vec::new(),
            l4,
        }
    }

    pub fn tcp(source: (Ip, u16), destination: (Ip, u16), flags: u8, payload: &[u8]) -> Self {
        let mut l4 = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
        l4.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        l4.extend(payload);
        Self::new(source.0, destination.0, TCP, seal(l4, 16, source.0, destination.0, TCP))
    }

    /// A reset without more, as the datapath makes them.
    pub fn reset(
        source: (Ip, u16),
        destination: (Ip, u16),
        sequence: u32,
        ack: Option<u32>,
    ) -> Self {
        let mut l4 = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
        l4.extend(sequence.to_be_bytes());
        l4.extend(ack.unwrap_or(0).to_be_bytes());
        l4.extend([0x50, if ack.is_some() { RST | ACK } else { RST }, 0, 0, 0, 0, 0, 0]);
        let l4 = seal(l4, 16, source.0, destination.0, TCP);
        Self::new(source.0, destination.0, TCP, l4).with(|f| f.id = 0)
    }

    pub fn udp(source: (Ip, u16), destination: (Ip, u16), payload: &[u8]) -> Self {
        let mut l4 = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
        l4.extend(((8 + payload.len()) as u16).to_be_bytes());
        l4.extend([0, 0]);
        l4.extend(payload);
        Self::new(source.0, destination.0, UDP, seal(l4, 6, source.0, destination.0, UDP))
    }

    pub fn icmp(
        source: Ip,
        destination: Ip,
        ty: u8,
        code: u8,
        rest: [u8; 4],
        payload: &[u8],
    ) -> Self {
        let protocol = if source.is4() { ICMP } else { ICMPV6 };
        let mut l4 = vec![ty, code, 0, 0];
        l4.extend(rest);
        l4.extend(payload);
        Self::new(source, destination, protocol, seal(l4, 2, source, destination, protocol))
    }

    pub fn echo(source: Ip, destination: Ip, id: u16, reply: bool) -> Self {
        let ty = match (source.is4(), reply) {
            (true, false) => 8,
            (true, true) => 0,
            (false, false) => 128,
            (false, true) => 129,
        };
        let id = id.to_be_bytes();
        Self::icmp(source, destination, ty, 0, [id[0], id[1], 0, 1], b"are you there")
    }

    pub fn l3(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (Ip::V4(_), _) => self.l3_4(),
            _ => self.l3_6(),
        }
    }

    fn l3_4(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let total = (header + self.l4.len()) as u16;
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let fragment =
            if self.fragment.is_some() { (offset / 8) | (u16::from(more) << 13) } else { 0x4000 };
        let mut h = vec![0x40 | (header / 4) as u8, 0];
        h.extend(total.to_be_bytes());
        h.extend((self.id as u16).to_be_bytes());
        h.extend(fragment.to_be_bytes());
        h.extend([self.hop_limit, self.protocol, 0, 0]);
        h.extend(self.source.bytes());
        h.extend(self.destination.bytes());
        h.extend(&self.options);
        let sum = checksum(&[&h]);
        h[10..12].copy_from_slice(&sum.to_be_bytes());
        h.extend(&self.l4);
        h
    }

    fn l3_6(&self) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            let mut f = vec![0];
            f.extend((offset | u16::from(more)).to_be_bytes());
            f.extend(self.id.to_be_bytes());
            chain.push((44, f));
        }
        let mut body = Vec::new();
        for (i, (_, rest)) in chain.iter().enumerate() {
            body.push(chain.get(i + 1).map_or(self.protocol, |next| next.0));
            body.extend(rest);
        }
        body.extend(&self.l4);
        let mut h = vec![0x60, 0, 0, 0];
        h.extend((body.len() as u16).to_be_bytes());
        h.extend([chain.first().map_or(self.protocol, |first| first.0), self.hop_limit]);
        h.extend(self.source.bytes());
        h.extend(self.destination.bytes());
        h.extend(body);
        h
    }

    pub fn bytes(&self) -> Vec<u8> {
        let ethertype: u16 = if self.source.is4() { 0x0800 } else { 0x86dd };
        let mut f = [self.destination_mac, self.source_mac].concat();
        f.extend(ethertype.to_be_bytes());
        f.extend(self.l3());
        f
    }

    /// The same with one change.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// Panics unless all checksums of a whole packet, from L3 on, are right; quoted
/// packets within ICMPv4 and ICMPv6 errors have their IPv4 header checked too.
pub fn assert_checksums(l3: &[u8]) {
    let (source, destination, protocol, header) = match l3[0] >> 4 {
        4 => {
            let header = usize::from(l3[0] & 0xf) * 4;
            assert_eq!(checksum(&[&l3[..header]]), 0, "IPv4 header checksum");
            assert_eq!(
                usize::from(u16::from_be_bytes([l3[2], l3[3]])),
                l3.len(),
                "IPv4 total length"
            );
            let address =
                |at: usize| Ip::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&l3[at..at + 4]).unwrap()));
            (address(12), address(16), l3[9], header)
        }
        _ => {
            assert_eq!(
                usize::from(u16::from_be_bytes([l3[4], l3[5]])) + 40,
                l3.len(),
                "IPv6 length"
            );
            let address =
                |at: usize| Ip::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&l3[at..at + 16]).unwrap()));
            (address(8), address(24), l3[6], 40)
        }
    };
    let l4 = &l3[header..];
    let pseudo =
        if protocol == ICMP { Vec::new() } else { pseudo(source, destination, protocol, l4.len()) };
    if protocol == UDP && l4[6..8] == [0, 0] {
        return;
    }
    assert_eq!(checksum(&[&pseudo, l4]), 0, "checksum of protocol {protocol}");
    if protocol == ICMP && [3, 11, 12].contains(&l4[0]) {
        let quoted = &l4[8..];
        assert_eq!(
            checksum(&[&quoted[..usize::from(quoted[0] & 0xf) * 4]]),
            0,
            "quoted header's checksum"
        );
    }
}
