//! From what the runtime says to what is asked of the daemon.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::arguments::Arguments;
use super::environment::Target;
use super::failure::{Code, Failure};
use super::labels::{self, ANNOTATION, POD_NAME, POD_NAMESPACE, WrittenLabels};
use super::network::{self, Basics, Network};
use crate::control::attach::{Attach, AttachmentId, Place};
use crate::types::{Invalid, Name};

pub const ADAPTER: &str = "cni";

/// An attachment is known by the network's name, the container's id and the interface's name: specification, section 2.
pub fn id(network: &str, container: &str, interface: &str) -> AttachmentId {
    AttachmentId::new(ADAPTER, network, &[container, interface])
}

/// `found`: labels that the runtime was asked for.
///
/// # Errors
/// What is asked for and cannot be: the specification's codes 2 and 7.
pub fn attach(
    basics: &Basics,
    target: &Target,
    place: Place,
    arguments: Arguments,
    network: Network,
    found: WrittenLabels,
) -> Result<Attach, Failure> {
    // Podman says it twice.
    let mac = network::one_mac(network.mac.into_iter().chain(arguments.mac))?;
    let (ipv6, ipv4) = fixed(network.ips.into_iter().chain(arguments.ips))?;
    let Arguments { pod_namespace, pod_name, .. } = arguments;
    let id = id(&basics.name, &target.container, &target.interface);
    let name = name(&id, target, pod_namespace.as_deref(), pod_name.as_deref())?;
    let about = format!(
        "CNI network {}, container {}, interface {}",
        basics.name, target.container, target.interface
    );
    let pod = [(POD_NAMESPACE, pod_namespace), (POD_NAME, pod_name)];
    let pod = pod.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    // The operator's own file first; what those who start containers can say for themselves comes last.
    let labels = labels::join([
        network.labels,
        pod.collect(),
        network.annotations.under(ANNOTATION),
        network.asked_labels,
        found,
    ])?;
    let publish = network.publish;
    Ok(Attach { ipv6, ipv4, mac, publish, ..Attach::new(id, about, name, place, labels) })
}

/// At most one of each family; the same one twice is one.
pub fn fixed(
    ips: impl Iterator<Item = IpAddr>,
) -> Result<(Option<Ipv6Addr>, Option<Ipv4Addr>), Failure> {
    let (mut ipv6, mut ipv4) = (None, None);
    for ip in ips {
        let twice = match ip {
            IpAddr::V6(ip) => ipv6.replace(ip).filter(|before| *before != ip).map(IpAddr::V6),
            IpAddr::V4(ip) => ipv4.replace(ip).filter(|before| *before != ip).map(IpAddr::V4),
        };
        if let Some(before) = twice {
            let what = format!("{before} and {ip} are asked for; an endpoint has one of a family");
            return Err(Failure::new(Code::Unsupported, what));
        }
    }
    Ok((ipv6, ipv4))
}

/// What people see: the pod's or container's name where it is known, and twelve digits to tell it from all others.
fn name(
    id: &AttachmentId,
    target: &Target,
    namespace: Option<&str>,
    pod: Option<&str>,
) -> Result<Name, Failure> {
    let stem = match (namespace, pod) {
        (Some(namespace), Some(pod)) if namespace != pod => format!("{namespace}/{pod}"),
        (_, Some(pod)) => pod.to_owned(),
        _ => target.container.chars().take(12).collect(),
    };
    let full = format!("{stem}-{}", id.short());
    // Whatever a runtime calls it, the container has a name.
    let named = full.parse().or_else(|_| id.as_str().parse());
    named.map_err(|why: Invalid| Failure::new(Code::InvalidNetwork, why.to_string()))
}
