//! Endpoints that are where another program has put them: all of an adapter's at once. Nobody waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::place::Place;
use super::{Attachments, Known, State, conflicts};
use crate::config::model::{AddressWish, Attachment, Config, Endpoint};
use crate::control::attach::AttachmentId;
use crate::daemon::board::Board;
use crate::types::{Labels, Name, Origin};

/// An endpoint that is to be adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    pub id: AttachmentId,
    /// What a person sees in its file.
    pub about: String,
    pub name: Name,
    pub labels: Labels,
    /// On this host.
    pub interface: String,
    pub ipv6: Option<Ipv6Addr>,
    pub ipv4: Option<Ipv4Addr>,
}

/// Why each of them cannot be.
pub type Refusals = BTreeMap<AttachmentId, String>;

impl Attachments {
    /// Makes the adopted ones of `adapter` those that are `wanted`, and no others but the `undecided`, which stay as they
    /// are. What would make the files as a whole
    /// wrong is refused; it may be wanted again later.
    pub fn adopt(
        &self,
        adapter: &str,
        wanted: &[Adoption],
        undecided: &BTreeSet<AttachmentId>,
        board: &Board,
    ) -> Refusals {
        let mut refusals = Refusals::new();
        let mut state = self.lock();
        let wanted_ids = wanted.iter().map(|one| (&one.id, one)).collect::<BTreeMap<_, _>>();
        // First those that are no more, or are others now: what they had may be another's.
        let stays = |id: &AttachmentId, known: &Known| {
            let same = |one: &&Adoption| is(one, &known.endpoint);
            wanted_ids.get(id).map_or_else(|| undecided.contains(id), same) && self.files.exists(id)
        };
        self.drop_unless(&mut state, adapter, stays);
        for one in wanted {
            if state.known.contains_key(&one.id) {
                continue;
            }
            if let Err(why) = self.write(&mut state, one, board) {
                refusals.insert(one.id.clone(), why);
            }
        }
        self.touched(state);
        refusals
    }

    /// Lets go the adopted ones of `adapter` that are not to be kept.
    pub fn release(&self, adapter: &str, keep: impl Fn(&AttachmentId) -> bool) {
        let mut state = self.lock();
        self.drop_unless(&mut state, adapter, |id, _| keep(id));
        self.touched(state);
    }

    fn drop_unless(
        &self,
        state: &mut State,
        adapter: &str,
        stays: impl Fn(&AttachmentId, &Known) -> bool,
    ) {
        let State { known, touched, .. } = state;
        known.retain(|id, one| {
            if id.adapter() != adapter || !one.endpoint.is_adopted() || stays(id, one) {
                return true;
            }
            touched.insert(self.files.path(id));
            match self.files.remove(id) {
                Ok(_) => false,
                Err(error) => {
                    log::warn!("cannot remove {}: {error}", self.files.path(id).display());
                    true
                }
            }
        });
    }

    fn write(&self, state: &mut State, one: &Adoption, board: &Board) -> Result<(), String> {
        let path = self.files.path(&one.id);
        let asked = endpoint(one, Origin { file: path.as_path().into(), line: 1, column: 1 });
        let (text, endpoint) = self.files.compose(&one.id, &one.about, &asked)?;
        let Some(committed) = &board.committed else {
            return Err("the daemon has put nothing in force yet".to_owned());
        };
        let Config { host, endpoints, .. } = &*committed.config;
        let by_hand = endpoints.iter().filter(|one| self.files.id(&one.origin.file).is_none());
        let others = state.known.values().map(|known| &known.endpoint).chain(by_hand);
        conflicts::with_written(&endpoint, others, host)?;
        self.files
            .write(&one.id, &text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        state.touched.insert(path);
        let place = Place::now(&endpoint);
        state.known.insert(one.id.clone(), Known { endpoint, place, ticket: 0 });
        Ok(())
    }
}

fn endpoint(adoption: &Adoption, origin: Origin) -> Endpoint {
    let Adoption { name, labels, interface, ipv6, ipv4, .. } = adoption;
    let wish = |address: Option<std::net::IpAddr>| match address {
        Some(address) => AddressWish::Fixed(address),
        None => AddressWish::None,
    };
    Endpoint {
        name: name.clone(),
        labels: labels.clone(),
        attachment: Attachment::Adopted { interface: interface.clone() },
        ipv6: wish(ipv6.map(Into::into)),
        ipv4: wish(ipv4.map(Into::into)),
        ports: BTreeMap::new(),
        publish: Vec::new(),
        mac: None,
        shut: false,
        origin,
    }
}

fn is(adoption: &Adoption, known: &Endpoint) -> bool {
    endpoint(adoption, known.origin.clone()) == *known
}
