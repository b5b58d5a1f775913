//! Hosts and containers: what porin would find on a machine.
//!
//! Knows the paths that porin uses by default, and nothing of how porin works.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use rustix::mount::{MountFlags, mount, mount_bind};

use super::place::{self, Place};
use super::process::{Output, Process};
use super::sys;

/// A machine of the world's. Cheap to clone: all clones are the same host.
#[derive(Clone)]
pub struct Host {
    inner: Rc<Inner>,
}

struct Inner {
    /// Own network, own mounts.
    place: Place,
    /// Own network, the world's mounts: from here `ip` finds the other hosts by name.
    outer: Place,
    /// The world's view of this host's directories.
    root: PathBuf,
    links: RefCell<Vec<String>>,
}

impl Host {
    pub(super) fn new(name: &str) -> Host {
        let root = PathBuf::from(format!("/run/hosts/{name}"));
        for directory in ["etc", "run", "run/netns", "state"] {
            std::fs::create_dir_all(root.join(directory)).expect("directory of the host");
        }
        for mount_point in ["/etc/porin", "/var/lib/porin"] {
            std::fs::create_dir_all(mount_point).expect("mount point");
        }
        let outer = Place::here("").nest(name, &Path::new("/run/netns").join(name));
        let place = outer.enter(|| furnish(name, &root));
        let host = Host { inner: Rc::new(Inner { place, outer, root, links: RefCell::default() }) };
        host.sysctl("net/ipv6/conf/all/accept_dad", "0");
        host.sysctl("net/ipv6/conf/default/accept_dad", "0");
        host.sh("ip link set dev lo up");
        host
    }

    pub fn name(&self) -> &str {
        self.inner.place.name()
    }

    pub fn place(&self) -> &Place {
        &self.inner.place
    }

    /// A veth to another host. `ours` and `theirs`: interface and addresses with prefix lengths,
    /// as in `up0 fd00:a::1/64 192.0.2.1/24`.
    pub fn link_to(&self, other: &Host, ours: &str, theirs: &str) {
        let (near, near_addresses) = split(ours);
        let (far, far_addresses) = split(theirs);
        let name = other.name();
        self.inner
            .outer
            .sh(&format!("ip link add name {near} type veth peer name {far} netns {name}"));
        for (host, interface, addresses) in
            [(self, near, near_addresses), (other, far, far_addresses)]
        {
            host.inner.links.borrow_mut().push(interface.to_owned());
            let mut script = String::new();
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                script += &format!("ip addr add {address} dev {interface} {nodad}\n");
            }
            host.sh(&format!("{script}ip link set dev {interface} up"));
        }
    }

    /// A bridge of `ports`, which are links of this host.
    pub fn bridge(&self, name: &str, ports: &[&str]) {
        self.sh(&format!("ip link add name {name} type bridge forward_delay 0"));
        self.inner.links.borrow_mut().push(name.to_owned());
        for port in ports {
            self.sh(&format!("ip link set dev {port} master {name}"));
        }
        self.sh(&format!("ip link set dev {name} up"));
    }

    /// What another program does for a container: a veth from it to a bridge of this host. `inside`: its
    /// interface there with addresses, as in `link_to`, and its routers after `via`.
    pub fn plug(&self, container: &Container, port: &str, bridge: &str, inside: &str) {
        let (inside, routers) = inside.split_once(" via ").unwrap_or((inside, ""));
        let (interface, addresses) = split(inside);
        let name = container.name();
        self.sh(&format!(
            "ip link add {port} type veth peer name {interface} netns {name}
             ip link set dev {port} master {bridge} up"
        ));
        self.inner.links.borrow_mut().push(port.to_owned());
        let mut script = format!("ip link set dev lo up\nip link set dev {interface} up\n");
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            script += &format!("ip addr add {address} dev {interface} {nodad}\n");
        }
        for router in routers.split_whitespace() {
            script += &format!("ip route add default via {router}\n");
        }
        container.place.sh(&script);
    }

    /// An interface that a program which the lab started has made.
    pub fn expect_link(&self, name: &str) {
        self.inner.links.borrow_mut().push(name.to_owned());
    }

    /// Interfaces that the lab made.
    pub fn links(&self) -> Vec<String> {
        self.inner.links.borrow().clone()
    }

    /// What others' programs made here is as if the lab had made it.
    pub fn expect_links(&self) {
        *self.inner.links.borrow_mut() = self.place().interfaces();
    }

    /// A network namespace with a loopback, to be found at `/run/netns/NAME` on this host.
    pub fn container(&self, name: &str) -> Container {
        let container = self.containers(&[name.to_owned()]).remove(0);
        container.place.sh("ip link set dev lo up");
        container
    }

    /// Many, with nothing in them.
    pub fn containers(&self, names: &[String]) -> Vec<Container> {
        let path = |name: &String| Path::new("/run/netns").join(name);
        let wanted: Vec<_> = names.iter().map(|name| (name.clone(), path(name))).collect();
        let places = self.inner.place.nest_all(&wanted);
        let pairs = places.into_iter().zip(wanted);
        pairs.map(|(place, (_, path))| Container { place, path }).collect()
    }

    /// Takes a container's name away. Its namespace goes when the last `Container` is dropped.
    pub fn forget_container(&self, name: &str) {
        let path = format!("/run/netns/{name}");
        self.enter(|| {
            rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).expect("unmount");
            std::fs::remove_file(&path).expect("namespace file");
        });
    }

    /// `/etc/porin` of this host, seen from the world.
    pub fn etc(&self) -> PathBuf {
        self.inner.root.join("etc")
    }

    /// `/run` of this host, seen from the world.
    pub fn run_directory(&self) -> PathBuf {
        self.inner.root.join("run")
    }

    /// `/var/lib/porin` of this host, seen from the world.
    pub fn state(&self) -> PathBuf {
        self.inner.root.join("state")
    }

    /// Puts a file under `/etc/porin`, whole or not at all.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.etc().join(file);
        let parent = path.parent().expect("parent");
        std::fs::create_dir_all(parent).expect("directory");
        // A leading dot: nobody takes the half-written file for configuration.
        let new = parent.join(".new");
        std::fs::write(&new, text).expect("write");
        std::fs::rename(&new, &path).expect("rename");
    }

    /// A symbolic link to `target`, as it is written.
    pub fn link(&self, file: &str, target: &str) {
        let path = self.etc().join(file);
        std::os::unix::fs::symlink(target, path).unwrap_or_else(|e| panic!("{file}: {e}"));
    }

    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.etc().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    }

    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inner.place.enter(work)
    }

    pub fn sh(&self, script: &str) -> String {
        self.inner.place.sh(script)
    }

    pub fn sysctl(&self, key: &str, value: &str) {
        self.inner.place.sysctl(key, value);
    }

    pub fn run(&self, argv: &[&str]) -> Output {
        self.inner.place.run(argv)
    }
}

/// A container's network namespace; it sees the files of its host.
#[derive(Clone)]
pub struct Container {
    place: Place,
    path: PathBuf,
}

impl Container {
    pub fn name(&self) -> &str {
        self.place.name()
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where porin finds the namespace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn run(&self, argv: &[&str]) -> Output {
        self.place.run(argv)
    }

    pub fn spawn(&self, command: Command) -> Process {
        self.place.spawn(command)
    }

    /// The addresses that porin gave to `eth0`, once it is there.
    pub fn addresses(&self) -> (Option<Ipv6Addr>, Option<Ipv4Addr>) {
        let output = self.run(&["ip", "-j", "addr", "show", "dev", "eth0", "scope", "global"]);
        let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let locals = json[0]["addr_info"].as_array().cloned().unwrap_or_default();
        let all: Vec<String> =
            locals.iter().filter_map(|info| info["local"].as_str().map(str::to_owned)).collect();
        (all.iter().find_map(|a| a.parse().ok()), all.iter().find_map(|a| a.parse().ok()))
    }
}

/// Gives the calling thread (already in the host's network) the host's mounts.
fn furnish(name: &str, root: &Path) -> Place {
    sys::unshare(rustix::thread::UnshareFlags::NEWNS).expect("unshare mounts");
    let plain = |source: &str, target: &str| {
        mount(source, target, source, MountFlags::empty(), None)
            .unwrap_or_else(|error| panic!("mount {source} on {target}: {error}"));
    };
    plain("sysfs", "/sys");
    plain("bpf", "/sys/fs/bpf");
    mount_bind(root.join("etc"), "/etc/porin").expect("bind /etc/porin");
    mount_bind(root.join("state"), "/var/lib/porin").expect("bind /var/lib/porin");
    // Last, for it hides the world's /run.
    mount_bind(root.join("run"), "/run").expect("bind /run");
    Place::here(name)
}

fn split(link: &str) -> (&str, Vec<&str>) {
    let mut words = link.split_whitespace();
    (words.next().expect("an interface"), words.collect())
}
