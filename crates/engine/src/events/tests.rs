//! Tests of an engine with stream backends: the queries it sends, the connections it uses, and its handling
//! of replies.

mod table;

use std::time::Duration;

use dns::{Rcode, Transport};

use self::table::{Sent, Table, answer};
use crate::NotSent;
use crate::state::HealthSignal;

const TLS: &str = "backends = ['tls://192.0.2.1', 'tls://192.0.2.2']\ndispatch = 'sequential'\nbalance = 'ordered'";
const ONE: &str = "backends = ['tls://192.0.2.1']\ndispatch = 'sequential'";

fn options(query: &[u8]) -> (bool, Vec<u16>) {
    let message = hickory_proto::op::Message::from_vec(query).expect("a sound query");
    let options = message.edns.as_ref().map(|edns| edns.options().as_ref().iter().map(|(code, _)| u16::from(*code)));
    (message.edns.is_some(), options.into_iter().flatten().collect())
}

#[test]
fn encrypted_queries_have_an_opt_record_and_are_padded_whatever_the_client_sent() {
    for has_opt in [true, false] {
        let mut table = Table::new(ONE);
        table.query(0, has_opt, Transport::Udp);
        let sent = table.sent(0);
        assert_eq!((sent.query.len() % 128, options(&sent.query)), (0, (true, vec![12])));
        // Only clients that sent an OPT record get one, and only those that sent padding get padding.
        table.reply(0, Rcode::NOERROR, true);
        let reported = table.reported(0);
        assert_eq!(options(&reported), (has_opt, vec![]));
    }
}

#[test]
fn padding_can_be_left_out_and_is_for_encrypted_queries_alone() {
    let check = |config: &str, has_opt, expected: (bool, Vec<u16>)| {
        let mut table = Table::new(config);
        table.query(0, has_opt, Transport::Udp);
        assert_eq!(options(&table.sent(0).query), expected, "{config}");
    };
    check(&format!("{ONE}\n[pools.ts.connections]\npadding = false"), false, (true, vec![]));
    for plain in ["backends = ['tcp://192.0.2.1']", "backends = ['192.0.2.1']"] {
        check(plain, false, (true, vec![]));
        check(plain, true, (true, vec![]));
    }
}

#[test]
fn plain_queries_have_an_opt_record_of_which_a_client_without_sees_nothing() {
    for config in ["backends = ['192.0.2.1']", "backends = ['tcp://192.0.2.1']"] {
        for (has_opt, reported) in [(false, [true, false]), (true, [false, true])] {
            let mut table = Table::new(config);
            table.query(0, has_opt, Transport::Udp);
            table.reply(0, Rcode::NOERROR, true);
            let response = table.reported(0);
            assert_eq!([options(&response).0, response[7] == 1], [has_opt, true], "{config}");
            // Longer than 512 bytes, but not than 1232.
            table.query(1, has_opt, Transport::Udp);
            let mut reply = answer(&table.sent(1).query, Rcode::NOERROR, false);
            reply[7] = 40;
            reply.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1].repeat(39));
            table.receive(1, &reply);
            let response = table.reported(1);
            assert_eq!([response[2] & 2 != 0, response[7] == 40], reported, "{config}");
        }
        // If the backend refuses OPT, the worker asks without it from then on.
        let mut table = Table::new(config);
        table.query(0, false, Transport::Udp);
        table.reply(0, Rcode::FORMERR, false);
        assert_eq!(options(&table.sent(1).query), (false, vec![]));
        table.reply(1, Rcode::NOERROR, false);
        table.query(1, false, Transport::Udp);
        assert_eq!([options(&table.sent(2).query), options(&table.reported(0))], [(false, vec![]), (false, vec![])]);
    }
}

#[test]
fn whole_answers_are_fetched_with_an_opt_record() {
    for has_opt in [false, true] {
        let mut table = Table::new("backends = ['192.0.2.1']");
        table.query(0, has_opt, Transport::Tcp);
        let mut reply = answer(&table.sent(0).query, Rcode::NOERROR, false);
        reply[2] |= 2;
        table.receive(0, &reply);
        assert_eq!(options(&table.fetch_query()), (true, vec![]));
    }
}

#[test]
fn ad_of_a_backend_on_the_network_is_cleared() {
    for (backends, expected) in [("'192.0.2.1'", 0), ("'127.0.0.1'", 0x20), ("'tls://192.0.2.1'", 0x20)] {
        for rcode in [Rcode::NOERROR, Rcode::REFUSED] {
            // One reply that wins at once, and one that wins after it was kept.
            let mut table = Table::new(&format!(
                "backends = [{backends}, '192.0.2.9']\ndispatch = 'sequential'\nbalance = 'ordered'"
            ));
            table.query(0, true, Transport::Udp);
            let mut reply = answer(&table.sent(0).query, rcode, false);
            reply[3] |= 0x20;
            table.receive(0, &reply);
            if rcode == Rcode::REFUSED {
                table.reply(1, Rcode::REFUSED, false);
            }
            assert_eq!(table.reported(0)[3] & 0x2F, expected | rcode.0 as u8, "{backends}, {rcode}");
        }
    }
}

/// A reply of SERVFAIL with this extended error.
fn servfail(query: &[u8], code: u8) -> Vec<u8> {
    let mut servfail = answer(query, Rcode::SERVFAIL, false);
    servfail[11] = 1;
    servfail.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0, 15, 0, 2, 0, code]);
    servfail
}

#[test]
fn a_stale_answer_does_not_replace_a_decision() {
    const REPLY_COMES: Option<u8> = None;
    const SERVFAIL: Option<u8> = Some(2);
    const STALE: Option<u8> = Some(0);
    // The EDE of the first reply; then the responses sent at once, later, after the second backend has
    // answered, and to a client that asks then.
    let check = |code: u8, expected: [Option<u8>; 4]| {
        let mut table = Table::new(&format!("{TLS}\ntimeout = '5s'\n[cache]\nstale_answer_after = '100ms'"));
        table.query(0, true, Transport::Udp);
        table.reply(0, Rcode::NOERROR, false);
        table.advance(Duration::from_secs(61));
        table.ask(1, 0, true, Transport::Udp);
        let reply = servfail(&table.sent(1).query, code);
        table.receive(1, &reply);
        let at_once = table.rcode_told(1);
        // Another client asks, for which there is a stale answer too.
        if at_once.is_none() {
            table.ask(2, 0, true, Transport::Udp);
        }
        table.advance(Duration::from_millis(200));
        let later = table.rcode_told(1);
        if table.sent_count() == 3 {
            table.reply(2, Rcode::REFUSED, false);
            assert_eq!(table.rcode_told(2), table.rcode_told(1), "EDE {code}");
        }
        let last = table.rcode_told(1);
        table.ask(3, 0, true, Transport::Udp);
        assert_eq!([at_once, later, last, table.rcode_told(3)], expected, "EDE {code}");
        table.audit();
    };
    check(6, [SERVFAIL, SERVFAIL, SERVFAIL, SERVFAIL]);
    check(7, [REPLY_COMES, REPLY_COMES, SERVFAIL, SERVFAIL]);
    check(22, [REPLY_COMES, STALE, STALE, STALE]);
}

#[test]
fn a_truncated_decision_is_relayed_and_not_fetched() {
    let mut table = Table::new("backends = ['192.0.2.1']");
    table.query(0, true, Transport::Tcp);
    let mut reply = servfail(&table.sent(0).query, 6);
    reply[2] |= 2;
    table.receive(0, &reply);
    assert_eq!((table.rcode_told(0), table.fetched().len()), (Some(2), 0));
}

#[test]
fn a_decision_ends_a_race_and_a_doubtful_one_gives_way_to_a_validated_answer() {
    let check = |code: u8, second: Option<[u8; 2]>, expected: [u8; 2]| {
        let mut table = Table::new(TLS);
        table.query(0, true, Transport::Udp);
        let servfail = servfail(&table.sent(0).query, code);
        table.receive(0, &servfail);
        if let Some(flags) = second {
            let mut positive = answer(&table.sent(1).query, Rcode::NOERROR, false);
            positive[2..4].copy_from_slice(&flags);
            table.receive(1, &positive);
        }
        let reported = table.reported(0);
        assert_eq!([reported[3] & 0x0F, reported[7]], expected, "EDE {code}, then {second:?}");
        let decisions: u64 = table.backends().iter().map(|backend| backend.counters(0).decisions.get()).sum();
        assert_eq!(decisions, u64::from(code != 22), "EDE {code}, then {second:?}");
    };
    check(6, None, [2, 0]);
    check(22, Some([0x84, 0]), [0, 1]);
    check(7, Some([0x84, 0]), [2, 0]);
    // The AD flag.
    check(7, Some([0x84, 0x20]), [0, 1]);
}

#[test]
fn a_doubtful_decision_ends_a_race_in_which_no_other_backend_is_trusted_with_ad() {
    let check = |backends: [&str; 2], expected: Option<u8>| {
        let [first, second] = backends;
        let backends = format!("backends = ['{first}', '{second}']\ndispatch = 'sequential'\nbalance = 'ordered'");
        let mut table = Table::new(&backends);
        table.query(0, true, Transport::Udp);
        let doubtful = servfail(&table.sent(0).query, 7);
        table.receive(0, &doubtful);
        assert_eq!(table.rcode_told(0), expected, "{backends}");
    };
    check(["192.0.2.1", "192.0.2.9"], Some(2));
    check(["tls://192.0.2.1", "192.0.2.9"], Some(2));
    check(["192.0.2.1", "127.0.0.1"], None);
    check(["192.0.2.1", "tls://192.0.2.9"], None);
}

#[test]
fn a_doubted_race_asks_for_ad_of_which_a_client_that_did_not_ask_sees_nothing() {
    const AD: u8 = 0x20;
    for dispatch in ["sequential", "hedge"] {
        for asks in [0, AD] {
            let mut table = Table::new(&TLS.replace("sequential", dispatch));
            table.query_with(0, asks);
            assert_eq!(table.sent(0).query[3] & AD, asks, "{dispatch}");
            let doubtful = servfail(&table.sent(0).query, 7);
            table.receive(0, &doubtful);
            assert_eq!(table.sent(1).query[3] & AD, AD, "{dispatch}");
            let mut positive = answer(&table.sent(1).query, Rcode::NOERROR, false);
            positive[3] |= AD;
            table.receive(1, &positive);
            let reported = table.reported(0);
            assert_eq!([reported[3] & 0x0F, reported[3] & AD], [0, asks], "{dispatch}");
        }
    }
}

/// Counts the backend failures if a SERVFAIL with this extended error comes first or late.
fn failures(config: &str, code: u8, is_late: bool) -> u64 {
    let mut table = Table::new(&format!("backends = ['192.0.2.1', '192.0.2.9']\n{config}"));
    table.query(0, true, Transport::Udp);
    let number = usize::from(is_late);
    if is_late {
        table.reply(0, Rcode::NOERROR, false);
    }
    let servfail = servfail(&table.sent(number).query, code);
    table.receive(number, &servfail);
    table.backends().iter().map(|backend| backend.counters(0).errors.get()).sum()
}

#[test]
fn a_decision_that_is_not_believed_is_a_failure_of_its_backend() {
    for is_late in [false, true] {
        for (believes, expected) in [(true, 0), (false, 1)] {
            let config = format!("believe_ede = {believes}");
            assert_eq!(failures(&config, 6, is_late), expected, "{config}, late: {is_late}");
        }
    }
}

#[test]
fn missing_keys_and_signatures_decide_but_are_failures_of_their_backend() {
    for (code, expected) in [(6, 0), (7, 0), (8, 0), (9, 1), (10, 1), (11, 0), (12, 0), (15, 0), (22, 1)] {
        for is_late in [false, true] {
            assert_eq!(failures("", code, is_late), expected, "EDE {code}, late: {is_late}");
        }
    }
    let mut table = Table::new(TLS);
    table.query(0, true, Transport::Udp);
    let servfail = servfail(&table.sent(0).query, 9);
    table.receive(0, &servfail);
    assert_eq!((table.rcode_told(0), table.sent_count()), (Some(2), 1));
}

#[test]
fn a_late_failure_is_a_failure_of_its_backend() {
    for (rcode, expected) in [(Rcode::SERVFAIL, 1), (Rcode::NOERROR, 0)] {
        let mut table = Table::new("backends = ['192.0.2.1', '192.0.2.9']");
        table.query(0, true, Transport::Udp);
        table.reply(0, Rcode::NOERROR, false);
        assert_eq!(table.rcode_told(0), Some(0));
        table.reply(1, rcode, false);
        let errors: u64 = table.backends().iter().map(|backend| backend.counters(0).errors.get()).sum();
        assert_eq!(errors, expected, "{rcode}");
    }
}

#[test]
fn who_refuses_opt_is_asked_without() {
    let mut table = Table::new(ONE);
    table.query(0, false, Transport::Udp);
    table.reply(0, Rcode::FORMERR, false);
    assert_eq!(options(&table.sent(1).query), (false, vec![]));
    table.reply(1, Rcode::NOERROR, false);
    assert_eq!(options(&table.reported(0)), (false, vec![]));
}

#[test]
fn lost_attempts_go_elsewhere_and_charge_nobody() {
    let mut table = Table::new(TLS);
    (0..3).for_each(|number| table.query(number, true, Transport::Udp));
    assert!((0..3).all(|number| table.sent(number).set == table.sent(0).set));
    table.advance(Duration::from_millis(5));
    table.lose(table.sent(0).socket);
    let elsewhere: Vec<_> = (3..6).map(|number| table.sent(number).set).collect();
    assert!(elsewhere.iter().all(|set| *set != table.sent(0).set), "{elsewhere:?}");
    let backends = table.backends();
    let [first, second] = &backends[..] else { panic!("there are two") };
    let figures = |backend: &crate::state::SharedBackend| {
        let counters = backend.counters(0);
        let [lost, errors, in_flight, waited_for] =
            [&counters.lost_attempts, &counters.errors, &counters.pending.in_flight, &counters.pending.waited_for]
                .map(|of| of.get());
        (lost, errors, in_flight, waited_for)
    };
    assert_eq!((figures(first), figures(second)), ((3, 0, 0, 0), (0, 0, 3, 3)));
    assert_eq!(table.signals(), []);
    table.audit();
    (3..6).for_each(|number| table.reply(number, Rcode::NOERROR, false));
    assert!((0..3).all(|number| table.reported(number)[3] & 15 == 0));
}

#[test]
fn rejected_attempts_go_elsewhere_as_failures() {
    let mut table = Table::new(TLS);
    table.query(0, true, Transport::Udp);
    table.reject(table.sent(0).socket, |_| ());
    assert_eq!((table.sent_count(), table.sent(1).set), (2, table.set_of(1)));
    let figures = |table: &Table| {
        let backends = table.backends();
        let counters = backends[0].counters(0);
        (
            counters.errors.get(),
            counters.lost_attempts.get(),
            counters.pending.in_flight.get(),
            counters.pending.waited_for.get(),
        )
    };
    assert_eq!(figures(&table), (1, 0, 0, 0));
    // No backend is left: the client gets its response at once.
    table.reject(table.sent(1).socket, |_| ());
    assert_eq!((table.reported(0)[3] & 15, table.sent_count()), (2, 2), "SERVFAIL");
    assert_eq!(table.signals(), []);
    table.audit();
}

#[test]
fn rejected_attempts_are_counted_though_their_race_ends_in_the_same_tick() {
    let mut table = Table::new("backends = ['tls://192.0.2.1', 'tls://192.0.2.2']");
    (0..2).for_each(|number| table.query(number, true, Transport::Udp));
    let (set, socket) = (table.sent(0).set, table.sent(0).socket);
    let others: Vec<_> = (0..4).filter(|number| table.sent(*number).set != set).collect();
    assert_eq!(others.len(), 2);
    table.reject(socket, |table| table.reply(others[0], Rcode::NOERROR, false));
    table.reply(others[1], Rcode::NOERROR, false);
    assert!((0..2).all(|number| table.reported(number)[3] & 15 == 0));
    table.audit();
}

#[test]
fn the_only_backend_is_asked_again_by_another_connection() {
    let mut table = Table::new(ONE);
    table.query(0, true, Transport::Udp);
    table.lose(table.sent(0).socket);
    assert_ne!(table.sent(1).socket, table.sent(0).socket);
    table.reply(1, Rcode::NOERROR, false);
    assert_eq!(table.reported(0)[3] & 15, 0);
}

#[test]
fn what_waited_on_a_connection_after_its_race_is_only_forgotten() {
    let config = "backends = ['tls://192.0.2.1', 'tls://192.0.2.2']";
    let mut table = Table::new(config);
    table.query(0, true, Transport::Udp);
    table.reply(1, Rcode::NOERROR, false);
    let reported = table.reported(0);
    table.lose(table.sent(0).socket);
    assert_eq!(table.sent_count(), 2);
    let slow = table.backends().into_iter().find(|backend| backend.counters(0).wins[0].get() == 0);
    let counters = slow.as_ref().expect("one of two has not won").counters(0);
    assert_eq!((counters.lost_attempts.get(), counters.pending.in_flight.get(), counters.errors.get()), (0, 0, 0));
    assert_eq!(table.reported(0), reported);
    table.audit();
}

#[test]
fn a_refused_connection_brings_a_probe_forward() {
    let mut table = Table::new(TLS);
    table.query(0, true, Transport::Udp);
    table.fail(table.sent(0).socket, true);
    assert_eq!(table.signals(), [HealthSignal::Unreachable]);
    assert_ne!(table.sent(1).set, table.sent(0).set);
    let mut table = Table::new(TLS);
    table.query(0, true, Transport::Udp);
    table.fail(table.sent(0).socket, false);
    assert_eq!((table.signals(), table.sent_count()), (vec![], 2));
}

#[test]
fn where_no_connection_has_room_the_next_backend_is_asked() {
    let mut table = Table::new(TLS);
    table.refuse(0, NotSent::Full);
    table.query(0, true, Transport::Udp);
    assert_eq!(table.sent(0).set, table.set_of(1));
    table.reply(0, Rcode::NOERROR, false);
    // No response is made up, because no backend was asked.
    table.refuse(1, NotSent::Full);
    table.query(1, true, Transport::Udp);
    assert_eq!(table.reported(1)[3] & 15, 2, "SERVFAIL");
    let unsent = table.backends()[0].counters(0).unsent[metrics::Want::Connections as usize].get();
    assert_eq!((unsent, table.backends()[0].counters(0).errors.get()), (2, 0));
}

#[test]
fn who_is_cold_stands_behind_and_is_connected_to() {
    for dispatch in ["sequential", "hedge"] {
        let mut table = Table::new(&TLS.replace("sequential", dispatch));
        table.cool(0, true);
        table.query(0, true, Transport::Udp);
        assert_eq!((table.sent(0).set, table.dialled()), (table.set_of(1), vec![table.set_of(0)]));
        table.cool(0, false);
        table.query(1, true, Transport::Udp);
        assert_eq!((table.sent(1).set, table.dialled().len()), (table.set_of(0), 1));
        // No backend has an open connection: the first query waits for its own.
        (0..2).for_each(|backend| table.cool(backend, true));
        table.query(2, true, Transport::Udp);
        assert_eq!(table.sent(2).set, table.set_of(0));
    }
}

#[test]
fn a_hedge_avoids_the_connection_of_the_attempt_that_is_late() {
    let hedge = "[pools.ts.hedge]\ndelay = '20ms'\nbudget = 1.0";
    let mut table = Table::new(&format!("backends = ['tls://192.0.2.1']\ndispatch = 'hedge'\n{hedge}"));
    table.query(0, true, Transport::Udp);
    assert_eq!(table.sent(0).avoid, None);
    table.advance(Duration::from_millis(21));
    let Sent { set, avoid, .. } = table.sent(1);
    assert_eq!((set, avoid), (table.sent(0).set, Some(table.sent(0).socket)));
    // UDP has no hedge to the same backend.
    let mut table = Table::new(&format!("backends = ['192.0.2.1']\ndispatch = 'hedge'\n{hedge}"));
    table.query(0, true, Transport::Udp);
    table.advance(Duration::from_millis(21));
    assert_eq!(table.sent_count(), 1);
}

/// Builds the reply to a query.
type Answer = fn(&[u8]) -> Vec<u8>;

#[test]
fn what_comes_by_stream_is_from_the_backend() {
    // Another question, a bare failure of 12 bytes, and an unreadable message: the next backend is asked.
    let answers: [Answer; 3] = [
        |query| {
            let mut other = answer(query, Rcode::NOERROR, false);
            other[13] ^= 1;
            other
        },
        |query| [&query[..2], &[0x84, 2, 0, 0, 0, 0, 0, 0, 0, 0]].concat(),
        |query| [&query[..2], &[0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat(),
    ];
    for answer in answers {
        let mut table = Table::new(TLS);
        table.query(0, true, Transport::Udp);
        let reply = answer(&table.sent(0).query);
        table.receive(0, &reply);
        assert_eq!((table.sent_count(), table.sent(1).set), (2, table.set_of(1)));
        assert_eq!(table.backends()[0].counters(0).pending.in_flight.get(), 0);
        table.receive(1, &answer(&table.sent(1).query));
        assert!(table.reported(0)[3] & 15 != 0, "no reply is pending any more");
        table.audit();
    }
}

#[test]
fn an_encrypted_backend_is_asked_by_no_other_transport() {
    let truncated = |config: &str| {
        let mut table = Table::new(config);
        table.query(0, true, Transport::Tcp);
        let mut reply = answer(&table.sent(0).query, Rcode::NOERROR, false);
        reply[2] |= 2;
        table.receive(0, &reply);
        table
    };
    let table = truncated(ONE);
    assert_eq!((table.reported(0)[2] & 2, table.fetched().len()), (2, 0));
    // A plain backend is asked by TCP; of the others, only those that allow it.
    let mixed =
        "backends = ['192.0.2.1', 'tls://192.0.2.2', 'tcp://192.0.2.3']\ndispatch = 'sequential'\nbalance = 'ordered'";
    let fetched = truncated(mixed).fetched();
    let hosts: Vec<_> = fetched.iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(hosts, ["192.0.2.1", "192.0.2.3"]);
}

#[test]
fn a_handshake_is_not_the_latency_of_a_backend() {
    let mut table = Table::new(ONE);
    for number in 0..100 {
        table.query(number, true, Transport::Udp);
        table.advance(Duration::from_millis(400));
        table.open_now(table.sent(number.into()).socket);
        table.advance(Duration::from_millis(2));
        table.reply(number.into(), Rcode::NOERROR, false);
    }
    let p99 = table.p99(0).expect("there are samples enough");
    assert!(p99 < Duration::from_millis(3), "{p99:?}");
}
