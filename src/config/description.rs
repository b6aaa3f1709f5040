//! A description of the configuration: what its readers take, found by having them read a document that has everything.
//!
//! `Section` and its nodes (`section.rs`) note a `Fact` wherever a reader asks something of a described document.
//! A [`Shape`] is the tree of them: the keys of each table in the order in which they are read, the kinds of each value with
//! its words and bounds. What a key is for, and its default, stand in `config.toml`: see [`mod@super::reference`].

use std::fmt::Display;

use super::limits::Limits;
use super::words::{Expected, Form};

/// What stands for a key that the operator chooses.
pub const ANY_KEY: &str = "NAME";

/// What a described value is taken to be: a reader may take several kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// No table.
    Other,
    /// A table with the key that makes it another kind of table, of this number, if there is such a key.
    Discriminated(u8),
    /// A table without such a key.
    Table,
}

impl Variant {
    /// Each of them.
    pub(super) const ALL: [Self; 4] = [Self::Other, Self::Discriminated(0), Self::Discriminated(1), Self::Table];
}

/// One thing that a reader asks of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fact {
    /// The value of a key.
    Key,
    /// The value of this key of a table, which must be there.
    Required(&'static str),
    /// The value of one of these keys of a table.
    Either([&'static str; 2]),
    /// Values of these keys of a table, one of them at least.
    Any(&'static [&'static str]),
    /// That it is a table.
    Table,
    /// That it is an array of so many items at least, such as this one.
    Array {
        /// How many.
        least: usize,
        /// As it is written.
        example: String,
    },
    /// That it is a string.
    Text(Text),
    /// That it is an integer within bounds.
    Integer {
        /// The least.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// That it is a number within bounds.
    Number(Limits<f64>),
    /// That it is true or false.
    Boolean,
}

impl Fact {
    /// A string that this function reads. What it takes is learnt from what it says of texts that nobody means.
    pub(super) fn text<T>(parse: impl Fn(&str) -> Result<T, Expected>) -> Self {
        let told: Vec<_> =
            ["999999d", "9999999GiB", "?", ""].into_iter().filter_map(|text| parse(text).err()).collect();
        let expected = told.iter().find(|expected| expected.what().contains(" from ")).or_else(|| told.first());
        let text = expected.map(|expected| Text { what: expected.what().to_owned(), forms: expected.forms().to_vec() });
        Self::Text(text.unwrap_or_else(|| Text { what: "a string".to_owned(), forms: Vec::new() }))
    }

    /// An integer within these bounds.
    pub(super) fn integer<T: Display>(limits: &Limits<T>) -> Self {
        // Types of several widths have no trait in common that says it; all bounds are within 64 bits.
        let bound = |value: &T| value.to_string().parse().unwrap_or(i64::MAX);
        Self::Integer { min: bound(&limits.min), max: bound(&limits.max) }
    }
}

/// Strings that a reader takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// In words.
    pub what: String,
    /// In forms of which one must hold; none: any text.
    pub forms: Vec<Form>,
}

/// One kind of values that a reader takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A string.
    Text(Text),
    /// An integer within bounds.
    Integer {
        /// The least.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// A number within bounds, with a point or without.
    Number {
        /// The least.
        min: f64,
        /// The largest.
        max: f64,
    },
    /// True or false.
    Boolean,
    /// An array.
    Array {
        /// How many items at least.
        least: usize,
        /// As it is written.
        example: String,
        /// What its items may be.
        items: Vec<Self>,
    },
    /// A table.
    Table(Table),
}

impl Kind {
    /// What is taken, in words.
    pub fn what(&self) -> String {
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

/// The keys that a table may have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// In the order in which they are read. [`ANY_KEY`] stands for keys that the operator chooses.
    pub keys: Vec<(String, Shape)>,
    /// Those that must be there.
    pub required: Vec<&'static str>,
    /// Pairs of which one must be there, and one only.
    pub either: Vec<[&'static str; 2]>,
    /// Pairs of which one must be there, or both.
    pub any: Vec<&'static [&'static str]>,
}

impl Table {
    /// What may stand at a key.
    pub fn key(&self, name: &str) -> Option<&Shape> {
        self.keys.iter().find(|(key, _)| key == name).map(|(_, shape)| shape)
    }
}

/// What may stand in one place: values of any of some kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Each once.
    pub kinds: Vec<Kind>,
}

impl Shape {
    /// The table that may stand there, if one may.
    pub fn table(&self) -> Option<&Table> {
        self.kinds.iter().find_map(|kind| if let Kind::Table(table) = kind { Some(table) } else { None })
    }

    /// What may stand at a path of keys below.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').filter(|key| !key.is_empty()).try_fold(self, |shape, key| shape.table()?.key(key))
    }

    /// What is taken, in words.
    pub fn what(&self) -> String {
        self.kinds.iter().map(Kind::what).collect::<Vec<_>>().join(" or ")
    }

    /// The tree of what readers noted in their order, each fact with the path of its value.
    pub(super) fn of(facts: Vec<(String, Fact)>) -> Self {
        let mut root = Builder { is_table: true, ..Builder::default() };
        for (path, fact) in facts {
            // Keys of the configuration are bare, so that these split a path into its steps.
            let steps = path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty());
            steps.fold(&mut root, Builder::child).note(fact);
        }
        root.shape()
    }
}

/// A place in the tree while it grows.
#[derive(Default)]
struct Builder {
    /// Keys of a table, or variants of the items of an array.
    children: Vec<(String, Self)>,
    is_table: bool,
    required: Vec<&'static str>,
    either: Vec<[&'static str; 2]>,
    any: Vec<&'static [&'static str]>,
    array: Option<(usize, String)>,
    scalars: Vec<Kind>,
}

impl Builder {
    /// The place one step below.
    fn child(&mut self, step: &str) -> &mut Self {
        let index = self.children.iter().position(|(name, _)| name == step).unwrap_or_else(|| {
            self.children.push((step.to_owned(), Self::default()));
            self.children.len() - 1
        });
        &mut self.children[index].1
    }

    /// Takes a fact of this place.
    fn note(&mut self, fact: Fact) {
        let scalar = match fact {
            // The place is there now.
            Fact::Key => return,
            Fact::Required(key) => return self.required.push(key),
            Fact::Either(keys) => return self.either.push(keys),
            Fact::Any(keys) => return self.any.push(keys),
            Fact::Table => return self.is_table = true,
            Fact::Array { least, example } => return self.array = Some((least, example)),
            Fact::Text(text) => Kind::Text(text),
            Fact::Integer { min, max } => Kind::Integer { min, max },
            Fact::Number(limits) => Kind::Number { min: limits.min, max: limits.max },
            Fact::Boolean => Kind::Boolean,
        };
        if !self.scalars.contains(&scalar) {
            self.scalars.push(scalar);
        }
    }

    /// What has grown.
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
                kinds.push(Kind::Array { least, example, items });
            }
            None if self.is_table => {
                let keys = children.collect();
                let Self { required, either, any, .. } = self;
                kinds.push(Kind::Table(Table { keys, required, either, any }));
            }
            None => {}
        }
        Shape { kinds }
    }
}
