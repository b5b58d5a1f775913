//! What goes on being wrong makes no generation after the other, and what would cut the host off makes none.

mod lab;

use std::time::Duration;

use lab::World;
use lab::daemon::{Daemon, EFFECT};
use lab::shop::Shop;
use lab::{config, eventually};

/// Several looks of the daemon's at what is wrong.
const LOOKS: Duration = Duration::from_secs(3);

fn faults(daemon: &Daemon) -> String {
    daemon.status()["faults"].to_string()
}

#[test]
fn faulty_files_and_a_vanished_namespace_make_one_generation() {
    World::run(|world| {
        let shop = Shop::open(world);
        let brief = config::add(&shop.host, "brief", "app = \"brief\"", 9);
        let daemon = shop.host.porind();
        shop.host.write("policies.d/broken.toml", "[[policy]\n");
        daemon.wait_for("the fault is told", |status| status["in_force"] == false);
        shop.host.forget_container("brief");
        drop(brief);
        daemon.wait_for("one is closed", |status| status["endpoints"]["closed"] == 1);
        let mut last = daemon.generation();
        let mut commits = 0;
        let storm = eventually::some(LOOKS, || {
            let now = daemon.generation();
            commits += now - std::mem::replace(&mut last, now);
            // Its path goes, then its interface: both may be seen, one after the other.
            (commits > 2).then_some(())
        });
        assert!(storm.is_none(), "{commits} commits");
    });
}

#[test]
fn a_container_that_removes_its_interface_again_and_again_stays_closed_in_between() {
    World::run(|world| {
        let shop = Shop::open(world);
        let bad = config::add(&shop.host, "bad", "app = \"bad\"", 9);
        let daemon = shop.host.porind();
        let held = eventually::some(EFFECT, || {
            if bad.place().interfaces().len() > 1 {
                bad.place().sh("ip link del eth0 2>/dev/null || true");
            }
            faults(&daemon).contains("times in a row").then_some(())
        });
        assert!(held.is_some(), "{}", faults(&daemon));
        daemon.wait_for("it is made anew", |status| status["endpoints"]["closed"] == 0);
    });
}

#[test]
fn a_pool_that_overlaps_a_network_of_the_host_is_refused() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let before = daemon.generation();
        shop.host.sh(
            "ip link add lan0 type veth peer name lan1; ip addr add 10.10.7.1/24 dev lan0; ip link set lan0 up",
        );
        daemon.wait_for("it is told", |status| {
            let faults = status["faults"].to_string();
            status["in_force"] == false
                && faults.contains("10.10.0.0/16")
                && faults.contains("10.10.7.0/24")
                && faults.contains("lan0")
        });
        assert_eq!(daemon.generation(), before);
        shop.host.sh("ip link del lan0");
        daemon.wait_for("all is well again", |status| status["in_force"] == true);
    });
}
