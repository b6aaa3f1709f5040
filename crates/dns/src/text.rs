//! Names as text: reading and printing with the escapes of RFC 1035 section 5.1.

use std::fmt;
use std::str::FromStr;

use super::name::{Name, NameError, labels};

impl FromStr for Name {
    type Err = NameError;

    /// Parses `www.example.org` with or without the last dot. Every name is absolute.
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text).map_err(|(_, error)| error)
    }
}

impl Name {
    /// Parses a name in the same form as [`FromStr`]. An error has the byte offset of its label or character.
    pub fn parse(text: &str) -> Result<Self, (usize, NameError)> {
        let mut name = Self::root();
        match text {
            "" => return Err((0, NameError::Empty)),
            "." => return Ok(name),
            _ => {}
        }
        let mut label = [0; Self::MAX_LABEL_LEN];
        let (mut label_at, mut len) = (0, 0);
        let mut characters = text.chars();
        loop {
            let at = text.len() - characters.as_str().len();
            let Some(character) = characters.next() else { break };
            let octet = match character {
                '.' => {
                    name.push_label(&label[..len]).map_err(|error| (label_at, error))?;
                    (label_at, len) = (at + 1, 0);
                    continue;
                }
                '\\' => escaped(&mut characters).map_err(|error| (at, error))?,
                '!'..='~' => character as u8,
                _ if character.is_ascii() => return Err((at, NameError::Unescaped(character))),
                _ => return Err((at, NameError::NotAscii(character))),
            };
            *label.get_mut(len).ok_or((label_at, NameError::LabelTooLong))? = octet;
            len += 1;
        }
        // Only a dot that ends the text leaves an empty label here, that of the root.
        if len > 0 {
            name.push_label(&label[..len]).map_err(|error| (label_at, error))?;
        }
        Ok(name)
    }
}

fn escaped(characters: &mut std::str::Chars<'_>) -> Result<u8, NameError> {
    let first = characters.next().ok_or(NameError::BadEscape)?;
    let Some(hundreds) = first.to_digit(10) else {
        return if first.is_ascii() { Ok(first as u8) } else { Err(NameError::NotAscii(first)) };
    };
    let mut digit = || characters.next()?.to_digit(10);
    let (tens, ones) = digit().zip(digit()).ok_or(NameError::BadEscape)?;
    u8::try_from(hundreds * 100 + tens * 10 + ones).map_err(|_| NameError::BadEscape)
}

impl fmt::Display for Name {
    /// Prints the name in the form of master files, with the last dot: `www.example.org.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display_name(self.as_wire()).fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

/// Prints a wire name, such as a question's, for logs. Stops at bytes that are no name.
pub fn display_name(wire: &[u8]) -> impl fmt::Display {
    WireName(wire)
}

struct WireName<'a>(&'a [u8]);

impl fmt::Display for WireName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_root = true;
        for label in labels(self.0) {
            is_root = false;
            for &octet in label {
                write_octet(f, octet)?;
            }
            f.write_str(".")?;
        }
        if is_root { f.write_str(".") } else { Ok(()) }
    }
}

/// Prints one byte of a label so that a master file reads it back.
fn write_octet(f: &mut fmt::Formatter<'_>, octet: u8) -> fmt::Result {
    match octet {
        b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
            write!(f, "\\{}", char::from(octet))
        }
        b'!'..=b'~' => write!(f, "{}", char::from(octet)),
        _ => write!(f, "\\{octet:03}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_read() {
        let check = |text: &str, expected: Result<&[u8], NameError>| {
            let name = text.parse::<Name>();
            assert_eq!(name.as_ref().map(Name::as_wire).map_err(|error| *error), expected, "{text:?}");
        };
        check(".", Ok(b"\0"));
        check("org", Ok(b"\x03org\0"));
        check("WWW.Example.org.", Ok(b"\x03WWW\x07Example\x03org\0"));
        check("_dns._udp", Ok(b"\x04_dns\x04_udp\0"));
        check("*.a", Ok(b"\x01*\x01a\0"));
        check(r"a\.b.c", Ok(b"\x03a.b\x01c\0"));
        check(r"\032\000\255", Ok(b"\x03 \0\xFF\0"));
        check(r"a\.", Ok(b"\x02a.\0"));
        check("", Err(NameError::Empty));
        check("..", Err(NameError::EmptyLabel));
        check(".org", Err(NameError::EmptyLabel));
        check("a..b", Err(NameError::EmptyLabel));
        check("a.b..", Err(NameError::EmptyLabel));
        check(r"a\", Err(NameError::BadEscape));
        check(r"a\2", Err(NameError::BadEscape));
        check(r"a\25x", Err(NameError::BadEscape));
        check(r"a\256", Err(NameError::BadEscape));
        check("a b", Err(NameError::Unescaped(' ')));
        check("bücher.de", Err(NameError::NotAscii('ü')));
        check(r"\ü", Err(NameError::NotAscii('ü')));
        check(&"a".repeat(64), Err(NameError::LabelTooLong));
        check(&"a.".repeat(128), Err(NameError::TooLong));
        assert!("a.".repeat(127).parse::<Name>().is_ok());
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let check = |text: &str, expected: &str| {
            let error = text.parse::<Name>().expect_err("no name");
            assert_eq!(error.to_string(), expected);
        };
        check("a\tb", r"'\t' in a name: write it as \009 if it is meant");
        check("ü", "'ü' in a name: write the label in Punycode (xn--...)");
    }

    #[test]
    fn names_are_printed_with_their_last_dot() {
        let check = |wire: &[u8], expected: &str| {
            assert_eq!(display_name(wire).to_string(), expected);
        };
        check(b"\0", ".");
        check(b"\x03www\x07example\x03org\0", "www.example.org.");
        check(b"\x04a.b\\\x02\x07 \0", r"a\.b\\.\007\032.");
        check(b"\x03www\x07exa", "www.");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..10)) {
            let mut name = Name::root();
            for label in &labels {
                name.push_label(label).expect("within the limits");
            }
            prop_assert_eq!(name.to_string().parse::<Name>(), Ok(name));
        }
    }
}
