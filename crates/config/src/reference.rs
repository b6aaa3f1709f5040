//! The reference of the configuration: sections and keys of the built-in `config.toml`, with defaults and
//! comments. The [description](mod@super::description) adds kinds of values and required keys.

use super::description::{ANY_KEY, Shape};
use super::document;

const TEXT: &str = include_str!("../../../config.toml");

/// One section of the file.
#[derive(Default)]
pub struct ReferenceSection {
    /// The header without brackets; empty for the keys before the first header.
    pub name: String,
    /// The comment above the header, by lines; an empty line separates paragraphs.
    pub intro: Vec<String>,
    /// The keys of the section.
    pub keys: Vec<ReferenceKey>,
    /// The commented-out example in the section, by lines.
    pub example: Vec<String>,
}

/// One key of a section.
pub struct ReferenceKey {
    /// The name of the key.
    pub name: String,
    /// The value in TOML syntax.
    pub value: String,
    /// The comment of the key, by lines.
    pub comment: Vec<String>,
    is_comment: bool,
}

/// The value of a key that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDefault {
    /// The value in the file.
    Shown,
    /// No default: the value in the file is an example.
    Nothing,
    /// The key is required.
    Required,
}

impl ReferenceSection {
    /// The path in the description of the readers.
    pub(crate) fn path(&self) -> String {
        let mut steps: Vec<_> = self.name.split('.').collect();
        if let [_, name, ..] = &mut steps[..]
            && is_named(&self.name)
        {
            *name = ANY_KEY;
        }
        steps.join(".")
    }

    /// The default of a key.
    pub fn default_of(&self, key: &ReferenceKey, shape: &Shape) -> KeyDefault {
        let table = shape.at(&self.path()).and_then(Shape::table);
        let is_required = table.is_some_and(|table| table.required.contains(&key.name.as_str()));
        // A commented-out section shows defaults; one of several alternative keys is an example.
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

    /// The values that the reader of a key accepts, in words.
    pub fn takes(&self, key: &ReferenceKey, shape: &Shape) -> String {
        let table = shape.at(&self.path()).and_then(Shape::table);
        let taken = table.and_then(|table| table.key(&key.name).or_else(|| table.key(ANY_KEY)));
        taken.map(Shape::what).unwrap_or_default()
    }

    fn is_comment(&self) -> bool {
        self.keys.iter().all(|key| key.is_comment)
    }
}

fn is_named(section: &str) -> bool {
    ["pools.", "authorities.", "keys.", "certificates."].iter().any(|start| section.starts_with(start))
}

/// The path in the description: keys of `[defaults.pool]` are described as keys of a pool.
pub(crate) fn described_at(path: &str) -> String {
    match path.strip_prefix("defaults.pool.") {
        Some(key) => format!("pools.{ANY_KEY}.{key}"),
        None => path.to_owned(),
    }
}

/// The description of the readers.
pub fn shape() -> Shape {
    document::describe()
}

/// Reads the sections of the reference, commented ones included.
pub fn sections() -> Vec<ReferenceSection> {
    let mut sections = vec![ReferenceSection::default()];
    let mut comment: Vec<String> = Vec::new();
    let (_, text) = TEXT.split_once("\n\n").expect("the head ends");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let section = sections.last_mut().expect("there is one");
        if let Some(name) = bare.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let intro = std::mem::take(&mut comment);
            sections.push(ReferenceSection { name: name.to_owned(), intro, ..ReferenceSection::default() });
        } else if line == "# zones = [" {
            let example = [line].into_iter().chain(lines.by_ref().take_while(|line| *line != "#"));
            let example = example.map(|line| line.strip_prefix("# ").expect("a comment").to_owned()).collect();
            let intro = std::mem::take(&mut comment);
            let name = "authorities.*.zones".to_owned();
            sections.push(ReferenceSection { name, intro, example, ..ReferenceSection::default() });
            comment.extend(lines.peek().map(|_| String::new()));
        } else if let Some((name, rest)) = bare.split_once(" = ").filter(|(name, _)| is_key(name)) {
            let (value, own) = split_value(rest);
            comment.extend(own);
            let is_more = |line: &str| line.trim_start_matches('#').starts_with("          ");
            while let Some(more) = lines.next_if(|line| is_more(line)) {
                comment.push(more.trim_start_matches(['#', ' ']).to_owned());
            }
            let comment = std::mem::take(&mut comment);
            let comment = comment.into_iter().filter(|line| !line.is_empty()).collect();
            section.keys.push(ReferenceKey {
                name: name.to_owned(),
                value,
                is_comment: line.starts_with('#'),
                comment,
            });
        } else if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim().to_owned());
        } else if !comment.is_empty() {
            section.intro.append(&mut comment);
        }
    }
    sections.retain(|section| section.name != "authorities.ts2");
    sections
}

fn is_key(name: &str) -> bool {
    name.starts_with('"') || name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

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
