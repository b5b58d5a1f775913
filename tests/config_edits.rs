//! A loader that is told where to look must find what one that looks at everything finds.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use porin::config::{Changed, Loader};
use proptest::prelude::*;

const NAMES: [&str; 4] = ["a.toml", "b.toml", "c.toml", "c.toml~"];
const DIRECTORIES: [&str; 2] = ["policies.d", "endpoints.d"];

#[derive(Debug, Clone)]
struct Edit {
    root: usize,
    directory: usize,
    name: usize,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Remove,
    /// Links to nowhere, to `/dev/null`, or to a file outside of the roots.
    Link(u8),
    Directory,
    Write(String),
}

fn policy() -> impl Strategy<Value = String> {
    (0..4u8, 0..3u8, 0..5u8).prop_map(|(name, app, more)| {
        let peer = if more == 1 { "group:g" } else { "app=web" };
        let more = match more {
            2 => "[[group]]\nname = \"g\"\nmembers = [\"cidr:192.0.2.0/24\"]\n",
            3 => "[[assert]]\nnever = { from = [\"app=x\"], to = [\"app=y\"] }\n",
            _ => "",
        };
        format!(
            "[[policy]]\nname = \"p{name}\"\nsubject = \"app=a{app}\"\n[[policy.ingress]]\n\
             from = [\"{peer}\"]\n{more}"
        )
    })
}

fn endpoint() -> impl Strategy<Value = String> {
    (0..4u8, 0..4u8).prop_map(|(name, address)| {
        format!(
            "[[endpoint]]\nname = \"e{name}\"\nnamespace = \"/run/netns/e{name}\"\n\
             ipv4 = \"10.{address}.0.9\"\nipv6 = \"none\"\n"
        )
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => policy(),
        8 => endpoint(),
        2 => (policy(), policy()).prop_map(|(a, b)| a + &b),
        1 => Just("[[policy]\n".to_owned()),
        1 => Just(String::new()),
        1 => Just("[[policy]]\nname = \"w\"\nsubject = \"world\"\n[[policy.ingress]]\n".to_owned()),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    let what = prop_oneof![
        3 => Just(What::Remove),
        1 => (0..3u8).prop_map(What::Link),
        1 => Just(What::Directory),
        16 => text().prop_map(What::Write),
    ];
    let root = prop_oneof![5 => Just(0usize), 1 => Just(1usize)];
    (root, 0..DIRECTORIES.len(), 0..NAMES.len(), what)
        .prop_map(|(root, directory, name, what)| Edit { root, directory, name, what })
}

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Tree {
        let tree = Tree { dir: tempfile::tempdir().unwrap() };
        for root in tree.roots() {
            for directory in DIRECTORIES {
                fs::create_dir_all(root.join(directory)).unwrap();
            }
        }
        let pools = "[[pool]]\nname = \"four\"\nnetwork = \"10.0.0.0/14\"\n";
        fs::write(tree.roots()[0].join("porin.toml"), pools).unwrap();
        fs::write(tree.dir.path().join("elsewhere.toml"), "").unwrap();
        tree
    }

    fn roots(&self) -> Vec<PathBuf> {
        ["etc", "run"].map(|root| self.dir.path().join(root)).to_vec()
    }

    /// What an inotify event would name.
    fn apply(&self, edit: &Edit) -> PathBuf {
        let directory = self.roots()[edit.root].join(DIRECTORIES[edit.directory]);
        let path = directory.join(NAMES[edit.name]);
        remove(&path);
        match &edit.what {
            What::Remove => {}
            What::Link(0) => symlink(self.dir.path().join("nowhere"), &path).unwrap(),
            What::Link(1) => symlink("/dev/null", &path).unwrap(),
            What::Link(_) => symlink(self.dir.path().join("elsewhere.toml"), &path).unwrap(),
            What::Directory => fs::create_dir(&path).unwrap(),
            What::Write(text) => fs::write(&path, text).unwrap(),
        }
        path
    }
}

fn remove(path: &Path) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if metadata.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }.unwrap();
}

/// The configuration and every fault, warnings included.
fn found(loader: &mut Loader, changed: &Changed) -> (String, String) {
    let loaded = loader.look(changed);
    let report = loader.report();
    (format!("{:#?}", loaded.config), format!("{} {report}", loaded.files))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn where_to_look_makes_no_difference(rounds in prop::collection::vec(prop::collection::vec(edit(), 0..3), 1..12)) {
        let tree = Tree::new();
        let mut told = Loader::new(tree.roots());
        told.load();
        for edits in rounds {
            let paths: BTreeSet<PathBuf> = edits.iter().map(|edit| tree.apply(edit)).collect();
            let fresh = found(&mut Loader::new(tree.roots()), &Changed::Any);
            prop_assert_eq!(&found(&mut told, &Changed::At(paths)), &fresh);
            // What is kept is no other for having been told.
            prop_assert_eq!(&found(&mut told, &Changed::Any), &fresh);
        }
    }
}

/// The case that it is for: of very many files one is looked at.
#[test]
fn only_what_is_named_is_read() {
    let tree = Tree::new();
    let policies = tree.roots()[0].join("policies.d");
    let policy = |n: usize, app: &str| {
        format!(
            "[[policy]]\nname = \"p{n}\"\nsubject = \"app={app}\"\n[[policy.ingress]]\nfrom = [\"app=x\"]\n"
        )
    };
    for n in 0..20 {
        fs::write(policies.join(format!("{n}.toml")), policy(n, "a")).unwrap();
    }
    let mut loader = Loader::new(tree.roots());
    let before = loader.load().config.unwrap();
    // Neither is told of: one that is read would be missed.
    fs::write(policies.join("1.toml"), policy(1, "b")).unwrap();
    fs::remove_file(policies.join("2.toml")).unwrap();
    fs::write(policies.join("3.toml"), policy(3, "b")).unwrap();
    let at = |path: PathBuf| Changed::At(BTreeSet::from([path]));
    let after = loader.look(&at(policies.join("3.toml"))).config.unwrap();
    let differ = after.policies.values().filter(|p| before.policies.get(&p.name) != Some(p));
    let differ: Vec<String> = differ.map(|policy| policy.name.to_string()).collect();
    assert_eq!((after.policies.len(), differ), (20, vec!["p3".to_owned()]));
    // What is no file of ours says nothing of where to look.
    let after = loader.look(&at(tree.dir.path().join("elsewhere"))).config.unwrap();
    assert_eq!(after.policies.len(), 19);
}
