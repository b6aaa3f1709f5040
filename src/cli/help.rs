//! The clap command with examples, and one form for its errors.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

use super::Cli;

/// Returns the command line with an example of each command. Commands that run no server accept the logging
/// options but do not list them.
pub(super) fn command() -> Command {
    finish(Cli::command(), "hedgerow")
}

fn finish(command: Command, path: &str) -> Command {
    let logging = command.get_arguments().filter(|arg| LOGGING.contains(&arg.get_id().as_str()));
    let hidden: Vec<_> = logging.map(|arg| arg.clone().hide(true)).collect();
    let examples = examples(path);
    let after = match command.get_after_help() {
        Some(text) => format!("{text}\n\n{HEADING}{examples}"),
        None => format!("{HEADING}{examples}"),
    };
    command.after_help(after).mut_subcommands(|below| {
        let serves = path == "hedgerow" && SERVERS.contains(&below.get_name());
        let below = if serves { below } else { below.args(hidden.clone()) };
        let path = format!("{path} {}", below.get_name());
        finish(below, &path)
    })
}

fn examples(path: &str) -> String {
    let own = EXAMPLES.iter().filter(|example| example.0 == path);
    let lines = own.map(|(path, rest, effect)| format!("  {effect}:\n    {}", format!("{path} {rest}").trim_end()));
    lines.collect::<Vec<_>>().join("\n")
}

/// Splits the text after the options into prose and examples.
pub(super) fn split(after: &str) -> (&str, &str) {
    after.split_once(HEADING).map_or((after, ""), |(prose, examples)| (prose.trim_end(), examples))
}

/// Returns an error's message: place, problem, remedy. `words` is the command line without the program name.
pub(super) fn message(error: &clap::Error, words: &[String]) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        // The last suggestion is the nearest.
        Some(ContextValue::Strings(texts)) => texts.last().cloned(),
        _ => None,
    };
    let list = |kind| match error.get(kind) {
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let place = place(words);
    let meant = |kind| text(kind).map(|meant| format!(", did you mean {meant:?}?")).unwrap_or_default();
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let problem = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let unknown = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let meant = meant(ContextKind::SuggestedSubcommand);
            if !meant.is_empty() {
                return format!("{place}: unknown command {unknown:?}{meant}");
            }
            format!("unknown command {unknown:?}")
        }
        ErrorKind::UnknownArgument => format!("unexpected argument {argument:?}{}", meant(ContextKind::SuggestedArg)),
        ErrorKind::MissingRequiredArgument => format!("missing {}", list(ContextKind::InvalidArg)),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "missing command".to_owned()
        }
        ErrorKind::ArgumentConflict if list(ContextKind::PriorArg) == argument && !argument.is_empty() => {
            format!("{argument} is given twice")
        }
        ErrorKind::ArgumentConflict if !argument.is_empty() => {
            format!("{argument} cannot be used with {}", list(ContextKind::PriorArg))
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("{argument} needs a value"),
        ErrorKind::InvalidValue => {
            let expected = list(ContextKind::ValidValue);
            let meant = meant(ContextKind::SuggestedValue);
            return format!("{place}: {argument}: invalid value {value:?}: expected one of {expected}{meant}");
        }
        ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            if reason.contains("expected") {
                return format!("{place}: {argument}: invalid value {value:?}: {reason}");
            }
            format!("{argument}: invalid value {value:?}: {reason}")
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    };
    format!("{place}: {problem}; see {place} --help")
}

/// Returns the known part of the command that a command line names. The word after an option may be its
/// value.
fn place(words: &[String]) -> String {
    let mut command = &Cli::command();
    let mut place = "hedgerow".to_owned();
    let mut is_after_option = false;
    for word in words {
        match command.find_subcommand(word) {
            Some(below) => {
                command = below;
                place = format!("{place} {}", below.get_name());
            }
            None if !word.starts_with('-') && !is_after_option => break,
            None => {}
        }
        is_after_option = word.starts_with('-');
    }
    place
}

const HEADING: &str = "Examples:\n";

const LOGGING: [&str; 2] = ["log", "log_format"];

/// The commands that run a server, and so log.
const SERVERS: [&str; 3] = ["serve", "ls", "ts"];

const EXAMPLES: &[(&str, &str, &str)] = &[
    ("hedgerow", "-c config.toml", "Run the servers of a config"),
    ("hedgerow", "check -c config.toml", "Check a config before a start or reload"),
    ("hedgerow", "ctl status", "Show the running server"),
    ("hedgerow serve", "-c /etc/hedgerow/config.toml", "Run the servers of a config"),
    ("hedgerow serve", "--log warn --log-format json", "Log warnings and errors only, as JSON"),
    ("hedgerow ls", "-l 127.0.0.1:5300 --serves same 9.9.9.9 1.1.1.1", "Forward all names to two resolvers"),
    ("hedgerow ts", "-l 127.0.0.1:5301 zones/ts1.txt", "Serve a table of hosts"),
    ("hedgerow ts", "-l 127.0.0.1:5301 --origin example.org example.org.zone", "Serve a master file"),
    ("hedgerow lookup", "@9.9.9.9 www.example.org MX", "Look up the MX records of a name"),
    ("hedgerow lookup", "@127.0.0.1:5300 -f names.txt --format json", "Look up the names of a file, as JSON"),
    ("hedgerow check", "-c config.toml", "Check a config and its files"),
    ("hedgerow check", "-c config.toml --dump example.org", "Print a zone of a config"),
    ("hedgerow init", "resolver -o config.toml", "Write a config that forwards to resolvers"),
    ("hedgerow init", "authority", "Print a config that serves a zone"),
    (
        "hedgerow simulate",
        "-p sequential -p 'hedge budget=5%' -n 300000",
        "Compare two policies on the default backends",
    ),
    (
        "hedgerow simulate",
        "-b 'latency=1ms,20ms@30s..60s count=2' -p race -p hedge",
        "Compare them on backends that are slow for 30 s",
    ),
    ("hedgerow ctl", "status", "Show the server of the config"),
    ("hedgerow ctl", "--admin http://127.0.0.1:5380 backends", "Show the backends of another server"),
    ("hedgerow ctl status", "--json", "Show the state as JSON, for a script"),
    ("hedgerow ctl backends", "", "Show the backends"),
    ("hedgerow ctl add", "resolvers 9.9.9.9:53 --weight 2", "Add a backend with twice the load"),
    ("hedgerow ctl drain", "resolvers 9.9.9.9:53", "Drain a backend before its maintenance"),
    ("hedgerow ctl remove", "resolvers 9.9.9.9:53", "Remove a backend"),
    ("hedgerow ctl up", "resolvers 9.9.9.9:53", "Send queries to a backend even if its probes fail"),
    ("hedgerow ctl down", "resolvers 9.9.9.9:53", "Stop queries to a backend"),
    ("hedgerow ctl down", "resolvers 9.9.9.9:53 --fleet --for 1h", "Stop them on all forwarders, for an hour"),
    ("hedgerow ctl auto", "resolvers 9.9.9.9:53", "End an earlier up, down or drain"),
    ("hedgerow ctl members", "resolvers", "Show the members of a pool and their sources"),
    ("hedgerow ctl reload", "", "Apply an edited config"),
    ("hedgerow ctl processes", "", "Show the processes"),
    ("hedgerow ctl restart", "", "Restart with the config on disk and a warm cache"),
    ("hedgerow ctl upgrade", "", "Switch to the program file that is installed now"),
    ("hedgerow ctl stop", "", "Stop the server after pending queries"),
    ("hedgerow ctl explain", "www.example.org -t AAAA", "Explain one query"),
    ("hedgerow ctl explain", "www.example.org --fresh", "Explain it without the cache"),
    ("hedgerow ctl slow", "resolvers --since 10m", "List the slow races of the last ten minutes"),
    ("hedgerow ctl names", "", "Show the most frequent names"),
    ("hedgerow ctl serials", "replicas", "Compare the zone versions of a pool"),
    ("hedgerow ctl divergence", "replicas", "List the questions with different replies in a pool"),
    ("hedgerow ctl certificates", "", "Show the certificates and their expiry"),
    ("hedgerow ctl zones", "", "Show the zones"),
    ("hedgerow ctl accept", "resolvers", "Accept the new members of a pool"),
    ("hedgerow ctl cache", "stats", "Show the hit rate and size"),
    ("hedgerow ctl cache stats", "", "Show the hit rate and size"),
    ("hedgerow ctl cache show", "www.example.org", "Show the cached records of a name"),
    ("hedgerow ctl cache flush", "example.org --subtree", "Flush a domain and all names below it"),
    ("hedgerow ctl cache flush", "", "Flush the whole cache"),
    ("hedgerow top", "", "Watch the server of the config"),
    ("hedgerow top", "--once", "Print one page"),
    ("hedgerow schema", "> config.schema.json", "Write the schema for an editor"),
    ("hedgerow man", "--dir /usr/local/share/man/man1", "Write all manual pages"),
    ("hedgerow completions", "bash > /etc/bash_completion.d/hedgerow", "Install the completions of bash"),
];

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::super::tests::words;
    use super::*;

    fn error(line: &str) -> String {
        let words = words(line);
        let parsed = command().try_get_matches_from(&words).and_then(|found| Cli::from_arg_matches(&found));
        let parsed = parsed.and_then(|cli| super::super::settle(cli.command, cli.config));
        message(&parsed.expect_err(line), &words[1..])
    }

    #[test]
    fn errors_name_place_problem_and_remedy() {
        for (line, expected) in [
            ("hedgerow chekc", "hedgerow: unknown command \"chekc\", did you mean \"check\"?"),
            ("hedgerow qqq", "hedgerow: unknown command \"qqq\"; see hedgerow --help"),
            ("hedgerow -c a.toml ctl zone", "hedgerow ctl: unknown command \"zone\", did you mean \"zones\"?"),
            (
                "hedgerow ctl --conf",
                "hedgerow ctl: unexpected argument \"--conf\", did you mean \"--config\"?; see hedgerow ctl --help",
            ),
            ("hedgerow ctl", "hedgerow ctl: missing command; see hedgerow ctl --help"),
            ("hedgerow ctl cache", "hedgerow ctl cache: missing command; see hedgerow ctl cache --help"),
            ("hedgerow ls", "hedgerow ls: missing --listen <ADDR>, <BACKEND>...; see hedgerow ls --help"),
            ("hedgerow man --dir", "hedgerow man: --dir <DIR> needs a value; see hedgerow man --help"),
            ("hedgerow man --dir a --dir b", "hedgerow man: --dir <DIR> is given twice; see hedgerow man --help"),
            (
                "hedgerow simulate --from a --status 127.0.0.1:1 -b loss=1%",
                "hedgerow simulate: --status <URL> cannot be used with --backend <WORDS>; see hedgerow simulate --help",
            ),
            (
                "hedgerow completions bsh",
                "hedgerow completions: <SHELL>: invalid value \"bsh\": expected one of bash, elvish, fish, powershell, \
                 zsh, did you mean \"bash\"?",
            ),
            (
                "hedgerow ls -l 127.0.0.1:0 --hedge-budget 2 127.0.0.1:1",
                "hedgerow ls: --hedge-budget <SHARE>: invalid value \"2\": expected a number from 0 to 1",
            ),
        ] {
            assert_eq!(error(line), expected, "{line}");
        }
    }

    fn check(command: &mut Command, path: &str) {
        let help = command.render_long_help().to_string();
        let (_, examples) = split(&help);
        let lines: Vec<_> = examples.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        assert!((1..=3).contains(&lines.len()), "{path}: {help}");
        for line in lines {
            assert!(line.starts_with(path), "{path}: {line}");
            let parsed = super::command().try_get_matches_from(words(line));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
        let serves = path == "hedgerow" || SERVERS.iter().any(|name| path == format!("hedgerow {name}"));
        assert_eq!(help.contains("--log-format"), serves, "{path}: {help}");
        for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
            let path = format!("{path} {}", below.get_name());
            check(below, &path);
        }
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        let mut command = command();
        command.build();
        check(&mut command, "hedgerow");
    }
}
