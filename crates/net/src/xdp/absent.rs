//! The seam of a build without the cargo feature `xdp`: all datagrams use sockets.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Instant;

use engine::query_slots::{QuerySlot, SocketId};

use super::sys::batch::SendBatch;

/// A way past the kernel that no datagram takes.
#[derive(Default)]
pub struct Bypass {}

impl Bypass {
    /// Returns false: nothing disturbs GRO.
    pub fn is_gro_off(&self) -> bool {
        false
    }

    /// Returns false: there are no sockets.
    pub fn is_active(&self) -> bool {
        false
    }

    /// Queues nothing, because no datagram has a link.
    pub fn push(
        &self,
        _: NonZeroU16,
        _: (SocketAddr, SocketAddr),
        _: impl FnOnce(&mut Vec<u8>),
        _: impl FnOnce(&[u8]),
    ) {
    }

    /// Sends nothing.
    pub fn flush(&self) {}
}

/// The ports of a worker's sockets to backends. None is held.
pub(crate) struct BypassPorts {
    bypass: Rc<Bypass>,
}

impl BypassPorts {
    pub(crate) fn new(bypass: Rc<Bypass>) -> Self {
        Self { bypass }
    }

    pub(crate) fn bypass(&self) -> &Bypass {
        &self.bypass
    }

    pub(crate) fn hold(&mut self, _: SocketId, _: &UdpSocket, _: SocketAddr, _: &mut Option<Instant>, _: Instant) {}

    pub(crate) fn release(&mut self, _: SocketId) {}

    pub(crate) fn divert(&self, _: SocketId, _: &mut SendBatch, _: &mut Vec<QuerySlot>) {}

    pub(crate) fn socket_between(&self, _: SocketAddr, _: SocketAddr) -> Option<SocketId> {
        None
    }
}
