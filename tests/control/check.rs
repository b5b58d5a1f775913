//! `porinctl check`, without a daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::golden::compare;

/// Relative, so that what is printed does not depend on where the sources are.
const GOOD: &str = "tests/golden/control/check-good";
const BAD: &str = "tests/golden/control/check-bad";

/// Exit status, standard output, standard error.
fn check(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_porinctl"));
    command.arg("check").args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn good_files_are_summed_up() {
    let (status, out, err) = check(&[GOOD]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    compare("check-good.txt", &out);
    let (status, out, _) = check(&[GOOD, "--json"]);
    assert_eq!(status, 0);
    compare("check-good.json", &out);
}

#[test]
fn every_fault_is_shown_with_its_line() {
    let (status, out, err) = check(&[BAD]);
    assert_eq!((status, err.as_str()), (1, ""), "{out}");
    compare("check-bad.txt", &out);
    let (status, out, _) = check(&[BAD, "--json"]);
    assert_eq!(status, 1);
    compare("check-bad.json", &out);
}

#[test]
fn a_higher_directory_masks_a_lower_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies.d")).unwrap();
    fs::write(dir.path().join("policies.d/shop.toml"), "").unwrap();
    let (status, out, _) = check(&[dir.path().to_str().unwrap(), BAD]);
    assert_eq!(status, 0, "{out}");
}

#[test]
fn what_cannot_be_read_is_not_called_good() {
    for wrong in ["/nonexistent", "Cargo.toml"] {
        let (status, out, err) = check(&[GOOD, wrong]);
        assert_eq!((status, out.as_str()), (2, ""), "{wrong}");
        assert!(err.contains(&format!("cannot read {wrong}")), "{err}");
    }
}

#[test]
fn nothing_of_a_file_reaches_the_terminal_raw() {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: PathBuf, text: &[u8]| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let policies = dir.path().join("policies.d");
    write(policies.join("a\u{1b}[2J.toml"), b"x\x1b[31m = 1\n\"\xc2\x9b\" = 2\n");
    write(policies.join("b.toml"), "[[policy]]\nname = \"\\u001b]0;t\"\n\u{202e} = 1".as_bytes());
    write(policies.join("c.toml"), b"\xff\xfe\x00");
    for json in [false, true] {
        let dir: &Path = dir.path();
        let mut args = vec![dir.to_str().unwrap()];
        args.extend(json.then_some("--json"));
        let (status, out, _) = check(&args);
        assert_eq!(status, 1);
        let active = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!out.contains(active), "{out:?}");
    }
}

#[test]
fn an_assertion_that_does_not_hold_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies.d")).unwrap();
    let policies = "[[policy]]\nname = \"in\"\nsubject = \"app=db\"\n\n[[policy.ingress]]\nfrom = \"app\"\n\
                    ports = \"5432/tcp\"\n\n[[assert]]\nnever = { from = \"env=dev\", to = \"app=db\" }\n";
    fs::write(dir.path().join("policies.d/p.toml"), policies).unwrap();
    let (status, out, _) = check(&[dir.path().to_str().unwrap(), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &json["ok"], &json["errors"]), (1, &false.into(), &1.into()), "{out}");
    let fault =
        json["faults"].as_array().unwrap().iter().find(|f| f["severity"] == "error").unwrap();
    assert_eq!((fault["line"].as_u64(), fault["column"].as_u64()), (Some(10), Some(1)), "{out}");
    let what = fault["what"].as_str().unwrap();
    assert!(
        what.starts_with(
            "the assertion `never` does not hold: an endpoint with `app=other,env=dev` may reach an \
             endpoint with `app=db` on 5432/tcp: egress: nothing denies it; ingress: allow by `in` ("
        ),
        "{what}"
    );
    assert!(what.ends_with("p.toml:5:1)"), "{what}");
}
