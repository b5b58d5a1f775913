//! Containers that another program has put on a bridge of the host: adopted, they are judged by label;
//! their network goes on as it was, before, while and after porin is there.

mod lab;

use std::io::ErrorKind;
use std::net::SocketAddr;

use lab::daemon::EFFECT;
use lab::traffic::{self, ARRIVES, DROPPED, Server, Stream};
use lab::{Container, Host, World, config, eventually, ping};

const WEB: u16 = 0x11;
const DB: u16 = 0x12;
const PLAIN: u16 = 0x13;
const OUTSIDE: [&str; 2] = ["fd00:a::2", "192.0.2.2"];
const ROUTER: [&str; 2] = ["fd00:b::1", "172.20.0.1"];

const POLICIES: &str = r#"[[policy]]
name    = "db"
subject = "app=db"

[[policy.ingress]]
from  = ["app=web", "app=own"]
ports = ["5432/tcp", "53/udp"]

[[policy.ingress]]
from   = ["app=web"]
ports  = ["9090/tcp"]
action = "reject"

[[policy]]
name    = "web"
subject = "app=web"

[[policy.egress]]
to    = ["app=db", "entity:host"]

[[policy.egress]]
to    = ["cidr:192.0.2.2/32", "cidr:fd00:a::2/128"]
ports = ["80/tcp"]
"#;

fn addresses(number: u16) -> [String; 2] {
    [format!("fd00:b::{number:x}"), format!("172.20.0.{number}")]
}

fn both(addresses: &[impl AsRef<str>; 2], port: u16) -> [SocketAddr; 2] {
    addresses.each_ref().map(|a| SocketAddr::new(a.as_ref().parse().unwrap(), port))
}

fn at(number: u16, port: u16) -> [SocketAddr; 2] {
    both(&addresses(number), port)
}

fn adopted(name: &str, labels: &str, number: u16) -> String {
    let [ipv6, ipv4] = addresses(number);
    format!(
        "[[endpoint]]\nname = \"{name}\"\ninterface = \"v{name}\"\nlabels = {{ {labels} }}\n\
         ipv6 = \"{ipv6}\"\nipv4 = \"{ipv4}\"\n\n"
    )
}

/// A host with a bridge of somebody's, three containers on it, and a way out that the host's own stack goes.
struct Yard {
    host: Host,
    outside: Host,
    web: Container,
    db: Container,
    plain: Container,
    servers: Vec<Server>,
}

impl Yard {
    fn open(world: &World) -> Yard {
        let (host, outside) = (world.host("alpha"), world.host("outside"));
        host.link_to(&outside, "up0 fd00:a::1/64 192.0.2.1/24", "eth0 fd00:a::2/64 192.0.2.2/24");
        host.sysctl("net/ipv4/ip_forward", "1");
        host.sysctl("net/ipv6/conf/all/forwarding", "1");
        outside
            .sh("ip route add 172.20.0.0/24 via 192.0.2.1; ip route add fd00:b::/64 via fd00:a::1");
        host.bridge("br0", &[]);
        // Without a MAC of its own a bridge takes another whenever its ports change, and is lost to who knows it.
        host.sh("ip link set dev br0 address 02:00:00:00:0b:01
             ip addr add 172.20.0.1/24 dev br0; ip addr add fd00:b::1/64 dev br0 nodad");
        let add = |name: &str, number| {
            let container = host.container(name);
            plug(&host, &container, number);
            container
        };
        let (web, db, plain) = (add("web", WEB), add("db", DB), add("plain", PLAIN));
        let at = |container: &Container, port| Server::echo(container.place(), port);
        let mut servers =
            vec![at(&db, 5432), at(&db, 9090), at(&db, 53), at(&web, 80), at(&plain, 80)];
        servers.extend([Server::echo(host.place(), 80), Server::echo(outside.place(), 80)]);
        servers.push(Server::echo(outside.place(), 81));
        host.write("porin.toml", &config::host(&["up0"]));
        Yard { host, outside, web, db, plain, servers }
    }

    fn adopt(&self) {
        let files = adopted("web", "app = \"web\"", WEB) + &adopted("db", "app = \"db\"", DB);
        self.host.write("endpoints.d/yard.toml", &files);
    }

    /// All that policy allows, by both families.
    fn must_work(&self) {
        let (web, outside) = (self.web.place(), both(&OUTSIDE, 80));
        for to in at(DB, 5432).into_iter().chain(outside).chain(both(&ROUTER, 80)) {
            assert!(traffic::tcp(web, to, ARRIVES), "web -> {to}");
        }
        for to in at(DB, 53) {
            assert!(traffic::udp(web, to, 1200, ARRIVES), "web -> {to}");
        }
        for (from, name) in [(self.host.place(), "host"), (self.outside.place(), "outside")] {
            for to in at(WEB, 80) {
                assert!(traffic::tcp(from, to, ARRIVES), "{name} -> {to}");
            }
        }
    }

    /// What policy denies.
    fn must_not_work(&self) {
        let denied = [
            (self.web.place(), both(&OUTSIDE, 81)),
            (self.web.place(), at(PLAIN, 80)),
            (self.plain.place(), at(DB, 5432)),
            (self.host.place(), at(DB, 5432)),
            (self.outside.place(), at(DB, 5432)),
        ];
        for (from, to) in denied {
            for to in to {
                assert!(!traffic::tcp(from, to, DROPPED), "{} -> {to}", from.name());
            }
        }
    }

    fn drops(&self, name: &str, reason: &str) -> u64 {
        let output = self.host.porinctl(&["endpoints", "--json"]).success();
        let rows: serde_json::Value = serde_json::from_str(&output).unwrap();
        let row = rows["endpoints"].as_array().unwrap().iter().find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("{name} in {rows}"))["drops"][reason].as_u64().unwrap_or(0)
    }
}

/// As Docker and the like do, with the port named as the endpoints' files say.
fn plug(host: &Host, container: &Container, number: u16) {
    let [ipv6, ipv4] = addresses(number);
    let inside = format!("eth0 {ipv6}/64 {ipv4}/24 via {} {}", ROUTER[0], ROUTER[1]);
    host.plug(container, &format!("v{}", container.name()), "br0", &inside);
}

#[test]
fn what_runs_is_judged_by_label_from_one_generation_on_and_never_interrupted() {
    World::run(|world| {
        let yard = Yard::open(world);
        yard.must_work();
        let denied = [at(DB, 9090), at(PLAIN, 80)].concat();
        for to in &denied {
            assert!(traffic::tcp(yard.web.place(), *to, ARRIVES), "before porin: {to}");
        }
        let mut streams: Vec<Stream> =
            at(DB, 5432).map(|to| Stream::start(yard.web.place(), to)).into_iter().collect();
        yard.adopt();
        let daemon = yard.host.porind();
        daemon.wait_for("both are attached", |status| status["endpoints"]["attached"] == 2);
        streams.iter().for_each(Stream::must_go_on);
        for to in &denied {
            assert!(traffic::tcp(yard.web.place(), *to, ARRIVES), "without policies: {to}");
        }
        let doomed = Stream::start(yard.web.place(), denied[2]);
        daemon.commit(|| yard.host.write("policies.d/yard.toml", POLICIES));
        streams.iter().for_each(Stream::must_go_on);
        assert!(doomed.stands_still(), "its next packet is denied");
        yard.must_work();
        yard.must_not_work();
        for to in at(DB, 9090) {
            let refused = traffic::connect(yard.web.place(), to, ARRIVES).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}: rejected");
        }
        // Segments that are cut by the device, fragments, and the link's own traffic.
        traffic::bulk(yard.web.place(), at(DB, 5432)[0], 16).unwrap();
        traffic::bulk(yard.web.place(), at(DB, 5432)[1], 16).unwrap();
        for to in at(DB, 53) {
            assert!(traffic::udp(yard.web.place(), to, 4000, ARRIVES), "{to}: fragments");
        }
        for container in [&yard.web, &yard.db] {
            container.place().sh("ip neigh flush all; ip -6 neigh flush all");
        }
        yard.host.sh(
            "ip neigh flush all; ip -6 neigh flush all; ip link set dev br0 type bridge fdb_flush",
        );
        yard.must_work();
        let why = yard.host.porinctl(&["why", "web", "db", "5432/tcp"]).success();
        assert!(why.starts_with("allow"), "{why}");
        streams.drain(..).for_each(|stream| stream.finish().unwrap());
    });
}

#[test]
fn nobody_on_the_bridge_sends_as_another() {
    World::run(|world| {
        let yard = Yard::open(world);
        yard.adopt();
        yard.host.write("policies.d/yard.toml", POLICIES);
        let _daemon = yard.host.porind();
        yard.must_work();
        let alias = "ip addr add 172.20.0.99/24 dev eth0; ip addr add fd00:b::99/64 dev eth0 nodad";
        yard.web.place().sh(alias);
        let before = yard.drops("web", "spoofed-address");
        for (address, to) in ["fd00:b::99", "172.20.0.99"].into_iter().zip(at(DB, 53)) {
            let socket =
                yard.web.place().enter(|| std::net::UdpSocket::bind((address, 0))).unwrap();
            socket.connect(to).unwrap();
            assert!(traffic::udp_once(&socket, 100, DROPPED).is_err(), "{address}");
        }
        assert!(yard.drops("web", "spoofed-address") > before);
        // One that is not adopted takes web's address, bridged and by way of the host.
        let [web6, web4] = addresses(WEB);
        yard.plain
            .place()
            .sh(&format!("ip addr add {web4}/24 dev eth0; ip addr add {web6}/64 dev eth0 nodad"));
        for (address, to) in [web6, web4].iter().zip(at(DB, 53)) {
            let before = yard.drops("db", "spoofed-address");
            let bind = || std::net::UdpSocket::bind((address.as_str(), 0));
            let socket = yard.plain.place().enter(bind).unwrap();
            socket.connect(to).unwrap();
            // The first may be lost to address resolution.
            eventually(ARRIVES, "the gate sees it", || {
                assert!(traffic::udp_once(&socket, 100, DROPPED).is_err(), "{address}");
                yard.drops("db", "spoofed-address") > before
            });
        }
    });
}

#[test]
fn with_porins_own_endpoints_both_ways() {
    World::run(|world| {
        let yard = Yard::open(world);
        yard.adopt();
        let own = config::add(&yard.host, "own", "app = \"own\"", 1);
        let _server = [Server::echo(own.place(), 80), Server::echo(own.place(), 81)];
        yard.host.write(
            "policies.d/yard.toml",
            &(POLICIES.to_owned()
                + r#"
[[policy.egress]]
to    = ["app=own"]
ports = ["80/tcp", "80/udp"]
"#),
        );
        let daemon = yard.host.porind();
        daemon.wait_for("all are attached", |status| status["endpoints"]["attached"] == 3);
        let home = |port| both(&[config::ipv6(1), config::ipv4(1)], port);
        for to in at(DB, 5432).into_iter().chain(at(WEB, 80)) {
            assert!(traffic::tcp(own.place(), to, ARRIVES), "own -> {to}");
        }
        for to in at(DB, 9090) {
            assert!(!traffic::tcp(own.place(), to, DROPPED), "own -> {to}");
        }
        for to in home(80) {
            assert!(traffic::tcp(yard.web.place(), to, ARRIVES), "web -> {to}");
            assert!(traffic::udp(yard.web.place(), to, 1000, ARRIVES), "web -> {to}");
            assert!(traffic::tcp(yard.db.place(), to, ARRIVES), "db -> {to}");
        }
        for to in home(81) {
            assert!(!traffic::tcp(yard.web.place(), to, DROPPED), "web -> {to}");
        }
        for to in at(WEB, 0) {
            assert!(ping::ping(own.place(), to.ip(), 64, ARRIVES), "own -> {to}");
        }
        traffic::bulk(own.place(), at(DB, 5432)[0], 16).unwrap();
        traffic::bulk(own.place(), at(DB, 5432)[1], 16).unwrap();
        yard.must_work();
        yard.must_not_work();
    });
}

#[test]
fn an_interface_that_is_made_anew_is_adopted_anew() {
    World::run(|world| {
        let yard = Yard::open(world);
        yard.adopt();
        yard.host.write("policies.d/yard.toml", POLICIES);
        let daemon = yard.host.porind();
        yard.must_not_work();
        let stream = Stream::start(yard.outside.place(), at(WEB, 80)[0]);
        yard.host.sh("ip link del dev vdb");
        daemon.wait_for("db is closed and told of", |status| {
            let faults = status["faults"].as_array().cloned().unwrap_or_default();
            status["endpoints"]["closed"] == 1
                && faults.iter().any(|fault| fault.to_string().contains("vdb"))
        });
        stream.must_go_on();
        plug(&yard.host, &yard.db, DB);
        daemon.wait_for("db is back", |status| status["endpoints"]["attached"] == 2);
        stream.must_go_on();
        yard.must_work();
        yard.must_not_work();
        // A port of another bridge is another place, though the interface is the same.
        yard.host.bridge("br1", &[]);
        daemon.commit(|| drop(yard.host.sh("ip link set dev vdb master br1")));
        daemon.commit(|| drop(yard.host.sh("ip link set dev vdb master br0")));
        yard.must_work();
        yard.must_not_work();
        // Under another name it is not the one that was meant, and nobody's gates are left on it.
        yard.host
            .sh("ip link set dev vdb down; ip link set dev vdb name vdb9; ip link set dev vdb9 up");
        daemon.wait_for("db is closed", |status| status["endpoints"]["closed"] == 1);
        eventually(EFFECT, "the renamed one has no gates", || !has_gates(&yard.host, "vdb9"));
        yard.host
            .sh("ip link set dev vdb9 down; ip link set dev vdb9 name vdb; ip link set dev vdb up");
        daemon.wait_for("db is back", |status| status["endpoints"]["attached"] == 2);
        yard.must_work();
        yard.must_not_work();
        // Nor may others' addresses be used while an endpoint is closed: nobody else has it.
        yard.host.sh("ip link del dev vdb");
        daemon.wait_for("db is closed", |status| status["endpoints"]["closed"] == 1);
        yard.plain.place().sh("ip addr add 172.20.0.18/24 dev eth0");
        let _server = Server::echo(yard.plain.place(), 5432);
        assert!(!traffic::tcp(yard.web.place(), at(DB, 5432)[1], DROPPED));
        stream.finish().unwrap();
    });
}

#[test]
fn killed_started_again_released_and_torn_down() {
    World::run(|world| {
        let yard = Yard::open(world);
        yard.adopt();
        yard.host.write("policies.d/yard.toml", POLICIES);
        let mut daemon = yard.host.porind();
        let stream = Stream::start(yard.web.place(), at(DB, 5432)[0]);
        for _ in 0..2 {
            daemon.kill();
            stream.must_go_on();
            yard.must_not_work();
            daemon.start_again();
            stream.must_go_on();
            yard.must_work();
            yard.must_not_work();
        }
        // Its other address: the interface gets other gates.
        let moved = adopted("web", "app = \"web\"", WEB).replace("ipv4 = ", "# ipv4 = ");
        let db = adopted("db", "app = \"db\"", DB);
        daemon.commit(|| yard.host.write("endpoints.d/yard.toml", &(moved + &db)));
        stream.must_go_on();
        assert!(!traffic::tcp(yard.web.place(), at(DB, 5432)[1], DROPPED));
        daemon.commit(|| yard.adopt());
        yard.must_work();
        // Released: its traffic is nobody's business any more.
        daemon.commit(|| yard.host.write("endpoints.d/yard.toml", &db));
        eventually(EFFECT, "web's gates are gone", || !has_gates(&yard.host, "vweb"));
        assert!(has_gates(&yard.host, "vdb"));
        assert!(traffic::tcp(yard.web.place(), at(PLAIN, 80)[0], ARRIVES));
        assert!(!traffic::tcp(yard.web.place(), at(DB, 5432)[0], DROPPED), "it is the world now");
        daemon.commit(|| yard.adopt());
        yard.must_not_work();
        stream.must_go_on();
        // Taken away, porin leaves everything running.
        let links = yard.host.sh("ip -o link | sed 's/^[0-9]*: //; s/@.*//; s/:.*//'");
        daemon.stop();
        yard.must_not_work();
        yard.host.porind_once(&["--teardown"]).success();
        stream.must_go_on();
        yard.must_work();
        for to in [at(DB, 9090), at(PLAIN, 80)].concat() {
            assert!(traffic::tcp(yard.web.place(), to, ARRIVES), "{to}");
        }
        assert_eq!(yard.host.sh("ip -o link | sed 's/^[0-9]*: //; s/@.*//; s/:.*//'"), links);
        for port in ["vweb", "vdb"] {
            assert!(!has_gates(&yard.host, port));
        }
        assert!(!yard.host.sh("tc qdisc show").contains("clsact"));
        stream.finish().unwrap();
        assert!(!yard.servers.is_empty());
    });
}

fn has_gates(host: &Host, interface: &str) -> bool {
    let filters = |hook| host.sh(&format!("tc filter show dev {interface} {hook} 2>&1 || true"));
    filters("ingress").contains("porin") || filters("egress").contains("porin")
}

/// Where Debian has the reference CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// Runs a reference CNI plugin for a container, and returns its result.
fn cni(host: &Host, container: &str, config: &serde_json::Value) -> serde_json::Value {
    let plugin = config["type"].as_str().unwrap();
    let result = host.sh(&format!(
        "echo '{config}' | CNI_COMMAND=ADD CNI_CONTAINERID={container} CNI_IFNAME=eth0 CNI_PATH={PLUGINS} \
         CNI_NETNS=/run/netns/{container} {PLUGINS}/{plugin}"
    ));
    serde_json::from_str(&result).unwrap_or_else(|error| panic!("{error}: {result}"))
}

/// A bridge with masquerading and published ports, as Podman's default network is.
#[test]
fn a_network_that_reference_cni_plugins_made() {
    if !std::path::Path::new(PLUGINS).join("portmap").exists() {
        return println!("not tried: there are no CNI plugins in {PLUGINS}");
    }
    World::run(|world| {
        let (host, outside) = (world.host("alpha"), world.host("outside"));
        host.link_to(&outside, "up0 192.0.2.1/24", "eth0 192.0.2.2/24");
        host.sysctl("net/ipv4/ip_forward", "1");
        host.expect_link("cni0");
        let mut files = String::new();
        let mut attach = |name: &str, published: u16| {
            let container = host.container(name);
            let bridge = serde_json::json!({
                "cniVersion": "0.4.0", "name": "pods", "type": "bridge", "bridge": "cni0",
                "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": "/run/cni",
                    "ranges": [[{ "subnet": "10.88.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }],
                },
            });
            let result = cni(&host, name, &bridge);
            let veth = result["interfaces"][1]["name"].as_str().unwrap().to_owned();
            host.expect_link(&veth);
            let address = result["ips"][0]["address"].as_str().unwrap();
            let address = address.split('/').next().unwrap().to_owned();
            let portmap = serde_json::json!({
                "cniVersion": "0.4.0", "name": "pods", "type": "portmap", "snat": true,
                "runtimeConfig": { "portMappings": [
                    { "hostPort": published, "containerPort": 80, "protocol": "tcp" },
                ] },
                "prevResult": result,
            });
            cni(&host, name, &portmap);
            files += &format!(
                "[[endpoint]]\nname = \"{name}\"\ninterface = \"{veth}\"\nipv4 = \"{address}\"\n\
                 labels = {{ app = \"{name}\" }}\n\n"
            );
            (container, SocketAddr::new(address.parse().unwrap(), 80))
        };
        let ((web, web_at), (db, db_at)) = (attach("web", 8080), attach("db", 8081));
        host.sh(
            "iptables -P FORWARD DROP; iptables -A FORWARD -i cni0 -j ACCEPT
             iptables -A FORWARD -o cni0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
        );
        let places = [web.place(), db.place(), outside.place()];
        let _servers = places.map(|place| Server::echo(place, 80));
        host.write("porin.toml", &config::host(&["up0"]));
        host.write("endpoints.d/pods.toml", &files);
        host.write(
            "policies.d/pods.toml",
            "[[policy]]\nname = \"db\"\nsubject = \"app=db\"\n[[policy.ingress]]\n\
             from = [\"app=web\", \"app=own\"]\nports = [\"80/tcp\"]\n",
        );
        let own = config::add(&host, "own", "app = \"own\"", 1);
        let own_at = SocketAddr::new(config::ipv4(1).parse().unwrap(), 80);
        let _server = Server::echo(own.place(), 80);
        let daemon = host.porind();
        daemon.wait_for("all are attached", |status| status["endpoints"]["attached"] == 3);
        let published = |port| SocketAddr::new("192.0.2.1".parse().unwrap(), port);
        let works = [
            (web.place(), db_at, "to its neighbour"),
            (web.place(), SocketAddr::new("192.0.2.2".parse().unwrap(), 80), "masqueraded"),
            (outside.place(), published(8080), "by the published port"),
            (own.place(), db_at, "past the host's filters"),
            (own.place(), web_at, "past the host's filters"),
            (web.place(), own_at, "past the host's filters"),
            (db.place(), own_at, "past the host's filters"),
        ];
        for (from, to, how) in works {
            assert!(traffic::tcp(from, to, ARRIVES), "{} -> {to}: {how}", from.name());
        }
        for (from, to) in [(outside.place(), published(8081)), (host.place(), db_at)] {
            assert!(!traffic::tcp(from, to, DROPPED), "{} -> {to}", from.name());
        }
    });
}
