//! The JSON Schema of the configuration: draft-07, limited to the part of draft-04, which editors of TOML
//! support.
//!
//! The schema accepts every valid config, but does not find all errors: `hedgerow check` does.

use serde_json::{Map, Value, json};

use super::description::{ANY_KEY, Shape, TableDescription, TextDescription, ValueKind};
use super::reference::{self, KeyDefault, ReferenceKey, ReferenceSection};
use super::words::Form;

/// Builds the JSON Schema of the configuration.
pub fn schema() -> Value {
    let shape = reference::shape();
    let sections = reference::sections();
    let mut schema = SchemaWriter { shape: &shape, sections: &sections }.shape(&shape, "");
    let head = [("$schema", "http://json-schema.org/draft-07/schema#"), ("title", "hedgerow")];
    for (key, value) in head {
        schema.insert(key.to_owned(), value.into());
    }
    let about = "The configuration of hedgerow. Durations are strings with a unit (\"250ms\", \"3s\", \"1h\"), sizes too \
                 (\"64MiB\"). File names are relative to the folder of the file.";
    schema.insert("description".to_owned(), about.into());
    schema.into()
}

struct SchemaWriter<'r> {
    shape: &'r Shape,
    sections: &'r [ReferenceSection],
}

impl SchemaWriter<'_> {
    fn shape(&self, shape: &Shape, path: &str) -> Map<String, Value> {
        let mut schema = match &shape.kinds[..] {
            [kind] => self.kind(kind, path),
            kinds => any_of(kinds.iter().map(|kind| self.kind(kind, path))),
        };
        schema.extend(self.annotations(shape, path));
        schema
    }

    fn annotations(&self, shape: &Shape, path: &str) -> Map<String, Value> {
        let mut said = Map::new();
        let takes = shape.table().is_none().then(|| format!("Takes {}.", shape.what()));
        let (comment, default) = match self.key(path) {
            Some((section, key)) => (key.comment.join(" "), self.default(section, key)),
            None => (self.intro(path), None),
        };
        let description = [Some(comment), takes].into_iter().flatten().filter(|text| !text.is_empty());
        let description = description.collect::<Vec<_>>().join("\n");
        if !description.is_empty() {
            said.insert("description".to_owned(), description.into());
        }
        said.extend(default.map(|default| ("default".to_owned(), default)));
        said
    }

    fn key(&self, path: &str) -> Option<(&ReferenceSection, &ReferenceKey)> {
        let path = reference::described_at(path);
        let (section, name) = path.rsplit_once('.').unwrap_or(("", &path));
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let find = |is_right: &dyn Fn(&str) -> bool| {
            let sections = self.sections.iter().filter(|known| is_right(&known.path()));
            sections.flat_map(|known| known.keys.iter().map(move |key| (known, key))).find(|(_, key)| key.name == name)
        };
        let is_sibling = |known: &str| section.contains('.') && last(known) == last(section);
        find(&|known| known == section).or_else(|| find(&is_sibling))
    }

    fn intro(&self, path: &str) -> String {
        let section = self.sections.iter().find(|section| section.path() == path);
        let section = section.map(|section| section.intro.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
        section.unwrap_or_default().trim().to_owned()
    }

    fn default(&self, section: &ReferenceSection, key: &ReferenceKey) -> Option<Value> {
        if section.default_of(key, self.shape) != KeyDefault::Shown {
            return None;
        }
        let table = format!("x = {}", key.value).parse::<toml::Table>().ok()?;
        serde_json::to_value(&table["x"]).ok()
    }

    fn kind(&self, kind: &ValueKind, path: &str) -> Map<String, Value> {
        let schema = match kind {
            ValueKind::Text(text) => return string(text),
            ValueKind::Table(table) => return self.table(table, path),
            ValueKind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            ValueKind::Number { min, max } => json!({ "type": "number", "minimum": min, "maximum": max }),
            ValueKind::Boolean => json!({ "type": "boolean" }),
            ValueKind::Array { least, items, .. } => {
                let items = items.iter().map(|kind| self.kind(kind, path)).collect::<Vec<_>>();
                let items = if let [item] = &items[..] { item.clone() } else { any_of(items) };
                json!({ "type": "array", "minItems": least, "items": items })
            }
        };
        as_map(schema)
    }

    fn table(&self, table: &TableDescription, path: &str) -> Map<String, Value> {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let mut schema = as_map(json!({ "type": "object", "additionalProperties": false }));
        let mut properties = Map::new();
        for (key, shape) in &table.keys {
            let schema_of_key = self.shape(shape, &below(key)).into();
            if key == ANY_KEY {
                schema.insert("additionalProperties".to_owned(), schema_of_key);
            } else {
                properties.insert(key.clone(), schema_of_key);
            }
        }
        if !properties.is_empty() {
            schema.insert("properties".to_owned(), properties.into());
        }
        if !table.required.is_empty() {
            schema.insert("required".to_owned(), json!(table.required));
        }
        let either: Vec<&[&str]> = table.either.iter().map(|pair| &pair[..]).collect();
        for (word, groups) in [("oneOf", &either), ("anyOf", &table.any)] {
            if let [group] = &groups[..] {
                let ways: Vec<_> = group.iter().map(|key| json!({ "required": [key] })).collect();
                schema.insert(word.to_owned(), ways.into());
            }
        }
        schema
    }
}

fn string(text: &TextDescription) -> Map<String, Value> {
    let word = |form: &Form| if let Form::Word(word) = form { Some(*word) } else { None };
    let words: Vec<_> = text.forms.iter().filter_map(word).collect();
    let patterns = text.forms.iter().filter_map(|form| match form {
        Form::Matching(pattern) => Some(json!({ "pattern": pattern })),
        Form::Word(_) => None,
    });
    let mut ways: Vec<_> = patterns.collect();
    if !words.is_empty() {
        ways.insert(0, json!({ "enum": words }));
    }
    let mut schema = as_map(json!({ "type": "string" }));
    match ways.len() {
        0 => {}
        1 => schema.extend(as_map(ways.remove(0))),
        _ => schema.extend([("anyOf".to_owned(), Value::Array(ways))]),
    }
    schema
}

fn any_of(schemas: impl IntoIterator<Item = Map<String, Value>>) -> Map<String, Value> {
    let schemas: Vec<Value> = schemas.into_iter().map(Value::from).collect();
    as_map(json!({ "anyOf": schemas }))
}

fn as_map(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}
