//! Opens endpoints that Docker does not ask external connectivity for, and those of an earlier daemon; removes what Docker
//! forgot while no daemon ran.

use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::driver::{self, Driver};
use super::left::{Left, Progress};
use super::wire::OfEndpoint;

/// Docker is told that an endpoint is joined, writes it down, and knows then whose it is.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(5);
/// What takes longer is told.
const LONG: Duration = Duration::from_secs(10);
/// Between two looks at what an earlier daemon left; what nobody comes for is looked at less and less often.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_LONGEST: Duration = Duration::from_secs(60);
/// Docker's API may be slow for one endpoint; those that are due with it are not to wait for it.
const AT_ONCE: usize = 8;

/// What the driver has done that somebody is to see to.
pub enum Told {
    Joined(OfEndpoint),
    /// A subnet is given out, perhaps to nobody.
    Subnet,
}

struct Waiting {
    of: OfEndpoint,
    since: Instant,
    at: Instant,
    pause: Duration,
    told: bool,
    done: bool,
}

/// Runs until the other end of `tells` is gone.
pub fn run(driver: &Weak<Driver>, tells: &Receiver<Told>, mut left: Left) {
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut look = (!left.is_empty()).then(Instant::now);
    let mut pause = LOOK;
    let mut told = false;
    // An earlier daemon may have left some.
    let mut sweep = Some(Instant::now() + super::pools::UNUSED);
    loop {
        let next = waiting.iter().map(|one| one.at).chain(look).chain(sweep).min();
        let tell = match next {
            Some(at) => tells.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => tells.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let now = Instant::now();
        match tell {
            Ok(Told::Joined(of)) => waiting.push(Waiting::new(of, now)),
            Ok(Told::Subnet) => sweep = sweep.or(Some(now + super::pools::UNUSED)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(driver) = driver.upgrade() else { return };
        if look.is_some_and(|at| at <= now) {
            let joined = |of| waiting.push(Waiting::new(of, now));
            look = match left.look(&driver, joined) {
                Ok(Progress::Done) => None,
                Ok(Progress::More) => Some(Instant::now() + LOOK),
                Ok(Progress::Waits) => {
                    pause = (pause * 2).min(LOOK_LONGEST);
                    Some(Instant::now() + pause)
                }
                Err(why) => {
                    if !std::mem::replace(&mut told, true) {
                        log::warn!("what Docker has is not known yet: {why}");
                    }
                    Some(Instant::now() + LOOK)
                }
            };
        }
        if sweep.is_some_and(|at| at <= now) {
            // What is not known now is known at another time; nothing else depends on it.
            sweep = match driver.sweep_subnets() {
                Ok(false) => None,
                Ok(true) | Err(_) => Some(Instant::now() + super::pools::UNUSED),
            };
        }
        let mut due: Vec<&mut Waiting> = waiting.iter_mut().filter(|one| one.at <= now).collect();
        for some in due.chunks_mut(AT_ONCE) {
            std::thread::scope(|scope| {
                for one in some {
                    let open = || one.open(&driver);
                    // Without a thread it is due again.
                    let thread = std::thread::Builder::new().name("docker-opener".to_owned());
                    if let Err(error) = thread.spawn_scoped(scope, open) {
                        log::warn!("an endpoint of Docker's is opened later: {error}");
                    }
                }
            });
        }
        waiting.retain(|one| !one.done);
    }
}

impl Waiting {
    fn new(of: OfEndpoint, now: Instant) -> Self {
        Waiting { of, since: now, at: now + FIRST, pause: FIRST, told: false, done: false }
    }

    fn open(&mut self, driver: &Driver) {
        let Err(why) = driver.open(&self.of) else {
            self.done = true;
            return;
        };
        if !driver.is_shut(&self.of) {
            self.done = true;
            return;
        }
        if self.since.elapsed() > LONG && !std::mem::replace(&mut self.told, true) {
            log::warn!("{} stays shut: {why}", driver::id(&self.of));
        }
        self.pause = (self.pause * 2).min(LONGEST);
        self.at = Instant::now() + self.pause;
    }
}
