//! One number per distinct set of security-relevant labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{Identity, Labels, Peer};

use super::numbering::Numbering;

#[derive(Debug, Clone)]
pub(super) struct Identities {
    numbers: Numbering<Arc<Labels>>,
}

impl Identities {
    pub fn new() -> Self {
        Identities { numbers: Numbering::new(Identity::FIRST..=Peer::ROLE - 1) }
    }

    /// Makes `wanted` the label sets in use; says how many of them got no number.
    pub fn assign(&mut self, wanted: impl IntoIterator<Item = Arc<Labels>>) -> usize {
        self.numbers.assign(wanted).len()
    }

    /// The number of a label set in use, and the set as it is shared by all that have it.
    pub fn identity(&self, labels: &Labels) -> Option<(Identity, Arc<Labels>)> {
        let (shared, number) = self.numbers.held().get_key_value(labels)?;
        Some((Identity(*number), Arc::clone(shared)))
    }

    pub fn all(&self) -> BTreeMap<Identity, Arc<Labels>> {
        let by_number =
            |(labels, number): (&Arc<Labels>, &u32)| (Identity(*number), labels.clone());
        self.numbers.held().iter().map(by_number).collect()
    }

    pub fn recover(&mut self, identity: Identity, labels: Option<Labels>) {
        self.numbers.recover(labels.map(Arc::new), identity.0);
    }

    pub fn committed(&mut self) {
        self.numbers.committed();
    }
}
