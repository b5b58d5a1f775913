//! Man pages say all that there is, and what they show works.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use porin::control::check::check;
use porin::control::cli::Cli;
use porin::control::exit::Exit;
use porin::daemon;
use porin::daemon::options::Options;
use porin::observe::reason::reasons;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man")
}

fn page(name: &str) -> String {
    fs::read_to_string(directory().join(name)).unwrap()
}

/// Whether the page has a list item that begins with this macro text.
fn has_item(page: &str, item: &str) -> bool {
    page.lines().filter_map(|line| line.strip_prefix(".It ")).any(|line| {
        let padded = format!(" {} ", line.replace(',', " , "));
        padded.contains(&format!(" {item} "))
    })
}

/// Commands, options and values that the page has no list item for.
fn undocumented(page: &str, mut program: clap::Command) -> Vec<String> {
    program.build();
    let mut missing = Vec::new();
    let mut want = |item: String| {
        if !has_item(page, &item) {
            missing.push(item);
        }
    };
    let commands = std::iter::once(&program).chain(program.get_subcommands());
    for command in commands {
        if command.get_name() != program.get_name() {
            want(format!("Cm {}", command.get_name()));
        }
        // What is hidden is nobody's to use.
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            argument.get_short().into_iter().for_each(|short| want(format!("Fl {short}")));
            argument.get_long().into_iter().for_each(|long| want(format!("Fl Fl {long}")));
            let names = argument.get_value_names().unwrap_or_default();
            if argument.is_positional() {
                names.iter().for_each(|name| want(format!("Ar {name}")));
            }
        }
    }
    missing
}

#[test]
fn every_command_and_option_of_porinctl_is_documented() {
    let page = page("porinctl.1");
    assert_eq!(undocumented(&page, Cli::command()), [""; 0]);
    let nothing = undocumented("", Cli::command());
    assert!(nothing.contains(&"Cm check".into()) && nothing.contains(&"Fl Fl follow".into()));
    for kind in ["flow", "deny", "drop"] {
        assert!(page.lines().any(|line| line == format!(".Cm {kind}")), "{kind}");
    }
}

#[test]
fn every_option_and_signal_of_porind_is_documented() {
    let page = page("porind.8");
    assert_eq!(undocumented(&page, Options::command()), [""; 0]);
    assert!(undocumented("", Options::command()).contains(&"Fl Fl teardown".into()));
    for item in ["Dv SIGHUP", "Dv SIGTERM", "Dv SIGINT", "Ev NOTIFY_SOCKET", "Ev WATCHDOG_USEC"] {
        assert!(has_item(&page, item), "{item}");
    }
}

/// Defaults that a page tells are those that the program has.
#[test]
fn the_defaults_of_options_are_documented() {
    for (page, program) in
        [(page("porind.8"), Options::command()), (page("porinctl.1"), Cli::command())]
    {
        for argument in program.get_arguments() {
            let name = argument.get_long().unwrap_or_default();
            let item = page.split("\n.It ").find(|item| item.starts_with(&format!("Fl Fl {name}")));
            for default in argument.get_default_values() {
                let default = default.to_str().unwrap();
                let told = item.is_some_and(|item| item.contains(default));
                assert!(told || default == "false", "--{name}: {default}");
            }
        }
    }
}

fn exit_statuses(page: &str) -> Vec<u8> {
    let section = page.lines().skip_while(|line| *line != ".Sh EXIT STATUS").skip(1);
    let section = section.take_while(|line| !line.starts_with(".Sh "));
    section.filter_map(|line| line.strip_prefix(".It ")?.parse().ok()).collect()
}

#[test]
fn every_exit_status_is_documented() {
    let documented = exit_statuses(&page("porinctl.1"));
    assert_eq!(documented, Exit::ALL.map(|exit| exit as u8));
    let documented = exit_statuses(&page("porind.8"));
    assert_eq!(documented, daemon::Exit::ALL.map(|exit| exit as u8));
}

#[test]
fn pages_refer_to_pages_that_there_are_and_to_units_that_are_installed() {
    let pages: BTreeSet<_> = fs::read_dir(directory())
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    let units = fs::read_dir(directory().with_file_name("systemd")).unwrap();
    let units: Vec<_> =
        units.map(|unit| unit.unwrap().file_name().into_string().unwrap()).collect();
    let mut all = String::new();
    for name in &pages {
        let text = page(name);
        for line in text.lines().filter_map(|line| line.strip_prefix(".Xr porin")) {
            let mut words = line.split(' ');
            let referred = format!("porin{}.{}", words.next().unwrap(), words.next().unwrap_or(""));
            assert!(pages.contains(&referred), "{name}: {referred}");
        }
        all += &text;
    }
    for unit in units.iter().filter(|unit| unit.ends_with(".service")) {
        let named = unit.replace('@', "@NAME");
        assert!(all.contains(unit) || all.contains(&named), "{unit} is in no page");
    }
}

#[test]
fn every_drop_reason_is_documented_in_its_order() {
    let page = page("porin.7");
    let documented: Vec<_> = page
        .lines()
        .skip_while(|line| *line != ".Sh DROP REASONS")
        .filter_map(|line| Some(line.strip_prefix(".It ")?.split_once(" Ta ")?.0))
        .skip(1)
        .collect();
    let names: Vec<_> = reasons().iter().skip(1).map(|reason| reason.name.as_str()).collect();
    assert_eq!(documented, names);
}

#[test]
fn the_example_of_porin_7_is_accepted() {
    let page = page("porin.7");
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix(".\\\" file: ") {
            assert!(lines.next().unwrap().starts_with(".Bd -literal"));
            let body: Vec<_> = lines.by_ref().take_while(|line| *line != ".Ed").collect();
            files.insert(name, body.join("\n"));
        }
    }
    assert_eq!(files.len(), 3);
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let loaded = check(&[dir.path().to_owned()]).unwrap();
    assert!(loaded.report.is_empty(), "{}", loaded.report);
    let config = loaded.config.unwrap();
    assert_eq!((config.endpoints.len(), config.policies.len()), (2, 1));
    // Where the text says that the denial comes from.
    let policy = config.policies.values().next().unwrap();
    assert_eq!(policy.default_origin(porin::types::Direction::Ingress).line, 5);
}

#[test]
fn pages_are_well_formed() {
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        match Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&path).output() {
            Ok(output) => assert!(
                output.status.success() && output.stdout.is_empty(),
                "{}",
                String::from_utf8_lossy(&output.stdout)
            ),
            Err(error) => eprintln!("{} not checked: mandoc: {error}", path.display()),
        }
    }
}
