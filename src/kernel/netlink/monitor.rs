//! Tells the daemon when the network changed under it: links and addresses of its own namespace.

use std::collections::BTreeSet;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use futures_util::StreamExt;
use futures_util::future::{self, Either};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkAttribute;
use tokio::sync::oneshot;

use super::Error;
use super::endpoint::is_own_name;
use super::forwarding::Forwarding;

/// Something that may make what is in force wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelEvent {
    /// The host side of an endpoint is gone: with its namespace, or removed by hand.
    InterfaceVanished(String),
    /// An interface that may be an uplink came, went, or changed.
    LinkChanged(String),
    /// An address of the host came or went.
    AddressChanged,
    /// Forwarding was turned off on some interface, by others.
    ForwardingLost,
    /// Events were lost: look at everything again.
    Relist,
}

/// Watches from creation until it is dropped.
pub struct Monitor {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Watches the calling thread's namespace. Returns once it is watching, so that whatever is read
    /// afterwards can't change unnoticed.
    pub fn start(events: Sender<KernelEvent>) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::new("watch the network", error);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let guard = runtime.enter();
        let (connection, handle, mut messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(failed)?;
        let forwarding = Forwarding::watch().map_err(failed)?;
        drop(guard);
        let (stop, mut stopped) = oneshot::channel();
        let watch = move || {
            // The handle keeps the connection open.
            let _handle = handle;
            runtime.spawn(connection);
            runtime.spawn(watch_forwarding(forwarding, events.clone()));
            runtime.block_on(async {
                loop {
                    // One wake-up, one event of each kind: a thousand new interfaces are no storm.
                    let Either::Left((next, _)) =
                        future::select(messages.next(), &mut stopped).await
                    else {
                        return;
                    };
                    let Some((first, _)) = next else {
                        log::error!(
                            "cannot watch the network any more: its netlink socket is closed"
                        );
                        // What was missed is seen once now, and then whenever the daemon looks by itself.
                        let _ = events.send(KernelEvent::Relist);
                        return;
                    };
                    let mut seen = BTreeSet::new();
                    seen.extend(event(&first.payload));
                    while let Ok((message, _)) = messages.try_recv() {
                        seen.extend(event(&message.payload));
                    }
                    for event in seen {
                        if events.send(event).is_err() {
                            return;
                        }
                    }
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("netlink-monitor".to_owned())
            .spawn(watch)
            .map_err(failed)?;
        Ok(Monitor { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn watch_forwarding(forwarding: Forwarding, events: Sender<KernelEvent>) {
    loop {
        if let Err(error) = forwarding.lost().await {
            log::error!("cannot watch forwarding any more: {error}");
            return;
        }
        if events.send(KernelEvent::ForwardingLost).is_err() {
            return;
        }
    }
}

fn event(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<KernelEvent> {
    match payload {
        NetlinkPayload::Overrun(_) => Some(KernelEvent::Relist),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
            // Our own come by our own hand.
            let name = name(&link.attributes)?;
            (!is_own_name(&name)).then_some(KernelEvent::LinkChanged(name))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
            let name = name(&link.attributes)?;
            Some(match is_own_name(&name) {
                true => KernelEvent::InterfaceVanished(name),
                false => KernelEvent::LinkChanged(name),
            })
        }
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_),
        ) => Some(KernelEvent::AddressChanged),
        _ => None,
    }
}

fn name(attributes: &[LinkAttribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}
