//! What `porinctl flows --json --follow` prints: all that the daemon still knows, then what comes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::eventually;
use super::place::Place;
use super::process::Process;

pub struct FlowStream {
    events: Arc<Mutex<Vec<Value>>>,
    _process: Process,
}

impl FlowStream {
    pub fn follow(place: &Place, porinctl: &str) -> FlowStream {
        let mut command =
            place.command(&[porinctl, "flows", "--json", "--follow", "--last", "8192"]);
        // When the daemon dies it says so; that is no news to a test.
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = place.spawn(command);
        let output = BufReader::new(process.take_stdout().expect("piped"));
        let events = Arc::new(Mutex::new(Vec::new()));
        let writer = events.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("not JSON: {error}: {line}"));
                writer.lock().expect("events").push(event);
            }
        });
        FlowStream { events, _process: process }
    }

    pub fn events(&self) -> Vec<Value> {
        self.events.lock().expect("events").clone()
    }

    /// The first event that is as wanted, past or future.
    pub fn find(&self, deadline: Duration, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        eventually::some(deadline, || {
            self.events.lock().expect("events").iter().find(|event| wanted(event)).cloned()
        })
    }
}

/// Whether an event is about packets to `address` and `port` with this protocol (`tcp`, `udp`).
pub fn goes_to(event: &Value, address: &str, port: u16, protocol: &str) -> bool {
    let to = &event["destination"];
    to["address"] == address && to["port"] == port && event["protocol"] == protocol
}

/// The end of the flow whose policy denied, and where: (`egress` or `ingress`, file, line).
pub fn denied_by(event: &Value) -> Option<(&'static str, String, u64)> {
    let side = match event["reason"].as_str()? {
        "policy-egress" => "egress",
        "policy-ingress" => "ingress",
        _ => return None,
    };
    let place = &event[side];
    Some((side, place["file"].as_str()?.to_owned(), place["line"].as_u64()?))
}
