//! What is tried, by whom, with which program; and what should come of it.

use std::net::IpAddr;

use crate::lab::flows::{self, FlowStream};
use crate::lab::traffic::ARRIVES;
use crate::lab::{Container, Place};
use crate::paper::Row;
use crate::scene::{Scene, WORLD4, WORLD6};

const ETC: &str = "/etc/porin/";
const SHOP: &str = "policies.d/shop.toml";

#[derive(Clone, Copy)]
enum How {
    Http(u16),
    Redis,
    Ping,
}

struct Try<'a> {
    from: &'a Place,
    to: &'static str,
    address: IpAddr,
    how: How,
    /// None: passes. Else the file that denies, and in which direction.
    denied: Option<(&'static str, &'static str)>,
}

/// All of them at once. Without flows nothing can be said of who denied.
pub fn run(scene: &Scene, flows: Option<&FlowStream>) -> Vec<Row> {
    let tries = tries(scene);
    std::thread::scope(|scope| {
        let threads: Vec<_> = tries.iter().map(|one| scope.spawn(move || one.row(flows))).collect();
        threads.into_iter().map(|thread| thread.join().expect("try")).collect()
    })
}

fn tries(scene: &Scene) -> Vec<Try<'_>> {
    let Scene { host, world, frontend, api, db, intruder, .. } = scene;
    let host_addresses = ["2001:db8:1::1", "192.0.2.1"].map(parse);
    let outside = [WORLD6, WORLD4].map(parse);
    let (front, api_at, db_at) = (both(frontend), both(api), both(db));
    let (shop_in, shop_out) = (Some((SHOP, "ingress")), Some((SHOP, "egress")));
    let mut tries = Vec::new();
    let mut add = |from, to, addresses: &[IpAddr], how, denied| {
        tries.extend(addresses.iter().map(|&address| Try { from, to, address, how, denied }));
    };
    let (f, a, d, i) = (frontend.place(), api.place(), db.place(), intruder.place());
    add(f, "api", &api_at, How::Http(8080), None);
    add(f, "api", &api_at, How::Ping, None);
    add(a, "db", &db_at, How::Redis, None);
    add(f, "db", &db_at, How::Redis, shop_in);
    add(i, "frontend", &front, How::Http(80), shop_in);
    add(i, "api", &api_at, How::Http(8080), shop_in);
    add(i, "api", &api_at, How::Ping, shop_in);
    add(i, "db", &db_at, How::Redis, shop_in);
    add(f, "world", &outside, How::Http(80), None);
    add(i, "world", &outside, How::Http(80), None);
    add(a, "world", &outside, How::Http(80), shop_out);
    add(d, "world", &outside, How::Http(80), shop_out);
    add(f, "host", &host_addresses, How::Http(80), None);
    add(host.place(), "frontend", &front, How::Http(80), None);
    add(host.place(), "db", &db_at, How::Redis, shop_in);
    // IPv4 is masqueraded: nobody outside has a route to it.
    add(world.place(), "frontend", &front[..1], How::Http(80), None);
    add(world.place(), "api", &api_at[..1], How::Http(8080), shop_in);
    tries
}

impl Try<'_> {
    fn row(&self, flows: Option<&FlowStream>) -> Row {
        let expected = self.denied.is_none();
        let passed = self.passes(expected);
        let mut by = String::new();
        let mut by_as_expected = true;
        if let (Some((file, side)), Some(flows), false) = (self.denied, flows, passed) {
            let found = self.denial(flows);
            by_as_expected = found.as_ref().is_some_and(|(found_side, found_file, line)| {
                *found_side == side && *found_file == format!("{ETC}{file}") && *line > 0
            });
            by = found.map_or("unknown".into(), |(_, file, line)| {
                format!("{}:{line}", file.strip_prefix(ETC).unwrap_or(&file))
            });
        }
        let (how, port) = match self.how {
            How::Http(port) => ("curl", format!(":{port}")),
            How::Redis => ("redis", ":6379".into()),
            How::Ping => ("ping", String::new()),
        };
        let who = format!("{} -> {}{port}", self.from.name(), self.to);
        let family = if self.address.is_ipv6() { "IPv6" } else { "IPv4" };
        Row { who, how, family, expected, passed, by, by_as_expected }
    }

    fn passes(&self, expected: bool) -> bool {
        let address = self.address;
        // What should be denied need not be waited for as long.
        let patience = if expected { "10" } else { "1" };
        match self.how {
            How::Http(port) => {
                let to = std::net::SocketAddr::new(address, port);
                let url = format!("http://{to}/");
                self.from.run(&["curl", "-sgf", "-m", patience, "-o", "/dev/null", &url]).ok()
            }
            How::Redis => {
                let to = address.to_string();
                let argv = ["timeout", patience, "redis-cli", "-h", &to, "PING"];
                self.from.run(&argv).stdout.contains("PONG")
            }
            How::Ping => {
                let to = address.to_string();
                self.from.run(&["ping", "-n", "-q", "-c", "1", "-w", patience, &to]).ok()
            }
        }
    }

    fn denial(&self, flows: &FlowStream) -> Option<(&'static str, String, u64)> {
        let (port, protocols) = match self.how {
            How::Http(port) => (Some(port), ["tcp", "tcp"]),
            How::Redis => (Some(6379), ["tcp", "tcp"]),
            How::Ping => (None, ["icmp", "icmpv6"]),
        };
        let source = self.source();
        let ours = |event: &serde_json::Value| {
            event["type"] == "deny"
                && event["destination"]["address"] == self.address.to_string()
                && protocols.iter().any(|protocol| event["protocol"] == *protocol)
                && port.is_none_or(|port| event["destination"]["port"] == port)
                && source.iter().any(|address| event["source"]["address"] == *address)
        };
        flows::denied_by(&flows.find(ARRIVES, ours)?)
    }

    /// Every global address of where it comes from.
    fn source(&self) -> Vec<String> {
        let output = self.from.run(&["ip", "-j", "addr", "show", "scope", "global"]);
        let links: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let links = links.as_array().cloned().unwrap_or_default();
        let infos = links.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
        infos.filter_map(|info| info["local"].as_str().map(str::to_owned)).collect()
    }
}

fn both(container: &Container) -> Vec<IpAddr> {
    let (v6, v4) = container.addresses();
    v6.map(IpAddr::from).into_iter().chain(v4.map(IpAddr::from)).collect()
}

fn parse(address: &str) -> IpAddr {
    address.parse().expect("address")
}
