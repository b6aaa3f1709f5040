//! Tests of forged replies: the values that a forger has to guess, that guessing is noticed, and that the
//! client gets the true answer nevertheless.

use std::collections::HashSet;

use testkit::*;

const TRUE: &str = "192.0.2.1";
const FORGED: &str = "203.0.113.66";

/// Deadlines that must not matter.
const PATIENT: &str = "timeout = '20s'\nattempt_timeout = '20s'\n";

/// The name of a query as it was spelled, in wire form.
fn spelled(seen: &Seen) -> Vec<u8> {
    let question = question_of(&seen.bytes);
    question[..question.len() - 4].to_vec()
}

/// The true answer, from a server that folds the name of the question.
fn folding(address: &'static str) -> Script {
    answer(address).edited(|reply| {
        let qname = 12..12 + question_of(reply).len() - 4;
        reply[qname].make_ascii_lowercase();
    })
}

/// How often a backend was asked again for this cause.
fn asked_again(metrics: &Metrics, cause: &str) -> u64 {
    metrics.sum("hedgerow_asked_again_total", &[("cause", cause)])
}

/// Replies that were taken for forged.
fn spoofed(metrics: &Metrics) -> u64 {
    metrics.sum("hedgerow_dropped_total", &[("reason", "spoofed")])
}

#[test]
fn names_are_spelled_by_chance_for_each_attempt() {
    const COUNT: usize = 64;
    let backend = Backend::new(answer(TRUE));
    let server = Forwarder::to(&[&backend], &format!("{PATIENT}case = 'random'")).start();
    let client = server.client();
    for number in 0..COUNT {
        let question = query(&format!("WwW.Example.{number}.test"), A);
        let response = client.ask(&question);
        assert_eq!((response.question(), response.answers()), (&question.question()[..], vec![TRUE.to_owned()]));
    }
    let seen = backend.queries();
    assert_eq!(seen.len(), COUNT, "no query was repeated");
    let spellings: Vec<_> = seen.iter().map(|seen| spelled(seen)[..13].to_vec()).collect();
    // Ten letters: of 64 drawn from 1024, a dozen may be there twice by chance, but not half.
    assert!(spellings.iter().collect::<HashSet<_>>().len() > COUNT / 2, "{spellings:?}");
    for letter in [1, 2, 3, 5, 11] {
        let capitals = spellings.iter().filter(|name| name[letter].is_ascii_uppercase()).count();
        assert!((COUNT / 8..COUNT * 7 / 8).contains(&capitals), "letter {letter}: {capitals} of {COUNT}");
    }
}

#[test]
fn reply_in_another_case_is_not_believed() {
    let backend = Backend::new(folding(FORGED).then(answer(TRUE)));
    let server = Forwarder::to(&[&backend], &format!("{PATIENT}case = 'random'")).admin().start();
    let client = server.client();
    let question = query("a-long-name-of-many-letters.Example.org", A);
    let response = client.ask(&question);
    assert_eq!((response.question(), response.answers()), (&question.question()[..], vec![TRUE.to_owned()]));
    // Asked again from elsewhere, and found to keep case after all.
    let [first, second] = &backend.wait_for(2)[..] else { panic!("two queries") };
    assert!(first.id() != second.id() && first.peer != second.peer && spelled(first) != spelled(second));
    let metrics = server.admin().metrics();
    assert_eq!((spoofed(&metrics), asked_again(&metrics, "case")), (1, 1));
    assert_eq!(metrics.attempts(backend.address(), None), 1, "it is the same attempt");
    client.ask(&query("another-long-name-of-many-letters.example.org", A));
    let third = &backend.wait_for(3)[2];
    assert_ne!(spelled(third), spelled(third).to_ascii_lowercase());
}

#[test]
fn backend_that_keeps_no_case_is_found_out_by_asking_again() {
    let backend = Backend::new(folding(TRUE));
    let server = Forwarder::to(&[&backend], &format!("{PATIENT}case = 'random'")).admin().start();
    let client = server.client();
    let names = ["a-long-name-of-many-letters.Example.org", "Another-Long-Name-Of-Many-Letters.example.org"];
    for (name, asked) in names.into_iter().zip([2, 3]) {
        let response = client.ask(&query(name, A));
        assert_eq!(response.answers(), [TRUE]);
        assert_eq!(response.question(), query(name, A).question());
        assert_eq!(backend.queries().len(), asked);
    }
    server.process.wait_for_log("does not keep the case of names");
    assert_eq!(spelled(&backend.queries()[2]), wire_name(names[1]), "from now on as the client does");
    assert_eq!(asked_again(&server.admin().metrics(), "case"), 1);
}

#[test]
fn answer_by_tcp_needs_no_case() {
    let backend = Backend::new(truncated().by_tcp(folding(TRUE)));
    let server = Forwarder::to(&[&backend], &format!("{PATIENT}case = 'random'")).start();
    let response = server.tcp_client().ask(&query("a-long-name-of-many-letters.Example.org", A));
    assert_eq!(response.answers(), [TRUE]);
}

/// So many forged answers with wrong IDs.
fn flood(count: u16) -> Script {
    (1..=count).fold(silent(), |script, number| {
        script.and(answer(FORGED).edited(move |reply| {
            let id = u16::from_be_bytes([reply[0], reply[1]]) ^ number;
            reply[..2].copy_from_slice(&id.to_be_bytes());
        }))
    })
}

#[test]
fn sixteen_near_misses_void_a_socket() {
    // Later replies to the discarded socket have the right ID, and are not believed.
    let backend = Backend::new(flood(16).and(answer(FORGED).held()).then(answer(TRUE).held()));
    let server = Forwarder::to(&[&backend], PATIENT).admin().start();
    let client = server.client();
    let question = query("www.example.org", A);
    client.send(&question);
    let [first, second] = &backend.wait_for(2)[..] else { panic!("two queries") };
    assert!(first.id() != second.id() && first.peer != second.peer);
    backend.release();
    let response = client.receive();
    assert_eq!((response.id(), response.answers()), (question.id, vec![TRUE.to_owned()]));
    let metrics = server.admin().wait_for("all are counted", |metrics| spoofed(metrics) == 17);
    assert_eq!((asked_again(&metrics, "near_misses"), metrics.attempts(backend.address(), None)), (1, 1));
    assert_eq!(server.admin().backend(&backend.address().to_string())["errors"], 0, "it is no failure");
}

#[test]
fn wrong_questions_are_near_misses_too() {
    let wrong = (0..16).fold(silent(), |script, _| script.and(answer(FORGED).edited(|reply| reply[13] ^= 1)));
    let backend = Backend::new(wrong.then(answer(TRUE)));
    let server = Forwarder::to(&[&backend], PATIENT).admin().start();
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [TRUE]);
    assert_eq!(backend.queries().len(), 2);
}

#[test]
fn a_few_near_misses_are_only_counted() {
    let backend = Backend::new(flood(15).and(answer(TRUE)));
    let server = Forwarder::to(&[&backend], PATIENT).admin().start();
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [TRUE]);
    assert_eq!((spoofed(&server.admin().metrics()), backend.queries().len()), (15, 1));
}

#[test]
fn forger_who_finds_every_port_is_met_by_tcp() {
    let backend = Backend::new(flood(16).by_tcp(answer(TRUE)));
    let server = Forwarder::to(&[&backend], PATIENT).admin().start();
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [TRUE]);
    let by_tcp: Vec<_> = backend.queries().iter().map(|seen| seen.tcp).collect();
    assert_eq!(by_tcp, [false, false, false, true]);
    assert_eq!(asked_again(&server.admin().metrics(), "near_misses"), 3);
}

#[test]
fn a_backend_that_is_told_who_asks_is_told_so_on_every_way() {
    let backend = Backend::new(flood(16).by_tcp(answer(TRUE)));
    let server = Forwarder::to(&[&NamedClients("", &backend)], PATIENT).start();
    let client = server.client();
    assert_eq!(client.ask(&query("www.example.org", A)).answers(), [TRUE]);
    let came: Vec<_> = backend.queries().into_iter().map(|seen| (seen.tcp, seen.named)).collect();
    let named = Some(format!("{} asked {}", client.address(), server.address()));
    assert_eq!(came, [false, false, false, true].map(|by_tcp| (by_tcp, named.clone())));
}

#[test]
fn what_is_negative_by_tcp_is_worth_what_it_is_by_udp() {
    let forged = Backend::new(flood(16).by_tcp(nxdomain()));
    let other = Backend::new(answer(TRUE).held());
    let keys = format!("{PATIENT}accept = 'positive'");
    let server = Forwarder::to(&[&forged, &other], &keys).start();
    let client = server.client();
    client.send(&query("www.example.org", A));
    forged.wait_for(4);
    other.release();
    assert_eq!(client.receive().answers(), [TRUE]);
}

#[test]
fn without_tcp_it_is_tried_by_udp_once_more() {
    let backend = Backend::without_tcp(flood(16).then(flood(16).then(flood(16).then(answer(TRUE)))));
    let server = Forwarder::to(&[&backend], PATIENT).start();
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [TRUE]);
    assert_eq!(backend.queries().len(), 4);
}

#[test]
fn one_query_costs_eight_datagrams_at_most() {
    let backend = Backend::without_tcp(flood(16));
    let server = Forwarder::to(&[&backend], &format!("{PATIENT}on_timeout = 'nxdomain'")).start();
    // It could not be asked, which says nothing about the name.
    assert_eq!(server.client().ask(&query("www.example.org", A)).rcode(), SERVFAIL);
    assert_eq!(backend.queries().len(), 8);
}

#[test]
fn replies_that_come_twice_are_no_near_misses() {
    const COUNT: usize = 500;
    let backend = Backend::new(answer(TRUE).and(answer(TRUE)).and(answer(TRUE)));
    let server = Forwarder::to(&[&backend], PATIENT).admin().start();
    let client = server.client();
    for number in 0..COUNT {
        client.send(&query(&format!("{number}.example.org"), A));
        if number % 50 == 49 {
            (0..50).for_each(|_| assert_eq!(client.receive().answers(), [TRUE]));
        }
    }
    let metrics = server.admin().metrics();
    assert_eq!((spoofed(&metrics), asked_again(&metrics, "near_misses")), (0, 0));
    assert_eq!(backend.queries().len(), COUNT);
}

#[test]
fn all_ids_are_tried_in_vain() {
    if !namespace::enter("hostile::forgery::all_ids_are_tried_in_vain") {
        return;
    }
    let backend = Backend::new(answer(TRUE).held());
    let server = Forwarder::to(&[&backend], PATIENT).cache("").admin().start();
    let (client, forger) = (server.client(), Forger::new());
    let question = query("bank.example", A).edns(1232);
    client.send(&question);
    let asked = backend.wait_for(1).remove(0);
    let address = |address| match address {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(_) => panic!("all of this is IPv4"),
    };
    let mut forged = reply_to(&asked.bytes).answer(a(FORGED)).to_vec();
    // The first sixteen are wrong for certain: what is tested is not luck.
    for step in 1..=u16::MAX {
        forged[..2].copy_from_slice(&asked.id().wrapping_add(step.wrapping_add(0x4000)).to_be_bytes());
        forger.udp(address(backend.address()), address(asked.peer), &forged);
    }
    backend.wait_for(2);
    backend.release();
    assert_eq!(client.receive().answers(), [TRUE]);
    assert_eq!(client.ask(&question).answers(), [TRUE], "nor is anything else kept");
    assert_eq!(asked_again(&server.admin().metrics(), "near_misses"), 1);
}
