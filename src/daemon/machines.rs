//! Machines that systemd-machined knows (machinectl(1)): where their network namespaces are.
//!
//! A machine is registered as a file, `/run/systemd/machines/NAME`, that is there from its start to its end and says which
//! process is its first. libsystemd (sd-login(3)) reads the same files, also those of a machined of another version. The
//! documented way, D-Bus, would make the daemon depend on a bus that is not there early at boot, and on the answers of
//! another daemon in its main loop; to see a file come and go it has eyes already. If the form ever changes, such an
//! endpoint stays closed and says why.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::config::model::MACHINES;

/// Bytes of a registration at most; machined writes some hundred.
const LARGEST: u64 = 64 << 10;

/// The path of the network namespace: as it is written, or that of the machine's first process.
///
/// # Errors
/// The machine is not there, for one who sees its name already.
pub fn resolve(path: &Path) -> Result<Cow<'_, Path>, String> {
    if path.parent() == Some(Path::new(MACHINES)) {
        return leader(path)
            .map(|leader| Cow::Owned(PathBuf::from(format!("/proc/{leader}/ns/net"))));
    }
    Ok(Cow::Borrowed(path))
}

fn leader(registration: &Path) -> Result<u32, String> {
    let file = File::open(registration).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "it is not running".to_owned(),
        _ => format!("cannot read {}: {error}", registration.display()),
    })?;
    let mut text = String::new();
    file.take(LARGEST)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read {}: {error}", registration.display()))?;
    parse(&text)
        .ok_or_else(|| format!("{} does not say which process leads it", registration.display()))
}

/// The value of `LEADER=`. 1 is the host's own first process.
fn parse(text: &str) -> Option<u32> {
    let leader = text.lines().find_map(|line| line.strip_prefix("LEADER="))?;
    leader.parse().ok().filter(|pid| *pid > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_found() {
        // As systemd 252 writes it.
        let text = "# This is private data. Do not parse.\nNAME=web\nSCOPE=machine-web.scope\nSERVICE=nspawn\nROOT=/\n\
                    ID=5c0e\nLEADER=1234\nCLASS=container\nREALTIME=1\nMONOTONIC=2\nNETIF=3\n";
        assert_eq!(parse(text), Some(1234));
        for bad in
            ["", "NAME=web\n", "LEADER=\n", "LEADER=x\n", "LEADER=-1\n", "LEADER=0\n", "LEADER=1\n"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse("XLEADER=7\nLEADER=8"), Some(8));
    }

    #[test]
    fn only_registrations_are_read() {
        let plain = Path::new("/run/netns/web");
        assert_eq!(resolve(plain).unwrap(), plain);
        let missing = Path::new(MACHINES).join("no-such-machine-of-porin");
        assert_eq!(resolve(&missing).unwrap_err(), "it is not running");
    }

    #[test]
    fn what_is_no_registration_is_not_read_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("m");
        std::fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
        assert!(leader(&file).unwrap_err().contains("which process"));
        std::fs::write(&file, b"\xff\xfe").unwrap();
        assert!(leader(&file).unwrap_err().starts_with("cannot read"));
        assert!(leader(directory.path()).unwrap_err().starts_with("cannot read"));
    }
}
