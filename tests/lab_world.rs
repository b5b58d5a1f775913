//! The lab itself: what the other tests rely on.

mod lab;

use std::time::Duration;

use lab::traffic::{self, ARRIVES, DROPPED, Server};
use lab::{World, ping, process::Output};

#[test]
fn hosts_talk_by_their_links_and_only_by_them() {
    World::run(|world| {
        let (alpha, beta, gamma) = (world.host("alpha"), world.host("beta"), world.host("gamma"));
        alpha.link_to(&beta, "up0 fd00:a::1/64 192.0.2.1/24", "up0 fd00:a::2/64 192.0.2.2/24");
        let _server = Server::echo(beta.place(), 7);
        for address in ["[fd00:a::2]:7", "192.0.2.2:7"] {
            let to: std::net::SocketAddr = address.parse().unwrap();
            assert!(traffic::tcp(alpha.place(), to, ARRIVES), "{address}");
            assert!(traffic::udp(alpha.place(), to, 100, ARRIVES), "{address}");
            assert!(traffic::udp(alpha.place(), to, 4000, ARRIVES), "{address}");
            assert!(ping::ping(alpha.place(), to.ip(), 56, ARRIVES), "{address}");
            assert!(!traffic::tcp(gamma.place(), to, DROPPED), "{address}");
            assert!(!ping::ping(gamma.place(), to.ip(), 56, DROPPED), "{address}");
        }
        traffic::bulk(alpha.place(), "[fd00:a::2]:7".parse().unwrap(), 4).unwrap();
    });
}

/// What the tests of path MTU rely on, without porin.
#[test]
fn large_packets_find_a_narrow_path() {
    World::run(|world| {
        let (near, router, far) = (world.host("near"), world.host("router"), world.host("far"));
        near.link_to(&router, "up0 fd00:a::1/64 192.0.2.1/24", "a fd00:a::2/64 192.0.2.2/24");
        router.link_to(&far, "b fd00:b::1/64 198.51.100.1/24", "up0 fd00:b::2/64 198.51.100.2/24");
        router.sh("ip link set dev b mtu 1300");
        far.sh("ip link set dev up0 mtu 1300");
        near.sh("ip -6 route add default via fd00:a::2; ip route add default via 192.0.2.2");
        far.sh("ip -6 route add default via fd00:b::1; ip route add default via 198.51.100.1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        router.sysctl("net/ipv4/ip_forward", "1");
        let _server = Server::echo(far.place(), 7);
        for to in ["[fd00:b::2]:7", "198.51.100.2:7"] {
            let to: std::net::SocketAddr = to.parse().unwrap();
            traffic::bulk(near.place(), to, 4).unwrap();
            assert!(traffic::udp(near.place(), to, 1400, ARRIVES), "{to}");
            assert!(traffic::udp(near.place(), to, 4000, ARRIVES), "{to}");
        }
    });
}

#[test]
fn nothing_of_a_world_is_seen_outside() {
    let before = std::fs::read_to_string("/proc/self/mounts").unwrap();
    World::run(|world| {
        let host = world.host("alpha");
        let web = host.container("web");
        host.write("porin.toml", "# here");
        assert_eq!(host.sh("cat /etc/porin/porin.toml"), "# here");
        assert_eq!(host.sh("ls /run/netns"), "web\n");
        assert_eq!(host.sh("ls /sys/class/net"), "lo\n");
        assert_eq!(web.place().interfaces(), ["lo"]);
        host.sh("touch /etc/lab-was-here /var/lib/lab-was-here /run/lab-was-here");
        host.forget_container("web");
        assert_eq!(host.sh("ls /run/netns"), "");
    });
    assert_eq!(std::fs::read_to_string("/proc/self/mounts").unwrap(), before);
    for directory in ["/etc", "/var/lib", "/run"] {
        assert!(!std::path::Path::new(directory).join("lab-was-here").exists());
    }
}

#[test]
fn children_die_with_their_owner_and_commands_with_their_deadline() {
    World::run(|world| {
        let host = world.host("alpha");
        let sleeper = host.place().spawn(host.place().command(&["sleep", "600"]));
        let process = format!("/proc/{}", sleeper.pid());
        assert!(std::path::Path::new(&process).exists());
        drop(sleeper);
        assert!(!std::path::Path::new(&process).exists());

        let mut command = host.place().command(&["sleep", "600"]);
        let place = host.place().clone();
        let late = std::thread::spawn(move || {
            Output::of(place.name(), &mut command, None, Duration::from_millis(50))
        });
        assert!(late.join().is_err(), "a command past its deadline is killed and reported");
    });
}

#[test]
fn a_thousand_containers_are_cheap() {
    World::run(|world| {
        let host = world.host("alpha");
        let names: Vec<String> = (0..1000).map(|n| format!("c{n}")).collect();
        let containers = host.containers(&names);
        assert_eq!(containers.len(), 1000);
        assert_eq!(containers[999].place().interfaces(), ["lo"]);
    });
}
