//! The demo's configuration is shown to people: it has no fault and causes no warning.

use std::path::PathBuf;

use porin::config::Loader;

#[test]
fn the_demo_s_files_are_without_fault() {
    let mut loader = Loader::new(vec![PathBuf::from("tests/demo/etc")]);
    let loaded = loader.load();
    assert!(loaded.report.faults.is_empty(), "{:#?}", loaded.report.faults);
    assert!(loaded.config.is_some());
}
