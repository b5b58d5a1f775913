//! `compile` against the words of the design: what a plan does to packets, and what a change costs.

mod fit;
mod probes;
mod random;
mod reference;
mod semantics;
mod stability;
mod told;
mod world;
mod worlds;
