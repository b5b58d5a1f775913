//! The first message of a TLS client (RFC 8446 sections 4.1.2 and 5.1), read as far as the server's name in it.

use crate::types::http::Domain;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// In lower case (RFC 6066 section 3).
    pub server_name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It can be whole with so many bytes in all, at the earliest.
    #[error("the first TLS message has not come whole")]
    More(usize),
    #[error("the first TLS message is too long")]
    TooLong,
    #[error("no TLS handshake")]
    NotHandshake,
    #[error("the first TLS message is no ClientHello")]
    NotHello,
    #[error("the ClientHello is malformed")]
    Malformed,
    #[error("the ClientHello's server name is none")]
    Name,
}

/// Bytes of a ClientHello, with the records' heads: post-quantum keys and a ticket take 4 KiB.
const LONGEST: usize = 32 << 10;

/// `bytes`: all that the client has sent. A message may be cut into several records, and what follows it is nothing of ours.
pub fn hello(bytes: &[u8]) -> Result<Hello, HelloError> {
    let message = message(bytes)?;
    let mut body = Reader(message.get(4..).unwrap_or_default());
    body.skip(2 + 32)?;
    body.vector8()?;
    let suites = body.vector16()?;
    let compressions = body.vector8()?;
    if suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
        return Err(HelloError::Malformed);
    }
    // Before TLS 1.2 there need not be any.
    let mut extensions = match body.0.is_empty() {
        true => Reader(&[]),
        false => Reader(body.vector16()?),
    };
    if !body.0.is_empty() {
        return Err(HelloError::Malformed);
    }
    let mut server_name = None;
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.number16()?, extensions.vector16()?);
        if kind == SERVER_NAME && server_name.replace(name(content)?).is_some() {
            return Err(HelloError::Malformed);
        }
    }
    Ok(Hello { server_name })
}

const SERVER_NAME: usize = 0;

/// The handshake message, put together from its records.
fn message(bytes: &[u8]) -> Result<Vec<u8>, HelloError> {
    const HEAD: usize = 5;
    const HANDSHAKE: u8 = 22;
    const LONGEST_RECORD: usize = 1 << 14;
    let more = |bytes: usize| match bytes <= LONGEST {
        true => HelloError::More(bytes),
        false => HelloError::TooLong,
    };
    let (mut rest, mut message) = (bytes, Vec::new());
    loop {
        let taken = bytes.len() - rest.len();
        if taken > LONGEST {
            return Err(HelloError::TooLong);
        }
        let &[kind, major, _, high, low, ref after @ ..] = rest else {
            let odd = matches!(rest, [kind, ..] if *kind != HANDSHAKE);
            return Err(if odd { HelloError::NotHandshake } else { more(taken + HEAD) });
        };
        let length = usize::from(high) << 8 | usize::from(low);
        if kind != HANDSHAKE || major != 3 || length == 0 || length > LONGEST_RECORD {
            return Err(HelloError::NotHandshake);
        }
        let Some((part, after)) = after.split_at_checked(length) else {
            return Err(more(taken + HEAD + length));
        };
        message.extend_from_slice(part);
        rest = after;
        let Some(head) = message.get(..4) else { continue };
        if head[0] != 1 {
            return Err(HelloError::NotHello);
        }
        let length = head[1..].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        if length > LONGEST {
            return Err(HelloError::TooLong);
        }
        if message.len() >= 4 + length {
            message.truncate(4 + length);
            return Ok(message);
        }
    }
}

/// A list of names, which has one (RFC 6066).
fn name(content: &[u8]) -> Result<String, HelloError> {
    let mut list = Reader(content);
    let mut names = Reader(list.vector16()?);
    let (kind, name) = (names.number8()?, names.vector16()?);
    if kind != 0 || !names.0.is_empty() || !list.0.is_empty() {
        return Err(HelloError::Malformed);
    }
    let text = std::str::from_utf8(name).ok().and_then(Domain::parse);
    text.map(|name| name.as_str().to_owned()).ok_or(HelloError::Name)
}

/// What is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn skip(&mut self, bytes: usize) -> Result<&'a [u8], HelloError> {
        let (part, rest) = self.0.split_at_checked(bytes).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(part)
    }

    fn number8(&mut self) -> Result<usize, HelloError> {
        Ok(self.skip(1)?.iter().fold(0, |_, byte| usize::from(*byte)))
    }

    fn number16(&mut self) -> Result<usize, HelloError> {
        Ok(self.skip(2)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    fn vector8(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.number8()?;
        self.skip(length)
    }

    fn vector16(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.number16()?;
        self.skip(length)
    }
}
