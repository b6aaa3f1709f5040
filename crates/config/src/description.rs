//! A description of the configuration, found by running its readers on a document that contains everything.
//!
//! Readers note a `Fact` for each request. A [`Shape`] is the tree of them: keys in reading order, kinds of
//! values, words and bounds.

use std::fmt::Display;

use super::limits::Limits;
use super::words::{Expectation, Form};

/// The placeholder for keys that the operator chooses.
pub(crate) const ANY_KEY: &str = "NAME";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    Other,
    Discriminated(u8),
    Table,
}

impl Variant {
    pub(super) const ALL: [Self; 4] = [Self::Other, Self::Discriminated(0), Self::Discriminated(1), Self::Table];
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fact {
    Key,
    Required(&'static str),
    Either([&'static str; 2]),
    Any(&'static [&'static str]),
    Table,
    Array { least: usize, example: String },
    Scalar(ValueKind),
}

impl Fact {
    /// A string for `parse`. Its error messages on absurd texts reveal what it accepts.
    pub(super) fn text<T>(parse: impl Fn(&str) -> Result<T, Expectation>) -> Self {
        let expectations: Vec<_> =
            ["999999d", "9999999GiB", "?", ""].into_iter().filter_map(|text| parse(text).err()).collect();
        let expected =
            expectations.iter().find(|expected| expected.what().contains(" from ")).or_else(|| expectations.first());
        let text = expected
            .map(|expected| TextDescription { what: expected.what().to_owned(), forms: expected.forms().to_vec() });
        let text = text.unwrap_or_else(|| TextDescription { what: "a string".to_owned(), forms: Vec::new() });
        Self::Scalar(ValueKind::Text(text))
    }

    pub(super) fn integer<T: Display>(limits: &Limits<T>) -> Self {
        // Integers of different widths share no trait that converts; all bounds fit in 64 bits.
        let bound = |value: &T| value.to_string().parse().unwrap_or(i64::MAX);
        Self::Scalar(ValueKind::Integer { min: bound(&limits.min), max: bound(&limits.max) })
    }
}

/// The strings that a reader accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextDescription {
    /// The description in words.
    pub what: String,
    /// The alternative forms of the text. Empty: any text.
    pub forms: Vec<Form>,
}

/// One kind of value that a reader accepts.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueKind {
    /// A string value.
    Text(TextDescription),
    /// An integer within bounds.
    Integer {
        /// The smallest allowed value.
        min: i64,
        /// The largest allowed value.
        max: i64,
    },
    /// A number within bounds, with or without a decimal point.
    Number {
        /// The smallest allowed value.
        min: f64,
        /// The largest allowed value.
        max: f64,
    },
    /// True or false, a Boolean value.
    Boolean,
    /// An array of values.
    Array {
        /// The minimum number of items.
        least: usize,
        /// An example in TOML syntax.
        example: String,
        /// The kinds of the items.
        items: Vec<Self>,
    },
    /// A table of keys.
    Table(TableDescription),
}

impl ValueKind {
    /// The accepted values in words.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Text(text) => text.what.clone(),
            Self::Integer { min, max } => format!("an integer from {min} to {max}"),
            Self::Number { min, max } => format!("a number from {min} to {max}"),
            Self::Boolean => "true or false".to_owned(),
            Self::Array { example, .. } => format!("an array such as {example}"),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// The keys of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableDescription {
    /// The keys in reading order. `NAME` stands for keys that the operator chooses.
    pub keys: Vec<(String, Shape)>,
    /// The required keys.
    pub required: Vec<&'static str>,
    /// Pairs of keys with exactly one present.
    pub either: Vec<[&'static str; 2]>,
    /// Groups of keys with at least one present.
    pub any: Vec<&'static [&'static str]>,
}

impl TableDescription {
    /// The shape of the value of a key.
    pub(crate) fn key(&self, name: &str) -> Option<&Shape> {
        self.keys.iter().find(|(key, _)| key == name).map(|(_, shape)| shape)
    }
}

/// The values that are accepted in one place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// The distinct kinds of values.
    pub kinds: Vec<ValueKind>,
}

impl Shape {
    /// The table among the kinds.
    pub(crate) fn table(&self) -> Option<&TableDescription> {
        self.kinds.iter().find_map(|kind| if let ValueKind::Table(table) = kind { Some(table) } else { None })
    }

    /// The shape at a path of keys below.
    pub(crate) fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').filter(|key| !key.is_empty()).try_fold(self, |shape, key| shape.table()?.key(key))
    }

    /// The accepted values in words.
    pub(crate) fn what(&self) -> String {
        self.kinds.iter().map(ValueKind::what).collect::<Vec<_>>().join(" or ")
    }

    pub(super) fn of(facts: Vec<(String, Fact)>) -> Self {
        let mut root = Builder { is_table: true, ..Builder::default() };
        for (path, fact) in facts {
            // Keys of the configuration are bare, so these characters split a path into steps.
            let steps = path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty());
            steps.fold(&mut root, Builder::child).note(fact);
        }
        root.shape()
    }
}

#[derive(Default)]
struct Builder {
    children: Vec<(String, Self)>,
    is_table: bool,
    required: Vec<&'static str>,
    either: Vec<[&'static str; 2]>,
    any: Vec<&'static [&'static str]>,
    array: Option<(usize, String)>,
    scalars: Vec<ValueKind>,
}

impl Builder {
    fn child(&mut self, step: &str) -> &mut Self {
        let index = self.children.iter().position(|(name, _)| name == step).unwrap_or_else(|| {
            self.children.push((step.to_owned(), Self::default()));
            self.children.len() - 1
        });
        &mut self.children[index].1
    }

    fn note(&mut self, fact: Fact) {
        let scalar = match fact {
            Fact::Key => return,
            Fact::Required(key) => return self.required.push(key),
            Fact::Either(keys) => return self.either.push(keys),
            Fact::Any(keys) => return self.any.push(keys),
            Fact::Table => return self.is_table = true,
            Fact::Array { least, example } => return self.array = Some((least, example)),
            Fact::Scalar(scalar) => scalar,
        };
        if !self.scalars.contains(&scalar) {
            self.scalars.push(scalar);
        }
    }

    fn shape(mut self) -> Shape {
        let children = std::mem::take(&mut self.children).into_iter().map(|(name, child)| (name, child.shape()));
        let mut kinds = std::mem::take(&mut self.scalars);
        match self.array.take() {
            Some((least, example)) => {
                let mut items = Vec::new();
                for kind in children.flat_map(|(_, shape)| shape.kinds) {
                    if !items.contains(&kind) {
                        items.push(kind);
                    }
                }
                kinds.push(ValueKind::Array { least, example, items });
            }
            None if self.is_table => {
                let keys = children.collect();
                let Self { required, either, any, .. } = self;
                kinds.push(ValueKind::Table(TableDescription { keys, required, either, any }));
            }
            None => {}
        }
        Shape { kinds }
    }
}
