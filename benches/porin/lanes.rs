//! The places between which traffic is measured, and what stands between them.

use std::fmt::Write;

use crate::generator::{Lane, PORTS};
use crate::lab::{Container, Daemon, Place, World, config, eventually, traffic};

/// Rules that do not match, before the one that does.
pub const RULES: u32 = 1000;
const CLIENT6: &str = "fd00:b::1";
const SERVER6: &str = "fd00:b::2";

/// Nothing but a veth: what no filter can surpass.
pub fn bare(world: &World) -> Lane {
    let (a, b) = (world.host("bare-a"), world.host("bare-b"));
    a.link_to(&b, &format!("up0 {CLIENT6}/64"), &format!("up0 {SERVER6}/64"));
    reuse_ports(a.place());
    Lane::open("bare", a.place(), b.place(), SERVER6)
}

/// How nftables is told of a thousand rules.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    List,
    Set,
}

/// A Linux bridge with br_netfilter and conntrack, as Docker and Kubernetes use it.
pub fn bridge(world: &World, form: Form) -> Lane {
    let name = if form == Form::List { "nft-1000" } else { "nft-1000-set" };
    let short = if form == Form::List { "list" } else { "set" };
    let host = world.host(&format!("bridge-{short}"));
    let (a, b) = (world.host(&format!("{short}-a")), world.host(&format!("{short}-b")));
    host.link_to(&a, "pa", &format!("eth0 {CLIENT6}/64"));
    host.link_to(&b, "pb", &format!("eth0 {SERVER6}/64"));
    host.bridge("br0", &["pa", "pb"]);
    for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        host.sysctl(&format!("net/bridge/{key}"), "1");
    }
    // As short as may be: thousands of closed connections must not fill the table.
    host.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5");
    host.write("bench.nft", &ruleset(form));
    host.sh("nft -f /etc/porin/bench.nft");
    reuse_ports(a.place());
    Lane::open(name, a.place(), b.place(), SERVER6)
}

/// Two endpoints of one porin host; the second admits the first, after `rules` that do not match.
pub struct PorinLane {
    pub lane: Lane,
    /// Dies with this value.
    pub _daemon: Daemon,
}

pub fn porin(world: &World, name: &'static str, rules: u32) -> PorinLane {
    let host = world.host(name);
    host.write("porin.toml", &config::host(&[]));
    let client = config::add(&host, "client", "app = \"client\"", 1);
    let server = config::add(&host, "server", "app = \"server\"", 2);
    host.write("policies.d/bench.toml", &policy(rules));
    let daemon = host.porind();
    wait_up(&client, &server);
    reuse_ports(client.place());
    let lane = Lane::open(name, client.place(), server.place(), &config::ipv6(2));
    PorinLane { lane, _daemon: daemon }
}

/// The same permissions as `ruleset`, in porin's words.
pub fn policy(rules: u32) -> String {
    let mut text = String::from("[[policy]]\nname = \"server\"\nsubject = \"app=server\"\n");
    for n in 1..=rules {
        let port = 10_000 + n % 50_000;
        let address = stranger(n);
        let _ = write!(
            text,
            "\n[[policy.ingress]]\nfrom = [\"cidr:{address}/128\"]\nports = [\"{port}/tcp\"]\n"
        );
    }
    let (first, last) = (PORTS.start(), PORTS.end());
    text + &format!(
        "\n[[policy.ingress]]\nfrom = [\"app=client\"]\nports = [\"{first}-{last}/tcp\"]\n"
    )
}

fn ruleset(form: Form) -> String {
    let ports: Vec<u16> = PORTS.collect();
    let mut rules = String::new();
    let mut elements = String::new();
    for n in 1..=RULES {
        let (address, port) = (stranger(n), 10_000 + n % 50_000);
        let _ =
            writeln!(rules, "    ip6 saddr {address} ip6 daddr {SERVER6} tcp dport {port} accept");
        let _ = writeln!(elements, "      {address} . {SERVER6} . {port},");
    }
    for port in ports {
        let _ =
            writeln!(rules, "    ip6 saddr {CLIENT6} ip6 daddr {SERVER6} tcp dport {port} accept");
        let _ = writeln!(elements, "      {CLIENT6} . {SERVER6} . {port},");
    }
    let (set, judge) = match form {
        Form::List => (String::new(), rules),
        Form::Set => (
            format!(
                "  set allowed {{\n    type ipv6_addr . ipv6_addr . inet_service\n    elements = {{\n{elements}    }}\n  }}\n"
            ),
            "    ip6 saddr . ip6 daddr . tcp dport @allowed accept\n".to_owned(),
        ),
    };
    format!(
        "table inet bench {{\n{set}  chain forward {{\n    type filter hook forward priority 0; policy drop;\n    \
         ct state established,related accept\n    ct state invalid drop\n    \
         icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n{judge}  }}\n}}\n"
    )
}

/// An address that nobody has.
fn stranger(n: u32) -> String {
    format!("2001:db8:99::{n:x}")
}

fn wait_up(client: &Container, server: &Container) {
    let up = |container: &Container| container.addresses().0.is_some();
    eventually(traffic::ARRIVES, "endpoints have addresses", || up(client) && up(server));
}

/// A client that opens thousands of connections per second must not run out of ports.
fn reuse_ports(client: &Place) {
    client.sysctl("net/ipv4/tcp_tw_reuse", "1");
    client.sysctl("net/ipv4/ip_local_port_range", "1024 65000");
}
