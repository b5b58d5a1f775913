//! Containers of Docker's or Podman's on networks that are to be adopted (`[docker]`): found, followed, and written as
//! endpoints, by a thread of its own as long as there are such networks.

mod asking;
mod follower;
mod seen;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::attachments::Attachments;
use super::board::Answers;
use crate::adapter::docker::ADOPTED;
use crate::config::model::Docker;
use crate::desired::Fault;
use follower::Follower;

/// Starts and stops following, as the settings say.
pub struct Adopter {
    answers: Arc<Answers>,
    attachments: Arc<Attachments>,
    faults: Arc<Faults>,
    /// None: nothing was said yet.
    settings: Option<Docker>,
    following: Option<Following>,
}

impl Adopter {
    pub fn new(answers: Arc<Answers>, attachments: Arc<Attachments>) -> Self {
        let faults = Arc::default();
        Adopter { answers, attachments, faults, settings: None, following: None }
    }

    /// To be called after each round, with the settings that the operator's files have.
    pub fn set(&mut self, docker: &Docker) {
        if self.settings.as_ref() == Some(docker) {
            return;
        }
        self.settings = Some(docker.clone());
        if docker.adopt.is_empty() {
            self.following = None;
            self.faults.set(Vec::new());
            self.attachments.release(ADOPTED, |_| false);
            return;
        }
        if let Some(following) = &self.following {
            following.settings.send_replace(Some(docker.clone()));
            return;
        }
        match self.start(docker) {
            Ok(following) => self.following = Some(following),
            Err(error) => {
                let fault = Fault::whole(format!("containers cannot be followed: {error}"));
                self.faults.set(vec![fault]);
                // So that it is tried again.
                self.settings = None;
            }
        }
    }

    /// What is wrong with what was found, or not.
    pub fn faults(&self) -> Vec<Fault> {
        self.faults.get()
    }

    fn start(&self, docker: &Docker) -> std::io::Result<Following> {
        let (settings, received) = watch::channel(Some(docker.clone()));
        let (answers, attachments) = (self.answers.clone(), self.attachments.clone());
        let follower = Follower::new(answers, attachments, self.faults.clone(), received)?;
        let thread = std::thread::Builder::new().name("adopter".to_owned());
        let thread = thread.spawn(move || follower.run())?;
        Ok(Following { settings, thread: Some(thread) })
    }
}

/// A running thread. Dropped: stopped.
struct Following {
    /// None: it is to end.
    settings: watch::Sender<Option<Docker>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.settings.send_replace(None);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// The thread's, for the main loop to show.
#[derive(Default)]
struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    /// True: they are others than before.
    fn set(&self, faults: Vec<Fault>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *known != faults;
        *known = faults;
        changed
    }

    fn get(&self) -> Vec<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
