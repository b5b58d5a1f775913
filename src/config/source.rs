//! One file's text, and how byte offsets in it become lines and columns.
//!
//! Knows nothing of TOML. Lines and columns count from 1, columns in characters.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::fault::{Excerpt, Place, Position};
use crate::types::Origin;

#[derive(Debug)]
pub struct Source {
    path: Arc<Path>,
    text: String,
    /// Known positions, ascending: each line's begin, and inside long lines one every so often,
    /// so that no look-up reads more than a few kilobytes.
    marks: Vec<Mark>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    offset: u32,
    line: u32,
    column: u32,
}

const MARK_EVERY: usize = 1024;
/// Characters of a line that are shown on either side of what is pointed at.
const SHOWN: usize = 160;
/// Bytes that surely have more characters than are shown: cutting there is noticed.
const WINDOW: usize = 8 * (SHOWN + 1);

impl Source {
    /// `text` is shorter than 4 GiB: `read` sees to it.
    pub fn new(path: Arc<Path>, text: String) -> Self {
        let mut marks = vec![Mark { offset: 0, line: 1, column: 1 }];
        let (mut line, mut column, mut last) = (1, 1, 0);
        for (offset, c) in text.char_indices() {
            if offset - last >= MARK_EVERY {
                marks.push(Mark { offset: offset as u32, line, column });
                last = offset;
            }
            if c == '\n' {
                (line, column, last) = (line + 1, 1, offset + 1);
                marks.push(Mark { offset: last as u32, line, column });
            } else {
                column += 1;
            }
        }
        Source { path, text, marks }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Offsets past the end count as the end.
    pub fn origin(&self, offset: usize) -> Origin {
        let offset = self.text.floor_char_boundary(offset);
        let after = self.marks.partition_point(|mark| mark.offset as usize <= offset);
        // The first mark is at offset 0, so there always is one before.
        let mark = self.marks[after.saturating_sub(1)];
        let further = self.text[mark.offset as usize..offset].chars().count() as u32;
        Origin { file: self.path.clone(), line: mark.line, column: mark.column + further }
    }

    /// The byte offset of a line and column; of the end, if there are not so many.
    pub fn offset(&self, line: u32, column: u32) -> usize {
        let after = self.marks.partition_point(|mark| (mark.line, mark.column) <= (line, column));
        let mark = self.marks[after.saturating_sub(1)];
        let from = mark.offset as usize;
        let further = column.saturating_sub(mark.column) as usize;
        let rest = &self.text[from..];
        rest.char_indices().nth(further).map_or(self.text.len(), |(offset, _)| from + offset)
    }

    /// Where `span` is, with the line to show: its first, if it has several.
    pub fn place(&self, span: &Range<usize>) -> Place {
        let origin = self.origin(span.start);
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.floor_char_boundary(span.end).max(start);
        // No more of the text than can be shown: lines may have megabytes.
        let near = self.text.floor_char_boundary(start.saturating_sub(WINDOW));
        let far = self.text.floor_char_boundary(start.saturating_add(WINDOW));
        let newline = self.text[near..start].rfind('\n');
        let line_start = newline.map_or(near, |newline| near + newline + 1);
        let line_end = self.text[start..far].find('\n').map_or(far, |newline| start + newline);
        let end = end.min(line_end);
        Place {
            file: origin.file,
            position: Some(Position {
                line: origin.line,
                column: origin.column,
                excerpt: Excerpt::new(
                    tail(&self.text[line_start..start], SHOWN),
                    head(&self.text[start..end], SHOWN),
                    head(self.text[end..line_end].trim_end_matches('\r'), SHOWN),
                ),
            }),
        }
    }
}

/// The first `count` characters, and whether that is not all.
fn head(text: &str, count: usize) -> (&str, bool) {
    match text.char_indices().nth(count) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    }
}

fn tail(text: &str, count: usize) -> (&str, bool) {
    match text.char_indices().rev().nth(count) {
        Some((cut, c)) => (&text[cut + c.len_utf8()..], true),
        None => (text, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str, offset: usize) -> (u32, u32) {
        let source = Source::new(Path::new("f").into(), text.to_owned());
        let origin = source.origin(offset);
        (origin.line, origin.column)
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("ab", 2), (1, 3));
        assert_eq!(position("ab\ncd", 3), (2, 1));
        assert_eq!(position("é=1\n日本x", 5), (2, 1));
        assert_eq!(position("é=1\n日本x", 11), (2, 3));
        assert_eq!(position("ab\n", 99), (2, 1));
    }

    #[test]
    fn long_lines_are_counted_like_short_ones() {
        let text = format!("first\n{}", "é".repeat(100_000));
        for character in [0_usize, 1, 511, 512, 513, 1024, 99_999] {
            assert_eq!(position(&text, 6 + 2 * character), (2, character as u32 + 1));
        }
    }
}
