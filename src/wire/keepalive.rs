//! The edns-tcp-keepalive option between hedgerow and a backend: the idle timeout of a stream (RFC 7828).

use std::time::Duration;

use super::codes::OptionCode;
use super::edns::{OPT_FIXED_LEN, Options};
use super::header::Header;
use super::question::Question;
use super::reply::read_reply;

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
    let [c0, c1] = OptionCode::TCP_KEEPALIVE.0.to_be_bytes();
    let option = [c0, c1, 0, 0];
    let Some(padding) = padding else {
        query.extend_from_slice(&option);
        let length = query.len() - options_at;
        return set_length(query, options_at, length);
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

fn set_length(query: &mut [u8], at: usize, length: usize) {
    if let Some(octets) = query.get_mut(at - 2..at) {
        octets.copy_from_slice(&(length as u16).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Name, OptRecord, QUERY_BLOCK, RecordType, pad_query, read_query, write_recursive_query};
    use super::*;

    fn query(name: &str, opt: Option<&OptRecord<'_>>) -> Vec<u8> {
        let mut query = Vec::new();
        write_recursive_query(7, &Name::parse(name).unwrap(), RecordType::A, opt, &mut query);
        query
    }

    fn options(query: &[u8]) -> Vec<(OptionCode, usize)> {
        let edns = read_query(query).unwrap().edns.unwrap();
        edns.iter_options().map(|(code, data)| (code, data.len())).collect()
    }

    #[test]
    fn query_with_opt_asks_and_padding_makes_room_for_that() {
        let opt = OptRecord::new(1400, true);
        let mut asking = query("www.example", Some(&opt));
        ask_keepalive(&mut asking);
        assert_eq!(options(&asking), [(OptionCode::TCP_KEEPALIVE, 0)]);
        let mut too_full = 0;
        for length in 1..=63 {
            let name = format!("{}.example", "a".repeat(length));
            let mut padded = query(&name, Some(&opt));
            let opt_at = padded.len() - OPT_FIXED_LEN;
            pad_query(&mut padded, opt_at, QUERY_BLOCK);
            let before = options(&padded)[0].1;
            ask_keepalive(&mut padded);
            assert_eq!(padded.len() % QUERY_BLOCK, 0);
            if before < 4 {
                too_full += 1;
                assert_eq!(options(&padded), [(OptionCode::PADDING, before)]);
            } else {
                assert_eq!(options(&padded), [(OptionCode::TCP_KEEPALIVE, 0), (OptionCode::PADDING, before - 4)]);
            }
        }
        assert!(too_full <= 4);
    }

    #[test]
    fn query_without_opt_stays_as_it_is() {
        let mut plain = query("www.example", None);
        ask_keepalive(&mut plain);
        assert_eq!(plain, query("www.example", None));
    }

    #[test]
    fn keepalive_is_told_in_tenths_of_a_second() {
        let reply = |options: &[u8]| {
            let mut reply = query("www.example", Some(&OptRecord::new(1400, false)));
            reply[2] |= 0x80;
            let length = reply.len();
            reply[length - 2..].copy_from_slice(&(options.len() as u16).to_be_bytes());
            reply.extend_from_slice(options);
            reply
        };
        assert_eq!(stated_keepalive(&reply(&[0, 11, 0, 2, 0, 15])), Some(Duration::from_millis(1_500)));
        assert_eq!(stated_keepalive(&reply(&[0, 11, 0, 2, 0, 0])), Some(Duration::ZERO));
        for other in [[].as_slice(), &[0, 11, 0, 0], &[0, 11, 0, 1, 9], &[0, 12, 0, 2, 0, 15]] {
            assert_eq!(stated_keepalive(&reply(other)), None);
        }
    }
}
