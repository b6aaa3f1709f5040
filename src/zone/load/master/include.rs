//! The files that a zone is made of: which they are, who included whom, and which may be included.

use std::fmt::Write;

use super::problem::EntryProblem;
use crate::zone::load::error::{FileError, FileProblem, LineError};
use crate::zone::store::record::Place;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is called in messages; each file has one name.
    pub name: String,
    /// What is in it.
    pub octets: Vec<u8>,
}

/// The files of a zone in the order in which they were opened; a [`Place`] is a place in one of them.
#[derive(Debug)]
pub struct Files(Vec<File>);

#[derive(Debug)]
struct File {
    name: String,
    /// Where the `$INCLUDE` stands that opened it; the zone's own file has none.
    included: Option<Place>,
}

impl Files {
    /// The zone's own file.
    pub(super) fn new(name: &str) -> Self {
        Self(vec![File { name: name.to_owned(), included: None }])
    }

    /// Adds a file that an `$INCLUDE` opened; returns its number.
    pub(super) fn add(&mut self, name: &str, included: Place) -> Result<u16, EntryProblem> {
        let number = u16::try_from(self.0.len()).ok().filter(|number| usize::from(*number) < MAX_FILES);
        let number = number.ok_or(EntryProblem::TooManyFiles)?;
        self.0.push(File { name: name.to_owned(), included: Some(included) });
        Ok(number)
    }

    /// Whether a file may be opened from another: not if it is that one, or one that led there.
    pub(super) fn check_chain(&self, name: &str, from: u16) -> Result<(), EntryProblem> {
        let mut depth = 1;
        for file in self.chain(from) {
            if file.name == name {
                return Err(EntryProblem::IncludeLoop(name.to_owned()));
            }
            depth += 1;
        }
        if depth > MAX_DEPTH { Err(EntryProblem::IncludeTooDeep) } else { Ok(()) }
    }

    /// The names of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|file| file.name.as_str())
    }

    /// A problem at a place in one of the files.
    pub fn error(&self, place: Place, problem: FileProblem) -> FileError {
        let file = self.0.get(usize::from(place.file));
        FileError {
            file: file.map_or_else(String::new, |file| file.name.clone()),
            line: place.line as usize,
            error: LineError { column: place.column as usize, problem },
        }
    }

    /// From where a file was included, for the end of a message: empty for the zone's own.
    pub(super) fn trail(&self, file: u16) -> String {
        let mut trail = String::new();
        for place in self.chain(file).filter_map(|file| file.included) {
            let name = self.0.get(usize::from(place.file)).map_or("", |file| &file.name);
            write!(trail, ", included at {name}:{}:{}", place.line, place.column).expect("a String takes all");
        }
        trail
    }

    /// A file, the one that included it, and so on up to the zone's own.
    fn chain(&self, from: u16) -> impl Iterator<Item = &File> {
        std::iter::successors(self.0.get(usize::from(from)), |file| self.0.get(usize::from(file.included?.file)))
    }
}

/// The path that an `$INCLUDE` names, if it is within the folder: its parts joined by `/`, without `.` and `..`.
pub(super) fn confined(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    if path.starts_with('/') || path.contains('\0') {
        return None;
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Files within each other, the zone's own among them.
const MAX_DEPTH: usize = 16;
/// Files of one zone: more than anybody has, and few enough that files which include each other twice come to an end.
const MAX_FILES: usize = 10_000;
