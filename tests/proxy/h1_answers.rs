//! HTTP/1.1 answers: where they end, and what a server must not get through.

use crate::support::{ANY, Peer, Scene, run, scene};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn asked(scene: &Scene, request: &str) -> (Peer, Peer) {
    let mut client = scene.client().await;
    client.says(request).await;
    let mut server = scene.accept().await;
    server.hears(request).await;
    (client, server)
}

#[test]
fn answers_without_a_body_are_followed_by_the_next() {
    run(async {
        let scene = scene(ANY).await;
        let (mut client, mut server) = asked(&scene, GET).await;
        let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
        for (answer, next) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", GET),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", head),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", head),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", GET),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                GET,
            ),
            (OK, GET),
        ] {
            server.says(answer).await;
            client.hears(answer).await;
            client.says(next).await;
            server.hears(next).await;
        }
    });
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    run(async {
        let scene = scene(ANY).await;
        let post =
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        let (mut client, mut server) = asked(&scene, post).await;
        server.says("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.hears("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.says("abc").await;
        server.hears("abc").await;
        server.says(OK).await;
        client.hears(OK).await;
    });
}

#[test]
fn an_answer_may_come_before_the_request_is_over() {
    run(async {
        let scene = scene(ANY).await;
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc";
        let (mut client, mut server) = asked(&scene, post).await;
        server.says(OK).await;
        client.hears(OK).await;
        client.says(format!("def{GET}")).await;
        server.hears(format!("def{GET}")).await;
        server.says(OK).await;
        client.hears(OK).await;
        // If it was the last, nobody waits for the rest.
        client.says(post).await;
        server.hears(post).await;
        let last = "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        server.says(last).await;
        client.hears(last).await;
        client.hears_the_end().await;
    });
}

#[test]
fn an_answer_that_is_none_is_not_passed_on() {
    run(async {
        let scene = scene(ANY).await;
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
            "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
        ] {
            let (mut client, mut server) = asked(&scene, GET).await;
            server.says(answer).await;
            client.is_told("502", true).await;
            client.hears_the_end().await;
            server.hears_the_end().await;
        }
        let (mut client, mut server) = asked(&scene, GET).await;
        server.says("HTTP/1.1 102 Processing\r\n\r\n".repeat(20)).await;
        client.hears("HTTP/1.1 102 Processing\r\n\r\n".repeat(17)).await;
        client.is_told("502", true).await;
        assert_eq!(scene.counts().bad_answers, 7);
    });
}

#[test]
fn what_nobody_asked_for_is_nobodys_answer() {
    run(async {
        let scene = scene(ANY).await;
        // With the answer: a response split in two.
        let (mut client, mut server) = asked(&scene, GET).await;
        server.says(format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")).await;
        client.hears(OK).await;
        client.hears_the_end().await;
        // And in between.
        let (mut client, mut server) = asked(&scene, GET).await;
        server.says(OK).await;
        client.hears(OK).await;
        server.says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
        client.hears_the_end().await;
    });
}

#[test]
fn a_server_that_goes_takes_the_client_along() {
    run(async {
        let scene = scene(ANY).await;
        let (mut client, server) = asked(&scene, GET).await;
        drop(server);
        client.hears_the_end().await;
        let (mut client, mut server) = asked(&scene, GET).await;
        server.says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").await;
        drop(server);
        client.hears("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").await;
        client.hears_the_end().await;
        let (mut client, mut server) = asked(&scene, GET).await;
        server.says(OK).await;
        client.hears(OK).await;
        drop(server);
        client.hears_the_end().await;
    });
}

#[test]
fn a_server_that_is_not_there_is_told_of() {
    run(async {
        let scene = scene(ANY).await;
        let Scene { server, worker, service, .. } = scene;
        drop(server);
        let mut client = Peer(tokio::net::TcpStream::connect(worker).await.unwrap());
        client.says(GET).await;
        client.is_told("502", true).await;
        assert_eq!(service.counters.now().unreachable, 1);
    });
}
