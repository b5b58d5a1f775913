//! Closing, so that what was said last arrives.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Ends `stream` after an answer to what was not read to its end. Closing at once would reset the connection, which takes
/// the answer from the client (RFC 9112 section 9.6): so what it still sends is read, for a while.
pub async fn linger(stream: &mut TcpStream) {
    linger_after(stream, Duration::ZERO).await;
}

/// After an answer that says itself where it ends, a client may close first, and mostly does. It is given a moment, as
/// who closes first keeps the connection's addresses in TIME_WAIT, for a minute in which the client, if it should take
/// the same port again, could not connect. No more than a moment: there are clients that wait for the end.
pub async fn part(stream: &mut TcpStream) {
    const MOMENT: Duration = Duration::from_millis(10);
    linger_after(stream, MOMENT).await;
}

async fn linger_after(stream: &mut TcpStream, moment: Duration) {
    const MOST: usize = 256 << 10;
    const LONGEST: Duration = Duration::from_secs(2);
    let drain = async {
        let mut rest = MOST;
        let mut waste = vec![0; 4 << 10];
        if !moment.is_zero() {
            let first = async {
                while let Ok(bytes @ 1..) = stream.read(&mut waste).await {
                    rest = match rest.checked_sub(bytes) {
                        Some(rest) => rest,
                        None => return,
                    };
                }
            };
            // Late: it is not the first.
            let _ = tokio::time::timeout(moment, first).await;
        }
        if stream.shutdown().await.is_err() {
            return;
        }
        while let Ok(bytes @ 1..) = stream.read(&mut waste).await {
            rest = match rest.checked_sub(bytes) {
                Some(rest) => rest,
                None => return,
            };
        }
    };
    // Late or not, it is over.
    let _ = tokio::time::timeout(LONGEST, drain).await;
}
