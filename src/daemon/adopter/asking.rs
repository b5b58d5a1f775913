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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// Who asks for `slow` gets no answer.
    fn answer(mut stream: UnixStream, hung: &mut Vec<UnixStream>) {
        let mut asked = [0; 1024];
        let n = stream.read(&mut asked).unwrap();
        let asked = String::from_utf8_lossy(&asked[..n]).into_owned();
        let id = asked.split('/').nth(2).unwrap().to_owned();
        if id == "slow" {
            return hung.push(stream);
        }
        let body = format!("{{\"Id\":\"{id}\"}}");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
    }

    #[test]
    fn one_that_hangs_keeps_nobody_waiting_and_what_changed_is_asked_for_again() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = std::thread::spawn(move || {
            let mut hung = Vec::new();
            for _ in 0..4 {
                answer(listener.accept().unwrap().0, &mut hung);
            }
            hung
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (answered, left) = runtime.block_on(async {
            let mut asking = Asking::new(Engine::new(&socket));
            for id in ["slow", "a1", "b2", "a1"] {
                asking.ask(id.to_owned());
            }
            let mut answered = Vec::new();
            for _ in 0..3 {
                let (id, answer) = asking.next().await;
                assert_eq!(answer.unwrap().unwrap().id, id);
                answered.push(id);
            }
            answered.sort();
            (answered, asking.asked().map(str::to_owned).collect::<Vec<_>>())
        });
        assert_eq!(answered, ["a1", "a1", "b2"]);
        assert_eq!(left, ["slow"]);
        drop(daemon.join().unwrap());
    }
}
