//! Gates loaded ahead, while interfaces are made: the verifier works on one processor, the kernel's
//! network configuration on another.
//!
//! It is only ever a matter of time: whoever asks for a gate that is not under way loads it himself.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::datapath::{self, GatePair, Maps, abi};
use super::sys::bytes_of;

/// So many may wait, with two descriptors each.
const WAITING: usize = 32;
/// For fewer it is not worth a thread.
const WORTHWHILE: usize = 4;

type Loaded = (abi::Gate, datapath::Result<GatePair>);

/// A thread that loads gates in the order in which they will be asked for. It ends with this.
#[derive(Debug, Default)]
pub struct Ahead {
    loaded: Option<Receiver<Loaded>>,
}

impl Ahead {
    pub fn start(maps: &Arc<Maps>, gates: Vec<abi::Gate>) -> Self {
        if gates.len() < WORTHWHILE {
            return Ahead::default();
        }
        let (sender, receiver) = sync_channel(WAITING);
        let maps = maps.clone();
        let load = move || {
            for gate in gates {
                let pair = datapath::load_gate(&maps, &gate);
                if sender.send((gate, pair)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("gates".to_owned()).spawn(load);
        Ahead { loaded: thread.is_ok().then_some(receiver) }
    }

    /// The gates of an endpoint. Those before it in the order are not wanted any more.
    pub fn take(&self, maps: &Maps, gate: &abi::Gate) -> datapath::Result<GatePair> {
        let mut loaded = self.loaded.iter().flatten();
        match loaded.find(|(other, _)| bytes_of(other) == bytes_of(gate)) {
            Some((_, pair)) => pair,
            None => datapath::load_gate(maps, gate),
        }
    }
}
