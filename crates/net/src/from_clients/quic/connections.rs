//! The QUIC connections of one worker: their numbers, their alarms, and the lists of those with work.
//!
//! A connection is in a slot. Its number has the slot in its low half and the generation of the slot above,
//! so that a late message finds no other connection.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::task::{Context, Poll};
use std::time::Instant;

use limit::TableFullness;
use quinn_proto::ConnectionHandle;

use super::connection::QuicServerConnection;
use super::streams::{ConnectionClose, QuicStreams};

#[derive(Default)]
pub(super) struct QuicConnections {
    slots: Vec<QuicSlot>,
    /// The slots by the handle of the endpoint.
    by_handle: Vec<u32>,
    free: Vec<u32>,
    pub(super) shaking: usize,
    lingering: usize,
    alarms: BTreeSet<(Instant, u32)>,
    pub(super) working: VecDeque<u32>,
    pub(super) sending: VecDeque<u32>,
    with_parts: Vec<u32>,
}

#[derive(Default)]
struct QuicSlot {
    generation: u32,
    connection: Option<Box<QuicServerConnection>>,
}

impl QuicConnections {
    pub(super) fn all(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.slots.len() as u32
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut QuicServerConnection> {
        self.slots.get_mut(slot as usize)?.connection.as_deref_mut()
    }

    pub(super) fn find(&mut self, number: u64) -> Option<(u32, &mut QuicServerConnection)> {
        let slot = number as u32;
        let place = self.slots.get_mut(slot as usize).filter(|place| place.generation == (number >> 32) as u32)?;
        place.connection.as_deref_mut().map(|connection| (slot, connection))
    }

    /// Returns the connection of a handle, and its number.
    pub(super) fn of_handle(&mut self, handle: ConnectionHandle) -> Option<(u64, &mut QuicServerConnection)> {
        let slot = *self.by_handle.get(handle.0)?;
        let place = self.slots.get_mut(slot as usize)?;
        let number = number(place.generation, slot);
        place.connection.as_deref_mut().map(|connection| (number, connection))
    }

    /// Returns the number of the connection that is inserted next.
    pub(super) fn next_number(&self) -> u64 {
        let slot = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(slot as usize).map_or(0, |slot| slot.generation).wrapping_add(1);
        number(generation, slot)
    }

    pub(super) fn insert(&mut self, number: u64, connection: QuicServerConnection) {
        let (slot, handle) = (number as u32, connection.handle.0);
        if self.free.pop().is_none() {
            self.slots.push(QuicSlot::default());
        }
        self.slots[slot as usize] =
            QuicSlot { generation: (number >> 32) as u32, connection: Some(Box::new(connection)) };
        if self.by_handle.len() <= handle {
            self.by_handle.resize(handle + 1, u32::MAX);
        }
        self.by_handle[handle] = slot;
        self.shaking += 1;
        self.list_working(slot);
    }

    /// Counts a connection that has worked or was closed.
    pub(super) fn count(&mut self, slot: u32) {
        let Some(connection) = self.slots[slot as usize].connection.as_mut() else { return };
        if connection.open.is_none() && !mem::replace(&mut connection.is_lingering, true) {
            self.lingering += 1;
        }
        if connection.is_shaking && !(connection.open.is_some() && connection.quic.is_handshaking()) {
            connection.is_shaking = false;
            self.shaking -= 1;
        }
        if connection.open.as_ref().is_some_and(QuicStreams::has_parts) && !self.with_parts.contains(&slot) {
            self.with_parts.push(slot);
        }
    }

    pub(super) fn close(&mut self, slot: u32, closed: ConnectionClose, now: Instant) {
        let Some(connection) = self.get_mut(slot) else { return };
        connection.close(closed, now);
        self.count(slot);
        self.list_working(slot);
        self.list_sending(slot);
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let Some(connection) = self.get_mut(slot) else { return };
        // The drain alone may have freed its place.
        connection.open = None;
        let alarm = connection.alarm;
        self.count(slot);
        self.lingering -= 1;
        if let Some(at) = alarm {
            self.alarms.remove(&(at, slot));
        }
        self.slots[slot as usize].connection = None;
        self.free.push(slot);
    }

    /// Returns true if a connection is over, and more of those stay than the limit.
    pub(super) fn is_surplus(&mut self, slot: u32) -> bool {
        self.lingering > MAX_LINGERING && self.get_mut(slot).is_some_and(|connection| connection.open.is_none())
    }

    pub(super) fn has_none_open(&self) -> bool {
        !self.slots.iter().flat_map(|slot| &slot.connection).any(|connection| connection.open.is_some())
    }

    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Takes the next connection whose alarm is due.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<(u32, &mut QuicServerConnection)> {
        let &(_, slot) = self.alarms.first().filter(|(at, _)| *at <= now)?;
        self.alarms.pop_first();
        let connection = self.get_mut(slot)?;
        connection.alarm = None;
        Some((slot, connection))
    }

    pub(super) fn set_all_alarms(&mut self, pressure: TableFullness) {
        self.all().for_each(|slot| self.set_alarm(slot, pressure));
    }

    pub(super) fn set_alarm(&mut self, slot: u32, pressure: TableFullness) {
        let Some(connection) = self.slots[slot as usize].connection.as_mut() else { return };
        let Some(due) = connection.due(pressure) else { return };
        match connection.alarm {
            // An early alarm is harmless: it only finds the next time.
            Some(at) if at <= due => return,
            Some(at) => drop(self.alarms.remove(&(at, slot))),
            None => {}
        }
        self.alarms.insert((due, slot));
        connection.alarm = Some(due);
    }

    pub(super) fn poll_parts(&mut self, scratch: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<()> {
        let mut polled = Poll::Pending;
        for slot in mem::take(&mut self.with_parts) {
            let Some(QuicServerConnection { quic, open: Some(open), .. }) = self.get_mut(slot) else { continue };
            if open.poll_parts(quic, scratch, Instant::now(), cx).is_ready() {
                polled = Poll::Ready(());
                self.list_working(slot);
            }
            self.count(slot);
        }
        polled
    }

    pub(super) fn list_working(&mut self, slot: u32) {
        if let Some(connection) = self.slots[slot as usize].connection.as_mut()
            && !mem::replace(&mut connection.has_work, true)
        {
            self.working.push_back(slot);
        }
    }

    pub(super) fn list_sending(&mut self, slot: u32) {
        if let Some(connection) = self.slots[slot as usize].connection.as_mut()
            && !mem::replace(&mut connection.is_sending, true)
        {
            self.sending.push_back(slot);
        }
    }
}

fn number(generation: u32, slot: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

/// The number of closed connections that may stay for three probe timeouts (RFC 9000 section 10.2).
const MAX_LINGERING: usize = 1024;
