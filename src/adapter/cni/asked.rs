//! Labels that runtimes do not pass on: they are asked for them.

use std::path::Path;

use super::environment::Target;
use super::failure::{Code, Failure};
use super::labels::WrittenLabels;
use super::network::Network;
use crate::adapter::{containerd, podman};

/// What those that the network's configuration names say of the container. `pod`: it is a pod's sandbox.
///
/// # Errors
/// Without its labels something could pass that they would have denied: so the container does not start.
pub fn labels(network: &Network, target: &Target, pod: bool) -> Result<WrittenLabels, Failure> {
    let container = &target.container;
    let mut all = WrittenLabels::default();
    if let Some(socket) = &network.podman {
        all.extend(of_podman(socket, container)?);
    }
    if let Some(socket) = &network.containerd {
        let found = containerd::labels(socket, container, pod).map_err(|error| {
            let absent = matches!(error, containerd::Error::Grpc(_));
            unknown("containerd", error.to_string(), absent)
        })?;
        all.extend(found.into_iter().collect());
    }
    Ok(all)
}

/// What Podman says of a container.
pub fn of_podman(socket: &Path, container: &str) -> Result<WrittenLabels, Failure> {
    let found = podman::labels(socket, container).map_err(|error| {
        let absent = matches!(error, podman::Error::Http(_));
        unknown("podman", error.to_string(), absent)
    })?;
    Ok(found.into_iter().collect())
}

fn unknown(key: &str, why: String, absent: bool) -> Failure {
    let code = if absent { Code::TryAgainLater } else { Code::Refused };
    Failure::new(code, format!("the container's labels are not known: {why}"))
        .details(format!("see `{key}` in porin-cni(8)"))
}
