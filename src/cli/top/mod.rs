//! `hedgerow top`: what the page of the admin server shows, in a terminal. It reads and never changes anything.
//!
//! ```text
//! connection --JSON--> state (what is known, what is looked at) --draw--> terminal
//!                        ^ keys                             \---text--> stdout, once
//! ```
//!
//! `state` is a value that takes data and keys; `draw` is a function of it. `terminal` takes the terminal and gives it back as it was,
//! whatever happens in between. Here is the loop that waits: for data, for keys, for the clock, for signals.

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
use futures_core::Stream;
use serde::Deserialize;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use self::look::Look;
use self::state::{Act, Data, State, Wants};
use self::terminal::Screen;
use super::ctl::Trouble;
use super::ctl::connection::{Connection, Target};
use super::{EXIT_USAGE, print};
use crate::sight::live::{History, Second};
use crate::sight::slow::SlowRace;

/// The options.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The admin server, http://HOST:PORT or unix:PATH [default: the config's, or http://127.0.0.1:5380 if it has none]
    #[arg(long, value_name = "URL")]
    admin: Option<Target>,
    /// The token that names need by HTTP [default: the config's, if the admin server is]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How often the server is asked, 100ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = read_interval)]
    interval: Duration,
    /// Print one page of plain text; so it is without a terminal, too
    #[arg(long)]
    once: bool,
    /// Draw with ASCII alone; so it is in a locale without UTF-8, too
    #[arg(long)]
    ascii: bool,
}

/// Reads how often the server is asked.
fn read_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|_| "expected a duration such as \"1s\"".to_owned())?;
    let bounds = MIN_INTERVAL..=MAX_INTERVAL;
    if bounds.contains(&interval) { Ok(interval) } else { Err("expected a duration from 100ms to 1h".to_owned()) }
}

/// Oftener than this nothing new can be seen, and the server has other things to do.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Who looks more rarely wants `--once`.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// How long the server is waited for; then it is asked anew.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many slow races are shown.
const SLOW_RACES: usize = 100;

/// Runs the command.
///
/// 0: left by a key, or printed. 1: the server cannot be reached (`--once`), or the terminal. 2: the command line or the config is
/// wrong. 128 and the number of a signal that ended it.
pub(super) fn run(args: &Args, config: Option<&Path>) -> ExitCode {
    let connection = match Connection::find(args.admin.as_ref(), args.token_file.as_deref(), config) {
        Ok(connection) => connection,
        Err(trouble) => return told(&trouble),
    };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if args.once || !is_terminal || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return match runtime.block_on(connection.fetch("live?once", PATIENCE)) {
            Ok(second) => print(text::page(&second, connection.target()).as_bytes()),
            Err(trouble) => told(&trouble),
        };
    }
    let look = Look::of(args.ascii);
    let state = State::new(connection.target().to_string(), args.interval, Instant::now());
    let ran = Screen::open().and_then(|screen| runtime.block_on(watch(screen, &connection, state, &look)));
    match ran {
        Ok(Left::ByKey) => ExitCode::SUCCESS,
        Ok(Left::BySignal(number)) => ExitCode::from(128 + number),
        Err(error) => failed(&error),
    }
}

/// Tells why the server was not asked.
fn told(trouble: &Trouble) -> ExitCode {
    let (message, code) = match trouble {
        Trouble::Usage(message) => (message, ExitCode::from(EXIT_USAGE)),
        Trouble::Server(message) => (message, ExitCode::FAILURE),
    };
    eprintln!("hedgerow: {message}");
    code
}

/// Tells what went wrong with the terminal.
fn failed(error: &io::Error) -> ExitCode {
    eprintln!("hedgerow: the terminal cannot be used: {error}");
    ExitCode::FAILURE
}

/// Why the screen was left.
enum Left {
    /// `q` or Ctrl-C.
    ByKey,
    /// A signal of this number.
    BySignal(u8),
}

/// Draws, and waits for whatever comes first.
async fn watch(mut screen: Screen, connection: &Connection, mut state: State, look: &Look) -> io::Result<Left> {
    let mut events = EventStream::new();
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| Ok::<_, io::Error>((signal(kind)?, u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX))))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let mut ticks = interval(state.interval().min(Duration::from_secs(1)));
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
                    Some(Act::Leave) => return Ok(Left::ByKey),
                    Some(Act::Suspend) => screen.suspend()?,
                    None => {}
                },
                // Drawn anew in the new size, at the top of the loop.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(Left::ByKey),
            },
            number = first_of(&mut ends) => return Ok(Left::BySignal(number)),
            _ = ticks.tick() => {}
        }
    }
}

/// Waits for the first of these signals.
async fn first_of(signals: &mut [(Signal, u8)]) -> u8 {
    poll_fn(|cx| {
        let is_come = |(signal, number): &mut (Signal, u8)| signal.poll_recv(cx).is_ready().then_some(*number);
        signals.iter_mut().find_map(is_come).map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Asks the server for what is wanted.
async fn ask(connection: &Connection, wants: Wants) -> Data {
    let message = |trouble| match trouble {
        Trouble::Usage(message) | Trouble::Server(message) => message,
    };
    let second: Result<Second, _> = connection.fetch("live?once", PATIENCE).await.map_err(message);
    let is_there = second.is_ok();
    let history: Option<History> = match wants.history && is_there {
        // An older server, or one that has just begun, has none: the curves begin now.
        true => connection.fetch("history?span=10m", PATIENCE).await.ok(),
        false => None,
    };
    let races = match wants.races && is_there {
        true => {
            let races: Result<Races, _> = connection.fetch(&format!("slow?limit={SLOW_RACES}"), PATIENCE).await;
            Some(races.map(|races| races.races).map_err(message))
        }
        false => None,
    };
    Data { second, history, races }
}

/// What `/api/v1/slow` answers.
#[derive(Deserialize)]
struct Races {
    /// The newest first.
    races: Vec<SlowRace>,
}
