//! Paths against globs. Takes at most the length of the glob times that of the path, which are both bounded; going back
//! to the last `*` or `**` alone is enough, as an earlier one could only take less.

use crate::types::http;

pub struct Glob(Box<[Segment]>);

enum Segment {
    /// `**`
    Deep,
    /// `*`
    Any,
    Exact(Box<[u8]>),
    /// What stands between asterisks: at least two parts, which may be empty.
    Parts(Box<[Box<[u8]>]>),
}

impl Glob {
    pub fn new(glob: &http::Glob) -> Self {
        let segment = |text: &str| match text {
            "**" => Segment::Deep,
            "*" => Segment::Any,
            text if text.contains('*') => {
                Segment::Parts(text.split('*').map(|part| part.as_bytes().into()).collect())
            }
            text => Segment::Exact(text.as_bytes().into()),
        };
        Glob(glob.segments().map(segment).collect())
    }

    /// `path` begins with `/`.
    pub fn matches(&self, path: &[u8]) -> bool {
        // Where the path's segment begins that is to be matched; none: at its end.
        let mut at = Some(1);
        let mut index = 0;
        // What follows the last `**`, and where that began to be matched.
        let mut back: Option<(usize, Option<usize>)> = None;
        loop {
            match (self.0.get(index), at) {
                (Some(Segment::Deep), _) => {
                    index += 1;
                    back = Some((index, at));
                    continue;
                }
                (Some(segment), Some(start)) => {
                    let (text, next) = cut(path, start);
                    if segment.matches(text) {
                        index += 1;
                        at = next;
                        continue;
                    }
                }
                (None, None) => return true,
                _ => {}
            }
            // The `**` takes one segment more.
            let Some((after, Some(start))) = back else { return false };
            at = cut(path, start).1;
            index = after;
            back = Some((after, at));
        }
    }
}

/// The segment that begins at `start`, and where the next does.
fn cut(path: &[u8], start: usize) -> (&[u8], Option<usize>) {
    let rest = path.get(start..).unwrap_or_default();
    match rest.iter().position(|byte| *byte == b'/') {
        Some(length) => (&rest[..length], Some(start + length + 1)),
        None => (rest, None),
    }
}

impl Segment {
    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Segment::Deep => true,
            Segment::Any => !text.is_empty(),
            Segment::Exact(exact) => **exact == *text,
            Segment::Parts(parts) => between(parts, text),
        }
    }
}

/// The first part begins the text, the last ends it, the others stand in between, in their order: each as early as can be.
fn between(parts: &[Box<[u8]>], text: &[u8]) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(rest) = text.strip_prefix(&**first) else { return false };
    let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
    for part in middle.iter().filter(|part| !part.is_empty()) {
        let Some(at) = rest.windows(part.len()).position(|window| *window == **part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    true
}
