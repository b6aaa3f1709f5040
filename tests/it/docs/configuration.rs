//! `docs/src/configuration.md`: its reference is made from `config.toml` (sections, keys, defaults, comments) and from the reader
//! of configs, which is shown a wrong value of every key and says what it takes instead.

use std::path::Path;

use hedgerow::config::Config;
use toml::{Table, Value};

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
    ("admin", "[admin API](admin.md)"),
];

/// One section of the file.
#[derive(Default)]
struct Section {
    /// Its header without brackets; empty for what stands before the first one.
    name: String,
    /// The comment above it.
    intro: Vec<String>,
    /// Its keys.
    keys: Vec<Key>,
    /// An example that stands in it as a comment.
    example: Vec<String>,
}

/// One key.
struct Key {
    /// The key.
    name: String,
    /// Its value as it is written.
    value: String,
    /// Whether the file has it as a comment.
    is_comment: bool,
    /// What is said of it.
    comment: Vec<String>,
}

#[test]
fn configuration_is_what_config_toml_and_its_reader_say() {
    let sections = read(&file("config.toml"));
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
    for section in read(&file("config.toml")) {
        for key in &section.keys {
            assert!(!key.comment.is_empty(), "config.toml says nothing of {} in [{}]", key.name, section.name);
        }
    }
}

/// Reads a file of the repository.
fn file(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Reads the sections of the reference, those too that stand there as comments.
fn read(text: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let mut comment: Vec<String> = Vec::new();
    // What stands at the top is about the file.
    let (_, text) = text.split_once("\n\n").expect("the head ends");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let section = sections.last_mut().expect("there is one");
        if let Some(name) = bare.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let intro = std::mem::take(&mut comment);
            sections.push(Section { name: name.to_owned(), intro, ..Section::default() });
        } else if line == "# zones = [" {
            let example = [line].into_iter().chain(lines.by_ref().take_while(|line| *line != "#"));
            let example = example.map(|line| line.strip_prefix("# ").expect("a comment").to_owned()).collect();
            let intro = std::mem::take(&mut comment);
            let name = "authorities.*.zones".to_owned();
            sections.push(Section { name, intro, example, ..Section::default() });
            comment.extend(lines.peek().map(|_| String::new()));
        } else if let Some((name, rest)) = bare.split_once(" = ").filter(|(name, _)| is_key(name)) {
            let (value, own) = split_value(rest);
            comment.extend(own);
            // What goes on below stands far to the right.
            let is_more = |line: &str| line.trim_start_matches('#').starts_with("          ");
            while let Some(more) = lines.next_if(|line| is_more(line)) {
                comment.push(more.trim_start_matches(['#', ' ']).to_owned());
            }
            let comment = std::mem::take(&mut comment);
            let comment = comment.into_iter().filter(|line| !line.is_empty()).collect();
            section.keys.push(Key { name: name.to_owned(), value, is_comment: line.starts_with('#'), comment });
        } else if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim().to_owned());
        } else if !comment.is_empty() {
            // A comment by itself goes on with what was said last.
            section.intro.append(&mut comment);
        }
    }
    sections.retain(|section| section.name != "authorities.ts2");
    sections
}

/// Whether a word is a key: what is prose is not.
fn is_key(name: &str) -> bool {
    name == "\".\"" || name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// A value and the comment behind it.
fn split_value(rest: &str) -> (String, Option<String>) {
    let mut in_text = false;
    for (at, c) in rest.char_indices() {
        match c {
            '"' => in_text = !in_text,
            '#' if !in_text => return (rest[..at].trim().to_owned(), Some(rest[at + 1..].trim().to_owned())),
            _ => {}
        }
    }
    (rest.trim().to_owned(), None)
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
    let default = match default_of(section, key) {
        Default::Value => format!("`{}`", key.value),
        Default::Nothing => format!("none; such as `{}`", key.value),
        Default::Required => format!("must be there; such as `{}`", key.value),
    };
    let takes = takes(section, key);
    format!("| `{}` | {} | {} | {} |\n", key.name, cell(&default), cell(&takes), cell(&comment))
}

/// What holds where a key is not there.
enum Default {
    /// What the file shows.
    Value,
    /// Nothing: what the file shows is an example.
    Nothing,
    /// It must be there.
    Required,
}

/// What holds where a key is not there.
fn default_of(section: &Section, key: &Key) -> Default {
    let mut config = base();
    let table = table_of(&mut config, &section.name);
    table.remove(&key.name);
    let problems = Config::parse(&toml::to_string(&config).expect("a table"), "c.toml", Path::new("/"));
    let is_missing = problems.is_err_and(|problems| problems.to_string().contains(&format!("{} is missing", key.name)));
    // A section that is there as a whole, as a comment, shows defaults; so does a key that is no comment.
    let is_example =
        key.is_comment && !is_comment(section) || key.comment.iter().any(|line| line.contains("no default"));
    match (is_missing, is_example) {
        (true, _) => Default::Required,
        (false, true) => Default::Nothing,
        (false, false) => Default::Value,
    }
}

/// Whether a whole section is a comment.
fn is_comment(section: &Section) -> bool {
    section.keys.iter().all(|key| key.is_comment)
}

/// What the reader of configs says that a key takes: it is shown what nobody can mean.
fn takes(section: &Section, key: &Key) -> String {
    let wrong = [
        Value::String("999999d".into()),
        Value::Integer(i64::MIN),
        Value::Float(-1.5),
        Value::String("?".into()),
        Value::String(String::new()),
        Value::Integer(0),
        Value::Table(Table::new()),
    ];
    let shown: Value = format!("x = {}", key.value).parse::<Table>().expect("a value")["x"].clone();
    let is_like = |value: &Value| value.same_type(&shown);
    let mut order: Vec<_> = wrong.iter().filter(|value| is_like(value)).collect();
    order.extend(wrong.iter().filter(|value| !is_like(value)));
    for value in order {
        let mut config = base();
        table_of(&mut config, &section.name).insert(key.name.clone(), value.clone());
        let text = toml::to_string(&config).expect("a table");
        let Err(problems) = Config::parse(&text, "c.toml", Path::new("/")) else { continue };
        let path = if section.name.is_empty() { key.name.clone() } else { format!("{}.{}", section.name, key.name) };
        let problem = problems.iter().map(|problem| problem.headline()).find(|line| line.contains(&format!(" {path}")));
        if let Some((_, takes)) = problem.as_deref().and_then(|line| line.split_once("expected ")) {
            let behind = ["; did you mean", ", not ", ": put the "];
            let end = behind.iter().filter_map(|mark| takes.find(mark)).min().unwrap_or(takes.len());
            return takes[..end].to_owned();
        }
    }
    String::new()
}

/// The config that a wrong value is put into.
fn base() -> Table {
    let mut config: Table = file("config.toml").parse().expect("the reference is TOML");
    let key = "[keys.replica]\nsecret_file = \"replica.key\"".parse::<Table>().expect("TOML");
    config.extend(key);
    config
}

/// The table of a section, made if need be.
fn table_of<'a>(config: &'a mut Table, name: &str) -> &'a mut Table {
    name.split('.').filter(|part| !part.is_empty()).fold(config, |table, part| {
        let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
        entry.as_table_mut().expect("a section")
    })
}
