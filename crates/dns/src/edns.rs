//! The OPT record (RFC 6891 section 6.1): reading it, its options, and writing it.

use super::codes::{ExtendedError, OptionCode, Rcode, RecordType};
use super::cookie::{Cookie, CookieOption, MalformedCookie};

/// The fields of an OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns<'a> {
    /// The largest UDP message that the sender accepts.
    pub udp_size: u16,
    /// The high 8 bits of the rcode.
    pub extended_rcode: u8,
    /// The EDNS version; only 0 is known.
    pub version: u8,
    /// DO: the sender accepts DNSSEC records (RFC 3225 section 3).
    pub dnssec_ok: bool,
    /// The options in wire form.
    pub options: &'a [u8],
}

impl<'a> Edns<'a> {
    /// Reads an OPT record without its owner. `record` ends with the RDATA.
    pub(super) fn read(record: &'a [u8]) -> Option<Self> {
        let (&[_, _, s0, s1, extended_rcode, version, flags, _, _, _], options) = record.split_first_chunk()?;
        Some(Self::new(u16::from_be_bytes([s0, s1]), [extended_rcode, version, flags], options))
    }

    pub(super) fn new(udp_size: u16, [extended_rcode, version, flags]: [u8; 3], options: &'a [u8]) -> Self {
        Self { udp_size, extended_rcode, version, dnssec_ok: flags & DNSSEC_OK != 0, options }
    }

    /// Returns the options in order.
    pub fn iter_options(&self) -> Options<'a> {
        Options::of(self.options)
    }

    /// Returns the first COOKIE option (RFC 7873 section 5.2). Fails if its length is not legal for a cookie.
    pub fn cookie(&self) -> Result<Option<CookieOption<'a>>, MalformedCookie> {
        let first = self.iter_options().find(|(code, _)| *code == OptionCode::COOKIE);
        first.map(|(_, data)| CookieOption::read(data)).transpose()
    }

    /// Returns the codes of the extended errors, without options that are too short (RFC 8914 section 2).
    pub fn extended_errors(&self) -> impl Iterator<Item = ExtendedError> + use<'a> {
        let errors = self.iter_options().filter(|(code, _)| *code == OptionCode::EXTENDED_ERROR);
        errors.filter_map(|(_, data)| data.first_chunk().map(|code| ExtendedError(u16::from_be_bytes(*code))))
    }

    pub(super) fn is_sound(&self) -> bool {
        let mut options = self.iter_options();
        options.by_ref().for_each(drop);
        options.rest.is_empty()
    }
}

/// Iterates over the options of an OPT record. Ends early at an option that does not fit.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    pub(super) fn of(rdata: &'a [u8]) -> Self {
        Self { rest: rdata }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = (OptionCode, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[c0, c1, l0, l1], rest) = self.rest.split_first_chunk()?;
        let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        self.rest = rest;
        Some((OptionCode(u16::from_be_bytes([c0, c1])), data))
    }
}

/// An OPT record that hedgerow appends to a message. `OptionPassing` filters the options of the other side,
/// because OPT records are not forwarded (RFC 6891 section 6.1.1).
#[derive(Clone, Copy, Debug)]
pub struct OptRecord<'a> {
    udp_size: u16,
    extended_rcode: u8,
    dnssec_ok: bool,
    cookie: Option<&'a Cookie>,
    options: &'a [u8],
    passing: OptionPassing,
    sends_version: bool,
}

impl<'a> OptRecord<'a> {
    /// Makes a record without options.
    pub fn new(udp_size: u16, dnssec_ok: bool) -> Self {
        Self {
            udp_size,
            extended_rcode: 0,
            dnssec_ok,
            cookie: None,
            options: &[],
            passing: OptionPassing::All,
            sends_version: true,
        }
    }

    /// Sets the bits of an rcode that do not fit into the header (RFC 6891 section 6.1.3).
    pub(crate) fn with_rcode(self, rcode: Rcode) -> Self {
        Self { extended_rcode: (rcode.0 >> 4) as u8, ..self }
    }

    /// Sets the cookie of this hop.
    pub fn with_cookie(self, cookie: Option<&'a Cookie>) -> Self {
        Self { cookie, ..self }
    }

    pub(super) fn with_options(self, options: &'a [u8], passing: OptionPassing) -> Self {
        Self { options, passing, ..self }
    }

    /// Allows the zone version option if the client asked for it (RFC 9660 section 3.2 forbids it otherwise).
    pub(super) fn with_version(self, is_asked: bool) -> Self {
        Self { sends_version: is_asked, ..self }
    }

    pub(super) fn with_passing(self, passing: OptionPassing) -> Self {
        Self { passing, ..self }
    }

    /// Returns the length of the record in bytes.
    pub fn wire_len(&self) -> usize {
        OPT_FIXED_LEN + usize::from(self.rdlength())
    }

    pub(super) fn has_options(&self) -> bool {
        self.rdlength() > 0
    }

    /// Appends the record to a message. The caller counts it in ARCOUNT.
    #[inline]
    pub fn append(&self, out: &mut Vec<u8>) {
        let [t0, t1] = RecordType::OPT.0.to_be_bytes();
        let [s0, s1] = self.udp_size.to_be_bytes();
        let flags = if self.dnssec_ok { DNSSEC_OK } else { 0 };
        let [l0, l1] = self.rdlength().to_be_bytes();
        out.extend_from_slice(&[0, t0, t1, s0, s1, self.extended_rcode, 0, flags, 0, l0, l1]);
        if self.may_have_options() {
            self.append_options(out);
        }
    }

    /// Appends the options. The function is separate because most records have none.
    #[inline(never)]
    fn append_options(&self, out: &mut Vec<u8>) {
        if let Some(cookie) = self.cookie {
            cookie.append(out);
        }
        self.passing_options().for_each(|(code, data)| append_option(code, data, out));
    }

    /// Appends the record and leaves out options with which the message would be longer than `limit` bytes.
    pub(super) fn append_within(&self, limit: usize, out: &mut Vec<u8>) {
        let options_at = out.len() + OPT_FIXED_LEN;
        Self { options: &[], ..*self }.append(out);
        for (code, data) in self.passing_options() {
            if out.len() + usize::from(OPTION_FIXED_LEN) + data.len() <= limit {
                append_option(code, data, out);
            }
        }
        set_rest_length(out, options_at);
    }

    #[inline]
    fn rdlength(&self) -> u16 {
        if self.may_have_options() { self.options_len() } else { 0 }
    }

    fn may_have_options(&self) -> bool {
        self.cookie.is_some() || !self.options.is_empty()
    }

    /// Returns the bytes of the options. Separate because most records have none.
    #[inline(never)]
    fn options_len(&self) -> u16 {
        let cookie = if self.cookie.is_some() { Cookie::WIRE_LEN } else { 0 };
        cookie + self.passing_options().map(|(_, data)| OPTION_FIXED_LEN + data.len() as u16).sum::<u16>()
    }

    fn passing_options(&self) -> impl Iterator<Item = (OptionCode, &'a [u8])> {
        let (passing, sends_version) = (self.passing, self.sends_version);
        let is_passed = move |code| sends_version || code != OptionCode::ZONEVERSION;
        Options::of(self.options).filter(move |(code, data)| is_passed(*code) && passing.passes(*code, data))
    }
}

#[inline]
pub(super) fn append_option(code: OptionCode, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OptionPassing {
    All,
    /// All options that do not concern the hop.
    BeyondHop,
    /// The options of a query beyond the hop, without those that are malformed in any query.
    Query,
    BeyondHopWithoutErrors,
    Errors,
    Nothing,
}

impl OptionPassing {
    fn passes(self, code: OptionCode, data: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::BeyondHop => !is_about_hop(code),
            // RFC 9660 section 2.1: the option has no data in a query. With data, servers answer FORMERR as
            // to any OPT record, so one client could make hedgerow stop using EDNS with a backend for all
            // clients.
            Self::Query => !is_about_hop(code) && (code != OptionCode::ZONEVERSION || data.is_empty()),
            Self::BeyondHopWithoutErrors => !is_about_hop(code) && code != OptionCode::EXTENDED_ERROR,
            Self::Errors => code == OptionCode::EXTENDED_ERROR,
            Self::Nothing => false,
        }
    }
}

/// Returns true if an option concerns the two ends of one hop and must not pass: RFC 7873 section 5 (cookies
/// are between client and server), RFC 7828 section 3.4 (keepalive is of one connection), RFC 7830 section 3
/// (padding is of one message), RFC 7871 section 7 (client subnet needs to be configured).
fn is_about_hop(code: OptionCode) -> bool {
    matches!(code, OptionCode::COOKIE | OptionCode::TCP_KEEPALIVE | OptionCode::PADDING | OptionCode::CLIENT_SUBNET)
}

/// Writes the length of the data that begins at this offset into the two bytes before it.
pub(super) fn set_length(message: &mut [u8], at: usize, length: usize) {
    if let Some(octets) = at.checked_sub(2).and_then(|start| message.get_mut(start..at)) {
        octets.copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    }
}

/// Writes the length of the data from this offset to the end of the message into the two bytes before it.
pub(super) fn set_rest_length(message: &mut [u8], at: usize) {
    let length = message.len().saturating_sub(at);
    set_length(message, at, length);
}

/// An option without data.
pub(super) fn empty_option(code: OptionCode) -> [u8; 4] {
    let [c0, c1] = code.0.to_be_bytes();
    [c0, c1, 0, 0]
}

pub(super) fn extended_error_option(error: ExtendedError) -> [u8; 6] {
    let [c0, c1] = OptionCode::EXTENDED_ERROR.0.to_be_bytes();
    let [e0, e1] = error.0.to_be_bytes();
    [c0, c1, 0, 2, e0, e1]
}

/// Writes an EXTENDED-ERROR option (RFC 8914 section 2) into `room`, with as much text as fits.
pub(super) fn extended_error_with_text<'r>(
    error: ExtendedError,
    text: &str,
    room: &'r mut [u8; MAX_ERROR],
) -> &'r [u8] {
    let (option, rest) = room.split_at_mut(6);
    option.copy_from_slice(&extended_error_option(error));
    let length = match rest.get_mut(..text.len()) {
        Some(place) => {
            place.copy_from_slice(text.as_bytes());
            text.len()
        }
        None => 0,
    };
    room[3] = 2 + length as u8;
    &room[..6 + length]
}

/// Bytes of an EXTENDED-ERROR option with the longest text of hedgerow.
pub(super) const MAX_ERROR: usize = 6 + MAX_ERROR_TEXT;

/// The longest text of an Extended DNS Error that hedgerow writes, in bytes.
pub const MAX_ERROR_TEXT: usize = 96;

pub(super) const OPT_FIXED_LEN: usize = 11;

const OPTION_FIXED_LEN: u16 = 4;

/// The DO bit in the first octet of the flags (RFC 3225 section 3).
const DNSSEC_OK: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::super::cookie::CookieState;
    use super::*;

    /// NSID, a cookie, EDE 22, keepalive, padding, client subnet, and an unknown option.
    const OPTIONS: &[u8] =
        b"\0\x03\0\x02id\0\x0A\0\x01c\0\x0F\0\x02\0\x16\0\x0B\0\0\0\x0C\0\x01\0\0\x08\0\0\xFD\xE9\0\0";

    fn edns(options: &[u8]) -> Edns<'_> {
        Edns { udp_size: 1232, extended_rcode: 0, version: 0, dnssec_ok: false, options }
    }

    #[test]
    fn options_are_sound_if_they_fill_the_rdata() {
        let check = |options: &[u8], expected: bool| {
            assert_eq!(edns(options).is_sound(), expected, "{options:?}");
        };
        check(b"", true);
        check(OPTIONS, true);
        check(b"\0\x0A\0\0", true);
        check(b"\0\x0A\0", false);
        check(b"\0\x0A\0\x01", false);
        check(b"\0\x0A\0\x01c\0", false);
    }

    #[test]
    fn options_pass_by_their_meaning() {
        let check = |passing: OptionPassing, expected: &[u16]| {
            let record = OptRecord::new(1232, true).with_options(OPTIONS, passing);
            let mut out = Vec::new();
            record.append(&mut out);
            assert_eq!(out.len(), record.wire_len());
            let written = Edns::read(&out[1..]).expect("an OPT record");
            assert!(written.is_sound() && written.dnssec_ok);
            let codes: Vec<_> = written.iter_options().map(|(code, _)| code.0).collect();
            assert_eq!(codes, expected, "{passing:?}");
        };
        check(OptionPassing::All, &[3, 10, 15, 11, 12, 8, 65001]);
        check(OptionPassing::BeyondHop, &[3, 15, 65001]);
        check(OptionPassing::Query, &[3, 15, 65001]);
        check(OptionPassing::BeyondHopWithoutErrors, &[3, 65001]);
        check(OptionPassing::Errors, &[15]);
        check(OptionPassing::Nothing, &[]);
    }

    #[test]
    fn a_version_that_a_client_tells_does_not_pass_and_its_wish_for_one_does() {
        let check = |options: &[u8], passing: OptionPassing, expected: &[u8]| {
            let mut out = Vec::new();
            OptRecord::new(1232, false).with_options(options, passing).append(&mut out);
            assert_eq!(&out[OPT_FIXED_LEN..], expected, "{options:?} {passing:?}");
        };
        check(b"\0\x13\0\0", OptionPassing::Query, b"\0\x13\0\0");
        check(b"\0\x13\0\x01x\0\x03\0\0", OptionPassing::Query, b"\0\x03\0\0");
        let version = b"\0\x13\0\x06\x02\0\0\0\0\x07";
        check(version, OptionPassing::Query, b"");
        check(version, OptionPassing::BeyondHop, version);
    }

    #[test]
    fn errors_may_have_text() {
        let mut room = [0; MAX_ERROR];
        assert_eq!(extended_error_with_text(ExtendedError::SYNTHESIZED, "", &mut room), b"\0\x0F\0\x02\0\x1D");
        assert_eq!(extended_error_with_text(ExtendedError::OTHER, "why", &mut room), b"\0\x0F\0\x05\0\0why");
        assert_eq!(extended_error_with_text(ExtendedError::OTHER, &"x".repeat(200), &mut room), b"\0\x0F\0\x02\0\0");
    }

    #[test]
    fn an_opt_record_may_bear_several_extended_errors() {
        let check = |options: &[u8], expected: &[u16]| {
            let codes: Vec<_> = edns(options).extended_errors().map(|error| error.0).collect();
            assert_eq!(codes, expected, "{options:?}");
        };
        check(b"", &[]);
        check(b"\0\x03\0\x02id", &[]);
        check(OPTIONS, &[22]);
        check(b"\0\x0F\0\x05\0\x06why\0\x03\0\0\0\x0F\0\x02\0\x07", &[6, 7]);
        // Too short for a code.
        check(b"\0\x0F\0\x01\x06\0\x0F\0\0\0\x0F\0\x02\0\x0F", &[15]);
    }

    #[test]
    fn the_first_cookie_counts() {
        let check = |options: &[u8], expected: Result<Option<CookieOption<'_>>, MalformedCookie>| {
            assert_eq!(edns(options).cookie(), expected, "{options:?}");
        };
        let cookie = |server| CookieOption { client: *b"CLIENT01", server };
        check(b"", Ok(None));
        check(b"\0\x0B\0\0", Ok(None));
        check(OPTIONS, Err(MalformedCookie));
        check(b"\0\x0A\0\x08CLIENT01", Ok(Some(cookie(b""))));
        check(b"\0\x03\0\0\0\x0A\0\x10CLIENT01SERVER01", Ok(Some(cookie(b"SERVER01"))));
        check(b"\0\x0A\0\x08CLIENT01\0\x0A\0\x01x", Ok(Some(cookie(b""))));
        check(b"\0\x0A\0\0\0\x0A\0\x08CLIENT01", Err(MalformedCookie));
    }

    #[test]
    fn the_cookie_of_the_hop_stands_before_what_passes() {
        let cookie = Cookie { client: *b"CLIENT01", server: *b"SERVER01SERVER02", state: CookieState::Missing };
        for (passing, expected) in
            [(OptionPassing::BeyondHop, &[10, 3, 15, 65001][..]), (OptionPassing::Nothing, &[10])]
        {
            let record = OptRecord::new(1232, true).with_options(OPTIONS, passing).with_cookie(Some(&cookie));
            let mut out = Vec::new();
            record.append(&mut out);
            assert_eq!(out.len(), record.wire_len());
            let written = Edns::read(&out[1..]).expect("an OPT record");
            let codes: Vec<_> = written.iter_options().map(|(code, _)| code.0).collect();
            assert_eq!((codes.as_slice(), written.is_sound()), (expected, true));
            let expected = CookieOption { client: cookie.client, server: &cookie.server };
            assert_eq!(written.cookie(), Ok(Some(expected)));
        }
    }

    #[test]
    fn records_are_written_octet_by_octet() {
        let option = extended_error_option(ExtendedError::SYNTHESIZED);
        let mut out = Vec::new();
        OptRecord::new(1232, true)
            .with_rcode(Rcode::BADVERS)
            .with_options(&option, OptionPassing::All)
            .append(&mut out);
        assert_eq!(out, b"\0\0\x29\x04\xD0\x01\0\x80\0\0\x06\0\x0F\0\x02\0\x1D");
    }
}
