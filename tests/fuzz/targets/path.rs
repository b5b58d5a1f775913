//! A rule's path and a request's, with a NUL between: patterns read back, and what is ambiguous is never allowed.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use porin::proxy::{Headers, Matcher, Request, Rules, Side, SideRule, Verdict};
use porin::types::http::{HttpRule, L7, PathPattern, ambiguity};

struct None;

impl Headers for None {
    fn all(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (pattern, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(pattern) = std::str::from_utf8(pattern) else { return };
    let Ok(pattern) = pattern.parse::<PathPattern>() else { return };
    assert_eq!(pattern.to_string().parse(), Ok(pattern.clone()));
    let rule = HttpRule::new(Option::None, Some(pattern), Option::None, Vec::new());
    let l7 = L7 { http: vec![rule.expect("a path alone is a rule")], tls: Option::None };
    let side = Side { rules: vec![SideRule { cookie: 1, l7 }] };
    let rules = Rules::new(&side).expect("what was parsed compiles");
    let matcher = Matcher { egress: Option::None, ingress: Some(Arc::new(rules)) };
    let request = Request { method: b"GET", path: Some(path), host: Option::None, headers: &None };
    if let Verdict::Allow { .. } = matcher.judge(&request) {
        assert!(ambiguity(path).is_none());
    }
});
