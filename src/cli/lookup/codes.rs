//! Response codes and Extended DNS Errors by name.

use std::fmt;

/// A response code, with the high bits from the OPT record (RFC 6891 section 6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rcode(pub(super) u16);

impl Rcode {
    /// No error.
    pub(super) const NOERROR: Self = Self(0);
    /// The server could not read the query.
    pub(super) const FORMERR: Self = Self(1);
    /// The name does not exist.
    pub(super) const NXDOMAIN: Self = Self(3);
    /// The server does not do that.
    pub(super) const NOTIMP: Self = Self(4);

    /// Whether the code says something about the name, not about the server.
    pub(super) fn is_conclusive(self) -> bool {
        matches!(self, Self::NOERROR | Self::NXDOMAIN)
    }
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            6 => "YXDOMAIN",
            7 => "YXRRSET",
            8 => "NXRRSET",
            9 => "NOTAUTH",
            10 => "NOTZONE",
            11 => "DSOTYPENI",
            16 => "BADVERS",
            17 => "BADKEY",
            18 => "BADTIME",
            19 => "BADMODE",
            20 => "BADNAME",
            21 => "BADALG",
            22 => "BADTRUNC",
            23 => "BADCOOKIE",
            number => return write!(f, "RCODE{number}"),
        })
    }
}

/// An Extended DNS Error (RFC 8914 section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExtendedError {
    /// The INFO-CODE.
    pub(super) code: u16,
    /// The EXTRA-TEXT, control characters replaced: it may end up on a terminal.
    pub(super) text: String,
}

impl ExtendedError {
    /// The option's number.
    pub(super) const OPTION: u16 = 15;

    /// Reads the option's data; `None` if it is too short for a code.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let (code, text) = data.split_first_chunk::<2>()?;
        // RFC 8914 section 2: the text may or may not end with a null octet.
        let text = String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text));
        let text = text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
        Some(Self { code: u16::from_be_bytes(*code), text })
    }

    /// The registered name of the code, empty if we know none.
    pub(super) fn name(&self) -> &'static str {
        match self.code {
            0 => "Other",
            1 => "Unsupported DNSKEY Algorithm",
            2 => "Unsupported DS Digest Type",
            3 => "Stale Answer",
            4 => "Forged Answer",
            5 => "DNSSEC Indeterminate",
            6 => "DNSSEC Bogus",
            7 => "Signature Expired",
            8 => "Signature Not Yet Valid",
            9 => "DNSKEY Missing",
            10 => "RRSIGs Missing",
            11 => "No Zone Key Bit Set",
            12 => "NSEC Missing",
            13 => "Cached Error",
            14 => "Not Ready",
            15 => "Blocked",
            16 => "Censored",
            17 => "Filtered",
            18 => "Prohibited",
            19 => "Stale NXDOMAIN Answer",
            20 => "Not Authoritative",
            21 => "Not Supported",
            22 => "No Reachable Authority",
            23 => "Network Error",
            24 => "Invalid Data",
            25 => "Signature Expired before Valid",
            26 => "Too Early",
            27 => "Unsupported NSEC3 Iterations Value",
            28 => "Unable to conform to policy",
            29 => "Synthesized",
            30 => "Invalid Query Type",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_errors_are_read() {
        /// The option's data is read as this code and text; `None` if not at all.
        fn check(data: &[u8], expected: Option<(u16, &str)>) {
            let expected = expected.map(|(code, text)| ExtendedError { code, text: text.to_owned() });
            assert_eq!(ExtendedError::read(data), expected, "{data:?}");
        }
        check(b"", None);
        check(b"\0", None);
        check(b"\0\x16", Some((22, "")));
        check(b"\0\x1dno reply\0", Some((29, "no reply")));
        check(b"\0\0\x1b[31m\xff", Some((0, "\u{fffd}[31m\u{fffd}")));
    }
}
