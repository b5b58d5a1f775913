//! `porinctl`'s end of the socket.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::exit::Exit;
use super::socket;
use super::view::{VERSION, Versioned};
use super::wire::{
    Answers, ErrorCode, ErrorView, Line, RESPONSE_MAX, Request, Response, read_line, write_line,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("porind is not running: {0} does not exist")]
    Missing(PathBuf),
    #[error("porind is not running: nobody answers on {0}")]
    Refused(PathBuf),
    #[error("no permission to use {0}")]
    Denied(PathBuf),
    #[error("cannot {operation} {path}: {error}")]
    Io { operation: &'static str, path: PathBuf, error: io::Error },
    #[error("porind on {0} broke off")]
    Closed(PathBuf),
    #[error("porind on {path} speaks another version: {error}")]
    Foreign { path: PathBuf, error: String },
    #[error("porind refused: {}", .0.what)]
    Error(ErrorView),
}

impl ClientError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ClientError::Missing(_) | ClientError::Refused(_) => {
                Some("start it: systemctl start porind (porinctl check works without it)".into())
            }
            ClientError::Denied(_) => Some(MEMBERS.into()),
            ClientError::Error(error) if error.code == ErrorCode::Forbidden => Some(MEMBERS.into()),
            ClientError::Foreign { .. } => Some("restart porind after an upgrade".into()),
            ClientError::Error(error) => error.hint.clone(),
            ClientError::Io { .. } | ClientError::Closed(_) => None,
        }
    }

    pub fn exit(&self) -> Exit {
        match self {
            ClientError::Missing(_) | ClientError::Refused(_) => Exit::NotRunning,
            ClientError::Denied(_) => Exit::Denied,
            ClientError::Error(error) if error.code == ErrorCode::Forbidden => Exit::Denied,
            _ => Exit::Failed,
        }
    }
}

/// Who may use the socket.
const MEMBERS: &str = "be root, or a member of the group porin";

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// How long the daemon may take for an answer. Followed flows send an empty line more often.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Connects to the daemon whose run directory is `run`.
    pub fn connect(run: &Path) -> Result<Self, ClientError> {
        let path = run.join(socket::NAME);
        let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ClientError::Missing(path.clone()),
            io::ErrorKind::ConnectionRefused => ClientError::Refused(path.clone()),
            io::ErrorKind::PermissionDenied => ClientError::Denied(path.clone()),
            _ => ClientError::Io { operation: "connect to", path: path.clone(), error },
        })?;
        let timeouts = stream
            .set_read_timeout(Some(Self::PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(Self::PATIENCE)));
        let client = Client { path, stream: BufReader::new(stream) };
        timeouts.map_err(|error| client.io("set up", error))?;
        Ok(client)
    }

    /// Asks, and returns the first answer.
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        self.send(request)?;
        self.answer()
    }

    /// Asks why, and hands each answer on as the JSON that the daemon sent. Returns how many there are, one at least,
    /// and how many of them are errors.
    pub fn why(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<io::Result<(usize, u64)>, ClientError> {
        /// Like [`Response`], but answers are not looked into.
        #[derive(Deserialize)]
        struct Raw<'a> {
            version: u32,
            #[serde(borrow)]
            why: Option<Answers<&'a RawValue>>,
            error: Option<ErrorView>,
        }
        self.send(request)?;
        let line = self.line()?;
        let raw: Raw = serde_json::from_slice(&line).map_err(|error| self.foreign(error))?;
        match raw {
            Raw { version, .. } if version != VERSION => {
                Err(self.foreign(format!("version {version}")))
            }
            Raw { error: Some(error), .. } => Err(ClientError::Error(error)),
            Raw { why: Some(Answers { answers, failed }), .. } if !answers.is_empty() => {
                let mut all = answers.iter();
                let handed = all.try_for_each(|answer| each(answer.get()));
                Ok(handed.map(|()| (answers.len(), failed)))
            }
            Raw { .. } => Err(self.foreign("another answer")),
        }
    }

    fn send(&self, request: &Request) -> Result<(), ClientError> {
        let mut stream = self.stream.get_ref();
        match write_line(&mut stream, request) {
            // A refusal may be waiting to be read all the same.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(|error| self.io("ask", error))?,
        }
        Ok(())
    }

    /// The next answer. Errors of the daemon are errors here.
    pub fn answer(&mut self) -> Result<Response, ClientError> {
        let line = self.line()?;
        let answer: Versioned<Response> =
            serde_json::from_slice(&line).map_err(|error| self.foreign(error))?;
        match answer {
            Versioned { version: VERSION, body: Response::Error(error) } => {
                Err(ClientError::Error(error))
            }
            Versioned { version: VERSION, body } => Ok(body),
            Versioned { version, .. } => Err(self.foreign(format!("version {version}"))),
        }
    }

    /// The next line that is not empty.
    fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        loop {
            match read_line(&mut self.stream, RESPONSE_MAX) {
                Ok(Line::Text(line)) if line.is_empty() => {}
                Ok(Line::Text(line)) => return Ok(line),
                Ok(Line::Closed) => return Err(ClientError::Closed(self.path.clone())),
                Ok(Line::TooLong) => return Err(self.foreign("an endless line")),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ClientError::Closed(self.path.clone()));
                }
                Err(error) => return Err(self.io("read the answer of", error)),
            }
        }
    }

    fn foreign(&self, error: impl ToString) -> ClientError {
        ClientError::Foreign { path: self.path.clone(), error: error.to_string() }
    }

    fn io(&self, operation: &'static str, error: io::Error) -> ClientError {
        ClientError::Io { operation, path: self.path.clone(), error }
    }
}
