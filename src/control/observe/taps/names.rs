//! The path of questions to the count of names and clients: one of sixteen responses, drawn at random, is
//! counted.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use dns::{Rcode, RecordType};
use metrics::Tap;
use net::sys::clock;

use super::buffers::{Appender, BufferExchange};
use super::choice::mix;
use super::sinks::Framing;
use super::writer::RecordTap;
use super::{Side, TapResponse, lock};
use crate::control::observe::sight::names::TopNames;

#[derive(Debug)]
pub(super) struct NamesTap {
    pub(super) exchange: Arc<BufferExchange>,
    pub(super) names: Arc<Mutex<TopNames>>,
    /// The side that is counted: queries of a forwarder to its authorities in the same process do not count.
    pub(super) side: Side,
}

impl NamesTap {
    pub(super) fn new(side: Side, workers: usize) -> Self {
        Self { exchange: Arc::new(BufferExchange::new(Framing::Frames, 0, workers)), names: Arc::default(), side }
    }
}

#[derive(Debug)]
pub(super) struct NamesAppender {
    pub(super) appender: Appender,
    side: Side,
    /// The number of responses, by which the next one is drawn.
    turn: u64,
}

impl NamesAppender {
    pub(super) fn new(tap: &NamesTap, worker: usize) -> Self {
        Self { appender: Appender::new(Arc::clone(&tap.exchange), worker), side: tap.side, turn: (worker as u64) << 48 }
    }

    /// Appends a question and its client, if it is drawn. Returns false if there is no room.
    pub(super) fn append(&mut self, response: &TapResponse<'_>) -> bool {
        if response.side != self.side {
            return true;
        }
        self.turn += 1;
        let is_drawn = mix(self.turn).is_multiple_of(TopNames::STANDS_FOR);
        let question = response.question.filter(|_| is_drawn);
        let Some((name, &[type_high, type_low, ..])) = question.and_then(<[u8]>::split_last_chunk::<QTYPE_QCLASS>)
        else {
            return true;
        };
        let rcode = response.said.map_or(Rcode::NOERROR, |(_, rcode)| rcode);
        let client = match response.client.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        self.appender.append(HEAD + name.len(), |out| {
            out.extend_from_slice(&rcode.0.to_be_bytes());
            out.extend_from_slice(&[type_high, type_low]);
            out.extend_from_slice(&client.octets());
            out.extend(name.iter().map(u8::to_ascii_lowercase));
        })
    }
}

impl RecordTap for NamesTap {
    fn tap(&self) -> Tap {
        Tap::Names
    }

    fn exchange(&self) -> &Arc<BufferExchange> {
        &self.exchange
    }

    fn take(&self, record: &[u8]) {
        let Some((&[high, low, type_high, type_low, ref client @ ..], name)) = record.split_first_chunk::<HEAD>()
        else {
            return;
        };
        let rcode = Rcode(u16::from_be_bytes([high, low]));
        let qtype = RecordType(u16::from_be_bytes([type_high, type_low]));
        let client = IpAddr::from(*client).to_canonical();
        lock(&self.names).count(client, (name, qtype), rcode, TopNames::minute_of(clock::unix_now()));
    }
}

/// The bytes before the name: response code, type and client.
const HEAD: usize = 20;

const QTYPE_QCLASS: usize = 4;
