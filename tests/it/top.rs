//! `hedgerow top` as it is used: in a terminal, which here is tmux's, beside a stand-in for the admin server
//! whose figures the test chooses. What it leaves behind is seen by `stty`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hedgerow::control::observe::sight::live::{AnswerCounts, BackendSecond, PoolSecond, Reason, Second, VerdictState};
use testkit::*;

/// A stand-in for the admin server that reports the seconds of the test.
struct LiveServer {
    address: SocketAddr,
    /// None: connections are closed without a word, as by a server that ends.
    second: Arc<Mutex<Option<Second>>>,
}

impl LiveServer {
    /// Starts with a second in which all is well.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let address = listener.local_addr().expect("it is bound");
        let second = Arc::new(Mutex::new(Some(well(1_767_225_600))));
        let reported = Arc::clone(&second);
        // It ends with the process: its tests are a few.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let second = reported.lock().expect("nothing panics here").clone();
                if let Some(second) = second {
                    answer_one(stream, &second);
                }
            }
        });
        Self { address, second }
    }

    /// Replaces the second that it reports.
    fn publish(&self, second: Option<Second>) {
        *self.second.lock().expect("nothing panics here") = second;
    }
}

fn answer_one(mut stream: TcpStream, second: &Second) {
    let mut request = Vec::new();
    let mut octets = [0; 1024];
    while !request.windows(4).any(|octets| octets == b"\r\n\r\n") {
        match stream.read(&mut octets) {
            Ok(count @ 1..) => request.extend(&octets[..count]),
            _ => return,
        }
    }
    let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, body) = if path.starts_with("/api/v1/live") {
        ("200 OK", serde_json::to_string(second).expect("plain data"))
    } else if path.starts_with("/api/v1/slow") {
        let race = serde_json::json!({
            "at": 1_767_225_599.5, "pool": "ts", "name": "slow.example.", "type": "A", "took_ms": 180.0, "outcome": "won",
            "winner": "ts2", "rcode": "NOERROR", "waiters": 1, "hedges_denied": 0, "denied": null, "all_down": false,
            "why": "ts1 silent", "attempts": [],
        });
        ("200 OK", serde_json::json!({ "races": [race] }).to_string())
    } else {
        ("404 Not Found", "{\"error\":\"not here\"}".to_owned())
    };
    // The client may be gone.
    let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
}

/// A second of a server with 40 backends.
fn well(at: u64) -> Second {
    let backend = |n: usize| BackendSecond {
        name: format!("ts{n}"),
        state: "up".to_owned(),
        attempts: 10,
        p50_ms: Some(0.5),
        p99_ms: Some(1.0 + n as f64 / 100.0),
        ..Default::default()
    };
    let backends = (1..=40).map(backend).collect();
    let pool = PoolSecond { name: "ts".to_owned(), queries: 400, attempts: 400, backends, ..Default::default() };
    let answers = AnswerCounts { queries: 400, ..Default::default() };
    Second { at, answers, pools: vec![pool], ..Default::default() }
}

/// The same when one backend has died.
fn dead(at: u64, name: &str) -> Second {
    let mut second = well(at);
    second.verdict.state = VerdictState::Watch;
    let text = format!("{name} of pool ts has been down for 40 s");
    second.verdict.reasons.push(Reason { code: "backend-down".to_owned(), text });
    let backend = second.pools[0].backends.iter_mut().find(|backend| backend.name == name).expect("it is there");
    backend.state = "down".to_owned();
    second
}

/// A terminal of tmux with a shell in it.
struct Terminal {
    /// The name of its server, which is another one for each terminal.
    name: String,
}

impl Terminal {
    /// Opens a terminal of 100 columns and 30 lines, or reports that there is no tmux.
    fn open(test: &str, environment: &[(&str, &str)]) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            leave_out(test, "there is no tmux");
            return None;
        }
        // A server that was ended may still be there when a test opens the next: each has a name of its own.
        static OPENED: AtomicU32 = AtomicU32::new(0);
        let number = OPENED.fetch_add(1, Relaxed);
        let terminal = Self { name: format!("hedgerow-{test}-{}-{number}", std::process::id()) };
        // tmux sets the variable TERM itself: what is wanted is for what runs in it.
        let environment: Vec<_> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let shell = format!("env PS1='ready> ' {} sh", environment.join(" "));
        let arguments = ["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", &shell];
        let opened = terminal.tmux(&arguments);
        assert!(opened.status.success(), "{opened:?}");
        terminal.wait("a prompt", |screen| screen.contains("ready>"));
        Some(terminal)
    }

    /// Runs a command of tmux.
    fn tmux(&self, arguments: &[&str]) -> Output {
        // UTF-8 is what it draws, whatever the tests run in.
        let mut command = Command::new("tmux");
        command.args(["-u", "-L", &self.name]).args(arguments).env_remove("TMUX").env_remove("NO_COLOR");
        command.output().expect("it was there before")
    }

    fn press(&self, keys: &[&str]) {
        let typed = self.tmux(&[&["send-keys"], keys].concat());
        assert!(typed.status.success(), "{typed:?}");
    }

    fn enter(&self, line: &str) {
        self.press(&["-l", line]);
        self.press(&["Enter"]);
    }

    /// Returns the text on the screen.
    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// Waits until the screen is as wanted. Each look is a process of its own, so that this does not spin.
    fn wait(&self, what: &str, is_right: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let screen = self.screen();
            if is_right(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}\n{screen}");
        }
    }

    /// Runs `hedgerow top` beside this server, between two looks of `stty` at the terminal.
    fn watch(&self, reported: &LiveServer, options: &str) {
        let top = env!("CARGO_BIN_EXE_hedgerow");
        // The size may be another one afterwards.
        let look = "stty -a | sed 's/rows [0-9]*; columns [0-9]*;//'";
        self.enter(&format!(
            "clear; {look} >before; '{top}' top --admin {} {options}; echo code=$?; {look} >after; \
             cmp before after && echo sane",
            reported.address
        ));
    }

    /// Waits until it has ended with this code, and the terminal is as it was.
    fn check_end(&self, code: u8) -> String {
        let ended = self.wait("the end", |screen| screen.contains("code=") && screen.trim_end().ends_with("ready>"));
        assert!(ended.contains(&format!("code={code}\n")) && ended.contains("sane\n"), "{ended}");
        let cursor = self.tmux(&["display-message", "-p", "#{cursor_flag}#{alternate_on}"]).stdout;
        assert_eq!(String::from_utf8_lossy(&cursor).trim(), "10", "the cursor is shown, and the first screen");
        ended
    }

    /// The process that runs in the terminal besides the shell.
    fn top_pid(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]).stdout;
        let shell = String::from_utf8_lossy(&shell).trim().to_owned();
        let children = format!("/proc/{shell}/task/{shell}/children");
        until("the program", || std::fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The server of this test alone.
        self.tmux(&["kill-server"]);
    }
}

/// Changes into a folder of the test.
fn enter_folder(terminal: &Terminal) -> tempfile::TempDir {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    terminal.enter(&format!("cd '{}'", folder.path().display()));
    folder
}

/// The environment of a terminal as most are. What a panic says is to fit on the screen.
const USUAL: [(&str, &str); 3] = [("TERM", "screen-256color"), ("LC_ALL", "C.UTF-8"), ("RUST_BACKTRACE", "0")];

#[test]
fn a_death_is_seen_sorted_filtered_and_looked_at() {
    let Some(terminal) = Terminal::open("a_death_is_seen", &USUAL) else { return };
    let _folder = enter_folder(&terminal);
    let reported = LiveServer::start();
    terminal.watch(&reported, "--interval 100ms");
    let screen = terminal.wait("the figures", |screen| screen.contains("ts/ts40"));
    assert!(
        screen.starts_with(" OK  ") && screen.contains(" hedgerow top  ") && screen.contains("400 queries a second"),
        "{screen}"
    );
    reported.publish(Some(dead(1_767_225_601, "ts7")));
    let screen = terminal.wait("the death", |screen| screen.starts_with(" watch "));
    assert!(screen.contains("ts7 of pool ts has been down for 40 s"), "{screen}");
    let first = screen.lines().skip_while(|line| !line.starts_with("POOL/BACKEND")).nth(1).expect("a row");
    assert!(first.starts_with("ts/ts7 ") && first.contains(" down "), "{screen}");
    // Sorting, a filter, one backend, the slow races, and a pause.
    terminal.press(&["s"]);
    terminal.wait("the slowest first", |screen| screen.contains("backends by p99"));
    terminal.press(&["/", "t", "s", "3", "9", "Enter"]);
    let screen = terminal.wait("the filter", |screen| screen.contains("only /ts39\n") && !screen.contains("ts/ts40"));
    assert!(screen.contains("ts/ts39"), "{screen}");
    terminal.press(&["Enter"]);
    terminal.wait("the backend", |screen| screen.contains("ts39 of pool ts: up"));
    terminal.press(&["l"]);
    terminal.wait("the slow races", |screen| screen.contains("slow.example. A") && screen.contains("ts1 silent"));
    terminal.press(&["?"]);
    terminal.wait("the help", |screen| screen.contains("sort backends: worst first"));
    terminal.press(&["?", "p"]);
    terminal.wait("the pause", |screen| screen.contains("paused"));
    reported.publish(Some(well(1_767_225_602)));
    terminal.press(&["p"]);
    terminal.wait("what has come since", |screen| screen.starts_with(" OK ") && !screen.contains("paused"));
    terminal.press(&["q"]);
    terminal.check_end(0);
}

#[test]
fn a_server_that_restarts_is_waited_for() {
    let Some(terminal) = Terminal::open("a_server_that_restarts", &USUAL) else { return };
    let _folder = enter_folder(&terminal);
    let reported = LiveServer::start();
    terminal.watch(&reported, "--interval 100ms");
    terminal.wait("the figures", |screen| screen.contains("ts/ts40"));
    reported.publish(None);
    let screen = terminal.wait("the loss", |screen| screen.contains("asking again"));
    assert!(screen.contains("cannot be reached") && screen.contains("ts/ts40"), "{screen}");
    reported.publish(Some(dead(1_767_225_700, "ts3")));
    let screen = terminal.wait("the return", |screen| screen.starts_with(" watch "));
    assert!(!screen.contains("asking again"), "{screen}");
    // Ctrl-C is a key here.
    terminal.press(&["C-c"]);
    terminal.check_end(0);
}

#[test]
fn a_terminal_changes_its_size() {
    let Some(terminal) = Terminal::open("a_terminal_changes_its_size", &USUAL) else { return };
    let _folder = enter_folder(&terminal);
    let reported = LiveServer::start();
    terminal.watch(&reported, "--interval 100ms");
    terminal.wait("the figures", |screen| screen.contains("ts/ts40"));
    for (width, height) in [(80, 24), (30, 8), (200, 60)] {
        let size = ["resize-window", "-x", &width.to_string(), "-y", &height.to_string()].map(str::to_owned);
        assert!(terminal.tmux(&size.each_ref().map(String::as_str)).status.success());
        terminal.wait("a screen of that size", |screen| {
            let lines: Vec<_> = screen.lines().collect();
            let is_whole = lines.first().is_some_and(|line| line.starts_with(" OK"));
            is_whole && lines.len() == height && lines.last().is_some_and(|line| line.starts_with("q quit"))
        });
    }
    terminal.press(&["q"]);
    terminal.check_end(0);
}

#[test]
fn a_killed_top_leaves_the_terminal_sane() {
    let Some(terminal) = Terminal::open("a_killed_top", &USUAL) else { return };
    let _folder = enter_folder(&terminal);
    let reported = LiveServer::start();
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        terminal.watch(&reported, "");
        terminal.wait("the figures", |screen| screen.contains("ts/ts40"));
        let killed = Command::new("kill").args(["-s", signal, &terminal.top_pid().to_string()]).status();
        assert!(killed.expect("kill is there").success());
        terminal.check_end(code);
    }
}

/// Only a build for tests panics on demand.
#[cfg(feature = "faults")]
#[test]
fn a_panic_is_told_in_a_sane_terminal() {
    let Some(terminal) = Terminal::open("a_panic_is_told", &USUAL) else { return };
    let _folder = enter_folder(&terminal);
    let reported = LiveServer::start();
    terminal.watch(&reported, "");
    terminal.wait("the figures", |screen| screen.contains("ts/ts40"));
    terminal.press(&["!"]);
    let ended = terminal.check_end(101);
    assert!(ended.contains("asked to panic"), "{ended}");
}

#[test]
fn an_old_terminal_gets_ascii_and_no_colors() {
    for environment in [[("TERM", "vt100"), ("LC_ALL", "C")], [("TERM", "vt100"), ("LC_ALL", "C.UTF-8")]] {
        let Some(terminal) = Terminal::open("an_old_terminal", &environment) else { return };
        let _folder = enter_folder(&terminal);
        let reported = LiveServer::start();
        reported.publish(Some(dead(1_767_225_601, "ts7")));
        terminal.watch(&reported, "--ascii");
        let screen = terminal.wait("the figures", |screen| screen.contains("ts/ts40"));
        assert!(screen.is_ascii(), "{screen}");
        let styled = terminal.tmux(&["capture-pane", "-p", "-e"]).stdout;
        let styled = String::from_utf8_lossy(&styled);
        assert!(
            !["[31", "[32", "[33", "[38;", ";31m", ";33m"].iter().any(|color| styled.contains(color)),
            "{styled:?}"
        );
        terminal.press(&["q"]);
        terminal.check_end(0);
    }
}

#[test]
fn no_color_is_obeyed_and_a_locale_without_utf8_gets_ascii() {
    let environment = [("TERM", "screen-256color"), ("LC_ALL", "C"), ("NO_COLOR", "1")];
    let Some(terminal) = Terminal::open("no_color_is_obeyed", &environment) else { return };
    let _folder = enter_folder(&terminal);
    let reported = LiveServer::start();
    terminal.watch(&reported, "");
    let screen = terminal.wait("the figures", |screen| screen.contains("ts/ts40"));
    assert!(screen.is_ascii(), "{screen}");
    let styled = terminal.tmux(&["capture-pane", "-p", "-e"]).stdout;
    assert!(!String::from_utf8_lossy(&styled).contains("[32"), "{}", String::from_utf8_lossy(&styled));
    terminal.press(&["q"]);
    terminal.check_end(0);
}

#[test]
fn without_a_terminal_there_is_one_page_of_text() {
    let reported = LiveServer::start();
    reported.publish(Some(dead(1_767_225_601, "ts7")));
    for options in [&["--once"][..], &[]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
        let output = command.args(["top", "--admin", &reported.address.to_string()]).args(options).output();
        let output = output.expect("cargo has built it");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.starts_with("watch  http://127.0.0.1:"), "{output:?}");
        assert!(text.contains("\n  backend-down: ts7 of pool ts has been down for 40 s\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        let first = text.lines().skip_while(|line| !line.starts_with("POOL/BACKEND")).nth(1).expect("a row");
        assert!(first.starts_with("ts/ts7 "), "{text}");
    }
    reported.publish(None);
    let output = Command::new(env!("CARGO_BIN_EXE_hedgerow"))
        .args(["top", "--once", "--admin", &reported.address.to_string()])
        .output()
        .expect("cargo has built it");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be reached"), "{output:?}");
    for wrong in ["50ms", "2h", "soon"] {
        let output = Command::new(env!("CARGO_BIN_EXE_hedgerow")).args(["top", "--interval", wrong]).output();
        assert_eq!(output.expect("cargo has built it").status.code(), Some(2), "{wrong}");
    }
}

/// The real server, and a backend that dies and returns.
#[test]
fn the_death_of_a_real_backend_is_seen() {
    let Some(terminal) = Terminal::open("the_death_of_a_real", &USUAL) else { return };
    let _folder = enter_folder(&terminal);
    let backends = ["192.0.2.1", "192.0.2.2"].map(|address| Backend::new(answer(address)));
    let server = Server::start(&format!(
        "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n[pools.ts]\nbackends = [{{ \
         address = '{}', name = 'one' }}, {{ address = '{}', name = 'other' }}]\n[pools.ts.health]\ninterval = '200ms'\n\
         timeout = '2s'\n",
        backends[0].address(),
        backends[1].address()
    ));
    let line = format!("'{}' top --admin {}", env!("CARGO_BIN_EXE_hedgerow"), server.admin().address());
    terminal.enter(&line);
    let row = |screen: &str, start: &str| screen.lines().find(|line| line.starts_with(start)).map(str::to_owned);
    let has = |screen: &str, name: &str, state: &str| row(screen, name).is_some_and(|row| row.contains(state));
    terminal.wait("both up", |screen| has(screen, "ts/one ", " up ") && has(screen, "ts/other ", " up "));
    backends[1].play_dead(true);
    let screen =
        terminal.wait("the death", |screen| has(screen, "ts/other ", " down ") && screen.starts_with(" watch "));
    assert!(screen.contains("other of pool ts has been down for "), "{screen}");
    backends[1].play_dead(false);
    terminal.wait("the return", |screen| has(screen, "ts/other ", " up ") && screen.starts_with(" OK "));
    terminal.press(&["q"]);
    terminal.wait("the shell", |screen| screen.trim_end().ends_with("ready>"));
}
