//! Asking the Engine API, and listening to it. Paths without a version: each daemon answers in the newest it has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::answers::{Container, Listed, Network, Told};
use super::is_id;
use crate::adapter::http;

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Podman says nothing at all before there is something to tell.
const OPENING: Duration = Duration::from_millis(500);
/// Bytes at most: of the list of all containers, of what is known of one, and of one event.
const LIST: usize = 64 << 20;
const CONTAINER: usize = 8 << 20;
const EVENT: usize = 1 << 20;
/// Events on their way.
const QUEUE: usize = 256;
/// How long before now events are told again, whoever's clock was read first.
const OVERLAP: Duration = Duration::from_secs(2);

/// Docker's and Podman's names of what may change where a container's interfaces are, or what it is called; and which networks there are.
const EVENTS: [&str; 13] = [
    "create",
    "start",
    "restart",
    "die",
    "died",
    "stop",
    "cleanup",
    "destroy",
    "remove",
    "rename",
    "update",
    "connect",
    "disconnect",
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Http(#[from] http::Error),
    #[error("its answer is not what was asked for: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it ended its events")]
    Ended,
}

impl Error {
    /// About one question's answer; the daemon itself is there.
    pub fn is_about_answer(&self) -> bool {
        use http::Error::{Late, Status, TooLong};
        match self {
            Error::Json(_) => true,
            Error::Http(error) => matches!(error, Status(..) | TooLong(_) | Late(_)),
            Error::Ended => false,
        }
    }
}

/// The API on a socket.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    pub fn new(socket: &Path) -> Self {
        Engine { socket: socket.to_owned() }
    }

    /// The ids of all containers that run.
    pub async fn running(&self) -> Result<BTreeSet<String>, Error> {
        let listed: Vec<Listed> = self.ask("/containers/json", LIST).await?;
        Ok(listed.into_iter().map(|one| one.id).filter(|id| is_id(id)).collect())
    }

    /// None: there is no network of this name.
    pub async fn network(&self, name: &str) -> Result<Option<Network>, Error> {
        found(self.ask(&format!("/networks/{}", encoded(name)), CONTAINER).await)
    }

    /// None: there is no such container.
    pub async fn container(&self, id: &str) -> Result<Option<Container>, Error> {
        if !is_id(id) {
            return Ok(None);
        }
        found(self.ask(&format!("/containers/{id}/json"), CONTAINER).await)
    }

    /// `target`: a path with a query, percent-encoded.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        target: &str,
        longest: usize,
    ) -> Result<T, Error> {
        let answer = http::get(&self.socket, target, longest, PATIENCE).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// What happens from now on, and perhaps a little of what did before. To be called before [`Engine::running`], so that
    /// nothing is missed.
    pub async fn events(&self) -> Result<Events, Error> {
        let (tell, events) = mpsc::channel(QUEUE);
        let listening = tokio::spawn(listen(self.socket.clone(), target(), tell));
        let mut events = Events { events, listening };
        match tokio::time::timeout(OPENING, events.next()).await {
            Ok(Event::Lost(error)) => Err(error),
            _ => Ok(events),
        }
    }
}

/// Said of one container, or that nothing more will be.
#[derive(Debug)]
pub enum Event {
    /// The stream is there.
    Begun,
    /// Something happened to the one with one of these ids, if there is any.
    Container([String; 2]),
    Lost(Error),
}

/// A stream of events. Dropped: ended.
pub struct Events {
    events: mpsc::Receiver<Event>,
    listening: JoinHandle<()>,
}

impl Events {
    /// Waits for the next one. May be dropped and asked again.
    pub async fn next(&mut self) -> Event {
        self.events.recv().await.unwrap_or(Event::Lost(Error::Ended))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::Http(http::Error::Status(404, _))) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn listen(socket: PathBuf, target: String, tell: mpsc::Sender<Event>) {
    if let Err(error) = lines(&socket, &target, &tell).await {
        // Who is gone does not listen either.
        let _ = tell.send(Event::Lost(error)).await;
    }
}

async fn lines(socket: &Path, target: &str, tell: &mpsc::Sender<Event>) -> Result<(), Error> {
    let mut stream = http::open(socket, target).await?;
    let mut said = Vec::new();
    let _ = tell.send(Event::Begun).await;
    while let Some(data) = stream.next().await? {
        said.extend_from_slice(&data);
        let whole = said.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in said[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let told: Told = serde_json::from_slice(line)?;
            if tell.send(Event::Container(told.about())).await.is_err() {
                return Ok(());
            }
        }
        said.drain(..whole);
        if said.len() > EVENT {
            return Err(http::Error::TooLong(EVENT).into());
        }
    }
    Err(Error::Ended)
}

fn target() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = now.saturating_sub(OVERLAP).as_secs();
    let quoted: Vec<String> = EVENTS.iter().map(|event| format!("%22{event}%22")).collect();
    format!(
        "/events?since={since}&filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%2C\
         %22event%22%3A%5B{}%5D%7D",
        quoted.join("%2C")
    )
}

/// As one part of a path (RFC 3986, 2.1).
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.bytes()
        .map(|byte| match plain(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn only_ids_go_into_paths() {
        for bad in ["", "..", "a/b", "a?b", "a b", "a%2fb", &"a".repeat(129)] {
            assert!(!is_id(bad), "{bad}");
        }
        assert_eq!(encoded("a.b/../é"), "a%2Eb%2F%2E%2E%2F%C3%A9");
        assert!(is_id("89e293593f77e81a0cfa528fc6f6137abf7594890a3f14c194e688104f063060"));
    }

    /// Talks to a daemon that hears one question, and says and does what `answer` does.
    fn with<T>(
        answer: impl FnOnce(UnixStream) + Send + 'static,
        talk: impl AsyncFnOnce(Engine) -> T,
    ) -> T {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 2048];
            assert_ne!(stream.read(&mut asked).unwrap(), 0);
            answer(stream);
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let said = runtime.block_on(talk(Engine::new(&socket)));
        daemon.join().unwrap();
        said
    }

    fn says(text: impl Into<String>) -> impl FnOnce(UnixStream) + Send + 'static {
        let text = text.into();
        move |mut stream| _ = stream.write_all(text.as_bytes())
    }

    fn answer(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    fn chunk(text: &str) -> String {
        format!("{:x}\r\n{text}\r\n", text.len())
    }

    #[test]
    fn lists_are_of_ids_alone() {
        let list = r#"[{"Id":"a1"},{"Id":"../x"},{"Id":null},{},{"Id":"b2","State":"new"}]"#;
        let running = with(says(answer(list)), async |engine| engine.running().await);
        assert_eq!(running.unwrap().into_iter().collect::<Vec<_>>(), ["a1", "b2"]);
        let error = with(says(answer("{}")), async |engine| engine.running().await);
        assert!(error.unwrap_err().is_about_answer());
        let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        let gone = with(says(gone), async |engine| engine.container("a1").await);
        assert!(gone.unwrap().is_none());
    }

    #[test]
    fn events_come_in_whatever_pieces() {
        let lines = [
            chunk(r#"{"Actor":{"ID":"a1"}}"#),
            chunk("\n\n{\"Actor\":{\"ID\":\"n\",\"Attributes\":{\"container\":\"b2\"}}}\n{\"Act"),
            chunk("or\":null}\n"),
            chunk(""),
        ];
        let about = with(says(STREAM.to_owned() + &lines.concat()), async |engine| {
            let mut events = engine.events().await.unwrap();
            let mut about = Vec::new();
            loop {
                match events.next().await {
                    Event::Container([id, other]) => about.push(format!("{id} {other}")),
                    Event::Begun => {}
                    Event::Lost(error) => return (about, error.to_string()),
                }
            }
        });
        assert_eq!(
            about,
            (["a1 ", "n b2", " "].map(str::to_owned).into(), "it ended its events".into())
        );
    }

    #[test]
    fn what_is_no_stream_of_events_ends_it() {
        let endless = chunk(&"x".repeat(EVENT + 1));
        for bad in
            [STREAM.to_owned() + &chunk("<html>\n"), STREAM.to_owned() + &endless, String::new()]
        {
            let lost = with(says(bad), async |engine| match engine.events().await {
                Ok(mut events) => loop {
                    match events.next().await {
                        Event::Lost(_) => return true,
                        Event::Container(_) => return false,
                        Event::Begun => {}
                    }
                },
                Err(_) => true,
            });
            assert!(lost);
        }
    }

    #[test]
    fn one_that_says_nothing_before_there_is_an_event_is_listened_to() {
        let (go, gone) = std::sync::mpsc::channel();
        let late = move |mut stream: UnixStream| {
            gone.recv().unwrap();
            _ = stream.write_all(
                (STREAM.to_owned() + &chunk("{\"Actor\":{\"ID\":\"a1\"}}\n")).as_bytes(),
            );
        };
        let id = with(late, async |engine| {
            let mut events = engine.events().await.unwrap();
            go.send(()).unwrap();
            loop {
                if let Event::Container([id, _]) = events.next().await {
                    return id;
                }
            }
        });
        assert_eq!(id, "a1");
    }
}
