//! What containerd knows of a container, or of a pod's sandbox, while its network is set up: its labels.
//!
//! CRI does not list a sandbox before it has a network, but containerd's own store has it already, with the pod's labels
//! (gRPC, `containerd.services.containers.v1.Containers/Get`).

use std::path::Path;
use std::time::Duration;

use super::grpc;

const PATIENCE: Duration = Duration::from_secs(10);
const METHOD: &str = "/containerd.services.containers.v1.Containers/Get";
/// Where CRI keeps its containers.
const PODS: &str = "k8s.io";
/// Ways to split a container's name into namespace and id that are tried at most.
const MOST: usize = 16;
/// Of containerd's own book-keeping.
const NOT_LABELS: [&str; 2] = ["io.cri-containerd.", "containerd.io/"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("containerd cannot be asked: {0}")]
    Grpc(#[from] grpc::Error),
    #[error("containerd does not know the container {0}")]
    Unknown(String),
    #[error(
        "which container of containerd's is {0}? There are several that are called so, or may be"
    )]
    Ambiguous(String),
}

/// The labels of the container that CNI calls so. `pod`: it is a pod's sandbox; else it may be one of `ctr`'s or
/// `nerdctl`'s, which put the namespace in front: `default-web`.
pub fn labels(socket: &Path, container: &str, pod: bool) -> Result<Vec<(String, String)>, Error> {
    let own = pod.then_some((PODS, container));
    let dashes = container.match_indices('-').filter(|_| !pod);
    let split = dashes.map(|(at, _)| (&container[..at], &container[at + 1..]));
    let mut found = None;
    for (tried, (namespace, id)) in own.into_iter().chain(split).enumerate() {
        let ambiguous = || Error::Ambiguous(container.to_owned());
        if tried == MOST {
            return Err(ambiguous());
        }
        let headers = [("containerd-namespace", namespace)];
        let asked = grpc::field(1, id.as_bytes());
        match grpc::unary(socket, METHOD, &headers, &asked, PATIENCE) {
            // Another's labels could let through what its own would not.
            Ok(_) if found.is_some() => return Err(ambiguous()),
            Ok(answer) => found = Some(read(&answer).ok_or(grpc::Error::Foreign)?),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.ok_or_else(|| Error::Unknown(container.to_owned()))
}

/// Of a `GetContainerResponse`: field 1 is the container; of that, field 2 are the labels, each with key 1 and value 2.
fn read(answer: &[u8]) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    for (_, container) in grpc::fields(answer)?.into_iter().filter(|(number, _)| *number == 1) {
        for (_, label) in grpc::fields(container)?.into_iter().filter(|(number, _)| *number == 2) {
            let fields = grpc::fields(label)?;
            let text = |number| {
                let found = fields.iter().rev().find(|(n, _)| *n == number);
                found.map_or(Some(""), |(_, bytes)| std::str::from_utf8(bytes).ok())
            };
            labels.push((text(1)?.to_owned(), text(2)?.to_owned()));
        }
    }
    labels.retain(|(key, _)| !NOT_LABELS.iter().any(|prefix| key.starts_with(prefix)));
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_told_from_containerds_own() {
        let label = |key: &str, value: &str| {
            let pair = [grpc::field(1, key.as_bytes()), grpc::field(2, value.as_bytes())].concat();
            grpc::field(2, &pair)
        };
        let container = [
            grpc::field(1, b"c1"),
            label("app", "web"),
            label("io.cri-containerd.kind", "sandbox"),
            label("empty", ""),
            grpc::field(3, b"image"),
        ];
        let answer = grpc::field(1, &container.concat());
        let expected = [("app", "web"), ("empty", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(read(&answer).unwrap(), expected);
        assert_eq!(read(&[0xff]), None);
    }
}
