//! A place for the real process: a table of flows that the test writes to in the datapath's stead, and a server that has
//! the very address which clients connect to, elsewhere.
//!
//! Clients and the worker's listening socket are here, where that address is local. What bears the worker's mark is
//! routed to the server's namespace, so that the worker's connections get there as they do from a host.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use porin::kernel::datapath::{MapLimits, Maps, abi};
use porin::kernel::flows::key4;
use porin::kernel::sweep;
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::lab::{Place, World};
use crate::support::PATIENCE;

const CLIENT: &str = "192.0.2.1";
pub const SERVER: &str = "192.0.2.10:8080";

pub struct Scene {
    pub maps: Arc<Maps>,
    pub listener: TcpListener,
    /// Whose connections the server has had.
    pub seen: Arc<Mutex<Vec<SocketAddr>>>,
    next: Cell<u16>,
    pub host: Place,
    pub server: Place,
}

pub fn run(story: impl FnOnce(&Scene) + Send) {
    World::run(|_| story(&scene()));
}

fn scene() -> Scene {
    let here = Place::here("host");
    let there = here.nest("server", Path::new("/run/netns/server"));
    let mark = abi::MARK_WORKER;
    here.sh(&format!(
        "ip link add v0 type veth peer name v1 netns server
         ip addr add {CLIENT}/32 dev lo
         ip addr add 192.0.2.10/32 dev lo
         ip link set dev v0 up
         ip rule add pref 10 fwmark {mark:#x} lookup 100
         ip rule add pref 20 lookup local
         ip rule del pref 0
         ip route add 192.0.2.10 dev v0 table 100"
    ));
    here.sysctl("net/ipv4/conf/v0/accept_local", "1");
    here.sysctl("net/ipv4/conf/v0/rp_filter", "0");
    here.sysctl("net/ipv4/conf/all/rp_filter", "0");
    there.sh(&format!(
        "ip addr add 192.0.2.10/32 dev v1
         ip link set dev lo up
         ip link set dev v1 up
         ip route add {CLIENT} dev v1"
    ));
    let seen: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
    serve(&there, SERVER.parse().unwrap(), Arc::clone(&seen));
    let limits = MapLimits { flows: 1024, nat: 16, fragments: 16, hits: 16 };
    let maps = Maps::create(&limits).expect("maps");
    maps.commit(1);
    let next = Cell::new(40_000);
    Scene { maps: Arc::new(maps), listener: listener(), seen, next, host: here, server: there }
}

/// As the daemon makes it, but where clients find it without the datapath.
fn listener() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_mark(abi::MARK_WORKER).unwrap();
    socket.bind(&SERVER.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(64).unwrap();
    socket.into()
}

/// Answers every request on every connection, until the test is over.
pub fn serve(place: &Place, address: SocketAddr, seen: Arc<Mutex<Vec<SocketAddr>>>) {
    let listener = place.enter(|| TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            seen.lock().unwrap().push(stream.peer_addr().unwrap());
            std::thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) {
    use std::io::{Read, Write};
    let (mut text, mut byte) = (Vec::new(), [0]);
    while let Ok(1) = stream.read(&mut byte) {
        text.push(byte[0]);
        if text.ends_with(b"\r\n\r\n") {
            text.clear();
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}

/// A client's end, which may not be connected yet.
pub struct Client {
    socket: Socket,
    pub address: SocketAddr,
    /// Where it wants to go.
    pub server: SocketAddr,
}

impl Scene {
    /// A client's socket with an address of its own.
    pub fn client(&self) -> Client {
        self.client_of(SERVER.parse().unwrap())
    }

    pub fn client_of(&self, server: SocketAddr) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let address = SocketAddr::new(CLIENT.parse::<IpAddr>().unwrap(), self.next.get());
        self.next.set(address.port() + 1);
        socket.bind(&address.into()).unwrap();
        Client { socket, address, server }
    }

    /// What the datapath would have judged the client's flow to in this generation: to these rulesets.
    pub fn judge(&self, client: &Client, generation: u32, egress: u16, ingress: u16) {
        self.put(client, generation, abi::VERDICT_ALLOW, abi::FLOW_PROXIED, [ingress, egress]);
    }

    pub fn put(
        &self,
        client: &Client,
        generation: u32,
        verdict: u8,
        flags: u32,
        ruleset: [u16; 2],
    ) {
        let judged = u64::from(generation) << 32 | u64::from(verdict);
        let last_seen = sweep::now().as_nanos() as u64;
        let flow = abi::Flow { judged, flags, ruleset, last_seen, ..Default::default() };
        self.set(client, &flow);
    }

    pub fn set(&self, client: &Client, flow: &abi::Flow) {
        let key = key4(client.address, client.server).unwrap();
        self.maps.set_flow4(&key, flow).unwrap();
    }

    /// What a worker is given to listen: tables, and the socket.
    pub fn tables(&self) -> Vec<OwnedFd> {
        let mut descriptors: Vec<OwnedFd> = self.maps.for_readers().unwrap().into();
        descriptors.push(self.listener.as_fd().try_clone_to_owned().unwrap());
        descriptors
    }
}

impl Client {
    pub fn connect(&self) -> TcpStream {
        self.socket.connect_timeout(&self.server.into(), PATIENCE).unwrap();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        TcpStream::from(self.socket.try_clone().unwrap())
    }
}

/// Whether a table that may only be read cannot be written to.
pub fn is_read_only(map: &OwnedFd) -> bool {
    let key = abi::Flow4Key::default();
    let tried = porin::kernel::sys::map_update(map.as_fd(), &key, &abi::Flow::default());
    tried.is_err_and(|error| error.raw_os_error() == Some(Errno::PERM.raw_os_error()))
}
