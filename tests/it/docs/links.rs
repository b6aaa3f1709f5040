//! Links between documents: each leads to a file that is there, and to a heading that is in it.

use std::process::Command;

use super::markdown::{Document, plain, top};

#[test]
fn every_link_leads_somewhere() {
    let documents = Document::all();
    let mut findings = Vec::new();
    for document in &documents {
        let folder = std::path::Path::new(&document.path).parent().expect("a file is in a folder");
        for (line, target) in document.links() {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { document.path.clone().into() } else { plain(&folder.join(file)) };
            let place = format!("{}:{line}: {target}", document.path);
            if !top().join(&path).exists() {
                findings.push(format!("{place}: there is no {}", path.display()));
            } else if !anchor.is_empty() {
                let found = documents.iter().find(|other| std::path::Path::new(&other.path) == path);
                if !found.is_some_and(|found| found.anchors().iter().any(|other| other == anchor)) {
                    findings.push(format!("{place}: there is no such heading"));
                }
            }
        }
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn every_page_stands_in_the_summary_and_in_the_readme() {
    let summary: Vec<_> = Document::read("docs/src/SUMMARY.md").links().into_iter().map(|(_, target)| target).collect();
    let readme: Vec<_> = Document::read("README.md").links().into_iter().map(|(_, target)| target).collect();
    for document in Document::all() {
        let Some(page) = document.path.strip_prefix("docs/src/").filter(|&page| page != "SUMMARY.md") else { continue };
        assert!(summary.iter().any(|target| target == page), "{page} is not in SUMMARY.md");
        let is_linked = readme.contains(&document.path) || page == "introduction.md";
        assert!(is_linked, "{page} is not in README.md");
    }
}

/// Needs the program `mdbook`, which `cargo install mdbook` brings; the workflow has it.
#[test]
fn the_book_builds_without_warnings() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let built = Command::new("mdbook").arg("build").arg(top().join("docs")).arg("-d").arg(folder.path()).output();
    let Ok(built) = built else { return eprintln!("not tested, for there is no mdbook here") };
    let said = String::from_utf8_lossy(&[built.stdout, built.stderr].concat()).into_owned();
    assert!(built.status.success() && !said.contains("WARN") && !said.contains("ERROR"), "{said}");
    for (_, page) in Document::read("docs/src/SUMMARY.md").links() {
        let made = folder.path().join(page.replace(".md", ".html"));
        assert!(made.exists(), "there is no {}", made.display());
    }
}
