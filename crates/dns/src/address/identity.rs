//! The identity of a TLS server (RFC 8310): the required content of its certificate, and the extent of
//! verification.

use std::fmt::{self, Debug, Display, Formatter};
use std::path::PathBuf;
use std::str::FromStr;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::{BackendAddress, BadAddress, HttpPath};

/// The identity that a server must prove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// The name in its certificate; without a name the address.
    pub name: Option<String>,
    /// The extent of verification.
    pub verify: Verify,
    /// The allowed public keys; if empty, any key.
    pub pins: Vec<Pin>,
}

/// The trust between this host and a TLS server; unused for other transports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTrust {
    /// The name or key that the certificate must match.
    pub identity: ServerIdentity,
    /// The file with trusted CA certificates, already resolved. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The section of `[certificates]` with the client certificate.
    #[serde(default)]
    pub certificate: Option<String>,
}

/// A server for connections, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamServer {
    /// The address of the server.
    pub address: BackendAddress,
    /// The identity that the server must prove.
    pub trust: ServerTrust,
    /// The path of its URI, for HTTP.
    pub path: HttpPath,
    /// True if a resumed session may send early data (0-RTT).
    pub early_data: bool,
}

/// The extent of certificate verification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Verifies the chain, dates and names, and the key if there are pins (RFC 8310 section 8.1).
    #[default]
    Full,
    /// Verifies the key only (RFC 7858 section 4.2).
    Pin,
    /// Verifies nothing: an attacker on the path can read along.
    None,
}

/// The SHA-256 of a public key with its algorithm (SubjectPublicKeyInfo, RFC 7858 appendix A).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

impl FromStr for Pin {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let octets = text.strip_prefix(PIN_PREFIX).and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let pin = octets.and_then(|octets| <[u8; 32]>::try_from(octets).ok()).map(Self);
        // The decoder also takes text with padding in the middle.
        pin.filter(|pin| pin.to_string() == text).ok_or_else(|| {
            BadAddress::new("sha256/ and the 44 characters that the SHA-256 of a public key has in base64")
        })
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

/// The prefix of a pin (RFC 7469 section 2.1.1 has the two parts separately).
const PIN_PREFIX: &str = "sha256/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_and_written() {
        let text = "sha256/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let pin: Pin = text.parse().expect("a pin");
        assert_eq!((pin.0[31], pin.to_string().as_str()), (31, text));
        let with_more_padding = format!("{text}=");
        // The same 32 octets, the last two in a group each.
        let with_early_padding = format!("{}Hg==Hw==", &text[..text.len() - 4]);
        for wrong in [
            "",
            "sha256/",
            &text[7..],
            &text[..50],
            "sha1/AAECAwQFBgcICQoLDA0ODxAREhM=",
            &with_more_padding,
            &with_early_padding,
        ] {
            let error = wrong.parse::<Pin>().expect_err(wrong).to_string();
            assert_eq!(error, "sha256/ and the 44 characters that the SHA-256 of a public key has in base64");
        }
    }
}
