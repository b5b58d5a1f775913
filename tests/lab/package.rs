//! Packages of this build's binaries, made by the repository's own scripts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::Output;

/// What `packaging/deb` and `packaging/rpm/build` need.
pub const DEB: &[&str] = &["dpkg-deb", "dpkg-shlibdeps", "readelf", "make"];
pub const RPM: &[&str] = &["rpmbuild", "readelf", "make"];

/// Making one: debug binaries are large.
const PATIENCE: Duration = Duration::from_secs(180);

pub fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Makes `out/porin_VERSION_*.deb`, and says where it is.
pub fn deb(out: &Path, version: &str) -> PathBuf {
    made(&mut deb_command(out, version))
}

pub fn deb_command(out: &Path, version: &str) -> Command {
    let mut command = script("packaging/deb", out, version);
    // Quick rather than small.
    command.env("COMPRESS", "-Zgzip -z1");
    command
}

pub fn rpm(out: &Path, version: &str) -> PathBuf {
    made(script("packaging/rpm/build", out, version).env("PAYLOAD", "w1.zstdio"))
}

fn script(script: &str, out: &Path, version: &str) -> Command {
    let binaries = Path::new(env!("CARGO_BIN_EXE_porind")).parent().expect("its directory");
    let mut command = Command::new(source().join(script));
    command.arg(binaries).arg(out).env("VERSION", version).env("SOURCE_DATE_EPOCH", "1700000000");
    // Those of the `make` that runs the tests are not for this one.
    command.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("MAKELEVEL");
    command
}

fn made(command: &mut Command) -> PathBuf {
    let said = Output::of("packaging", command, None, PATIENCE).success();
    said.lines().last().expect("the package's path").into()
}

/// The same package, beside it, as if it were of another version.
pub fn with_version(deb: &Path, version: &str) -> PathBuf {
    let new = deb.with_file_name(format!("porin_{version}.deb"));
    let script = "work=$(mktemp -d); dpkg-deb -R \"$1\" $work/p
         sed -i \"s/^Version: .*/Version: $2/\" $work/p/DEBIAN/control
         dpkg-deb --root-owner-group -Zgzip -z1 -b $work/p \"$3\"; rm -r $work";
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]).arg(deb).arg(version).arg(&new);
    Output::of("dpkg-deb", &mut command, None, PATIENCE).success();
    new
}
