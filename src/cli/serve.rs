//! `hedgerow serve`: runs all that the config names.

use std::path::PathBuf;
use std::process::ExitCode;

use super::load::{self, LoadError, Loader};
use super::{EXIT_USAGE, run};
use crate::server::Setup;

/// Runs the command.
pub(super) fn run(file: Option<PathBuf>) -> ExitCode {
    let mut loader = Loader::default();
    let setup = match read(file.as_ref(), &mut loader) {
        Ok(setup) => setup,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    run::foreground(setup, || read(file.as_ref(), &mut loader))
}

/// Reads the config and all that it names.
fn read(file: Option<&PathBuf>, loader: &mut Loader) -> Result<Setup, LoadError> {
    let (config, file) = load::load(file.map(PathBuf::as_path))?;
    load::load_files_to_serve(config, Some(&file), loader)
}
