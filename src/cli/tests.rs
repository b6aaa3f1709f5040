//! Tests of command lines: the place of `--config`, and that every command line in the documents parses.

use std::fs;
use std::path::Path;

use super::*;

fn parse(line: &str) -> Result<(&'static str, Option<PathBuf>), String> {
    let words = std::iter::once("hedgerow").chain(line.split_whitespace());
    let command = Cli::try_parse_from(words).and_then(|cli| settle(cli.command, cli.config));
    match command.map_err(|error| error.to_string())? {
        ProgramCommand::Serve(ConfigFile { config }) => Ok(("serve", config)),
        ProgramCommand::Check { config: ConfigFile { config }, .. } => Ok(("check", config)),
        ProgramCommand::Ctl { config, .. } => Ok(("ctl", config)),
        ProgramCommand::Ls(_) => Ok(("ls", None)),
        ProgramCommand::Ts(_) => Ok(("ts", None)),
        ProgramCommand::Lookup(_) => Ok(("lookup", None)),
        ProgramCommand::Init(_) => Ok(("init", None)),
        ProgramCommand::Import(_) => Ok(("import", None)),
        ProgramCommand::Simulate(_) => Ok(("simulate", None)),
        ProgramCommand::Top { config, .. } => Ok(("top", config)),
        ProgramCommand::Schema(_) => Ok(("schema", None)),
        ProgramCommand::Man(_) => Ok(("man", None)),
        ProgramCommand::Completions(_) => Ok(("completions", None)),
    }
}

fn check(line: &str, command: &str, config: Option<&str>) {
    assert_eq!(parse(line), Ok((command, config.map(PathBuf::from))), "{line}");
}

#[test]
fn options_of_all_commands_stand_before_or_after_the_command() {
    check("", "serve", None);
    check("-c a.toml", "serve", Some("a.toml"));
    check("serve --config a.toml", "serve", Some("a.toml"));
    check("--config a.toml serve", "serve", Some("a.toml"));
    check("-c a.toml check", "check", Some("a.toml"));
    check("-c a.toml ctl status", "ctl", Some("a.toml"));
    check("ctl -c a.toml status", "ctl", Some("a.toml"));
    check("check -c a.toml --log debug", "check", Some("a.toml"));
    check("-c a.toml check --dump", "check", Some("a.toml"));
    check("check --dump example.org -c a.toml", "check", Some("a.toml"));
    check("--log debug --log-format json lookup a.example", "lookup", None);
    check("ts -l 127.0.0.1:0 a.txt --log debug", "ts", None);
    check("-c a.toml top --once", "top", Some("a.toml"));
    check("init tables -o a.toml --force", "init", None);
    check("import --from unbound -o a.toml b.conf", "import", None);
    check("schema --markdown", "schema", None);
    check("man --dir pages", "man", None);
    check("completions zsh", "completions", None);
    check("simulate --from a.toml --status 127.0.0.1:5380", "simulate", None);
}

#[test]
fn a_config_file_that_would_not_be_read_is_refused() {
    for (line, reported) in [
        ("-c a.toml lookup a.example", "expected serve, check, ctl or top"),
        ("-c a.toml ts -l 127.0.0.1:0 a.txt", "expected serve, check, ctl or top"),
        ("-c a.toml simulate", "expected serve, check, ctl or top"),
        ("ls -l 127.0.0.1:0 -c a.toml 127.0.0.1:1", "unexpected argument '-c'"),
        ("-c a.toml serve -c b.toml", "expected one"),
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.contains(reported), "{line}: {error}");
    }
}

/// Returns the command lines of a document with their line numbers, and true for complete ones.
fn command_lines(text: &str) -> Vec<(usize, String, bool)> {
    let mut found = Vec::new();
    let mut block: Option<&str> = None;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        if let Some(flags) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(flags.split(',').next().unwrap_or_default()) };
            continue;
        }
        let typed = match block {
            Some("console") => line.strip_prefix("$ "),
            Some("sh") => Some(line),
            // Drawings, configs and output of programs.
            Some(_) => None,
            None => {
                // With an odd number of backticks, the last one opens a span that ends on a later line.
                let closed = line.matches('`').count() / 2;
                let spans = line.split('`').skip(1).step_by(2).take(closed);
                let spans = spans.filter(|span| span.starts_with("hedgerow "));
                // Spans with optional parts or placeholders are no complete command lines.
                let is_whole = |span: &&str| !["[", "...", "COMMAND", "SHELL"].iter().any(|mark| span.contains(mark));
                found.extend(spans.filter(is_whole).map(|span| (number, span.to_owned(), false)));
                None
            }
        };
        let typed = typed.map(|typed| typed.strip_prefix("sudo ").unwrap_or(typed));
        let Some(typed) = typed.filter(|typed| typed.starts_with("hedgerow ")) else { continue };
        let mut typed = typed.to_owned();
        while let Some(more) = typed.strip_suffix('\\') {
            typed = format!("{more} {}", lines.next().map(|(_, line)| line.trim()).unwrap_or_default());
        }
        found.push((number, typed, true));
    }
    found
}

/// Splits a line into words as a shell does, up to the end of its command.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        let word = words.last_mut().expect("there is one");
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '|' | '>' | '&' | ';' | '#') => break,
            (None, ' ') if word.is_empty() => {}
            (None, ' ') => words.push(String::new()),
            (_, c) => word.push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_line_of_the_documents_parses() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![top.join("README.md"), top.join("SECURITY.md")];
    let pages = fs::read_dir(top.join("docs/src")).expect("a folder of ours");
    documents.extend(pages.map(|page| page.expect("it can be read").path()));
    let mut whole = 0;
    for document in documents.iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(document).expect("it can be read");
        for (number, line, is_whole) in command_lines(&text) {
            let parsed = Cli::try_parse_from(words(&line)).and_then(|cli| settle(cli.command, cli.config));
            let is_right = match parsed.as_ref().map_err(clap::Error::kind) {
                Ok(_) | Err(ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => true,
                Err(
                    ErrorKind::MissingRequiredArgument
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                ) => !is_whole,
                Err(_) => false,
            };
            let error = parsed.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(is_right, "{}:{number}: {line}\n{error}", document.display());
            whole += usize::from(is_whole);
        }
    }
    assert!(whole >= 25, "{whole} command lines");
}

#[test]
fn command_lines_are_told_from_the_rest() {
    let text = "Say `hedgerow ctl [--admin URL]` or `hedgerow check -c FILE`.\n```sh\nhedgerow top --once | head -3  # a page\n\
                sudo hedgerow serve\nls\n```\n```console\n$ hedgerow check \\\n  -c a.toml\nhedgerow 0.1.0\n```\n";
    let expected = [
        (1, "hedgerow check -c FILE", false),
        (3, "hedgerow top --once | head -3  # a page", true),
        (4, "hedgerow serve", true),
        (8, "hedgerow check  -c a.toml", true),
    ];
    assert_eq!(command_lines(text), expected.map(|(number, line, is_whole)| (number, line.to_owned(), is_whole)));
    assert_eq!(words("hedgerow top --once | head -3"), ["hedgerow", "top", "--once"]);
    assert_eq!(words("hedgerow simulate -p 'race tries=2' # two"), ["hedgerow", "simulate", "-p", "race tries=2"]);
}
