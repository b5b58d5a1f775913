//! Calls against a daemon and a Docker that are made up: hostile ones, and the whole life of an endpoint.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::adapter::docker::left::{Left, Progress};
use crate::adapter::docker::pools::{Pools, Store};
use crate::adapter::docker::serve::Server;
use crate::adapter::docker::wire::OfEndpoint;
use crate::control::attach::{Attach, Attached, AttachmentId, Place};
use crate::control::server::Handler;
use crate::control::wire::{ErrorCode, Request, Response};
use crate::observe::hub::{Filter, Hub, Subscription};
use crate::types::Generation;

#[derive(Default)]
struct Daemon {
    hub: Arc<Hub>,
    attached: Mutex<BTreeMap<AttachmentId, Attach>>,
}

impl Daemon {
    fn only(&self) -> Option<Attach> {
        let attached = self.attached.lock().unwrap();
        assert!(attached.len() < 2);
        attached.values().next().cloned()
    }
}

fn attached(attach: &Attach) -> Response {
    let Place::HandOver(interface) = &attach.place else { panic!("not handed over") };
    Response::Attached(Box::new(Attached {
        name: attach.name.to_string(),
        namespace: None,
        interface: interface.clone(),
        host_interface: "pn0123456789ab".into(),
        mac: attach.mac.unwrap().to_string(),
        host_mac: attach.mac.unwrap().to_string(),
        mtu: 1500,
        ipv6: attach.ipv6,
        ipv4: attach.ipv4,
        publish: attach.publish.clone(),
        generation: Generation(1),
    }))
}

impl Handler for Daemon {
    fn handle(&self, request: Request) -> Response {
        let mut all = self.attached.lock().unwrap();
        match request {
            Request::Attach { attach } => {
                if !attach.replaces && all.contains_key(&attach.id) {
                    return Response::error(ErrorCode::Exists, "it is there");
                }
                let answer = attached(&attach);
                all.insert(attach.id.clone(), *attach);
                answer
            }
            Request::Detach { id } => {
                all.remove(&id);
                Response::Detached {}
            }
            Request::Attachment { id } => match all.get(&id) {
                Some(attach) => attached(attach),
                None => Response::error(ErrorCode::Unknown, "there is none"),
            },
            Request::Attachments { .. } => Response::Attachments(all.keys().cloned().collect()),
            Request::Endpoints => Response::Endpoints(Vec::new()),
            other => panic!("{other:?}"),
        }
    }

    fn subscribe(&self, filter: Filter) -> Subscription {
        self.hub.subscribe(filter)
    }
}

struct Lab {
    daemon: Arc<Daemon>,
    driver: Driver,
    saved: Arc<Mutex<Option<String>>>,
}

impl Lab {
    fn new(socket: &Path) -> Lab {
        Lab::over(Arc::default(), Arc::default(), socket)
    }

    /// One that starts over what an earlier one left.
    fn over(daemon: Arc<Daemon>, saved: Arc<Mutex<Option<String>>>, socket: &Path) -> Lab {
        let ranges = vec!["10.77.128.0/17".parse().unwrap(), "fd00:77::/64".parse().unwrap()];
        let (text, to) = (saved.lock().unwrap().clone(), saved.clone());
        let save = Box::new(move |text: &str| {
            *to.lock().unwrap() = Some(text.to_owned());
            Ok(())
        });
        let store = Store { path: "docker.toml".into(), text, save };
        let pools = Pools::open(ranges, store, daemon.clone()).unwrap();
        let (opener, tells) = channel();
        std::mem::forget(tells);
        let driver = Driver::new(pools, socket, daemon.clone(), opener);
        Lab { daemon, driver, saved }
    }

    fn started_anew(self, socket: &Path) -> (Lab, Left) {
        let lab = Lab::over(self.daemon, self.saved, socket);
        let left = Left::new(lab.driver.attachments().unwrap(), lab.driver.pools.given());
        (lab, left)
    }

    fn call(&self, method: &str, body: &Value) -> Result<Value, String> {
        let (status, answer) =
            call(&self.driver, &format!("/{method}"), body.to_string().as_bytes());
        let answer: Value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        match status {
            OK => Ok(answer),
            _ => Err(answer["Err"].as_str().unwrap_or_default().to_owned()),
        }
    }

    #[track_caller]
    fn must(&self, method: &str, body: &Value) -> Value {
        self.call(method, body).unwrap_or_else(|why| panic!("{method}: {why}"))
    }
}

/// Answers each question with what `answers` has for its path.
fn docker(
    answers: impl Fn(&str) -> Value + Send + 'static,
) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let body = answers(head.split(' ').nth(1).unwrap()).to_string();
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    (directory, socket)
}

fn network() -> String {
    "a".repeat(64)
}

fn of() -> Value {
    json!({ "NetworkID": network(), "EndpointID": "b".repeat(64) })
}

fn with(more: Value) -> Value {
    let mut all = of();
    for (key, value) in more.as_object().unwrap() {
        all[key] = value.clone();
    }
    all
}

fn create(lab: &Lab) -> Value {
    let pool =
        lab.must("IpamDriver.RequestPool", &json!({ "AddressSpace": "porin", "Options": null }));
    assert_eq!(pool["Data"]["com.docker.network.gateway"], "10.77.128.1/24");
    let data =
        json!([{ "AddressSpace": "porin", "Pool": pool["Pool"], "Gateway": "10.77.128.1/24" }]);
    let asked = json!({ "NetworkID": network(), "Options": { "com.docker.network.generic": {} },
        "IPv4Data": data, "IPv6Data": [] });
    lab.must("NetworkDriver.CreateNetwork", &asked);
    let asked = json!({ "PoolID": pool["PoolID"], "Address": "", "Options": null });
    let address = lab.must("IpamDriver.RequestAddress", &asked)["Address"].clone();
    let interface = json!({ "Address": address, "AddressIPv6": "", "MacAddress": "" });
    let asked = with(json!({ "Interface": interface, "Options": {} }));
    lab.must("NetworkDriver.CreateEndpoint", &asked)
}

#[test]
fn an_endpoint_is_shut_until_its_labels_are_known() {
    let known = Arc::new(Mutex::new(json!({})));
    let answers = known.clone();
    let (_docker, socket) = docker(move |path| match path.split('/').nth(1) {
        Some("networks") => json!({ "Containers": *answers.lock().unwrap() }),
        _ => json!([{ "Id": "c".repeat(64), "Names": ["/web"], "Labels": { "app": "web" } }]),
    });
    let lab = Lab::new(&socket);
    let created = create(&lab);
    let mac = created["Interface"]["MacAddress"].as_str().unwrap().to_owned();
    let joined =
        lab.must("NetworkDriver.Join", &with(json!({ "SandboxKey": "/x", "Options": null })));
    assert_eq!((&joined["Gateway"], &joined["GatewayIPv6"]), (&json!("10.77.128.1"), &json!("")));
    let shut = lab.daemon.only().unwrap();
    assert!(shut.shut && shut.labels == Default::default());
    assert_eq!(shut.mac.unwrap().to_string(), mac);
    assert_eq!(
        shut.place,
        Place::HandOver(joined["InterfaceName"]["SrcName"].as_str().unwrap().into())
    );

    // Docker does not know whose it is, then it does.
    let open = || lab.call("NetworkDriver.ProgramExternalConnectivity", &of());
    assert!(open().unwrap_err().contains("labels are not known"));
    assert!(lab.daemon.only().unwrap().shut);
    *known.lock().unwrap() = json!({ "c".repeat(64): { "EndpointID": "b".repeat(64) } });
    open().unwrap();
    let attach = lab.daemon.only().unwrap();
    assert!(!attach.shut && attach.name.as_str().starts_with("web-"));
    assert_eq!(
        (attach.labels.to_string(), attach.place),
        ("app=web".to_owned(), shut.place.clone())
    );
    open().unwrap();
    let published = || {
        let all = lab.daemon.only().unwrap().publish;
        all.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(published().is_empty());

    // The endpoint by which the container is reached has its ports, also if the opener or a new daemon's look at it comes after.
    let port = json!({ "Proto": 6, "Port": 80, "HostIP": "", "HostPort": 8080 });
    let connect = with(json!({ "Options": { "com.docker.network.portmap": [port] } }));
    lab.must("NetworkDriver.ProgramExternalConnectivity", &connect);
    assert_eq!(published(), ["8080:80/tcp"]);
    let of_it = OfEndpoint { network: network(), endpoint: "b".repeat(64) };
    lab.driver.open(&of_it).unwrap();
    assert_eq!(published(), ["8080:80/tcp"]);
    let (lab, _) = lab.started_anew(&socket);
    let open = || lab.call("NetworkDriver.ProgramExternalConnectivity", &of());
    let published = || {
        let all = lab.daemon.only().unwrap().publish;
        all.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    lab.driver.open(&of_it).unwrap();
    assert_eq!(published(), ["8080:80/tcp"]);
    for _ in 0..2 {
        lab.must("NetworkDriver.RevokeExternalConnectivity", &of());
        let attach = lab.daemon.only().unwrap();
        assert!(attach.publish.is_empty() && !attach.shut && !attach.labels.is_empty());
    }
    lab.must("NetworkDriver.ProgramExternalConnectivity", &connect);

    // Asked again because the answer got lost, it is the same.
    assert_eq!(lab.must("NetworkDriver.Join", &of()), joined);
    // Whoever joins it is not known, and so not believed to be the one before.
    assert!(lab.daemon.only().unwrap().shut);
    open().unwrap();
    lab.must("NetworkDriver.Leave", &of());
    assert!(open().unwrap_err().contains("in no container"));
    assert_eq!(lab.must("NetworkDriver.Join", &of()), joined);
    let again = lab.daemon.only().unwrap();
    assert!(again.shut && again.labels == Default::default());
    assert_eq!(again.mac.unwrap().to_string(), mac);
    for _ in 0..2 {
        lab.must("NetworkDriver.Leave", &of());
        lab.must("NetworkDriver.DeleteEndpoint", &of());
        assert_eq!(lab.daemon.only(), None);
        lab.must("NetworkDriver.DeleteNetwork", &json!({ "NetworkID": network() }));
    }
    assert!(open().is_err());
    assert_eq!(lab.daemon.only(), None);
}

/// `/networks`, and a network.
fn networks(there: bool, containers: &Value) -> impl Fn(&str) -> Value + Send + 'static {
    let containers = containers.clone();
    move |path| match path.split('/').nth(1) {
        Some("networks") if path == "/networks" && !there => json!([]),
        Some("networks") if path == "/networks" => {
            json!([{ "Id": network(), "Driver": "porin",
                "IPAM": { "Config": [{ "Subnet": "10.77.128.0/24" }] } }])
        }
        Some("networks") => json!({ "Containers": containers }),
        _ => json!([{ "Id": "c".repeat(64), "Names": ["/web"], "Labels": { "app": "web" } }]),
    }
}

fn look(left: &mut Left, lab: &Lab) -> Result<Progress, String> {
    left.look(&lab.driver, |of| lab.driver.open(&of).unwrap())
}

#[test]
fn what_is_left_is_gone_only_if_two_looks_do_not_find_it() {
    let endpoint = json!({ "EndpointID": "b".repeat(64), "IPv4Address": "10.77.128.2/24" });
    let nobodys = json!({ format!("ep-{}", "b".repeat(64)): endpoint });
    let webs = json!({ "c".repeat(64): endpoint });
    let lab = Lab::new(Path::new("/nowhere"));
    create(&lab);
    lab.must("NetworkDriver.Join", &of());
    let (lab, mut left) = lab.started_anew(Path::new("/nowhere"));
    assert!(look(&mut left, &lab).is_err());
    // Not found once, found then: not yet joined, then joined.
    let mut seen = Vec::new();
    let nobodys = [(false, &nobodys), (true, &nobodys), (true, &nobodys)];
    for (there, containers) in nobodys.into_iter().chain([(true, &webs)]) {
        let (_docker, socket) = docker(networks(there, containers));
        let lab = Lab::over(lab.daemon.clone(), lab.saved.clone(), &socket);
        seen.push((look(&mut left, &lab).unwrap(), lab.daemon.only().unwrap().shut));
        assert_eq!(lab.driver.pools.given()[&network()].len(), 1);
    }
    let shut = [Progress::More, Progress::More, Progress::Waits].map(|progress| (progress, true));
    assert_eq!(seen[..3], shut);
    assert_eq!(seen[3], (Progress::Done, false));

    // Its address is in use, so what was left is all found.
    let (_docker, socket) = docker(networks(true, &webs));
    let (lab, mut left) = lab.started_anew(&socket);
    assert_eq!(look(&mut left, &lab).unwrap(), Progress::More);
    assert_eq!(look(&mut left, &lab).unwrap(), Progress::Done);
    assert_eq!(lab.driver.pools.given()[&network()].len(), 1);

    // Not found twice: the endpoint goes, then its address; or all of the network.
    for (there, given) in [(true, 1), (false, 0)] {
        let (_docker, socket) = docker(networks(there, &json!({})));
        let lab = Lab::over(lab.daemon.clone(), lab.saved.clone(), &socket);
        let (lab, mut left) = lab.started_anew(&socket);
        assert_eq!(look(&mut left, &lab).unwrap(), Progress::More);
        assert_eq!(look(&mut left, &lab).unwrap(), Progress::Done);
        assert_eq!(lab.daemon.only(), None);
        assert_eq!(lab.driver.pools.given().len(), given);
        assert!(lab.driver.pools.given().values().all(|addresses| addresses.is_empty()));
    }
}

#[test]
fn a_subnet_that_another_driver_uses_is_kept_and_one_that_nobody_uses_is_not() {
    let lab = Lab::new(Path::new("/nowhere"));
    let ask = |lab: &Lab| lab.must("IpamDriver.RequestPool", &json!({}))["Pool"].clone();
    assert_eq!([ask(&lab), ask(&lab)], ["10.77.128.0/24", "10.77.129.0/24"]);
    assert!(lab.driver.sweep_subnets().is_err());
    // What was just made may be made a network of.
    let (_docker, socket) = docker(networks(true, &json!({})));
    let lab =
        Lab { driver: Lab::over(lab.daemon.clone(), lab.saved.clone(), &socket).driver, ..lab };
    assert_eq!(ask(&lab), "10.77.130.0/24");
    assert!(lab.driver.sweep_subnets().unwrap());
    assert_eq!([ask(&lab), ask(&lab)], ["10.77.129.0/24", "10.77.131.0/24"]);
}

#[test]
fn what_is_not_asked_for_rightly_is_refused_by_name() {
    let lab = Lab::new(Path::new("/nowhere"));
    create(&lab);
    let endpoint = |more: Value| {
        let interface = json!({ "Address": "10.77.128.9/24" });
        let mut asked = with(json!({ "Interface": interface }));
        for (key, value) in more.as_object().unwrap() {
            asked[key] = value.clone();
        }
        lab.call("NetworkDriver.CreateEndpoint", &asked).unwrap_err()
    };
    let ports = json!({ "com.docker.network.portmap": [{ "Port": 80, "Proto": 6 }] });
    assert!(endpoint(json!({ "Options": ports })).contains("write -p PORT:80"));
    let ports = json!({ "com.docker.network.portmap": "80:80" });
    assert!(endpoint(json!({ "Options": ports })).contains("not understood"));
    assert!(endpoint(json!({ "Interface": {} })).contains("has no address"));
    assert!(
        endpoint(json!({ "Interface": { "Address": "fd00::1/64" } })).contains("not an address")
    );
    let mac = json!({ "Address": "10.77.128.9/24", "MacAddress": "01:00:00:00:00:00" });
    assert!(endpoint(json!({ "Interface": mac })).contains("no MAC address that an interface"));
    assert!(endpoint(json!({ "EndpointID": "../../etc/passwd" })).contains("not the id"));
    assert!(lab.call("IpamDriver.RequestAddress", &json!({ "PoolID": "x" })).is_err());
    assert_eq!(call(&lab.driver, "/NetworkDriver.AllocateNetwork", b"{}").0, NOT_FOUND);
    assert_eq!(lab.daemon.only(), None);
}

#[test]
fn the_socket_takes_whole_calls_of_bounded_size() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugins/porin.sock");
    let Lab { driver, .. } = Lab::new(Path::new("/nowhere"));
    let server = Server::start(&path, Arc::new(driver)).unwrap();
    let ask = |request: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // Who is refused early may not be listened to any more.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    let post = |path: &str, body: &str| {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        ask((head + body).as_bytes())
    };
    let activated = post("/Plugin.Activate", "");
    assert!(activated.starts_with("HTTP/1.1 200"), "{activated}");
    assert!(activated.contains("content-type: application/vnd.docker.plugins.v1.2+json"));
    assert!(activated.ends_with(r#"{"Implements":["NetworkDriver","IpamDriver"]}"#), "{activated}");
    assert!(post("/NetworkDriver.Join", "{").starts_with("HTTP/1.1 500"));
    assert!(post("/Nothing", "{}").starts_with("HTTP/1.1 404"));
    let large = post("/NetworkDriver.Join", &" ".repeat(2 << 20));
    assert!(large.is_empty() || large.starts_with("HTTP/1.1 413"), "{large}");
    assert!(ask(b"GET /Plugin.Activate HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 405"));
    let garbage = ask(b"\x16\x03\x01\r\n\r\n");
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    // Half a call holds up nobody else.
    let mut half = UnixStream::connect(&path).unwrap();
    half.write_all(b"POST /Plugin.Activate HTTP/1.1\r\nContent-Le").unwrap();
    assert!(post("/Plugin.Activate", "").starts_with("HTTP/1.1 200"));
    drop(server);
    assert!(!path.exists());
}

const METHODS: [&str; 14] = [
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.EndpointOperInfo",
    "NetworkDriver.Join",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.RevokeExternalConnectivity",
    "NetworkDriver.Leave",
    "NetworkDriver.DeleteEndpoint",
    "IpamDriver.RequestPool",
    "IpamDriver.ReleasePool",
    "IpamDriver.RequestAddress",
    "IpamDriver.ReleaseAddress",
    "Plugin.Activate",
];

const KEYS: [&str; 13] = [
    "NetworkID",
    "EndpointID",
    "Interface",
    "Options",
    "IPv4Data",
    "IPv6Data",
    "Pool",
    "SubPool",
    "PoolID",
    "Address",
    "AddressIPv6",
    "MacAddress",
    "V6",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        Just(Value::from("b".repeat(64))),
        Just(Value::from("a".repeat(2000))),
        prop_oneof![
            "10.77.128.0/24",
            "10.77.0.0/0",
            "fd00:77::/80",
            "::/0",
            "10.77.128.5/24",
            "../x"
        ]
        .prop_map(Value::from),
        "[0-9a-f:./]{1,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let key = prop::sample::select(&KEYS[..]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_call_panics_or_attaches_what_is_not_whole(
        calls in prop::collection::vec((prop::sample::select(&METHODS[..]), value()), 1..12),
    ) {
        let lab = Lab::new(Path::new("/nowhere"));
        for (method, body) in calls {
            match lab.call(method, &body) {
                Ok(answer) => prop_assert!(answer.is_object(), "{method}: {answer}"),
                Err(why) => prop_assert!(!why.is_empty() && why.chars().count() <= LONGEST, "{method}: {why}"),
            }
        }
        for attach in lab.daemon.attached.lock().unwrap().values() {
            prop_assert!(attach.shut && (attach.ipv4.is_some() || attach.ipv6.is_some()));
        }
    }

    #[test]
    fn bytes_never_panic(
        method in prop::sample::select(&METHODS[..]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let lab = Lab::new(Path::new("/nowhere"));
        let (status, _) = call(&lab.driver, &format!("/{method}"), &bytes);
        prop_assert!(status == OK || status == FAILED);
    }
}
