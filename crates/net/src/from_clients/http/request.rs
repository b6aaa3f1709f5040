//! HTTP requests (RFC 8484 section 4.1), without I/O: the DNS message of a request, or the error status.

use data_encoding::BASE64URL_NOPAD;
use dns::HEADER_LEN;
use dns::address::HttpPath;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method};
use metrics::HttpStatus;

/// The result of reading a request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestContent {
    /// The DNS message from the URI.
    Message(Vec<u8>),
    /// The DNS message is the body.
    Body,
    /// The request has no valid query and gets this status.
    Refused(HttpStatus),
}

/// Reads the head of a request to a listener that serves `path`.
pub fn read_head(head: &Parts, path: &HttpPath) -> RequestContent {
    if head.uri.path() != path.as_str() {
        return RequestContent::Refused(HttpStatus::NotFound);
    }
    // HEAD is refused as well because an answer's head alone has no use.
    match head.method {
        Method::GET => match head.uri.query().map(read_query_string) {
            Some(Ok(message)) => RequestContent::Message(message),
            Some(Err(status)) => RequestContent::Refused(status),
            None => RequestContent::Refused(HttpStatus::BadRequest),
        },
        Method::POST if !head.headers.get(CONTENT_TYPE).is_some_and(is_dns_message) => {
            RequestContent::Refused(HttpStatus::UnsupportedMediaType)
        }
        Method::POST => match head.headers.get(CONTENT_LENGTH).map(HeaderValue::to_str) {
            // The HTTP library checks for invalid or wrong lengths.
            Some(Ok(length)) if length.parse::<u64>().is_ok_and(|length| length > MAX_MESSAGE as u64) => {
                RequestContent::Refused(HttpStatus::ContentTooLarge)
            }
            Some(_) | None => RequestContent::Body,
        },
        _ => RequestContent::Refused(HttpStatus::MethodNotAllowed),
    }
}

/// Checks a complete message.
pub fn check_message(message: &[u8]) -> Result<(), HttpStatus> {
    match message.len() {
        ..HEADER_LEN => Err(HttpStatus::BadRequest),
        HEADER_LEN..=MAX_MESSAGE => Ok(()),
        _ => Err(HttpStatus::ContentTooLarge),
    }
}

/// Decodes the message in the template variable `dns` of a query string (RFC 8484 section 4.1.1).
fn read_query_string(query: &str) -> Result<Vec<u8>, HttpStatus> {
    let mut variables = query.split('&').filter_map(|variable| variable.split_once('='));
    let (_, encoded) = variables.find(|(name, _)| *name == "dns").ok_or(HttpStatus::BadRequest)?;
    // RFC 8484 section 6: without padding.
    let message = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| HttpStatus::BadRequest)?;
    check_message(&message).map(|()| message)
}

fn is_dns_message(value: &HeaderValue) -> bool {
    let essence = value.as_bytes().split(|&octet| octet == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(DNS_MESSAGE.as_bytes())
}

/// The content type of a DNS message (RFC 8484 section 6).
pub(crate) const DNS_MESSAGE: &str = "application/dns-message";

/// The length of the longest DNS message in bytes.
pub(crate) const MAX_MESSAGE: usize = 65_535;

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(method: &str, uri: &str, headers: &[(&str, &str)]) -> RequestContent {
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
        let refused = RequestContent::Refused;
        for (method, uri, headers, expected) in [
            ("GET", get(&format!("?dns={encoded}")), &[][..], RequestContent::Message(message.clone())),
            ("GET", format!("/dns-query?dns={encoded}"), &[], RequestContent::Message(message.clone())),
            ("GET", get(&format!("?ct&a=b&dns={encoded}&dns=AAAA")), &[], RequestContent::Message(message)),
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
            ("POST", get(""), &dns, RequestContent::Body),
            ("POST", get(""), &[("content-type", "Application/DNS-message ; a=b")], RequestContent::Body),
            ("POST", get(""), &[], refused(HttpStatus::UnsupportedMediaType)),
            ("POST", get(""), &[("content-type", "application/dns-json")], refused(HttpStatus::UnsupportedMediaType)),
            ("POST", get(""), &[dns[0], ("content-length", "65535")], RequestContent::Body),
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
