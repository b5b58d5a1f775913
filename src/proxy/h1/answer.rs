//! Answers of porin's own.

/// A whole message with a short plain text.
pub fn answer(status: u16, text: &str, close: bool, head_only: bool) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
    let reason = reason.unwrap_or_default();
    let close = if close { "Connection: close\r\n" } else { "" };
    let length = text.len() + 1;
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nCache-Control: no-store\r\n{close}\r\n"
    );
    match head_only {
        true => head.into_bytes(),
        false => format!("{head}{text}\n").into_bytes(),
    }
}

/// What a client is told that may not do what it asks for; the log has the reason.
pub const DENIED: &str = "denied by network policy";
