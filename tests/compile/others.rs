//! A policy is nobody's business but that of the endpoints that it selects: whatever networks, groups and ports it names, the
//! verdicts of others' own policies stay as they were.

use std::sync::Arc;

use proptest::prelude::*;

use porin::compile::explain::{Packet, judge, judge_shadow};
use porin::compile::plan::Plan;

use crate::probes::Probes;
use crate::reference::{self, Expected, Facts};
use crate::told;
use crate::world::{self, World};
use crate::worlds::{self, Draft};

fn with(draft: &Draft, policy: &porin::config::model::Policy) -> Draft {
    let mut draft = draft.clone();
    draft.config.policies.insert(policy.name.clone(), Arc::new(policy.clone()));
    draft
}

/// What each end says, as enforced and in shadow mode.
fn said(plan: &Plan, packet: &Packet) -> Vec<Expected> {
    let judged = [judge(plan, packet), judge_shadow(plan, packet)];
    judged.iter().map(|judged| told::of_plan(plan, judged)).collect()
}

fn own(said: &[Expected], sender: bool) -> Vec<String> {
    let one = |expected: &Expected| match expected {
        Expected::Judged { egress, .. } if sender => format!("{egress:?}"),
        Expected::Judged { ingress, .. } => format!("{ingress:?}"),
        other => format!("{other:?}"),
    };
    said.iter().map(one).collect()
}

proptest! {
    #![proptest_config(crate::worlds::cases(96))]

    #[test]
    fn a_policy_changes_nothing_for_whom_it_does_not_select(
        draft in worlds::draft(),
        // Before and after all others, in the order of names.
        policy in prop_oneof![worlds::policy("a"), worlds::policy("z")],
        seed: u64,
    ) {
        let mut world = World::new(world::config(world::host(), vec![], vec![]), &[]);
        world.become_draft(&draft);
        let before = world.commit();
        let more = with(&draft, &policy);
        world.become_draft(&more);
        let (facts, after): (Facts, Plan) = (world.facts(), world.commit());
        let mut probes = Probes::new(&more.config, &facts, seed);
        for _ in 0..100 {
            let packet = probes.probe();
            let (was, is) = (said(&before, &packet), said(&after, &packet));
            for (sender, address) in [(true, packet.source), (false, packet.destination)] {
                if reference::selects(&more.config, &facts, &policy, address) {
                    continue;
                }
                prop_assert_eq!(
                    own(&was, sender),
                    own(&is, sender),
                    "{}{} sender {}",
                    told::world(&more),
                    told::packet(&facts, &packet),
                    sender
                );
            }
        }
    }
}
