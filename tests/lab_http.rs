//! Requests judged between real namespaces: client and server know nothing of it.

mod lab;

use std::net::{IpAddr, SocketAddr};

use lab::http::{HttpClient, HttpServer, LARGE};
use lab::traffic::{ARRIVES, DROPPED};
use lab::{Container, Daemon, Host, Place, World, config};

const FRONT: u16 = 1;
const API: u16 = 2;
const PORT: u16 = 8080;

const GET_ITEMS: &str = "http = [{ method = \"GET\", path = \"/v1/items/**\" }]";

/// `front` and `api`; `api` serves HTTP to whom its policy lets in.
struct Shop {
    host: Host,
    front: Container,
    _api: Container,
    daemon: Daemon,
    _server: HttpServer,
}

fn ingress(rules: &[&str]) -> String {
    let rule = |rule: &&str| {
        format!(
            "\n[[policy.ingress]]\nfrom = [\"app=front\", \"entity:host\", \"entity:world\"]\nports = \"{PORT}/tcp\"\n{rule}\n"
        )
    };
    let rules: String = rules.iter().map(rule).collect();
    format!("[[policy]]\nname = \"api\"\nsubject = \"app=api\"\n{rules}")
}

fn shop(world: &World, uplinks: &[&str], policies: &str) -> Shop {
    shop_at(world.host("alpha"), uplinks, policies)
}

fn shop_at(host: Host, uplinks: &[&str], policies: &str) -> Shop {
    host.write("porin.toml", &config::host(uplinks));
    let front = config::add(&host, "front", "app = \"front\"", FRONT);
    let api = config::add(&host, "api", "app = \"api\"", API);
    let _server = HttpServer::start(api.place(), PORT);
    host.write("policies.d/api.toml", policies);
    let daemon = host.porind();
    Shop { host, front, _api: api, daemon, _server }
}

fn both(number: u16) -> [SocketAddr; 2] {
    [config::ipv6(number), config::ipv4(number)]
        .map(|address| SocketAddr::new(address.parse().unwrap(), PORT))
}

#[track_caller]
fn client(from: &Place, to: SocketAddr) -> HttpClient {
    HttpClient::connect(from, to, ARRIVES)
        .unwrap_or_else(|error| panic!("{} to {to}: {error}", from.name()))
}

/// What the server says it heard, which is the client's own address.
fn heard(from: IpAddr, asked: &str) -> (u16, String) {
    (200, format!("{from} {asked}"))
}

impl Shop {
    fn policies(&self, text: &str) {
        self.daemon.commit(|| self.host.write("policies.d/api.toml", text));
    }
}

#[test]
fn a_request_passes_or_gets_403_and_the_connection_stays() {
    World::run(|world| {
        let shop = shop(world, &[], &ingress(&[GET_ITEMS]));
        for to in both(API) {
            let mut client = client(shop.front.place(), to);
            assert_eq!(client.peer(), to);
            let own = client.local().ip();
            assert_eq!(client.ask("GET", "/v1/items/7").unwrap(), heard(own, "GET /v1/items/7"));
            assert_eq!(client.ask("DELETE", "/v1/items/7").unwrap().0, 403);
            assert_eq!(client.ask("GET", "/v1/users").unwrap().0, 403);
            assert_eq!(
                client.ask("GET", "/v1/items/8?x=1").unwrap(),
                heard(own, "GET /v1/items/8?x=1")
            );
            // More than passes through the worker's own memory.
            let (status, body) = client.ask("GET", "/v1/items/large").unwrap();
            assert_eq!((status, body.len()), (200, LARGE));
            // What is one request to some and two to others is none.
            client.send(b"GET /v1/items/../users HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert_ne!(client.answer().unwrap().0, 200);
        }
    });
}

#[test]
fn the_senders_rules_and_the_receivers_are_judged_together() {
    World::run(|world| {
        let egress = "\n[[policy]]\nname = \"front\"\nsubject = \"app=front\"\n\n[[policy.egress]]\nto = \"app=api\"\n\
                      ports = \"8080/tcp\"\nhttp = [{ path = \"/v1/items/7\" }]\n";
        let shop = shop(world, &[], &format!("{}{egress}", ingress(&[GET_ITEMS])));
        for to in both(API) {
            let mut client = client(shop.front.place(), to);
            assert_eq!(client.ask("GET", "/v1/items/7").unwrap().0, 200);
            assert_eq!(client.ask("GET", "/v1/items/8").unwrap().0, 403, "the sender's");
            assert_eq!(client.ask("PUT", "/v1/items/7").unwrap().0, 403, "the receiver's");
        }
    });
}

#[test]
fn an_edit_reaches_the_next_request_of_an_open_connection() {
    World::run(|world| {
        let shop = shop(world, &[], &ingress(&[GET_ITEMS]));
        let mut clients = both(API).map(|to| client(shop.front.place(), to));
        for client in &mut clients {
            assert_eq!(client.ask("GET", "/v1/items/7").unwrap().0, 200);
            assert_eq!(client.ask("PUT", "/v1/items/7").unwrap().0, 403);
        }
        shop.policies(&ingress(&["http = [{ method = \"PUT\" }]"]));
        for client in &mut clients {
            assert_eq!(client.ask("GET", "/v1/items/7").unwrap().0, 403);
            assert_eq!(client.ask("PUT", "/v1/items/7").unwrap().0, 200);
        }
        // Whatever is in the connection: it goes on as it began.
        shop.policies(&ingress(&[""]));
        for client in &mut clients {
            assert_eq!(client.ask("DELETE", "/").unwrap().0, 200);
        }
        shop.policies(&ingress(&[GET_ITEMS, "http = [{ method = \"PUT\" }]"]));
        for client in &mut clients {
            assert_eq!(client.ask("GET", "/v1/items/7").unwrap().0, 200);
            assert_eq!(client.ask("PUT", "/").unwrap().0, 200);
            assert_eq!(client.ask("POST", "/").unwrap().0, 403);
        }
        // No rule at all: the packets are denied.
        shop.policies("[[policy]]\nname = \"api\"\nsubject = \"app=api\"\ningress = []\n");
        for client in &mut clients {
            client.send(b"GET /v1/items/7 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert!(client.answer_within(DROPPED).is_err());
        }
    });
}

#[test]
fn what_began_without_judging_of_requests_does_not_go_on_with_it() {
    World::run(|world| {
        let shop = shop(world, &[], &ingress(&[""]));
        let mut clients = both(API).map(|to| client(shop.front.place(), to));
        for client in &mut clients {
            assert_eq!(client.ask("PUT", "/").unwrap().0, 200);
        }
        shop.policies(&ingress(&[GET_ITEMS]));
        for (old, to) in clients.iter_mut().zip(both(API)) {
            let mut new = client(shop.front.place(), to);
            assert_eq!(new.ask("PUT", "/").unwrap().0, 403);
            old.send(b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert!(old.answer_within(DROPPED).is_err(), "nobody judged it");
        }
    });
}

#[test]
fn the_host_is_a_client_like_others() {
    World::run(|world| {
        let shop = shop(world, &[], &ingress(&[GET_ITEMS]));
        for to in both(API) {
            let mut client = client(shop.host.place(), to);
            let own = client.local().ip();
            assert_eq!(client.ask("GET", "/v1/items/7").unwrap(), heard(own, "GET /v1/items/7"));
            assert_eq!(client.ask("PUT", "/v1/items/7").unwrap().0, 403);
        }
    });
}

#[test]
fn clients_and_servers_in_the_world_are_judged_too() {
    World::run(|world| {
        let (alpha, beta) = (world.host("alpha"), world.host("beta"));
        alpha.link_to(&beta, "up0 fd00:a::1/64 192.0.2.1/24", "up0 fd00:a::2/64 192.0.2.2/24");
        beta.sh(
            "ip -6 route add fd00:10::/64 via fd00:a::1; ip route add 10.10.0.0/16 via 192.0.2.1",
        );
        let egress = "\n[[policy]]\nname = \"front\"\nsubject = \"app=front\"\n\n[[policy.egress]]\nto = \"entity:world\"\n\
                      ports = \"8080/tcp\"\nhttp = [{ method = \"GET\" }]\n";
        let shop = shop_at(alpha, &["up0"], &format!("{}{egress}", ingress(&[GET_ITEMS])));
        let _world = HttpServer::start(beta.place(), PORT);
        for to in both(API) {
            let mut client = client(beta.place(), to);
            let own = client.local().ip();
            assert_eq!(client.ask("GET", "/v1/items/7").unwrap(), heard(own, "GET /v1/items/7"));
            assert_eq!(client.ask("PUT", "/v1/items/7").unwrap().0, 403);
        }
        for (to, masqueraded) in [("[fd00:a::2]:8080", None), ("192.0.2.2:8080", Some("192.0.2.1"))]
        {
            let mut client = client(shop.front.place(), to.parse().unwrap());
            let own = masqueraded.map_or(client.local().ip(), |own| own.parse().unwrap());
            assert_eq!(client.ask("GET", "/any").unwrap(), heard(own, "GET /any"));
            assert_eq!(client.ask("PUT", "/any").unwrap().0, 403);
        }
    });
}

#[test]
fn published_ports_lead_to_judged_requests() {
    World::run(|world| {
        let (alpha, beta) = (world.host("alpha"), world.host("beta"));
        alpha.link_to(&beta, "up0 fd00:a::1/64 192.0.2.1/24", "up0 fd00:a::2/64 192.0.2.2/24");
        let shop = shop_at(alpha, &["up0"], &ingress(&[GET_ITEMS]));
        let endpoint = config::endpoint("api", "app = \"api\"", API);
        let endpoint = format!("{}\npublish = [\"80:8080/tcp\"]\n", endpoint.trim_end());
        shop.daemon.commit(|| shop.host.write("endpoints.d/api.toml", &endpoint));
        for to in ["[fd00:a::1]:80", "192.0.2.1:80"] {
            for from in [beta.place(), shop.front.place()] {
                let mut client = client(from, to.parse().unwrap());
                let own = client.local().ip();
                assert_eq!(
                    client.ask("GET", "/v1/items/7").unwrap(),
                    heard(own, "GET /v1/items/7")
                );
                assert_eq!(client.ask("PUT", "/v1/items/7").unwrap().0, 403);
            }
        }
    });
}

#[test]
fn requests_are_among_the_flows_and_in_the_status() {
    World::run(|world| {
        let shop = shop(world, &[], &ingress(&[GET_ITEMS]));
        let to = both(API)[1];
        let mut client = client(shop.front.place(), to);
        assert_eq!(client.ask("DELETE", "/v1/items/7?token=x").unwrap().0, 403);
        // Allowed ones are told of while somebody follows.
        let flows = shop.daemon.flows();
        let found = lab::eventually::some(ARRIVES, || {
            assert_eq!(client.ask("GET", "/v1/items/8").unwrap().0, 200);
            flows
                .events()
                .into_iter()
                .find(|event| event["request"]["method"] == "GET" && event["type"] == "flow")
        });
        let allowed = found.expect("the allowed one is told of");
        let own = client.local();
        assert_eq!(allowed["source"]["endpoint"], "front");
        assert_eq!(allowed["source"]["port"], own.port());
        assert_eq!(allowed["destination"]["endpoint"], "api");
        assert_eq!(allowed["ingress"]["policy"], "api");
        assert_eq!(allowed["request"]["status"], 200);
        let denied = flows.find(ARRIVES, |event| event["request"]["method"] == "DELETE");
        let denied = denied.expect("the denied one is kept");
        assert_eq!(
            (&denied["type"], &denied["reason"]),
            (&"deny".into(), &"request-ingress".into())
        );
        assert_eq!(denied["request"]["path"], "/v1/items/7", "without the query");
        assert_eq!(denied["request"]["why"], "ingress: no rule allows it");
        let counted = &shop.daemon.status()["requests"];
        assert_eq!((&counted["denied"], &counted["open"]), (&1.into(), &1.into()));
        assert!(counted["allowed"].as_u64() >= Some(1), "{counted}");
    });
}

#[test]
fn a_worker_that_dies_is_replaced_and_nothing_passes_unjudged() {
    World::run(|world| {
        let shop = shop(world, &[], &ingress(&[GET_ITEMS]));
        let mut old = client(shop.front.place(), both(API)[0]);
        assert_eq!(old.ask("GET", "/v1/items/7").unwrap().0, 200);
        let worker = worker_of(shop.daemon.pid()).expect("there is a worker");
        rustix::process::kill_process(worker, rustix::process::Signal::KILL).unwrap();
        for to in both(API) {
            let mut new = client(shop.front.place(), to);
            assert_eq!(new.ask("GET", "/v1/items/7").unwrap().0, 200, "{to}");
            assert_eq!(new.ask("PUT", "/v1/items/7").unwrap().0, 403, "{to}");
        }
        assert!(old.ask("GET", "/v1/items/7").is_err());
        assert_ne!(worker_of(shop.daemon.pid()), Some(worker));
    });
}

#[test]
fn requests_go_on_when_the_daemon_is_gone() {
    World::run(|world| {
        let mut shop = shop(world, &[], &ingress(&[GET_ITEMS]));
        let mut old = client(shop.front.place(), both(API)[0]);
        assert_eq!(old.ask("GET", "/v1/items/7").unwrap().0, 200);
        shop.daemon.kill();
        assert_eq!(old.ask("GET", "/v1/items/7").unwrap().0, 200);
        assert_eq!(old.ask("PUT", "/v1/items/7").unwrap().0, 403);
        let mut new = client(shop.front.place(), both(API)[1]);
        assert_eq!(new.ask("GET", "/v1/items/7").unwrap().0, 200);
        shop.daemon.start_again();
        assert_eq!(old.ask("GET", "/v1/items/7").unwrap().0, 200, "the next daemon's generation");
        assert_eq!(new.ask("PUT", "/v1/items/7").unwrap().0, 403);
        let mut newest = client(shop.front.place(), both(API)[0]);
        assert_eq!(newest.ask("GET", "/v1/items/7").unwrap().0, 200);
    });
}

/// The daemon's child.
fn worker_of(daemon: u32) -> Option<rustix::process::Pid> {
    let children = std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children"));
    let all = children.unwrap_or_default();
    let first = all.split_whitespace().next()?.parse().ok()?;
    rustix::process::Pid::from_raw(first)
}
