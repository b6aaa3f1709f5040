//! `hedgerow serve`: runs all that the config names.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_USAGE, load, run};
use crate::server::Setup;

/// Runs the command.
pub(super) fn run(file: Option<PathBuf>) -> ExitCode {
    let setup = match read(file.as_ref()) {
        Ok(setup) => setup,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    run::foreground(setup, || read(file.as_ref()))
}

/// Reads the config and all that it names.
fn read(file: Option<&PathBuf>) -> Result<Setup, String> {
    let (config, _) = load::load(file.map(PathBuf::as_path)).map_err(|error| error.to_string())?;
    run::load_zones(config)
}
