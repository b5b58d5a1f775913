//! Counts an HTTP/2 client's frames that carry nothing, and ends a connection that has too many of them: each costs the
//! client a few bytes, and this side work (CVE-2019-9512, -9514, -9515, CVE-2023-44487).
//!
//! `h2` has bounds of its own on streams, resets that nobody has looked at yet, CONTINUATION and small DATA frames; this
//! is for the rest. It stands between the socket and `h2`, and reads nothing but the frames' heads (RFC 9113 section 4.1).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::Limits;
use super::watch::Watch;

/// A connection, with what was read of it before.
pub struct Metered<'w, S> {
    stream: S,
    before: BytesMut,
    incoming: Scanner,
    outgoing: Scanner,
    budget: Budget,
    /// Something moves on the connection.
    watch: &'w Watch,
    patience: Duration,
}

impl<'w, S> Metered<'w, S> {
    /// `before` begins with the client's preface.
    pub fn new(stream: S, before: BytesMut, limits: &Limits, watch: &'w Watch) -> Self {
        const PREFACE: usize = 24;
        Metered {
            stream,
            before,
            incoming: Scanner { skip: PREFACE, ..Scanner::default() },
            outgoing: Scanner::default(),
            budget: Budget::new(limits),
            watch,
            patience: limits.idle_time,
        }
    }

    fn read(&mut self, bytes: &[u8]) -> io::Result<()> {
        let budget = &mut self.budget;
        let mut fine = true;
        self.incoming.scan(bytes, |kind, length| fine &= budget.received(kind, length));
        self.watch.patience(self.patience);
        match fine {
            true => Ok(()),
            false => Err(io::Error::other("too many frames that carry nothing")),
        }
    }

    fn written(&mut self, bytes: &[u8]) {
        let budget = &mut self.budget;
        self.outgoing.scan(bytes, |kind, _| budget.sent(kind));
        self.watch.patience(self.patience);
    }
}

/// Finds the heads of frames in what passes.
#[derive(Default)]
struct Scanner {
    /// Bytes before the next head.
    skip: usize,
    head: [u8; 9],
    have: usize,
}

impl Scanner {
    fn scan(&mut self, mut bytes: &[u8], mut frame: impl FnMut(u8, usize)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (self.head.len() - self.have).min(bytes.len());
            self.head[self.have..self.have + wanted].copy_from_slice(&bytes[..wanted]);
            self.have += wanted;
            bytes = &bytes[wanted..];
            if self.have == self.head.len() {
                let length =
                    self.head[..3].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                frame(self.head[3], length);
                (self.skip, self.have) = (length, 0);
            }
        }
    }
}

/// Frames that carry nothing and are allowed yet.
struct Budget {
    most: u32,
    per_second: u32,
    left: u32,
    since: Instant,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;

impl Budget {
    fn new(limits: &Limits) -> Self {
        let (most, per_second) = (limits.control, limits.control_per_second);
        Budget { most, per_second, left: most, since: Instant::now() }
    }

    /// Whether it is still within bounds.
    fn received(&mut self, kind: u8, length: usize) -> bool {
        // Requests bring resets and window updates with them, and are bounded by themselves; so is data that has any.
        if kind == HEADERS {
            self.earn(2);
            return true;
        }
        if kind == DATA && length > 0 {
            return true;
        }
        if self.left == 0 {
            self.refill();
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// What this side sends is answered: data by window updates, of the stream and of the connection, and by pings.
    fn sent(&mut self, kind: u8) {
        if kind == DATA {
            self.earn(4);
        }
    }

    fn earn(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(self.most);
    }

    fn refill(&mut self) {
        let now = Instant::now();
        let passed = now.duration_since(self.since).as_millis();
        let frames = passed.saturating_mul(u128::from(self.per_second)) / 1000;
        if frames > 0 {
            self.since = now;
            self.earn(u32::try_from(frames).unwrap_or(u32::MAX));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let filled = buffer.filled().len();
        if this.before.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        } else {
            let bytes = this.before.len().min(buffer.remaining());
            buffer.put_slice(&this.before[..bytes]);
            this.before.advance(bytes);
            if this.before.is_empty() {
                this.before = BytesMut::new();
            }
        }
        Poll::Ready(this.read(&buffer.filled()[filled..]))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.written(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        let mut rest = written;
        for slice in slices {
            let bytes = rest.min(slice.len());
            self.written(slice.get(..bytes).unwrap_or_default());
            rest -= bytes;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0, 0, length as u8, kind, 0, 0, 0, 0, 0];
        bytes.resize(9 + length, 0xff);
        bytes
    }

    #[test]
    fn heads_are_found_however_the_bytes_come() {
        let bytes = [frame(1, 3), frame(0, 0), frame(6, 8), frame(0, 200)].concat();
        for step in [1, 2, 5, 9, 10, 1000] {
            let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
            for part in bytes.chunks(step) {
                scanner.scan(part, |kind, length| seen.push((kind, length)));
            }
            assert_eq!(seen, [(1, 3), (0, 0), (6, 8), (0, 200)], "{step}");
        }
    }

    #[test]
    fn what_carries_nothing_has_a_bound() {
        let limits = Limits { control: 10, control_per_second: 0, ..Limits::default() };
        let mut budget = Budget::new(&limits);
        assert!((0..10).all(|_| budget.received(6, 8)));
        assert!(!budget.received(6, 8));
        assert!(!budget.received(0, 0));
        assert!(budget.received(0, 1));
        budget.sent(DATA);
        assert!(budget.received(8, 4));
        assert!((0..100).all(|_| budget.received(HEADERS, 20) && budget.received(3, 4)));
    }
}
