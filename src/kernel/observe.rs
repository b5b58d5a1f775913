//! What others did to porin's interfaces, gates and settings: noted in the mirror, so that the next
//! `apply` mends it. Nothing is mended here.

use std::collections::{BTreeMap, BTreeSet};

use super::Kernel;
use super::links::Place;
use super::netlink::host;
use super::netlink::monitor::KernelEvent;

impl Kernel {
    /// Takes note of what happened. True if the next `apply` has something to mend.
    ///
    /// `Relist` looks at everything: it costs one list of interfaces, and for each gate and interface a few
    /// small reads. It is fit to be called every minute, for what no event tells of.
    pub fn observe(&mut self, event: &KernelEvent) -> bool {
        match event {
            KernelEvent::InterfaceVanished(name) | KernelEvent::LinkChanged(name) => {
                self.check_interface(name)
            }
            KernelEvent::AddressChanged => false,
            KernelEvent::ForwardingLost => self.check_forwarding(),
            KernelEvent::Relist => self.check_everything(),
        }
    }

    /// True if an interface that porin had is gone, or is another one now. Events come late: it may
    /// have been made anew meanwhile.
    fn check_interface(&mut self, name: &str) -> bool {
        if !self.has(name) {
            return false;
        }
        match host::link_by_name(&self.host.netlink.socket(), name) {
            Ok(Some(link)) if self.is_known(name, link.ifindex) => false,
            Ok(_) => {
                self.forget(name);
                true
            }
            Err(error) => {
                log::warn!("{error}");
                false
            }
        }
    }

    fn check_everything(&mut self) -> bool {
        let links = match host::links(&self.host.netlink) {
            Ok(links) => links,
            Err(error) => {
                log::warn!("{error}");
                return false;
            }
        };
        let links: BTreeMap<&str, _> =
            links.iter().map(|link| (link.name.as_str(), link)).collect();
        let mut changed = false;
        let names: BTreeSet<String> =
            self.mirror.interfaces.keys().chain(self.mirror.gates.keys()).cloned().collect();
        for name in &names {
            match links.get(name.as_str()) {
                Some(link) if self.is_known(name, link.ifindex) => {
                    if !link.up && self.is_configured(name) {
                        log::warn!("{name} was brought down by others");
                        self.mirror.note_unconfigured(name);
                        changed = true;
                    }
                }
                _ => {
                    self.forget(name);
                    changed = true;
                }
            }
        }
        let ifindex_of = |name: &str| links.get(name).map(|link| link.ifindex);
        changed |= self.check_gates(ifindex_of);
        changed | self.check_forwarding()
    }

    /// Gates that others took away. A link that was detached is still pinned, but on no interface.
    fn check_gates(&mut self, ifindex_of: impl Fn(&str) -> Option<u32>) -> bool {
        let mechanisms = self.host.mechanisms;
        let mut places = Vec::new();
        for name in self.mirror.gates.keys() {
            let Some(ifindex) = ifindex_of(name) else { continue };
            let mechanism = mechanisms.on(&self.mirror, name);
            places.push(Place { interface: name, ifindex, mechanism });
        }
        let tags = match self.host.links.tags(&self.host.netlink, &places) {
            Ok(tags) => tags,
            Err(error) => {
                log::warn!("{error}");
                return false;
            }
        };
        let bare: Vec<String> = places
            .iter()
            .zip(tags)
            .filter(|(_, tags)| tags.iter().any(Option::is_none))
            .map(|(place, _)| place.interface.to_owned())
            .collect();
        for name in &bare {
            log::warn!("the gates of {name} were taken away by others");
            self.mirror.note_ungated(name);
        }
        !bare.is_empty()
    }

    fn check_forwarding(&mut self) -> bool {
        let mut lost: Vec<String> = self.mirror.interfaces.keys().cloned().collect();
        lost.retain(|name| self.is_configured(name) && !host::forwards(name));
        for name in &lost {
            self.mirror.note_unconfigured(name);
        }
        if !lost.is_empty() {
            log::warn!("forwarding was turned off by others on {} interfaces", lost.len());
        }
        !lost.is_empty()
    }

    fn has(&self, name: &str) -> bool {
        self.mirror.interfaces.contains_key(name) || self.mirror.gates.contains_key(name)
    }

    /// Whether the interface of this name is the one that porin made, or has its gates on.
    fn is_known(&self, name: &str, ifindex: u32) -> bool {
        match self.host.interfaces.get(name) {
            Some((own, _)) => *own == ifindex,
            None => {
                let uplink = self.mirror.uplinks.get(&ifindex);
                uplink.is_some_and(|row| row.interface == name)
                    || self.mirror.endpoints.values().any(|row| row.is_behind(name, ifindex))
            }
        }
    }

    fn is_configured(&self, name: &str) -> bool {
        self.mirror.interfaces.get(name).is_some_and(|interface| interface.sources.is_some())
    }

    fn forget(&mut self, name: &str) {
        self.host.interfaces.remove(name);
        self.mirror.note_vanished(name);
        if let Err(reason) = self.host.detach(name) {
            log::warn!("{reason}");
        }
    }
}
