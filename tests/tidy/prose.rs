//! Rules for text: comments, docstrings, messages and the manual are plain English, and type names are unique
//! nouns.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::source::{Line, Source, has_words, is_word};
use super::{TREE, below, report};

/// Words and phrases that hide the subject of a sentence, and plain ones in their place.
const BANNED: &[(&str, &str)] = &[
    ("nobody", "name the party"),
    ("somebody", "name the party"),
    ("whoever", "name the party"),
    ("whomever", "name the party"),
    ("anybody else", "name the party"),
    ("of before", "previous"),
    ("for want of", "because X is missing"),
    ("have it", "apply, accept"),
    ("tell", "report, return, send, log"),
    ("tells", "reports, returns, sends, logs"),
    ("told", "reported, returned, sent, logged"),
    ("telling", "reporting, returning, sending, logging"),
];

/// First words that make a docstring depend on its neighbors.
const QUESTIONS: &[&str] = &["What ", "Who ", "Whom ", "Whose ", "Which ", "Whether "];

/// Columns of a comment line, with its indentation.
const MAX_COMMENT: usize = 110;

/// Type names that occur in several modules because each means the same for its module. At most 20.
const SHARED_NAMES: &[&str] = &["Error", "Config", "State", "Event", "Stats", "Args"];

/// Participles are no names of types. A name of several words that ends in one is: `FailedQuery` is not,
/// `Failed` is.
const IRREGULAR: &[&str] = &[
    "Told", "Said", "Heard", "Kept", "Taken", "Found", "Known", "Held", "Lost", "Seen", "Sent", "Given", "Broken",
    "Made", "Shown", "Gone", "Read", "Written", "Drawn",
];

/// Pages that people read, besides those of `docs/src`.
const PAGES: &[&str] = &["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];

/// Scripts and configs whose comments operators and developers read; of a folder, all files below it.
const SCRIPTS: &[&str] = &[
    ".ci",
    ".github",
    "deploy",
    "Cargo.toml",
    "config.toml",
    "deny.toml",
    "Dockerfile",
    "fuzz/run",
    "src/admin/page/page.js",
];

#[test]
fn docstrings_begin_with_a_noun_or_a_verb() {
    let mut findings = Vec::new();
    each_docstring(|path, number, text, _| {
        if QUESTIONS.iter().any(|word| text.starts_with(word)) {
            findings.push(format!("{path}:{number}: begin with a noun or a verb, not {text:?}"));
        }
    });
    report(&findings);
}

#[test]
fn docstrings_of_private_items_say_more_than_a_name() {
    let mut findings = Vec::new();
    each_docstring(|path, number, text, item| {
        let is_public = item.starts_with("pub ");
        let is_item = ["pub(", "fn ", "const ", "static ", "struct ", "enum ", "trait ", "type ", "async ", "unsafe "];
        let is_field = item.split_once(':').is_some_and(|(name, _)| name.chars().all(is_word));
        let is_private = !is_public && (is_field || is_item.iter().any(|start| item.starts_with(start)));
        if is_private && text.split_whitespace().count() <= 3 {
            findings.push(format!("{path}:{number}: delete {text:?}, or say more than the name does"));
        }
    });
    report(&findings);
}

#[test]
fn comment_lines_fit_the_page() {
    let mut findings = Vec::new();
    for source in TREE.iter() {
        for (number, line) in source.lines.iter().enumerate().filter(|(_, line)| !line.comment.is_empty()) {
            // The splitter keeps one slash of two.
            let columns = line.code.chars().count() + 1 + line.comment.chars().count();
            if line.code.trim().is_empty() && columns > MAX_COMMENT {
                findings.push(format!("{}:{}: a comment of more than {MAX_COMMENT} columns", source.path, number + 1));
            }
        }
    }
    report(&findings);
}

#[test]
fn comments_messages_and_docs_name_their_subjects() {
    let mut findings = Vec::new();
    for source in TREE.iter() {
        for (number, line) in source.lines.iter().enumerate() {
            let text = if line.is_test { line.comment.clone() } else { format!("{} {}", line.comment, line.literals) };
            find_banned(&source.path, number + 1, &text, &mut findings);
        }
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = fs::read_dir(top.join("docs/src")).expect("the manual is there");
    let manual = manual.map(|page| format!("docs/src/{}", page.expect("a page").file_name().to_string_lossy()));
    let pages = PAGES.iter().map(|page| (*page).to_owned()).chain(manual.filter(|page| page.ends_with(".md")));
    for page in pages {
        let text = fs::read_to_string(top.join(&page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        for (number, line) in text.lines().enumerate() {
            find_banned(&page, number + 1, line, &mut findings);
        }
    }
    report(&findings);
}

#[test]
fn comments_of_scripts_and_configs_name_their_subjects() {
    let mut findings = Vec::new();
    let mut paths: Vec<PathBuf> = SCRIPTS.iter().map(PathBuf::from).collect();
    while let Some(path) = paths.pop() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
        if let Ok(folder) = fs::read_dir(&place) {
            paths.extend(folder.map(|entry| path.join(entry.expect("an entry").file_name())));
            continue;
        }
        let text = fs::read_to_string(&place).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let marker = if path.extension().is_some_and(|extension| extension == "js") { "// " } else { "# " };
        for (number, line) in text.lines().enumerate() {
            if let Some((_, comment)) = line.split_once(marker) {
                find_banned(&path.to_string_lossy(), number + 1, comment, &mut findings);
            }
        }
    }
    report(&findings);
}

#[test]
fn identifiers_are_ordinary_words() {
    let mut findings = Vec::new();
    for source in below(&["src"]) {
        for (number, line) in source.lines.iter().enumerate().filter(|(_, line)| !line.is_test) {
            let names = line.code.split(|c: char| !is_word(c));
            for name in names.filter(|name| words_of(name).any(|word| BANNED.iter().any(|(banned, _)| word == *banned)))
            {
                findings.push(format!("{}:{}: {name}", source.path, number + 1));
            }
        }
    }
    report(&findings);
}

/// The words of an identifier in lower case: `is_told` and `ToldRace` have two each.
fn words_of(name: &str) -> impl Iterator<Item = String> {
    let mut spaced = String::new();
    for c in name.chars() {
        if c.is_uppercase() {
            spaced.push('_');
        }
        spaced.extend(c.to_lowercase());
    }
    spaced.split('_').map(str::to_owned).collect::<Vec<_>>().into_iter()
}

#[test]
fn type_names_are_nouns_and_unique() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // `absent.rs` has the types of the module in whose place it stands in a build without a feature.
    let is_absent = |source: &&Source| source.path.ends_with("/absent.rs");
    for source in below(&["src"]).filter(|source| !is_absent(source)) {
        for (number, line) in source.lines.iter().enumerate().filter(|(_, line)| !line.is_test) {
            let item = line.code.trim_start();
            let item = item.strip_prefix("pub").map_or(item, |rest| match rest.strip_prefix('(') {
                Some(rest) => rest.split_once(") ").map_or("", |(_, item)| item),
                None => rest.trim_start(),
            });
            let name = ["struct ", "enum ", "trait "].iter().find_map(|kind| item.strip_prefix(kind));
            let Some(name) = name.map(|name| name.chars().take_while(|&c| is_word(c)).collect::<String>()) else {
                continue;
            };
            places.entry(name).or_default().push(format!("{}:{}", source.path, number + 1));
        }
    }
    let twice = places.iter().filter(|(name, places)| places.len() > 1 && !SHARED_NAMES.contains(&name.as_str()));
    let mut findings: Vec<_> = twice
        .map(|(name, places)| format!("{}: the type name {name} occurs {} times", places.join(", "), places.len()))
        .collect();
    let participles = places.iter().filter(|(name, _)| is_participle(name));
    findings.extend(participles.map(|(name, places)| format!("{}: a participle is no name: {name}", places[0])));
    report(&findings);
    assert!(SHARED_NAMES.len() <= 20, "too many exceptions");
}

/// Returns true for a name of one word that is a participle.
fn is_participle(name: &str) -> bool {
    let is_one_word = name.chars().skip(1).all(|c| c.is_ascii_lowercase());
    is_one_word
        && (IRREGULAR.contains(&name) || name.ends_with("ed") && !["Feed", "Seed", "Speed", "Need"].contains(&name))
}

/// Reports the banned words of a text.
fn find_banned(path: &str, number: usize, text: &str, findings: &mut Vec<String>) {
    let folded = text.to_lowercase();
    for (word, instead) in BANNED.iter().filter(|(word, _)| has_words(&folded, word)) {
        findings.push(format!("{path}:{number}: write {instead:?} instead of {word:?}: {}", text.trim()));
    }
}

/// Visits the first line of each docstring, all its words, and the item below it.
fn each_docstring(mut visit: impl FnMut(&str, usize, &str, &str)) {
    for source in TREE.iter() {
        let doc =
            |line: &Line| line.comment.strip_prefix("//").filter(|_| line.code.trim().is_empty()).map(str::to_owned);
        let mut text: Vec<String> = Vec::new();
        for (number, line) in source.lines.iter().enumerate() {
            match doc(line) {
                Some(words) => text.push(words.trim().to_owned()),
                None if !text.is_empty() && !line.code.trim_start().starts_with("#[") => {
                    visit(&source.path, number + 1 - text.len(), text.join(" ").trim(), line.code.trim());
                    text.clear();
                }
                None => {}
            }
        }
    }
}
