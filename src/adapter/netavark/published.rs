//! `podman run -p`: netavark's port mappings, as publications.

use serde::Deserialize;
use serde_json::Value;

use crate::adapter::cni::failure::{Code, Failure};
use crate::adapter::cni::published::{MOST, once, publication, refused};
use crate::types::{Invalid, Publication};

/// Netavark's `PortMapping`.
#[derive(Deserialize)]
struct Mapping {
    #[serde(default)]
    host_ip: String,
    container_port: u16,
    /// Podman chooses one if nobody else did.
    host_port: u16,
    /// How many ports, from these on. 0 is 1.
    #[serde(default)]
    range: u16,
    /// With commas between them.
    #[serde(default)]
    protocol: String,
}

/// # Errors
/// Something that cannot be.
pub fn all(mappings: &[Value]) -> Result<Vec<Publication>, Failure> {
    if mappings.len() > MOST {
        let what = format!("{} published ports are more than {MOST}", mappings.len());
        return Err(Failure::new(Code::Unsupported, what));
    }
    let mut all = Vec::new();
    for mapping in mappings {
        let mapping = Mapping::deserialize(mapping).map_err(|error| {
            Failure::new(Code::Decode, "a published port is not netavark's")
                .details(error.to_string())
        })?;
        let named = match mapping.protocol.as_str() {
            "" => "tcp",
            named => named,
        };
        for protocol in named.split(',') {
            all.push(mapping.publication(protocol).map_err(refused)?);
        }
    }
    Ok(once(all))
}

impl Mapping {
    fn publication(&self, protocol: &str) -> Result<Publication, Invalid> {
        publication(protocol, &self.host_ip, self.host_port, self.container_port, self.range)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(mapping: Value) -> Result<Vec<String>, String> {
        let text = |all: Vec<Publication>| all.iter().map(ToString::to_string).collect();
        all(&[mapping]).map(text).map_err(|failure| failure.to_string())
    }

    #[test]
    fn mappings_are_publications() {
        let plain = json!({ "container_port": 80, "host_ip": "", "host_port": 8080,
                            "protocol": "tcp", "range": 1 });
        assert_eq!(of(plain), Ok(vec!["8080:80/tcp".to_owned()]));
        let range = json!({ "container_port": 53, "host_ip": "192.0.2.1", "host_port": 5300,
                            "protocol": "tcp,udp", "range": 3 });
        let want = ["192.0.2.1:5300-5302:53-55/tcp", "192.0.2.1:5300-5302:53-55/udp"];
        assert_eq!(of(range), Ok(want.map(str::to_owned).to_vec()));
        let least = json!({ "container_port": 80, "host_ip": "::", "host_port": 80 });
        assert_eq!(of(least), Ok(vec!["[::]:80:80/tcp".to_owned()]));
    }

    #[test]
    fn what_cannot_be_says_why() {
        let mapping = |key: &str, value: Value| {
            let mut mapping = json!({ "container_port": 80, "host_port": 80 });
            mapping[key] = value;
            of(mapping).unwrap_err()
        };
        assert!(mapping("protocol", json!("sctp")).contains("ports of sctp"));
        assert!(mapping("protocol", json!("tcp,")).contains("names no protocol"));
        assert!(mapping("host_ip", json!("localhost")).contains("no address"));
        assert!(mapping("host_ip", json!("fe80::1")).contains("fe80::1"));
        assert!(mapping("host_port", json!(0)).contains("no 1 ports from 0"));
        assert!(mapping("range", json!(65535)).contains("no 65535 ports from 80"));
        mapping("host_port", json!("80"));
    }
}
