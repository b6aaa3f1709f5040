//! The reference of the configuration: the sections and keys of `config.toml`, which is built in, each with its default, what it
//! takes, and what is said of it. What a key takes is asked of the reader of configs, which is shown a wrong value.
//!
//! The manual hedgerow.toml(5) and docs/src/configuration.md are made from this.

use std::path::Path;

use toml::{Table, Value};

use super::Config;

/// What all of this is made from.
const TEXT: &str = include_str!("../../config.toml");

/// One section of the file.
#[derive(Default)]
pub struct Section {
    /// Its header without brackets; empty for what stands before the first one.
    pub name: String,
    /// The comment above it, by lines; an empty one stands between paragraphs.
    pub intro: Vec<String>,
    /// Its keys.
    pub keys: Vec<Key>,
    /// An example that stands in it as a comment, by lines.
    pub example: Vec<String>,
}

/// One key.
pub struct Key {
    /// The key.
    pub name: String,
    /// Its value as it is written.
    pub value: String,
    /// What is said of it, by lines.
    pub comment: Vec<String>,
    /// Whether the file has it as a comment.
    is_comment: bool,
}

/// What holds where a key is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDefault {
    /// What the file shows.
    Shown,
    /// Nothing: what the file shows is an example.
    Nothing,
    /// It must be there.
    Required,
}

impl Section {
    /// What holds where a key is not there.
    pub fn default_of(&self, key: &Key) -> KeyDefault {
        let mut config = base();
        let table = table_of(&mut config, &self.name);
        table.remove(&key.name);
        let problems = Config::parse(&toml::to_string(&config).expect("a table"), "c.toml", Path::new("/"));
        let is_missing =
            problems.is_err_and(|problems| problems.to_string().contains(&format!("{} is missing", key.name)));
        // A section that is there as a whole, as a comment, shows defaults; so does a key that is no comment.
        let is_example =
            key.is_comment && !self.is_comment() || key.comment.iter().any(|line| line.contains("no default"));
        match (is_missing, is_example) {
            (true, _) => KeyDefault::Required,
            (false, true) => KeyDefault::Nothing,
            (false, false) => KeyDefault::Shown,
        }
    }

    /// What the reader of configs says that a key takes: it is shown what nobody can mean.
    pub fn takes(&self, key: &Key) -> String {
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
            table_of(&mut config, &self.name).insert(key.name.clone(), value.clone());
            let text = toml::to_string(&config).expect("a table");
            let Err(problems) = Config::parse(&text, "c.toml", Path::new("/")) else { continue };
            let path = if self.name.is_empty() { key.name.clone() } else { format!("{}.{}", self.name, key.name) };
            let problem =
                problems.iter().map(|problem| problem.headline()).find(|line| line.contains(&format!(" {path}")));
            if let Some((_, takes)) = problem.as_deref().and_then(|line| line.split_once("expected ")) {
                let behind = ["; did you mean", ", not ", ": put the "];
                let end = behind.iter().filter_map(|mark| takes.find(mark)).min().unwrap_or(takes.len());
                return takes[..end].to_owned();
            }
        }
        String::new()
    }

    /// Whether a whole section is a comment.
    fn is_comment(&self) -> bool {
        self.keys.iter().all(|key| key.is_comment)
    }
}

/// Reads the sections of the reference, those too that stand there as comments.
pub fn sections() -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let mut comment: Vec<String> = Vec::new();
    // What stands at the top is about the file.
    let (_, text) = TEXT.split_once("\n\n").expect("the head ends");
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

/// The config that a wrong value is put into.
fn base() -> Table {
    let mut config: Table = TEXT.parse().expect("the reference is TOML");
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
