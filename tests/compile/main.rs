//! `compile` against the words of the design: what a plan does to packets, and what a change costs.

mod assertions;
mod content;
mod fit;
mod others;
mod printed;
mod probes;
mod random;
mod reference;
mod semantics;
mod sequences;
mod stability;
mod told;
mod world;
mod worlds;
