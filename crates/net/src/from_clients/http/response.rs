//! HTTP response heads (RFC 8484 section 4.2, RFC 8484 section 5.1), without I/O.

use bytes::Bytes;
use dns::{Header, Rcode, least_ttl};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use metrics::HttpStatus;

use super::request::DNS_MESSAGE;
use crate::from_clients::tcp::Cacheability;

/// Returns the head of a response that carries a DNS message.
pub fn head_of_answer(message: &[u8], content: Cacheability) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.reserve(3);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(DNS_MESSAGE));
    // HTTP/2 does not need it because frames have lengths, but BIND's dig rejects a response without it.
    headers.insert(CONTENT_LENGTH, message.len().into());
    headers.insert(CACHE_CONTROL, cache_control(max_age(message, content)));
    response
}

/// Returns the head of a response without a DNS message.
///
/// Deviation: RFC 9110 section 6.6.1 requires a date. Only caches use it, and `max-age` is enough for them.
pub fn head_of_refusal(status: HttpStatus) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == HttpStatus::MethodNotAllowed {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}

/// Returns how long a response may be cached in seconds: the lowest TTL, or 0 for a failure or a made-up one.
fn max_age(message: &[u8], content: Cacheability) -> u32 {
    let is_failure = Header::read(message)
        .is_none_or(|header| header.is_truncated() || !matches!(header.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN));
    match content {
        Cacheability::Answer if !is_failure => least_ttl(message).unwrap_or(0),
        Cacheability::Answer | Cacheability::MadeUp => 0,
    }
}

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
            (0, 300, Cacheability::Answer, "max-age=300"),
            (3, 60, Cacheability::Answer, "max-age=60"),
            (2, 60, Cacheability::Answer, "max-age=0"),
            (5, 60, Cacheability::Answer, "max-age=0"),
            (3, 60, Cacheability::MadeUp, "max-age=0"),
            (0, 60, Cacheability::MadeUp, "max-age=0"),
        ] {
            let head = head_of_answer(&message(rcode, ttl), content);
            assert_eq!(head.status(), StatusCode::OK, "whatever the rcode");
            assert_eq!(head.headers()[CONTENT_TYPE], "application/dns-message");
            assert_eq!(head.headers()[CACHE_CONTROL], expected, "{rcode} {ttl} {content:?}");
        }
        assert_eq!(head_of_answer(&[], Cacheability::Answer).headers()[CACHE_CONTROL], "max-age=0");
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
