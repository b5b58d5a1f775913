//! What a runtime says to `porin-cni`: a byte for the operation, the arguments up to a line feed, the network
//! configuration. The daemon refuses everything.
#![no_main]

mod refusal;

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use porin::adapter::cni::plugin;
use porin::control::server::Server;
use refusal::Refusal;
use serde_json::Value;

static RUN: LazyLock<(tempfile::TempDir, Server)> = LazyLock::new(|| {
    let run = tempfile::tempdir().expect("a directory");
    let server = Server::start(run.path(), Arc::new(Refusal::default())).expect("a socket");
    (run, server)
});

const OPERATIONS: [&str; 7] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "x"];

fuzz_target!(|data: &[u8]| {
    let Some((operation, rest)) = data.split_first() else { return };
    let operation = OPERATIONS[usize::from(*operation) % OPERATIONS.len()];
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let arguments = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let mut text = parts.next().unwrap_or_default().to_vec();
    // It asks the daemon here, and no other.
    if let Ok(Value::Object(mut config)) = serde_json::from_slice::<Value>(&text) {
        config.insert("run".into(), RUN.0.path().to_string_lossy().into_owned().into());
        text = Value::Object(config).to_string().into_bytes();
    }
    let variable = |name: &str| match name {
        "CNI_COMMAND" => Some(operation.to_owned()),
        "CNI_CONTAINERID" => Some("c0ffee".to_owned()),
        "CNI_IFNAME" => Some("eth0".to_owned()),
        "CNI_NETNS" => Some("/run/netns/web".to_owned()),
        "CNI_ARGS" => Some(arguments.clone()),
        _ => None,
    };
    let said = plugin::run(&variable, &mut text.as_slice());
    if !said.output.is_empty() {
        serde_json::from_str::<Value>(&said.output).expect("what it says is JSON");
    }
});
