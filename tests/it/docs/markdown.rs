//! Documents as these tests see them: headings, links, tables and fenced blocks, each with its line. Knows as
//! much of Markdown as our documents use.

use std::path::{Path, PathBuf};

pub(crate) struct Document {
    /// Path from the top of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) struct Block {
    /// The line of its fence, from 1.
    pub(crate) line: usize,
    /// The language and what stands behind it, split at commas.
    pub(crate) flags: Vec<String>,
    /// The text between the fences.
    pub(crate) text: String,
}

impl Block {
    /// Returns true if the info string of the fence has this word.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|found| found == flag)
    }

    /// The value of `KEY=VALUE` at the fence.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.flags.iter().find_map(|flag| flag.strip_prefix(key)?.strip_prefix('='))
    }
}

impl Document {
    pub(crate) fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path: path.to_owned(), text }
    }

    /// All that this repository has: those at its top, and the book.
    pub(crate) fn all() -> Vec<Self> {
        let mut paths: Vec<String> = Vec::new();
        for folder in ["", "docs/src"] {
            for entry in top().join(folder).read_dir().expect("a folder of ours") {
                let name = entry.expect("it can be read").file_name().into_string().expect("UTF-8");
                if name.ends_with(".md") {
                    paths.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
                }
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// The lines outside fenced blocks, each with its number.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
        let mut is_fenced = false;
        let mut lines = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                is_fenced = !is_fenced;
            } else if !is_fenced {
                lines.push((index + 1, line));
            }
        }
        lines
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut is_open = false;
        for (index, line) in self.text.lines().enumerate() {
            match line.strip_prefix("```") {
                Some(_) if is_open => is_open = false,
                Some(flags) => {
                    is_open = true;
                    let flags = flags.split(',').map(str::to_owned).collect();
                    blocks.push(Block { line: index + 1, flags, text: String::new() });
                }
                None if is_open => {
                    let block = blocks.last_mut().expect("a fence has opened it");
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                None => {}
            }
        }
        assert!(!is_open, "{}: a fence is not closed", self.path);
        blocks
    }

    /// Returns the anchors that `#...` in links may name: the headings, as GitHub and mdBook both spell them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.prose().into_iter().filter_map(|(_, line)| {
            let title = line.trim_start_matches('#');
            (title.len() < line.len() && title.starts_with(' ')).then(|| title.trim())
        });
        headings.map(anchor).collect()
    }

    /// The targets of links and pictures, each with its line. A link may begin on one line and end on the
    /// next.
    pub(crate) fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            for (at, mark) in line.match_indices("](") {
                let target = &line[at + mark.len()..];
                if let Some((target, _)) = target.split_once(')') {
                    links.push((number, target.to_owned()));
                }
            }
        }
        links
    }

    /// The rows of the tables whose first column has this head, each as its cells.
    pub(crate) fn table(&self, head: &str) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        let mut is_in = false;
        for (_, line) in self.prose() {
            let cells = cells(line);
            match cells.first() {
                None => is_in = false,
                Some(first) if first == head => is_in = true,
                Some(first) if is_in && !first.starts_with("---") => rows.push(cells),
                Some(_) => {}
            }
        }
        rows
    }
}

/// The cells of one line of a table; none if it is not such a line.
fn cells(line: &str) -> Vec<String> {
    let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else { return Vec::new() };
    let inner = inner.replace("\\|", "\u{0}");
    inner.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

/// A heading as the end of a link.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The top of the repository.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A path without `.` and `..`.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn headings_are_spelled_as_ends_of_links() {
    for (title, expected) in [
        ("What one client may have", "what-one-client-may-have"),
        ("`[pools.ts.hedge]`", "poolstshedge"),
        ("Connections by TCP", "connections-by-tcp"),
        ("Who's asked, and why?", "whos-asked-and-why"),
    ] {
        assert_eq!(anchor(title), expected);
    }
}

#[test]
fn blocks_and_tables_are_told_from_prose() {
    let text =
        "# A\n| Name | X |\n|---|---|\n| a\\|b | [c](d.md#e) |\n\n```toml,fragment,file=a.toml\n# no heading\n```\n";
    let document = Document { path: "a.md".to_owned(), text: text.to_owned() };
    assert_eq!(document.anchors(), ["a"]);
    assert_eq!(document.table("Name"), [["a|b", "[c](d.md#e)"]]);
    assert_eq!(document.links(), [(4, "d.md#e".to_owned())]);
    let blocks = document.blocks();
    assert_eq!((blocks[0].line, blocks[0].text.as_str()), (6, "# no heading\n"));
    assert!(blocks[0].has("fragment") && blocks[0].value("file") == Some("a.toml"));
}
