//! The order of the modules: each uses only those above it, and the pure ones are pure.

use std::fs;
use std::path::{Path, PathBuf};

const ORDER: [&str; 11] = [
    "types", "config", "desired", "compile", "kernel", "observe", "proxy", "control", "adapter",
    "daemon", "bin",
];

/// Modules that do no I/O and read no clock, and how that would look.
const PURE: [&str; 3] = ["types", "desired", "compile"];
const IMPURE: [&str; 14] = [
    "std::fs",
    "std::io",
    "std::process",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "tokio",
    "rustix",
];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The source files of a module, with their text without comments.
fn module(name: &str) -> Vec<(PathBuf, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = sources(&source.join(name));
    files.extend(Some(source.join(format!("{name}.rs"))).filter(|file| file.exists()));
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let code = |line: &str| line.split("//").next().unwrap_or("").to_owned();
        let text = text.lines().map(code).collect::<Vec<_>>().join("\n");
        (file, text)
    };
    files.into_iter().map(read).collect()
}

/// Every first name after `root::`, also those in `root::{a, b::{c}}`.
fn used(text: &str, root: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices(&format!("{root}::")) {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + root.len() + 2..];
        let word = |text: &str| {
            let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
            text[..end.unwrap_or(text.len())].to_owned()
        };
        let Some(list) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let (mut depth, mut fresh) = (0, true);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                c if fresh && !c.is_whitespace() => {
                    names.push(word(&list[i..]));
                    fresh = false;
                }
                _ => {}
            }
        }
    }
    names
}

/// How often `super` leads from a file's top level to the crate's root.
fn depth(file: &Path, module: &str) -> usize {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module);
    let Ok(inside) = file.strip_prefix(source) else { return 1 };
    let parts = inside.components().count();
    if inside.ends_with("mod.rs") { parts } else { parts + 1 }
}

#[test]
fn modules_use_only_those_above_them() {
    let mut faults = Vec::new();
    for (place, name) in ORDER.iter().enumerate() {
        for (file, text) in module(name) {
            let up = vec!["super"; depth(&file, name)].join("::");
            let mut names = used(&text, "crate");
            names.extend(used(&text, "porin"));
            names.extend(used(&text, &up).into_iter().filter(|name| name != "super"));
            for other in names {
                match ORDER.iter().position(|module| *module == other) {
                    Some(below) if below > place => {
                        faults.push(format!("{}: uses {other}", file.display()));
                    }
                    Some(_) => {}
                    None if ["deny", "main"].contains(&other.as_str()) => {}
                    None => faults.push(format!("{}: `{other}` is no module", file.display())),
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn pure_modules_are_pure() {
    let mut faults = Vec::new();
    for name in PURE {
        let files = module(name);
        assert!(!files.is_empty(), "{name} has no sources");
        for (file, text) in files {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            for word in IMPURE {
                let found = text.match_indices(word).any(|(at, _)| {
                    !text[..at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word)
                });
                if found {
                    faults.push(format!("{}: {word}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_scan_sees_what_it_must() {
    let text =
        "use crate::{types::Name, kernel::{a, b},\n daemon};\ncrate::config::x(); mycrate::no";
    assert_eq!(used(text, "crate"), ["types", "kernel", "daemon", "config"]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_eq!(depth(&source.join("desired/mod.rs"), "desired"), 1);
    assert_eq!(depth(&source.join("desired/state.rs"), "desired"), 2);
    assert_eq!(depth(&source.join("desired/ipam/pool.rs"), "desired"), 3);
}
