//! `compile` against the words of the design: what a plan does to packets, and what a change costs.

mod assertions;
mod fit;
mod random;
mod reference;
mod semantics;
mod stability;
mod world;
