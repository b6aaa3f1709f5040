//! A query and its response in HTTP (RFC 8484), independent of the transport.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dns::HEADER_LEN;
use dns::address::HttpPath;
use http::header::{ACCEPT, AGE, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

/// The URI for queries by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTarget(Uri);

impl HttpTarget {
    /// Builds the URI of a path at this server, by name if it has one, otherwise by address.
    pub(crate) fn new(server: SocketAddr, name: Option<&str>, path: &HttpPath) -> Self {
        // RFC 9110 section 4.2.2: without a port, 443 applies.
        let port = if server.port() == HTTPS { String::new() } else { format!(":{}", server.port()) };
        let by_name = name.and_then(|name| Authority::try_from(format!("{name}{port}")).ok());
        let authority = by_name.unwrap_or_else(|| {
            let host = if server.is_ipv6() { format!("[{}]", server.ip()) } else { server.ip().to_string() };
            Authority::try_from(format!("{host}{port}")).expect("an address is one")
        });
        let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority).path_and_query(path.as_str());
        Self(uri.build().expect("a path holds nothing that needs quoting"))
    }

    /// Returns the request for a query of this length (RFC 8484 section 4.1).
    pub(crate) fn request(&self, length: usize) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.0.clone();
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        request
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpRefusal {
    pub(crate) problem: String,
    pub(crate) pause: Option<Duration>,
}

impl HttpRefusal {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), pause: None }
    }
}

pub(crate) fn check_head<T>(response: &Response<T>) -> Result<(), HttpRefusal> {
    let (status, headers) = (response.status(), response.headers());
    if status != StatusCode::OK {
        let is_busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let pause = is_busy.then(|| retry_after(headers.get(RETRY_AFTER)));
        return Err(HttpRefusal { problem: format!("it answered with HTTP status {}", status.as_u16()), pause });
    }
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if !is_dns_message(media_type) {
        let media_type = String::from_utf8_lossy(media_type.get(..media_type.len().min(60)).unwrap_or_default());
        return Err(HttpRefusal::new(format!("it answered with the content type {media_type:?}")));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    check_length(length.unwrap_or(HEADER_LEN))
}

pub(crate) fn check_length(length: usize) -> Result<(), HttpRefusal> {
    match length {
        ..HEADER_LEN => Err(HttpRefusal::new("it answered with a body that is too short for DNS")),
        HEADER_LEN..=MAX_MESSAGE => Ok(()),
        _ => Err(HttpRefusal::new("it answered with a body that is too long for DNS")),
    }
}

/// Returns the seconds that a response has spent in HTTP caches (RFC 9111 section 5.1).
pub(crate) fn age_of<T>(response: &Response<T>) -> u32 {
    let age = response.headers().get(AGE).and_then(|age| age.to_str().ok()?.trim().parse::<u64>().ok());
    age.map_or(0, |age| age.try_into().unwrap_or(u32::MAX))
}

/// Returns the reply in a body of this age, with this ID: the ID on the wire is 0 (RFC 8484 section 4.1).
pub(crate) fn reply(mut body: Vec<u8>, id: u16, age: u32) -> Result<Vec<u8>, HttpRefusal> {
    check_length(body.len())?;
    // RFC 1035 section 4.1.1: QR is the first bit behind the ID.
    if body.get(2).is_none_or(|flags| flags & 0x80 == 0) {
        return Err(HttpRefusal::new("its response body is not a DNS reply"));
    }
    if let Some(first) = body.first_chunk_mut() {
        *first = id.to_be_bytes();
    }
    if age > 0 {
        dns::subtract_age(&mut body, age);
    }
    Ok(body)
}

/// Returns a query as a request body. Its ID is 0 (RFC 8484 section 4.1), so that caches recognize it.
pub(crate) fn body(message: &[u8]) -> Bytes {
    let mut body = message.to_vec();
    if let Some(first) = body.first_chunk_mut::<2>() {
        *first = [0; 2];
    }
    body.into()
}

/// Parameters are ignored (RFC 8484 section 6 defines none).
fn is_dns_message(media_type: &[u8]) -> bool {
    let end = media_type.iter().position(|octet| *octet == b';').unwrap_or(media_type.len());
    media_type.get(..end).is_some_and(|bare| bare.trim_ascii().eq_ignore_ascii_case(MEDIA_TYPE.as_bytes()))
}

/// RFC 9110 section 10.2.3. A date is ignored, because it requires a shared clock.
fn retry_after(header: Option<&HeaderValue>) -> Duration {
    let seconds = header.and_then(|header| header.to_str().ok()?.trim().parse().ok());
    seconds.map_or(USUAL_PAUSE, Duration::from_secs)
}

const HTTPS: u16 = 443;

const MEDIA_TYPE: &str = "application/dns-message";

pub(crate) const MAX_MESSAGE: usize = u16::MAX as usize;

/// Pause of a backend that sends no `Retry-After`: short, but it spares the backend nearly all queries.
const USUAL_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, headers: &[(&str, &str)]) -> Result<(), HttpRefusal> {
        let response =
            headers.iter().fold(Response::builder().status(status), |it, (name, value)| it.header(*name, *value));
        check_head(&response.body(()).unwrap())
    }

    #[test]
    fn what_is_no_message_is_told() {
        let dns = ("content-type", MEDIA_TYPE);
        assert_eq!(head(200, &[dns]), Ok(()));
        assert_eq!(head(200, &[("content-type", "Application/DNS-Message ; x=y"), ("content-length", "12")]), Ok(()));
        let problem = |status, headers: &[_]| head(status, headers).unwrap_err().problem;
        assert_eq!(problem(404, &[dns]), "it answered with HTTP status 404");
        assert_eq!(problem(200, &[]), "it answered with the content type \"\"");
        assert_eq!(problem(200, &[("content-type", "text/html")]), "it answered with the content type \"text/html\"");
        let other = problem(200, &[("content-type", "application/dns-messages")]);
        assert_eq!(other, "it answered with the content type \"application/dns-messages\"");
        let length = |length| problem(200, &[dns, ("content-length", length)]);
        assert_eq!(length("65536"), "it answered with a body that is too long for DNS");
        assert_eq!(length("11"), "it answered with a body that is too short for DNS");
    }

    #[test]
    fn pauses_are_as_long_as_the_backend_says() {
        let pause = |status, headers: &[_]| head(status, headers).unwrap_err().pause;
        assert_eq!(pause(503, &[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(pause(429, &[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]), Some(USUAL_PAUSE));
        assert_eq!(pause(429, &[]), Some(USUAL_PAUSE));
        assert_eq!(pause(500, &[("retry-after", "7")]), None);
    }

    #[test]
    fn bodies_have_the_id_0_and_replies_that_of_their_query() {
        assert_eq!(&body(&[1, 2, 3])[..], [0, 0, 3]);
        let mut message = vec![0; HEADER_LEN];
        assert_eq!(reply(message.clone(), 7, 0).unwrap_err().problem, "its response body is not a DNS reply");
        message[2] = 0x80;
        assert_eq!(reply(message.clone(), 0x0102, 0).unwrap()[..3], [1, 2, 0x80]);
        assert!(reply(message[..11].to_vec(), 7, 0).is_err() && reply(vec![0x80; 65_536], 7, 0).is_err());
        assert!(reply(vec![0x80; 65_535], 7, 9).is_ok());
    }

    #[test]
    fn replies_are_as_old_as_their_response() {
        let message = |ttl: u8| {
            let record = [b'\0', 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4, 192, 0, 2, 1];
            [&[0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1][..], &record].concat()
        };
        for (age, expected) in
            [(None, 200), (Some("0"), 200), (Some("old"), 200), (Some(" 50"), 150), (Some("9999999999"), 0)]
        {
            let response = age.into_iter().fold(Response::builder(), |it, age| it.header("age", age));
            let age = age_of(&response.body(()).unwrap());
            assert_eq!(reply(message(200), 0, age), Ok(message(expected)), "{age}");
        }
    }

    #[test]
    fn target_is_name_or_address_with_port_and_path() {
        let path: HttpPath = "/q".parse().unwrap();
        let uri = |server: &str, name| HttpTarget::new(server.parse().unwrap(), name, &path).0.to_string();
        assert_eq!(uri("192.0.2.1:443", Some("dns.example")), "https://dns.example/q");
        assert_eq!(uri("192.0.2.1:8443", Some("dns.example")), "https://dns.example:8443/q");
        assert_eq!(uri("192.0.2.1:443", None), "https://192.0.2.1/q");
        assert_eq!(uri("[2001:db8::1]:8443", Some("a b")), "https://[2001:db8::1]:8443/q");
        let odd: HttpPath = "//-._~!$&'()*+,;=:@%41/".parse().unwrap();
        let server = "192.0.2.1:443".parse().unwrap();
        assert_eq!(HttpTarget::new(server, None, &odd).0.path(), odd.as_str());
        let request = HttpTarget::new(server, None, &path).request(30);
        let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
        assert_eq!((request.method(), header(CONTENT_LENGTH)), (&Method::POST, Some(&b"30"[..])));
        assert_eq!((header(ACCEPT), header(CONTENT_TYPE)), (Some(MEDIA_TYPE.as_bytes()), Some(MEDIA_TYPE.as_bytes())));
    }
}
