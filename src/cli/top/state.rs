//! The data and view of `hedgerow top`: a value that takes data and keys, without I/O.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use engine::slow::SlowRace;

use crate::control::observe::sight::live::{
    BackendHistory, BackendSecond, HistoryFigures, PoolHistory, PoolSecond, Second,
};

pub(super) struct State {
    pub(super) target: String,
    pub(super) interval: Duration,
    pub(super) second: Option<Second>,
    /// The time of the last data, or of the start.
    updated: Instant,
    /// The error of the last request, and the time of the first failure since the last success.
    trouble: Option<(String, Instant)>,
    asked: Option<Instant>,
    /// The server's history of the last ten minutes and the seconds since, and its arrival time.
    pub(super) history: HistoryFigures,
    history_at: Option<Instant>,
    pub(super) races: RaceList,
    pub(super) view: TopView,
    pub(super) list: BackendList,
    pub(super) is_paused: bool,
}

#[derive(Default)]
pub(super) struct RaceList {
    pub(super) found: Option<Result<Vec<SlowRace>, String>>,
    is_asked: bool,
    pub(super) scrolled: usize,
}

pub(super) struct BackendList {
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) is_typing: bool,
    marked: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopView {
    All,
    Backend,
    Races,
    Help,
}

dns::labels! {
    pub(super) enum Sort {
        Worst = "worst first",
        P99 = "by p99",
        Queries = "by queries",
        Name = "by name",
    }
}

impl Sort {
    fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Leave,
    /// Stop the process until the shell continues it.
    Suspend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) history: bool,
    pub(super) races: bool,
}

pub(super) struct Data {
    pub(super) second: Result<Second, String>,
    pub(super) history: Option<HistoryFigures>,
    pub(super) races: Option<Result<Vec<SlowRace>, String>>,
}

pub(super) struct Row<'s> {
    pub(super) pool: &'s PoolSecond,
    pub(super) backend: &'s BackendSecond,
    pub(super) errors: u64,
    pub(super) timeouts: u64,
}

impl State {
    pub(super) fn new(target: String, interval: Duration, now: Instant) -> Self {
        Self {
            target,
            interval,
            second: None,
            updated: now,
            trouble: None,
            asked: None,
            history: HistoryFigures::default(),
            history_at: None,
            races: RaceList::default(),
            view: TopView::All,
            list: BackendList { sort: Sort::Worst, filter: String::new(), is_typing: false, marked: None },
            is_paused: false,
        }
    }

    /// Returns the data to fetch, if it is time. Call it after the last response has arrived.
    pub(super) fn wants(&mut self, now: Instant) -> Option<Wants> {
        let is_due = self.asked.is_none_or(|asked| now.duration_since(asked) >= self.interval);
        if !std::mem::take(&mut self.races.is_asked) && (self.is_paused || !is_due) {
            return None;
        }
        self.asked = Some(now);
        let is_old = |updated| now.duration_since(updated) >= HISTORY_EVERY;
        let history = self.trouble.is_some() || self.history_at.is_none_or(is_old);
        Some(Wants { history, races: self.view == TopView::Races })
    }

    pub(super) fn take(&mut self, data: Data, now: Instant) {
        match data.second {
            Ok(second) => {
                self.trouble = None;
                self.updated = now;
                if let Some(history) = data.history {
                    (self.history, self.history_at) = (history, Some(now));
                    self.second.iter().for_each(|known| extend(&mut self.history, known));
                }
                extend(&mut self.history, &second);
                self.second = Some(second);
                if data.races.is_some() {
                    self.races.found = data.races;
                }
            }
            Err(message) => {
                let since = self.trouble.take().map_or(now, |(_, since)| since);
                self.trouble = Some((message, since));
            }
        }
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Act> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Act::Leave),
                KeyCode::Char('z') => Some(Act::Suspend),
                _ => None,
            };
        }
        if self.list.is_typing {
            self.list.type_filter(key.code);
            return None;
        }
        match key.code {
            KeyCode::Char('q') => return Some(Act::Leave),
            KeyCode::Char('?' | 'h') => self.turn_to(TopView::Help),
            KeyCode::Char('l') => {
                self.races = RaceList { is_asked: true, ..RaceList::default() };
                self.turn_to(TopView::Races);
            }
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => self.list.sort = self.list.sort.next(),
            KeyCode::Char('/') => {
                self.view = TopView::All;
                self.list.is_typing = true;
            }
            KeyCode::Enter if self.view == TopView::All && !self.rows().is_empty() => {
                // Without a mark, the first backend becomes marked, so that the view stays with it.
                self.mark(0);
                self.view = TopView::Backend;
            }
            KeyCode::Esc if self.view == TopView::All => self.list.filter.clear(),
            KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace => self.view = TopView::All,
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-10),
            KeyCode::PageDown => self.step(10),
            KeyCode::Home => self.step(isize::MIN / 2),
            KeyCode::End => self.step(isize::MAX / 2),
            _ => {
                #[cfg(feature = "faults")]
                assert!(key.code != KeyCode::Char('!'), "asked to panic");
            }
        }
        None
    }

    /// Switches to a view, or back to the main view if it is shown already.
    fn turn_to(&mut self, view: TopView) {
        self.view = if self.view == view { TopView::All } else { view };
    }

    fn step(&mut self, by: isize) {
        if self.view == TopView::Races {
            let last = self.slow_races().len().saturating_sub(1);
            self.races.scrolled = self.races.scrolled.saturating_add_signed(by).min(last);
        } else {
            self.mark(by);
        }
    }

    fn mark(&mut self, by: isize) {
        let rows = self.rows();
        let index = self.list.marked_row(&rows).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        let marked = rows.get(index).map(|row| (row.pool.name.clone(), row.backend.name.clone()));
        self.list.marked = marked;
    }

    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let pools = self.second.iter().flat_map(|second| &second.pools);
        let all = pools.flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
        let wanted = self.list.filter.to_lowercase();
        let is_wanted = |name: &str| name.to_lowercase().contains(&wanted);
        let mut rows: Vec<Row<'_>> = all
            .filter(|(pool, backend)| is_wanted(&pool.name) || is_wanted(&backend.name))
            .map(|(pool, backend)| {
                let minute = self.backend_history(&pool.name, &backend.name).map(|backend| {
                    let sum = |counts: &[Option<u64>]| counts.iter().rev().take(MINUTE).flatten().sum::<u64>();
                    (sum(&backend.errors), sum(&backend.timeouts))
                });
                let (errors, timeouts) = minute.unwrap_or_default();
                let (errors, timeouts) = (errors.max(backend.errors), timeouts.max(backend.timeouts));
                Row { pool, backend, errors, timeouts }
            })
            .collect();
        let by_name = |a: &Row<'_>, b: &Row<'_>| (&a.pool.name, &a.backend.name).cmp(&(&b.pool.name, &b.backend.name));
        rows.sort_by(|a, b| {
            let order = match self.list.sort {
                Sort::Worst => {
                    let faults = |row: &Row<'_>| row.errors + row.timeouts;
                    let state = state_rank(&a.backend.state).cmp(&state_rank(&b.backend.state));
                    state.then(faults(b).cmp(&faults(a))).then_with(|| worst_first(a.backend, b.backend))
                }
                Sort::P99 => slowest_first(a.backend, b.backend),
                Sort::Queries => b.backend.attempts.cmp(&a.backend.attempts),
                Sort::Name => Ordering::Equal,
            };
            order.then_with(|| by_name(a, b))
        });
        rows
    }

    pub(super) fn trouble(&self, now: Instant) -> Option<(&str, Duration)> {
        self.trouble.as_ref().map(|(message, since)| (message.as_str(), now.duration_since(*since)))
    }

    /// Returns the age of the shown data if it is at least 5 s although new data was requested.
    pub(super) fn stale_for(&self, now: Instant) -> Option<Duration> {
        let age = now.duration_since(self.updated);
        (!self.is_paused && age > STALE.max(2 * self.interval)).then_some(age)
    }

    pub(super) fn pool_history(&self, pool: &str) -> Option<&PoolHistory> {
        self.history.pools.iter().find(|known| known.name == pool)
    }

    pub(super) fn backend_history(&self, pool: &str, backend: &str) -> Option<&BackendHistory> {
        self.pool_history(pool)?.backends.iter().find(|known| known.name == backend)
    }

    pub(super) fn slow_races(&self) -> &[SlowRace] {
        self.races.found.as_ref().and_then(|found| found.as_deref().ok()).unwrap_or_default()
    }
}

/// Adds a second to a history, unless the history includes it.
fn extend(history: &mut HistoryFigures, second: &Second) {
    if history.at.last() >= Some(&second.at) {
        return;
    }
    push(&mut history.at, second.at);
    push(&mut history.answers.queries, second.answers.queries);
    for PoolSecond { name, p99_ms, .. } in &second.pools {
        match history.pools.iter_mut().find(|known| known.name == *name) {
            Some(known) => push(&mut known.p99_ms, *p99_ms),
            None => {
                let (name, p99_ms) = (name.clone(), vec![*p99_ms]);
                history.pools.push(PoolHistory { name, p99_ms, ..PoolHistory::default() });
            }
        }
    }
}

impl BackendList {
    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) => self.filter.push(c),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            KeyCode::Enter => self.is_typing = false,
            _ => {}
        }
    }

    /// Returns the marked row, or the first one if the backend is gone.
    pub(super) fn marked_row(&self, rows: &[Row<'_>]) -> usize {
        let Some((pool, backend)) = &self.marked else { return 0 };
        rows.iter().position(|row| row.pool.name == *pool && row.backend.name == *backend).unwrap_or(0)
    }
}

/// Orders backends by state, then by faults, then by latency.
pub(super) fn worst_first(a: &BackendSecond, b: &BackendSecond) -> Ordering {
    let faults = |backend: &BackendSecond| backend.errors + backend.timeouts;
    state_rank(&a.state).cmp(&state_rank(&b.state)).then(faults(b).cmp(&faults(a))).then(slowest_first(a, b))
}

fn slowest_first(a: &BackendSecond, b: &BackendSecond) -> Ordering {
    let p99 = |backend: &BackendSecond| backend.p99_ms.unwrap_or(-1.0);
    p99(b).total_cmp(&p99(a))
}

fn state_rank(state: &str) -> u8 {
    match state {
        "down" => 0,
        "up" => 2,
        _ => 1,
    }
}

fn push<T>(column: &mut Vec<T>, value: T) {
    if column.len() >= CURVE {
        column.remove(0);
    }
    column.push(value);
}

/// The maximum values of a curve: no terminal is wider.
const CURVE: usize = 600;

/// The interval of history requests: the server counts backends in steps of ten seconds.
const HISTORY_EVERY: Duration = Duration::from_secs(10);

/// The number of such steps in a minute.
const MINUTE: usize = 6;

const STALE: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::observe::sight::live::{AnswerCounts, CacheSecond, HedgesSecond};

    fn backend(name: &str, state: &str, attempts: u64, p99_ms: Option<f64>) -> BackendSecond {
        let p50_ms = p99_ms.map(|p99| p99 / 3.0);
        BackendSecond { name: name.to_owned(), state: state.to_owned(), attempts, p50_ms, p99_ms, ..Default::default() }
    }

    /// Returns a second of a server with a pool of three backends: one is down, and one has a hostile name.
    pub(in crate::cli::top) fn second() -> Second {
        let counts = |of: &[(&str, u64)]| of.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect();
        let down = BackendSecond { timeouts: 3, in_flight: 4, ..backend("ts2", "down", 0, None) };
        let well = BackendSecond { wins: 800, in_flight: 1, ..backend("ts1", "up", 500, Some(0.9)) };
        let slow = BackendSecond { wins: 100, in_flight: 2, ..backend("slow\u{1b}", "up", 500, Some(9.0)) };
        let pool = PoolSecond {
            name: "ts".to_owned(),
            queries: 1_000,
            attempts: 1_020,
            in_flight: 7,
            p50_ms: Some(0.4),
            p99_ms: Some(4.0),
            p999_ms: Some(21.5),
            hedges: HedgesSecond { sent: 20, won: 18, denied: 1, tokens: 9 },
            backends: vec![well, down, slow],
            more_backends: 3,
        };
        let reason = json!({ "code": "backend-down", "text": "ts2 of pool ts has been down for 40 s" });
        Second {
            at: 1_767_225_600,
            verdict: serde_json::from_value(json!({ "state": "watch", "since": 1_767_225_560, "reasons": [reason] }))
                .expect("a verdict"),
            answers: AnswerCounts {
                queries: 1_000,
                responses: counts(&[("backend", 900), ("cache", 100), ("made-up", 0)]),
                dropped: counts(&[("late", 2)]),
                ..AnswerCounts::default()
            },
            cache: Some(CacheSecond { hits: 80, stale_hits: 0, misses: 20 }),
            pools: vec![pool],
        }
    }

    /// Returns the history of that server, which ends a second earlier.
    pub(in crate::cli::top) fn history() -> HistoryFigures {
        let backend = BackendHistory {
            name: "ts1".to_owned(),
            p50_ms: vec![Some(0.3); 60],
            p99_ms: vec![Some(0.9); 60],
            errors: vec![Some(1); 60],
            timeouts: vec![Some(0); 60],
        };
        let pool = PoolHistory {
            name: "ts".to_owned(),
            p99_ms: vec![Some(1.0), None, Some(2.0)],
            backends: vec![backend],
            ..Default::default()
        };
        HistoryFigures {
            step_seconds: 1,
            at: vec![1_767_225_597, 1_767_225_598, 1_767_225_599],
            answers: AnswerCounts { queries: vec![10, 20, 30], ..AnswerCounts::default() },
            pools: vec![pool],
            backend_step_seconds: 10,
            ..Default::default()
        }
    }

    /// Returns the state after one response of the server.
    pub(in crate::cli::top) fn watched(now: Instant) -> State {
        let mut state = State::new("http://127.0.0.1:5380".to_owned(), Duration::from_secs(1), now);
        assert_eq!(state.wants(now), Some(Wants { history: true, races: false }));
        state.take(Data { second: Ok(second()), history: Some(history()), races: None }, now);
        state
    }

    pub(in crate::cli::top) fn press(state: &mut State, keys: &str) -> Option<Act> {
        let code = |c| match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            'v' => KeyCode::Down,
            c => KeyCode::Char(c),
        };
        keys.chars().map(|c| state.press(KeyEvent::from(code(c)))).last().flatten()
    }

    fn names(state: &State) -> Vec<&str> {
        state.rows().iter().map(|row| row.backend.name.trim_end_matches('\u{1b}')).collect()
    }

    #[test]
    fn backends_are_sorted_as_asked_and_filtered() {
        let mut state = watched(Instant::now());
        // ts1 has failed six times in the last minute.
        assert_eq!(names(&state), ["ts2", "ts1", "slow"]);
        for expected in [["slow", "ts1", "ts2"], ["slow", "ts1", "ts2"], ["slow", "ts1", "ts2"]] {
            press(&mut state, "s");
            assert_eq!(names(&state), expected, "{:?}", state.list.sort);
        }
        press(&mut state, "s/TS1");
        assert_eq!((names(&state), (state.list.filter.as_str(), state.list.is_typing)), (vec!["ts1"], ("TS1", true)));
    }

    #[test]
    fn a_filter_is_typed_kept_and_left() {
        let mut state = watched(Instant::now());
        state.second.as_mut().expect("one").pools[0].name = "zone".to_owned();
        assert_eq!(press(&mut state, "/q"), None, "a letter of the filter");
        assert_eq!(names(&state), Vec::<&str>::new());
        state.press(KeyEvent::from(KeyCode::Backspace));
        press(&mut state, "Ts\n");
        assert_eq!(
            (names(&state), (state.list.filter.as_str(), state.list.is_typing)),
            (vec!["ts2", "ts1"], ("Ts", false))
        );
        press(&mut state, "\u{1b}");
        assert_eq!(names(&state).len(), 3);
    }

    #[test]
    fn the_mark_stays_with_its_backend() {
        let mut state = watched(Instant::now());
        press(&mut state, "v");
        assert_eq!(state.list.marked_row(&state.rows()), 1);
        press(&mut state, "s");
        assert_eq!(state.rows()[state.list.marked_row(&state.rows())].backend.name, "ts1");
        press(&mut state, "vvvvvv");
        assert_eq!(state.list.marked_row(&state.rows()), 2);
        press(&mut state, "\n");
        assert_eq!(state.view, TopView::Backend);
        press(&mut state, "\n");
        assert_eq!(state.view, TopView::All);
    }

    #[test]
    fn curves_begin_with_the_history_and_have_no_second_twice() {
        let now = Instant::now();
        let mut state = watched(now);
        assert_eq!(state.history.answers.queries, [10, 20, 30, 1_000]);
        assert_eq!(state.history.pools[0].p99_ms, [Some(1.0), None, Some(2.0), Some(4.0)]);
        state.take(Data { second: Ok(second()), history: None, races: None }, now);
        assert_eq!(state.history.answers.queries.len(), 4);
        let next = Second { at: second().at + 1, ..second() };
        state.take(Data { second: Ok(next.clone()), history: None, races: None }, now);
        assert_eq!(state.history.answers.queries.len(), 5);
        // The longer history includes that second.
        let mut longer = history();
        longer.at.extend([next.at - 1, next.at]);
        longer.answers.queries.extend([1_000, 1_000]);
        state.take(Data { second: Ok(next), history: Some(longer), races: None }, now);
        assert_eq!(state.history.answers.queries.len(), 5);
    }

    #[test]
    fn the_server_is_asked_in_time_and_not_while_paused() {
        let now = Instant::now();
        let mut state = watched(now);
        assert_eq!(state.wants(now + Duration::from_millis(999)), None);
        assert_eq!(state.wants(now + Duration::from_secs(1)), Some(Wants { history: false, races: false }));
        assert!(state.wants(now + Duration::from_secs(10)).expect("due").history);
        press(&mut state, "p");
        assert_eq!(state.wants(now + Duration::from_secs(60)), None);
        assert_eq!(state.stale_for(now + Duration::from_secs(60)), None);
        press(&mut state, "l");
        assert!(state.wants(now + Duration::from_secs(60)).expect("asked for by a key").races);
    }

    #[test]
    fn a_server_that_is_gone_is_told_and_asked_again() {
        let now = Instant::now();
        let mut state = watched(now);
        let gone = || Data { second: Err("refused".to_owned()), history: None, races: None };
        state.take(gone(), now + Duration::from_secs(1));
        state.take(gone(), now + Duration::from_secs(2));
        assert_eq!(state.trouble(now + Duration::from_secs(4)), Some(("refused", Duration::from_secs(3))));
        assert_eq!(state.stale_for(now + Duration::from_secs(5)), None);
        assert_eq!(state.stale_for(now + Duration::from_secs(6)), Some(Duration::from_secs(6)));
        assert!(state.second.is_some(), "what was known is still shown");
        assert!(state.wants(now + Duration::from_secs(6)).expect("due").history, "what was missed");
        state.take(Data { second: Ok(second()), history: None, races: None }, now + Duration::from_secs(6));
        assert_eq!(state.trouble(now + Duration::from_secs(6)), None);
    }

    #[test]
    fn keys_leave() {
        let mut state = watched(Instant::now());
        assert_eq!(press(&mut state, "?q"), Some(Act::Leave));
        for (c, act) in [('c', Act::Leave), ('z', Act::Suspend)] {
            let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
            assert_eq!(state.press(key), Some(act));
        }
    }
}
