//! What can go wrong with the datapath, always with the operation and the object.

use std::io;

#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}: {cause}")]
pub struct Error {
    /// What was tried, in the infinitive: "load".
    pub operation: &'static str,
    /// On what: "map flows4".
    pub object: String,
    pub cause: Cause,
}

#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Libbpf(#[from] libbpf_rs::Error),
    /// A program was refused, or could not be prepared. `log` is the end of what
    /// libbpf and the verifier said.
    #[error("{error}\n{log}")]
    Load { error: libbpf_rs::Error, log: String },
    /// A pinned map that is not what this version pins there.
    #[error("it is not of this version ({0})")]
    Foreign(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// Names the operation and the object of a failure.
pub trait Context<T> {
    fn context(self, operation: &'static str, object: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Cause>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: &'static str, object: impl Into<String>) -> Result<T> {
        self.map_err(|cause| Error { operation, object: object.into(), cause: cause.into() })
    }
}

impl Error {
    /// The errno behind it, if it came straight from a system call.
    pub fn errno(&self) -> Option<i32> {
        match &self.cause {
            Cause::Io(error) => error.raw_os_error(),
            _ => None,
        }
    }
}
