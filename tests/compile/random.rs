//! Random worlds, changed at random, judged by their plans, by the view that `porinctl why` asks, and by the
//! reference: the verdict and the rule that is named must agree.
//! (`tests/proof` asks the kernel too.)

use proptest::prelude::*;

use porin::compile::explain::{Outcome, judge, judge_shadow};
use porin::compile::view::View;
use porin::types::Verdict;

use crate::probes::Probes;
use crate::reference::{self, Expected};
use crate::told;
use crate::world::{self, World};
use crate::worlds;

proptest! {
    #![proptest_config(crate::worlds::cases(96))]

    #[test]
    fn plans_judge_as_the_reference_does(
        steps in proptest::collection::vec((worlds::draft(), any::<u64>().no_shrink()), 1..4),
    ) {
        let mut world = World::new(world::config(world::host(), vec![], vec![]), &[]);
        for (draft, seed) in steps {
            world.become_draft(&draft);
            let facts = world.facts();
            let view = View::of_snapshot(&world.snapshot());
            let plan = world.commit();
            let mut probes = Probes::new(&draft.config, &facts, seed);
            for _ in 0..100 {
                let packet = probes.probe();
                let judged = judge(&plan, &packet);
                let (by_view, _) = told::of_view(&view, &packet);
                prop_assert_eq!(
                    &by_view,
                    &reference::judge(&draft.config, &facts, &packet, false),
                    "{}{} by the view",
                    told::world(&draft),
                    told::packet(&facts, &packet)
                );
                for (shadow, judged) in [(false, judged), (true, judge_shadow(&plan, &packet))] {
                    let got = told::of_plan(&plan, &judged);
                    let expected = reference::judge(&draft.config, &facts, &packet, shadow);
                    prop_assert!(
                        got == expected,
                        "{}{} => {}\nbut by the plan {}{}",
                        told::world(&draft),
                        told::packet(&facts, &packet),
                        told::answer(&expected),
                        told::answer(&got),
                        if shadow { ", both with shadow policies enforced" } else { "" },
                    );
                    if let Expected::Judged { egress, ingress } = expected {
                        let mut ends = [egress, ingress].into_iter().flatten();
                        let passes = ends.all(|says| says.verdict == Verdict::Allow);
                        prop_assert_eq!(judged.outcome == Outcome::Allowed, passes);
                    }
                }
            }
        }
    }
}
