//! `hedgerow schema`: the JSON Schema of the configuration, for editors, and its reference as Markdown, for the docs.

use std::process::ExitCode;

use super::print;
use crate::config::description::Shape;
use crate::config::reference::{self, Key, KeyDefault, Section};
use crate::config::schema::schema;

/// The options.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write the reference of all keys as Markdown instead
    #[arg(long)]
    markdown: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> ExitCode {
    if args.markdown {
        return print(markdown().as_bytes());
    }
    print(format!("{:#}\n", schema()).as_bytes())
}

/// The reference as Markdown.
fn markdown() -> String {
    let shape = reference::shape();
    let mut text = String::new();
    for section in reference::sections() {
        let title = if section.name.is_empty() { "Top level".to_owned() } else { format!("`[{}]`", section.name) };
        text.truncate(text.trim_end().len());
        text.push_str(&format!("\n\n## {title}\n\n"));
        let intro = section.intro.join("\n");
        for paragraph in intro.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
            text.push_str(&format!("{paragraph}\n\n"));
        }
        if !section.example.is_empty() {
            text.push_str(&format!("```toml,fragment\n[authorities.ts1]\n{}\n```\n", section.example.join("\n")));
        }
        if !section.keys.is_empty() {
            text.push_str("| Key | Default | Takes | |\n|---|---|---|---|\n");
        }
        section.keys.iter().for_each(|key| text.push_str(&row(&section, key, &shape)));
        if let Some((_, page)) = PAGES.iter().find(|(name, _)| *name == section.name) {
            text.push_str(&format!("\nMore: {page}.\n"));
        }
    }
    text.push('\n');
    text
}

/// One key as a row of a table.
fn row(section: &Section, key: &Key, shape: &Shape) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let comment = key.comment.join(" ");
    let default = match section.default_of(key, shape) {
        KeyDefault::Shown => format!("`{}`", key.value),
        KeyDefault::Nothing => format!("none; such as `{}`", key.value),
        KeyDefault::Required => format!("must be there; such as `{}`", key.value),
    };
    let takes = section.takes(key, shape);
    format!("| `{}` | {} | {} | {} |\n", key.name, cell(&default), cell(&takes), cell(&comment))
}

/// Where a section is told of at length.
const PAGES: &[(&str, &str)] = &[
    ("", "[least privilege](deploy.md#least-privilege), [when busy polling pays](deploy.md#systemd)"),
    ("forwarder.connections", "[connections by TCP](hostile.md#connections-by-tcp)"),
    ("forwarder.limits", "[what one client may have](hostile.md#what-one-client-may-have)"),
    ("pools.ts", "[races](races.md), [who is asked](balance.md#who-is-asked), [choosing a policy](simulate.md)"),
    ("pools.ts.hedge", "[races](races.md)"),
    ("pools.ts.health", "[who is up](balance.md#who-is-up)"),
    ("authorities.ts1", "[zones](zones.md), [cookies](hostile.md#cookies)"),
    ("authorities.ts1.rate_limit", "[what one client may have](hostile.md#what-one-client-may-have)"),
    ("keys.replica", "[zone transfers](transfers.md)"),
    ("cache", "[cache](cache.md)"),
    ("xdp", "[AF_XDP](xdp.md)"),
    ("supervisor", "[supervisor and standbys](supervisor.md)"),
    ("admin", "[admin API](admin.md)"),
];
