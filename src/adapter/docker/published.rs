//! `docker run -p`: what Docker says of ports, as publications.
//!
//! Docker tells a driver what is asked for, when an endpoint is created and again when it becomes the one by which its container
//! is reached. It takes no answer from a driver that is not its own, so ports that the driver would have to choose are refused:
//! nobody would learn which they are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::subnets::shortened;
use crate::types::publication::At;
use crate::types::{PortRange, Protocol, Publication};

const PORTS: &str = "com.docker.network.portmap";
/// Ports of one endpoint at most.
const MOST: usize = 4096;

/// libnetwork's `types.PortBinding`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Binding {
    /// An IP protocol number.
    proto: u8,
    port: u16,
    #[serde(rename = "HostIP")]
    host_ip: Option<String>,
    host_port: u16,
    host_port_end: u16,
}

/// What options of an endpoint publish.
///
/// # Errors
/// Something that cannot be.
pub fn published(options: &BTreeMap<String, Value>) -> Result<Vec<Publication>, Failure> {
    let Some(ports) = options.get(PORTS).filter(|ports| !ports.is_null()) else {
        return Ok(Vec::new());
    };
    let ports: Vec<Binding> = Deserialize::deserialize(ports).map_err(|error| {
        Failure::from(format!("the published ports are not understood: {error}"))
    })?;
    if ports.len() > MOST {
        return Err(format!("{} published ports are more than {MOST}", ports.len()).into());
    }
    let mut all = ports.iter().map(publication).collect::<Result<Vec<_>, _>>()?;
    // The same, said twice.
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn publication(one: &Binding) -> Result<Publication, Failure> {
    let protocol = Protocol(one.proto);
    if one.host_port == 0 {
        let what = format!("no port of the host is named for {}/{protocol}", one.port);
        let hint = format!("Docker could not be told which one it is: write -p PORT:{}", one.port);
        return Err(Failure::from(what).hint(hint));
    }
    if one.host_port_end > one.host_port {
        let (first, last) = (one.host_port, one.host_port_end);
        let what = format!("one of the ports {first}-{last} of the host is to be chosen");
        return Err(Failure::from(what).hint("Docker could not be told which one it is: name it"));
    }
    let at = match one.host_ip.as_deref() {
        None | Some("") => At::Everywhere,
        Some(text) => {
            let address = text.parse::<IpAddr>();
            let address = address
                .map_err(|_| Failure::from(format!("`{}` is no address", shortened(text))))?;
            At::address(address.to_canonical())?
        }
    };
    let range = |port| PortRange::new(port, port);
    Ok(Publication::new(at, protocol, range(one.host_port)?, range(one.port)?)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(ports: Value) -> Result<Vec<String>, String> {
        let published = published(&BTreeMap::from([(PORTS.to_owned(), ports)]));
        let text = |all: Vec<Publication>| all.iter().map(ToString::to_string).collect();
        published.map(text).map_err(|failure| failure.to_string())
    }

    #[test]
    fn bindings_are_publications() {
        assert_eq!(published(&BTreeMap::new()).unwrap(), []);
        assert_eq!(of(Value::Null), Ok(vec![]));
        let all = json!([
            { "Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080 },
            { "Proto": 17, "Port": 53, "HostIP": "192.0.2.1", "HostPort": 53 },
            { "Proto": 17, "Port": 53, "HostIP": "192.0.2.1", "HostPort": 53, "New": 7 },
            { "Proto": 6, "Port": 443, "HostIP": "0.0.0.0", "HostPort": 8443 },
            { "Proto": 6, "Port": 443, "HostIP": "::", "HostPort": 8443 },
            { "Proto": 6, "Port": 80, "HostIP": "127.0.0.1", "HostPort": 8081 },
        ]);
        let mut all = of(all).unwrap();
        all.sort();
        let want = [
            "0.0.0.0:8443:443/tcp",
            "127.0.0.1:8081:80/tcp",
            "192.0.2.1:53:53/udp",
            "8080:80/tcp",
            "[::]:8443:443/tcp",
        ];
        assert_eq!(all, want);
    }

    #[test]
    fn what_cannot_be_says_why() {
        let refused = |one: Value, what: &str| {
            let why = of(json!([one])).unwrap_err();
            assert!(why.contains(what), "{one}: {why}");
        };
        refused(json!({ "Proto": 6, "Port": 80 }), "write -p PORT:80");
        let range = json!({ "Proto": 6, "Port": 80, "HostPort": 8000, "HostPortEnd": 8010 });
        refused(range, "one of the ports 8000-8010");
        let sctp = json!({ "Proto": 132, "Port": 80, "HostPort": 80 });
        refused(sctp, "ports of sctp cannot be published");
        let local = json!({ "Proto": 6, "Port": 80, "HostPort": 80, "HostIP": "fe80::1" });
        refused(local, "fe80::1 is not a unicast address");
        let odd = json!({ "Proto": 6, "Port": 80, "HostPort": 80, "HostIP": "eth0" });
        refused(odd, "`eth0` is no address");
        for odd in [json!(7), json!("80"), json!({ "Port": "80" }), json!({ "Port": 65536 })] {
            assert!(of(json!([odd])).is_err());
        }
        assert!(of(json!("80:80")).is_err());
    }
}
