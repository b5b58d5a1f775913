//! HTTP/2 and gRPC: streams between the `h2` crate's client and server, which the test plays both.

use std::future::{Future, poll_fn};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use porin::proxy::{Denial, Limits, NoRules};
use porin::types::http::Ambiguity;
use tokio::net::TcpStream;

use crate::support::{ANY, Scene, matcher, ruleset, run, scene, scene_of, soon, until};

async fn client(scene: &Scene) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(scene.worker).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    requests
}

struct Server(tokio::sync::mpsc::UnboundedReceiver<(Request<RecvStream>, SendResponse<Bytes>)>);

impl Server {
    async fn of(scene: &Scene) -> Server {
        let stream = scene.accept().await.0;
        let (requests, all) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok(request)) = connection.accept().await {
                let _ = requests.send(request);
            }
        });
        Server(all)
    }

    #[track_caller]
    fn request(&mut self) -> impl Future<Output = (Request<RecvStream>, SendResponse<Bytes>)> {
        let next = soon("a request at the server", self.0.recv());
        async { next.await.unwrap() }
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.example{path}")).body(()).unwrap()
}

async fn ask(
    requests: &mut SendRequest<Bytes>,
    request: Request<()>,
    end: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    soon("room for a stream", poll_fn(|cx| requests.poll_ready(cx))).await.unwrap();
    requests.send_request(request, end).unwrap()
}

async fn data(body: &mut RecvStream) -> Option<Bytes> {
    let data = soon("data", body.data()).await?.unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    Some(data)
}

async fn text(response: Response<RecvStream>) -> (StatusCode, HeaderMap, String) {
    let (parts, mut body) = response.into_parts();
    let mut text = Vec::new();
    while let Some(part) = data(&mut body).await {
        text.extend_from_slice(&part);
    }
    (parts.status, parts.headers, String::from_utf8(text).unwrap())
}

#[test]
fn streams_are_judged_one_by_one() {
    run(async {
        let scene = scene(r#"[{"path": "/a/**", "host": "a.example"}]"#).await;
        let mut requests = client(&scene).await;
        let (denied, _) = ask(&mut requests, get("/b"), true).await;
        let (status, headers, body) = text(soon("an answer", denied).await.unwrap()).await;
        assert_eq!((status.as_u16(), body.as_str()), (403, "denied by network policy\n"));
        assert_eq!(headers["content-length"], "25");
        let (first, _) = ask(&mut requests, get("/a/1?x=/../"), true).await;
        let (second, _) = ask(&mut requests, get("/a/2"), true).await;
        let mut server = Server::of(&scene).await;
        let (one, mut respond_one) = server.request().await;
        let (two, mut respond_two) = server.request().await;
        assert_eq!(one.uri(), "http://a.example/a/1?x=/../");
        assert_eq!(two.uri().path(), "/a/2");
        // In any order.
        respond_two
            .send_response(Response::new(()), false)
            .unwrap()
            .send_data("two".into(), true)
            .unwrap();
        assert_eq!(text(soon("two", second).await.unwrap()).await.2, "two");
        respond_one.send_response(Response::new(()), true).unwrap();
        assert_eq!(text(soon("one", first).await.unwrap()).await.2, "");
        let records = scene.records(3).await;
        assert_eq!((records[0].status, records[0].ingress), (Some(403), None));
        assert_eq!((records[1].path.as_str(), records[1].status), ("/a/2", Some(200)));
        drop((requests, server));
        scene.is_idle().await;
    });
}

#[test]
fn ambiguous_paths_and_hosts_are_denied() {
    run(async {
        let scene = scene(ANY).await;
        let mut requests = client(&scene).await;
        for path in ["/a/../b", "/%2e", "//a", "/a%2Fb", "/a%5cb", "/%2541", "/a/;/b"] {
            let (denied, _) = ask(&mut requests, get(path), true).await;
            assert_eq!(soon("an answer", denied).await.unwrap().status(), 403, "{path}");
        }
        let host = |host: &str| {
            let mut request = get("/a");
            request.headers_mut().insert("host", host.parse().unwrap());
            request
        };
        let mut two = host("a.example");
        two.headers_mut().append("host", "a.example".parse().unwrap());
        let star = Request::get("*").body(()).unwrap();
        for request in [host("b.example"), host("a b"), two, star] {
            let (denied, _) = ask(&mut requests, request, true).await;
            assert_eq!(soon("an answer", denied).await.unwrap().status(), 400);
        }
        let records = scene.records(11).await;
        assert_eq!(records[0].denial, Some(Denial::Path(Ambiguity::DotSegment)));
        assert!(records[7].fault.is_some());
        let counts = scene.counts();
        assert_eq!((counts.denied, counts.malformed, counts.allowed), (7, 4, 0));
    });
}

#[test]
fn grpc_streams_both_ways_with_trailers() {
    run(async {
        let scene = scene(r#"[{"method": "POST", "path": "/shop.Cart/*"}]"#).await;
        let mut requests = client(&scene).await;
        let call = |path: &str| {
            let request = Request::post(format!("http://a.example{path}"));
            request
                .header("content-type", "application/grpc+proto")
                .header("te", "trailers")
                .body(())
                .unwrap()
        };
        let (denied, _body) = ask(&mut requests, call("/shop.Admin/Drop"), false).await;
        let denied = soon("an answer", denied).await.unwrap();
        assert_eq!(
            (denied.status().as_u16(), &denied.headers()["grpc-status"]),
            (200, &"7".parse().unwrap())
        );
        assert_eq!(denied.headers()["content-type"], "application/grpc");
        assert!(denied.body().is_end_stream());

        let (answer, mut up) = ask(&mut requests, call("/shop.Cart/Watch"), false).await;
        let mut server = Server::of(&scene).await;
        let (request, mut respond) = server.request().await;
        assert_eq!(request.headers()["te"], "trailers");
        let mut heard = request.into_body();
        let mut down = respond.send_response(Response::new(()), false).unwrap();
        let mut body = soon("an answer", answer).await.unwrap().into_body();
        for n in 0..100 {
            up.send_data(format!("question {n}").into(), false).unwrap();
            assert_eq!(data(&mut heard).await.unwrap(), format!("question {n}"));
            down.send_data(format!("answer {n}").into(), false).unwrap();
            assert_eq!(data(&mut body).await.unwrap(), format!("answer {n}"));
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        up.send_trailers(trailers).unwrap();
        assert!(data(&mut heard).await.is_none());
        assert_eq!(soon("trailers", heard.trailers()).await.unwrap().unwrap()["x-sum"], "1");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        down.send_trailers(trailers).unwrap();
        assert!(data(&mut body).await.is_none());
        assert_eq!(soon("trailers", body.trailers()).await.unwrap().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn interim_answers_pass() {
    run(async {
        let scene = scene(ANY).await;
        let mut requests = client(&scene).await;
        let (mut answer, _) = ask(&mut requests, get("/"), true).await;
        let (_, mut respond) = Server::of(&scene).await.request().await;
        let hints = Response::builder().status(103).header("link", "x").body(()).unwrap();
        respond.send_informational(hints).unwrap();
        let interim =
            soon("103", poll_fn(|cx| answer.poll_informational(cx))).await.unwrap().unwrap();
        assert_eq!(
            (interim.status().as_u16(), &interim.headers()["link"]),
            (103, &"x".parse().unwrap())
        );
        respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(soon("200", answer).await.unwrap().status(), 200);
    });
}

#[test]
fn resets_reach_the_other_side() {
    run(async {
        let scene = scene(ANY).await;
        let mut requests = client(&scene).await;
        let (answer, mut up) = ask(&mut requests, get("/"), false).await;
        let mut server = Server::of(&scene).await;
        let (request, mut respond) = server.request().await;
        up.send_reset(Reason::CANCEL);
        let error = soon("a reset", request.into_body().data()).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::CANCEL));
        assert!(soon("a reset", poll_fn(|cx| respond.poll_reset(cx))).await.is_ok());
        drop(answer);
        let (answer, _up) = ask(&mut requests, get("/"), false).await;
        let (_request, mut respond) = server.request().await;
        respond.send_reset(Reason::ENHANCE_YOUR_CALM);
        let error = soon("a reset", answer).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
        // In the middle of an answer.
        let (answer, _) = ask(&mut requests, get("/"), true).await;
        let (_request, mut respond) = server.request().await;
        let mut down = respond.send_response(Response::new(()), false).unwrap();
        down.send_data("half".into(), false).unwrap();
        let mut body = soon("an answer", answer).await.unwrap().into_body();
        assert_eq!(data(&mut body).await.unwrap(), "half");
        down.send_reset(Reason::INTERNAL_ERROR);
        let error = soon("a reset", body.data()).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    });
}

#[test]
fn a_reader_that_is_slow_slows_the_writer() {
    run(async {
        let limits = Limits::default();
        let most = 2 * limits.stream_window as usize + (64 << 10) + limits.stream_window as usize;
        let scene = scene_of(&ruleset(ANY), limits).await;
        let mut requests = client(&scene).await;
        let (answer, _) = ask(&mut requests, get("/"), true).await;
        let (_, mut respond) = Server::of(&scene).await.request().await;
        let mut down = respond.send_response(Response::new(()), false).unwrap();
        let mut body = soon("an answer", answer).await.unwrap().into_body();
        // As long as there is room; the client takes nothing.
        let mut sent = 0;
        loop {
            down.reserve_capacity(64 << 10);
            let room = poll_fn(|cx| down.poll_capacity(cx));
            match tokio::time::timeout(std::time::Duration::from_millis(300), room).await {
                Ok(room) => {
                    let room = room.unwrap().unwrap();
                    down.send_data(vec![b'x'; room].into(), false).unwrap();
                    sent += room;
                }
                Err(_) => break,
            }
            assert!(sent <= most, "{sent}");
        }
        down.send_data(Bytes::new(), true).unwrap();
        let mut heard = 0;
        while let Some(part) = data(&mut body).await {
            heard += part.len();
        }
        assert_eq!(heard, sent);
    });
}

#[test]
fn the_next_stream_is_judged_by_the_rules_of_its_time() {
    run(async {
        let scene = scene(r#"[{"path": "/a"}]"#).await;
        let mut requests = client(&scene).await;
        let (first, _) = ask(&mut requests, get("/a"), true).await;
        let mut server = Server::of(&scene).await;
        let (_, mut respond) = server.request().await;
        scene.book.put(Ok(matcher(&ruleset(r#"[{"path": "/b"}]"#))));
        let (second, _) = ask(&mut requests, get("/a"), true).await;
        assert_eq!(soon("an answer", second).await.unwrap().status(), 403);
        respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(soon("an answer", first).await.unwrap().status(), 200);
        scene.book.put(Err(NoRules::Denied));
        let (third, _) = ask(&mut requests, get("/b"), true).await;
        assert!(soon("an end", third).await.is_err());
        scene.is_idle().await;
    });
}

#[test]
fn a_server_that_goes_is_told_of() {
    run(async {
        let scene = scene(ANY).await;
        let mut requests = client(&scene).await;
        let (answer, _) = ask(&mut requests, get("/"), true).await;
        let stream = scene.accept().await;
        drop(stream);
        // It never spoke HTTP/2: that is an answer, or the stream's end.
        match soon("an answer", answer).await {
            Ok(answer) => assert_eq!(answer.status(), 502),
            Err(error) => assert!(error.reason().is_some() || error.is_io(), "{error}"),
        }
        until("the client is told to go", || requests.poll_ready_now().is_err().then_some(()))
            .await;
        scene.is_idle().await;
    });
}

trait ReadyNow {
    fn poll_ready_now(&mut self) -> Result<(), h2::Error>;
}

impl ReadyNow for SendRequest<Bytes> {
    fn poll_ready_now(&mut self) -> Result<(), h2::Error> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match self.poll_ready(&mut cx) {
            std::task::Poll::Ready(ready) => ready,
            std::task::Poll::Pending => Ok(()),
        }
    }
}

#[test]
fn connect_needs_a_rule_that_names_it() {
    run(async {
        let connect = || {
            let mut request = Request::new(());
            *request.method_mut() = Method::CONNECT;
            *request.uri_mut() = "b.example:443".parse().unwrap();
            request
        };
        let any = scene("[{}]").await;
        let (denied, _up) = ask(&mut client(&any).await, connect(), false).await;
        assert_eq!(soon("an answer", denied).await.unwrap().status(), 403);
        let named = scene(r#"[{"method": "CONNECT", "host": "b.example:443"}]"#).await;
        let mut requests = client(&named).await;
        let (answer, mut up) = ask(&mut requests, connect(), false).await;
        let (request, mut respond) = Server::of(&named).await.request().await;
        assert_eq!(request.method(), Method::CONNECT);
        let _down = respond.send_response(Response::new(()), false).unwrap();
        assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
        up.send_data("through".into(), false).unwrap();
        assert_eq!(data(&mut request.into_body()).await.unwrap(), "through");
    });
}
