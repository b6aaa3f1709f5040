//! EDNS options by which a client makes requests for one hop: padding (RFC 7830, RFC 8467), the idle timeout
//! of its connection (RFC 7828), and the version of the zone (RFC 9660).
//!
//! Responses are written without them on every transport. A connection adds the requested options last
//! ([`append_hop_options`]).

use std::time::Duration;

use super::codes::OptionCode;
use super::edns::{Edns, OPT_FIXED_LEN, OptRecord, Options, append_option, empty_option, set_length, set_rest_length};
use super::header::Header;
use super::question::Question;
use super::relay::MAX_MESSAGE;
use super::reply::read_reply;

/// The requests made by the options of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks(u8);

impl Asks {
    /// Reads the requests of an OPT record.
    pub fn of(edns: &Edns<'_>) -> Self {
        if edns.options.is_empty() { Self::default() } else { Self::of_options(edns) }
    }

    #[inline(never)]
    fn of_options(edns: &Edns<'_>) -> Self {
        let bit = |(code, data): (OptionCode, &[u8])| match code {
            // RFC 9660 section 3.1.
            OptionCode::ZONEVERSION if data.is_empty() => VERSION,
            OptionCode::PADDING => PADDING,
            OptionCode::TCP_KEEPALIVE => KEEPALIVE,
            _ => 0,
        };
        Self(edns.iter_options().fold(0, |bits, option| bits | bit(option)))
    }

    /// Returns true if the client asks for the version of the zone (RFC 9660).
    pub(crate) fn version(self) -> bool {
        self.0 & VERSION != 0
    }

    /// Returns true if the response may be padded, because the query was padded (RFC 7830 section 4).
    pub fn padding(self) -> bool {
        self.0 & PADDING != 0
    }

    /// Returns true if the client asks for the idle timeout of the connection (RFC 7828).
    pub fn keepalive(self) -> bool {
        self.0 & KEEPALIVE != 0
    }
}

/// Adds options to the OPT record of a response on a connection: the idle timeout, and padding to a multiple
/// of `block` bytes. A response that is signed or does not end with an OPT record of hedgerow stays
/// unchanged.
pub fn append_hop_options(response: &mut Vec<u8>, keepalive: Option<Duration>, block: Option<usize>) {
    let Some(opt) = read_reply(response).ok().and_then(|reply| reply.opt().map(|opt| opt.start..opt.end)) else {
        return;
    };
    if opt.end != response.len() {
        return;
    }
    if let Some(idle) = keepalive
        && response.len() + KEEPALIVE_LEN <= MAX_MESSAGE
    {
        // RFC 7828 section 3.1: the unit is 100 milliseconds.
        let units = u16::try_from(idle.as_millis() / 100).unwrap_or(u16::MAX);
        append_option(OptionCode::TCP_KEEPALIVE, &units.to_be_bytes(), response);
    }
    if let Some(block) = block
        && response.len() + OPTION_LEN <= MAX_MESSAGE
    {
        // RFC 8467 section 4.1: the smallest multiple that has room, if a message may be so long.
        let padded = (response.len() + OPTION_LEN).next_multiple_of(block.max(1)).min(MAX_MESSAGE);
        let data = response.len() + OPTION_LEN;
        response.extend_from_slice(&empty_option(OptionCode::PADDING));
        set_length(response, data, padded - data);
        response.resize(padded, 0);
    }
    let end = opt.start + OPT_FIXED_LEN;
    set_rest_length(response, end);
}

/// Adds the keepalive option to a query to a backend, if an OPT record follows the question. Padding shrinks
/// so that the length stays the same. A query with too little padding stays unchanged.
pub fn ask_keepalive(query: &mut Vec<u8>) {
    let Some(opt_at) = Question::read(query).map(|question| question.end()) else { return };
    let options_at = opt_at + OPT_FIXED_LEN;
    let has_opt = Header::read(query).is_some_and(|header| header.arcount() > 0);
    let Some(options) = query.get(options_at..).filter(|_| has_opt) else { return };
    // `pad_query` is the last step of writing a query, so padding is the last option.
    let padding = Options::of(options).last().filter(|(code, _)| *code == OptionCode::PADDING);
    let padding = padding.map(|(_, data)| data.len());
    // RFC 7828 section 3.2.1: a client leaves the timeout out.
    let option = empty_option(OptionCode::TCP_KEEPALIVE);
    let Some(padding) = padding else {
        query.extend_from_slice(&option);
        return set_rest_length(query, options_at);
    };
    let Some(left) = padding.checked_sub(option.len()) else { return };
    let padding_at = query.len() - padding - option.len();
    query.truncate(query.len() - option.len());
    query.splice(padding_at..padding_at, option);
    set_length(query, padding_at + 2 * option.len(), left);
}

/// Returns the idle timeout of the connection, if this reply states it (RFC 7828 section 3.1).
pub fn stated_keepalive(reply: &[u8]) -> Option<Duration> {
    let mut options = read_reply(reply).ok()?.edns()?.iter_options();
    let (_, data) = options.find(|(code, _)| *code == OptionCode::TCP_KEEPALIVE)?;
    let &[high, low] = data else { return None };
    Some(Duration::from_millis(100) * u32::from(u16::from_be_bytes([high, low])))
}

/// Adds an OPT record to a query to a backend that has none, that is, if `opt_at` is the end of the query.
pub fn add_opt(query: &mut Vec<u8>, opt_at: usize, own_udp_size: u16) {
    if opt_at < query.len() {
        return;
    }
    OptRecord::new(own_udp_size, false).append(query);
    // RFC 1035 section 4.1.1: ARCOUNT. No record of the client is forwarded.
    if let Some(arcount) = query.get_mut(10..12) {
        arcount.copy_from_slice(&[0, 1]);
    }
}

/// Pads a query to a multiple of `block` bytes. Its last record is the OPT at `opt_at`; if `opt_at` is the
/// end, there is none and the query stays unchanged. Call it last: later additions are not counted.
pub fn pad_query(query: &mut Vec<u8>, opt_at: usize, block: usize) {
    let options = opt_at + OPT_FIXED_LEN;
    if query.len() < options {
        return;
    }
    let unpadded = query.len() + OPTION_LEN;
    let padding = unpadded.next_multiple_of(block) - unpadded;
    query.extend_from_slice(&empty_option(OptionCode::PADDING));
    set_length(query, unpadded, padding);
    // RFC 7830 section 3: zeros, because other bytes gain nothing.
    query.resize(unpadded + padding, 0);
    set_rest_length(query, options);
}

/// The length of padded queries is a multiple of this (RFC 8467 section 4.1).
pub const QUERY_BLOCK: usize = 128;

/// The length of an encrypted response with padding is a multiple of this (RFC 8467 section 4.1).
pub const RESPONSE_BLOCK: usize = 468;

const OPTION_LEN: usize = 4;

const KEEPALIVE_LEN: usize = OPTION_LEN + 2;

const VERSION: u8 = 1;
const PADDING: u8 = 2;
const KEEPALIVE: u8 = 4;

#[cfg(test)]
#[path = "tests/keepalive.rs"]
mod keepalive_tests;
#[cfg(test)]
#[path = "tests/padding.rs"]
mod padding_tests;
#[cfg(test)]
mod tests {
    use super::super::sample::{QUESTION, message};
    use super::*;

    fn opt(options: &[u8]) -> Vec<u8> {
        [&[0, 0, 41, 4, 0xD0, 0, 0, 0, 0, 0, options.len() as u8], options].concat()
    }

    #[test]
    fn what_is_asked_is_told_apart() {
        for (options, version, padding, keepalive) in [
            (&b""[..], false, false, false),
            (b"\0\x13\0\0", true, false, false),
            (b"\0\x13\0\x01a", false, false, false),
            (b"\0\x0C\0\0", false, true, false),
            // RFC 7830 section 3: padding of any value.
            (b"\0\x0C\0\x02\xFFx", false, true, false),
            (b"\0\x0C\0\x02\0\0\0\x0B\0\0", false, true, true),
            (b"\0\x0A\0\x08CLIENT01", false, false, false),
        ] {
            let edns = Edns { udp_size: 1232, extended_rcode: 0, version: 0, dnssec_ok: false, options };
            let asks = Asks::of(&edns);
            assert_eq!(
                (asks.version(), asks.padding(), asks.keepalive()),
                (version, padding, keepalive),
                "{options:?}"
            );
        }
    }

    #[test]
    fn responses_are_padded_to_whole_blocks() {
        let base = message(0x8180, [1, 0, 0, 1], &[QUESTION, &opt(b"\0\x0F\0\x02\0\x16")]);
        for (keepalive, block, length) in [
            (None, None, base.len()),
            (Some(10), None, base.len() + 6),
            (None, Some(468), 468),
            (Some(10), Some(468), 468),
            // No byte is left for zeros, and none is needed.
            (None, Some(base.len() + 4), base.len() + 4),
            (None, Some(base.len() + 3), 2 * (base.len() + 3)),
        ] {
            let mut response = base.clone();
            append_hop_options(&mut response, keepalive.map(Duration::from_secs), block);
            assert_eq!(response.len(), length);
            let reply = read_reply(&response).expect("sound");
            let edns = reply.edns().expect("an OPT record");
            assert!(
                edns.is_sound()
                    && edns.iter_options().next().is_some_and(|(code, _)| code == OptionCode::EXTENDED_ERROR)
            );
            let reported =
                edns.iter_options().find(|(code, _)| *code == OptionCode::TCP_KEEPALIVE).map(|(_, data)| data);
            assert_eq!(reported, keepalive.map(|_| &[0, 100][..]));
        }
    }

    #[test]
    fn what_is_not_ours_or_too_long_stays_as_it_is() {
        let tsig = b"\x01k\0\0\xFA\0\xFF\0\0\0\0\0\0";
        let long = vec![0; MAX_MESSAGE - QUESTION.len() - 12 - 11 - 11 - 2];
        let record = [&b"\0\0\x10\0\x01\0\0\0\0"[..], &(long.len() as u16).to_be_bytes(), &long].concat();
        for (response, is_same) in [
            (message(0x8180, [1, 0, 0, 0], &[QUESTION]), true),
            (message(0x8180, [1, 0, 0, 2], &[QUESTION, &opt(b""), tsig]), true),
            (message(0x8180, [1, 1, 0, 1], &[QUESTION, &record, &opt(b"")]), true),
            (b"short".to_vec(), true),
            (message(0x8180, [1, 0, 0, 1], &[QUESTION, &opt(b"")]), false),
        ] {
            let mut other = response.clone();
            append_hop_options(&mut other, Some(Duration::from_secs(1)), Some(RESPONSE_BLOCK));
            assert_eq!(response == other, is_same, "{} octets", response.len());
        }
    }
}
