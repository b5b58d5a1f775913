//! The proof that the kernel does what section 5 of the design says: random worlds, and cases that people wrote, judged by
//! the reference evaluator, by the compiled plan, by the view that `porinctl why` asks, and by the programs and tables as
//! they are really loaded. They need root.

mod cases;
mod count;
mod judges;
mod kernel;
mod random;

#[path = "../packet/frame.rs"]
#[allow(dead_code)] // what only packet tests need
mod frame;

// What they share with the tests of the compiler alone.
#[path = "../compile/probes.rs"]
mod probes;
#[path = "../compile/reference.rs"]
mod reference;
#[path = "../compile/told.rs"]
mod told;
#[path = "../compile/world.rs"]
#[allow(dead_code)] // likewise
mod world;
#[path = "../compile/worlds.rs"]
#[allow(dead_code)] // likewise
mod worlds;
