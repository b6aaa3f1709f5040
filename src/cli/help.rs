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
    let lines = EXAMPLES.lines().filter_map(|line| {
        let (arguments, effect) = line.strip_prefix(path)?.strip_prefix(" | ")?.rsplit_once(" | ")?;
        Some(format!("  {effect}:\n    {}", format!("{path} {arguments}").trim_end()))
    });
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

/// A line per example: the command, its arguments, and their effect.
const EXAMPLES: &str = include_str!("help/examples.txt");

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
