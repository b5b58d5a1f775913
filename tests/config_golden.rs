//! What people read when files are wrong. Each `tests/golden/config/NAME/` is a configuration with its
//! `expected.txt`; `UPDATE_GOLDEN=1` writes these anew: then read them.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use porin::config::Loader;

#[test]
fn diagnostics_are_as_agreed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        let printed = printed(case);
        let expected = case.join("expected.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &printed).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != printed {
            wrong.push(format!("=== {}\n{printed}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 writes them anew", wrong.join("\n"));
}

/// For people, for logs and for programs, with paths relative to the case.
fn printed(case: &Path) -> String {
    let loaded = Loader::new(vec![case.to_owned()]).load();
    let mut out = loaded.report.terminal(false, 80);
    writeln!(out, "\n--- log\n{}", loaded.report).unwrap();
    writeln!(out, "--- json\n{}", serde_json::to_string_pretty(&loaded.report).unwrap()).unwrap();
    let errors = loaded.report.errors;
    assert_eq!(loaded.config.is_none(), errors > 0, "{}: {errors} errors", case.display());
    out.replace(&format!("{}/", case.display()), "")
}
