//! `[[assert]]`: what must hold in every generation, valid by itself.

use std::ops::Range;
use std::sync::Arc;

use super::fault::Fault;
use super::keys::{ALWAYS, Keys, NEVER};
use super::model::{Assert, AssertKind};
use super::table::Table;
use super::{peer, rule};

#[derive(Debug, Clone)]
pub struct WrittenAssert {
    pub assert: Arc<Assert>,
    /// Of each peer.
    pub from: Vec<Range<usize>>,
    pub to: Vec<Range<usize>>,
    /// Of each port.
    pub ports: Vec<Range<usize>>,
}

pub fn read(table: &Table) -> Option<WrittenAssert> {
    let kinds = [(AssertKind::Never, "never", &NEVER), (AssertKind::Always, "always", &ALWAYS)];
    let claims: Vec<_> = kinds
        .into_iter()
        .filter(|(_, key, _)| table.optional(key).is_some())
        .map(|(kind, key, keys)| claim(table, kind, key, keys))
        .collect();
    if claims.len() != 1 {
        let what = match claims.is_empty() {
            true => "[[assert]] says neither `never` nor `always`",
            false => "[[assert]] says both `never` and `always`",
        };
        let fault = Fault::error(table.sink.place(&table.span), what);
        let hint = match claims.is_empty() {
            true => "add, for example, never = { from = \"env=dev\", to = \"env=prod\" }",
            false => "make it two",
        };
        table.sink.push(fault.hint(hint));
        return None;
    }
    claims.into_iter().next().flatten()
}

fn claim(
    table: &Table,
    kind: AssertKind,
    key: &'static str,
    keys: &'static Keys,
) -> Option<WrittenAssert> {
    let place = table.key_span(key)?;
    let claim = table.table(key, keys)?;
    let (from, to, ports) =
        (peer::list(&claim, "from"), peer::list(&claim, "to"), rule::ports(&claim));
    let (from, from_spans) = from?.into_iter().unzip();
    let (to, to_spans) = to?.into_iter().unzip();
    let (ports, port_spans): (Vec<_>, Vec<_>) = ports?.into_iter().unzip();
    let origin = table.sink.origin(&place);
    rule::unjudged(&claim, &ports, &port_spans);
    Some(WrittenAssert {
        assert: Arc::new(Assert { kind, from, to, ports, origin }),
        from: from_spans,
        to: to_spans,
        ports: port_spans,
    })
}
