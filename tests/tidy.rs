//! The rules of style that can be searched for, held over the whole source tree. A finding names file, line
//! and rule. Rules that need judgment are not here: they are a reader's.

#[path = "tidy/crates.rs"]
mod crates;
#[path = "tidy/mutants.rs"]
mod mutants;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/rfc.rs"]
mod rfc;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;

use std::sync::LazyLock;

use source::{Line, Source, has_words, read_tree};

/// The whole tree, read once for all rules.
static TREE: LazyLock<Vec<Source>> = LazyLock::new(|| read_tree(&["src", "crates", "tests", "benches"]));

/// Crates and rooms that decide and touch nothing: what they need of the world is an argument. `cargo tree`
/// shows what they depend on (`tidy/crates.rs`); here is what they would need of the standard library.
const PURE_ROOMS: &str = "config dns engine hedge limit metrics rules zone discover sight";

fn is_pure(room: &str) -> bool {
    PURE_ROOMS.split_whitespace().any(|pure| pure == room)
}

/// Exceptions among the pure rooms: a file, the word that it uses, and why.
const IMPURE_FILES: &[(&str, &str, &str)] =
    &[("crates/engine/src/state/backend.rs", "SystemTime::now", "the time of a change, which only operators see")];

/// The words that a pure room does not use outside its tests.
const IMPURE: &str = "tokio socket2 mio rustix libc UdpSocket TcpStream TcpListener std::fs std::env std::thread \
                      Instant::now SystemTime::now rand::rng thread_rng SysRng from_os_rng";

/// Files that may hold `unsafe`, and why.
const UNSAFE_FILES: &[(&str, &str)] = &[
    ("crates/net/src/sys/batch.rs", "recvmmsg and sendmmsg behind a safe interface"),
    ("crates/net/src/sys/batch/control.rs", "the control messages of the same calls"),
    ("crates/xdp/src/bpf.rs", "the call `bpf`, which no crate at hand offers without C"),
    ("crates/xdp/src/socket.rs", "sockets of AF_XDP, with rings over memory that is shared with the kernel"),
    ("crates/net/src/sys/group.rs", "getpgid, which `rustix` assumes to be above zero"),
    ("crates/net/src/sys/memory.rs", "madvise over the text of the program, and malloc_trim"),
    ("crates/net/src/sys/slice.rs", "the calls of scheduling attributes, which no crate at hand offers"),
    ("crates/net/src/sys/options.rs", "setsockopt and getsockopt for options that no crate at hand offers"),
    ("benches/common/xdp_echo/rings.rs", "rings over memory that is shared with the kernel"),
    ("tests/allocations.rs", "a counting allocator: `GlobalAlloc` is an unsafe trait"),
];

/// Files that may make sockets for datagrams: there all sockets are set to ignore path MTU messages.
const SOCKET_FILES: [&str; 2] = ["crates/net/src/sys/bind.rs", "crates/net/src/to_backends/sockets/socket.rs"];

/// The code that makes such a socket.
const MADE: &[&str] = &["UdpSocket::bind(", "Type::DGRAM"];

/// Files that may sleep, and why.
const SLEEPING_FILES: &[(&str, &str)] = &[
    ("crates/testkit/src/backends/backend.rs", "a scripted backend that is slow: the delay is what is tested"),
    (
        "crates/testkit/src/program/admin.rs",
        "the state of a server is polled: the admin server reports no changes to wait for",
    ),
    ("src/admin/connections.rs", "out of descriptors: nothing reports when one is free"),
    ("src/cli/ctl/wait.rs", "the state of a server is polled: the admin server does not report the end of a query"),
    (
        "src/control/observe/taps/writer.rs",
        "who appends records must not pay for a wake-up, so the writer looks for them now and then",
    ),
    ("src/supervisor/locks.rs", "the kernel reports a deadlock that is none, and not the end of it"),
    ("crates/net/src/faults.rs", "a disk that stalls, in builds for tests alone"),
];

/// The code that sleeps. The alarm of a state machine (`sleep_until` among other events) is not meant.
const SLEEPS: &[&str] = &["sleep(", "::sleep", "park_timeout("];

/// The code that starts tasks and threads.
const STARTS: &[&str] = &["spawn_local(", "spawn_blocking(", "tokio::spawn(", "thread::spawn(", "thread::Builder"];

/// Files that may start tasks and threads, and why: their code waits for the end of the tasks.
const STARTING_FILES: &[(&str, &str)] = &[
    ("crates/net/src/tasks.rs", "the sets of tasks of a thread"),
    ("crates/net/src/from_clients/tcp/mod.rs", "the connections of a listener, whose end it waits for"),
    ("src/admin/connections.rs", "the same for the admin server"),
    ("src/worker/mod.rs", "the thread of a worker, which reports lost tasks"),
    ("src/control/process/reload.rs", "the thread that reads the config again, which reports its end"),
    ("src/control/observe/taps/writer.rs", "the thread that writes the records of taps, which reports its end"),
    ("src/signals.rs", "the thread that takes signals, which reports its end"),
    ("src/supervisor/prepare.rs", "the thread that loads the config, whose end it waits for"),
    ("src/supervisor/locks.rs", "a thread that waits for a lock, and ends with that"),
];

/// Words of the field that we do not use, and ours in their place.
const WORDS: &[(&str, &str)] = &[
    ("upstream", "backend"),
    ("downstream", "client"),
    ("packet", "datagram"),
    ("packets", "datagrams"),
    ("alive", "up"),
    ("slave", "secondary"),
    ("behaviour", "behavior"),
    ("colour", "color"),
    ("favour", "favor"),
    ("honour", "honor"),
    ("neighbour", "neighbor"),
    ("licence", "license"),
    ("recognise", "recognize"),
    ("normalise", "normalize"),
    ("randomise", "randomize"),
    ("serialise", "serialize"),
    ("synthesised", "synthesized"),
    ("initialise", "initialize"),
    ("optimise", "optimize"),
    ("summarise", "summarize"),
];

/// Terms that DNS experts search for: each stands in a comment of `src`.
const TERMS: &[&str] = &[
    "GSO",
    "GRO",
    "busy poll",
    "single-flight",
    "DNS 0x20",
    "DNS cookies",
    "power of two choices",
    "rendezvous",
    "HRW",
    "Peak EWMA",
    "slow start",
    "token bucket",
    "serve-stale",
    "negative caching",
    "S3-FIFO",
    "RRL",
    "xfrd",
    "journal",
];

/// Terms of others that hold a word which is not ours.
const FOREIGN_TERMS: &[&str] = &[
    "packet-info",
    "xdp::packet",
    "free_packet",
    "keys.packet",
    "local.packet",
    "remote.packet",
    "packet: keypair",
    "netlink_packet_route::neighbour",
];

/// A file of more lines has a second noun.
const MAX_FILE: usize = 700;

/// `main.rs` calls the command and turns its result into an exit code; that is shorter than this.
const MAX_MAIN: usize = 50;

#[test]
fn unsafe_stands_in_the_batched_system_calls_only() {
    check_lines(&["src", "tests", "benches"], "no `unsafe` here (STYLE: types)", |source, line| {
        !is_excepted(UNSAFE_FILES, source)
            && (has_words(&line.code, "unsafe") || has_words(&line.code, "allow(unsafe_code)"))
    });
}

#[test]
fn sockets_for_datagrams_are_made_in_two_places() {
    check_lines(&["src"], "made by `net::bind`, which keeps its datagrams whole", |source, line| {
        MADE.iter().any(|made| line.code.contains(made))
            && !line.is_test
            && !SOCKET_FILES.contains(&source.path.as_str())
    });
}

#[test]
fn pure_rooms_touch_nothing_of_the_world() {
    for what in IMPURE.split_whitespace() {
        check_lines(&["src"], &format!("a pure room names no `{what}`"), |source, line| {
            let is_excepted = IMPURE_FILES.iter().any(|(path, word, _)| *path == source.path && *word == what);
            is_pure(source.room()) && !line.is_test && !is_excepted && has_words(&line.code, what)
        });
    }
}

/// An exception that nothing needs would let something else in unseen.
#[test]
fn no_exception_is_made_for_what_needs_none() {
    let holds = |path: &str, patterns: &[&str]| {
        let source = TREE.iter().find(|source| source.path == path);
        source.is_some_and(|source| {
            source.lines.iter().any(|line| patterns.iter().any(|pattern| has_words(&line.code, pattern)))
        })
    };
    let unused = |exceptions: &[(&str, &str)], patterns: &[&str]| -> Vec<String> {
        let paths = exceptions.iter().map(|(path, _reason)| *path).filter(|path| !holds(path, patterns));
        paths.map(|path| format!("{path}: no exception is needed for {patterns:?}")).collect()
    };
    let sockets = SOCKET_FILES.map(|path| (path, ""));
    let findings = [
        unused(UNSAFE_FILES, &["unsafe"]),
        unused(SLEEPING_FILES, SLEEPS),
        unused(STARTING_FILES, STARTS),
        unused(&sockets, MADE),
    ];
    report(&findings.concat());
}

#[test]
fn files_open_with_a_paragraph_and_stay_short() {
    let mut findings = Vec::new();
    for source in TREE.iter() {
        let path = &source.path;
        let opens = source.lines.first().is_some_and(|line| line.code.is_empty() && line.comment.starts_with("/!"));
        if !opens {
            findings.push(format!("{path}:1: a file opens with a `//!` paragraph: what it owns, how it is used"));
        }
        let limit = if path == "src/main.rs" { MAX_MAIN } else { MAX_FILE };
        if source.lines.len() > limit {
            findings.push(format!("{path}:{limit}: {} lines, look for the second noun", source.lines.len()));
        }
    }
    report(&findings);
}

#[test]
fn nothing_is_left_for_later() {
    for what in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
        check_lines(&["src", "tests", "benches"], &format!("no `{what}`"), |_, line| has_words(&line.code, what));
    }
    for what in ["TODO", "FIXME", "XXX"] {
        check_lines(&["src", "tests", "benches"], &format!("no `{what}`"), |_, line| has_words(&line.comment, what));
    }
}

#[test]
fn conditions_are_waited_for_not_slept_on() {
    check_lines(&["src", "tests"], "wait for a condition with a deadline, never sleep", |source, line| {
        // To wait for nothing until a timeout is to sleep by another name.
        let is_dodge = has_words(&line.code, "timeout(") && has_words(&line.code, "pending");
        is_dodge || !is_excepted(SLEEPING_FILES, source) && SLEEPS.iter().any(|sleep| has_words(&line.code, sleep))
    });
}

#[test]
fn tasks_and_threads_are_started_where_their_end_is_seen() {
    check_lines(&["src"], "started by `net::tasks`, whose sets are polled", |source, line| {
        !line.is_test && !is_excepted(STARTING_FILES, source) && STARTS.iter().any(|start| line.code.contains(start))
    });
}

#[test]
fn invariants_are_stated_not_unwrapped() {
    check_lines(&["src"], "`expect` states the invariant, `unwrap` does not", |_, line| {
        !line.is_test && line.code.contains(".unwrap()")
    });
}

#[test]
fn getters_bear_no_get() {
    check_lines(&["src"], "a getter borrows and bears no `get_`", |_, line| {
        line.code.contains("fn get_") && !line.code.contains("fn get_mut")
    });
}

#[test]
fn standards_are_cited_in_one_form() {
    check_lines(&["src", "tests", "benches"], "cite as `RFC 2308 section 5`", |_, line| miscites(&line.comment));
}

/// Checks that each cited section of the contract exists.
#[test]
fn the_contract_is_cited_by_its_headings() {
    const FILE: &str = "docs/src/contract.md";
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src/contract.md")).expect("the contract");
    let headings: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    check_lines(&["src", "tests", "benches"], "cite as `docs/src/contract.md, Races`", |_, line| {
        let is_right =
            |rest: &str| rest.strip_prefix(", ").is_some_and(|rest| headings.iter().any(|h| rest.starts_with(h)));
        let mut cited = line.comment.split(FILE).skip(1);
        cited.any(|rest| !is_right(rest)) || has_words(&line.comment, "CONTRACT")
    });
}

#[test]
fn promises_name_tests_that_are_there() {
    let text = std::fs::read_to_string("SECURITY.md").expect("it can be read");
    let promises = text.split_once("\n## ").expect("promises have a heading").1;
    let named = promises.split('`').filter_map(|quoted| {
        let (room, name) = (quoted.split("::").next()?, quoted.rsplit_once("::")?.1);
        [room, name].iter().all(|word| is_name(word)).then_some((room, name))
    });
    let is_there = |room: &str, name: &str| {
        let path = format!("tests/it/hostile/{room}.rs");
        let function = format!("fn {name}(");
        let lines = TREE.iter().filter(|source| source.path == path).flat_map(|source| &source.lines);
        lines.into_iter().any(|line| line.code.trim_start().starts_with(&function))
    };
    let (there, missing): (Vec<_>, Vec<_>) = named.partition(|(room, name)| is_there(room, name));
    assert!(missing.is_empty(), "SECURITY.md names tests that are not there: {missing:?}");
    assert!(there.len() > 50, "promises are read as they are written: {there:?}");
}

#[test]
fn tests_with_load_run_alone() {
    let run = std::fs::read_to_string(".ci/run").expect("it can be read");
    let listed = run.split_once("loaded=(").and_then(|(_, rest)| rest.split_once(')')).expect("a list").0;
    let loaded = below(&["tests"]).filter(|source| {
        let starts = |line: &Line| line.code.contains("Load::start") || line.code.contains("= OneAddress");
        source.lines.iter().any(starts)
    });
    let modules = loaded.filter_map(|source| {
        Some(source.path.strip_prefix("tests/it/")?.strip_suffix(".rs")?.replace('/', "::") + "::")
    });
    let missing = modules.filter(|module| !listed.split(' ').any(|listed| module.starts_with(listed)));
    report(&missing.map(|module| format!(".ci/run: {module} carries load and is not listed")).collect::<Vec<_>>());
}

#[test]
fn what_the_field_knows_is_found_by_its_name() {
    let comments = || below(&["src"]).flat_map(|source| &source.lines).map(|line| line.comment.to_lowercase());
    let missing = TERMS.iter().filter(|term| !comments().any(|comment| comment.contains(&term.to_lowercase())));
    let missing = missing.map(|term| format!("src: nobody who looks for {term:?} finds it"));
    report(&missing.collect::<Vec<_>>());
}

#[test]
fn files_that_comments_name_are_there() {
    let has = |path: &str| TREE.iter().any(|source| source.path == path);
    let mut findings = Vec::new();
    for source in below(&["src"]) {
        let (stem, _) = source.path.rsplit_once('.').expect("a name with an extension");
        let folder = stem.rsplit_once('/').map_or("", |(folder, _)| folder);
        let above = folder.rsplit_once('/').map_or("", |(above, _)| above);
        for (number, line) in source.lines.iter().enumerate() {
            for name in files_named(&line.comment) {
                let places = ["src", "", "tests", "tests/it", stem, folder, above];
                let in_crate = name.split_once('/').map(|(name, file)| format!("crates/{name}/src/{file}"));
                let is_there = places.iter().any(|place| has(format!("{place}/{name}").trim_start_matches('/')));
                if !is_there && !in_crate.is_some_and(|path| has(&path)) {
                    findings.push(format!("{}:{}: there is no {name}", source.path, number + 1));
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn bounds_are_minima_and_maxima() {
    let bounds = ["LEAST_", "MOST_", "LONGEST_", "SHORTEST_", "LARGEST_", "SMALLEST_", "FEWEST_"];
    check_lines(&["src", "tests", "benches"], "a bound is named MIN_ or MAX_", |_, line| {
        let name = line.code.split_once("const ").map(|(_, rest)| rest.trim_start());
        name.is_some_and(|name| bounds.iter().any(|bound| name.starts_with(bound)))
    });
}

#[test]
fn words_are_those_of_the_contract() {
    for (word, ours) in WORDS {
        check_lines(&["src"], &format!("`{word}` is not our word, `{ours}` is"), |_, line| {
            let text = format!("{} {}", line.code, line.comment).to_lowercase();
            has_words(&FOREIGN_TERMS.iter().fold(text, |text, term| text.replace(term, "")), word)
        });
    }
}

/// Applies one rule to every line below the folders and fails with all findings at once.
fn check_lines(folders: &[&str], rule: &str, breaks: impl Fn(&Source, &Line) -> bool) {
    let mut findings = Vec::new();
    for source in below(folders) {
        for (index, line) in source.lines.iter().enumerate() {
            if breaks(source, line) {
                findings.push(format!("{}:{}: {rule}", source.path, index + 1));
            }
        }
    }
    report(&findings);
}

/// The files below some folders, of each crate.
fn below(folders: &[&str]) -> impl Iterator<Item = &'static Source> {
    TREE.iter().filter(|source| folders.contains(&source.folder()))
}

/// The Rust files that a comment names.
fn files_named(comment: &str) -> impl Iterator<Item = &str> {
    let words = comment.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.')));
    words.map(|word| word.trim_end_matches('.')).filter(|word| word.len() > 3 && word.ends_with(".rs"))
}

/// Returns true if a text is written as the name of a module or a function.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_')
}

/// Fails if there are findings, a line for each.
fn report(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// Returns true if a list of exceptions names this file.
fn is_excepted(exceptions: &[(&str, &str)], source: &Source) -> bool {
    exceptions.iter().any(|(path, _reason)| *path == source.path)
}

/// Returns true if a comment cites an RFC in another form than `RFC 2308 section 5`. A whole document is
/// cited by its number alone, and a line may end within a citation.
fn miscites(comment: &str) -> bool {
    comment.match_indices("RFC").any(|(at, mark)| {
        let rest = &comment[at + mark.len()..];
        let number_at = rest.trim_start_matches([' ', '-', '\u{a0}']);
        if !number_at.starts_with(|c: char| c.is_ascii_digit()) {
            return false;
        }
        let behind = number_at.trim_start_matches(|c: char| c.is_ascii_digit());
        let place = behind.trim_start_matches([' ', ',', '(']);
        let names_place = place.starts_with('§')
            || place.starts_with(|c: char| c.is_ascii_digit())
            || place.to_lowercase().starts_with("sec");
        let well_placed =
            behind.strip_prefix(" section ").is_some_and(|place| place.starts_with(|c: char| c.is_ascii_digit()))
                || behind == " section";
        rest.len() - number_at.len() != 1 || !rest.starts_with(' ') || (names_place && !well_placed)
    })
}

#[test]
fn citations_are_told_apart() {
    let good = [
        "RFC 2308 section 5",
        "(RFC 1035 section 4.1.4): backwards",
        "as RFC 8914 says",
        "RFC 1034 and RFC 1035 section 3",
        "the RFC says",
        "RFC 9210",
        "see RFC 9210 section",
        "RFCs differ",
    ];
    for comment in good {
        assert!(!miscites(comment), "{comment}");
    }
    for comment in ["RFC1035", "RFC 2308 5", "RFC 2308, section 5", "RFC 2308 §5", "RFC 2308 sec. 5", "RFC-1035"] {
        assert!(miscites(comment), "{comment}");
    }
}

#[test]
fn source_is_split_into_code_and_comment() {
    let cases = [
        ("let a = 1; // one", "let a = 1; ", "/ one"),
        ("let a = \"unsafe // no\";", "let a = \"\";", ""),
        ("let a = r#\"unsafe \" no\"#; b", "let a = \"\"; b", ""),
        ("let a = b\"x\\\"unsafe\"; b", "let a = b\"\"; b", ""),
        ("f('\"', '\\'', 'x'); // c", "f(', ', '); ", "/ c"),
        ("fn f<'a>(b: &'a str) {} // c", "fn f<'a>(b: &'a str) {} ", "/ c"),
        ("a /* b /* c */ d */ e", "a  e", " b  c  d "),
        ("//! head", "", "/! head"),
    ];
    for (text, code, comment) in cases {
        let source = Source::read("src/x.rs".to_owned(), text);
        let line = &source.lines[0];
        assert_eq!((line.code.as_str(), line.comment.as_str()), (code, comment), "{text}");
    }
}

#[test]
fn tests_are_told_from_the_rest() {
    let text = "#[cfg(test)]\nmod cases;\nfn a() {}\n#[cfg(test)]\nmod tests {\n}\n";
    let source = Source::read("src/x.rs".to_owned(), text);
    let is_test: Vec<bool> = source.lines.iter().map(|line| line.is_test).collect();
    assert_eq!(is_test, [false, false, false, true, true, true]);
}
