//! The service manager's end of sd_notify(3).

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// Reads all the time, as a service manager does: a full socket would hold the daemon up.
pub struct Notify {
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    ready: bool,
    status: String,
}

impl Notify {
    pub fn bind(path: &Path) -> Notify {
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path).expect("notify socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
        let heard = Arc::default();
        let listener = Arc::downgrade(&heard);
        std::thread::spawn(move || listen(&socket, &listener));
        Notify { heard }
    }

    /// Forgets what an earlier daemon said.
    pub fn begin(&self) {
        *self.heard.lock().expect("heard") = Heard::default();
    }

    pub fn is_ready(&self) -> bool {
        self.heard.lock().expect("heard").ready
    }

    /// The last `STATUS=`.
    pub fn status(&self) -> String {
        self.heard.lock().expect("heard").status.clone()
    }
}

fn listen(socket: &UnixDatagram, heard: &Weak<Mutex<Heard>>) {
    let mut buffer = [0; 8192];
    loop {
        let received = socket.recv(&mut buffer);
        let Some(heard) = heard.upgrade() else { return };
        let Ok(n) = received else { continue };
        let mut heard = heard.lock().expect("heard");
        for line in String::from_utf8_lossy(&buffer[..n]).lines() {
            heard.ready |= line == "READY=1";
            if let Some(status) = line.strip_prefix("STATUS=") {
                status.clone_into(&mut heard.status);
            }
        }
    }
}
