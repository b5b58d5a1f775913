//! `endpoints.d/*.toml`: one file's endpoints, each valid by itself.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use super::keys;
use super::model::{AddressWish, Attachment, Endpoint};
use super::table::{Item, Table};
use super::value;
use crate::types::addr::check_unicast;
use crate::types::label::check_value;
use crate::types::port_text::port_name;
use crate::types::{Family, Invalid, Label, Labels, Mac, Name, PortMatch, Publication};

#[derive(Debug, Clone)]
pub struct WrittenEndpoint {
    pub endpoint: Arc<Endpoint>,
    pub name: Range<usize>,
    /// Of the namespace or, if it has none, of the interface on the host or the one that is handed over.
    pub place: Range<usize>,
    pub ipv6: Range<usize>,
    pub ipv4: Range<usize>,
    /// Of each that is published.
    pub publish: Vec<Range<usize>>,
}

pub fn read(root: &Table) -> Vec<WrittenEndpoint> {
    root.tables("endpoint", &keys::ENDPOINT).iter().filter_map(endpoint).collect()
}

fn endpoint(table: &Table) -> Option<WrittenEndpoint> {
    // All first, so that every fault of the table is told.
    let name = table.required("name");
    let name = name.and_then(|item| Some((item.parse::<Name>()?, item.span)));
    let handed = table.optional("hand-over");
    let inside = ["namespace", "machine"].iter().any(|key| table.key_span(key).is_some());
    let adopted = !inside && handed.is_none();
    let attachment = match handed {
        Some(item) => handed_over(table, &item),
        None if adopted => on_the_host(table),
        None => in_a_namespace(table),
    };
    let (mac, shut) = (mac(table, adopted), shut(table, adopted));
    let labels = labels(table);
    let ipv6 = address(table, "ipv6", Family::Ipv6, adopted);
    let ipv4 = address(table, "ipv4", Family::Ipv4, adopted);
    let ports = ports(table);
    let publish = publish(table, adopted);
    let ((ipv6, ipv6_span), (ipv4, ipv4_span)) = (ipv6?, ipv4?);
    if (ipv6, ipv4) == (AddressWish::None, AddressWish::None) {
        match &attachment {
            Some((Attachment::Adopted { interface }, place)) => {
                unknown_addresses(table, place, interface);
            }
            None if adopted => {}
            _ => {
                let what = "the endpoint has no address: both families are `none`";
                table.sink.error(&ipv4_span, what);
            }
        }
    }
    let (attachment, place) = attachment?;
    let (publish, publish_spans) = publish?.into_iter().unzip();
    let (name, name_span) = name?;
    Some(WrittenEndpoint {
        endpoint: Arc::new(Endpoint {
            name,
            labels: labels?,
            attachment,
            ipv6,
            ipv4,
            ports: ports?,
            publish,
            mac: mac?,
            shut: shut?,
            origin: table.sink.origin(&table.span),
        }),
        name: name_span,
        place,
        ipv6: ipv6_span,
        ipv4: ipv4_span,
        publish: publish_spans,
    })
}

fn in_a_namespace(table: &Table) -> Option<(Attachment, Range<usize>)> {
    let interface = match table.optional("interface") {
        Some(item) => item.parse_by(value::interface),
        None => Some("eth0".to_owned()),
    };
    let (namespace, item) = match table.optional("machine") {
        Some(item) => {
            if let Some(span) = table.key_span("namespace") {
                let hint = "leave one of them out: a machine has a namespace of its own";
                table.sink.fault(&span, "`namespace` has no meaning beside `machine`", hint);
                return None;
            }
            (item.parse_by(value::machine)?, item)
        }
        None => {
            let item = table.required("namespace")?;
            (item.parse_by(value::namespace)?, item)
        }
    };
    Some((Attachment::Made { namespace, interface: interface? }, item.span))
}

fn handed_over(table: &Table, item: &Item) -> Option<(Attachment, Range<usize>)> {
    for other in ["namespace", "machine", "interface"] {
        if let Some(span) = table.key_span(other) {
            let what = format!("`{other}` has no meaning beside `hand-over`");
            let hint =
                "who takes the interface moves it into a namespace and gives it its name there";
            table.sink.fault(&span, what, hint);
            return None;
        }
    }
    let interface = item.parse_by(value::foreign_interface)?;
    Some((Attachment::HandedOver { interface }, item.span.clone()))
}

fn on_the_host(table: &Table) -> Option<(Attachment, Range<usize>)> {
    let Some(item) = table.optional("interface") else {
        let hint = "name the network namespace that porin is to make an interface in, or the host's interface \
                    that leads to what runs already";
        table.sink.fault(
            &table.span,
            "the endpoint is nowhere: it has neither `namespace` nor `interface`",
            hint,
        );
        return None;
    };
    let interface = item.parse_by(value::foreign_interface)?;
    Some((Attachment::Adopted { interface }, item.span))
}

fn mac(table: &Table, adopted: bool) -> Option<Option<Mac>> {
    let Some(item) = table.optional("mac") else { return Some(None) };
    if adopted {
        item.fault("`mac` has no meaning here: porin does not make the interface", "leave it out");
        return None;
    }
    let mac = item.parse::<Mac>()?;
    if mac == Mac::GATEWAY {
        item.fault(
            format!("{mac} is what every endpoint knows its gateway by"),
            "take another one",
        );
        return None;
    }
    Some(Some(mac))
}

fn shut(table: &Table, adopted: bool) -> Option<bool> {
    let Some(item) = table.optional("shut") else { return Some(false) };
    let shut = item.boolean()?;
    if adopted && shut {
        let hint = "write a policy that denies everything, or add `namespace`";
        item.fault("only an endpoint whose interface porin makes can be shut", hint);
        return None;
    }
    Some(shut)
}

/// Whoever forgets `namespace` must not have an interface of the host's taken for an endpoint's.
fn unknown_addresses(table: &Table, place: &Range<usize>, interface: &str) {
    let what = format!("the addresses of what is behind `{interface}` of this host are not known");
    let hint =
        "state them (ipv4 = \"172.17.0.5\"); or add `namespace`, if porin is to make the interface";
    table.sink.fault(place, what, hint);
}

fn labels(table: &Table) -> Option<Labels> {
    let Some(item) = table.optional("labels") else {
        return Some(Labels::default());
    };
    let mut labels = Labels::default();
    let mut whole = true;
    for (key, value) in item.pairs()? {
        if value.is_table() {
            let hint = "a key with dots needs quotes: \"io.example.app\" = \"web\"";
            value.fault(format!("the value of label `{}` is a table", key.key), hint);
            whole = false;
            continue;
        }
        let parsed_key = key.key.parse().map_err(|invalid: Invalid| key.invalid(&invalid)).ok();
        let text = value.parse_by(|text| check_value(text).map(|()| text.to_owned()));
        match (parsed_key, text) {
            (Some(key), Some(value)) => drop(labels.insert(Label { key, value })),
            _ => whole = false,
        }
    }
    whole.then_some(labels)
}

fn ports(table: &Table) -> Option<std::collections::BTreeMap<Name, PortMatch>> {
    let Some(item) = table.optional("ports") else {
        return Some(Default::default());
    };
    let pairs = item.pairs()?;
    let parse = |(key, value): &(Item, Item)| {
        let name = port_name(key.key).map_err(|invalid| key.invalid(&invalid)).ok();
        let port = value.parse_by(value::named_port);
        Some((name?, port?))
    };
    let ports: Vec<_> = pairs.iter().map(parse).collect();
    ports.into_iter().collect()
}

fn publish(table: &Table, adopted: bool) -> Option<Vec<(Publication, Range<usize>)>> {
    let Some(item) = table.optional("publish") else { return Some(Vec::new()) };
    if adopted {
        let hint = "its own network publishes its ports; or add `namespace`";
        item.fault("ports of an adopted endpoint cannot be published", hint);
        return None;
    }
    let items = item.list()?;
    let parsed: Vec<_> =
        items.into_iter().map(|item| Some((item.parse::<Publication>()?, item.span))).collect();
    parsed.into_iter().collect()
}

fn address(
    table: &Table,
    key: &'static str,
    family: Family,
    adopted: bool,
) -> Option<(AddressWish, Range<usize>)> {
    let Some(item) = table.optional(key) else {
        let wish = if adopted { AddressWish::None } else { AddressWish::Auto };
        return Some((wish, table.span.clone()));
    };
    let wish = item.parse_by(|text| match text {
        "auto" if adopted => {
            Err(Invalid::new("porin gives no address to an interface that it does not make")
                .hint("write the address that it has, or none"))
        }
        "auto" => Ok(AddressWish::Auto),
        "none" => Ok(AddressWish::None),
        _ => fixed(text, key, family),
    })?;
    Some((wish, item.span))
}

fn fixed(text: &str, key: &str, family: Family) -> Result<AddressWish, Invalid> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let invalid = Invalid::new(format!("`{text}` is not an {family} address"));
        return Err(match text.split_once('/') {
            Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
                invalid.hint(format!("write {key} = \"{address}\", without a length"))
            }
            _ => invalid.hint("write auto, none, or an address"),
        });
    };
    if Family::of(address) != family {
        return Err(Invalid::new(format!("`{text}` is not an {family} address"))
            .hint("write it under the other family's key"));
    }
    Ok(AddressWish::Fixed(check_unicast(address)?))
}
