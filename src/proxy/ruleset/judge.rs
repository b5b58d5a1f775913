//! The judge: one end's rules are compiled once, and shared by all connections that are under them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

use super::Side;
use super::glob::Glob;
use crate::types::Direction;
use crate::types::http::{
    Ambiguity, Authority, Domain, HeaderMatch, HeaderValue, HostPattern, HttpRule, NamePattern,
    PathPattern, ambiguity,
};

/// What is asked about.
pub struct Request<'a> {
    pub method: &'a [u8],
    /// Without the query; `*` of OPTIONS; none with CONNECT.
    pub path: Option<&'a [u8]>,
    /// None: HTTP/1.0 without `Host`.
    pub host: Option<Authority<'a>>,
    pub headers: &'a dyn Headers,
}

/// The field lines of a request.
pub trait Headers {
    /// Whether there is a field line of the name, which is in lower case, and `test` holds for the values of all.
    fn all(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// What decided, and so the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// By these rules' cookies; none: the side has nothing to say.
    Allow {
        egress: Option<u32>,
        ingress: Option<u32>,
    },
    Deny(Denial),
}

/// Why something is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Denial {
    /// By the rules of one side.
    Rules(Direction, Refusal),
    /// By none: the path has more than one reading.
    Path(Ambiguity),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// None of the rules allows it.
    NoRule,
    /// The rules allow TLS alone.
    OnlyTls,
    /// It is TLS, and the rules allow HTTP alone.
    OnlyHttp,
    /// TLS that asks for no server, or not in the clear.
    NoServerName,
}

/// The rules of a connection. A request must be allowed by the sender's side and by the receiver's; a side that is not
/// there allows everything.
#[derive(Clone, Default)]
pub struct Matcher {
    pub egress: Option<Arc<Rules>>,
    pub ingress: Option<Arc<Rules>>,
}

/// One end's, compiled. A request passes if any of them allows it; none allow nothing.
pub struct Rules {
    /// In the order in which they were written.
    requests: Box<[One]>,
    /// Of those with an exact path.
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    /// All others.
    others: Box<[u32]>,
    servers: Box<[(NamePattern, u32)]>,
    any_tls: bool,
}

struct One {
    cookie: u32,
    method: Option<Box<[u8]>>,
    path: Path,
    host: Option<HostPattern>,
    headers: Box<[Header]>,
}

enum Path {
    Any,
    /// Found by its path.
    Exact,
    Glob(Glob),
    Regex(Regex),
}

struct Header {
    name: Box<str>,
    value: Value,
}

enum Value {
    Any,
    Equals(Box<[u8]>),
    Regex(Regex),
}

impl Matcher {
    /// Of a request that has one reading but for its path.
    pub fn judge(&self, request: &Request) -> Verdict {
        if let Some(path) = request.path
            && path != b"*"
            && let Some(why) = ambiguity(path)
        {
            return Verdict::Deny(Denial::Path(why));
        }
        self.both(|rules| rules.request(request))
    }

    /// Of a TLS connection to the server of that name; none: it names none.
    pub fn judge_tls(&self, name: Option<&Domain>) -> Verdict {
        self.both(|rules| rules.server(name))
    }

    fn both(&self, judge: impl Fn(&Rules) -> Result<u32, Refusal>) -> Verdict {
        let side = |rules: &Option<Arc<Rules>>, direction| match rules.as_deref().map(&judge) {
            None => Ok(None),
            Some(Ok(cookie)) => Ok(Some(cookie)),
            Some(Err(refusal)) => Err(Denial::Rules(direction, refusal)),
        };
        let egress = side(&self.egress, Direction::Egress);
        match egress.and_then(|egress| Ok((egress, side(&self.ingress, Direction::Ingress)?))) {
            Ok((egress, ingress)) => Verdict::Allow { egress, ingress },
            Err(denial) => Verdict::Deny(denial),
        }
    }
}

impl Rules {
    /// # Errors
    /// A regular expression that is none: not for rules that were parsed.
    pub fn new(side: &Side) -> Result<Self, regex::Error> {
        let (mut requests, mut exact, mut others) = (Vec::new(), HashMap::new(), Vec::new());
        let mut servers = Vec::new();
        for rule in &side.rules {
            for http in &rule.l7.http {
                // Bounded by what fits into memory long before it overflows.
                let index = requests.len() as u32;
                match http.path() {
                    Some(PathPattern::Exact(path)) => {
                        exact.entry(path.as_bytes().into()).or_insert_with(Vec::new).push(index);
                    }
                    _ => others.push(index),
                }
                requests.push(One::new(rule.cookie, http)?);
            }
            let names = rule.l7.tls.iter().flat_map(|tls| tls.server_names());
            servers.extend(names.map(|name| (name.clone(), rule.cookie)));
        }
        Ok(Rules {
            any_tls: !servers.is_empty(),
            requests: requests.into(),
            exact,
            others: others.into(),
            servers: servers.into(),
        })
    }

    /// The first rule, as they are written, that allows it.
    fn request(&self, request: &Request) -> Result<u32, Refusal> {
        let exact = request.path.and_then(|path| self.exact.get(path));
        let first = |indices: &[u32]| {
            indices.iter().copied().find(|index| {
                self.requests.get(*index as usize).is_some_and(|one| one.allows(request))
            })
        };
        let exact = exact.and_then(|indices| first(indices));
        let before = exact
            .map_or(self.others.len(), |exact| self.others.partition_point(|index| *index < exact));
        let index = first(&self.others[..before]).or(exact);
        match index.and_then(|index| self.requests.get(index as usize)) {
            Some(one) => Ok(one.cookie),
            None if self.requests.is_empty() && self.any_tls => Err(Refusal::OnlyTls),
            None => Err(Refusal::NoRule),
        }
    }

    fn server(&self, name: Option<&Domain>) -> Result<u32, Refusal> {
        if !self.any_tls {
            return Err(match self.requests.is_empty() {
                true => Refusal::NoRule,
                false => Refusal::OnlyHttp,
            });
        }
        let Some(name) = name else { return Err(Refusal::NoServerName) };
        let found = self.servers.iter().find(|(pattern, _)| pattern.matches(name));
        found.map(|(_, cookie)| *cookie).ok_or(Refusal::NoRule)
    }
}

impl One {
    fn new(cookie: u32, rule: &HttpRule) -> Result<Self, regex::Error> {
        let headers: Result<_, _> = rule.headers().iter().map(Header::new).collect();
        Ok(One {
            cookie,
            method: rule.method().map(|method| method.as_str().as_bytes().into()),
            path: match rule.path() {
                None => Path::Any,
                Some(PathPattern::Exact(_)) => Path::Exact,
                Some(PathPattern::Glob(glob)) => Path::Glob(Glob::new(glob)),
                Some(PathPattern::Regex(regular)) => Path::Regex(regular.compile()?),
            },
            host: rule.host().cloned(),
            headers: headers?,
        })
    }

    fn allows(&self, request: &Request) -> bool {
        let method = match &self.method {
            Some(method) => **method == *request.method,
            // A tunnel is nothing that one allows by saying nothing.
            None => request.method != b"CONNECT",
        };
        method
            && match (&self.path, request.path) {
                (Path::Any | Path::Exact, _) => true,
                (_, None | Some(b"*")) => false,
                (Path::Glob(glob), Some(path)) => glob.matches(path),
                (Path::Regex(regex), Some(path)) => regex.is_match(path),
            }
            && match (&self.host, &request.host) {
                (None, _) => true,
                (Some(pattern), Some(host)) => pattern.matches(host),
                (Some(_), None) => false,
            }
            && self.headers.iter().all(|header| header.is_in(request.headers))
    }
}

impl Header {
    fn new(header: &HeaderMatch) -> Result<Self, regex::Error> {
        Ok(Header {
            name: header.name.as_str().into(),
            value: match &header.value {
                None => Value::Any,
                Some(HeaderValue::Equals(text)) => Value::Equals(text.as_bytes().into()),
                Some(HeaderValue::Regex(regular)) => Value::Regex(regular.compile()?),
            },
        })
    }

    fn is_in(&self, headers: &dyn Headers) -> bool {
        headers.all(&self.name, &mut |value| match &self.value {
            Value::Any => true,
            Value::Equals(wanted) => **wanted == *value,
            Value::Regex(regex) => regex.is_match(value),
        })
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::Path(why) => write!(f, "{why}"),
            Denial::Rules(direction, refusal) => {
                let what = match refusal {
                    Refusal::NoRule => "no rule allows it",
                    Refusal::OnlyTls => "the rules allow TLS only, and this is none",
                    Refusal::OnlyHttp => "this is TLS, and the rules are about HTTP requests",
                    Refusal::NoServerName => {
                        "the client names no server, and the rules are about names"
                    }
                };
                write!(f, "{direction}: {what}")
            }
        }
    }
}
