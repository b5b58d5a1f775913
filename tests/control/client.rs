//! `porinctl` as a process: exit statuses, messages, pipes, colour.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use porin::control::server::Patience;

use super::fixture::{self, Daemon};
use super::server::Running;

fn porinctl(run: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_porinctl"));
    command.arg("--run").arg(run).args(args).env("TZ", "UTC").env_remove("NO_COLOR");
    command
}

pub fn porinctl_as_nobody(run: &Path) -> Output {
    const NOBODY: u32 = 65534;
    // The build's own directories need not be open to others.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("porinctl");
    std::fs::copy(env!("CARGO_BIN_EXE_porinctl"), &copy).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let mut command = Command::new(copy);
    command.arg("--run").arg(run).arg("status").uid(NOBODY).gid(NOBODY).current_dir("/");
    command.output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn answers_are_printed_plainly_into_pipes() {
    let running = Running::start();
    for (command, golden) in [
        ("status", "status.txt"),
        ("endpoints", "endpoints-pipe.txt"),
        ("policies", "policies-pipe.txt"),
    ] {
        let output = porinctl(running.dir.path(), &[command]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        super::golden::compare(golden, &text(output.stdout));
    }
    for command in ["endpoints", "identities", "policies"] {
        let output = porinctl(running.dir.path(), &[command, "--json"]).output().unwrap();
        super::golden::compare(&format!("{command}.json"), &text(output.stdout));
    }
}

#[test]
fn flows_are_printed_and_filtered() {
    let running = Running::start();
    for flow in fixture::flows() {
        running.daemon.hub.publish(flow);
    }
    let print = |args: &[&str]| {
        let output = porinctl(running.dir.path(), args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        text(output.stdout)
    };
    super::golden::compare("flows-pipe.txt", &print(&["flows"]));
    super::golden::compare("flows.json", &print(&["flows", "--json"]));
    let lines = |args: &[&str]| print(args).lines().count();
    assert_eq!(lines(&["flows", "--type", "deny,drop"]), 2);
    assert_eq!(lines(&["flows", "--type", "flow", "--last", "1"]), 1);
    assert_eq!(lines(&["flows", "--endpoint", "dev/intruder"]), 2);
    assert_eq!(lines(&["flows", "--endpoint", "nobody"]), 0);
}

#[test]
fn followers_see_what_happens_until_the_daemon_stops() {
    let running = Running::start();
    let mut child = porinctl(running.dir.path(), &["flows", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for flow in fixture::flows() {
        running.daemon.hub.publish(flow);
        assert!(lines.next().unwrap().unwrap().starts_with("16:02:11.123 "));
    }
    drop(running);
    assert!(lines.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let running = Running::start();
    for _ in 0..4000 {
        running.daemon.hub.publish(fixture::flows().remove(0));
    }
    let mut child = porinctl(running.dir.path(), &["flows", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn exit_statuses_say_how_it_went() {
    let broken = Daemon { broken: true, ..Daemon::default() };
    let running = Running::with(Patience::default(), broken);
    let run = |args: &[&str]| porinctl(running.dir.path(), args).output().unwrap();
    let output = run(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    super::golden::compare("status-refused.txt", &text(output.stdout));
    let output = run(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    super::golden::compare("status.json", &text(output.stdout));
    // It answers everything with its status.
    let output = run(&["policies"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    for wrong in [&["nonsense"][..], &["flows", "--type", "x"], &["status", "--yaml"], &[]] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_daemon_that_is_not_there_is_said_to_be_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = || {
        let output = porinctl(dir.path(), &["status"]).output().unwrap();
        assert_eq!((output.status.code(), text(output.stdout).as_str()), (Some(3), ""));
        text(output.stderr).replace(dir.path().to_str().unwrap(), "RUN")
    };
    super::golden::compare("error-missing.txt", &run());
    drop(UnixListener::bind(dir.path().join("porin.sock")).unwrap());
    super::golden::compare("error-refused.txt", &run());
}

/// Somebody else's socket, or another version's.
#[test]
fn foreign_daemons_are_errors() {
    for answer in
        ["", "garbage\n", "{\"version\":2,\"status\":{}}\n", "{\"version\":1}\n", "\u{1b}[2J\n"]
    {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("porin.sock")).unwrap();
        let child = porinctl(dir.path(), &["status"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        std::io::Write::write_all(&mut &stream, answer.as_bytes()).unwrap();
        drop(stream);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{answer:?}: {output:?}");
        let error = text(output.stderr);
        assert!(!error.contains(|c: char| c.is_control() && c != '\n'), "{error:?}");
    }
}

#[test]
fn colour_is_for_terminals_unless_forced() {
    let running = Running::start();
    running.daemon.hub.publish(fixture::flows().remove(0));
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = porinctl(running.dir.path(), &["flows"]);
        command.envs(variables.iter().copied());
        command.output().unwrap().stdout.contains(&0x1b)
    };
    assert!(!coloured(&[]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}
