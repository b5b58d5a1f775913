//! A private world: a thread in fresh network and mount namespaces, with nothing but a loopback.
//!
//! Everything in it dies with the process: the namespaces with the last descriptor, the files with
//! the private tmpfs, the children with the thread that started them.

use std::cell::RefCell;
use std::path::Path;

use rustix::mount::{MountFlags, mount};

use super::host::Host;
use super::place::{self, Place};

pub struct World {
    hosts: RefCell<Vec<Host>>,
}

impl World {
    /// Runs `story` in a new world.
    pub fn run<T: Send>(story: impl FnOnce(&World) -> T + Send) -> T {
        std::thread::scope(|scope| {
            let world = std::thread::Builder::new().name("world".into());
            let thread = world.spawn_scoped(scope, || {
                let world = World::begin();
                let result = story(&world);
                world.check();
                result
            });
            match thread.expect("thread").join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A host: network and mount namespace of its own, with its own /run, /etc/porin,
    /// /var/lib/porin and bpffs.
    pub fn host(&self, name: &str) -> Host {
        let host = Host::new(name);
        self.hosts.borrow_mut().push(host.clone());
        host
    }

    fn begin() -> World {
        place::seclude();
        place::tmpfs(Path::new("/run"));
        writable("/etc");
        writable("/var");
        let here = Place::here("world");
        assert_eq!(here.interfaces(), ["lo"], "a new world has no way out");
        here.sh("ip link set dev lo up");
        World { hosts: RefCell::new(Vec::new()) }
    }

    /// A host has its loopback, the links that the lab made, and what porin made; nothing else
    /// can have come in, and nothing may have been moved in.
    fn check(&self) {
        for host in self.hosts.borrow().iter() {
            for interface in host.place().interfaces() {
                let known = interface == "lo"
                    || interface.starts_with("pn")
                    || host.links().contains(&interface);
                assert!(known, "host {} has an interface {interface}", host.name());
            }
        }
    }
}

/// Lets `path` be written to without anyone outside seeing it.
pub fn writable(path: &str) {
    let layers = format!("/run/overlay{path}");
    for part in ["upper", "work"] {
        std::fs::create_dir_all(format!("{layers}/{part}")).expect("overlay directory");
    }
    let options = format!("lowerdir={path},upperdir={layers}/upper,workdir={layers}/work");
    let options = std::ffi::CString::new(options).expect("no NUL in it");
    mount("overlay", path, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .unwrap_or_else(|error| panic!("overlay over {path}: {error}"));
}
