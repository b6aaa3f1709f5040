//! A parsed TOML document, walked by key: every value knows its key path and its place in the file,
//! and what is wrong with it is noted instead of ending the walk.
//!
//! A reader takes the keys it knows from a [`Section`] one by one, then calls [`Section::finish`],
//! which notes every key that was not taken. So what is known is exactly what is read. A wrong value
//! reads as if it was not there; that is safe because a document with problems gives no `Config`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::limits::Limits;
use super::problem::Problem;
use super::suggest::nearest;
use super::words::Expected;

/// The text that is walked, and what was found wrong with it so far.
pub(super) struct Notes<'d> {
    /// The file's name in messages.
    file: &'d str,
    /// The whole file.
    text: &'d str,
    /// In the order of the walk.
    found: RefCell<Vec<Problem>>,
}

impl<'d> Notes<'d> {
    /// Nothing is found yet.
    pub(super) fn new(file: &'d str, text: &'d str) -> Self {
        Self { file, text, found: RefCell::default() }
    }

    /// Notes a problem with a stretch of the file, or with the file as a whole.
    pub(super) fn add(&self, span: Option<Range<usize>>, path: &str, message: String) {
        let problem = Problem::new(self.file, self.text, span, path, message);
        self.found.borrow_mut().push(problem);
    }

    /// Everything that was noted.
    pub(super) fn into_found(self) -> Vec<Problem> {
        self.found.into_inner()
    }
}

/// A place that a problem can be noted at.
#[derive(Clone)]
pub(super) struct Spot<'d> {
    /// Octets of the file; none for the document itself.
    span: Option<Range<usize>>,
    /// The key path, with quotes where TOML needs them.
    path: String,
    /// Where problems go.
    notes: &'d Notes<'d>,
}

impl Spot<'_> {
    /// Notes a problem here.
    pub(super) fn note(&self, message: impl Into<String>) {
        self.notes.add(self.span.clone(), &self.path, message.into());
    }

    /// The line of the file, from 1.
    fn line(&self) -> usize {
        let start = self.span.as_ref().map_or(0, |span| span.start);
        self.notes.text.bytes().take(start).filter(|&octet| octet == b'\n').count() + 1
    }

    /// Orders spots as the file does.
    fn offset(&self) -> usize {
        self.span.as_ref().map_or(0, |span| span.start)
    }

    /// The path of a key below this one.
    fn path_to(&self, key: &str) -> String {
        let key = quoted_if_needed(key);
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }
}

/// A value, the spot where it stands, and the spot of its key.
pub(super) struct Node<'d> {
    /// Where the value stands.
    pub(super) spot: Spot<'d>,
    /// Where its key stands; for an item of an array the item itself.
    pub(super) key: Spot<'d>,
    value: &'d DeValue<'d>,
}

impl<'d> Node<'d> {
    /// Reads a string by one of the functions of [`words`](super::words).
    pub(super) fn parsed<T>(&self, parse: impl Fn(&str) -> Result<T, Expected>) -> Option<T> {
        let message = match self.value {
            DeValue::String(text) => match parse(text) {
                Ok(value) => return Some(value),
                Err(expected) => format!("invalid value {text:?}: {expected}"),
            },
            other => match parse(&scalar_text(other)) {
                Ok(_) => format!("expected a string: put the {} in quotes", other.type_str()),
                Err(expected) => self.mismatch(expected.what()),
            },
        };
        self.spot.note(message);
        None
    }

    /// Reads a string that no message may show, as [`Node::parsed`] does: a secret with a slip is nearly the secret.
    pub(super) fn parsed_unseen<T>(&self, parse: impl Fn(&str) -> Result<T, Expected>) -> Option<T> {
        let message = match self.value {
            DeValue::String(text) => match parse(text) {
                Ok(value) => return Some(value),
                Err(expected) => format!("invalid value, not shown here: {expected}"),
            },
            _ => self.mismatch("a string"),
        };
        self.spot.note(message);
        None
    }

    /// Reads an integer within bounds.
    pub(super) fn integer<T>(&self, limits: Limits<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let what = format!("an integer {limits}");
        let DeValue::Integer(integer) = self.value else {
            self.spot.note(self.mismatch(&what));
            return None;
        };
        let value = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value.and_then(|value| T::try_from(value).ok());
        let value = value.filter(|value| limits.holds(value));
        if value.is_none() {
            self.spot.note(format!("invalid value {integer}: expected {what}"));
        }
        value
    }

    /// Reads a number, with a point or without, within bounds.
    pub(super) fn number(&self, limits: Limits<f64>) -> Option<f64> {
        let what = format!("a number {limits}");
        if !matches!(self.value, DeValue::Integer(_) | DeValue::Float(_)) {
            self.spot.note(self.mismatch(&what));
            return None;
        }
        let text = scalar_text(self.value);
        let value = text.parse().ok().filter(|value| limits.holds(value));
        if value.is_none() {
            self.spot.note(format!("invalid value {text}: expected {what}"));
        }
        value
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let DeValue::Boolean(value) = self.value else {
            self.spot.note(self.mismatch("true or false"));
            return None;
        };
        Some(*value)
    }

    /// The items of an array, at least one; a value that is none is noted and has no items.
    pub(super) fn items(&self, example: &str) -> Vec<Self> {
        if let DeValue::Array(array) = self.value
            && array.is_empty()
        {
            self.spot.note(format!("expected at least one, such as {example}"));
        }
        self.any_items(example)
    }

    /// The items of an array, which may be empty; a value that is none is noted and has no items.
    pub(super) fn any_items(&self, example: &str) -> Vec<Self> {
        let DeValue::Array(array) = self.value else {
            self.spot.note(self.mismatch(&format!("an array such as {example}")));
            return Vec::new();
        };
        let item = |(index, item): (usize, &'d Spanned<DeValue<'d>>)| {
            let path = format!("{}[{index}]", self.spot.path);
            let spot = Spot { span: Some(item.span()), path, notes: self.spot.notes };
            Self { key: spot.clone(), spot, value: item.get_ref() }
        };
        array.iter().enumerate().map(item).collect()
    }

    /// The table that this value is; another value is noted.
    pub(super) fn section(&self) -> Option<Section<'d>> {
        let section = self.table();
        if section.is_none() {
            self.spot.note(self.mismatch("a table"));
        }
        section
    }

    /// The table that this value is, where other values are right too.
    pub(super) fn table(&self) -> Option<Section<'d>> {
        let DeValue::Table(entries) = self.value else {
            return None;
        };
        Some(Section { spot: self.spot.clone(), entries, taken: Vec::new() })
    }

    /// What is said when a value of another kind was expected.
    fn mismatch(&self, what: &str) -> String {
        let kind = match self.value {
            DeValue::Integer(_) => "an integer",
            DeValue::Array(_) => "an array",
            DeValue::String(_) => "a string",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a datetime",
            DeValue::Table(_) => "a table",
        };
        format!("expected {what}, not {kind}")
    }
}

/// A table of the document, from which a reader takes what it knows.
pub(super) struct Section<'d> {
    /// Where its header stands.
    pub(super) spot: Spot<'d>,
    /// All of its keys.
    entries: &'d DeTable<'d>,
    /// The keys asked for so far, there or not.
    taken: Vec<&'static str>,
}

impl<'d> Section<'d> {
    /// The document itself.
    pub(super) fn document(entries: &'d DeTable<'d>, notes: &'d Notes<'d>) -> Self {
        let spot = Spot { span: None, path: String::new(), notes };
        Self { spot, entries, taken: Vec::new() }
    }

    /// The value of `key`, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node<'d>> {
        self.taken.push(key);
        let (key, value) = self.entries.get_key_value(key)?;
        Some(self.node(key, value))
    }

    /// The value of `key`, which must be there.
    pub(super) fn require(&mut self, key: &'static str, example: &str) -> Option<Node<'d>> {
        let node = self.take(key);
        if node.is_none() {
            self.spot.note(format!("{key} is missing, write {key} = {example}"));
        }
        node
    }

    /// Reads `key` by one of the functions of [`words`](super::words).
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Expected>,
        default: T,
    ) -> T {
        self.take(key).and_then(|node| node.parsed(parse)).unwrap_or(default)
    }

    /// Reads `key` as an integer within bounds.
    pub(super) fn integer<T>(&mut self, key: &'static str, limits: Limits<T>, default: T) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        self.take(key).and_then(|node| node.integer(limits)).unwrap_or(default)
    }

    /// Reads `key` as `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        self.take(key).and_then(|node| node.boolean()).unwrap_or(default)
    }

    /// The table below `key`, if it is there.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Self> {
        self.take(key)?.section()
    }

    /// Every entry of a table whose keys the operator chooses, in the order of the file.
    pub(super) fn named(&self) -> Vec<(&'d str, Node<'d>)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries.into_iter().map(|(key, value)| (key.get_ref().as_ref(), self.node(key, value))).collect()
    }

    /// Notes every key that was not taken, with the one that was perhaps meant.
    pub(super) fn finish(self) {
        for (name, node) in self.named() {
            if self.taken.contains(&name) {
                continue;
            }
            let remedy = match nearest(name, self.taken.iter().copied()) {
                Some(key) => format!("did you mean {key:?}?"),
                None => format!("expected one of {}", self.taken.join(", ")),
            };
            let spot = Spot { path: self.spot.path.clone(), ..node.key };
            spot.note(format!("unknown key {name:?}, {remedy}"));
        }
    }

    /// One entry of this table with its spots.
    fn node(&self, key: &'d Spanned<toml::de::DeString<'d>>, value: &'d Spanned<DeValue<'d>>) -> Node<'d> {
        let spot = |span| Spot { span: Some(span), path: self.spot.path_to(key.get_ref()), notes: self.spot.notes };
        Node { spot: spot(value.span()), key: spot(key.span()), value: value.get_ref() }
    }
}

/// Notes everything that stands in the file a second time. `what` tells what it is.
pub(super) fn note_repeats<'d, K>(things: impl IntoIterator<Item = (K, Spot<'d>)>, what: impl Fn(&K) -> String)
where
    K: Eq + Hash,
{
    let mut things: Vec<_> = things.into_iter().collect();
    things.sort_by_key(|(_, spot)| spot.offset());
    let mut first: HashMap<K, usize> = HashMap::new();
    for (thing, spot) in things {
        match first.get(&thing) {
            Some(line) => spot.note(format!("{} twice, first on line {line}", what(&thing))),
            None => {
                first.insert(thing, spot.line());
            }
        }
    }
}

/// A key as it is written in TOML: bare if it can be.
fn quoted_if_needed(key: &str) -> String {
    let bare = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'_' || octet == b'-';
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { format!("{key:?}") }
}

/// The text of a value that is no string; empty for one that has parts.
fn scalar_text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(_) | DeValue::Table(_) => String::new(),
    }
}
