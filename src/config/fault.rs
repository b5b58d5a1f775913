//! What is wrong with the operator's files, as values: one fault, and a bounded heap of them.
//!
//! Everything in a fault may be shown on a terminal as it is: text from files is cleaned and
//! clipped when it enters.

use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::types::{Invalid, Origin};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing of what was read is used.
    Error,
    /// Probably not what was meant, but used.
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub severity: Severity,
    #[serde(flatten)]
    pub place: Place,
    /// One sentence without a full stop.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Other places that this is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    #[serde(flatten)]
    pub place: Place,
    pub what: String,
}

/// A file, and the position in it if the fault is about one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    #[serde(serialize_with = "lossy")]
    pub file: Arc<Path>,
    #[serde(flatten)]
    pub position: Option<Position>,
}

/// Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    pub line: u32,
    pub column: u32,
    #[serde(skip)]
    pub excerpt: Excerpt,
}

/// A line of a file, or what of a long line is near; `start..end` (bytes) is what is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Excerpt {
    pub text: String,
    pub start: usize,
    pub end: usize,
}

impl Excerpt {
    /// Each part with whether it was cut on its outer side.
    pub(super) fn new(before: (&str, bool), meant: (&str, bool), after: (&str, bool)) -> Self {
        let mut text = String::new();
        if before.1 {
            text.push('…');
        }
        text.push_str(&clean(before.0));
        let start = text.len();
        text.push_str(&clean(meant.0));
        let end = text.len();
        if !meant.1 {
            text.push_str(&clean(after.0));
        }
        if meant.1 || after.1 {
            text.push('…');
        }
        Excerpt { text, start, end }
    }
}

impl Place {
    pub fn file(path: impl Into<Arc<Path>>) -> Self {
        Place { file: path.into(), position: None }
    }

    pub fn origin(&self) -> Option<Origin> {
        let position = self.position.as_ref()?;
        Some(Origin { file: self.file.clone(), line: position.line, column: position.column })
    }
}

/// `file:line:column` or `file`.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&clean(&self.file.to_string_lossy()))?;
        match &self.position {
            Some(position) => write!(f, ":{}:{}", position.line, position.column),
            None => Ok(()),
        }
    }
}

impl Fault {
    pub fn error(place: Place, what: impl AsRef<str>) -> Self {
        Self::new(Severity::Error, place, what.as_ref())
    }

    pub fn warning(place: Place, what: impl AsRef<str>) -> Self {
        Self::new(Severity::Warning, place, what.as_ref())
    }

    pub fn invalid(place: Place, invalid: &Invalid) -> Self {
        let fault = Self::error(place, &invalid.what);
        match &invalid.hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }

    pub fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(clip(&clean(hint.as_ref())));
        self
    }

    pub fn related(mut self, place: Place, what: impl AsRef<str>) -> Self {
        self.related.push(Related { place, what: clip(&clean(what.as_ref())) });
        self
    }

    fn new(severity: Severity, place: Place, what: &str) -> Self {
        Fault { severity, place, what: clip(&clean(what)), hint: None, related: Vec::new() }
    }
}

/// `file:line:column: error: what; hint`, one line.
impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.severity.as_str(), self.what)?;
        for related in &self.related {
            write!(f, "; {}: {}", related.what, related.place)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Faults as they are found. Keeps the first so many of each severity and counts the rest.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    kept: Vec<Fault>,
    errors: usize,
    warnings: usize,
}

impl Faults {
    pub const KEPT: usize = 1000;

    pub fn push(&mut self, fault: Fault) {
        if self.count(fault.severity, 1) <= Self::KEPT {
            self.kept.push(fault);
        }
    }

    /// A warning; `make` is not called if it would only be counted.
    pub fn warn(&mut self, make: impl FnOnce() -> Fault) {
        match self.warnings < Self::KEPT {
            true => self.push(make()),
            false => self.warnings += 1,
        }
    }

    pub fn extend(&mut self, more: &Faults) {
        for fault in &more.kept {
            self.push(fault.clone());
        }
        let kept = |severity| more.kept.iter().filter(|fault| fault.severity == severity).count();
        self.count(Severity::Error, more.errors - kept(Severity::Error));
        self.count(Severity::Warning, more.warnings - kept(Severity::Warning));
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Those kept, and how many errors and warnings there were in all.
    pub fn into_parts(self) -> (Vec<Fault>, usize, usize) {
        (self.kept, self.errors, self.warnings)
    }

    fn count(&mut self, severity: Severity, more: usize) -> usize {
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += more;
        *count
    }
}

/// What a terminal would act upon becomes visible, one character for one character.
pub(super) fn clean(text: &str) -> String {
    let visible = |c: char| match c {
        '\t' => ' ',
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        // C1 controls, separators, what is invisible, and what reverses the direction of text.
        '\u{80}'..='\u{9f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{feff}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{061c}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(visible).collect()
}

fn clip(text: &str) -> String {
    const LONGEST: usize = 600;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn lossy<S: Serializer>(path: &Arc<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        let fault = Fault::error(Place::file(Path::new("a\x1b[2J")), "x\x1b]0;t\x07\u{9b}\u{202e}")
            .hint("y\nz\r");
        let line = fault.to_string();
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert_eq!(line, "a␛[2J: error: x␛]0;t␇\u{fffd}\u{fffd}; y␊z␍");
    }

    #[test]
    fn a_heap_of_faults_is_bounded_and_counted() {
        let mut faults = Faults::default();
        for _ in 0..5000 {
            faults.push(Fault::error(Place::file(Path::new("f")), "wrong"));
        }
        let mut all = Faults::default();
        all.push(Fault::warning(Place::file(Path::new("f")), "odd"));
        all.extend(&faults);
        all.extend(&faults);
        let (kept, errors, warnings) = all.into_parts();
        assert_eq!((kept.len(), errors, warnings), (Faults::KEPT + 1, 10_000, 1));
    }
}
