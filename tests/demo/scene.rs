//! The hosts, the containers and what runs in them: nginx, redis, curl.

use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lab::traffic::{self, ARRIVES};
use crate::lab::{Container, Host, Place, Process, World, eventually};

pub const WORLD6: &str = "2001:db8:5::80";
pub const WORLD4: &str = "203.0.113.80";
/// Another port of the API.
pub const PUBLIC: u16 = 8081;
const POOL6: &str = "fd00:5:0:1::/64";

/// The operator's files, as they lie in the repository.
const FILES: &[(&str, &str)] = &[
    ("porin.toml", include_str!("etc/porin.toml")),
    ("endpoints.d/shop.toml", include_str!("etc/endpoints.d/shop.toml")),
    ("endpoints.d/dev.toml", include_str!("etc/endpoints.d/dev.toml")),
    ("policies.d/shop.toml", include_str!("etc/policies.d/shop.toml")),
];

pub struct Scene {
    pub host: Host,
    pub world: Host,
    pub frontend: Container,
    pub api: Container,
    pub db: Container,
    pub intruder: Container,
    _servers: Vec<Process>,
}

impl Scene {
    pub fn open(world: &World) -> Scene {
        let (host, outside) = (world.host("host"), world.host("world"));
        host.link_to(
            &outside,
            "up0 2001:db8:1::1/64 192.0.2.1/24",
            "down0 2001:db8:1::2/64 192.0.2.2/24",
        );
        host.sh("ip -6 route add default via 2001:db8:1::2; ip route add default via 192.0.2.2");
        outside.sh(&format!(
            "ip addr add {WORLD6}/128 dev lo; ip addr add {WORLD4}/32 dev lo
             ip -6 route add {POOL6} via 2001:db8:1::1"
        ));
        for (file, text) in FILES {
            host.write(file, text);
        }
        let [frontend, api, db, intruder] =
            ["frontend", "api", "db", "intruder"].map(|name| host.container(name));
        let servers = vec![
            nginx(frontend.place(), 80, "the shop"),
            nginx(api.place(), 8080, "the api"),
            nginx(api.place(), PUBLIC, "the api, to all"),
            redis(db.place()),
            nginx(intruder.place(), 80, "the intruder"),
            nginx(outside.place(), 80, "the world"),
            nginx(host.place(), 80, "the host"),
        ];
        Scene { host, world: outside, frontend, api, db, intruder, _servers: servers }
    }

    pub fn containers(&self) -> [&Container; 4] {
        [&self.frontend, &self.api, &self.db, &self.intruder]
    }

    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.host.etc().join(file)).expect("file of the scene")
    }

    pub fn api_address(&self) -> SocketAddr {
        SocketAddr::from((self.api.addresses().0.expect("the api's IPv6 address"), 8080))
    }

    /// curl in the frontend, fetching a file that has no end from the API.
    pub fn download(&self) -> Download {
        let url = format!("http://{}/large", self.api_address());
        let argv = ["curl", "-sg", "--limit-rate", "8M", &url];
        let mut command = self.frontend.place().command(&argv);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = self.frontend.place().spawn(command);
        let mut output = process.take_stdout().expect("piped");
        let bytes = Arc::new(AtomicU64::new(0));
        let counts = bytes.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                counts.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
        Download { bytes, _process: process }
    }

    /// Processes to enter the places by.
    pub fn holders(&self) -> Vec<(String, Process)> {
        let places = [self.host.place(), self.world.place()].into_iter();
        let places = places.chain(self.containers().map(Container::place));
        let hold = |place: &Place| {
            let process = place.spawn(place.command(&["sleep", "infinity"]));
            (place.name().to_owned(), process)
        };
        places.map(hold).collect()
    }
}

pub struct Download {
    bytes: Arc<AtomicU64>,
    _process: Process,
}

impl Download {
    /// Whether more arrives.
    pub fn goes_on(&self) -> bool {
        let before = self.bytes.load(Ordering::Relaxed);
        let grown = || self.bytes.load(Ordering::Relaxed) > before + (1 << 20);
        crate::lab::eventually::some(ARRIVES, || grown().then_some(())).is_some()
    }
}

fn nginx(place: &Place, port: u16, text: &str) -> Process {
    let root = format!("/run/demo/{}-{port}", place.name());
    let configuration = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
         events {{ }}
         http {{
           access_log off;
           client_body_temp_path {root}/t; proxy_temp_path {root}/t; fastcgi_temp_path {root}/t;
           uwsgi_temp_path {root}/t; scgi_temp_path {root}/t;
           server {{
             listen {port}; listen [::]:{port};
             root {root}/www;
           }}
         }}"
    );
    place.sh(&format!(
        "mkdir -p {root}/www; cat >{root}/nginx.conf <<'END'\n{configuration}\nEND\n\
         echo '{text}' >{root}/www/index.html; truncate -s 64G {root}/www/large"
    ));
    let argv = ["nginx", "-p", &root, "-e", "error.log", "-c", "nginx.conf"];
    serve(place, &argv, port)
}

fn redis(place: &Place) -> Process {
    let argv = [
        "redis-server",
        "--port",
        "6379",
        "--bind",
        "0.0.0.0",
        "::",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--daemonize",
        "no",
        "--dir",
        "/run",
        "--logfile",
        "/run/redis.log",
    ];
    serve(place, &argv, 6379)
}

/// Starts a server and waits until it listens, which the loopback tells.
fn serve(place: &Place, argv: &[&str], port: u16) -> Process {
    let mut command = place.command(argv);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = place.spawn(command);
    let own = SocketAddr::from(([127, 0, 0, 1], port));
    eventually(ARRIVES, &format!("{} in {} listens", argv[0], place.name()), || {
        assert!(process.is_running(), "{} in {} ended", argv[0], place.name());
        traffic::tcp_open(place, own, ARRIVES)
    });
    process
}
