//! Both ends of a flow, as far as they are known.

use crate::types::{Direction, Labels};

use super::domain::Domain;
use super::entries::{Meanings, Party};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Labels(Labels),
    Outside(String),
}

#[derive(Clone)]
pub(super) struct Ends<'a> {
    pub from: Party<'a>,
    pub to: Party<'a>,
}

impl<'a> Ends<'a> {
    pub(super) fn subject(&self, direction: Direction) -> Option<&Domain<'a>> {
        match direction {
            Direction::Egress => self.from.domain(),
            Direction::Ingress => self.to.domain(),
        }
    }

    pub(super) fn peer(&self, direction: Direction) -> &Party<'a> {
        match direction {
            Direction::Egress => &self.to,
            Direction::Ingress => &self.from,
        }
    }

    pub(super) fn of(direction: Direction, subject: Domain<'a>, peer: Party<'a>) -> Self {
        let subject = Party::Endpoint(subject);
        match direction {
            Direction::Egress => Ends { from: subject, to: peer },
            Direction::Ingress => Ends { from: peer, to: subject },
        }
    }

    /// One of them.
    pub(super) fn example(&self, meanings: &Meanings<'a>) -> Self {
        let one = |party: &Party<'a>| match party {
            Party::Endpoint(domain) if domain.is_one() => Party::Endpoint(domain.clone()),
            Party::Endpoint(domain) => {
                Party::Endpoint(Domain::only(meanings.filter, &domain.example()))
            }
            Party::Outside(outside) => Party::Outside(outside),
        };
        Ends { from: one(&self.from), to: one(&self.to) }
    }
}
