//! TLS: read as far as the server's name, passed on as it is.

use porin::proxy::{Denial, HelloError, Limits, Refusal, Side, SideRule, hello};
use porin::types::Direction;

use crate::support::{ANY, Ruleset, ruleset, run, scene, scene_of};

fn vector8(content: &[u8]) -> Vec<u8> {
    [&[content.len() as u8], content].concat()
}

fn vector16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), vector16(content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vector16(&[vec![0], vector16(name)].concat()))
}

/// A ClientHello, without its records.
fn message(extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = [3, 3].to_vec();
    body.extend([7; 32]);
    body.extend(vector8(&[1; 32]));
    body.extend(vector16(&[0x13, 1, 0x13, 2]));
    body.extend(vector8(&[0]));
    body.extend(extensions.map(vector16).unwrap_or_default());
    let length = (body.len() as u32).to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1], vector16(part).as_slice()].concat();
    message.chunks(size).flat_map(record).collect()
}

fn asking(name: &str) -> Vec<u8> {
    let others =
        [extension(10, &[0, 2, 0, 29]), server_name(name.as_bytes()), extension(43, &[2, 3, 4])];
    message(Some(&others.concat()))
}

#[test]
fn the_name_is_found_however_it_is_cut() {
    let whole = asking("API.example.org");
    for size in [1, 3, 50, 1 << 14] {
        let bytes = records(&whole, size);
        let found = hello(&bytes).unwrap();
        assert_eq!(found.server_name.as_deref(), Some("api.example.org"));
        // What comes after it is not looked at.
        let more = [bytes.as_slice(), b"\xff\xff"].concat();
        assert_eq!(hello(&more), Ok(found));
        for end in 0..bytes.len() {
            match hello(&bytes[..end]) {
                Err(HelloError::More(wanted)) => assert!(wanted > end && wanted <= bytes.len()),
                other => panic!("{end}: {other:?}"),
            }
        }
    }
}

#[test]
fn there_may_be_no_name() {
    for extensions in [None, Some(&b""[..]), Some(&extension(43, &[2, 3, 4]))] {
        assert_eq!(hello(&records(&message(extensions), 1000)).unwrap().server_name, None);
    }
}

#[test]
fn what_has_more_than_one_reading_is_none() {
    let of = |extensions: &[u8]| hello(&records(&message(Some(extensions)), 1000));
    let twice = [server_name(b"a.example"), server_name(b"b.example")].concat();
    let two = [vec![0], vector16(b"a"), vec![0], vector16(b"b")].concat();
    for (extensions, why) in [
        (twice, HelloError::Malformed),
        (extension(0, &vector16(&two)), HelloError::Malformed),
        (
            extension(0, &[vector16(&[vec![0], vector16(b"a")].concat()), vec![9]].concat()),
            HelloError::Malformed,
        ),
        (extension(0, &vector16(&[vec![1], vector16(b"a")].concat())), HelloError::Malformed),
        (extension(0, &[]), HelloError::Malformed),
        (server_name(b""), HelloError::Name),
        (server_name(b"a.example."), HelloError::Name),
        (server_name(b"a\0.example"), HelloError::Name),
        (server_name(b"192.0.2.1"), HelloError::Name),
        (server_name(b"\xc3\xa9.example"), HelloError::Name),
        (vec![0, 0, 0, 9, 0], HelloError::Malformed),
        (vec![0], HelloError::Malformed),
    ] {
        assert_eq!(of(&extensions), Err(why), "{extensions:?}");
    }
    let good = records(&asking("a.example"), 1000);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        hello(&bytes)
    };
    assert_eq!(with(0, 23), Err(HelloError::NotHandshake));
    assert_eq!(with(1, 2), Err(HelloError::NotHandshake));
    assert_eq!(with(3, 0xff), Err(HelloError::NotHandshake));
    assert_eq!(with(5, 2), Err(HelloError::NotHello));
    assert_eq!(with(6, 1), Err(HelloError::TooLong));
    assert_eq!(hello(&[22, 3, 1, 0, 0]), Err(HelloError::NotHandshake));
    // A message that promises much, in many small records.
    let long = [vec![1, 0, 0x7f, 0xff], vec![0; 0x7fff]].concat();
    assert_eq!(hello(&records(&long, 1)), Err(HelloError::TooLong));
    // Whatever byte is changed, it does not panic.
    for at in 0..good.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let _ = with(at, byte);
        }
    }
}

fn names(json: &str) -> Ruleset {
    let rules = vec![SideRule { cookie: 9, l7: serde_json::from_str(json).unwrap() }];
    Ruleset { egress: Some(Side { rules }), ingress: None }
}

const RULES: &str = r#"{"tls": {"server-names": ["*.example.org"]}}"#;
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

#[test]
fn an_allowed_name_is_a_tunnel() {
    run(async {
        let scene = scene_of(&names(RULES), Limits::default()).await;
        let mut client = scene.client().await;
        let bytes = records(&asking("a.example.org"), 40);
        for byte in &bytes {
            client.says([*byte]).await;
        }
        let mut server = scene.accept().await;
        server.hears(&bytes).await;
        server.says(b"\x16\x03\x03answer").await;
        client.hears(b"\x16\x03\x03answer").await;
        client.says("anything").await;
        server.hears("anything").await;
        client.falls_silent().await;
        server.hears_the_end().await;
        drop(server);
        client.hears_the_end().await;
        let record = &scene.records(1).await[0];
        assert_eq!((record.host.as_str(), record.egress), ("a.example.org", Some(9)));
        scene.is_idle().await;
    });
}

#[test]
fn another_name_is_refused_with_an_alert() {
    run(async {
        let scene = scene_of(&names(RULES), Limits::default()).await;
        for (hello, alert) in [
            (asking("example.org"), ACCESS_DENIED),
            (message(None), ACCESS_DENIED),
            (message(Some(&server_name(b"a..example.org"))), DECODE_ERROR),
        ] {
            let mut client = scene.client().await;
            client.says(records(&hello, 1000)).await;
            client.hears(alert).await;
            client.hears_the_end().await;
        }
        let records = scene.records(3).await;
        let refused = |refusal| Some(Denial::Rules(Direction::Egress, refusal));
        assert_eq!(records[0].denial, refused(Refusal::NoRule));
        assert_eq!(records[1].denial, refused(Refusal::NoServerName));
        assert!(records[2].fault.is_some());
        let counts = scene.counts();
        assert_eq!((counts.denied, counts.malformed, counts.allowed), (2, 1, 0));
    });
}

#[test]
fn tls_where_requests_are_judged_is_denied_and_the_other_way_round() {
    run(async {
        let http = scene(ANY).await;
        let mut client = http.client().await;
        client.says(records(&asking("a.example.org"), 1000)).await;
        client.hears(ACCESS_DENIED).await;
        let refused = |refusal, direction| Some(Denial::Rules(direction, refusal));
        assert_eq!(http.records(1).await[0].denial, refused(Refusal::OnlyHttp, Direction::Ingress));
        let tls = scene_of(&names(RULES), Limits::default()).await;
        let mut client = tls.client().await;
        client.says("GET / HTTP/1.1\r\nHost: a.example.org\r\n\r\n").await;
        client.is_told("403", false).await;
        assert_eq!(tls.records(1).await[0].denial, refused(Refusal::OnlyTls, Direction::Egress));
        // Both, where rules speak of both.
        let both = names(r#"{"http": [{"path": "/a"}], "tls": {"server-names": ["b.example"]}}"#);
        let both = scene_of(&both, Limits::default()).await;
        let mut client = both.client().await;
        client.says(records(&asking("b.example"), 1000)).await;
        both.accept().await.hears(records(&asking("b.example"), 1000)).await;
        let mut client = both.client().await;
        client.says("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        both.accept().await.hears("GET /a HTTP/1.1\r\n").await;
    });
}

#[test]
fn a_hello_that_does_not_come_is_not_waited_for() {
    run(async {
        let head_time = std::time::Duration::from_millis(200);
        let scene = scene_of(&ruleset(ANY), Limits { head_time, ..Limits::default() }).await;
        let mut client = scene.client().await;
        client.says(&records(&asking("a.example"), 1000)[..20]).await;
        client.hears_the_end().await;
        assert_eq!(scene.counts().late, 1);
    });
}
