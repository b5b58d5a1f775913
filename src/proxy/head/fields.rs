//! Field lines, and what they say about where a message ends and what becomes of its connection.

use std::fmt;

use super::line;
use crate::proxy::ruleset::Headers;
use crate::types::http::is_token;

/// `Name: value`, without the blanks around the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
}

/// All field lines of a head, each valid by itself.
#[derive(Debug, Clone)]
pub struct Fields<'a>(Vec<Field<'a>>);

/// What is wrong with a field line, or with several together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldFault {
    /// A line end that is not CR LF, or none.
    LineEnd,
    /// More than are allowed.
    TooMany,
    /// It begins with a blank: the obsolete form of the line before (RFC 9112 section 5.2).
    Folded,
    /// No colon.
    NoColon,
    /// A blank before the colon, or a name that is no token.
    Name,
    /// A control character, NUL among them.
    Value,
    /// `Transfer_Encoding` and the like, which some servers take for those with `-`.
    Underscore,
    /// More than one of which there can be one only, or a list instead of one.
    Length,
    /// `Transfer-Encoding` other than `chunked`, or more than one.
    Coding,
    /// Both.
    LengthAndCoding,
}

impl<'a> Field<'a> {
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Of a list with commas: its parts without blanks.
    pub fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.value.split(|byte| *byte == b',').map(|part| part.trim_ascii())
    }
}

impl<'a> Fields<'a> {
    /// `lines` ends with the empty line.
    pub fn parse(mut lines: &'a [u8], most: usize) -> Result<Self, FieldFault> {
        let mut fields = Vec::with_capacity(16.min(most));
        loop {
            let (line, rest) = line::cut(lines).ok_or(FieldFault::LineEnd)?;
            if line.is_empty() {
                return match rest.is_empty() {
                    true => Ok(Fields(fields)),
                    false => Err(FieldFault::LineEnd),
                };
            }
            if fields.len() == most {
                return Err(FieldFault::TooMany);
            }
            fields.push(field(line)?);
            lines = rest;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Field<'a>> {
        self.0.iter()
    }

    pub fn named<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Field<'a>> {
        self.0.iter().filter(move |field| field.is(name))
    }

    /// Whether one of the lists of that name has the part, in any case.
    pub fn lists(&self, name: &str, part: &str) -> bool {
        let is = |each: &[u8]| each.eq_ignore_ascii_case(part.as_bytes());
        self.named(name).any(|field| field.parts().any(is))
    }

    /// `Content-Length`.
    pub fn length(&self) -> Result<Option<u64>, FieldFault> {
        let mut lengths = self.named("content-length");
        match (lengths.next(), lengths.next()) {
            (None, _) => Ok(None),
            (Some(field), None) => number(field.value).map(Some).ok_or(FieldFault::Length),
            (Some(_), Some(_)) => Err(FieldFault::Length),
        }
    }

    /// Whether there is `Transfer-Encoding: chunked`.
    pub fn chunked(&self) -> Result<bool, FieldFault> {
        let mut codings = self.named("transfer-encoding");
        match (codings.next(), codings.next()) {
            (None, _) => Ok(false),
            (Some(field), None) if field.value.eq_ignore_ascii_case(b"chunked") => Ok(true),
            _ => Err(FieldFault::Coding),
        }
    }
}

impl Headers for Fields<'_> {
    fn all(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let mut any = false;
        for field in self.named(name) {
            any = true;
            if !test(field.value) {
                return false;
            }
        }
        any
    }
}

fn field(line: &[u8]) -> Result<Field<'_>, FieldFault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(FieldFault::Folded);
    }
    let colon = memchr::memchr(b':', line).ok_or(FieldFault::NoColon)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(FieldFault::Name);
    }
    if name.contains(&b'_') && is_framing(name) {
        return Err(FieldFault::Underscore);
    }
    if !value.iter().all(|byte| is_text(*byte)) {
        return Err(FieldFault::Value);
    }
    Ok(Field { name, value: trim(value) })
}

/// What stands in a value (RFC 9110 section 5.5), blanks and obsolete bytes among it.
pub fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Whether it is one that says where a message ends, who it is for or what becomes of its connection, if `_` is `-`.
fn is_framing(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] =
        [b"content-length", b"transfer-encoding", b"host", b"connection", b"upgrade", b"expect"];
    let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-');
    let is = |other: &&[u8]| {
        name.len() == other.len() && name.iter().zip(*other).all(|(a, b)| same(*a, *b))
    };
    NAMES.iter().any(is)
}

/// Only blanks and tabs: nothing else is optional white space.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Digits, without zeros in front, which some read as octal.
fn number(text: &[u8]) -> Option<u64> {
    let digits = (1..=19).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    if !digits || (text.len() > 1 && text.starts_with(b"0")) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldFault::LineEnd => "a line does not end with CR LF",
            FieldFault::TooMany => "too many headers",
            FieldFault::Folded => "a header is folded",
            FieldFault::NoColon => "a header has no colon",
            FieldFault::Name => "the name of a header is no token",
            FieldFault::Value => "a header has a control character",
            FieldFault::Underscore => "a header can be taken for one about the message's end",
            FieldFault::Length => "Content-Length is not one number",
            FieldFault::Coding => "Transfer-Encoding is not chunked",
            FieldFault::LengthAndCoding => "both Content-Length and Transfer-Encoding",
        })
    }
}
