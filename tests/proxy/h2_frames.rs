//! HTTP/2 clients that play foul, frame by frame (RFC 9113 sections 4 to 6 and 10.5): the connection ends, others go on.

use porin::proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{ANY, Peer, Scene, ruleset, run, scene_of, soon};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const RST_STREAM: u8 = 3;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET http://a/`, in HPACK's static table and two literals.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

async fn begin(scene: &Scene) -> Peer {
    let mut client = scene.client().await;
    client.says([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
    client
}

/// Says it again and again, hearing what comes, until the connection ends; the error of the GOAWAY, if there was one.
async fn until_the_end(client: Peer, mut next: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let (mut from, mut to) = client.0.into_split();
    let hear = async move {
        let mut heard = Vec::new();
        let _ = from.read_to_end(&mut heard).await;
        heard
    };
    let say = async move {
        for turn in 0..1_000_000 {
            if to.write_all(&next(turn)).await.is_err() {
                return;
            }
        }
        panic!("it goes on for ever");
    };
    let heard = tokio::spawn(hear);
    soon("the end", say).await;
    let heard = soon("the end", heard).await.unwrap();
    let mut rest = heard.as_slice();
    while rest.len() >= 9 {
        let length = usize::from(rest[1]) << 8 | usize::from(rest[2]);
        if rest[3] == GOAWAY && rest.len() >= 17 {
            return Some(u32::from_be_bytes(rest[13..17].try_into().unwrap()));
        }
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    None
}

async fn small() -> Scene {
    let limits = Limits { control: 200, control_per_second: 0, streams: 10, ..Limits::default() };
    scene_of(&ruleset(ANY), limits).await
}

#[test]
fn floods_of_frames_that_carry_nothing_end_the_connection() {
    run(async {
        let scene = small().await;
        let ping = |_| frame(PING, 0, 0, &[0; 8]);
        let settings = |_| frame(SETTINGS, 0, 0, &[]);
        let priority = |_| frame(2, 0, 3, &[0, 0, 0, 0, 1]);
        let unknown = |_| frame(0xbe, 0, 0, &[]);
        let window = |_| frame(8, 0, 0, &[0, 0, 0, 1]);
        let floods: [&dyn Fn(u32) -> Vec<u8>; 5] = [&ping, &settings, &priority, &unknown, &window];
        for flood in floods {
            let client = begin(&scene).await;
            until_the_end(client, flood).await;
        }
        scene.is_idle().await;
        // Another is served.
        let mut client = begin(&scene).await;
        client.says(frame(HEADERS, END_STREAM | END_HEADERS, 1, GET)).await;
        scene.accept().await.hears(PREFACE).await;
    });
}

#[test]
fn a_rapid_reset_ends_the_connection() {
    run(async {
        let scene = small().await;
        // The server hears at most as many requests as streams were open.
        let client = begin(&scene).await;
        let attack = |turn: u32| {
            let stream = 2 * turn + 1;
            let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
            [frame(HEADERS, END_STREAM | END_HEADERS, stream, GET), reset].concat().repeat(1)
        };
        let many = |turn: u32| (turn * 100..turn * 100 + 100).flat_map(attack).collect::<Vec<_>>();
        let enhance_your_calm = 11;
        if let Some(error) = until_the_end(client, many).await {
            assert_eq!(error, enhance_your_calm);
        }
        scene.is_idle().await;
        assert!(scene.counts().allowed < 1000, "{:?}", scene.counts());
    });
}

#[test]
fn heads_have_a_bound() {
    run(async {
        let scene = small().await;
        // CONNECTION: a head that does not end.
        let client = begin(&scene).await;
        until_the_end(client, |turn| match turn {
            0 => frame(HEADERS, END_STREAM, 1, GET),
            _ => frame(CONTINUATION, 0, 1, &[]),
        })
        .await;
        let client = begin(&scene).await;
        until_the_end(client, |turn| match turn {
            0 => frame(HEADERS, END_STREAM, 1, GET),
            // A literal that is not remembered: x: 100 bytes.
            _ => frame(
                CONTINUATION,
                0,
                1,
                &[&[0, 1, b'x', 100][..], &[b'y'; 100]].concat().repeat(50),
            ),
        })
        .await;
        // A bomb: one long field in the table, named ten thousand times.
        let mut client = begin(&scene).await;
        let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000]].concat();
        let bomb = [GET, &entry, &[0xbe; 10_000]].concat();
        client.says(frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await;
        client.says(frame(HEADERS, END_STREAM | END_HEADERS, 3, GET)).await;
        let answered =
            |heard: &[u8]| heard.windows(4).any(|bytes| bytes == [HEADERS, END_HEADERS, 0, 0]);
        let mut heard = vec![0; 1 << 16];
        let length = soon("an answer", client.0.read(&mut heard)).await.unwrap();
        assert!(length == 0 || !answered(&heard[..length]));
        drop(client);
        scene.is_idle().await;
        assert_eq!(scene.counts().allowed, 0);
    });
}

#[test]
fn what_rfc_9113_calls_malformed_is_not_forwarded() {
    run(async {
        let scene = small().await;
        let literal = |name: &[u8], value: &[u8]| {
            [&[0, name.len() as u8], name, &[value.len() as u8], value].concat()
        };
        for (what, block) in [
            ("upper case", [GET, &literal(b"X-A", b"b")].concat()),
            ("connection", [GET, &literal(b"connection", b"close")].concat()),
            ("transfer-encoding", [GET, &literal(b"transfer-encoding", b"chunked")].concat()),
            ("upgrade", [GET, &literal(b"upgrade", b"h2c")].concat()),
            ("te other than trailers", [GET, &literal(b"te", b"gzip")].concat()),
            ("CR LF in a value", [GET, &literal(b"x", b"a\r\nb: c")].concat()),
            ("NUL in a value", [GET, &literal(b"x", b"a\0b")].concat()),
            ("colon in a name", [GET, &literal(b"a:b", b"c")].concat()),
            ("blank in a name", [GET, &literal(b"a b", b"c")].concat()),
            ("empty name", [GET, &literal(b"", b"c")].concat()),
            ("pseudo field last", [GET, &literal(b"x", b"y"), &[0x84]].concat()),
            ("method twice", [&[0x82], GET].concat()),
            ("unknown pseudo field", [GET, &literal(b":foo", b"y")].concat()),
            ("no path", vec![0x82, 0x86, 0x41, 1, b'a']),
            ("empty path", [&[0x82, 0x86, 0x41, 1, b'a'][..], &literal(b":path", b"")].concat()),
            ("no method", vec![0x86, 0x84, 0x41, 1, b'a']),
            (":status", [GET, &[0x88]].concat()),
            (
                "two lengths",
                [GET, &literal(b"content-length", b"1"), &literal(b"content-length", b"2")]
                    .concat(),
            ),
            ("odd length", [GET, &literal(b"content-length", b"x")].concat()),
            ("length without data", [GET, &literal(b"content-length", b"5")].concat()),
        ] {
            let mut client = begin(&scene).await;
            client.says(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;
            // Answered, reset or the end: anything but forwarded. A ping comes back after it, or does not.
            client.says(frame(PING, 0, 0, b"what now")).await;
            let (mut heard, mut part) = (Vec::new(), [0; 4096]);
            while !heard.windows(8).any(|bytes| bytes == b"what now") {
                match soon(what, client.0.read(&mut part)).await {
                    Ok(bytes @ 1..) => heard.extend_from_slice(&part[..bytes]),
                    _ => break,
                }
            }
            assert_eq!(scene.counts().allowed, 0, "{what}");
        }
        scene.is_idle().await;
    });
}

#[test]
fn a_host_alone_becomes_the_authority() {
    run(async {
        let scene = small().await;
        let mut client = begin(&scene).await;
        // GET / with `host: b.example` and no `:authority`.
        let block = [&[0x82, 0x86, 0x84, 0x0f, 0x17, 9][..], b"b.example"].concat();
        client.says(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;
        let server = scene.accept().await.0;
        let mut server = h2::server::handshake(server).await.unwrap();
        let (request, _) = soon("a request", server.accept()).await.unwrap().unwrap();
        assert_eq!(request.uri(), "http://b.example/");
        assert_eq!(request.headers()["host"], "b.example");
    });
}

#[test]
fn no_more_streams_than_allowed_reach_the_server() {
    run(async {
        let scene = small().await;
        let mut client = begin(&scene).await;
        for stream in 0..40 {
            client.says(frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, GET)).await;
        }
        client.says(frame(PING, 0, 0, b"what now")).await;
        let (mut heard, mut part) = (Vec::new(), [0; 4096]);
        while !heard.windows(8).any(|bytes| bytes == b"what now") {
            match soon("a pong", client.0.read(&mut part)).await {
                Ok(bytes @ 1..) => heard.extend_from_slice(&part[..bytes]),
                _ => break,
            }
        }
        assert!(scene.counts().allowed <= 10, "{:?}", scene.counts());
    });
}
