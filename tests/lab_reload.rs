//! Edits, made in all the ways in which people and tools make them, good and bad.

mod lab;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use lab::shop::{API, at};
use lab::traffic::{self, Server};
use lab::{Container, Daemon, Host, Place, World, config, daemon::EFFECT, eventually};

/// Short: it is tried again and again.
const SOON: Duration = Duration::from_millis(150);

struct Pair {
    host: Host,
    front: Container,
    _api: Container,
    _servers: Vec<Server>,
    daemon: Daemon,
}

/// Two endpoints; `policy` says which port is open. The ports are 1001 to 1010.
fn pair(world: &World) -> Pair {
    let host = world.host("alpha");
    host.write("porin.toml", &config::host(&[]));
    let front = config::add(&host, "front", "app = \"front\"", 1);
    let api = config::add(&host, "api", "app = \"api\"", API);
    let servers = (1001..=1010).map(|port| Server::echo(api.place(), port)).collect();
    host.write("policies.d/shop.toml", &policy(1001));
    let daemon = host.porind();
    Pair { host, front, _api: api, _servers: servers, daemon }
}

fn policy(port: u16) -> String {
    format!(
        "[[policy]]\nname = \"api\"\nsubject = \"app=api\"\n\n[[policy.ingress]]\n\
         from = [\"app=front\"]\nports = [\"{port}/udp\"]\n"
    )
}

fn passes(from: &Place, port: u16) -> bool {
    at(API, port).iter().all(|to| {
        let socket = traffic::udp_socket(from, *to);
        traffic::udp_once(&socket, 10, SOON).is_ok()
    })
}

#[track_caller]
fn only(pair: &Pair, how: &str, open: u16) {
    let from = pair.front.place();
    eventually(EFFECT, &format!("{how}: port {open} is open"), || passes(from, open));
    for port in (1001..=1010).filter(|port| *port != open) {
        let to = at(API, port)[0];
        let socket = traffic::udp_socket(from, to);
        let closed = traffic::udp_once(&socket, 10, Duration::from_millis(20)).is_err();
        assert!(closed, "{how}: port {port} is open");
    }
}

/// A directory made anew may have the inode of the old one, but its watch is dead.
#[test]
fn everything_replaced_at_once_is_still_watched() {
    World::run(|world| {
        let pair = pair(world);
        for round in 0..6u16 {
            pair.host.sh("rm -rf /run/kept; cp -a /etc/porin /run/kept; rm -rf /etc/porin/*; cp -a /run/kept/. /etc/porin");
            pair.daemon.wait_for("nothing pending", |status| status["in_force"] == true);
            pair.host.write("policies.d/shop.toml", &policy(1002 + round));
            only(&pair, &format!("edit after replacement {round}"), 1002 + round);
        }
    });
}

#[test]
fn every_way_of_saving_takes_effect() {
    World::run(|world| {
        let pair = pair(world);
        let directory = pair.host.etc().join("policies.d");
        let file = directory.join("shop.toml");
        only(&pair, "start", 1001);

        fs::write(&file, policy(1002)).unwrap();
        only(&pair, "truncate and write", 1002);

        pair.host.write("policies.d/shop.toml", &policy(1003));
        only(&pair, "write beside and rename", 1003);

        // vim with backup: the old one moves away, a new one is made, the old one goes.
        fs::rename(&file, directory.join("shop.toml~")).unwrap();
        fs::write(&file, policy(1004)).unwrap();
        fs::remove_file(directory.join("shop.toml~")).unwrap();
        only(&pair, "move away and write", 1004);

        // dpkg and rpm write beside under names of their own, and leave some lying about.
        for (new, old, port) in [
            ("shop.toml.dpkg-new", "shop.toml.dpkg-old", 1005),
            ("shop.toml;5f3a9c01", "shop.toml.rpmsave", 1006),
        ] {
            fs::write(directory.join(old), "this is no TOML").unwrap();
            fs::write(directory.join(new), policy(port)).unwrap();
            fs::rename(directory.join(new), &file).unwrap();
            only(&pair, new, port);
        }

        // A ConfigMap: files are links through `..data`, which is swapped.
        for (version, port) in [("..2026_1", 1007), ("..2026_2", 1008)] {
            fs::create_dir(directory.join(version)).unwrap();
            fs::write(directory.join(version).join("shop.toml"), policy(port)).unwrap();
            symlink(version, directory.join("..data_tmp")).unwrap();
            fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
            if port == 1007 {
                symlink("..data/shop.toml", directory.join("link")).unwrap();
                fs::rename(directory.join("link"), &file).unwrap();
            }
            only(&pair, "swap of a link", port);
        }

        // The whole directory is replaced.
        let new = pair.host.etc().join("new");
        fs::create_dir(&new).unwrap();
        fs::write(new.join("shop.toml"), policy(1009)).unwrap();
        fs::rename(&directory, pair.host.etc().join("old")).unwrap();
        fs::rename(&new, &directory).unwrap();
        only(&pair, "another directory", 1009);

        // Appended, as `cat >>` does.
        fs::write(&file, policy(1009).replace("1009/udp", "1010/udp")).unwrap();
        only(&pair, "again in the new directory", 1010);

        // Without its file there is no policy.
        fs::remove_file(&file).unwrap();
        eventually(EFFECT, "removal opens", || {
            (1001..=1010).all(|port| passes(pair.front.place(), port))
        });
    });
}

#[test]
fn a_link_to_dev_null_masks() {
    World::run(|world| {
        let pair = pair(world);
        only(&pair, "start", 1001);
        // The same name in a lower directory.
        let lower = pair.host.run_directory().join("porin/policies.d");
        fs::create_dir_all(&lower).unwrap();
        fs::write(lower.join("shop.toml"), policy(1002)).unwrap();
        fs::write(lower.join("other.toml"), policy(1003).replace("\"api\"", "\"other\"")).unwrap();
        let from = pair.front.place();
        eventually(EFFECT, "the lower directory counts", || passes(from, 1003));
        assert!(!passes(from, 1002), "a file of the same name above masks it");
        fs::remove_file(pair.host.etc().join("policies.d/shop.toml")).unwrap();
        eventually(EFFECT, "the lower file shows", || passes(from, 1002));
        symlink("/dev/null", pair.host.etc().join("policies.d/shop.toml")).unwrap();
        eventually(EFFECT, "masked entirely", || !passes(from, 1002));
    });
}

#[test]
fn a_burst_of_files_is_few_commits() {
    World::run(|world| {
        let pair = pair(world);
        only(&pair, "start", 1001);
        let before = pair.daemon.generation();
        for n in 0..1000 {
            let text = policy(2000).replace("\"api\"", &format!("\"burst-{n}\""));
            pair.host.write(&format!("policies.d/burst-{n:04}.toml"), &text);
        }
        pair.host.write("policies.d/shop.toml", &policy(1002));
        pair.daemon.wait_for("a thousand and one policies", |status| {
            status["policies"] == 1001 && status["in_force"] == true
        });
        only(&pair, "burst", 1002);
        let commits = pair.daemon.generation() - before;
        assert!(commits <= 10, "{commits} commits");
    });
}

#[test]
fn a_bad_file_changes_nothing_and_is_reported_with_its_place() {
    World::run(|world| {
        let pair = pair(world);
        only(&pair, "start", 1001);
        let before = pair.daemon.generation();
        let good = policy(1002);
        let bad = good.replace("subject", "sujbect");
        pair.host.write("policies.d/shop.toml", &bad);
        pair.daemon.wait_for("a fault", |status| {
            let faults = status["faults"].as_array().cloned().unwrap_or_default();
            faults.iter().any(|fault| {
                fault["severity"] == "error"
                    && fault["file"] == "/etc/porin/policies.d/shop.toml"
                    && fault["line"] == 3
                    && fault["column"] == 1
                    && fault["what"].as_str().is_some_and(|what| what.contains("sujbect"))
                    && fault.to_string().contains("subject")
            })
        });
        assert_eq!(pair.daemon.status()["in_force"], false);
        only(&pair, "a bad file", 1001);
        assert_eq!(pair.daemon.generation(), before);
        // Nor does a good edit elsewhere while that is so: all or nothing.
        pair.host.write("policies.d/other.toml", &policy(1003).replace("\"api\"", "\"other\""));
        only(&pair, "a good file beside a bad one", 1001);

        pair.host.remove("policies.d/other.toml");
        pair.host.write("policies.d/shop.toml", &good);
        only(&pair, "repaired", 1002);
        pair.daemon.wait_for("no faults", |status| {
            status["in_force"] == true && status["faults"].as_array().is_some_and(Vec::is_empty)
        });
    });
}

#[test]
fn garbage_of_every_kind_is_survived() {
    World::run(|world| {
        let mut pair = pair(world);
        let directory = pair.host.etc().join("policies.d");
        let file = directory.join("garbage.toml");
        let error = |pair: &Pair, what: &str| {
            pair.daemon.wait_for(what, |status| {
                let faults = status["faults"].as_array().cloned().unwrap_or_default();
                let named = |fault: &serde_json::Value| {
                    fault["file"].as_str().is_some_and(|file| file.contains("garbage"))
                };
                faults.iter().any(|fault| fault["severity"] == "error" && named(fault))
            });
            only(pair, what, 1001);
        };
        let clean = |pair: &Pair, path: &Path| {
            if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
            pair.daemon.wait_for("clean again", |status| status["in_force"] == true);
        };
        fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
        error(&pair, "not UTF-8");
        fs::write(&file, "[[policy]]\n".repeat(2000)).unwrap();
        error(&pair, "thousands of faults");
        let shown = pair.daemon.status()["faults"].as_array().map_or(0, Vec::len);
        assert!(shown <= 1000, "the report is bounded, not {shown} faults long");
        clean(&pair, &file);
        let huge = fs::File::create(&file).unwrap();
        huge.set_len(100 << 20).unwrap();
        error(&pair, "100 MB");
        clean(&pair, &file);
        symlink("garbage.toml", &file).unwrap();
        error(&pair, "a link to itself");
        clean(&pair, &file);
        // Empty is fine.
        fs::write(&file, "").unwrap();
        pair.daemon.wait_for("empty is fine", |status| status["in_force"] == true);
        clean(&pair, &file);
        // A loop of directories is not followed.
        symlink(".", directory.join("loop")).unwrap();
        pair.host.write("policies.d/shop.toml", &policy(1002));
        only(&pair, "a directory loop", 1002);
        assert!(pair.daemon.is_running());
    });
}
