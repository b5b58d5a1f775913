//! The loader on directories as people, packages and accidents make them.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use porin::config::model::{Boot, Config};
use porin::config::{Loaded, Loader};
use tempfile::TempDir;

struct Tree(TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Tree(tempfile::tempdir().unwrap());
        for (name, content) in files {
            tree.write(name, content);
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn loader(&self) -> Loader {
        Loader::new(vec![self.0.path().to_owned()])
    }

    /// The tree has three roots `etc`, `run` and `lib`.
    fn roots(&self) -> Loader {
        Loader::new(["etc", "run", "lib"].map(|root| self.0.path().join(root)).to_vec())
    }

    /// The report, with paths relative to the tree.
    fn report(&self) -> String {
        self.loader()
            .load()
            .report
            .to_string()
            .replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn endpoint(name: &str) -> String {
    format!("[[endpoint]]\nname = \"{name}\"\nnamespace = \"/run/netns/{name}\"\n")
}

fn policy(name: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\nsubject = \"\"\ningress = []\n")
}

fn config(loaded: &Loaded) -> Arc<Config> {
    loaded.config.clone().unwrap_or_else(|| panic!("{}", loaded.report))
}

fn names(loaded: &Loaded) -> Vec<String> {
    config(loaded).endpoints.iter().map(|endpoint| endpoint.name.to_string()).collect()
}

#[test]
fn higher_directories_mask_lower_ones() {
    let tree = Tree::new(&[
        ("etc/porin.toml", "mtu = 1500"),
        ("lib/porin.toml", "mtu = 9000\nuplinks = [\"eth9\"]"),
        ("etc/endpoints.d/both.toml", &endpoint("etc")),
        ("lib/endpoints.d/both.toml", &endpoint("lib")),
        ("run/endpoints.d/run.toml", &endpoint("run")),
        ("lib/endpoints.d/only.toml", &endpoint("only")),
        ("lib/endpoints.d/null.toml", "not even TOML"),
        ("lib/endpoints.d/empty.toml", "not even TOML"),
        ("etc/endpoints.d/empty.toml", ""),
    ]);
    symlink("/dev/null", tree.path("etc/endpoints.d/null.toml")).unwrap();
    let loaded = tree.roots().load();
    assert_eq!(names(&loaded), ["etc", "only", "run"]);
    assert_eq!(config(&loaded).host.mtu, Some(1500));
    assert!(config(&loaded).host.uplinks.is_empty());
    assert_eq!(loaded.files, 5);
}

#[test]
fn drop_ins_apply_by_name_across_directories() {
    let pool = |name: &str, network: &str| {
        format!("[[pool]]\nname = \"{name}\"\nnetwork = \"{network}\"\n")
    };
    let tree = Tree::new(&[
        (
            "etc/porin.toml",
            &format!("mtu = 1500\nuplinks = \"eth0\"\n{}", pool("a", "10.0.0.0/16")),
        ),
        ("lib/porin.toml.d/10-mtu.toml", "mtu = 1400\n[flows]\nrate = 7\n"),
        ("etc/porin.toml.d/20-mtu.toml", &format!("mtu = 1300\n{}", pool("b", "10.1.0.0/16"))),
        ("run/porin.toml.d/15-mtu.toml", &format!("mtu = 9000\n{}", pool("a", "10.2.0.0/16"))),
        ("lib/porin.toml.d/20-mtu.toml", "masked"),
    ]);
    let config = config(&tree.roots().load());
    assert_eq!(config.host.mtu, Some(1300));
    assert_eq!(config.host.flows.rate, 7);
    assert_eq!(config.host.uplinks[0].interface, "eth0");
    let pools: Vec<_> = config.host.pools.iter().map(|pool| pool.network.to_string()).collect();
    assert_eq!(pools, ["10.2.0.0/16", "10.1.0.0/16"]);
}

#[test]
fn other_programs_files_are_ignored() {
    let tree = Tree::new(&[("endpoints.d/a.toml", &endpoint("a"))]);
    for name in
        ["b.toml~", ".c.toml", "d.toml.dpkg-new", "e.toml.rpmsave", ".f.toml.swp", "4913", "g"]
    {
        tree.write(&format!("endpoints.d/{name}"), "[[[");
    }
    fs::create_dir(tree.path("endpoints.d/directory")).unwrap();
    assert_eq!(names(&tree.loader().load()), ["a"]);
}

#[test]
fn what_is_no_file_is_told_and_never_waited_for() {
    let tree = Tree::new(&[("endpoints.d/good.toml", &endpoint("good"))]);
    let path = |name: &str| tree.path(&format!("endpoints.d/{name}.toml"));
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), fifo, 0o600.into(), 0).unwrap();
    let _socket = UnixListener::bind(path("socket")).unwrap();
    fs::create_dir(path("directory")).unwrap();
    symlink("loop.toml", path("loop")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    symlink("/dev/zero", path("zero")).unwrap();
    symlink("/proc/self/mem", path("unreadable")).unwrap();
    File::create(path("sparse")).unwrap().set_len(100 << 20).unwrap();
    symlink("policies.d", tree.path("policies.d")).unwrap();
    tree.write("porin.toml.d", "");
    let report = tree.report();
    for (name, what) in [
        ("endpoints.d/fifo.toml", "is a FIFO, not a file"),
        ("endpoints.d/socket.toml", "is a socket, not a file"),
        ("endpoints.d/directory.toml", "is a directory, not a file"),
        ("endpoints.d/loop.toml", "is a loop of symbolic links"),
        ("endpoints.d/dangling.toml", "is a symbolic link to something that does not exist"),
        ("endpoints.d/zero.toml", "is a device, not a file"),
        ("endpoints.d/unreadable.toml", "cannot be read: Input/output error"),
        ("endpoints.d/sparse.toml", "has 104857600 bytes"),
        ("policies.d", "is a loop of symbolic links"),
        ("porin.toml.d", "is not a directory"),
    ] {
        let line = format!("{name}: error: {what}");
        assert!(report.lines().any(|told| told.starts_with(&line)), "{line}\n{report}");
    }
    assert_eq!(report.lines().count(), 10, "{report}");
}

#[test]
fn no_directory_at_all_is_no_empty_configuration() {
    let tree = Tree::new(&[]);
    assert_eq!(config(&tree.loader().load()).as_ref(), &Config::default());
    let absent = Loader::new(vec![tree.0.path().join("absent")]).load();
    assert!(absent.config.is_none());
    assert!(absent.report.to_string().contains("none of the configuration directories exists"));
}

#[test]
fn very_many_faults_make_a_bounded_report() {
    let unknown = |file: usize, i: usize| {
        format!("[[policy]]\nname = \"{file}.{i}\"\nsubject = \"\"\nx{i} = 1\n")
    };
    let tree = Tree::new(&[]);
    for file in 0..3 {
        tree.write(
            &format!("policies.d/{file}.toml"),
            (0..1500).map(|i| unknown(file, i)).collect::<String>(),
        );
    }
    let loaded = tree.loader().load();
    assert_eq!(loaded.report.errors, 4500);
    let lines: Vec<_> = loaded.report.to_string().lines().map(str::to_owned).collect();
    assert_eq!((lines.len(), lines[100].as_str()), (101, "and 8900 more"));
    assert_eq!(loaded.report.faults.len(), 2000);
    assert!(loaded.report.terminal(true, 80).len() < 100_000);
}

#[test]
fn a_first_root_that_is_missing_is_no_empty_configuration() {
    let tree = Tree::new(&[]);
    let other = tempfile::tempdir().unwrap();
    let roots = vec![tree.path("mistyped"), other.path().to_owned()];
    let loaded = Loader::new(roots.clone()).load();
    assert!(loaded.config.is_none());
    assert!(loaded.report.to_string().contains("mistyped: error: does not exist"));
    // What a package brings is a configuration.
    std::fs::write(other.path().join("porin.toml"), "").unwrap();
    assert!(Loader::new(roots).load().config.is_some());
}

#[test]
fn all_files_together_are_bounded() {
    let tree = Tree::new(&[]);
    let comment = "#".repeat(3 << 20);
    for file in 10..32 {
        tree.write(&format!("policies.d/{file}.toml"), &comment);
    }
    let report = tree.report();
    assert!(report.starts_with("policies.d/31.toml: error: all files together"), "{report}");
}

#[test]
fn what_did_not_change_stays_the_same_object() {
    let tree = Tree::new(&[
        ("endpoints.d/a.toml", &endpoint("a")),
        ("endpoints.d/b.toml", &(endpoint("b1") + &endpoint("b2"))),
        ("policies.d/p.toml", &policy("p")),
    ]);
    let mut loader = tree.loader();
    let first = loader.load();
    let again = loader.load();
    assert!(Arc::ptr_eq(&config(&first), &config(&again)));
    tree.write("endpoints.d/b.toml", endpoint("b1") + &endpoint("b2") + "interface = \"net0\"\n");
    let changed = loader.load();
    let (before, after) = (config(&first), config(&changed));
    let same = |i: usize| Arc::ptr_eq(&before.endpoints[i], &after.endpoints[i]);
    assert_eq!([same(0), same(1), same(2)], [true, true, false]);
    assert!(before.policies.values().zip(after.policies.values()).all(|(a, b)| Arc::ptr_eq(a, b)));
    // Written anew with the same content.
    fs::remove_file(tree.path("policies.d/p.toml")).unwrap();
    tree.write("policies.d/p.toml", policy("p"));
    assert!(Arc::ptr_eq(&after, &config(&loader.load())));
    fs::remove_file(tree.path("endpoints.d/a.toml")).unwrap();
    assert_eq!(names(&loader.load()), ["b1", "b2"]);
}

#[test]
fn a_fault_comes_and_goes() {
    let tree = Tree::new(&[("endpoints.d/a.toml", &endpoint("a"))]);
    let mut loader = tree.loader();
    assert_eq!(names(&loader.load()), ["a"]);
    for bad in ["name = ", "\u{7f}", &endpoint("a").repeat(2)] {
        tree.write("endpoints.d/b.toml", bad);
        assert!(loader.load().config.is_none());
        assert!(loader.load().config.is_none());
        tree.write("endpoints.d/b.toml", endpoint("b"));
        assert_eq!(names(&loader.load()), ["a", "b"]);
    }
    tree.write("endpoints.d/c.toml", [0xff]);
    assert!(loader.load().config.is_none());
    assert!(loader.load().config.is_none());
    fs::remove_file(tree.path("endpoints.d/c.toml")).unwrap();
    assert_eq!(names(&loader.load()), ["a", "b"]);
}

#[test]
fn changes_of_equal_size_within_one_tick_are_seen() {
    let tree = Tree::new(&[("endpoints.d/a.toml", &endpoint("a"))]);
    let mut loader = tree.loader();
    for i in 0..300 {
        let name = format!("e{}", 100 + i);
        tree.write("endpoints.d/a.toml", endpoint(&name));
        assert_eq!(names(&loader.load()), [name]);
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_never_a_mixture() {
    let many =
        |prefix: &str| (0..200).map(|i| endpoint(&format!("{prefix}{i}"))).collect::<String>();
    let versions = [many("a"), many("b")];
    let tree = Tree::new(&[("endpoints.d/a.toml", &versions[0])]);
    let target = tree.path("endpoints.d/a.toml");
    let temporary = tree.path("endpoints.d/.new");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in versions.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                fs::write(&temporary, version).unwrap();
                fs::rename(&temporary, &target).unwrap();
            }
        });
        let mut loader = tree.loader();
        for _ in 0..100 {
            let loaded = loader.load();
            if loaded.config.is_some() {
                let names = names(&loaded);
                assert_eq!(names.len(), 200);
                assert!(names.iter().all(|name| name[..1] == names[0][..1]));
            } else {
                let report = loaded.report.to_string();
                assert!(report.contains("changed while it was read"), "{report}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn all_that_can_change_is_watched() {
    let tree =
        Tree::new(&[("endpoints.d/..data/a.toml", &endpoint("a")), ("elsewhere/p.toml", "")]);
    symlink("..data/a.toml", tree.path("endpoints.d/a.toml")).unwrap();
    symlink("../elsewhere/p.toml", tree.path("policies.d/p.toml")).unwrap();
    let mut loader = tree.loader();
    let before = loader.directories();
    assert_eq!(names(&loader.load()), ["a"]);
    let root = fs::canonicalize(tree.0.path()).unwrap();
    for name in ["", "porin.toml.d", "endpoints.d", "policies.d", "endpoints.d/..data", "elsewhere"]
    {
        let directory = root.join(name).components().collect::<PathBuf>();
        assert!(loader.directories().contains(&directory), "{name}");
        assert!(before.contains(&directory), "{name}");
    }
}

#[test]
fn a_thousand_unchanged_files_are_quick() {
    let tree = Tree::new(&[]);
    for i in 0..1000 {
        tree.write(&format!("endpoints.d/{i}.toml"), endpoint(&format!("e{i}")));
    }
    let mut loader = tree.loader();
    assert_eq!(loader.load().files, 1000);
    // Stamps are trusted once files are older than a tick: then nothing is opened any more.
    let quick = |took: Duration| took < Duration::from_millis(60);
    let (written, mut best) = (Instant::now(), Duration::MAX);
    while written.elapsed() < Duration::from_millis(400) || !quick(best) {
        let start = Instant::now();
        assert_eq!(loader.load().files, 1000);
        best = best.min(start.elapsed());
        assert!(written.elapsed() < Duration::from_secs(30), "{best:?}");
    }
    tree.write("endpoints.d/7.toml", endpoint("changed"));
    let start = Instant::now();
    assert_eq!(names(&loader.load()).len(), 1000);
    println!("1000 unchanged files: {best:?}; one of them changed: {:?}", start.elapsed());
}

#[test]
fn paths_that_are_not_utf8_are_told() {
    use std::os::unix::ffi::OsStrExt;
    let tree = Tree::new(&[("endpoints.d/a.toml", "")]);
    let name = std::ffi::OsStr::from_bytes(b"endpoints.d/\xff\x1b.toml");
    fs::write(tree.0.path().join(Path::new(name)), "").unwrap();
    assert_eq!(tree.report(), "endpoints.d/\u{fffd}␛.toml: error: the file's path is not UTF-8\n");
    serde_json::to_string(&tree.loader().load().report).unwrap();
}

#[test]
fn what_may_not_be_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let tree = Tree::new(&[("endpoints.d/a.toml", ""), ("policies.d/p.toml", "")]);
    for name in ["endpoints.d/a.toml", "policies.d"] {
        fs::set_permissions(tree.path(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    if File::open(tree.path("endpoints.d/a.toml")).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    let report = tree.report();
    fs::set_permissions(tree.path("policies.d"), fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["endpoints.d/a.toml", "policies.d"] {
        let line = format!("{name}: error: cannot be read: permission denied; ");
        assert!(report.lines().any(|told| told.starts_with(&line)), "{report}");
    }
}

fn quoted(items: impl Iterator<Item = String>) -> String {
    items.map(|item| format!("{item:?}, ")).collect()
}

fn spared(peers: &str, except: &str) -> String {
    format!(
        "[[policy]]\nname = \"p\"\nsubject = \"\"\n[[policy.egress]]\nto = [{peers}]\nexcept = [{except}]\n"
    )
}

#[test]
fn what_a_rule_says_twice_is_said_once() {
    let peers = quoted((0..4000).map(|_| "cidr:10.0.0.0/8".to_owned()));
    let except = quoted((0..8000).map(|i| format!("cidr:10.0.{}.0/24", i % 2)));
    let tree = Tree::new(&[("policies.d/p.toml", &spared(&peers, &except))]);
    let config = config(&tree.loader().load());
    let rule = &config.policies.values().next().unwrap().egress.as_ref().unwrap()[0];
    assert_eq!(rule.peers.len(), 1);
    let porin::config::model::Peer::Cidr(set) = &rule.peers[0] else { panic!("{rule:?}") };
    assert_eq!(set.except.len(), 2);
}

#[test]
fn rules_of_too_many_networks_and_exceptions_are_refused() {
    // Each inside of the next: every network has every exception.
    let peers = quoted((8..=16).map(|length| format!("cidr:10.0.0.0/{length}")));
    let except =
        |many: u32| quoted((0..many).map(|i| format!("cidr:10.0.{}.{}/32", i / 256, i % 256)));
    let fits = Tree::new(&[("policies.d/p.toml", &spared(&peers, &except(11_000)))]);
    assert_eq!(config(&fits.loader().load()).policies.len(), 1);
    let tree = Tree::new(&[("policies.d/p.toml", &spared(&peers, &except(12_000)))]);
    assert_eq!(
        tree.report(),
        "policies.d/p.toml:4:1: error: this rule takes 12000 exceptions out of 9 networks: more than \
         100000 pairs; split the rule, or name wider networks\n"
    );
}

#[test]
fn too_many_uplinks_and_pools_are_refused_before_they_are_compared() {
    let uplinks = quoted((0..20_000).map(|i| format!("up{i}")));
    let tree = Tree::new(&[("porin.toml", &format!("uplinks = [{uplinks}]\n"))]);
    assert_eq!(
        tree.report(),
        "porin.toml:1:11: error: 20000 uplinks are more than the 64 that fit\n"
    );
    let pool =
        |i| format!("[[pool]]\nname = \"p{i}\"\nnetwork = \"10.{}.{}.0/24\"\n", i / 256, i % 256);
    let pools = |many: u32| (0..many).map(pool).collect::<String>();
    let tree = Tree::new(&[("porin.toml", &pools(1024))]);
    assert_eq!(config(&tree.loader().load()).host.pools.len(), 1024);
    tree.write("porin.toml", pools(20_000));
    assert_eq!(
        tree.report(),
        "porin.toml:3074:8: error: 20000 pools are more than the 1024 that fit; have fewer and larger ones\n"
    );
}

#[test]
fn groups_and_asserts_keep_their_order_and_their_objects() {
    let group = |name: &str, member: &str| {
        format!("[[group]]\nname = \"{name}\"\nmembers = [\"{member}\"]\n")
    };
    let assert = "[[assert]]\nnever = { from = \"group:b\" }\n";
    let tree = Tree::new(&[
        ("policies.d/2.toml", &(group("b", "app=b") + assert + &group("a", "cidr:::/0"))),
        ("policies.d/1.toml", &(assert.to_owned() + assert)),
    ]);
    let mut loader = tree.loader();
    let before = config(&loader.load());
    let names: Vec<_> = before.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let places = before.asserts.iter().map(|assert| {
        let file = assert.origin.file.file_name().unwrap().to_string_lossy().into_owned();
        (file, assert.origin.line, assert.origin.column)
    });
    let file = |name: &str| name.to_owned();
    assert_eq!(
        places.collect::<Vec<_>>(),
        [(file("1.toml"), 2, 1), (file("1.toml"), 4, 1), (file("2.toml"), 5, 1)]
    );
    tree.write("policies.d/2.toml", group("b", "app=c") + assert + &group("a", "cidr:::/0"));
    let after = config(&loader.load());
    let same = |i: usize| Arc::ptr_eq(&before.groups[i], &after.groups[i]);
    assert_eq!([same(0), same(1)], [true, false]);
    assert!((0..3).all(|i| Arc::ptr_eq(&before.asserts[i], &after.asserts[i])));
}

#[test]
fn an_unreadable_file_may_have_the_group_that_is_missing() {
    let policy = "[[policy]]\nname = \"p\"\nsubject = \"\"\negress = [{ to = \"group:g\" }]\n";
    let tree = Tree::new(&[("policies.d/p.toml", policy), ("policies.d/g.toml", "[[group]")]);
    let report = tree.report();
    assert!(!report.contains("no group is named"), "{report}");
    tree.write("policies.d/g.toml", "");
    assert!(tree.report().contains("no group is named `g`"));
}

#[test]
fn a_group_is_one_set_of_networks() {
    let members = ["10.1.0.0/16", "10.0.0.0/8", "fd00::/64", "192.0.2.0/24", "10.0.0.0/8"];
    let except = ["10.2.0.0/16", "192.0.2.128/25", "10.2.3.0/24", "10.1.0.0/16"];
    let networks = |networks: &[&str]| quoted(networks.iter().map(|net| format!("cidr:{net}")));
    let tree = Tree::new(&[(
        "policies.d/g.toml",
        &format!(
            "[[group]]\nname = \"g\"\nmembers = [{}]\nexcept = [{}]\n",
            networks(&members),
            networks(&except)
        ),
    )]);
    let group = config(&tree.loader().load()).groups[0].clone();
    let text = |networks: &[ipnet::IpNet]| -> Vec<String> {
        networks.iter().map(ToString::to_string).collect()
    };
    assert_eq!(text(&group.networks), ["10.0.0.0/8", "192.0.2.0/24", "fd00::/64"]);
    assert_eq!(text(&group.except), ["10.1.0.0/16", "10.2.0.0/16", "192.0.2.128/25"]);
}

#[test]
fn a_hundred_thousand_networks_and_ten_thousand_policies_load() {
    let network = |i: u32, length: u8| {
        format!("cidr:{}/{length}", std::net::Ipv4Addr::from(0x0b00_0000 + i * 256))
    };
    let members = quoted((0..100_000).map(|i| network(i, 24)));
    let except = quoted((0..50_000).map(|i| network(i, 32)));
    let mut text = format!("[[group]]\nname = \"g\"\nmembers = [{members}]\nexcept = [{except}]\n");
    let tree = Tree::new(&[("policies.d/g.toml", &text)]);
    let start = Instant::now();
    let group = config(&tree.loader().load()).groups[0].clone();
    assert_eq!((group.networks.len(), group.except.len()), (100_000, 50_000));
    println!("100,000 networks and 50,000 exceptions: {:?}", start.elapsed());
    // All about everyone, all comparable with all.
    text.clear();
    for i in 0..10_000 {
        let tier = ["admin\"\npriority = 3", "baseline\"\npriority = 3", "normal\""][i % 3];
        let action = ["deny", "allow", "pass", "reject"][i % 4];
        text.push_str(&format!(
            "[[policy]]\nname = \"p{i}\"\nsubject = \"\"\ntier = \"{tier}\n\
             ingress = [{{ from = \"group:g\", ports = \"{}/tcp\", action = \"{action}\" }}]\n",
            i + 1
        ));
    }
    tree.write("policies.d/p.toml", &text);
    let start = Instant::now();
    assert_eq!(config(&tree.loader().load()).policies.len(), 10_000);
    println!("and 10,000 policies: {:?}", start.elapsed());
}

#[test]
fn what_is_handed_over_or_shut_is_checked() {
    let host = "[[pool]]\nname = \"p\"\nnetwork = \"10.10.0.0/16\"\n";
    let report = |endpoint: &str| {
        let endpoints = format!("[[endpoint]]\nname = \"e\"\n{endpoint}\n");
        Tree::new(&[("porin.toml", host), ("endpoints.d/e.toml", &endpoints)]).report()
    };
    for good in [
        "hand-over = \"taken\"",
        "hand-over = \"taken\"\nmac = \"02:42:0a:0a:00:01\"\nshut = true",
        "namespace = \"/run/netns/e\"\nmac = \"02:42:0A:0a:00:01\"\nshut = false",
        "interface = \"veth7\"\nipv4 = \"172.17.0.2\"\nshut = false",
    ] {
        assert_eq!(report(good), "", "{good}");
    }
    for (bad, why) in [
        (
            "hand-over = \"taken\"\nnamespace = \"/run/netns/e\"",
            "`namespace` has no meaning beside",
        ),
        ("hand-over = \"taken\"\ninterface = \"eth0\"", "`interface` has no meaning beside"),
        ("hand-over = \"pn0123456789ab\"", "an interface that porin makes itself"),
        ("hand-over = \"much-too-long-name\"", "cannot be an interface's name"),
        ("hand-over = \"taken\"\nmac = \"02:70:6f:72:69:6e\"", "knows its gateway by"),
        ("hand-over = \"taken\"\nmac = \"03:00:00:00:00:01\"", "no MAC address that an interface"),
        ("hand-over = \"taken\"\nmac = \"02-00-00-00-00-01\"", "is not a MAC address"),
        ("hand-over = \"taken\"\nshut = \"yes\"", "shut"),
        (
            "interface = \"veth7\"\nipv4 = \"172.17.0.2\"\nshut = true",
            "whose interface porin makes",
        ),
        (
            "interface = \"veth7\"\nipv4 = \"172.17.0.2\"\nmac = \"02:00:00:00:00:01\"",
            "`mac` has no",
        ),
    ] {
        let report = report(bad);
        assert!(report.contains(why), "{bad}: {report}");
    }
    let two = "[[endpoint]]\nname = \"a\"\nhand-over = \"x\"\n\n[[endpoint]]\nname = \"b\"\nhand-over = \"x\"\n";
    let tree = Tree::new(&[("porin.toml", host), ("endpoints.d/e.toml", two)]);
    assert!(
        tree.report().contains("two endpoints hand over the interface `x`"),
        "{}",
        tree.report()
    );
}

#[test]
fn dockers_networks_are_reserved_parts_of_pools() {
    let pools =
        "[[pool]]\nname = \"p\"\nnetwork = \"10.10.0.0/16\"\nreserved = [\"10.10.0.0/28\"]\n";
    let load = |docker: &str| {
        let tree = Tree::new(&[("porin.toml", &format!("{pools}\n[docker]\n{docker}\n"))]);
        (tree.report(), tree.loader().load().config)
    };
    let (report, config) = load("driver = true\nnetworks = [\"10.10.128.0/17\"]");
    assert_eq!(report, "");
    let host = &config.unwrap().host;
    assert!(host.docker.driver && host.docker.socket == Path::new("/run/docker.sock"));
    let reserved: Vec<String> = host.pools[0].reserved.iter().map(ToString::to_string).collect();
    assert_eq!(reserved, ["10.10.0.0/28", "10.10.128.0/17"]);
    for (bad, why) in [
        ("networks = [\"10.11.0.0/24\"]", "10.11.0.0/24 is not inside one pool"),
        ("networks = [\"10.0.0.0/8\"]", "10.0.0.0/8 is not inside one pool"),
        ("driver = true", "has no addresses to give out"),
        ("socket = \"docker.sock\"", "is not an absolute path"),
    ] {
        let (report, config) = load(bad);
        assert!(report.contains(why) && config.is_none(), "{bad}: {report}");
    }
}

#[test]
fn a_boot_is_open_unless_the_host_s_files_say_otherwise_or_are_wrong() {
    let wrong = ("policies.d/x.toml", "[[policy]]\nnaem = 1\n");
    for (files, boot) in [
        (&[][..], Boot::Open),
        (&[("porin.toml", "")], Boot::Open),
        (&[("porin.toml", "boot = \"open\"")], Boot::Open),
        (&[("porin.toml", "boot = \"closed\"")], Boot::Closed),
        // Whatever is wrong elsewhere.
        (&[("porin.toml", "boot = \"open\""), wrong], Boot::Open),
        (&[("porin.toml", "boot = \"closed\""), wrong], Boot::Closed),
        (
            &[("porin.toml", "boot = \"closed\""), ("porin.toml.d/a.toml", "boot = \"open\"")],
            Boot::Open,
        ),
        // What it was to be is not known.
        (&[("porin.toml", "boot = \"shut\"")], Boot::Closed),
        (&[("porin.toml", "boot = \"open\"\nbooot = 1")], Boot::Open),
        (&[("porin.toml", "boot = \"closed\"\nbooot = 1")], Boot::Closed),
        (&[("porin.toml", "mtu = ")], Boot::Open),
        (&[("porin.toml", "boot = \"closed\"\nmtu = ")], Boot::Closed),
        (&[("porin.toml", "boot = \"open")], Boot::Closed),
        (&[("porin.toml", "boot = \"open\""), ("porin.toml.d/a.toml", "x")], Boot::Open),
    ] {
        let tree = Tree::new(files);
        let mut loader = tree.loader();
        loader.load();
        assert_eq!(loader.boot(), boot, "{files:?}");
    }
    let tree = Tree::new(&[]);
    symlink("nowhere", tree.path("porin.toml")).unwrap();
    let mut loader = tree.loader();
    loader.load();
    assert_eq!(loader.boot(), Boot::Closed, "a file that cannot be read");
}
