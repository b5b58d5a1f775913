//! A message's body and trailers from one stream to another. What came is let go when the other side takes it, so that
//! a slow reader slows the sender down, and no more than a window is held.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

/// With which reason the other side is to be reset.
#[derive(Debug, Clone, Copy)]
pub struct Broken(pub Reason);

impl From<h2::Error> for Broken {
    fn from(error: h2::Error) -> Self {
        // What is no reset is the connection's end.
        Broken(error.reason().filter(|_| error.is_reset()).unwrap_or(Reason::CANCEL))
    }
}

pub async fn pipe(mut from: RecvStream, mut to: SendStream<Bytes>) -> Result<(), Broken> {
    let whole = stream(&mut from, &mut to).await;
    if let Err(Broken(reason)) = whole {
        to.send_reset(reason);
    }
    whole
}

async fn stream(from: &mut RecvStream, to: &mut SendStream<Bytes>) -> Result<(), Broken> {
    while let Some(data) = data(from, to).await {
        let mut data = data?;
        let bytes = data.len();
        let end = from.is_end_stream();
        while !data.is_empty() {
            to.reserve_capacity(data.len());
            let room = match poll_fn(|cx| to.poll_capacity(cx)).await {
                Some(room) => room?,
                None => return Err(Broken(Reason::CANCEL)),
            };
            let part = data.split_to(room.min(data.len()));
            let last = end && data.is_empty();
            if !part.is_empty() {
                to.send_data(part, last)?;
            }
        }
        if bytes == 0 && end {
            to.send_data(Bytes::new(), true)?;
        }
        from.flow_control().release_capacity(bytes)?;
        if end {
            return Ok(());
        }
    }
    match poll_fn(|cx| from.poll_trailers(cx)).await? {
        Some(trailers) => to.send_trailers(trailers)?,
        None => to.send_data(Bytes::new(), true)?,
    }
    Ok(())
}

/// What comes next, unless the other side wants no more.
async fn data(from: &mut RecvStream, to: &mut SendStream<Bytes>) -> Option<Result<Bytes, Broken>> {
    poll_fn(|cx| {
        if let Poll::Ready(reason) = to.poll_reset(cx) {
            return Poll::Ready(Some(Err(Broken(reason.unwrap_or(Reason::CANCEL)))));
        }
        from.poll_data(cx).map(|data| data.map(|data| data.map_err(Broken::from)))
    })
    .await
}
