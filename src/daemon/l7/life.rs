//! A worker's life: it is made, taught, watched, and made anew. None of it holds what others wait for.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

use super::keeper::{Known, Refused};
use super::kept::{self, Kept};
use super::link::{Link, PATIENCE, Unheeded};
use super::sockets::Sockets;
use super::{L7, process};
use crate::proxy::worker::{Channel, Order};
use crate::types::http::Side;

/// How long a worker may take to learn everything before it serves.
const TEACHING: Duration = Duration::from_secs(30);

/// Goes on with what an earlier daemon has left.
pub fn adopt(own: &L7, kept: Kept) {
    let sockets = Sockets::of(kept.sockets).filter(|sockets| match sockets.put(&own.0.maps) {
        Ok(()) => true,
        Err(why) => {
            log::warn!("the datapath does not take the L7 worker's sockets: {why}");
            false
        }
    });
    own.state().keeper.sockets = sockets.map(Arc::new);
    let mine = kept::name(&own.0.program, &own.0.maps);
    for worker in kept.workers {
        let name = worker.name;
        let channel = match Channel::of(worker.channel) {
            Ok(channel) => channel,
            Err(error) => {
                log::warn!("what was kept as {name} is no channel: {error}");
                continue;
            }
        };
        let link = Arc::new(Link::new(channel, worker.process));
        own.state().keeper.adopt(&link, mine.as_ref().is_ok_and(|mine| *mine == name));
        if let Err(error) = watch(own, &link, None) {
            log::warn!("cannot watch an L7 worker: {error}");
        }
    }
}

/// Those that it refuses.
///
/// # Errors
/// It is ended: it did not learn them all until then, or is gone.
pub fn teach(link: &Link, rulesets: &Known, end: Instant) -> Result<Refused, String> {
    let mut refused = Refused::new();
    for (number, side) in rulesets {
        if let Some(why) = teach_one(link, *number, side, end)? {
            log::error!("an L7 worker refuses ruleset {number}: {why}");
            refused.insert(*number, why);
        }
    }
    Ok(refused)
}

fn teach_one(
    link: &Link,
    number: u16,
    side: &Side,
    end: Instant,
) -> Result<Option<String>, String> {
    let file = match file(side) {
        Ok(file) => file,
        Err(error) => return Ok(Some(format!("it cannot be written down: {error}"))),
    };
    match link.order_by(&Order::Rules { number }, &[file.as_fd()], end) {
        Ok(()) => Ok(None),
        Err(Unheeded::Refused(why)) => Ok(Some(why)),
        Err(Unheeded::Broken(why)) => Err(why),
    }
}

/// A file that only the worker will have. Its position is the receiver's, too: each gets one of its own.
fn file(side: &Side) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("porin-rules", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(side)?)?;
    file.rewind()?;
    Ok(file)
}

/// Has a worker started by a thread of its own.
pub fn begin(own: &L7) -> std::io::Result<()> {
    let own = own.clone();
    let thread = std::thread::Builder::new().name("l7-start".to_owned());
    thread.spawn(move || replace(&own, Duration::ZERO)).map(|_| ())
}

/// Starts a worker after a while, unless somebody else does. Tries until there is one.
fn replace(own: &L7, mut pause: Duration) {
    loop {
        std::thread::sleep(pause);
        {
            let mut state = own.state();
            if state.leaving || !state.keeper.begin() {
                return;
            }
        }
        let started = start(own);
        let mut state = own.state();
        match started {
            Ok(()) => break,
            Err(why) => {
                log::error!("{why}");
                pause = state.keeper.gave_up(why);
            }
        }
        drop(state);
        own.changed();
    }
    own.changed();
}

/// A worker that knows everything and serves, in place of any.
fn start(own: &L7) -> Result<(), String> {
    let end = Instant::now() + TEACHING;
    let (child, channel, process) = process::start(&own.0.program)
        .map_err(|error| format!("cannot start the L7 worker: {error}"))?;
    let number = child.id();
    let link = Arc::new(Link::new(channel, Some(process)));
    if let Err(error) = watch(own, &link, Some(child)) {
        link.kill();
        return Err(format!("cannot watch the L7 worker: {error}"));
    }
    if let Err(why) = bring_up(own, &link, end) {
        link.end();
        return Err(format!("the L7 worker cannot serve: {why}"));
    }
    // Not before there is another that accepts.
    let draining = own.state().keeper.draining();
    let end = Instant::now() + PATIENCE;
    for old in draining {
        if let Err(why) = old.order_by(&Order::Drain {}, &[], end) {
            log::warn!("an L7 worker of before does not stop accepting connections: {why}");
        }
    }
    let rulesets = own.state().keeper.begun();
    own.0.settled.notify_all();
    if let Some(sandbox) = link.sandbox() {
        log::info!("an L7 worker serves, with {rulesets} rulesets; {sandbox:?}");
    }
    match kept::name(&own.0.program, &own.0.maps) {
        Ok(name) => kept::store(&*own.0.teller, &name, number, &link),
        Err(why) => log::warn!("the L7 worker is lost to the next daemon: {why}"),
    }
    own.tell_allowed();
    Ok(())
}

fn bring_up(own: &L7, link: &Arc<Link>, end: Instant) -> Result<(), String> {
    let (mut taught, mut refused) = (Known::new(), Refused::new());
    loop {
        let missing = own.state().keeper.missing(link, &taught, &refused);
        if missing.is_empty() {
            break;
        }
        for (number, side) in missing {
            refused.remove(&number);
            let Some(side) = side else {
                let forget = Order::Forget { number };
                link.order_by(&forget, &[], end).map_err(|why| why.to_string())?;
                taught.remove(&number);
                continue;
            };
            if let Some(why) = teach_one(link, number, &side, end)? {
                log::error!("the L7 worker refuses ruleset {number}: {why}");
                refused.insert(number, why);
            }
            taught.insert(number, side);
        }
    }
    let sockets = own.state().keeper.sockets.clone();
    let tables = own.0.maps.for_readers().map_err(|error| error.to_string())?;
    let mut with: Vec<_> = tables.iter().map(AsFd::as_fd).collect();
    with.extend(sockets.iter().flat_map(|sockets| sockets.descriptors()));
    link.order_by(&Order::Listen {}, &with, end).map_err(|why| why.to_string())
}

/// `child`: its process, if it is this one's.
fn watch(own: &L7, link: &Arc<Link>, child: Option<Child>) -> std::io::Result<()> {
    let (own, watched) = (own.clone(), Arc::clone(link));
    let thread = std::thread::Builder::new().name("l7-worker".to_owned());
    thread.spawn(move || hear(&own, &watched, child)).map(|_| ())
}

/// Hears a worker for as long as it lives, then sees that there is another.
fn hear(own: &L7, link: &Arc<Link>, child: Option<Child>) {
    let begun = Instant::now();
    let quiet = AtomicBool::new(false);
    let teller = &own.0.teller;
    link.listen(|record| {
        let allowed = record.denial.is_none() && record.fault.is_none();
        if !allowed || teller.wants_allowed() {
            quiet.store(false, Ordering::Relaxed);
            teller.record(record);
        } else if !quiet.swap(true, Ordering::Relaxed) {
            // An order waits for an answer, which is heard here.
            let own = own.clone();
            let thread = std::thread::Builder::new().name("l7-quiet".to_owned());
            if thread.spawn(move || own.unfollow()).is_err() {
                quiet.store(false, Ordering::Relaxed);
            }
        }
    });
    // Whether it has died, or only broken the channel: nobody could tell it anything any more.
    link.kill();
    let died = own.state().keeper.died(link, begun.elapsed());
    if let Some(pause) = died {
        own.changed();
        replace(own, pause);
    }
    // Last, as it may take long.
    if let Some(mut child) = child {
        let number = child.id();
        let _ = child.wait();
        kept::forget(&**teller, number);
    }
}
