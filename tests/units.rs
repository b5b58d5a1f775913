//! The systemd units are such as systemd takes, and so is what porin.endpoint(5) says to write beside them.

use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The drop-in of the man page.
fn drop_in(page: &str) -> String {
    let begin = ".\\\" file: shop.service.d/porin.conf\n.Bd -literal -offset indent\n";
    let (_, rest) = page.split_once(begin).expect("the example");
    rest.split_once(".Ed").expect("its end").0.to_owned()
}

#[test]
fn a_service_in_a_namespace_of_its_own_is_one_that_systemd_takes() {
    let root = root();
    let units = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = units.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let template = fs::read_to_string(root.join("systemd/porin-netns@.service")).unwrap();
    let page = fs::read_to_string(root.join("man/porin.endpoint.5")).unwrap();
    write("porin-netns@.service", &template);
    write("porind.service", "[Service]\nExecStart=/bin/true\n");
    write("shop.service", "[Service]\nExecStart=/bin/true\n");
    write("shop.service.d/porin.conf", &drop_in(&page));
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(units.path().join("shop.service"))
        .arg(units.path().join("porin-netns@shop.service"))
        .env("SYSTEMD_UNIT_PATH", format!("{}:", units.path().display()))
        .output();
    let Ok(verified) = verified else {
        return println!("not verified: there is no systemd-analyze");
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_sandboxes_are_as_tight_as_they_were() {
    // In tenths, as `systemd-analyze security` counts exposure, of 100. What each needs is in the unit.
    for (name, program, exposure) in [
        ("porind.service", "/usr/sbin/porind", "40"),
        ("porin-boot.service", "/usr/sbin/porind --wait", "15"),
    ] {
        let units = tempfile::tempdir().unwrap();
        let unit = units.path().join(name);
        let text = fs::read_to_string(root().join("systemd").join(name)).unwrap();
        // The program is not installed here.
        let start = format!("ExecStart={program}\n");
        assert!(text.contains(&start));
        fs::write(&unit, text.replace(&start, "ExecStart=/bin/true\n")).unwrap();
        let analyze = |arguments: &[&str]| {
            let path = format!("{}:", units.path().display());
            let mut command = Command::new("systemd-analyze");
            command.args(arguments).arg(&unit).env("SYSTEMD_UNIT_PATH", path).output()
        };
        let Ok(verified) = analyze(&["verify", "--man=no"]) else {
            return println!("not verified: there is no systemd-analyze");
        };
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success() && said.is_empty(), "{name}: {said}");
        let threshold = format!("--threshold={exposure}");
        let scored = analyze(&["security", "--offline=true", "--no-pager", &threshold]).unwrap();
        let said = String::from_utf8_lossy(&scored.stdout);
        assert!(scored.status.success() && said.contains("Overall exposure"), "{name}: {said}");
    }
}
