//! The lines of a Corefile as blocks, plugins and properties.

use super::super::{Error, numbered};

/// A server block: its keys, and the plugins in its braces.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) line: usize,
    pub(super) keys: Vec<&'a str>,
    pub(super) plugins: Vec<Plugin<'a>>,
}

/// A plugin with the lines in its braces.
#[derive(Clone, Debug)]
pub(super) struct Plugin<'a> {
    pub(super) line: usize,
    pub(super) name: &'a str,
    pub(super) args: Vec<&'a str>,
    pub(super) body: Vec<(usize, Vec<&'a str>)>,
}

/// The most plugins of a file after `import` of snippets.
const MAX_PLUGINS: usize = 10_000;

/// Parses a Corefile, and inserts the snippets that it imports.
pub(super) fn parse(text: &str) -> Result<Vec<Block<'_>>, Error> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    // 0: between blocks, 1: in a block, 2: in a plugin, more: in an unknown property.
    let mut level = 0;
    let mut keys = Vec::new();
    for (line, text) in numbered(text) {
        let mut words = words(text);
        let opens = words.last() == Some(&"{");
        if opens {
            words.pop();
        }
        match (level, &words[..]) {
            (_, []) if !opens => continue,
            (0, ["}", ..]) => return Err(Error::Syntax(line, "} without {: remove it".to_owned())),
            (_, ["}"]) => {
                level -= 1;
                continue;
            }
            (0, found) => {
                keys.extend(found.iter().map(|key| key.trim_end_matches(',')).filter(|key| !key.is_empty()));
                if opens {
                    blocks.push(Block { line, keys: std::mem::take(&mut keys), plugins: Vec::new() });
                }
            }
            (1, [name, args @ ..]) => {
                let plugin = Plugin { line, name, args: args.to_vec(), body: Vec::new() };
                blocks.last_mut().into_iter().for_each(|block| block.plugins.push(plugin.clone()));
            }
            (_, found) => {
                let plugin = blocks.last_mut().and_then(|block| block.plugins.last_mut());
                plugin.into_iter().for_each(|plugin| plugin.body.push((line, found.to_vec())));
            }
        }
        level += usize::from(opens);
    }
    if level > 0 {
        return Err(Error::Syntax(text.lines().count(), "{ without }: add it at the end of the block".to_owned()));
    }
    insert_snippets(blocks)
}

/// Splits a line into words. Quotes keep blanks together; `#` begins a comment.
fn words(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let quoted = rest.strip_prefix('"').and_then(|inner| inner.split_once('"'));
        let (word, after) = match quoted {
            Some(found) => found,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        found.push(word);
        rest = after.trim_start();
    }
    found
}

fn insert_snippets(blocks: Vec<Block<'_>>) -> Result<Vec<Block<'_>>, Error> {
    let is_snippet =
        |block: &Block<'_>| block.keys.first().is_some_and(|key| key.starts_with('(') && key.ends_with(')'));
    let (snippets, mut servers): (Vec<_>, Vec<_>) = blocks.into_iter().partition(is_snippet);
    for block in &mut servers {
        let mut at = 0;
        while let Some(plugin) = block.plugins.get(at) {
            let name = plugin.args.first().map(|name| format!("({name})"));
            let snippet =
                snippets.iter().find(|one| plugin.name == "import" && one.keys.first().copied() == name.as_deref());
            let Some(snippet) = snippet.filter(|_| plugin.args.len() == 1) else {
                at += 1;
                continue;
            };
            let line = plugin.line;
            block.plugins.splice(at..=at, snippet.plugins.iter().cloned());
            if block.plugins.len() > MAX_PLUGINS
                || at > MAX_PLUGINS
                || snippet.plugins.iter().any(|one| one.name == "import")
            {
                return Err(Error::Syntax(
                    line,
                    "a snippet imports another one: write its lines in their place".to_owned(),
                ));
            }
        }
    }
    Ok(servers)
}
