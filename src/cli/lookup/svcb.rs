//! The parameters of SVCB and HTTPS records as text (RFC 9460 section 2.1 and appendix A).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::rdata::{base64, quoted};

/// All parameters, separated by blanks; `None` if they do not parse to the end.
pub(super) fn parameters_to_text(mut data: &[u8]) -> Option<String> {
    let mut parameters = Vec::new();
    while let Some((&[k1, k2, l1, l2], rest)) = data.split_first_chunk::<4>() {
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l1, l2])))?;
        parameters.push(parameter_to_text(u16::from_be_bytes([k1, k2]), value)?);
        data = rest;
    }
    data.is_empty().then(|| parameters.join(" "))
}

/// One `key=value`, or `key` if it has no value.
fn parameter_to_text(key: u16, value: &[u8]) -> Option<String> {
    let name = key_name(key);
    let text = match key {
        0 => list(value, |&[a, b]: &[u8; 2]| key_name(u16::from_be_bytes([a, b])))?,
        1 => quoted(&alpn(value)?),
        2 if value.is_empty() => return Some(name),
        3 => u16::from_be_bytes(*value.first_chunk().filter(|_| value.len() == 2)?).to_string(),
        4 => list(value, |&octets: &[u8; 4]| Ipv4Addr::from(octets).to_string())?,
        5 => base64(value),
        6 => list(value, |&octets: &[u8; 16]| Ipv6Addr::from(octets).to_string())?,
        _ if value.is_empty() => return Some(name),
        _ => quoted(value),
    };
    Some(format!("{name}={text}"))
}

/// The key by its name, or as `key65280` (RFC 9460 section 14.3.2).
fn key_name(key: u16) -> String {
    match key {
        0 => "mandatory".to_owned(),
        1 => "alpn".to_owned(),
        2 => "no-default-alpn".to_owned(),
        3 => "port".to_owned(),
        4 => "ipv4hint".to_owned(),
        5 => "ech".to_owned(),
        6 => "ipv6hint".to_owned(),
        number => format!("key{number}"),
    }
}

/// A non-empty list of items of `N` octets each, separated by commas.
fn list<const N: usize>(value: &[u8], item: impl Fn(&[u8; N]) -> String) -> Option<String> {
    let (items, rest) = value.as_chunks::<N>();
    let fits = !items.is_empty() && rest.is_empty();
    fits.then(|| items.iter().map(item).collect::<Vec<_>>().join(","))
}

/// Protocol names separated by commas. RFC 9460 appendix A.1: a comma or backslash within a name is
/// escaped once here, and `quoted` then escapes the backslash again.
fn alpn(mut value: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while let Some((&length, rest)) = value.split_first() {
        let (protocol, rest) = rest.split_at_checked(usize::from(length))?;
        if !text.is_empty() {
            text.push(b',');
        }
        for &octet in protocol {
            if matches!(octet, b',' | b'\\') {
                text.push(b'\\');
            }
            text.push(octet);
        }
        value = rest;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `data` is written as `text`; `None` if it does not parse.
    fn check(data: &[u8], text: Option<&str>) {
        assert_eq!(parameters_to_text(data).as_deref(), text);
    }

    #[test]
    fn parameters_are_written_by_name() {
        check(b"", Some(""));
        check(b"\0\x01\0\x06\x02h2\x02h3", Some(r#"alpn="h2,h3""#));
        check(b"\0\x02\0\0\0\x03\0\x02\x20\xfb", Some("no-default-alpn port=8443"));
        check(b"\0\x04\0\x08\xc0\0\x02\x01\xc0\0\x02\x02", Some("ipv4hint=192.0.2.1,192.0.2.2"));
        check(b"\0\0\0\x04\0\x01\0\x04", Some("mandatory=alpn,ipv4hint"));
        check(b"\x02\x9b\0\x03a\"\xd2", Some(r#"key667="a\"\210""#));
        check(b"\0\x01\0\x09\x08f\\oo,bar", Some(r#"alpn="f\\\\oo\\,bar""#));
    }

    #[test]
    fn broken_parameters_do_not_parse() {
        check(b"\0", None);
        check(b"\0\x01\0\x03\x02h", None);
        check(b"\0\x03\0\x01\0", None);
        check(b"\0\x04\0\x03\0\0\0", None);
        check(b"\0\x01\0\x02\x05h", None);
    }
}
