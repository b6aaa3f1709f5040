//! `hedgerow serve`: runs the servers of the config.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{run, usage};
use crate::load::{ConfigReader, ConfigText, Confinement, LoadError, find_user};
use crate::supervisor;

pub(super) fn run(file: Option<PathBuf>) -> ExitCode {
    if supervisor::is_member() {
        return supervisor::join(file);
    }
    let served = || -> Result<_, LoadError> {
        let text = ConfigText::read(file.as_deref())?;
        let config = text.parse(&find_user)?;
        match config.supervisor {
            // Only the server process reads zones, so that the supervisor stays small.
            Some(_) => Ok(supervisor::run(&config)),
            None => {
                let mut reader = ConfigReader::new(file.clone());
                let setup = reader.read(Some(text), &Confinement::default())?;
                Ok(run::foreground(setup, move |confinement| reader.read(None, confinement)))
            }
        }
    };
    served().unwrap_or_else(usage)
}
