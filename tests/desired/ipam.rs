//! IPAM: never one address twice, never outside of pools, never a reserved one; and the same again wherever it can be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use porin::config::model::{AddressWish, Pool};
use porin::desired::ipam::{Answers, Leases, Refused, Request, Space, assign, host_address};
use porin::types::{Family, Name, Origin};
use proptest::prelude::*;

fn pool(name: &str, network: &str, reserved: &[&str]) -> Pool {
    Pool {
        name: name.parse().unwrap(),
        network: network.parse().unwrap(),
        reserved: reserved.iter().map(|text| text.parse().unwrap()).collect(),
        origin: Origin { file: Arc::from(Path::new("porin.toml")), line: 1, column: 1 },
    }
}

/// `None`: automatic.
fn ask(
    leases: &mut Leases,
    pools: &[Pool],
    host: &[IpAddr],
    wishes: &[(&str, Option<&str>)],
) -> Answers {
    let family = Family::of(pools[0].network.addr());
    let spaces: Vec<Space> = pools.iter().map(|pool| Space::new(pool, host)).collect();
    let names: Vec<Name> = wishes.iter().map(|(name, _)| name.parse().unwrap()).collect();
    let requests: Vec<Request> = names
        .iter()
        .zip(wishes)
        .map(|(name, (_, wish))| {
            let wish = wish.map_or(AddressWish::Auto, |a| AddressWish::Fixed(a.parse().unwrap()));
            Request { name, wish, open: true }
        })
        .collect();
    assign(leases, family, &spaces, &requests)
}

fn got(answers: &Answers, name: &str) -> IpAddr {
    answers[&name.parse::<Name>().unwrap()].clone().unwrap().unwrap()
}

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn wishes() -> impl Strategy<Value = Vec<(&'static str, Option<u8>)>> {
    let names = proptest::sample::subsequence(NAMES.to_vec(), 0..=12);
    let fixed = proptest::collection::vec(proptest::option::weighted(0.25, 0..40u8), 12);
    (names, fixed).prop_map(|(names, fixed)| names.into_iter().zip(fixed).collect())
}

fn pools() -> impl Strategy<Value = Vec<Pool>> {
    proptest::sample::select(vec![
        vec![pool("p", "10.0.0.0/28", &[])],
        vec![pool("p", "10.0.0.0/29", &["10.0.0.4/31"]), pool("q", "10.0.0.16/30", &[])],
        vec![pool("p", "10.0.0.0/31", &[]), pool("q", "10.0.0.8/32", &[])],
        vec![pool("p", "10.0.0.0/29", &["10.0.0.0/29"])],
        vec![pool("p", "fd00::/124", &["fd00::/126"])],
        vec![pool("p", "fd00::/64", &["fd00::/65"]), pool("q", "fd01::/127", &[])],
        vec![pool("p", "::/0", &[])],
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn addresses_are_single_inside_allowed_and_stable(
        pools in pools(),
        steps in proptest::collection::vec(wishes(), 1..8),
    ) {
        let base = pools[0].network.network();
        let host = [match base { IpAddr::V4(_) => "10.0.0.3", IpAddr::V6(_) => "fd00::3" }
            .parse::<IpAddr>().unwrap()];
        let mut leases = Leases::default();
        let mut last: BTreeMap<String, IpAddr> = BTreeMap::new();
        // Of those as well that asked in vain since.
        let mut had = last.clone();
        for wishes in steps {
            let fixed = |n: u8| match base {
                IpAddr::V4(_) => format!("10.0.0.{n}"),
                IpAddr::V6(_) => format!("fd00::{n:x}"),
            };
            let wishes: Vec<_> = wishes.into_iter().map(|(n, w)| (n, w.map(fixed))).collect();
            let wishes: Vec<_> = wishes.iter().map(|(n, w)| (*n, w.as_deref())).collect();
            let answers = ask(&mut leases, &pools, &host, &wishes);
            prop_assert_eq!(answers.len(), wishes.len());
            had.retain(|name, _| wishes.iter().any(|(other, _)| name == other));
            let mut seen = BTreeSet::new();
            let mut now = BTreeMap::new();
            for (name, wish) in &wishes {
                let answer = &answers[&name.parse::<Name>().unwrap()];
                let Ok(Some(address)) = answer else {
                    let exhausted = matches!(answer, Err(Refused::Exhausted { .. }));
                    prop_assert_eq!(exhausted, wish.is_none(), "{:?}", answer);
                    continue;
                };
                prop_assert!(seen.insert(*address), "{address} twice");
                let home = pools.iter().find(|pool| pool.network.contains(address));
                let home = home.expect("inside a pool");
                prop_assert_ne!(Some(*address), host_address(home));
                prop_assert_ne!(*address, host[0]);
                if home.network.prefix_len() < home.network.max_prefix_len() - 1 {
                    prop_assert_ne!(*address, home.network.network());
                    if let IpNet::V4(v4) = home.network {
                        prop_assert_ne!(*address, IpAddr::V4(v4.broadcast()));
                    }
                }
                if let Some(wish) = wish {
                    prop_assert_eq!(*address, wish.parse::<IpAddr>().unwrap());
                } else {
                    // Unless it was so before it was reserved.
                    let reserved = home.reserved.iter().any(|r| r.contains(address));
                    prop_assert!(!reserved || had.get(*name) == Some(address));
                    let in_the_way = |other: &(&str, Option<&str>)| {
                        other.1.is_some_and(|fixed| fixed.parse() == Ok(*last.get(*name).unwrap()))
                    };
                    if let Some(before) = last.get(*name)
                        && !wishes.iter().any(in_the_way)
                    {
                        prop_assert_eq!(before, address, "{} moved", name);
                    }
                }
                now.insert((*name).to_owned(), *address);
                had.insert((*name).to_owned(), *address);
            }
            last = now;
            let text = leases.write().unwrap();
            let (read, faults) = Leases::read(&text);
            prop_assert!(faults.is_empty(), "{faults:?}");
            prop_assert_eq!(read.write().unwrap(), ask_again(&leases));
        }
    }
}

/// Release numbers begin anew when leases are read: compare in that form.
fn ask_again(leases: &Leases) -> String {
    Leases::read(&leases.write().unwrap()).0.write().unwrap()
}

#[test]
fn the_same_name_gets_the_same_address_without_any_memory() {
    let pools = [pool("p", "fd00::/64", &[])];
    let wishes: Vec<_> = NAMES.iter().map(|name| (*name, None)).collect();
    let first = ask(&mut Leases::default(), &pools, &[], &wishes);
    for name in NAMES {
        let alone = ask(&mut Leases::default(), &pools, &[], &[(name, None)]);
        assert_eq!(got(&alone, name), got(&first, name));
    }
}

#[test]
fn a_fixed_address_moves_the_automatic_one_in_its_way() {
    let pools = [pool("p", "10.0.0.0/24", &[])];
    let mut leases = Leases::default();
    let first = got(&ask(&mut leases, &pools, &[], &[("a", None)]), "a");
    let text = first.to_string();
    let both = ask(&mut leases, &pools, &[], &[("a", None), ("b", Some(&text))]);
    assert_eq!(got(&both, "b"), first);
    assert_ne!(got(&both, "a"), first);
}

#[test]
fn what_somebody_had_is_given_away_last_and_oldest_first() {
    // Of eight addresses, the network's, the host's and the broadcast are nobody's: five are left.
    let pools = [pool("p", "10.0.0.0/29", &[])];
    let mut leases = Leases::default();
    let one = got(&ask(&mut leases, &pools, &[], &[("a", None)]), "a");
    let two = got(&ask(&mut leases, &pools, &[], &[("b", None)]), "b");
    let rest = [("c", None), ("d", None), ("e", None)];
    let answers = ask(&mut leases, &pools, &[], &rest);
    for (name, _) in rest {
        assert!(![one, two].contains(&got(&answers, name)), "{name} got a remembered address");
    }
    assert_eq!(
        got(&ask(&mut leases, &pools, &[], &[&rest[..], &[("f", None)]].concat()), "f"),
        one
    );
    let again = ask(&mut leases, &pools, &[], &[&rest[..], &[("b", None), ("f", None)]].concat());
    assert_eq!(got(&again, "b"), two, "it comes back to its own");
}

#[test]
fn exhaustion_names_the_pools_and_spares_the_others() {
    let pools = [pool("p", "10.0.0.0/30", &[]), pool("q", "10.1.0.0/29", &["10.1.0.4/30"])];
    let mut leases = Leases::default();
    let wishes = [("a", None), ("b", None), ("c", None), ("d", None)];
    let answers = ask(&mut leases, &pools, &[], &wishes);
    assert_eq!(got(&answers, "a"), "10.0.0.2".parse::<IpAddr>().unwrap());
    assert!(pools[1].network.contains(&got(&answers, "c")));
    assert_eq!(
        answers[&"d".parse::<Name>().unwrap()].clone().unwrap_err().to_string(),
        "no IPv4 address is left: pool `p` (10.0.0.0/30) has 1 in use of 1 that can be given out, \
         pool `q` (10.1.0.0/29) has 2 in use of 2 that can be given out"
    );
}

#[test]
fn fixed_addresses_that_cannot_be_are_refused_with_the_reason() {
    let pools = [pool("p", "10.0.0.0/24", &["10.0.0.128/25"])];
    let host = ["10.0.0.77".parse().unwrap()];
    for (wish, why) in [
        ("10.0.1.1", "10.0.1.1 is in no pool"),
        ("10.0.0.0", "10.0.0.0 is the pool's network address"),
        ("10.0.0.1", "10.0.0.1 is the host's own in that pool"),
        ("10.0.0.77", "10.0.0.77 is an address of this host"),
        ("10.0.0.255", "10.0.0.255 is the pool's broadcast address"),
        ("fd00::1", "fd00::1 is not an IPv4 address"),
    ] {
        let answers = ask(&mut Leases::default(), &pools, &host, &[("a", Some(wish))]);
        let refused = answers[&"a".parse::<Name>().unwrap()].clone().unwrap_err();
        assert_eq!(refused.to_string(), why);
    }
    let answers = ask(&mut Leases::default(), &pools, &host, &[("a", Some("10.0.0.130"))]);
    assert_eq!(got(&answers, "a"), "10.0.0.130".parse::<IpAddr>().unwrap(), "reserved is for this");
}

#[test]
fn the_hosts_own_address_is_the_first_that_is_free_for_it() {
    // What comes to be reserved stays whose it is, until that one is gone.
    let mut leases = Leases::default();
    let taken = got(&ask(&mut leases, &[pool("p", "10.0.0.0/24", &[])], &[], &[("a", None)]), "a");
    let reserving = [pool("p", "10.0.0.0/24", &[&format!("{taken}/32"), "10.0.0.9/32"])];
    for _ in 0..2 {
        assert_eq!(got(&ask(&mut leases, &reserving, &[], &[("a", None)]), "a"), taken);
    }
    ask(&mut leases, &reserving, &[], &[]);
    assert_ne!(got(&ask(&mut leases, &reserving, &[], &[("a", None)]), "a"), taken);
    let own = |network, reserved: &[&str]| {
        host_address(&pool("p", network, reserved)).map(|address| address.to_string())
    };
    assert_eq!(own("10.0.0.0/24", &[]).as_deref(), Some("10.0.0.1"));
    assert_eq!(own("10.0.0.0/24", &["10.0.0.4/30", "10.0.0.0/30"]).as_deref(), Some("10.0.0.8"));
    assert_eq!(own("10.0.0.0/24", &["10.0.0.0/24"]), None);
    assert_eq!(own("10.0.0.0/30", &["10.0.0.0/31", "10.0.0.2/32"]), None, "not the broadcast");
    assert_eq!(own("10.0.0.0/31", &[]).as_deref(), Some("10.0.0.1"));
    assert_eq!(own("10.0.0.0/32", &[]), None);
    assert_eq!(own("fd00::/64", &[]).as_deref(), Some("fd00::1"));
    assert_eq!(own("::/0", &["::/0"]), None);
}

/// What happens to containers, one by one.
#[derive(Debug, Clone)]
enum Step {
    Add(usize, Option<u8>),
    Remove(usize),
    /// All that is remembered is what was written.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fixed = proptest::option::weighted(0.2, 0..20u8);
    let step = prop_oneof![
        5 => (0..24usize, fixed).prop_map(|(name, fixed)| Step::Add(name, fixed)),
        4 => (0..24usize).prop_map(Step::Remove),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// A pool of fourteen, more containers than that, in any order: no two have one address, and nobody's changes unless
    /// somebody asked for just that one.
    #[test]
    fn no_address_is_given_twice_while_containers_come_and_go(steps in steps()) {
        let pools = [pool("p", "10.0.0.0/28", &[])];
        let mut leases = Leases::default();
        let mut there: BTreeMap<usize, Option<u8>> = BTreeMap::new();
        let mut before: BTreeMap<usize, IpAddr> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add(name, fixed) => _ = there.entry(name).or_insert(fixed),
                Step::Remove(name) => _ = there.remove(&name),
                Step::Restart => {
                    let (read, faults) = Leases::read(&leases.write().unwrap());
                    prop_assert!(faults.is_empty(), "{:?}", faults);
                    leases = read;
                }
            }
            let name = |n: &usize| format!("c{n}");
            let fixed = |n: &Option<u8>| n.map(|n| format!("10.0.0.{n}"));
            let wishes: Vec<_> = there.iter().map(|(n, f)| (name(n), fixed(f))).collect();
            let wishes: Vec<_> = wishes.iter().map(|(n, f)| (n.as_str(), f.as_deref())).collect();
            let answers = ask(&mut leases, &pools, &[], &wishes);
            let address = |n: &usize| answers[&name(n).parse::<Name>().unwrap()].clone().ok()?;
            let now: BTreeMap<usize, IpAddr> =
                there.keys().filter_map(|n| Some((*n, address(n)?))).collect();
            let distinct: BTreeSet<&IpAddr> = now.values().collect();
            prop_assert_eq!(distinct.len(), now.len(), "one address twice: {:?}", now);
            let asked_for: BTreeSet<String> = there.values().filter_map(fixed).collect();
            for (n, address) in &now {
                if let Some(had) = before.get(n).filter(|had| *had != address) {
                    prop_assert!(asked_for.contains(&had.to_string()), "c{n} moved from {had}");
                }
            }
            before = now;
        }
    }
}
