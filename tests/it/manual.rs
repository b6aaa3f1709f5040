//! What comes with the program for people and shells: manual pages and completions.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use config::reference::sections;
use tempfile::TempDir;
use testkit::*;

/// Runs `hedgerow` to its end, which must be a good one.
fn hedgerow(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_hedgerow")).args(arguments).output().expect("cargo has built it");
    assert!(output.status.success(), "hedgerow {arguments:?}: {output:?}");
    output
}

/// All pages, in a folder.
fn pages() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    // One that is not there yet is made.
    let made = folder.path().join("pages");
    assert!(hedgerow(&["man", "--dir", &made.display().to_string()]).stdout.is_empty());
    folder
}

/// The commands below this one, as help lists them, each with all words: `ctl cache flush`.
fn commands_below(words: &[&str]) -> Vec<String> {
    let help = hedgerow(&[words, &["--help"]].concat()).stdout;
    let help = String::from_utf8(help).expect("UTF-8");
    let Some((_, listed)) = help.split_once("Commands:\n") else { return Vec::new() };
    let listed = listed.lines().take_while(|line| !line.is_empty());
    // A line that goes on with what is said of a command stands further to the right.
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let mut found = Vec::new();
    for name in names {
        let words = [words, &[name]].concat();
        found.push(words.join(" "));
        found.extend(commands_below(&words));
    }
    found
}

/// A page as a reader sees it, and what `man` has to say of it. `None`: there is no `man` here.
fn shown(page: &Path) -> Option<(String, String)> {
    let mut command = Command::new("man");
    command.args(["--warnings", "--local-file"]).arg(page).env("LC_ALL", "C.UTF-8").env("MANWIDTH", "100");
    let output = command.stdin(Stdio::null()).output().ok()?;
    assert!(output.status.success(), "{}: {output:?}", page.display());
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Some((text(output.stdout), text(output.stderr)))
}

#[test]
fn every_command_has_a_page_without_warnings() {
    let folder = pages();
    let made = folder.path().join("pages");
    let commands = commands_below(&[]);
    assert!(commands.iter().any(|command| command == "ctl cache flush"), "{commands:?}");
    let expected = commands.iter().map(|command| format!("hedgerow-{}.1", command.replace(' ', "-")));
    let expected: BTreeSet<_> = expected.chain(["hedgerow.1".to_owned(), "hedgerow.toml.5".to_owned()]).collect();
    let found = made.read_dir().expect("it is made").map(|entry| entry.expect("it can be read").file_name());
    let found: BTreeSet<_> = found.map(|name| name.into_string().expect("UTF-8")).collect();
    assert_eq!(found, expected);
    for page in found {
        let Some((text, warnings)) = shown(&made.join(&page)) else {
            return leave_out("every_command_has_a_page_without_warnings", "there is no man");
        };
        assert_eq!(warnings, "", "{page}");
        assert!(text.contains("SEE ALSO"), "{page}: {text}");
    }
}

#[test]
fn the_page_of_the_program_comes_on_stdout() {
    let folder = pages();
    let page = fs::read(folder.path().join("pages/hedgerow.1")).expect("it is made");
    assert_eq!(hedgerow(&["man"]).stdout, page);
    let failed = Command::new(env!("CARGO_BIN_EXE_hedgerow")).args(["man", "--dir", "/proc/no"]).output();
    let failed = failed.expect("cargo has built it");
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("/proc/no: "), "{failed:?}");
}

#[test]
fn every_key_of_the_config_is_in_its_page() {
    let folder = pages();
    let page = folder.path().join("pages/hedgerow.toml.5");
    let source = fs::read_to_string(&page).expect("it is made");
    // Lines of the source that begin a key: its name, its value, whether that is the default.
    let plain = source.replace("\\-", "-").replace("\\.", ".").replace("\\fB", "").replace("\\fR", "");
    let mut keys = 0;
    for section in sections() {
        let heading = if section.name.is_empty() { "TOP LEVEL".to_owned() } else { format!("[{}]", section.name) };
        let (_, own) = plain
            .split_once(&format!("\n.SH {heading}\n"))
            .or_else(|| plain.split_once(&format!("\n.SH \"{heading}\"\n")))
            .unwrap_or_else(|| panic!("no section {heading}"));
        let own = own.split("\n.SH ").next().expect("a first part");
        for key in section.keys {
            let reported = format!("\n{} = ", key.name);
            let (_, reported) =
                own.split_once(&reported).unwrap_or_else(|| panic!("nothing of {} in {heading}", key.name));
            let first =
                key.comment.first().expect("each key is described").split(['"', '\'', '\\']).next().expect("a part");
            assert!(reported.contains(first), "{heading}: {}: {first}", key.name);
            keys += 1;
        }
    }
    assert!(keys >= 80, "{keys} keys");
    let Some((text, _)) = shown(&page) else { return };
    assert!(text.contains("busy_poll = \"0s\"") && text.contains("Takes a duration from 0s to 1ms."), "{text}");
}

#[test]
fn shells_take_their_completions() {
    let folder = TempDir::new().expect("a temporary folder");
    for (shell, is_required) in
        [("bash", true), ("zsh", false), ("fish", false), ("elvish", false), ("powershell", false)]
    {
        let script = hedgerow(&["completions", shell]).stdout;
        let text = String::from_utf8(script).expect("UTF-8");
        assert!(text.contains("simulate") && text.contains("completions"), "{shell}: {text}");
        let file = folder.path().join(shell);
        fs::write(&file, text).expect("our own folder");
        // The others have no way to read a file without running it.
        if !matches!(shell, "bash" | "zsh" | "fish") {
            continue;
        }
        match Command::new(shell).arg("-n").arg(&file).output() {
            Ok(read) => assert!(read.status.success() && read.stderr.is_empty(), "{shell}: {read:?}"),
            Err(_) if is_required => leave_out("shells_take_their_completions", &format!("there is no {shell}")),
            Err(_) => eprintln!("completions of {shell}: not tested, there is no {shell}"),
        }
    }
}

/// The completions of bash are the commands and options of the program.
#[test]
fn bash_completes_commands_and_options() {
    let script = String::from_utf8(hedgerow(&["completions", "bash"]).stdout).expect("UTF-8");
    let complete = |words: &[&str]| {
        let typed = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; _hedgerow hedgerow '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let output = Command::new("bash").args(["-c", &typed]).output().ok()?;
        Some(String::from_utf8(output.stdout).expect("UTF-8").split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    for (words, expected) in [
        (&["hedgerow", "si"][..], &["simulate"][..]),
        (&["hedgerow", "ctl", "rel"], &["reload"]),
        (&["hedgerow", "check", "--du"], &["--dump"]),
        (&["hedgerow", "completions", "po"], &["powershell"]),
    ] {
        let Some(offered) = complete(words) else {
            return leave_out("bash_completes_commands_and_options", "there is no bash");
        };
        assert_eq!(offered, expected, "{words:?}");
    }
}
