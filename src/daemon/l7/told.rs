//! What workers tell of requests goes where flows go.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
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
    untold: AtomicU64,
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
        Told { names, hub, wake: Box::new(wake), budget, untold: AtomicU64::new(0) }
    }

    fn may_tell(&self, now: Instant) -> bool {
        // Both fields are whole between any two statements.
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(budget.second) >= Duration::from_secs(1) {
            *budget = Budget { second: now, left: MOST };
        }
        match budget.left.checked_sub(1) {
            Some(left) => budget.left = left,
            None => {
                self.untold.fetch_add(1, Ordering::Relaxed);
                return false;
            }
        }
        true
    }
}

impl Teller for Told {
    fn record(&self, record: Record) {
        if self.may_tell(Instant::now()) {
            let names = self.names.in_force();
            self.hub.publish(Flow::of_request(asked(record), Timestamp::now(), &names));
        }
    }

    fn wants_allowed(&self) -> bool {
        self.hub.is_followed()
    }

    fn untold(&self) -> u64 {
        self.untold.load(Ordering::Relaxed)
    }

    fn store(&self, name: &str, descriptor: BorrowedFd<'_>) {
        health::store(name, descriptor);
    }

    fn forget(&self, name: &str) {
        health::forget(name);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event::FlowType;
    use crate::observe::hub::{Filter, Item};
    use crate::proxy::Refusal;
    use crate::types::Direction;

    fn told() -> (Told, Arc<Hub>) {
        let hub = Arc::new(Hub::default());
        (Told::new(Arc::default(), hub.clone(), || {}), hub)
    }

    fn record() -> Record {
        Record {
            client: "10.0.0.1:40000".parse().unwrap(),
            server: "10.0.0.2:80".parse().unwrap(),
            protocol: "http/1.1".to_owned(),
            method: "GET".to_owned(),
            host: "a".to_owned(),
            path: "/".to_owned(),
            status: Some(200),
            egress: None,
            ingress: Some(7),
            denial: None,
            fault: None,
        }
    }

    #[test]
    fn strangers_do_not_crowd_out_all_else() {
        let (told, _hub) = told();
        let now = Instant::now();
        let may = |at| (0..MOST + 500).filter(|_| told.may_tell(at)).count();
        assert_eq!(may(now + Duration::from_millis(1)), MOST as usize);
        assert_eq!(may(now + Duration::from_millis(1500)), MOST as usize);
        assert_eq!(told.untold(), 1000);
    }

    #[test]
    fn what_became_of_a_request_is_its_type() {
        let (told, hub) = told();
        assert!(!told.wants_allowed());
        let followed = hub.subscribe(Filter::default());
        assert!(told.wants_allowed());
        let denial = Some(Denial::Rules(Direction::Egress, Refusal::NoRule));
        told.record(record());
        told.record(Record { denial, status: Some(403), ..record() });
        told.record(Record { fault: Some("no Host".to_owned()), status: Some(400), ..record() });
        let seen = std::iter::from_fn(|| followed.try_next()).map(|item| match item {
            Item::Flow(flow) => {
                let why = flow.request.as_ref().unwrap().why.clone();
                (flow.kind, flow.reason.clone().unwrap_or_default(), why.unwrap_or_default())
            }
            Item::Lost(count) => panic!("{count} are missing"),
        });
        let seen: Vec<_> = seen.collect();
        let of = |kind, reason: &str, why: &str| (kind, reason.to_owned(), why.to_owned());
        assert_eq!(
            seen,
            [
                of(FlowType::Flow, "", ""),
                of(FlowType::Deny, "request-egress", "egress: no rule allows it"),
                of(FlowType::Drop, "request-refused", "no Host"),
            ]
        );
        drop(followed);
        let denials = Filter { types: vec![FlowType::Deny], ..Filter::default() };
        let _denials = hub.subscribe(denials);
        assert!(!told.wants_allowed(), "nobody wants to hear of what is allowed");
    }
}
