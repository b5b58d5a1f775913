//! `compile` against the words of the design: what a plan does to packets, and what a change costs.

mod assertions;
mod content;
mod fit;
mod others;
mod printed;
mod probes;
mod published;
mod random;
#[allow(dead_code)] // what only `tests/proof` needs
mod reference;
mod requests;
mod semantics;
mod sequences;
mod stability;
#[allow(dead_code)] // likewise
mod told;
mod world;
mod worlds;
