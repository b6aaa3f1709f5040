//! The network between hosts: datagrams with loss, delay, duplication and reordering, and streams of bytes
//! that can be reset or half open.
//!
//! A stream is TCP, TLS or QUIC to its ends. TCP and TLS deliver bytes in order and cut them anywhere, and
//! lost bytes delay those behind them. QUIC has a stream for each message, so a lost message delays no other.
//! Handshakes take as many round trips as those protocols need. Cryptography is not modelled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dns::address::Scheme;

use super::clock::{Around, Event};
use super::host::HostId;

pub(crate) type ProcessId = u32;

/// Where a datagram or stream starts or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    /// The listening socket of a host, which all its processes hold.
    Service(HostId),
    /// A socket of one process.
    Own { host: HostId, process: ProcessId, port: u32 },
    /// A client.
    Client(usize),
}

impl Endpoint {
    /// Returns the host, or `None` for clients, which the links between hosts do not concern.
    pub(crate) fn host(self) -> Option<HostId> {
        match self {
            Self::Service(host) | Self::Own { host, .. } => Some(host),
            Self::Client(_) => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: Endpoint,
    pub(crate) to: Endpoint,
    pub(crate) octets: Vec<u8>,
}

pub(crate) type StreamId = u64;

/// News for one end of a stream.
#[derive(Debug)]
pub(crate) struct StreamEvent {
    pub(crate) stream: StreamId,
    pub(crate) to: Endpoint,
    pub(crate) what: StreamNews,
}

#[derive(Debug)]
pub(crate) enum StreamNews {
    /// A dialer asks the listener for a stream.
    Dialed(Endpoint),
    Opened,
    Bytes(Vec<u8>),
    Reset,
}

#[derive(Debug)]
struct Stream {
    ends: [Endpoint; 2],
    scheme: Scheme,
    /// The latest arrival in each direction.
    latest: [Instant; 2],
}

/// The state of all links and streams.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Pairs of hosts between which nothing passes, in this direction.
    cut: BTreeSet<(HostId, HostId)>,
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    /// The share of datagrams that are late by up to 300 ms.
    pub(crate) lateness: f64,
    streams: BTreeMap<StreamId, Stream>,
    next: StreamId,
}

impl Links {
    pub(crate) fn set_cut(&mut self, from: HostId, to: HostId, is_cut: bool) {
        match is_cut {
            true => drop(self.cut.insert((from, to))),
            false => drop(self.cut.remove(&(from, to))),
        }
    }

    /// Cuts both directions, or joins them.
    pub(crate) fn set_apart(&mut self, one: HostId, other: HostId, is_cut: bool) {
        self.set_cut(one, other, is_cut);
        self.set_cut(other, one, is_cut);
    }

    fn is_cut(&self, from: Endpoint, to: Endpoint) -> bool {
        from.host().zip(to.host()).is_some_and(|pair| self.cut.contains(&pair))
    }

    /// Returns the end of a stream opposite to this one.
    pub(crate) fn peer(&self, stream: StreamId, end: Endpoint) -> Option<Endpoint> {
        let [one, other] = self.streams.get(&stream)?.ends;
        Some(if one == end { other } else { one })
    }

    pub(crate) fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Returns the streams that end at this process.
    fn streams_of(&self, host: HostId, process: ProcessId) -> Vec<(StreamId, Endpoint)> {
        let is_its = |end: &Endpoint| matches!(end, Endpoint::Own { host: of, process: its, .. } if (*of, *its) == (host, process));
        let of_stream = |(id, stream): (&StreamId, &Stream)| Some((*id, *stream.ends.iter().find(|end| is_its(end))?));
        self.streams.iter().filter_map(of_stream).collect()
    }
}

impl Around {
    fn delay(&mut self) -> Duration {
        let mut delay = Duration::from_micros(200) + self.millis(2);
        if self.chance(self.links.lateness) {
            delay += self.millis(300);
        }
        delay
    }

    /// Sends a datagram. Between a client and a host nothing is lost, so that each query counts.
    pub(crate) fn send(&mut self, from: Endpoint, to: Endpoint, octets: Vec<u8>) {
        let is_between_hosts = from.host().is_some() && to.host().is_some();
        let copies = match is_between_hosts {
            true if self.links.is_cut(from, to) || self.chance(self.links.loss) => 0,
            _ => 1 + usize::from(self.chance(self.links.duplication)),
        };
        for _ in 0..copies {
            let delay = self.delay();
            self.after(delay, Event::Arrives(Datagram { from, to, octets: octets.clone() }));
        }
    }

    /// Sends an ICMP error, because no process holds the socket.
    pub(crate) fn refuse(&mut self, datagram: Datagram) {
        if !self.links.is_cut(datagram.to, datagram.from) {
            let delay = self.delay();
            self.after(delay, Event::Unreachable(datagram));
        }
    }

    /// Dials a listener. The dialer gets `Opened` or `Reset`, or nothing if the network is cut.
    pub(crate) fn dial(&mut self, from: Endpoint, to: HostId, scheme: Scheme) -> StreamId {
        self.links.next += 1;
        let (id, now, service) = (self.links.next, self.now, Endpoint::Service(to));
        self.links.streams.insert(id, Stream { ends: [from, service], scheme, latest: [now; 2] });
        if !self.links.is_cut(from, service) && !self.links.is_cut(service, from) {
            // TLS 1.3 needs a round trip after that of TCP (RFC 8446 section 2), QUIC none
            // (RFC 9001 section 3).
            let trips = if scheme == Scheme::Tls { 3 } else { 1 };
            let delay = self.delay() * trips;
            let what = StreamNews::Dialed(from);
            self.after(delay, Event::Stream(StreamEvent { stream: id, to: service, what }));
        }
        id
    }

    /// Accepts a stream for this process.
    pub(crate) fn accept(&mut self, id: StreamId, by: Endpoint) {
        let Some(stream) = self.links.streams.get_mut(&id) else { return };
        stream.ends[1] = by;
        let dialer = stream.ends[0];
        let delay = self.delay();
        self.after(delay, Event::Stream(StreamEvent { stream: id, to: dialer, what: StreamNews::Opened }));
    }

    /// Writes a message with its length to a stream.
    pub(crate) fn write(&mut self, id: StreamId, from: Endpoint, message: &[u8]) {
        let framed = [&(message.len() as u16).to_be_bytes()[..], message].concat();
        let Some((to, scheme)) = self.links.peer(id, from).zip(self.links.streams.get(&id).map(|stream| stream.scheme))
        else {
            return;
        };
        if self.links.is_cut(from, to) {
            // What is sent again for longer than the fault lasts is as good as lost: the stream is half open.
            return;
        }
        let is_one = scheme == Scheme::Quic || !self.chance(0.2);
        let cut_at = if is_one { framed.len() } else { rand::RngExt::random_range(&mut self.rng, 1..framed.len()) };
        for part in [&framed[..cut_at], &framed[cut_at..]] {
            if part.is_empty() {
                continue;
            }
            let mut at = self.now + self.delay();
            if self.chance(self.links.loss) {
                at += RESENT_AFTER;
            }
            if let Some(stream) = self.links.streams.get_mut(&id)
                && scheme != Scheme::Quic
            {
                let direction = usize::from(stream.ends[0] == from);
                stream.latest[direction] = stream.latest[direction].max(at);
                at = stream.latest[direction];
            }
            let what = StreamNews::Bytes(part.to_vec());
            self.schedule(at, Event::Stream(StreamEvent { stream: id, to, what }));
        }
    }

    /// Ends a stream. The other end learns it, unless the network is cut: then that end is half open.
    pub(crate) fn close(&mut self, id: StreamId, by: Endpoint) {
        let Some(to) = self.links.peer(id, by) else { return };
        if self.links.is_cut(by, to) {
            // The end that is left writes into nothing.
            return;
        }
        self.links.streams.remove(&id);
        let delay = self.delay();
        self.after(delay, Event::Stream(StreamEvent { stream: id, to, what: StreamNews::Reset }));
    }

    /// Ends all streams of a process that has ended.
    pub(crate) fn close_all_of(&mut self, host: HostId, process: ProcessId) {
        for (id, end) in self.links.streams_of(host, process) {
            self.close(id, end);
        }
    }

    /// Resets a random stream, as a device in the network may do.
    pub(crate) fn reset_one(&mut self) {
        let ids: Vec<StreamId> = self.links.streams.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[rand::RngExt::random_range(&mut self.rng, 0..ids.len())];
        let Some(stream) = self.links.streams.remove(&id) else { return };
        for to in stream.ends {
            self.after(Duration::ZERO, Event::Stream(StreamEvent { stream: id, to, what: StreamNews::Reset }));
        }
    }
}

/// Joins the bytes of a stream to messages.
#[derive(Debug, Default)]
pub(crate) struct Frames(Vec<u8>);

impl Frames {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let (&length, _) = self.0.split_first_chunk::<2>()?;
        let end = 2 + usize::from(u16::from_be_bytes(length));
        if self.0.len() < end {
            return None;
        }
        let rest = self.0.split_off(end);
        let message = std::mem::replace(&mut self.0, rest);
        Some(message[2..].to_vec())
    }
}

/// The retransmission timeout of TCP on Linux.
const RESENT_AFTER: Duration = Duration::from_millis(200);
