//! The same programs on real interfaces: containers that ping each other, the world
//! and its edges, so that what BPF_PROG_TEST_RUN cannot show is seen too: redirects
//! arrive, and kernels believe the ICMP errors and the resets that the datapath makes.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libbpf_rs::libbpf_sys::{BPF_TCX_EGRESS, BPF_TCX_INGRESS};
use porin::kernel::sys::link_create;
use rustix::io::Errno;

use crate::frame::{Frame, Ip, SYN};
use crate::world::{UPLINK, World, container, default_entries, rejecting, run_ip};

/// A network namespace, as long as the process that it was made for.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut ready = [0];
        let mut out = child.stdout.take().expect("piped");
        std::io::Read::read_exact(&mut out, &mut ready).expect("ready");
        Self(child)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0.id().to_string(), "-n", program]).args(arguments);
        command
    }

    fn ip(&self, line: &str) {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        assert!(self.command("ip", &arguments).status().expect("ip").success(), "{line}");
    }

    /// What ping said, and whether it was answered.
    fn ping(&self, arguments: &[&str], to: Ip) -> (bool, String) {
        let to = match to {
            Ip::V4(a) => a.to_string(),
            Ip::V6(a) => a.to_string(),
        };
        let arguments = [&["-n", "-c1", "-W2"], arguments, &[to.as_str()]].concat();
        let output = self.command("ping", &arguments).output().expect("ping");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Runs `f` on a thread that has entered the namespace.
    fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.0.id());
        let namespace = std::fs::File::open(path).expect("a namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))
                    .expect("entered");
                f()
            });
            thread.join().expect("no panic")
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Live {
    world: World,
    containers: [Namespace; 2],
    remote: Namespace,
    _links: Vec<OwnedFd>,
}

const REMOTE4: &str = "198.51.100.7";
const REMOTE6: &str = "2001:db8::7";

impl Live {
    fn new() -> Self {
        let world = World::new();
        let containers = [1, 2].map(|slot| {
            let (n, c) = (Namespace::new(), container(slot));
            let Ip::V4(ip4) = c.ip4 else { unreachable!() };
            let Ip::V6(ip6) = c.ip6 else { unreachable!() };
            let mac = c.mac.map(|byte| format!("{byte:02x}")).join(":");
            run_ip(&format!(
                "link set c{slot} down
                 link set c{slot} address {mac}
                 link set c{slot} netns {}
                 route add {ip4} dev pn{slot}
                 route add {ip6} dev pn{slot}
                 neighbour add {ip4} lladdr {mac} dev pn{slot} nud permanent
                 neighbour add {ip6} lladdr {mac} dev pn{slot} nud permanent",
                n.0.id()
            ));
            n.ip(&format!("link set c{slot} name eth0"));
            n.ip("link set lo up");
            n.ip("link set eth0 up");
            n.ip(&format!("address add {ip4}/32 dev eth0"));
            n.ip(&format!("address add {ip6}/128 dev eth0 nodad"));
            for gateway in ["169.254.0.1", "fe80::1"] {
                n.ip(&format!(
                    "neighbour add {gateway} lladdr 02:70:6f:72:69:6e dev eth0 nud permanent"
                ));
                n.ip(&format!("route add {gateway} dev eth0"));
                n.ip(&format!("route add default via {gateway} dev eth0"));
            }
            n
        });
        let remote = Namespace::new();
        run_ip(&format!("link set wire netns {}", remote.0.id()));
        remote.ip("link set lo up");
        remote.ip("link set wire address 02:00:00:00:00:fe up");
        remote.ip("address add 192.0.2.254/24 dev wire");
        remote.ip("address add fd01::fe/64 dev wire nodad");
        remote.ip(&format!("address add {REMOTE4}/32 dev lo"));
        remote.ip(&format!("address add {REMOTE6}/128 dev lo nodad"));
        // Asking for it would wait for the link-local address to be known as unique.
        remote.ip("neighbour add fd01::1 lladdr 02:00:00:00:00:09 dev wire nud permanent");
        remote.ip("route add fd00::/64 via fd01::1");
        // Last: what the ends said under their first MACs would be spoofed.
        let mut links = Vec::new();
        for slot in [1, 2, UPLINK] {
            let ifindex =
                if slot == UPLINK { world.uplink_ifindex } else { world.container(slot).ifindex };
            let gate = world.gate(slot);
            let pairs = [(&gate.ingress, BPF_TCX_INGRESS), (&gate.egress, BPF_TCX_EGRESS)];
            for (program, at) in pairs {
                links.push(link_create(program.as_fd(), ifindex, at).expect("attached"));
            }
        }
        Self { world, containers, remote, _links: links }
    }

    fn drops(&self) -> Vec<(u32, String)> {
        let drops = self.world.maps.drops().expect("drops");
        let names = porin::kernel::datapath::drop_reason_names();
        drops.iter().map(|(k, _)| (k.slot, names[usize::from(k.reason)].clone())).collect()
    }
}

/// Sends a megabyte over TCP from one namespace to another.
fn megabyte(from: &Namespace, to: &Namespace, address: SocketAddr) {
    let listener = to.enter(|| TcpListener::bind(address).expect("bound"));
    let address = listener.local_addr().expect("bound");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            from.enter(|| {
                use std::io::Write;
                let mut stream = TcpStream::connect(address).expect("connected");
                stream.write_all(&vec![7; 1 << 20]).expect("sent");
            });
        });
        let (mut stream, _) = listener.accept().expect("accepted");
        let mut received = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut received).expect("received");
        assert_eq!(received.len(), 1 << 20);
    });
}

#[test]
fn near_and_far() {
    let live = Live::new();
    let [a, b] = &live.containers;
    for v6 in [false, true] {
        let far = crate::frame::ip(if v6 { REMOTE6 } else { REMOTE4 });
        let near = container(2).ip(v6);
        let host = crate::frame::ip(if v6 { "fd01::1" } else { "192.0.2.1" });
        for (to, arguments) in [
            (near, &[][..]),
            (near, &["-s", "4000"]), // fragments
            (near, &["-t", "1"]),
            (host, &[]),
            (far, &[]),
            (far, &["-s", "4000"]),
        ] {
            let (answered, said) = a.ping(arguments, to);
            assert!(answered, "{to:?} {arguments:?}: {said} {:?}", live.drops());
        }
        let (answered, said) = a.ping(&["-t", "1"], far);
        assert!(!answered);
        let exceeded = if v6 { "Time exceeded: Hop limit" } else { "Time to live exceeded" };
        let gateway = if v6 { "From fe80::1" } else { "From 169.254.0.1" };
        assert!(said.contains(exceeded) && said.contains(gateway), "{said}");
        let socket = |address: Ip| match address {
            Ip::V4(a) => SocketAddr::new(a.into(), 0),
            Ip::V6(a) => SocketAddr::new(a.into(), 0),
        };
        megabyte(a, b, socket(near));
        megabyte(a, &live.remote, socket(far));
    }
    assert!(live.drops().iter().all(|(_, why)| why == "hop-limit" || why == "link-local"));
}

/// The uplink's MTU is smaller: a container is told, and believes it.
#[test]
fn path_mtu() {
    let live = Live::new();
    run_ip("link set up0 mtu 1400");
    let a = &live.containers[0];
    let (answered, said) = a.ping(&["-M", "do", "-s", "1440"], crate::frame::ip(REMOTE4));
    assert!(!answered && said.contains("From 169.254.0.1"), "{said}");
    assert!(said.contains("Frag needed and DF set (mtu = 1400)"), "{said}");
    let (_, said) = a.ping(&["-M", "do", "-s", "1440"], crate::frame::ip(REMOTE6));
    assert!(said.contains("Packet too big: mtu=1400"), "{said}");
    // TCP's segments, which leave the container joined, learn it too.
    for address in [REMOTE4, REMOTE6] {
        let address = SocketAddr::new(address.parse().expect("an address"), 0);
        let fresh = &live.containers[1];
        megabyte(fresh, &live.remote, address);
    }
    assert!(live.drops().contains(&(2, "too-big".to_owned())));
}

/// Where a test's packets come from.
#[derive(Clone, Copy)]
enum From<'a> {
    Host,
    Place(&'a Namespace),
}

impl From<'_> {
    fn enter<T: Send>(self, f: impl FnOnce() -> T + Send) -> T {
        match self {
            From::Host => f(),
            From::Place(namespace) => namespace.enter(f),
        }
    }

    /// A connection is refused and a datagram answered, both long before anything would time out.
    fn is_refused(self, to: Ip, live: &Live) {
        let soon = Duration::from_secs(5);
        let (address, errno) = match to {
            Ip::V4(a) => (SocketAddr::new(a.into(), 80), Errno::HOSTUNREACH),
            Ip::V6(a) => (SocketAddr::new(a.into(), 80), Errno::ACCESS),
        };
        let begin = Instant::now();
        let refused = self.enter(|| TcpStream::connect_timeout(&address, soon)).map(|_| ());
        let kind = refused.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::ConnectionRefused), "{to:?} {:?}", live.drops());
        assert!(begin.elapsed() < soon / 5, "{:?}", begin.elapsed());
        let answer = self.enter(|| {
            let any = if to.is4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("bound");
            socket.connect(address).expect("connected");
            socket.set_read_timeout(Some(soon)).expect("set");
            socket.send(&[7; 1200]).expect("sent");
            socket.recv(&mut [0; 9])
        });
        let told = answer.map_err(|error| error.raw_os_error());
        assert_eq!(told, Err(Some(errno.raw_os_error())), "{to:?} {:?}", live.drops());
        assert!(begin.elapsed() < soon, "{:?}", begin.elapsed());
    }
}

fn rejecting_all(egress: bool, ingress: bool) -> Vec<crate::world::Entry> {
    let entries = default_entries(egress, ingress).into_iter();
    entries.map(|e| if e.1.cookie != 0 { rejecting(e) } else { e }).collect()
}

#[test]
fn what_is_rejected_ends_at_once() {
    let mut live = Live::new();
    live.remote.ip("route add 10.0.0.0/24 via 192.0.2.1");
    live.world.policy(2, &rejecting_all(true, false));
    for v6 in [false, true] {
        let near = container(2).ip(v6);
        From::Host.is_refused(near, &live);
        From::Place(&live.containers[0]).is_refused(near, &live);
        From::Place(&live.remote).is_refused(near, &live);
    }
    live.world.policy(1, &rejecting_all(false, true));
    for far in [REMOTE4, REMOTE6, "fd01::1", "192.0.2.1"] {
        From::Place(&live.containers[0]).is_refused(crate::frame::ip(far), &live);
    }
    let policy = ["policy-ingress", "policy-egress", "link-local"];
    assert!(
        live.drops().iter().all(|(_, why)| policy.contains(&why.as_str())),
        "{:?}",
        live.drops()
    );
}

/// Connections that were there end at both ends as soon as either says something, joined segments or not.
#[test]
fn connections_that_may_no_longer_be_are_reset() {
    let mut live = Live::new();
    live.remote.ip("route add 10.0.0.0/24 via 192.0.2.1");
    let mut generation = live.world.maps.generation();
    for v6 in [false, true] {
        let [a, b] = &live.containers;
        let far = crate::frame::ip(if v6 { REMOTE6 } else { REMOTE4 });
        let (first, second) = (container(1).ip(v6), container(2).ip(v6));
        let mut pairs = Vec::new();
        for (from, to, address) in [
            (From::Place(a), From::Place(b), second),
            (From::Host, From::Place(a), first),
            (From::Place(&live.remote), From::Place(a), first),
            (From::Place(a), From::Place(&live.remote), far),
        ] {
            let address = match address {
                Ip::V4(a) => SocketAddr::new(a.into(), 0),
                Ip::V6(a) => SocketAddr::new(a.into(), 0),
            };
            let listener = to.enter(|| TcpListener::bind(address).expect("bound"));
            let address = listener.local_addr().expect("bound");
            let stream = from.enter(|| TcpStream::connect(address).expect("connected"));
            pairs.push([stream, listener.accept().expect("accepted").0]);
        }
        generation += 1;
        live.world.policy(1, &rejecting_all(false, false));
        live.world.maps.commit(generation);
        for (number, pair) in pairs.iter_mut().enumerate() {
            for (end, stream) in pair.iter_mut().enumerate() {
                use std::io::{Read, Write};
                stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
                stream.write_all(&[7; 9000]).expect("sent");
                let kind = stream.read(&mut [0; 9]).map_err(|error| error.kind());
                let drops = live.drops();
                assert_eq!(kind, Err(ErrorKind::ConnectionReset), "{v6} {number} {end} {drops:?}");
            }
        }
        generation += 1;
        live.world.policy(1, &default_entries(true, true));
        live.world.maps.commit(generation);
    }
}

/// A mark opens a gate from outside of the container only: the kernel takes marks off between namespaces.
#[test]
fn no_container_can_set_the_mark_that_opens_a_gate() {
    let mut live = Live::new();
    live.world.policy(1, &rejecting_all(false, false));
    let host = (crate::frame::ip("fd01::1"), 5);
    let syn = Frame::tcp(host, (container(1).ip6, 80), SYN, b"");
    let mark = live.world.to(1, syn).outcome.context.mark;
    assert_ne!(mark, 0);
    for host in ["fd01::1", "192.0.2.1"].map(crate::frame::ip) {
        let dropped = |live: &Live| -> u64 {
            live.world.maps.drops().expect("drops").iter().map(|(_, count)| count).sum()
        };
        let before = dropped(&live);
        let (answered, said) = live.containers[0].ping(&["-m", &mark.to_string()], host);
        assert!(!answered && !said.contains("mark"), "{said}");
        assert!(dropped(&live) > before);
    }
}
