//! One file's text to its content: syntax, then keys and values. All faults of it.

use std::sync::Arc;

use toml::de::{DeTable, Error};
use toml_parser::lexer::TokenKind;

use super::assertion::{self, WrittenAssert};
use super::endpoint::{self, WrittenEndpoint};
use super::fault::{Excerpt, Fault, Faults, Place, Position};
use super::files::Kind;
use super::group::{self, WrittenGroup};
use super::host::{self, HostPart};
use super::keys::{ASSERT, ENDPOINTS, GROUP, HOST, POLICIES, POLICY};
use super::policy::{self, WrittenPolicy};
use super::source::Source;
use super::table::{Sink, Table};

#[derive(Debug, Clone)]
pub enum Content {
    Host(Box<HostPart>),
    Endpoints(Vec<WrittenEndpoint>),
    Policies(Box<PolicyFile>),
}

/// What a file of `policies.d` has.
#[derive(Debug, Clone)]
pub struct PolicyFile {
    pub policies: Vec<WrittenPolicy>,
    pub groups: Vec<WrittenGroup>,
    pub asserts: Vec<WrittenAssert>,
    /// Every `[[group]]` is among `groups`: none had faults.
    pub has_all_groups: bool,
}

/// None: it could not be parsed as TOML at all.
pub fn parse(kind: Kind, source: &Source) -> (Option<Content>, Faults) {
    let sink = Sink::new(source);
    let content = content(kind, source, &sink);
    (content, sink.into_faults())
}

/// The text, or the fault with the place of the first byte that is not UTF-8.
pub fn utf8(path: &Arc<std::path::Path>, content: Vec<u8>) -> Result<String, Box<Fault>> {
    String::from_utf8(content).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let content = error.as_bytes();
        let line_start =
            content[..valid].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = 1 + content[..valid].iter().filter(|byte| **byte == b'\n').count() as u32;
        // All of it is valid: it ends before the first invalid byte.
        let before = String::from_utf8_lossy(&content[line_start..valid]);
        let source = Source::new(path.clone(), before.into_owned());
        let here = source.place(&(source.text().len()..source.text().len()));
        let (column, shown) = match here.position {
            Some(position) => (position.column, position.excerpt.text),
            None => (1, String::new()),
        };
        let excerpt = Excerpt::new((&shown, false), ("\u{fffd}", false), ("", true));
        let place =
            Place { file: path.clone(), position: Some(Position { line, column, excerpt }) };
        let what = format!("the byte 0x{:02x} here is not UTF-8", content[valid]);
        Box::new(Fault::error(place, what).hint("save the file as UTF-8"))
    })
}

fn content<'a>(kind: Kind, source: &'a Source, sink: &Sink<'a>) -> Option<Content> {
    let text = source.text().strip_prefix('\u{feff}').unwrap_or(source.text());
    if text.len() != source.text().len() {
        let fault = Fault::error(sink.place(&(0..0)), "the file begins with a byte order mark");
        sink.push(fault.hint("save the file as UTF-8 without one"));
        return None;
    }
    if let Some((offset, what)) = too_deep(text) {
        let fault = Fault::error(sink.place(&(offset..offset + 1)), what);
        sink.push(fault.hint("a label key with dots needs quotes"));
        return None;
    }
    // A hopeless large file gets one fault: to tell all takes memory many times its size.
    const SMALL: usize = 1 << 20;
    let (document, errors) = if text.len() <= SMALL {
        DeTable::parse_recoverable(text)
    } else {
        match DeTable::parse(text) {
            Ok(document) => (document, Vec::new()),
            Err(error) => (toml::Spanned::new(0..0, DeTable::new()), vec![error]),
        }
    };
    if !errors.is_empty() {
        for error in &errors {
            syntax(sink, error, text.len());
        }
        return None;
    }
    Some(walk(kind, sink, document.get_ref()))
}

fn walk<'a>(kind: Kind, sink: &'a Sink<'a>, document: &'a DeTable<'a>) -> Content {
    let table = |keys| Table::new(sink, keys, 0..0, document);
    match kind {
        Kind::Host => Content::Host(Box::new(host::read(&table(&HOST)))),
        Kind::Endpoints => Content::Endpoints(endpoint::read(&table(&ENDPOINTS))),
        Kind::Policies => Content::Policies(Box::new(policies(&table(&POLICIES)))),
    }
}

fn policies(root: &Table) -> PolicyFile {
    let policies = root.tables("policy", &POLICY).iter().filter_map(policy::read).collect();
    let tables = root.tables("group", &GROUP);
    let groups: Vec<_> = tables.iter().filter_map(group::read).collect();
    let written = root.optional("group").map_or(0, |item| item.len());
    let asserts = root.tables("assert", &ASSERT).iter().filter_map(assertion::read).collect();
    PolicyFile { policies, has_all_groups: groups.len() == written, groups, asserts }
}

fn syntax(sink: &Sink, error: &Error, end: usize) {
    let span = error.span().unwrap_or(end..end);
    sink.error(&span, format!("not TOML: {}", error.message()));
}

/// Bounds what nests, by the parser's own tokens: its tables are dropped recursively, so that a key
/// of a million parts would take the whole stack.
fn too_deep(text: &str) -> Option<(usize, &'static str)> {
    const PARTS: usize = 16;
    const NESTED: usize = 16;
    let mut parts = 0;
    let mut open = Vec::new();
    for token in toml_parser::Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => parts += 1,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => open.push(token.kind()),
            TokenKind::RightSquareBracket => {
                open.pop_if(|kind| *kind == TokenKind::LeftSquareBracket);
            }
            TokenKind::RightCurlyBracket => {
                open.pop_if(|kind| *kind == TokenKind::LeftCurlyBracket);
            }
            _ => {}
        }
        if !matches!(
            token.kind(),
            TokenKind::Dot
                | TokenKind::Whitespace
                | TokenKind::Atom
                | TokenKind::BasicString
                | TokenKind::LiteralString
        ) {
            parts = 0;
        }
        if parts > PARTS {
            return Some((token.span().start(), "the key has too many parts"));
        }
        if open.len() > NESTED {
            return Some((token.span().start(), "too many brackets are open"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<Fault> {
        let source = Source::new(std::path::Path::new("f").into(), text.to_owned());
        parse(Kind::Policies, &source).1.into_parts().0
    }

    #[test]
    fn depth_is_refused_before_it_is_built() {
        for text in [
            format!("{}a = 1", "a.".repeat(1_000_000)),
            format!("[{}a]", "a . ".repeat(1_000_000)),
            format!("[[{}a]]", "\"a\".".repeat(1_000_000)),
            format!("a = {}", "[".repeat(1_000_000)),
            format!("a = {}", "{a=".repeat(1_000_000)),
            format!("a = {}", "{a.b.c.d.e.f.g.h.i.j.k.l=[".repeat(1_000_000)),
            "{]{[}[".repeat(100_000),
        ] {
            assert!(!faults(&text).is_empty());
        }
    }

    #[test]
    fn dots_in_text_and_comments_are_no_depth() {
        let dots = "1.".repeat(1000);
        assert!(faults(&format!("# {dots}\npolicy = [] # {dots}\n")).is_empty());
        assert!(
            too_deep(&format!("a = ['{dots}', \"{dots}\", 1.5, 1.5]\nb = '''{dots}'''")).is_none()
        );
    }
}
