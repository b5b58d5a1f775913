//! An answer for people: the verdict, then each end, then what else there is to say.

use std::fmt::Write;

use super::answer::{By, End, Side, Why};
use crate::observe::text::plain;
use crate::types::{Labels, Verdict};

/// Where sentences begin.
const INDENT: usize = 20;
/// Of what is asked of requests, this much is shown.
const REQUESTS: usize = 10;

/// Lines of at most `width` columns, unless a word is longer; without one, each thing is one line.
pub fn why(why: &Why, width: Option<usize>) -> String {
    let mut text = String::new();
    let source = why.source_port.map(|port| format!(" from source port {port}"));
    let head = format!(
        "{} -> {} {}{}",
        end(&why.from),
        end(&why.to),
        why.port,
        source.unwrap_or_default()
    );
    let judged =
        [&why.egress, &why.ingress].into_iter().flatten().any(|side| !side.requests.is_empty());
    let verdict = match judged && why.verdict == Verdict::Allow {
        true => "allow some requests: ".to_owned(),
        false => format!("{}: ", why.verdict),
    };
    row(&mut text, &verdict, &head, width);
    let ends = [("egress", &why.egress), ("ingress", &why.ingress)];
    for (name, side) in ends {
        side_row(&mut text, name, side, width);
    }
    if let Some(because) = &why.because {
        row(&mut text, "  because", because, width);
    }
    for almost in &why.almost {
        let place = place(&almost.rule.policy.file, almost.rule.policy.line);
        row(&mut text, "  almost", &format!("{} {place}", almost.because), width);
    }
    if let Some(shadow) = &why.shadow {
        row(
            &mut text,
            "  shadow",
            &format!("{} if shadow policies were enforced:", shadow.verdict),
            width,
        );
        let tried = [&shadow.egress, &shadow.ingress];
        // The other end's is what it was.
        for ((name, side), tried) in ends.into_iter().zip(tried) {
            if side != tried {
                side_row(&mut text, name, tried, width);
            }
        }
    }
    for note in &why.notes {
        row(&mut text, "  note", note, width);
    }
    text
}

fn side_row(text: &mut String, name: &str, side: &Option<Side>, width: Option<usize>) {
    let Some(side) = side else { return };
    let policy = match &side.by {
        By::Rule(rule) => Some(&rule.policy),
        By::Default(_) => side.default_of.as_ref(),
    };
    let mut because = side.because.clone();
    if let Some(policy) = policy {
        let _ = write!(because, " {}", place(&policy.file, policy.line));
    }
    row(text, &format!("  {name:<8} {}", side.verdict), &because, width);
    let (first, rest) = side.requests.split_at(side.requests.len().min(REQUESTS));
    for request in first {
        row(text, "  requests", request, width);
    }
    if !rest.is_empty() {
        row(text, "  requests", &format!("and {} more (see --json)", rest.len()), width);
    }
}

fn place(file: &str, line: u32) -> String {
    format!("({file}:{line})")
}

fn end(end: &End) -> String {
    let labels = |labels: &Labels| match labels.is_empty() {
        true => "(no labels)".to_owned(),
        false => labels.to_string(),
    };
    match (&end.endpoint, &end.address, &end.class) {
        (Some(name), Some(address), _) => format!("{name} ({address})"),
        (Some(name), None, _) => name.clone(),
        (None, Some(address), Some(class)) => format!("{address} ({class})"),
        (None, _, Some(class)) => format!("entity:{class}"),
        (None, _, None) => end.labels.as_deref().map(labels).unwrap_or_default(),
    }
}

/// `head`, then the words of `rest`, which go on below where they begin.
fn row(text: &mut String, head: &str, rest: &str, width: Option<usize>) {
    let (head, rest) = (plain(head), plain(rest));
    let indent = if head.starts_with(' ') { INDENT } else { head.chars().count() };
    let _ = write!(text, "{head:<indent$}");
    let mut column = indent;
    for (place, word) in rest.split(' ').enumerate() {
        let length = word.chars().count();
        if place > 0 {
            if width.is_some_and(|width| column + 1 + length > width) {
                let _ = write!(text, "\n{:indent$}", "");
                column = indent;
            } else {
                text.push(' ');
                column += 1;
            }
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}
