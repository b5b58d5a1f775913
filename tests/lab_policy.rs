//! The policy language in force: the real daemon, real namespaces, real traffic. What each rule means exactly is
//! `tests/compile`'s and `tests/proof`'s; here it is seen to arrive in the kernel, and to change at an edit.

mod lab;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lab::traffic::{self, Server};
use lab::{Container, Daemon, Host, World, config};

const FRONT: u16 = 1;
const ONE: u16 = 2;
const TWO: u16 = 3;
/// What each container echoes on.
const PORTS: std::ops::RangeInclusive<u16> = 1001..=1004;

/// `front`, and two endpoints with the same labels, one of which calls another port `http`.
struct Three {
    host: Host,
    front: Container,
    _servers: Vec<Server>,
    _twins: Vec<Container>,
    daemon: Daemon,
}

fn three(world: &World, policies: &str) -> Three {
    let host = world.host("alpha");
    host.write("porin.toml", &config::host(&[]));
    let front = config::add(&host, "front", "app = \"front\"", FRONT);
    let mut servers = Vec::new();
    let mut twins = Vec::new();
    for (name, number, http) in [("one", ONE, 1001), ("two", TWO, 1002)] {
        let container = host.container(name);
        let endpoint = config::endpoint(name, "app = \"twin\"", number);
        let endpoint = format!("{}\nports = {{ http = \"{http}/tcp\" }}\n", endpoint.trim_end());
        host.write(&format!("endpoints.d/{name}.toml"), &endpoint);
        servers.extend(PORTS.map(|port| Server::echo(container.place(), port)));
        twins.push(container);
    }
    host.write("policies.d/twin.toml", policies);
    let daemon = host.porind();
    Three { host, front, _servers: servers, _twins: twins, daemon }
}

impl Three {
    fn policies(&self, text: &str) {
        self.daemon.commit(|| self.host.write("policies.d/twin.toml", text));
    }

    /// Which of the ports answer, over both families.
    #[track_caller]
    fn open(&self, to: u16) -> Vec<u16> {
        let open = |to: SocketAddr| {
            let patience = Duration::from_millis(300);
            traffic::tcp(self.front.place(), to, patience)
        };
        let both = |port: &u16| {
            let addresses = [config::ipv6(to), config::ipv4(to)];
            let open = addresses.map(|a| open(SocketAddr::new(a.parse().unwrap(), *port)));
            assert_eq!(open[0], open[1], "port {port} differs between the families");
            open[0]
        };
        PORTS.filter(both).collect()
    }
}

#[test]
fn one_name_is_another_port_at_each_endpoint() {
    World::run(|world| {
        let three = three(
            world,
            "[[policy]]\nname = \"in\"\nsubject = \"app=twin\"\n\n[[policy.ingress]]\nfrom = \"app=front\"\n\
             ports = \"http/tcp\"\n",
        );
        assert_eq!(three.open(ONE), [1001]);
        assert_eq!(three.open(TWO), [1002]);
        // As the sender's rule: each receiver's own.
        three.policies(
            "[[policy]]\nname = \"out\"\nsubject = \"app=front\"\n\n[[policy.egress]]\nto = \"app=twin\"\n\
             ports = [\"http/tcp\", \"1004/tcp\"]\n",
        );
        assert_eq!(three.open(ONE), [1001, 1004]);
        assert_eq!(three.open(TWO), [1002, 1004]);
    });
}

#[test]
fn tiers_groups_and_addresses_decide_in_their_order() {
    World::run(|world| {
        let normal = "[[policy]]\nname = \"normal\"\nsubject = \"app=twin\"\n\n[[policy.ingress]]\n\
                      from = \"app=front\"\nports = [\"1001/tcp\", \"1002/tcp\"]\n";
        let three = three(world, normal);
        assert_eq!(three.open(ONE), [1001, 1002]);
        let admin = "\n[[policy]]\nname = \"admin\"\nsubject = \"app=twin\"\ntier = \"admin\"\npriority = 10\n\n\
                     [[policy.ingress]]\nports = \"1001/tcp\"\naction = \"pass\"\n\n\
                     [[policy.ingress]]\nports = \"1001-1002/tcp\"\naction = \"deny\"\n\n\
                     [[policy.ingress]]\nfrom = \"group:fronts\"\nports = \"1003/tcp\"\n\n\
                     [[group]]\nname = \"fronts\"\nmembers = [{ app = \"front\" }]\n";
        three.policies(&format!(
            "{normal}{}",
            admin.replace("action = \"pass\"", "action = \"deny\"")
        ));
        assert_eq!(three.open(ONE), [1003]);
        // Within a priority deny beats pass, so the pass needs a priority of its own.
        let first = "\n[[policy]]\nname = \"first\"\nsubject = \"app=twin\"\ntier = \"admin\"\npriority = 5\n\n\
                     [[policy.ingress]]\nfrom = \"app=front\"\nports = \"1001/tcp\"\naction = \"pass\"\n";
        three.policies(&format!("{normal}{}{first}", admin.replace("\"pass\"", "\"deny\"")));
        assert_eq!(three.open(ONE), [1001, 1003]);
        // By the sender's address, which is an endpoint's.
        let network = format!(
            "[[policy]]\nname = \"net\"\nsubject = \"app=twin\"\n\n[[policy.ingress]]\n\
             from = [\"cidr:{}/128\", \"cidr:{}/32\"]\nmatch-endpoints = true\nports = \"1004/tcp\"\n",
            config::ipv6(FRONT),
            config::ipv4(FRONT)
        );
        three.policies(&network);
        assert_eq!(three.open(TWO), [1004]);
        three.policies(&network.replace("match-endpoints = true\n", ""));
        assert!(three.open(TWO).is_empty());
    });
}

#[test]
fn the_senders_port_can_matter() {
    World::run(|world| {
        let three = three(
            world,
            "[[policy]]\nname = \"in\"\nsubject = \"app=twin\"\n\n[[policy.ingress]]\nports = \"1001/tcp\"\n\
             source-ports = [\"7000-7099\"]\n",
        );
        let connects = |port: u16| {
            let to = SocketAddr::new(config::ipv4(ONE).parse().unwrap(), 1001);
            three.front.place().enter(|| from_port(port, to).is_ok())
        };
        assert!(connects(7000) && connects(7099));
        assert!(!connects(6999) && !connects(7100));
    });
}

/// Connects from a port of ours.
fn from_port(port: u16, to: SocketAddr) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
    let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(Duration::from_millis(300)))?;
    let any: std::net::IpAddr = if to.is_ipv6() { [0u16; 8].into() } else { [0u8; 4].into() };
    bind(&socket, &SocketAddr::new(any, port))?;
    connect(&socket, &to)?;
    Ok(socket.into())
}

#[test]
fn a_broken_assertion_refuses_the_whole_edit_and_says_what_allows_it() {
    World::run(|world| {
        let own = "[[policy]]\nname = \"in\"\nsubject = \"app=twin\"\n\n[[policy.ingress]]\n\
                   from = \"app=front\"\nports = \"1001/tcp\"\n\n\
                   [[assert]]\nnever = { from = \"app!=front\", to = \"app=twin\" }\n";
        let three = three(world, own);
        assert_eq!(three.open(ONE), [1001]);
        let generation = three.daemon.generation();
        let wider =
            own.replace("\"app=front\"\nports = \"1001/tcp\"", "\"app\"\nports = \"1002/tcp\"");
        three.host.write("policies.d/twin.toml", &wider);
        three.daemon.wait_for("a refusal", |status| {
            let text = status.to_string();
            text.contains("the assertion `never` does not hold") && text.contains("on 1002/tcp")
        });
        assert_eq!(three.daemon.generation(), generation);
        assert_eq!(three.open(ONE), [1001], "what was in force stays");
        three.policies(&own.replace("1001", "1003"));
        assert_eq!(three.open(ONE), [1003]);
    });
}

#[test]
fn a_shadow_policy_changes_nothing() {
    World::run(|world| {
        let shadow = "[[policy]]\nname = \"would\"\nsubject = \"app=twin\"\nmode = \"shadow\"\n\n\
                      [[policy.ingress]]\nfrom = \"app=front\"\nports = \"1001/tcp\"\n";
        let three = three(world, shadow);
        assert_eq!(three.open(ONE), PORTS.collect::<Vec<_>>());
        three.policies(&shadow.replace("shadow", "enforce"));
        assert_eq!(three.open(ONE), [1001]);
    });
}
