//! The transcripts in documents: what a ```` ```console ```` block shows is typed again, in a folder with the
//! config and the zones that come with hedgerow and beside a server that runs them, and must say the same.
//!
//! - Blanks do not count. A line `...` stands for any lines, one that ends with ` ...` for any end.
//! - In a block with `figures` numbers, durations and dashes in their place may be others.
//! - Ports are made up, so that no test meets another. The simulator plays fewer queries than the transcript
//!   says.
//! - `toml,running` is a part of the config that the server of this document has; `file=NAME` puts a block
//!   into the folder.
//!
//! Needs `sh`, `dig` and `curl`; where one is missing its commands are left out, and that fails where
//! `HEDGEROW_REQUIRED` is set.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;
use testkit::*;

use super::markdown::{Block, Document, top};
use super::toml_blocks::completed;

/// The ports that documents use.
const PORTS: [&str; 8] = ["5300", "5301", "5302", "5303", "5310", "5311", "5312", "5380"];

/// How many queries the simulator plays.
const SIMULATED: &str = "-n 2000";

#[test]
fn transcripts_of_the_readme_are_true() {
    assert!(replay("README.md") >= 10);
}

#[test]
fn transcripts_of_the_book_are_true() {
    let paths = Document::all().into_iter().map(|document| document.path);
    let count: usize = paths.filter(|path| path.starts_with("docs/")).map(|path| replay(&path)).sum();
    assert!(count >= 20, "{count} commands were found");
}

/// Types all transcripts of a document again; returns the number of commands.
fn replay(path: &str) -> usize {
    let document = Document::read(path);
    let blocks = document.blocks();
    if !blocks.iter().any(|block| block.has("console")) {
        return 0;
    }
    let mut site = Site::new(&blocks);
    let mut count = 0;
    for block in blocks.iter().filter(|block| block.has("console")) {
        for (command, expected) in commands(&block.text) {
            site.check(&format!("{path}:{}", block.line), &command, &expected, block.has("figures"));
            count += 1;
        }
    }
    count
}

/// The commands of a block, each with the lines that it prints.
fn commands(text: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        let typed = line.strip_prefix("$ ");
        if let Some(command) = typed.or_else(|| goes_on.then_some(line)) {
            match commands.last_mut().filter(|_| goes_on) {
                Some((first, _)) => first.push_str(command.trim_end_matches('\\')),
                None => commands.push((command.trim_end_matches('\\').to_owned(), Vec::new())),
            }
            goes_on = line.ends_with('\\');
        } else {
            commands.last_mut().expect("a transcript begins with a command").1.push(line.to_owned());
        }
    }
    commands
}

/// Where the transcripts of one document are typed.
struct Site {
    /// Holds config, zones, and what blocks have put there.
    folder: TempDir,
    /// Made up in the place of [`PORTS`].
    ports: [SocketAddr; PORTS.len()],
    /// `hedgerow serve`, and what a transcript has started.
    processes: Vec<Process>,
    variables: String,
}

impl Site {
    /// A folder, and the server running in it.
    fn new(blocks: &[Block]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let ports = PORTS.map(|_| free_address());
        let mut site = Self { folder, ports, processes: Vec::new(), variables: String::new() };
        std::fs::create_dir(site.path("zones")).expect("our own folder");
        for file in top().join("zones").read_dir().expect("a folder of ours") {
            let file = file.expect("it can be read");
            let copy = site.path("zones").join(file.file_name());
            std::fs::copy(file.path(), copy).expect("our own folder");
        }
        let mut config = std::fs::read_to_string(top().join("config.toml")).expect("the reference");
        for block in blocks {
            if let Some(name) = block.value("file") {
                site.write(name, &block.text);
            }
            if block.has("running") {
                config = completed(&config, &block.text);
            }
        }
        site.write("config.toml", &site.with_ports(&config));
        site.write("admin.token", "0123456789abcdef0123456789abcdef\n");
        // curl shows no progress on a terminal; elsewhere it needs this option.
        site.write(".curlrc", "silent\n");
        site.start(&["serve"]);
        site
    }

    /// Where a file is.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("our own folder");
    }

    /// Starts a server in the folder, and waits until it is ready.
    fn start(&mut self, arguments: &[&str]) {
        let folder = self.folder.path().to_owned();
        let process = Process::run_as(arguments, |command| {
            command.current_dir(folder);
        });
        process.wait_for_log(" ready ");
        self.processes.push(process);
    }

    /// Types a command and compares what it prints.
    fn check(&mut self, place: &str, command: &str, expected: &[String], figures: bool) {
        let words: Vec<_> = command.split_whitespace().collect();
        let typed = self.with_ports(command);
        match words[..] {
            ["hedgerow", "ts" | "ls" | "serve", ..] => {
                return self.start(&typed.split_whitespace().skip(1).collect::<Vec<_>>());
            }
            [assignment] if assignment.contains('=') => return self.variables.push_str(&format!("{typed}; ")),
            [program @ ("dig" | "curl"), ..] if !is_there(program) => {
                return leave_out(&format!("{place}: {command}"), &format!("there is no {program}"));
            }
            _ => {}
        }
        let typed = match words[..] {
            ["hedgerow", "lookup", ..] if !command.contains('@') => {
                typed.replacen(" lookup ", &format!(" lookup @{} ", self.ports[0]), 1)
            }
            ["hedgerow", "simulate", ..] => {
                let played = words.iter().position(|&word| word == "-n").map(|at| format!("-n {}", words[at + 1]));
                match played {
                    Some(played) => typed.replacen(&played, SIMULATED, 1),
                    None => format!("{typed} {SIMULATED}"),
                }
            }
            _ => typed,
        };
        // What only asks may be asked again: some of it becomes true in the server's own time, and on a busy
        // machine a datagram may be lost.
        let asks = matches!(
            words[..],
            ["dig", ..]
                | ["hedgerow", "lookup", ..]
                | ["hedgerow", "ctl", "status" | "backends", ..]
                | ["hedgerow", "ctl", "cache", "stats", ..]
        );
        let mut printed = self.type_in(&typed);
        let deadline = Instant::now() + PATIENCE;
        while asks && !says(&printed, expected, figures) && Instant::now() < deadline {
            printed = self.type_in(&typed);
        }
        assert!(
            says(&printed, expected, figures),
            "{place}: {command}\n--- says:\n{}\n--- and should say:\n{}\n",
            printed.join("\n"),
            expected.join("\n")
        );
    }

    /// Returns the output of a command on both streams, with the ports that the documents use.
    fn type_in(&self, typed: &str) -> Vec<String> {
        let binaries = Path::new(env!("CARGO_BIN_EXE_hedgerow")).parent().expect("it is in a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {}{typed}", self.variables)])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", binaries.display()))
            .env("RUNTIME_DIRECTORY", self.runtime())
            .env("CURL_HOME", self.folder.path())
            .env_remove("HEDGEROW_LOG")
            .output()
            .expect("there is a shell");
        let mut text = String::from_utf8(output.stdout).expect("UTF-8");
        for (port, address) in PORTS.iter().zip(self.ports) {
            text = text.replace(&address.port().to_string(), port);
        }
        let text = text.replace(&self.runtime().display().to_string(), "/run/hedgerow");
        text.lines().map(str::to_owned).collect()
    }

    /// Where the server has its socket for changes.
    fn runtime(&self) -> PathBuf {
        // The name counts for nothing.
        let socket = self.processes[0].admin_socket(self.ports[0]);
        socket.parent().expect("it is in a folder").to_owned()
    }

    /// A text with the ports and the folder of this site.
    fn with_ports(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (port, address) in PORTS.iter().zip(self.ports) {
            text = text.replace(port, &address.port().to_string());
        }
        match self.processes.is_empty() {
            true => text,
            false => text.replace("/run/hedgerow", &self.runtime().display().to_string()),
        }
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

/// Returns true if the output matches the transcript.
fn says(printed: &[String], expected: &[String], figures: bool) -> bool {
    let plain = |line: &String| if figures { masked(line) } else { squeezed(line) };
    let printed: Vec<_> = printed.iter().map(plain).collect();
    let expected: Vec<_> = expected.iter().map(plain).collect();
    matches(&printed, &expected)
}

/// Returns true if the lines match the expected ones, of which some stand for others.
fn matches(printed: &[String], expected: &[String]) -> bool {
    let Some((first, rest)) = expected.split_first() else { return printed.is_empty() };
    if first == "..." {
        return (0..=printed.len()).any(|at| matches(&printed[at..], rest));
    }
    let Some((line, more)) = printed.split_first() else { return false };
    let is_same = first.strip_suffix(" ...").map_or(line == first, |begin| line.starts_with(begin));
    is_same && matches(more, rest)
}

/// A line with single blanks.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A line with `#` for every number, with its unit, and for a dash that stands for one; several in a row are
/// one.
fn masked(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let mut masked = String::new();
        let mut rest = word;
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            masked.push_str(&rest[..at]);
            masked.push('#');
            rest = rest[at..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            let units = ["ms", "us", "µs", "ns", "MiB", "days", "day", "s", "m", "h", "d"];
            let is_end = |rest: &str| !rest.starts_with(char::is_alphanumeric);
            rest = units.iter().find_map(|unit| rest.strip_prefix(unit).filter(|rest| is_end(rest))).unwrap_or(rest);
        }
        masked.push_str(rest);
        words.push(if masked == "-" { "#".to_owned() } else { masked });
    }
    let mut line = words.join(" ");
    while line.contains("# #") {
        line = line.replace("# #", "#");
    }
    line
}

#[test]
fn figures_are_masked_and_words_are_not() {
    for (line, expected) in [
        ("hedgerow 0.1.0, up 4s, 2 workers", "hedgerow #, up #, # workers"),
        ("ts    2 of 2          0    0.37  -  3014.66", "ts # of #"),
        ("1000000 queries at 3000/s (5m 33s) to 2 backends", "# queries at #/s (#) to # backends"),
        ("hedge delay=p90", "hedge delay=p#"),
        ("ts2 first", "ts# first"),
    ] {
        assert!(masked(line).starts_with(expected), "{line}: {}", masked(line));
    }
}

#[test]
fn lines_of_dots_stand_for_others() {
    let lines = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    for (printed, expected, is_same) in [
        ("a/b/c", "a/.../c", true),
        ("a/c", "a/.../c", true),
        ("a/b/c", "a/...", true),
        ("a b/c", "a .../c", true),
        ("a/b", "a", false),
        ("a", "b", false),
        ("a", "a/b", false),
    ] {
        assert_eq!(matches(&lines(printed), &lines(expected)), is_same, "{printed} {expected}");
    }
}
