//! What there is of workers, and what they must know. Nothing here waits: `life` does what is to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use super::Rulesets;
use super::link::Link;
use super::sockets::Sockets;
use crate::daemon::backoff::Backoff;
use crate::types::http::Side;

/// Rulesets by number.
pub type Known = BTreeMap<u16, Arc<Side>>;
/// Why a worker did not learn some, by number.
pub type Refused = BTreeMap<u16, String>;

#[derive(Default)]
pub struct Keeper {
    pub sockets: Option<Arc<Sockets>>,
    /// What workers know, or will know when there is one.
    known: Known,
    /// Of those, what the worker that serves did not learn.
    refused: Refused,
    serving: Option<Arc<Link>>,
    /// Those before, which serve what they have: they learn, but are not replaced.
    draining: Vec<Arc<Link>>,
    /// Somebody makes a worker, and tries again if it fails.
    starting: bool,
    /// Records of what is allowed are wanted.
    pub wants_allowed: bool,
    /// What the worker that serves was last told about that; none: an earlier daemon told it.
    pub told_allowed: Option<bool>,
    backoff: Backoff,
    failed: Option<String>,
}

/// A worker that lived for so long did not die of its start.
const LONG: Duration = Duration::from_secs(10);

impl Keeper {
    /// What keeps requests from being served.
    pub fn fault(&self) -> Option<String> {
        if let Some(why) = &self.failed {
            return Some(format!("requests are not judged, and so not served: {why}"));
        }
        if self.starting || self.serving.as_ref().is_some_and(|link| link.is_over()) {
            let why = "an L7 worker is being started";
            return Some(format!("requests are not judged, and so not served: {why}"));
        }
        const MOST: usize = 3;
        let mut text = String::new();
        for (number, why) in self.refused.iter().take(MOST) {
            // Writing to a String cannot fail.
            let _ = write!(text, "; number {number}: {why}");
        }
        let others = self.refused.len().saturating_sub(MOST);
        if others > 0 {
            let _ = write!(text, "; and {others} others");
        }
        let text = text.strip_prefix("; ")?;
        Some(format!("the L7 worker refuses rulesets; requests under them are not served: {text}"))
    }

    /// A worker of an earlier daemon's.
    pub fn adopt(&mut self, link: &Arc<Link>, serves: bool) {
        if serves && self.sockets.is_some() && self.serving.is_none() {
            self.serving = Some(Arc::clone(link));
        } else {
            self.draining.push(Arc::clone(link));
        }
    }

    /// The worker that serves.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.serving.clone().filter(|link| !link.is_over())
    }

    /// Those before.
    pub fn draining(&mut self) -> Vec<Arc<Link>> {
        self.draining.retain(|link| !link.is_over());
        self.draining.clone()
    }

    /// What of these is new. From now on each worker that is started learns them.
    pub fn note(&mut self, rulesets: &Rulesets) -> Result<Known, String> {
        let mut news = Known::new();
        for (id, side) in rulesets {
            let number =
                u16::try_from(id.0).map_err(|_| format!("{id:?} is no ruleset's number"))?;
            if self.known.get(&number).is_none_or(|known| known != side) {
                self.known.insert(number, Arc::clone(side));
                news.insert(number, Arc::clone(side));
            }
        }
        Ok(news)
    }

    /// What came of teaching `news` to the worker that serves.
    pub fn learned(&mut self, link: &Arc<Link>, news: &Known, refused: Refused) {
        if self.serves(link) {
            self.refused.retain(|number, _| !news.contains_key(number));
            self.refused.extend(refused);
        }
    }

    /// Forgets all other numbers, which it gives.
    pub fn keep(&mut self, kept: &BTreeSet<u16>) -> Vec<u16> {
        let gone: Vec<u16> =
            self.known.keys().filter(|number| !kept.contains(number)).copied().collect();
        for number in &gone {
            self.known.remove(number);
            self.refused.remove(number);
        }
        gone
    }

    /// Whether a worker is to be started now: there is none, and nobody tries.
    pub fn wants_worker(&self) -> bool {
        self.failed.is_none() && !self.starting && self.link().is_none()
    }

    /// Nobody tries, or waits to try again.
    pub fn is_settled(&self) -> bool {
        !self.starting
    }

    /// Whether the caller is to make one.
    pub fn begin(&mut self) -> bool {
        let begins = !self.starting && self.link().is_none();
        self.starting |= begins;
        begins
    }

    /// What one that has learned `taught` has still to learn, or (none) to forget. Nothing: from now on it is the one that
    /// serves, so that others teach it what comes.
    pub fn missing(
        &mut self,
        link: &Arc<Link>,
        taught: &Known,
        refused: &Refused,
    ) -> Vec<(u16, Option<Arc<Side>>)> {
        let gone = taught.keys().filter(|number| !self.known.contains_key(number));
        let mut missing: Vec<_> = gone.map(|number| (*number, None)).collect();
        let new = self.known.iter().filter(|(number, side)| taught.get(number) != Some(side));
        missing.extend(new.map(|(number, side)| (*number, Some(Arc::clone(side)))));
        if missing.is_empty() {
            self.serving = Some(Arc::clone(link));
            self.refused = refused.clone();
            self.told_allowed = Some(false);
        }
        missing
    }

    /// How many it serves.
    pub fn begun(&mut self) -> usize {
        (self.starting, self.failed) = (false, None);
        self.known.len() - self.refused.len().min(self.known.len())
    }

    /// In what time another is to be tried.
    pub fn gave_up(&mut self, why: String) -> Duration {
        (self.starting, self.failed, self.serving) = (false, Some(why), None);
        self.backoff.failed()
    }

    /// The worker is gone. In what time another is to be started; none: somebody does that.
    pub fn died(&mut self, link: &Arc<Link>, lived: Duration) -> Option<Duration> {
        self.draining.retain(|other| !Arc::ptr_eq(other, link));
        if self.starting || !self.serves(link) {
            return None;
        }
        self.serving = None;
        if lived >= LONG {
            self.backoff.succeeded();
            log::error!("the L7 worker has died; another is started");
            return Some(Duration::ZERO);
        }
        let pause = self.backoff.failed();
        let why = format!("the L7 worker has died {lived:.1?} after its start");
        log::error!("{why}; another is started in {pause:?}");
        self.failed = Some(why);
        Some(pause)
    }

    fn serves(&self, link: &Arc<Link>) -> bool {
        self.serving.as_ref().is_some_and(|serving| Arc::ptr_eq(serving, link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::worker::Channel;
    use crate::types::RulesetId;

    fn link() -> (Arc<Link>, Channel) {
        let (own, theirs) = Channel::pair().unwrap();
        (Arc::new(Link::new(own, None)), theirs)
    }

    fn rulesets(numbers: &[u32]) -> Rulesets {
        numbers.iter().map(|number| (RulesetId(*number), Arc::new(Side::default()))).collect()
    }

    #[test]
    fn what_changes_while_a_worker_learns_is_learned_before_it_serves() {
        let mut keeper = Keeper::default();
        let ((worker, _theirs), none) = (link(), Refused::new());
        let news = keeper.note(&rulesets(&[1, 2])).unwrap();
        assert!(keeper.begin() && !keeper.begin());
        assert!(keeper.fault().unwrap().contains("being started"));
        assert_eq!(keeper.missing(&worker, &Known::new(), &none).len(), 2);
        keeper.note(&rulesets(&[3])).unwrap();
        assert_eq!(keeper.keep(&BTreeSet::from([2, 3])), [1]);
        let missing = keeper.missing(&worker, &news, &none);
        let told: Vec<_> = missing.iter().map(|(number, side)| (*number, side.is_some())).collect();
        assert_eq!(told, [(1, false), (3, true)]);
        assert!(keeper.link().is_none());
        let taught = keeper.known.clone();
        assert!(keeper.missing(&worker, &taught, &none).is_empty());
        assert!(keeper.link().is_some());
        assert_eq!((keeper.begun(), keeper.fault()), (2, None));
    }

    #[test]
    fn what_is_refused_is_told_until_it_is_learned_or_forgotten() {
        let mut keeper = Keeper::default();
        let (worker, _theirs) = link();
        let refused = |numbers: &[u16]| -> Refused {
            numbers.iter().map(|number| (*number, "too long".to_owned())).collect()
        };
        let news = keeper.note(&rulesets(&[1, 2, 3])).unwrap();
        assert!(keeper.begin() && keeper.missing(&worker, &news, &refused(&[1, 2])).is_empty());
        assert_eq!(keeper.begun(), 1);
        let fault = keeper.fault().unwrap();
        assert!(fault.ends_with("not served: number 1: too long; number 2: too long"), "{fault}");
        let news = Known::from([(1, Arc::default())]);
        keeper.learned(&worker, &news, Refused::new());
        keeper.keep(&BTreeSet::from([1, 3]));
        assert_eq!(keeper.fault(), None);
    }

    #[test]
    fn one_that_dies_young_is_replaced_later_and_by_one() {
        let mut keeper = Keeper::default();
        let (worker, _theirs) = link();
        assert!(keeper.wants_worker() && keeper.begin());
        assert!(keeper.missing(&worker, &Known::new(), &Refused::new()).is_empty());
        assert_eq!(keeper.died(&worker, Duration::ZERO), None, "who starts it tries again");
        let pause = keeper.gave_up("it is gone".to_owned());
        assert!(!pause.is_zero() && !keeper.wants_worker() && keeper.begin());
        assert!(keeper.missing(&worker, &Known::new(), &Refused::new()).is_empty());
        keeper.begun();
        assert!(keeper.died(&worker, Duration::from_secs(1)).unwrap() > pause);
        assert!(keeper.fault().unwrap().contains("has died 1.0s after its start"));
        assert_eq!(keeper.died(&worker, LONG), None, "it is none any more");
    }
}
