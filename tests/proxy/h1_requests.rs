//! HTTP/1.1 requests: what is allowed arrives byte for byte, what is not is answered, and what is none ends the connection.

use porin::proxy::{Counts, Denial, Refusal};
use porin::types::Direction;
use porin::types::http::Ambiguity;

use crate::support::{ANY, run, scene};

const GET: &str = "GET /a?q HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn what_is_allowed_arrives_byte_for_byte() {
    run(async {
        let scene = scene(ANY).await;
        let mut client = scene.client().await;
        let odd = "POST /a?b=/../%2f HTTP/1.1\r\nhOST:a\r\nX-oDd:\t y \r\nx-odd: z\r\nContent-Length: 5\r\n\r\nhello";
        client.says(odd).await;
        let mut server = scene.accept().await;
        server.hears(odd).await;
        server.says(OK).await;
        client.hears(OK).await;
        // The same connection again, bit by bit.
        let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n3;e=1\r\nabc\r\n0\r\nX: y\r\n\r\n";
        for byte in chunked.bytes() {
            client.says([byte]).await;
        }
        server.hears(chunked).await;
        let answer =
            "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nY: z\r\n\r\n";
        server.says(answer).await;
        client.hears(answer).await;
        drop(client);
        server.hears_the_end().await;
        let records = scene.records(2).await;
        assert_eq!((records[0].method.as_str(), records[0].path.as_str()), ("POST", "/a"));
        assert_eq!((records[1].host.as_str(), records[1].status), ("a", Some(201)));
        assert_eq!((records[0].ingress, records[0].denial), (Some(1), None));
        assert_eq!(scene.counts(), Counts { connections: 1, allowed: 2, ..Counts::default() });
        scene.is_idle().await;
    });
}

#[test]
fn pipelined_requests_go_one_after_the_other() {
    run(async {
        let scene = scene(r#"[{"path": "/a"}]"#).await;
        let mut client = scene.client().await;
        let secret = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        client.says(format!("{GET}{secret}{GET}{GET}")).await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        server.says(OK).await;
        client.hears(OK).await;
        client.is_told("403", false).await;
        for _ in 0..2 {
            server.hears(GET).await;
            server.says(OK).await;
            client.hears(OK).await;
        }
        let records = scene.records(4).await;
        let denied = &records[1];
        assert_eq!(
            (denied.method.as_str(), denied.path.as_str(), denied.status),
            ("POST", "/b", Some(403))
        );
        assert_eq!(denied.denial, Some(Denial::Rules(Direction::Ingress, Refusal::NoRule)));
    });
}

#[test]
fn what_is_denied_does_not_reach_the_server() {
    run(async {
        let scene = scene(r#"[{"path": "/**", "method": "GET"}]"#).await;
        let mut client = scene.client().await;
        for path in [
            "/a/../b",
            "/%2e%2e/a",
            "//a",
            "/a%2fb",
            "/a\\b",
            "/%252e",
            "/a/..;/b",
            "/\u{e9}",
            "/%",
            "/%00",
        ] {
            client.says(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            client.is_told("403", false).await;
        }
        client.says("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.hears("HTTP/1.1 403 Forbidden\r\n").await;
        // A denied head has no body, so that the next answer begins right after it.
        client.hears("Content-Type: text/plain; charset=utf-8\r\nContent-Length: 25\r\nCache-Control: no-store\r\n\r\n").await;
        client.says(GET).await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        let records = scene.records(11).await;
        assert_eq!(records[0].denial, Some(Denial::Path(Ambiguity::DotSegment)));
        assert_eq!(scene.counts().denied, 11);
    });
}

#[test]
fn the_body_of_a_denied_request_is_drained_or_the_connection_closed() {
    run(async {
        let scene = scene(r#"[{"path": "/a"}]"#).await;
        let mut client = scene.client().await;
        client.says("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n").await;
        client.is_told("403", false).await;
        client.says(vec![b'x'; 50_000]).await;
        client.says(GET).await;
        scene.accept().await.hears(GET).await;
        for head in [
            "Content-Length: 70000",
            "Transfer-Encoding: chunked",
            "Content-Length: 5\r\nExpect: 100-continue",
            "Connection: close",
        ] {
            let mut client = scene.client().await;
            client.says(format!("POST /b HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n")).await;
            client.is_told("403", true).await;
            client.hears_the_end().await;
        }
    });
}

#[test]
fn what_is_no_request_ends_the_connection() {
    run(async {
        let scene = scene(ANY).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        for (head, status) in [
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "400",
            ),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 0\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "400"),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow\r\n\r\n", "501"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", "400"),
            ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
            ("\x00\x01\x02\r\n\r\n", "400"),
            ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "505"),
        ] {
            let mut client = scene.client().await;
            client.says(format!("{head}{smuggled}")).await;
            client.is_told(status, true).await;
            client.hears_the_end().await;
        }
        let mut client = scene.client().await;
        client.says("GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
        client.says(vec![b'a'; 33 << 10]).await;
        client.is_told("431", true).await;
        let counts = scene.counts();
        assert_eq!((counts.malformed, counts.allowed), (10, 0));
        assert!(scene.records(10).await.iter().all(|record| record.fault.is_some()));
    });
}

#[test]
fn a_body_that_turns_out_malformed_ends_both_connections() {
    run(async {
        let scene = scene(ANY).await;
        let mut client = scene.client().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        client.says(head).await;
        let mut server = scene.accept().await;
        server.hears(head).await;
        client.says("5x\r\n").await;
        client.is_told("400", true).await;
        client.hears_the_end().await;
        server.hears_the_end().await;
    });
}

#[test]
fn one_empty_line_before_a_request_is_ignored() {
    run(async {
        let scene = scene(ANY).await;
        let mut client = scene.client().await;
        client.says(format!("\r\n{GET}")).await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        server.says(OK).await;
        client.hears(OK).await;
        client.says(format!("\r\n\r\n{GET}")).await;
        client.is_told("400", true).await;
    });
}

#[test]
fn old_clients_are_served() {
    run(async {
        let scene = scene(ANY).await;
        let mut client = scene.client().await;
        let get = "GET / HTTP/1.0\r\n\r\n";
        client.says(get).await;
        let mut server = scene.accept().await;
        server.hears(get).await;
        server.says("HTTP/1.0 200 OK\r\n\r\nall of it").await;
        drop(server);
        assert_eq!(client.rest().await, b"HTTP/1.0 200 OK\r\n\r\nall of it");
    });
}
