//! Whatever bytes a file has, loading it gives a configuration or an error, never a panic; and what
//! is printed reads back to the same.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use porin::config::model::{self, Assert, Config, Endpoint, Group, Host, Policy};
use porin::config::{Loaded, Loader, Report, print};
use porin::types::Origin;
use proptest::prelude::*;

const FILES: [&str; 3] = ["porin.toml", "endpoints.d/a.toml", "policies.d/a.toml"];

fn load(files: &[(&str, &[u8])]) -> Loaded {
    let root = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    Loader::new(vec![root.path().to_owned()]).load()
}

fn sound(loaded: &Loaded) {
    let report: &Report = &loaded.report;
    assert_eq!(loaded.config.is_none(), report.errors > 0, "{report}");
    for shown in [report.to_string(), report.terminal(false, 80)] {
        let raw = shown.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(raw, None, "{shown:?}");
    }
    serde_json::to_string(report).unwrap();
}

fn example(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/porin/examples");
    let read =
        |as_name: &str| fs::read_to_string(root.join(name.replace("a.toml", as_name))).unwrap();
    match name.starts_with("policies.d") {
        true => read("shop.toml") + &read("house.toml"),
        false => read("shop.toml"),
    }
}

/// Words of the language, so that random text is often nearly right.
fn soup() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "[[policy]]",
        "[policy]",
        "[[policy.ingress]]",
        "[[group]]",
        "[[assert]]",
        "[assert.never]",
        "[[endpoint]]",
        "[[pool]]",
        "[labels]",
        "name",
        "subject",
        "from",
        "to",
        "ports",
        "except",
        "action",
        "tier",
        "priority",
        "default",
        "mode",
        "source-ports",
        "match-endpoints",
        "members",
        "never",
        "always",
        "remote-hosts",
        "unmanaged",
        "network",
        "namespace",
        "ipv4",
        "ipv6",
        "=",
        ".",
        ",",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "\"a\"",
        "\"app=web\"",
        "\"80/tcp\"",
        "\"53/any\"",
        "\"http/tcp\"",
        "\"icmp/3/3\"",
        "\"icmp//\"",
        "\"protocol/é\"",
        "\"1024-65535\"",
        "publish",
        "\"8080:80/tcp\"",
        "\"[::1]:é\"",
        "\"admin\"",
        "\"shadow\"",
        "\"group:a\"",
        "\"group:\"",
        "{ app = true }",
        "\"cidr:10.0.0.0/8\"",
        "\"cidr:é\"",
        "\"entity:all\"",
        "\"/run/netns/a\"",
        "#",
        "1",
        "1.5",
        "true",
        "1979-05-27",
        "0x",
        "\n",
        "\r\n",
        "\t",
        "\\",
        "\u{1b}",
        "é",
        "日本",
        "\0",
        "\u{202e}",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn bytes_never_panic(content in prop::collection::vec(any::<u8>(), 0..300), which in 0..3usize) {
        sound(&load(&[(FILES[which], &content)]));
    }

    #[test]
    fn text_never_panics(text in ".{0,200}", which in 0..3usize) {
        sound(&load(&[(FILES[which], text.as_bytes())]));
    }

    #[test]
    fn words_never_panic(text in soup(), which in 0..3usize) {
        sound(&load(&[(FILES[which], text.as_bytes())]));
    }

    #[test]
    fn mutated_files_never_panic(
        which in 0..3usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<u8>()), 1..6),
    ) {
        let mut files: Vec<_> = FILES.iter().map(|name| (*name, example(name).into_bytes())).collect();
        let content = &mut files[which].1;
        for (index, edit, byte) in edits {
            let at = index.index(content.len());
            match edit {
                0 => content[at] = byte,
                // Never to nothing: there is a place for every edit.
                1 if content.len() == 1 => {}
                1 => drop(content.remove(at)),
                2 => content.insert(at, byte),
                _ => content.truncate(at.max(1)),
            }
        }
        let files: Vec<_> = files.iter().map(|(name, content)| (*name, content.as_slice())).collect();
        sound(&load(&files));
    }

    #[test]
    fn what_is_printed_reads_back(files in valid()) {
        let files: Vec<_> = FILES.into_iter().zip(files.iter().map(String::as_bytes)).collect();
        let loaded = load(&files);
        prop_assert!(loaded.config.is_some(), "{}", loaded.report);
        let config = loaded.config.unwrap();
        let printed = printed(&config);
        let printed: Vec<_> = FILES.into_iter().zip(printed.iter().map(String::as_bytes)).collect();
        let again = load(&printed);
        prop_assert!(again.config.is_some(), "{}", again.report);
        prop_assert_eq!(placeless(&again.config.unwrap()), placeless(&config));
    }
}

#[test]
fn the_examples_load_without_a_word_and_read_back() {
    let files = FILES.map(|name| (name, example(name)));
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    let loaded = load(&files);
    assert_eq!(loaded.report.to_string(), "");
    let config = loaded.config.unwrap();
    assert_eq!((config.endpoints.len(), config.policies.len()), (3, 5));
    assert_eq!((config.groups.len(), config.asserts.len()), (1, 2));
    let printed = printed(&config);
    let printed: Vec<_> = FILES.into_iter().zip(printed.iter().map(String::as_bytes)).collect();
    let again = load(&printed);
    assert_eq!(placeless(&again.config.expect("printed")), placeless(&config));
}

fn printed(config: &Config) -> [String; 3] {
    [
        print::host(&config.host),
        config.endpoints.iter().map(|endpoint| print::endpoint(endpoint)).collect(),
        [
            config.policies.values().map(|policy| print::policy(policy)).collect::<String>(),
            config.groups.iter().map(|group| print::group(group)).collect(),
            config.asserts.iter().map(|assert| print::assertion(assert)).collect(),
        ]
        .concat(),
    ]
}

/// With every place the same.
fn placeless(config: &Config) -> Config {
    let nowhere = Origin { file: Path::new("/").into(), line: 0, column: 0 };
    let mut host: Host = config.host.clone();
    host.pools.iter_mut().for_each(|pool| pool.origin = nowhere.clone());
    host.uplinks.iter_mut().for_each(|uplink| uplink.origin = nowhere.clone());
    let endpoint = |endpoint: &Arc<Endpoint>| {
        Arc::new(Endpoint { origin: nowhere.clone(), ..Endpoint::clone(endpoint) })
    };
    let policy = |policy: &Arc<Policy>| {
        let mut policy = Policy { origin: nowhere.clone(), ..Policy::clone(policy) };
        policy.ingress_origin = policy.ingress_origin.map(|_| nowhere.clone());
        policy.egress_origin = policy.egress_origin.map(|_| nowhere.clone());
        for rule in policy.ingress.iter_mut().chain(&mut policy.egress).flatten() {
            rule.origin = nowhere.clone();
        }
        Arc::new(policy)
    };
    let group =
        |group: &Arc<Group>| Arc::new(Group { origin: nowhere.clone(), ..Group::clone(group) });
    let assert = |assert: &Arc<Assert>| {
        Arc::new(Assert { origin: nowhere.clone(), ..Assert::clone(assert) })
    };
    Config {
        host,
        endpoints: config.endpoints.iter().map(endpoint).collect(),
        policies: model::by_name(config.policies.values().map(policy)),
        groups: config.groups.iter().map(group).collect(),
        asserts: config.asserts.iter().map(assert).collect(),
    }
}

/// Three files without faults.
fn valid() -> impl Strategy<Value = [String; 3]> {
    let host = (any::<[bool; 6]>(), 1280..65535u32, 1024..65535u32, 1..1_000_000u32, 1..500u32);
    let host = host.prop_map(|(some, mtu, port, rate, quiet)| {
        let mut text = String::new();
        let mut put = |some: bool, line: String| {
            if some {
                text.push_str(&line);
                text.push('\n');
            }
        };
        put(some[0], format!("mtu = {mtu}"));
        put(some[1], "uplinks = [\"eth0\", 'wan\\0']".to_owned());
        put(
            some[2],
            "remote-hosts = [\"192.0.2.9\", \"192.0.2.8/31\", \"2001:db8::/64\"]".to_owned(),
        );
        put(some[3], "unmanaged = \"172.16.0.0/12\"".to_owned());
        put(true, "[[pool]]\nname = \"a\"\nnetwork = \"10.0.0.0/16\"".to_owned());
        put(some[2], "reserved = [\"10.0.3.0/24\", \"10.0.9.9\"]".to_owned());
        put(true, "[[pool]]\nname = \"b\"\nnetwork = \"fd00::/64\"".to_owned());
        put(some[3], format!("[masquerade]\nenabled = {}\nports = \"{port}-65535\"", some[0]));
        put(
            some[4],
            format!("[flows]\nrate = {rate}\n[labels]\ninclude = \"a*\"\nexclude = [\"abc\"]"),
        );
        put(some[5], format!("[reload]\nquiet = \"{quiet}ms\"\nat-most = \"3s\""));
        text
    });
    let value = "[^\\p{Cc}]{0,12}";
    let endpoint = ("[a-z]{1,8}", "[a-z./:-]{1,9}", value, 2..250u32, any::<[bool; 3]>());
    let endpoints = prop::collection::vec(endpoint, 0..6).prop_map(|endpoints| {
        let mut text = String::new();
        for (i, (name, key, value, host, some)) in endpoints.into_iter().enumerate() {
            let value = toml::Value::from(value);
            text.push_str(&format!(
                "[[endpoint]]\nname = \"{name}-{i}\"\nnamespace = \"/n/{i}\"\n"
            ));
            text.push_str(&format!("labels = {{ \"{key}\" = {value} }}\n"));
            if some[0] {
                text.push_str(&format!("ipv4 = \"10.0.{}.{host}\"\n", i + 1));
            }
            if some[1] {
                text.push_str("ipv6 = \"none\"\ninterface = \"net1\"\n");
            }
            if some[2] {
                text.push_str(
                    "ports = { http = \"8080/tcp\", dns = \"53/udp\", m3 = \"2905/sctp\" }\n",
                );
                text.push_str(&format!(
                    "publish = [\"{port}:80/tcp\", \"[::]:{port}:53/udp\", \"192.0.2.{host}:{port}-{last}:1-2/udp\"]\n",
                    port = 100 + 2 * i,
                    last = 101 + 2 * i,
                ));
            }
        }
        text
    });
    (host, endpoints, policies())
        .prop_map(|(host, endpoints, policies)| [host, endpoints, policies])
}

const PEERS: [&str; 30] = [
    "\"app=web\"",
    "\"\"",
    "\"a in (b,c),!d\"",
    "\"a notin (x, y)\"",
    "\"a!=x,a!=y,cidr:b\"",
    "{}",
    "{ app = \"web\", env = [\"prod\", \"test\"] }",
    "{ app = true, \"io.example/x\" = false }",
    "{ note = \"a, b (c) = d!\" }",
    "{ \"cidr:x\" = \"y\" }",
    "{ \"10.0.0.1\" = true }",
    "{ \"entitty:x\" = [\"y\", \"\", \"=\"] }",
    "\"entity:all\"",
    "\"entity:host\"",
    "\"entity:remote-host\"",
    "\"entity:world\"",
    "\"entity:world-ipv4\"",
    "\"entity:world-ipv6\"",
    "\"entity:cluster\"",
    "\"entity:unmanaged\"",
    "\"cidr:10.0.0.0/8\"",
    "\"cidr:10.0.0.0/12\"",
    "\"cidr:10.1.2.0/24\"",
    "\"cidr:::/0\"",
    "\"cidr:0.0.0.0/0\"",
    "\"cidr:192.0.2.1/32\"",
    // Groups have only those above.
    "\"group:g0\"",
    "\"group:g1\"",
    "\"group:g2\"",
    "\"group:g2\"",
];

fn peers(kinds: usize, some: std::ops::Range<usize>) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(&PEERS[..kinds]), some)
}

fn ports() -> impl Strategy<Value = Vec<&'static str>> {
    let port = prop::sample::select(vec![
        "80/tcp",
        "1-65535/udp",
        "*/tcp",
        "*/any",
        "udp",
        "sctp",
        "tcp+udp",
        "53/tcp+udp",
        "53/any",
        "http/tcp",
        "dns/any",
        "no-such/sctp",
        "gre",
        "protocol/89",
        "icmp",
        "icmp/8",
        "icmp/3/3",
        "icmp/3",
        "icmp/77/7",
        "icmpv6/echo-request",
        "icmpv6/nd-neighbor-solicit",
        "icmpv6/1/port-unreachable",
    ]);
    prop::collection::vec(port, 1..4)
}

#[derive(Debug, Clone)]
struct RuleParts {
    peers: Option<Vec<&'static str>>,
    ports: Option<Vec<&'static str>>,
    source_ports: Option<Vec<&'static str>>,
    action: Option<&'static str>,
    except: bool,
    match_endpoints: Option<bool>,
}

fn rule() -> impl Strategy<Value = RuleParts> {
    let source_ports = prop::sample::select(vec!["53", "1-1023", "1024-65535", "53-53"]);
    let action = prop::sample::select(vec!["allow", "deny", "reject", "pass"]);
    (
        prop::option::of(peers(PEERS.len(), 1..4)),
        prop::option::of(ports()),
        prop::option::weighted(0.3, prop::collection::vec(source_ports, 1..3)),
        prop::option::of(action),
        any::<bool>(),
        any::<Option<bool>>(),
    )
        .prop_map(|(peers, ports, source_ports, action, except, match_endpoints)| RuleParts {
            peers,
            ports,
            source_ports,
            action,
            except,
            match_endpoints,
        })
}

/// `policies.d/a.toml`: policies, the groups that they name, and asserts.
fn policies() -> impl Strategy<Value = String> {
    let rules = || prop::option::of(prop::collection::vec(rule(), 0..4));
    let head = prop::sample::select(vec![
        "",
        "tier = \"normal\"\ndefault = \"allow\"\n",
        "tier = \"admin\"\npriority = 0\n",
        "tier = \"admin\"\npriority = 7\ndefault = \"deny\"\nmode = \"enforce\"\n",
        "tier = \"baseline\"\npriority = 1000\nmode = \"shadow\"\n",
        "mode = \"shadow\"\ndefault = \"deny\"\n",
    ]);
    let subject = prop::sample::select(&PEERS[..12]);
    let policy = (head, subject, rules(), rules());
    let group = (peers(26, 0..8), any::<[bool; 2]>());
    let claim = (
        any::<bool>(),
        prop::option::of(peers(PEERS.len(), 1..3)),
        prop::option::of(peers(26, 1..2)),
        prop::option::of(ports()),
    );
    let some = (
        prop::collection::vec(policy, 0..4),
        prop::collection::vec(group, 3),
        prop::collection::vec(claim, 0..3),
    );
    some.prop_map(|(policies, groups, claims)| {
        let mut text = String::new();
        for (i, (head, subject, ingress, egress)) in policies.into_iter().enumerate() {
            text.push_str(&format!("[[policy]]\nname = \"p{i}\"\nsubject = {subject}\n{head}"));
            for (key, peers, rules) in [("ingress", "from", ingress), ("egress", "to", egress)] {
                let Some(rules) = rules else { continue };
                let rules: Vec<_> = rules.into_iter().map(|rule| inline(peers, rule)).collect();
                text.push_str(&format!("{key} = [{}]\n", rules.join(", ")));
            }
        }
        for (i, (members, except)) in groups.into_iter().enumerate() {
            text.push_str(&format!("[[group]]\nname = \"g{i}\"\nmembers = [{}]\n", members.join(", ")));
            let all = members.contains(&"\"cidr:0.0.0.0/0\"");
            if except[0] && (all || members.contains(&"\"cidr:10.0.0.0/8\"")) {
                text.push_str("except = [\"cidr:10.1.0.0/16\", \"cidr:10.128.0.0/16\", \"cidr:10.1.0.0/24\"]\n");
            }
        }
        for (never, from, to, ports) in claims {
            let mut parts = Vec::new();
            parts.extend(from.map(|from| format!("from = [{}]", from.join(", "))));
            parts.extend(to.map(|to| format!("to = {}", to[0])));
            parts.extend(ports.map(|ports| format!("ports = {ports:?}")));
            let key = if never { "never" } else { "always" };
            text.push_str(&format!("[[assert]]\n{key} = {{ {} }}\n", parts.join(", ")));
        }
        text
    })
}

fn inline(key: &str, rule: RuleParts) -> String {
    let mut parts = Vec::new();
    if let Some(peers) = rule.peers {
        if rule.except
            && peers.contains(&"\"cidr:10.0.0.0/8\"")
            && !peers.contains(&"\"cidr:10.1.2.0/24\"")
        {
            parts.push("except = [\"cidr:10.1.0.0/16\", \"cidr:10.128.0.0/16\"]".to_owned());
        }
        parts.push(format!("{key} = [{}]", peers.join(", ")));
    }
    parts.extend(rule.ports.map(|ports| format!("ports = {ports:?}")));
    parts.extend(rule.source_ports.map(|ports| format!("source-ports = {ports:?}")));
    parts.extend(rule.match_endpoints.map(|yes| format!("match-endpoints = {yes}")));
    parts.extend(rule.action.map(|action| format!("action = \"{action}\"")));
    format!("{{ {} }}", parts.join(", "))
}
