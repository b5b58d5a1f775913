//! The judge: cases to read, and properties against plain definitions.

use std::sync::LazyLock;

use porin::proxy::{Denial, Headers, Matcher, Refusal, Request, Side, SideRule, Verdict};
use porin::types::Direction;
use porin::types::http::{Ambiguity, Authority, Domain, L7, PathPattern, ambiguity};
use proptest::prelude::*;

use crate::support::{Ruleset, matcher, ruleset};

struct List<'a>(&'a [(&'a str, &'a str)]);

impl Headers for List<'_> {
    fn all(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let values: Vec<_> = self.0.iter().filter(|(other, _)| *other == name).collect();
        !values.is_empty() && values.iter().all(|(_, value)| test(value.as_bytes()))
    }
}

fn judge(
    matcher: &Matcher,
    method: &str,
    path: &str,
    host: &str,
    headers: &[(&str, &str)],
) -> Verdict {
    let path = (method != "CONNECT").then_some(path.as_bytes());
    let host = Authority::parse(host);
    matcher.judge(&Request { method: method.as_bytes(), path, host, headers: &List(headers) })
}

fn allowed(ingress: u32) -> Verdict {
    Verdict::Allow { egress: None, ingress: Some(ingress) }
}

const NO_RULE: Verdict = Verdict::Deny(Denial::Rules(Direction::Ingress, Refusal::NoRule));

#[test]
fn the_first_rule_that_allows_is_named() {
    let rules = r#"[
        {"method": "GET", "path": "/v1/**"},
        {"path": "/v1/orders", "method": "POST", "header": [{"name": "Content-Type", "value": "application/json"}]},
        {"path": "/v1/orders"},
        {"host": "*.example.org", "path": "regex:/[a-z]+[0-9]"},
        {"header": [{"name": "x-team"}]},
        {"method": "OPTIONS"}
    ]"#;
    let matcher = matcher(&ruleset(rules));
    let json = [("content-type", "application/json")];
    for (method, path, host, headers, verdict) in [
        ("GET", "/v1/orders", "a", &json[..], allowed(1)),
        ("GET", "/v1", "a", &[], allowed(1)),
        ("POST", "/v1/orders", "a", &json, allowed(2)),
        (
            "POST",
            "/v1/orders",
            "a",
            &[("content-type", "application/json"), ("content-type", "x")],
            allowed(3),
        ),
        ("POST", "/v1/orders", "a", &[], allowed(3)),
        ("POST", "/v1/orders/", "a", &[], NO_RULE),
        ("get", "/v1/x", "a", &[], NO_RULE),
        ("PUT", "/ab1", "x.example.org:8080", &[], allowed(4)),
        ("PUT", "/ab12", "x.example.org", &[], NO_RULE),
        ("PUT", "/ab1", "example.org", &[], NO_RULE),
        ("PUT", "/", "a", &[("x-team", "")], allowed(5)),
        ("OPTIONS", "*", "a", &[], allowed(6)),
        ("CONNECT", "", "x.example.org:443", &[("x-team", "")], NO_RULE),
        ("GET", "/v1/../x", "a", &[], Verdict::Deny(Denial::Path(Ambiguity::DotSegment))),
    ] {
        assert_eq!(judge(&matcher, method, path, host, headers), verdict, "{method} {path} {host}");
    }
}

#[test]
fn both_sides_must_allow() {
    let side = |path: &str, cookie| {
        let json = format!(
            r#"{{"http": [{{"path": "{path}"}}], "tls": {{"server-names": ["a.example"]}}}}"#
        );
        Some(Side { rules: vec![SideRule { cookie, l7: serde_json::from_str(&json).unwrap() }] })
    };
    let both = Ruleset { egress: side("/a/**", 7), ingress: side("/*/b", 8) };
    let judges = matcher(&both);
    let verdict = |path| judge(&judges, "GET", path, "a", &[]);
    assert_eq!(verdict("/a/b"), Verdict::Allow { egress: Some(7), ingress: Some(8) });
    let refused = |direction| Verdict::Deny(Denial::Rules(direction, Refusal::NoRule));
    assert_eq!(verdict("/a/c"), refused(Direction::Ingress));
    assert_eq!(verdict("/c/b"), refused(Direction::Egress));
    let name = Domain::parse("A.example");
    assert_eq!(
        judges.judge_tls(name.as_ref()),
        Verdict::Allow { egress: Some(7), ingress: Some(8) }
    );
    let nothing = matcher(&Ruleset { egress: Some(Side::default()), ingress: None });
    assert_eq!(judge(&nothing, "GET", "/", "a", &[]), refused(Direction::Egress));
    let open = matcher(&Ruleset::default());
    assert_eq!(
        judge(&open, "CONNECT", "", "a:1", &[]),
        Verdict::Allow { egress: None, ingress: None }
    );
}

#[test]
fn tls_and_http_have_rules_of_their_own() {
    let of = |json: &str| {
        let l7: L7 = serde_json::from_str(json).unwrap();
        let rules = vec![SideRule { cookie: 3, l7 }];
        matcher(&Ruleset { egress: None, ingress: Some(Side { rules }) })
    };
    let refused = |refusal| Verdict::Deny(Denial::Rules(Direction::Ingress, refusal));
    let tls = of(r#"{"tls": {"server-names": ["*.example.org"]}}"#);
    assert_eq!(judge(&tls, "GET", "/", "a.example.org", &[]), refused(Refusal::OnlyTls));
    let ask = |matcher: &Matcher, name| matcher.judge_tls(Domain::parse(name).as_ref());
    assert_eq!(ask(&tls, "a.example.org"), allowed(3));
    assert_eq!(ask(&tls, "example.org"), refused(Refusal::NoRule));
    assert_eq!(tls.judge_tls(None), refused(Refusal::NoServerName));
    let http = of(r#"{"http": [{}]}"#);
    assert_eq!(ask(&http, "a.example.org"), refused(Refusal::OnlyHttp));
}

/// What a glob means, in as few words as possible.
fn plain(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=path.len()).any(|skip| plain(rest, &path[skip..])),
        ([first, rest @ ..], [segment, others @ ..]) => {
            let fits = if *first == "*" {
                !segment.is_empty()
            } else {
                letters(first.as_bytes(), segment.as_bytes())
            };
            fits && plain(rest, others)
        }
        _ => false,
    }
}

fn letters(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| letters(rest, &text[skip..])),
        ([a, rest @ ..], [b, others @ ..]) => a == b && letters(rest, others),
        _ => false,
    }
}

/// What a careless server might make of a path: decoded once and again, backslashes turned, parameters cut, dots resolved.
fn careless(path: &[u8]) -> Vec<Vec<u8>> {
    let decode = |bytes: &[u8]| {
        let (mut out, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let digits = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
            match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
                Some(byte) if bytes[at] == b'%' => {
                    out.push(byte);
                    at += 3;
                }
                _ => {
                    out.push(bytes[at]);
                    at += 1;
                }
            }
        }
        out
    };
    let decoded = decode(&decode(path));
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')).skip(1) {
        match segment.split(|byte| *byte == b';').next().unwrap() {
            b"." | b"" => {}
            b".." => {
                segments.pop();
            }
            _ => segments.push(segment.to_vec()),
        }
    }
    segments
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn globs_mean_what_they_say(
        pattern in "(/(\\*\\*|\\*|[ab*]{0,4}|a)){1,5}",
        path in "(/[ab]{0,4}){1,6}",
    ) {
        if let Ok(PathPattern::Glob(glob)) = pattern.parse::<PathPattern>() {
            let json = format!(r#"[{{"path": "{}"}}]"#, glob.as_str());
            let matcher = matcher(&ruleset(&json));
            let verdict = judge(&matcher, "GET", &path, "a", &[]);
            let segments: Vec<_> = glob.segments().collect();
            let parts: Vec<_> = path[1..].split('/').collect();
            let wanted = match ambiguity(path.as_bytes()) {
                Some(why) => Verdict::Deny(Denial::Path(why)),
                None if plain(&segments, &parts) => allowed(1),
                None => NO_RULE,
            };
            prop_assert_eq!(verdict, wanted, "{} {}", pattern, path);
        }
    }

    /// A path that passes has as many segments for the careless as for us, and in the same places.
    #[test]
    fn what_passes_has_one_reading(
        path in "(/|[ab.;]|%(2[eEfF5]|5[cC]|3[bB]|00|41|4|zz)|\\\\|\\.\\.|//){0,12}",
    ) {
        let path = format!("/{path}");
        if ambiguity(path.as_bytes()).is_none() {
            let ours = path[1..].split('/').filter(|segment| !segment.is_empty()).count();
            let theirs = careless(path.as_bytes());
            prop_assert_eq!(ours, theirs.len(), "{}", path);
        }
    }

    #[test]
    fn no_path_makes_it_panic(path in proptest::collection::vec(any::<u8>(), 0..40)) {
        static MATCHER: LazyLock<Matcher> = LazyLock::new(|| {
            matcher(&ruleset(r#"[{"path": "/**/a*b/*"}, {"path": "regex:.*x"}]"#))
        });
        let verdict = |path| {
            let headers = &List(&[]);
            MATCHER.judge(&Request { method: b"GET", path: Some(path), host: None, headers })
        };
        let allowed = matches!(verdict(&path), Verdict::Allow { .. });
        prop_assert!(!allowed || path.is_ascii());
    }
}
