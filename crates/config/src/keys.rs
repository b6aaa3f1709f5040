//! `[keys.*]`: the TSIG secrets shared with other servers (RFC 8945).

use std::path::PathBuf;

use dns::Name;
use zone::transfer::tsig::{Algorithm, TsigKey};

use super::readers::{file, word};
use super::section::ConfigNode;
use super::words;

/// `[keys.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyConfig {
    /// A secret in the config file.
    Given(TsigKey),
    /// A secret in a separate file, which can have narrower permissions.
    InFile {
        /// The name of the key.
        name: Name,
        /// The algorithm for TSIG signatures.
        algorithm: Algorithm,
        /// The file with the secret in base64, already resolved against the folder of the config file.
        file: PathBuf,
    },
}

impl KeyConfig {
    /// The default of `algorithm`: every server supports it, and it is strong enough (RFC 8945 section 6).
    pub(crate) const ALGORITHM: Algorithm = Algorithm::HmacSha256;

    /// The name of the key, in lower case.
    pub(crate) fn name(&self) -> &Name {
        match self {
            Self::Given(key) => key.name(),
            Self::InFile { name, .. } => name,
        }
    }
}

pub(super) fn read(name: &str, node: &ConfigNode<'_>) -> Option<KeyConfig> {
    let name = match words::domain_name(name) {
        Ok(name) => Some(name.folded()),
        Err(expected) => {
            node.key.note(format!("the name of a key is a domain name: {expected}"));
            None
        }
    };
    node.section()?.whole(|section| {
        let algorithm = section.read("algorithm", KeyConfig::ALGORITHM, word);
        let examples = "the secret is missing, write secret_file = \"a-file\" or secret = \"base64\"";
        let [secret, in_file] = section.take_either(["secret", "secret_file"], examples);
        let secret = secret.map(|secret| secret.parsed_unseen(words::secret));
        let in_file = in_file.map(|node| file(&node));
        match (secret, in_file) {
            (Some(secret), None) => Some(KeyConfig::Given(TsigKey::new(&name?, algorithm, &secret?))),
            (None, Some(file)) => Some(KeyConfig::InFile { name: name?, algorithm, file: file? }),
            (Some(_), Some(_)) | (None, None) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    const REST: &str = "[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a.txt\"]\n";

    #[test]
    fn keys_are_read() {
        let text = format!(
            "[keys.\"Key.Example\"]\nsecret = \"c2VjcmV0IG9mIDE2IG9j\"\n\
             [keys.other]\nalgorithm = \"hmac-sha512\"\nsecret_file = \"other.key\"\n{REST}"
        );
        let config = Config::parse(&text, "c.toml", Path::new("/etc/hedgerow")).unwrap_or_else(|p| panic!("{p}"));
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let given = TsigKey::new(&name("key.example"), Algorithm::HmacSha256, b"secret of 16 oc");
        let file = "/etc/hedgerow/other.key".into();
        let in_file = KeyConfig::InFile { name: name("other"), algorithm: Algorithm::HmacSha512, file };
        assert_eq!(config.keys, [KeyConfig::Given(given), in_file]);
        assert!(!format!("{config:?}").contains("c2VjcmV0"), "no form of printing shows a secret");
    }

    #[test]
    fn keys_are_checked() {
        for (lines, expected) in [
            (
                "secret = \"====\"",
                "2:10: keys.k.secret: invalid value, not shown here: expected a secret in base64, 8 octets or more",
            ),
            (
                "secret = \"c2hvcnQ=\"",
                "2:10: keys.k.secret: invalid value, not shown here: expected a secret in base64, 8 octets or more",
            ),
            ("secret = 7", "2:10: keys.k.secret: expected a string, not an integer"),
            (
                "algorithm = \"hmac-sha256\"",
                "1:1: keys.k: the secret is missing, write secret_file = \"a-file\" or secret = \"base64\"",
            ),
            (
                "algorithm = \"hmac-md5\"\nsecret_file = \"f\"",
                "2:13: keys.k.algorithm: invalid value \"hmac-md5\": expected one of hmac-sha256, hmac-sha512",
            ),
            (
                "secret = \"c2VjcmV0IG9mIDE2IG9j\"\nsecret_file = \"f\"",
                "3:1: keys.k.secret_file: write either secret or secret_file, not both",
            ),
            ("secert = \"YQ==\"\nsecret_file = \"f\"", "2:1: keys.k: unknown key \"secert\", did you mean \"secret\"?"),
        ] {
            check(&format!("[keys.k]\n{lines}\n{REST}"), &[expected]);
        }
    }
}
