//! `hedgerow serve`: runs all that the config names.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_USAGE, run};
use crate::load::{ConfigText, Confinement, LoadError, Reader, find_user};
use crate::supervisor;

/// Runs the command.
pub(super) fn run(file: Option<PathBuf>) -> ExitCode {
    if supervisor::is_member() {
        return supervisor::join(file);
    }
    let served = || -> Result<_, LoadError> {
        let text = ConfigText::read(file.as_deref())?;
        let config = text.parse(&find_user)?;
        match config.supervisor {
            // The server reads the zones, so that the supervisor stays small.
            Some(_) => Ok(supervisor::run(&config)),
            None => {
                let mut reader = Reader::new(file.clone());
                let setup = reader.read(Some(text), &Confinement::default())?;
                Ok(run::foreground(setup, move |confinement| reader.read(None, confinement)))
            }
        }
    };
    served().unwrap_or_else(|problems| {
        eprintln!("{problems}");
        ExitCode::from(EXIT_USAGE)
    })
}
