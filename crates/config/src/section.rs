//! A parsed TOML document, read by key. Every value knows its key path and place, and problems are noted
//! without ending the walk.
//!
//! A reader takes known keys from a [`ConfigSection`] one by one. [`ConfigSection::whole`] reports all other
//! keys. A wrong value reads as missing; that is safe because a document with problems yields no `Config`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::description::{ANY_KEY, Fact, ValueKind, Variant};
use super::limits::Limits;
use super::problem::Problem;
use super::words::{Expectation, remedy};

pub(super) struct Notes<'d> {
    file: &'d str,
    text: &'d str,
    folder: &'d Path,
    found: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    facts: RefCell<Vec<(String, Fact)>>,
}

impl<'d> Notes<'d> {
    pub(super) fn new(file: &'d str, text: &'d str, folder: &'d Path) -> Self {
        Self { file, text, folder, found: RefCell::default(), warnings: RefCell::default(), facts: RefCell::default() }
    }

    pub(super) fn add(&self, span: Option<Range<usize>>, path: &str, message: String) {
        add_once(&self.found, Problem::new(self.file, self.text, span, path, message));
    }

    pub(super) fn into_warnings(self) -> Vec<Problem> {
        self.warnings.into_inner()
    }

    pub(super) fn into_found(self) -> Vec<Problem> {
        self.found.into_inner()
    }

    pub(super) fn into_facts(self) -> Vec<(String, Fact)> {
        self.facts.into_inner()
    }
}

fn add_once(problems: &RefCell<Vec<Problem>>, problem: Problem) {
    let mut problems = problems.borrow_mut();
    if !problems.contains(&problem) {
        problems.push(problem);
    }
}

#[derive(Clone)]
pub(super) struct DocumentSpot<'d> {
    span: Option<Range<usize>>,
    path: String,
    notes: &'d Notes<'d>,
}

impl DocumentSpot<'_> {
    pub(super) fn note(&self, message: impl Into<String>) {
        self.notes.add(self.span.clone(), &self.path, message.into());
    }

    pub(super) fn warn(&self, message: impl Into<String>) {
        let Notes { file, text, warnings, .. } = self.notes;
        add_once(warnings, Problem::new(file, text, self.span.clone(), &self.path, message.into()));
    }

    fn describe(&self, fact: Fact) {
        self.notes.facts.borrow_mut().push((self.path.clone(), fact));
    }

    fn line(&self) -> usize {
        let start = self.span.as_ref().map_or(0, |span| span.start);
        self.notes.text.bytes().take(start).filter(|&octet| octet == b'\n').count() + 1
    }

    fn offset(&self) -> usize {
        self.span.as_ref().map_or(0, |span| span.start)
    }

    fn path_to(&self, key: &str) -> String {
        let key = quoted_if_needed(key);
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }
}

#[derive(Clone)]
pub(super) struct ConfigNode<'d> {
    pub(super) spot: DocumentSpot<'d>,
    pub(super) key: DocumentSpot<'d>,
    value: Value<'d>,
}

#[derive(Clone, Copy)]
enum Value<'d> {
    Written(&'d DeValue<'d>),
    Described(Variant),
}

impl<'d> ConfigNode<'d> {
    /// The folder of the config file.
    pub(super) fn folder(&self) -> &'d Path {
        self.spot.notes.folder
    }

    pub(super) fn parsed<T>(&self, parse: impl Fn(&str) -> Result<T, Expectation>) -> Option<T> {
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

    /// Reads a string, but no message shows it: a mistyped secret is nearly the secret.
    pub(super) fn parsed_unseen<T>(&self, parse: impl Fn(&str) -> Result<T, Expectation>) -> Option<T> {
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

    pub(super) fn integer<T>(&self, limits: &Limits<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let read = |value: &DeValue<'_>| {
            let DeValue::Integer(integer) = value else { return None };
            Some(i64::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|value| T::try_from(value).ok()))
        };
        self.within(limits, &format!("an integer {limits}"), || Fact::integer(limits), read)
    }

    pub(super) fn number(&self, limits: Limits<f64>) -> Option<f64> {
        let read = |value: &DeValue<'_>| {
            matches!(value, DeValue::Integer(_) | DeValue::Float(_)).then(|| scalar_text(value).parse().ok())
        };
        let Limits { min, max } = limits;
        self.within(&limits, &format!("a number {limits}"), || Fact::Scalar(ValueKind::Number { min, max }), read)
    }

    /// Reads a value within bounds. `read` returns `None` for a value of another kind.
    fn within<T: PartialOrd>(
        &self,
        limits: &Limits<T>,
        what: &str,
        fact: impl FnOnce() -> Fact,
        read: impl FnOnce(&DeValue<'_>) -> Option<Option<T>>,
    ) -> Option<T> {
        let written = self.written(fact)?;
        let Some(value) = read(written) else {
            self.spot.note(mismatch(written, what));
            return None;
        };
        let value = value.filter(|value| limits.holds(value));
        if value.is_none() {
            self.spot.note(format!("invalid value {}: expected {what}", scalar_text(written)));
        }
        value
    }

    /// Returns true if the value is true or false, or is described.
    pub(super) fn may_be_boolean(&self) -> bool {
        matches!(self.value, Value::Written(DeValue::Boolean(_)) | Value::Described(_))
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let written = self.written(|| Fact::Scalar(ValueKind::Boolean))?;
        let DeValue::Boolean(value) = written else {
            self.spot.note(mismatch(written, "true or false"));
            return None;
        };
        Some(*value)
    }

    pub(super) fn items(&self, example: &str) -> Vec<Self> {
        if let Value::Written(DeValue::Array(array)) = self.value
            && array.is_empty()
        {
            self.spot.note(format!("expected at least one, such as {example}"));
        }
        self.items_from(1, example)
    }

    pub(super) fn any_items(&self, example: &str) -> Vec<Self> {
        self.items_from(0, example)
    }

    fn items_from(&self, least: usize, example: &str) -> Vec<Self> {
        let node = |index: usize, span: Option<Range<usize>>, value: Value<'d>| {
            let path = format!("{}[{index}]", self.spot.path);
            let spot = DocumentSpot { span, path, notes: self.spot.notes };
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

    pub(super) fn section(&self) -> Option<ConfigSection<'d>> {
        let node = match self.value {
            Value::Written(_) => self.table(),
            Value::Described(_) => Self { value: Value::Described(Variant::Table), ..self.clone() }.table(),
        };
        if let (None, Value::Written(written)) = (&node, self.value) {
            self.spot.note(mismatch(written, "a table"));
        }
        node
    }

    pub(super) fn table(&self) -> Option<ConfigSection<'d>> {
        let entries = match self.value {
            Value::Written(DeValue::Table(entries)) => Entries::Written(entries),
            Value::Written(_) | Value::Described(Variant::Other) => return None,
            Value::Described(variant) => {
                self.spot.describe(Fact::Table);
                Entries::Described(variant)
            }
        };
        Some(ConfigSection::of(entries, self.spot.clone()))
    }

    /// Reads a table, or a value of another kind.
    pub(super) fn table_or<T>(
        &self,
        other: impl Fn(&Self) -> Option<T>,
        read: impl FnOnce(&mut ConfigSection<'d>) -> Option<T>,
    ) -> Option<T> {
        let table = match self.value {
            Value::Written(_) => self.table(),
            Value::Described(_) => {
                other(self);
                self.section()
            }
        };
        match table {
            Some(section) => section.whole(read),
            None => other(self),
        }
    }

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

pub(super) struct ConfigSection<'d> {
    pub(super) spot: DocumentSpot<'d>,
    entries: Entries<'d>,
    taken: Vec<&'static str>,
}

#[derive(Clone, Copy)]
enum Entries<'d> {
    Written(&'d DeTable<'d>),
    Described(Variant),
}

impl<'d> ConfigSection<'d> {
    pub(super) fn document(entries: &'d DeTable<'d>, notes: &'d Notes<'d>) -> Self {
        Self::of(Entries::Written(entries), DocumentSpot { span: None, path: String::new(), notes })
    }

    pub(super) fn described(notes: &'d Notes<'d>) -> Self {
        Self::of(Entries::Described(Variant::Table), DocumentSpot { span: None, path: String::new(), notes })
    }

    fn of(entries: Entries<'d>, spot: DocumentSpot<'d>) -> Self {
        Self { spot, entries, taken: Vec::new() }
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<ConfigNode<'d>> {
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

    pub(super) fn take_discriminator(&mut self, key: &'static str, kind: u8) -> Option<ConfigNode<'d>> {
        match self.entries {
            Entries::Described(Variant::Discriminated(described)) if described == kind => {
                self.spot.describe(Fact::Required(key));
                self.take(key)
            }
            Entries::Described(_) => None,
            Entries::Written(_) => self.take(key),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        match self.entries {
            Entries::Written(entries) => entries.contains_key(key),
            Entries::Described(_) => true,
        }
    }

    pub(super) fn is_described(&self) -> bool {
        matches!(self.entries, Entries::Described(_))
    }

    pub(super) fn take_either(&mut self, keys: [&'static str; 2], examples: &str) -> [Option<ConfigNode<'d>>; 2] {
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

    pub(super) fn require(&mut self, key: &'static str, example: &str) -> Option<ConfigNode<'d>> {
        self.need(key, example);
        self.take(key)
    }

    /// Reports a missing key.
    pub(super) fn need(&self, key: &'static str, example: &str) {
        if let Entries::Described(_) = self.entries {
            self.spot.describe(Fact::Required(key));
        } else if !self.has(key) {
            self.spot.note(format!("{key} is missing, write {key} = {example}"));
        }
    }

    pub(super) fn need_any(&self, keys: &'static [&'static str], message: &str) {
        match self.entries {
            Entries::Written(entries) if keys.iter().any(|key| entries.contains_key(*key)) => {}
            Entries::Written(_) => self.spot.note(message),
            Entries::Described(_) => self.spot.describe(Fact::Any(keys)),
        }
    }

    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        reader: impl FnOnce(&ConfigNode<'d>) -> Option<T>,
    ) -> T {
        self.optional(key, reader).unwrap_or(default)
    }

    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        reader: impl FnOnce(&ConfigNode<'d>) -> Option<T>,
    ) -> Option<T> {
        self.take(key).and_then(|node| reader(&node))
    }

    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        reader: impl FnOnce(&ConfigNode<'d>) -> Option<T>,
    ) -> Option<T> {
        self.need(key, example);
        self.optional(key, reader)
    }

    /// The place of a key's value, or that of the section without it.
    pub(super) fn spot_of(&self, key: &'static str) -> DocumentSpot<'d> {
        match self.entries {
            Entries::Written(entries) => entries.get_key_value(key).map(|(key, value)| self.node(key, value).spot),
            Entries::Described(_) => None,
        }
        .unwrap_or_else(|| self.spot.clone())
    }

    /// The folder of the config file.
    pub(super) fn folder(&self) -> &'d Path {
        self.spot.notes.folder
    }

    pub(super) fn section(&mut self, key: &'static str) -> Option<Self> {
        self.take(key)?.section()
    }

    /// Reads the table below a key.
    pub(super) fn below<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.section(key).map(|section| section.whole(read))
    }

    /// Reads all keys, and reports unknown ones.
    pub(super) fn whole<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let value = read(&mut self);
        self.finish();
        value
    }

    pub(super) fn named(&self) -> Vec<(&'d str, ConfigNode<'d>)> {
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

    fn finish(self) {
        if let Entries::Described(_) = self.entries {
            return;
        }
        for (name, node) in self.named() {
            if self.taken.contains(&name) {
                continue;
            }
            let remedy = remedy(name, self.taken.iter().copied());
            let spot = DocumentSpot { path: self.spot.path.clone(), ..node.key };
            spot.note(format!("unknown key {name:?}, {remedy}"));
        }
    }

    fn node(&self, key: &'d Spanned<toml::de::DeString<'d>>, value: &'d Spanned<DeValue<'d>>) -> ConfigNode<'d> {
        let spot =
            |span| DocumentSpot { span: Some(span), path: self.spot.path_to(key.get_ref()), notes: self.spot.notes };
        ConfigNode { spot: spot(value.span()), key: spot(key.span()), value: Value::Written(value.get_ref()) }
    }

    fn described_node(&self, key: &str, variant: Variant) -> ConfigNode<'d> {
        let spot = DocumentSpot { span: None, path: self.spot.path_to(key), notes: self.spot.notes };
        ConfigNode { key: spot.clone(), spot, value: Value::Described(variant) }
    }
}

pub(super) fn note_repeats<'d, K>(things: impl IntoIterator<Item = (K, DocumentSpot<'d>)>, what: impl Fn(&K) -> String)
where
    K: Eq + Hash,
{
    let mut things: Vec<_> = things.into_iter().collect();
    things.sort_by_key(|(_, spot)| spot.offset());
    let mut first: HashMap<K, DocumentSpot<'d>> = HashMap::new();
    for (thing, spot) in things {
        match first.get(&thing) {
            Some(first) => spot.note(format!("{} twice, first on line {}", what(&thing), first.line())),
            None => {
                first.insert(thing, spot);
            }
        }
    }
}

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

pub(super) fn quoted_if_needed(key: &str) -> String {
    let bare = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'_' || octet == b'-';
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { format!("{key:?}") }
}

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
