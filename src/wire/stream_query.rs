//! What a query to a backend has besides when it goes by stream: padding (RFC 7830, 8467), and the question how long the connection is kept
//! (RFC 7828). And what the reply says to that.

use std::time::Duration;

use super::codes::OptionCode;
use super::edns::{OPT_FIXED_LEN, OptRecord};
use super::header::Header;
use super::question::Question;
use super::reply::read_reply;

/// What a query by stream is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamForm {
    /// An OPT record in any case.
    pub needs_opt: bool,
    /// A length that is a multiple of so many octets, where it has an OPT record.
    pub block: Option<usize>,
    /// The question how long the connection is kept, where it has an OPT record.
    pub asks_keepalive: bool,
}

/// Adds to a query that goes to a backend by stream what it is to have. Its OPT record, if it has one, follows the question.
pub fn extend_stream_query(query: &mut Vec<u8>, form: StreamForm) {
    let StreamForm { needs_opt, block, asks_keepalive } = form;
    let Some(opt_at) = Question::read(query).map(|question| question.end()) else { return };
    let has_opt = Header::read(query).is_some_and(|header| header.arcount() > 0);
    if !has_opt && needs_opt {
        OptRecord::new(UDP_SIZE, false).append(query);
        // RFC 1035 section 4.1.1: ARCOUNT. Of what the client has sent, no record goes along.
        if let Some(arcount) = query.get_mut(10..12) {
            arcount.copy_from_slice(&[0, 1]);
        }
    }
    let options = opt_at + OPT_FIXED_LEN;
    if query.len() < options {
        return;
    }
    if asks_keepalive {
        // RFC 7828 section 3.2.1: a client leaves the timeout out.
        append_option(query, OptionCode::TCP_KEEPALIVE, 0);
    }
    if let Some(block) = block {
        let bare = query.len() + OPTION_PREFIX;
        append_option(query, OptionCode::PADDING, bare.next_multiple_of(block.max(1)) - bare);
    }
    let length = (query.len() - options) as u16;
    if let Some(rdlength) = query.get_mut(options - 2..options) {
        rdlength.copy_from_slice(&length.to_be_bytes());
    }
}

/// How long the connection is kept on which this reply has come, if it says so (RFC 7828 section 3.1).
pub fn told_keepalive(reply: &[u8]) -> Option<Duration> {
    let (_, data) =
        read_reply(reply).ok()?.edns()?.iter_options().find(|(code, _)| *code == OptionCode::TCP_KEEPALIVE)?;
    let units = u16::from_be_bytes(*data.as_array()?);
    Some(Duration::from_millis(100) * u32::from(units))
}

/// An option of so many octets that are 0.
fn append_option(query: &mut Vec<u8>, code: OptionCode, length: usize) {
    query.extend_from_slice(&code.0.to_be_bytes());
    query.extend_from_slice(&(length as u16).to_be_bytes());
    query.resize(query.len() + length, 0);
}

/// Octets of an option before its data.
const OPTION_PREFIX: usize = 4;

/// What an OPT record says of datagrams, where none come.
const UDP_SIZE: u16 = 1232;

#[cfg(test)]
mod tests {
    use super::super::{Name, RecordType, read_query, write_plain_query, write_recursive_query};
    use super::*;

    const BY_TCP: StreamForm = StreamForm { needs_opt: false, block: None, asks_keepalive: true };

    fn query(opt: Option<&OptRecord<'_>>) -> Vec<u8> {
        let mut query = Vec::new();
        write_recursive_query(7, &Name::parse("www.example").unwrap(), RecordType::A, opt, &mut query);
        query
    }

    #[test]
    fn padded_query_has_whole_blocks_whatever_it_had() {
        let opt = OptRecord::new(1400, true);
        for opt in [None, Some(&opt)] {
            for asks_keepalive in [false, true] {
                let mut padded = query(opt);
                extend_stream_query(&mut padded, StreamForm { needs_opt: true, block: Some(128), asks_keepalive });
                assert_eq!(padded.len(), 128);
                let edns = read_query(&padded).unwrap().edns.unwrap();
                assert_eq!((edns.udp_size, edns.dnssec_ok), if opt.is_some() { (1400, true) } else { (1232, false) });
                let codes: Vec<_> = edns.iter_options().map(|(code, _)| code).collect();
                let expected = [OptionCode::TCP_KEEPALIVE, OptionCode::PADDING];
                assert_eq!(codes, expected[usize::from(!asks_keepalive)..]);
            }
        }
    }

    #[test]
    fn every_length_becomes_a_multiple() {
        for labels in 1..=25 {
            let name = Name::parse(&"abcdefg.".repeat(labels)).unwrap();
            let mut padded = Vec::new();
            write_plain_query(0, &name, RecordType::A, &mut padded);
            extend_stream_query(&mut padded, StreamForm { needs_opt: true, block: Some(128), asks_keepalive: false });
            assert_eq!(padded.len() % 128, 0);
            assert!(read_query(&padded).is_ok());
        }
    }

    #[test]
    fn query_without_opt_gets_none_by_tcp() {
        let mut plain = query(None);
        extend_stream_query(&mut plain, BY_TCP);
        assert_eq!(plain, query(None));
        let opt = OptRecord::new(1400, true);
        let mut asking = query(Some(&opt));
        extend_stream_query(&mut asking, BY_TCP);
        let edns = read_query(&asking).unwrap().edns.unwrap();
        assert_eq!(edns.iter_options().collect::<Vec<_>>(), [(OptionCode::TCP_KEEPALIVE, [].as_slice())]);
    }

    #[test]
    fn keepalive_is_told_in_tenths_of_a_second() {
        let reply = |options: &[u8]| {
            let mut reply = query(Some(&OptRecord::new(1400, false)));
            reply[2] |= 0x80;
            let length = reply.len();
            reply[length - 2..].copy_from_slice(&(options.len() as u16).to_be_bytes());
            reply.extend_from_slice(options);
            reply
        };
        assert_eq!(told_keepalive(&reply(&[0, 11, 0, 2, 0, 15])), Some(Duration::from_millis(1_500)));
        assert_eq!(told_keepalive(&reply(&[0, 11, 0, 2, 0, 0])), Some(Duration::ZERO));
        for other in [[].as_slice(), &[0, 11, 0, 0], &[0, 11, 0, 1, 9], &[0, 12, 0, 2, 0, 15]] {
            assert_eq!(told_keepalive(&reply(other)), None);
        }
    }
}
