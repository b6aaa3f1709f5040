//! Replies that no honest backend sends (RFC 5452): they must change nothing that a client can see, and
//! what they would have to guess must be hard to guess.

use std::collections::HashSet;

use testkit::*;

const TRUE: &str = "192.0.2.1";
const FORGED: &str = "203.0.113.66";

/// The backend sends a forgery at once and the true reply when released. Between the two the client
/// hears nothing, and no other backend is asked, for that would mean that the forgery ended the attempt.
pub(crate) fn check(forgery: Script) {
    let backend = Backend::new(forgery.and(answer(TRUE).held()).except("fence", answer(TRUE)));
    let other = Backend::new(answer(FORGED));
    let keys = "dispatch = 'sequential'\nbalance = 'ordered'\naccept = 'any'\ntimeout = '20s'\n\
                attempt_timeout = '20s'";
    let server = Forwarder::to(&[&backend, &other], keys).start();
    let client = server.client();
    let question = query("www.example.org", A).edns(1232);
    client.send(&question);
    backend.wait_for(1);
    let fence = client.receive_only(&query("fence.example.org", A));
    assert_eq!(fence.answers(), [TRUE]);
    backend.release();
    let response = client.receive();
    assert_eq!((response.id(), response.answers()), (question.id, vec![TRUE.to_owned()]));
    assert_eq!(other.queries().len(), 0);
}

/// A forged answer, changed in one place.
fn forged(edit: impl Fn(&mut Vec<u8>) + Send + 'static) -> Script {
    answer(FORGED).edited(edit)
}

#[test]
fn wrong_id_is_ignored() {
    check(forged(|reply| reply[1] ^= 1));
}

#[test]
fn wrong_name_is_ignored() {
    check(forged(|reply| reply[13] = b'x'));
}

#[test]
fn wrong_type_is_ignored() {
    check(forged(|reply| reply[12 + 17 + 1] = AAAA as u8));
}

#[test]
fn wrong_class_is_ignored() {
    check(forged(|reply| reply[12 + 17 + 3] = CH as u8));
}

#[test]
fn longer_and_shorter_names_are_ignored() {
    for name in ["example.org", "a.www.example.org", "."] {
        check(Script::new(move |seen| {
            let question = query(name, A).id(seen.id()).to_vec();
            Some(reply_to(&question).answer(a(FORGED)).to_vec())
        }));
    }
}

#[test]
fn other_port_is_ignored() {
    check(answer(FORGED).sent_from(Source::OtherPort));
}

#[test]
fn other_address_is_ignored() {
    check(answer(FORGED).sent_from(Source::OtherAddress));
}

#[test]
fn query_is_no_reply() {
    check(forged(|reply| reply[2] &= 0x7f));
}

#[test]
fn other_opcode_is_ignored() {
    check(forged(|reply| reply[2] |= 4 << 3));
}

#[test]
fn garbage_is_ignored() {
    check(Script::new(|_| Some(vec![0xa5; 80])));
    check(forged(|reply| reply[12..].fill(0xff)));
}

#[test]
fn empty_and_short_datagrams_are_ignored() {
    check(forged(Vec::clear));
    check(forged(|reply| reply.truncate(11)));
}

#[test]
fn header_without_question_is_ignored_unless_it_is_a_failure() {
    check(Script::new(|seen| Some(header(seen.id(), QR, [0; 4]))));
    check(Script::new(|seen| {
        let answer = record("www.example.org", A, &ipv4(FORGED));
        Some([header(seen.id(), QR, [0, 1, 0, 0]), answer.to_vec()].concat())
    }));
}

#[test]
fn bare_failure_with_the_wrong_id_is_ignored() {
    check(bare_servfail().edited(|reply| reply[0] ^= 0x80));
}

#[test]
fn two_questions_are_ignored() {
    check(Script::new(|seen| {
        let question = question_of(&seen.bytes);
        Some([&header(seen.id(), QR, [2, 0, 0, 0]), question, question].concat())
    }));
}

#[test]
fn reply_cut_short_is_ignored() {
    for missing in [1, 5, 12] {
        check(reply(|reply| reply.without_opt().answer(a(FORGED))).edited(move |reply| {
            reply.truncate(reply.len() - missing);
        }));
    }
}

#[test]
fn counts_that_lie_are_ignored() {
    for count in [7, 9, 11] {
        check(forged(move |reply| reply[count] += 1));
    }
}

#[test]
fn octets_after_the_last_record_are_ignored_with_their_message() {
    check(forged(|reply| reply.push(0)));
}

#[test]
fn two_opt_records_are_ignored() {
    check(reply(|reply| reply.answer(a(FORGED)).additional(record(".", OPT, &[]))));
}

#[test]
fn opt_owned_by_a_name_is_ignored() {
    check(reply(|reply| reply.without_opt().answer(a(FORGED)).additional(record("@", OPT, &[]))));
}

#[test]
fn opt_outside_the_additional_section_is_ignored() {
    check(reply(|reply| reply.without_opt().answer(record(".", OPT, &[]))));
}

#[test]
fn broken_options_are_ignored() {
    let overrun = [0, 10, 0, 9, 1];
    check(reply(move |reply| reply.without_opt().additional(record(".", OPT, &overrun))));
}

#[test]
fn pointers_forwards_or_to_themselves_are_ignored() {
    // The owner of the answer: a pointer to itself, and one to what comes after it.
    for target in [12 + 21, 12 + 23] {
        check(forged(move |reply| reply[12 + 21 + 1] = target));
    }
}

#[test]
fn reply_in_another_case_is_no_forgery() {
    let backend = Backend::new(answer(TRUE).edited(|reply| reply[13..16].fill(b'W')));
    let server = Forwarder::to(&[&backend], "timeout = '20s'").start();
    let question = query("www.Example.org", A);
    let response = server.client().ask(&question);
    assert_eq!(response.answers(), [TRUE]);
    assert_eq!(response.question(), question.question());
}

#[test]
fn forgeries_over_tcp_do_not_win_either() {
    for forgery in [
        forged(|reply| reply[1] ^= 1),
        forged(|reply| reply[13] = b'x'),
        forged(|reply| reply[2] &= 0x7f),
        forged(|reply| reply.push(0)),
    ] {
        let script = truncated().by_tcp(forgery.and(answer(TRUE).held()));
        let backend = Backend::new(script);
        let server = Forwarder::to(&[&backend], "timeout = '2s'\non_timeout = 'servfail'").start();
        let mut client = server.tcp_client();
        client.send(&[query("www.example.org", A)]);
        backend.wait_for(2);
        backend.release();
        assert_ne!(client.receive().answers(), [FORGED]);
    }
}

#[test]
fn two_clients_with_one_id_get_their_own_answers() {
    let backend = Backend::new(answer(TRUE).held().except("other", answer(FORGED).held()));
    let server = Forwarder::to(&[&backend], "timeout = '20s'").start();
    let (one, two) = (server.client(), server.client());
    let mine = query("www.example.org", A).id(7);
    let theirs = query("other.example.org", A).id(7);
    one.send(&mine);
    two.send(&theirs);
    let seen = backend.wait_for(2);
    assert_ne!(seen[0].id(), seen[1].id());
    backend.release();
    for (client, question, address) in [(&one, &mine, TRUE), (&two, &theirs, FORGED)] {
        let response = client.receive();
        assert_eq!(response.id(), 7);
        assert_eq!(response.question(), question.question());
        assert_eq!(response.answers(), [address]);
    }
}

#[test]
fn ids_and_ports_are_spread_over_all_there_are() {
    const COUNT: usize = 600;
    let backend = Backend::new(answer(TRUE));
    let server = Forwarder::to(&[&backend], "timeout = '20s'").start();
    let client = server.client();
    for i in 0..COUNT {
        client.ask(&query(&format!("{i}.example.org"), A).id(1));
    }
    let seen = backend.queries();
    let ids: HashSet<_> = seen.iter().map(Seen::id).collect();
    let ports: HashSet<_> = seen.iter().map(|seen| seen.peer.port()).collect();
    // By chance 600 IDs or ports lack about 3 to their number, and to lack 16 is one in ten million.
    assert!(ids.len() > COUNT - 16, "{} different IDs", ids.len());
    assert!(ports.len() > COUNT - 16, "{} different ports", ports.len());
    // Linux by itself gives out 32768 to 60999 only. Each half below has a fair share of the whole
    // unprivileged range.
    let low = ports.iter().filter(|port| **port < 32_768).count();
    assert!(low > ports.len() / 4 && low < ports.len() * 3 / 4, "{low} of {}", ports.len());
    assert!(ports.iter().all(|port| *port >= 1024));
    for bit in 0..16 {
        let ones = seen.iter().filter(|seen| seen.id() >> bit & 1 == 1).count();
        assert!((COUNT / 4..COUNT * 3 / 4).contains(&ones), "bit {bit} of the ID: {ones}");
    }
    // The next ID or port is not the one before plus a constant.
    let steps: HashSet<_> = seen.windows(2).map(|pair| pair[1].id().wrapping_sub(pair[0].id())).collect();
    assert!(steps.len() > COUNT - 30, "{} different steps of the ID", steps.len());
}

#[test]
fn queries_of_a_burst_leave_from_a_port_each() {
    const COUNT: usize = 600;
    let backend = Backend::new(answer(TRUE).held());
    let server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").start();
    let client = server.client();
    for i in 0..COUNT {
        client.send(&query(&format!("{i}.example.org"), A));
        if (i + 1) % 100 == 0 {
            // So many fit into any socket. None is answered.
            backend.wait_for(i + 1);
        }
    }
    let ports: HashSet<_> = backend.queries().iter().map(|seen| seen.peer.port()).collect();
    // All sockets are open at the same time, so no two have one port by chance. Independent draws from 64,512
    // ports would lack 600 * 599 / 2 / 64,512 = 2.8 on average, and more than 10 once in 6,000 times.
    assert!(ports.len() >= COUNT - 10, "{} different ports", ports.len());
}

#[test]
fn attempts_of_one_query_share_neither_id_nor_port() {
    let backends = [Backend::new(silent()), Backend::new(silent())];
    let server = Forwarder::to(&[&backends[0], &backends[1]], "timeout = '20s'").start();
    let client = server.client();
    for i in 0..8 {
        client.send(&query(&format!("{i}.example.org"), A));
    }
    let [one, two] = backends.each_ref().map(|backend| backend.wait_for(8));
    let ids = |seen: &[Seen]| seen.iter().map(Seen::id).collect::<Vec<_>>();
    let ports = |seen: &[Seen]| seen.iter().map(|seen| seen.peer.port()).collect::<HashSet<_>>();
    assert_ne!(ids(&one), ids(&two));
    assert!(ports(&one).is_disjoint(&ports(&two)));
}
