//! Tests of the page of plain text.

use super::*;
use crate::cli::top::state::tests::second;

#[test]
fn a_page_has_the_verdict_first_and_the_worst_backend_first() {
    let target: AdminTarget = "http://127.0.0.1:5380".parse().expect("a target");
    let page = page(&second(), &target);
    let expected = "\
watch for 40s  http://127.0.0.1:5380
  backend-down: ts2 of pool ts has been down for 40 s

1000 queries a second; answers: backend 900, cache 100; late replies 2; cache hits 80.0 %

POOL   Q/S  IN FLIGHT  P50 ms  P99 ms  P99.9 ms  HEDGES  WON  DENIED  TOKENS
ts    1000          7    0.40    4.00      21.5      20   18       1       9

POOL/BACKEND  STATE  Q/S  WINS  ERRORS  TIMEOUTS  IN FLIGHT  P50 ms  P99 ms
ts/ts2         down    0     0       0         3          4       -       -
ts/slow?         up  500   100       0         0          2    3.00    9.00
ts/ts1           up  500   800       0         0          1    0.30    0.90
and 3 more
";
    assert_eq!(page, expected, "\n{page}");
}

#[test]
fn stale_hits_are_no_hits_and_late_replies_are_not_dropped() {
    let mut second = second();
    second.cache = Some(crate::control::observe::sight::live::CacheSecond { hits: 50, stale_hits: 30, misses: 20 });
    second.answers.failures = 9;
    second.answers.dropped.insert("overload".to_owned(), 1);
    assert!(
        totals(&second)
            .ends_with("; dropped: overload 1; late replies 2; failures 9; cache hits 50.0 %; stale hits 30.0 %"),
        "{}",
        totals(&second)
    );
}
