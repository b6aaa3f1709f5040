//! The files of a zone: their names, their include chain, and the paths that are allowed.

use std::fmt::Write;

use super::problem::EntryProblem;
use crate::load::error::{FileError, FileProblem, LineError};
use crate::store::record::FilePlace;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct ZoneFileSource {
    /// The file name in messages, unique for each file.
    pub name: String,
    /// The contents of the file.
    pub octets: Vec<u8>,
}

/// The files of a zone in order of opening. A [`FilePlace`] refers to one of them.
#[derive(Debug)]
pub struct ZoneFiles(Vec<OpenedZoneFile>);

#[derive(Debug)]
struct OpenedZoneFile {
    name: String,
    included: Option<FilePlace>,
}

impl ZoneFiles {
    pub(super) fn new(name: &str) -> Self {
        Self(vec![OpenedZoneFile { name: name.to_owned(), included: None }])
    }

    pub(super) fn add(&mut self, name: &str, included: FilePlace) -> Result<u16, EntryProblem> {
        let number = u16::try_from(self.0.len()).ok().filter(|number| usize::from(*number) < MAX_FILES);
        let number = number.ok_or(EntryProblem::TooManyFiles)?;
        self.0.push(OpenedZoneFile { name: name.to_owned(), included: Some(included) });
        Ok(number)
    }

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

    /// Iterates over the names of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|file| file.name.as_str())
    }

    /// Returns an error for a problem at a place in one of the files.
    pub(crate) fn error(&self, place: FilePlace, problem: FileProblem) -> FileError {
        let file = self.0.get(usize::from(place.file));
        FileError {
            file: file.map_or_else(String::new, |file| file.name.clone()),
            line: place.line as usize,
            error: LineError { column: place.column as usize, problem },
        }
    }

    /// Formats the include chain of a file for the end of a message.
    pub(super) fn trail(&self, file: u16) -> String {
        let mut trail = String::new();
        for place in self.chain(file).filter_map(|file| file.included) {
            let name = self.0.get(usize::from(place.file)).map_or("", |file| &file.name);
            write!(trail, ", included at {name}:{}:{}", place.line, place.column).expect("a String takes all");
        }
        trail
    }

    fn chain(&self, from: u16) -> impl Iterator<Item = &OpenedZoneFile> {
        std::iter::successors(self.0.get(usize::from(from)), |file| self.0.get(usize::from(file.included?.file)))
    }
}

/// Joins the parts of a path without `.` and `..`. Returns `None` if it leaves the folder.
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

/// The deepest nesting of files, including the main file.
const MAX_DEPTH: usize = 16;
/// The most files of one zone. The limit ends files that include each other twice.
const MAX_FILES: usize = 10_000;
