//! The one port of a question, in the words of rules.

use crate::types::{Invalid, PortMatch, PortSpec, Protocol};

/// What `PORT/PROTO` says, if it is of one protocol.
pub fn one(text: &str) -> Result<PortSpec, Invalid> {
    let mut specs = PortSpec::parse_list(text)?;
    match (specs.pop(), specs.is_empty()) {
        (Some(spec), true) => Ok(spec),
        _ => {
            Err(Invalid::new(format!("`{text}` is several protocols")).hint("ask for one of them"))
        }
    }
}

/// As in [`View::judge`](crate::compile::view::View::judge). `text`: as written.
pub fn number(text: &str, ports: PortMatch) -> Result<u16, Invalid> {
    let PortMatch { protocol, ports } = ports;
    if ports.first() == ports.last() {
        return Ok(ports.first());
    }
    let example = match protocol {
        Protocol::ICMP | Protocol::ICMPV6 if ports.first() == 0 && ports.last() == u16::MAX => {
            format!("{protocol}/echo-request")
        }
        Protocol::ICMP | Protocol::ICMPV6 => format!("{protocol}/{}/0", ports.first() >> 8),
        protocol if protocol.has_ports() => {
            let first = if ports.first() == 0 { 80 } else { ports.first() };
            format!("{first}/{protocol}")
        }
        _ => return Ok(0),
    };
    let what = format!("`{text}` is not one port");
    Err(Invalid::new(what).hint(format!("ask for one, for example {example}")))
}
