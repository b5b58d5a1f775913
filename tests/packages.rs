//! Packages: what is in them, that they are the same bytes each time, and what dpkg and rpm make of them.
//!
//! Of the binaries of this build. Installed in a world in which nothing but what is looked at can be changed; with systemd as
//! well by `make test-system`. What is not installed here (rpmbuild, lintian, rpmlint) is said and left out.

mod lab;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use lab::package::{self, DEB, RPM};
use lab::process::Output;
use lab::{Place, World, eventually, runtime, world};

const PATIENCE: Duration = Duration::from_secs(120);

fn run(argv: &[&str]) -> Output {
    Output::of("here", Command::new(argv[0]).args(&argv[1..]), None, PATIENCE)
}

/// One for all tests.
fn deb() -> &'static Path {
    static DEB: OnceLock<PathBuf> = OnceLock::new();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    DEB.get_or_init(|| package::deb(&out, "1.0.0"))
}

/// The files of a package, unpacked.
fn unpacked(deb: &Path) -> tempfile::TempDir {
    let into = tempfile::tempdir().unwrap();
    run(&["dpkg-deb", "--raw-extract", path(deb), path(into.path())]).success();
    into
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_deb_is_complete_and_the_same_bytes_each_time() {
    if !runtime::has(DEB) {
        return;
    }
    let (deb, two) = (deb(), tempfile::tempdir().unwrap());
    // By another person, elsewhere.
    let mut again = package::deb_command(two.path(), "1.0.0");
    again.env("TZ", "Asia/Tokyo").env("LC_ALL", "C.UTF-8").env("TMPDIR", two.path());
    Output::of("elsewhere", &mut again, None, PATIENCE).success();
    let other = two.path().join(deb.file_name().unwrap());
    assert!(fs::read(deb).unwrap() == fs::read(&other).unwrap(), "two builds differ");

    let root = unpacked(deb);
    let has = |file: &str| fs::metadata(root.path().join(file)).is_ok_and(|m| m.len() > 0);
    for file in [
        "usr/sbin/porind",
        "usr/bin/porinctl",
        "usr/lib/cni/porin-cni",
        "usr/lib/netavark/porin",
        "usr/lib/systemd/system/porind.service",
        "usr/lib/systemd/system/porin-netns@.service",
        "usr/lib/systemd/system/porin-boot.service",
        "usr/lib/sysusers.d/porin.conf",
        "usr/lib/tmpfiles.d/porin.conf",
        "etc/porin/porin.toml",
        "usr/share/doc/porin/copyright",
        "usr/share/doc/porin/changelog.gz",
        "usr/share/doc/porin/examples/policies.d/shop.toml",
        "usr/share/doc/porin/examples/cni/net.d/10-porin.conflist",
    ] {
        assert!(has(file), "{file} is missing");
    }
    let pages = fs::read_dir(package::source().join("man")).unwrap();
    for page in pages.map(|page| page.unwrap().file_name().into_string().unwrap()) {
        let (_, section) = page.rsplit_once('.').unwrap();
        assert!(has(&format!("usr/share/man/man{section}/{page}.gz")), "{page} is missing");
    }
    let read = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
    assert_eq!(read("DEBIAN/conffiles"), "/etc/porin/porin.toml\n");
    let others = read("usr/share/doc/porin/THIRD-PARTY");
    for work in ["tokio 1.", "libbpf-sys 1.", "elfutils ", "zlib ", "Rust standard library"] {
        assert!(others.lines().any(|line| line.contains(work)), "no {work}");
    }
    assert!(!others.contains("proptest"), "what tests need is not in the binaries");
    for (shell, file) in [
        (["bash", "-n"], "usr/share/bash-completion/completions/porinctl"),
        (["zsh", "-n"], "usr/share/zsh/vendor-completions/_porinctl"),
        (["fish", "-n"], "usr/share/fish/vendor_completions.d/porinctl.fish"),
    ] {
        assert!(read(file).contains("identities"), "{file}");
        if runtime::has(&shell[..1]) {
            run(&[shell[0], shell[1], path(&root.path().join(file))]).success();
        }
    }
    if runtime::has(&["lintian"]) {
        let lint = ["lintian", "--allow-root", "--fail-on", "error,warning", path(deb)];
        let said = run(&lint).success();
        assert_eq!(said.trim(), "");
    }
}

#[test]
fn binaries_that_are_not_hardened_are_refused() {
    if !runtime::has(&["readelf", "gcc"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    fs::write(directory.path().join("p.c"), "int main(void) { return 0; }").unwrap();
    let check = |flags: &[&str]| {
        let mut build = Command::new("gcc");
        build.args(["-o", path(&program), path(&directory.path().join("p.c"))]).args(flags);
        Output::of("gcc", &mut build, None, PATIENCE).success();
        let hardened = package::source().join("packaging/hardened");
        run(&[path(&hardened), path(&program)])
    };
    let hard = ["-fPIE", "-pie", "-Wl,-z,relro,-z,now"];
    check(&hard).success();
    for (flags, why) in [
        (&["-no-pie"][..], "is not position-independent"),
        (&["-fPIE", "-pie", "-Wl,-z,relro,-z,lazy"], "stay writable"),
        (&["-fPIE", "-pie", "-Wl,-z,relro,-z,now", "-z", "execstack"], "executable stack"),
        (&["-fPIE", "-pie", "-Wl,-z,relro,-z,now", "-Wl,--no-as-needed", "-lz"], "needs a library"),
    ] {
        let refused = check(flags);
        assert!(!refused.ok() && refused.stderr.contains(why), "{flags:?}: {}", refused.stderr);
    }
}

/// What is called porin's by its name, below directories that packages write to.
fn left(here: &Place) -> Vec<String> {
    let found = here.sh("find /usr /etc /var /run -xdev -name '*porin*' ! -path '/var/lib/dpkg/*' \
         ! -path '/var/log/*' ! -path '/run/overlay/*' ! -path '/usr/local/*' ! -path '/usr/src/*' 2>/dev/null || true");
    found.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn the_deb_is_installed_upgraded_removed_and_purged() {
    if !runtime::has(DEB) {
        return;
    }
    let new = package::with_version(deb(), "1.0.1");
    World::run(|_| {
        world::writable("/usr");
        let here = Place::here("machine");
        let dpkg = |arguments: &[&str]| {
            let dpkg = [&["dpkg", "--force-confold", "--force-depends"][..], arguments].concat();
            Output::of("dpkg", &mut here.command(&dpkg), None, PATIENCE).success()
        };
        here.sh("mount -t bpf bpf /sys/fs/bpf");
        let before = left(&here);
        dpkg(&["--install", path(deb())]);
        assert!(here.sh("getent group porin").starts_with("porin:"));
        // Enabled, though there is no systemd to start it.
        here.sh("test -L /etc/systemd/system/multi-user.target.wants/porind.service");

        let pools = "[[pool]]\nname = \"v4\"\nnetwork = \"10.77.0.0/16\"\n";
        fs::write("/etc/porin/porin.toml", pools).unwrap();
        let endpoint = "[[endpoint]]\nname = \"web\"\nnamespace = \"/run/netns/web\"\n";
        fs::write("/etc/porin/endpoints.d/web.toml", endpoint).unwrap();
        here.sh("ip netns add web");
        let mut daemon = here.spawn(here.command(&["/usr/sbin/porind", "--cgroup", "none"]));
        let interfaces = || here.interfaces().iter().filter(|name| name.starts_with("pn")).count();
        let enforced = || interfaces() == 1 && here.run(&["porinctl", "status"]).ok();
        eventually(PATIENCE, "the endpoint is there", enforced);

        dpkg(&["--install", path(&new)]);
        assert_eq!(here.sh("dpkg-query -W -f '${Version}' porin"), "1.0.1");
        assert!(daemon.is_running(), "an upgrade stops nothing");
        assert_eq!(fs::read_to_string("/etc/porin/porin.toml").unwrap(), pools);

        // A daemon that nobody can stop: nothing is taken off under its feet.
        let refused = here.run(&["dpkg", "--remove", "porin"]);
        assert!(!refused.ok() && refused.stderr.contains("the package stays"), "{refused:?}");
        assert_eq!((daemon.is_running(), interfaces()), (true, 1));
        daemon.kill();
        assert_eq!(interfaces(), 1, "enforcement goes on without the daemon");

        dpkg(&["--remove", "porin"]);
        assert_eq!(interfaces(), 0);
        assert!(!Path::new("/sys/fs/bpf/porin").exists());
        assert!(!Path::new("/usr/sbin/porind").exists() && !Path::new("/run/porin").exists());
        assert_eq!(fs::read_to_string("/etc/porin/porin.toml").unwrap(), pools);
        assert!(Path::new("/etc/porin/endpoints.d/web.toml").exists());
        assert!(Path::new("/var/lib/porin/leases.toml").exists());

        dpkg(&["--purge", "porin"]);
        assert_eq!(left(&here), before);
        here.sh("ip netns delete web");
    });
}

#[test]
fn the_rpm_is_the_same_bytes_each_time_and_installs() {
    if !runtime::has(RPM) {
        return;
    }
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rpm = package::rpm(one.path(), "1.0.0");
    let other = package::rpm(two.path(), "1.0.0");
    assert!(fs::read(&rpm).unwrap() == fs::read(&other).unwrap(), "two builds differ");
    if runtime::has(&["rpmlint"]) {
        let rules = package::source().join("packaging/rpm/rpmlintrc");
        let said = run(&["rpmlint", "-r", path(&rules), path(&rpm)]).success();
        assert!(said.contains("0 errors, 0 warnings"), "{said}");
    }
    World::run(|_| {
        let here = Place::here("machine");
        // This system, for what the scripts call, with a layer of its own to write to.
        here.sh("mkdir /run/layer && mount -t tmpfs tmpfs /run/layer && cd /run/layer && mkdir upper work root
             mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root");
        let root = Path::new("/run/layer/root");
        let rpm_in = |arguments: &[&str]| {
            Output::of(
                "rpm",
                &mut here.command(&[&["rpm", "--root", path(root)][..], arguments].concat()),
                None,
                PATIENCE,
            )
        };
        rpm_in(&["--install", "--nodeps", path(&rpm)]).success();
        let groups = fs::read_to_string(root.join("etc/group")).unwrap();
        assert!(groups.lines().any(|line| line.starts_with("porin:")), "{groups}");
        let installed = rpm_in(&["--query", "--list", "porin"]).success();
        for file in installed.lines() {
            let there = root.join(file.trim_start_matches('/'));
            assert!(fs::symlink_metadata(&there).is_ok(), "{file}");
        }
        for file in ["/usr/sbin/porind", "/usr/libexec/cni/porin-cni", "/etc/porin/porin.toml"] {
            assert!(installed.lines().any(|line| line == file), "{file}");
        }
        rpm_in(&["--verify", "--nodeps", "porin"]).success();
        fs::write(root.join("etc/porin/porin.toml"), "boot = \"closed\"\n").unwrap();
        rpm_in(&["--erase", "porin"]).success();
        assert!(!root.join("usr/sbin/porind").exists());
        assert!(root.join("etc/porin/porin.toml.rpmsave").exists(), "what was edited stays");
    });
}

#[test]
fn a_package_says_what_it_lacks() {
    let nothing = tempfile::tempdir().unwrap();
    let mut command = package::deb_command(nothing.path(), "1.0.0");
    let arguments: Vec<_> = command.get_args().map(OsStr::to_owned).collect();
    command = Command::new(command.get_program());
    command.arg(nothing.path()).args(&arguments[1..]);
    let refused = Output::of("deb", &mut command, None, PATIENCE);
    assert!(!refused.ok() && refused.stderr.contains("porind"), "{refused:?}");
    let made: Vec<PathBuf> =
        fs::read_dir(nothing.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(made.is_empty(), "{made:?}");
}
