//! The rules that a socket's connections are judged by at the moment.

use std::mem;
use std::sync::{Arc, PoisonError, RwLock};

use super::ruleset::Matcher;

/// A ruleset in use. When it is retired its connections stay, and their next requests are judged by its successor.
pub struct Live(RwLock<State>);

enum State {
    Rules(Arc<Matcher>),
    Successor(Arc<Live>),
    /// Nothing is allowed any more: connections are to be closed.
    Gone,
}

impl Live {
    pub fn new(matcher: Arc<Matcher>) -> Arc<Self> {
        Arc::new(Live(RwLock::new(State::Rules(matcher))))
    }

    /// From now on `successor` judges. Does nothing if that would never end at rules.
    pub fn retire(self: &Arc<Self>, successor: &Arc<Live>) {
        let mut seen = Arc::clone(successor);
        let mut last = Some(seen.clone());
        while let Some(live) = last {
            if Arc::ptr_eq(&live, self) {
                return;
            }
            last = live.next();
            seen = live;
        }
        self.set(State::Successor(seen));
    }

    pub fn close(&self) {
        self.set(State::Gone);
    }

    /// The rules in force; `live` becomes the one that has them, so that those in between are not kept.
    pub fn current(live: &mut Arc<Live>) -> Option<Arc<Matcher>> {
        loop {
            let next = match &*live.0.read().unwrap_or_else(PoisonError::into_inner) {
                State::Rules(matcher) => return Some(Arc::clone(matcher)),
                State::Gone => return None,
                State::Successor(next) => Arc::clone(next),
            };
            *live = next;
        }
    }

    fn next(&self) -> Option<Arc<Live>> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            State::Successor(next) => Some(Arc::clone(next)),
            State::Rules(_) | State::Gone => None,
        }
    }

    fn set(&self, state: State) {
        // A lock that was left by a panic has one of two whole states in it.
        let mut own = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // What was there is dropped without the lock.
        let before = mem::replace(&mut *own, state);
        drop(own);
        drop(before);
    }
}
