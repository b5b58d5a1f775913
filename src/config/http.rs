//! `http` and `tls` of a rule: what of its connections is allowed.

use std::ops::Range;

use super::fault::Fault;
use super::keys::Keys;
use super::model::Rule;
use super::table::{Item, Table};
use crate::types::http::{HeaderMatch, HeaderName, HttpRule, L7, TlsRule};
use crate::types::{Action, Invalid, Mode, PortSpec, Protocol, Tier};

/// The tables' keys in one direction.
pub struct Tables {
    pub http: &'static Keys,
    pub tls: &'static Keys,
}

/// In one rule, which are compared with each request.
const MOST: usize = 1000;

pub fn read(table: &Table, keys: &Tables) -> Option<L7> {
    let http = match table.optional("http") {
        Some(item) => requests(&item, keys.http),
        None => Some(Vec::new()),
    };
    let tls = match table.optional("tls") {
        Some(item) => server_names(&item, keys.tls).map(Some),
        None => Some(None),
    };
    Some(L7 { http: http?, tls: tls? })
}

/// What rules about requests can be part of.
pub fn fits(table: &Table, rule: &Rule) -> bool {
    let span = |key| table.key_span(key).unwrap_or_else(|| table.span.clone());
    let key = if rule.l7.http.is_empty() { "tls" } else { "http" };
    if rule.action != Action::Allow {
        let what = format!("`{key}` in a rule that does not allow");
        let hint = "requests that no rule allows are denied: write the ones that are allowed";
        table.sink.fault(&span("action"), what, hint);
        return false;
    }
    let protocol = |spec: &PortSpec| match spec {
        PortSpec::Match(ports) => ports.protocol,
        PortSpec::Named { protocol, .. } => *protocol,
    };
    if !rule.source_ports.is_empty() {
        let what = format!("`{key}` in a rule with `source-ports`");
        let hint = "the server's end of the connection has another source port: leave them out";
        table.sink.fault(&span("source-ports"), what, hint);
        return false;
    }
    if rule.ports.is_empty() {
        let what = format!("`{key}` in a rule without ports");
        table.sink.fault(&span(key), what, "add, for example, ports = [\"8080/tcp\"]");
        return false;
    }
    if let Some(other) = rule.ports.iter().find(|spec| protocol(spec) != Protocol::TCP) {
        let what = format!("`{key}` in a rule with the port {other}, which is not of TCP");
        table.sink.fault(&span("ports"), what, "make two rules of it");
        return false;
    }
    true
}

/// Only in the normal tier is a request allowed by one rule or another; in the other tiers the first that matches decides,
/// and what it says is of connections.
pub fn of_tier<'a>(
    table: &Table,
    tier: Tier,
    mode: Mode,
    rules: impl Iterator<Item = (&'a Rule, &'a Range<usize>)>,
) -> bool {
    let mut right = true;
    for (rule, span) in rules.filter(|(rule, _)| !rule.l7.is_empty()) {
        let key = if rule.l7.http.is_empty() { "tls" } else { "http" };
        let place = table.sink.place(span);
        if tier != Tier::Normal {
            let what = format!("`{key}` in a policy of the tier {tier}");
            let hint = "write such rules in policies of the normal tier";
            table.sink.push(Fault::error(place, what).hint(hint));
            right = false;
        } else if mode == Mode::Shadow {
            let what = format!("`{key}` in a policy in shadow mode: no request is tried by it");
            let hint =
                "its connections are taken to be allowed; enforce it to have requests judged";
            table.sink.push(Fault::warning(place, what).hint(hint));
        }
    }
    right
}

fn requests(item: &Item, keys: &'static Keys) -> Option<Vec<HttpRule>> {
    let tables = item.tables(keys)?;
    if item.len() == 0 {
        let hint = "to allow no request, leave the rule out; to allow any, write http = [{}]";
        item.fault("`http` is empty", hint);
        return None;
    }
    if item.len() > MOST {
        item.fault(
            format!("`http` has {} tables", item.len()),
            format!("{MOST} are allowed in a rule: make several rules of it"),
        );
        return None;
    }
    let all = tables.len() == item.len();
    let rules: Vec<_> = tables.iter().map(request).collect();
    let mut rules: Vec<_> = rules.into_iter().collect::<Option<_>>()?;
    // Said twice is said once; their order means nothing.
    rules.sort();
    rules.dedup();
    all.then_some(rules)
}

fn request(table: &Table) -> Option<HttpRule> {
    // All first, so that every fault of the table is told.
    let method = table.optional("method").map(|item| item.parse());
    let path = table.optional("path").map(|item| item.parse());
    let host = table.optional("host").map(|item| item.parse());
    let header = table.optional("header").map(|item| headers(&item));
    let invalid = |invalid: Invalid| {
        table.sink.fault(&table.span, &invalid.what, invalid.hint.unwrap_or_default());
    };
    HttpRule::new(
        transposed(method)?,
        transposed(path)?,
        transposed(host)?,
        transposed(header)?.unwrap_or_default(),
    )
    .map_err(invalid)
    .ok()
}

/// None: a fault. Some of none: not written.
fn transposed<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(value) => value.map(Some),
        None => Some(None),
    }
}

fn headers(item: &Item) -> Option<Vec<HeaderMatch>> {
    let pairs = item.pairs()?;
    let headers: Vec<_> = pairs.iter().map(|(name, value)| header(name, value)).collect();
    headers.into_iter().collect()
}

fn header(name: &Item, value: &Item) -> Option<HeaderMatch> {
    let parsed = name.key.parse::<HeaderName>().map_err(|invalid| name.invalid(&invalid)).ok();
    let value = match (value.is_text(), value.is_boolean()) {
        (true, _) => Some(value.parse()?),
        (false, true) if value.boolean()? => None,
        _ => {
            let what = format!("this cannot be a value of the header `{}`", name.key);
            value.fault(what, "write text, \"regex:...\", or true for any value");
            return None;
        }
    };
    Some(HeaderMatch { name: parsed?, value })
}

fn server_names(item: &Item, keys: &'static Keys) -> Option<TlsRule> {
    let table = item.table(keys)?;
    let names = table.required("server-names")?;
    let items = names.list()?;
    let all: Vec<_> = items.iter().map(|item| item.parse()).collect();
    let all = all.into_iter().collect::<Option<_>>()?;
    TlsRule::new(all).map_err(|invalid| names.invalid(&invalid)).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::files::Kind;
    use crate::config::parse::{Content, parse};
    use crate::config::print;
    use crate::config::source::Source;

    /// The one policy, and the faults.
    fn read(text: &str) -> (Option<String>, Vec<String>) {
        let source = Source::new(Path::new("f").into(), text.to_owned());
        let (content, faults) = parse(Kind::Policies, &source);
        let Some(Content::Policies(file)) = content else { panic!("{text}") };
        let faults = faults.into_parts().0.into_iter().map(|fault| fault.to_string());
        (file.policies.first().map(|one| print::policy(&one.policy)), faults.collect())
    }

    const RULES: &str = r#"[[policy]]
name = "shop"
subject = "app=api"
tier = "normal"
default = "deny"
mode = "enforce"

[[policy.ingress]]
ports = ["8080/tcp"]
http = [{}, { path = "regex:/v[0-9]+\\..*" }, { method = "GET", path = "/v1/items/**", host = "*.example.org:8080" }, { method = "POST", header = { "content-type" = "application/json", "x-team" = true, "x-version" = "regex:[0-9]+" } }]
action = "allow"

[[policy.egress]]
ports = ["443/tcp"]
tls = { server-names = ["a.example", "*.example.org"] }
action = "allow"
"#;

    #[test]
    fn rules_print_back() {
        let (printed, faults) = read(RULES);
        assert!(faults.is_empty(), "{faults:?}");
        let printed = printed.unwrap();
        let (again, faults) = read(&printed);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(again.as_deref(), Some(printed.as_str()));
        for line in RULES.lines().filter(|line| !line.starts_with("tls")) {
            assert!(printed.contains(line), "{line}\n{printed}");
        }
        assert!(printed.contains(r#"tls = { server-names = ["a.example", "*.example.org"] }"#));
    }

    #[test]
    fn only_the_normal_tier_has_them() {
        let policy = |tier: &str, rule: &str| {
            format!(
                "[[policy]]\nname = \"a\"\nsubject = \"\"\n{tier}\n[[policy.ingress]]\nports = [\"1/tcp\"]\n{rule}\n"
            )
        };
        let rules = ["http = [{}]", "tls = { server-names = [\"a.example\"] }"];
        for (rule, key) in rules.iter().zip(["http", "tls"]) {
            assert_eq!(read(&policy("", rule)).1, Vec::<String>::new());
            for tier in ["admin", "baseline"] {
                let tier = format!("tier = \"{tier}\"\npriority = 1\ndefault = \"deny\"");
                let (_, faults) = read(&policy(&tier, rule));
                assert_eq!(faults.len(), 1, "{faults:?}");
                assert!(
                    faults[0].contains(&format!("`{key}` in a policy of the tier")),
                    "{faults:?}"
                );
            }
            let (policy, faults) = read(&policy("mode = \"shadow\"", rule));
            assert!(policy.is_some());
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains("no request is tried"), "{faults:?}");
        }
    }
}
