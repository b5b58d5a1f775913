//! Selectors, in their written form and as tables: `{ app = "web", tier = ["a", "b"], team = true }`.

use std::collections::BTreeSet;

use super::table::Item;
use crate::types::label::check_value;
use crate::types::selector::Requirement;
use crate::types::{Invalid, LabelKey, Selector};

pub fn read(item: &Item) -> Option<Selector> {
    if !item.is_table() {
        return item.parse();
    }
    let pairs = item.pairs()?;
    let requirements: Vec<_> = pairs.iter().map(|(key, value)| requirement(key, value)).collect();
    requirements.into_iter().collect()
}

fn requirement(key: &Item, value: &Item) -> Option<Requirement> {
    if value.is_table() {
        let hint = "a key with dots needs quotes: \"io.example.app\" = \"web\"";
        value.fault(format!("the value of label `{}` is a table", key.key), hint);
        return None;
    }
    let label = key.key.parse::<LabelKey>().map_err(|invalid: Invalid| key.invalid(&invalid)).ok();
    if value.is_boolean() {
        return Some(match value.boolean()? {
            true => Requirement::Exists(label?),
            false => Requirement::Absent(label?),
        });
    }
    let items = match value.is_text() || value.is_list() {
        true => value.list()?,
        false => Vec::from([value.clone()]),
    };
    if let Some(other) = items.iter().find(|item| !item.is_text()) {
        let hint = "write text, a list of text, true for any value, or false for no such label";
        other.fault(format!("this cannot be a value of label `{}`", key.key), hint);
        return None;
    }
    if items.is_empty() {
        let hint = format!("write {} = true to pick any value", key.key);
        value.fault(format!("no value of label `{}` is wanted", key.key), hint);
        return None;
    }
    let text = |item: &Item| item.parse_by(|text| check_value(text).map(|()| text.to_owned()));
    let values: Vec<_> = items.iter().map(text).collect();
    let values: BTreeSet<_> = values.into_iter().collect::<Option<_>>()?;
    Some(Requirement::In(label?, values))
}
