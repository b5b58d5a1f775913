//! A daemon that refuses everything.

use porin::control::server::Handler;
use porin::control::wire::{ErrorCode, Request, Response};
use porin::observe::hub::{Filter, Hub, Subscription};

#[derive(Default)]
pub struct Refusal(Hub);

impl Handler for Refusal {
    fn handle(&self, _: Request) -> Response {
        Response::error(ErrorCode::Refused, "no")
    }

    fn subscribe(&self, filter: Filter) -> Subscription {
        self.0.subscribe(filter)
    }
}
