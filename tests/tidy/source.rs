//! The source tree as the rules of `tidy` see it: each line split into code and comment, text literals
//! emptied, test code marked. Reads files; knows no rule.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// One file of the tree.
pub(crate) struct Source {
    /// Path from the top of the repository, with `/` between its parts.
    pub(crate) path: String,
    /// All lines, in order.
    pub(crate) lines: Vec<Line>,
}

/// One line of a file.
pub(crate) struct Line {
    /// The code of the line; a text literal is left as `""`.
    pub(crate) code: String,
    /// The comments of the line, docstrings too.
    pub(crate) comment: String,
    /// The text of the literals of the line.
    pub(crate) literals: String,
    /// True if it belongs to a test: all of `tests/` and testkit, and what stands below `#[cfg(test)] mod`.
    pub(crate) is_test: bool,
}

/// Reads every `.rs` file below the given folders of the repository.
pub(crate) fn read_tree(folders: &[&str]) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in folders {
        collect(top, folder, &mut files);
    }
    let mut sources: Vec<Source> = files.into_iter().map(|(path, text)| Source::read(path, &text)).collect();
    mark_test_files(&mut sources);
    sources
}

/// Collects the paths and texts of one folder, deepest last, in the order of their names.
fn collect(top: &Path, folder: &str, files: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(top.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a folder that opened can be read").file_name())
        .map(|name| name.into_string().expect("our file names are UTF-8"))
        .collect();
    names.sort();
    for name in names {
        let path = format!("{folder}/{name}");
        if top.join(&path).is_dir() {
            collect(top, &path, files);
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(top.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            files.push((path, text));
        }
    }
}

/// Marks the files that some other file declares as `#[cfg(test)] mod NAME;`.
fn mark_test_files(sources: &mut [Source]) {
    let declared: HashSet<String> = sources.iter().flat_map(Source::test_modules).collect();
    let is_below = |path: &str| declared.iter().any(|module| path.starts_with(module.as_str()));
    for source in sources.iter_mut().filter(|source| is_below(&source.path)) {
        source.lines.iter_mut().for_each(|line| line.is_test = true);
    }
}

impl Source {
    /// Splits a file into lines. `tests/` and testkit are test code throughout, elsewhere it starts at
    /// `#[cfg(test)] mod NAME {`, which stands last in a file.
    pub(crate) fn read(path: String, text: &str) -> Self {
        let mut lines = split(text);
        let first_test = if folder_of(&path) == "tests" {
            0
        } else {
            let mut pairs = lines.windows(2);
            let opens = |pair: &[Line]| is_test_attribute(&pair[0]) && pair[1].code.trim_end().ends_with('{');
            pairs.position(opens).unwrap_or(lines.len())
        };
        lines[first_test..].iter_mut().for_each(|line| line.is_test = true);
        Self { path, lines }
    }

    /// The folder of its crate: `src`, `tests` or `benches`.
    pub(crate) fn folder(&self) -> &str {
        folder_of(&self.path)
    }

    /// The room: the folder or file directly below `src/`; the name of the crate below `crates/`, and of the
    /// target elsewhere.
    pub(crate) fn room(&self) -> &str {
        let below = self.path.split_once('/').map_or("", |(_, below)| below);
        let first = below.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// Path prefixes (`a/tests.`, `a/tests/`) of the test modules that this file declares.
    fn test_modules(&self) -> Vec<String> {
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let home = match file {
            "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
            other => format!("{folder}/{}", other.trim_end_matches(".rs")),
        };
        let declarations = self.lines.windows(2).filter(|pair| is_test_attribute(&pair[0]));
        declarations
            .filter_map(|pair| {
                let item = pair[1].code.trim();
                item.strip_prefix("pub(crate) ").unwrap_or(item).strip_prefix("mod ")?.strip_suffix(';')
            })
            .flat_map(|name| [format!("{home}/{name}."), format!("{home}/{name}/")])
            .collect()
    }
}

/// The folder of a path in its crate; testkit counts as tests. Examples are no part of the program either, as
/// benchmarks are not.
fn folder_of(path: &str) -> &str {
    if path.starts_with("crates/testkit/") {
        return "tests";
    }
    let place = if path.starts_with("crates/") { 2 } else { 0 };
    match path.split('/').nth(place).unwrap_or_default() {
        "examples" => "benches",
        folder => folder,
    }
}

/// Returns true if the line says that the next item is compiled for tests only.
fn is_test_attribute(line: &Line) -> bool {
    line.code.trim() == "#[cfg(test)]"
}

/// The state of the splitter.
#[derive(Clone, Copy)]
enum Place {
    /// In code.
    Code,
    /// Between quotes; a backslash escapes.
    Text,
    /// Between `r##"` and `"##`, with so many `#`.
    RawText(usize),
    /// Behind `//`.
    LineComment,
    /// Between `/*` and `*/`, so deep.
    BlockComment(usize),
}

/// Splits a Rust text into lines of code and comment. Knows as much of the language as that needs.
fn split(text: &str) -> Vec<Line> {
    let empty = || Line { code: String::new(), comment: String::new(), literals: String::new(), is_test: false };
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let mut lines = Vec::new();
    let mut line = empty();
    let mut place = Place::Code;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let mut step = 1;
        if c == '\n' {
            lines.push(std::mem::replace(&mut line, empty()));
            if let Place::LineComment = place {
                place = Place::Code;
            }
            at += step;
            continue;
        }
        match place {
            Place::Code if starts(at, "//") => place = Place::LineComment,
            Place::Code if starts(at, "/*") => (place, step) = (Place::BlockComment(1), 2),
            Place::Code if c == '"' => {
                place = Place::Text;
                line.code.push_str("\"\"");
            }
            Place::Code => {
                if let Some(hashes) = raw_text_opening(&chars, at) {
                    (place, step) = (Place::RawText(hashes), hashes + 2);
                    line.code.push_str("\"\"");
                } else {
                    step = char_literal(&chars, at).unwrap_or(1);
                    line.code.push(c);
                }
            }
            Place::Text if c == '\\' && chars.get(at + 1) != Some(&'\n') => step = 2,
            Place::Text if c == '"' => place = Place::Code,
            Place::RawText(hashes) if c == '"' && starts(at + 1, &"#".repeat(hashes)) => {
                (place, step) = (Place::Code, hashes + 1);
            }
            Place::BlockComment(1) if starts(at, "*/") => (place, step) = (Place::Code, 2),
            Place::BlockComment(depth) if starts(at, "*/") => (place, step) = (Place::BlockComment(depth - 1), 2),
            Place::BlockComment(depth) if starts(at, "/*") => (place, step) = (Place::BlockComment(depth + 1), 2),
            Place::LineComment | Place::BlockComment(_) => line.comment.push(c),
            Place::Text | Place::RawText(_) => line.literals.push(c),
        }
        at += step;
    }
    if !line.code.is_empty() || !line.comment.is_empty() {
        lines.push(line);
    }
    lines
}

/// The number of `#` in `r##"` if one opens here.
fn raw_text_opening(chars: &[char], at: usize) -> Option<usize> {
    let in_word = at > 0 && is_word(chars[at - 1]) && chars[at - 1] != 'b';
    let rest = chars[at..].strip_prefix(&['r']).filter(|_| !in_word)?;
    let hashes = rest.iter().take_while(|&&c| c == '#').count();
    (rest.get(hashes) == Some(&'"')).then_some(hashes)
}

/// The length of the character literal that starts here; a lifetime is none.
fn char_literal(chars: &[char], at: usize) -> Option<usize> {
    let rest = chars[at..].strip_prefix(&['\''])?;
    match rest.first()? {
        '\\' => rest.iter().skip(2).position(|&c| c == '\'').map(|found| found + 4),
        _ => (rest.get(1) == Some(&'\'')).then_some(3),
    }
}

/// Returns true if the character may stand in an identifier.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns true if `text` holds `what` as whole words: `unsafe`, but not the one in `unsafe_code`.
pub(crate) fn has_words(text: &str, what: &str) -> bool {
    let edge = |c: Option<char>| !c.is_some_and(is_word);
    text.match_indices(what).any(|(at, _)| {
        let first_is_word = what.starts_with(is_word);
        let last_is_word = what.ends_with(is_word);
        (!first_is_word || edge(text[..at].chars().next_back()))
            && (!last_is_word || edge(text[at + what.len()..].chars().next()))
    })
}
