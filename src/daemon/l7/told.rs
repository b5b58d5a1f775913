//! What workers tell of requests goes where flows go.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Teller;
use crate::observe::flow::Flow;
use crate::observe::health;
use crate::observe::hub::Hub;
use crate::observe::names::NameBook;
use crate::observe::request::{Asked, Outcome, Request};
use crate::proxy::{Denial, Record};
use crate::types::Cookie;

pub struct Told {
    names: Arc<NameBook>,
    hub: Arc<Hub>,
    wake: Box<dyn Fn() + Send + Sync>,
    budget: Mutex<Budget>,
}

/// Strangers choose how many requests there are: they must not push all else out of what is kept.
struct Budget {
    second: Instant,
    left: u32,
}

/// Requests told of per second.
const MOST: u32 = 2000;

impl Told {
    /// `wake`: what keeps requests from being served may be something else now.
    pub fn new(
        names: Arc<NameBook>,
        hub: Arc<Hub>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let budget = Mutex::new(Budget { second: Instant::now(), left: MOST });
        Told { names, hub, wake: Box::new(wake), budget }
    }

    fn may_tell(&self) -> bool {
        // Both fields are whole between any two statements.
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.second.elapsed() >= Duration::from_secs(1) {
            *budget = Budget { second: Instant::now(), left: MOST };
        }
        match budget.left.checked_sub(1) {
            Some(left) => budget.left = left,
            None => return false,
        }
        true
    }
}

impl Teller for Told {
    fn record(&self, record: Record) {
        if self.may_tell() {
            let names = self.names.in_force();
            self.hub.publish(Flow::of_request(asked(record), Timestamp::now(), &names));
        }
    }

    fn wants_allowed(&self) -> bool {
        self.hub.is_followed()
    }

    fn store(&self, name: &str, descriptor: BorrowedFd<'_>) {
        health::store(name, descriptor);
    }

    fn changed(&self) {
        (self.wake)();
    }
}

fn asked(record: Record) -> Asked {
    let outcome = match (&record.denial, &record.fault) {
        (Some(Denial::Rules(direction, _)), _) => Outcome::Denied(*direction),
        (Some(Denial::Path(_)), _) | (None, Some(_)) => Outcome::Refused,
        (None, None) => Outcome::Allowed,
    };
    let why = record.denial.map(|denial| denial.to_string()).or(record.fault);
    Asked {
        client: record.client,
        server: record.server,
        outcome,
        egress: record.egress.map(Cookie),
        ingress: record.ingress.map(Cookie),
        request: Request {
            protocol: record.protocol,
            method: record.method,
            host: record.host,
            path: record.path,
            status: record.status,
            why,
        },
    }
}
