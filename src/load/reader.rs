//! Reading what a server serves, again and again.

use std::path::PathBuf;

use super::{ConfigText, Confinement, Files, LoadError, Loader, Setup, check_folders, find_user, load_files_to_serve};
use crate::config::User;

/// Reads a config and all that it names; when it is read again, only what has changed.
#[derive(Debug, Default)]
pub struct Reader {
    /// The file that was named, if one was.
    file: Option<PathBuf>,
    loader: Loader,
    /// Who the process has become.
    user: Option<User>,
}

impl Reader {
    /// Reads this file, or the first of the usual places that has one.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// The process has become this user.
    pub fn set_user(&mut self, user: Option<User>) {
        self.user = user;
    }

    /// Reads the config of the file, or else this one, and all that it names, which must be in reach.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(&mut self, text: Option<ConfigText>, confinement: &Confinement) -> Result<Setup, LoadError> {
        let _reading = self.loader.begin_read(self.file.as_deref());
        let text = text.map_or_else(|| ConfigText::read(self.file.as_deref()), Ok)?;
        // Who has become another user may not be able to look users up any more, and need not.
        let user = self.user.as_ref();
        let known = |name: &str| user.filter(|user| user.name == name).cloned().or_else(|| find_user(name));
        let config = text.parse(&known)?;
        check_folders(&config)?;
        confinement.check(&Files::of(&config, Some(&text.file))).map_err(LoadError::Outside)?;
        let setup = load_files_to_serve(config, Some(&text.file), &mut self.loader);
        let setup = setup.map_err(|error| text.with_places(error))?;
        self.user.clone_from(&setup.config.user);
        Ok(Setup { source: Some(text), ..setup })
    }
}
