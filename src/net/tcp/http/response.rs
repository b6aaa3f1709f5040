//! The heads of responses by HTTP (RFC 8484 section 4.2, RFC 8484 section 5.1). Nothing here reads or writes anything.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use super::request::DNS_MESSAGE;
use crate::metrics::HttpStatus;
use crate::net::tcp::Content;
use crate::wire::{Header, Rcode, least_ttl};

/// The head of a response that brings this DNS message.
pub fn head_of_answer(message: &[u8], content: Content) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.reserve(3);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(DNS_MESSAGE));
    // By HTTP/2 the frames say it, but BIND's dig takes nothing without.
    headers.insert(CONTENT_LENGTH, message.len().into());
    headers.insert(CACHE_CONTROL, cache_control(max_age(message, content)));
    response
}

/// The head of a response that brings none.
///
/// Deviation: RFC 9110 section 6.6.1 would have a date in each. It serves those who keep what they got, and `max-age` tells them for how long.
pub fn head_of_refusal(status: HttpStatus) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == HttpStatus::MethodNotAllowed {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}

/// For how many seconds a response may be kept: as long as all of its records last, and not at all if it is a failure or was made up.
fn max_age(message: &[u8], content: Content) -> u32 {
    let is_failure = Header::read(message)
        .is_none_or(|header| header.is_truncated() || !matches!(header.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN));
    match content {
        Content::Answer if !is_failure => least_ttl(message).unwrap_or(0),
        Content::Answer | Content::MadeUp => 0,
    }
}

/// The header field that says so.
fn cache_control(seconds: u32) -> HeaderValue {
    let text = Bytes::from(format!("max-age={seconds}"));
    HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static("no-store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_may_be_kept_as_long_as_their_records_last() {
        let message = |rcode: u8, ttl: u32| {
            let record = [&b"\0\0\x01\0\x01"[..], &ttl.to_be_bytes(), b"\0\x04\xC0\0\x02\x01"].concat();
            [&[0, 0, 0x80, rcode, 0, 1, 0, 1, 0, 0, 0, 0][..], b"\0\0\x01\0\x01", &record].concat()
        };
        for (rcode, ttl, content, expected) in [
            (0, 300, Content::Answer, "max-age=300"),
            (3, 60, Content::Answer, "max-age=60"),
            (2, 60, Content::Answer, "max-age=0"),
            (5, 60, Content::Answer, "max-age=0"),
            (3, 60, Content::MadeUp, "max-age=0"),
            (0, 60, Content::MadeUp, "max-age=0"),
        ] {
            let head = head_of_answer(&message(rcode, ttl), content);
            assert_eq!(head.status(), StatusCode::OK, "whatever the rcode");
            assert_eq!(head.headers()[CONTENT_TYPE], "application/dns-message");
            assert_eq!(head.headers()[CACHE_CONTROL], expected, "{rcode} {ttl} {content:?}");
        }
        assert_eq!(head_of_answer(&[], Content::Answer).headers()[CACHE_CONTROL], "max-age=0");
    }

    #[test]
    fn who_may_not_ask_so_is_told_how() {
        for status in HttpStatus::ALL {
            let head = head_of_refusal(status);
            assert_eq!(head.status().as_u16(), status.code());
            let allowed = (status == HttpStatus::MethodNotAllowed).then(|| HeaderValue::from_static("GET, POST"));
            assert_eq!(head.headers().get(ALLOW).cloned(), allowed);
        }
    }
}
