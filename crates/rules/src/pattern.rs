//! Names in rules and names files, as operators write them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use dns::{Name, NameError};

/// The names that a condition matches. Patterns compare labels without case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// The name and all names below it: `ads.example`.
    AtAndBelow(Name),
    /// Only the names below it: `*.ads.example`.
    Below(Name),
    /// Only the name: `=ads.example`.
    Exactly(Name),
}

impl NamePattern {
    /// The name in the pattern.
    pub(crate) fn name(&self) -> &Name {
        match self {
            Self::AtAndBelow(name) | Self::Below(name) | Self::Exactly(name) => name,
        }
    }

    /// The relations that names may have to the name in the pattern: [`AT`], [`BELOW`].
    pub(crate) fn relations(&self) -> u8 {
        match self {
            Self::AtAndBelow(_) => AT | BELOW,
            Self::Below(_) => BELOW,
            Self::Exactly(_) => AT,
        }
    }
}

/// Relation of two names that are equal, as a bit.
pub(crate) const AT: u8 = 1;

/// Relation of a name to another one that it is below, as a bit.
pub(crate) const BELOW: u8 = 2;

impl FromStr for NamePattern {
    type Err = PatternError;

    /// Parses a pattern. Labels may be international (RFC 5890 section 2.3.2.1). A character that host names
    /// do not have needs an escape: it is most likely part of a syntax that hedgerow does not read.
    fn from_str(text: &str) -> Result<Self, PatternError> {
        if let Some(name) = text.strip_prefix('=') {
            return Ok(Self::Exactly(name_of(name)?));
        }
        match text.strip_prefix("*.") {
            Some("") => Ok(Self::Below(Name::root())),
            Some(name) => Ok(Self::Below(name_of(name)?)),
            None => Ok(Self::AtAndBelow(name_of(text)?)),
        }
    }
}

fn name_of(text: &str) -> Result<Name, PatternError> {
    let ascii = match text.is_ascii() {
        true => Cow::Borrowed(text),
        // RFC 5891 section 5, with the mapping of UTS 46, as browsers do it..
        false => Cow::Owned(idna::domain_to_ascii(text).map_err(|_| PatternError::International)?),
    };
    // An escape in an international name would become a part of its Punycode.
    if !text.is_ascii() && (text.contains('\\') || ascii.contains('\\')) {
        return Err(PatternError::International);
    }
    let mut characters = ascii.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '-' | '.' | '_' => {}
            _ if character.is_ascii_alphanumeric() => {}
            _ => return Err(NameError::Unescaped(character).into()),
        }
    }
    Ok(ascii.parse::<Name>()?)
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self {
            Self::AtAndBelow(_) => "",
            Self::Below(name) if name.is_root() => return f.write_str("*."),
            Self::Below(_) => "*.",
            Self::Exactly(_) => "=",
        };
        f.write_str(sign)?;
        if self.name().is_root() {
            return f.write_str(".");
        }
        for (number, label) in self.name().labels().enumerate() {
            f.write_str(if number > 0 { "." } else { "" })?;
            for &octet in label {
                match octet {
                    b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
        }
        Ok(())
    }
}

/// The error for something that is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The name has a fault.
    #[error("{EXPECTED} ({0})")]
    Name(#[from] NameError),
    /// A label is no valid international label.
    #[error("{EXPECTED} (a label is not allowed in international names: write it in Punycode, xn--...)")]
    International,
}

const EXPECTED: &str = "a name such as \"ads.example\", \"*.ads.example\" or \"=ads.example\"";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_have_three_forms() {
        let check = |text: &str, expected: NamePattern| assert_eq!(text.parse(), Ok(expected), "{text}");
        let name = |text: &str| text.parse::<Name>().expect("a name");
        check("ads.example", NamePattern::AtAndBelow(name("ads.example")));
        check("ads.example.", NamePattern::AtAndBelow(name("ads.example")));
        check("*.ads.example", NamePattern::Below(name("ads.example")));
        check("=_dns.ads.example", NamePattern::Exactly(name("_dns.ads.example")));
        check(".", NamePattern::AtAndBelow(Name::root()));
        check("*.", NamePattern::Below(Name::root()));
        check("*..", NamePattern::Below(Name::root()));
        check("=.", NamePattern::Exactly(Name::root()));
        check(r"=\*.example", NamePattern::Exactly(name("*.example")));
        check(r"a\.b.example", NamePattern::AtAndBelow(name(r"a\.b.example")));
        check("bücher.example", NamePattern::AtAndBelow(name("xn--bcher-kva.example")));
        check("*.BÜCHER.example", NamePattern::Below(name("xn--bcher-kva.example")));
        check("xn--bcher-kva.example", NamePattern::AtAndBelow(name("xn--bcher-kva.example")));
    }

    #[test]
    fn errors_give_the_forms_and_the_fault() {
        let check = |text: &str, fault: &str| {
            let error = text.parse::<NamePattern>().expect_err("no pattern");
            assert_eq!(error.to_string(), format!("{EXPECTED} ({fault})"), "{text}");
        };
        check("", "empty name: write \".\" for the root");
        check("=", "empty name: write \".\" for the root");
        check("a..b", "empty label: dots stand between labels, one at a time");
        check("||ads.example^", r"'|' in a name: write it as \124 if it is meant");
        check("ads*.example", r"'*' in a name: write it as \042 if it is meant");
        check("*.*.example", r"'*' in a name: write it as \042 if it is meant");
        check("a b", r"' ' in a name: write it as \032 if it is meant");
        check("|bücher.example", r"'|' in a name: write it as \124 if it is meant");
        check("ｘ＊.example", r"'*' in a name: write it as \042 if it is meant");
        for text in [r"bü\cher.example", "ａ＼.example"] {
            check(text, "a label is not allowed in international names: write it in Punycode, xn--...");
        }
        check("\u{ad}.\u{fffd}", "a label is not allowed in international names: write it in Punycode, xn--...");
    }

    proptest! {
        #[test]
        fn a_printed_pattern_reads_back(
            labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8), form in 0..3,
        ) {
            let wire: Vec<u8> = labels.iter().flat_map(|label| [&[label.len() as u8][..], label].concat()).chain([0]).collect();
            let name = Name::from_wire(&wire).expect("within the limits");
            let pattern = [NamePattern::AtAndBelow, NamePattern::Below, NamePattern::Exactly][form as usize](name);
            prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
    }
}
