//! Traffic from and to places, made in-process: sockets are opened by a thread that is there for
//! just that, and then used from anywhere.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::place::Place;

/// How long a packet that should arrive may take, on a machine that has other things to do.
pub const ARRIVES: Duration = Duration::from_secs(10);
/// How long to wait before a packet that should be dropped counts as dropped.
pub const DROPPED: Duration = Duration::from_millis(400);

/// Echoes whatever comes by TCP, and by UDP, to one port, both families. Dropped: gone.
pub struct Server {
    stop: Arc<AtomicBool>,
    tcp: TcpListener,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub fn echo(place: &Place, port: u16) -> Server {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let (tcp, udp) = place.enter(|| (TcpListener::bind(any), UdpSocket::bind(any)));
        let tcp = tcp.unwrap_or_else(|e| panic!("{}: listen on {any}: {e}", place.name()));
        let udp = udp.unwrap_or_else(|e| panic!("{}: bind {any}: {e}", place.name()));
        let stop = Arc::new(AtomicBool::new(false));
        let accepting = tcp.try_clone().expect("clone");
        let ends = stop.clone();
        let threads = vec![
            std::thread::spawn(move || accept(&accepting)),
            std::thread::spawn(move || echo_datagrams(&udp, &ends)),
        ];
        Server { stop, tcp, threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes `accept`.
        let _ = rustix::net::shutdown(&self.tcp, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        std::thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
        });
    }
}

fn echo_datagrams(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..n], from);
        }
    }
}

/// Opens a connection from `place`.
pub fn connect(place: &Place, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = place.enter(|| TcpStream::connect_timeout(&to, timeout))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

/// Sends `message` and expects it back.
pub fn ask(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(message)?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer)?;
    if answer == message { Ok(()) } else { Err(io::Error::other("not what was sent")) }
}

/// A connection, one question, one answer.
pub fn tcp(place: &Place, to: SocketAddr, timeout: Duration) -> bool {
    connect(place, to, timeout).and_then(|mut stream| ask(&mut stream, b"porin")).is_ok()
}

/// Just the handshake.
pub fn tcp_open(place: &Place, to: SocketAddr, timeout: Duration) -> bool {
    connect(place, to, timeout).is_ok()
}

/// A socket in `place` for datagrams to `to`.
pub fn udp_socket(place: &Place, to: SocketAddr) -> UdpSocket {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let open = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        Ok::<_, io::Error>(socket)
    };
    place.enter(open).unwrap_or_else(|e| panic!("{}: udp to {to}: {e}", place.name()))
}

/// One datagram of `size` bytes, echoed; sent once.
pub fn udp_once(socket: &UdpSocket, size: usize, timeout: Duration) -> io::Result<()> {
    let message: Vec<u8> = (0..size).map(|i| i as u8).collect();
    socket.set_read_timeout(Some(timeout))?;
    socket.send(&message)?;
    let mut answer = vec![0; 64 << 10];
    let n = socket.recv(&mut answer)?;
    if answer[..n] == message { Ok(()) } else { Err(io::Error::other("not what was sent")) }
}

/// The same, sent until answered: also where the first ones only find the path's MTU.
pub fn udp(place: &Place, to: SocketAddr, size: usize, timeout: Duration) -> bool {
    let end = Instant::now() + timeout;
    let socket = udp_socket(place, to);
    while Instant::now() < end {
        if udp_once(&socket, size, Duration::from_millis(200)).is_ok() {
            return true;
        }
    }
    false
}

/// Sends `megabytes` through an echo server and takes them back.
pub fn bulk(place: &Place, to: SocketAddr, megabytes: usize) -> io::Result<()> {
    let stream = connect(place, to, ARRIVES)?;
    let mut reading = stream.try_clone()?;
    let total = megabytes << 20;
    let sender = std::thread::spawn(move || {
        let mut stream = stream;
        let chunk = vec![7; 64 << 10];
        (0..total / chunk.len()).try_for_each(|_| stream.write_all(&chunk))
    });
    let mut buffer = vec![0; 64 << 10];
    let mut got = 0;
    while got < total {
        match reading.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => got += n,
        }
    }
    sender.join().expect("sender")
}

/// A connection that asks and is answered all the time until it is stopped or breaks.
pub struct Stream {
    stop: Arc<AtomicBool>,
    answers: Arc<std::sync::atomic::AtomicU64>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Stream {
    pub fn start(place: &Place, to: SocketAddr) -> Stream {
        let mut connection = connect(place, to, ARRIVES)
            .unwrap_or_else(|e| panic!("{}: connect to {to}: {e}", place.name()));
        // Longer than any pause that a lost packet can make.
        connection.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let (ends, counts) = (stop.clone(), answers.clone());
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                ask(&mut connection, &[b'x'; 512])?;
                counts.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Stream { stop, answers, thread: Some(thread) }
    }

    /// How many answers came so far.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Panics unless answers keep coming.
    #[track_caller]
    pub fn must_go_on(&self) {
        let before = self.answers();
        super::eventually(ARRIVES, "the connection goes on", || self.answers() > before + 3);
    }

    /// Whether no answer came in as long as a dropped packet needs to be noticed.
    pub fn stands_still(&self) -> bool {
        let end = Instant::now() + ARRIVES;
        let mut before = self.answers();
        while Instant::now() < end {
            std::thread::park_timeout(DROPPED);
            let now = self.answers();
            if now == before {
                return true;
            }
            before = now;
        }
        false
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("thread").join().expect("stream")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
