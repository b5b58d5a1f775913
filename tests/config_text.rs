//! Whatever bytes a file has, loading it gives a configuration or an error, never a panic; and what
//! is printed reads back to the same.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use porin::config::model::{Config, Endpoint, Host, Policy};
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
    let name = name.replace("a.toml", "shop.toml");
    fs::read_to_string(root.join(name)).unwrap()
}

/// Words of the language, so that random text is often nearly right.
fn soup() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "[[policy]]",
        "[policy]",
        "[[policy.ingress]]",
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
    assert_eq!((config.endpoints.len(), config.policies.len()), (3, 3));
    let printed = printed(&config);
    let printed: Vec<_> = FILES.into_iter().zip(printed.iter().map(String::as_bytes)).collect();
    let again = load(&printed);
    assert_eq!(placeless(&again.config.expect("printed")), placeless(&config));
}

fn printed(config: &Config) -> [String; 3] {
    [
        print::host(&config.host),
        config.endpoints.iter().map(|endpoint| print::endpoint(endpoint)).collect(),
        config.policies.iter().map(|policy| print::policy(policy)).collect(),
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
    Config {
        host,
        endpoints: config.endpoints.iter().map(endpoint).collect(),
        policies: config.policies.iter().map(policy).collect(),
        ..Config::default()
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
                text.push_str("ports = { http = \"8080/tcp\", dns = \"53/udp\" }\n");
            }
        }
        text
    });
    let peer = prop::sample::select(vec![
        "app=web",
        "",
        "a in (b,c),!d",
        "a notin (x, y)",
        "entity:all",
        "entity:host",
        "entity:world",
        "cidr:10.0.0.0/8",
        "cidr:10.0.0.0/12",
        "cidr:::/0",
        "cidr:0.0.0.0/0",
        "cidr:192.0.2.1/32",
    ]);
    let port = prop::sample::select(vec![
        "80/tcp",
        "1-65535/udp",
        "*/tcp",
        "udp",
        "icmp",
        "icmpv6/echo-request",
        "icmp/echo-request",
    ]);
    let rule = (
        prop::option::of(prop::collection::vec(peer, 1..4)),
        prop::option::of(prop::collection::vec(port, 1..4)),
        any::<[bool; 2]>(),
    );
    let rules = || prop::option::of(prop::collection::vec(rule.clone(), 0..4));
    let policies = prop::collection::vec((rules(), rules()), 0..4).prop_map(|policies| {
        let mut text = String::new();
        for (i, directions) in policies.into_iter().enumerate() {
            text.push_str(&format!("[[policy]]\nname = \"p{i}\"\nsubject = \"app=x{i}\"\n"));
            for (key, peers, rules) in
                [("ingress", "from", directions.0), ("egress", "to", directions.1)]
            {
                let rules = rules.map(|rules| {
                    rules.into_iter().map(|rule| inline(peers, rule)).collect::<Vec<_>>().join(", ")
                });
                if let Some(rules) = rules {
                    text.push_str(&format!("{key} = [{rules}]\n"));
                }
            }
        }
        text
    });
    (host, endpoints, policies).prop_map(|(host, endpoints, policies)| [host, endpoints, policies])
}

type RuleParts = (Option<Vec<&'static str>>, Option<Vec<&'static str>>, [bool; 2]);

fn inline(key: &str, (peers, ports, [except, deny]): RuleParts) -> String {
    let mut parts = Vec::new();
    if let Some(peers) = peers {
        if except && peers.contains(&"cidr:10.0.0.0/8") {
            parts.push("except = [\"cidr:10.1.0.0/16\", \"cidr:10.128.0.0/16\"]".to_owned());
        }
        parts.push(format!("{key} = {peers:?}"));
    }
    if let Some(ports) = ports {
        parts.push(format!("ports = {ports:?}"));
    }
    if deny {
        parts.push("action = \"deny\"".to_owned());
    }
    format!("{{ {} }}", parts.join(", "))
}
