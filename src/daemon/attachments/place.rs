//! Where an endpoint is, by what does not come to mean another place: paths like `/proc/7/ns/net` and interfaces' names do.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::config::model::{Attachment, Endpoint};
use crate::desired::{digest, snapshot};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this network namespace.
    Inside { device: u64, inode: u64 },
    /// Behind the host's interface of this number.
    Behind { ifindex: u32 },
    /// Wherever a runtime has moved the end that it took.
    HandedOver,
}

impl Place {
    /// What is now where the endpoint is to be. None: nothing is, or nothing that can be looked at.
    pub fn now(endpoint: &Endpoint) -> Option<Self> {
        match &endpoint.attachment {
            Attachment::Made { namespace, .. } => {
                let there = fs::metadata(namespace).ok()?;
                Some(Place::Inside { device: there.dev(), inode: there.ino() })
            }
            Attachment::Adopted { interface } => {
                let ifindex = name_to_index(any_socket().ok()?, interface).ok()?;
                Some(Place::Behind { ifindex })
            }
            Attachment::HandedOver { .. } => Some(Place::HandedOver),
        }
    }

    /// Where one that is in force is.
    pub fn of(endpoint: &snapshot::Endpoint) -> Self {
        match &endpoint.attachment {
            snapshot::Attachment::Made(made) => match &made.namespace {
                Some(there) => Place::Inside { device: there.device, inode: there.inode },
                None => Place::HandedOver,
            },
            snapshot::Attachment::Adopted(adopted) => Place::Behind { ifindex: adopted.ifindex },
        }
    }

    /// Whether nothing will ever be at the place again that the endpoint was in, as far as `before` tells.
    pub fn is_gone(before: Option<Place>, endpoint: &Endpoint) -> bool {
        match before {
            // By another name it may get its own back. Numbers are not given twice.
            Some(Place::Behind { ifindex }) => any_socket()
                .and_then(|socket| index_to_name(socket, ifindex).map_err(Into::into))
                .is_err_and(is_no_interface),
            // Porin's own end went with the namespace that a runtime has put the other one into.
            Some(Place::HandedOver) => {
                let ours = digest::handed_host_interface(endpoint.interface());
                any_socket()
                    .and_then(|socket| name_to_index(socket, &ours).map_err(Into::into))
                    .is_err_and(is_no_interface)
            }
            _ => Place::now(endpoint).is_none_or(|now| before.is_some_and(|before| before != now)),
        }
    }
}

fn is_no_interface(error: io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// What questions about interfaces are asked by (netdevice(7)).
fn any_socket() -> io::Result<impl std::os::fd::AsFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?)
}
