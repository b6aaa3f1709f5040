//! `docs/src/configuration.md`: its reference is made from `config.toml` (sections, keys, defaults, comments) and from the reader
//! of configs, which is shown a wrong value of every key and says what it takes instead.

use hedgerow::config::reference::{Key, KeyDefault, Section, sections};

use super::markdown::top;

/// The document.
const FILE: &str = "docs/src/configuration.md";

/// Between these lines stands what is made here.
const MARKS: [&str; 2] = [
    "<!-- Made from config.toml by tests/it/docs/configuration.rs: edit that, not this. -->\n",
    "<!-- So far made from config.toml. -->\n",
];

/// The command that makes it anew.
const COMMAND: &str = "HEDGEROW_WRITE_DOCS=1 cargo test --test it docs::configuration";

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
    ("supervisor", "[supervisor and standbys](supervisor.md)"),
    ("admin", "[admin API](admin.md)"),
];

#[test]
fn configuration_is_what_config_toml_and_its_reader_say() {
    let sections = sections();
    let page = file(FILE);
    let (head, rest) = page.split_once(MARKS[0]).unwrap_or_else(|| panic!("{FILE}: no line {}", MARKS[0]));
    let (_, tail) = rest.split_once(MARKS[1]).unwrap_or_else(|| panic!("{FILE}: no line {}", MARKS[1]));
    let made = [head, MARKS[0], &render(&sections), MARKS[1], tail].concat();
    if std::env::var_os("HEDGEROW_WRITE_DOCS").is_some() {
        return std::fs::write(top().join(FILE), &made).expect("a file of ours");
    }
    let difference = made.lines().zip(page.lines().chain([""])).find(|(made, found)| made != found);
    assert!(made == page, "{FILE} is behind: {difference:#?}\nThis makes it anew: {COMMAND}");
}

/// A key without a word about it would be a riddle.
#[test]
fn every_key_is_told_of() {
    for section in sections() {
        for key in &section.keys {
            assert!(!key.comment.is_empty(), "config.toml says nothing of {} in [{}]", key.name, section.name);
        }
    }
}

/// Reads a file of the repository.
fn file(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The reference as Markdown.
fn render(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
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
        section.keys.iter().for_each(|key| text.push_str(&row(section, key)));
        if let Some((_, page)) = PAGES.iter().find(|(name, _)| *name == section.name) {
            text.push_str(&format!("\nMore: {page}.\n"));
        }
    }
    text.push('\n');
    text
}

/// One key as a row of a table.
fn row(section: &Section, key: &Key) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let comment = key.comment.join(" ");
    let default = match section.default_of(key) {
        KeyDefault::Shown => format!("`{}`", key.value),
        KeyDefault::Nothing => format!("none; such as `{}`", key.value),
        KeyDefault::Required => format!("must be there; such as `{}`", key.value),
    };
    let takes = section.takes(key);
    format!("| `{}` | {} | {} | {} |\n", key.name, cell(&default), cell(&takes), cell(&comment))
}
