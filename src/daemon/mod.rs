//! The daemon: it starts, watches, reconciles, and stops without touching enforcement.

mod adopter;
mod attachments;
mod backoff;
mod board;
mod boot;
mod debounce;
mod docker;
mod faults;
mod inputs;
pub mod l7;
mod lock;
pub mod logging;
mod machines;
mod meters;
pub mod options;
mod ports;
mod reconcile;
mod rulesets;
mod run;
mod signals;
mod store;
mod sweeper;
mod watch;

use std::fmt;
use std::process::ExitCode;

use crate::kernel::Kernel;
use crate::kernel::probe::Support;
use crate::kernel::sockets::{Cgroup, Sockets};
use crate::proxy::worker;
use options::Options;

/// How `porind` ends, as porind(8) documents it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Stopped by a signal, or did what was asked for.
    Ok = 0,
    /// Something of the system failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The files have faults, and no generation is in force.
    Config = 3,
    /// The kernel, or the rights to use it, are not sufficient.
    Unusable = 4,
}

impl Exit {
    pub const ALL: [Exit; 5] = [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Config, Exit::Unusable];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// What keeps the daemon from running at all.
#[derive(Debug)]
struct Fatal {
    exit: Exit,
    operation: &'static str,
    why: String,
}

impl Fatal {
    fn new(exit: Exit, operation: &'static str, why: impl fmt::Display) -> Self {
        Fatal { exit, operation, why: why.to_string() }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.operation, self.why)
    }
}

/// Everything `porind` does.
pub fn main(options: &Options) -> ExitCode {
    logging::start();
    let done = if options.teardown {
        teardown(options)
    } else if options.check_kernel {
        check_kernel(options)
    } else if options.wait {
        boot::wait(options);
        Ok(Exit::Ok)
    } else if options.l7_worker {
        l7_worker()
    } else {
        run::run(options)
    };
    match done {
        Ok(exit) => exit.into(),
        Err(fatal) => {
            log::error!("{fatal}");
            fatal.exit.into()
        }
    }
}

fn teardown(options: &Options) -> Result<Exit, Fatal> {
    let _alone = lock::take(&run::paths(options).bpffs)?;
    let report = Kernel::teardown(&run::paths(options))
        .map_err(|error| Fatal::new(Exit::Failed, "tear down", error))?;
    for interface in &report.interfaces {
        println!("removed interface {interface}");
    }
    for interface in &report.gates {
        println!("detached the gates of {interface}");
    }
    for address in &report.addresses {
        println!("removed address {address}");
    }
    println!("removed {} pinned objects", report.pins);
    for failure in &report.failures {
        log::error!("{failure}");
    }
    Ok(if report.failures.is_empty() { Exit::Ok } else { Exit::Failed })
}

fn l7_worker() -> Result<Exit, Fatal> {
    worker::run().map_err(|error| Fatal::new(Exit::Failed, "serve", error))?;
    Ok(Exit::Ok)
}

fn check_kernel(options: &Options) -> Result<Exit, Fatal> {
    let support = Support::probe()
        .map_err(|unusable| Fatal::new(Exit::Unusable, "use this kernel", unusable))?;
    let attach = support
        .mechanisms(options.attach.into())
        .map_err(|unusable| Fatal::new(Exit::Unusable, "attach as asked", unusable))?;
    let have = |has: bool| if has { "yes" } else { "no" };
    println!("Linux {}: porin can work here", rustix::system::uname().release().to_string_lossy());
    println!("tcx (Linux 6.6): {}; without it: clsact", have(support.tcx));
    println!(
        "coarse clock (Linux 5.11): {}; without it: the fine one, some ns more per packet",
        have(support.coarse_clock)
    );
    println!("programs are attached by {attach}");
    match Sockets::open(&options.cgroup.clone().unwrap_or(Cgroup::Root)) {
        Ok(sockets) => println!(
            "published ports are reached by programs of the host itself, in cgroup {}",
            sockets.cgroup().display()
        ),
        Err(without) => {
            println!("published ports are not reached by programs of the host itself: {without}");
        }
    }
    Ok(Exit::Ok)
}
