//! Connections that are open: so many in all, and so many of one client, so that none takes the room of all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::limits::Limits;

#[derive(Default)]
pub struct Open(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    /// Those that have any.
    clients: HashMap<IpAddr, usize>,
}

/// A connection, for as long as it is open.
pub struct One<'a> {
    open: &'a Open,
    client: IpAddr,
}

impl Open {
    /// None: there are too many.
    pub fn one(&self, client: IpAddr, limits: &Limits) -> Option<One<'_>> {
        let mut counts = self.counts();
        let own = counts.clients.get(&client).copied().unwrap_or(0);
        if counts.all >= limits.connections || own >= limits.per_client {
            return None;
        }
        counts.all += 1;
        counts.clients.insert(client, own + 1);
        Some(One { open: self, client })
    }

    pub fn count(&self) -> usize {
        self.counts().all
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics between the two counts.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        let mut counts = self.open.counts();
        counts.all = counts.all.saturating_sub(1);
        match counts.clients.get_mut(&self.client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                counts.clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_the_room() {
        let limits = Limits { connections: 3, per_client: 2, ..Limits::default() };
        let open = Open::default();
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = open.one(a, &limits);
        let second = open.one(a, &limits);
        assert!(first.is_some() && second.is_some() && open.one(a, &limits).is_none());
        let third = open.one(b, &limits);
        assert!(third.is_some() && open.one(b, &limits).is_none());
        assert_eq!(open.count(), 3);
        drop(first);
        assert!(open.one(a, &limits).is_some());
        drop((second, third));
        assert_eq!(open.count(), 0);
        assert!(open.counts().clients.is_empty());
    }
}
