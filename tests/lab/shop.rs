//! A shop on a host with an uplink, which most tests start from.

use std::net::SocketAddr;

use super::host::{Container, Host};
use super::traffic::Server;
use super::{World, config};

pub const FRONT: u16 = 1;
pub const API: u16 = 2;
pub const DB: u16 = 3;
pub const INTRUDER: u16 = 4;

/// The host's own addresses, and the next machine's.
pub const HOST6: &str = "fd00:a::1";
pub const HOST4: &str = "192.0.2.1";
pub const OUTSIDE6: &str = "fd00:a::2";
pub const OUTSIDE4: &str = "192.0.2.2";

pub const POLICIES: &str = r#"[[policy]]
name    = "api"
subject = "app=api,env=prod"

[[policy.ingress]]
from  = ["app=front,env=prod"]
ports = ["8080/tcp", "8080/udp", "icmp/echo-request", "icmpv6/echo-request"]

[[policy.ingress]]
from   = ["app=front,env=prod"]
ports  = ["9090/tcp"]
action = "deny"

[[policy.egress]]
to    = ["app=db,env=prod"]
ports = ["5432/tcp"]

[[policy]]
name    = "db"
subject = "app=db,env=prod"
egress  = []

[[policy.ingress]]
from  = ["app=api,env=prod"]
ports = ["5432/tcp"]
"#;

/// `alpha` with four containers, and `outside`, to which its uplink leads.
pub struct Shop {
    pub host: Host,
    pub outside: Host,
    pub front: Container,
    pub api: Container,
    pub db: Container,
    pub intruder: Container,
    _servers: Vec<Server>,
}

impl Shop {
    /// Everything but the daemon.
    pub fn open(world: &World) -> Shop {
        let (host, outside) = (world.host("alpha"), world.host("outside"));
        host.link_to(
            &outside,
            &format!("up0 {HOST6}/64 {HOST4}/24"),
            &format!("up0 {OUTSIDE6}/64 {OUTSIDE4}/24"),
        );
        host.sh(&format!(
            "ip -6 route add default via {OUTSIDE6}; ip route add default via {OUTSIDE4}"
        ));
        outside.sh(&format!("ip -6 route add {} via {HOST6}", config::POOL6));
        host.write("porin.toml", &config::host(&["up0"]));
        let add = |name, labels, number| config::add(&host, name, labels, number);
        let front = add("front", "app = \"front\", env = \"prod\"", FRONT);
        let api = add("api", "app = \"api\", env = \"prod\"", API);
        let db = add("db", "app = \"db\", env = \"prod\"", DB);
        let intruder = add("intruder", "app = \"front\", env = \"dev\"", INTRUDER);
        host.write("policies.d/shop.toml", POLICIES);
        let mut servers = Vec::new();
        for port in [80, 5432, 8080, 9090] {
            for container in [&front, &api, &db, &intruder] {
                servers.push(Server::echo(container.place(), port));
            }
            servers.push(Server::echo(outside.place(), port));
            servers.push(Server::echo(host.place(), port));
        }
        Shop { host, outside, front, api, db, intruder, _servers: servers }
    }
}

/// An endpoint's address and port, both families, IPv6 first.
pub fn at(number: u16, port: u16) -> [SocketAddr; 2] {
    both(&config::ipv6(number), &config::ipv4(number), port)
}

pub fn both(ipv6: &str, ipv4: &str, port: u16) -> [SocketAddr; 2] {
    [ipv6, ipv4].map(|address| SocketAddr::new(address.parse().expect("address"), port))
}

/// The line (from 1) on which the `nth` (from 0) line of `text` that begins with `start` stands.
pub fn line_of(text: &str, start: &str, nth: usize) -> u64 {
    let found = text.lines().enumerate().filter(|(_, line)| line.starts_with(start)).nth(nth);
    found.unwrap_or_else(|| panic!("no {nth}th line `{start}`")).0 as u64 + 1
}
