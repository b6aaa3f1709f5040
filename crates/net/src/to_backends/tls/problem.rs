//! TLS errors in plain words, for status and log.

use std::time::{Duration, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error};

/// Describes a TLS failure with a server ("it").
pub(crate) fn tls_problem(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(problem) => certificate_problem(problem),
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        Error::AlertReceived(alert) => format!("it ended the handshake or connection with the alert {alert:?}"),
        Error::NoApplicationProtocol => "it supports none of the offered protocols (ALPN)".to_owned(),
        Error::NoCertificatesPresented => "it has shown no certificate".to_owned(),
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
        CertificateError::UnknownIssuer => "the certificate is not signed by a trusted authority".to_owned(),
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => wrong_name(expected, presented),
        CertificateError::BadEncoding => "its certificate cannot be read".to_owned(),
        CertificateError::BadSignature => "a signature in its certificate or handshake is invalid".to_owned(),
        CertificateError::Revoked => "its certificate is revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for servers".to_owned()
        }
        // rustls has no variant for this. `openssl req -x509` makes such certificates.
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "its certificate is marked as that of a certificate authority: make one with basicConstraints=CA:FALSE, or pin its key"
                .to_owned()
        }
        CertificateError::Other(other) => other.to_string(),
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

/// A certificate name without the library's wrapping: `DnsName("dns.example")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn day(at: UnixTime) -> humantime::Rfc3339Timestamp {
    // The end of the year 9999, the last second of the format.
    const LAST: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(at.as_secs().min(LAST)))
}
