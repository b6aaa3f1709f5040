//! What does not hold, in plain words, as status and log show it.

use std::time::{Duration, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error};

/// Why there is no TLS with a server: "it" is the server.
pub fn tls_problem(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(problem) => certificate_problem(problem),
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        Error::AlertReceived(alert) => format!("it ended the handshake or connection with the alert {alert:?}"),
        Error::NoApplicationProtocol => "it speaks none of our protocols (ALPN)".to_owned(),
        Error::NoCertificatesPresented => "it has shown no certificate".to_owned(),
        // The rest is rare, and the library says it well enough.
        other => other.to_string(),
    }
}

fn certificate_problem(problem: &CertificateError) -> String {
    match problem {
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate has expired on {}", day(*not_after))
        }
        CertificateError::NotValidYet => "its certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}", day(*not_before))
        }
        CertificateError::UnknownIssuer => "its certificate is from nobody whom we trust".to_owned(),
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => wrong_name(expected, presented),
        CertificateError::BadEncoding => "its certificate cannot be read".to_owned(),
        CertificateError::BadSignature => "a signature on its certificate or handshake does not hold".to_owned(),
        CertificateError::Revoked => "its certificate is revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for servers".to_owned()
        }
        CertificateError::Other(other) => other.to_string(),
        // The rest is rare, and the library says it well enough.
        other => other.to_string(),
    }
}

fn wrong_name(expected: &ServerName<'_>, presented: &[String]) -> String {
    let expected = expected.to_str();
    match presented {
        [] => format!("its certificate is not for {expected} (a common name does not count)"),
        [one] => format!("its certificate is for {}, not for {expected}", bare(one)),
        [one, others @ ..] => {
            format!("its certificate is for {} and {} more, not for {expected}", bare(one), others.len())
        }
    }
}

/// A name of a certificate without what the library writes around it: `DnsName("dns.example")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// A day and its time.
fn day(at: UnixTime) -> humantime::Rfc3339Timestamp {
    // The last second that the format knows, the end of the year 9999.
    const LAST: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(at.as_secs().min(LAST)))
}
