//! Bytes in both directions that nobody looks at: after an upgrade, CONNECT, or a TLS handshake that is allowed.

use std::future::poll_fn;
use std::io;

use bytes::{Buf, BytesMut};
use futures_util::future::join;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::limits::Limits;
use super::splice::Pipe;
use super::watch::{Alarm, Late, Watch};

/// Until both directions have ended, each by itself, or nothing has moved for too long. The buffers have what was read
/// already.
pub async fn tunnel(
    (client, mut sent): (&mut TcpStream, BytesMut),
    (server, mut answered): (&mut TcpStream, BytesMut),
    limits: &Limits,
    (watch, alarm): (&Watch, &mut Alarm),
) -> Result<(), Late> {
    watch.patience(limits.idle_time);
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let there = copy(&mut from_client, &mut to_server, &mut sent, limits, watch);
    let back = copy(&mut from_server, &mut to_client, &mut answered, limits, watch);
    watch.guard(alarm, join(there, back)).await.map(|_| ())
}

/// Until the end of what is read, which is passed on.
async fn copy(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    buffer: &mut BytesMut,
    limits: &Limits,
    watch: &Watch,
) {
    let whole = async {
        let (mut long, mut pipe) = (false, None::<Pipe>);
        loop {
            if !buffer.is_empty() {
                to.write_all(buffer).await?;
                buffer.clear();
                watch.patience(limits.idle_time);
            }
            // What has filled a buffer is likely to go on.
            if let Some(pipe) = pipe.as_ref().filter(|_| long) {
                let end = pipe.run(from, to, u64::MAX, watch, [limits.idle_time; 2]).await;
                return end.map(|_| ()).map_err(|_| io::ErrorKind::BrokenPipe.into());
            }
            let bytes = fill(from, buffer, LARGE).await?;
            if bytes == 0 {
                return io::Result::Ok(());
            }
            long |= bytes >= LARGE / 2;
            pipe = pipe.or_else(|| if long { Pipe::new() } else { None });
        }
    };
    // An end that is gone cannot be told more than that the other is, too.
    let _ = whole.await;
    let _ = to.shutdown().await;
}

/// Room for what streams.
pub const LARGE: usize = 64 << 10;

/// Reads what is there, with at least `room` bytes for it. No memory is held while nothing comes. 0: the end.
pub async fn fill(
    from: &mut ReadHalf<'_>,
    buffer: &mut BytesMut,
    room: usize,
) -> io::Result<usize> {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
        poll_fn(|cx| from.as_ref().poll_read_ready(cx)).await?;
    }
    buffer.reserve(room);
    from.read_buf(buffer).await
}

/// Takes what was passed on out of a buffer.
pub fn used(buffer: &mut BytesMut, bytes: usize) {
    buffer.advance(bytes.min(buffer.len()));
}
