//! Which requests a rule allows: by method, path, host and headers, or by the server name of a TLS connection.
//!
//! Everything is compared byte for byte with what is on the wire; nothing is decoded or put right first. So two
//! readers of one request cannot come to different answers: what has more than one reading ([`Ambiguity`]) no
//! pattern can say, and no request may.

mod ambiguity;
mod header;
mod host;
mod method;
mod path;
mod regular;
mod side;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Invalid;

pub use ambiguity::{Ambiguity, ambiguity};
pub use header::{HeaderMatch, HeaderName, HeaderValue};
pub use host::{Authority, Domain, Host, HostPattern, NamePattern};
pub use method::Method;
pub use path::{Glob, PathPattern};
pub use regular::Regular;
pub use side::{Side, SideRule};

/// What a rule asks of requests and TLS connections; nothing: it is about packets alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct L7 {
    /// A request passes if any of them allows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsRule>,
}

impl L7 {
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.tls.is_none()
    }
}

/// Requests that are allowed: those that have all of what is given here.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct HttpRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<Method>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathPattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<HostPattern>,
    #[serde(rename = "header", skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderMatch>,
}

impl HttpRule {
    /// Header matches are kept in the order of their names.
    ///
    /// # Errors
    /// A header that is named twice; a path with CONNECT, whose requests have none.
    pub fn new(
        method: Option<Method>,
        path: Option<PathPattern>,
        host: Option<HostPattern>,
        mut headers: Vec<HeaderMatch>,
    ) -> Result<Self, Invalid> {
        if method.as_ref().is_some_and(Method::is_connect) && path.is_some() {
            return Err(Invalid::new("a request with CONNECT has no path")
                .hint("leave `path` out; write `host` to say where to"));
        }
        headers.sort();
        let twice = headers.windows(2).find(|pair| pair[0].name == pair[1].name);
        if let Some([header, _]) = twice {
            return Err(Invalid::new(format!("the header `{}` is named twice", header.name))
                .hint("names of headers are the same in upper and lower case: name it once"));
        }
        Ok(HttpRule { method, path, host, headers })
    }

    /// None: any but CONNECT.
    pub fn method(&self) -> Option<&Method> {
        self.method.as_ref()
    }

    /// None: any, and the `*` of OPTIONS.
    pub fn path(&self) -> Option<&PathPattern> {
        self.path.as_ref()
    }

    /// None: any.
    pub fn host(&self) -> Option<&HostPattern> {
        self.host.as_ref()
    }

    /// Sorted; all must hold.
    pub fn headers(&self) -> &[HeaderMatch] {
        &self.headers
    }
}

/// `{ method = "GET", path = "/v1/**" }`, as a rule is written, but for escapes.
impl fmt::Display for HttpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.method.as_ref().map(|method| format!("method = \"{method}\"")));
        parts.extend(self.path.as_ref().map(|path| format!("path = \"{path}\"")));
        parts.extend(self.host.as_ref().map(|host| format!("host = \"{host}\"")));
        if !self.headers.is_empty() {
            let headers: Vec<_> = self.headers.iter().map(ToString::to_string).collect();
            parts.push(format!("header = {{ {} }}", headers.join(", ")));
        }
        match parts.is_empty() {
            true => f.write_str("{}"),
            false => write!(f, "{{ {} }}", parts.join(", ")),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    method: Option<Method>,
    path: Option<PathPattern>,
    host: Option<HostPattern>,
    #[serde(default, rename = "header")]
    headers: Vec<HeaderMatch>,
}

impl TryFrom<Parts> for HttpRule {
    type Error = Invalid;

    fn try_from(parts: Parts) -> Result<Self, Invalid> {
        HttpRule::new(parts.method, parts.path, parts.host, parts.headers)
    }
}

/// TLS connections that are allowed: those that ask for one of these servers in the clear (RFC 6066 section 3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "TlsParts")]
pub struct TlsRule {
    #[serde(rename = "server-names")]
    server_names: Vec<NamePattern>,
}

impl TlsRule {
    /// Sorted, each once.
    ///
    /// # Errors
    /// No name at all.
    pub fn new(mut server_names: Vec<NamePattern>) -> Result<Self, Invalid> {
        if server_names.is_empty() {
            return Err(Invalid::new("no server name is allowed")
                .hint("write, for example, server-names = [\"*.example.org\"]"));
        }
        server_names.sort();
        server_names.dedup();
        Ok(TlsRule { server_names })
    }

    pub fn server_names(&self) -> &[NamePattern] {
        &self.server_names
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TlsParts {
    server_names: Vec<NamePattern>,
}

impl TryFrom<TlsParts> for TlsRule {
    type Error = Invalid;

    fn try_from(parts: TlsParts) -> Result<Self, Invalid> {
        TlsRule::new(parts.server_names)
    }
}

/// Written as text, in JSON too, and read back by its own parser.
macro_rules! textual {
    ($($name:ty),*) => { $(
        impl TryFrom<String> for $name {
            type Error = $crate::types::Invalid;

            fn try_from(text: String) -> Result<Self, $crate::types::Invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )* };
}
textual!(Method, PathPattern, HostPattern, NamePattern, HeaderName, HeaderValue, Regular);

/// Whether a byte may stand in a token: methods, names of headers (RFC 9110 section 5.6.2).
pub const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests;
