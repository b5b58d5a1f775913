//! What a client may say first: a request's head with its body, a server's answer, a ClientHello.
#![no_main]

use libfuzzer_sys::fuzz_target;
use porin::proxy::{Asked, Body, Limits, RequestHead, ResponseHead, hello};

/// However a body is cut, it ends at the same byte, or nowhere.
fn whole(body: &Body, bytes: &[u8]) {
    let mut at_once = body.clone();
    let once = at_once.advance(bytes);
    let (mut by_bytes, mut used) = (body.clone(), 0);
    for byte in bytes {
        if by_bytes.is_over() {
            break;
        }
        match by_bytes.advance(&[*byte]) {
            Ok(part) => used += part.bytes,
            Err(_) => {
                assert!(once.is_err());
                return;
            }
        }
    }
    let once = once.expect("no byte of it was malformed");
    assert_eq!((once.bytes, at_once), (used, by_bytes));
}

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    let end = data.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let (head, rest) = data.split_at(end.unwrap_or(data.len()));
    if let Ok(request) = RequestHead::parse(head, &limits) {
        assert!(request.host.is_some() || request.old);
        whole(&request.body, rest);
    }
    for asked in [Asked::Head, Asked::Connect, Asked::Other] {
        if let Ok(response) = ResponseHead::parse(head, asked, &limits) {
            assert!((100..600).contains(&response.status));
            whole(&response.body, rest);
        }
    }
    whole(&Body::chunked(), data);
    _ = hello(data);
});
