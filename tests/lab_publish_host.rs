//! Ports of the host that are endpoints', as programs of the host itself reach them: by its own addresses and by localhost.

mod lab;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lab::shop::{API, FRONT, HOST4, HOST6, Shop, at, both};
use lab::traffic::{self, ARRIVES, DROPPED, Stream};
use lab::{Cgroup, Daemon, World, config};

const LOOPBACK4: &str = "127.0.0.1";
const LOOPBACK6: &str = "::1";

fn localhost(port: u16) -> [SocketAddr; 2] {
    both(LOOPBACK6, LOOPBACK4, port)
}

fn host(port: u16) -> [SocketAddr; 2] {
    both(HOST6, HOST4, port)
}

/// An IPv4 address as a socket of IPv6 has it.
fn mapped(address: &str, port: u16) -> SocketAddr {
    let address: Ipv4Addr = address.parse().expect("address");
    SocketAddr::new(address.to_ipv6_mapped().into(), port)
}

/// An endpoint's file, with ports that it publishes.
fn publish(shop: &Shop, name: &str, number: u16, ports: &[&str]) {
    let endpoint = config::endpoint(name, &format!("app = \"{name}\", env = \"prod\""), number);
    let text = format!("{}\npublish = {ports:?}\n", endpoint.trim_end());
    shop.host.write(&format!("endpoints.d/{name}.toml"), &text);
}

fn start(shop: &Shop, cgroup: &Cgroup) -> Daemon {
    shop.host.porind_with(&["--cgroup", &cgroup.path()])
}

/// A datagram from an unconnected socket, and where its echo came from.
fn asked(shop: &Shop, from: IpAddr, to: SocketAddr) -> io::Result<SocketAddr> {
    let socket = shop.host.enter(|| UdpSocket::bind((from, 0)))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let end = Instant::now() + ARRIVES;
    loop {
        socket.send_to(b"porin", to)?;
        match socket.recv_from(&mut [0; 16]) {
            Ok((5, from)) => return Ok(from),
            Ok(_) => return Err(io::Error::other("not what was sent")),
            Err(_) if Instant::now() < end => {}
            Err(error) => return Err(error),
        }
    }
}

fn any_of(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Whose port answers: front's echoes, and nobody else listens at that port.
fn reaches(shop: &Shop, to: SocketAddr) -> bool {
    traffic::tcp(shop.host.place(), to, ARRIVES)
}

fn refused(shop: &Shop, to: SocketAddr) -> bool {
    let error = traffic::connect(shop.host.place(), to, ARRIVES).err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A connection from an address that the program insists on.
fn connect_from(shop: &Shop, from: IpAddr, to: SocketAddr) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    shop.host.enter(|| {
        let socket = socket(family, SocketType::STREAM, None)?;
        bind(&socket, &SocketAddr::new(from, 0))?;
        Ok(connect(&socket, &to)?)
    })
}

/// Multipath TCP connects by a socket of the kernel's own.
fn mptcp(shop: &Shop, to: SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, connect, ipproto, socket};
    shop.host.enter(|| {
        match socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP)) {
            Ok(socket) => connect(&socket, &to).unwrap_or_else(|e| panic!("{to} by MPTCP: {e}")),
            Err(error) => eprintln!("not tried: this kernel has no MPTCP: {error}"),
        }
    });
}

#[test]
fn by_localhost_and_by_the_host_s_addresses() {
    World::run(|world| {
        let shop = Shop::open(world);
        let cgroup = Cgroup::enter(&shop.host);
        publish(&shop, "front", FRONT, &["8088:80/tcp", "8088:80/udp"]);
        let mut daemon = start(&shop, &cgroup);
        let all = localhost(8088).into_iter().chain(host(8088));
        let all: Vec<_> = all.chain([mapped(LOOPBACK4, 8088), mapped(HOST4, 8088)]).collect();
        for to in all.iter().copied() {
            let mut stream = traffic::connect(shop.host.place(), to, ARRIVES).expect("connects");
            traffic::ask(&mut stream, b"porin").unwrap_or_else(|e| panic!("{to}: {e}"));
            let peer = stream.peer_addr().expect("a peer");
            assert_eq!((peer.ip().to_canonical(), peer.port()), (to.ip().to_canonical(), 8088));
            // Connected, and not.
            assert!(traffic::udp(shop.host.place(), to, 3000, ARRIVES), "{to} by UDP");
            let socket = traffic::udp_socket(shop.host.place(), to);
            assert_eq!(socket.peer_addr().expect("a peer"), to);
            assert_eq!(asked(&shop, any_of(to), to).expect("an answer"), to);
            traffic::bulk(shop.host.place(), to, 2).unwrap_or_else(|e| panic!("{to}: {e}"));
        }
        // As programs are told by `0.0.0.0:8088`.
        for to in [SocketAddr::new(any_of(all[0]), 8088), SocketAddr::new(any_of(all[1]), 8088)] {
            assert!(reaches(&shop, to), "{to}");
        }
        mptcp(&shop, localhost(8088)[1]);
        // By an address of the host's own it is the host's still.
        assert!(reaches(&shop, SocketAddr::new(LOOPBACK4.parse().unwrap(), 9090)));
        assert_eq!(asked(&shop, any_of(host(9090)[1]), host(9090)[1]).unwrap(), host(9090)[1]);
        // Other addresses of 127.0.0.0/8 are not its, nor other ports, nor what insists on the loopback.
        assert!(refused(&shop, "127.0.0.53:8088".parse().unwrap()));
        assert!(refused(&shop, "127.0.0.1:8089".parse().unwrap()));
        for to in localhost(8088) {
            let socket = shop.host.enter(|| UdpSocket::bind((to.ip(), 0))).expect("a socket");
            socket.connect(to).and_then(|()| socket.send(b"porin")).expect("sends");
            let error = socket.recv(&mut [0; 16]).expect_err("nobody is there");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{to} from {to}");
            let socket = shop.host.enter(|| UdpSocket::bind((to.ip(), 0))).expect("a socket");
            socket.send_to(b"porin", to).expect("sends");
            socket.set_read_timeout(Some(DROPPED)).expect("timeout");
            assert!(socket.recv_from(&mut [0; 16]).is_err(), "{to} from {to}, unconnected");
            let error = connect_from(&shop, to.ip(), to).expect_err("nobody listens there");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{to} from {to}");
        }
        // From another address of its own, which a program insists on, it is reached.
        for (from, to) in host(8088).map(|own| own.ip()).into_iter().zip(localhost(8088)) {
            connect_from(&shop, from, to).unwrap_or_else(|e| panic!("{to} from {from}: {e}"));
        }
        // A container's localhost is its own.
        for container in [&shop.intruder, &shop.front] {
            assert!(!traffic::tcp(container.place(), localhost(8088)[1], DROPPED));
        }
        let outside = shop.outside.place();
        assert!(traffic::tcp(outside, host(8088)[1], ARRIVES));

        // The daemon may die; the next one takes over.
        let streams: Vec<_> = all.iter().map(|to| Stream::start(shop.host.place(), *to)).collect();
        daemon.kill();
        for (to, stream) in all.iter().zip(&streams) {
            stream.must_go_on();
            assert!(reaches(&shop, *to), "{to} without a daemon");
        }
        daemon.start_again();
        for (to, stream) in all.iter().zip(&streams) {
            stream.must_go_on();
            assert!(reaches(&shop, *to), "{to} with the next daemon");
            assert_eq!(asked(&shop, any_of(*to), *to).expect("an answer"), *to);
        }
        daemon.commit(|| publish(&shop, "front", FRONT, &[]));
        for to in localhost(8088) {
            lab::eventually(ARRIVES, "nothing is there any more", || refused(&shop, to));
        }
        let gone = || shop.host.sh("ls /sys/fs/bpf/porin/v3/sockets");
        lab::eventually(ARRIVES, "nor are there programs", || gone().is_empty());
    });
}

#[test]
fn at_a_loopback_address_for_the_host_alone() {
    World::run(|world| {
        let shop = Shop::open(world);
        let cgroup = Cgroup::enter(&shop.host);
        let ports = ["127.0.0.1:8088:80/tcp", "127.0.0.1:8088:80/udp", "[::1]:8089:80/tcp"];
        publish(&shop, "front", FRONT, &[&ports[..], &["127.0.0.7:8090:80/tcp"]].concat());
        let mut daemon = start(&shop, &cgroup);
        let [six, four] = [localhost(8089)[0], localhost(8088)[1]];
        let seventh = "127.0.0.7:8090".parse().unwrap();
        for to in [four, six, seventh] {
            assert!(reaches(&shop, to), "{to}");
        }
        assert_eq!(asked(&shop, any_of(four), four).expect("an answer"), four);
        for to in [localhost(8088)[0], localhost(8089)[1], "127.0.0.1:8090".parse().unwrap()] {
            assert!(refused(&shop, to), "{to}");
        }
        // To nobody else, by whatever address; not even who sends to it by the wire.
        for to in [host(8088)[1], host(8089)[0], host(8090)[1]] {
            assert!(refused(&shop, to), "{to} by the host's own address");
            for place in [shop.outside.place(), shop.intruder.place()] {
                assert!(!traffic::tcp(place, to, DROPPED), "{to} from {}", place.name());
            }
        }
        let outside = &shop.outside;
        outside.sysctl("net/ipv4/conf/all/route_localnet", "1");
        outside.sh("ip route del table local 127.0.0.0/8 dev lo || true");
        outside.sh("ip route del table local 127.0.0.1 dev lo || true");
        outside.sh(&format!("ip route add 127.0.0.0/8 via {HOST4} dev up0"));
        let before = shop.host.sh("cat /sys/class/net/up0/statistics/rx_packets");
        assert!(!traffic::tcp(outside.place(), four, DROPPED), "{four} by the wire");
        let after = shop.host.sh("cat /sys/class/net/up0/statistics/rx_packets");
        assert_ne!(before, after, "it was sent");
        daemon.stop();
        // A daemon that is to do without takes away what is there, and one that cannot says why and goes on.
        for (without, why) in [("none", ""), ("/proc", "/proc is no cgroup of version 2")] {
            let daemon = shop.host.porind_with(&["--cgroup", without]);
            let kernel = daemon.status()["kernel"].clone();
            assert!(kernel["cgroup"].is_null(), "{kernel}");
            assert_eq!(kernel["cgroup_fault"].as_str().unwrap_or_default(), why);
            assert!(refused(&shop, four), "{four} with --cgroup {without}");
        }
        let mut daemon = start(&shop, &cgroup);
        assert!(reaches(&shop, four));
        // A link is dead if its cgroup is removed under it; the next daemon makes a new one.
        let inner = format!("{}/inner", cgroup.path());
        shop.host.sh(&format!("mkdir {inner}"));
        daemon.kill();
        let mut elsewhere = shop.host.porind_with(&["--cgroup", &inner]);
        assert_eq!(elsewhere.status()["kernel"]["cgroup"].as_str(), Some(inner.as_str()));
        assert!(refused(&shop, four), "nobody is in that cgroup");
        elsewhere.kill();
        shop.host.sh(&format!("rmdir {inner}"));
        daemon = start(&shop, &cgroup);
        assert!(reaches(&shop, four));
        daemon.stop();
        let report = shop.host.porind_once(&["--teardown"]).success();
        assert!(report.contains("removed interface"), "{report}");
        assert!(refused(&shop, four) && refused(&shop, six));
    });
}

#[test]
fn policy_judges_the_host_and_a_commit_moves_the_port() {
    World::run(|world| {
        let shop = Shop::open(world);
        let cgroup = Cgroup::enter(&shop.host);
        publish(&shop, "front", FRONT, &["8088:80/tcp", "8088:80/udp"]);
        // api is for front alone.
        publish(&shop, "api", API, &["8089:8080/tcp"]);
        let daemon = start(&shop, &cgroup);
        for to in localhost(8088) {
            assert!(reaches(&shop, to), "{to}");
        }
        for to in localhost(8089).into_iter().chain(at(API, 8080)) {
            assert!(!traffic::tcp(shop.host.place(), to, DROPPED), "{to}");
        }
        let policy = |from: &str| {
            format!(
                "[[policy]]\nname = \"front\"\nsubject = \"app=front\"\n\n[[policy.ingress]]\nfrom = [\"{from}\"]\nports = [\"80/tcp\"]\n"
            )
        };
        let edit = |from| daemon.commit(|| shop.host.write("policies.d/front.toml", &policy(from)));
        let streams = localhost(8088).map(|to| Stream::start(shop.host.place(), to));
        edit("entity:host");
        streams.iter().for_each(Stream::must_go_on);
        edit("entity:world");
        for (to, stream) in localhost(8088).into_iter().zip(&streams) {
            assert!(stream.stands_still(), "{to}");
            assert!(!traffic::tcp(shop.host.place(), to, DROPPED), "{to}");
        }
        daemon.commit(|| shop.host.remove("policies.d/front.toml"));
        streams.iter().for_each(Stream::must_go_on);

        // From one endpoint to another: who connects now is the other's, and who is connected stays.
        let sees = |to: SocketAddr| {
            let stream = traffic::connect(shop.host.place(), to, ARRIVES);
            local_of(&stream.unwrap_or_else(|e| panic!("{to}: {e}")))
        };
        let before = localhost(8088).map(sees);
        let datagrams = localhost(8088).map(|to| {
            let socket = shop.host.enter(|| UdpSocket::bind((any_of(to), 0))).expect("a socket");
            (socket, to)
        });
        let ask = |socket: &UdpSocket, to: SocketAddr| {
            socket.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
            lab::eventually(ARRIVES, "an echo", || {
                socket.send_to(b"porin", to).is_ok()
                    && socket.recv_from(&mut [0; 16]).is_ok_and(|(_, from)| from == to)
            });
        };
        datagrams.iter().for_each(|(socket, to)| ask(socket, *to));
        daemon.commit(|| {
            publish(&shop, "front", FRONT, &[]);
            let intruder =
                config::endpoint("intruder", "app = \"front\", env = \"dev\"", lab::shop::INTRUDER);
            let ports = "publish = [\"8088:80/tcp\", \"8088:80/udp\"]\n";
            let text = format!("{}\n{ports}", intruder.trim_end());
            shop.host.write("endpoints.d/intruder.toml", &text);
        });
        assert_eq!(localhost(8088).map(sees), before, "it is sent from the same address");
        datagrams.iter().for_each(|(socket, to)| ask(socket, *to));
        streams.iter().for_each(Stream::must_go_on);
        // Only the new one is open to the host now.
        let shut = "[[policy]]\nname = \"front\"\nsubject = \"app=front,env=prod\"\ningress = []\n";
        daemon.commit(|| shop.host.write("policies.d/front.toml", shut));
        for (to, stream) in localhost(8088).into_iter().zip(&streams) {
            assert!(reaches(&shop, to), "{to} of the new one");
            assert!(stream.stands_still(), "{to} of the old one");
        }
        datagrams.iter().for_each(|(socket, to)| ask(socket, *to));
    });
}

fn local_of(stream: &TcpStream) -> IpAddr {
    stream.local_addr().expect("an address").ip()
}
