//! Connections of a forwarder to its backends: they open, carry messages, fall silent and end.

use engine::query_slots::SocketId;

use super::io::{BACKOFF, LINKS, Place, SOCKETS, set_of, socket_of};
use super::{Around, Endpoint, Forwarder, StreamId, StreamNews};

impl Forwarder {
    pub(super) fn on_backend_stream(&mut self, stream: StreamId, port: u32, what: StreamNews, around: &mut Around) {
        let (worker, socket) = socket_of(port);
        let own = Endpoint::Own { host: self.host, process: self.process, port };
        let now = around.now;
        let Some(link) = self.sockets.get_mut(worker).and_then(|sockets| sockets.link(socket)) else {
            return around.close(stream, own);
        };
        if link.stream != stream {
            return around.close(stream, own);
        }
        match what {
            StreamNews::Dialed(_) => {}
            StreamNews::Opened => {
                link.opened = Some(now);
                link.quiet_since = link.quiet_since.map(|_| now);
                let queued = std::mem::take(&mut link.queued);
                queued.iter().for_each(|query| around.write(stream, own, query));
            }
            StreamNews::Bytes(bytes) => {
                link.quiet_since = link.quiet_since.map(|_| now);
                link.frames.push(&bytes);
                let replies: Vec<_> = std::iter::from_fn(|| link.frames.next()).collect();
                for reply in replies {
                    around.truth.heard(self.host, &reply, now);
                    self.tick(worker, around, |tick| tick.on_reply(socket, &reply));
                }
            }
            StreamNews::Reset => {
                let was_open = link.opened.is_some();
                self.lose(worker, socket, was_open, around);
            }
        }
    }

    /// Removes a connection and gives its queries back to the engine.
    fn lose(&mut self, worker: usize, socket: SocketId, was_open: bool, around: &mut Around) {
        let sockets = &mut self.sockets[worker];
        let lost = sockets.take(|of| of == socket);
        let now = around.now;
        if let Some(set) = sockets.set(set_of(socket)) {
            set.links[(socket.0 % SOCKETS) as usize] = None;
            set.again_at = (!was_open).then(|| now + BACKOFF);
        }
        self.tick(worker, around, |tick| match was_open {
            true => tick.on_connection_lost(set_of(socket), &lost),
            false => tick.on_connection_failed(set_of(socket), &lost, true),
        });
    }

    /// Gives up connections that are silent for too long.
    pub(super) fn look_at_streams(&mut self, worker: usize, around: &mut Around) {
        for set in 0..self.sockets[worker].sets.len() {
            for place in 0..LINKS {
                let socket = SocketId(set as u32 * SOCKETS + place as u32);
                let Some(link) = self.sockets[worker].link(socket) else { continue };
                if link.gives_up_at().is_none_or(|at| at > around.now) {
                    continue;
                }
                let (stream, was_open) = (link.stream, link.opened.is_some());
                around.close(stream, Place { host: self.host, process: self.process, worker }.own(socket));
                self.lose(worker, socket, was_open, around);
            }
        }
    }
}
