//! Tunnels: after an upgrade or CONNECT that is allowed, and after no other.

use crate::support::{ANY, run, scene};

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

#[test]
fn a_websocket_is_a_tunnel_after_101() {
    run(async {
        let scene = scene(r#"[{"path": "/chat"}]"#).await;
        let mut client = scene.client().await;
        let ask = |path| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n"
            )
        };
        client.says(ask("/other")).await;
        client.is_told("403", false).await;
        client.says(ask("/chat")).await;
        let mut server = scene.accept().await;
        server.hears(ask("/chat")).await;
        server.says(format!("{SWITCH}\x00first")).await;
        client.hears(format!("{SWITCH}\x00first")).await;
        client.says("GET /secret HTTP/1.1\r\n\x00\x01").await;
        server.hears("GET /secret HTTP/1.1\r\n\x00\x01").await;
        // Each direction ends by itself.
        client.falls_silent().await;
        server.hears_the_end().await;
        server.says("last").await;
        client.hears("last").await;
        drop(server);
        client.hears_the_end().await;
        scene.is_idle().await;
    });
}

#[test]
fn an_upgrade_may_be_declined() {
    run(async {
        let scene = scene(ANY).await;
        let mut client = scene.client().await;
        let ask = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        let no = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n";
        client.says(ask).await;
        let mut server = scene.accept().await;
        server.hears(ask).await;
        server.says(no).await;
        client.hears(no).await;
        client.says(ask).await;
        server.hears(ask).await;
    });
}

#[test]
fn an_upgrade_to_http_is_not_offered_to_the_server() {
    run(async {
        let scene = scene(ANY).await;
        for (offer, left) in [
            (
                "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\nX: y\r\n",
                "X: y\r\n",
            ),
            (
                "connection: keep-alive ,Upgrade\r\nupgrade: websocket, H2C\r\n",
                "connection: keep-alive\r\n",
            ),
            ("Connection: upgrade\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n", ""),
            (
                "Connection: x, upgrade, y\r\nUpgrade: foo\r\nUpgrade: HTTP/2.0\r\n",
                "Connection: x, y\r\n",
            ),
        ] {
            let mut client = scene.client().await;
            client
                .says(format!("POST / HTTP/1.1\r\nHost: a\r\n{offer}Content-Length: 3\r\n\r\nabc"))
                .await;
            let mut server = scene.accept().await;
            server
                .hears(format!("POST / HTTP/1.1\r\nHost: a\r\n{left}Content-Length: 3\r\n\r\nabc"))
                .await;
            server.says(SWITCH).await;
            client.is_told("502", true).await;
        }
    });
}

#[test]
fn a_switch_that_was_not_asked_for_properly_is_none() {
    run(async {
        let scene = scene(ANY).await;
        for ask in [
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ] {
            let mut client = scene.client().await;
            client.says(ask).await;
            let mut server = scene.accept().await;
            server.hears(ask).await;
            server.says(SWITCH).await;
            client.is_told("502", true).await;
        }
    });
}

#[test]
fn connect_needs_a_rule_that_names_it() {
    run(async {
        let ask = |host| format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let any = scene("[{}]").await;
        let mut client = any.client().await;
        client.says(ask("a:443")).await;
        client.is_told("403", true).await;
        let scene = scene(r#"[{"method": "CONNECT", "host": "*.example:443"}]"#).await;
        let mut client = scene.client().await;
        client.says(ask("b.example:80")).await;
        client.is_told("403", true).await;
        let mut client = scene.client().await;
        client.says(ask("b.example:443")).await;
        let mut server = scene.accept().await;
        server.hears(ask("b.example:443")).await;
        server.says("HTTP/1.1 200 OK\r\n\r\nhi").await;
        client.hears("HTTP/1.1 200 OK\r\n\r\nhi").await;
        client.says("anything").await;
        server.hears("anything").await;
    });
}
