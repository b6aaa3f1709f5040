//! Draws the screen from the state: the verdict on top, then the server, its pools and its backends; or one
//! backend, slow races, or the key help.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState, Wrap};

use super::look::{TerminalStyle, count, ms};
use super::state::{State, TopView};
use super::text::{POOL_HEADS, pool_figures, totals, verdict_for};
use crate::sight::live::{PoolSecond, Second};
use crate::sight::slow::SlowRace;

pub(super) fn draw(frame: &mut Frame<'_>, state: &State, look: &TerminalStyle, now: Instant) {
    let head = head(state, look, now);
    // Limited, because many or long reasons must not push the rest off the screen.
    let height = u16::try_from(head.len()).unwrap_or(u16::MAX).min(frame.area().height / 3).max(1);
    let [top, body, foot] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(head), top);
    match (state.view(), state.second()) {
        (TopView::Help, _) => frame.render_widget(Paragraph::new(HELP), body),
        (TopView::Races, _) => races(frame, body, state, look),
        (TopView::All, Some(second)) => all(frame, body, state, second, look),
        (TopView::Backend, Some(_)) => backend(frame, body, state, look),
        (TopView::All | TopView::Backend, None) => {
            frame.render_widget(Paragraph::new("waiting for the server"), body);
        }
    }
    frame.render_widget(Paragraph::new(Line::styled(keys(state), look.dim())), foot);
}

fn head<'a>(state: &State, look: &TerminalStyle, now: Instant) -> Vec<Line<'a>> {
    let mut title = Vec::new();
    match state.second() {
        Some(second) => {
            let verdict = second.verdict.state;
            title.push(Span::styled(format!(" {} ", verdict.label()), look.verdict(verdict)));
            title.extend(verdict_for(second).map(|time| Span::raw(format!(" for {time} "))));
        }
        None => title.push(Span::raw(" ? ")),
    }
    // The directories of a socket path would push the time off a narrow screen.
    let target = state.target();
    let target = target.strip_prefix("unix:").and_then(|path| path.rsplit('/').next()).unwrap_or(target);
    title.push(Span::raw(format!(" hedgerow top  {}", look.text(target))));
    if let Some(second) = state.second() {
        title.push(Span::raw(format!("  {} UTC", time_of_day(second.at))));
    }
    let mut lines = vec![title];
    let warning = Style::new().add_modifier(Modifier::REVERSED);
    if state.is_paused() {
        lines[0].push(Span::raw("  "));
        lines[0].push(Span::styled(" paused ", warning));
    }
    if let Some(age) = state.stale_for(now) {
        lines[0].push(Span::raw("  "));
        lines[0].push(Span::styled(format!(" {} old ", seconds(age)), warning));
    }
    let mut lines: Vec<Line<'_>> = lines.into_iter().map(Line::from).collect();
    if let Some((message, age)) = state.trouble(now) {
        let text = format!("no answer for {}, asking again: {}", seconds(age), look.text(message));
        lines.push(Line::styled(text, warning));
    }
    let reasons = state.second().map_or(&[][..], |second| &second.verdict.reasons);
    lines.extend(reasons.iter().map(|reason| Line::raw(format!("  {}", look.text(&reason.text)))));
    lines
}

fn all(frame: &mut Frame<'_>, area: Rect, state: &State, second: &Second, look: &TerminalStyle) {
    // Pools get a third at most, because users mainly look for backends.
    let pools = u16::try_from(second.pools.len()).unwrap_or(u16::MAX).min(area.height / 3).max(1) + 1;
    let [server, pool_area, line, backend_area] =
        Layout::vertical([Constraint::Length(3), Constraint::Length(pools), Constraint::Length(1), Constraint::Min(0)])
            .areas(area);
    let width = usize::from(server.width).saturating_sub(CURVE_LABEL);
    let lines = vec![
        Line::raw(format!("{:<CURVE_LABEL$}{}", "queries/s", look.curve(state.queries().iter().copied(), width))),
        Line::raw(look.text(&totals(second))),
    ];
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), server);
    pool_table(frame, pool_area, state, &second.pools, look);
    frame.render_widget(Paragraph::new(Line::styled(backends_line(state, second, look), look.dim())), line);
    backend_table(frame, backend_area, state, look);
}

/// Formats the sort order, the number of backends that are not reported, and the filter.
fn backends_line(state: &State, second: &Second, look: &TerminalStyle) -> String {
    let more: u64 = second.pools.iter().map(|pool| pool.more_backends).sum();
    let (filter, is_typing) = state.filter();
    let mut line = format!("backends {}", state.sort().label());
    if more > 0 {
        line.push_str(&format!(", {more} more"));
    }
    if is_typing || !filter.is_empty() {
        line.push_str(&format!(", only /{}{}", look.text(filter), if is_typing { "_" } else { "" }));
    }
    line
}

fn pool_table(frame: &mut Frame<'_>, area: Rect, state: &State, pools: &[PoolSecond], look: &TerminalStyle) {
    let figures = POOL_WIDTHS.iter().map(|width| usize::from(*width) + 1).sum::<usize>();
    let curve = usize::from(area.width).saturating_sub(figures + usize::from(NAME_WIDTH) + 1);
    let row = |pool: &PoolSecond| {
        let mut cells = vec![Cell::from(look.text(&pool.name))];
        cells.extend(pool_figures(pool).into_iter().map(right));
        let p99 = state.p99(&pool.name).map(|p99| look.curve(p99.iter().copied(), curve)).unwrap_or_default();
        cells.push(Cell::from(p99));
        Row::new(cells)
    };
    let mut heads = vec![Cell::from("POOL")];
    heads.extend(POOL_HEADS.iter().map(|head| right((*head).to_owned())));
    heads.push(Cell::from(if curve > 3 { "P99" } else { "" }));
    let mut widths = vec![Constraint::Length(NAME_WIDTH)];
    widths.extend(POOL_WIDTHS.iter().map(|width| Constraint::Length(*width)));
    widths.push(Constraint::Min(0));
    let shown = usize::from(area.height.saturating_sub(1));
    let rows = pools.iter().take(shown).map(row);
    frame.render_widget(Table::new(rows, widths).header(Row::new(heads).style(look.head())), area);
}

fn backend_table(frame: &mut Frame<'_>, area: Rect, state: &State, look: &TerminalStyle) {
    let rows = state.rows();
    let marked = state.marked_row(&rows);
    let mut heads = vec![Cell::from("POOL/BACKEND")];
    heads.extend(["STATE", "Q/S", "WINS", "ERR", "TMO", "INFL", "P50 ms", "P99 ms"].map(|head| right(head.to_owned())));
    let row = |row: &super::state::Row<'_>| {
        let backend = row.backend;
        let name = look.text(&format!("{}/{}", row.pool.name, backend.name));
        Row::new(vec![
            Cell::from(name),
            right(look.text(&backend.state)).style(look.backend(&backend.state)),
            right(count(backend.attempts)),
            right(count(backend.wins)),
            right(count(row.errors)),
            right(count(row.timeouts)),
            right(count(backend.in_flight)),
            right(ms(backend.p50_ms)),
            right(ms(backend.p99_ms)),
        ])
    };
    let mut widths = vec![Constraint::Min(16)];
    widths.extend([8, 6, 6, 5, 5, 6, 7, 7].map(Constraint::Length));
    let table = Table::new(rows.iter().map(row), widths)
        .header(Row::new(heads).style(look.head()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut table_state = TableState::new().with_selected((!rows.is_empty()).then_some(marked));
    frame.render_stateful_widget(table, area, &mut table_state);
}

fn backend(frame: &mut Frame<'_>, area: Rect, state: &State, look: &TerminalStyle) {
    let rows = state.rows();
    let Some(row) = rows.get(state.marked_row(&rows)) else {
        frame.render_widget(Paragraph::new("it is gone"), area);
        return;
    };
    let (pool, backend) = (row.pool, row.backend);
    let width = usize::from(area.width).saturating_sub(CURVE_LABEL);
    let share = backend.attempts as f64 / pool.attempts.max(1) as f64 * 100.0;
    let mut lines = vec![
        Line::from(vec![
            Span::styled(look.text(&backend.name), Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!(" of pool {}: ", look.text(&pool.name))),
            Span::styled(look.text(&backend.state), look.backend(&backend.state)),
        ]),
        Line::raw(format!(
            "{} queries a second, {share:.0} % of the pool; {} answers went to clients; {} in flight",
            backend.attempts, backend.wins, backend.in_flight
        )),
        Line::raw(format!("p50 {} ms, p99 {} ms", ms(backend.p50_ms), ms(backend.p99_ms))),
        Line::raw(format!("{} errors, {} timeouts in the last minute", row.errors, row.timeouts)),
        Line::default(),
    ];
    if let Some(history) = state.backend_history(&pool.name, &backend.name) {
        lines.push(Line::raw("the last ten minutes, by ten seconds:"));
        let float = |counts: &[Option<u64>]| counts.iter().map(|count| count.map(|n| n as f64)).collect::<Vec<_>>();
        for (label, values) in [
            ("p50", history.p50_ms.clone()),
            ("p99", history.p99_ms.clone()),
            ("errors", float(&history.errors)),
            ("timeouts", float(&history.timeouts)),
        ] {
            lines.push(Line::raw(format!("{label:<CURVE_LABEL$}{}", look.curve(values.into_iter(), width))));
        }
        lines.push(Line::default());
    }
    let reasons = state.second().map_or(&[][..], |second| &second.verdict.reasons);
    let own = reasons.iter().filter(|reason| reason.text.contains(&backend.name));
    lines.extend(own.map(|reason| Line::raw(look.text(&reason.text))));
    let races = state.races().unwrap_or_default().iter();
    let races = races.filter(|race| race.attempts.iter().any(|attempt| attempt.backend == backend.name));
    lines.extend(races.map(|race| race_line(race, look)));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn races(frame: &mut Frame<'_>, area: Rect, state: &State, look: &TerminalStyle) {
    let text = match (state.races(), state.no_races()) {
        (Some([]), _) => Text::raw("no slow races"),
        (Some(races), _) => {
            let races = races.iter().skip(state.scrolled());
            let lines =
                races.flat_map(|race| [race_line(race, look), Line::raw(format!("    {}", look.text(&race.why)))]);
            Text::from(lines.collect::<Vec<_>>())
        }
        (None, Some(message)) => Text::raw(format!("slow races are not available: {}", look.text(message))),
        (None, None) => Text::raw(format!("asking for slow races{}", look.ellipsis())),
    };
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), area);
}

fn race_line<'a>(race: &SlowRace, look: &TerminalStyle) -> Line<'a> {
    // The float is a Unix time: positive, and far from the end of the integers.
    let at = time_of_day(race.at as u64);
    let name = look.text(&format!("{} {}", race.name, race.qtype));
    let outcome = race.outcome.label();
    Line::raw(format!("{at} {:>9} ms  {outcome:<7} {}  {name}", ms(Some(race.took_ms)), look.text(&race.pool)))
}

fn keys(state: &State) -> String {
    match state.view() {
        _ if state.filter().1 => "type a part of a name; Enter keeps it, Esc ends it".to_owned(),
        TopView::All => "q quit  ? help  s sort  / filter  Enter detail  l slow races  p pause".to_owned(),
        TopView::Backend => "Esc back  up/down the next one  l slow races  q quit".to_owned(),
        TopView::Races => "Esc back  up/down scroll  q quit".to_owned(),
        TopView::Help => "Esc back  q quit".to_owned(),
    }
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Text::from(text).right_aligned())
}

fn seconds(age: Duration) -> String {
    format!("{} s", age.as_secs())
}

fn time_of_day(at: u64) -> String {
    format!("{:02}:{:02}:{:02}", at / 3600 % 24, at / 60 % 60, at % 60)
}

const CURVE_LABEL: usize = 10;

const NAME_WIDTH: u16 = 12;

const POOL_WIDTHS: [u16; 9] = [6, 9, 6, 6, 8, 6, 5, 6, 6];

const HELP: &str = "\
This shows what the server does now, and changes nothing of it.
Figures are of the last second; ERR and TMO, the errors and timeouts of a
backend, are of the last minute. A dash: nothing was measured.

  q, Ctrl-C        leave
  s                sort backends: worst first, by p99, by queries, by name
  /                filter pools and backends by part of a name; Esc ends it
  up, down, j, k   mark another backend, or scroll
  Enter            one backend in detail
  l                slow races, the newest first, and why they were slow
  p                pause, and go on
  Ctrl-Z           back to the shell until fg
  ?, h             this";

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::Data;
    use super::super::state::tests::{press, second, watched};
    use super::*;
    use crate::sight::live::{Reason, VerdictState};
    use crate::sight::slow::RaceOutcome;

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
        let of =
            |look| [VerdictState::Well, VerdictState::Watch, VerdictState::Trouble].map(|state| style(look, state).fg);
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
            hedges_denied: 1,
            denied: None,
            all_down: false,
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
}
