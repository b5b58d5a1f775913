//! A report as a person at a terminal wants it: the line, the caret, the other place, the hint.
//!
//! The only module that knows `annotate-snippets`, whose API changes often.

use annotate_snippets::renderer::Renderer;
use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Padding, Snippet};

use super::fault::{Fault, Place, Position, Severity, clean};
use super::report::Report;

impl Report {
    /// Like rustc's messages, `width` columns wide. Ends with a newline unless empty.
    pub fn terminal(&self, colour: bool, width: usize) -> String {
        let width = width.clamp(40, 400);
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.term_width(width);
        let (shown, left) = self.shown();
        let mut out = String::new();
        for fault in shown {
            out.push_str(&renderer.render(&groups(fault, width)));
            out.push_str("\n\n");
        }
        if left > 0 {
            out.push_str(&format!("and {left} more\n"));
        }
        let summary = self.summary();
        if !summary.is_empty() {
            out.push_str(&summary);
            out.push('\n');
        }
        out
    }
}

fn groups(fault: &Fault, width: usize) -> Vec<Group<'_>> {
    let level = match fault.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = wrap(&fault.what, width.saturating_sub(9));
    let mut main = level.primary_title(title).elements(place(&fault.place));
    if let Some(hint) = &fault.hint {
        if fault.place.position.is_some() {
            main = main.element(Padding);
        }
        let hint = wrap(hint, width.saturating_sub(14));
        main = main.element(Level::HELP.message(hint));
    }
    let mut groups = vec![main];
    for related in &fault.related {
        let what = wrap(&related.what, width.saturating_sub(9));
        groups.push(Level::NOTE.secondary_title(what).elements(place(&related.place)));
    }
    groups
}

fn place(place: &Place) -> Vec<Element<'_>> {
    let path = clean(&place.file.to_string_lossy());
    let Some(Position { line, column, excerpt }) = &place.position else {
        return vec![Origin::path(path).into()];
    };
    let meant = AnnotationKind::Primary.span(excerpt.start..excerpt.end);
    let snippet =
        Snippet::source(excerpt.text.as_str()).line_start(*line as usize).annotation(meant);
    if excerpt.text[..excerpt.start].chars().count() + 1 == *column as usize {
        return vec![snippet.path(path).into()];
    }
    // The line is cut on the left, so the column cannot be counted in it.
    let origin = Origin::path(path).line(*line as usize).char_column(*column as usize);
    vec![origin.into(), snippet.into()]
}

/// Breaks at spaces so that no line has more than `width` characters, where that can be.
fn wrap(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}
