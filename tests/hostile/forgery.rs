//! Forged replies: what a forger has to guess, that guessing is noticed, and that the client is told the truth all the same.

use std::collections::HashSet;

use crate::support::*;

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
    assert_eq!(seen.len(), COUNT, "nobody had to be asked again");
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
