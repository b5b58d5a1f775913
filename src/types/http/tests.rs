//! What may be written, how it reads back, and what is refused with which words.

use super::*;

#[test]
fn paths_print_back() {
    for text in [
        "/",
        "/v1/items",
        "/v1/items/",
        "/**",
        "/v1/*/x",
        "/a*b*c",
        "/a/**/b",
        "/%20x",
        "/...",
        "/a;b=1",
        "regex:/v[0-9]+(/.*)?",
        "regex:(?x) /a b",
        "/[x]{y}|^",
    ] {
        let pattern: PathPattern = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(pattern.to_string(), text);
        let json = serde_json::to_string(&pattern).unwrap();
        assert_eq!(serde_json::from_str::<PathPattern>(&json).unwrap(), pattern);
    }
}

#[test]
fn paths_that_nothing_matches_are_refused() {
    let long = format!("/{}", "a".repeat(PathPattern::MAX));
    let wild = format!("/{}", "*/".repeat(PathPattern::MAX_WILD + 1));
    for text in [
        "",
        "*",
        "**",
        "v1",
        "/a?b",
        "/a#b",
        "//",
        "/a//b",
        "/./a",
        "/a/..",
        "/%2e",
        "/.%2E/x",
        "/a%2fb",
        "/a%5Cb",
        "/a\\b",
        "/%",
        "/%4",
        "/%zz",
        "/%2541",
        "/%00",
        "/%7f",
        "/é",
        "/a b",
        "/\"",
        "/a**",
        "/**a/b",
        "/***",
        "/..;/a",
        "/;x",
        "/a/;/b",
        "/%3bx",
        "regex:",
        "regex:(",
        "regex:a)(b",
        "regex:(?x)/a # (",
        "regex:(a{1000}){1000}",
        "regex:\\pL",
        &long,
        &wild,
    ] {
        let invalid = text.parse::<PathPattern>().expect_err(text);
        assert!(invalid.hint.is_some(), "{text}: {invalid}");
    }
}

#[test]
fn a_regular_expression_is_about_all_of_the_text() {
    let regular: Regular = "/a|/b".parse().unwrap();
    let compiled = regular.compile().unwrap();
    for (text, matches) in
        [("/a", true), ("/b", true), ("/ab", false), ("x/a", false), ("/a\n", false)]
    {
        assert_eq!(compiled.is_match(text.as_bytes()), matches, "{text}");
    }
}

#[test]
fn methods_keep_their_case() {
    for text in ["GET", "PROPFIND", "M-SEARCH", "foo"] {
        assert_eq!(text.parse::<Method>().unwrap().to_string(), text);
    }
    for text in ["", "get", "Post", "GE T", "GET,POST", "*", "é", &"A".repeat(33)] {
        assert!(text.parse::<Method>().expect_err(text).hint.is_some());
    }
}

#[test]
fn hosts_print_back_in_lower_case() {
    for (text, printed) in [
        ("API.example.org", "api.example.org"),
        ("*.example.org:8080", "*.example.org:8080"),
        ("localhost", "localhost"),
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[::1]:8080", "[::1]:8080"),
        ("my_service", "my_service"),
    ] {
        assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), printed);
    }
    for text in [
        "",
        "*",
        "*.",
        ".",
        "a..b",
        "a.",
        "http://a",
        "a:0",
        "a:65536",
        "a:",
        "a:+1",
        "a b",
        "::1",
        "[::1",
        "[::1%lo]",
        "*.192.0.2.1",
        "192.0.2.256",
        "0x7f.1",
        "user@a",
        "a/b",
        "é.example",
        "a.*.b",
        "*a.b",
    ] {
        let invalid = text.parse::<HostPattern>().expect_err(text);
        assert!(invalid.hint.is_some(), "{text}: {invalid}");
    }
}

#[test]
fn hosts_match_with_and_without_ports() {
    let matches = |pattern: &str, host: &str| {
        let authority = Authority::parse(host).unwrap_or_else(|| panic!("{host}"));
        pattern.parse::<HostPattern>().unwrap().matches(&authority)
    };
    assert!(matches("a.example", "A.Example"));
    assert!(matches("a.example", "a.example:8080"));
    assert!(matches("a.example:80", "a.example"));
    assert!(!matches("a.example:8080", "a.example"));
    assert!(matches("*.example", "x.y.example"));
    for host in ["example", "xexample", "example.x"] {
        assert!(!matches("*.example", host), "{host}");
    }
    assert!(matches("[::1]", "[0:0::1]:80"));
    assert!(!matches("127.0.0.1", "[::1]"));
    assert!(!matches("127.0.0.1", "localhost"));
}

#[test]
fn headers_print_back() {
    let one = |name: &str, value: Option<&str>| HeaderMatch {
        name: name.parse().unwrap(),
        value: value.map(|value| value.parse().unwrap()),
    };
    assert_eq!(
        one("Content-Type", Some("application/json")).to_string(),
        "\"content-type\" = \"application/json\""
    );
    assert_eq!(one("x-a", None).to_string(), "\"x-a\" = true");
    assert_eq!(one("x-a", Some("regex:v[0-9]")).to_string(), "\"x-a\" = \"regex:v[0-9]\"");
    for name in ["", "a b", "a:", "é", "Host", ":path"] {
        assert!(name.parse::<HeaderName>().expect_err(name).hint.is_some());
    }
    for value in [" a", "a ", "a\nb", "a\0", "regex:("] {
        assert!(value.parse::<HeaderValue>().expect_err(value).hint.is_some());
    }
}

#[test]
fn rules_are_valid_as_a_whole() {
    let header = |name: &str| HeaderMatch { name: name.parse().unwrap(), value: None };
    let rule = HttpRule::new(
        Some("GET".parse().unwrap()),
        Some("/v1/**".parse().unwrap()),
        Some("a.example".parse().unwrap()),
        vec![header("x-b"), header("x-a")],
    )
    .unwrap();
    let text = rule.to_string();
    assert_eq!(
        text,
        r#"{ method = "GET", path = "/v1/**", host = "a.example", header = { "x-a" = true, "x-b" = true } }"#
    );
    let json = serde_json::to_string(&rule).unwrap();
    assert_eq!(serde_json::from_str::<HttpRule>(&json).unwrap(), rule);
    assert!(HttpRule::new(None, None, None, vec![header("X-A"), header("x-a")]).is_err());
    let connect = Some("CONNECT".parse().unwrap());
    assert!(HttpRule::new(connect, Some("/".parse().unwrap()), None, Vec::new()).is_err());
    for json in [r#"{"method":"get"}"#, r#"{"path":"/a/../b"}"#, r#"{"paht":"/"}"#] {
        assert!(serde_json::from_str::<HttpRule>(json).is_err(), "{json}");
    }
    assert!(TlsRule::new(Vec::new()).is_err());
    assert!(serde_json::from_str::<TlsRule>(r#"{"server-names":[]}"#).is_err());
}
