//! All judges on one world: they must agree on the verdict and on what decided.

use std::collections::BTreeMap;

use porin::compile::explain::{Packet, judge, judge_shadow};
use porin::compile::plan::Plan;
use porin::compile::view::View;
use porin::types::{Cookie, Verdict};

use crate::count::Count;
use crate::kernel::{Answer, Fate, Kernel};
use crate::reference::{self, Expected, Facts};
use crate::told;
use crate::world::World;
use crate::worlds::Draft;

/// A world in force.
pub struct Court<'a> {
    pub draft: &'a Draft,
    pub facts: Facts,
    pub plan: Plan,
    /// What `porinctl why` answers from.
    view: View,
    /// What the kernel's counters of rules should say.
    hits: BTreeMap<(Cookie, bool), u64>,
}

impl<'a> Court<'a> {
    /// Brings a world, and the kernel with it, to a draft.
    pub fn open(world: &mut World, kernel: &mut Kernel, draft: &'a Draft) -> Self {
        world.become_draft(draft);
        let facts = world.facts();
        let view = View::of_snapshot(&world.snapshot());
        let plan = world.commit();
        kernel.commit(&plan);
        Court { draft, facts, plan, view, hits: BTreeMap::new() }
    }

    /// What the reference says. An error tells who says something else.
    pub fn ask(
        &mut self,
        kernel: &mut Kernel,
        packet: &Packet,
        count: &mut Count,
    ) -> Result<Expected, String> {
        count.packets += 1;
        let by_reference =
            |shadow| reference::judge(&self.draft.config, &self.facts, packet, shadow);
        let (expected, in_shadow) = (by_reference(false), by_reference(true));
        let by_plan = told::of_plan(&self.plan, &judge(&self.plan, packet));
        self.agree(packet, "plan", &expected, &by_plan)?;
        let by_plan = told::of_plan(&self.plan, &judge_shadow(&self.plan, packet));
        self.agree(packet, "plan, shadow policies enforced", &in_shadow, &by_plan)?;
        let (by_view, shadow) = told::of_view(&self.view, packet);
        self.agree(packet, "view", &expected, &by_view)?;
        match shadow {
            Some(shadow) => {
                self.agree(packet, "view, shadow policies enforced", &in_shadow, &shadow)?;
            }
            None if told::same_verdicts(&expected, &in_shadow) => {}
            None => return Err(format!("view: shadow policies make no difference to {packet:?}")),
        }
        for way in Kernel::ways(&self.plan, packet) {
            let Answer { outcome, shadow } = kernel.ask(&self.plan, packet, way);
            let who = format!("kernel, by {way:?}");
            self.agree(packet, &who, &asked(&expected), &self.of_kernel(&expected, outcome))?;
            let has_shadow = reference::in_shadow(&self.draft.config, &self.facts, packet)
                && outcome != Fate::NoEndpoint;
            // Who has shadow policies that make no difference is judged once.
            let once = has_shadow && expected == in_shadow;
            if has_shadow != shadow.is_some() && !once {
                return Err(format!("{who}: judged with shadow: {shadow:?}, not {has_shadow}"));
            }
            if let Some(shadow) = shadow {
                let who = format!("{who}, shadow policies enforced");
                let got = self.of_kernel(&in_shadow, shadow);
                self.agree(packet, &who, &asked(&in_shadow), &got)?;
            }
            self.count_hits(outcome, shadow);
            count.note(way, &expected, shadow.is_some());
        }
        Ok(expected)
    }

    /// Compares the kernel's counters of rules with what they should be since the court was opened.
    pub fn check_hits(&mut self, kernel: &mut Kernel) -> Result<(), String> {
        let (expected, got) = (std::mem::take(&mut self.hits), kernel.take_hits());
        match expected == got {
            true => Ok(()),
            false => Err(format!("hits should be {expected:?}, but are {got:?}")),
        }
    }

    fn agree(
        &self,
        packet: &Packet,
        who: &str,
        expected: &Expected,
        got: &Expected,
    ) -> Result<(), String> {
        if expected == got {
            return Ok(());
        }
        let packet = told::packet(&self.facts, packet);
        let (expected, got) = (told::answer(expected), told::answer(got));
        Err(format!("{packet} => {expected}\nbut {got}\nby {who}"))
    }

    /// In the reference's words. `expected`: who is asked at all, which the kernel does not tell.
    fn of_kernel(&self, expected: &Expected, fate: Fate) -> Expected {
        let Fate::Judged { verdict, refused, egress, ingress } = fate else {
            return Expected::NoEndpoint;
        };
        let (has_egress, has_ingress) = match expected {
            Expected::Judged { egress, ingress } => (egress.is_some(), ingress.is_some()),
            Expected::NoEndpoint | Expected::NotOurs => (true, true),
        };
        use porin::types::Direction::{Egress, Ingress};
        let says = |own, cookie| {
            let verdict = if refused == Some(own) { verdict } else { Verdict::Allow };
            told::said(&self.plan, verdict, cookie)
        };
        let is_asked = |has: bool, cookie| has || cookie != Cookie::NONE;
        Expected::Judged {
            egress: is_asked(has_egress, egress).then(|| says(Egress, egress)),
            ingress: (is_asked(has_ingress, ingress) && refused != Some(Egress))
                .then(|| says(Ingress, ingress)),
        }
    }

    fn count_hits(&mut self, outcome: Fate, shadow: Option<Fate>) {
        let cookies = |fate| match fate {
            Fate::Judged { egress, ingress, .. } => [egress, ingress],
            Fate::NoEndpoint => [Cookie::NONE; 2],
        };
        let is = cookies(outcome);
        let would = shadow.map_or([Cookie::NONE; 2], cookies);
        for (is, would) in is.into_iter().zip(would) {
            let hits = [(is, false), (would, true)];
            for (cookie, shadow) in hits {
                if cookie != Cookie::NONE && (!shadow || would != is) {
                    *self.hits.entry((cookie, shadow)).or_default() += 1;
                }
            }
        }
    }
}

/// What is left of an answer if the receiver is only asked about what the sender may send.
fn asked(expected: &Expected) -> Expected {
    match expected {
        Expected::Judged { egress: Some(says), .. } if says.verdict != Verdict::Allow => {
            Expected::Judged { egress: Some(says.clone()), ingress: None }
        }
        other => other.clone(),
    }
}
