//! A parsed TOML document, walked by key: every value knows its key path and its place in the file,
//! and what is wrong with it is noted instead of ending the walk.
//!
//! A reader takes the keys it knows from a [`Section`] one by one, then calls [`Section::finish`],
//! which notes every key that was not taken. So what is known is exactly what is read. A wrong value
//! reads as if it was not there; that is safe because a document with problems gives no `Config`.
//!
//! The same readers describe what they take, for the JSON Schema and the reference: in a described document every key is there,
//! and every value notes as a [`Fact`] what was asked of it, then reads as if it was wrong.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::description::{ANY_KEY, Fact, Variant};
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
    /// What the readers ask of a described document, each with the path of the value.
    facts: RefCell<Vec<(String, Fact)>>,
}

impl<'d> Notes<'d> {
    /// Nothing is found yet.
    pub(super) fn new(file: &'d str, text: &'d str) -> Self {
        Self { file, text, found: RefCell::default(), facts: RefCell::default() }
    }

    /// Notes a problem with a stretch of the file, or with the file as a whole.
    pub(super) fn add(&self, span: Option<Range<usize>>, path: &str, message: String) {
        let problem = Problem::new(self.file, self.text, span, path, message);
        let mut found = self.found.borrow_mut();
        // What stands for several pools is read for each kind of them.
        if !found.contains(&problem) {
            found.push(problem);
        }
    }

    /// Everything that was noted.
    pub(super) fn into_found(self) -> Vec<Problem> {
        self.found.into_inner()
    }

    /// What the readers took from a described document, in the order of the walk.
    pub(super) fn into_facts(self) -> Vec<(String, Fact)> {
        self.facts.into_inner()
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

    /// Notes what a reader asks of the value here.
    fn describe(&self, fact: Fact) {
        self.notes.facts.borrow_mut().push((self.path.clone(), fact));
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
#[derive(Clone)]
pub(super) struct Node<'d> {
    /// Where the value stands.
    pub(super) spot: Spot<'d>,
    /// Where its key stands; for an item of an array the item itself.
    pub(super) key: Spot<'d>,
    value: Value<'d>,
}

/// What stands in a document, or what is to be described.
#[derive(Clone, Copy)]
enum Value<'d> {
    /// Read from a file.
    Written(&'d DeValue<'d>),
    /// To be described, as one of the kinds that it may be of.
    Described(Variant),
}

impl<'d> Node<'d> {
    /// Reads a string by one of the functions of [`words`](super::words).
    pub(super) fn parsed<T>(&self, parse: impl Fn(&str) -> Result<T, Expected>) -> Option<T> {
        let value = self.written(|| Fact::text(&parse))?;
        let message = match value {
            DeValue::String(text) => match parse(text) {
                Ok(value) => return Some(value),
                Err(expected) => format!("invalid value {text:?}: {expected}"),
            },
            other => match parse(&scalar_text(other)) {
                Ok(_) => format!("expected a string: put the {} in quotes", other.type_str()),
                Err(expected) => mismatch(value, expected.what()),
            },
        };
        self.spot.note(message);
        None
    }

    /// Reads a string that no message may show, as [`Node::parsed`] does: a secret with a slip is nearly the secret.
    pub(super) fn parsed_unseen<T>(&self, parse: impl Fn(&str) -> Result<T, Expected>) -> Option<T> {
        let message = match self.written(|| Fact::text(&parse))? {
            DeValue::String(text) => match parse(text) {
                Ok(value) => return Some(value),
                Err(expected) => format!("invalid value, not shown here: {expected}"),
            },
            other => mismatch(other, "a string"),
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
        let written = self.written(|| Fact::integer(&limits))?;
        let DeValue::Integer(integer) = written else {
            self.spot.note(mismatch(written, &what));
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
        let written = self.written(|| Fact::Number(limits))?;
        if !matches!(written, DeValue::Integer(_) | DeValue::Float(_)) {
            self.spot.note(mismatch(written, &what));
            return None;
        }
        let text = scalar_text(written);
        let value = text.parse().ok().filter(|value| limits.holds(value));
        if value.is_none() {
            self.spot.note(format!("invalid value {text}: expected {what}"));
        }
        value
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let written = self.written(|| Fact::Boolean)?;
        let DeValue::Boolean(value) = written else {
            self.spot.note(mismatch(written, "true or false"));
            return None;
        };
        Some(*value)
    }

    /// The items of an array, at least one; a value that is none is noted and has no items.
    pub(super) fn items(&self, example: &str) -> Vec<Self> {
        if let Value::Written(DeValue::Array(array)) = self.value
            && array.is_empty()
        {
            self.spot.note(format!("expected at least one, such as {example}"));
        }
        self.items_from(1, example)
    }

    /// The items of an array, which may be empty; a value that is none is noted and has no items.
    pub(super) fn any_items(&self, example: &str) -> Vec<Self> {
        self.items_from(0, example)
    }

    /// The items of an array, of which there must be so many.
    fn items_from(&self, least: usize, example: &str) -> Vec<Self> {
        let node = |index: usize, span: Option<Range<usize>>, value: Value<'d>| {
            let path = format!("{}[{index}]", self.spot.path);
            let spot = Spot { span, path, notes: self.spot.notes };
            Self { key: spot.clone(), spot, value }
        };
        let written = match self.value {
            Value::Written(written) => written,
            Value::Described(_) => {
                self.spot.describe(Fact::Array { least, example: example.to_owned() });
                let variants = Variant::ALL.into_iter().enumerate();
                return variants.map(|(index, variant)| node(index, None, Value::Described(variant))).collect();
            }
        };
        let DeValue::Array(array) = written else {
            self.spot.note(mismatch(written, &format!("an array such as {example}")));
            return Vec::new();
        };
        let item = |(index, item): (usize, &'d Spanned<DeValue<'d>>)| {
            node(index, Some(item.span()), Value::Written(item.get_ref()))
        };
        array.iter().enumerate().map(item).collect()
    }

    /// The table that this value is; another value is noted.
    pub(super) fn section(&self) -> Option<Section<'d>> {
        let node = match self.value {
            Value::Written(_) => self.table(),
            Value::Described(_) => Self { value: Value::Described(Variant::Table), ..self.clone() }.table(),
        };
        if let (None, Value::Written(written)) = (&node, self.value) {
            self.spot.note(mismatch(written, "a table"));
        }
        node
    }

    /// The table that this value is, where other values are right too.
    pub(super) fn table(&self) -> Option<Section<'d>> {
        let entries = match self.value {
            Value::Written(DeValue::Table(entries)) => Entries::Written(entries),
            Value::Written(_) | Value::Described(Variant::Other) => return None,
            Value::Described(variant) => {
                self.spot.describe(Fact::Table);
                Entries::Described(variant)
            }
        };
        Some(Section { spot: self.spot.clone(), entries, taken: Vec::new() })
    }

    /// What stands there. Of what is described, the fact is noted instead.
    fn written(&self, fact: impl FnOnce() -> Fact) -> Option<&'d DeValue<'d>> {
        match self.value {
            Value::Written(written) => Some(written),
            Value::Described(_) => {
                self.spot.describe(fact());
                None
            }
        }
    }
}

/// A table of the document, from which a reader takes what it knows.
pub(super) struct Section<'d> {
    /// Where its header stands.
    pub(super) spot: Spot<'d>,
    /// All of its keys.
    entries: Entries<'d>,
    /// The keys asked for so far, there or not.
    taken: Vec<&'static str>,
}

/// The keys of a table.
#[derive(Clone, Copy)]
enum Entries<'d> {
    /// Those that stand in a file.
    Written(&'d DeTable<'d>),
    /// All that are asked for.
    Described(Variant),
}

impl<'d> Section<'d> {
    /// The document itself.
    pub(super) fn document(entries: &'d DeTable<'d>, notes: &'d Notes<'d>) -> Self {
        let spot = Spot { span: None, path: String::new(), notes };
        Self { spot, entries: Entries::Written(entries), taken: Vec::new() }
    }

    /// A document that has whatever it is asked for, and notes what that is.
    pub(super) fn described(notes: &'d Notes<'d>) -> Self {
        let spot = Spot { span: None, path: String::new(), notes };
        Self { spot, entries: Entries::Described(Variant::Table), taken: Vec::new() }
    }

    /// The value of `key`, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node<'d>> {
        self.taken.push(key);
        match self.entries {
            Entries::Written(entries) => {
                let (key, value) = entries.get_key_value(key)?;
                Some(self.node(key, value))
            }
            Entries::Described(_) => {
                let node = self.described_node(key, Variant::Other);
                node.spot.describe(Fact::Key);
                Some(node)
            }
        }
    }

    /// The value of a key that makes this another kind of table where it is there: the kind of this number.
    pub(super) fn take_discriminator(&mut self, key: &'static str, kind: u8) -> Option<Node<'d>> {
        match self.entries {
            Entries::Described(Variant::Discriminated(described)) if described == kind => {
                self.spot.describe(Fact::Required(key));
                self.take(key)
            }
            Entries::Described(_) => None,
            Entries::Written(_) => self.take(key),
        }
    }

    /// Whether `key` is there.
    pub(super) fn has(&self, key: &str) -> bool {
        match self.entries {
            Entries::Written(entries) => entries.contains_key(key),
            Entries::Described(_) => true,
        }
    }

    /// Whether this is to be described.
    pub(super) fn is_described(&self) -> bool {
        matches!(self.entries, Entries::Described(_))
    }

    /// The values of two keys of which one must be there, and one only. `examples` are what to write.
    pub(super) fn take_either(&mut self, keys: [&'static str; 2], examples: &str) -> [Option<Node<'d>>; 2] {
        if let Entries::Described(_) = self.entries {
            self.spot.describe(Fact::Either(keys));
        }
        let nodes = keys.map(|key| self.take(key));
        match &nodes {
            [None, None] => self.spot.note(examples),
            [Some(_), Some(second)] if matches!(self.entries, Entries::Written(_)) => {
                second.key.note(format!("write either {} or {}, not both", keys[0], keys[1]));
            }
            _ => {}
        }
        nodes
    }

    /// The value of `key`, which must be there.
    pub(super) fn require(&mut self, key: &'static str, example: &str) -> Option<Node<'d>> {
        if let Entries::Described(_) = self.entries {
            self.spot.describe(Fact::Required(key));
        }
        let node = self.take(key);
        if node.is_none() {
            self.spot.note(format!("{key} is missing, write {key} = {example}"));
        }
        node
    }

    /// Notes `message` unless one of these keys is there.
    pub(super) fn need_any(&self, keys: &'static [&'static str], message: &str) {
        match self.entries {
            Entries::Written(entries) if keys.iter().any(|key| entries.contains_key(*key)) => {}
            Entries::Written(_) => self.spot.note(message),
            Entries::Described(_) => self.spot.describe(Fact::Any(keys)),
        }
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
        let entries = match self.entries {
            Entries::Written(entries) => entries,
            Entries::Described(_) => {
                let node = self.described_node(ANY_KEY, Variant::Other);
                node.spot.describe(Fact::Key);
                return vec![(ANY_KEY, node)];
            }
        };
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries.into_iter().map(|(key, value)| (key.get_ref().as_ref(), self.node(key, value))).collect()
    }

    /// Notes every key that was not taken, with the one that was perhaps meant.
    pub(super) fn finish(self) {
        if let Entries::Described(_) = self.entries {
            return;
        }
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
        Node { spot: spot(value.span()), key: spot(key.span()), value: Value::Written(value.get_ref()) }
    }

    /// The value of a key that is described.
    fn described_node(&self, key: &str, variant: Variant) -> Node<'d> {
        let spot = Spot { span: None, path: self.spot.path_to(key), notes: self.spot.notes };
        Node { key: spot.clone(), spot, value: Value::Described(variant) }
    }
}

/// Notes everything that stands in the file a second time. `what` tells what it is.
pub(super) fn note_repeats<'d, K>(things: impl IntoIterator<Item = (K, Spot<'d>)>, what: impl Fn(&K) -> String)
where
    K: Eq + Hash,
{
    let mut things: Vec<_> = things.into_iter().collect();
    things.sort_by_key(|(_, spot)| spot.offset());
    let mut first: HashMap<K, Spot<'d>> = HashMap::new();
    for (thing, spot) in things {
        match first.get(&thing) {
            Some(first) => spot.note(format!("{} twice, first on line {}", what(&thing), first.line())),
            None => {
                first.insert(thing, spot);
            }
        }
    }
}

/// What is said when a value of another kind was expected.
fn mismatch(value: &DeValue<'_>, what: &str) -> String {
    let kind = match value {
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

/// A key as it is written in TOML: bare if it can be.
pub(super) fn quoted_if_needed(key: &str) -> String {
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
