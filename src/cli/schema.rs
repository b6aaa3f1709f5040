//! `hedgerow schema`: the JSON Schema of the configuration, and its reference as Markdown.

use std::process::ExitCode;

use config::description::Shape;
use config::reference::{self, KeyDefault, ReferenceKey, ReferenceSection};
use config::schema::schema;

use super::print;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write the reference of all keys as Markdown instead
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    if args.markdown {
        return print(markdown().as_bytes());
    }
    print(format!("{:#}\n", schema()).as_bytes())
}

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
        section.keys.iter().for_each(|key| text.push_str(&row(&section, key, &shape)));
        if let Some((_, page)) = PAGES.iter().find(|(name, _)| *name == section.name) {
            text.push_str(&format!("\nMore: {page}.\n"));
        }
    }
    text.push('\n');
    text
}

fn row(section: &ReferenceSection, key: &ReferenceKey, shape: &Shape) -> String {
    let comment = key.comment.join(" ").replace(" (no default)", "");
    let takes = section.takes(key, shape);
    let takes = brief(&takes);
    let (name, value) = (&key.name, &key.value);
    match section.default_of(key, shape) {
        KeyDefault::Shown => format!("- `{name} = {value}` ({takes}): {comment}\n"),
        KeyDefault::Nothing => format!("- `{name}` ({takes}, no default, such as `{value}`): {comment}\n"),
        KeyDefault::Required => format!("- `{name}` ({takes}, required, such as `{value}`): {comment}\n"),
    }
}

fn brief(takes: &str) -> &str {
    // The default or the comment shows an example, and the comment lists the words.
    let kind = takes.split(" such as ").next().unwrap_or(takes).trim_end_matches(',');
    match kind {
        "true or false" => "boolean",
        _ if kind.starts_with("one of ") => "word",
        _ => {
            let obvious = ["a duration from ", "an integer from ", "a number from ", "an ", "a ", "the "];
            obvious.iter().find_map(|start| kind.strip_prefix(start)).unwrap_or(kind)
        }
    }
}

/// The pages that describe a section at length.
const PAGES: &[(&str, &str)] = &[
    ("", "[least privilege](deploy.md#least-privilege), [when busy polling pays](deploy.md#systemd)"),
    ("forwarder", "[rules](rules.md)"),
    ("forwarder.connections", "[connections by TCP](hostile.md#connections-by-tcp)"),
    ("forwarder.limits", "[what one client may have](hostile.md#what-one-client-may-have)"),
    ("pools.ts", "[races](races.md), [balancing](balance.md#who-is-asked), [choosing a policy](simulate.md)"),
    ("pools.ts.hedge", "[races](races.md)"),
    ("pools.ts.health", "[health](balance.md#who-is-up)"),
    ("authorities.ts1", "[zones](zones.md), [cookies](hostile.md#cookies)"),
    ("authorities.ts1.rate_limit", "[what one client may have](hostile.md#what-one-client-may-have)"),
    ("keys.replica", "[zone transfers](transfers.md)"),
    ("cache", "[cache](cache.md)"),
    ("xdp", "[AF_XDP](xdp.md)"),
    ("supervisor", "[supervisor and standbys](supervisor.md)"),
    ("admin", "[admin API](admin.md)"),
];
