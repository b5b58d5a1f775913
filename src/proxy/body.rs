//! Where a message's body ends (RFC 9112 sections 6 and 7). Bodies are passed on as they are, chunk sizes and trailers
//! included; they are only read along, so that the next message is looked for at the right byte.

use crate::types::http::is_token;

/// What is yet to come of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(Framing);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

/// What of some bytes belongs to a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub bytes: usize,
    /// Whether the body ends there.
    pub last: bool,
}

/// Chunks or trailers with more than one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Body {
    pub fn length(bytes: u64) -> Self {
        Body(Framing::Length(bytes))
    }

    pub fn chunked() -> Self {
        Body(Framing::Chunked(Chunks::default()))
    }

    pub fn until_close() -> Self {
        Body(Framing::UntilClose)
    }

    pub fn is_until_close(&self) -> bool {
        self.0 == Framing::UntilClose
    }

    /// Whether there is none, or no more.
    pub fn is_over(&self) -> bool {
        match &self.0 {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(chunks) => chunks.state == State::Over,
            Framing::UntilClose => false,
        }
    }

    /// Bytes that it will have, as far as is known.
    pub fn left(&self) -> Option<u64> {
        match &self.0 {
            Framing::Length(left) => Some(*left),
            Framing::Chunked(_) | Framing::UntilClose => None,
        }
    }

    /// Bytes from here on that need not be looked at: data, whatever it is.
    pub fn data(&self) -> u64 {
        match &self.0 {
            Framing::Length(left) => *left,
            Framing::Chunked(chunks) if chunks.state == State::Data => chunks.left,
            Framing::Chunked(_) => 0,
            Framing::UntilClose => u64::MAX,
        }
    }

    /// So many of them have gone by.
    pub fn skip(&mut self, bytes: u64) {
        match &mut self.0 {
            Framing::Length(left) => *left = left.saturating_sub(bytes),
            Framing::Chunked(chunks) if chunks.state == State::Data => {
                chunks.left = chunks.left.saturating_sub(bytes);
                if chunks.left == 0 {
                    chunks.state = State::DataCr;
                }
            }
            Framing::Chunked(_) | Framing::UntilClose => {}
        }
    }

    /// Reads along.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Part, Malformed> {
        match &mut self.0 {
            Framing::Length(left) => {
                let part = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= part as u64;
                Ok(Part { bytes: part, last: *left == 0 })
            }
            Framing::Chunked(chunks) => chunks.advance(bytes),
            Framing::UntilClose => Ok(Part { bytes: bytes.len(), last: false }),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Chunks {
    state: State,
    /// Of the chunk.
    left: u64,
    /// Bytes of the size line, or of the trailers.
    line: usize,
    /// The beginning of a trailer's name, in lower case.
    name: Name,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    FirstDigit,
    Digits,
    /// After `;`: nobody has a use for extensions, so they are short.
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    TrailerBegin,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Over,
}

impl Chunks {
    /// Digits of a size: no chunk has more than 2^60 bytes.
    const DIGITS: usize = 15;
    const EXTENSION: usize = 256;
    const TRAILERS: usize = 8 << 10;

    fn advance(&mut self, bytes: &[u8]) -> Result<Part, Malformed> {
        let mut at = 0;
        while self.state != State::Over {
            if self.state == State::Data {
                let rest = bytes.len() - at;
                let part = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest);
                at += part;
                self.left -= part as u64;
                if self.left > 0 {
                    break;
                }
                self.state = State::DataCr;
            }
            let Some(byte) = bytes.get(at) else { break };
            self.step(*byte)?;
            at += 1;
        }
        Ok(Part { bytes: at, last: self.state == State::Over })
    }

    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (self.state, byte) {
            (State::FirstDigit | State::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                self.counted(Self::DIGITS)?;
                self.left = self.left << 4 | u64::from(digit);
                State::Digits
            }
            (State::Digits, b';') => {
                self.line = 0;
                State::Extension
            }
            (State::Digits | State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\t' | b' '..=b'~') => {
                self.counted(Self::EXTENSION)?;
                State::Extension
            }
            (State::SizeEnd, b'\n') => {
                self.line = 0;
                if self.left == 0 { State::TrailerBegin } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::FirstDigit,
            (State::TrailerBegin, b'\r') => State::LastLf,
            (State::TrailerBegin | State::TrailerName, byte) if is_token(byte) => {
                self.counted(Self::TRAILERS)?;
                self.name.push(byte);
                State::TrailerName
            }
            (State::TrailerName, b':') => {
                if self.name.take().is_forbidden() {
                    return Err(Malformed);
                }
                State::TrailerValue
            }
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => {
                self.counted(Self::TRAILERS)?;
                State::TrailerValue
            }
            (State::TrailerLf, b'\n') => State::TrailerBegin,
            (State::LastLf, b'\n') => State::Over,
            _ => return Err(Malformed),
        };
        Ok(())
    }

    fn counted(&mut self, most: usize) -> Result<(), Malformed> {
        self.line += 1;
        if self.line > most { Err(Malformed) } else { Ok(()) }
    }
}

/// As much of a name as tells those apart that must not be in trailers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Name {
    bytes: [u8; 20],
    length: usize,
}

impl Name {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
        }
        self.length = self.length.saturating_add(1);
    }

    fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// What says where a message ends, who it is for or who sends it (RFC 9110 section 6.5.1): a server that merges
    /// trailers into the head would serve another request than the one that was judged.
    fn is_forbidden(&self) -> bool {
        const NAMES: [&[u8]; 12] = [
            b"authorization",
            b"connection",
            b"content-encoding",
            b"content-length",
            b"content-range",
            b"content-type",
            b"cookie",
            b"expect",
            b"host",
            b"te",
            b"transfer-encoding",
            b"upgrade",
        ];
        self.bytes.get(..self.length).is_some_and(|name| NAMES.contains(&name))
    }
}
