//! `hedgerow serve`: runs all that the config names.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{EXIT_USAGE, run};
use crate::config::User;
use crate::load::{self, Confinement, Files, LoadError, Loader, Setup, find_user};

/// Runs the command.
pub(super) fn run(file: Option<PathBuf>) -> ExitCode {
    let mut loader = Loader::default();
    let setup = match read(file.as_deref(), &mut loader, None, &Confinement::default()) {
        Ok(setup) => setup,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let user = setup.config.user.clone();
    run::foreground(setup, move |confinement| read(file.as_deref(), &mut loader, user.as_ref(), confinement))
}

/// Reads the config and all that it names, which must be in reach. `user` is who the process has become.
fn read(
    file: Option<&Path>,
    loader: &mut Loader,
    user: Option<&User>,
    confinement: &Confinement,
) -> Result<Setup, LoadError> {
    let _reading = loader.begin_read(file);
    // Who has become another user may not be able to look users up any more, and need not.
    let known = |name: &str| user.filter(|user| user.name == name).cloned().or_else(|| find_user(name));
    let (config, file) = load::load_among(file, &known)?;
    confinement.check(&Files::of(&config, Some(&file))).map_err(LoadError::Outside)?;
    load::load_files_to_serve(config, Some(&file), loader)
}
