//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`, as runtimes of containers and of pods use it.

use std::net::IpAddr;

use super::environment::shortened;
use super::failure::{Code, Failure};
use crate::types::{Invalid, Mac};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    pub pod_namespace: Option<String>,
    /// Of the pod; Podman gives the container's name.
    pub pod_name: Option<String>,
    pub mac: Option<Mac>,
    pub ips: Vec<IpAddr>,
}

/// Bytes at most.
const LONGEST: usize = 16 << 10;

/// Keys that are not known are errors, unless `IgnoreUnknown` is there.
///
/// # Errors
/// The specification's code 4.
pub fn parse(text: &str) -> Result<Arguments, Failure> {
    let failure = |what: String| Failure::new(Code::InvalidEnvironment, what);
    if text.len() > LONGEST {
        return Err(failure(format!("CNI_ARGS has {} bytes", text.len())));
    }
    let mut arguments = Arguments::default();
    let mut unknown = Vec::new();
    let mut ignore_unknown = false;
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(failure(format!(
                "CNI_ARGS has {}, which is no KEY=VALUE",
                shortened(pair)
            )));
        };
        let given = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "IgnoreUnknown" => ignore_unknown = matches!(value, "1" | "true" | "True" | "TRUE"),
            "K8S_POD_NAMESPACE" => arguments.pod_namespace = given(),
            "K8S_POD_NAME" => arguments.pod_name = given(),
            "MAC" => {
                let mac = given().map(|text| mac(&text)).transpose();
                arguments.mac = mac.map_err(|why| failure(format!("CNI_ARGS: {why}")))?;
            }
            "IP" => {
                for text in value.split(',').filter(|text| !text.is_empty()) {
                    let address = address(text).ok_or_else(|| {
                        failure(format!("CNI_ARGS asks for {}, no address", shortened(text)))
                    })?;
                    arguments.ips.push(address);
                }
            }
            // Facts about the pod that nothing here depends on.
            "K8S_POD_UID" | "K8S_POD_INFRA_CONTAINER_ID" => {}
            other => unknown.push(shortened(other)),
        }
    }
    if !unknown.is_empty() && !ignore_unknown {
        let what = format!("CNI_ARGS has unknown keys: {}", unknown.join(", "));
        return Err(failure(what).details("IgnoreUnknown=1 has them ignored"));
    }
    Ok(arguments)
}

/// # Errors
/// Why it is none, in one line.
pub fn mac(text: &str) -> Result<Mac, String> {
    text.parse().map_err(|why: Invalid| match text.len() {
        ..64 => why.to_string(),
        _ => format!("{} is not a MAC address", shortened(text)),
    })
}

/// An address, with a length or without: an endpoint's is its own network.
pub fn address(text: &str) -> Option<IpAddr> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    match length {
        Some(length) => length.parse::<u8>().is_ok_and(|length| length <= most).then_some(address),
        None => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runtimes_say_is_understood() {
        let podman = "IgnoreUnknown=1;K8S_POD_NAMESPACE=web;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=0f;X=y";
        let arguments = parse(podman).unwrap();
        assert_eq!(arguments.pod_name.as_deref(), Some("web"));
        let ips = parse("IP=10.1.2.3/24,fd00::7").unwrap().ips;
        assert_eq!(ips, ["10.1.2.3".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(parse("MAC=02:00:00:00:00:0A").unwrap().mac, Some(Mac([2, 0, 0, 0, 0, 10])));
        assert_eq!(parse("MAC=").unwrap(), Arguments::default());
        assert_eq!(parse("").unwrap(), Arguments::default());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for bad in [
            "X=y",
            "IP=10.0.0",
            "IP=10.0.0.1/33",
            "IP",
            "IgnoreUnknown=0;X=1",
            "MAC=x",
            "MAC=03:00:00:00:00:01",
        ] {
            assert_eq!(parse(bad).unwrap_err().code, Code::InvalidEnvironment, "{bad}");
        }
    }
}
