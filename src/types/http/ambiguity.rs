//! Paths that servers read in different ways. A rule is about the path as it is sent; if a server made another of
//! it, what was allowed would not be what is served.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a path has more than one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ambiguity {
    /// It does not begin with `/`.
    Relative,
    /// A control character, or a byte that RFC 3986 has only percent-encoded.
    Byte,
    /// `\`, which some servers take for `/`; percent-encoded too.
    Backslash,
    /// `%` without two hexadecimal digits.
    Escape,
    /// `%25`, which some servers decode twice.
    DoubleEscape,
    /// `%2f`, which some servers take for `/`.
    EscapedSlash,
    /// `%00` to `%1f` or `%7f`: where some servers' text ends.
    EscapedControl,
    /// `.` or `..`, percent-encoded or followed by `;` and parameters too.
    DotSegment,
    /// `//`, or parameters of nothing (`/;`); a `/` at the end is none.
    EmptySegment,
}

impl Ambiguity {
    pub fn as_str(self) -> &'static str {
        match self {
            Ambiguity::Relative => "the path does not begin with `/`",
            Ambiguity::Byte => "the path has a byte that must be percent-encoded",
            Ambiguity::Backslash => "the path has a backslash",
            Ambiguity::Escape => "the path has `%` without two hexadecimal digits",
            Ambiguity::DoubleEscape => "the path is percent-encoded twice (`%25`)",
            Ambiguity::EscapedSlash => "the path has a percent-encoded `/`",
            Ambiguity::EscapedControl => "the path has a percent-encoded control character",
            Ambiguity::DotSegment => "the path has a `.` or `..` segment",
            Ambiguity::EmptySegment => "the path has an empty segment",
        }
    }
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// None: `path`, which is without the query, has one reading.
pub fn ambiguity(path: &[u8]) -> Option<Ambiguity> {
    let Some(rest) = path.strip_prefix(b"/") else { return Some(Ambiguity::Relative) };
    let mut segment = Segment::default();
    let mut bytes = rest.iter().copied();
    while let Some(byte) = bytes.next() {
        let meant = match byte {
            b'/' => {
                if let Some(odd) = segment.odd(false) {
                    return Some(odd);
                }
                segment = Segment::default();
                continue;
            }
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => match high << 4 | low {
                    b'%' => return Some(Ambiguity::DoubleEscape),
                    b'/' => return Some(Ambiguity::EscapedSlash),
                    b'\\' => return Some(Ambiguity::Backslash),
                    0..=0x1f | 0x7f => return Some(Ambiguity::EscapedControl),
                    meant => meant,
                },
                _ => return Some(Ambiguity::Escape),
            },
            b'\\' => return Some(Ambiguity::Backslash),
            byte if stands(byte) => byte,
            _ => return Some(Ambiguity::Byte),
        };
        segment.push(meant);
    }
    segment.odd(true)
}

/// What stands for itself in a path: RFC 3986's `pchar`, and what browsers leave as it is.
const fn stands(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'
                ..=b',' | b';' | b'=' | b':' | b'@' | b'[' | b']' | b'{' | b'}' | b'|' | b'^'
        )
}

fn hex(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

/// A segment up to its first `;`, as far as it matters.
#[derive(Default)]
struct Segment {
    dots: usize,
    others: bool,
    parameters: bool,
}

impl Segment {
    fn push(&mut self, meant: u8) {
        match meant {
            _ if self.parameters => {}
            b';' => self.parameters = true,
            b'.' => self.dots = self.dots.saturating_add(1),
            _ => self.others = true,
        }
    }

    fn odd(&self, last: bool) -> Option<Ambiguity> {
        match (self.others, self.dots) {
            (true, _) | (false, 3..) => None,
            (false, 1 | 2) => Some(Ambiguity::DotSegment),
            (false, 0) if last && !self.parameters => None,
            (false, 0) => Some(Ambiguity::EmptySegment),
        }
    }
}
