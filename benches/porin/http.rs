//! HTTP from one container to another: without porin, with porin without and with rules about requests, and through
//! plain reverse proxies with the same rule. Real clients (wrk, h2load) and a real server (nginx).

use std::process::Stdio;
use std::time::Duration;

use crate::lab::{Daemon, Host, Place, Process, World, config, eventually, traffic};
use crate::report::Figure;
use crate::stats::Series;

/// Each sample takes so long.
const SECONDS: &str = "1";
const SERVER: u16 = 8080;
/// HTTP/2 without TLS.
const SERVER2: u16 = 8081;
const PROXY: u16 = 8090;
const PROXY2: u16 = 8091;
const ADDRESS: &str = "192.0.2.10";
/// Envoy's own release binary, if there is one.
const ENVOY: &str = "envoy";

/// What is asked for, by how many connections at a time.
struct Load {
    name: &'static str,
    path: &'static str,
    connections: usize,
    /// Requests at a time in each connection; none: HTTP/1.1.
    streams: Option<usize>,
}

const LOADS: [Load; 5] = [
    Load { name: "small.1", path: "/small", connections: 1, streams: None },
    Load { name: "small.64", path: "/small", connections: 64, streams: None },
    Load { name: "large.1", path: "/large", connections: 1, streams: None },
    Load { name: "large.64", path: "/large", connections: 64, streams: None },
    Load { name: "h2.64", path: "/small", connections: 8, streams: Some(8) },
];

/// Somebody who asks, and somebody who answers.
struct Lane {
    name: &'static str,
    client: Place,
    /// `ADDRESS:PORT` of HTTP/1.1, and of HTTP/2; none: it does not speak it to servers.
    to: [Option<String>; 2],
    _running: Vec<Process>,
    _daemon: Option<Daemon>,
}

struct Sample {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

pub fn run(rounds: usize) -> Vec<Figure> {
    // A round takes half a minute.
    let rounds = rounds.div_ceil(4);
    World::run(|world| {
        let mut lanes = vec![
            bare(world),
            porin(world, "plain", ""),
            porin(world, "rules", "http = [{ method = \"GET\", path = \"/*\" }]"),
            proxy(world, "haproxy", haproxy),
            proxy(world, "nginx", nginx_proxy),
        ];
        if std::process::Command::new(ENVOY).arg("--version").stdout(Stdio::null()).status().is_ok()
        {
            lanes.push(proxy(world, "envoy", envoy));
        } else {
            eprintln!("there is no envoy here: nothing is compared with it");
        }
        LOADS.iter().flat_map(|load| figures(load, &lanes, rounds)).collect()
    })
}

fn figures(load: &Load, lanes: &[Lane], rounds: usize) -> Vec<Figure> {
    let version = usize::from(load.streams.is_some());
    let lanes: Vec<&Lane> = lanes.iter().filter(|lane| lane.to[version].is_some()).collect();
    let mut taken: Vec<Vec<Sample>> = lanes.iter().map(|_| Vec::new()).collect();
    // The first round warms up and does not count.
    for round in 0..=rounds {
        for n in (0..lanes.len()).map(|n| (n + round) % lanes.len()) {
            let sample = lanes[n].sample(load);
            if round > 0 {
                taken[n].push(sample);
            }
        }
    }
    let by = |name: &str| lanes.iter().position(|lane| lane.name == name).map(|at| &taken[at]);
    let of = |name: &str, what: fn(&Sample) -> f64| -> Option<Vec<f64>> {
        Some(by(name)?.iter().map(what).collect())
    };
    let mut figures = Vec::new();
    let rules = of("rules", |s| s.per_second).unwrap_or_default();
    for (other, name) in [
        ("plain", "ratio"),
        ("bare", "vs-bare"),
        ("haproxy", "vs-haproxy"),
        ("nginx", "vs-nginx"),
        ("envoy", "vs-envoy"),
    ] {
        if let Some(theirs) = of(other, |s| s.per_second) {
            figures.push(Figure::ratio(&format!("http.{}.{name}", load.name), &rules, &theirs));
        }
    }
    for (what, p) in [("p50", (|s| s.p50_us) as fn(&Sample) -> f64), ("p99", |s| s.p99_us)] {
        let (Some(ours), Some(plain)) = (of("rules", p), of("plain", p)) else { continue };
        let name = format!("http.{}.{what}.us", load.name);
        let baseline = Series::new(plain).median();
        figures.push(Figure::median(&name, &Series::new(ours), "us").baseline(baseline));
    }
    figures
}

impl Lane {
    fn sample(&self, load: &Load) -> Sample {
        let connections = load.connections.to_string();
        let output = match (load.streams, &self.to) {
            (None, [Some(to), _]) => {
                let url = format!("http://{to}{}", load.path);
                let argv = [
                    "wrk",
                    "-t1",
                    "-c",
                    &connections,
                    "-d",
                    SECONDS,
                    "--latency",
                    "--timeout",
                    "10",
                    &url,
                ];
                self.client.run(&argv).success()
            }
            (Some(streams), [_, Some(to)]) => {
                let (url, streams) = (format!("http://{to}{}", load.path), streams.to_string());
                let argv =
                    ["h2load", "-t1", "-c", &connections, "-m", &streams, "-D", SECONDS, &url];
                self.client.run(&argv).success()
            }
            _ => unreachable!("lanes are asked for what they speak"),
        };
        let sample = if load.streams.is_some() { h2load(&output) } else { wrk(&output) };
        sample.unwrap_or_else(|| panic!("{} {}: {output}", self.name, load.name))
    }
}

/// None: nothing was answered, or something that is no success.
fn wrk(output: &str) -> Option<Sample> {
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        return None;
    }
    let value = |name: &str| {
        let line = output.lines().find_map(|line| line.trim().strip_prefix(name))?;
        line.split_whitespace().next().map(str::to_owned)
    };
    Some(Sample {
        per_second: value("Requests/sec:")?.parse().ok()?,
        p50_us: micros(&value("50%")?)?,
        p99_us: micros(&value("99%")?)?,
    })
}

/// It tells no percentiles: the mean, and the maximum.
fn h2load(output: &str) -> Option<Sample> {
    let line = output.lines().find(|line| line.starts_with("finished in"))?;
    let per_second = line.split(',').nth(1)?.trim().strip_suffix(" req/s")?.parse().ok()?;
    let codes = output.lines().find(|line| line.starts_with("status codes"))?;
    if !codes.contains(" 0 3xx, 0 4xx, 0 5xx") {
        return None;
    }
    let times = output.lines().find_map(|line| line.strip_prefix("time for request:"))?;
    let times: Vec<&str> = times.split_whitespace().collect();
    Some(Sample { per_second, p50_us: micros(times.get(2)?)?, p99_us: micros(times.get(1)?)? })
}

fn micros(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6)] {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse::<f64>().ok().map(|number| number * factor);
        }
    }
    None
}

fn bare(world: &World) -> Lane {
    let (client, server) = (world.host("bare-client"), world.host("bare-server"));
    client.link_to(&server, "eth0 192.0.2.1/24", &format!("eth0 {ADDRESS}/24"));
    let running = vec![nginx_server(server.place())];
    lane(
        "bare",
        client.place(),
        [format!("{ADDRESS}:{SERVER}"), format!("{ADDRESS}:{SERVER2}")],
        running,
    )
}

fn porin(world: &World, name: &'static str, rule: &str) -> Lane {
    let host = world.host(name);
    host.write("porin.toml", &config::host(&[]));
    let client = config::add(&host, "client", "app = \"client\"", 1);
    let server = config::add(&host, "server", "app = \"server\"", 2);
    let policy = format!(
        "[[policy]]\nname = \"server\"\nsubject = \"app=server\"\n\n[[policy.ingress]]\nfrom = \"app=client\"\n\
         ports = [\"{SERVER}/tcp\", \"{SERVER2}/tcp\"]\n{rule}\n"
    );
    host.write("policies.d/server.toml", &policy);
    let daemon = host.porind();
    let up = || [&client, &server].iter().all(|one| one.addresses().1.is_some());
    eventually(traffic::ARRIVES, "endpoints have addresses", up);
    let running = vec![nginx_server(server.place())];
    let to = config::ipv4(2);
    let mut lane =
        lane(name, client.place(), [format!("{to}:{SERVER}"), format!("{to}:{SERVER2}")], running);
    lane._daemon = Some(daemon);
    lane
}

/// In the place where porin would be: the host between two containers.
fn proxy(world: &World, name: &'static str, start: fn(&Host) -> (Process, bool)) -> Lane {
    let host = world.host(name);
    let (client, server) = (world.host(&format!("{name}-c")), world.host(&format!("{name}-s")));
    host.link_to(&client, "pc 198.51.100.1/24", "eth0 198.51.100.2/24");
    host.link_to(&server, "ps 192.0.2.1/24", &format!("eth0 {ADDRESS}/24"));
    let mut running = vec![nginx_server(server.place())];
    let (process, http2) = start(&host);
    running.push(process);
    let to = format!("198.51.100.1:{PROXY}");
    let mut lane =
        lane(name, client.place(), [to.clone(), format!("198.51.100.1:{PROXY2}")], running);
    if !http2 {
        lane.to[1] = None;
    }
    lane
}

fn lane(name: &'static str, client: &Place, to: [String; 2], running: Vec<Process>) -> Lane {
    for to in &to {
        let to = to.parse().expect("an address and a port");
        let answers = || traffic::tcp_open(client, to, Duration::from_secs(1));
        // Proxies that do not speak HTTP/2 to servers do not listen for it.
        if name == "bare" || name == "plain" || name == "rules" {
            eventually(traffic::ARRIVES, "the server listens", answers);
        }
    }
    Lane { name, client: client.clone(), to: to.map(Some), _running: running, _daemon: None }
}

/// Runs a program with its configuration in a directory of its own, in `place`.
fn serve(place: &Place, argv: &[&str], files: &[(&str, &str)], port: u16) -> Process {
    let root = root(place);
    for (name, text) in files {
        place.sh(&format!("mkdir -p {root}/www; cat >{root}/{name} <<'END'\n{text}\nEND"));
    }
    let mut command = place.command(argv);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let process = place.spawn(command);
    let own = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let listens = || traffic::tcp_open(place, own, Duration::from_secs(1));
    eventually(traffic::ARRIVES, &format!("{} listens", argv[0]), listens);
    process
}

fn root(place: &Place) -> String {
    format!("/run/bench/{}", place.name())
}

fn nginx(place: &Place, http: &str, port: u16) -> Process {
    let root = root(place);
    let configuration = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
         worker_rlimit_nofile 8192; events {{ worker_connections 4096; }}
         http {{
           access_log off; keepalive_requests 100000000; sendfile on; tcp_nodelay on;
           client_body_temp_path {root}/t; proxy_temp_path {root}/t; fastcgi_temp_path {root}/t;
           uwsgi_temp_path {root}/t; scgi_temp_path {root}/t;
           {http}
         }}"
    );
    let argv = ["nginx", "-p", &root, "-e", "error.log", "-c", "nginx.conf"];
    serve(place, &argv, &[("nginx.conf", &configuration)], port)
}

fn nginx_server(place: &Place) -> Process {
    let root = root(place);
    place.sh(&format!(
        "mkdir -p {root}/www; head -c 1024 /dev/zero >{root}/www/small; head -c 1048576 /dev/zero >{root}/www/large"
    ));
    let server = format!(
        "server {{ listen {SERVER}; root {root}/www; }}
         server {{ listen {SERVER2} http2; root {root}/www; }}"
    );
    nginx(place, &server, SERVER)
}

fn nginx_proxy(host: &Host) -> (Process, bool) {
    let http = format!(
        "upstream server {{ server {ADDRESS}:{SERVER}; keepalive 128; keepalive_requests 100000000; }}
         server {{
           listen {PROXY};
           location ~ ^/[^/]*$ {{
             limit_except GET {{ deny all; }}
             proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection \"\";
           }}
           location / {{ return 403; }}
         }}"
    );
    (nginx(host.place(), &http, PROXY), false)
}

fn haproxy(host: &Host) -> (Process, bool) {
    let configuration = format!(
        "global
  maxconn 4096
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind 0.0.0.0:{PROXY}
  http-request deny unless {{ method GET }} {{ path_reg ^/[^/]*$ }}
  default_backend one
frontend in2
  bind 0.0.0.0:{PROXY2} proto h2
  http-request deny unless {{ method GET }} {{ path_reg ^/[^/]*$ }}
  default_backend two
backend one
  server s {ADDRESS}:{SERVER}
backend two
  server s {ADDRESS}:{SERVER2} proto h2"
    );
    let file = format!("{}/haproxy.cfg", root(host.place()));
    let argv = ["haproxy", "-db", "-f", &file];
    (serve(host.place(), &argv, &[("haproxy.cfg", &configuration)], PROXY), true)
}

fn envoy(host: &Host) -> (Process, bool) {
    let listener = |name: &str, port: u16, codec: &str, cluster: &str| {
        format!(
            "  - name: {name}
    address: {{ socket_address: {{ address: 0.0.0.0, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          codec_type: {codec}
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match:
                  safe_regex: {{ regex: \"/[^/]*\" }}
                  headers: [{{ name: \":method\", string_match: {{ exact: GET }} }}]
                route: {{ cluster: {cluster} }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
"
        )
    };
    let cluster = |name: &str, port: u16, options: &str| {
        format!(
            "  - name: {name}
    type: STATIC
    connect_timeout: 5s
{options}    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {ADDRESS}, port_value: {port} }} }} }}
"
        )
    };
    let http2 = "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
";
    let configuration = format!(
        "static_resources:\n  listeners:\n{}{}  clusters:\n{}{}",
        listener("one", PROXY, "HTTP1", "one"),
        listener("two", PROXY2, "HTTP2", "two"),
        cluster("one", SERVER, ""),
        cluster("two", SERVER2, http2)
    );
    let file = format!("{}/envoy.yaml", root(host.place()));
    let argv = [ENVOY, "--disable-hot-restart", "--concurrency", "1", "-l", "error", "-c", &file];
    (serve(host.place(), &argv, &[("envoy.yaml", &configuration)], PROXY), true)
}
