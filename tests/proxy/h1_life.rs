//! A connection's life: what comes late, who goes first, how much is held, and rules that change meanwhile.

use std::time::Duration;

use porin::proxy::{Limits, NoRules};

use crate::support::{ANY, matcher, ruleset, run, scene, scene_of, until};

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn the_next_request_is_judged_by_the_rules_of_its_time() {
    run(async {
        let scene = scene(r#"[{"path": "/a"}]"#).await;
        let mut client = scene.client().await;
        client.says(GET).await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        scene.book.put(Ok(matcher(&ruleset(r#"[{"path": "/b"}]"#))));
        // What was allowed is answered.
        server.says(OK).await;
        client.hears(OK).await;
        client.says(GET).await;
        client.is_told("403", false).await;
        scene.book.put(Ok(matcher(&ruleset(ANY))));
        client.says(GET).await;
        server.hears(GET).await;
        server.says(OK).await;
        client.hears(OK).await;
        scene.book.put(Err(NoRules::Unknown(7)));
        client.says(GET).await;
        client.hears_the_end().await;
        server.hears_the_end().await;
        // Nor are there rules for those that come.
        scene.client().await.hears_the_end().await;
        assert_eq!(scene.counts().without_rules, 2);
        let told = scene.records(5).await.pop().unwrap().fault.unwrap();
        assert!(told.contains("number 7"), "{told}");
    });
}

#[test]
fn what_comes_too_late_does_not_come() {
    run(async {
        let short = Duration::from_millis(200);
        let limits = Limits { head_time: short, ..Limits::default() };
        let scene = scene_of(&ruleset(ANY), limits).await;
        let mut client = scene.client().await;
        client.says("GET / HTTP/1.1\r\nHo").await;
        client.is_told("408", true).await;
        client.hears_the_end().await;
        // Nothing at all.
        scene.client().await.hears_the_end().await;
        assert_eq!(scene.counts().late, 2);

        let limits = Limits { idle_time: short, ..Limits::default() };
        let scene = scene_of(&ruleset(ANY), limits).await;
        let mut client = scene.client().await;
        client.says(GET).await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        // The server thinks for too long.
        client.is_told("504", true).await;
        server.hears_the_end().await;

        let limits = Limits { body_time: short, ..Limits::default() };
        let scene = scene_of(&ruleset(ANY), limits).await;
        let mut client = scene.client().await;
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab";
        client.says(post).await;
        let mut server = scene.accept().await;
        server.hears(post).await;
        client.is_told("504", true).await;
        server.hears_the_end().await;
        scene.is_idle().await;
    });
}

#[test]
fn a_connection_too_many_is_closed() {
    run(async {
        let limits = Limits { connections: 1, ..Limits::default() };
        let scene = scene_of(&ruleset(ANY), limits).await;
        let mut first = scene.client().await;
        first.says(GET).await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        scene.client().await.hears_the_end().await;
        server.says(OK).await;
        first.hears(OK).await;
        drop(first);
        scene.is_idle().await;
        let mut third = scene.client().await;
        third.says(GET).await;
        scene.accept().await.hears(GET).await;
        assert_eq!(scene.counts().too_many, 1);
    });
}

#[test]
fn a_stream_of_events_may_be_silent_for_long() {
    run(async {
        let body_time = Duration::from_millis(100);
        let scene = scene_of(&ruleset(ANY), Limits { body_time, ..Limits::default() }).await;
        let mut client = scene.client().await;
        client.says(GET).await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        server.says(head).await;
        client.hears(head).await;
        // It would be over if it were, and the client would hear that.
        let mut byte = [0];
        let silence = tokio::time::timeout(5 * body_time, client.0.peek(&mut byte)).await;
        assert!(silence.is_err());
        server.says("1\r\nx\r\n").await;
        client.hears("1\r\nx\r\n").await;
    });
}

#[test]
fn a_client_may_be_done_with_asking() {
    run(async {
        let scene = scene(ANY).await;
        let mut client = scene.client().await;
        client.says(format!("{GET}{GET}")).await;
        client.falls_silent().await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        server.says(OK).await;
        server.hears(GET).await;
        server.hears_the_end().await;
        server.says(OK).await;
        client.hears(format!("{OK}{OK}")).await;
        client.hears_the_end().await;
        scene.is_idle().await;
    });
}

#[test]
fn a_client_that_goes_ends_the_servers_work() {
    run(async {
        let scene = scene(ANY).await;
        let mut client = scene.client().await;
        client.says("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
        let mut server = scene.accept().await;
        server.hears("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
        drop(client);
        server.hears_the_end().await;
        scene.is_idle().await;
    });
}

#[test]
fn a_reader_that_is_slow_slows_the_writer() {
    run(async {
        let scene = scene(ANY).await;
        let mut client = scene.client().await;
        client.says(GET).await;
        let mut server = scene.accept().await;
        server.hears(GET).await;
        const WHOLE: usize = 64 << 20;
        server.says(format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n")).await;
        // What the kernel's buffers take, and one of the worker's, long before the whole.
        let block = vec![b'x'; 1 << 20];
        let mut sent = 0;
        let mut still = 0;
        while still < 100 {
            match server.0.try_write(&block) {
                Ok(bytes) => (sent, still) = (sent + bytes, 0),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    still += 1;
                }
            }
        }
        assert!(sent < WHOLE / 2, "{sent}");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n");
        let rest = tokio::spawn(async move {
            server.says(vec![b'x'; WHOLE - sent]).await;
            server
        });
        client.hears(head).await;
        let mut heard = vec![0; 1 << 16];
        let mut all = 0;
        while all < WHOLE {
            let read = tokio::io::AsyncReadExt::read(&mut client.0, &mut heard).await.unwrap();
            assert!(heard[..read].iter().all(|byte| *byte == b'x'));
            all += read;
        }
        let mut server = rest.await.unwrap();
        client.says(GET).await;
        server.hears(GET).await;
    });
}

#[test]
fn many_requests_on_many_connections() {
    run(async {
        let scene = scene(r#"[{"path": "/a"}]"#).await;
        let mut clients = Vec::new();
        for _ in 0..50 {
            let mut client = scene.client().await;
            client.says(GET).await;
            let mut server = scene.accept().await;
            server.hears(GET).await;
            clients.push((client, server));
        }
        for _ in 0..20 {
            for (client, server) in &mut clients {
                server.says(OK).await;
                client.hears(OK).await;
                client.says(GET).await;
                server.hears(GET).await;
            }
        }
        drop(clients);
        until("all are allowed", || (scene.counts().allowed == 50 * 21).then_some(())).await;
        scene.is_idle().await;
    });
}
