//! Chained CNI: the reference plugins make the network, `porin-cni` behind them has it judged by label.

mod lab;

use std::net::SocketAddr;
use std::path::Path;

use lab::cni::{Chain, Network, REFERENCE, address};
use lab::daemon::EFFECT;
use lab::traffic::{self, ARRIVES, DROPPED, Server, Stream};
use lab::{Container, Daemon, Host, World, config, eventually};
use serde_json::{Value, json};

const POLICIES: &str = r#"[[policy]]
name    = "db"
subject = "app=db"

[[policy.ingress]]
from  = ["app=web"]
ports = ["5432/tcp", "5432/udp"]

[[policy]]
name    = "web"
subject = "app=web"

[[policy.ingress]]
from  = ["cidr:192.0.2.2/32"]
ports = ["80/tcp"]

[[policy.egress]]
to = ["app=db"]
"#;

/// A host on which the reference plugins run, and a machine outside.
struct Yard {
    host: Host,
    outside: Host,
}

impl Yard {
    fn open(world: &World) -> Yard {
        let (host, outside) = (world.host("alpha"), world.host("outside"));
        host.link_to(&outside, "up0 fd00:a::1/64 192.0.2.1/24", "eth0 fd00:a::2/64 192.0.2.2/24");
        host.sysctl("net/ipv4/ip_forward", "1");
        host.expect_link("cni0");
        host.write("porin.toml", &config::host(&["up0"]));
        host.write("policies.d/yard.toml", POLICIES);
        Yard { host, outside }
    }

    fn attach(&self, chain: &Chain, name: &str) -> (Container, Value) {
        let container = self.host.container(name);
        let result = chain.attach(&self.host, &container);
        self.host.expect_link(&veth(&result));
        (container, result)
    }

    fn files(&self) -> usize {
        let files = std::fs::read_dir(self.host.run_directory().join("porin/endpoints.d"));
        let names = files.into_iter().flatten().map(|file| file.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".toml")).count()
    }

    fn has_gates(&self, interface: &str) -> bool {
        let filters =
            |hook| self.host.sh(&format!("tc filter show dev {interface} {hook} 2>&1 || true"));
        filters("ingress").contains("porin") || filters("egress").contains("porin")
    }
}

fn ours(app: &str) -> Value {
    Chain::ours(app)
}

fn bridged(app: &str) -> Chain {
    Chain::new("1.0.0", vec![Chain::bridge(), ours(app)])
}

/// The reference plugin `bridge` lists the bridge, the end on the host, and the one inside.
fn veth(result: &Value) -> String {
    result["interfaces"][1]["name"].as_str().unwrap().to_owned()
}

fn at(result: &Value, port: u16) -> [SocketAddr; 2] {
    [true, false].map(|ipv6| SocketAddr::new(address(result, ipv6).unwrap(), port))
}

/// By one datagram of each family, which nobody sends again.
fn reaches(from: &Container, to: [SocketAddr; 2], patience: std::time::Duration) -> bool {
    let answers = to.map(|to| {
        let socket = traffic::udp_socket(from.place(), to);
        traffic::udp_once(&socket, 16, patience).is_ok()
    });
    assert_eq!(answers[0], answers[1], "both families alike");
    answers[0]
}

fn attached(daemon: &Daemon) -> u64 {
    daemon.status()["endpoints"]["attached"].as_u64().unwrap()
}

/// Whether there are the reference plugins. `make test` installs them; without, a test says so and does nothing.
fn has_plugins() -> bool {
    let there = Path::new(REFERENCE).join("bridge").exists();
    if !there {
        eprintln!("not tried: there are no CNI plugins in {REFERENCE}");
    }
    there
}

#[test]
fn in_every_version_the_first_packet_is_judged_and_the_result_handed_on() {
    if !has_plugins() {
        return;
    }
    World::run(|world| {
        let yard = Yard::open(world);
        let daemon = yard.host.porind();
        let (db, db_result) = yard.attach(&bridged("db"), "db");
        let _servers = [5432, 9090].map(|port| Server::echo(db.place(), port));
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let chain = |app| Chain::new(version, vec![Chain::bridge(), ours(app)]);
            let (web, result) = yard.attach(&chain("web"), &format!("web{version}"));
            assert!(reaches(&web, at(&db_result, 5432), ARRIVES), "{version}");
            assert!(!reaches(&web, at(&db_result, 9090), DROPPED), "{version}");
            let (other, _) = yard.attach(&chain("other"), &format!("other{version}"));
            assert!(!reaches(&other, at(&db_result, 5432), DROPPED), "{version}");
            // As the other plugin has it, in this version's form.
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
            assert_eq!(result["interfaces"][0]["name"], "cni0");
            assert_eq!(result["interfaces"][2]["sandbox"], web.path().to_string_lossy().as_ref());
            assert_eq!(result["ips"][0]["gateway"], "10.88.0.1");
            assert_eq!(result["ips"][0]["interface"], 2);
            let old = version.starts_with("0.");
            assert_eq!(result["ips"][0]["version"], if old { json!("4") } else { Value::Null });
            if version != "0.3.1" {
                chain("web").one("porin-cni").check(&yard.host, &web, &result).nothing();
            }
        }
        assert_eq!((attached(&daemon), yard.files()), (9, 9));
        // As by hand.
        let file = std::fs::read_dir(yard.host.run_directory().join("porin/endpoints.d"));
        let text = std::fs::read_to_string(file.unwrap().next().unwrap().unwrap().path()).unwrap();
        assert!(text.contains("interface = \"veth") && !text.contains("namespace ="), "{text}");
    });
}

#[test]
fn it_goes_with_its_container_whoever_is_there_to_see_it() {
    if !has_plugins() {
        return;
    }
    World::run(|world| {
        let yard = Yard::open(world);
        let mut daemon = yard.host.porind();
        let (db, db_result) = yard.attach(&bridged("db"), "db");
        let _server = Server::echo(db.place(), 5432);
        let (web, result) = yard.attach(&bridged("web"), "web");
        let ours = bridged("web").one("porin-cni");
        let stream = Stream::start(web.place(), at(&db_result, 5432)[0]);

        // CHECK tells what is not as it was.
        ours.check(&yard.host, &web, &result).nothing();
        for (key, value) in [("address", json!("10.88.7.7/16")), ("interface", json!(9))] {
            let mut wrong = result.clone();
            wrong["ips"][0][key] = value;
            let (code, what) = ours.check(&yard.host, &web, &wrong).error();
            assert!(code == 100 || code == 7, "{code} {what}");
        }
        // Twice the same is refused, and leaves the first as it was.
        let again = ours.with("prevResult", result.clone()).add(&yard.host, &web);
        assert_eq!(again.error().0, 101);

        // The daemon is killed, and started again.
        daemon.kill();
        stream.must_go_on();
        assert!(!traffic::tcp(yard.host.place(), at(&db_result, 5432)[0], DROPPED));
        daemon.start_again();
        stream.must_go_on();
        assert_eq!(attached(&daemon), 2);
        ours.check(&yard.host, &web, &result).nothing();

        // DEL takes the gates away and leaves the interface, which is the other plugin's to remove.
        let port = veth(&result);
        assert!(yard.has_gates(&port));
        ours.del(&yard.host, "web").nothing();
        assert_eq!((attached(&daemon), yard.files()), (1, 1));
        eventually(EFFECT, "the gates are gone", || !yard.has_gates(&port));
        assert!(yard.host.place().interfaces().contains(&port));
        assert_eq!(ours.check(&yard.host, &web, &result).error().0, 3);
        // It has no labels any more, for its peers.
        assert!(stream.stands_still());
        drop(stream);
        bridged("web").detach(&yard.host, &web, &result);
        assert!(!yard.host.place().interfaces().contains(&port));
        bridged("web").detach(&yard.host, &web, &result);

        // The other plugin's DEL comes first, then ours.
        let result = bridged("web").attach(&yard.host, &web);
        bridged("web").one("bridge").del_in(&yard.host, &web, &result).nothing();
        ours.del(&yard.host, "web").nothing();
        assert_eq!((attached(&daemon), yard.files()), (1, 1));

        // The container is killed, and nobody ever asks for DEL.
        let (killed, result) = yard.attach(&bridged("web"), "killed");
        assert_eq!(attached(&daemon), 2);
        yard.host.forget_container("killed");
        drop(killed);
        eventually(EFFECT, "its file is gone", || yard.files() == 1);
        daemon.wait_for("it is gone", |status| {
            status["endpoints"]["attached"] == 1 && status["endpoints"]["closed"] == 0
        });
        assert!(!yard.host.place().interfaces().contains(&veth(&result)));

        // Or its interface is another by now, of the same name and with the same addresses behind it: not what was asked for.
        let (again, result) = yard.attach(&bridged("web"), "again");
        let port = veth(&result);
        let [_, ipv4] = at(&result, 0);
        yard.host.sh(&format!(
            "printf '%s\n' 'link del dev {port}' 'link add {port} type veth peer name eth0 netns again' \
                 'link set dev {port} master cni0 up' | ip -batch -
             ip -n again addr add {}/16 dev eth0; ip -n again link set dev eth0 up",
            ipv4.ip()
        ));
        eventually(EFFECT, "its file is gone", || yard.files() == 1);
        daemon.wait_for("it is gone", |status| status["endpoints"]["attached"] == 1);
        eventually(EFFECT, "nobody's gates are there", || !yard.has_gates(&port));
        assert!(!traffic::tcp(again.place(), at(&db_result, 5432)[1], DROPPED));
        yard.host.sh(&format!("ip link del dev {port}"));

        // No daemon is there at DEL, or when a container is killed.
        let (away, result) = yard.attach(&bridged("web"), "away");
        let (lost, _) = yard.attach(&bridged("web"), "lost");
        assert_eq!(attached(&daemon), 3);
        daemon.kill();
        bridged("web").detach(&yard.host, &away, &result);
        yard.host.forget_container("lost");
        drop(lost);
        assert_eq!(yard.files(), 2);
        daemon.start_again();
        assert_eq!((attached(&daemon), yard.files()), (1, 1));
        let faults = daemon.status()["faults"].clone();
        assert!(faults.as_array().unwrap().iter().all(|f| f["severity"] == "warning"), "{faults}");

        // What the runtime does not know is collected.
        let (_stale, result) = yard.attach(&bridged("web"), "stale");
        let newest = Network::new("1.1.0");
        newest.of_all(&yard.host, "STATUS").nothing();
        let valid = json!([{ "containerID": "db", "ifname": "eth0" }]);
        newest.with("cni.dev/valid-attachments", valid).of_all(&yard.host, "GC").nothing();
        assert_eq!((attached(&daemon), yard.files()), (1, 1));
        eventually(EFFECT, "the gates are gone", || !yard.has_gates(&veth(&result)));
    });
}

#[test]
fn what_cannot_be_judged_is_refused_and_left_as_it_is() {
    if !has_plugins() {
        return;
    }
    World::run(|world| {
        let yard = Yard::open(world);
        let daemon = yard.host.porind();
        yard.host.sh("ip link set dev up0 up");
        let static_ipam = json!({ "type": "static", "addresses": [{ "address": "10.89.0.2/24" }] });
        let refused = |name: &str, plugins: Vec<Value>| {
            let container = yard.host.container(name);
            let (result, error) = Chain::new("1.0.0", plugins).add(&yard.host, &container);
            let (code, what) = error.unwrap_or_else(|| panic!("{name}: {result}"));
            for interface in result["interfaces"].as_array().into_iter().flatten() {
                let name = interface["name"].as_str().unwrap();
                if interface.get("sandbox").is_none_or(|sandbox| sandbox == "") {
                    yard.host.expect_link(name);
                    assert!(name.starts_with("pn") || !yard.has_gates(name), "{name}");
                }
            }
            // What runs without porin goes on to.
            assert!(container.place().interfaces().contains(&"eth0".to_owned()));
            (container, code, what)
        };
        let macvlan = json!({ "type": "macvlan", "master": "up0", "ipam": static_ipam });
        let (_macvlan, code, what) = refused("macvlan", vec![macvlan, ours("web")]);
        assert!(code == 2 && what.contains("a macvlan interface, no veth"), "{code} {what}");

        let (_twice, code, what) = refused("twice", vec![ours("web"), ours("web")]);
        assert!(code == 2 && what.contains("porin's own already"), "{code} {what}");

        let layer2 = json!({ "type": "bridge", "bridge": "cni0" });
        let (_layer2, code, what) = refused("layer2", vec![layer2, ours("web")]);
        assert!(code == 2 && what.contains("no address"), "{code} {what}");

        let with = |addresses: &[&str]| {
            let mut bridge = Chain::bridge();
            let addresses = addresses.iter().map(|one| json!({ "address": one }));
            bridge["ipam"] =
                json!({ "type": "static", "addresses": addresses.collect::<Vec<_>>() });
            bridge["isGateway"] = json!(false);
            bridge["ipMasq"] = json!(false);
            bridge
        };
        let two = with(&["10.88.9.1/16", "10.88.9.2/16"]);
        let (_two, code, what) = refused("two", vec![two, ours("web")]);
        assert!(code == 2 && what.contains("an endpoint has one of a family"), "{code} {what}");

        let in_a_pool = with(&["10.10.9.1/16"]);
        let (_pool, code, what) = refused("pool", vec![in_a_pool, ours("web")]);
        assert!(code == 100 && what.contains("inside the pool 10.10.0.0/16"), "{code} {what}");

        let the_hosts = with(&["192.0.2.1/24"]);
        let (_host, code, what) = refused("host", vec![the_hosts, ours("web")]);
        assert!(code == 100 && what.contains("is an address of this host"), "{code} {what}");

        let (_one, _) =
            yard.attach(&Chain::new("1.0.0", vec![with(&["10.88.9.9/16"]), ours("db")]), "one");
        let (_other, code, what) = refused("other", vec![with(&["10.88.9.9/16"]), ours("web")]);
        assert!(code == 100 && what.contains("is the address of endpoint `one-"), "{code} {what}");

        let mut asking = ours("web");
        asking["args"] = json!({ "cni": { "ips": ["10.88.9.8"] } });
        let (_asking, code, what) = refused("asking", vec![with(&["10.88.9.7/16"]), asking]);
        assert!(code == 2 && what.contains("10.88.9.8 was asked for"), "{code} {what}");

        let mut dns = ours("web");
        dns["dns"] = json!({ "nameservers": ["10.0.0.53"] });
        let (_dns, code, what) = refused("dns", vec![with(&["10.88.9.6/16"]), dns]);
        assert!(code == 2 && what.contains("`dns`"), "{code} {what}");

        // A result that tells of what is not there, or is elsewhere: the number of the one end is that of another's here.
        let ours = Network::new("1.0.0").labels(json!({ "app": "web" }));
        let told = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.88.9.5/16" }] });
        let telling = ours.with("prevResult", told);
        let container = yard.host.container("empty");
        let (code, what) = telling.add(&yard.host, &container).error();
        assert!(code == 100 && what.contains("there is no interface `eth0`"), "{code} {what}");
        container.place().sh("ip link add eth0 type veth peer name x0");
        let (code, what) = telling.add(&yard.host, &container).error();
        assert!(code == 2 && what.contains("not in the host's network namespace"), "{code} {what}");
        let middle = yard.host.container("middle");
        let between = yard.host.container("between");
        // Both ends have the numbers that a veth of the host's and its other end have.
        yard.host.sh(
            "near=$(cat /sys/class/net/up0/ifindex) far=$(cat /sys/class/net/up0/iflink)
             ip -n middle link add far index $near type veth peer name eth0 index $far netns between",
        );
        let (code, what) = telling.add(&yard.host, &between).error();
        assert!(code == 2 && what.contains("not in the host's network namespace"), "{code} {what}");
        drop((middle, between));
        assert_eq!((attached(&daemon), yard.files()), (2, 2));
        assert!(daemon.status()["faults"].as_array().unwrap().is_empty());
    });
}

#[test]
fn published_ports_reach_it_from_outside_as_far_as_policy_allows() {
    if !has_plugins() || !lab::runtime::has(&["iptables"]) {
        return;
    }
    World::run(|world| {
        let yard = Yard::open(world);
        let _daemon = yard.host.porind();
        let portmap = |port: u16| {
            json!({ "type": "portmap", "snat": true, "runtimeConfig": { "portMappings": [
                { "hostPort": port, "containerPort": 80, "protocol": "tcp" },
            ] } })
        };
        let behind =
            |app, port| Chain::new("1.0.0", vec![Chain::bridge(), ours(app), portmap(port)]);
        let before =
            |app, port| Chain::new("1.0.0", vec![Chain::bridge(), portmap(port), ours(app)]);
        let (a, a_result) = yard.attach(&behind("web", 8080), "a");
        let (b, b_result) = yard.attach(&before("web", 8081), "b");
        let (c, _) = yard.attach(&behind("db", 8082), "c");
        let _servers = [&a, &b, &c].map(|container| Server::echo(container.place(), 80));
        let published = |port| SocketAddr::new("192.0.2.1".parse().unwrap(), port);
        for port in [8080, 8081] {
            assert!(traffic::tcp(yard.outside.place(), published(port), ARRIVES), "{port}");
        }
        assert!(!traffic::tcp(yard.outside.place(), published(8082), DROPPED));
        assert!(!traffic::tcp(b.place(), at(&a_result, 80)[1], DROPPED), "its neighbour may not");
        behind("web", 8080).detach(&yard.host, &a, &a_result);
        before("web", 8081).detach(&yard.host, &b, &b_result);
        assert!(!traffic::tcp(yard.outside.place(), published(8080), DROPPED));
    });
}
