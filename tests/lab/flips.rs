//! Thousands of commits between two policies under load, where a marked packet passes only if its
//! two ends are judged by different policies.
//!
//! By day the client may send to port 1000 and the server accepts port 2000; by night it is the
//! other way round. So neither lets anything through to either port; a mixture would. Port 3000 is
//! allowed by both, and must never lose a packet.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::generation::GenerationWatch;
use super::host::Container;
use super::traffic::{self, ARRIVES, Server, Stream};
use super::{World, config, daemon};

const MARKED: [u16; 2] = [1000, 2000];
const ALWAYS: u16 = 3000;

#[derive(Debug, Default)]
pub struct Flips {
    pub commits: u64,
    /// Marked packets sent, and those that arrived.
    pub marked: u64,
    pub mixed: u64,
    /// Requests of the always allowed flow, and those without an answer.
    pub requests: u64,
    pub lost: u64,
    pub elapsed: Duration,
}

pub fn run(world: &World, count: u64) -> Flips {
    let host = world.host("flips");
    let toml = config::host(&[]) + "\n[reload]\nquiet = \"1ms\"\nat-most = \"10ms\"\n";
    host.write("porin.toml", &toml);
    let client = config::add(&host, "client", "app = \"client\"", 1);
    let server = config::add(&host, "server", "app = \"server\"", 2);
    host.write("policies.d/flip.toml", &policies(MARKED[0], MARKED[1]));
    let _daemon = host.porind();
    let _echo = Server::echo(server.place(), ALWAYS);
    let watch = GenerationWatch::open(&host);
    let stream = Stream::start(client.place(), to(6, ALWAYS));

    let stop = Arc::new(AtomicBool::new(false));
    let mixed = listen(&server, &stop);
    let load = std::thread::spawn({
        let (client, stop) = (client.clone(), stop.clone());
        move || load(&client, &stop)
    });
    let begin = Instant::now();
    let mut generation = watch.now();
    for flip in 0..count {
        let (first, second) =
            if flip % 2 == 0 { (MARKED[1], MARKED[0]) } else { (MARKED[0], MARKED[1]) };
        host.write("policies.d/flip.toml", &policies(first, second));
        generation = watch.after(generation, daemon::READY);
    }
    let elapsed = begin.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (marked, requests, lost) = load.join().expect("load");
    let stream_lost = u64::from(stream.finish().is_err());
    let mixed = mixed.load(Ordering::Relaxed);
    Flips { commits: count, marked, mixed, requests, lost: lost + stream_lost, elapsed }
}

fn policies(egress: u16, ingress: u16) -> String {
    format!(
        "[[policy]]\nname = \"out\"\nsubject = \"app=client\"\n[[policy.egress]]\nto = [\"app=server\"]\n\
         ports = [\"{egress}/udp\", \"{ALWAYS}/udp\", \"{ALWAYS}/tcp\"]\n\n\
         [[policy]]\nname = \"in\"\nsubject = \"app=server\"\n[[policy.ingress]]\nfrom = [\"app=client\"]\n\
         ports = [\"{ingress}/udp\", \"{ALWAYS}/udp\", \"{ALWAYS}/tcp\"]\n"
    )
}

fn to(family: u8, port: u16) -> SocketAddr {
    let address = if family == 6 { config::ipv6(2) } else { config::ipv4(2) };
    SocketAddr::new(address.parse().expect("address"), port)
}

/// Counts what arrives at the marked ports.
fn listen(server: &Container, stop: &Arc<AtomicBool>) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    for port in MARKED {
        let bind = || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port));
        let socket = server.place().enter(bind).expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
        let (count, stop) = (count.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if socket.recv(&mut [0; 16]).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    count
}

/// Marked packets of both families all the time, at the pace of an always allowed request.
fn load(client: &Container, stop: &AtomicBool) -> (u64, u64, u64) {
    let open = |family, port| traffic::udp_socket(client.place(), to(family, port));
    let marked: Vec<UdpSocket> =
        [6, 4].into_iter().flat_map(|family| MARKED.map(|port| open(family, port))).collect();
    let always = [open(6, ALWAYS), open(4, ALWAYS)];
    let (mut sent, mut requests, mut lost) = (0, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        for socket in &marked {
            sent += u64::from(socket.send(b"marked").is_ok());
        }
        for socket in &always {
            requests += 1;
            lost += u64::from(traffic::udp_once(socket, 32, ARRIVES).is_err());
        }
    }
    (sent, requests, lost)
}
