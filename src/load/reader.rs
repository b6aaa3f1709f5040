//! Repeated reading of a server's config.

use std::path::PathBuf;

use super::{
    ConfigFiles, ConfigText, Confinement, LoadError, Loader, Setup, check_folders, find_user, load_files_to_serve,
};
use crate::config::User;

/// Reads a config and all files that it names. Later reads read only changed files.
#[derive(Debug, Default)]
pub struct ConfigReader {
    file: Option<PathBuf>,
    loader: Loader,
    user: Option<User>,
}

impl ConfigReader {
    /// Makes a reader for this file, or for the first existing one of the usual places.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// Sets the user that the process has become.
    pub fn set_user(&mut self, user: Option<User>) {
        self.user = user;
    }

    /// Reads `text`, or else the config file, and all files that it names, which must be in reach.
    pub fn read(&mut self, text: Option<ConfigText>, confinement: &Confinement) -> Result<Setup, LoadError> {
        let _reading = self.loader.begin_read(self.file.as_deref());
        let text = text.map_or_else(|| ConfigText::read(self.file.as_deref()), Ok)?;
        // After a change of user the process may be unable to look up users, and does not need to.
        let user = self.user.as_ref();
        let known = |name: &str| user.filter(|user| user.name == name).cloned().or_else(|| find_user(name));
        let config = text.parse(&known)?;
        check_folders(&config)?;
        confinement.check(&ConfigFiles::of(&config, Some(&text.file))).map_err(LoadError::Unusable)?;
        let setup = load_files_to_serve(config, Some(&text.file), &mut self.loader);
        let setup = setup.map_err(|error| text.with_places(error))?;
        self.user.clone_from(&setup.config.user);
        Ok(Setup { source: Some(text), ..setup })
    }
}
