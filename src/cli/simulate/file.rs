//! A scenario in a TOML file, with the same keys and values as on the command line.
//!
//! ```toml
//! queries = 1_000_000
//! rate = 3000
//! slow = "20x@500ms/30s"
//! names = "zipf(1.0, 10000)"
//! ttl = "1m"
//! policies = ["sequential", "hedge delay=p95 budget=5%"]
//! [[backends]]
//! latency = "1ms+1%:500ms"
//! loss = "5%"
//! ```

use std::fs;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::policy::HEAD;
use super::settings::{Mistake, SettingEntries};

#[derive(Debug, Default)]
pub(super) struct Description {
    pub(super) settings: SettingEntries,
    pub(super) backends: Vec<SettingEntries>,
    pub(super) policies: Vec<SettingEntries>,
}

pub(super) fn read(file: &Path) -> Result<Description, Mistake> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| Mistake::at(&name, format_args!("cannot be read: {error}")))?;
    parse(&name, &text)
}

fn parse(file: &str, text: &str) -> Result<Description, Mistake> {
    let source = ScenarioSource { file, text };
    let document = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        Mistake::at(&source.place(start), error.message())
    })?;
    let mut description =
        Description { settings: SettingEntries::at(file.to_owned()), backends: Vec::new(), policies: Vec::new() };
    for (key, value) in document.get_ref() {
        match key.get_ref().as_ref() {
            "backends" => description.backends = source.items("backends", None, value)?,
            "policies" => description.policies = source.items("policies", Some(HEAD), value)?,
            // Reported here, because `backends` and `policies` are valid suggestions, too, and before the
            // value is parsed.
            other if !KEYS.contains(&other) => {
                let place = format!("{}: {other}", source.place(key.span().start));
                return Err(Mistake::unknown(&place, other, &KEYS));
            }
            other => source.add(&mut description.settings, other, other, value)?,
        }
    }
    Ok(description)
}

const KEYS: [&str; 9] = ["queries", "rate", "workers", "seed", "slow", "names", "ttl", "backends", "policies"];

struct ScenarioSource<'s> {
    file: &'s str,
    text: &'s str,
}

impl ScenarioSource<'_> {
    fn items(
        &self,
        name: &str,
        head: Option<&str>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<SettingEntries>, Mistake> {
        let DeValue::Array(items) = value.get_ref() else {
            let place = format!("{}: {name}", self.place(value.span().start));
            return Err(Mistake::at(&place, "expected an array of texts, or of tables"));
        };
        let item = |(index, item): (usize, &Spanned<DeValue<'_>>)| {
            let path = format!("{name}[{index}]");
            let place = format!("{}: {path}", self.place(item.span().start));
            match item.get_ref() {
                DeValue::String(words) => SettingEntries::of_words(place, words, head),
                DeValue::Table(entries) => {
                    let mut settings = SettingEntries::at(place);
                    // In file order, which determines a policy's name.
                    let mut entries: Vec<_> = entries.iter().collect();
                    entries.sort_by_key(|(key, _)| key.span().start);
                    for (key, value) in entries {
                        self.add(&mut settings, key.get_ref(), &format!("{path}.{}", key.get_ref()), value)?;
                    }
                    Ok(settings)
                }
                DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_) => Err(Mistake::at(&place, "expected a text, or a table")),
            }
        };
        items.iter().enumerate().map(item).collect()
    }

    fn add(
        &self,
        settings: &mut SettingEntries,
        key: &str,
        path: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), Mistake> {
        let place = format!("{}: {path}", self.place(value.span().start));
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                return Err(Mistake::at(&place, "expected a text or a number"));
            }
        };
        settings.add(key, text, place)
    }

    /// Returns file, line and column of a byte, counted from 1.
    fn place(&self, octet: usize) -> String {
        let before = self.text.get(..octet).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{}:{line}:{column}", self.file)
    }
}

#[cfg(test)]
mod tests;
