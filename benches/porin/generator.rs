//! The traffic that is measured: one client thread and one server thread in two places.
//!
//! Servers and connections are made once and used for many short samples, so that samples of
//! several lanes can be taken in turn and nothing's start-up counts. Knows nothing of porin.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::lab::Place;

const SINK: u16 = 9001;
const ECHO: u16 = 9002;
const SHORT: u16 = 9003;
/// All of them: what a policy must allow.
pub const PORTS: std::ops::RangeInclusive<u16> = SINK..=SHORT;

/// A path from a client to a server that is measured.
pub struct Lane {
    pub name: &'static str,
    client: Place,
    to: SocketAddr,
    sunk: Arc<AtomicU64>,
    stream: TcpStream,
    echo: TcpStream,
    servers: [Pid; 3],
}

/// Where the two threads run: one CPU for both shows what a request costs, without the time that
/// it takes to wake another CPU, which varies much more; two let both ends of a stream work at once.
#[derive(Clone, Copy)]
pub enum Pinned {
    Together(usize),
    Apart(usize),
}

/// What one client did for a while.
pub struct RoundTrips {
    pub per_second: f64,
    pub p99_us: f64,
    /// CPU time of both threads per request, in microseconds.
    pub cpu_us: f64,
}

impl Lane {
    pub fn open(name: &'static str, client: &Place, server: &Place, address: &str) -> Lane {
        let ip: std::net::IpAddr = address.parse().expect("address");
        let sunk = Arc::new(AtomicU64::new(0));
        let (counts, place) = (sunk.clone(), server.clone());
        let sink_server = serve(&place, ip, SINK, move |stream| sink(stream, &counts));
        let echo_server = serve(&place, ip, ECHO, echo);
        let short_server = serve(&place, ip, SHORT, short);
        let wait = Duration::from_secs(20);
        let open = |port| {
            let to = SocketAddr::from((ip, port));
            client
                .enter(|| TcpStream::connect_timeout(&to, wait))
                .unwrap_or_else(|error| panic!("lane {name}: connect to {to}: {error}"))
        };
        let (stream, echo) = (open(SINK), open(ECHO));
        echo.set_nodelay(true).expect("nodelay");
        let to = SocketAddr::from((ip, SHORT));
        let servers = [sink_server, echo_server, short_server];
        Lane { name, client: client.clone(), to, sunk, stream, echo, servers }
    }

    /// Puts the calling thread, which is the client, and the servers where they are to be.
    pub fn pin(&self, pinned: Pinned) {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let (client, server) = match pinned {
            Pinned::Together(cpu) => (cpu % count, cpu % count),
            Pinned::Apart(cpu) => (cpu % count, (cpu + 1) % count),
        };
        pin_thread(None, client);
        self.servers.iter().for_each(|tid| pin_thread(Some(*tid), server));
    }

    /// Bits per second that arrived, in Gbit/s.
    pub fn stream(&mut self, duration: Duration) -> f64 {
        let chunk = vec![0u8; 128 << 10];
        let (begin, before) = (Instant::now(), self.sunk.load(Ordering::Relaxed));
        let mut sent = 0;
        while begin.elapsed() < duration {
            self.stream.write_all(&chunk).expect("stream");
            sent += chunk.len() as u64;
        }
        while self.sunk.load(Ordering::Relaxed) < before + sent {
            std::thread::yield_now();
        }
        sent as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e9
    }

    /// One byte there, one byte back, over one connection.
    pub fn round_trips(&mut self, duration: Duration) -> RoundTrips {
        let mut latencies = Vec::with_capacity(1 << 14);
        let echo_server = self.servers[1];
        let cpu = || cpu_time(rustix::thread::gettid()) + cpu_time(echo_server);
        let (before, begin) = (cpu(), Instant::now());
        let mut last = begin;
        let mut byte = [0];
        while last - begin < duration {
            self.echo.write_all(&[1]).and_then(|()| self.echo.read_exact(&mut byte)).expect("rr");
            let now = Instant::now();
            latencies.push((now - last).as_nanos() as u64);
            last = now;
        }
        let (elapsed, cpu) = (last - begin, cpu() - before);
        let count = latencies.len();
        latencies.sort_unstable();
        RoundTrips {
            per_second: count as f64 / elapsed.as_secs_f64(),
            p99_us: latencies[count * 99 / 100] as f64 / 1e3,
            cpu_us: cpu as f64 / count as f64 / 1e3,
        }
    }

    /// Connections per second: connect, one byte there, one byte back, close.
    pub fn connections(&mut self, duration: Duration) -> f64 {
        let to = self.to;
        self.client.enter(|| {
            let begin = Instant::now();
            let mut count = 0;
            while begin.elapsed() < duration {
                let mut stream = TcpStream::connect(to).expect("crr: connect");
                stream.write_all(&[1]).and_then(|()| stream.read_exact(&mut [0])).expect("crr");
                count += 1;
            }
            f64::from(count) / begin.elapsed().as_secs_f64()
        })
    }
}

/// Accepts on one thread, which is returned; each connection is served before the next is taken.
fn serve(
    place: &Place,
    ip: std::net::IpAddr,
    port: u16,
    mut handle: impl FnMut(TcpStream) + Send + 'static,
) -> Pid {
    let listener = place
        .enter(|| TcpListener::bind((ip, port)))
        .unwrap_or_else(|error| panic!("{}: listen on {ip}:{port}: {error}", place.name()));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = tell.send(rustix::thread::gettid());
        while let Ok((stream, _)) = listener.accept() {
            handle(stream);
        }
    });
    told.recv().expect("the server's thread")
}

fn sink(mut stream: TcpStream, counts: &AtomicU64) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        counts.fetch_add(n as u64, Ordering::Relaxed);
    }
}

fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut byte = [0];
    while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
}

fn short(mut stream: TcpStream) {
    let mut byte = [0];
    let _: io::Result<()> = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
}

fn pin_thread(tid: Option<Pid>, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(tid, &set).expect("affinity");
}

/// Nanoseconds on a CPU so far. What soft interrupts do in the thread's time is in it.
fn cpu_time(tid: Pid) -> u64 {
    let path = format!("/proc/self/task/{}/schedstat", tid.as_raw_nonzero());
    let text = std::fs::read_to_string(path).expect("schedstat");
    text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}
