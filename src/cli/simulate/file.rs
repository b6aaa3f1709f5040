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

#[derive(Debug)]
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

const KEYS: [&str; 8] = ["queries", "rate", "seed", "slow", "names", "ttl", "backends", "policies"];

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
mod tests {
    use super::super::policy::Policy;
    use super::super::{backend, values};
    use super::*;
    use crate::policy::Dispatch;
    use crate::sim::NameDistribution;
    use std::time::Duration;

    #[test]
    fn a_file_says_what_the_command_line_can_say() {
        let text = r#"
queries = 1_000
rate = 2.5
slow = "20x@500ms/30s"
names = "zipf(1.0, 10000)"
ttl = "1m"
policies = ["first", { dispatch = "hedge", delay = "p90", budget = 0.02, max = 2 }]
[[backends]]
latency = "1ms+1%:500ms"
count = 2
[[backends]]
loss = 0.05
"#;
        let Description { mut settings, backends, policies } = parse("s.toml", text).expect("a description");
        assert_eq!(settings.take("queries", values::queries), Ok(Some(1_000)));
        assert_eq!(settings.take("rate", values::rate), Ok(Some(2.5)));
        assert_eq!(settings.take("seed", values::seed), Ok(None));
        let slow = settings.take("slow", |text| values::course(text, values::factor, Some(1.0)));
        assert!(slow.expect("a course").is_some());
        assert_eq!(
            settings.take("names", values::names),
            Ok(Some(NameDistribution::Zipf { exponent: 1.0, count: 10_000 }))
        );
        assert_eq!(settings.take("ttl", values::ttl), Ok(Some(Duration::from_secs(60))));
        assert_eq!(settings.finish(), Ok(()));
        let counts = backends.into_iter().map(|settings| backend::read(settings).expect("a backend").len());
        assert_eq!(counts.collect::<Vec<_>>(), [2, 1]);
        let read = |settings| Policy::read(settings, None).expect("a policy");
        let policies: Vec<_> = policies.into_iter().map(read).collect();
        assert!(policies[0].is_first_only);
        assert_eq!(policies[1].name, "hedge delay=p90 budget=0.02 max=2");
        assert_eq!((policies[1].rules.dispatch, policies[1].rules.hedge.budget), (Dispatch::Hedge, 0.02));
    }

    #[test]
    fn mistakes_are_told_with_line_and_column() {
        let read = |text: &str| {
            let Description { mut settings, backends, policies } = parse("s.toml", text)?;
            settings.take("queries", values::queries)?;
            backends.into_iter().map(backend::read).collect::<Result<Vec<_>, _>>()?;
            policies.into_iter().map(|policy| Policy::read(policy, None)).collect::<Result<Vec<_>, _>>()?;
            settings.finish()
        };
        for (text, reported) in [
            ("queries = 0", "s.toml:1:11: queries: invalid value \"0\": expected a number from 1"),
            ("\nquerys = 1", "s.toml:2:1: querys: unknown key, did you mean \"queries\"?"),
            ("backend = ['']", "s.toml:1:1: backend: unknown key, did you mean \"backends\"?"),
            (
                "from = 'c'",
                "s.toml:1:1: from: unknown key, expected one of queries, rate, seed, slow, names, ttl, backends, policies",
            ),
            ("backends = 1", "s.toml:1:12: backends: expected an array of texts, or of tables"),
            ("backends = [1]", "s.toml:1:13: backends[0]: expected a text, or a table"),
            ("queries = true", "s.toml:1:11: queries: expected a text or a number"),
            ("[[backends]]\nloss = '5'", "s.toml:2:8: backends[0].loss: invalid value \"5\": expected a share"),
            ("backends = ['', 'loss=5']", "s.toml:1:17: backends[1]: loss: invalid value \"5\": expected a share"),
            ("policies = ['rase']", "s.toml:1:13: policies[0]: dispatch: invalid value \"rase\": expected one of"),
            ("queries = ", "s.toml:1:11: "),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.starts_with(reported), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(Path::new("no/such.toml")).expect_err("no file").to_string();
        assert!(error.starts_with("no/such.toml: cannot be read"), "{error}");
    }
}
