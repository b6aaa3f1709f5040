//! What a request of HTTP asks (RFC 8484 section 4.1): its DNS message, or the status that it is answered with at once. Nothing here
//! reads or writes anything.

use data_encoding::BASE64URL_NOPAD;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method};

use crate::address::HttpPath;
use crate::metrics::HttpStatus;
use crate::wire::HEADER_LEN;

/// What a request asks, as far as its head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// This DNS message.
    Message(Vec<u8>),
    /// The DNS message that is its body.
    Body,
    /// Nothing.
    Refused(HttpStatus),
}

/// Reads the head of a request to a listener that answers under this path.
pub fn read_head(head: &Parts, path: &HttpPath) -> Asked {
    if head.uri.path() != path.as_str() {
        return Asked::Refused(HttpStatus::NotFound);
    }
    // HEAD as well: nobody learns anything from the head of an answer.
    match head.method {
        Method::GET => match head.uri.query().map(read_query_string) {
            Some(Ok(message)) => Asked::Message(message),
            Some(Err(status)) => Asked::Refused(status),
            None => Asked::Refused(HttpStatus::BadRequest),
        },
        Method::POST if !head.headers.get(CONTENT_TYPE).is_some_and(is_dns_message) => {
            Asked::Refused(HttpStatus::UnsupportedMediaType)
        }
        Method::POST => match head.headers.get(CONTENT_LENGTH).map(HeaderValue::to_str) {
            // What is not a number or not the truth is the business of who frames the body.
            Some(Ok(length)) if length.parse::<u64>().is_ok_and(|length| length > MAX_MESSAGE as u64) => {
                Asked::Refused(HttpStatus::ContentTooLarge)
            }
            Some(_) | None => Asked::Body,
        },
        _ => Asked::Refused(HttpStatus::MethodNotAllowed),
    }
}

/// Looks at a message that has come whole.
///
/// # Errors
/// The status of a request with one that is none.
pub fn check_message(message: &[u8]) -> Result<(), HttpStatus> {
    match message.len() {
        ..HEADER_LEN => Err(HttpStatus::BadRequest),
        HEADER_LEN..=MAX_MESSAGE => Ok(()),
        _ => Err(HttpStatus::ContentTooLarge),
    }
}

/// The message in the query of a URI, which is the variable `dns` of a template (RFC 8484 section 4.1.1). Of two the first counts.
fn read_query_string(query: &str) -> Result<Vec<u8>, HttpStatus> {
    let mut variables = query.split('&').filter_map(|variable| variable.split_once('='));
    let (_, encoded) = variables.find(|(name, _)| *name == "dns").ok_or(HttpStatus::BadRequest)?;
    // RFC 8484 section 6: without padding.
    let message = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| HttpStatus::BadRequest)?;
    check_message(&message).map(|()| message)
}

/// Whether a type of content is that of DNS messages, with whatever parameters.
fn is_dns_message(value: &HeaderValue) -> bool {
    let essence = value.as_bytes().split(|&octet| octet == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(DNS_MESSAGE.as_bytes())
}

/// The type of content of a DNS message (RFC 8484 section 6).
pub const DNS_MESSAGE: &str = "application/dns-message";

/// Octets of the longest DNS message.
pub const MAX_MESSAGE: usize = 65_535;

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// What such a request asks of a listener with the usual path.
    fn asked(method: &str, uri: &str, headers: &[(&str, &str)]) -> Asked {
        let request = headers
            .iter()
            .fold(Request::builder().method(method).uri(uri), |request, (name, value)| request.header(*name, *value));
        let (head, ()) = request.body(()).expect("a request").into_parts();
        read_head(&head, &HttpPath::default())
    }

    #[test]
    fn heads_of_requests_say_what_is_asked() {
        let message = b"\xAB\xCD\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01".to_vec();
        let encoded = BASE64URL_NOPAD.encode(&message);
        let get = |query: &str| format!("https://dns.example/dns-query{query}");
        let dns = [("content-type", "application/dns-message")];
        let refused = Asked::Refused;
        for (method, uri, headers, expected) in [
            ("GET", get(&format!("?dns={encoded}")), &[][..], Asked::Message(message.clone())),
            ("GET", format!("/dns-query?dns={encoded}"), &[], Asked::Message(message.clone())),
            ("GET", get(&format!("?ct&a=b&dns={encoded}&dns=AAAA")), &[], Asked::Message(message)),
            ("GET", get(&format!("?dns={encoded}=")), &[], refused(HttpStatus::BadRequest)),
            ("GET", get("?dns=AAABAAABAAAAAAAAA"), &[], refused(HttpStatus::BadRequest)),
            ("GET", get("?dns=AAABAAABAAA+AAAA"), &[], refused(HttpStatus::BadRequest)),
            ("GET", get("?dns=AAAA"), &[], refused(HttpStatus::BadRequest)),
            ("GET", get("?dns="), &[], refused(HttpStatus::BadRequest)),
            ("GET", get("?name=example.org"), &[], refused(HttpStatus::BadRequest)),
            ("GET", get(""), &[], refused(HttpStatus::BadRequest)),
            ("GET", "/dns-query/?dns=AAAA".to_owned(), &[], refused(HttpStatus::NotFound)),
            ("GET", "/".to_owned(), &[], refused(HttpStatus::NotFound)),
            ("OPTIONS", "*".to_owned(), &[], refused(HttpStatus::NotFound)),
            ("HEAD", get(&format!("?dns={encoded}")), &[], refused(HttpStatus::MethodNotAllowed)),
            ("PUT", get(""), &dns, refused(HttpStatus::MethodNotAllowed)),
            ("POST", get(""), &dns, Asked::Body),
            ("POST", get(""), &[("content-type", "Application/DNS-message ; a=b")], Asked::Body),
            ("POST", get(""), &[], refused(HttpStatus::UnsupportedMediaType)),
            ("POST", get(""), &[("content-type", "application/dns-json")], refused(HttpStatus::UnsupportedMediaType)),
            ("POST", get(""), &[dns[0], ("content-length", "65535")], Asked::Body),
            ("POST", get(""), &[dns[0], ("content-length", "65536")], refused(HttpStatus::ContentTooLarge)),
        ] {
            assert_eq!(asked(method, &uri, headers), expected, "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn messages_have_a_header_and_no_more_octets_than_two_can_count() {
        for (length, expected) in [
            (0, Err(HttpStatus::BadRequest)),
            (11, Err(HttpStatus::BadRequest)),
            (12, Ok(())),
            (65_535, Ok(())),
            (65_536, Err(HttpStatus::ContentTooLarge)),
        ] {
            assert_eq!(check_message(&vec![0; length]), expected, "{length}");
        }
    }
}
