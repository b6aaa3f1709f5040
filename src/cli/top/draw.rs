//! Draws the screen from the state: the verdict on top, then the server, its pools and its backends; or one
//! backend, slow races, or the key help.

use std::time::{Duration, Instant};

use engine::slow::SlowRace;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState, Wrap};

use super::look::{TerminalStyle, count, ms};
use super::state::{BackendList, Row as BackendRow, State, TopView};
use super::text::{Figure, POOL_FIGURES, totals, verdict_for};
use crate::control::observe::sight::live::{PoolSecond, Second};

pub(super) fn draw(frame: &mut Frame<'_>, state: &State, look: &TerminalStyle, now: Instant) {
    let head = head(state, look, now);
    // Limited, because many or long reasons must not push the rest off the screen.
    let height = u16::try_from(head.len()).unwrap_or(u16::MAX).min(frame.area().height / 3).max(1);
    let [top, body, foot] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(head), top);
    match (state.view, &state.second) {
        (TopView::Help, _) => frame.render_widget(Paragraph::new(HELP).wrap(Wrap { trim: false }), body),
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
    let second = state.second.as_ref();
    let mut title = Vec::new();
    match second {
        Some(second) => {
            let verdict = second.verdict.state;
            title.push(Span::styled(format!(" {} ", verdict.label()), look.verdict(verdict)));
            title.extend(verdict_for(second).map(|time| Span::raw(format!(" for {time} "))));
        }
        None => title.push(Span::raw(" ? ")),
    }
    // The directories of a socket path would push the time off a narrow screen.
    let target = state.target.strip_prefix("unix:").and_then(|path| path.rsplit('/').next()).unwrap_or(&state.target);
    title.push(Span::raw(format!(" hedgerow top  {}", look.text(target))));
    title.extend(second.map(|second| Span::raw(format!("  {} UTC", time_of_day(second.at)))));
    let warning = Style::new().add_modifier(Modifier::REVERSED);
    let paused = state.is_paused.then(|| " paused ".to_owned());
    let stale = state.stale_for(now).map(|age| format!(" {} old ", seconds(age)));
    title.extend(paused.into_iter().chain(stale).flat_map(|text| [Span::raw("  "), Span::styled(text, warning)]));
    let trouble = state.trouble(now).map(|(message, age)| {
        let text = format!("no answer for {}, asking again: {}", seconds(age), look.text(message));
        Line::styled(text, warning)
    });
    let reasons = second.map_or(&[][..], |second| &second.verdict.reasons);
    let reasons = reasons.iter().map(|reason| Line::raw(format!("  {}", look.text(&reason.text))));
    std::iter::once(Line::from(title)).chain(trouble).chain(reasons).collect()
}

fn all(frame: &mut Frame<'_>, area: Rect, state: &State, second: &Second, look: &TerminalStyle) {
    // Pools get a third at most, because users mainly look for backends.
    let pools = u16::try_from(second.pools.len()).unwrap_or(u16::MAX).min(area.height / 3).max(1) + 1;
    let [server, pool_area, line, backend_area] =
        Layout::vertical([Constraint::Length(3), Constraint::Length(pools), Constraint::Length(1), Constraint::Min(0)])
            .areas(area);
    let width = usize::from(server.width).saturating_sub(CURVE_LABEL);
    let queries = state.history.answers.queries.iter().map(|&count| Some(count as f64));
    let lines = vec![
        Line::raw(format!("{:<CURVE_LABEL$}{}", "queries/s", look.curve(queries, width))),
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
    let BackendList { sort, filter, is_typing, .. } = &state.list;
    let mut line = format!("backends {}", sort.label());
    if more > 0 {
        line.push_str(&format!(", {more} more"));
    }
    if *is_typing || !filter.is_empty() {
        line.push_str(&format!(", only /{}{}", look.text(filter), if *is_typing { "_" } else { "" }));
    }
    line
}

fn pool_table(frame: &mut Frame<'_>, area: Rect, state: &State, pools: &[PoolSecond], look: &TerminalStyle) {
    let shown = fitting(&POOL_FIGURES, area.width.saturating_sub(POOL_NAME_WIDTH));
    let figures = shown.iter().map(|figure| usize::from(figure.width) + 1).sum::<usize>();
    let room = usize::from(area.width).saturating_sub(figures + usize::from(POOL_NAME_WIDTH) + 1);
    let curve = if room < MIN_CURVE { 0 } else { room };
    let row = |pool: &PoolSecond| {
        let p99 = state.pool_history(&pool.name).map(|pool| look.curve(pool.p99_ms.iter().copied(), curve));
        let figures = shown.iter().map(|figure| right((figure.text)(pool)));
        let name = Cell::from(look.text(&pool.name));
        Row::new([name].into_iter().chain(figures).chain([Cell::from(p99.unwrap_or_default())]))
    };
    let curve_head = Cell::from(if curve > 0 { "P99" } else { "" });
    let heads = Row::new([Cell::from("POOL")].into_iter().chain(heads(&shown)).chain([curve_head]));
    let widths = [POOL_NAME_WIDTH].into_iter().chain(shown.iter().map(|figure| figure.width)).map(Constraint::Length);
    let widths = widths.chain([Constraint::Min(0)]);
    let count = usize::from(area.height.saturating_sub(1));
    let rows = pools.iter().take(count).map(row);
    frame.render_widget(Table::new(rows, widths).header(heads.style(look.head())), area);
}

fn backend_table(frame: &mut Frame<'_>, area: Rect, state: &State, look: &TerminalStyle) {
    let rows = state.rows();
    let marked = state.list.marked_row(&rows);
    let figures = backend_figures();
    let shown = fitting(&figures, area.width.saturating_sub(BACKEND_NAME_WIDTH + STATE_WIDTH + 1));
    let cells = rows.iter().map(|row| {
        let backend = row.backend;
        let name = Cell::from(look.text(&format!("{}/{}", row.pool.name, backend.name)));
        let state = right(look.text(&backend.state)).style(look.backend(&backend.state));
        Row::new([name, state].into_iter().chain(shown.iter().map(|figure| right((figure.text)(row)))))
    });
    let heads = [Cell::from("POOL/BACKEND"), right("STATE".to_owned())].into_iter().chain(heads(&shown));
    let widths = [Constraint::Min(BACKEND_NAME_WIDTH), Constraint::Length(STATE_WIDTH)];
    let widths = widths.into_iter().chain(shown.iter().map(|figure| Constraint::Length(figure.width)));
    let table = Table::new(cells, widths)
        .header(Row::new(heads).style(look.head()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut table_state = TableState::new().with_selected((!rows.is_empty()).then_some(marked));
    frame.render_stateful_widget(table, area, &mut table_state);
}

fn backend_figures<'s>() -> [Figure<BackendRow<'s>>; 7] {
    [
        Figure { head: "Q/S", width: 6, rank: 0, text: |row| count(row.backend.attempts) },
        Figure { head: "WINS", width: 6, rank: 5, text: |row| count(row.backend.wins) },
        Figure { head: "ERR", width: 5, rank: 2, text: |row| count(row.errors) },
        Figure { head: "TMO", width: 5, rank: 3, text: |row| count(row.timeouts) },
        Figure { head: "INFL", width: 6, rank: 6, text: |row| count(row.backend.in_flight) },
        Figure { head: "P50 ms", width: 7, rank: 4, text: |row| ms(row.backend.p50_ms) },
        Figure { head: "P99 ms", width: 7, rank: 1, text: |row| ms(row.backend.p99_ms) },
    ]
}

/// Returns the columns that fit the width, in their order. The first to be left out have the highest ranks.
fn fitting<T>(figures: &[Figure<T>], width: u16) -> Vec<&Figure<T>> {
    let mut shown: Vec<_> = figures.iter().collect();
    while shown.iter().map(|figure| figure.width + 1).sum::<u16>() > width {
        let last = shown.iter().enumerate().max_by_key(|(_, figure)| figure.rank).map(|(place, _)| place);
        last.map(|place| shown.remove(place));
    }
    shown
}

fn heads<T>(shown: &[&Figure<T>]) -> impl Iterator<Item = Cell<'static>> {
    shown.iter().map(|figure| right(figure.head.to_owned()))
}

fn backend(frame: &mut Frame<'_>, area: Rect, state: &State, look: &TerminalStyle) {
    let rows = state.rows();
    let Some(row) = rows.get(state.list.marked_row(&rows)) else {
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
    let reasons = state.second.as_ref().map_or(&[][..], |second| &second.verdict.reasons);
    let own = reasons.iter().filter(|reason| reason.text.contains(&backend.name));
    lines.extend(own.map(|reason| Line::raw(look.text(&reason.text))));
    let races =
        state.slow_races().iter().filter(|race| race.attempts.iter().any(|attempt| attempt.backend == backend.name));
    lines.extend(races.map(|race| race_line(race, look)));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn races(frame: &mut Frame<'_>, area: Rect, state: &State, look: &TerminalStyle) {
    let text = match &state.races.found {
        Some(Ok(races)) if races.is_empty() => Text::raw("no slow races"),
        Some(Ok(races)) => {
            let races = races.iter().skip(state.races.scrolled);
            let lines =
                races.flat_map(|race| [race_line(race, look), Line::raw(format!("    {}", look.text(&race.why)))]);
            Text::from(lines.collect::<Vec<_>>())
        }
        Some(Err(message)) => Text::raw(format!("slow races are not available: {}", look.text(message))),
        None => Text::raw(format!("asking for slow races{}", look.ellipsis())),
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

fn keys(state: &State) -> &'static str {
    match state.view {
        _ if state.list.is_typing => "type a part of a name; Enter keeps it, Esc ends it",
        TopView::All => "q quit  ? help  s sort  / filter  Enter detail  l slow races  p pause",
        TopView::Backend => "Esc back  up/down the next one  l slow races  q quit",
        TopView::Races => "Esc back  up/down scroll  q quit",
        TopView::Help => "Esc back  q quit",
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

/// The narrowest curve that shows anything.
const MIN_CURVE: usize = 10;

const POOL_NAME_WIDTH: u16 = 12;

const BACKEND_NAME_WIDTH: u16 = 16;

const STATE_WIDTH: u16 = 8;

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
mod tests;
