//! Asking the daemon, which may be busy, or just being restarted.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use super::failure::{Code, Failure};
use crate::control::attach::{self, AttachmentId};
use crate::control::client::{Client, ClientError};
use crate::control::wire::{ErrorCode, ErrorView, Request, Response};

/// For a daemon that is not there to come back, in all. A restart takes seconds, with a thousand endpoints.
const ABSENT: Duration = Duration::from_secs(10);
/// For an answer, in all.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries at first; doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Asks until there is an answer. A daemon that dies meanwhile is asked again when it is back, by what `again` makes of
/// the request: the first one may have been heard.
///
/// # Errors
/// The daemon's refusal; or code 11 if it was not there for so long.
pub fn persistently(
    run: &Path,
    mut request: Request,
    again: impl Fn(&mut Request),
) -> Result<Response, Failure> {
    let begun = Instant::now();
    let mut absent_since: Option<Instant> = None;
    let mut pause = PAUSE;
    loop {
        let error = match once(run, &request) {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let later = |answer: &ErrorView| answer.code == ErrorCode::Later;
        let patience = match &error {
            ClientError::Missing(_) | ClientError::Refused(_) => absent(&mut absent_since),
            ClientError::Closed(_) => {
                absent_since = None;
                again(&mut request);
                true
            }
            // It has only just begun, or the kernel could not: like one that is not there.
            ClientError::Error(answer) if later(answer) => absent(&mut absent_since),
            ClientError::Error(answer) => answer.code == ErrorCode::Busy,
            _ => false,
        };
        if !patience || begun.elapsed() > PATIENCE {
            return Err(failure(error));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether it is not yet there for too long.
fn absent(since: &mut Option<Instant>) -> bool {
    since.get_or_insert_with(Instant::now).elapsed() < ABSENT
}

pub fn once(run: &Path, request: &Request) -> Result<Response, ClientError> {
    Client::connect(run)?.ask(request)
}

/// Without a daemon its file is removed: the daemon reads no such endpoint when it starts.
pub fn detach(run: &Path, id: &AttachmentId) -> Result<(), Failure> {
    let request = Request::Detach { id: id.clone() };
    match once(run, &request) {
        Ok(Response::Detached {}) => return Ok(()),
        Ok(_) => return Err(unasked()),
        Err(ClientError::Missing(_) | ClientError::Refused(_) | ClientError::Closed(_)) => {}
        Err(ClientError::Error(answer)) if answer.code == ErrorCode::Busy => {
            return match persistently(run, request, |_| ())? {
                Response::Detached {} => Ok(()),
                _ => Err(unasked()),
            };
        }
        Err(error) => return Err(failure(error)),
    }
    let file = attach::file(run, id);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let what = format!("cannot remove {}: {error}", file.display());
            Err(Failure::new(Code::Io, what))
        }
        _ => Ok(()),
    }
}

/// In the runtime's terms.
pub fn failure(error: ClientError) -> Failure {
    let code = match &error {
        ClientError::Missing(_) | ClientError::Refused(_) | ClientError::Closed(_) => {
            Code::TryAgainLater
        }
        ClientError::Denied(_) | ClientError::Io { .. } => Code::Io,
        ClientError::Foreign { .. } => Code::Decode,
        ClientError::Error(answer) => match answer.code {
            ErrorCode::Busy | ErrorCode::Later => Code::TryAgainLater,
            ErrorCode::Exists => Code::Exists,
            ErrorCode::Unknown => Code::UnknownContainer,
            ErrorCode::BadRequest | ErrorCode::Version | ErrorCode::TooLong => Code::Decode,
            ErrorCode::Forbidden => Code::Io,
            ErrorCode::Failed | ErrorCode::Refused => Code::Refused,
        },
    };
    match error {
        ClientError::Error(answer) => {
            Failure::new(code, answer.what).details(answer.hint.unwrap_or_default())
        }
        error => {
            let hint = error.hint().unwrap_or_default();
            Failure::new(code, error.to_string()).details(hint)
        }
    }
}

pub fn unasked() -> Failure {
    Failure::new(Code::Decode, "porind answered something else than was asked for")
}
