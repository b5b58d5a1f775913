//! Labels: what an endpoint says of itself.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::Invalid;

/// `[prefix/]name`, as Kubernetes and Docker write them: 1 to 317 printable ASCII characters
/// without those that the selector grammar needs (`=`, `!`, `,`, parentheses, space, quotes).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct LabelKey(String);

impl LabelKey {
    pub const MAX: usize = 317;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn allows(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':')
    }
}

impl Borrow<str> for LabelKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabelKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let rules = "a label key has 1 to 317 letters, digits, `.`, `_`, `-`, `/`, `:`";
        if text.is_empty() || text.len() > Self::MAX {
            return Err(Invalid::new(format!("the label key has {} bytes", text.len())).hint(rules));
        }
        match text.char_indices().find(|(_, c)| !Self::allows(*c)) {
            Some((at, c)) => {
                Err(Invalid::new(format!("{c:?} cannot stand in a label key")).hint(rules).at(at))
            }
            None => Ok(LabelKey(text.to_owned())),
        }
    }
}

impl TryFrom<String> for LabelKey {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

/// One `key=value`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    pub key: LabelKey,
    pub value: String,
}

/// At most this many bytes in a label's value.
pub const VALUE_MAX: usize = 4096;

/// A value may be any text without control characters: container runtimes put sentences there.
pub fn check_value(value: &str) -> Result<(), Invalid> {
    if value.len() > VALUE_MAX {
        return Err(Invalid::new(format!("the label's value has {} bytes", value.len()))
            .hint("at most 4096 bytes"));
    }
    match value.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, c)) => Err(Invalid::new(format!("{c:?} cannot stand in a label's value"))
            .hint("values are text without control characters")
            .at(at)),
        None => Ok(()),
    }
}

/// A set of labels, one value per key, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<LabelKey, String>);

impl Labels {
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&LabelKey, &str)> {
        self.0.iter().map(|(key, value)| (key, value.as_str()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels whose keys are wanted.
    pub fn filtered(&self, mut wanted: impl FnMut(&LabelKey) -> bool) -> Labels {
        let kept = self.0.iter().filter(|(key, _)| wanted(key));
        Labels(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// False if the key was there already; it keeps its value then.
    pub fn insert(&mut self, label: Label) -> bool {
        match self.0.entry(label.key) {
            std::collections::btree_map::Entry::Occupied(_) => false,
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(label.value);
                true
            }
        }
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        Labels(labels.into_iter().map(|label| (label.key, label.value)).collect())
    }
}

/// Checked like labels from anywhere else.
impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let labels = BTreeMap::<LabelKey, String>::deserialize(deserializer)?;
        match labels.values().try_for_each(|value| check_value(value)) {
            Ok(()) => Ok(Labels(labels)),
            Err(invalid) => Err(serde::de::Error::custom(invalid)),
        }
    }
}

/// `a=b,c=d`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}
