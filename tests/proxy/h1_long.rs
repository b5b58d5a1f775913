//! Long bodies, which the kernel moves from one connection to the other: whole, in order, and the next message after them.

use crate::support::{ANY, Peer, run, scene};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Long enough, and of no power of two.
const WHOLE: usize = 3 * (1 << 20) + 777;

/// Bytes that tell where they are from.
fn bytes(seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..WHOLE).map(next).collect()
}

/// `from` says all, while `to` hears it.
async fn passes(mut from: Peer, mut to: Peer, said: Vec<u8>) -> (Peer, Peer) {
    let expected = said.clone();
    let saying = tokio::spawn(async move {
        from.says(said).await;
        from
    });
    let mut heard = vec![0; expected.len()];
    tokio::io::AsyncReadExt::read_exact(&mut to.0, &mut heard).await.unwrap();
    assert!(heard == expected, "what was said is what was heard");
    (saying.await.unwrap(), to)
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let (first, second) = body.split_at(WHOLE / 3);
    let mut all = Vec::new();
    for chunk in [&first[..10], &first[10..], second] {
        all.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        all.extend(chunk);
        all.extend(b"\r\n");
    }
    all.extend(b"0\r\n\r\n");
    all
}

#[test]
fn answers_of_a_known_length_and_in_chunks() {
    run(async {
        let scene = scene(ANY).await;
        let mut client = scene.client().await;
        client.says(GET).await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n").into_bytes();
        let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for (head, body) in
            [(&length, bytes(1)), (&chunks, chunked(&bytes(2))), (&length, bytes(3))]
        {
            (server, client) = passes(server, client, [head.as_slice(), &body].concat()).await;
            client.says(GET).await;
            server.hears(GET).await;
        }
        server.says(OK).await;
        client.hears(OK).await;
    });
}

#[test]
fn requests_of_a_known_length_and_in_chunks() {
    run(async {
        let scene = scene(ANY).await;
        let mut client = scene.client().await;
        client.says(GET).await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        server.says(OK).await;
        client.hears(OK).await;
        let length =
            format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {WHOLE}\r\n\r\n").into_bytes();
        let chunks = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for (head, body) in [(&length, bytes(4)), (&chunks, chunked(&bytes(5)))] {
            (client, server) = passes(client, server, [head.as_slice(), &body].concat()).await;
            server.says(OK).await;
            client.hears(OK).await;
        }
    });
}

#[test]
fn an_answer_that_ends_with_the_connection_and_one_that_ends_too_early() {
    run(async {
        let scene = scene(ANY).await;
        for (head, whole) in [
            ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), true),
            (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", WHOLE + 1), false),
        ] {
            let mut client = scene.client().await;
            client.says(GET).await;
            let mut server = scene.accept().await;
            server.hears(GET).await;
            let all = [head.as_bytes(), &bytes(6)].concat();
            let (server, mut client) = passes(server, client, all).await;
            drop(server);
            let rest = client.rest().await;
            assert!(rest.is_empty(), "{whole}: {} bytes", rest.len());
        }
    });
}
