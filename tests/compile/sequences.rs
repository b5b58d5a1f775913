//! Worlds that change step by step come to the plan that the last step alone would come to. Each sequence is gone through in
//! the ways that Calico Felix's tests expand theirs: as it is, keys reversed, states reversed, emptied in between, each
//! alone, squashed.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use porin::compile::explain::judge;
use porin::types::Name;

use crate::content;
use crate::probes::Probes;
use crate::reference;
use crate::told;
use crate::world::{self, World};
use crate::worlds::{self, Draft};

/// One thing becomes what it is in another world, be it there or not.
#[derive(Debug, Clone, Copy)]
enum Edit {
    Policy(usize),
    Endpoint(usize),
    Labels(usize),
    Ports(usize),
    Addresses(usize),
    Group(usize),
    Others,
    LabelFilter,
    HostAddresses,
}

fn edit() -> impl Strategy<Value = Edit> {
    let nth = 0..6usize;
    prop_oneof![
        4 => nth.clone().prop_map(Edit::Policy),
        2 => nth.clone().prop_map(Edit::Endpoint),
        2 => nth.clone().prop_map(Edit::Labels),
        2 => nth.clone().prop_map(Edit::Ports),
        1 => nth.clone().prop_map(Edit::Addresses),
        2 => nth.prop_map(Edit::Group),
        1 => Just(Edit::Others),
        1 => Just(Edit::LabelFilter),
        1 => Just(Edit::HostAddresses),
    ]
}

/// The states of a sequence: a world, and what edits make of it one after another.
fn states() -> impl Strategy<Value = Vec<Draft>> {
    let edits = vec((worlds::draft(), vec(edit(), 1..4)), 1..5);
    (worlds::draft(), edits).prop_map(|(first, edits)| {
        let mut states = vec![worlds::fixed(first)];
        for (other, edits) in edits {
            let other = worlds::fixed(other);
            let mut next = states.last().unwrap().clone();
            edits.iter().for_each(|edit| apply(&mut next, &other, *edit));
            states.push(next);
        }
        states
    })
}

fn apply(draft: &mut Draft, other: &Draft, edit: Edit) {
    let (own, new) = (&mut draft.config, &other.config);
    match edit {
        Edit::Policy(nth) => {
            let name = format!("p{}", nth + 1);
            let name: Name = name.parse().unwrap();
            own.policies.remove(&name);
            own.policies
                .extend(new.policies.get_key_value(&name).map(|(n, p)| (n.clone(), p.clone())));
        }
        Edit::Endpoint(nth) => {
            let name = format!("e{}", nth + 1);
            own.endpoints.retain(|endpoint| endpoint.name.as_str() != name);
            own.endpoints.extend(new.endpoints.iter().filter(|e| e.name.as_str() == name).cloned());
            own.endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Edit::Labels(nth) | Edit::Ports(nth) | Edit::Addresses(nth) => {
            let Some(endpoint) = own.endpoints.get_mut(nth) else { return };
            let Some(other) = new.endpoints.iter().find(|e| e.name == endpoint.name) else {
                return;
            };
            let endpoint = Arc::make_mut(endpoint);
            match edit {
                Edit::Labels(_) => endpoint.labels = other.labels.clone(),
                Edit::Ports(_) => endpoint.ports = other.ports.clone(),
                _ => (endpoint.ipv6, endpoint.ipv4) = (other.ipv6, other.ipv4),
            }
        }
        Edit::Group(nth) => {
            if let (Some(group), Some(other)) = (own.groups.get_mut(nth), new.groups.get(nth)) {
                *group = Arc::clone(other);
            }
        }
        Edit::Others => {
            own.host.remote_hosts = new.host.remote_hosts.clone();
            own.host.unmanaged = new.host.unmanaged.clone();
        }
        Edit::LabelFilter => own.host.labels = new.host.labels.clone(),
        Edit::HostAddresses => draft.host = other.host.clone(),
    }
}

fn nowhere() -> World {
    World::new(world::config(world::host(), vec![], vec![]), &[])
}

fn keys_reversed(draft: &Draft) -> Draft {
    let mut draft = draft.clone();
    draft.config.endpoints.reverse();
    draft.config.groups.reverse();
    draft.host.reverse();
    draft
}

/// Each state is committed, and must then be what it is alone.
fn step_by_step<'a>(
    states: impl Iterator<Item = &'a Draft>,
    how: &str,
) -> Result<(), TestCaseError> {
    let mut world = nowhere();
    for state in states {
        world.become_draft(state);
        same(&mut world, state, how)?;
    }
    Ok(())
}

fn same(world: &mut World, state: &Draft, how: &str) -> Result<(), TestCaseError> {
    let mut alone = nowhere();
    alone.become_draft(state);
    let (got, alone) = (content::of(&world.commit()), content::of(&alone.commit()));
    for (key, value) in &alone {
        let found = got.get(key).map(String::as_str).unwrap_or("nothing");
        prop_assert!(
            found == value,
            "{}{key}, {how}:\n{found}\nbut alone:\n{value}",
            told::world(state)
        );
    }
    prop_assert_eq!(got.len(), alone.len(), "{}", how);
    Ok(())
}

proptest! {
    #![proptest_config(crate::worlds::cases(24))]

    #[test]
    fn every_way_to_a_state_is_the_same(states in states()) {
        step_by_step(states.iter(), "as it is")?;
        step_by_step(states.iter().rev(), "states reversed")?;
        let reversed: Vec<Draft> = states.iter().map(keys_reversed).collect();
        step_by_step(reversed.iter(), "keys reversed")?;
        let empty = Draft { config: world::config(world::host(), vec![], vec![]), host: vec![] };
        let emptied = states.iter().flat_map(|state| [state, &empty]);
        step_by_step(emptied, "emptied in between")?;
        // Squashed: nothing but the last is ever compiled.
        let mut squashed = nowhere();
        states.iter().for_each(|state| squashed.become_draft(state));
        same(&mut squashed, states.last().unwrap(), "squashed")?;
    }

    #[test]
    fn every_step_is_judged_as_the_reference_does(states in states(), seed: u64) {
        let mut world = nowhere();
        for state in &states {
            world.become_draft(state);
            let (facts, plan) = (world.facts(), world.commit());
            let mut probes = Probes::new(&state.config, &facts, seed);
            for _ in 0..30 {
                let packet = probes.probe();
                let got = told::of_plan(&plan, &judge(&plan, &packet));
                let expected = reference::judge(&state.config, &facts, &packet, false);
                let packet = told::packet(&facts, &packet);
                prop_assert_eq!(got, expected, "{}{}", told::world(state), packet);
            }
        }
    }
}
