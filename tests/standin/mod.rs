//! A daemon that is not there: a real socket, and whatever answers a test wants.

use std::sync::Mutex;

use porin::control::attach::{Attached, AttachmentId};
use porin::control::server::Handler;
use porin::control::wire::{ErrorCode, Request, Response};
use porin::observe::hub::{Filter, Hub, Subscription};
use porin::types::Generation;

#[derive(Default)]
pub struct Daemon {
    pub hub: Hub,
    /// What was asked of it, in order.
    pub asked: Mutex<Vec<Request>>,
    pub refuses: Mutex<Option<(ErrorCode, &'static str)>>,
    /// The attachments that it has.
    pub list: Mutex<Vec<AttachmentId>>,
}

impl Handler for Daemon {
    fn handle(&self, request: Request) -> Response {
        self.asked.lock().unwrap().push(request.clone());
        if let Some((code, what)) = *self.refuses.lock().unwrap() {
            return Response::error(code, what);
        }
        match request {
            Request::Attach { .. } | Request::Attachment { .. } => {
                Response::Attached(Box::new(attached()))
            }
            Request::Attachments { .. } => Response::Attachments(self.list.lock().unwrap().clone()),
            _ => Response::Detached {},
        }
    }

    fn subscribe(&self, filter: Filter) -> Subscription {
        self.hub.subscribe(filter)
    }
}

/// What it answers whoever attaches.
pub fn attached() -> Attached {
    Attached {
        name: "web-0123456789ab".into(),
        namespace: Some("/run/netns/web".into()),
        interface: "eth0".into(),
        host_interface: "pn0123456789ab".into(),
        mac: "02:00:00:00:00:07".into(),
        host_mac: "02:70:6f:72:69:6e".into(),
        mtu: 1500,
        ipv6: Some("fd00:10::7".parse().unwrap()),
        ipv4: Some("10.10.0.7".parse().unwrap()),
        publish: Vec::new(),
        generation: Generation(7),
    }
}
