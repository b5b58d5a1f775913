//! Questions about containers that are on their way.
//!
//! Both daemons keep whoever asks about a container waiting while they start or stop it. So many are asked about at once:
//! one that hangs is one that nothing is known of yet, and keeps nobody else waiting.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::adapter::docker::{Container, Engine, Error};

/// Questions at a time.
const AT_A_TIME: usize = 16;

/// Dropped: nobody wants to know any more.
pub struct Asking {
    engine: Engine,
    answers: JoinSet<Answer>,
    /// Those asked about; true: something has happened to it since.
    asked: BTreeMap<String, bool>,
    turns: Arc<Semaphore>,
}

/// Which container, and what it is; none: there is none.
pub type Answer = (String, Result<Option<Container>, Error>);

impl Asking {
    pub fn new(engine: Engine) -> Self {
        let turns = Arc::new(Semaphore::new(AT_A_TIME));
        Asking { engine, answers: JoinSet::new(), asked: BTreeMap::new(), turns }
    }

    /// To be called on a runtime.
    pub fn ask(&mut self, id: String) {
        if let Some(again) = self.asked.get_mut(&id) {
            *again = true;
            return;
        }
        self.asked.insert(id.clone(), false);
        let (engine, turns) = (self.engine.clone(), self.turns.clone());
        self.answers.spawn(async move {
            // It is never closed.
            let _turn = turns.acquire_owned().await;
            let answer = engine.container(&id).await;
            (id, answer)
        });
    }

    /// Waits for the next answer, for ever if nothing was asked. May be dropped and called again.
    pub async fn next(&mut self) -> Answer {
        loop {
            match self.answers.join_next().await {
                Some(Ok((id, answer))) => {
                    // What it was is told all the same: it may have no rest.
                    if self.asked.remove(&id) == Some(true) {
                        self.ask(id.clone());
                    }
                    return (id, answer);
                }
                // A panic, which the hook has reported: nothing is known of that one.
                Some(Err(_)) => {}
                None => pending().await,
            }
        }
    }

    /// The containers that are asked about.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
        self.asked.keys().map(String::as_str)
    }
}
