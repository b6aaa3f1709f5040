//! Readers of values, one per kind, and the form of sections in which every key is one line.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::limits::Limits;
use super::section::{ConfigNode, note_repeats};
use super::words::{self, Expectation, KeyWord};

/// Defines a section from `key: Type = default, reader;` lines: the struct, its defaults, and `read_keys`,
/// which takes the keys in this order. `required EXAMPLE` behind the reader reports a missing key.
macro_rules! config_section {
    ($(#[$meta:meta])* pub struct $name:ident { $(
        $(#[$about:meta])* $key:ident: $type:ty = $default:expr, $reader:expr $(, required $example:expr)?;
    )+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)] pub struct $name { $($(#[$about])* pub $key: $type,)+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        impl $name {
            pub(super) fn read_keys(section: &mut $crate::section::ConfigSection<'_>) -> Self {
                Self { $($key: {
                    $(section.need(stringify!($key), $example);)?
                    section.read(stringify!($key), $default, $reader)
                },)+ }
            }
        }
    };
}

/// Reads the keys of a section into a struct that is defined elsewhere, from `key: reader` lines. Values that
/// are missing are those of `$usual`.
macro_rules! read_keys {
    ($section:expr, $usual:expr => $name:ident { $($key:ident: $reader:expr,)+ }) => {{
        let usual = $usual;
        $name { $($key: $section.read(stringify!($key), usual.$key, $reader),)+ }
    }};
}

pub(super) fn boolean(node: &ConfigNode<'_>) -> Option<bool> {
    node.boolean()
}

pub(super) fn integer<T>(limits: impl Into<Limits<T>>) -> impl FnOnce(&ConfigNode<'_>) -> Option<T>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    let limits = limits.into();
    move |node| node.integer(&limits)
}

pub(super) fn number(limits: impl Into<Limits<f64>>) -> impl FnOnce(&ConfigNode<'_>) -> Option<f64> {
    let limits = limits.into();
    move |node| node.number(limits)
}

pub(super) fn text<T>(parse: impl Fn(&str) -> Result<T, Expectation>) -> impl Fn(&ConfigNode<'_>) -> Option<T> {
    move |node| node.parsed(&parse)
}

pub(super) fn word<T: KeyWord>(node: &ConfigNode<'_>) -> Option<T> {
    node.parsed(words::word)
}

pub(super) fn label(node: &ConfigNode<'_>) -> Option<String> {
    node.parsed(words::label)
}

/// Reads the name of a file, relative to the folder of the config file.
pub(super) fn file(node: &ConfigNode<'_>) -> Option<PathBuf> {
    node.parsed(words::file_name).map(|file| node.folder().join(file))
}

pub(super) fn duration(limits: impl Into<Limits<Duration>>) -> impl Fn(&ConfigNode<'_>) -> Option<Duration> {
    let limits = limits.into();
    text(move |text| limits.parse(text))
}

/// Reads a duration in whole seconds, such as a TTL.
pub(super) fn seconds(limits: impl Into<Limits<Duration>>) -> impl Fn(&ConfigNode<'_>) -> Option<Duration> {
    let limits = limits.into();
    text(move |text| limits.parse_seconds(text))
}

pub(super) fn size(limits: impl Into<Limits<usize>>) -> impl Fn(&ConfigNode<'_>) -> Option<usize> {
    let limits = limits.into();
    text(move |text| limits.parse_size(text))
}

/// Reads the value of a key without a default.
pub(super) fn some<T>(
    reader: impl FnOnce(&ConfigNode<'_>) -> Option<T>,
) -> impl FnOnce(&ConfigNode<'_>) -> Option<Option<T>> {
    move |node| Some(reader(node))
}

/// Reads the items of an array. An item with the same text of `what` as an earlier one is a problem.
pub(super) fn distinct<'d, T>(
    items: Vec<ConfigNode<'d>>,
    mut read: impl FnMut(&ConfigNode<'d>) -> Option<T>,
    what: impl Fn(&T) -> String,
) -> Vec<T> {
    let (read, spots): (Vec<_>, Vec<_>) = items.into_iter().filter_map(|item| Some((read(&item)?, item.spot))).unzip();
    note_repeats(read.iter().map(what).zip(spots), String::clone);
    read
}

/// Reads an array of words, and returns for each known word if it stands there.
pub(super) fn flags<const N: usize>(items: &[ConfigNode<'_>], known: [&'static str; N]) -> [bool; N] {
    let word = |text: &str| match known.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(Expectation::one_of(text, known.into_iter(), None)),
    };
    let found: Vec<_> = items.iter().filter_map(|item| item.parsed(word)).collect();
    known.map(|known| found.iter().any(|found| found == known))
}
