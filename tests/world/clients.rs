//! Clients: each asks one question of one forwarder, by datagrams that it may repeat, or by a stream.

use std::time::Duration;

use dns::address::Scheme;
use dns::{Header, OptRecord, RecordType};
use rand::RngExt;

use super::checks::Asked;
use super::clock::{Around, Event};
use super::content;
use super::host::HostId;
use super::network::{Endpoint, Frames, StreamEvent, StreamId, StreamNews};
use super::{FORWARDERS, World};

#[derive(Debug)]
pub(crate) struct Client {
    name: usize,
    forwarder: HostId,
    is_by_stream: bool,
    stream: Option<StreamId>,
    frames: Frames,
    has_response: bool,
    asked: u32,
}

/// The time after which a client asks again, and how often it does.
const AGAIN: Duration = Duration::from_millis(1000);
const TRIES: u32 = 3;

impl Client {
    pub(crate) fn new(name: usize, forwarder: HostId, is_by_stream: bool) -> Self {
        Self { name, forwarder, is_by_stream, stream: None, frames: Frames::default(), has_response: false, asked: 0 }
    }

    pub(crate) fn random(around: &mut Around) -> Self {
        let name = around.rng.random_range(0..content::NAMES);
        let forwarder = FORWARDERS[around.rng.random_range(0..FORWARDERS.len())];
        Self::new(name, forwarder, around.chance(0.25))
    }

    pub(crate) fn on_response(&mut self, octets: &[u8], is_by_stream: bool) {
        let header = Header::read(octets).filter(|header| header.is_response());
        // RFC 7766 section 5: the client repeats a query with a truncated response by TCP.
        let is_truncated = header.is_some_and(Header::is_truncated);
        assert!(!is_truncated || !is_by_stream, "a response by TCP is whole");
        self.is_by_stream |= is_truncated;
        self.has_response |= header.is_some() && !is_truncated;
    }

    fn query(&self, id: u16) -> Vec<u8> {
        let mut query = Vec::new();
        let opt = OptRecord::new(1232, false);
        dns::write_recursive_query(id, &content::name(self.name), RecordType::A, Some(&opt), &mut query);
        query
    }
}

impl World {
    /// Adds a client that asks at this time after the start.
    pub(crate) fn add_client(&mut self, client: Client, at: Duration) {
        let number = self.clients.len();
        self.around.truth.queries.insert(number, Asked::new(client.name));
        self.clients.push(client);
        let at = self.around.start + at;
        self.around.schedule(at, Event::Ask(number));
    }

    /// Lets a client ask, unless it has a response or gives up.
    pub(crate) fn ask(&mut self, number: usize) {
        let (around, client) = (&mut self.around, &mut self.clients[number]);
        if client.has_response || client.asked == TRIES {
            return;
        }
        client.asked += 1;
        around.after(AGAIN, Event::Ask(number));
        if !client.is_by_stream {
            // A repetition has the ID of the query, so that the forwarder knows it.
            let query = client.query(number as u16);
            return around.send(Endpoint::Client(number), Endpoint::Service(client.forwarder), query);
        }
        if let Some(stream) = client.stream.take() {
            around.close(stream, Endpoint::Client(number));
        }
        client.frames = Frames::default();
        client.stream = Some(around.dial(Endpoint::Client(number), client.forwarder, Scheme::Tcp));
    }

    pub(crate) fn on_client_stream(&mut self, number: usize, event: StreamEvent) {
        let (around, client) = (&mut self.around, &mut self.clients[number]);
        if client.stream != Some(event.stream) {
            return;
        }
        match event.what {
            StreamNews::Opened => around.write(event.stream, Endpoint::Client(number), &client.query(number as u16)),
            StreamNews::Bytes(bytes) => {
                client.frames.push(&bytes);
                if let Some(message) = client.frames.next() {
                    client.on_response(&message, true);
                    client.stream = None;
                    around.close(event.stream, Endpoint::Client(number));
                }
            }
            StreamNews::Reset => client.stream = None,
            StreamNews::Dialed(_) => {}
        }
    }
}
