//! The certificates that were read of those who vouch for servers: of files, and of this system.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::TlsRoots;

/// Whose certificates are good, by the file that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownRoots {
    files: HashMap<PathBuf, TlsRoots>,
    /// Of this system, if it has any and they were asked for.
    system: Option<TlsRoots>,
}

impl KnownRoots {
    /// Those of these files, and of this system if they were read.
    pub fn new(files: HashMap<PathBuf, TlsRoots>, system: Option<TlsRoots>) -> Self {
        Self { files, system }
    }

    /// Those of a file, or else of this system.
    pub fn of(&self, file: Option<&Path>) -> Option<&TlsRoots> {
        match file {
            Some(file) => self.files.get(file),
            None => self.system.as_ref(),
        }
    }
}
