//! Where flows come together: the last ones are kept, subscribers are told.
//!
//! A subscriber that does not keep up loses records and learns how many, at the place where they are
//! missing. It never slows the others, nor the publisher.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::event::FlowType;
use super::flow::Flow;

/// Which flows are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Empty: all.
    pub types: Vec<FlowType>,
    /// An endpoint's name, at either end.
    pub endpoint: Option<String>,
    /// At most this many past ones, the newest; none: all that are kept.
    pub last: Option<usize>,
}

impl Filter {
    pub fn wants(&self, flow: &Flow) -> bool {
        let at = |name: &String| {
            [&flow.source, &flow.destination].iter().any(|end| end.endpoint.as_ref() == Some(name))
        };
        (self.types.is_empty() || self.types.contains(&flow.kind))
            && self.endpoint.as_ref().is_none_or(at)
    }
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Flow(Arc<Flow>),
    /// This many are missing here.
    Lost(u64),
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Hub {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Oldest first.
    kept: VecDeque<Arc<Flow>>,
    subscribers: Vec<Weak<Queue>>,
    published: u64,
}

impl Hub {
    /// Flows that are kept.
    pub const KEPT: usize = 8192;

    pub fn publish(&self, flow: Flow) {
        let flow = Arc::new(flow);
        let mut inner = lock(&self.inner);
        inner.published += 1;
        if inner.kept.len() == Self::KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(flow.clone());
        inner.subscribers.retain(|queue| match queue.upgrade() {
            Some(queue) => {
                queue.push(&flow);
                true
            }
            None => false,
        });
    }

    /// Past flows, then, without a gap, those to come.
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        let mut inner = lock(&self.inner);
        let last = filter.last.unwrap_or(Self::KEPT);
        let wanted = inner.kept.iter().rev().filter(|flow| filter.wants(flow)).take(last);
        let mut items: VecDeque<Item> = wanted.cloned().map(Item::Flow).collect();
        items.make_contiguous().reverse();
        let past = items.len();
        let queue = Queue {
            limit: past + Queue::AHEAD,
            filter,
            items: Mutex::new(items),
            pushed: Condvar::new(),
        };
        let queue = Arc::new(queue);
        inner.subscribers.push(Arc::downgrade(&queue));
        Subscription { queue, past }
    }

    /// Whether somebody waits to be told of what is allowed.
    pub fn is_followed(&self) -> bool {
        let wants = |queue: Arc<Queue>| {
            queue.filter.types.is_empty() || queue.filter.types.contains(&FlowType::Flow)
        };
        lock(&self.inner).subscribers.iter().filter_map(Weak::upgrade).any(wants)
    }

    /// How many flows there ever were.
    pub fn published(&self) -> u64 {
        lock(&self.inner).published
    }
}

/// One subscriber's end. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
    past: usize,
}

impl Subscription {
    /// How many of the items are past flows: these are the first ones.
    pub fn past(&self) -> usize {
        self.past
    }

    /// The next item if there is one already.
    pub fn try_next(&self) -> Option<Item> {
        lock(&self.queue.items).pop_front()
    }

    /// The next item, waiting for it until `timeout` has passed.
    pub fn next(&self, timeout: Duration) -> Option<Item> {
        let deadline = Instant::now() + timeout;
        let mut items = lock(&self.queue.items);
        loop {
            if let Some(item) = items.pop_front() {
                return Some(item);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.queue.pushed.wait_timeout(items, left);
            items = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[derive(Debug)]
struct Queue {
    filter: Filter,
    limit: usize,
    items: Mutex<VecDeque<Item>>,
    pushed: Condvar,
}

impl Queue {
    /// How far a subscriber may fall behind.
    const AHEAD: usize = 1024;

    fn push(&self, flow: &Arc<Flow>) {
        if !self.filter.wants(flow) {
            return;
        }
        let mut items = lock(&self.items);
        if items.len() < self.limit {
            items.push_back(Item::Flow(flow.clone()));
        } else if let Some(Item::Lost(count)) = items.back_mut() {
            *count += 1;
        } else {
            items.push_back(Item::Lost(1));
        }
        drop(items);
        self.pushed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Queues and counts are whole between any two statements above.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fixture;

    /// A flow that `length` tells from others.
    fn flow(length: u32) -> Flow {
        let event = crate::observe::event::Event { length, ..fixture::denied() };
        Flow::new(&event, jiff::Timestamp::UNIX_EPOCH, &fixture::names(41))
    }

    fn drain(subscription: &Subscription) -> Vec<Result<u32, u64>> {
        let items = std::iter::from_fn(|| subscription.try_next());
        items.map(number).collect()
    }

    fn number(item: Item) -> Result<u32, u64> {
        match item {
            Item::Flow(flow) => Ok(flow.length),
            Item::Lost(count) => Err(count),
        }
    }

    #[test]
    fn the_last_ones_are_kept_and_what_comes_follows_without_a_gap() {
        let hub = Hub::default();
        let all = u32::try_from(Hub::KEPT).unwrap() + 5;
        (0..all).for_each(|n| hub.publish(flow(n)));
        assert_eq!(hub.published(), u64::from(all));
        let kept = hub.subscribe(Filter::default());
        assert_eq!(drain(&kept), (5..all).map(Ok).collect::<Vec<_>>());
        let last = hub.subscribe(Filter { last: Some(2), ..Filter::default() });
        hub.publish(flow(all));
        assert_eq!((kept.past(), last.past()), (Hub::KEPT, 2));
        assert_eq!(drain(&last), [Ok(all - 2), Ok(all - 1), Ok(all)]);
        assert_eq!(drain(&kept), [Ok(all)]);
    }

    #[test]
    fn a_slow_subscriber_learns_what_it_lost_and_harms_nobody() {
        let hub = Hub::default();
        let slow = hub.subscribe(Filter::default());
        let quick = hub.subscribe(Filter::default());
        let ahead = u32::try_from(Queue::AHEAD).unwrap();
        for n in 0..ahead + 7 {
            hub.publish(flow(n));
            assert_eq!(drain(&quick), [Ok(n)]);
        }
        let mut expected: Vec<_> = (0..ahead).map(Ok).collect();
        // Reading one does not make room while the loss is still to be told.
        assert_eq!(slow.try_next().map(number), Some(expected.remove(0)));
        hub.publish(flow(9000));
        expected.push(Err(8));
        assert_eq!(drain(&slow), expected);
        hub.publish(flow(9001));
        assert_eq!(drain(&slow), [Ok(9001)]);
    }

    #[test]
    fn filters_choose_by_type_and_endpoint() {
        let wants = |filter: Filter| filter.wants(&flow(1));
        let types = |types: &[FlowType]| Filter { types: types.to_vec(), ..Filter::default() };
        let endpoint = |name: &str| Filter { endpoint: Some(name.into()), ..Filter::default() };
        assert!(wants(Filter::default()));
        assert!(wants(types(&[FlowType::Drop, FlowType::Deny])));
        assert!(!wants(types(&[FlowType::Flow])));
        assert!(wants(endpoint("api")) && wants(endpoint("dev/intruder")));
        assert!(!wants(endpoint("ap")));
    }

    #[test]
    fn who_waits_is_woken_and_who_leaves_is_forgotten() {
        let hub = Hub::default();
        let subscription = hub.subscribe(Filter::default());
        assert_eq!(subscription.next(Duration::ZERO), None);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| subscription.next(Duration::from_secs(30)));
            hub.publish(flow(3));
            assert_eq!(waiting.join().unwrap().map(number), Some(Ok(3)));
        });
        drop(subscription);
        hub.publish(flow(4));
        assert!(lock(&hub.inner).subscribers.is_empty());
    }
}
