//! How much was compared, by kind.

use std::collections::BTreeMap;
use std::fmt;

use crate::kernel::Way;
use crate::reference::{By, Expected};

#[derive(Debug, Default)]
pub struct Count {
    pub worlds: usize,
    /// Packets judged by all but the kernel.
    pub packets: usize,
    /// Packets judged by the kernel too.
    pub verdicts: usize,
    /// Of those: how they came, what was decided, and by what.
    kinds: BTreeMap<String, usize>,
}

impl Count {
    pub fn note(&mut self, way: Way, expected: &Expected, shadow: bool) {
        self.verdicts += 1;
        let mut add = |kind: String| *self.kinds.entry(kind).or_default() += 1;
        add(format!("way: {way:?}"));
        if shadow {
            add("with shadow".to_owned());
        }
        let Expected::Judged { egress, ingress } = expected else {
            return add("no endpoint".to_owned());
        };
        for (direction, says) in [("egress", egress), ("ingress", ingress)] {
            let Some(says) = says else { continue };
            let by = match says.by {
                By::Nobody => "nobody",
                By::Default(_) => "a default",
                By::Rule(..) => "a rule",
            };
            add(format!("{direction}: {} by {by}", says.verdict));
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { worlds, packets, verdicts, kinds } = self;
        writeln!(f, "{verdicts} verdicts by reference, plan, view and kernel, in {worlds} worlds")?;
        writeln!(f, "{packets} packets by reference, plan and view")?;
        kinds.iter().try_for_each(|(kind, count)| writeln!(f, "{count:8} {kind}"))
    }
}
