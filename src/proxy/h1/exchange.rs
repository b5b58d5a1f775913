//! One request on its way to the server, and its answer on the way back, at the same time.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::{Either, select};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::plan::Plan;
use crate::proxy::body::{Body, Malformed};
use crate::proxy::head::{Asked, BadResponse, Finder, Found, ResponseHead};
use crate::proxy::limits::Limits;
use crate::proxy::splice::{Gone, LONG, Pipe};
use crate::proxy::tunnel::{LARGE, fill, used};
use crate::proxy::watch::Watch;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Answered; another request may follow.
    Again,
    /// Answered, and that was the last. `whole`: the answer said itself where it ends.
    Last {
        whole: bool,
    },
    /// The server has taken the upgrade, or made the tunnel.
    Switched,
    /// The client's body has more than one reading.
    Malformed,
    ClientGone,
    /// The server closed the connection instead of an answer, or within it.
    ServerGone,
    /// The server's answer has more than one reading.
    BadAnswer(Option<BadResponse>),
}

/// How far it has come.
#[derive(Default)]
pub struct Progress {
    /// The whole request was sent to the server.
    sent: AtomicBool,
    /// Of the final answer; 0: none of it has been passed on.
    status: AtomicU16,
}

impl Progress {
    pub fn status(&self) -> Option<u16> {
        Some(self.status.load(Ordering::Relaxed)).filter(|status| *status > 0)
    }

    fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }
}

/// The buffers have what was read from either and not passed on: in `requests` first of all the request.
pub async fn exchange(
    (client, requests): (&mut TcpStream, &mut BytesMut),
    (server, answers): (&mut TcpStream, &mut BytesMut),
    plan: &Plan,
    limits: &Limits,
    progress: &Progress,
    watch: &Watch,
) -> End {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = Up { from: &mut from_client, to: &mut to_server, plan, limits, progress, watch };
    let down = Down { from: &mut from_server, to: &mut to_client, plan, limits, progress, watch };
    let mut up = pin!(up.run(requests));
    let down = pin!(down.run(answers));
    let (answer, all) = match select(up.as_mut(), down).await {
        Either::Right((answer, up)) => {
            let last = !matches!(answer, Ok(Answer::Again)) || !plan.persistent;
            let switched = matches!(answer, Ok(Answer::Switched));
            if answer.is_ok() && (switched || !last) && !progress.is_sent() {
                // The answer came early; where the next request begins is known at the end of this one.
                match sent(up, progress).await {
                    Ok(()) => (answer, true),
                    Err(Stuck::Server) => (answer, false),
                    Err(stuck) => return stuck.end(),
                }
            } else {
                (answer, progress.is_sent())
            }
        }
        // A server may have answered before it stopped reading.
        Either::Left((Stuck::Server, down)) => (down.await, false),
        Either::Left((stuck, _)) => return stuck.end(),
    };
    match answer {
        Ok(Answer::Switched) if all => End::Switched,
        Ok(Answer::Again) if all && plan.persistent => End::Again,
        Ok(answer) => {
            End::Last { whole: matches!(answer, Answer::Again | Answer::Last { whole: true }) }
        }
        Err(end) => end,
    }
}

/// Why a request does not get on.
enum Stuck {
    Malformed,
    Client,
    Server,
}

impl Stuck {
    fn end(self) -> End {
        match self {
            Stuck::Malformed => End::Malformed,
            Stuck::Client => End::ClientGone,
            Stuck::Server => End::ServerGone,
        }
    }
}

impl From<Malformed> for Stuck {
    fn from(_: Malformed) -> Self {
        Stuck::Malformed
    }
}

async fn sent(
    mut up: impl Future<Output = Stuck> + Unpin,
    progress: &Progress,
) -> Result<(), Stuck> {
    poll_fn(|cx| match std::pin::Pin::new(&mut up).poll(cx) {
        _ if progress.is_sent() => Poll::Ready(Ok(())),
        Poll::Ready(stuck) => Poll::Ready(Err(stuck)),
        Poll::Pending => Poll::Pending,
    })
    .await
}

struct Up<'a, 's> {
    from: &'a mut ReadHalf<'s>,
    to: &'a mut WriteHalf<'s>,
    plan: &'a Plan,
    limits: &'a Limits,
    progress: &'a Progress,
    watch: &'a Watch,
}

impl Up<'_, '_> {
    async fn run(mut self, requests: &mut BytesMut) -> Stuck {
        match self.request(requests).await {
            Ok(()) => {
                self.progress.sent.store(true, Ordering::Relaxed);
                self.watch.patience(self.limits.idle_time);
                self.ahead(requests).await
            }
            Err(stuck) => stuck,
        }
    }

    async fn request(&mut self, requests: &mut BytesMut) -> Result<(), Stuck> {
        let Plan { head, there, rewritten, .. } = self.plan;
        let mut body = self.plan.body.clone();
        let whole = head + there;
        let first = requests.get(..whole).unwrap_or_default();
        match rewritten {
            None => write(self.to, first).await?,
            Some(rewritten) => {
                let rest = first.get(*head..).unwrap_or_default();
                write(self.to, &[rewritten.as_slice(), rest].concat()).await?;
            }
        }
        used(requests, whole);
        while !body.is_over() {
            self.watch.patience(self.limits.body_time);
            if requests.is_empty() && body.data() >= LONG {
                let times = [self.limits.body_time; 2];
                match long(self.from, self.to, &mut body, self.watch, times).await {
                    None => {}
                    Some(Ok(end)) if !end => continue,
                    Some(Ok(_) | Err(Gone::Sender)) => return Err(Stuck::Client),
                    Some(Err(Gone::Receiver)) => return Err(Stuck::Server),
                }
            }
            if requests.is_empty() {
                let bytes = fill(self.from, requests, room(&body)).await;
                if bytes.map_err(|_| Stuck::Client)? == 0 {
                    return Err(Stuck::Client);
                }
            }
            let part = body.advance(requests)?;
            write(self.to, requests.get(..part.bytes).unwrap_or_default()).await?;
            used(requests, part.bytes);
        }
        Ok(())
    }

    /// Sees whether the client goes, or sends no more, which the server is told. Reads a little of what follows.
    async fn ahead(&mut self, requests: &mut BytesMut) -> Stuck {
        const AHEAD: usize = 4 << 10;
        while requests.len() < AHEAD {
            match fill(self.from, requests, AHEAD).await {
                Ok(0) => {
                    if requests.is_empty() {
                        // If the server is gone, that is seen where its answer is read.
                        let _ = self.to.shutdown().await;
                    }
                    break;
                }
                Ok(_) => {}
                Err(_) => return Stuck::Client,
            }
        }
        pending().await
    }
}

async fn write(to: &mut WriteHalf<'_>, bytes: &[u8]) -> Result<(), Stuck> {
    to.write_all(bytes).await.map_err(|_| Stuck::Server)
}

/// For what is to come of a body.
fn room(body: &Body) -> usize {
    const SMALL: u64 = 4 << 10;
    match body.left() {
        Some(left) if left <= SMALL => SMALL as usize,
        _ => LARGE,
    }
}

/// What is long need not be copied. Whether the sender sends no more; none: there is no pipe for it.
async fn long(
    from: &ReadHalf<'_>,
    to: &WriteHalf<'_>,
    body: &mut Body,
    watch: &Watch,
    times: [Duration; 2],
) -> Option<Result<bool, Gone>> {
    let moved = Pipe::new()?.run(from, to, body.data(), watch, times).await;
    Some(moved.map(|moved| {
        body.skip(moved.bytes);
        moved.end
    }))
}

enum Answer {
    Again,
    Last { whole: bool },
    Switched,
}

struct Down<'a, 's> {
    from: &'a mut ReadHalf<'s>,
    to: &'a mut WriteHalf<'s>,
    plan: &'a Plan,
    limits: &'a Limits,
    progress: &'a Progress,
    watch: &'a Watch,
}

impl Down<'_, '_> {
    async fn run(mut self, answers: &mut BytesMut) -> Result<Answer, End> {
        for _ in 0..=self.limits.interim {
            let length = self.head(answers).await?;
            let text = answers.get(..length).unwrap_or_default();
            let head = ResponseHead::parse(text, self.plan.asked, self.limits);
            let head = head.map_err(|bad| End::BadAnswer(Some(bad)))?;
            let tunnel = self.plan.asked == Asked::Connect && (200..300).contains(&head.status);
            if head.status == 101 || tunnel {
                if !tunnel && !self.plan.switch {
                    return Err(End::BadAnswer(Some(BadResponse::Switch)));
                }
                self.progress.status.store(head.status, Ordering::Relaxed);
                self.pass(answers, length).await?;
                return Ok(Answer::Switched);
            }
            if head.is_interim() {
                self.pass(answers, length).await?;
                continue;
            }
            self.progress.status.store(head.status, Ordering::Relaxed);
            return self.body(answers, length, head).await;
        }
        Err(End::BadAnswer(Some(BadResponse::Interim)))
    }

    async fn head(&mut self, answers: &mut BytesMut) -> Result<usize, End> {
        const ROOM: usize = 4 << 10;
        let mut finder = Finder::default();
        loop {
            match finder.find(answers, self.limits) {
                Found::Whole(length) => return Ok(length),
                Found::TooLong => return Err(End::BadAnswer(Some(BadResponse::HeadTooLong))),
                Found::More => {}
            }
            if self.fill(answers, ROOM).await? == 0 {
                return Err(match answers.is_empty() {
                    true => End::ServerGone,
                    false => End::BadAnswer(Some(BadResponse::Line)),
                });
            }
        }
    }

    async fn body(
        &mut self,
        answers: &mut BytesMut,
        head: usize,
        ResponseHead { mut body, persistent, .. }: ResponseHead,
    ) -> Result<Answer, End> {
        let rest = answers.get(head..).unwrap_or_default();
        let part = body.advance(rest).map_err(|Malformed| End::BadAnswer(None))?;
        self.pass(answers, head + part.bytes).await?;
        while !body.is_over() {
            // A stream of events may have none for long.
            self.watch.patience(self.limits.idle_time);
            if answers.is_empty() && body.data() >= LONG {
                let times = [self.limits.idle_time, self.limits.body_time];
                match long(self.from, self.to, &mut body, self.watch, times).await {
                    None => {}
                    Some(Ok(end)) if !end => continue,
                    Some(Ok(_)) if body.is_until_close() => {
                        return Ok(Answer::Last { whole: false });
                    }
                    Some(Ok(_) | Err(Gone::Sender)) => return Err(End::ServerGone),
                    Some(Err(Gone::Receiver)) => return Err(End::ClientGone),
                }
            }
            if answers.is_empty() && self.fill(answers, room(&body)).await? == 0 {
                return match body.is_until_close() {
                    true => Ok(Answer::Last { whole: false }),
                    false => Err(End::ServerGone),
                };
            }
            let part = body.advance(answers).map_err(|Malformed| End::BadAnswer(None))?;
            self.pass(answers, part.bytes).await?;
        }
        match (persistent, answers.is_empty()) {
            (true, true) => Ok(Answer::Again),
            // What nobody asked for: the next request must not get it for an answer.
            (true, false) => Ok(Answer::Last { whole: false }),
            (false, _) => Ok(Answer::Last { whole: true }),
        }
    }

    async fn pass(&mut self, answers: &mut BytesMut, bytes: usize) -> Result<(), End> {
        let bytes = answers.get(..bytes).unwrap_or_default();
        self.watch.patience(self.limits.body_time);
        self.to.write_all(bytes).await.map_err(|_| End::ClientGone)?;
        let bytes = bytes.len();
        used(answers, bytes);
        self.watch.patience(self.limits.idle_time);
        Ok(())
    }

    async fn fill(&mut self, answers: &mut BytesMut, room: usize) -> Result<usize, End> {
        let bytes: io::Result<usize> = fill(self.from, answers, room).await;
        bytes.map_err(|_| End::ServerGone)
    }
}
