//! RFC 9112 and 9110, what a recipient MUST refuse or may not take otherwise: heads in tables.

use porin::proxy::{Asked, Body, Limits, RequestHead, ResponseHead, Target};

fn request(text: &str) -> Result<(Option<String>, Body, bool), String> {
    let head = RequestHead::parse(text.as_bytes(), &Limits::default());
    let head = head.map_err(|bad| format!("{} {bad}", bad.status()))?;
    let path = head.path().map(|path| String::from_utf8_lossy(path).into_owned());
    Ok((path, head.body.clone(), head.persistent))
}

#[track_caller]
fn taken(text: &str, path: Option<&str>, body: Body, persistent: bool) {
    let wanted = (path.map(str::to_owned), body, persistent);
    assert_eq!(request(text), Ok(wanted), "{text:?}");
}

#[track_caller]
fn refused(text: &str, why: &str) {
    assert_eq!(request(text).map(|_| ()), Err(why.to_owned()), "{text:?}");
}

#[test]
fn request_lines() {
    let none = Body::length(0);
    let get = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    for (line, path) in [
        ("GET / HTTP/1.1", "/"),
        ("GET /a/b?q=/../x HTTP/1.1", "/a/b"),
        ("GET /a?b?c HTTP/1.1", "/a"),
        ("GET http://a/x?y HTTP/1.1", "/x"),
        ("GET HTTP://A HTTP/1.1", "/"),
        ("OPTIONS * HTTP/1.1", "*"),
        ("OPTIONS http://a HTTP/1.1", "*"),
        ("PROPFIND /a HTTP/1.1", "/a"),
        ("GET /../%2e//\\ HTTP/1.1", "/../%2e//\\"),
    ] {
        taken(&get(line), Some(path), none.clone(), true);
    }
    for (line, why) in [
        ("GET / HTTP/1.2", "505 not HTTP/1.1 or HTTP/1.0"),
        ("GET / HTTP/2.0", "505 not HTTP/1.1 or HTTP/1.0"),
        ("GET / http/1.1", "505 not HTTP/1.1 or HTTP/1.0"),
        ("GET / HTTP/1.10", "505 not HTTP/1.1 or HTTP/1.0"),
        ("GET /a b HTTP/1.1", "505 not HTTP/1.1 or HTTP/1.0"),
        ("GET  / HTTP/1.1", "505 not HTTP/1.1 or HTTP/1.0"),
        ("GET / HTTP/1.1 ", "505 not HTTP/1.1 or HTTP/1.0"),
        ("GET /", "400 no request line"),
        ("GET", "400 no request line"),
        (" GET / HTTP/1.1", "400 no method"),
        ("G\x00T / HTTP/1.1", "400 no method"),
        ("G(T / HTTP/1.1", "400 no method"),
        ("GET\t/\tHTTP/1.1", "400 no request line"),
        ("GET /a#b HTTP/1.1", "400 no valid target"),
        ("GET /a\x01 HTTP/1.1", "400 no valid target"),
        ("GET /?\u{e9} HTTP/1.1", "400 no valid target"),
        ("GET /?<> HTTP/1.1", "400 no valid target"),
        ("GET a HTTP/1.1", "400 no valid target"),
        ("GET a/b HTTP/1.1", "400 no valid target"),
        ("GET * HTTP/1.1", "400 no valid target"),
        ("GET https://a/ HTTP/1.1", "400 no valid target"),
        ("GET ftp://a/ HTTP/1.1", "400 no valid target"),
        ("GET http:///x HTTP/1.1", "400 no valid target"),
        ("GET http://u@a/ HTTP/1.1", "400 no valid target"),
        ("GET http://a?x HTTP/1.1", "400 no valid target"),
        ("GET http://a:0/ HTTP/1.1", "400 no valid target"),
        ("CONNECT a HTTP/1.1", "400 no valid target"),
        ("CONNECT /x HTTP/1.1", "400 no valid target"),
        ("GET http://b/ HTTP/1.1", "400 the target's host is not that of Host"),
        ("GET http://a:80/ HTTP/1.1", "400 the target's host is not that of Host"),
        ("CONNECT b:80 HTTP/1.1", "400 the target's host is not that of Host"),
    ] {
        refused(&get(line), why);
    }
    refused(&get(&format!("GET /{} HTTP/1.1", "a".repeat(8192))), "414 the target is too long");
    taken("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", None, none, true);
}

#[test]
fn hosts() {
    let none = Body::length(0);
    for host in ["a", "a.example:8080", "[2001:db8::1]", "192.0.2.1:80", "A_b-c"] {
        taken(&format!("GET / HTTP/1.1\r\nhOsT: \t{host} \r\n\r\n"), Some("/"), none.clone(), true);
    }
    taken("GET / HTTP/1.0\r\n\r\n", Some("/"), none, false);
    for fields in [
        "",
        "Host:\r\n",
        "Host: \r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host: a, b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a b\r\n",
        "Host: a:\r\n",
        "Host: a:99999\r\n",
        "Host: a:8x\r\n",
        "Host: [::1\r\n",
        "Host: \u{e9}\r\n",
        "Host: http://a\r\n",
        "Host: a.\r\n",
        "Host: 127.1\r\n",
        "Host: 0x7f000001\r\n",
        "Host: a%00\r\n",
    ] {
        refused(&format!("GET / HTTP/1.1\r\n{fields}\r\n"), "400 not one valid Host");
    }
    refused("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "400 not one valid Host");
}

#[test]
fn field_lines() {
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for (fields, why) in [
        ("X: a\r\n b\r\n", "400 a header is folded"),
        ("X: a\r\n\tb\r\n", "400 a header is folded"),
        ("X : a\r\n", "400 the name of a header is no token"),
        ("X\t: a\r\n", "400 the name of a header is no token"),
        (": a\r\n", "400 the name of a header is no token"),
        ("X(y): a\r\n", "400 the name of a header is no token"),
        ("\u{e9}: a\r\n", "400 the name of a header is no token"),
        ("X\x00: a\r\n", "400 the name of a header is no token"),
        ("X\r\n", "400 a header has no colon"),
        ("X: a\x00b\r\n", "400 a header has a control character"),
        ("X: a\x0bb\r\n", "400 a header has a control character"),
        ("X: a\x7fb\r\n", "400 a header has a control character"),
        ("X: a\nY: b\r\n", "400 a line does not end with CR LF"),
        ("X: a\rY: b\r\n", "400 a line does not end with CR LF"),
        ("X: a\r\r\n", "400 a line does not end with CR LF"),
        ("X: a\n", "400 a line does not end with CR LF"),
        ("Content_Length: 5\r\n", "400 a header can be taken for one about the message's end"),
        (
            "Transfer_Encoding: chunked\r\n",
            "400 a header can be taken for one about the message's end",
        ),
    ] {
        refused(&post(fields), why);
    }
    taken(&post("X: \u{e9}\t x\r\nY:\r\nZ-1_a: !\r\n"), Some("/"), Body::length(0), true);
    let many: String = (0..99).map(|n| format!("X-{n}: y\r\n")).collect();
    taken(&post(&many), Some("/"), Body::length(0), true);
    refused(&post(&format!("{many}Z: z\r\n")), "431 too many headers");
}

#[test]
fn where_requests_end() {
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    taken(&post("Content-Length: 5\r\n"), Some("/"), Body::length(5), true);
    taken(&post("content-length:5 \r\n"), Some("/"), Body::length(5), true);
    taken(&post("Content-Length: 0\r\n"), Some("/"), Body::length(0), true);
    taken(&post("Transfer-Encoding: Chunked\r\n"), Some("/"), Body::chunked(), true);
    let length = "400 Content-Length is not one number";
    for value in [
        "",
        "-1",
        "+1",
        "1 2",
        "1,1",
        "1, 1",
        "0x5",
        "5.0",
        "\u{665}",
        "05",
        "00",
        "1e1",
        "99999999999999999999",
        "5;a",
    ] {
        refused(&post(&format!("Content-Length: {value}\r\n")), length);
    }
    refused(&post("Content-Length: 5\r\nContent-Length: 5\r\n"), length);
    refused(&post("Content-Length: 5\r\ncontent-length: 6\r\n"), length);
    let coding = "501 Transfer-Encoding is not chunked";
    for value in [
        "",
        "gzip",
        "identity",
        "chunked, chunked",
        "gzip, chunked",
        "chunked;q=1",
        "xchunked",
        "chunked\x0b",
        "\"chunked\"",
        ",chunked",
    ] {
        let text = post(&format!("Transfer-Encoding: {value}\r\n"));
        assert!(request(&text).is_err(), "{text:?}");
        if !value.contains('\x0b') {
            refused(&text, coding);
        }
    }
    refused(&post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), coding);
    refused(&post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), coding);
    let both = "400 both Content-Length and Transfer-Encoding";
    refused(&post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), both);
    refused(&post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), both);
    refused(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "400 Transfer-Encoding in HTTP/1.0",
    );
    refused(
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\n",
        "400 CONNECT with a body",
    );
}

#[test]
fn whether_another_request_follows() {
    let get =
        |version: &str, fields: &str| format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
    for (version, fields, persistent) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, Close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        taken(&get(version, fields), Some("/"), Body::length(0), persistent);
    }
}

#[test]
fn forms_of_targets() {
    let limits = Limits::default();
    let form = |text: &'static str| RequestHead::parse(text.as_bytes(), &limits).unwrap().form;
    assert_eq!(form("GET /a?b HTTP/1.0\r\n\r\n"), Target::Path(b"/a"));
    assert_eq!(form("OPTIONS * HTTP/1.0\r\n\r\n"), Target::Asterisk);
    assert_eq!(form("CONNECT a:1 HTTP/1.0\r\n\r\n"), Target::Authority);
}

fn response(text: &str, asked: Asked) -> Result<(u16, Body, bool), String> {
    let head = ResponseHead::parse(text.as_bytes(), asked, &Limits::default());
    head.map(|head| (head.status, head.body, head.persistent)).map_err(|bad| bad.to_string())
}

#[test]
fn where_responses_end() {
    use Asked::{Connect, Head, Other};
    let (none, close) = (Body::length(0), Body::until_close());
    for (text, asked, status, body, persistent) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Other, 200, Body::length(5), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Head, 200, none.clone(), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Connect, 200, none.clone(), true),
        ("HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\n", Connect, 403, Body::length(5), true),
        ("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", Other, 200, Body::chunked(), true),
        ("HTTP/1.1 200\r\n\r\n", Other, 200, close.clone(), false),
        ("HTTP/1.1 204 No Content\r\n\r\n", Other, 204, none.clone(), true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Other, 204, none.clone(), true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Other, 304, none.clone(), true),
        ("HTTP/1.1 100 Continue\r\n\r\n", Other, 100, none.clone(), true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Other, 200, Body::length(5), false),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n",
            Other,
            200,
            Body::length(5),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n",
            Other,
            200,
            Body::length(5),
            false,
        ),
    ] {
        assert_eq!(response(text, asked), Ok((status, body, persistent)), "{text:?}");
    }
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        "HTTP/1.1 200 OK\nX: a\r\n\r\n",
        "HTTP/1.1 200 O\x00K\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        " HTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert!(response(text, Other).is_err(), "{text:?}");
    }
    let tunnel = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(response(tunnel, Connect).is_err());
}

/// How many bytes of the text are the body, however it comes, if it is one.
fn body(text: &str) -> Option<usize> {
    let whole = |step: usize| {
        let (mut body, mut used) = (Body::chunked(), 0);
        for part in text.as_bytes().chunks(step) {
            let read = body.advance(part).map_err(|_| None)?;
            used += read.bytes;
            assert_eq!(read.last, body.is_over());
            if read.last {
                return Ok(used);
            }
            assert_eq!(read.bytes, part.len());
        }
        Err(Some(used))
    };
    let first = whole(1);
    for step in [2, 3, 7, 1000] {
        assert_eq!(whole(step), first, "{text:?} by {step}");
    }
    match first {
        Ok(used) => Some(used),
        Err(None) => None,
        Err(Some(_)) => panic!("{text:?} is not whole"),
    }
}

#[test]
fn chunks() {
    for (text, rest) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "GET"),
        ("a;x=\"y\"\r\n0123456789\r\n0;\r\n\r\n", "x"),
        ("00005\r\nhello\r\n0\r\n\r\n", ""),
        ("1\r\n\r\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n", "\r\n"),
        ("B\r\n\r\n0\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", ""),
    ] {
        let whole = format!("{text}{rest}");
        assert_eq!(body(&whole), Some(text.len()), "{whole:?}");
    }
    let extension = format!("0;{}\r\n\r\n", "a".repeat(300));
    let trailers = format!("0\r\nX: {}\r\n\r\n", "a".repeat(9000));
    for text in [
        "\r\n",
        "x\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "5\nhello\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\rhello",
        "-1\r\n",
        "+5\r\n",
        "0x5\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "0000000000000000\r\n\r\n",
        "5;\x01\r\n",
        "5;a\nb\r\n",
        "0\r\n X: a\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\n: a\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\n\n",
        "0\r\nX: \x00\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\ntransfer_encoding: chunked\r\n\r\n",
        "0\r\nHost: b\r\n\r\n",
        "0\r\nAuthorization: b\r\n\r\n",
        &extension,
        &trailers,
    ] {
        assert_eq!(body(text), None, "{text:?}");
    }
    assert_eq!(body("0\r\nHosts: a\r\n\r\n"), Some(15));
    assert_eq!(body("0\r\nTransfer-Encodings-And-More: a\r\n\r\n"), Some(37));
}
