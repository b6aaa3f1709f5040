//! The seam of a build without the cargo feature `xdp`: there are no interfaces, and workers read no frames.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use config::Config;
use engine::state::ForwarderState;
use metrics::FrameSnapshot;
use net::Bypass;
use net::sys::batch::Datagram;
use net::sys::busy_poll::BusyPoll;
use net::tasks::LostTask;
use thiserror::Error;

use super::Listeners;
use super::workers::WorkerChannels;
use crate::worker::forwarder::Forwarder;

/// Describes no interfaces, and never fails.
pub fn check_interfaces(_: &Config, _: &mut Vec<String>) -> Result<Vec<String>, String> {
    Ok(Vec::new())
}

/// An interface is not available. There is none.
#[derive(Debug, Error)]
pub enum InterfaceError {}

/// No interfaces.
pub struct Interfaces;

impl Interfaces {
    /// Prepares nothing: a config that names interfaces is an error.
    ///
    /// # Errors
    /// Never.
    pub fn prepare(_: &Config, _: bool) -> Result<Self, InterfaceError> {
        Ok(Self)
    }

    pub(super) fn begin(&mut self) -> bool {
        false
    }

    pub(super) async fn due(&self) {
        pending().await
    }

    pub(super) fn follows(&self, _: Option<&ForwarderState>) -> bool {
        true
    }

    pub(super) fn follow(
        &mut self,
        _: &Listeners,
        _: Option<&ForwarderState>,
        _: &WorkerChannels,
    ) -> Result<(), InterfaceError> {
        Ok(())
    }

    pub(super) fn command(&self, _: usize) -> Option<FrameCommand> {
        None
    }

    pub(super) fn add_counted(&mut self, _: &[FrameSnapshot]) {}

    pub(super) fn snapshot(&self) -> Vec<FrameSnapshot> {
        Vec::new()
    }

    pub(super) fn end(&mut self, _: &WorkerChannels) {}
}

#[derive(Debug)]
pub(crate) enum FrameCommand {}

pub(crate) struct FrameListener;

pub(crate) type FrameDatagrams<'f> = iter::Empty<Datagram<'f>>;

pub(crate) struct FrameReaders {
    bypass: Rc<Bypass>,
}

impl FrameReaders {
    pub(crate) fn new(_: u32, _: bool) -> Self {
        Self { bypass: Rc::default() }
    }

    pub(crate) fn bypass(&self) -> &Rc<Bypass> {
        &self.bypass
    }

    pub(crate) fn add_forwarder(&self, _: &Rc<RefCell<Forwarder>>) {}

    pub(crate) fn listen(&self, _: SocketAddr, _: impl Fn(FrameDatagrams<'_>) + 'static) -> Rc<FrameListener> {
        Rc::new(FrameListener)
    }

    pub(crate) fn obey(self: &Rc<Self>, command: FrameCommand, _: BusyPoll) -> io::Result<()> {
        match command {}
    }

    pub(crate) fn poll_lost(&self, _: &mut Context<'_>) -> Poll<LostTask> {
        Poll::Pending
    }
}
