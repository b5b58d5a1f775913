//! The thread that empties the ring buffer: decodes, names, publishes.
//!
//! It asks every 50 ms instead of being woken by the kernel: an event then costs the datapath no
//! wake-up, and a burst of them costs one here.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use libbpf_rs::{MapHandle, RingBufferBuilder};

use super::clock::Clock;
use super::event::decode;
use super::flow::Flow;
use super::hub::Hub;
use super::names::NameBook;

/// Where records come from.
pub trait Source {
    /// Hands over records that are there, without waiting, and not endlessly many. True: there may be more.
    fn drain(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<bool>;
}

/// The running thread. Dropping it stops it, after what is in the buffer has been read.
#[derive(Debug)]
pub struct Reader {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    undecodable: Arc<AtomicU64>,
}

impl Reader {
    const INTERVAL: Duration = Duration::from_millis(50);
    /// Batches that are still read when it is to stop: more than the buffer holds.
    const LAST: u32 = 64;

    /// Reads the datapath's `events` map.
    pub fn ring_buffer(events: MapHandle, names: Arc<NameBook>, hub: Arc<Hub>) -> io::Result<Self> {
        let open =
            move || RingBuffer::open(&events).map_err(|error| io::Error::other(error.to_string()));
        Self::start(open, names, hub)
    }

    /// `open` runs on the new thread: sources need not be `Send`.
    pub fn start<S: Source>(
        open: impl FnOnce() -> io::Result<S> + Send + 'static,
        names: Arc<NameBook>,
        hub: Arc<Hub>,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::sync_channel::<()>(1);
        let undecodable = Arc::new(AtomicU64::new(0));
        let counter = undecodable.clone();
        let thread = std::thread::Builder::new().name("events".to_owned()).spawn(move || {
            let mut source = match open() {
                Ok(source) => source,
                Err(error) => return log::error!("cannot read the event buffer: {error}"),
            };
            // Whoever makes events as fast as they are read must not keep it from stopping.
            let mut last = Self::LAST;
            let mut more = false;
            loop {
                let wait = if more { Duration::ZERO } else { Self::INTERVAL };
                let stopping = stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
                let clock = Clock::now();
                let mut sink = |record: &[u8]| publish(record, clock, &names, &hub, &counter);
                more = match source.drain(&mut sink) {
                    Ok(more) => more,
                    Err(error) => {
                        return log::error!(
                            "reading the event buffer failed, flows are no longer shown: {error}"
                        );
                    }
                };
                if stopping {
                    last -= 1;
                    if !more || last == 0 {
                        return;
                    }
                }
            }
        })?;
        Ok(Reader { stop: Some(stop), thread: Some(thread), undecodable })
    }

    /// Records that this version does not understand.
    pub fn undecodable(&self) -> u64 {
        self.undecodable.load(Ordering::Relaxed)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn publish(record: &[u8], clock: Clock, names: &NameBook, hub: &Hub, undecodable: &AtomicU64) {
    match decode(record) {
        Ok(event) => {
            let names = names.of(event.generation);
            hub.publish(Flow::new(&event, clock.time_of(event.time), &names));
        }
        Err(error) => {
            // Once is enough: if one is foreign, all are.
            if undecodable.fetch_add(1, Ordering::Relaxed) == 0 {
                log::warn!("the event buffer has records of another version: {error}");
            }
        }
    }
}

struct RingBuffer {
    ring: libbpf_rs::RingBuffer<'static>,
    /// What the callback has taken out since it was last emptied.
    taken: Rc<RefCell<Vec<Box<[u8]>>>>,
}

impl RingBuffer {
    /// Records taken out at once: bounds the memory that a burst needs.
    const BATCH: usize = 1024;

    fn open(events: &MapHandle) -> Result<Self, libbpf_rs::Error> {
        let taken = Rc::new(RefCell::new(Vec::new()));
        let into = taken.clone();
        let mut builder = RingBufferBuilder::new();
        builder.add(events, move |record: &[u8]| {
            into.borrow_mut().push(record.into());
            0
        })?;
        Ok(RingBuffer { ring: builder.build()?, taken })
    }
}

impl Source for RingBuffer {
    fn drain(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let result = self.ring.consume_raw_n(Self::BATCH);
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        let taken = self.taken.take();
        taken.iter().for_each(|record| sink(record));
        Ok(taken.len() >= Self::BATCH)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;
    use crate::observe::fixture;
    use crate::observe::hub::{Filter, Item};
    use crate::observe::names::Names;

    struct Fake(Receiver<Vec<u8>>);

    impl Source for Fake {
        fn drain(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
            self.0.try_iter().for_each(|record| sink(&record));
            Ok(false)
        }
    }

    /// Never empty.
    struct Flood;

    impl Source for Flood {
        fn drain(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
            sink(&record(41));
            Ok(true)
        }
    }

    #[test]
    fn a_flood_does_not_keep_it_from_stopping() {
        let hub = Arc::new(Hub::default());
        let flows = hub.subscribe(Filter::default());
        let reader = Reader::start(|| Ok(Flood), Arc::default(), hub).unwrap();
        assert!(flows.next(Duration::from_secs(30)).is_some());
        drop(reader);
    }

    /// The denial of the fixture as the datapath writes it.
    fn record(generation: u32) -> Vec<u8> {
        let event = fixture::denied();
        let mut bytes = event.time.to_ne_bytes().to_vec();
        for word in [2, event.reason, generation, event.slot.0, 0, event.length] {
            bytes.extend(word.to_ne_bytes());
        }
        for address in [event.source, event.destination] {
            bytes.extend(crate::types::AddressKey::from(address).0);
        }
        bytes.extend(event.source_port.to_be_bytes());
        bytes.extend(event.destination_port.to_be_bytes());
        bytes.extend([6, 2, 2, 0]);
        for word in [263_u32, 259, 0, 11, 0, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn records_become_named_flows_and_the_last_are_read_before_it_stops() {
        let (records, source) = mpsc::channel();
        let names = Arc::new(NameBook::default());
        names.insert(Arc::new(fixture::names(41)));
        names.insert(Arc::new(Names::none()));
        let hub = Arc::new(Hub::default());
        let reader = Reader::start(move || Ok(Fake(source)), names, hub.clone()).unwrap();
        let flows = hub.subscribe(Filter::default());
        records.send(vec![1, 2, 3]).unwrap();
        records.send(record(41)).unwrap();
        let Some(Item::Flow(flow)) = flows.next(Duration::from_secs(30)) else { panic!("no flow") };
        assert_eq!(flow.source.endpoint.as_deref(), Some("dev/intruder"));
        assert_eq!(reader.undecodable(), 1);
        records.send(record(41)).unwrap();
        drop(reader);
        assert!(matches!(flows.try_next(), Some(Item::Flow(_))));
    }

    /// The kernel's own ring buffer, empty: whatever its size, draining ends.
    #[test]
    fn a_ring_buffer_can_be_drained() {
        let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
            ..Default::default()
        };
        let kind = libbpf_rs::MapType::RingBuf;
        let Ok(map) = MapHandle::create(kind, Some("porin_test"), 0, 0, 4096, &options) else {
            return eprintln!("not tested: no right to make BPF maps");
        };
        let mut ring = RingBuffer::open(&map).unwrap();
        for _ in 0..3 {
            ring.drain(&mut |_| panic!("a record out of nowhere")).unwrap();
        }
    }

    #[test]
    fn a_source_that_does_not_open_ends_the_thread_only() {
        let hub = Arc::new(Hub::default());
        let open = || Err::<Fake, _>(io::Error::other("no"));
        drop(Reader::start(open, Arc::default(), hub).unwrap());
    }
}
