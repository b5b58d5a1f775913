//! Gates by either mechanism, with a program that does nothing.

use std::os::fd::AsFd;

use porin::kernel::links::{Links, Mechanism, Mechanisms, Place};
use porin::kernel::netlink::{Netlink, host};
use porin::kernel::probe::{Attach, Support, mount_bpffs};
use porin::kernel::sys;

use crate::lab::{self, Lab};

/// A dummy for an uplink whose name has a dot, as VLANs' do.
const WAN: &str = "wan0.7";

struct World {
    netlink: Netlink,
    links: Links,
    mechanism: Mechanism,
    ifindex: u32,
}

impl World {
    fn place(&self) -> Place<'_> {
        Place { interface: WAN, ifindex: self.ifindex, mechanism: self.mechanism }
    }
}

fn world(lab: &Lab, mechanism: Mechanism) -> World {
    std::fs::create_dir_all(lab.bpffs().join("links")).unwrap();
    let netlink = Netlink::open().unwrap();
    lab.ip(&format!("link add {WAN} type veth peer name wan1"));
    let ifindex = ifindex(&netlink);
    World { netlink, links: Links::new(lab.bpffs().join("links")), mechanism, ifindex }
}

fn ifindex(netlink: &Netlink) -> u32 {
    host::link_by_name(&netlink.socket(), WAN).unwrap().unwrap().ifindex
}

fn attach(world: &World) {
    let program = sys::load_nothing().unwrap();
    world.links.attach(&world.netlink, world.place(), [program.as_fd(); 2]).unwrap();
}

fn tags(world: &World) -> [bool; 2] {
    let wanted = sys::program_tag(sys::load_nothing().unwrap().as_fd()).unwrap();
    let tags = world.links.tags(&world.netlink, &[world.place()]).unwrap();
    tags[0].map(|tag| tag == Some(wanted))
}

fn gates_come_stay_and_go(mechanism: Mechanism) {
    lab::run(move |lab| {
        let world = world(lab, mechanism);
        let before = lab.traces();
        assert_eq!(tags(&world), [false; 2]);
        attach(&world);
        let once = lab.traces();
        attach(&world);
        assert_eq!(lab.traces(), once, "attaching again replaces");
        assert_eq!(tags(&world), [true; 2]);
        assert_eq!(world.links.interfaces().unwrap(), [WAN]);
        // Another daemon finds them.
        let again = Links::new(lab.bpffs().join("links"));
        again.detach(&world.netlink, WAN).unwrap();
        again.detach(&world.netlink, WAN).unwrap();
        assert_eq!(tags(&world), [false; 2]);
        assert_eq!(lab.traces(), before);
    });
}

#[test]
fn tcx_gates_come_stay_and_go() {
    gates_come_stay_and_go(Mechanism::Tcx);
}

#[test]
fn clsact_gates_come_stay_and_go() {
    gates_come_stay_and_go(Mechanism::Clsact);
}

fn a_new_interface_of_the_old_name_gets_gates(mechanism: Mechanism) {
    lab::run(move |lab| {
        let mut world = world(lab, mechanism);
        attach(&world);
        lab.ip(&format!("link del {WAN}"));
        lab.ip(&format!("link add {WAN} type veth peer name wan1"));
        world.ifindex = ifindex(&world.netlink);
        assert_eq!(tags(&world), [false; 2]);
        attach(&world);
        assert_eq!(tags(&world), [true; 2]);
        lab.ip(&format!("link del {WAN}"));
        world.links.detach(&world.netlink, WAN).unwrap();
        assert!(world.links.interfaces().unwrap().is_empty());
    });
}

#[test]
fn a_new_interface_of_the_old_name_gets_tcx_gates() {
    a_new_interface_of_the_old_name_gets_gates(Mechanism::Tcx);
}

#[test]
fn a_new_interface_of_the_old_name_gets_clsact_gates() {
    a_new_interface_of_the_old_name_gets_gates(Mechanism::Clsact);
}

/// The other means takes over, and nothing of the first stays.
fn mechanisms_replace_each_other(from: Mechanism, to: Mechanism) {
    lab::run(move |lab| {
        let mut world = world(lab, from);
        let before = lab.traces();
        attach(&world);
        world.mechanism = to;
        assert_eq!(tags(&world), [false; 2]);
        attach(&world);
        assert_eq!(tags(&world), [true; 2]);
        let switched = lab.traces();
        world.mechanism = from;
        assert_eq!(tags(&world), [false; 2]);
        world.links.detach(&world.netlink, WAN).unwrap();
        assert_eq!(lab.traces(), before);
        world.mechanism = to;
        attach(&world);
        assert_eq!(lab.traces(), switched, "as if it had never been otherwise");
    });
}

#[test]
fn clsact_takes_over_from_tcx() {
    mechanisms_replace_each_other(Mechanism::Tcx, Mechanism::Clsact);
}

#[test]
fn tcx_takes_over_from_clsact() {
    mechanisms_replace_each_other(Mechanism::Clsact, Mechanism::Tcx);
}

#[test]
fn filters_and_qdiscs_of_others_stay() {
    lab::run(|lab| {
        let world = world(lab, Mechanism::Clsact);
        let tc = |arguments: &[&str]| lab::output(std::process::Command::new("tc").args(arguments));
        tc(&["qdisc", "add", "dev", WAN, "clsact"]);
        let place = ["dev", WAN, "ingress", "prio", "5", "protocol", "all"];
        let bytecode = ["bpf", "bytecode", "1,6 0 0 0,"];
        tc(&[&["filter", "add"], &place[..], &bytecode].concat());
        attach(&world);
        world.links.detach(&world.netlink, WAN).unwrap();
        let left = tc(&["filter", "show", "dev", WAN, "ingress"]);
        assert!(left.contains("pref 5") && !left.contains("porin"), "{left}");
        tc(&[&["filter", "del"], &place[..]].concat());
        assert!(tc(&["qdisc", "show", "dev", WAN]).contains("clsact"));
    });
}

#[test]
fn this_kernel_is_probed() {
    lab::run(|_| {
        let support = Support::probe().unwrap();
        // Linux 6.6 and later.
        assert_eq!(support.mechanisms(Attach::Auto).unwrap(), {
            Mechanisms { endpoints: Mechanism::Clsact, uplinks: Mechanism::Tcx }
        });
        assert_eq!(support.mechanisms(Attach::Clsact).unwrap(), {
            Mechanisms::only(Mechanism::Clsact)
        });
        assert!(support.coarse_clock);
    });
}

#[test]
fn bpffs_is_mounted_where_it_is_missing() {
    lab::run(|lab| {
        let there = lab.dir.join("elsewhere");
        mount_bpffs(&there).unwrap();
        mount_bpffs(&there.join("below")).unwrap();
        std::fs::create_dir(there.join("below")).unwrap();
        let program = sys::load_nothing().unwrap();
        sys::pin(program.as_fd(), &there.join("below/x")).unwrap();
    });
}

#[test]
fn without_capabilities_each_missing_one_is_named() {
    lab::run(|_| {
        use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, none).unwrap();
        let reason = Support::probe().unwrap_err().to_string();
        for wanted in ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"] {
            assert!(reason.contains(wanted), "{wanted} in {reason}");
        }
    });
}
