//! The plugin's socket: HTTP/1.1, one call per connection.
//!
//! Nothing that is sent, or not sent, can hold the server for long or make it grow: calls are bounded in number, size and time.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};

use super::calls;
use super::driver::Driver;
use crate::control::socket::{Socket, SocketError};

/// Of plugins' answers (Docker's plugin API).
const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";
/// Bytes of a call at most.
const LARGEST: usize = 1 << 20;
/// Calls at a time; further ones wait.
const CALLS: usize = 64;
/// For a call to come, whole.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running server. Dropping it stops accepting and removes the socket's file.
pub struct Server {
    socket: Socket,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `path` to root.
    pub fn start(path: &Path, driver: Arc<Driver>) -> Result<Self, SocketError> {
        let io = |operation| {
            let path = path.to_owned();
            move |error| SocketError::Io { operation, path, error }
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(io("make the directory of"))?;
        }
        let socket = Socket::bind(path, None)?;
        let (stop, stopped) = oneshot::channel();
        let begun = socket.listener.try_clone().and_then(|listener| {
            listener.set_nonblocking(true)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(CALLS)
                .build()?;
            let serve = move || {
                runtime.block_on(async {
                    let accept = async {
                        if let Err(error) = accept(listener, driver).await {
                            log::error!("Docker is not served any more: {error}");
                        }
                    };
                    future::select(pin!(accept), stopped).await;
                });
                // Calls that are under way may wait for a commit that nobody makes any more.
                runtime.shutdown_background();
            };
            std::thread::Builder::new().name("docker".to_owned()).spawn(serve)
        });
        match begun {
            Ok(thread) => Ok(Server { socket, stop: Some(stop), thread: Some(thread) }),
            Err(error) => {
                socket.remove();
                Err(io("serve")(error))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.socket.remove();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::os::unix::net::UnixListener, driver: Arc<Driver>) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let calls = Arc::new(Semaphore::new(CALLS));
    loop {
        let Ok(permit) = calls.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::warn!("cannot accept a call of Docker's: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let driver = driver.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, driver).await {
                log::debug!("a call of Docker's came to nothing: {error}");
            }
            drop(permit);
        });
    }
}

async fn serve(
    stream: UnixStream,
    driver: Arc<Driver>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(format!("user {peer} is not root").into());
    }
    let service = service_fn(move |request| answer(request, driver.clone()));
    hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn answer(
    request: Request<Incoming>,
    driver: Arc<Driver>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let plain = |status, what: &'static str| response(status, what.as_bytes().to_vec());
    if request.method() != Method::POST {
        return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "calls are POST requests"));
    }
    let path = request.uri().path().to_owned();
    let body = Limited::new(request.into_body(), LARGEST).collect();
    let body = match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, "the call is too long or broken"));
        }
        Err(_) => return Ok(plain(StatusCode::REQUEST_TIMEOUT, "the call did not come in time")),
    };
    let called = tokio::task::spawn_blocking(move || calls::call(&driver, &path, &body)).await;
    Ok(match called {
        Ok((status, body)) => response(StatusCode::from_u16(status).unwrap_or_default(), body),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the call ended early"),
    })
}

fn response(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let value = header::HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
