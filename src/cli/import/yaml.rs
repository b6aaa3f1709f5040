//! YAML as a tree whose nodes know their lines.

use saphyr_parser::{Event, Parser};

use super::Error;

/// A value with the line where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// The deepest nesting. dnsdist needs some ten levels.
const MAX_DEPTH: usize = 32;

impl Node {
    /// Returns the value of a key of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(super) fn entries(&self) -> &[(String, Self)] {
        if let Content::Map(entries) = &self.value { entries } else { &[] }
    }

    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Content::List(items) => items,
            Content::Scalar(_) | Content::Map(_) => &[],
        }
    }

    pub(super) fn text(&self) -> &str {
        if let Content::Scalar(text) = &self.value { text } else { "" }
    }

    /// Returns the texts of a list, or the one text of a scalar.
    pub(super) fn texts(&self) -> Vec<&str> {
        match &self.value {
            Content::Scalar(text) => vec![text],
            Content::List(items) => items.iter().map(Self::text).collect(),
            Content::Map(_) => Vec::new(),
        }
    }

    /// Returns true for a scalar or a list of scalars.
    pub(super) fn is_leaf(&self) -> bool {
        match &self.value {
            Content::Scalar(_) => true,
            Content::List(items) => items.iter().all(|item| matches!(item.value, Content::Scalar(_))),
            Content::Map(_) => false,
        }
    }
}

/// Parses one document. An empty one is an empty map.
pub(super) fn parse(text: &str) -> Result<Node, Error> {
    let mut parser = Parser::new_from_str(text);
    // The open lists and maps, each with the key that waits for its value.
    let mut open: Vec<(Node, Option<String>)> = Vec::new();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| Error::Syntax(error.marker().line(), error.info().to_owned()))?;
        let line = span.start.line();
        let node = |value| Node { line, value };
        let complete = match event {
            Event::Scalar(text, ..) => node(Content::Scalar(text.into_owned())),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == MAX_DEPTH => {
                return Err(Error::Syntax(line, "nested too deeply: at most 32 levels".to_owned()));
            }
            Event::SequenceStart(..) => {
                open.push((node(Content::List(Vec::new())), None));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((node(Content::Map(Vec::new())), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((node, _)) => node,
                None => continue,
            },
            // A few of them can make a tree of any size.
            Event::Alias(_) => return Err(Error::Syntax(line, "an alias is not read: write the value".to_owned())),
            _ => continue,
        };
        match open.last_mut() {
            None => return Ok(complete),
            Some((above, key)) => add(above, key, complete)?,
        }
    }
    Ok(Node { line: 1, value: Content::Map(Vec::new()) })
}

fn add(above: &mut Node, key: &mut Option<String>, node: Node) -> Result<(), Error> {
    match (&mut above.value, key.take()) {
        (Content::List(items), _) => items.push(node),
        (Content::Map(entries), Some(name)) => entries.push((name, node)),
        (Content::Map(_), None) => match node.value {
            Content::Scalar(text) => *key = Some(text),
            Content::List(_) | Content::Map(_) => {
                return Err(Error::Syntax(node.line, "expected a word as the key: write one".to_owned()));
            }
        },
        (Content::Scalar(_), _) => {}
    }
    Ok(())
}
