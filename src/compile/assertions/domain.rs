//! Label sets that could be: what is known of each key, nothing of any endpoint that there is.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::model::LabelFilter;
use crate::types::selector::Requirement;
use crate::types::{Label, LabelKey, Labels, Name, PortMatch, Selector};

/// Of all label sets that are meant: all, none, or some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tri {
    No,
    Maybe,
    Yes,
}

impl Tri {
    pub fn and(self, other: Tri) -> Tri {
        match (self, other) {
            (Tri::No, _) | (_, Tri::No) => Tri::No,
            (Tri::Yes, Tri::Yes) => Tri::Yes,
            _ => Tri::Maybe,
        }
    }

    pub fn or(self, other: Tri) -> Tri {
        match (self, other) {
            (Tri::Yes, _) | (_, Tri::Yes) => Tri::Yes,
            (Tri::No, Tri::No) => Tri::No,
            _ => Tri::Maybe,
        }
    }
}

/// What one key may be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Possible {
    absent: bool,
    values: Values,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Values {
    Of(BTreeSet<String>),
    AllBut(BTreeSet<String>),
}

/// The label sets in which each key is one of what is possible for it.
#[derive(Debug, Clone)]
pub struct Domain<'a> {
    filter: &'a LabelFilter,
    keys: BTreeMap<LabelKey, Possible>,
    /// Keys that are not listed are absent, instead of anything.
    closed: bool,
    /// Of one endpoint that there is: its named ports.
    ports: Option<&'a BTreeMap<Name, PortMatch>>,
}

impl<'a> Domain<'a> {
    /// Every label set that an identity may have.
    pub fn all(filter: &'a LabelFilter) -> Self {
        Domain { filter, keys: BTreeMap::new(), closed: false, ports: None }
    }

    /// Just this one.
    pub fn only(filter: &'a LabelFilter, labels: &Labels) -> Self {
        let key = |(key, value): (&LabelKey, &str)| {
            let values = Values::Of(BTreeSet::from([value.to_owned()]));
            (key.clone(), Possible { absent: false, values })
        };
        Domain { filter, keys: labels.iter().map(key).collect(), closed: true, ports: None }
    }

    /// An endpoint that there is.
    pub fn endpoint(
        filter: &'a LabelFilter,
        labels: &Labels,
        ports: &'a BTreeMap<Name, PortMatch>,
    ) -> Self {
        Domain { ports: Some(ports), ..Domain::only(filter, labels) }
    }

    /// The named ports, where they are known.
    pub fn ports(&self) -> Option<&'a BTreeMap<Name, PortMatch>> {
        self.ports
    }

    /// Which of them a selector picks. `Maybe` may be too cautious where several requirements are about one key.
    pub fn picked(&self, selector: &Selector) -> Tri {
        selector.requirements().fold(Tri::Yes, |all, each| all.and(self.meets(each)))
    }

    pub fn meets(&self, requirement: &Requirement) -> Tri {
        let possible = self.possible(requirement.key());
        let met = possible.meeting(requirement);
        if met.is_nothing() {
            Tri::No
        } else if met == possible {
            Tri::Yes
        } else {
            Tri::Maybe
        }
    }

    /// Those that a selector picks; none if it picks none.
    pub fn with(&self, selector: &Selector) -> Option<Self> {
        selector.requirements().try_fold(self.clone(), |domain, each| domain.and(each, true))
    }

    /// Those that meet, or do not meet, a requirement; none if there are none.
    pub fn and(&self, requirement: &Requirement, met: bool) -> Option<Self> {
        let key = requirement.key();
        let possible = match met {
            true => self.possible(key).meeting(requirement),
            false => self.possible(key).meeting(&negated(requirement)),
        };
        if possible.is_nothing() {
            return None;
        }
        let mut domain = self.clone();
        domain.keys.insert(key.clone(), possible);
        Some(domain)
    }

    /// Is this one of them?
    pub fn has(&self, labels: &Labels) -> bool {
        let known =
            self.keys.iter().all(|(key, possible)| possible.has(labels.value(key.as_str())));
        known && (!self.closed || labels.iter().all(|(key, _)| self.keys.contains_key(key)))
    }

    /// Just one label set.
    pub fn is_one(&self) -> bool {
        self.closed
    }

    /// One of them, with as few labels as can be.
    pub fn example(&self) -> Labels {
        let label = |(key, possible): (&LabelKey, &Possible)| {
            if possible.absent {
                return None;
            }
            let value = match &possible.values {
                Values::Of(values) => values.first()?.clone(),
                Values::AllBut(not) => {
                    let mut names =
                        (0u32..).map(|i| if i == 0 { "other".into() } else { format!("other{i}") });
                    names.find(|name| !not.contains(name))?
                }
            };
            Some(Label { key: key.clone(), value })
        };
        self.keys.iter().filter_map(label).collect()
    }

    fn possible(&self, key: &LabelKey) -> Possible {
        if let Some(known) = self.keys.get(key) {
            return known.clone();
        }
        let values = match self.closed || !self.filter.wants(key) {
            true => Values::Of(BTreeSet::new()),
            false => Values::AllBut(BTreeSet::new()),
        };
        Possible { absent: true, values }
    }
}

impl Possible {
    fn has(&self, value: Option<&str>) -> bool {
        match (value, &self.values) {
            (None, _) => self.absent,
            (Some(value), Values::Of(values)) => values.contains(value),
            (Some(value), Values::AllBut(not)) => !not.contains(value),
        }
    }

    fn is_nothing(&self) -> bool {
        !self.absent && matches!(&self.values, Values::Of(values) if values.is_empty())
    }

    fn meeting(&self, requirement: &Requirement) -> Possible {
        match requirement {
            Requirement::Exists(_) => Possible { absent: false, values: self.values.clone() },
            Requirement::Absent(_) => {
                Possible { absent: self.absent, values: Values::Of(BTreeSet::new()) }
            }
            Requirement::In(_, wanted) => {
                let values = match &self.values {
                    Values::Of(values) => values.intersection(wanted).cloned().collect(),
                    Values::AllBut(not) => wanted.difference(not).cloned().collect(),
                };
                Possible { absent: false, values: Values::Of(values) }
            }
            Requirement::NotIn(_, unwanted) => {
                let values = match &self.values {
                    Values::Of(values) => {
                        Values::Of(values.difference(unwanted).cloned().collect())
                    }
                    Values::AllBut(not) => Values::AllBut(not.union(unwanted).cloned().collect()),
                };
                Possible { absent: self.absent, values }
            }
        }
    }
}

fn negated(requirement: &Requirement) -> Requirement {
    match requirement.clone() {
        Requirement::Exists(key) => Requirement::Absent(key),
        Requirement::Absent(key) => Requirement::Exists(key),
        // Who has no such label meets `notin`.
        Requirement::In(key, values) => Requirement::NotIn(key, values),
        Requirement::NotIn(key, values) => Requirement::In(key, values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_possible_narrows_until_it_is_one_or_none() {
        let filter = LabelFilter { include: Vec::new(), exclude: vec!["uid".to_owned()] };
        let selector = |text: &str| text.parse::<Selector>().unwrap();
        let all = Domain::all(&filter);
        assert_eq!(all.picked(&selector("")), Tri::Yes);
        assert_eq!(all.picked(&selector("app=a")), Tri::Maybe);
        assert_eq!(all.picked(&selector("uid=7")), Tri::No, "it makes no identities");
        let some = all.with(&selector("app in (a,b),env!=dev,!old")).unwrap();
        for (text, tri) in [
            ("app", Tri::Yes),
            ("app=a", Tri::Maybe),
            ("app=c", Tri::No),
            ("app in (a,b,c)", Tri::Yes),
            ("env=dev", Tri::No),
            ("env", Tri::Maybe),
            ("old", Tri::No),
            ("other", Tri::Maybe),
        ] {
            assert_eq!(some.picked(&selector(text)), tri, "{text}");
        }
        assert_eq!(some.example().to_string(), "app=a");
        assert!(some.with(&selector("app=c")).is_none());
        let one = some.with(&selector("app!=a,env")).unwrap();
        assert_eq!(one.example().to_string(), "app=b,env=other");
        let only = Domain::only(&filter, &one.example());
        assert_eq!(only.picked(&selector("app=b,env notin (dev),!x")), Tri::Yes);
        assert_eq!(only.picked(&selector("x")), Tri::No);
    }
}
