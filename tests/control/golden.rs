//! What people and programs read, compared with `tests/golden/control/`.
//!
//! `UPDATE_GOLDEN=1 cargo test --test control` writes the files anew: look at the difference.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use jiff::tz::TimeZone;
use porin::control::view::{EndpointView, PolicyView, Versioned};
use porin::control::wire::Response;
use porin::control::{show, tables};
use porin::observe::line::Line;
use serde::Serialize;

use super::fixture;

pub fn compare(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/control").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{name} differs");
}

pub fn fits(text: &str) -> &str {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line:?} is wider than 80 columns");
        assert_eq!(line.trim_end(), line);
    }
    text
}

fn json<T: Serialize>(name: &str, value: T) {
    compare(name, &(serde_json::to_string_pretty(&Versioned::new(value)).unwrap() + "\n"));
}

#[test]
fn status() {
    for (name, status) in [
        ("status.txt", fixture::status()),
        ("status-refused.txt", fixture::refused()),
        ("status-closed.txt", fixture::closed()),
    ] {
        compare(name, fits(&show::status(&status, &TimeZone::UTC)));
    }
    json("status.json", fixture::refused());
}

#[test]
fn endpoints() {
    let endpoints = fixture::endpoints();
    compare("endpoints.txt", fits(&tables::endpoints(&endpoints, Some(80))));
    let mut long = endpoints.clone();
    for (one, end) in long.iter_mut().zip(1..) {
        one.name.push_str("-0123456789ab");
        one.ipv6 = one.ipv6.map(|_| Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0x1f2e, 0x3d4c, 0x5b6a, end));
        one.ipv4 = one.ipv4.map(|_| Ipv4Addr::new(10, 128, 200, end as u8));
    }
    compare("endpoints-long.txt", fits(&tables::endpoints(&long, Some(80))));
    compare("endpoints-pipe.txt", &tables::endpoints(&endpoints, None));
    compare("endpoints-none.txt", &tables::endpoints(&[], Some(80)));
    json("endpoints.json", Response::Endpoints(endpoints));
}

#[test]
fn identities() {
    let identities = fixture::identities();
    compare("identities.txt", fits(&tables::identities(&identities, Some(80))));
    json("identities.json", Response::Identities(identities));
}

#[test]
fn policies() {
    let policies = fixture::policies();
    compare("policies.txt", fits(&tables::policies(&policies, Some(80))));
    compare("policies-pipe.txt", &tables::policies(&policies, None));
    json("policies.json", Response::Policies(policies));
}

#[test]
fn hits() {
    let hits = fixture::hits();
    compare("hits.txt", fits(&tables::hits(&hits, Some(80))));
    json("hits.json", Response::Hits(hits));
}

#[test]
fn flows() {
    let lines = |width| -> String {
        let line = |flow| Line::new(&flow, &TimeZone::UTC, width).to_string() + "\n";
        fixture::flows().into_iter().map(line).collect()
    };
    compare("flows.txt", &lines(Some(80)));
    compare("flows-pipe.txt", &lines(None));
    let json = |flow| serde_json::to_string(&Versioned::new(flow)).unwrap() + "\n";
    compare("flows.json", &fixture::flows().into_iter().map(json).collect::<String>());
}

/// Whatever a narrow terminal, a hostile label or a long name does, tables stay tables.
#[test]
fn tables_survive_anything() {
    let evil = "\u{1b}[2J\u{9b}31m\r\n\u{202e}".to_owned();
    let endpoint = EndpointView {
        name: evil.repeat(20),
        fault: Some(evil.clone()),
        namespace: Some(evil.clone()),
        ..fixture::endpoints().remove(3)
    };
    let policy = PolicyView { subject: evil.repeat(50), ..fixture::policies().remove(0) };
    for width in [None, Some(0), Some(1), Some(10), Some(80), Some(100_000)] {
        let text = tables::endpoints(std::slice::from_ref(&endpoint), width)
            + &tables::policies(std::slice::from_ref(&policy), width);
        let active = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(active), "{width:?}: {text:?}");
    }
    let mut status = fixture::refused();
    status.faults[0].what.clone_from(&evil);
    status.faults[0].hint = Some(evil.clone());
    status.faults[0].file = Some(evil.clone());
    status.kernel.release.clone_from(&evil);
    let text = show::status(&status, &TimeZone::UTC);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
}
