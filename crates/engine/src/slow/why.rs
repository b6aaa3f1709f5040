//! The explanation of a slow race in a sentence: attempts, denied hedges, and the response.

use config::Rank;
use hedge::race::AttemptKind;

use super::{Fate, RaceOutcome, SlowAttempt, SlowRace};

/// Returns where the time of a race went, as clauses in the order of time: `ts1 silent; hedge to ts2 denied
/// for 180 ms: budget spent; ts2 replied in 2 ms`. Normal events are left out.
pub fn why(race: &SlowRace) -> String {
    let mut clauses = Vec::new();
    if race.obstacles.all_down {
        clauses.push("no backend was up, so all were asked".to_owned());
    }
    let mut denied = race.obstacles.denied.as_ref();
    for attempt in &race.attempts {
        if let Some(hedge) = denied.filter(|hedge| hedge.at_ms <= attempt.at_ms) {
            clauses.push(denial(hedge, race.obstacles.hedges_denied));
            denied = None;
        }
        clauses.extend(clause(race, attempt));
    }
    clauses.extend(denied.map(|hedge| denial(hedge, race.obstacles.hedges_denied)));
    if race.obstacles.denied.is_none() && race.obstacles.hedges_denied > 0 {
        clauses.push("hedge denied: budget spent".to_owned());
    }
    clauses.extend(end(race));
    if race.waiters == 0 && race.outcome != RaceOutcome::Stale {
        clauses.push("no client waited: the query refreshed the cache".to_owned());
    }
    clauses.join("; ")
}

fn clause(race: &SlowRace, attempt: &SlowAttempt) -> Option<String> {
    let SlowAttempt { ref backend, kind, took_ms, fate, rank, .. } = *attempt;
    let after = took_ms.map(|took| format!(" in {}", time(took))).unwrap_or_default();
    Some(match fate {
        Fate::Won => match rank {
            Some(rank @ Rank::Decided) => format!("{backend} replied {}{after}", rank_words(rank)),
            _ => format!("{backend} replied{after}"),
        },
        Fate::Kept => match rank {
            Some(Rank::Failure) => format!("{backend} replied with a failure{after}"),
            Some(rank @ Rank::Doubtful) => {
                format!("{backend} replied {}{after}, which waits for a validated answer", rank_words(rank))
            }
            Some(rank) => format!("{backend} replied {}{after}, which is not accepted", rank_words(rank)),
            None => format!("{backend} replied{after}, which is not accepted"),
        },
        Fate::Failed => match (rank, took_ms) {
            (Some(_), Some(_)) => format!("{backend} replied with a failure{after}"),
            (Some(_), None) => format!("{backend} replied with a bare failure"),
            (None, _) => format!("{backend} could not be asked or went down"),
        },
        Fate::Unreachable => format!("{backend} unreachable (ICMP)"),
        Fate::Lost => format!("{backend} lost its connection"),
        Fate::Silent => format!("{backend} silent"),
        Fate::Late => match took_ms {
            Some(took) => format!("{backend} replied after {}, too late", time(took)),
            None => format!("{backend} replied too late"),
        },
        // An attempt that lost to a hedge was slow; a beaten hedge, or a beaten parallel attempt, did no
        // harm.
        Fate::Beaten if took_ms.is_some() => format!("{backend} replied{after}, and another was better"),
        Fate::Beaten if kind == AttemptKind::First && is_overtaken(race, attempt) => {
            format!("{backend} has not replied yet")
        }
        Fate::Beaten => return None,
    })
}

fn is_overtaken(race: &SlowRace, attempt: &SlowAttempt) -> bool {
    race.attempts.iter().any(|other| matches!(other.fate, Fate::Won | Fate::Kept) && other.at_ms > attempt.at_ms)
}

fn denial(hedge: &super::DeniedHedge, denied: u32) -> String {
    let to = hedge.to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
    let more = if denied > 1 { format!(" ({denied} times)") } else { String::new() };
    format!("hedge{to} denied for {}: budget spent{more}", time(hedge.for_ms))
}

fn end(race: &SlowRace) -> Option<String> {
    let rcode = race.rcode.as_deref();
    match race.outcome {
        RaceOutcome::Won | RaceOutcome::Cached => None,
        RaceOutcome::Kept => {
            let winner = race.winner.as_deref().unwrap_or("a backend");
            Some(format!("no better reply came than that of {winner}"))
        }
        RaceOutcome::MadeUp => {
            let asked = if race.attempts.is_empty() { "no backend could be asked" } else { "no reply that counts" };
            Some(match rcode {
                Some(rcode) => format!("{asked}: {rcode} was synthesized after {}", time(race.took_ms)),
                None => format!("{asked}: no response was sent after {}", time(race.took_ms)),
            })
        }
        RaceOutcome::Failed if race.attempts.is_empty() => Some("no backend could be asked: SERVFAIL".to_owned()),
        RaceOutcome::Failed => Some(format!("{} was the only reply", rcode.unwrap_or("SERVFAIL"))),
        RaceOutcome::Stale => Some("a stale answer of the cache was sent".to_owned()),
    }
}

/// Returns words for the rank of a reply.
pub fn rank_words(rank: Rank) -> &'static str {
    match rank {
        Rank::Failure => "with a failure",
        Rank::Outdated => "from an older version of the zone without the name or type",
        Rank::Nodata => "NODATA without AA",
        Rank::Nxdomain => "NXDOMAIN",
        Rank::NodataAuthoritative => "NODATA",
        Rank::Positive => "with an answer",
        Rank::Doubtful => "with a decision (extended error) that a wrong clock may have caused",
        Rank::Decided => "with a decision (extended error)",
    }
}

/// Formats milliseconds with a useful precision: `0.35 ms`, `2 ms`, `180 ms`, `1.20 s`.
pub fn time(ms: f64) -> String {
    match ms {
        _ if ms >= 999.5 => format!("{:.2} s", ms / 1e3),
        _ if ms >= 9.95 => format!("{ms:.0} ms"),
        _ => {
            let text = format!("{ms:.2}");
            format!("{} ms", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::DeniedHedge;
    use super::*;
    use crate::slow::RaceObstacles;

    fn attempt(
        backend: &str,
        kind: AttemptKind,
        at_ms: f64,
        took_ms: Option<f64>,
        fate: Fate,
        rank: Option<Rank>,
    ) -> SlowAttempt {
        SlowAttempt { backend: backend.to_owned(), kind, at_ms, took_ms, fate, rank }
    }

    fn check(outcome: RaceOutcome, attempts: &[SlowAttempt], change: impl FnOnce(&mut SlowRace), expected: &str) {
        let won = attempts.iter().find(|attempt| matches!(attempt.fate, Fate::Won | Fate::Kept));
        let mut race = SlowRace {
            took_ms: 1_200.0,
            outcome,
            winner: won.map(|won| won.backend.clone()),
            rcode: Some("NXDOMAIN".to_owned()),
            obstacles: RaceObstacles::default(),
            attempts: attempts.to_vec(),
            ..SlowRace::sample()
        };
        change(&mut race);
        assert_eq!(why(&race), expected);
    }

    const POSITIVE: Option<Rank> = Some(Rank::Positive);

    #[test]
    fn a_slow_backend_is_named_with_its_time() {
        check(
            RaceOutcome::Won,
            &[attempt("ts1", AttemptKind::First, 0.0, Some(1_200.0), Fate::Won, POSITIVE)],
            |_| {},
            "ts1 replied in 1.20 s",
        );
    }

    #[test]
    fn a_silent_backend_whose_hedge_was_denied() {
        let attempts = [
            attempt("ts1", AttemptKind::First, 0.0, None, Fate::Silent, None),
            attempt("ts2", AttemptKind::Failover, 184.0, Some(2.0), Fate::Won, POSITIVE),
        ];
        let denied = Some(DeniedHedge { to: Some("ts2".to_owned()), at_ms: 4.0, for_ms: 180.0 });
        check(
            RaceOutcome::Won,
            &attempts,
            |race| (race.obstacles.denied, race.obstacles.hedges_denied) = (denied.clone(), 1),
            "ts1 silent; hedge to ts2 denied for 180 ms: budget spent; ts2 replied in 2 ms",
        );
        check(
            RaceOutcome::MadeUp,
            &attempts[..1],
            |race| (race.obstacles.denied, race.obstacles.hedges_denied) = (denied, 2),
            "ts1 silent; hedge to ts2 denied for 180 ms: budget spent (2 times); \
             no reply that counts: NXDOMAIN was synthesized after 1.20 s",
        );
    }

    #[test]
    fn a_denial_of_which_the_time_was_not_noted() {
        check(
            RaceOutcome::Won,
            &[attempt("ts1", AttemptKind::First, 0.0, Some(1_200.0), Fate::Won, POSITIVE)],
            |race| race.obstacles.hedges_denied = 1,
            "ts1 replied in 1.20 s; hedge denied: budget spent",
        );
    }

    #[test]
    fn a_decision_is_named_as_one() {
        let decided = Some(Rank::Decided);
        check(
            RaceOutcome::Won,
            &[attempt("ts1", AttemptKind::First, 0.0, Some(1_200.0), Fate::Won, decided)],
            |_| {},
            "ts1 replied with a decision (extended error) in 1.20 s",
        );
        check(
            RaceOutcome::Won,
            &[
                attempt("ts1", AttemptKind::First, 0.0, Some(2.0), Fate::Kept, Some(Rank::Doubtful)),
                attempt("ts2", AttemptKind::Failover, 2.0, Some(1_198.0), Fate::Won, POSITIVE),
            ],
            |_| {},
            "ts1 replied with a decision (extended error) that a wrong clock may have caused in 2 ms, which waits for a \
             validated answer; ts2 replied in 1.20 s",
        );
    }

    #[test]
    fn a_late_loser_says_how_late() {
        check(
            RaceOutcome::Won,
            &[
                attempt("ts1", AttemptKind::First, 0.0, Some(212.0), Fate::Late, POSITIVE),
                attempt("ts2", AttemptKind::Hedge, 5.0, Some(0.354), Fate::Won, POSITIVE),
            ],
            |_| {},
            "ts1 replied after 212 ms, too late; ts2 replied in 0.35 ms",
        );
    }

    #[test]
    fn a_loser_of_which_nothing_is_known_yet() {
        let first = attempt("ts1", AttemptKind::First, 0.0, None, Fate::Beaten, None);
        let second = attempt("ts2", AttemptKind::First, 0.0, Some(20.0), Fate::Won, POSITIVE);
        // Both attempts were made at once: the beaten one explains nothing.
        check(RaceOutcome::Won, &[first.clone(), second.clone()], |_| {}, "ts2 replied in 20 ms");
        let hedge = SlowAttempt { kind: AttemptKind::Hedge, at_ms: 5.0, ..second };
        check(RaceOutcome::Won, &[first, hedge], |_| {}, "ts1 has not replied yet; ts2 replied in 20 ms");
    }

    #[test]
    fn failures_come_before_who_won() {
        check(
            RaceOutcome::Won,
            &[
                attempt("ts1", AttemptKind::First, 0.0, Some(3.0), Fate::Failed, Some(Rank::Failure)),
                attempt("ts2", AttemptKind::Failover, 3.0, None, Fate::Failed, Some(Rank::Failure)),
                attempt("ts3", AttemptKind::Failover, 4.0, None, Fate::Failed, None),
                attempt("ts4", AttemptKind::Failover, 5.0, None, Fate::Unreachable, None),
                attempt("ts6", AttemptKind::Failover, 5.5, None, Fate::Lost, None),
                attempt("ts5", AttemptKind::Failover, 6.0, Some(30.0), Fate::Won, POSITIVE),
            ],
            |_| {},
            "ts1 replied with a failure in 3 ms; ts2 replied with a bare failure; ts3 could not be asked or went down; \
             ts4 unreachable (ICMP); ts6 lost its connection; ts5 replied in 30 ms",
        );
    }

    #[test]
    fn a_kept_reply_waited_for_others() {
        check(
            RaceOutcome::Kept,
            &[
                attempt("ts1", AttemptKind::First, 0.0, Some(1.0), Fate::Kept, Some(Rank::Nxdomain)),
                attempt("ts2", AttemptKind::First, 0.0, None, Fate::Silent, None),
            ],
            |_| {},
            "ts1 replied NXDOMAIN in 1 ms, which is not accepted; ts2 silent; no better reply came than that of ts1",
        );
        check(
            RaceOutcome::Kept,
            &[attempt("ts1", AttemptKind::First, 0.0, Some(1.0), Fate::Kept, Some(Rank::Failure))],
            |_| {},
            "ts1 replied with a failure in 1 ms; no better reply came than that of ts1",
        );
    }

    #[test]
    fn a_worse_reply_lost_to_a_better() {
        check(
            RaceOutcome::Won,
            &[
                attempt("ts1", AttemptKind::First, 0.0, Some(1.0), Fate::Beaten, Some(Rank::Nodata)),
                attempt("ts2", AttemptKind::First, 0.0, Some(90.0), Fate::Won, POSITIVE),
            ],
            |_| {},
            "ts1 replied in 1 ms, and another was better; ts2 replied in 90 ms",
        );
    }

    #[test]
    fn what_is_made_up_says_so() {
        let silent = attempt("ts1", AttemptKind::First, 0.0, None, Fate::Silent, None);
        check(
            RaceOutcome::MadeUp,
            std::slice::from_ref(&silent),
            |_| {},
            "ts1 silent; no reply that counts: NXDOMAIN was synthesized after 1.20 s",
        );
        check(
            RaceOutcome::MadeUp,
            &[silent],
            |race| (race.rcode, race.obstacles.all_down) = (None, true),
            "no backend was up, so all were asked; ts1 silent; no reply that counts: no response was sent after 1.20 s",
        );
        check(RaceOutcome::MadeUp, &[], |_| {}, "no backend could be asked: NXDOMAIN was synthesized after 1.20 s");
    }

    #[test]
    fn what_failed_says_so() {
        check(RaceOutcome::Failed, &[], |_| {}, "no backend could be asked: SERVFAIL");
        check(
            RaceOutcome::Failed,
            &[attempt("ts1", AttemptKind::First, 0.0, None, Fate::Failed, Some(Rank::Failure))],
            |race| race.rcode = Some("SERVFAIL".to_owned()),
            "ts1 replied with a bare failure; SERVFAIL was the only reply",
        );
    }

    #[test]
    fn who_got_what_is_stale_or_nothing_at_all() {
        let silent = attempt("ts1", AttemptKind::First, 0.0, None, Fate::Silent, None);
        check(
            RaceOutcome::Stale,
            std::slice::from_ref(&silent),
            |race| race.waiters = 0,
            "ts1 silent; a stale answer of the cache was sent",
        );
        check(
            RaceOutcome::Won,
            &[silent, attempt("ts2", AttemptKind::Failover, 1_000.0, Some(2.0), Fate::Won, POSITIVE)],
            |race| race.waiters = 0,
            "ts1 silent; ts2 replied in 2 ms; no client waited: the query refreshed the cache",
        );
    }

    #[test]
    fn times_are_as_exact_as_tells_something() {
        for (ms, expected) in [
            (0.0, "0 ms"),
            (0.354, "0.35 ms"),
            (2.0, "2 ms"),
            (9.9, "9.9 ms"),
            (9.96, "10 ms"),
            (180.4, "180 ms"),
            (999.7, "1.00 s"),
            (3_000.0, "3.00 s"),
        ] {
            assert_eq!(time(ms), expected);
        }
    }
}
