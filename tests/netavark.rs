//! `porin-cni` as netavark's plugin, against a daemon that is not there: what it asks, and what it says.
//!
//! What comes in is as Podman 5.4.2 and netavark 1.14 wrote it, recorded; what has to come out is in netavark's
//! plugin-API.md.

mod standin;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use porin::adapter::cni::plugin::Said;
use porin::adapter::netavark::plugin;
use porin::control::attach::{Attach, AttachmentId, Place, file};
use porin::control::server::Server;
use porin::control::wire::{ErrorCode, Request};
use proptest::prelude::*;
use serde_json::{Value, json};
use standin::Daemon;

const CREATE: &str = include_str!("golden/netavark/create.json");
const SETUP: &str = include_str!("golden/netavark/setup.json");

struct Lab {
    run: tempfile::TempDir,
    daemon: Arc<Daemon>,
    _server: Option<Server>,
}

impl Lab {
    fn new() -> Lab {
        let run = tempfile::tempdir().unwrap();
        let daemon = Arc::new(Daemon::default());
        let server = Server::start(run.path(), daemon.clone()).unwrap();
        Lab { run, daemon, _server: Some(server) }
    }

    /// What was recorded, for this lab's daemon.
    fn container(&self) -> Value {
        let mut exec: Value = serde_json::from_str(SETUP).unwrap();
        exec["network"]["options"]["run"] = json!(self.run.path());
        exec
    }

    /// What was asked of the daemon last.
    fn attach(&self) -> Attach {
        match self.daemon.asked.lock().unwrap().last() {
            Some(Request::Attach { attach }) => (**attach).clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn say(words: &[&str], input: &Value) -> Said {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    plugin::run(&words, &mut input.to_string().as_bytes())
}

fn setup(input: &Value) -> Said {
    say(&["setup", "/run/netns/web"], input)
}

#[track_caller]
fn result(said: &Said) -> Value {
    assert_eq!(said.error, None);
    serde_json::from_str(&said.output).unwrap()
}

/// The message, which is all that Podman takes.
#[track_caller]
fn error(said: &Said) -> String {
    let output: Value = serde_json::from_str(&said.output).unwrap();
    assert_eq!(output.as_object().unwrap().len(), 1, "{output}");
    assert_eq!(output["error"].as_str(), said.error.as_deref());
    said.error.clone().unwrap()
}

#[test]
fn what_setup_says_has_netavarks_form() {
    let lab = Lab::new();
    let said = result(&setup(&lab.container()));
    let expected = json!({
        "dns_search_domains": [],
        "dns_server_ips": [],
        "interfaces": { "eth0": {
            "mac_address": "02:00:00:00:00:07",
            "subnets": [
                { "ipnet": "fd00:10::7/128", "gateway": "fe80::1" },
                { "ipnet": "10.10.0.7/32", "gateway": "169.254.0.1" },
            ],
        } },
    });
    assert_eq!(said, expected);
    let attach = lab.attach();
    let place = Place::Inside { namespace: "/run/netns/web".into(), interface: "eth0".into() };
    assert_eq!(attach.place, place);
    assert_eq!(attach.fixed().count(), 0);
    assert_eq!(attach.name.as_str(), format!("web-{}", attach.id.short()));
    assert!(attach.about.starts_with("Podman network front, container "), "{}", attach.about);
    // The operator's network counts more than what its user says.
    assert_eq!(attach.labels.to_string(), "app=front,env=prod,tier=back");
}

#[test]
fn create_keeps_what_came_and_gives_neither_addresses_nor_names() {
    let mut came: Value = serde_json::from_str(CREATE).unwrap();
    let kept = result(&say(&["create"], &came));
    assert_eq!((&came["dns_enabled"], &came["ipam_options"]), (&json!(true), &Value::Null));
    came["dns_enabled"] = json!(false);
    came["ipam_options"] = json!({ "driver": "none" });
    assert_eq!(kept, came);
    // And is content with what it gave itself.
    assert_eq!(result(&say(&["create"], &kept)), kept);
}

#[test]
fn what_a_network_cannot_have_is_refused() {
    for (key, value, what) in [
        ("subnets", json!([{ "subnet": "10.0.0.0/16" }]), "pools of porin.toml"),
        ("routes", json!([{ "destination": "10.0.0.0/8", "gateway": "10.0.0.1" }]), "a route"),
        ("internal", json!(true), "an internal network"),
        ("network_interface", json!("br7"), "an interface"),
        ("network_dns_servers", json!(["10.0.0.53"]), "a name server"),
        ("ipam_options", json!({ "driver": "dhcp" }), "an IPAM driver"),
        ("options", json!({ "mtu": "1400" }), "the option \"mtu\" is not known"),
        ("options", json!({ "podman": "podman.sock" }), "`podman` is not an absolute path"),
        ("options", json!({ "label.": "x" }), "cannot be one"),
        ("options", json!({ "label.a": "\n" }), "cannot be one"),
        ("options", json!(7), "is not netavark's"),
    ] {
        let mut network: Value = serde_json::from_str(CREATE).unwrap();
        network[key] = value;
        let error = error(&say(&["create"], &network));
        assert!(error.contains(what), "{key}: {error}");
    }
}

#[test]
fn what_a_container_cannot_have_is_refused_and_nothing_asked() {
    let lab = Lab::new();
    let with = |pointer: &str, value: Value| {
        let mut exec = lab.container();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        exec.pointer_mut(parent).unwrap()[key] = value;
        exec
    };
    for (pointer, value, what) in [
        ("/port_mappings", json!([{ "container_port": 80 }]), "is not netavark's"),
        (
            "/port_mappings",
            json!([{ "container_port": 80, "host_port": 80, "protocol": "sctp" }]),
            "ports of sctp cannot be published",
        ),
        (
            "/network_options/static_mac",
            json!("03:00:00:00:00:01"),
            "no MAC address that an interface can have",
        ),
        ("/network_options/static_ips", json!(["10.0.0.1", "10.0.0.2"]), "has one of a family"),
        ("/network_options/static_ips", json!(["10.0.0"]), "is not netavark's"),
        ("/network_options/options", json!({ "podman": "/x" }), "is not a container's"),
        ("/network_options/options", json!({ "run": "/x" }), "is not a container's"),
        ("/network/options", json!({ "mtu": "1400" }), "is not known"),
        ("/container_id", json!("../c"), "is no container's id"),
        ("/container_id", Value::Null, "is not netavark's"),
    ] {
        let error = error(&setup(&with(pointer, value)));
        assert!(error.contains(what), "{pointer}: {error}");
    }
    let mut asking = lab.container();
    asking["network"]["options"]["podman"] = json!("/nonexistent/podman.sock");
    assert!(error(&setup(&asking)).contains("labels are not known"));
    assert!(lab.daemon.asked.lock().unwrap().is_empty());
    // Asked for in vain is not asked for.
    result(&setup(&with("/network_options/static_mac", json!(""))));
    assert_eq!(lab.attach().mac, None);
    result(&setup(&with("/network_options/static_mac", json!("02:00:00:00:00:01"))));
    assert_eq!(lab.attach().mac, Some("02:00:00:00:00:01".parse().unwrap()));
    let fixed = with("/network_options/static_ips", json!(["10.10.0.9", "fd00:10::9"]));
    result(&setup(&fixed));
    let fixed: Vec<_> = lab.attach().fixed().map(|ip| ip.to_string()).collect();
    assert_eq!(fixed, ["fd00:10::9", "10.10.0.9"]);
    let mapped = json!([{ "container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp,udp", "range": 2 }]);
    result(&setup(&with("/port_mappings", mapped)));
    let published: Vec<_> = lab.attach().publish.iter().map(ToString::to_string).collect();
    assert_eq!(published, ["8080-8081:80-81/tcp", "8080-8081:80-81/udp"]);
}

#[test]
fn the_daemons_refusal_is_what_podman_shows() {
    let lab = Lab::new();
    *lab.daemon.refuses.lock().unwrap() = Some((ErrorCode::Refused, "because"));
    assert_eq!(error(&setup(&lab.container())), "because");
}

#[test]
fn teardown_needs_no_more_than_who_it_is_nor_a_daemon() {
    let mut lab = Lab::new();
    let mut exec = lab.container();
    exec["network"]["options"]["unknown"] = json!("x");
    exec["port_mappings"] = json!([{}]);
    exec["network_options"]["static_mac"] = json!("x");
    let id = exec["network"]["id"].as_str().unwrap();
    let container = exec["container_id"].as_str().unwrap();
    let id = AttachmentId::new("netavark", id, &[container, "eth0"]);
    let nothing = Said { output: String::new(), error: None };
    assert_eq!(say(&["teardown", "/gone"], &exec), nothing);
    assert_eq!(lab.daemon.asked.lock().unwrap()[..], [Request::Detach { id: id.clone() }]);
    lab._server = None;
    fs::create_dir(lab.run.path().join("endpoints.d")).unwrap();
    fs::write(file(lab.run.path(), &id), "").unwrap();
    assert_eq!(say(&["teardown", "/gone"], &exec), nothing);
    assert!(!file(lab.run.path(), &id).exists());
}

#[test]
fn the_program_is_netavarks_if_it_is_told_what_to_do() {
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_porin-cni"));
        let output = command.args(words).stdin(Stdio::null()).output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.success(), said)
    };
    let info = json!({ "version": env!("CARGO_PKG_VERSION"), "api_version": "1.0.0" });
    assert_eq!(run(&["info"]), (true, info));
    for words in
        [&["--halp"][..], &["setup"], &["setup", ""], &["create", "x"], &["teardown", "a", "b"]]
    {
        let (success, said) = run(words);
        assert!(!success && said["error"].as_str().unwrap().contains("porin-cni(8)"), "{said}");
    }
    for word in ["--help", "--version", "-h", "-V"] {
        let output = Command::new(env!("CARGO_BIN_EXE_porin-cni")).arg(word).output().unwrap();
        let begins = concat!("porin-cni ", env!("CARGO_PKG_VERSION"));
        assert!(output.status.success() && output.stdout.starts_with(begins.as_bytes()), "{word}");
    }
}

#[test]
fn the_man_page_has_every_option() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("man/porin-cni.8")).unwrap();
    let section = page.split_once(".Sh NETAVARK").unwrap().1;
    let mut network: Value = serde_json::from_str(CREATE).unwrap();
    network["options"]["unknown"] = json!("x");
    let error = error(&say(&["create"], &network));
    let known = error.split_once("options are ").unwrap().1.split_once(':').unwrap().0;
    let known: Vec<_> =
        known.split(&[',', ' '][..]).filter(|w| !w.is_empty() && *w != "and").collect();
    assert_eq!(known.len(), 3);
    for key in known {
        let (key, _) = key.split_once(".KEY").unwrap_or((key, ""));
        assert!(section.contains(&format!(".It Cm {key}")), "{key} is not in the page");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![".{0,20}", Just("10.0.0.1".to_owned())].prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("label\\.[a-z]{0,3}|run|podman|driver|.{0,4}", inner, 0..3)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

const PLACES: [&str; 12] = [
    "/container_id",
    "/container_name",
    "/port_mappings",
    "/network",
    "/network/id",
    "/network/name",
    "/network/options",
    "/network_options",
    "/network_options/interface_name",
    "/network_options/static_ips",
    "/network_options/static_mac",
    "/network_options/options",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes, there is an answer of one of the two forms.
    #[test]
    fn no_input_makes_it_panic(
        word in prop::sample::select(&["create", "setup", "teardown"][..]),
        place in prop::sample::select(&PLACES[..]),
        value in json_value(),
        whole in any::<bool>(),
    ) {
        static LAB: LazyLock<Lab> = LazyLock::new(Lab::new);
        let input = match whole {
            true => value,
            false => {
                let mut exec = LAB.container();
                *exec.pointer_mut(place).unwrap() = value;
                // Nobody else's daemon is asked.
                if let Some(options) = exec.pointer_mut("/network/options").filter(|o| o.is_object()) {
                    options["run"] = json!(LAB.run.path());
                }
                exec
            }
        };
        let words: &[&str] = if word == "create" { &["create"] } else { &[word, "/run/netns/x"] };
        // Without a daemon at the default place, who is asked there waits for one.
        let there = input.pointer("/network/options/run") == Some(&json!(LAB.run.path()));
        prop_assume!(word == "create" || there || whole);
        let said = say(words, &input);
        match said.error {
            Some(_) => drop(error(&said)),
            None => prop_assert!(said.output.is_empty() || result(&said).is_object()),
        }
    }
}
