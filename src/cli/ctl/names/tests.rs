//! Tests of the tables of `ctl names`.

use super::*;
use crate::control::observe::sight::names::ClientCount;

#[test]
fn names_and_clients_are_tables() {
    let count = |name: &str, queries| NameCount { name: name.to_owned(), qtype: "A".to_owned(), queries, error: 16 };
    let client = ClientCount { client: [192, 0, 2, 1].into(), queries: 1648, error: 0 };
    let mut names = NamesReport {
        names: vec![count("a.example.", 1600), count("b.example.", 48)],
        servfail: vec![],
        clients: vec![client],
    };
    let expected = "\
QUERIES  ERROR  TYPE  NAME
   1600     16  A     a.example.
     48     16  A     b.example.

QUERIES  ERROR  CLIENT
   1648      0  192.0.2.1

no SERVFAIL";
    assert_eq!(text(&names), expected);
    names.servfail = vec![count("c.example.", 16)];
    assert!(text(&names).ends_with("\n\nSERVFAIL\nQUERIES  ERROR  TYPE  NAME\n     16     16  A     c.example."));
}
