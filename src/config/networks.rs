//! Sets of networks, in time that grows with their number and not with its square.
//!
//! [`IpNet`] orders by address, then length: what contains another comes before it, with nothing between
//! but what it contains as well.

use ipnet::IpNet;

use super::table::Item;

/// Sorted, without those that are inside another. Each brings something along.
pub fn merged<T>(mut networks: Vec<(IpNet, T)>) -> Vec<(IpNet, T)> {
    networks.sort_by_key(|(network, _)| *network);
    // The first of equals stays.
    networks.dedup_by(|next, kept| kept.0.contains(&next.0));
    networks
}

/// What `except` leaves of `networks`, which are [`merged`]: the exceptions, likewise merged. Tells of those
/// that take nothing out, or all of a network.
pub fn exceptions<T>(networks: &[(IpNet, T)], except: Vec<(IpNet, Item)>) -> Vec<IpNet> {
    let sound = |(exception, item): &(IpNet, Item)| {
        let exception = *exception;
        let after = networks.partition_point(|(network, _)| *network < exception);
        let next = networks.get(after).filter(|(network, _)| exception.contains(network));
        if let Some((network, _)) = next {
            item.error(format!("`{}` leaves nothing of cidr:{network}", item.key));
            return false;
        }
        let before = after.checked_sub(1).and_then(|before| networks.get(before));
        if before.is_some_and(|(network, _)| network.contains(&exception)) {
            return true;
        }
        let what = format!("{exception} is not inside any network of this group");
        item.fault(what, "`except` takes parts out of the group's own cidr: members");
        false
    };
    let except = except.into_iter().filter(sound).collect();
    merged(except).into_iter().map(|(network, _)| network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_another_is_left_out() {
        let networks = [
            "10.2.0.0/16",
            "10.0.0.0/15",
            "fd00::/8",
            "10.1.0.0/16",
            "10.0.0.0/16",
            "10.0.0.0/15",
            "fd00::1/128",
            "192.0.2.1/32",
        ];
        let networks = networks.iter().enumerate().map(|(i, text)| (text.parse().unwrap(), i));
        let merged: Vec<_> = merged(networks.collect())
            .into_iter()
            .map(|(network, i)| (network.to_string(), i))
            .collect();
        let merged: Vec<_> = merged.iter().map(|(network, i)| (network.as_str(), *i)).collect();
        let expected =
            [("10.0.0.0/15", 1), ("10.2.0.0/16", 0), ("192.0.2.1/32", 7), ("fd00::/8", 2)];
        assert_eq!(merged, expected);
    }
}
