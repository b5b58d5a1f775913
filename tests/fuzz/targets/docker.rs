//! What Docker calls its driver with: a byte for the method, the rest is the body. The daemon refuses everything.
#![no_main]

mod refusal;

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use porin::adapter::docker::{self, Answering, Store};
use porin::config::model::Docker;
use refusal::Refusal;

const METHODS: [&str; 11] = [
    "/NetworkDriver.CreateNetwork",
    "/NetworkDriver.DeleteNetwork",
    "/NetworkDriver.CreateEndpoint",
    "/NetworkDriver.EndpointOperInfo",
    "/NetworkDriver.Join",
    "/NetworkDriver.ProgramExternalConnectivity",
    "/NetworkDriver.DeleteEndpoint",
    "/IpamDriver.RequestPool",
    "/IpamDriver.ReleasePool",
    "/IpamDriver.RequestAddress",
    "/IpamDriver.ReleaseAddress",
];

fn driver() -> Answering {
    let network = |text: &str| text.parse().expect("a network");
    let config = Docker {
        driver: true,
        networks: vec![network("10.10.128.0/17"), network("fd00:10::1:0:0:0/80")],
        socket: "/nonexistent/docker.sock".into(),
        ..Docker::default()
    };
    let handler = Arc::new(Refusal::default());
    let store = Store { path: "docker.toml".into(), text: None, save: Box::new(|_| Ok(())) };
    docker::answering(&config, store, handler).expect("a driver")
}

thread_local! {
    static DRIVER: Answering = driver();
}

fuzz_target!(|data: &[u8]| {
    let Some((method, body)) = data.split_first() else { return };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    let (status, answer) = DRIVER.with(|driver| driver(method, body));
    assert!(matches!(status, 200 | 404 | 500), "{status}");
    serde_json::from_slice::<serde_json::Value>(&answer).expect("what it says is JSON");
});
