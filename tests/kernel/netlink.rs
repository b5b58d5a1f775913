//! Endpoints' interfaces, facts and events, without BPF.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use porin::desired::snapshot::{Attachment, Endpoint, Made, Namespace};
use porin::kernel::datapath::abi;
use porin::kernel::netlink::monitor::{KernelEvent, Monitor};
use porin::kernel::netlink::{Error, Netlink, behind, endpoint, facts, host, steering};
use porin::kernel::ops::Sources;
use porin::types::{Identity, Labels, Mac, Slot};

use crate::lab::{self, Lab};

const SOURCES: Sources = Sources {
    ipv6: Some(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xff)),
    ipv4: Some(std::net::Ipv4Addr::new(10, 0, 255, 254)),
};

/// Endpoint number `n`, with addresses fd00::n and 10.0.n.n.
pub fn an_endpoint(netlink: &Netlink, n: u16, namespace: &Path) -> Arc<Endpoint> {
    let facts = facts::namespace(netlink, namespace).unwrap();
    let [high, low] = n.to_be_bytes();
    Arc::new(Endpoint {
        name: format!("e{n}").parse().unwrap(),
        slot: Slot(u32::from(n)),
        labels: Arc::new(Labels::default()),
        identity: Identity(256),
        ipv6: Some(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)),
        ipv4: Some(std::net::Ipv4Addr::new(10, 0, high, low)),
        ports: BTreeMap::new(),
        publish: Vec::new(),
        shut: false,
        attachment: Attachment::Made(Made {
            namespace: Some(Namespace {
                path: namespace.to_owned(),
                device: facts.device,
                inode: facts.inode,
            }),
            interface: "eth0".to_owned(),
            mac: Mac([2, 0, 0, 0, high, low]),
            mtu: 1500,
        }),
        host_interface: format!("pn{n:012x}"),
        incarnation: std::array::from_fn(|i| [high, low, 1][i % 3]),
    })
}

fn made(endpoint: &mut Endpoint) -> &mut Made {
    match &mut endpoint.attachment {
        Attachment::Made(made) => made,
        Attachment::Adopted(_) => panic!("porin's own"),
    }
}

/// As a transaction does it, but without gates in between.
fn create(netlink: &Netlink, endpoint: &Endpoint, keep: bool) -> Result<u32, Error> {
    let ifindex = endpoint::create(netlink, endpoint, &|_| keep)?;
    endpoint::configure(netlink, endpoint, SOURCES, ifindex).map(|()| ifindex)
}

fn add_sources(netlink: &Netlink) {
    host::add_address(netlink, SOURCES.ipv6.unwrap().into()).unwrap();
    host::add_address(netlink, SOURCES.ipv4.unwrap().into()).unwrap();
}

#[test]
fn an_interface_is_complete_and_goes_without_a_trace() {
    lab::run(|lab| {
        let netlink = Netlink::open().unwrap();
        let namespace = lab.namespace("web");
        add_sources(&netlink);
        let before = lab.traces();
        let e1 = an_endpoint(&netlink, 1, &namespace);
        let ifindex = create(&netlink, &e1, true).unwrap();

        let link = lab.ip("-d link show pn000000000001");
        for wanted in ["02:70:6f:72:69:6e", "alias porin:e1", "addrgenmode none", "state UP"] {
            assert!(link.contains(wanted), "{wanted} in {link}");
        }
        assert!(link.starts_with(&format!("{ifindex}:")));
        let address = lab.inside(&namespace, "ip address show dev eth0");
        for wanted in ["02:00:00:00:00:01", "inet 10.0.0.1/32", "inet6 fd00::1/128", "mtu 1500"] {
            assert!(address.contains(wanted), "{wanted} in {address}");
        }
        assert!(!address.contains("fe80") && !address.contains("tentative"), "{address}");
        let routes = lab.inside(&namespace, "ip -4 route") + &lab.inside(&namespace, "ip -6 route");
        assert!(routes.contains("default via 169.254.0.1 dev eth0"), "{routes}");
        assert!(routes.contains("default via fe80::1 dev eth0"), "{routes}");
        // Without the datapath, the two stacks already reach each other.
        lab.ip("-6 route get fd00::1");
        assert!(lab.ip("-4 route get 10.0.0.1").contains("src 10.0.255.254"));
        assert!(lab.ip("-6 route get fd00::1").contains("src fd00::ff"));
        lab::output(std::process::Command::new("ping").args(["-c1", "-W5", "10.0.0.1"]));
        lab::output(std::process::Command::new("ping").args(["-c1", "-W5", "fd00::1"]));
        lab.inside(&namespace, "ping -c1 -W5 10.0.255.254");
        lab.inside(&namespace, "ping -c1 -W5 fd00::ff");

        endpoint::remove(&netlink, &e1.host_interface).unwrap();
        endpoint::remove(&netlink, &e1.host_interface).unwrap();
        assert_eq!(lab.traces(), before);
    });
}

#[test]
fn half_made_and_forgotten_interfaces_give_way_and_foreign_ones_do_not() {
    lab::run(|lab| {
        let netlink = Netlink::open().unwrap();
        let namespace = lab.namespace("web");
        add_sources(&netlink);
        let e1 = an_endpoint(&netlink, 1, &namespace);
        create(&netlink, &e1, false).unwrap();
        // Again: as after a death in between.
        create(&netlink, &e1, false).unwrap();

        // The same place under another name, as when an endpoint is renamed.
        let renamed =
            Endpoint { host_interface: "pn00000000000f".to_owned(), ..Endpoint::clone(&e1) };
        let refused = create(&netlink, &renamed, true).unwrap_err();
        assert!(refused.to_string().contains("which endpoint e1 has there"), "{refused}");
        create(&netlink, &renamed, false).unwrap();
        endpoint::remove(&netlink, &renamed.host_interface).unwrap();

        lab.inside(&namespace, "ip link add eth0 type bridge");
        let before = lab.traces();
        let refused = create(&netlink, &e1, false).unwrap_err();
        assert!(refused.to_string().contains("is not porin's"), "{refused}");
        assert_eq!(lab.traces(), before);
        lab.inside(&namespace, "ip link del eth0");

        lab.ip("link add pn000000000001 type bridge");
        let refused = create(&netlink, &e1, false).unwrap_err();
        assert!(refused.to_string().contains("is not porin's"), "{refused}");
    });
}

/// As after a death between the message that makes it and the one that names it.
#[test]
fn a_half_made_interface_is_known_by_its_group_and_gives_way() {
    lab::run(|lab| {
        let netlink = Netlink::open().unwrap();
        let namespace = lab.namespace("web");
        add_sources(&netlink);
        let e1 = an_endpoint(&netlink, 1, &namespace);
        let first = create(&netlink, &e1, false).unwrap();
        let nameless = ["link", "set", "pn000000000001", "alias", ""];
        lab::output(std::process::Command::new("ip").args(nameless));
        assert!(!lab.ip("link show pn000000000001").contains("alias"));
        let link = host::link_by_name(&netlink.socket(), "pn000000000001").unwrap().unwrap();
        assert!(endpoint::is_porins(&link), "{link:?}");
        assert_ne!(create(&netlink, &e1, false).unwrap(), first);

        lab.ip("link add pn000000000002 type bridge");
        let foreign = host::link_by_name(&netlink.socket(), "pn000000000002").unwrap().unwrap();
        assert!(!endpoint::is_porins(&foreign));
    });
}

#[test]
fn a_failure_half_way_leaves_nothing() {
    lab::run(|lab| {
        let netlink = Netlink::open().unwrap();
        let namespace = lab.namespace("web");
        let before = lab.traces();
        let mut e1 = Endpoint::clone(&an_endpoint(&netlink, 1, &namespace));
        // The namespace takes no such address: the last step fails.
        e1.ipv6 = Some("ff02::1".parse().unwrap());
        let refused = create(&netlink, &e1, false).unwrap_err();
        assert!(refused.to_string().contains("add ff02::1 to eth0"), "{refused}");
        assert_eq!(lab.traces(), before);
        assert!(!lab.inside(&namespace, "ip link").contains("eth0"));
    });
}

#[test]
fn unusable_namespaces_and_uplinks_say_why() {
    lab::run(|lab| {
        let netlink = Netlink::open().unwrap();
        let reason =
            |path: &str| facts::namespace(&netlink, Path::new(path)).unwrap_err().to_string();
        assert!(
            reason("/run/netns/none").contains("No such file"),
            "{}",
            reason("/run/netns/none")
        );
        assert!(reason("/etc/passwd").contains("not a network namespace"));
        // To open it would wait for a writer, for ever.
        let fifo = lab.dir.join("fifo");
        lab::output(std::process::Command::new("mkfifo").arg(&fifo));
        assert!(reason(&fifo.display().to_string()).contains("not a network namespace"));
        assert!(reason("/dev/null").contains("not a network namespace"));
        assert!(reason("/proc/self/ns/mnt").contains("not a network namespace"));
        assert!(reason("/proc/thread-self/ns/net").contains("the host's own"));

        let namespace = lab.namespace("web");
        add_sources(&netlink);
        let mut moved = Endpoint::clone(&an_endpoint(&netlink, 1, &namespace));
        made(&mut moved).namespace.as_mut().unwrap().inode += 1;
        let refused = create(&netlink, &moved, false).unwrap_err();
        assert!(refused.to_string().contains("another namespace"), "{refused}");

        let e1 = an_endpoint(&netlink, 1, &namespace);
        create(&netlink, &e1, false).unwrap();
        let reason = |name: &str| facts::uplink(&netlink, name).unwrap_err().to_string();
        assert!(reason("wan0").contains("no interface `wan0`"));
        assert!(reason("lo").contains("no Ethernet address"));
        assert!(reason("pn000000000001").contains("an endpoint's"));
        lab.ip("link add wan0 type veth peer name wan1");
        lab.ip("address add 192.0.2.7/24 dev wan0");
        let uplink = facts::uplink(&netlink, "wan0").unwrap();
        assert_eq!(uplink.address4, Some("192.0.2.7".parse().unwrap()));
        assert_eq!(uplink.mtu, 1500);
        let own = facts::host_addresses(&netlink).unwrap();
        for wanted in ["127.0.0.1", "192.0.2.7", "10.0.255.254", "fd00::ff"] {
            assert!(own.contains(&wanted.parse().unwrap()), "{wanted} in {own:?}");
        }
    });
}

#[test]
fn an_interface_of_another_s_is_known_by_itself_and_by_its_bridge() {
    lab::run(|lab| {
        let netlink = Netlink::open().unwrap();
        let e1 = an_endpoint(&netlink, 1, &lab.namespace("web"));
        add_sources(&netlink);
        create(&netlink, &e1, false).unwrap();
        let reason = |name: &str| facts::adopted(&netlink, name).unwrap_err().to_string();
        assert!(reason("veth0").contains("no interface `veth0`"));
        assert!(reason("lo").contains("no Ethernet frames"));
        assert!(reason("pn000000000001").contains("an endpoint's"));
        lab.ip("link add veth0 type veth peer name veth1");
        let alone = facts::adopted(&netlink, "veth0").unwrap();
        assert_eq!(alone.via, alone.ifindex);
        lab.ip("link add br0 type bridge");
        lab.ip("link set veth0 master br0");
        let port = facts::adopted(&netlink, "veth0").unwrap();
        assert_eq!(port.ifindex, alone.ifindex);
        let bridge = host::link_by_name(&netlink.socket(), "br0").unwrap().unwrap();
        assert_eq!(port.via, bridge.ifindex);
        assert!(reason("br0").contains("name one of its ports"));
        // Nothing can be done to it.
        let foreign = Endpoint { attachment: Attachment::Adopted(port), ..Endpoint::clone(&e1) };
        assert!(create(&netlink, &foreign, false).unwrap_err().to_string().contains("not porin's"));
    });
}

#[test]
fn the_host_s_end_of_a_container_s_interface_is_found_by_its_addresses() {
    lab::run(|lab| {
        let netlink = Netlink::open().unwrap();
        let [one, two] = ["one", "two"].map(|name| lab.namespace(name));
        // The same numbers of interfaces in both, as Podman makes them.
        for (port, namespace, address) in [("v1", &one, "10.0.0.1/24"), ("v2", &two, "10.0.0.2/24")]
        {
            lab.ip(&format!("link add {port} type veth peer name c{port}"));
            lab.ip(&format!("link set c{port} netns {} index 2", namespace.display()));
            lab.inside(namespace, &format!("ip link set c{port} name eth0"));
            lab.inside(namespace, &format!("ip addr add {address} dev eth0"));
        }
        let find = |namespace: &Path, certain: bool, address: &str, mac: Option<Mac>| {
            let addresses = [address.parse().unwrap(), "fd00::9".parse().unwrap()];
            let wanted = behind::Wanted { namespace, certain, addresses: &addresses, mac };
            behind::host_end(&netlink, wanted).map_err(|why| why.to_string())
        };
        assert_eq!(find(&one, false, "10.0.0.1", None).unwrap(), "v1");
        assert_eq!(find(&two, false, "10.0.0.2", None).unwrap(), "v2");
        let why = find(&one, false, "10.0.0.1", Some(Mac([2; 6]))).unwrap_err();
        assert_eq!(why, "its `eth0` has the MAC address of another");
        assert_eq!(find(&one, true, "10.0.0.1", Some(Mac([2; 6]))).unwrap(), "v1");
        // Another's namespace is told by the addresses, unless it is certain that it is its own.
        let why = find(&one, false, "10.0.0.2", None).unwrap_err();
        assert_eq!(why, "no interface in its network namespace has the address 10.0.0.2");
        assert_eq!(find(&one, true, "10.0.0.2", None).unwrap(), "v1");
        lab.inside(&one, "ip link add name x type veth peer name y");
        assert_eq!(find(&one, true, "10.0.0.2", None).unwrap(), "v1", "those do not end here");
        // Both ends inside, though there is an interface of that number on the host, too.
        lab.inside(&one, "ip addr add 10.0.0.3/24 dev x");
        let why = find(&one, true, "10.0.0.3", None).unwrap_err();
        assert_eq!(why, "its `x` has no other end on this host, as a veth of a bridge network has");
        // One that ends in the other container.
        lab.inside(
            &one,
            &format!(
                "ip link add name z index 7 type veth peer name z netns {} index 4",
                two.display()
            ),
        );
        lab.inside(&one, "ip addr add 10.0.0.4/24 dev z");
        assert!(
            find(&one, true, "10.0.0.4", None).unwrap_err().starts_with("its `z` has no other end")
        );
        let here = find(Path::new("/proc/thread-self/ns/net"), true, "10.0.0.1", None).unwrap_err();
        assert_eq!(here, "it is in the host's own network namespace");
        for gone in ["/proc/self/ns/mnt", "/nowhere", "/proc/self/exe"] {
            assert!(find(Path::new(gone), true, "10.0.0.1", None).is_err(), "{gone}");
        }
        // Two that end here: none is certain.
        lab.ip(&format!("link add v3 type veth peer name eth1 netns {}", one.display()));
        assert!(find(&one, true, "10.0.0.9", None).is_err());
    });
}

#[test]
fn mtu_and_sources_change_while_the_interface_lives() {
    lab::run(|lab| {
        let netlink = Netlink::open().unwrap();
        let namespace = lab.namespace("web");
        add_sources(&netlink);
        let mut e1 = Endpoint::clone(&an_endpoint(&netlink, 1, &namespace));
        let ifindex = create(&netlink, &e1, false).unwrap();
        made(&mut e1).mtu = 9000;
        endpoint::configure(&netlink, &e1, Sources::default(), ifindex).unwrap();
        assert!(lab.ip("link show pn000000000001").contains("mtu 9000"));
        assert!(lab.inside(&namespace, "ip link show eth0").contains("mtu 9000"));
        assert!(!lab.ip("-4 route show table main").contains("src"), "{}", lab.ip("-4 route"));
        assert_eq!(lab.ip("-6 route show table main").matches("fd00::1 ").count(), 1);
    });
}

fn wait_for(events: &mpsc::Receiver<KernelEvent>, wanted: &KernelEvent) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if events.recv_timeout(left).expect("no such event") == *wanted {
            return;
        }
    }
}

/// A setting of this thread's namespace.
pub fn set(setting: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{}", setting.replace('.', "/")), value).unwrap();
}

#[test]
fn events_tell_of_vanished_interfaces_uplinks_and_addresses() {
    lab::run(|lab: &Lab| {
        let (sender, events) = mpsc::channel();
        let monitor = Monitor::start(sender).unwrap();
        let netlink = Netlink::open().unwrap();
        let namespace = lab.namespace("web");
        add_sources(&netlink);
        wait_for(&events, &KernelEvent::AddressChanged);
        lab.ip("link add wan0 type veth peer name wan1");
        wait_for(&events, &KernelEvent::LinkChanged("wan0".to_owned()));
        let e1 = an_endpoint(&netlink, 1, &namespace);
        create(&netlink, &e1, false).unwrap();
        lab.drop_namespace(&namespace);
        wait_for(&events, &KernelEvent::InterfaceVanished("pn000000000001".to_owned()));
        // Looks like an endpoint's at first sight only.
        lab.ip("link add pn0 type bridge");
        wait_for(&events, &KernelEvent::LinkChanged("pn0".to_owned()));
        lab.ip("link del pn0");
        for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            set(setting, "1");
            set(setting, "0");
            wait_for(&events, &KernelEvent::ForwardingLost);
        }
        drop(monitor);
        assert!(events.iter().all(|event| event != KernelEvent::Relist));
    });
}

#[test]
fn many_interfaces() {
    lab::run(|lab| {
        let netlink = Netlink::open().unwrap();
        add_sources(&netlink);
        let count = 100;
        let namespaces: Vec<_> = (0..count).map(|n| lab.namespace(&format!("n{n}"))).collect();
        let endpoints: Vec<_> =
            (1..).zip(&namespaces).map(|(n, path)| an_endpoint(&netlink, n, path)).collect();
        let begin = Instant::now();
        for endpoint in &endpoints {
            create(&netlink, endpoint, false).unwrap();
        }
        let took = begin.elapsed();
        println!("{count} interfaces in {took:?}");
        assert_eq!(lab.ip("-o link").matches("pn00").count(), count);
    });
}

#[test]
fn what_is_marked_is_the_host_s_own_until_teardown() {
    lab::run(|lab| {
        let netlink = Netlink::open().unwrap();
        let steered = |family: &str| {
            let rules = lab.ip(&format!("{family} rule list fwmark {:#x}", abi::MARK_STEER));
            let routes = lab.ip(&format!("{family} route list table all"));
            let table = format!("table {}", steering::TABLE);
            let routes = routes.lines().filter(|route| route.contains(&table)).count();
            (rules.lines().count(), routes)
        };
        // Twice is as good as once.
        for turn in 0..2 {
            assert_eq!(steering::add(&netlink).unwrap(), turn == 0);
            assert_eq!((steered("-4"), steered("-6")), ((1, 1), (1, 1)));
        }
        // One of them is gone by another's hand.
        for (family, other) in [("-4", "-6"), ("-6", "-4")] {
            lab.ip(&format!("{family} rule del pref {}", steering::PRIORITY));
            assert_eq!((steered(family).0, steered(other).0), (0, 1));
            assert!(steering::add(&netlink).unwrap());
            assert!(!steering::add(&netlink).unwrap());
            assert_eq!((steered("-4"), steered("-6")), ((1, 1), (1, 1)));
        }
        // Wherever it is to.
        for address in ["203.0.113.9", "2001:db8::9"] {
            let route = lab.ip(&format!("route get {address} mark {:#x}", abi::MARK_STEER));
            assert!(route.starts_with("local "), "{route}");
        }
        for _ in 0..2 {
            steering::remove(&netlink).unwrap();
            assert_eq!((steered("-4"), steered("-6")), ((0, 0), (0, 0)));
        }
    });
}
