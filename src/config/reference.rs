//! The reference of the configuration: the sections and keys of `config.toml`, which is built in, each with its default and what
//! is said of it. What a key takes, and whether it must be there, is told by the [description](mod@super::description).
//!
//! The JSON Schema, the manual hedgerow.toml(5) and docs/src/configuration.md are made from both.

use super::description::{ANY_KEY, Shape};
use super::document;

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
    /// Where it stands in the description of what the readers take.
    pub fn path(&self) -> String {
        let mut steps: Vec<_> = self.name.split('.').collect();
        if let [_, name, ..] = &mut steps[..]
            && is_named(&self.name)
        {
            *name = ANY_KEY;
        }
        steps.join(".")
    }

    /// What holds where a key is not there.
    pub fn default_of(&self, key: &Key, shape: &Shape) -> KeyDefault {
        let table = shape.at(&self.path()).and_then(Shape::table);
        let is_required = table.is_some_and(|table| table.required.contains(&key.name.as_str()));
        // A section that is there as a whole, as a comment, shows defaults; so does a key that is no comment.
        // One of several that may stand for each other is an example, too.
        let is_one_of = table.is_some_and(|table| table.any.iter().any(|group| group.contains(&key.name.as_str())));
        let is_example = is_one_of
            || key.is_comment && !self.is_comment()
            || key.comment.iter().any(|line| line.contains("no default"));
        match (is_required, is_example) {
            (true, _) => KeyDefault::Required,
            (false, true) => KeyDefault::Nothing,
            (false, false) => KeyDefault::Shown,
        }
    }

    /// What the reader of configs takes there, in words.
    pub fn takes(&self, key: &Key, shape: &Shape) -> String {
        let table = shape.at(&self.path()).and_then(Shape::table);
        let taken = table.and_then(|table| table.key(&key.name).or_else(|| table.key(ANY_KEY)));
        taken.map(Shape::what).unwrap_or_default()
    }

    /// Whether a whole section is a comment.
    fn is_comment(&self) -> bool {
        self.keys.iter().all(|key| key.is_comment)
    }
}

/// Whether the second word of a section's name is one that the operator chooses.
fn is_named(section: &str) -> bool {
    ["pools.", "authorities.", "keys.", "certificates."].iter().any(|start| section.starts_with(start))
}

/// The path where the keys at a path are described: those of `[defaults.pool]` are those of a pool.
pub fn described_at(path: &str) -> String {
    match path.strip_prefix("defaults.pool.") {
        Some(key) => format!("pools.{ANY_KEY}.{key}"),
        None => path.to_owned(),
    }
}

/// What the readers take.
pub fn shape() -> Shape {
    document::describe()
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
