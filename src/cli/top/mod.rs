//! `hedgerow top`: shows the data of the admin page in a terminal, without changing anything.
//!
//! ```text
//! connection --JSON--> state (data, view) --draw--> terminal
//!                        ^ keys           \--text--> stdout, once
//! ```
//!
//! `state` takes data and keys; `draw` is a function of it. `terminal` always restores the terminal. This
//! file has the loop that waits for data, keys, the clock and signals.

mod draw;
mod look;
mod state;
mod terminal;
mod text;

use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::task::Poll;
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream};
use engine::slow::SlowRacesReport;
use futures_core::Stream;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use self::look::TerminalStyle;
use self::state::{Act, Data, State, Wants};
use self::terminal::Screen;
use super::ctl::CommandFailure;
use super::ctl::connection::{AdminConnection, AdminTarget};
use super::{failure, print};
use crate::control::observe::sight::live::Second;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The admin server, http://HOST:PORT or unix:PATH [default: the config's, or http://127.0.0.1:5380 if it
    /// has none]
    #[arg(long, value_name = "URL")]
    admin: Option<AdminTarget>,
    /// The token for names by HTTP [default: that of the config, for its admin server]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The refresh interval, 100ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = read_interval)]
    interval: Duration,
    /// Print one page of plain text; the default without a terminal
    #[arg(long)]
    once: bool,
    /// Draw with ASCII only; the default in a locale without UTF-8
    #[arg(long)]
    ascii: bool,
}

fn read_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|_| "expected a duration such as \"1s\"".to_owned())?;
    let bounds = MIN_INTERVAL..=MAX_INTERVAL;
    if bounds.contains(&interval) { Ok(interval) } else { Err("expected a duration from 100ms to 1h".to_owned()) }
}

/// A shorter interval shows nothing new and loads the server.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// For a longer interval, `--once` is better.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

const PATIENCE: Duration = Duration::from_secs(5);

const SLOW_RACES: usize = 100;

/// Runs the command. Exit status 0: left by a key, or printed. 1: the server cannot be reached (`--once`), or
/// the terminal failed. 2: the command line or the config is wrong. 128 plus the number of a signal that
/// ended it.
pub(super) fn run(args: &Args, config: Option<&Path>) -> ExitCode {
    let connection = match AdminConnection::find(args.admin.as_ref(), args.token_file.as_deref(), config) {
        Ok(connection) => connection,
        Err(trouble) => return trouble.report("hedgerow"),
    };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if args.once || !is_terminal || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return match runtime.block_on(connection.fetch("live?once", PATIENCE)) {
            Ok(second) => print(text::page(&second, connection.target()).as_bytes()),
            Err(trouble) => trouble.report("hedgerow"),
        };
    }
    let look = TerminalStyle::of(args.ascii);
    let state = State::new(connection.target().to_string(), args.interval, Instant::now());
    let ran = Screen::open().and_then(|screen| runtime.block_on(watch(screen, &connection, state, &look)));
    ran.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &io::Error) -> ExitCode {
    failure(format_args!("hedgerow: the terminal cannot be used: {error}"))
}

/// Draws the screen until a key or a signal ends the program, and returns its exit status.
async fn watch(
    mut screen: Screen,
    connection: &AdminConnection,
    mut state: State,
    look: &TerminalStyle,
) -> io::Result<ExitCode> {
    let mut events = EventStream::new();
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| Ok::<_, io::Error>((signal(kind)?, u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX))))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let mut ticks = interval(state.interval.min(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking: Option<Pin<Box<dyn Future<Output = Data> + '_>>> = None;
    loop {
        if asking.is_none()
            && let Some(wants) = state.wants(Instant::now())
        {
            asking = Some(Box::pin(ask(connection, wants)));
        }
        screen.draw(|frame| draw::draw(frame, &state, look, Instant::now()))?;
        let answer = async {
            match &mut asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            data = answer => {
                asking = None;
                state.take(data, Instant::now());
            }
            event = poll_fn(|cx| pin!(&mut events).poll_next(cx)) => match event {
                Some(Ok(Event::Key(key))) => match state.press(key) {
                    Some(Act::Leave) => return Ok(ExitCode::SUCCESS),
                    Some(Act::Suspend) => screen.suspend()?,
                    None => {}
                },
                // The top of the loop redraws in the new size.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(ExitCode::SUCCESS),
            },
            number = first_of(&mut ends) => return Ok(ExitCode::from(128 + number)),
            _ = ticks.tick() => {}
        }
    }
}

async fn first_of(signals: &mut [(Signal, u8)]) -> u8 {
    poll_fn(|cx| {
        let is_come = |(signal, number): &mut (Signal, u8)| signal.poll_recv(cx).is_ready().then_some(*number);
        signals.iter_mut().find_map(is_come).map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

async fn ask(connection: &AdminConnection, wants: Wants) -> Data {
    let message = |trouble: CommandFailure| trouble.to_string();
    let second: Result<Second, _> = connection.fetch("live?once", PATIENCE).await.map_err(message);
    let is_there = second.is_ok();
    let mut data = Data { second, history: None, races: None };
    if wants.history && is_there {
        // A server that is older or has just started has no history; the curves start empty.
        data.history = connection.fetch("history?span=10m", PATIENCE).await.ok();
    }
    if wants.races && is_there {
        let path = format!("slow?limit={SLOW_RACES}");
        let races: Result<SlowRacesReport, _> = connection.fetch(&path, PATIENCE).await;
        data.races = Some(races.map(|races| races.races).map_err(message));
    }
    data
}
