//! A worker's authority.

use std::future::ready;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use net::from_clients::tcp::Responder;
use net::from_clients::udp::ListenerSocket;
use net::sys::batch::Datagram;

use super::reading::Checkpoint;
use super::section::{SectionService, WorkerSection};
use super::{AuthorityParts, Surroundings};
use crate::worker::authority::{Authority, AuthorityLinks};

#[derive(Clone)]
pub(super) struct AuthorityService {
    pub(super) number: usize,
    pub(super) authority: Rc<Authority>,
}

impl SectionService for AuthorityService {
    fn may_connect(&self, client: IpAddr) -> bool {
        self.authority.may_connect(client)
    }

    fn take_stream_query(&self, message: &[u8], responder: &Responder) {
        self.authority.answer_stream_query(message, responder);
    }

    fn take_datagrams<'d>(
        &self,
        _listener: u16,
        socket: &ListenerSocket,
        datagrams: impl Iterator<Item = Datagram<'d>> + Clone,
    ) {
        self.authority.answer_datagrams(socket, datagrams);
    }

    /// No worker depends on another here, so that reading begins at once.
    fn begin(
        &self,
        _listener: u16,
        socket: &Rc<ListenerSocket>,
        _checkpoint: Checkpoint,
    ) -> impl Future<Output = ()> + 'static {
        // Forwarders use GSO, but the clients of a forwarder hardly ever do, so its listeners avoid the cost
        // of GRO.
        socket.enable_gro();
        ready(())
    }

    fn forget(&self, _listener: u16) {}

    async fn settle(&self) {}
}

impl WorkerSection<AuthorityService> {
    pub(super) fn of_authority(parts: AuthorityParts, around: &Rc<Surroundings>) -> io::Result<Self> {
        let AuthorityParts { number, state, own, limited, notifies, change, connections } = parts;
        let links = AuthorityLinks {
            own,
            counters: around.counters.clone(),
            limited,
            notifies,
            tasks: around.tasks.clone(),
            taps: Rc::clone(&around.taps),
        };
        let service = AuthorityService { number, authority: Rc::new(Authority::new(number, state, links)) };
        Self::start(service, change, connections, around)
    }
}
