//! The kubelet's side of CRI, as far as pod sandboxes go: gRPC over HTTP/2 on containerd's socket, messages by hand.
//!
//! Of `runtime.v1` (k8s.io/cri-api, api.proto) this knows RunPodSandbox, StopPodSandbox and RemovePodSandbox.

use std::path::{Path, PathBuf};
use std::time::Duration;

use porin::adapter::grpc::{self, field};

/// One pod that is wanted.
pub struct Pod<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub labels: &'a [(&'a str, &'a str)],
    pub annotations: &'a [(&'a str, &'a str)],
}

/// A socket of the host's, as the calling thread can see it.
pub struct Cri {
    socket: PathBuf,
}

impl Cri {
    pub fn new(socket: &Path) -> Cri {
        Cri { socket: socket.to_owned() }
    }

    /// Returns the sandbox's id, or what containerd says is wrong.
    pub fn run(&self, pod: &Pod) -> Result<String, String> {
        let mut metadata = text(1, pod.name);
        metadata.extend(text(2, &format!("uid-{}", pod.name)));
        metadata.extend(text(3, pod.namespace));
        let mut config = field(1, &metadata);
        config.extend(text(2, pod.name));
        config.extend(text(3, "/run/pod-logs"));
        for (number, pairs) in [(6, pod.labels), (7, pod.annotations)] {
            for (key, value) in pairs {
                config.extend(field(number, &[text(1, key), text(2, value)].concat()));
            }
        }
        config.extend(field(8, &[]));
        let answer = self.call("RunPodSandbox", &field(1, &config))?;
        // Its one field: the id.
        Ok(String::from_utf8_lossy(answer.get(2..).unwrap_or_default()).into_owned())
    }

    pub fn stop(&self, id: &str) -> Result<(), String> {
        self.call("StopPodSandbox", &text(1, id)).map(drop)
    }

    pub fn remove(&self, id: &str) -> Result<(), String> {
        self.call("RemovePodSandbox", &text(1, id)).map(drop)
    }

    fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let answer = grpc::unary(&self.socket, &path, &[], message, Duration::from_secs(60));
        answer.map_err(|error| format!("{method}: {error}"))
    }
}

fn text(number: u8, content: &str) -> Vec<u8> {
    field(number, content.as_bytes())
}
