//! One connection: waits for requests and does what is planned about each.

use std::future::{pending, poll_fn};
use std::pin::pin;

use bytes::BytesMut;
use futures_util::future::{Either, select};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::answer::{DENIED, answer};
use super::exchange::{self, Progress, exchange};
use super::plan::{NoPlan, Plan, plan};
use crate::proxy::end::{linger, part};
use crate::proxy::head::{Asked, BadRequest, Finder, Found};
use crate::proxy::record::Counters;
use crate::proxy::ruleset::Verdict;
use crate::proxy::service::{Addresses, Service};
use crate::proxy::tunnel::{fill, tunnel, used};
use crate::proxy::upstream::Upstream;
use crate::proxy::watch::{Alarm, Late, Watch};

pub struct Connection<'s, U> {
    pub service: &'s Service<U>,
    pub addresses: Addresses,
    pub client: TcpStream,
    /// Read from the client, and not passed on.
    pub requests: BytesMut,
    pub watch: Watch,
    pub alarm: Alarm,
}

/// The connection to the server.
struct Server {
    stream: TcpStream,
    answers: BytesMut,
}

/// What comes after a request.
enum Next {
    Request,
    /// Nothing: the answer was the last, and must arrive.
    Linger,
    /// Likewise, and the client sees where it ends.
    Part,
    /// Nothing, at once: there is no way to say more.
    Close,
    Tunnel,
}

/// Why there is no head.
enum NoHead {
    /// One end has gone, or nobody has anything to say any more.
    Over,
    Late,
    Bad(BadRequest),
}

impl<U: Upstream> Connection<'_, U> {
    /// Until it is over.
    pub async fn serve(mut self) {
        let mut server = None;
        loop {
            let next = match self.head(server.as_ref()).await {
                Ok(head) => self.request(&mut server, head).await,
                Err(NoHead::Bad(bad)) => self.refuse(bad.status(), &bad.to_string()).await,
                Err(NoHead::Late) => {
                    Counters::add(&self.service.counters.late);
                    match self.requests.is_empty() {
                        true => Next::Close,
                        false => self.refuse(408, "the request did not come in time").await,
                    }
                }
                Err(NoHead::Over) => Next::Close,
            };
            match next {
                Next::Request => {}
                Next::Close => return,
                // The server need not wait for the client to go.
                Next::Linger => {
                    drop(server);
                    return linger(&mut self.client).await;
                }
                Next::Part => {
                    drop(server);
                    return part(&mut self.client).await;
                }
                Next::Tunnel => {
                    let Some(Server { mut stream, answers }) = server else { return };
                    let client = (&mut self.client, self.requests);
                    let time = (&self.watch, &mut self.alarm);
                    let server = (&mut stream, answers);
                    if tunnel(client, server, &self.service.limits, time).await.is_err() {
                        Counters::add(&self.service.counters.late);
                    }
                    return;
                }
            }
        }
    }

    /// Waits for the next head, and sees if the server goes meanwhile.
    async fn head(&mut self, server: Option<&Server>) -> Result<usize, NoHead> {
        const ROOM: usize = 4 << 10;
        let limits = &self.service.limits;
        let (mut finder, mut empty_line, mut begun) = (Finder::default(), false, false);
        loop {
            // One empty line before a request line is to be ignored (RFC 9112 section 2.2).
            if !empty_line && self.requests.starts_with(b"\r\n") {
                used(&mut self.requests, 2);
                (empty_line, finder) = (true, Finder::default());
            }
            match finder.find(&self.requests, limits) {
                Found::Whole(length) => return Ok(length),
                Found::TooLong => return Err(NoHead::Bad(BadRequest::HeadTooLong)),
                Found::More => {}
            }
            match self.requests.is_empty() {
                true => self.watch.patience(limits.idle_time),
                false if begun => {}
                false => {
                    self.watch.patience(limits.head_time);
                    begun = true;
                }
            }
            let (mut from, _) = self.client.split();
            let more = pin!(fill(&mut from, &mut self.requests, ROOM));
            let gone = pin!(server_speaks(server));
            match self.watch.guard(&mut self.alarm, select(more, gone)).await {
                Ok(Either::Left((Ok(1..), _))) => {}
                Ok(_) => return Err(NoHead::Over),
                Err(Late) => return Err(NoHead::Late),
            }
        }
    }

    async fn request(&mut self, server: &mut Option<Server>, head: usize) -> Next {
        let Ok(matcher) = self.service.matcher(&self.addresses) else {
            return Next::Close;
        };
        let limits = &self.service.limits;
        let wanted = (&self.addresses, self.service.sink.wants_allowed());
        let mut plan = match plan(&self.requests, head, &matcher, limits, wanted) {
            Ok(plan) => plan,
            Err(NoPlan::Head(bad)) => return self.refuse(bad.status(), &bad.to_string()).await,
            Err(NoPlan::Body(_)) => return self.refuse(400, MALFORMED).await,
        };
        // Not kept over what may take long.
        drop(matcher);
        match plan.verdict {
            Verdict::Deny(denial) => {
                if let Some(record) = &mut plan.record {
                    record.denial = Some(denial);
                }
                self.deny(plan).await
            }
            Verdict::Allow { egress, ingress } => {
                if let Some(record) = &mut plan.record {
                    (record.egress, record.ingress) = (egress, ingress);
                }
                self.allow(server, plan).await
            }
        }
    }

    /// Answers, and reads the rest of the request if that is little.
    async fn deny(&mut self, plan: Plan) -> Next {
        Counters::add(&self.service.counters.denied);
        let Plan { head, there, mut body, asked, persistent, expects, record, .. } = plan;
        if let Some(mut record) = record {
            record.status = Some(403);
            self.service.sink.take(record);
        }
        let drain = self.service.limits.drain as u64;
        let little = body.is_over() || (!expects && body.left().is_some_and(|left| left <= drain));
        let keep = persistent && little && asked != Asked::Connect;
        let text = answer(403, DENIED, !keep, asked == Asked::Head);
        used(&mut self.requests, head + there);
        let body_time = self.service.limits.body_time;
        let (client, requests, watch) = (&mut self.client, &mut self.requests, &self.watch);
        let answered = async {
            client.write_all(&text).await.ok()?;
            let (mut from, _) = client.split();
            while keep && !body.is_over() {
                watch.patience(body_time);
                if requests.is_empty() {
                    fill(&mut from, requests, 4 << 10).await.ok().filter(|bytes| *bytes > 0)?;
                }
                let part = body.advance(requests).ok()?;
                used(requests, part.bytes);
            }
            Some(())
        };
        watch.patience(body_time);
        match watch.guard(&mut self.alarm, answered).await {
            Ok(Some(())) if keep => Next::Request,
            Ok(Some(())) => Next::Linger,
            Ok(None) => Next::Close,
            Err(Late) => {
                Counters::add(&self.service.counters.late);
                Next::Close
            }
        }
    }

    async fn allow(&mut self, server: &mut Option<Server>, plan: Plan) -> Next {
        Counters::add(&self.service.counters.allowed);
        let server = match server {
            Some(server) => server,
            None => match self.service.connect(&self.addresses).await {
                Ok(stream) => server.insert(Server { stream, answers: BytesMut::new() }),
                Err(status) => {
                    self.told(plan.record, Some(status));
                    return self.say(status, "the server cannot be reached").await;
                }
            },
        };
        let limits = &self.service.limits;
        let patience = if plan.body.is_over() { limits.idle_time } else { limits.body_time };
        self.watch.patience(patience);
        let progress = Progress::default();
        let client = (&mut self.client, &mut self.requests);
        let upstream = (&mut server.stream, &mut server.answers);
        let whole = exchange(client, upstream, &plan, limits, &progress, &self.watch);
        let end = self.watch.guard(&mut self.alarm, whole).await;
        if server.answers.is_empty() {
            // An idle connection holds none.
            server.answers = BytesMut::new();
        }
        let (next, said) = match end {
            Ok(exchange::End::Again) => (Next::Request, None),
            Ok(exchange::End::Last { whole: true }) => (Next::Part, None),
            Ok(exchange::End::Last { whole: false }) => (Next::Linger, None),
            Ok(exchange::End::Switched) => (Next::Tunnel, None),
            Ok(exchange::End::ClientGone | exchange::End::ServerGone) => (Next::Close, None),
            Ok(exchange::End::Malformed) => {
                Counters::add(&self.service.counters.malformed);
                (Next::Close, Some((400, MALFORMED)))
            }
            Ok(exchange::End::BadAnswer(bad)) => {
                Counters::add(&self.service.counters.bad_answers);
                let what = bad.map_or("a malformed body".to_owned(), |bad| bad.to_string());
                log::debug!("{}: bad answer: {what}", self.addresses.server);
                (Next::Close, Some((502, "the server's answer is malformed")))
            }
            Err(Late) => {
                Counters::add(&self.service.counters.late);
                (Next::Close, Some((504, "it took too long")))
            }
        };
        let said = said.filter(|_| progress.status().is_none());
        self.told(plan.record, progress.status().or(said.map(|(status, _)| status)));
        match said {
            Some((status, text)) => self.say(status, text).await,
            None => next,
        }
    }

    fn told(&self, record: Option<crate::proxy::Record>, status: Option<u16>) {
        if let Some(mut record) = record {
            record.status = status;
            self.service.sink.take(record);
        }
    }

    /// What is no request, or has more than one reading: nothing after it can be understood.
    async fn refuse(&mut self, status: u16, why: &str) -> Next {
        Counters::add(&self.service.counters.malformed);
        let mut record = self.addresses.record("http/1.1");
        (record.status, record.fault) = (Some(status), Some(why.to_owned()));
        self.service.sink.take(record);
        self.say(status, why).await
    }

    /// Something of porin's own, as the last.
    async fn say(&mut self, status: u16, text: &str) -> Next {
        let bytes = answer(status, text, true, false);
        self.watch.patience(self.service.limits.body_time);
        match self.watch.guard(&mut self.alarm, self.client.write_all(&bytes)).await {
            Ok(Ok(())) => Next::Linger,
            Ok(Err(_)) | Err(Late) => Next::Close,
        }
    }
}

const MALFORMED: &str = "the request's body is malformed";

/// Comes back when the server closes the connection, or says something without being asked: both end it.
async fn server_speaks(server: Option<&Server>) {
    let Some(Server { stream, .. }) = server else { return pending().await };
    loop {
        if poll_fn(|cx| stream.poll_read_ready(cx)).await.is_err() {
            return;
        }
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
