//! `hedgerow man`: the manual pages, from the command line's help and the configuration reference.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use config::description::Shape;
use config::reference::{KeyDefault, ReferenceKey, ReferenceSection, sections, shape};

use super::{failure, help, print};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write all pages into this folder, and create it if missing [default: hedgerow(1) to stdout]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let Some(folder) = &args.dir else {
        return print(&page(command()));
    };
    match write_all(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(format_args!("hedgerow: {}: {error}", folder.display())),
    }
}

fn write_all(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("hedgerow.toml.5"), config_page())?;
    let mut commands = vec![command()];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        let name = command.get_display_name().unwrap_or("hedgerow").to_owned();
        fs::write(folder.join(format!("{name}.1")), page(command))?;
    }
    Ok(())
}

/// Returns the command line with the full names of all commands.
fn command() -> Command {
    // `help` would add a second page for each command.
    let mut command = help::command().disable_help_subcommand(true);
    command.build();
    command
}

fn page(mut command: Command) -> Vec<u8> {
    let more = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (more, examples) = help::split(&more);
    // roff would fill it as prose, and some of it is a table.
    command = command.after_help(None);
    let see_also: &[&str] = match command.get_display_name() {
        Some("hedgerow") | None => &["hedgerow.toml(5)"],
        Some(_) => &["hedgerow(1)", "hedgerow.toml(5)"],
    };
    let mut tail = Roff::new();
    if !more.is_empty() {
        tail.control("SH", ["MORE"]);
        verbatim(&mut tail, more.lines());
    }
    tail.control("SH", ["EXAMPLES"]);
    verbatim(&mut tail, examples.lines());
    tail.control("SH", ["FILES"]);
    tail.text([italic("config.toml"), roman(", else "), italic("/etc/hedgerow/config.toml")]);
    tail.control("SH", ["SEE ALSO"]);
    tail.text([roman(see_also.join(", "))]);
    let mut page = Vec::new();
    let written = Man::new(command).source(SOURCE).manual(MANUAL).render(&mut page);
    written.and_then(|()| tail.to_writer(&mut page)).expect("a Vec takes all");
    page
}

fn config_page() -> Vec<u8> {
    let mut roff = Roff::new();
    roff.control("TH", ["hedgerow.toml", "5", "", SOURCE, MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("hedgerow.toml - the configuration of hedgerow")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([
        roman("The file that "),
        bold("hedgerow serve"),
        roman(" runs is TOML: "),
        italic("config.toml"),
        roman(" in the current folder, else "),
        italic("/etc/hedgerow/config.toml"),
        roman(", or what "),
        bold("-c"),
        roman(
            " names. Durations are strings with a unit (\"250ms\", \"3s\", \"1h\"), sizes too (\"64MiB\"). File names are \
             relative to the folder of the file. A key that is not known is an error. ",
        ),
        bold("hedgerow check"),
        roman(" reports every problem in a file, with its place and a remedy."),
    ]);
    let shape = shape();
    for section in sections() {
        match section.name.as_str() {
            "" => roff.control("SH", ["TOP LEVEL"]),
            name => roff.control("SH", [format!("[{name}]").as_str()]),
        };
        for paragraph in section.intro.split(String::is_empty).filter(|paragraph| !paragraph.is_empty()) {
            roff.control("PP", []).text([roman(paragraph.join(" "))]);
        }
        if !section.example.is_empty() {
            roff.control("PP", []);
            verbatim(&mut roff, section.example.iter().map(String::as_str));
        }
        section.keys.iter().for_each(|key| add_key(&mut roff, &section, key, &shape));
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("hedgerow(1), hedgerow-check(1), hedgerow-serve(1)")]);
    roff.render().into_bytes()
}

fn add_key(roff: &mut Roff, section: &ReferenceSection, key: &ReferenceKey, shape: &Shape) {
    let value = roman(format!(" = {}", key.value));
    let default = match section.default_of(key, shape) {
        KeyDefault::Shown => "the default",
        KeyDefault::Nothing => "an example, no default",
        KeyDefault::Required => "an example, required",
    };
    roff.control("TP", []).text([bold(key.name.as_str()), value, roman(format!("   ({default})"))]);
    roff.text([roman(key.comment.join(" "))]);
    match section.takes(key, shape) {
        takes if takes.is_empty() => {}
        takes => drop(roff.control("br", []).text([roman(format!("Takes {takes}."))])),
    }
}

/// Adds lines without filling them.
fn verbatim<'a>(roff: &mut Roff, lines: impl Iterator<Item = &'a str>) {
    roff.control("nf", []);
    for line in lines {
        // An empty line would end the example.
        let text: Inline = if line.is_empty() { roman(" ") } else { roman(line) };
        roff.text([text]);
    }
    roff.control("fi", []);
}

const SOURCE: &str = concat!("hedgerow ", env!("CARGO_PKG_VERSION"));

const MANUAL: &str = "hedgerow manual";
