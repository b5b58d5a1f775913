//! Port mappings of runtimes, as publications: CNI's capability `portMappings`, and what netavark's have in common with it.

use std::net::IpAddr;

use serde::Deserialize;

use super::environment::shortened;
use super::failure::{Code, Failure};
use crate::types::publication::At;
use crate::types::{Invalid, PortRange, Protocol, Publication};

/// Mappings of one container at most.
pub const MOST: usize = 4096;

/// Conventions, "dynamic plugin specific fields": one of `portMappings`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mapping {
    /// 0: it is not published (as the reference plugin has it).
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    protocol: String,
    #[serde(rename = "hostIP", default)]
    host_ip: String,
}

/// # Errors
/// Something that cannot be.
pub fn all(mappings: &[Mapping]) -> Result<Vec<Publication>, Failure> {
    if mappings.len() > MOST {
        let what = format!("{} published ports are more than {MOST}", mappings.len());
        return Err(Failure::new(Code::Unsupported, what));
    }
    let published = mappings.iter().filter(|mapping| mapping.host_port != 0);
    let all = published.map(|mapping| {
        let protocol = match mapping.protocol.as_str() {
            "" => "tcp",
            named => named,
        };
        publication(protocol, &mapping.host_ip, mapping.host_port, mapping.container_port, 1)
    });
    all.collect::<Result<Vec<_>, _>>().map(once).map_err(refused)
}

/// Runtimes may say the same thing twice.
pub fn once(mut all: Vec<Publication>) -> Vec<Publication> {
    all.sort_unstable();
    all.dedup();
    all
}

pub fn refused(why: Invalid) -> Failure {
    let failure = Failure::new(Code::Unsupported, why.to_string());
    failure.details(why.hint.unwrap_or_default())
}

/// `host_ip` empty: all addresses. `count` ports, from the first ones on; 0 is 1.
pub fn publication(
    protocol: &str,
    host_ip: &str,
    host_port: u16,
    container_port: u16,
    count: u16,
) -> Result<Publication, Invalid> {
    let unknown = || Invalid::new(format!("{} names no protocol", shortened(protocol)));
    let known = Protocol::named(&protocol.to_ascii_lowercase()).ok_or_else(unknown)?;
    let at = match host_ip {
        "" => At::Everywhere,
        text => match text.parse::<IpAddr>() {
            Ok(address) => At::address(address.to_canonical())?,
            Err(_) => return Err(Invalid::new(format!("{} is no address", shortened(text)))),
        },
    };
    let range = |first: u16| {
        let more = count.saturating_sub(1);
        let last = first.checked_add(more).filter(|_| first != 0);
        let last = last.ok_or_else(|| {
            Invalid::new(format!("there are no {} ports from {first} on", more + 1))
        })?;
        PortRange::new(first, last)
    };
    Publication::new(at, known, range(host_port)?, range(container_port)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(mappings: serde_json::Value) -> Result<Vec<String>, String> {
        let mappings: Vec<Mapping> = serde_json::from_value(mappings).unwrap();
        let text = |all: Vec<Publication>| all.iter().map(ToString::to_string).collect();
        all(&mappings).map(text).map_err(|failure| failure.to_string())
    }

    #[test]
    fn mappings_are_publications() {
        let mappings = json!([
            { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
            { "hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "192.0.2.1" },
            { "hostPort": 0, "containerPort": 81 },
            { "hostPort": 8080, "containerPort": 80, "hostIP": "" },
            { "hostPort": 443, "containerPort": 443, "hostIP": "::" },
        ]);
        let want = ["8080:80/tcp", "[::]:443:443/tcp", "192.0.2.1:53:5353/udp"];
        assert_eq!(of(mappings), Ok(want.map(str::to_owned).to_vec()));
        let sctp = json!([{ "hostPort": 1, "containerPort": 1, "protocol": "sctp" }]);
        assert!(of(sctp).unwrap_err().contains("ports of sctp"));
    }
}
