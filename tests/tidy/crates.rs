//! The borders between crates: what a pure crate depends on, and how much of a crate others see.

use std::collections::BTreeSet;
use std::process::Command;

use super::source::{Source, is_word};
use super::{TREE, report};

/// Crates that decide and touch nothing: what they need of the world is an argument.
const PURE_CRATES: &[&str] = &["config", "dns", "engine", "hedge", "limit", "metrics", "rules", "zone"];

/// Packages that do I/O, or serve only that.
const IMPURE_PACKAGES: &[&str] =
    &["tokio", "mio", "rustix", "nix", "socket2", "rustls", "tokio-rustls", "quinn", "quinn-proto", "hyper"];

/// The most public items of a crate for each that other crates name.
const MAX_PUBLIC: usize = 2;

#[test]
fn pure_crates_depend_on_no_io() {
    for name in PURE_CRATES {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let tree = Command::new(cargo)
            .args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "depth", "--package", name])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let paths = impure_paths(&String::from_utf8_lossy(&tree.stdout));
        assert!(paths.is_empty(), "`{name}` is a pure crate; what does I/O comes in by {paths:#?}");
    }
}

/// The paths to impure packages in the output of `cargo tree --prefix depth`: a depth, a name and a version.
fn impure_paths(tree: &str) -> BTreeSet<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut found = BTreeSet::new();
    for line in tree.lines() {
        let name_at = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(line.len());
        let (depth, name) = line.split_at(name_at);
        path.truncate(depth.parse().unwrap_or_default());
        path.push(name.split(' ').next().unwrap_or_default());
        if IMPURE_PACKAGES.contains(&path[path.len() - 1]) {
            found.insert(path.join(" -> "));
        }
    }
    found
}

#[test]
fn paths_to_impure_packages_are_found() {
    let tree =
        "0zone v0.1.0 (/z)\n1dns v0.1.0 (/d)\n2serde v1.0.0\n1tsig v1.0.0\n2ring v1.0.0\n3mio v1.0.0\n2serde v1.0.0\n";
    assert_eq!(impure_paths(tree).into_iter().collect::<Vec<_>>(), ["zone -> tsig -> ring -> mio"]);
}

/// Prints a table: cargo test --test tidy public_items -- --nocapture
#[test]
fn public_items_of_a_crate_are_used_by_others() {
    let mut findings = Vec::new();
    for name in crates() {
        let folder = format!("crates/{name}/src/");
        let (own, others): (Vec<_>, Vec<_>) = TREE.iter().partition(|source| source.path.starts_with(&folder));
        let public: BTreeSet<_> = own.into_iter().flat_map(public_items).collect();
        let words: BTreeSet<_> = others
            .into_iter()
            .flat_map(|source| &source.lines)
            .flat_map(|line| line.code.split(|c| !is_word(c)))
            .collect();
        let used = public.iter().filter(|(_, name)| words.contains(name)).count();
        println!("{name:10} {:5} public items, {used:5} named by others", public.len());
        if public.len() > MAX_PUBLIC * used {
            findings.push(format!("crates/{name}: of {} public items, others name only {used}", public.len()));
        }
    }
    report(&findings);
}

/// The crates of the program; testkit belongs to the tests.
fn crates() -> BTreeSet<&'static str> {
    let names = TREE.iter().filter_map(|source| source.path.strip_prefix("crates/")?.split('/').next());
    names.filter(|name| *name != "testkit").collect()
}

/// The public functions, types and constants of a file, each with the path of the file and its name.
fn public_items(source: &Source) -> impl Iterator<Item = (&str, &str)> {
    let lines = source.lines.iter().filter(|line| !line.is_test);
    lines.filter_map(|line| Some((&*source.path, public_name(&line.code)?)))
}

fn public_name(line: &str) -> Option<&str> {
    let mut words = line.trim_start().strip_prefix("pub ")?.split_whitespace();
    let kind = words.find(|word| !matches!(*word, "const" | "async"))?;
    let name = if matches!(kind, "fn" | "struct" | "enum" | "trait" | "type") { words.next()? } else { kind };
    let is_constant = line.trim_start().starts_with("pub const ") && kind.ends_with(':');
    let is_item = name != kind || is_constant;
    name.split(|c| !is_word(c)).next().filter(|name| is_item && !name.is_empty())
}

#[test]
fn public_items_are_told_from_fields() {
    let names: Vec<_> = [
        "pub fn a()",
        "    pub const fn b<T>(",
        "pub struct C {",
        "pub const D: u8 = 1;",
        "    pub e: u8,",
        "pub use f::G;",
    ]
    .map(public_name)
    .into_iter()
    .flatten()
    .collect();
    assert_eq!(names, ["a", "b", "C", "D"]);
}
