//! HTTP/2 by prior knowledge (RFC 9113 section 3.3): a client's streams on one connection to its server, each judged.
//!
//! The server is spoken to in HTTP/2 as well, so that nothing is translated: what a version can say and the other cannot
//! is where requests get smuggled. Frames are not passed on, but what they mean: streams have their own windows on both
//! sides, which move as the other side takes what came.

mod pipe;
mod stream;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use h2::client::SendRequest;
use h2::server;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::frames::Metered;
use super::limits::Limits;
use super::record::Counters;
use super::service::{Addresses, Service};
use super::upstream::Upstream;
use super::watch::{Late, Watch};

/// `first` begins with the client's preface.
pub async fn serve<U: Upstream>(
    service: &Service<U>,
    addresses: Addresses,
    client: TcpStream,
    first: BytesMut,
) {
    let limits = &service.limits;
    let (watch, mut alarm) = Watch::new(limits.idle_time);
    let whole = async {
        let stream = Metered::new(client, first, limits, &watch);
        let connection = accepting(limits).handshake::<_, Bytes>(stream).await?;
        streams(service, addresses, connection).await
    };
    match watch.guard(&mut alarm, whole).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("{}: HTTP/2: {error}", addresses.client),
        Err(Late) => Counters::add(&service.counters.late),
    }
}

/// Until the client has no more requests and all are answered.
async fn streams<U: Upstream>(
    service: &Service<U>,
    addresses: Addresses,
    mut connection: server::Connection<Metered<'_, TcpStream>, Bytes>,
) -> Result<(), h2::Error> {
    let mut server: Option<Server> = None;
    // Dropped with the connection, which ends them.
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let accepted = {
            let accept = pin!(connection.accept());
            let over = pin!(over(server.as_mut()));
            match select(accept, over).await {
                Either::Left((accepted, _)) => Some(accepted),
                Either::Right(((), _)) => None,
            }
        };
        let Some(accepted) = accepted else {
            // The server says no more: the client is told to ask elsewhere, that is: to connect anew.
            server = None;
            connection.graceful_shutdown();
            continue;
        };
        let Some(accepted) = accepted else { break };
        let (request, respond) = accepted?;
        let Ok(matcher) = service.matcher(&addresses) else {
            connection.graceful_shutdown();
            continue;
        };
        let asked = stream::Asked { request, respond, addresses, sink: Arc::clone(&service.sink) };
        let Some(allowed) = asked.judge(&matcher, &service.counters) else { continue };
        let server = match &server {
            Some(server) => server,
            None => match connect(service, &addresses).await {
                Ok(connected) => server.insert(connected),
                Err(status) => {
                    allowed.unreachable(status);
                    continue;
                }
            },
        };
        tasks.spawn(allowed.forward(server.requests.clone()));
    }
    Ok(())
}

/// The connection to the server, which is driven by a task of its own.
struct Server {
    requests: SendRequest<Bytes>,
    /// Comes when it is over.
    over: oneshot::Receiver<()>,
    _driver: JoinSet<()>,
}

async fn over(server: Option<&mut Server>) {
    match server {
        // Gone, or told: both are the end.
        Some(server) => drop((&mut server.over).await),
        None => std::future::pending().await,
    }
}

async fn connect<U: Upstream>(service: &Service<U>, addresses: &Addresses) -> Result<Server, u16> {
    let stream = service.connect(addresses).await?;
    let limits = &service.limits;
    let handshake = asking(limits).handshake::<_, Bytes>(stream);
    let (mut requests, connection) =
        match tokio::time::timeout(limits.connect_time, handshake).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(_)) => return Err(502),
            Err(_) => return Err(504),
        };
    let (told, over) = oneshot::channel();
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        if let Err(error) = connection.await {
            log::debug!("HTTP/2 to the server: {error}");
        }
        // Nobody listens if the client's connection is over.
        let _ = told.send(());
    });
    // What a server that does not speak HTTP/2 says is seen here.
    let ready = poll_fn(|cx| requests.poll_ready(cx));
    match tokio::time::timeout(limits.connect_time, ready).await {
        Ok(Ok(())) => Ok(Server { requests, over, _driver: driver }),
        Ok(Err(_)) => Err(502),
        Err(_) => Err(504),
    }
}

fn accepting(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.resets)
        .max_concurrent_reset_streams(limits.resets)
        .max_local_error_reset_streams(Some(limits.streams as usize))
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_send_buffer_size(limits.stream_window as usize);
    builder
}

fn asking(limits: &Limits) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        // Pushed answers would answer what nobody was asked about.
        .enable_push(false)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_send_buffer_size(limits.stream_window as usize);
    builder
}
