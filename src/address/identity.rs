//! Who a server must be that is asked by TLS (RFC 8310): what its certificate must bear, and how far it is believed.

use std::fmt::{self, Debug, Display, Formatter};
use std::str::FromStr;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::BadAddress;

/// What a server must show to be the one that is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// The name that its certificate must bear; without one it must bear the address.
    pub name: Option<String>,
    /// How far its certificate is looked at.
    pub verify: Verify,
    /// Public keys of which its certificate must have one; none: any key.
    pub pins: Vec<Pin>,
}

/// How far the certificate of a server is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Its chain, its dates and its names, and its key if there are pins (RFC 8310 section 8.1).
    #[default]
    Full,
    /// Its key alone (RFC 7858 section 4.2).
    Pin,
    /// Not at all: whoever sits between reads along.
    None,
}

/// The SHA-256 of a public key with its algorithm (SubjectPublicKeyInfo, RFC 7858 appendix A).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Pin(pub [u8; 32]);

impl FromStr for Pin {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let octets = text.strip_prefix(PIN_PREFIX).and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let pin = octets.and_then(|octets| <[u8; 32]>::try_from(octets).ok()).map(Self);
        pin.ok_or_else(|| {
            BadAddress::new("sha256/ and the 44 characters that the SHA-256 of a public key has in base64")
        })
    }
}

impl TryFrom<String> for Pin {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> Self {
        pin.to_string()
    }
}

impl Display for Pin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{PIN_PREFIX}{}", BASE64.encode(&self.0))
    }
}

impl Debug for Pin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// What a pin begins with (RFC 7469 section 2.1.1 has the same words apart).
const PIN_PREFIX: &str = "sha256/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_and_written() {
        let text = "sha256/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let pin: Pin = text.parse().expect("a pin");
        assert_eq!((pin.0[31], pin.to_string().as_str()), (31, text));
        for wrong in ["", "sha256/", &text[7..], &text[..50], "sha1/AAECAwQFBgcICQoLDA0ODxAREhM=", &format!("{text}=")]
        {
            let error = wrong.parse::<Pin>().expect_err(wrong).to_string();
            assert_eq!(error, "sha256/ and the 44 characters that the SHA-256 of a public key has in base64");
        }
    }
}
