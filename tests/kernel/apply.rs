//! Whole transactions on this kernel, with the real datapath and real traffic.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use porin::compile::plan::{Plan, PolicyTable};
use porin::desired::snapshot::{Endpoint, Uplink};
use porin::kernel::datapath::TableKind;
use porin::kernel::netlink::facts;
use porin::kernel::netlink::monitor::KernelEvent;
use porin::kernel::probe::Attach;
use porin::kernel::{Kernel, Options, Paths, sys};
use porin::types::{Cookie, Slot, Verdict};

use crate::lab::{self, Lab};
use crate::netlink::{self, an_endpoint};
use crate::plans::{POLICY, a_rule, plan, policy, with_uplink};

fn paths(lab: &Lab) -> Paths {
    Paths { bpffs: lab.bpffs() }
}

fn open(lab: &Lab) -> Kernel {
    Kernel::open(&paths(lab), &Options::default()).unwrap().0
}

/// Applies and settles, both whole.
fn commit(kernel: &mut Kernel, plan: &Plan) {
    kernel.apply(plan).unwrap();
    let settled = kernel.settle();
    assert!(settled.leftovers.is_empty(), "{:?}", settled.leftovers);
}

struct Pair {
    namespaces: [PathBuf; 2],
    endpoints: [Arc<Endpoint>; 2],
}

fn pair(lab: &Lab, kernel: &Kernel) -> Pair {
    let namespaces = ["a", "b"].map(|name| lab.namespace(name));
    let endpoints =
        [1, 2].map(|n: u16| an_endpoint(kernel.netlink(), n, &namespaces[usize::from(n) - 1]));
    Pair { namespaces, endpoints }
}

fn pings(lab: &Lab, pair: &Pair, to: &str) -> bool {
    let mut ping = lab.command(&pair.namespaces[0], &format!("ping -c1 -W1 {to}"));
    ping.output().unwrap().status.success()
}

fn check_all_pass(lab: &Lab, pair: &Pair) {
    for to in ["10.0.0.2", "fd00::2", "10.0.255.254", "fd00::ff"] {
        assert!(pings(lab, pair, to), "{to}");
    }
    for to in ["10.0.0.1", "fd00::2"] {
        lab::output(std::process::Command::new("ping").args(["-c1", "-W1", to]));
    }
}

fn endpoints_talk(attach: Attach) {
    lab::run(move |lab| {
        let before = lab.traces();
        let options = Options { attach, ..Options::default() };
        let (mut kernel, _) = Kernel::open(&paths(lab), &options).unwrap();
        let pair = pair(lab, &kernel);
        let allow = plan(&pair.endpoints, Verdict::Allow);
        commit(&mut kernel, &allow);
        check_all_pass(lab, &pair);
        assert_eq!(kernel.maps().generation(), 1);

        kernel.apply(&plan(&pair.endpoints, Verdict::Deny)).unwrap();
        assert!(!pings(lab, &pair, "10.0.0.2") && !pings(lab, &pair, "fd00::2"));
        kernel.apply(&allow).unwrap();
        check_all_pass(lab, &pair);

        drop(kernel);
        check_all_pass(lab, &pair);
        let report = Kernel::teardown(&paths(lab)).unwrap();
        assert_eq!(report.failures, [""; 0]);
        assert_eq!(report.interfaces, ["pn000000000001", "pn000000000002"]);
        assert_eq!(lab.traces(), before);
        for namespace in &pair.namespaces {
            assert!(!lab.inside(namespace, "ip link").contains("eth0"));
        }
    });
}

#[test]
fn endpoints_talk_by_tcx() {
    endpoints_talk(Attach::Tcx);
}

#[test]
fn endpoints_talk_by_clsact() {
    endpoints_talk(Attach::Clsact);
}

/// The same gates by either mechanism let the datapath's own answers pass.
fn rejected_connections_end(attach: Attach) {
    lab::run(move |lab| {
        let options = Options { attach, ..Options::default() };
        let (mut kernel, _) = Kernel::open(&paths(lab), &options).unwrap();
        let pair = pair(lab, &kernel);
        commit(&mut kernel, &plan(&pair.endpoints, Verdict::Reject));
        for to in ["10.0.0.2:80", "[fd00::2]:80"] {
            let begin = Instant::now();
            let to = to.parse().unwrap();
            let connected = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(5));
            let kind = connected.map(|_| ()).map_err(|error| error.kind());
            assert_eq!(kind, Err(std::io::ErrorKind::ConnectionRefused), "{to}");
            assert!(begin.elapsed() < Duration::from_secs(1));
        }
        // The policy's, of either direction, and none but what was told.
        let hits = kernel.maps().hits().unwrap();
        assert!(hits.iter().all(|(key, _)| (key.cookie, key.shadow) == (7, 0)) && !hits.is_empty());
    });
}

#[test]
fn rejected_connections_end_by_tcx() {
    rejected_connections_end(Attach::Tcx);
}

#[test]
fn rejected_connections_end_by_clsact() {
    rejected_connections_end(Attach::Clsact);
}

/// Counters stay with their rules over commits and restarts, and go with them.
#[test]
fn what_rules_decided_is_counted_while_they_are_there() {
    lab::run(|lab| {
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        let with_rule = |cookie: u32| {
            let mut plan = plan(&pair.endpoints, Verdict::Allow);
            plan.rules = Arc::new([(Cookie(cookie), Arc::new(a_rule()))].into());
            plan
        };
        let counted = |kernel: &Kernel| -> u64 {
            kernel.maps().hits().unwrap().iter().map(|(_, count)| count).sum()
        };
        commit(&mut kernel, &with_rule(7));
        assert!(pings(lab, &pair, "10.0.0.2"));
        // Egress and ingress are one table's.
        assert_eq!(counted(&kernel), 2);
        commit(&mut kernel, &with_rule(7));
        drop(kernel);
        let mut kernel = open(lab);
        commit(&mut kernel, &with_rule(7));
        assert_eq!(counted(&kernel), 2);
        commit(&mut kernel, &with_rule(8));
        assert_eq!(counted(&kernel), 0);
        // Also by who does not know what there was.
        assert!(pings(lab, &pair, "10.0.0.2"));
        assert!(counted(&kernel) > 0);
        drop(kernel);
        let mut kernel = open(lab);
        commit(&mut kernel, &with_rule(8));
        assert_eq!(counted(&kernel), 0);
    });
}

/// What another ABI left is in force, and nothing that this one could go on with: it is not touched.
#[test]
fn another_version_s_datapath_is_refused_and_torn_down() {
    lab::run(|lab| {
        drop(open(lab));
        let other = lab.bpffs().join("v1");
        std::fs::create_dir_all(other.join("maps")).unwrap();
        let refused = Kernel::open(&paths(lab), &Options::default()).err().unwrap();
        assert!(refused.to_string().contains("v1 is of another version"), "{refused}");
        assert!(refused.to_string().contains("porind --teardown"), "{refused}");
        assert!(other.exists());
        let report = Kernel::teardown(&paths(lab)).unwrap();
        assert_eq!(report.failures, [""; 0]);
        assert!(!other.exists());
        drop(open(lab));
    });
}

/// Whoever starts with another mechanism replaces the gates of before, and no packet notices.
#[test]
fn the_mechanism_changes_under_way() {
    lab::run(|lab| {
        let start = |attach| {
            let options = Options { attach, ..Options::default() };
            Kernel::open(&paths(lab), &options).unwrap().0
        };
        let links = || lab.traces().matches("_ingress\n").count();
        let mut kernel = start(Attach::Tcx);
        let pair = pair(lab, &kernel);
        let allow = plan(&pair.endpoints, Verdict::Allow);
        kernel.apply(&allow).unwrap();
        for (attach, expected) in [(Attach::Auto, 0), (Attach::Tcx, 2), (Attach::Clsact, 0)] {
            drop(kernel);
            kernel = start(attach);
            kernel.apply(&allow).unwrap();
            check_all_pass(lab, &pair);
            assert_eq!(links(), expected, "{attach:?}");
            assert_eq!(lab.traces().matches("qdisc clsact").count(), 2 - expected, "{attach:?}");
        }
    });
}

#[test]
fn a_new_daemon_adopts_without_touching_interfaces_or_gates() {
    lab::run(|lab| {
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        let allow = plan(&pair.endpoints, Verdict::Allow);
        kernel.apply(&allow).unwrap();
        kernel.apply(&allow).unwrap();
        drop(kernel);

        let interfaces = lab.ip("-o link");
        // Traffic all the while: a packet every 10 ms.
        let mut flood = lab.command(&pair.namespaces[0], "ping -i 0.01 -c 100 -W1 fd00::2");
        let flood = flood.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let (mut kernel, recovered) = Kernel::open(&paths(lab), &Options::default()).unwrap();
        assert_eq!(recovered.generation.0, 2);
        let slots: Vec<_> = pair.endpoints.iter().map(|e| (e.incarnation, e.slot)).collect();
        assert_eq!(recovered.slots, slots);
        let monitor = std::process::Command::new("true").status();
        assert!(monitor.is_ok());
        for _ in 0..3 {
            commit(&mut kernel, &allow);
        }
        assert_eq!(lab.ip("-o link"), interfaces);
        let done = flood.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(text.contains("100 received"), "{text}");
    });
}

/// What was taken from an interface while no daemon was there is put back by the next.
#[test]
fn adopted_interfaces_are_mended() {
    lab::run(|lab| {
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        let allow = plan(&pair.endpoints, Verdict::Allow);
        kernel.apply(&allow).unwrap();
        kernel.apply(&allow).unwrap();
        let network = |lab: &Lab| {
            let queries = ["-o link", "-4 route", "-6 route", "-4 neigh", "-6 neigh"];
            queries.map(|query| lab.ip(query)).join("")
        };
        let right = network(lab);
        let harm = [
            "link set pn000000000001 down",
            "route del 10.0.0.1",
            "-6 route del fd00::1",
            "route add 10.0.0.1 dev pn000000000001 src 127.0.0.1",
            "neigh del 10.0.0.1 dev pn000000000001",
            "-6 neigh change fd00::1 dev pn000000000001 lladdr 02:00:00:00:00:99",
            "link set pn000000000001 mtu 1280",
        ];
        for command in harm {
            drop(kernel);
            // A step may already have been taken by the kernel itself.
            let _ = lab::output(
                std::process::Command::new("sh")
                    .args(["-c", &format!("ip {command} 2>&1 || true")]),
            );
            kernel = open(lab);
            kernel.apply(&allow).unwrap();
            assert_eq!(network(lab), right, "after ip {command}");
        }
    });
}

#[test]
fn what_is_gone_from_the_plan_is_removed_after_the_commit() {
    lab::run(|lab| {
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        kernel.apply(&plan(&pair.endpoints, Verdict::Allow)).unwrap();
        // Also when a new daemon finds it.
        drop(kernel);
        let mut kernel = open(lab);
        commit(&mut kernel, &plan(&pair.endpoints[..1], Verdict::Allow));
        assert!(!lab.ip("link").contains("pn000000000002"));
        assert!(pings(lab, &pair, "fd00::ff"));
        assert!(!lab.traces().contains("pn000000000002"));
    });
}

#[test]
fn an_endpoint_that_vanishes_is_named_and_the_others_go_on() {
    lab::run(|lab| {
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        let both = plan(&pair.endpoints, Verdict::Allow);
        lab.drop_namespace(&pair.namespaces[1]);
        let refused = kernel.apply(&both).unwrap_err();
        let [(slot, fault)] = refused.endpoint_faults.as_slice() else { panic!("{refused:?}") };
        assert_eq!(*slot, Slot(2));
        assert!(fault.to_string().contains("No such file"), "{fault}");
        assert_eq!(kernel.maps().generation(), 0);
        assert!(!lab.ip("link").contains("pn00"));
        kernel.apply(&plan(&pair.endpoints[..1], Verdict::Allow)).unwrap();
        assert!(pings(lab, &pair, "fd00::ff"));

        // Later, while it runs.
        lab.drop_namespace(&pair.namespaces[0]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while lab.ip("link").contains("pn000000000001") {
            assert!(Instant::now() < deadline, "the interface outlives its namespace");
        }
        let gone = KernelEvent::InterfaceVanished("pn000000000001".to_owned());
        assert!(kernel.observe(&gone));
        assert!(!kernel.observe(&gone));
        assert!(!lab.traces().contains("pn000000000001"));
        kernel.apply(&plan(&[], Verdict::Allow)).unwrap();
    });
}

#[test]
fn another_incarnation_takes_the_name_over() {
    lab::run(|lab| {
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        kernel.apply(&plan(&pair.endpoints, Verdict::Allow)).unwrap();
        let namespace = lab.namespace("c");
        let mut next = Endpoint::clone(&an_endpoint(kernel.netlink(), 1, &namespace));
        next.slot = Slot(3);
        next.incarnation = [9; 16];
        let endpoints = [Arc::new(next), pair.endpoints[1].clone()];
        commit(&mut kernel, &plan(&endpoints, Verdict::Allow));
        lab.inside(&namespace, "ping -c1 -W1 fd00::2");
        lab.inside(&pair.namespaces[1], "ping -c1 -W1 fd00::1");
        assert!(!lab.inside(&pair.namespaces[0], "ip link").contains("eth0"));
    });
}

#[test]
fn a_taken_interface_is_named_and_stays() {
    lab::run(|lab| {
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        lab.inside(&pair.namespaces[1], "ip link add eth0 type bridge");
        let refused = kernel.apply(&plan(&pair.endpoints, Verdict::Allow)).unwrap_err();
        let [(slot, fault)] = refused.endpoint_faults.as_slice() else { panic!("{refused:?}") };
        assert_eq!(*slot, Slot(2));
        assert!(fault.to_string().contains("is not porin's"), "{fault}");
        lab.inside(&pair.namespaces[1], "ip link show eth0");
    });
}

#[test]
fn uplinks_come_and_go() {
    lab::run(|lab| {
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        let world = lab.namespace("world");
        lab.ip(&format!("link add wan0.5 type veth peer name eth0 netns {}", world.display()));
        lab.ip("address add 192.0.2.1/24 dev wan0.5");
        lab.ip("link set wan0.5 addrgenmode none up");
        lab.inside(&world, "ip link set eth0 up");
        lab.inside(&world, "ip address add 192.0.2.2/24 dev eth0");
        let before = lab.traces();
        let found = facts::uplink(kernel.netlink(), "wan0.5").unwrap();
        let uplink = Uplink {
            interface: "wan0.5".to_owned(),
            ifindex: found.ifindex,
            mac: found.mac,
            mtu: found.mtu,
            slot: Slot(9),
            address4: found.address4,
        };
        let allow = with_uplink(plan(&pair.endpoints, Verdict::Allow), uplink);
        commit(&mut kernel, &allow);
        assert!(pings(lab, &pair, "192.0.2.2"), "masqueraded");
        drop(kernel);
        let (mut kernel, recovered) = Kernel::open(&paths(lab), &Options::default()).unwrap();
        assert!(matches!(&recovered.uplinks[..], [(name, _, Slot(9))] if name == "wan0.5"));
        commit(&mut kernel, &plan(&pair.endpoints, Verdict::Allow));
        assert!(!lab.traces().contains("wan0%2e5"));
        drop(kernel);
        Kernel::teardown(&paths(lab)).unwrap();
        // The neighbour that was learned remains.
        let links = |text: &str| text.split("# ip -4 neighbour").next().unwrap().to_owned();
        assert_eq!(links(&lab.traces()), links(&before));
    });
}

#[test]
fn addresses_that_others_put_on_lo_stay() {
    lab::run(|lab| {
        lab.ip("address add 10.0.255.254/32 dev lo");
        let before = lab.traces();
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        kernel.apply(&plan(&pair.endpoints, Verdict::Allow)).unwrap();
        drop(kernel);
        Kernel::teardown(&paths(lab)).unwrap();
        assert_eq!(lab.traces(), before);
    });
}

#[test]
fn many_endpoints_share_and_are_adopted() {
    lab::run(|lab| {
        let options = Options { attach: Attach::Clsact, ..Options::default() };
        let open = |lab: &Lab| Kernel::open(&paths(lab), &options).unwrap().0;
        let mut kernel = open(lab);
        // The time of 1,000 is worth a look on an idle machine: RTNL serialises the whole of it.
        let count =
            std::env::var("PORIN_TEST_ENDPOINTS").map_or(100, |n| n.parse::<u16>().unwrap());
        let namespaces: Vec<_> = (0..count).map(|n| lab.namespace(&format!("n{n}"))).collect();
        let endpoints: Vec<_> = (1..)
            .zip(&namespaces)
            .map(|(n, path)| an_endpoint(kernel.netlink(), n, path))
            .collect();
        let whole = plan(&endpoints, Verdict::Allow);
        let first = kernel.apply(&whole).unwrap();
        println!("{count} endpoints: {} ops, {:?}", first.ops, first.took);
        // Per endpoint: interface, gates, up, row, two addresses, two programs. In all: two host addresses,
        // two variants, one policy table, one prefix table; policies, prefixes, classes of source ports.
        assert_eq!(first.ops, usize::from(count) * 8 + 9);
        let deny = plan(&endpoints, Verdict::Deny);
        kernel.apply(&deny).unwrap();
        kernel.settle();
        for digest in 10..20 {
            let mut edited = PolicyTable::clone(&policy(Verdict::Allow));
            edited.digest = [digest; 16];
            let mut plan = whole.clone();
            plan.policies.insert(POLICY, Arc::new(edited));
            let change = kernel.apply(&plan).unwrap();
            // A table is filled, and referred to.
            assert_eq!(change.ops, 2);
            let settled = kernel.settle();
            assert_eq!(settled.ops, 1, "a grace period");
            println!("one policy changed in {:?}, then settled in {:?}", change.took, settled.took);
        }
        drop(kernel);
        let begin = Instant::now();
        let mut kernel = open(lab);
        println!("opened in {:?}", begin.elapsed());
        let warm = kernel.apply(&whole).unwrap();
        println!("adopted: {} ops, {:?}", warm.ops, warm.took);
        drop(kernel);
        let begin = Instant::now();
        Kernel::teardown(&paths(lab)).unwrap();
        println!("torn down in {:?}", begin.elapsed());
    });
}

#[test]
fn what_others_take_away_is_noticed_and_mended() {
    lab::run(|lab| {
        let (wan, _) =
            (lab.ip("link add wan0 type veth peer name wan1"), lab.ip("link set wan0 up"));
        assert!(wan.is_empty());
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        let facts = facts::uplink(kernel.netlink(), "wan0").unwrap();
        let uplink = Uplink {
            interface: "wan0".to_owned(),
            slot: Slot(9),
            ifindex: facts.ifindex,
            mac: facts.mac,
            mtu: facts.mtu,
            address4: None,
        };
        let plan = with_uplink(plan(&pair.endpoints, Verdict::Allow), uplink);
        kernel.apply(&plan).unwrap();
        kernel.settle();
        assert!(
            !kernel.observe(&KernelEvent::Relist) && !kernel.observe(&KernelEvent::ForwardingLost)
        );
        let mend = |kernel: &mut Kernel, event: &KernelEvent| {
            assert!(kernel.observe(event), "{event:?} shows nothing");
            kernel.apply(&plan).unwrap();
            kernel.settle();
            assert!(!kernel.observe(event), "{event:?} shows what was mended");
            check_all_pass(lab, &pair);
        };

        netlink::set("net.ipv4.ip_forward", "1");
        netlink::set("net.ipv4.ip_forward", "0");
        mend(&mut kernel, &KernelEvent::ForwardingLost);
        netlink::set("net.ipv6.conf.pn000000000001.forwarding", "0");
        mend(&mut kernel, &KernelEvent::Relist);
        lab.ip("link set pn000000000001 down");
        mend(&mut kernel, &KernelEvent::Relist);
        lab.ip("link del pn000000000002");
        mend(&mut kernel, &KernelEvent::Relist);
        lab::output(std::process::Command::new("tc").args([
            "qdisc",
            "del",
            "dev",
            "pn000000000001",
            "clsact",
        ]));
        mend(&mut kernel, &KernelEvent::Relist);
        // Of two links, by tcx, one.
        let link = sys::pinned(&lab.bpffs().join("v3/links/wan0_ingress")).unwrap();
        sys::link_detach(link.as_fd()).unwrap();
        mend(&mut kernel, &KernelEvent::Relist);
        let info = sys::link_info(
            sys::pinned(&lab.bpffs().join("v3/links/wan0_ingress")).unwrap().as_fd(),
        );
        assert_eq!(info.unwrap().ifindex, facts.ifindex);

        // Unseen, between two daemons.
        drop(kernel);
        netlink::set("net.ipv4.ip_forward", "1");
        netlink::set("net.ipv4.ip_forward", "0");
        let mut kernel = open(lab);
        kernel.apply(&plan).unwrap();
        assert!(!kernel.observe(&KernelEvent::ForwardingLost));
        let setting = std::fs::read("/proc/sys/net/ipv4/conf/pn000000000001/forwarding");
        assert_eq!(setting.unwrap(), b"1\n");
    });
}

#[test]
fn teardown_removes_a_half_made_interface_and_only_what_is_on_bpffs() {
    lab::run(|lab| {
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        kernel.apply(&plan(&pair.endpoints, Verdict::Allow)).unwrap();
        drop(kernel);
        let nameless = ["link", "set", "pn000000000002", "alias", ""];
        lab::output(std::process::Command::new("ip").args(nameless));

        let precious = lab.dir.join("etc/porin");
        std::fs::create_dir_all(&precious).unwrap();
        std::fs::write(precious.join("porin.toml"), "").unwrap();
        let before = lab.traces();
        let refused = Kernel::teardown(&Paths { bpffs: precious.clone() }).unwrap_err();
        assert!(refused.to_string().contains("not on a BPF file system"), "{refused}");
        assert!(precious.join("porin.toml").exists());
        assert_eq!(lab.traces(), before);

        let report = Kernel::teardown(&paths(lab)).unwrap();
        assert_eq!(report.failures, [""; 0]);
        assert_eq!(report.interfaces, ["pn000000000001", "pn000000000002"]);
    });
}

/// The way of kernels without `membarrier`. An unused table may stay, and nobody minds it.
#[test]
fn a_table_in_place_zero_is_nobodys() {
    lab::run(|lab| {
        let mut kernel = open(lab);
        let pair = pair(lab, &kernel);
        let [allow, deny] = [Verdict::Allow, Verdict::Deny].map(|v| plan(&pair.endpoints, v));
        kernel.apply(&allow).unwrap();
        for _ in 0..2 {
            kernel.maps().make_tables(TableKind::Prefix, &[0]).unwrap();
            kernel.apply(&deny).unwrap();
            kernel.apply(&allow).unwrap();
            assert!(kernel.maps().prefixes().unwrap().iter().all(|number| *number != 0));
            check_all_pass(lab, &pair);
            drop(kernel);
            kernel = open(lab);
        }
    });
}
