//! A socket pair whose packets are messages with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One end. Neither blocks: `WouldBlock` says that there is nothing, or no room.
#[derive(Debug)]
pub struct Channel(OwnedFd);

#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other end is gone.
    #[error("the other end has gone")]
    Over,
    /// What came is no message: one is lost.
    #[error("no message: {0}")]
    Message(String),
}

/// Bytes of a message.
const LONGEST: usize = 64 << 10;
/// Descriptors with a message.
const MOST: usize = 64;

impl Channel {
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Channel(one), Channel(other)))
    }

    /// # Errors
    /// It is no such socket.
    pub fn of(descriptor: OwnedFd) -> io::Result<Self> {
        if rustix::net::sockopt::socket_type(&descriptor)? != SocketType::SEQPACKET {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Channel(descriptor))
    }

    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    pub fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        send(self.0.as_fd(), message, descriptors)
    }

    /// The next message, with its descriptors.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        receive(self.0.as_fd())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(super) fn send(
    channel: BorrowedFd<'_>,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::from)?;
    if bytes.len() > LONGEST || descriptors.len() > MOST {
        return Err(ChannelError::Message("it is too long".to_owned()));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        // There is room for as many as were allowed above.
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let sent = sendmsg(channel, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
    match sent {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(ChannelError::Over),
        Err(error) => Err(ChannelError::Io(error.into())),
    }
}

pub(super) fn receive<T: DeserializeOwned>(
    channel: BorrowedFd<'_>,
) -> Result<(T, Vec<OwnedFd>), ChannelError> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(channel, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC);
    let received = match received {
        Err(rustix::io::Errno::CONNRESET) => return Err(ChannelError::Over),
        received => received.map_err(io::Error::from)?,
    };
    // Whatever comes of the message, its descriptors are closed if nobody takes them.
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    if received.bytes == 0 {
        return Err(ChannelError::Over);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(ChannelError::Message("it is too long".to_owned()));
    }
    let text = bytes.get(..received.bytes).unwrap_or_default();
    match serde_json::from_slice(text) {
        Ok(message) => Ok((message, descriptors)),
        Err(error) => Err(ChannelError::Message(error.to_string())),
    }
}
