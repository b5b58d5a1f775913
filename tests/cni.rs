//! `porin-cni` against a daemon that is not there: what it asks, and what it says, in every version.

mod standin;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use porin::adapter::cni::plugin::{self, Said};
use porin::control::attach::{Attach, AttachmentId, file};
use porin::control::server::{Patience, Server};
use porin::control::wire::{ErrorCode, Request};
use proptest::prelude::*;
use serde_json::{Value, json};
use standin::Daemon;

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

    fn config(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "name": "net", "type": "porin-cni", "run": self.run.path() })
    }

    fn says(&self, operation: &str, config: &Value) -> Said {
        self.says_with(operation, "", config)
    }

    fn says_with(&self, operation: &str, arguments: &str, config: &Value) -> Said {
        say(operation, arguments, config.to_string().as_bytes())
    }

    /// What was asked of the daemon last.
    fn attach(&self) -> Attach {
        match self.daemon.asked.lock().unwrap().last() {
            Some(Request::Attach { attach }) => (**attach).clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn say(operation: &str, arguments: &str, mut input: &[u8]) -> Said {
    let variable = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => operation,
            "CNI_CONTAINERID" => "c0ffee",
            "CNI_IFNAME" => "eth0",
            "CNI_NETNS" => "/run/netns/web",
            "CNI_ARGS" => arguments,
            _ => return None,
        };
        Some(value.to_owned())
    };
    plugin::run(&variable, &mut input)
}

#[track_caller]
fn result(said: &Said) -> Value {
    assert_eq!(said.error, None);
    serde_json::from_str(&said.output).unwrap()
}

#[track_caller]
fn code(said: &Said) -> u64 {
    assert!(said.error.is_some(), "{}", said.output);
    let error: Value = serde_json::from_str(&said.output).unwrap();
    assert!(error["msg"].is_string() && error["cniVersion"].is_string(), "{error}");
    error["code"].as_u64().unwrap()
}

#[test]
fn the_result_has_the_form_of_the_version() {
    let lab = Lab::new();
    let add = |version| result(&lab.says("ADD", &lab.config(version)));
    let routes = json!([
        { "dst": "::/0", "gw": "fe80::1" },
        { "dst": "0.0.0.0/0", "gw": "169.254.0.1" },
    ]);
    let mut newest = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            { "name": "pn0123456789ab", "mac": "02:70:6f:72:69:6e", "mtu": 1500 },
            { "name": "eth0", "mac": "02:00:00:00:00:07", "mtu": 1500, "sandbox": "/run/netns/web" },
        ],
        "ips": [
            { "address": "fd00:10::7/128", "gateway": "fe80::1", "interface": 1 },
            { "address": "10.10.0.7/32", "gateway": "169.254.0.1", "interface": 1 },
        ],
        "routes": routes,
    });
    assert_eq!(add("1.1.0"), newest);
    newest["cniVersion"] = "1.0.0".into();
    for interface in newest["interfaces"].as_array_mut().unwrap() {
        interface.as_object_mut().unwrap().remove("mtu");
    }
    assert_eq!(add("1.0.0"), newest);
    newest["ips"][0]["version"] = "6".into();
    newest["ips"][1]["version"] = "4".into();
    newest["dns"] = json!({});
    for version in ["0.4.0", "0.3.1"] {
        newest["cniVersion"] = version.into();
        assert_eq!(add(version), newest);
    }
}

#[test]
fn versions_are_told_and_others_refused() {
    let lab = Lab::new();
    let all = json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!(result(&say("VERSION", "", b""))["supportedVersions"], all);
    let asked = result(&lab.says("VERSION", &json!({ "cniVersion": "0.4.0" })));
    assert_eq!(asked, json!({ "cniVersion": "0.4.0", "supportedVersions": all }));
    for version in ["0.2.0", "2.0.0", ""] {
        assert_eq!(code(&lab.says("ADD", &lab.config(version))), 1, "{version}");
    }
    assert_eq!(code(&lab.says("ADD", &json!({ "name": "net" }))), 1);
    // Operations that the version does not have.
    assert_eq!(code(&lab.says("CHECK", &lab.config("0.3.1"))), 1);
    assert_eq!(code(&lab.says("GC", &lab.config("1.0.0"))), 1);
    assert_eq!(code(&lab.says("STATUS", &lab.config("0.4.0"))), 1);
}

#[test]
fn labels_come_from_the_operator_the_pod_its_annotations_and_its_arguments_in_this_order() {
    let lab = Lab::new();
    let mut config = lab.config("1.1.0");
    config["labels"] = json!({ "env": "prod" });
    config["args"] = json!({ "cni": { "labels": [
        { "key": "env", "value": "dev" },
        { "key": "k8s.pod", "value": "forged" },
        { "key": "app", "value": "args" },
        { "key": "tier", "value": "back" },
    ] }, "other": 1 });
    config["runtimeConfig"] = json!({ "io.kubernetes.cri.pod-annotations": {
        "porin.label/app": "web",
        "unrelated": "x\ny",
    } });
    result(&lab.says_with("ADD", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0", &config));
    let attach = lab.attach();
    let labels = "app=web,env=prod,k8s.namespace=shop,k8s.pod=web-0,tier=back";
    assert_eq!(attach.labels.to_string(), labels);
    assert_eq!(attach.name.as_str(), format!("shop/web-0-{}", attach.id.short()));
    assert_eq!(attach.about, "CNI network net, container c0ffee, interface eth0");
}

#[test]
fn addresses_can_be_asked_for_in_three_ways() {
    let lab = Lab::new();
    let mut config = lab.config("1.1.0");
    config["runtimeConfig"] = json!({ "ips": ["10.10.0.9/24"] });
    config["args"] = json!({ "cni": { "ips": ["fd00:10::9"] } });
    result(&lab.says_with("ADD", "IP=10.10.0.9", &config));
    let attach = lab.attach();
    let fixed: Vec<_> = attach.fixed().map(|ip| ip.to_string()).collect();
    assert_eq!(fixed, ["fd00:10::9", "10.10.0.9"]);
    // Two of a family cannot be.
    assert_eq!(code(&lab.says_with("ADD", "IP=10.10.0.8", &config)), 2);
}

#[test]
fn a_mac_address_is_asked_for_in_any_of_three_ways_and_is_one() {
    let lab = Lab::new();
    let mut config = lab.config("1.1.0");
    result(&lab.says_with("ADD", "MAC=02:00:00:00:00:0A", &config));
    let mac = "02:00:00:00:00:0a".parse().unwrap();
    assert_eq!(lab.attach().mac, Some(mac));
    config["runtimeConfig"] = json!({ "mac": "02:00:00:00:00:0a" });
    config["args"] = json!({ "cni": { "mac": "02:00:00:00:00:0A" } });
    result(&lab.says_with("ADD", "MAC=02:00:00:00:00:0a", &config));
    assert_eq!(lab.attach().mac, Some(mac));
    assert_eq!(code(&lab.says_with("ADD", "MAC=02:00:00:00:00:0b", &config)), 7);
    assert_eq!(code(&lab.says_with("ADD", "MAC=03:00:00:00:00:0a", &config)), 4);
    config["args"] = json!({ "cni": { "mac": "02:00:00:00:00" } });
    assert_eq!(code(&lab.says("ADD", &config)), 7);
}

#[test]
fn dns_passes_through_and_the_runtimes_word_counts() {
    let lab = Lab::new();
    let mut config = lab.config("1.0.0");
    config["dns"] = json!({ "nameservers": ["fd00::53"], "search": ["example.org"] });
    assert_eq!(result(&lab.says("ADD", &config))["dns"], config["dns"]);
    config["runtimeConfig"] = json!({ "dns": { "nameservers": ["10.0.0.53"] } });
    assert_eq!(result(&lab.says("ADD", &config))["dns"], json!({ "nameservers": ["10.0.0.53"] }));
}

#[test]
fn what_cannot_be_honoured_is_refused_and_nothing_asked() {
    let lab = Lab::new();
    let with = |key: &str, value: Value| {
        let mut config = lab.config("1.1.0");
        config[key] = value;
        lab.says("ADD", &config)
    };
    for (key, value, expected) in [
        (
            "runtimeConfig",
            json!({ "portMappings": [{ "hostPort": 80, "containerPort": 80, "protocol": "sctp" }] }),
            2,
        ),
        ("runtimeConfig", json!({ "portMappings": [{ "containerPort": 80 }] }), 7),
        ("runtimeConfig", json!({ "bandwidth": { "ingressRate": 1 } }), 2),
        ("runtimeConfig", json!({ "mac": "02:00:00:00:00:1" }), 7),
        ("ipam", json!({ "type": "host-local" }), 2),
        ("ipMasq", json!(true), 2),
        ("prevResult", json!({}), 2),
        ("label", json!({}), 7),
        ("labels", json!(7), 7),
        ("labels", json!({ "a b": "x" }), 7),
        ("labels", json!({ "a": "x".repeat(5000) }), 7),
        ("name", json!("../net"), 7),
        ("name", json!(""), 7),
        ("name", Value::Null, 7),
        ("run", json!("run"), 7),
        ("podman", json!("podman.sock"), 7),
        // Without the labels that it is to be asked for, nothing starts.
        ("podman", json!("/nonexistent/podman.sock"), 11),
        ("containerd", json!("containerd.sock"), 7),
        ("containerd", json!("/nonexistent/containerd.sock"), 100),
        ("runtimeConfig", json!({ "ips": ["10.0.0"] }), 7),
        ("dns", json!({ "nameserver": [] }), 7),
    ] {
        assert_eq!(code(&with(key, value.clone())), expected, "{key}: {value}");
    }
    assert!(lab.daemon.asked.lock().unwrap().is_empty());
    // Asked for in vain is not asked for.
    result(&with("runtimeConfig", json!({ "portMappings": [], "mac": "" })));
    assert!(lab.attach().publish.is_empty());
    let mapping = json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" });
    result(&with("runtimeConfig", json!({ "portMappings": [mapping] })));
    assert_eq!(lab.attach().publish, ["8080:80/tcp".parse().unwrap()]);
    result(&with("ipam", json!({})));
}

#[test]
fn bad_input_is_told_by_its_code() {
    for (input, expected) in
        [("", 6), ("{", 6), ("[]", 7), ("null", 7), ("{\"cniVersion\":7}", 7), ("\u{0}", 6)]
    {
        assert_eq!(code(&say("ADD", "", input.as_bytes())), expected, "{input:?}");
    }
    let long = vec![b' '; (1 << 20) + 1];
    assert_eq!(code(&say("ADD", "", &long)), 6);
    assert_eq!(code(&say("ADDD", "", b"{}")), 4);
    let lab = Lab::new();
    assert_eq!(code(&lab.says_with("ADD", "X=1", &lab.config("1.1.0"))), 4);
    let nothing = plugin::run(&|_| None, &mut &b"{}"[..]);
    assert_eq!(code(&nothing), 4);
    // What the daemon would not even read.
    let mut config = lab.config("1.1.0");
    let many = (0..20).map(|n| (format!("k{n}"), json!("x".repeat(4000))));
    config["labels"] = Value::Object(many.collect());
    assert_eq!(code(&lab.says("ADD", &config)), 6);
}

#[test]
fn the_daemons_refusals_have_codes() {
    let lab = Lab::new();
    for (refusal, expected) in [
        (ErrorCode::Refused, 100),
        (ErrorCode::Exists, 101),
        (ErrorCode::Unknown, 3),
        (ErrorCode::Forbidden, 5),
    ] {
        *lab.daemon.refuses.lock().unwrap() = Some((refusal, "because"));
        let said = lab.says("ADD", &lab.config("1.1.0"));
        assert_eq!(code(&said), expected);
        assert_eq!(said.error.as_deref(), Some("because"));
    }
}

/// A member of the group may look, and no more.
#[test]
fn only_root_may_attach() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let lab = Lab::new();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(lab.run.path());
    let socket = lab.run.path().join("group");
    fs::create_dir(&socket).unwrap();
    let daemon = lab.daemon.clone();
    let path = socket.join("porin.sock");
    let server = Server::with_patience(&path, Some(NOBODY), daemon, Patience::default()).unwrap();
    let program = lab.run.path().join("porin-cni");
    fs::copy(env!("CARGO_BIN_EXE_porin-cni"), &program).unwrap();
    let mut config = lab.config("1.1.0");
    config["run"] = json!(socket);
    let file = lab.run.path().join("config.json");
    // CHECK has the daemon's answer, which is not what it was told.
    for (operation, expected) in [("ADD", 5), ("DEL", 5), ("CHECK", 100)] {
        if operation == "CHECK" {
            config["prevResult"] = json!({ "cniVersion": "1.1.0" });
        }
        fs::write(&file, config.to_string()).unwrap();
        let output = Command::new(&program)
            .env("CNI_COMMAND", operation)
            .env("CNI_CONTAINERID", "c")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", "/run/netns/c")
            .stdin(fs::File::open(&file).unwrap())
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .output()
            .unwrap();
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(error["code"], expected, "{error}");
    }
    let asked = lab.daemon.asked.lock().unwrap();
    assert!(matches!(asked[..], [Request::Attachment { .. }]), "{asked:?}");
    drop(server);
}

#[test]
fn without_a_daemon_del_removes_the_file_and_status_says_so() {
    let mut lab = Lab::new();
    lab._server = None;
    let config = lab.config("1.1.0");
    assert_eq!(code(&lab.says("STATUS", &config)), 50);
    let id = AttachmentId::new("cni", "net", &["c0ffee", "eth0"]);
    let other = AttachmentId::new("cni", "net", &["c0ffee", "eth1"]);
    fs::create_dir(lab.run.path().join("endpoints.d")).unwrap();
    for id in [&id, &other] {
        fs::write(file(lab.run.path(), id), "").unwrap();
    }
    for _ in 0..2 {
        assert_eq!(lab.says("DEL", &config), Said { output: String::new(), error: None });
    }
    let left = |id| Path::exists(&file(lab.run.path(), id));
    assert!(!left(&id) && left(&other));
}

#[test]
fn deleting_needs_no_more_than_the_networks_name() {
    let lab = Lab::new();
    let mut config = lab.config("0.3.1");
    config["unknown"] = json!({});
    config["labels"] = json!(7);
    assert_eq!(lab.says_with("DEL", "X=1", &config).error, None);
}

#[test]
fn garbage_is_what_the_runtime_does_not_name() {
    let lab = Lab::new();
    let id = |container: &str| AttachmentId::new("cni", "net", &[container, "eth0"]);
    *lab.daemon.list.lock().unwrap() = vec![id("stays"), id("goes")];
    let mut config = lab.config("1.1.0");
    // Nothing named is not the same as none to stay.
    assert_eq!(code(&lab.says("GC", &config)), 7);
    config["cni.dev/valid-attachments"] = json!([{ "containerID": "stays", "ifname": "eth0" }]);
    assert_eq!(lab.says("GC", &config).error, None);
    let asked = lab.daemon.asked.lock().unwrap();
    let prefix = AttachmentId::prefix("cni", "net");
    let expected = [Request::Attachments { prefix }, Request::Detach { id: id("goes") }];
    assert_eq!(asked[..], expected);
}

#[test]
fn check_compares_with_what_was_told() {
    let lab = Lab::new();
    let mut config = lab.config("1.1.0");
    assert_eq!(code(&lab.says("CHECK", &config)), 7);
    config["prevResult"] = result(&lab.says("ADD", &config));
    assert_eq!(lab.says("CHECK", &config).error, None);
    let mut wrong = config.clone();
    wrong["prevResult"]["interfaces"][1]["mac"] = "02:00:00:00:00:08".into();
    assert_eq!(code(&lab.says("CHECK", &wrong)), 100);
    wrong = config;
    wrong["prevResult"]["ips"][0]["address"] = "fd00:10::8/128".into();
    assert_eq!(code(&lab.says("CHECK", &wrong)), 100);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_man_page_has_every_key_and_its_example_is_the_one_that_is_installed() {
    let page = fs::read_to_string(root().join("man/porin-cni.8")).unwrap();
    let (_, keys) = page.split_once(".Sh NETWORK CONFIGURATION").unwrap();
    let keys = keys.split_once(".Ss Labels").unwrap().0;
    // What is known is told to who writes something else.
    let lab = Lab::new();
    let mut config = lab.config("1.1.0");
    config["unknown"] = json!(1);
    let error: Value = serde_json::from_str(&lab.says("ADD", &config).output).unwrap();
    let (_, known) = error["details"].as_str().unwrap().split_once("expected one of ").unwrap();
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    assert!(known.len() > 10, "{known:?}");
    for key in known.into_iter().filter(|key| *key != "cni.dev/attachments") {
        let items = keys.lines().filter_map(|line| line.strip_prefix(".It Ic "));
        let mut names = items.flat_map(|item| item.split(" , "));
        assert!(names.any(|name| name == key), "{key} is not in the page");
    }
    for example in ["10-porin", "20-bridge-porin"] {
        let file = root().join(format!("etc/cni/net.d/{example}.conflist"));
        assert!(page.contains(&fs::read_to_string(file).unwrap()), "the example {example} differs");
    }
}

#[test]
fn the_installed_example_works() {
    let example = fs::read_to_string(root().join("etc/cni/net.d/10-porin.conflist")).unwrap();
    let list: Value = serde_json::from_str(&example).unwrap();
    let lab = Lab::new();
    let mut config = list["plugins"][0].clone();
    assert_eq!(config["type"], "porin-cni");
    // As runtimes do it.
    config["cniVersion"] = list["cniVersion"].clone();
    config["name"] = list["name"].clone();
    config["run"] = json!(lab.run.path());
    config["runtimeConfig"] = json!({ "ips": [], "io.kubernetes.cri.pod-annotations": {} });
    result(&lab.says("ADD", &config));
    assert_eq!(lab.attach().labels.to_string(), "network=porin");
}

#[test]
fn the_man_page_is_clean() {
    let lint = Command::new("mandoc")
        .args(["-T", "lint", "-W", "warning"])
        .arg(root().join("man/porin-cni.8"))
        .output();
    match lint {
        Ok(lint) => assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout)),
        Err(error) => eprintln!("mandoc cannot be run, so the page is not linted: {error}"),
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![".{0,20}", Just("1.1.0".to_owned()), Just("10.0.0.1/8".to_owned())];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Mostly those that mean something.
fn key() -> impl Strategy<Value = String> {
    const KEYS: [&str; 16] = [
        "cniVersion",
        "name",
        "labels",
        "args",
        "cni",
        "ips",
        "runtimeConfig",
        "prevResult",
        "interfaces",
        "address",
        "dns",
        "nameservers",
        "ipam",
        "key",
        "value",
        "cni.dev/valid-attachments",
    ];
    prop_oneof![4 => prop::sample::select(&KEYS[..]).prop_map(str::to_owned), 1 => ".{0,8}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever comes, there is an answer of one of the two forms.
    #[test]
    fn no_input_makes_it_panic(
        operation in prop::sample::select(&["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "x"][..]),
        arguments in "[A-Z_0-9=;,./:]{0,40}|.{0,40}",
        mut config in json_value(),
        whole in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        static LAB: LazyLock<Lab> = LazyLock::new(Lab::new);
        let said = match &mut config {
            Value::Object(config) if whole => {
                let basics = LAB.config("1.1.0");
                config.extend(basics.as_object().unwrap().clone());
                say(operation, &arguments, Value::Object(config.clone()).to_string().as_bytes())
            }
            config if whole => say(operation, &arguments, config.to_string().as_bytes()),
            _ => say(operation, &arguments, &bytes),
        };
        match said.error {
            Some(_) => prop_assert!((1..200).contains(&code(&said))),
            None if said.output.is_empty() => {}
            None => prop_assert!(result(&said)["cniVersion"].is_string()),
        }
    }
}
