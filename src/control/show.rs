//! `status` and faults for people.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::view::{FaultView, Requests, Severity, State, Status};
use crate::observe::text::plain;

/// Faults that are shown; JSON has all that the daemon lists.
const FAULTS_SHOWN: usize = 20;

/// The first line says whether all is well.
pub fn status(status: &Status, zone: &TimeZone) -> String {
    let mut text = headline(status, zone);
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<11} {}", plain(&value));
    };
    row("endpoints", endpoints(status));
    row("identities", status.identities.to_string());
    row("policies", status.policies.to_string());
    row("flows", flows(status));
    if let Some(requests) = &status.requests {
        row("requests", self::requests(requests));
    }
    row("drops", drops(status));
    row("kernel", format!("{}, attached by {}", status.kernel.release, status.kernel.attach));
    if let Some(why) = &status.kernel.cgroup_fault {
        row("published", format!("not for programs of the host: {why}"));
    }
    row("version", status.porin.clone());
    text.push_str(&faults(&status.faults, status.faults_omitted));
    text
}

/// Each with its place and its hint on lines of their own.
pub fn faults(faults: &[FaultView], omitted: u64) -> String {
    let mut text = String::new();
    for fault in faults.iter().take(FAULTS_SHOWN) {
        let _ = writeln!(text, "\n{}: {}", fault.severity.as_str(), plain(&fault.what));
        if let Some(file) = &fault.file {
            let _ = writeln!(text, "  at {}", place(file, fault.line, fault.column));
        }
        if let Some(endpoint) = &fault.endpoint {
            let _ = writeln!(text, "  endpoint {} stays closed", plain(endpoint));
        }
        for related in &fault.related {
            let place = place(&related.file, related.line, related.column);
            let _ = writeln!(text, "  {}: {place}", plain(&related.what));
        }
        if let Some(hint) = &fault.hint {
            let _ = writeln!(text, "  hint: {}", plain(hint));
        }
    }
    let listed = u64::try_from(faults.len().saturating_sub(FAULTS_SHOWN)).unwrap_or(u64::MAX);
    let more = listed.saturating_add(omitted);
    if more > 0 {
        let _ = writeln!(text, "\nand {more} more");
    }
    text
}

fn headline(status: &Status, zone: &TimeZone) -> String {
    let since = time(status.since, zone);
    let mut text = String::new();
    if !status.in_force && status.state != State::Starting {
        text.push_str(&match refusing(status) {
            0 => "the files are NOT in force yet\n".to_owned(),
            1 => "the files are NOT in force: 1 fault\n".to_owned(),
            count => format!("the files are NOT in force: {count} faults\n"),
        });
    }
    let _ = match status.state {
        State::Starting => writeln!(text, "starting since {since}: nothing is in force yet"),
        State::Closed => writeln!(text, "CLOSED since {since}: endpoints pass nothing"),
        State::Enforcing => {
            writeln!(text, "enforcing generation {} since {since}", status.generation)
        }
    };
    text
}

/// Faults that keep the files from being in force: those of one endpoint do not.
fn refusing(status: &Status) -> u64 {
    let refuses =
        |fault: &&FaultView| fault.severity == Severity::Error && fault.endpoint.is_none();
    let listed = status.faults.iter().filter(refuses).count();
    u64::try_from(listed).unwrap_or(u64::MAX).saturating_add(status.faults_omitted)
}

fn place(file: &str, line: Option<u32>, column: Option<u32>) -> String {
    let numbers: String = [line, column].into_iter().flatten().map(|n| format!(":{n}")).collect();
    format!("{}{numbers}", plain(file))
}

fn endpoints(status: &Status) -> String {
    match (status.endpoints.attached, status.endpoints.closed) {
        (attached, 0) => format!("{attached} attached"),
        (attached, closed) => format!("{attached} attached, {closed} closed"),
    }
}

fn flows(status: &Status) -> String {
    let flows = status.flows;
    let mut text = format!("{} tracked, {} seen", flows.tracked, flows.seen);
    if flows.suppressed > 0 {
        let _ = write!(text, ", {} not shown for their number", flows.suppressed);
    }
    text
}

fn requests(requests: &Requests) -> String {
    let Requests { allowed, denied, malformed, open, connections, .. } = requests;
    let mut text = format!(
        "{allowed} allowed, {denied} denied, {malformed} malformed; {open} of {connections} connections open"
    );
    let others = [
        (requests.unjudged, "without rules"),
        (requests.unreachable, "unreachable"),
        (requests.bad_answers, "answered badly"),
        (requests.late, "late"),
        (requests.too_many, "too many"),
        (requests.untold, "not shown for their number"),
    ];
    for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, ", {count} {what}");
    }
    text
}

/// The most frequent first.
fn drops(status: &Status) -> String {
    let mut drops: Vec<_> = status.drops.iter().filter(|(_, count)| **count > 0).collect();
    if drops.is_empty() {
        return "none".to_owned();
    }
    drops.sort_by(|(a, x), (b, y)| y.cmp(x).then(a.cmp(b)));
    let all: u64 = drops.iter().fold(0, |sum, (_, count)| sum.saturating_add(**count));
    let each: Vec<_> = drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    format!("{all}: {}", each.join(", "))
}

fn time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
