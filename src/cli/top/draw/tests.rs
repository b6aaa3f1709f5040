//! Tests of the screen.

use engine::slow::{RaceObstacles, RaceOutcome};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::state::Data;
use super::super::state::tests::{press, second, watched};
use super::*;
use crate::control::observe::sight::live::{Reason, VerdictState};

const PLAIN: TerminalStyle = TerminalStyle { has_colors: false, is_ascii: true };

/// Returns the screen as lines without trailing blanks.
fn screen(state: &State, look: &TerminalStyle, now: Instant, (width, height): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a buffer");
    terminal.draw(|frame| draw(frame, state, look, now)).expect("a buffer");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn all_stands_on_80_columns_and_24_lines() {
    let now = Instant::now();
    let lines = screen(&watched(now), &PLAIN, now, (80, 24));
    let expected = "\
watch  for 40s  hedgerow top  http://127.0.0.1:5380  00:00:00 UTC
ts2 of pool ts has been down for 40 s
queries/s                                                                   ...#
1000 queries a second; answers: backend 900, cache 100; late replies 2; cache
hits 80.0 %
POOL            Q/S IN FLIGHT P50 ms P99 ms P99.9 ms HEDGES   WON DENIED TOKENS
ts             1000         7   0.40   4.00     21.5     20    18      1      9
backends worst first, 3 more
POOL/BACKEND              STATE    Q/S   WINS   ERR   TMO   INFL  P50 ms  P99 ms";
    for (line, expected) in lines.iter().zip(expected.lines()) {
        assert_eq!(line.trim_start(), expected, "\n{}", lines.join("\n"));
    }
    let backends: Vec<_> =
        lines.iter().filter_map(|line| line.split_whitespace().next()?.strip_prefix("ts/")).collect();
    assert_eq!(backends, ["ts2", "ts1", "slow?"], "\n{}", lines.join("\n"));
    assert!(lines[23].starts_with("q quit"), "\n{}", lines.join("\n"));
    assert!(lines.iter().all(|line| line.is_ascii()));
}

#[test]
fn a_narrow_screen_has_fewer_columns_and_whole_headings() {
    let now = Instant::now();
    let heads = |width| {
        let lines = screen(&watched(now), &PLAIN, now, (width, 24));
        let found = lines.into_iter().filter(|line| line.trim_start().starts_with("POOL"));
        found.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let backends = "POOL/BACKEND STATE Q/S ERR TMO P50 ms P99 ms";
    assert_eq!(heads(60), ["POOL Q/S P50 ms P99 ms P99.9 ms HEDGES WON", backends]);
    assert_eq!(heads(40), ["POOL Q/S P50 ms P99 ms", "POOL/BACKEND STATE Q/S P99 ms"]);
    assert_eq!(heads(30), ["POOL Q/S P99 ms", "POOL/BACKEND STATE"]);
}

#[test]
fn the_help_fits_80_columns_and_24_lines() {
    assert!(HELP.lines().all(|line| line.len() <= 80) && HELP.lines().count() <= 22, "{HELP}");
}

#[test]
fn no_size_is_too_small_or_too_large() {
    let now = Instant::now();
    let mut state = watched(now);
    for keys in ["", "\n", "l", "?"] {
        press(&mut state, "\u{1b}");
        press(&mut state, keys);
        for size in [(1, 1), (3, 2), (20, 5), (80, 24), (81, 25), (250, 80), (600, 3)] {
            assert_eq!(screen(&state, &PLAIN, now, size).len(), usize::from(size.1));
        }
    }
}

#[test]
fn a_state_is_told_by_its_word_and_by_how_it_looks() {
    let now = Instant::now();
    let style = |look: &TerminalStyle, verdict| {
        let mut state = watched(now);
        let mut second = second();
        second.verdict.state = verdict;
        state.take(Data { second: Ok(second), history: None, races: None }, now);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a buffer");
        terminal.draw(|frame| draw(frame, &state, look, now)).expect("a buffer");
        terminal.backend().buffer()[(1, 0)].style()
    };
    let colored = TerminalStyle { has_colors: true, is_ascii: false };
    let of = |look| [VerdictState::Well, VerdictState::Watch, VerdictState::Trouble].map(|state| style(look, state).fg);
    let [well, watch, trouble] = of(&colored);
    assert!(well != watch && watch != trouble && well != trouble);
    assert_eq!(of(&PLAIN), [Some(ratatui::style::Color::Reset); 3], "NO_COLOR");
}

#[test]
fn a_server_that_is_gone_is_told_above_what_was_known() {
    let now = Instant::now();
    let mut state = watched(now);
    let gone = Data { second: Err("connection refused".to_owned()), history: None, races: None };
    state.take(gone, now + Duration::from_secs(1));
    let lines = screen(&state, &PLAIN, now + Duration::from_secs(9), (100, 30));
    assert!(lines[0].ends_with("9 s old"), "{}", lines[0]);
    assert_eq!(lines[1], "no answer for 8 s, asking again: connection refused");
    assert!(lines.iter().any(|line| line.starts_with("ts/ts1")));
}

#[test]
fn many_reasons_leave_room_for_the_rest() {
    let now = Instant::now();
    let mut state = watched(now);
    let mut second = second();
    let reason =
        |n| Reason { code: "backend-down".to_owned(), text: format!("ts{n} of pool ts has been down for 40 s") };
    second.verdict.reasons = (0..40).map(reason).collect();
    state.take(Data { second: Ok(second), history: None, races: None }, now);
    let lines = screen(&state, &PLAIN, now, (80, 24));
    assert!(lines[7].starts_with("  ts6") && lines[8].starts_with("queries/s"), "\n{}", lines.join("\n"));
    assert!(lines.iter().any(|line| line.starts_with("ts/ts2")), "\n{}", lines.join("\n"));
}

#[test]
fn one_backend_has_its_last_ten_minutes() {
    let now = Instant::now();
    let mut state = watched(now);
    press(&mut state, "v\n");
    let lines = screen(&state, &PLAIN, now, (80, 24));
    assert_eq!(lines[2], "ts1 of pool ts: up");
    assert_eq!(lines[5], "6 errors, 0 timeouts in the last minute");
    assert_eq!(lines[8].len(), 80, "\n{}", lines.join("\n"));
    assert!(lines[8].starts_with("p50 ") && lines[8].ends_with("####") && lines[11].ends_with("____"));
}

#[test]
fn slow_races_say_why() {
    let now = Instant::now();
    let mut state = watched(now);
    press(&mut state, "l");
    assert_eq!(screen(&state, &PLAIN, now, (80, 24))[2], "asking for slow races...");
    let race = SlowRace {
        at: 1_767_225_599.5,
        pool: "ts".to_owned(),
        name: "www.example.".to_owned(),
        qtype: "A".to_owned(),
        took_ms: 182.25,
        outcome: RaceOutcome::Won,
        winner: Some("ts2".to_owned()),
        rcode: Some("NOERROR".to_owned()),
        waiters: 1,
        obstacles: RaceObstacles { hedges_denied: 1, ..RaceObstacles::default() },
        why: "ts1 silent".to_owned(),
        attempts: Vec::new(),
    };
    state.take(Data { second: Ok(second()), history: None, races: Some(Ok(vec![race])) }, now);
    let lines = screen(&state, &PLAIN, now, (80, 24));
    assert_eq!(lines[2], "23:59:59       182 ms  won     ts  www.example. A");
    assert_eq!(lines[3], "    ts1 silent");
    state.take(Data { second: Ok(second()), history: None, races: Some(Err("not for you".to_owned())) }, now);
    assert_eq!(screen(&state, &PLAIN, now, (80, 24))[2], "slow races are not available: not for you");
}
