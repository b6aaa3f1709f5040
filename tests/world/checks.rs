//! What the checkers know: the answers that backends gave, the queries that wait, hedges and serials.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dns::{Header, Message, Rcode, RecordType, Section};
use zone::Zone;

use super::content::{self, NEGATIVE_TTL, TTL};
use super::host::HostId;
use super::network::ProcessId;

/// The content of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// An address, as its version.
    Address(u32),
    NoName,
    Failed(u16),
}

/// A full hedge budget, in millionths of a hedge.
pub(crate) const FULL_BUDGET: i64 = 10_000_000;

/// The part of a hedge that a good reply adds, as the config has it.
const EARNED: i64 = 50_000;

/// How long an answer may be used after its TTL, as the config has it.
pub(crate) const STALE: Duration = Duration::from_secs(6);

/// A query of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) name: usize,
    /// Copies that a forwarder has read, and those with a response.
    pub(crate) read: u32,
    pub(crate) responses: u32,
    /// The processes that have read a copy and not responded yet.
    held_by: BTreeMap<(HostId, ProcessId), u32>,
    /// Copies that ended with the process that had read them.
    pub(crate) excused: u32,
    pub(crate) answer: Option<Answer>,
}

impl Asked {
    pub(crate) fn new(name: usize) -> Self {
        Self { name, ..Self::default() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// The last time at which a forwarder read an answer of a backend.
    heard: BTreeMap<(HostId, usize, Answer), Instant>,
    /// The longest time that a process may be stopped.
    pub(crate) longest_stop: Duration,
    pub(crate) queries: BTreeMap<usize, Asked>,
    /// The most that the hedge budget of each process holds.
    budgets: BTreeMap<(HostId, ProcessId), i64>,
    served: BTreeMap<HostId, u32>,
    /// True if some answers do not fit a datagram.
    pub(crate) may_truncate: bool,
}

impl Truth {
    /// Notes the response of an authority.
    pub(crate) fn authority_said(&mut self, host: HostId, zone: Option<&Zone>) {
        if let Some(zone) = zone {
            let highest = self.served.entry(host).or_insert(0);
            assert!(zone.serial() >= *highest, "host {host} went back from version {highest} to {}", zone.serial());
            *highest = zone.serial();
        }
    }

    /// Notes a reply that a forwarder has read.
    pub(crate) fn heard(&mut self, host: HostId, reply: &[u8], now: Instant) {
        let is_truncated = Header::read(reply).is_some_and(Header::is_truncated);
        if let Some((name, answer, ttl)) = read(reply).filter(|_| !is_truncated) {
            let whole = match answer {
                Answer::Address(_) => TTL,
                Answer::NoName => NEGATIVE_TTL,
                Answer::Failed(_) => 0,
            };
            assert_eq!(ttl, whole, "the TTL of an authority's answer {answer:?}");
            self.heard.insert((host, name, answer), now);
        }
    }

    /// Allows a host to begin again with an older version, since its disk could not save the newest one.
    pub(crate) fn lost_versions(&mut self, host: HostId) {
        self.served.remove(&host);
    }

    pub(crate) fn query_read(&mut self, client: usize, by: (HostId, ProcessId)) {
        let asked = self.queries.get_mut(&client).expect("a client that has asked");
        asked.read += 1;
        *asked.held_by.entry(by).or_default() += 1;
    }

    /// Checks the response that a process sends to a client.
    pub(crate) fn responded(
        &mut self,
        client: usize,
        by: (HostId, ProcessId),
        count: u32,
        message: &[u8],
        now: Instant,
    ) {
        let asked = self.queries.get_mut(&client).expect("a client that has asked");
        asked.responses += count;
        let held = asked.held_by.get_mut(&by).filter(|held| **held >= count);
        *held.expect("a response to a query that was read") -= count;
        let reply = dns::read_reply(message).expect("it was read");
        let header = reply.header();
        let form = (header.id(), header.recursion_desired(), header.checking_disabled(), reply.edns().is_some());
        assert_eq!(form, (client as u16, true, false, true), "ID, RD, CD and OPT are those of the query");
        assert!(self.may_truncate || !header.is_truncated(), "a response is truncated");
        if header.is_truncated() {
            return;
        }
        let (name, answer, ttl) =
            read(message).unwrap_or_else(|| panic!("a response that answers nothing: {message:?}"));
        assert_eq!(name, asked.name, "the answer to another question");
        asked.answer = Some(answer);
        let errors: Vec<u16> = reply.extended_errors().map(|error| error.0).collect();
        if !matches!(answer, Answer::Address(_)) && errors.iter().any(|code| MADE_UP.contains(code)) {
            return;
        }
        let is_stale = errors.iter().any(|code| STALE_CODES.contains(code));
        let heard = self.heard.get(&(by.0, name, answer));
        let heard = heard.unwrap_or_else(|| panic!("no backend gave {answer:?} for n{name}: {errors:?}"));
        let lifetime = match answer {
            Answer::Address(_) => Duration::from_secs(TTL.into()),
            Answer::NoName => Duration::from_secs(NEGATIVE_TTL.into()),
            // RFC 9520 section 3.2: failures are kept for a short time.
            Answer::Failed(_) => Duration::from_secs(5),
        };
        let slack = RACE + self.longest_stop;
        let age = now.saturating_duration_since(*heard);
        let most = lifetime + if is_stale { STALE } else { Duration::ZERO } + slack;
        assert!(age <= most, "{answer:?} for n{name} is {age:?} old, stale: {is_stale}");
        let left = lifetime.saturating_sub(age) + slack + Duration::from_secs(1);
        assert!(
            is_stale || matches!(answer, Answer::Failed(_)) || Duration::from_secs(ttl.into()) <= left,
            "{answer:?} for n{name} has TTL {ttl} after {age:?}"
        );
    }

    pub(crate) fn process_ended(&mut self, process: (HostId, ProcessId)) {
        for asked in self.queries.values_mut() {
            asked.excused += asked.held_by.remove(&process).unwrap_or(0);
        }
    }

    /// Notes the level with which the hedge budget of a process begins.
    pub(crate) fn budget_begins(&mut self, by: (HostId, ProcessId), level: i64) {
        self.budgets.insert(by, level);
    }

    /// Counts a reply that may pay for a part of a hedge.
    pub(crate) fn earned(&mut self, by: (HostId, ProcessId)) {
        let budget = self.budgets.entry(by).or_insert(FULL_BUDGET);
        *budget = (*budget + EARNED).min(FULL_BUDGET);
    }

    /// Counts a hedge, after which the budget of its process has this level.
    pub(crate) fn hedged(&mut self, by: (HostId, ProcessId), level: i64) {
        let budget = self.budgets.entry(by).or_insert(FULL_BUDGET);
        *budget -= 1_000_000;
        assert!((0..=*budget).contains(&level), "host {}: a hedge leaves {level} of {budget}", by.0);
    }
}

/// Reads the number of the name, the answer and its TTL.
pub(crate) fn read(response: &[u8]) -> Option<(usize, Answer, u32)> {
    let message = Message::read(response).ok()?;
    let qname = message.question?.qname();
    let label = std::str::from_utf8(qname.get(2..1 + usize::from(*qname.first()?))?).ok()?;
    let name = label.parse().ok()?;
    let rcode = message.header.rcode();
    let mut records = message.records().map_while(Result::ok);
    if rcode == Rcode::NOERROR {
        let record = records.find(|record| record.section == Section::Answer && record.rtype == RecordType::A)?;
        let [_, high, low, number] = <[u8; 4]>::try_from(&*record.rdata).ok()?;
        assert_eq!(usize::from(number), name, "the address of another name");
        return Some((name, Answer::Address(u32::from_be_bytes([0, 0, high, low])), record.ttl));
    }
    if rcode == Rcode::NXDOMAIN {
        let ttl = records.find(|record| record.rtype == RecordType::SOA).map_or(0, |record| record.ttl);
        return Some((name, Answer::NoName, ttl));
    }
    Some((name, Answer::Failed(rcode.0), 0))
}

/// Returns the answer of a version.
pub(crate) fn right_answer(version: u32, name: usize) -> Answer {
    content::changed_at(version, name).map_or(Answer::NoName, Answer::Address)
}

/// The extended errors of responses that hedgerow makes up: No Reachable Authority, Network Error, and its
/// own code for a timeout.
const MADE_UP: &[u16] = &[22, 23, 29, 14, 0];

/// Stale Answer and Stale NXDOMAIN (RFC 8914 section 4.4 and section 4.20).
const STALE_CODES: &[u16] = &[3, 19];

/// The time for which a race may keep a reply.
const RACE: Duration = Duration::from_millis(1600);
