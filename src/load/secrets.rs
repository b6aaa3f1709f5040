//! Warnings for files with secrets, or with content that only hedgerow may change, that other users can read
//! or change.
//!
//! Such a file is not refused, because its mode may have a reason. Access for a group is intentional (a file
//! of root and the server's group).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::{Config, KeyConfig};

/// Returns the warnings for all files of a config, and for `file`, the config file.
pub fn warnings(config: &Config, file: Option<&Path>) -> Vec<String> {
    let token = config.admin.as_ref().and_then(|admin| admin.token_file.as_deref());
    let keys = config.keys.iter().filter_map(|key| match key {
        KeyConfig::InFile { file, .. } => Some(file.as_path()),
        KeyConfig::Given(_) => file,
    });
    let etcd = config.etcd.as_ref().and_then(|etcd| etcd.password_file.as_deref());
    let certificates = config.certificates.iter().map(|certificate| certificate.key.as_path());
    // The file does not exist before the first end of a process.
    let cache = config.cache.as_ref().and_then(|cache| cache.persist.as_deref());
    let mut files: Vec<_> = token
        .into_iter()
        .map(|file| (file, "the token"))
        .chain(keys.map(|file| (file, "the secret of a key")))
        .chain(config.cookie_secrets_files().into_iter().map(|file| (file, "the secret of cookies")))
        .chain(certificates.map(|file| (file, "the key of a certificate")))
        .chain(etcd.map(|file| (file, "the password of etcd")))
        .chain(cache.map(|file| (file, "the cache, and with it the names that clients ask for,")))
        .collect();
    files.dedup();
    files.into_iter().filter_map(|(file, what)| exposed(file, what)).collect()
}

fn exposed(file: &Path, what: &str) -> Option<String> {
    let mode = fs::metadata(file).ok()?.permissions().mode();
    let can = match (mode & OTHERS_READ != 0, mode & OTHERS_WRITE != 0) {
        (true, true) => "read and change",
        (true, false) => "read",
        (false, true) => "change",
        (false, false) => return None,
    };
    let (file, mode) = (file.display(), mode & 0o7777);
    Some(format!("{file}: any user of this host can {can} {what} (mode {mode:04o}); chmod 600 {file}"))
}

const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_anybody_can_read_is_told_with_the_command_that_mends_it() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = folder.path().join("admin.token");
        fs::write(&file, "0123456789abcdef").expect("a file of the test");
        let name = file.display();
        for (mode, can) in [
            (0o600, None),
            (0o640, None),
            (0o400, None),
            (0o644, Some("read")),
            (0o602, Some("change")),
            (0o666, Some("read and change")),
        ] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("our own file");
            let expected = can.map(|can| {
                format!("{name}: any user of this host can {can} the token (mode {mode:04o}); chmod 600 {name}")
            });
            assert_eq!(exposed(&file, "the token"), expected, "{mode:o}");
        }
        assert_eq!(exposed(&folder.path().join("none"), "the token"), None);
    }

    #[test]
    fn every_kind_of_secret_is_looked_at() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let text = "[admin]\ntoken_file = \"t\"\n[cache]\npersist = \"c\"\n[etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\nuser = \"u\"\npassword_file = \"e\"\n[keys.a]\nsecret_file = \"k\"\n\
                    [keys.b]\nsecret = \"c2VjcmV0IG9mIDE2IG9j\"\n[certificates.m]\nchain = \"h\"\nkey = \"p\"\n[forwarder]\ncookie_secrets_file = \"f\"\n[pools.p]\nbackends = [\"192.0.2.1:53\"]\n";
        let config = Config::parse(text, "config.toml", folder.path()).expect("a config");
        let file = folder.path().join("config.toml");
        for name in ["t", "c", "k", "f", "p", "h", "e", "config.toml"] {
            let file = folder.path().join(name);
            fs::write(&file, "").expect("a file of the test");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("our own file");
        }
        let found = warnings(&config, Some(&file));
        let names: Vec<_> = found.iter().filter_map(|line| line.split(':').next()?.rsplit('/').next()).collect();
        assert_eq!(names, ["t", "k", "config.toml", "f", "p", "e", "c"], "{found:?}");
    }
}
