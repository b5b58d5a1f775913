//! A message of a container runtime's, in the protobuf wire form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use porin::adapter::grpc;

fuzz_target!(|data: &[u8]| {
    let Some(fields) = grpc::fields(data) else { return };
    for (_, content) in fields {
        _ = grpc::fields(content);
    }
});
