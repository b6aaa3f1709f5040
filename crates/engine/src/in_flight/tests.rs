//! Tests of the memory of queries in flight, and of entries with and without spills.

use std::time::{Duration, Instant};

use config::PoolRules;
use dns::{ClientForm, QuestionFlags, QuestionKey, read_query, read_reply, write_query};
use hedge::budget::Budget;
use hedge::race::{AttemptId, BackendIndex, Candidates, MAX_ATTEMPTS, RaceContext};
use limit::{ClientPlace, ZonePlaces};

use super::super::Outstanding;
use super::super::entry::{StaleAnswer, WARM_SPILLS, Waiter};
use super::super::pool::PlanNumber;
use super::super::pools::PoolSlot;
use super::super::slots::place_size;
use super::*;
use crate::Race;
use crate::client::TestClient;
use crate::query_slots::{QuerySlot, SocketId};

/// A name of `labels` labels of four bytes each, in this case.
fn name(label: &[u8; 3], labels: usize) -> Vec<u8> {
    let label = [&[3], &label[..]].concat();
    [label.repeat(labels), vec![0]].concat()
}

/// A query with EDNS for the address of a name.
fn query(id: u8, name: &[u8]) -> Vec<u8> {
    let header = [0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    [&header, name, &[0, 1, 0, 1], &[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]].concat()
}

fn clients() -> Arc<Clients> {
    Arc::new(Clients::new(16, 1))
}

/// A client with this port, whose query this is.
fn waiter(port: u16, query: &[u8], since: Instant) -> Waiter<TestClient> {
    let form = ClientForm::of(&read_query(query).expect("a query"));
    let client = TestClient::new(port);
    Waiter { client, form, cookie: None, subnet: None, queries: 1, since, place: ClientPlace::UNCOUNTED }
}

/// Puts a query in flight, for its client.
fn insert(in_flight: &mut InFlight<TestClient>, message: &[u8], now: Instant) -> RaceRef {
    let (rules, budget) = (PoolRules::default(), Budget::new(1.0));
    let context = RaceContext { rules: &rules.race, latency: &[], loads: &[], by_stream: &[], budget: &budget };
    let race = Race::start(&context, &Candidates::of([BackendIndex(0)], false), rules.accept.lowest(), now);
    let read = read_query(message).expect("a query");
    let waiter = Some(waiter(1, message, now));
    let start = Start {
        race,
        pool: PoolSlot::default(),
        plan: PlanNumber::default(),
        hash: 1,
        is_claimed: false,
        is_alone: false,
        flags: QuestionFlags::of_octet(1),
        waiter,
        subnet: None,
        zones: ZonePlaces::NONE,
        stale: StaleAnswer::Unknown,
    };
    in_flight.insert(start, |out| write_query(&read, 1232, out))
}

/// Tables and timers grow by an eighth when they are full. A table is full if seven eighths of it are used.
#[test]
fn queries_in_flight_take_less_than_354_octets_each() {
    let tables = size_of::<Option<(NonZeroU32, Outstanding)>>() + size_of::<Option<(NonZeroU32, u32)>>();
    // A timer is a time in nanoseconds and the key.
    let octets = (tables * 8 / 7 + size_of::<(u64, RaceRef)>()) * 9 / 8;
    let place = place_size::<RaceEntry<TestClient>>();
    assert!(place + octets < 354, "a place has {place}, and tables take {octets}");
}

#[test]
fn queries_are_found_and_written_whether_they_are_short_or_long() {
    let now = Instant::now();
    for labels in [0, 1, 9, 10, 11, 60] {
        let mut in_flight = InFlight::new(clients());
        let message = query(7, &name(b"wWw", labels));
        let at = insert(&mut in_flight, &message, now);
        let read = read_query(&message).expect("a query");
        let key = QuestionKey::of(&read);
        let (octet, question) = key.as_octets().split_last().expect("a question");
        let flags = QuestionFlags::of_octet(*octet);
        let asked = |flags| HashedQuestion { octets: question, flags, hash: 1 };
        assert_eq!(in_flight.find(PoolSlot::default(), &asked(flags), None), Some(at), "{labels} labels");
        assert_eq!(in_flight.find(PoolSlot::default(), &asked(QuestionFlags::of_octet(octet ^ 1)), None), None);
        let entry = in_flight.get(at).expect("it is in flight");
        assert_eq!(entry.question(), read.question.as_wire());
        assert_eq!(QuestionKey::of_parts(entry.question(), entry.query.flags), Some(key.clone()));
        let (mut expected, mut written) = (Vec::new(), Vec::new());
        let opt_at = write_query(&read, 1232, &mut expected);
        assert_eq!((entry.write_query(true, 1232, &mut written), &written), (opt_at, &expected));
        dns::write_without_opt(&written.clone(), opt_at, &mut expected);
        written.clear();
        entry.write_query(false, 1232, &mut written);
        assert_eq!(written, expected);
        in_flight.remove(at);
        assert_eq!((in_flight.find(PoolSlot::default(), &asked(flags), None), in_flight.len()), (None, 0));
    }
}

#[test]
fn each_client_has_its_own_form() {
    let (now, later) = (Instant::now(), Instant::now() + Duration::from_millis(5));
    for labels in [1, 60] {
        let mut in_flight = InFlight::new(clients());
        let spelled = [b"www", b"WWW", b"wWw"].map(|label| query(7, &name(label, labels)));
        let at = insert(&mut in_flight, &spelled[0], now);
        let (entry, spills) = in_flight.lend(at).expect("it is in flight");
        entry.add_waiter(waiter(2, &spelled[1], later), spills);
        // The first and the second client retransmit in another spelling; a third client or another ID is a
        // new query.
        for (port, form, expected) in [(1, 2, true), (2, 2, true), (3, 0, false)] {
            let again = waiter(port, &spelled[form], later);
            assert_eq!(entry.count_again(&again.client, &again.form), expected);
        }
        let other = waiter(1, &query(8, &name(b"www", labels)), later);
        assert!(!entry.count_again(&other.client, &other.form));
        let seen: Vec<_> = entry.waiters().map(|waiter| (waiter.form, waiter.queries)).collect();
        let form = waiter(1, &spelled[2], now).form;
        assert_eq!(seen, [(form, 2), (form, 2)]);
        assert!(entry.waiters().zip([now, later]).all(|(waiter, since)| waiter.since >= since));
        // A client that arrives when no other waits is the first.
        let (clients, now_far) = (clients(), now + Duration::from_millis(1));
        entry.retain_waiters(&clients, |waiter| waiter.since > now_far);
        assert_eq!((entry.waiters().count(), entry.has_waiters()), (1, true));
        entry.retain_waiters(&clients, |_| false);
        assert!(!entry.has_waiters());
        entry.add_waiter(waiter(9, &spelled[0], later), spills);
        assert_eq!(entry.waiters().next().map(|waiter| waiter.form), Some(waiter(9, &spelled[0], later).form));
    }
}

#[test]
fn a_race_holds_one_place_after_a_stale_answer() {
    let (clients, now) = (clients(), Instant::now());
    let mut in_flight = InFlight::new(Arc::clone(&clients));
    let at = insert(&mut in_flight, &query(1, &name(b"www", 1)), now);
    let (entry, spills) = in_flight.lend(at).expect("it is in flight");
    // The client of `insert` is not counted until here.
    let place = clients.wait_regardless(ZonePlaces::NONE);
    assert_eq!(place, ClientPlace::UNCOUNTED);
    for port in [2, 3] {
        let place = clients.wait_regardless(ZonePlaces::NONE);
        entry.add_waiter(Waiter { place, ..waiter(port, &query(1, &name(b"www", 1)), now) }, spills);
    }
    assert_eq!(clients.waiting(), 3);
    for _ in 0..2 {
        entry.retain_without_stale(&clients, spills, |_| false);
        assert_eq!((entry.has_waiters(), clients.waiting()), (false, 1));
    }
    // A client that comes later, and gets the answer at once, has its own place back.
    let place = clients.wait_regardless(ZonePlaces::NONE);
    entry.add_waiter(Waiter { place, ..waiter(4, &query(1, &name(b"www", 1)), now) }, spills);
    entry.retain_without_stale(&clients, spills, |_| false);
    assert_eq!(clients.waiting(), 1);
    in_flight.remove(at);
    assert_eq!(clients.waiting(), 0);
}

#[test]
fn query_slots_of_all_attempts_are_held() {
    let mut in_flight = InFlight::new(clients());
    let at = insert(&mut in_flight, &query(1, &name(b"www", 1)), Instant::now());
    let slots: Vec<_> = (0..MAX_ATTEMPTS as u8)
        .filter_map(|number| Some((AttemptId(number), QuerySlot::new(SocketId(number.into()), 1)?)))
        .collect();
    let (entry, spills) = in_flight.lend(at).expect("it is in flight");
    for (attempt, slot) in &slots {
        entry.set_query_slot(*attempt, Some(*slot), spills);
    }
    for gone in [0, 7] {
        entry.set_query_slot(AttemptId(gone), None, spills);
    }
    assert_eq!(entry.take_query_slots().collect::<Vec<_>>(), slots[1..7]);
    assert_eq!(entry.take_query_slots().count(), 0);
}

#[test]
fn what_was_spilled_serves_the_next() {
    let (now, mut in_flight) = (Instant::now(), InFlight::new(clients()));
    for _ in 0..2 {
        let at = insert(&mut in_flight, &query(1, &name(b"www", 1)), now);
        assert!(in_flight.get(at).is_some_and(|entry| entry.kept().is_empty()));
        let (entry, spills) = in_flight.lend(at).expect("it is in flight");
        assert!(entry.kept().is_empty() && entry.waiters().count() == 1);
        let octets = [0, 0, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        entry.keep(&read_reply(&octets).expect("a bare failure"), spills);
        let kept = entry.take_kept();
        assert_eq!(kept, octets);
        entry.put_back_kept(kept);
        in_flight.remove(at);
        assert!(in_flight.get(at).is_none());
        assert_eq!(in_flight.spills.len(), WARM_SPILLS);
    }
}
