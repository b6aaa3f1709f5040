//! What a server says of itself, if its operator wants it to: its version and name, asked for in class CH (RFC 4892), and its
//! identifier in responses to those who ask for one (RFC 5001).

use crate::wire::{HEADER_LEN, OptionCode, Query, RecordClass, RecordType, eq_ignore_case};

/// What a server says of itself. All of it is optional, and says nothing unless set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// TXT of `version.bind` and `version.server`.
    pub version: Option<Text>,
    /// TXT of `id.server` and `hostname.bind` (RFC 4892 section 3).
    pub id: Option<Text>,
    /// The NSID option (RFC 5001 section 2.3).
    pub nsid: Option<Text>,
}

/// Up to 255 octets: what one character string holds (RFC 1035 section 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Box<[u8]>);

impl Text {
    /// Takes octets that are not too many.
    pub fn new(octets: &[u8]) -> Option<Self> {
        u8::try_from(octets.len()).ok().map(|_| Self(octets.into()))
    }

    /// The octets.
    pub fn as_octets(&self) -> &[u8] {
        &self.0
    }
}

impl Identity {
    /// The text that a question in class CH asks for.
    pub(in crate::zone) fn text(&self, query: &Query<'_>) -> Option<&Text> {
        if query.question.qclass() != RecordClass::CH
            || !matches!(query.question.qtype(), RecordType::TXT | RecordType::ANY)
        {
            return None;
        }
        let is = |name: &[u8]| eq_ignore_case(query.question.qname(), name);
        if is(b"\x07version\x04bind\0") || is(b"\x07version\x06server\0") {
            self.version.as_ref()
        } else if is(b"\x02id\x06server\0") || is(b"\x08hostname\x04bind\0") {
            self.id.as_ref()
        } else {
            None
        }
    }

    /// The NSID, if the query asks for it: by an empty option (RFC 5001 section 2.1).
    pub(in crate::zone) fn nsid(&self, query: &Query<'_>) -> Option<&Text> {
        let is_asked = |query: &Query<'_>| {
            query.edns.is_some_and(|edns| edns.iter_options().any(|(code, _)| code == OptionCode::NSID))
        };
        self.nsid.as_ref().filter(|_| is_asked(query))
    }
}

/// Appends the TXT record of a text behind the question.
pub(in crate::zone) fn append_text(text: &Text, out: &mut Vec<u8>) {
    let len = text.0.len() as u16;
    out.extend_from_slice(&(0xC000 | HEADER_LEN as u16).to_be_bytes());
    out.extend_from_slice(&RecordType::TXT.0.to_be_bytes());
    out.extend_from_slice(&RecordClass::CH.0.to_be_bytes());
    // Not to be kept: it is about this server and this moment.
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(len + 1).to_be_bytes());
    out.push(len as u8);
    out.extend_from_slice(&text.0);
}

/// Appends an option to a message that ends in an OPT record of so many octets.
pub(in crate::zone) fn append_option(code: OptionCode, data: &[u8], opt_len: usize, out: &mut Vec<u8>) {
    let len = data.len() as u16;
    let rdlength = (out.len() + RDLENGTH_AT).checked_sub(opt_len).and_then(|at| out.get_mut(at..)?.first_chunk_mut());
    if let Some(rdlength) = rdlength {
        *rdlength = (u16::from_be_bytes(*rdlength) + OPTION_LEN as u16 + len).to_be_bytes();
    }
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(data);
}

/// Where the length of its RDATA stands in an OPT record (RFC 6891 section 6.1.2).
const RDLENGTH_AT: usize = 9;

/// Octets of an option up to its data.
pub(in crate::zone) const OPTION_LEN: usize = 4;
