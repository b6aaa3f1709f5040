//! The queries that one worker has in flight: races in a slab, found by question, each with the clients that wait for it.

use std::net::SocketAddr;
use std::time::Instant;

use hashbrown::HashTable;

use crate::metrics::Transport;
use crate::net::batch::LocalAddress;
use crate::net::exchange::TicketKey;
use crate::net::tcp::Responder;
use crate::policy::race::{AttemptId, MAX_ATTEMPTS, Race};
use crate::wire::{self, ClientForm};

/// Who asked, and the way back.
#[derive(Clone, Debug)]
pub enum Client {
    /// By a datagram.
    Udp {
        /// The listener's number; all workers have the same listeners in the same order.
        listener: u16,
        /// The client's address.
        peer: SocketAddr,
        /// The address that it asked, on a wildcard listener.
        local: Option<LocalAddress>,
    },
    /// By a connection.
    Tcp(Responder),
}

impl Client {
    /// How it asked.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Udp { .. } => Transport::Udp,
            Self::Tcp(_) => Transport::Tcp,
        }
    }

    /// Whether two datagrams came from one socket to one of our addresses. By TCP nothing is sent twice.
    pub(super) fn is_same_socket(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Udp { listener, peer, local }, Self::Udp { listener: to, peer: from, local: at }) => {
                (listener, peer, local) == (to, from, at)
            }
            (Self::Udp { .. } | Self::Tcp(_), Self::Tcp(_)) | (Self::Tcp(_), Self::Udp { .. }) => false,
        }
    }
}

/// A client that waits for a race.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    /// Who it is.
    pub(super) client: Client,
    /// In which form it wants its response.
    pub(super) form: ClientForm,
    /// How many queries the response answers: 1, and one for each retransmission.
    pub(super) queries: u32,
    /// When the first of them came.
    pub(super) since: Instant,
}

/// A race's place, and which of the races that have had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RaceRef {
    /// Index in the slab.
    index: u32,
    /// Counts the races at that index.
    generation: u32,
}

/// One query in flight.
pub(super) struct Entry {
    /// Who is asked, and who wins.
    pub(super) race: Race,
    /// The worker's number of its pool.
    pub(super) pool: u16,
    /// The hash of its question.
    pub(super) hash: u64,
    /// Whether this worker holds the claim for that hash.
    pub(super) is_claimed: bool,
    /// RD, CD and DO, as the question's key has them.
    pub(super) flags: u8,
    /// Whether it was started to refresh an answer that is still good, and not for a client.
    pub(super) is_refresh: bool,
    /// Whether those who wait may be given a stale answer.
    pub(super) stale: StaleAnswer,
    /// The query as it goes to backends.
    pub(super) query: Vec<u8>,
    /// Where the OPT record starts in it; its end if there is none.
    pub(super) opt_at: usize,
    /// The best reply that was not accepted.
    pub(super) kept: Vec<u8>,
    /// What waits in the exchange, by attempt.
    pub(super) tickets: [Option<TicketKey>; MAX_ATTEMPTS],
    /// The clients. The first is nearly always the only one.
    pub(super) waiters: Vec<Waiter>,
    /// When it started.
    pub(super) started: Instant,
    /// The time for which a timer is set.
    pub(super) armed: Option<Instant>,
    /// The race is over; the whole answer is being fetched by TCP for those who wait still.
    pub(super) is_fetching: bool,
}

/// Whether the clients of a race may be given an answer whose time to live is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaleAnswer {
    /// There is none.
    Unknown,
    /// There is one, and they get it at this time.
    At(Instant),
    /// They had it: who comes now gets it at once.
    Given,
}

impl StaleAnswer {
    /// When it is to be given.
    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Self::At(at) => Some(at),
            Self::Unknown | Self::Given => None,
        }
    }
}

impl Entry {
    /// Name, type and class as asked.
    pub(super) fn question(&self) -> &[u8] {
        let end = self.opt_at.min(self.query.len());
        self.query.get(wire::HEADER_LEN..end).unwrap_or_default()
    }

    /// Remembers what an attempt waits with.
    pub(super) fn set_ticket(&mut self, attempt: AttemptId, key: TicketKey) {
        self.tickets[usize::from(attempt.0)] = Some(key);
    }
}

/// What a new race starts with.
pub(super) struct Start {
    /// The race.
    pub(super) race: Race,
    /// The worker's number of its pool.
    pub(super) pool: u16,
    /// The hash of its question.
    pub(super) hash: u64,
    /// Whether this worker holds the claim for that hash.
    pub(super) is_claimed: bool,
    /// RD, CD and DO.
    pub(super) flags: u8,
    /// Now.
    pub(super) started: Instant,
    /// Who waits for it; `None`: it is to refresh an answer.
    pub(super) waiter: Option<Waiter>,
    /// Whether those who wait may be given a stale answer.
    pub(super) stale: StaleAnswer,
}

/// The queries in flight of one worker.
pub(super) struct InFlight {
    /// Places; those that are free keep their buffers for the next.
    slots: Vec<Slot>,
    /// Free places.
    free: Vec<u32>,
    /// Places by the hash of their question.
    by_question: HashTable<u32>,
}

/// A place in the slab.
struct Slot {
    /// Counts the races that had this place.
    generation: u32,
    /// Whether one has it now.
    is_used: bool,
    /// The present race, or what is left of the last.
    entry: Entry,
}

impl InFlight {
    /// Room for some, before anything has to grow.
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::with_capacity(WARM),
            free: Vec::with_capacity(WARM),
            by_question: HashTable::with_capacity(WARM),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The race for a question: its folded wire form, and its flags.
    pub(super) fn find(&self, hash: u64, question: &[u8], flags: u8) -> Option<RaceRef> {
        let is_equal = |index: &u32| {
            let entry = &self.slots[*index as usize].entry;
            entry.hash == hash && entry.flags == flags && wire::eq_ignore_case(entry.question(), question)
        };
        let index = *self.by_question.find(hash, is_equal)?;
        Some(RaceRef { index, generation: self.slots[index as usize].generation })
    }

    /// Adds a race; `write_query` writes the query for backends and returns where its OPT starts.
    pub(super) fn insert(&mut self, start: Start, write_query: impl FnOnce(&mut Vec<u8>) -> usize) -> RaceRef {
        let Start { race, pool, hash, is_claimed, flags, started, waiter, stale } = start;
        let is_refresh = waiter.is_none();
        let index = match self.free.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                slot.is_used = true;
                let entry = &mut slot.entry;
                // The buffers stay; everything else is new.
                (entry.race, entry.pool, entry.hash, entry.flags) = (race, pool, hash, flags);
                (entry.is_claimed, entry.armed, entry.is_fetching) = (is_claimed, None, false);
                (entry.is_refresh, entry.stale) = (is_refresh, stale);
                entry.tickets = [None; MAX_ATTEMPTS];
                entry.started = started;
                index
            }
            None => {
                let entry = Entry {
                    race,
                    pool,
                    hash,
                    is_claimed,
                    flags,
                    is_refresh,
                    stale,
                    query: Vec::new(),
                    opt_at: 0,
                    kept: Vec::new(),
                    tickets: [None; MAX_ATTEMPTS],
                    waiters: Vec::with_capacity(1),
                    started,
                    armed: None,
                    is_fetching: false,
                };
                self.slots.push(Slot { generation: 0, is_used: true, entry });
                self.slots.len() as u32 - 1
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.entry.opt_at = write_query(&mut slot.entry.query);
        slot.entry.waiters.extend(waiter);
        let generation = slot.generation;
        let slots = &self.slots;
        self.by_question.insert_unique(hash, index, |index| slots[*index as usize].entry.hash);
        RaceRef { index, generation }
    }

    /// The race at `at`, unless it is over.
    pub(super) fn get(&self, at: RaceRef) -> Option<&Entry> {
        let slot = self.slots.get(at.index as usize)?;
        (slot.is_used && slot.generation == at.generation).then_some(&slot.entry)
    }

    /// The race at `at`, unless it is over.
    pub(super) fn get_mut(&mut self, at: RaceRef) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(at.index as usize)?;
        (slot.is_used && slot.generation == at.generation).then_some(&mut slot.entry)
    }

    /// Ends a race. Its place is free, and its question may be raced anew.
    pub(super) fn remove(&mut self, at: RaceRef) {
        let Some(slot) = self.slots.get_mut(at.index as usize) else { return };
        if !slot.is_used || slot.generation != at.generation {
            return;
        }
        slot.is_used = false;
        slot.generation = slot.generation.wrapping_add(1);
        let entry = &mut slot.entry;
        entry.waiters.clear();
        entry.waiters.shrink_to(WAITERS_KEPT);
        for buffer in [&mut entry.query, &mut entry.kept] {
            buffer.clear();
            buffer.shrink_to(OCTETS_KEPT);
        }
        if let Ok(place) = self.by_question.find_entry(entry.hash, |index| *index == at.index) {
            place.remove();
        }
        self.free.push(at.index);
    }
}

/// Queries in flight for which there is room at once.
const WARM: usize = 1024;

/// Waiters for which a free place keeps room; one that many clients had joined gives the rest back.
const WAITERS_KEPT: usize = 8;

/// Octets of each buffer that a free place keeps: enough for nearly all queries and most replies.
const OCTETS_KEPT: usize = 512;
