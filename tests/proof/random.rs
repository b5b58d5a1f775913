//! Random worlds, one after another in one kernel.

use std::cell::RefCell;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use crate::count::Count;
use crate::judges::Court;
use crate::kernel::Kernel;
use crate::probes::Probes;
use crate::told;
use crate::world::{self, World};
use crate::worlds::{self, Draft};

/// So many packets are judged by all, at least.
const VERDICTS: usize = 20_000;
/// Packets that each world is asked about.
const PACKETS: usize = 200;

/// Variants of one program.
const VARIANTS: usize = 6;

fn number(variable: &str, usual: usize) -> usize {
    let text = std::env::var(variable);
    text.map_or(usual, |text| text.parse().expect("a number"))
}

type Steps = Vec<(Draft, u64)>;

fn steps() -> impl Strategy<Value = Steps> {
    let draft = worlds::draft().prop_map(worlds::loadable);
    proptest::collection::vec((draft, any::<u64>().no_shrink()), 1..4)
}

#[test]
fn reference_plan_and_kernel_agree() {
    let wanted = number("PORIN_PROOF_VERDICTS", VERDICTS);
    let Some(kernel) = Kernel::new(number("PORIN_PROOF_VARIANTS", VARIANTS)) else { return };
    let (kernel, count) = (RefCell::new(kernel), RefCell::new(Count::default()));
    let config = ProptestConfig { max_shrink_iters: 4000, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    while count.borrow().verdicts < wanted {
        let tree = steps().new_tree(&mut runner).expect("a world");
        let judged = runner.run_one(tree, |steps| {
            judge(&steps, &mut kernel.borrow_mut(), &mut count.borrow_mut())
                .map_err(TestCaseError::fail)
        });
        if let Err(TestError::Fail(why, steps)) = judged {
            keep(&steps);
            panic!("{why}");
        }
        judged.expect("judged");
    }
    print!("{}", count.borrow());
    println!("{:8} variants loaded", kernel.borrow().variants());
}

fn judge(steps: &Steps, kernel: &mut Kernel, count: &mut Count) -> Result<(), String> {
    // Whatever a world before this one left.
    let mut nothing = World::new(world::config(world::host(), vec![], vec![]), &[]);
    let nothing = nothing.commit();
    (0..2).for_each(|_| kernel.commit(&nothing));
    let mut world = World::new(world::config(world::host(), vec![], vec![]), &[]);
    for (draft, seed) in steps {
        let at = |why: String| format!("{}{why}", told::world(draft));
        let mut court = Court::open(&mut world, kernel, draft);
        kernel.take_hits();
        count.worlds += 1;
        let mut probes = Probes::new(&draft.config, &court.facts, *seed);
        for _ in 0..PACKETS {
            court.ask(kernel, &probes.probe(), count).map_err(at)?;
        }
        court.check_hits(kernel).map_err(at)?;
        assert!(kernel.has_no_flows());
    }
    Ok(())
}

/// As a case to go into `tests/proof/cases`, once its `expect.txt` has the line that the failure told.
fn keep(steps: &Steps) {
    for (at, (draft, _)) in steps.iter().enumerate() {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("proof-failure-{at}"));
        for (name, text) in told::files(draft) {
            let path = directory.join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        println!("kept as {}", directory.display());
    }
}
