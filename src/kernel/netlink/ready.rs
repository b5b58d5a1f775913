//! When an endpoint's interface passes what is sent into it.
//!
//! Of two ends the one that is brought up first has no carrier until the other is up as well. What follows from its getting one,
//! that its queue is put in place of one that drops everything, the kernel does later, from a work queue
//! (net/core/link_watch.c). Its operational state (RFC 2863) is up only then.

use std::time::{Duration, Instant};

use super::{Error, Namespace, Netlink, host};
use crate::desired::snapshot;

/// Between two looks at first; doubled each time.
const PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Waits until both ends pass packets. False: they do not after so long, or one of them is gone. Opens sockets of its own:
/// it is for threads that serve somebody who waits.
pub fn wait(
    namespace: &snapshot::Namespace,
    inside: &str,
    outside: &str,
    patience: Duration,
) -> Result<bool, Error> {
    let netlink = Netlink::open()?;
    let there = Namespace::open(&namespace.path)?;
    if (there.device, there.inode) != (namespace.device, namespace.inode) {
        return Ok(false);
    }
    let deadline = Instant::now() + patience;
    for (socket, name) in [(netlink.socket_in(&there)?, inside), (netlink.socket(), outside)] {
        let mut pause = PAUSE;
        loop {
            match host::link_by_name(&socket, name)? {
                Some(link) if link.ready => break,
                Some(_) if Instant::now() < deadline => std::thread::sleep(pause),
                _ => return Ok(false),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    Ok(true)
}
