//! `KEY=VALUE` settings from the command line or a file, taken by key, with their position for errors.

use std::fmt;

use config::remedy;

#[derive(Clone, Debug, Default)]
pub(super) struct SettingEntries {
    place: String,
    entries: Vec<SettingEntry>,
    taken: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct SettingEntry {
    key: String,
    value: String,
    place: String,
}

impl SettingEntries {
    pub(super) fn at(place: String) -> Self {
        Self { place, ..Self::default() }
    }

    /// Parses words separated by blanks. The first may be the value of `head` without its key.
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

    pub(super) fn add(&mut self, key: &str, value: String, place: String) -> Result<(), Mistake> {
        if self.entries.iter().any(|entry| entry.key == key) {
            return Err(Mistake::at(&place, "given twice, expected one value"));
        }
        self.entries.push(SettingEntry { key: key.to_owned(), value, place });
        Ok(())
    }

    pub(super) fn take<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Mistake> {
        self.taken.push(key);
        let Some(place) = self.entries.iter().position(|entry| entry.key == key) else { return Ok(None) };
        let SettingEntry { value, place, .. } = self.entries.remove(place);
        let wrong = |error| Mistake::at(&place, format_args!("invalid value {value:?}: {error}"));
        read(&value).map(Some).map_err(wrong)
    }

    /// Formats all settings that are not taken. The value of `head` stands without its key.
    pub(super) fn to_words(&self, head: &str) -> String {
        let word = |SettingEntry { key, value, .. }: &SettingEntry| {
            if key == head { value.clone() } else { format!("{key}={value}") }
        };
        self.entries.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Reports settings that were not taken, after all known keys were.
    pub(super) fn finish(self) -> Result<(), Mistake> {
        let Some(entry) = self.entries.first() else { return Ok(()) };
        Err(Mistake::unknown(&entry.place, &entry.key, &self.taken))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Mistake(String);

impl Mistake {
    pub(super) fn at(place: &str, message: impl fmt::Display) -> Self {
        Self(format!("{place}: {message}"))
    }

    pub(super) fn unknown(place: &str, key: &str, known: &[&'static str]) -> Self {
        Self::at(place, format_args!("unknown key, {}", remedy(key, known.iter().copied())))
    }
}
