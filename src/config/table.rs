//! Walking a parsed file: each value with its place, each mismatch a fault, nothing stops at the first.
//!
//! Knows TOML's types and the key tables, nothing of what keys mean.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::fault::{Fault, Faults, Place};
use super::keys::Keys;
use super::source::Source;
use crate::types::{Invalid, Origin};

/// Where the faults of one file go.
pub struct Sink<'a> {
    source: &'a Source,
    faults: RefCell<Faults>,
}

impl<'a> Sink<'a> {
    pub fn new(source: &'a Source) -> Self {
        Sink { source, faults: RefCell::default() }
    }

    pub fn into_faults(self) -> Faults {
        self.faults.into_inner()
    }

    pub fn push(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    pub fn error(&self, span: &Range<usize>, what: impl AsRef<str>) {
        self.push(Fault::error(self.place(span), what));
    }

    pub fn fault(&self, span: &Range<usize>, what: impl AsRef<str>, hint: impl AsRef<str>) {
        self.push(Fault::error(self.place(span), what).hint(hint));
    }

    pub fn place(&self, span: &Range<usize>) -> Place {
        self.source.place(span)
    }

    pub fn origin(&self, span: &Range<usize>) -> Origin {
        self.source.origin(span.start)
    }

    pub fn text(&self, span: &Range<usize>) -> &'a str {
        self.source.text().get(span.clone()).unwrap_or("")
    }
}

/// A table whose keys are all known.
pub struct Table<'a> {
    pub sink: &'a Sink<'a>,
    pub span: Range<usize>,
    keys: &'static Keys,
    entries: &'a DeTable<'a>,
}

/// The value of a key, or one of a list.
#[derive(Clone)]
pub struct Item<'a> {
    pub sink: &'a Sink<'a>,
    /// As the key is called in messages.
    pub key: &'a str,
    /// What would be right, for hints.
    example: &'static str,
    pub span: Range<usize>,
    value: &'a DeValue<'a>,
}

impl<'a> Table<'a> {
    /// Reports every key that `keys` does not have.
    pub fn new(
        sink: &'a Sink<'a>,
        keys: &'static Keys,
        span: Range<usize>,
        entries: &'a DeTable<'a>,
    ) -> Self {
        for key in entries.keys() {
            if keys.key(key.get_ref()).is_none() {
                unknown(sink, keys, key);
            }
        }
        Table { sink, span, keys, entries }
    }

    pub fn optional(&self, name: &'static str) -> Option<Item<'a>> {
        let value = self.entries.get(name)?;
        let example = self.keys.key(name).map_or("", |key| key.example);
        let (span, value) = (value.span(), value.get_ref());
        Some(Item { sink: self.sink, key: name, example, span, value })
    }

    /// Where the key `name` stands.
    pub fn key_span(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get_key_value(name).map(|(key, _)| key.span())
    }

    pub fn required(&self, name: &'static str) -> Option<Item<'a>> {
        let item = self.optional(name);
        if item.is_none() {
            let what = format!("`{name}` is missing in {}", self.keys.title);
            let fault = Fault::error(self.sink.place(&self.span), what);
            let example = self.keys.key(name).map_or("", |key| key.example);
            self.sink.push(fault.hint(format!("add, for example, {example}")));
        }
        item
    }

    /// `[name]`, empty if it is not there.
    pub fn table(&self, name: &'static str, keys: &'static Keys) -> Option<Table<'a>> {
        self.optional(name)?.table(keys)
    }

    /// `[[name]]`.
    pub fn tables(&self, name: &'static str, keys: &'static Keys) -> Vec<Table<'a>> {
        self.optional(name).and_then(|item| item.tables(keys)).unwrap_or_default()
    }
}

fn unknown(sink: &Sink, keys: &'static Keys, key: &Spanned<impl AsRef<str>>) {
    let (name, place) = (key.get_ref().as_ref(), sink.place(&key.span()));
    if keys.later.contains(&name) {
        let what = format!("`{name}` in {} is not supported by this version", keys.title);
        sink.push(Fault::error(place, what).hint("remove it, or wait for a version that has it"));
        return;
    }
    let fault = Fault::error(place, format!("unknown key `{name}` in {}", keys.title));
    let names = || keys.keys.iter().map(|key| key.name);
    let other_way = match name {
        "from" => names().find(|key| *key == "to"),
        "to" => names().find(|key| *key == "from"),
        _ => None,
    };
    let hint = match other_way.or_else(|| nearest(name, names())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("keys are: {}", names().collect::<Vec<_>>().join(", ")),
    };
    sink.push(fault.hint(hint));
}

/// The candidate that `word` was probably meant to be.
pub fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // Whoever writes a very long word did not mean a short one; and comparing takes quadratic time.
    if word.len() > 64 {
        return None;
    }
    let likeness = |candidate: &str| strsim::jaro_winkler(word, candidate);
    candidates
        .map(|candidate| (candidate, likeness(candidate)))
        .filter(|(_, likeness)| *likeness > 0.8)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(candidate, _)| candidate)
}

impl<'a> Item<'a> {
    pub fn error(&self, what: impl AsRef<str>) {
        self.sink.error(&self.span, what);
    }

    pub fn fault(&self, what: impl AsRef<str>, hint: impl AsRef<str>) {
        self.sink.fault(&self.span, what, hint);
    }

    /// Points into the text, if the fault says where and the text stands in the file as it is.
    pub fn invalid(&self, invalid: &Invalid) {
        let mut span = self.span.clone();
        if let (Some(at), DeValue::String(text)) = (invalid.at, self.value) {
            let raw = self.sink.text(&self.span);
            let quote = raw.len().saturating_sub(text.len()) / 2;
            if raw.get(quote..quote + text.len()) == Some(text.as_ref()) {
                let start = self.span.start + quote + at.min(text.len());
                let c = text.get(at..).and_then(|rest| rest.chars().next());
                span = start..start + c.map_or(0, char::len_utf8);
            }
        }
        self.sink.push(Fault::invalid(self.sink.place(&span), invalid));
    }

    pub fn text(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => self.mismatch("text in quotes"),
        }
    }

    pub fn parse<T: FromStr<Err = Invalid>>(&self) -> Option<T> {
        self.parse_by(T::from_str)
    }

    pub fn parse_by<T>(&self, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        parse(self.text()?).map_err(|invalid| self.invalid(&invalid)).ok()
    }

    pub fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.mismatch("true or false"),
        }
    }

    pub fn integer(&self, bounds: RangeInclusive<u32>) -> Option<u32> {
        let DeValue::Integer(written) = self.value else {
            return self.mismatch("an integer");
        };
        let value = i64::from_str_radix(written.as_str(), written.radix()).ok();
        match value.and_then(|value| u32::try_from(value).ok()) {
            Some(value) if bounds.contains(&value) => Some(value),
            _ => {
                let (low, high) = (bounds.start(), bounds.end());
                self.fault(
                    format!("`{}` is out of bounds", self.key),
                    format!("{low} to {high} are allowed"),
                );
                None
            }
        }
    }

    /// A list, or a lone text, which counts as a list of one.
    pub fn list(&self) -> Option<Vec<Item<'a>>> {
        self.list_or("a list of text")
    }

    pub fn list_or(&self, expected: &str) -> Option<Vec<Item<'a>>> {
        match self.value {
            DeValue::Array(items) => Some(self.items(items)),
            DeValue::String(_) => Some(vec![self.clone()]),
            _ => self.mismatch(expected),
        }
    }

    /// A list of peers, in which selectors may be tables; a lone one counts as a list of one.
    pub fn peers(&self) -> Option<Vec<Item<'a>>> {
        match self.value {
            DeValue::Table(_) => Some(vec![self.clone()]),
            _ => self.list_or("a list of peers"),
        }
    }

    pub fn table(&self, keys: &'static Keys) -> Option<Table<'a>> {
        match self.value {
            DeValue::Table(entries) => {
                Some(Table::new(self.sink, keys, self.span.clone(), entries))
            }
            _ => self.mismatch("a table"),
        }
    }

    pub fn tables(&self, keys: &'static Keys) -> Option<Vec<Table<'a>>> {
        let DeValue::Array(items) = self.value else {
            return self.mismatch("a list of tables");
        };
        Some(self.items(items).iter().filter_map(|item| item.table(keys)).collect())
    }

    /// Keys that the operator chooses, in the order of their names.
    pub fn pairs(&self) -> Option<Vec<(Item<'a>, Item<'a>)>> {
        let DeValue::Table(entries) = self.value else {
            return self.mismatch("a table");
        };
        let item = |key: &'a str, span, value| Item { key, span, value, ..self.clone() };
        let pair = |(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let name: &'a std::borrow::Cow<'a, str> = key.get_ref();
            (item(name, key.span(), value.get_ref()), item(name, value.span(), value.get_ref()))
        };
        Some(entries.iter().map(pair).collect())
    }

    /// Of a list: how many items it has; of anything else 1.
    pub fn len(&self) -> usize {
        match self.value {
            DeValue::Array(items) => items.len(),
            _ => 1,
        }
    }

    pub fn is_text(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    pub fn is_boolean(&self) -> bool {
        matches!(self.value, DeValue::Boolean(_))
    }

    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    fn items(&self, items: &'a DeArray<'a>) -> Vec<Item<'a>> {
        let item = |value: &'a Spanned<DeValue<'a>>| Item {
            span: value.span(),
            value: value.get_ref(),
            ..self.clone()
        };
        items.iter().map(item).collect()
    }

    fn mismatch<T>(&self, expected: &str) -> Option<T> {
        let found = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let what = format!("`{}` must be {expected}, not {found}", self.key);
        self.fault(what, format!("write, for example, {}", self.example));
        None
    }
}
