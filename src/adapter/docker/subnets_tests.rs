//! Random interleavings, with daemons that die, against what must hold.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn ranges() -> Vec<IpNet> {
    ["10.77.128.0/22", "10.9.0.0/29", "fd00:77::/78"].map(|text| text.parse().unwrap()).to_vec()
}

#[derive(Debug, Clone)]
enum Call {
    Make {
        six: bool,
        wanted: Option<u8>,
    },
    Remove(u8),
    Give {
        subnet: u8,
        wanted: Option<u8>,
    },
    Release {
        subnet: u8,
        which: u8,
    },
    /// The daemon dies, and reads what it wrote.
    Die,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => (any::<bool>(), proptest::option::of(0u8..6))
            .prop_map(|(six, wanted)| Call::Make { six, wanted }),
        1 => any::<u8>().prop_map(Call::Remove),
        8 => (any::<u8>(), proptest::option::of(0u8..9))
            .prop_map(|(subnet, wanted)| Call::Give { subnet, wanted }),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(subnet, which)| Call::Release { subnet, which }),
        1 => Just(Call::Die),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_address_is_given_twice(calls in proptest::collection::vec(call(), 1..120)) {
        let ranges = ranges();
        let mut subnets = Subnets::default();
        let mut given: BTreeMap<IpNet, BTreeSet<IpAddr>> = BTreeMap::new();
        // Somebody else's, who asked nobody here.
        let others: BTreeSet<IpAddr> =
            ["10.77.128.3", "10.9.0.4", "fd00:77::5"].map(|text| text.parse().unwrap()).into();
        for call in calls {
            let known: Vec<IpNet> = given.keys().copied().collect();
            let pick = |which: u8| known.get(usize::from(which) % known.len().max(1)).copied();
            match call {
                Call::Make { six, wanted } => {
                    let family = if six { Family::Ipv6 } else { Family::Ipv4 };
                    let text = |n: u8| match six {
                        true => format!("fd00:77:0:0:{n}::/80"),
                        false => format!("10.77.{}.0/{}", 126 + n, 22 + n),
                    };
                    let wanted: Option<IpNet> = wanted.map(|n| text(n).parse().unwrap());
                    if let Ok(made) = subnets.make(&ranges, family, wanted, None) {
                        let network = made.network;
                        prop_assert!(ranges.iter().any(|range| range.contains(&network)));
                        prop_assert!(network.contains(&made.gateway));
                        for other in given.keys() {
                            let apart = !other.contains(&network) && !network.contains(other);
                            prop_assert!(apart, "{} and {}", other, network);
                        }
                        prop_assert_eq!(wanted.is_none_or(|wanted| wanted.trunc() == network), true);
                        given.insert(network, BTreeSet::new());
                    }
                }
                Call::Remove(which) => {
                    let Some(network) = pick(which) else { continue };
                    prop_assert!(subnets.remove(&network.to_string()));
                    given.remove(&network);
                }
                Call::Give { subnet, wanted } => {
                    let Some(network) = pick(subnet) else { continue };
                    let family = Family::of(network.addr());
                    let wanted = wanted.map(|n| address(family, number(network.network()) + u128::from(n)));
                    let id = network.to_string();
                    if let Ok((address, subnet)) = subnets.give(&id, wanted, |a| others.contains(&a)) {
                        prop_assert!(network.contains(&address));
                        prop_assert!(address != subnet.gateway && !others.contains(&address));
                        prop_assert!(address != network.network());
                        prop_assert!(address.is_ipv6() || address != network.broadcast());
                        prop_assert!(wanted.is_none_or(|wanted| wanted == address));
                        let fresh = given.get_mut(&network).unwrap().insert(address);
                        prop_assert!(fresh, "{} was given out already", address);
                    } else if wanted.is_none() && network.prefix_len() < 27 {
                        prop_assert!(false, "{} has room", network);
                    }
                }
                Call::Release { subnet, which } => {
                    let Some(network) = pick(subnet) else { continue };
                    let held = given.get_mut(&network).unwrap();
                    let at = usize::from(which) % held.len().max(1);
                    let Some(address) = held.iter().nth(at).copied() else { continue };
                    subnets.release(&network.to_string(), address);
                    held.remove(&address);
                }
                Call::Die => {
                    let text = toml::to_string(&subnets).unwrap();
                    let read: Subnets = toml::from_str(&text).unwrap();
                    prop_assert_eq!(&read, &subnets);
                    subnets = read;
                }
            }
        }
        for (network, held) in &given {
            prop_assert_eq!(&subnets.get(&network.to_string()).unwrap().addresses, held);
        }
    }
}

#[test]
fn a_full_range_says_so_and_what_is_released_comes_back_last() {
    let mut subnets = Subnets::default();
    let ranges = ranges();
    let wanted = Some("10.9.0.0/29".parse().unwrap());
    subnets.make(&ranges, Family::Ipv4, wanted, None).unwrap();
    let mut give = |wanted: Option<&str>| {
        let wanted = wanted.map(|text| text.parse().unwrap());
        subnets.give("10.9.0.0/29", wanted, |_| false).map(|(address, _)| address.to_string())
    };
    let all: Vec<String> = (0..5).map(|_| give(None).unwrap()).collect();
    assert_eq!(all, ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"]);
    assert!(give(None).is_err());
    for bad in ["10.9.0.0", "10.9.0.1", "10.9.0.7", "10.9.0.8", "fd00::1", "10.9.0.2"] {
        assert!(give(Some(bad)).is_err(), "{bad}");
    }
}

#[test]
fn a_range_and_a_gateway_of_ones_own_are_honoured() {
    let mut subnets = Subnets::default();
    let range = Some("10.77.129.128/25".parse().unwrap());
    let wanted = Some("10.77.129.0/24".parse().unwrap());
    subnets.make(&ranges(), Family::Ipv4, wanted, range).unwrap();
    let id = "10.77.129.0/24";
    let gateway = subnets.set_gateway(id, Some("10.77.129.129".parse().unwrap())).unwrap().gateway;
    assert_eq!(gateway.to_string(), "10.77.129.129");
    let mut next = || subnets.give(id, None, |_| false).unwrap().0.to_string();
    assert_eq!([next(), next()], ["10.77.129.128", "10.77.129.130"]);
    assert!(subnets.set_gateway(id, Some("10.77.129.130".parse().unwrap())).is_err());
    let outside = Some("10.77.128.0/24".parse().unwrap());
    assert!(subnets.make(&ranges(), Family::Ipv4, outside, range).is_err());
}
