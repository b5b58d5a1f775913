//! The daemon's state for the service manager (sd_notify(3), protocol of systemd).
//!
//! Without `NOTIFY_SOCKET` everything here does nothing. A service manager that cannot be told is
//! logged, never a reason to stop enforcing.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;

use super::text::plain;

/// For what is told once, so that it should arrive.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(1));

/// Ready: the first generation is in force.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))], PATIENCE);
}

/// The line that `systemctl status` shows.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&one_line(status))], None);
}

/// Files are being read again. `ready` ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now], PATIENCE),
        Err(error) => log::warn!("cannot read the monotonic clock: {error}"),
    }
}

/// The daemon goes; enforcement stays.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))], PATIENCE);
}

/// The service manager is to keep a descriptor for the next daemon, by this name. It lets go of a socket whose other end
/// is gone.
pub fn store(name: &str, descriptor: BorrowedFd<'_>) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let named = format!("FDNAME={name}");
    let states = [NotifyState::Custom("FDSTORE=1"), NotifyState::Custom(&named)];
    if let Err(error) = send_with(socket.as_bytes(), &states, PATIENCE, &[descriptor]) {
        log::warn!("cannot have the service manager keep {name}: {error}");
    }
}

/// The service manager need not keep what was stored by this name.
pub fn forget(name: &str) {
    let named = format!("FDNAME={name}");
    tell(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(&named)], PATIENCE);
}

/// How often [`alive`] must be called: half of what the service manager waits. None: it does not.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// The main loop turns.
pub fn alive() {
    tell(&[NotifyState::Watchdog], None);
}

/// `patience`: how long a service manager that does not read may keep the caller. None: not at all.
fn tell(states: &[NotifyState<'_>], patience: Option<Duration>) {
    static FAILED: AtomicBool = AtomicBool::new(false);
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    match send(socket.as_bytes(), states, patience) {
        Ok(()) => FAILED.store(false, Ordering::Relaxed),
        // Once is enough: it may be the same for ever.
        Err(error) if !FAILED.swap(true, Ordering::Relaxed) => {
            log::warn!("cannot notify the service manager: {error}");
        }
        Err(_) => {}
    }
}

fn send(path: &[u8], states: &[NotifyState<'_>], patience: Option<Duration>) -> io::Result<()> {
    send_with(path, states, patience, &[])
}

/// `sd_notify::notify` waits for ever while nobody reads.
fn send_with(
    path: &[u8],
    states: &[NotifyState<'_>],
    patience: Option<Duration>,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let address = match path {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let mut message = String::new();
    for state in states {
        // Writing to a String cannot fail.
        let _ = writeln!(message, "{state}");
    }
    let socket = UnixDatagram::unbound()?;
    match patience {
        Some(patience) => socket.set_write_timeout(Some(patience))?,
        None => socket.set_nonblocking(true)?,
    }
    if descriptors.is_empty() {
        return socket.send_to_addr(message.as_bytes(), &address).map(|_| ());
    }
    socket.connect_addr(&address)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let text = [IoSlice::new(message.as_bytes())];
    sendmsg(&socket, &text, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A line feed would begin another assignment of the protocol.
fn one_line(text: &str) -> String {
    plain(text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::*;

    /// Says everything to whatever `NOTIFY_SOCKET` is. Only run by the test below, as its child: a
    /// process cannot safely change its own environment.
    #[test]
    #[ignore = "the child of the_service_manager_is_told"]
    fn child() {
        reloading();
        ready("generation 3\nFDSTORE=1");
        status("closed");
        alive();
        stopping("bye");
        assert_eq!(watchdog_interval(), Some(Duration::from_secs(5)));
    }

    fn child_command() -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "observe::health::tests::child", "--ignored", "--quiet"]);
        command.env("WATCHDOG_USEC", "10000000").env_remove("WATCHDOG_PID");
        command
    }

    #[test]
    fn the_service_manager_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let output = child_command().env("NOTIFY_SOCKET", &path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let receive = || {
            let mut bytes = [0; 256];
            let length = socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        let reloading = receive();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(receive(), "READY=1\nSTATUS=generation 3\\u{a}FDSTORE=1\n");
        assert_eq!(receive(), "STATUS=closed\n");
        assert_eq!(receive(), "WATCHDOG=1\n");
        assert_eq!(receive(), "STOPPING=1\nSTATUS=bye\n");
    }

    #[test]
    fn descriptors_are_kept_by_their_names() {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (one, mut other) = std::io::pipe().unwrap();
        let states = [NotifyState::Custom("FDSTORE=1"), NotifyState::Custom("FDNAME=a")];
        send_with(path.as_os_str().as_bytes(), &states, PATIENCE, &[one.as_fd()]).unwrap();
        drop(one);
        let (mut bytes, mut space) = ([0; 64], [MaybeUninit::uninit(); 64]);
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [io::IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&socket, &mut slices, &mut control, RecvFlags::empty()).unwrap();
        assert_eq!(&bytes[..received.bytes], b"FDSTORE=1\nFDNAME=a\n");
        let Some(RecvAncillaryMessage::ScmRights(mut kept)) = control.drain().next() else {
            panic!("no descriptor came");
        };
        let mut kept = std::fs::File::from(kept.next().unwrap());
        io::Write::write_all(&mut other, b"x").unwrap();
        io::Read::read_exact(&mut kept, &mut bytes[..1]).unwrap();
        assert_eq!(bytes[0], b'x');
    }

    #[test]
    fn a_service_manager_that_never_reads_keeps_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _never_read = UnixDatagram::bind(&path).unwrap();
        let path = path.as_os_str().as_bytes();
        let begun = std::time::Instant::now();
        let full = (0..1_000_000).find_map(|_| send(path, &[NotifyState::Watchdog], None).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        let late = send(path, &[NotifyState::Ready], Some(Duration::from_millis(10)));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn without_or_with_a_dead_service_manager_nothing_happens() {
        let output = child_command().env_remove("NOTIFY_SOCKET").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let output = child_command().env("NOTIFY_SOCKET", "/nonexistent/notify").output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
