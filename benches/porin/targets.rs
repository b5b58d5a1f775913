//! What is to be reached.

#[derive(Debug, Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub fn met(self, value: f64) -> bool {
        match self {
            Target::AtMost(bound) => value <= bound,
            Target::AtLeast(bound) => value >= bound,
        }
    }
}

pub fn of(name: &str) -> Option<Target> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

use Target::{AtLeast, AtMost};

pub const ALL: &[(&str, Target)] = &[
    ("packet.established.v6.ns", AtMost(100.0)),
    ("packet.established.v4.ns", AtMost(100.0)),
    ("packet.established.lookups", AtMost(1.0)),
    ("packet.first.v6.ns", AtMost(600.0)),
    ("packet.first.v4.ns", AtMost(600.0)),
    ("tcp.stream.ratio", AtLeast(0.95)),
    ("tcp.rr.ratio", AtLeast(0.95)),
    ("tcp.crr.ratio", AtLeast(0.95)),
    ("tcp.rr.p99.ratio", AtLeast(0.95)),
    ("tcp.rr.vs-nft-1000", AtLeast(1.1)),
    ("tcp.rr.vs-nft-1000-set", AtLeast(1.1)),
    ("tcp.crr.vs-nft-1000", AtLeast(1.1)),
    ("tcp.crr.vs-nft-1000-set", AtLeast(1.1)),
    ("cpu.per-request.ratio", AtLeast(0.9)),
    ("scale.entries-100k.ratio", AtLeast(0.95)),
    ("http.small.1.ratio", AtLeast(0.5)),
    ("http.small.64.ratio", AtLeast(0.5)),
    ("http.small.64.vs-haproxy", AtLeast(1.0)),
    ("http.small.64.vs-nginx", AtLeast(1.0)),
    ("http.small.64.vs-envoy", AtLeast(2.0)),
    ("http.large.1.ratio", AtLeast(0.8)),
    ("http.large.64.ratio", AtLeast(0.8)),
    ("commit.p99.ms", AtMost(20.0)),
    ("commit.vs-nft", AtLeast(1.0)),
    ("attach.vs-bridge", AtLeast(1.0)),
    ("attach.vs-bridge-500", AtLeast(1.0)),
    ("commit.flips.mixed", AtMost(0.0)),
    ("commit.flips.lost", AtMost(0.0)),
    ("policies.edit.ratio", AtMost(2.0)),
    ("policies.commit.ratio", AtMost(2.0)),
    ("why.batch.per-second", AtLeast(50_000.0)),
    ("daemon.rss.mib", AtMost(40.0)),
    ("start.cold.ms", AtMost(2000.0)),
    ("start.warm.ms", AtMost(300.0)),
];
