//! Man pages and the commented `porin.toml` know every key that the readers accept, and no other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use porin::config::keys::{Key, Keys, PAGES};
use porin::config::model::Config;
use porin::config::{Loader, print};
use porin::types::{Protocol, icmp};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> PathBuf {
    root().join(format!("man/{name}.5"))
}

fn is_table(key: &Key) -> bool {
    key.example.starts_with('[')
}

/// The part of a page between a table's heading and the next.
fn section<'p>(page: &'p str, keys: &Keys) -> &'p str {
    let title = keys.title.trim_end_matches(|c: char| c != ']');
    let heading = |line: &str| match title {
        "" => line == ".Sh KEYS",
        title => line.starts_with(".Ss") && line.split(' ').any(|word| word == title),
    };
    let start = page.split_inclusive('\n').scan(0, |at, line| {
        *at += line.len();
        Some((*at, line))
    });
    let after = start.into_iter().find(|(_, line)| heading(line.trim_end()));
    let rest = &page[after.unwrap_or_else(|| panic!("no section {}", keys.title)).0..];
    let ends = ["\n.Ss ", "\n.Sh "].into_iter().filter_map(|end| rest.find(end));
    &rest[..ends.min().unwrap_or(rest.len())]
}

#[test]
fn man_pages_have_every_key_with_type_default_and_example() {
    for (name, tables) in PAGES {
        let text = fs::read_to_string(page(name)).unwrap();
        for keys in tables {
            let section = section(&text, keys);
            for key in keys.keys {
                let known = |item: &str| {
                    if is_table(key) {
                        item.contains(key.example)
                    } else {
                        item.contains(&format!(".It Ic {} No = Ar {}\n", key.name, key.kind))
                    }
                };
                let item = section.split("\n.It ").map(|item| format!(".It {item}"));
                let item = item.into_iter().find(|item| known(item));
                let item =
                    item.unwrap_or_else(|| panic!("{name}(5): no {} {}", keys.title, key.name));
                if is_table(key) {
                    continue;
                }
                assert!(item.contains(".Dl "), "{name}(5): {} has no example", key.name);
                let default = match key.default {
                    "" if item.contains("Must be given") => continue,
                    "" => "Default:".to_owned(),
                    default => format!("Default:\n.Ql {}", default.replace('"', "\\(dq")),
                };
                assert!(item.contains(&default), "{name}(5): {}: {default}", key.name);
                let unit = key.unit.split(' ').next().unwrap_or_default();
                assert!(section.to_lowercase().contains(unit), "{name}(5): {}: {unit}", key.name);
            }
        }
    }
}

#[test]
fn man_pages_are_clean() {
    for (name, _) in PAGES {
        let lint =
            Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(page(name)).output();
        match lint {
            Ok(lint) => assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout)),
            Err(error) => eprintln!("mandoc cannot be run, so pages are not linted: {error}"),
        }
    }
}

#[test]
fn the_commented_file_has_every_setting_at_its_default() {
    let text = fs::read_to_string(root().join("etc/porin/porin.toml")).unwrap();
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')));
    let (_, tables) = PAGES[0];
    for keys in tables {
        for key in keys.keys {
            let line = match key.default {
                _ if is_table(key) => format!("\n#{}\n", key.example),
                "" => format!("\n#{} = ", key.name),
                default => format!("\n#{} = {default}\n", key.name),
            };
            assert!(text.contains(&line), "{}: {line}", keys.title);
        }
    }
    // Uncommented it is valid, and says nothing but defaults apart from its examples.
    let settings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let settings: Vec<_> = settings.filter(|line| !line.starts_with(' ')).collect();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("porin.toml"), settings.join("\n")).unwrap();
    let loaded = Loader::new(vec![directory.path().to_owned()]).load();
    assert_eq!(loaded.report.to_string(), "");
    let mut host = loaded.config.unwrap().host.clone();
    assert_eq!((host.mtu.take(), host.pools.len()), (Some(1400), 2));
    host.pools.clear();
    assert_eq!(print::host(&host), print::host(&Config::default().host));
}

#[test]
fn every_example_is_toml() {
    for (_, tables) in PAGES {
        for key in tables.iter().flat_map(|keys| keys.keys) {
            let parsed: Result<toml::Table, _> = key.example.parse();
            assert!(parsed.is_ok_and(|table| table.len() == 1), "{}", key.example);
            let default: Result<toml::Table, _> = format!("x = {}", key.default).parse();
            assert!(key.default.is_empty() || default.is_ok(), "{}", key.default);
        }
    }
}

#[test]
fn the_page_has_every_name_of_icmp() {
    let text = fs::read_to_string(page("porin.policy")).unwrap();
    let table = |from: &str| {
        let start = text.find(from).unwrap_or_else(|| panic!("no {from}"));
        let end = text[start..].find(".El").unwrap();
        text[start..start + end].to_owned()
    };
    for (protocol, from) in [
        (Protocol::ICMP, "Types and codes of ICMP:"),
        (Protocol::ICMPV6, "Types and codes of ICMPv6:"),
    ] {
        let table = table(from);
        for message in icmp::messages(protocol) {
            let item = format!(".It Li {}\ntype {}, ", message.name, message.kind);
            assert!(table.contains(&item), "{item}");
            let codes = message.code_names().join(" , ");
            assert!(codes.is_empty() || table.contains(&format!(".Li {codes}\n")), "{codes}");
        }
    }
}

#[test]
fn examples_of_policies_are_policies() {
    let text = fs::read_to_string(page("porin.policy")).unwrap();
    let blocks = text.split(".Bd -literal").skip(1).map(|block| {
        let (_, block) = block.split_once('\n').unwrap();
        block.split_once("\n.Ed").unwrap().0
    });
    let mut tried = 0;
    for block in blocks.filter(|block| !block.starts_with("spec:")) {
        let policy = "[[policy]]\nname = \"x\"\nsubject = \"\"\n";
        let policy = if block.contains("[[policy]]") { "" } else { policy };
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("policies.d")).unwrap();
        fs::write(directory.path().join("policies.d/x.toml"), format!("{policy}{block}")).unwrap();
        let loaded = Loader::new(vec![directory.path().to_owned()]).load();
        assert_eq!(loaded.report.errors, 0, "{block}\n{}", loaded.report);
        tried += 1;
    }
    assert!(tried > 6);
}
