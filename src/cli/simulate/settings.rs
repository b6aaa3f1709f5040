//! `KEY=VALUE`, be it a word of the command line or an entry of a file: taken by key, with the place for what is wrong.

use std::error::Error;
use std::fmt;

use crate::config::nearest;

/// What describes one thing.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Where it is described.
    place: String,
    /// What is said of it.
    entries: Vec<Entry>,
    /// The keys asked for so far, there or not.
    taken: Vec<&'static str>,
}

/// One setting.
#[derive(Clone, Debug)]
struct Entry {
    key: String,
    value: String,
    /// Where it stands.
    place: String,
}

impl Settings {
    /// Nothing is said yet of what is described there.
    pub(super) fn at(place: String) -> Self {
        Self { place, entries: Vec::new(), taken: Vec::new() }
    }

    /// Reads words with blanks between them. The first may be the value of `head` alone.
    pub(super) fn of_words(place: String, text: &str, head: Option<&str>) -> Result<Self, Mistake> {
        let mut settings = Self::at(place);
        for (index, word) in text.split_whitespace().enumerate() {
            let (key, value) = match (word.split_once('='), head) {
                (Some((key, value)), _) if !key.is_empty() => (key, value),
                (None, Some(head)) if index == 0 => (head, word),
                (Some(_) | None, _) => {
                    return Err(Mistake::at(&settings.place, format_args!("expected KEY=VALUE, not {word:?}")));
                }
            };
            let place = format!("{}: {key}", settings.place);
            settings.add(key, value.to_owned(), place)?;
        }
        Ok(settings)
    }

    /// Adds a setting that stands at `place`.
    pub(super) fn add(&mut self, key: &str, value: String, place: String) -> Result<(), Mistake> {
        if self.entries.iter().any(|entry| entry.key == key) {
            return Err(Mistake::at(&place, "given twice, expected one value"));
        }
        self.entries.push(Entry { key: key.to_owned(), value, place });
        Ok(())
    }

    /// The value of `key` as `read` understands it, if it is there.
    pub(super) fn take<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Mistake> {
        self.taken.push(key);
        let Some(place) = self.entries.iter().position(|entry| entry.key == key) else { return Ok(None) };
        let Entry { value, place, .. } = self.entries.remove(place);
        let wrong = |error| Mistake::at(&place, format_args!("invalid value {value:?}: {error}"));
        read(&value).map(Some).map_err(wrong)
    }

    /// All that is not taken, in words. The value of `head` stands alone.
    pub(super) fn to_words(&self, head: &str) -> String {
        let word =
            |Entry { key, value, .. }: &Entry| if key == head { value.clone() } else { format!("{key}={value}") };
        self.entries.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// Where it is described.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Everything that is known was taken: what is left is wrong.
    pub(super) fn finish(self) -> Result<(), Mistake> {
        let Some(entry) = self.entries.first() else { return Ok(()) };
        Err(Mistake::unknown(&entry.place, &entry.key, &self.taken))
    }
}

/// What is wrong in a description: where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake(String);

impl Mistake {
    /// Something is wrong there.
    pub(super) fn at(place: &str, message: impl fmt::Display) -> Self {
        Self(format!("{place}: {message}"))
    }

    /// A key is none of those that are known.
    pub(super) fn unknown(place: &str, key: &str, known: &[&'static str]) -> Self {
        let remedy = match nearest(key, known.iter().copied()) {
            Some(key) => format!("did you mean {key:?}?"),
            None => format!("expected one of {}", known.join(", ")),
        };
        Self::at(place, format_args!("unknown key, {remedy}"))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Mistake {}
