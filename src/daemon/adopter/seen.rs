//! What is known of one container: the endpoints that it should be, and where each of them ends on this host.

use crate::adapter::docker::{Container, Wish, wishes};
use crate::daemon::attachments::adopting::Adoption;
use crate::kernel::netlink::Netlink;
use crate::kernel::netlink::behind::{self, Unfound, Wanted};

/// A container that runs, with an interface in an adopted network at least.
#[derive(Debug, Default)]
pub struct Seen {
    interfaces: Vec<Interface>,
    /// What could not be made a wish of, or asked.
    failures: Vec<String>,
    /// How often in a row something was not found.
    times: u32,
}

#[derive(Debug)]
struct Interface {
    wish: Wish,
    /// On this host.
    end: Result<String, String>,
}

/// One failure may be a matter of time: a container that is just starting.
const TOLD_FROM: u32 = 2;

impl Seen {
    /// None: it is no endpoint.
    pub fn new(container: &Container, adopt: &[String], before: Option<&Seen>) -> Option<Self> {
        let mut seen = Seen { times: before.map_or(0, |before| before.times), ..Seen::default() };
        for wish in wishes(container, adopt) {
            match wish {
                Ok(wish) => {
                    let known = |interface: &Interface| interface.wish == wish;
                    if wish.left_out > 0 && !before.is_some_and(|b| b.interfaces.iter().any(known))
                    {
                        let Wish { about, left_out, .. } = &wish;
                        log::warn!(
                            "{about}: {left_out} of its labels cannot be any and are left out"
                        );
                    }
                    seen.interfaces.push(Interface { wish, end: Err(String::new()) });
                }
                Err(why) => seen.failures.push(why),
            }
        }
        (!seen.interfaces.is_empty() || !seen.failures.is_empty()).then_some(seen)
    }

    /// What was known stays, but the daemon does not say what is so now.
    pub fn failed(before: Option<Seen>, why: String) -> Self {
        Seen { failures: vec![why], ..before.unwrap_or_default() }
    }

    pub fn is_whole(&self) -> bool {
        self.failures.is_empty() && self.interfaces.iter().all(|one| one.end.is_ok())
    }

    /// Looks where the interfaces end, those that were not found.
    pub fn find(&mut self, netlink: &Netlink) {
        for one in self.interfaces.iter_mut().filter(|one| one.end.is_err()) {
            one.end = find(netlink, &one.wish).map_err(|why| why.to_string());
        }
        self.times = if self.is_whole() { 0 } else { self.times.saturating_add(1) };
    }

    pub fn adoptions(&self) -> impl Iterator<Item = Adoption> {
        self.interfaces.iter().filter_map(|one| {
            let Wish { id, about, name, labels, left_out, ipv6, ipv4, .. } = &one.wish;
            let left_out = match left_out {
                0 => String::new(),
                n => format!("; {n} of its labels cannot be any"),
            };
            Some(Adoption {
                id: id.clone(),
                about: format!("{about}{left_out}"),
                name: name.clone(),
                labels: labels.clone(),
                interface: one.end.as_ref().ok()?.clone(),
                ipv6: *ipv6,
                ipv4: *ipv4,
            })
        })
    }

    /// What is to be told, each with its cause.
    pub fn faults(&self) -> impl Iterator<Item = (String, Option<String>)> {
        let told = self.times >= TOLD_FROM;
        let not_found = self.interfaces.iter().filter_map(|one| {
            let why = one.end.as_ref().err()?.clone();
            Some((format!("{} is not adopted", one.wish.about), Some(why)))
        });
        let failures = self.failures.iter().map(|what| (what.clone(), None));
        failures.chain(not_found).filter(move |_| told)
    }
}

/// By whichever path it is found; the last one's failure tells most.
fn find(netlink: &Netlink, wish: &Wish) -> Result<String, Unfound> {
    let addresses: Vec<_> = wish.addresses().collect();
    let mut found = Err(Unfound::NoNamespace);
    for (namespace, certain) in &wish.namespaces {
        let (certain, mac) = (*certain, wish.mac);
        found =
            behind::host_end(netlink, Wanted { namespace, certain, addresses: &addresses, mac });
        if found.is_ok() {
            break;
        }
    }
    found
}
