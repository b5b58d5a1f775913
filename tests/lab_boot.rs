//! `porind --wait`: who starts containers waits for policy after a boot, if the files say so.

mod lab;

use std::fs::{self, File};
use std::path::PathBuf;

use lab::daemon::EFFECT;
use lab::shop::Shop;
use lab::{Host, Process, World, config, eventually};

fn wait(host: &Host) -> Process {
    let mut command = host.place().command(&[env!("CARGO_BIN_EXE_porind"), "--wait"]);
    command.stderr(File::create(log(host)).unwrap());
    host.place().spawn(command)
}

fn log(host: &Host) -> PathBuf {
    host.run_directory().join("wait.log")
}

/// Once it has looked, and found that it has to wait.
fn held(host: &Host) -> Process {
    let waiting = wait(host);
    let told = || fs::read_to_string(log(host)).is_ok_and(|log| log.contains("containers wait"));
    eventually(EFFECT, "it waits", told);
    waiting
}

#[test]
fn closed_waits_for_a_generation_and_open_for_nothing() {
    World::run(|world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        let settings = config::host(&["up0"]);
        assert!(wait(host).wait(EFFECT).success(), "open is the default");
        host.write("porin.toml", &format!("boot = \"open\"\n{settings}"));
        host.write("policies.d/wrong.toml", "[[policy]]\nnaem = \"x\"\n");
        assert!(wait(host).wait(EFFECT).success(), "whatever else is wrong");

        host.write("porin.toml", &format!("boot = \"closed\"\n{settings}"));
        let mut waiting = held(host);
        assert_eq!(host.porind_once(&[]).status.code(), Some(3));
        assert!(waiting.is_running(), "nothing is in force");
        host.remove("policies.d/wrong.toml");
        let daemon = host.porind();
        assert!(waiting.wait(EFFECT).success());
        assert!(wait(host).wait(EFFECT).success(), "in force already");
        drop(daemon);

        // What it was to be is not known.
        host.write("porin.toml", "boot = \"opn\"\n");
        let mut waiting = held(host);
        host.write("porin.toml", &settings);
        assert!(waiting.wait(EFFECT).success());
    });
}
