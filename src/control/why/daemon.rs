//! The daemon's answers to a batch: many questions per round trip, its JSON passed on as it is.

use std::io;
use std::path::{Path, PathBuf};

use super::answer::{Answer, Error};
use super::batch::{Failure, Oracle, json};
use super::query::Query;
use crate::control::client::{Client, ClientError};
use crate::control::wire::{REQUEST_MAX, Request};

/// What a request has besides its queries is less.
const AROUND: usize = 256;

pub struct Daemon {
    run: PathBuf,
    /// None: the daemon closed it, as it does when nothing is asked for a while.
    client: Option<Client>,
}

impl Daemon {
    pub fn connect(run: &Path) -> Result<Self, ClientError> {
        Ok(Daemon { run: run.to_owned(), client: Some(Client::connect(run)?) })
    }

    /// The daemon may answer some of them at a time.
    fn ask(
        &mut self,
        mut queries: Vec<Query>,
        each: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<u64, Failure> {
        let mut failed = 0;
        while !queries.is_empty() {
            let request = Request::Why { queries };
            let (answered, wrong) = self.ask_once(&request, each)?;
            failed += wrong;
            let Request::Why { queries: mut rest } = request else { break };
            rest.drain(..answered.min(rest.len()));
            queries = rest;
        }
        Ok(failed)
    }

    fn ask_once(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<(usize, u64), Failure> {
        if let Some(mut client) = self.client.take() {
            match client.why(request, each) {
                // Asked anew: nothing of an answer was passed on.
                Err(ClientError::Closed(_)) => {}
                answered => {
                    self.client = Some(client);
                    return Ok(answered??);
                }
            }
        }
        let client = self.client.insert(Client::connect(&self.run)?);
        Ok(client.why(request, each)??)
    }
}

impl Oracle for Daemon {
    fn ask(
        &mut self,
        queries: &[Query],
        each: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<u64, Failure> {
        let mut failed = 0;
        let (mut together, mut size) = (Vec::new(), 0);
        for query in queries {
            let length = serde_json::to_string(query).map_or(usize::MAX, |json| json.len() + 1);
            let too_long = length > REQUEST_MAX - AROUND;
            if (too_long || size + length > REQUEST_MAX - AROUND) && !together.is_empty() {
                failed += self.ask(std::mem::take(&mut together), each)?;
                size = 0;
            }
            if too_long {
                each(&json(&Answer::Error(Error::too_long()))?)?;
                failed += 1;
                continue;
            }
            together.push(query.clone());
            size += length;
        }
        if !together.is_empty() {
            failed += self.ask(together, each)?;
        }
        Ok(failed)
    }
}
