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

/// Two generations' at a time: packets of the one before may be under way.
pub struct Kept {
    path: PathBuf,
    last: Arc<Table>,
    before: Arc<Table>,
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
        let last = Arc::new(known.clone());
        (Kept { path, before: Arc::clone(&last), last }, known)
    }

    /// Before a generation with them is in force: one too many harms nobody.
    pub fn keep(&mut self, rulesets: &Arc<Table>) {
        if self.last == *rulesets {
            return;
        }
        self.before = std::mem::replace(&mut self.last, Arc::clone(rulesets));
        let both: BTreeMap<RulesetId, &Side> =
            self.before.iter().chain(&*self.last).map(|(id, side)| (*id, &**side)).collect();
        let written = serde_json::to_string(&both).map_err(|error| error.to_string());
        let written = written
            .and_then(|text| store::replace(&self.path, &text).map_err(|error| error.to_string()));
        if let Err(why) = written {
            log::error!("cannot write {}: {why}", self.path.display());
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
    fn the_next_daemon_knows_what_two_generations_called_them() {
        let run = tempfile::tempdir().unwrap();
        let (mut kept, known) = Kept::open(run.path());
        assert_eq!(known, Table::new());
        kept.keep(&table(&[1, 2]));
        kept.keep(&table(&[2, 3]));
        kept.keep(&table(&[2, 3]));
        assert_eq!(Kept::open(run.path()).1, *table(&[1, 2, 3]));
        kept.keep(&table(&[]));
        assert_eq!(Kept::open(run.path()).1, *table(&[2, 3]));
        std::fs::write(run.path().join("rulesets.json"), "{\"1\":").unwrap();
        assert_eq!(Kept::open(run.path()).1, Table::new());
    }
}
