//! Server identity, if the operator sets it: version and name in class CH (RFC 4892), and the NSID option
//! (RFC 5001).

use dns::{HEADER_LEN, OptionCode, Query, RecordClass, RecordType, eq_ignore_case};

/// The identity of a server. A text that is not set is not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The TXT data of `version.bind` and `version.server`.
    pub version: Option<IdentityText>,
    /// The TXT data of `id.server` and `hostname.bind` (RFC 4892 section 3).
    pub id: Option<IdentityText>,
    /// The data of the NSID option (RFC 5001 section 2.3).
    pub nsid: Option<IdentityText>,
}

/// A text of at most 255 bytes, the size of one character string (RFC 1035 section 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityText(Box<[u8]>);

impl IdentityText {
    /// Returns the text, or `None` if it is longer than 255 bytes.
    pub fn new(octets: &[u8]) -> Option<Self> {
        u8::try_from(octets.len()).ok().map(|_| Self(octets.into()))
    }

    /// The bytes of the text.
    pub fn as_octets(&self) -> &[u8] {
        &self.0
    }
}

impl Identity {
    pub(crate) fn text(&self, query: &Query<'_>) -> Option<&IdentityText> {
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

    /// The NSID, if the query asks for it with an empty option (RFC 5001 section 2.1).
    pub(crate) fn nsid(&self, query: &Query<'_>) -> Option<&IdentityText> {
        let is_asked = |query: &Query<'_>| {
            query.edns.is_some_and(|edns| edns.iter_options().any(|(code, _)| code == OptionCode::NSID))
        };
        self.nsid.as_ref().filter(|_| is_asked(query))
    }
}

pub(crate) fn append_text(text: &IdentityText, out: &mut Vec<u8>) {
    let len = text.0.len() as u16;
    out.extend_from_slice(&(0xC000 | HEADER_LEN as u16).to_be_bytes());
    out.extend_from_slice(&RecordType::TXT.0.to_be_bytes());
    out.extend_from_slice(&RecordClass::CH.0.to_be_bytes());
    // TTL 0, because the text describes this server at this moment.
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(len + 1).to_be_bytes());
    out.push(len as u8);
    out.extend_from_slice(&text.0);
}

pub(crate) fn append_option(code: OptionCode, data: &[u8], opt_len: usize, out: &mut Vec<u8>) {
    let len = data.len() as u16;
    let rdlength = (out.len() + RDLENGTH_AT).checked_sub(opt_len).and_then(|at| out.get_mut(at..)?.first_chunk_mut());
    if let Some(rdlength) = rdlength {
        *rdlength = (u16::from_be_bytes(*rdlength) + OPTION_LEN as u16 + len).to_be_bytes();
    }
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(data);
}

/// The offset of RDLENGTH in an OPT record (RFC 6891 section 6.1.2).
const RDLENGTH_AT: usize = 9;

pub(crate) const OPTION_LEN: usize = 4;
