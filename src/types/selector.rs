//! Selectors: queries over labels, in Kubernetes' written form.
//!
//! ```text
//! selector    = [ requirement *( "," requirement ) ]        empty: everything
//! requirement = key | "!" key | key ( "=" | "==" | "!=" ) value
//!             | key ( "in" | "notin" ) "(" value *( "," value ) ")"
//! ```
//!
//! As in Kubernetes, `!=` and `notin` also pick what lacks the key.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::Invalid;
use super::label::{LabelKey, Labels, check_value};

/// All requirements must hold. Sorted, so that equal selectors compare equal however they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(BTreeSet<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    Exists(LabelKey),
    Absent(LabelKey),
    In(LabelKey, BTreeSet<String>),
    NotIn(LabelKey, BTreeSet<String>),
}

impl Selector {
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// Picks every endpoint.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it can be written: a value from a table may have what the written form gives a meaning to.
    pub fn is_written(&self) -> bool {
        self.to_string().parse().is_ok_and(|read: Selector| read == *self)
    }

    /// Picks whoever `other` picks, as far as requirements can be compared one by one.
    pub fn covers(&self, other: &Selector) -> bool {
        let implied = |wanted: &Requirement| other.0.iter().any(|given| given.implies(wanted));
        self.0.iter().all(implied)
    }

    /// Nobody is surely picked by both.
    pub fn is_apart(&self, other: &Selector) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| a.excludes(b) || b.excludes(a)))
    }

    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter()
    }
}

impl Requirement {
    pub fn key(&self) -> &LabelKey {
        match self {
            Requirement::Exists(key)
            | Requirement::Absent(key)
            | Requirement::In(key, _)
            | Requirement::NotIn(key, _) => key,
        }
    }

    /// Whatever meets this meets `other`.
    fn implies(&self, other: &Requirement) -> bool {
        use Requirement::{Absent, Exists, In, NotIn};
        if self == other {
            return true;
        }
        self.key() == other.key()
            && match (self, other) {
                (In(..), Exists(_)) | (Absent(_), NotIn(..)) => true,
                (In(_, few), In(_, many)) => few.is_subset(many),
                (In(_, wanted), NotIn(_, unwanted)) => wanted.is_disjoint(unwanted),
                (NotIn(_, many), NotIn(_, few)) => few.is_subset(many),
                _ => false,
            }
    }

    /// Whatever meets this does not meet `other`.
    fn excludes(&self, other: &Requirement) -> bool {
        use Requirement::{Absent, Exists, In, NotIn};
        self.key() == other.key()
            && match (self, other) {
                (Absent(_), Exists(_) | In(..)) => true,
                (In(_, some), In(_, others)) => some.is_disjoint(others),
                (In(_, wanted), NotIn(_, unwanted)) => wanted.is_subset(unwanted),
                _ => false,
            }
    }

    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.value(self.key().as_str());
        match self {
            Requirement::Exists(_) => value.is_some(),
            Requirement::Absent(_) => value.is_none(),
            Requirement::In(_, wanted) => value.is_some_and(|value| wanted.contains(value)),
            Requirement::NotIn(_, unwanted) => value.is_none_or(|value| !unwanted.contains(value)),
        }
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        Selector(requirements.into_iter().collect())
    }
}

impl FromStr for Selector {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut parser = Parser { text, at: 0 };
        let mut requirements = BTreeSet::new();
        parser.space();
        if parser.rest().is_empty() {
            return Ok(Selector(requirements));
        }
        loop {
            requirements.insert(parser.requirement()?);
            parser.space();
            match parser.next_char() {
                None => return Ok(Selector(requirements)),
                Some(',') => parser.bump(','),
                Some(c @ ('<' | '>')) => {
                    return Err(parser.fault(format!("`{c}` compares numbers, labels are text")));
                }
                Some(c) => return Err(parser.fault(format!("expected `,`, found {c:?}"))),
            }
        }
    }
}

const HINT: &str = "a selector is written like `app=web,tier in (a,b),!legacy`";

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn next_char(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self, c: char) {
        self.at += c.len_utf8();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// As Kubernetes takes it, so that a selector may have several lines.
    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches(SPACE).len();
    }

    fn fault(&self, what: String) -> Invalid {
        Invalid::new(format!("bad selector: {what}")).hint(HINT).at(self.at)
    }

    fn requirement(&mut self) -> Result<Requirement, Invalid> {
        self.space();
        if self.take("!") {
            self.space();
            return Ok(Requirement::Absent(self.key()?));
        }
        let key = self.key()?;
        self.space();
        if self.take("!=") {
            return Ok(Requirement::NotIn(key, BTreeSet::from([self.value()?])));
        }
        if self.take("==") || self.take("=") {
            return Ok(Requirement::In(key, BTreeSet::from([self.value()?])));
        }
        let word = self.rest().split(['(', ' ', '\t', '\r', '\n']).next().unwrap_or("");
        match word {
            "in" | "notin" => {
                self.at += word.len();
                let values = self.values()?;
                Ok(if word == "in" {
                    Requirement::In(key, values)
                } else {
                    Requirement::NotIn(key, values)
                })
            }
            _ => Ok(Requirement::Exists(key)),
        }
    }

    fn key(&mut self) -> Result<LabelKey, Invalid> {
        let rest = self.rest();
        let end = rest.find(|c| !LabelKey::allows(c)).unwrap_or(rest.len());
        if end == 0 {
            let found = self.next_char().map_or("the end".to_owned(), |c| format!("{c:?}"));
            return Err(self.fault(format!("expected a label key, found {found}")));
        }
        let key = rest[..end].parse().map_err(|invalid: Invalid| self.fault(invalid.what))?;
        self.at += end;
        Ok(key)
    }

    /// May be empty: `key=` asks for the empty value.
    fn value(&mut self) -> Result<String, Invalid> {
        self.space();
        let rest = self.rest();
        let ends = |c: char| matches!(c, ',' | '(' | ')' | '=' | '!') || SPACE.contains(&c);
        let end = rest.find(ends).unwrap_or(rest.len());
        let value = &rest[..end];
        check_value(value).map_err(|invalid| self.fault(invalid.what))?;
        self.at += end;
        Ok(value.to_owned())
    }

    fn values(&mut self) -> Result<BTreeSet<String>, Invalid> {
        self.space();
        if !self.take("(") {
            return Err(self.fault("expected `(` after `in` or `notin`".to_owned()));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value()?);
            self.space();
            match self.next_char() {
                Some(')') => {
                    self.bump(')');
                    return Ok(values);
                }
                Some(',') => self.bump(','),
                Some(c) => return Err(self.fault(format!("expected `,` or `)`, found {c:?}"))),
                None => return Err(self.fault("`(` is never closed".to_owned())),
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
        match self {
            Requirement::Exists(key) => write!(f, "{key}"),
            Requirement::Absent(key) => write!(f, "!{key}"),
            Requirement::In(key, values) if values.len() == 1 => {
                write!(f, "{key}={}", list(values))
            }
            Requirement::NotIn(key, values) if values.len() == 1 => {
                write!(f, "{key}!={}", list(values))
            }
            Requirement::In(key, values) => write!(f, "{key} in ({})", list(values)),
            Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", list(values)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl serde::Serialize for Selector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Label;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let label = |(key, value): &(&str, &str)| Label {
            key: key.parse().unwrap(),
            value: (*value).to_owned(),
        };
        pairs.iter().map(label).collect()
    }

    #[test]
    fn picks_by_every_operator() {
        let web = labels(&[("app", "web"), ("tier", "a"), ("in", "x")]);
        for (selector, picks) in [
            ("", true),
            ("app", true),
            ("app=web", true),
            ("app == web", true),
            ("app=web,tier in (a,b),!legacy", true),
            ("app!=web", false),
            ("missing!=web", true),
            ("tier notin (a, b)", false),
            ("missing notin (a)", true),
            ("missing in (a)", false),
            ("!app", false),
            ("in=x", true),
            ("in in (x)", true),
            ("app=", false),
            ("app\tin\n( web ,\r\n x)", true),
            ("app in(web)", true),
            ("app in ()", false),
            ("missing notin ()", true),
            ("! missing", true),
        ] {
            assert_eq!(selector.parse::<Selector>().unwrap().matches(&web), picks, "{selector}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["", "a", "!a", "a=b", "a!=b", "a in (b,c)", "a notin (b,c)", "a=,b=c"] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.to_string(), text);
        }
    }

    #[test]
    fn faults_say_where() {
        for (text, at) in [
            ("=a", 0),
            ("a=b,", 4),
            ("a in b", 5),
            ("a in (b", 7),
            ("a=b c", 4),
            ("a=b=c", 3),
            ("a,,b", 2),
            ("a > 5", 2),
            ("a<5", 1),
            (",a", 0),
            ("!", 1),
            ("a in (b))", 8),
        ] {
            let fault = text.parse::<Selector>().unwrap_err();
            assert_eq!(fault.at, Some(at), "{text}: {}", fault.what);
        }
    }

    #[test]
    fn covering_is_never_claimed_wrongly() {
        for (wide, narrow, covers) in [
            ("", "a=b", true),
            ("a=b", "", false),
            ("a", "a=b,c", true),
            ("a in (b,c)", "a=b", true),
            ("a=b", "a in (b,c)", false),
            ("a!=x", "a=b", true),
            ("a!=x", "!a", true),
            ("a!=x", "a notin (x,y)", true),
            ("a notin (x,y)", "a!=x", false),
            ("a!=b", "a=b", false),
            ("!a", "a!=b", false),
            ("a", "a!=b", false),
            ("a=b,c=d", "c=d,a=b,e", true),
        ] {
            let selector = |text: &str| text.parse::<Selector>().unwrap();
            assert_eq!(selector(wide).covers(&selector(narrow)), covers, "{wide} of {narrow}");
        }
    }

    #[test]
    fn what_is_apart_picks_nobody_together() {
        for (a, b, apart) in [
            ("a=b", "a=c,d", true),
            ("a in (b,c)", "a in (c,d)", false),
            ("a", "!a", true),
            ("!a", "a=b", true),
            ("a=b", "a notin (b,c)", true),
            ("a in (b,x)", "a notin (b,c)", false),
            ("!a", "a!=b", false),
            ("", "a=b", false),
            ("a=b", "c=d", false),
        ] {
            let selector = |text: &str| text.parse::<Selector>().unwrap();
            assert_eq!(selector(a).is_apart(&selector(b)), apart, "{a} and {b}");
            assert_eq!(selector(b).is_apart(&selector(a)), apart, "{b} and {a}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_known() {
        let one = |value: &str| {
            let values = BTreeSet::from([value.to_owned()]);
            Selector::from_iter([Requirement::In("a".parse().unwrap(), values)])
        };
        for value in ["b c", "b,c", "b=c", "!", "(b)"] {
            assert!(!one(value).is_written(), "{value}");
        }
        assert!(one("b").is_written() && one("").is_written() && Selector::default().is_written());
    }
}
