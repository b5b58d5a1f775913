//! A line on the daemon's socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use porin::control::wire;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = wire::parse_request(data) {
        // What was understood can be said again.
        let mut line = Vec::new();
        wire::write_line(&mut line, &request).expect("memory");
        assert!(wire::parse_request(&line).is_ok());
    }
});
