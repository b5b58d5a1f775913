//! Which rule beats which. Tables, explanations and assertions all ask here. (`config` cannot: its warnings of rules that
//! never decide know enough of the order for what is certain, and are held against a plain evaluator by a test.)
//!
//! Whatever could decide about a packet has a precedence; the highest decides. From the top:
//!
//! ```text
//! 31 30 | 29 ... 20           | 19 18  | 17 ... 0
//! tier  | 1023 - priority     | action | 262143 - order
//! ```
//!
//! *Tier*: admin is judged first, then normal, then baseline, then the default. *Priority* orders the policies of the
//! admin and baseline tiers, lower first; policies of the normal tier have none (0), but for rules that allow requests (1), as
//! allowing all of a connection makes them moot. *Action*: in the normal tier deny
//! beats reject, reject beats pass, pass beats allow; in the other two it does not matter. *Order*: the place of the rule among all rules of the
//! table's direction, by the policy's name and the rule's index. In the admin and baseline tiers that is the order in
//! which rules of one priority are asked, as in Kubernetes' ClusterNetworkPolicy; in the normal tier it never changes a verdict. It
//! makes precedences unique, so that the rule that is named when several decide alike is always the first.
//!
//! The default of a tier, where a policy denies what no rule of the tier matches, is below all rules of its tier and above
//! those of the next: a policy of the normal tier that makes a direction default deny leaves nothing to the baseline.

use crate::types::{Action, Peer, Tier};

use super::plan::SourceClass;

/// Of the default of a direction, which every rule beats.
pub const DEFAULT: u32 = 0;

/// Rules of one direction of one table at most: orders are below.
pub const ORDERS: u32 = 1 << 18;

const PRIORITIES: u32 = 1 << 10;

/// Of a tier's default: below every rule of the tier, as no policy has the last priority that there is room for.
pub fn of_default(tier: Tier) -> u32 {
    (tier as u32 + 1) << 30
}

/// The precedence of a rule; `requests`: one about requests, which are of the normal tier. `priority` and `order` beyond their
/// fields count as the last ones there are.
pub fn of(tier: Tier, priority: u32, action: Action, requests: bool, order: u32) -> u32 {
    let priority = if requests { 1 } else { priority };
    let action = match (tier, action) {
        (Tier::Admin | Tier::Baseline, _) | (Tier::Normal, Action::Allow) => 0,
        (Tier::Normal, Action::Pass) => 1,
        (Tier::Normal, Action::Reject) => 2,
        (Tier::Normal, Action::Deny) => 3,
    };
    let last_first = |value: u32, values: u32| values - 1 - value.min(values - 1);
    (tier as u32 + 1) << 30
        | last_first(priority, PRIORITIES) << 20
        | action << 18
        | last_first(order, ORDERS)
}

/// Of entries that carry the whole answer for a peer and a class of source ports, rules about any included: the narrower
/// win, whatever rule they have it from. Only compared with one another, in directions in which a rule passes.
pub(super) fn settled(peer: Peer, source: SourceClass) -> u32 {
    let any = u32::from(peer == Peer::ANY) + u32::from(source == SourceClass::ANY);
    u32::MAX - any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_weigh_in_order() {
        use Action::{Allow, Deny, Pass, Reject};
        let of = |tier, priority, action, order| of(tier, priority, action, false, order);
        let requests = super::of(Tier::Normal, 0, Allow, true, 0);
        let descending = [
            of(Tier::Admin, 0, Allow, 0),
            of(Tier::Admin, 0, Deny, 1),
            of(Tier::Admin, 0, Pass, 2),
            of(Tier::Admin, 1, Deny, 0),
            of(Tier::Admin, 1000, Allow, ORDERS - 1),
            of_default(Tier::Admin),
            of(Tier::Normal, 0, Deny, 0),
            of(Tier::Normal, 0, Deny, 1),
            of(Tier::Normal, 0, Deny, ORDERS - 1),
            of(Tier::Normal, 0, Reject, 0),
            of(Tier::Normal, 0, Pass, 0),
            of(Tier::Normal, 0, Allow, 0),
            of(Tier::Normal, 0, Allow, ORDERS - 1),
            requests,
            of_default(Tier::Normal),
            of(Tier::Baseline, 0, Deny, 0),
            of(Tier::Baseline, 0, Allow, 1),
            of(Tier::Baseline, 1000, Allow, ORDERS - 1),
            of_default(Tier::Baseline),
            DEFAULT,
        ];
        assert!(descending.is_sorted_by(|a, b| a > b), "{descending:x?}");
    }
}
