//! Hosts of requests and server names of TLS.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::Invalid;

/// A DNS name in lower case: 1 to 253 bytes, in labels of 1 to 63 letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain<'a>(Cow<'a, str>);

/// The authority of a request, from `Host` or the target: a name or an address, and perhaps a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority<'a> {
    pub host: Host<'a>,
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host<'a> {
    Name(Domain<'a>),
    Address(IpAddr),
}

/// `example.org`, or `*.example.org`: all names that end so, with one label or more before it, but not `example.org`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern {
    wild: bool,
    name: Domain<'static>,
}

/// A pattern of names, or one address; with a port only that, which is 80 where a request names none; without one any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    host: HostIs,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum HostIs {
    Name(NamePattern),
    Address(IpAddr),
}

impl<'a> Domain<'a> {
    /// None: it is no name. A dot at the end is none either: some take it for another name, some for the same.
    pub fn parse(text: &'a str) -> Option<Self> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        // What ends in a number is an address to some (RFC 1123 section 2.1, and WHATWG's URLs).
        let number =
            |label: &str| label.bytes().all(|b| b.is_ascii_digit()) || label.starts_with("0x");
        if text.len() > 253
            || !text.split('.').all(label)
            || text.rsplit('.').next().is_some_and(number)
        {
            return None;
        }
        Some(Domain(match text.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(text.to_ascii_lowercase()),
            false => Cow::Borrowed(text),
        }))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_owned(self) -> Domain<'static> {
        Domain(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> Authority<'a> {
    /// `HOST`, `HOST:PORT`; addresses of IPv6 in brackets, without a zone. None: it is not one (RFC 9110 section 4.2,
    /// which has neither user names nor empty hosts; nor is an empty port taken here).
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']')?;
                let port = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':')?),
                };
                (Host::Address(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)), port)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                let host = match Domain::parse(host) {
                    Some(name) => Host::Name(name),
                    None => Host::Address(IpAddr::V4(host.parse().ok()?)),
                };
                (host, port)
            }
        };
        let number = |text: &str| {
            let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| digits && *port > 0)
        };
        Some(Authority {
            host,
            port: match port {
                Some(text) => Some(number(text)?),
                None => None,
            },
        })
    }
}

impl NamePattern {
    pub fn matches(&self, name: &Domain) -> bool {
        match self.wild {
            false => self.name == *name,
            true => {
                let before = name.0.strip_suffix(self.name.as_str());
                before.is_some_and(|before| before.len() > 1 && before.ends_with('.'))
            }
        }
    }
}

impl HostPattern {
    pub fn matches(&self, authority: &Authority) -> bool {
        let port = self.port.is_none_or(|port| authority.port.unwrap_or(80) == port);
        port && match (&self.host, &authority.host) {
            (HostIs::Name(pattern), Host::Name(name)) => pattern.matches(name),
            (HostIs::Address(wanted), Host::Address(address)) => wanted == address,
            _ => false,
        }
    }
}

impl fmt::Display for Domain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wild { "*." } else { "" }, self.name)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostIs::Name(pattern) => write!(f, "{pattern}")?,
            HostIs::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            HostIs::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl FromStr for NamePattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (wild, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if let Some(name) = Domain::parse(name) {
            return Ok(NamePattern { wild, name: name.into_owned() });
        }
        let invalid = Invalid::new(format!("`{text}` is no name of a server"));
        Err(match text {
            _ if text.contains("://") => invalid.hint("write the name alone, without a scheme"),
            _ if Domain::parse(name.trim_end_matches('.')).is_some() => {
                invalid.hint("leave the dot at the end out")
            }
            _ if !text.is_ascii() => invalid.hint("write it as it is sent, in ASCII: xn--..."),
            _ => invalid.hint("write, for example, api.example.org or *.example.org"),
        })
    }
}

impl FromStr for HostPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (wild, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        match Authority::parse(rest) {
            Some(Authority { host: Host::Name(name), port }) => {
                let name = NamePattern { wild, name: name.into_owned() };
                Ok(HostPattern { host: HostIs::Name(name), port })
            }
            Some(Authority { host: Host::Address(address), port }) if !wild => {
                Ok(HostPattern { host: HostIs::Address(address), port })
            }
            _ if text.parse::<Ipv6Addr>().is_ok() => {
                Err(Invalid::new(format!("`{text}` is an address without brackets"))
                    .hint(format!("write [{text}]")))
            }
            _ => {
                let name = text.rsplit_once(':').map_or(text, |(name, _)| name);
                let invalid = match name.parse::<NamePattern>() {
                    Ok(_) => Invalid::new(format!("`{text}` has no valid port"))
                        .hint("write HOST:PORT with a port of 1 to 65535, or HOST for any port"),
                    Err(invalid) => invalid,
                };
                Err(Invalid { what: format!("`{text}` is no host"), ..invalid })
            }
        }
    }
}
