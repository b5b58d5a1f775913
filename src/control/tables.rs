//! Tables for people: aligned columns, nothing drawn around them.
//!
//! With a width, long cells are broken so that the table fits; without one (a pipe, a file) every row
//! is one line.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use super::view::{EndpointState, EndpointView, HitView, IdentityView, PolicyView};
use crate::observe::text::plain;
use crate::types::{Labels, Mode};

/// What stands where there is nothing.
const NOTHING: &str = "-";
/// Between columns.
const PADDING: usize = 2;
/// Characters that a last column needs at least, to be read.
const LAST: usize = 18;

/// Names and addresses are copied from it, so they are not broken: where they do not fit side by side, addresses are
/// one above the other, and there are no identities.
pub fn endpoints(endpoints: &[EndpointView], width: Option<usize>) -> String {
    let state = |one: &EndpointView| one.state.as_str().to_owned();
    let side_by_side = endpoints.iter().map(|one| {
        let (name, labels) = (one.name.clone(), labels(&one.labels));
        let identity = or_nothing(one.identity);
        [name, state(one), identity, or_nothing(one.ipv6), or_nothing(one.ipv4), labels]
    });
    let header = ["NAME", "STATE", "IDENTITY", "IPV6", "IPV4", "LABELS"];
    let (mut table, fits) = Columns::whole(header, side_by_side, width);
    table.right(2);
    if !fits {
        let above = endpoints.iter().map(|one| {
            let addresses = [one.ipv6.map(|a| a.to_string()), one.ipv4.map(|a| a.to_string())];
            let addresses: Vec<_> = addresses.into_iter().flatten().collect();
            let addresses = match addresses.is_empty() {
                true => NOTHING.to_owned(),
                false => addresses.join("\n"),
            };
            [one.name.clone(), state(one), addresses, labels(&one.labels)]
        });
        let header = ["NAME", "STATE", "ADDRESSES", "LABELS"];
        let (above, fits) = Columns::whole(header, above, width);
        table = above;
        if !fits {
            table.breakable(0);
        }
    }
    let mut text = table.render(width);
    for endpoint in endpoints.iter().filter(|one| !one.publish.is_empty()) {
        let published = endpoint.publish.join(", ");
        let line = format!("{} publishes {}\n", plain(&endpoint.name), plain(&published));
        match width.is_some_and(|width| line.chars().count() > width + 1) {
            true => text.push_str(&line.replace(", ", ",\n    ")),
            false => text.push_str(&line),
        }
    }
    for endpoint in endpoints.iter().filter(|one| one.state == EndpointState::Closed) {
        let why = endpoint.fault.as_deref().unwrap_or("the reason is not known");
        text.push_str(&format!("{} is closed: {}\n", plain(&endpoint.name), plain(why)));
    }
    text
}

pub fn identities(identities: &[IdentityView], width: Option<usize>) -> String {
    let mut table = Columns::new(&["IDENTITY", "ENDPOINTS", "LABELS"]);
    table.right(0);
    table.right(1);
    for identity in identities {
        let count = identity.endpoints.len().to_string();
        table.row([identity.identity.to_string(), count, labels(&identity.labels)]);
    }
    table.render(width)
}

pub fn policies(policies: &[PolicyView], width: Option<usize>) -> String {
    let header = ["NAME", "SUBJECT", "TIER", "INGRESS", "EGRESS", "ENDPOINTS", "WHERE"];
    let mut table = Columns::new(&header);
    table.right(5);
    for policy in policies {
        table.row([
            policy.name.clone(),
            selector(&policy.subject),
            tier(policy),
            rules(policy, policy.ingress),
            rules(policy, policy.egress),
            policy.endpoints.len().to_string(),
            place(&policy.file, policy.line),
        ]);
    }
    table.render(width)
}

/// Rules with how often they decided.
pub fn hits(hits: &[HitView], width: Option<usize>) -> String {
    let header = ["POLICY", "DIRECTION", "RULE", "ACTION", "HITS", "SHADOW", "WHERE"];
    let mut table = Columns::new(&header);
    for column in [2, 4, 5] {
        table.right(column);
    }
    for row in hits {
        table.row([
            row.policy.clone(),
            row.direction.to_string(),
            row.rule.map_or_else(|| "default".to_owned(), |rule| rule.to_string()),
            row.action.to_string(),
            count(row.hits, "never"),
            // A rule in force that no shadow policy touches is nothing to mention.
            count(row.shadow_hits, if row.mode == Mode::Shadow { "never" } else { NOTHING }),
            place(&row.file, row.line),
        ]);
    }
    table.render(width)
}

fn count(count: Option<u64>, zero: &str) -> String {
    match count {
        None => NOTHING.to_owned(),
        Some(0) => zero.to_owned(),
        Some(count) => count.to_string(),
    }
}

/// The file's name: all policies are in folders of one name, and a file masks others of its own.
fn place(file: &str, line: u32) -> String {
    let name = file.rsplit('/').next().unwrap_or_default();
    format!("{name}:{line}")
}

/// With spaces after commas, which mean nothing to selectors, so that a line can be broken there.
fn selector(text: &str) -> String {
    if text.is_empty() {
        return "(every endpoint)".to_owned();
    }
    text.split(',').map(str::trim).collect::<Vec<_>>().join(", ")
}

/// With its priority, and whether it is only tried.
fn tier(policy: &PolicyView) -> String {
    let priority = policy.priority.map(|priority| format!(" {priority}")).unwrap_or_default();
    let mode = if policy.mode == Mode::Shadow { ", shadow" } else { "" };
    format!("{}{priority}{mode}", policy.tier)
}

fn rules(policy: &PolicyView, rules: Option<u64>) -> String {
    match rules {
        None => NOTHING.to_owned(),
        Some(0) if policy.default_deny => "deny all".to_owned(),
        Some(1) => "1 rule".to_owned(),
        Some(count) => format!("{count} rules"),
    }
}

fn labels(labels: &Labels) -> String {
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { NOTHING.to_owned() } else { pairs.join(", ") }
}

fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

struct Columns {
    table: Table,
}

impl Columns {
    fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header.to_vec());
        for column in table.column_iter_mut() {
            column.set_padding((0, PADDING as u16));
        }
        Columns { table }
    }

    /// Only the last column is broken. Whether that leaves it enough.
    fn whole<const N: usize>(
        header: [&str; N],
        rows: impl Iterator<Item = [String; N]>,
        width: Option<usize>,
    ) -> (Self, bool) {
        let mut table = Columns::new(&header);
        let mut longest = header.map(str::len);
        for cells in rows {
            for (longest, cell) in longest.iter_mut().zip(&cells) {
                let lines = cell.lines().map(|line| line.chars().count());
                *longest = lines.fold(*longest, usize::max);
            }
            table.row(cells);
        }
        let Some(width) = width else { return (table, true) };
        for column in table.table.column_iter_mut().take(N.saturating_sub(1)) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        let taken: usize = longest.iter().take(N.saturating_sub(1)).map(|one| one + PADDING).sum();
        (table, taken + LAST <= width)
    }

    fn right(&mut self, column: usize) {
        if let Some(column) = self.table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }

    fn breakable(&mut self, column: usize) {
        if let Some(column) = self.table.column_mut(column) {
            column.remove_constraint();
        }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        let lines = |cell: &String| cell.split('\n').map(plain).collect::<Vec<_>>().join("\n");
        self.table.add_row(cells.iter().map(lines));
    }

    fn render(mut self, width: Option<usize>) -> String {
        match width.and_then(|width| u16::try_from(width).ok()) {
            // The last column's padding is trimmed.
            Some(width) => self
                .table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width.saturating_add(2)),
            None => self.table.set_content_arrangement(ContentArrangement::Disabled),
        };
        let mut text = self.table.trim_fmt();
        text.push('\n');
        text
    }
}
