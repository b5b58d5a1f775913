//! Who waits for a round, and what it means for them.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::config::model::Endpoint;
use crate::control::attach::{Adopted, Attached, AttachmentId};
use crate::control::view::Severity;
use crate::daemon::board::Board;
use crate::desired::snapshot::{self, Attachment, Made};
use crate::types::Name;

use super::place::Place;

/// How many changes were asked for before: a round sees all that were asked for before it began.
pub type Ticket = u64;

pub struct Waiter {
    pub ticket: Ticket,
    pub id: AttachmentId,
    pub wants: Wants,
    pub tell: Sender<Outcome>,
}

pub enum Wants {
    /// This endpoint in force, there.
    Endpoint(Arc<Endpoint>, Place),
    /// No endpoint of this name in force.
    Gone(Name),
}

pub enum Outcome {
    InForce(Box<Attached>, Option<snapshot::Namespace>),
    /// Likewise, behind another program's interface.
    Adopted(Box<Adopted>),
    Gone,
    /// This endpoint cannot be, and why.
    Closed(String),
    /// Nothing could be changed, and why. It is not this endpoint's doing.
    Refused(String),
}

impl Waiter {
    /// What the round that led to `board` means for it; none: the next one will tell. `theirs`: whether a file is one
    /// of those that were made on request.
    pub fn judge(
        &self,
        board: &Board,
        file: &str,
        theirs: impl Fn(&str) -> bool,
    ) -> Option<Outcome> {
        let (wanted, place) = match &self.wants {
            Wants::Gone(name) => {
                return match find(board, name) {
                    None => Some(Outcome::Gone),
                    Some(_) => Some(Outcome::Refused(refusal(board))),
                };
            }
            Wants::Endpoint(endpoint, place) => (endpoint, place),
        };
        let name = &wanted.name;
        // As it was asked for: one of this name may be in force still that says something else.
        let said = board.committed.as_ref().and_then(|committed| committed.config.endpoint(name));
        let found = find(board, name).filter(|_| said == Some(wanted));
        if let Some(found) = found.filter(|found| Place::of(found) == *place) {
            return Some(match &found.attachment {
                Attachment::Made(made) => {
                    let attached = Box::new(attached(found, made, board));
                    Outcome::InForce(attached, made.namespace.clone())
                }
                Attachment::Adopted(there) => {
                    Outcome::Adopted(Box::new(adopted(found, *there, board)))
                }
            });
        }
        if let Some(fault) = board.closed.iter().find(|fault| fault.endpoint.as_ref() == Some(name))
        {
            let why = fault.why.iter().map(|why| format!(": {why}"));
            return Some(Outcome::Closed(fault.what.clone() + &why.collect::<String>()));
        }
        let mut errors = board.faults.iter().filter(|fault| fault.severity == Severity::Error);
        if let Some(own) = errors.clone().find(|fault| fault.file.as_deref() == Some(file)) {
            return Some(Outcome::Closed(own.what.clone()));
        }
        // Another request's fault: its file goes, and then there is another round.
        if errors.any(|fault| fault.file.as_deref().is_some_and(&theirs)) {
            return None;
        }
        match board.in_force {
            true => {
                Some(Outcome::Closed(format!("{file} was not read: is it masked, or removed?")))
            }
            false => Some(Outcome::Refused(refusal(board))),
        }
    }
}

/// The endpoint of this name that is in force.
pub fn find<'a>(board: &'a Board, name: &Name) -> Option<&'a snapshot::Endpoint> {
    let committed = board.committed.as_ref()?;
    committed.snapshot.endpoints.values().map(Arc::as_ref).find(|endpoint| endpoint.name == *name)
}

pub fn attached(endpoint: &snapshot::Endpoint, made: &Made, board: &Board) -> Attached {
    Attached {
        name: endpoint.name.to_string(),
        namespace: made.namespace.as_ref().map(|there| there.path.clone()),
        interface: made.interface.clone(),
        host_interface: endpoint.host_interface.clone(),
        mac: made.mac.to_string(),
        host_mac: made.host_mac().to_string(),
        mtu: made.mtu,
        ipv6: endpoint.ipv6,
        ipv4: endpoint.ipv4,
        publish: endpoint.publish.clone(),
        generation: board.generation,
    }
}

pub fn adopted(endpoint: &snapshot::Endpoint, there: snapshot::Adopted, board: &Board) -> Adopted {
    Adopted {
        name: endpoint.name.to_string(),
        host_interface: endpoint.host_interface.clone(),
        ifindex: there.ifindex,
        ipv6: endpoint.ipv6,
        ipv4: endpoint.ipv4,
        generation: board.generation,
    }
}

fn refusal(board: &Board) -> String {
    let first = board.faults.iter().find(|fault| fault.severity == Severity::Error);
    let what = first.map(|fault| fault.what.clone());
    what.unwrap_or_else(|| "what the files say cannot be put in force".to_owned())
}
