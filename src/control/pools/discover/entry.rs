//! An entry: one member as a source lists it,
//! `{"address":"192.0.2.1:53","name":"ts1","weight":1,"state":"up"}`.
//!
//! Each entry is read separately, so that a wrong one spoils no other.

use config::{limits, words};
use dns::address::{BackendAddress, is_unseen};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A member as a source lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEntry {
    /// The address of the member.
    pub address: BackendAddress,
    /// The label of the member, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The share of the load, if given, within [`limits::WEIGHT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// True if the member has announced that it is about to end: it gets no more queries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_draining: bool,
}

impl MemberEntry {
    /// The largest JSON of one entry in bytes: many times what a long name takes.
    pub const MAX_LEN: usize = 4096;

    /// The longest name in bytes, a sensible length for a label of a metric.
    pub const MAX_NAME: usize = 255;

    /// Makes an entry with only an address.
    pub fn at(address: BackendAddress) -> Self {
        Self { address, name: None, weight: None, is_draining: false }
    }

    /// Reads the JSON of an entry, or returns the reason why it is none.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        if json.len() > Self::MAX_LEN {
            return Err(format!("{} octets, expected {} at most", json.len(), Self::MAX_LEN));
        }
        let value = serde_json::from_slice(json).map_err(|error| format!("no JSON: {error}"))?;
        Self::from_value(&value)
    }

    /// Reads an entry from parsed JSON. Unknown keys are ignored, because a later version may have more.
    pub fn from_value(value: &Value) -> Result<Self, String> {
        let Value::Object(fields) = value else {
            return Err(format!("expected an object such as {EXAMPLE}"));
        };
        let address = fields.get("address").ok_or_else(|| format!("address is missing, as in {EXAMPLE}"))?;
        let address = address.as_str().ok_or("address: expected a string")?;
        let address = read_address(address)?;
        let name = match fields.get("name") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(read_name(name)?),
            Some(_) => return Err("name: expected a string".to_owned()),
        };
        let weight = match fields.get("weight") {
            None | Some(Value::Null) => None,
            Some(weight) => Some(read_weight(weight)?),
        };
        let is_draining = match fields.get("state") {
            None | Some(Value::Null) => false,
            Some(Value::String(state)) if state == "up" => false,
            Some(Value::String(state)) if state == "draining" => true,
            Some(_) => return Err("state: expected \"up\" or \"draining\"".to_owned()),
        };
        Ok(Self { address, name, weight, is_draining })
    }

    /// Returns the JSON that [`from_json`](Self::from_json) reads.
    pub fn to_json(&self) -> String {
        let Self { address, name, weight, is_draining } = self;
        let state = if *is_draining { "draining" } else { "up" };
        let mut fields = serde_json::Map::new();
        fields.insert("address".to_owned(), address.to_string().into());
        fields.extend(name.iter().map(|name| ("name".to_owned(), name.as_str().into())));
        fields.extend(weight.iter().map(|weight| ("weight".to_owned(), (*weight).into())));
        fields.insert("state".to_owned(), state.into());
        Value::Object(fields).to_string()
    }
}

/// Reads an address; the default port is 53.
fn read_address(text: &str) -> Result<BackendAddress, String> {
    words::member_address(text).map_err(|expected| format!("address {:?}: {expected}", shown(text)))
}

fn read_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > MemberEntry::MAX_NAME || name.chars().any(is_unseen) {
        return Err(format!(
            "name: expected 1 to {} octets without control or invisible characters",
            MemberEntry::MAX_NAME
        ));
    }
    Ok(name.to_owned())
}

fn read_weight(weight: &Value) -> Result<u16, String> {
    let read = weight.as_u64().and_then(|weight| u16::try_from(weight).ok());
    let shown = shown(&weight.to_string());
    read.filter(|weight| limits::WEIGHT.holds(weight))
        .ok_or_else(|| format!("weight {shown}: expected an integer {}", limits::WEIGHT))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Escapes a name for a part of an etcd key: `/`, `%` and control characters become %XX.
pub fn escaped(name: &str) -> String {
    const SET: AsciiSet = CONTROLS.add(b'/').add(b'%');
    // Non-ASCII text stays readable.
    name.chars()
        .map(|letter| match letter.is_ascii() {
            true => utf8_percent_encode(letter.encode_utf8(&mut [0; 4]), &SET).to_string(),
            false => letter.to_string(),
        })
        .collect()
}

/// Reverses [`escaped`]. Returns `None` if the result is not text.
pub fn unescaped(part: &str) -> Option<String> {
    percent_decode_str(part).decode_utf8().ok().map(Into::into)
}

const EXAMPLE: &str = "{\"address\":\"192.0.2.1:53\"}";

const SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_are_read() {
        let address = |text: &str| text.parse::<BackendAddress>().expect("an address");
        for (json, expected) in [
            (r#"{"address":"192.0.2.1:5301"}"#, MemberEntry::at(address("192.0.2.1:5301"))),
            (r#"{"address":"192.0.2.1"}"#, MemberEntry::at(address("192.0.2.1:53"))),
            (r#"{"address":"2001:db8::1"}"#, MemberEntry::at(address("[2001:db8::1]:53"))),
            (r#"{"address":"[2001:db8::1]"}"#, MemberEntry::at(address("[2001:db8::1]:53"))),
            (r#" {"address":"[::1]:7","other":[1],"state":"up"} "#, MemberEntry::at(address("[::1]:7"))),
            (r#"{"address":"[::1]:7","name":null,"weight":null,"state":null}"#, MemberEntry::at(address("[::1]:7"))),
            (
                r#"{"address":"192.0.2.1:53","name":"tsé","weight":1000,"state":"draining"}"#,
                MemberEntry {
                    address: address("192.0.2.1:53"),
                    name: Some("tsé".to_owned()),
                    weight: Some(1000),
                    is_draining: true,
                },
            ),
        ] {
            let read = MemberEntry::from_json(json.as_bytes()).expect("an entry");
            assert_eq!(read, expected, "{json}");
            assert_eq!(MemberEntry::from_json(read.to_json().as_bytes()), Ok(read));
        }
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_told() {
        let long = "x".repeat(MemberEntry::MAX_NAME + 1);
        for (json, expected) in [
            ("", "no JSON"),
            ("{", "no JSON"),
            ("[]", "expected an object such as"),
            ("{}", "address is missing"),
            (r#"{"address":7}"#, "address: expected a string"),
            (r#"{"address":"ts1:53"}"#, "address \"ts1:53\": expected an IP address"),
            (r#"{"address":"192.0.2.1:0"}"#, "address \"192.0.2.1:0\": expected a port from 1 to 65535"),
            (r#"{"address":"0.0.0.0:53"}"#, "address \"0.0.0.0:53\": expected the address of one host"),
            (r#"{"address":"[ff02::1]:53"}"#, "address \"[ff02::1]:53\": expected the address of one host"),
            (r#"{"address":"192.0.2.1:53","weight":-1}"#, "weight -1: expected an integer from 1 to 1000"),
            (r#"{"address":"192.0.2.1:53","weight":0}"#, "weight 0: expected"),
            (r#"{"address":"192.0.2.1:53","weight":1.5}"#, "weight 1.5: expected"),
            (r#"{"address":"192.0.2.1:53","weight":65537}"#, "weight 65537: expected"),
            (r#"{"address":"192.0.2.1:53","weight":"1"}"#, "weight \"1\": expected"),
            (r#"{"address":"192.0.2.1:53","name":""}"#, "name: expected 1 to 255 octets"),
            (r#"{"address":"192.0.2.1:53","name":"a\nb"}"#, "name: expected 1 to 255 octets"),
            (&format!(r#"{{"address":"192.0.2.1:53","name":"{long}"}}"#), "name: expected 1 to 255 octets"),
            (r#"{"address":"192.0.2.1:53","name":7}"#, "name: expected a string"),
            (r#"{"address":"192.0.2.1:53","state":"down"}"#, "state: expected \"up\" or \"draining\""),
            (&" ".repeat(1 << 20), "1048576 octets, expected 4096 at most"),
        ] {
            let reported = MemberEntry::from_json(json.as_bytes()).expect_err(json);
            assert!(reported.starts_with(expected), "{json}: {reported}");
        }
    }

    #[test]
    fn names_are_parts_of_keys() {
        for (name, key) in [("ts1", "ts1"), ("a/b%c\n", "a%2Fb%25c%0A"), ("[::1]:53", "[::1]:53"), ("é", "é")] {
            assert_eq!(escaped(name), key);
            assert_eq!(unescaped(key).as_deref(), Some(name));
        }
        assert_eq!(unescaped("%ff"), None, "no text");
    }

    proptest! {
        #[test]
        fn any_octets_are_an_entry_or_are_refused(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MemberEntry::from_json(&octets);
        }

        #[test]
        fn flipped_bits_make_an_entry_or_are_refused(at in 0_usize..100, bit in 0_u8..8) {
            let mut json = br#"{"address":"192.0.2.1:53","name":"ts1","weight":10,"state":"up"}"#.to_vec();
            let at = at % json.len();
            json[at] ^= 1 << bit;
            if let Ok(entry) = MemberEntry::from_json(&json) {
                prop_assert!(entry.address.port() != 0 && entry.weight.is_none_or(|weight| limits::WEIGHT.holds(&weight)));
            }
        }

        #[test]
        fn names_survive_keys(name in "\\PC{0,20}") {
            prop_assert_eq!(unescaped(&escaped(&name)), Some(name));
        }
    }

    #[test]
    fn a_name_with_invisible_characters_is_refused() {
        for letter in ['\u{202e}', '\u{200b}', '\u{2066}', '\u{feff}', '\u{61c}', '\u{2028}', '\u{9b}'] {
            let json = serde_json::json!({ "address": "192.0.2.1:53", "name": format!("ts{letter}1") }).to_string();
            let error = MemberEntry::from_json(json.as_bytes()).expect_err("it is refused");
            assert!(error.contains("invisible"), "{letter:?}: {error}");
        }
    }
}
