//! Tests of the option for the idle timeout.

use super::super::{Name, OptRecord, QUERY_BLOCK, RecordType, pad_query, read_query, write_recursive_query};
use super::*;

fn query(name: &str, opt: Option<&OptRecord<'_>>) -> Vec<u8> {
    let mut query = Vec::new();
    write_recursive_query(7, &Name::parse(name).expect("a name"), RecordType::A, opt, &mut query);
    query
}

fn options(query: &[u8]) -> Vec<(OptionCode, usize)> {
    let edns = read_query(query).expect("a query").edns.expect("an OPT record");
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
fn keepalive_is_in_tenths_of_a_second() {
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
