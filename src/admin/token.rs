//! The token that authorizes a change by TCP.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use subtle::ConstantTimeEq;

use crate::files;

/// A secret, compared in constant time and never shown.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Reads the token from a file and trims white space.
    ///
    /// # Errors
    /// If the file cannot be read, or holds no acceptable token.
    pub fn read(file: &Path) -> Result<Self, TokenError> {
        let error = |what| TokenError { file: file.to_owned(), what };
        let bytes = files::read(file).map_err(|reason| error(TokenProblem::Unreadable(reason)))?;
        // RFC 6750 section 2.1 permits fewer characters than these, but a blank would break the header.
        let token = bytes.trim_ascii();
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(error(TokenProblem::Characters));
        }
        if token.len() < MIN_TOKEN {
            return Err(error(TokenProblem::Short));
        }
        Ok(Self(String::from_utf8_lossy(token).into_owned()))
    }

    pub(super) fn is(&self, other: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(other).into()
    }

    /// Returns the value of an `Authorization` header with this token.
    pub fn to_header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A token file is not usable.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", .file.display())]
pub struct TokenError {
    file: PathBuf,
    what: TokenProblem,
}

#[derive(Debug, thiserror::Error)]
enum TokenProblem {
    #[error("the token cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("expected one token of ASCII letters, digits and signs on a line")]
    Characters,
    #[error(
        "the token is too short to be secret, expected {MIN_TOKEN} characters or more, as from `openssl rand -hex 32`"
    )]
    Short,
}

/// As hexadecimal digits these are 64 bits, out of reach of guessing over a network.
const MIN_TOKEN: usize = 16;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(content: &[u8]) -> Result<Token, TokenError> {
        let file = tempfile::NamedTempFile::new().expect("a file for the test");
        fs::write(file.path(), content).expect("a file of the test");
        Token::read(file.path())
    }

    #[test]
    fn a_token_is_itself_alone() {
        let token = read(b"  0123456789abcdef\r\n").expect("a token");
        for (other, same) in [
            ("0123456789abcdef", true),
            ("0123456789abcdeg", false),
            ("0123456789abcde", false),
            ("0123456789abcdef0", false),
            ("", false),
        ] {
            assert_eq!(token.is(other.as_bytes()), same, "{other}");
        }
        assert_eq!(token.to_header(), "Bearer 0123456789abcdef");
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = read(b"0123456789abcdef").expect("a token");
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn what_is_no_token_is_told() {
        for (content, expected) in [
            (&b"secret\n"[..], "too short"),
            (b"", "too short"),
            (b"0123456789abcdef 0123456789abcdef", "expected one token"),
            ("0123456789abcdefü".as_bytes(), "expected one token"),
        ] {
            let error = read(content).expect_err("no token").to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = Token::read(Path::new("no/such.token")).expect_err("no file").to_string();
        assert!(error.starts_with("no/such.token: the token cannot be read: "), "{error}");
    }
}
