//! What numbers of rulesets mean, for the next daemon: flows and the L7 worker know them, and outlive this one.
//!
//! In the run directory, like all that is gone with the kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::types::RulesetId;
use crate::types::http::Side;

use super::store;

pub type Table = BTreeMap<RulesetId, Arc<Side>>;

/// Of the generation in force, of the one before, whose packets may be under way, and of those that may come into force.
pub struct Kept {
    path: PathBuf,
    before: Arc<Table>,
    in_force: Arc<Table>,
    prepared: Table,
    written: Table,
}

impl Kept {
    /// What an earlier daemon wrote, too.
    pub fn open(run: &Path) -> (Self, Table) {
        let path = run.join("rulesets.json");
        let known = match store::read(&path) {
            Ok(text) => text.map_or_else(|| Ok(Table::new()), |text| read(&text)),
            Err(error) => Err(error.to_string()),
        };
        let known = known.unwrap_or_else(|why| {
            let path = path.display();
            log::error!(
                "cannot read {path}: {why}; connections whose requests are judged may be closed"
            );
            Table::new()
        });
        let kept = Kept {
            path,
            before: Arc::default(),
            in_force: Arc::new(known.clone()),
            prepared: Table::new(),
            written: known.clone(),
        };
        (kept, known)
    }

    /// Before a generation with them is in force: one too many harms nobody.
    pub fn keep(&mut self, rulesets: &Table) {
        self.prepared.extend(rulesets.iter().map(|(id, side)| (*id, Arc::clone(side))));
        self.write();
    }

    /// It is.
    pub fn committed(&mut self, rulesets: &Arc<Table>) {
        if self.in_force != *rulesets {
            self.before = std::mem::replace(&mut self.in_force, Arc::clone(rulesets));
        }
        self.prepared.clear();
    }

    fn write(&mut self) {
        let all = self.prepared.iter().chain(&*self.before).chain(&*self.in_force);
        let all: Table = all.map(|(id, side)| (*id, Arc::clone(side))).collect();
        if self.written == all {
            return;
        }
        let sides: BTreeMap<RulesetId, &Side> =
            all.iter().map(|(id, side)| (*id, &**side)).collect();
        let written = serde_json::to_string(&sides).map_err(|error| error.to_string());
        let written = written
            .and_then(|text| store::replace(&self.path, &text).map_err(|error| error.to_string()));
        match written {
            Ok(()) => self.written = all,
            Err(why) => log::error!("cannot write {}: {why}", self.path.display()),
        }
    }
}

fn read(text: &str) -> Result<Table, String> {
    let sides: BTreeMap<RulesetId, Side> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(sides.into_iter().map(|(id, side)| (id, Arc::new(side))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::http::{HttpRule, L7, SideRule};

    fn table(numbers: &[u32]) -> Arc<Table> {
        let side = |number: &u32| {
            let http = HttpRule::new(None, Some("/a/**".parse().unwrap()), None, Vec::new());
            let l7 = L7 { http: vec![http.unwrap()], tls: None };
            let side = Side { rules: vec![SideRule { cookie: *number, l7 }] };
            (RulesetId(*number), Arc::new(side))
        };
        Arc::new(numbers.iter().map(side).collect())
    }

    #[test]
    fn the_next_daemon_knows_what_may_be_in_force_and_what_was() {
        let run = tempfile::tempdir().unwrap();
        let (mut kept, known) = Kept::open(run.path());
        assert_eq!(known, Table::new());
        let there = || Kept::open(run.path()).1;
        kept.keep(&table(&[1, 2]));
        kept.committed(&table(&[1, 2]));
        kept.keep(&table(&[2, 3]));
        assert_eq!(there(), *table(&[1, 2, 3]));
        // Neither comes into force.
        kept.keep(&table(&[4]));
        kept.keep(&table(&[5]));
        assert_eq!(there(), *table(&[1, 2, 3, 4, 5]));
        kept.keep(&table(&[2, 3]));
        kept.committed(&table(&[2, 3]));
        kept.keep(&table(&[3, 6]));
        assert_eq!(there(), *table(&[1, 2, 3, 6]));
        std::fs::write(run.path().join("rulesets.json"), "{\"1\":").unwrap();
        assert_eq!(there(), Table::new());
    }
}
