//! Published ports of a request: whose they are already.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::config::model::{Endpoint, Host};
use crate::config::published::{MOST, misplaced};
use crate::desired::ipam::host_sources;
use crate::desired::snapshot::Snapshot;
use crate::types::publication::At;
use crate::types::{Family, PortRange, Protocol, Publication};

/// What would make the files as a whole wrong. `others`: the endpoints that there are to be besides.
pub fn with_written<'a>(
    new: &Endpoint,
    others: impl Iterator<Item = &'a Arc<Endpoint>>,
    host: &Host,
) -> Result<(), String> {
    if new.publish.is_empty() {
        return Ok(());
    }
    if let Some((what, _)) = new.publish.iter().find_map(|one| misplaced(*one, host)) {
        return Err(what);
    }
    let ours: Vec<Publication> = new.published().collect();
    for (at, one) in ours.iter().enumerate() {
        if ours.iter().take(at).any(|other| one.meets(*other)) {
            return Err(format!("{} is asked for twice", name(*one)));
        }
    }
    let mut count: usize = new.publish.iter().map(|one| one.count()).sum();
    for other in others {
        let meet = |ours: &&Publication| other.published().any(|theirs| ours.meets(theirs));
        if let Some(ours) = ours.iter().find(meet) {
            return Err(format!("{} is published by endpoint `{}`", name(*ours), other.name));
        }
        count += other.publish.iter().map(|one| one.count()).sum::<usize>();
    }
    match count <= MOST {
        true => Ok(()),
        false => Err(format!("more than the {MOST} ports that fit would be published")),
    }
}

/// Whether the addresses are the host's: nothing would be published at another's.
pub fn with_host(new: &Endpoint, snapshot: &Snapshot) -> Result<(), String> {
    let own = host_sources(&snapshot.host.pools);
    let host: Vec<IpAddr> = snapshot.host_addresses.iter().copied().chain(own).collect();
    let missing = new.publish.iter().find_map(|one| match one.at() {
        At::One(address) if !address.is_loopback() && !host.contains(&address) => Some(address),
        _ => None,
    });
    missing.map_or(Ok(()), |address| Err(format!("{address} is no address of this host")))
}

/// Whether none is a socket's of the host itself, which would hear nothing any more, nor one that the kernel may give to
/// one. A socket may come at any time after that: this keeps people from mistakes, and nobody from anything.
///
/// `local`: the ports that the kernel gives to the host's own sockets.
pub fn with_sockets(publish: &[Publication], local: &[PortRange]) -> Result<(), String> {
    for one in publish {
        let ports = one.ports();
        let meet =
            |other: &&PortRange| ports.first() <= other.last() && other.first() <= ports.last();
        if let Some(theirs) = local.iter().find(meet) {
            let protocol = one.protocol();
            return Err(format!(
                "port {ports}/{protocol} is among {}-{}, which the kernel gives to the host's own sockets: answers to \
                 them would go to the endpoint (publish at another port, or set sysctl net.ipv4.ip_local_reserved_ports)",
                theirs.first(),
                theirs.last()
            ));
        }
        let addresses: Vec<IpAddr> = match one.at() {
            At::Everywhere => vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
            At::Every(Family::Ipv6) => vec![Ipv6Addr::UNSPECIFIED.into()],
            At::Every(Family::Ipv4) => vec![Ipv4Addr::UNSPECIFIED.into()],
            At::One(address) => vec![address],
        };
        for (port, _) in one.pairs() {
            for address in &addresses {
                if is_taken(one.protocol(), SocketAddr::new(*address, port)) {
                    let protocol = one.protocol();
                    return Err(format!(
                        "a program of the host has port {port}/{protocol} already"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Finds out by taking it for a moment. What cannot be taken for another reason is nobody's.
fn is_taken(protocol: Protocol, at: SocketAddr) -> bool {
    let family = match at {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match protocol {
        Protocol::TCP => SocketType::STREAM,
        _ => SocketType::DGRAM,
    };
    let attempt = || {
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if at.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if kind == SocketType::STREAM {
            // Connections that are over take no port away, and one that listens does all the same (ip(7)).
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &at)
    };
    let attempt = attempt();
    if attempt == Err(Errno::ACCESS) {
        log::warn!(
            "whether a program of the host listens at {at} cannot be told: {}",
            Errno::ACCESS
        );
    }
    attempt == Err(Errno::ADDRINUSE)
}

fn name(one: Publication) -> String {
    format!("port {}/{} of the host", one.ports(), one.protocol())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::config::model::AddressWish;
    use crate::config::one;

    fn endpoint(name: &str, publish: &[&str]) -> Arc<Endpoint> {
        let text = format!(
            "[[endpoint]]\nname = \"{name}\"\nnamespace = \"/run/netns/{name}\"\npublish = {publish:?}\n"
        );
        one::endpoints("/e.toml".as_ref(), text).unwrap().remove(0)
    }

    #[test]
    fn what_is_anothers_is_refused_before_it_is_written() {
        let host = Host::default();
        let there =
            [endpoint("one", &["8080:80/tcp", "192.0.2.1:53:53/udp"]), endpoint("two", &[])];
        let with = |publish: &[&str]| with_written(&endpoint("new", publish), there.iter(), &host);
        assert_eq!(with(&[]), Ok(()));
        assert_eq!(with(&["8080:80/udp", "192.0.2.2:53:53/udp", "8081:80/tcp"]), Ok(()));
        let refused = |publish: &[&str], what: &str| {
            let why = with(publish).unwrap_err();
            assert!(why.contains(what), "{publish:?}: {why}");
        };
        refused(
            &["8081:80/tcp", "[::]:8080:80/tcp"],
            "8080/tcp of the host is published by endpoint `one`",
        );
        refused(&["53:53/udp"], "53/udp of the host is published by endpoint `one`");
        refused(&["81:80/tcp", "0.0.0.0:81:81/tcp"], "81/tcp of the host is asked for twice");
        refused(&["61000:80/tcp"], "are those of [masquerade]");
        refused(&["127.0.0.1:8080:80/tcp"], "8080/tcp of the host is published by endpoint `one`");
        assert_eq!(with(&["127.0.0.1:61000:80/tcp", "127.0.0.1:8081:80/tcp"]), Ok(()));
        // Of two that have no family in common, each has its own.
        let one_family = |name: &str, none: &str| {
            let mut one = (*endpoint(name, &["8080:80/tcp"])).clone();
            match none {
                "ipv4" => one.ipv4 = AddressWish::None,
                _ => one.ipv6 = AddressWish::None,
            }
            Arc::new(one)
        };
        let (six, four) = (one_family("six", "ipv4"), one_family("four", "ipv6"));
        assert_eq!(with_written(&six, [four.clone()].iter(), &host), Ok(()));
        assert!(with_written(&four, there.iter(), &host).is_err());
        let many = ["1-20000:1-20000/tcp", "1-20000:1-20000/udp"];
        refused(&many, "published by endpoint `one`");
        let many = ["10000-30000:1-20001/tcp", "10000-30000:1-20001/udp"];
        refused(&many, "more than the 32768 ports that fit");
    }

    #[test]
    fn sockets_of_the_host_are_in_the_way() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let taken = |protocol, address: &str, port| {
            is_taken(protocol, SocketAddr::new(address.parse().unwrap(), port))
        };
        let (t, u) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        assert!(taken(Protocol::TCP, "127.0.0.1", t) && taken(Protocol::TCP, "0.0.0.0", t));
        assert!(taken(Protocol::UDP, "::1", u) && taken(Protocol::UDP, "::", u));
        assert!(!taken(Protocol::UDP, "127.0.0.2", u) && !taken(Protocol::TCP, "127.0.0.2", t));
        // Not an address of this host.
        assert!(!taken(Protocol::TCP, "192.0.2.77", t));
        let publish: Publication = format!("{t}:80/tcp").parse().unwrap();
        let what = format!("a program of the host has port {t}/tcp already");
        assert_eq!(with_sockets(&[publish], &[]), Err(what));
        // A connection that is over lingers, and takes nothing away.
        let client = TcpStream::connect(("127.0.0.1", t)).unwrap();
        drop(tcp.accept().unwrap());
        drop((client, tcp));
        assert_eq!(with_sockets(&[publish], &[]), Ok(()));
        let local = [PortRange::new(t, t).unwrap()];
        assert!(with_sockets(&[publish], &local).unwrap_err().contains("host's own sockets"));
    }
}
