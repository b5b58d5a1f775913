//! Long bodies from one connection to the other without passing through this process's memory (splice(2)): the kernel
//! moves pages from socket to pipe to socket.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with};
use tokio::io::Interest;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::watch::Watch;

/// Bodies, or chunks, with so much yet to come are worth a pipe.
pub const LONG: u64 = 256 << 10;
/// In a pipe at a time. More than the kernel gives a pipe unasked (64 KiB) is not worth the pages.
const ROOM: usize = 64 << 10;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub bytes: u64,
    /// The sender sends no more.
    pub end: bool,
}

/// Who has gone.
#[derive(Debug)]
pub enum Gone {
    Sender,
    Receiver,
}

/// A pipe; none: there are no descriptors left, and bytes are to be copied.
pub struct Pipe {
    reads: OwnedFd,
    writes: OwnedFd,
}

impl Pipe {
    pub fn new() -> Option<Self> {
        let (reads, writes) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        Some(Pipe { reads, writes })
    }

    /// Moves `most` bytes, or all until the sender's end. `times`: how long the sender may be silent, and the receiver not
    /// take what there is.
    pub async fn run(
        &self,
        from: &ReadHalf<'_>,
        to: &WriteHalf<'_>,
        most: u64,
        watch: &Watch,
        times: [Duration; 2],
    ) -> Result<Moved, Gone> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let mut moved = 0;
        while moved < most {
            watch.patience(times[0]);
            let room = ROOM.min(usize::try_from(most - moved).unwrap_or(ROOM));
            let taken =
                from.async_io(Interest::READABLE, || splice(from, &self.writes, room)).await;
            let mut held = taken.map_err(|_| Gone::Sender)?;
            if held == 0 {
                return Ok(Moved { bytes: moved, end: true });
            }
            while held > 0 {
                watch.patience(times[1]);
                let given = to.async_io(Interest::WRITABLE, || splice(&self.reads, to, held)).await;
                match given {
                    Ok(0) | Err(_) => return Err(Gone::Receiver),
                    Ok(bytes) => (held, moved) = (held - bytes.min(held), moved + bytes as u64),
                }
            }
        }
        Ok(Moved { bytes: moved, end: false })
    }
}

fn splice(
    from: impl std::os::fd::AsFd,
    to: impl std::os::fd::AsFd,
    bytes: usize,
) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        match rustix::pipe::splice(&from, None, &to, None, bytes, flags) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map_err(io::Error::from),
        }
    }
}
