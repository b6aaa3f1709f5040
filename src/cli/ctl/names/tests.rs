//! Tests of the tables of `ctl names`.

use super::*;

#[test]
fn names_are_two_tables() {
    let count = |name: &str, queries| NameCount { name: name.to_owned(), qtype: "A".to_owned(), queries, error: 16 };
    let mut names = NamesReport { names: vec![count("a.example.", 1600), count("b.example.", 48)], servfail: vec![] };
    let expected = "\
QUERIES  ERROR  TYPE  NAME
   1600     16  A     a.example.
     48     16  A     b.example.

no SERVFAIL";
    assert_eq!(text(&names), expected);
    names.servfail = vec![count("c.example.", 16)];
    assert!(text(&names).ends_with("\n\nSERVFAIL\nQUERIES  ERROR  TYPE  NAME\n     16     16  A     c.example."));
}
