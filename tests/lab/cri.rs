//! The kubelet's side of CRI, as far as pod sandboxes go: gRPC over HTTP/2 on containerd's socket, messages by hand.
//!
//! Of `runtime.v1` (k8s.io/cri-api, api.proto) this knows RunPodSandbox, StopPodSandbox and RemovePodSandbox.

use std::path::{Path, PathBuf};

use bytes::Bytes;

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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let patience = std::time::Duration::from_secs(60);
        let call = async { tokio::time::timeout(patience, self.unary(method, message)).await };
        let answer = runtime.expect("a runtime").block_on(call);
        answer.map_err(|late| format!("{method}: {late}"))?
    }

    async fn unary(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{method}: {error}");
        let stream = tokio::net::UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| failed(&error))?;
        let (send, connection) =
            h2::client::handshake(stream).await.map_err(|error| failed(&error))?;
        tokio::spawn(connection);
        let mut send = send.ready().await.map_err(|error| failed(&error))?;
        let request =
            http::Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .expect("a request");
        let (answer, mut body) = send.send_request(request, false).map_err(|e| failed(&e))?;
        // A message that is not compressed, and its length.
        let length = (message.len() as u32).to_be_bytes();
        let framed = [&[0], &length[..], message].concat();
        body.send_data(Bytes::from(framed), true).map_err(|error| failed(&error))?;
        let answer = answer.await.map_err(|error| failed(&error))?;
        let status = |headers: &http::HeaderMap| {
            let value = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
            value("grpc-status").map(|code| (code, value("grpc-message").unwrap_or_default()))
        };
        let mut ended = status(answer.headers());
        let mut body = answer.into_body();
        let mut data = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(|error| failed(&error))?;
            let _ = body.flow_control().release_capacity(chunk.len());
            data.extend_from_slice(&chunk);
        }
        if let Some(trailers) = body.trailers().await.map_err(|error| failed(&error))? {
            ended = status(&trailers).or(ended);
        }
        match ended {
            Some((code, _)) if code == "0" => Ok(data.get(5..).unwrap_or_default().to_vec()),
            Some((code, what)) => Err(format!("{method}: {code}: {what}")),
            None => Err(format!("{method}: no status")),
        }
    }
}

/// A field of bytes: a message, or text.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

fn text(number: u8, content: &str) -> Vec<u8> {
    field(number, content.as_bytes())
}
