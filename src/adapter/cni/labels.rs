//! Labels, from whoever knows some. Where two say different things of one key, the more trusted one counts.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;

use super::failure::{Code, Failure};
use crate::types::label::check_value;
use crate::types::{Invalid, Label, LabelKey, Labels};

/// Given to every endpoint of a pod; for Podman's containers both are the container's name.
pub const POD_NAMESPACE: &str = "k8s.namespace";
pub const POD_NAME: &str = "k8s.pod";
/// Of a pod's annotations those count that begin so; the rest of the key is the label's.
pub const ANNOTATION: &str = "porin.label/";

/// Pairs, not yet checked: a table, or a list of `{"key": ..., "value": ...}` as in the conventions of CNI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WrittenLabels(Vec<(String, String)>);

impl WrittenLabels {
    pub fn extend(&mut self, more: WrittenLabels) {
        self.0.extend(more.0);
    }

    /// Those whose keys begin with `prefix`, without it.
    pub fn under(self, prefix: &str) -> WrittenLabels {
        let cut =
            |(key, value): (String, String)| Some((key.strip_prefix(prefix)?.to_owned(), value));
        WrittenLabels(self.0.into_iter().filter_map(cut).collect())
    }
}

impl FromIterator<(String, String)> for WrittenLabels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        WrittenLabels(pairs.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for WrittenLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let pair = |item: &Value| Some((text(item.get("key")?)?, text(item.get("value")?)?));
        let pairs = match Value::deserialize(deserializer)? {
            Value::Null => Some(Vec::new()),
            Value::Object(table) => {
                table.iter().map(|(key, value)| Some((key.clone(), text(value)?))).collect()
            }
            Value::Array(items) => items.iter().map(pair).collect(),
            _ => None,
        };
        pairs.map(WrittenLabels).ok_or_else(|| {
            D::Error::custom(
                "labels are a table of text, or a list of {\"key\": text, \"value\": text}",
            )
        })
    }
}

/// `sources`: the most trusted first.
///
/// # Errors
/// The specification's code 7: a label that cannot be one. To leave it out could let through what it would deny.
pub fn join(sources: impl IntoIterator<Item = WrittenLabels>) -> Result<Labels, Failure> {
    let mut labels = Labels::default();
    for (key, value) in sources.into_iter().flat_map(|source| source.0) {
        let invalid = |why: Invalid| {
            let what = format!("the label {} cannot be one", super::environment::shortened(&key));
            Failure::new(Code::InvalidNetwork, what).details(why.to_string())
        };
        check_value(&value).map_err(invalid)?;
        let key: LabelKey = key.parse().map_err(invalid)?;
        labels.insert(Label { key, value });
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> WrittenLabels {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn both_forms_are_read() {
        let list = read(r#"[{"key":"app","value":"web"},{"key":"env","value":"prod"}]"#);
        assert_eq!(list, read(r#"{"app":"web","env":"prod"}"#));
        for bad in ["[1]", "7", "{\"a\":1}", "[{\"key\":\"a\"}]"] {
            assert!(serde_json::from_str::<WrittenLabels>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_more_trusted_counts() {
        let labels = join([read(r#"{"env":"prod"}"#), read(r#"{"env":"dev","app":"web"}"#)]);
        assert_eq!(labels.unwrap().to_string(), "app=web,env=prod");
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for bad in [r#"{"":"x"}"#, r#"{"a b":"x"}"#, r#"{"a":"\n"}"#] {
            assert_eq!(join([read(bad)]).unwrap_err().code, Code::InvalidNetwork, "{bad}");
        }
    }

    #[test]
    fn annotations_are_labels_by_their_prefix() {
        let annotations = read(r#"{"porin.label/app":"web","other/app":"x"}"#);
        assert_eq!(join([annotations.under(ANNOTATION)]).unwrap().to_string(), "app=web");
    }
}
