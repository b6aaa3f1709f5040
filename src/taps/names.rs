//! Questions on their way to the count of names: one of sixteen responses, drawn by chance, tells its question.

use std::sync::{Arc, Mutex};

use super::buffers::{Appender, Exchange};
use super::choice::mix;
use super::in_memory::Keeper;
use super::{Side, Told, lock};
use crate::metrics::Tap;
use crate::net::clock;
use crate::sight::names::TopNames;
use crate::wire::{Rcode, RecordType};

/// The names of a server: the way of the workers, and the count.
#[derive(Debug)]
pub(super) struct NamesTap {
    pub(super) exchange: Arc<Exchange>,
    names: Arc<Mutex<TopNames>>,
    /// Whose questions are counted: what a forwarder asks its own authorities is nobody's question.
    pub(super) side: Side,
}

impl NamesTap {
    /// The way from so many workers to a count.
    pub(super) fn new(side: Side, workers: usize) -> Self {
        Self { exchange: Arc::new(Exchange::new(0, workers)), names: Arc::default(), side }
    }

    /// The count.
    pub(super) fn names(&self) -> &Arc<Mutex<TopNames>> {
        &self.names
    }
}

/// A worker's part.
#[derive(Debug)]
pub(super) struct NamesAppender {
    pub(super) appender: Appender,
    side: Side,
    /// Counts the responses, as what the next one is drawn by.
    turn: u64,
}

impl NamesAppender {
    /// That of the worker of this number.
    pub(super) fn new(tap: &NamesTap, worker: usize) -> Self {
        // Workers draw differently.
        Self { appender: Appender::new(Arc::clone(&tap.exchange), worker), side: tap.side, turn: (worker as u64) << 48 }
    }

    /// Tells of a question, if it is drawn. Returns whether it had room.
    pub(super) fn append(&mut self, told: &Told<'_>) -> bool {
        if told.side != self.side {
            return true;
        }
        self.turn += 1;
        let is_drawn = mix(self.turn).is_multiple_of(TopNames::STANDS_FOR);
        let question = told.question.filter(|_| is_drawn);
        let Some((name, &[type_high, type_low, ..])) = question.and_then(<[u8]>::split_last_chunk::<QTYPE_QCLASS>)
        else {
            return true;
        };
        let rcode = told.said.map_or(Rcode::NOERROR, |(_, rcode)| rcode);
        self.appender.append(HEAD + name.len(), |out| {
            out.extend_from_slice(&rcode.0.to_be_bytes());
            out.extend_from_slice(&[type_high, type_low]);
            out.extend(name.iter().map(u8::to_ascii_lowercase));
        })
    }
}

impl Keeper for NamesTap {
    const TAP: Tap = Tap::Names;

    fn keep(&self, record: &[u8]) {
        let Some((&[high, low, type_high, type_low], name)) = record.split_first_chunk::<HEAD>() else { return };
        let rcode = Rcode(u16::from_be_bytes([high, low]));
        let qtype = RecordType(u16::from_be_bytes([type_high, type_low]));
        lock(&self.names).count(name, qtype, rcode, TopNames::minute_of(clock::unix_now()));
    }
}

/// Octets before the name: response code and type.
const HEAD: usize = 4;

/// Octets behind the name of a question.
const QTYPE_QCLASS: usize = 4;
