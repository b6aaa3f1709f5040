//! Tests of padded queries.

use hickory_proto::op::Message;
use proptest::prelude::*;

use super::super::cookie::CookiePair;
use super::super::header::HEADER_LEN;
use super::super::query::{add_cookie, read_query, write_query};
use super::super::sample::{QUESTION, plain, with_edns};
use super::super::zone_serial::ask_zone_version;
use super::*;

/// Returns a query to a backend, and the offset of its OPT record.
fn written(query: &[u8]) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let opt_at = write_query(&read_query(query).expect("a query"), 1232, &mut out);
    (out, opt_at)
}

/// Parses a query with hickory. Returns the codes of its options, and the bytes of padding, which are all
/// 0.
fn options(query: &[u8]) -> (Vec<u16>, usize) {
    let message = Message::from_vec(query).expect("a sound message");
    assert_eq!(message.queries.len(), 1);
    let edns = message.edns.expect("an OPT record");
    let options = edns.options().as_ref().iter();
    let options = options.map(|(code, option)| {
        let data = Vec::try_from(option).expect("an option that was read");
        (u16::from(*code), data)
    });
    let options: Vec<_> = options.collect();
    let padding = options.iter().find(|(code, _)| *code == OptionCode::PADDING.0).map_or(0, |(_, data)| {
        assert!(data.iter().all(|octet| *octet == 0));
        data.len()
    });
    (options.into_iter().map(|(code, _)| code).collect(), padding)
}

#[test]
fn a_query_with_opt_is_padded_and_keeps_its_options() {
    let (mut query, opt_at) = written(&with_edns());
    add_cookie(&mut query, opt_at, &CookiePair::new([7; 8]), 1232);
    ask_zone_version(&mut query, opt_at, 1232);
    let before = options(&query).0;
    pad_query(&mut query, opt_at, QUERY_BLOCK);
    let (after, padding) = options(&query);
    assert_eq!((query.len(), &after[..before.len()], after.last()), (128, &before[..], Some(&12)));
    assert!(padding > 0);
}

#[test]
fn a_query_without_opt_gets_one_where_it_is_to_have_one() {
    let (mut query, opt_at) = written(&plain());
    let bare = query.clone();
    pad_query(&mut query, opt_at, QUERY_BLOCK);
    assert_eq!(query, bare, "without an OPT record there is no room for padding");
    add_opt(&mut query, opt_at, 1232);
    let with_opt = query.clone();
    add_opt(&mut query, opt_at, 1232);
    assert_eq!((&query, query.len()), (&with_opt, bare.len() + OPT_FIXED_LEN), "one is enough");
    assert_eq!(options(&query), (vec![], 0));
    pad_query(&mut query, opt_at, QUERY_BLOCK);
    let padding = 128 - HEADER_LEN - QUESTION.len() - OPT_FIXED_LEN - 4;
    assert_eq!((query.len(), options(&query)), (128, (vec![12], padding)));
}

proptest! {
    #[test]
    fn every_query_is_padded_to_a_whole_number_of_blocks(
        labels in prop::collection::vec(1_usize..=63, 0..4),
        option in prop::collection::vec(any::<u8>(), 0..200),
        block in 1_usize..600,
    ) {
        let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            query.push(label as u8);
            query.extend(vec![b'x'; label]);
        }
        query.extend([0, 0, 1, 0, 1]);
        let opt_at = query.len();
        add_opt(&mut query, opt_at, 1232);
        let [l0, l1] = (option.len() as u16).to_be_bytes();
        query.extend([0xFD, 0xE9, l0, l1]);
        query.extend(&option);
        let unpadded = query.len();
        pad_query(&mut query, opt_at, block);
        prop_assert_eq!(query.len() % block, 0);
        // The least padding: less than one block plus option and header.
        prop_assert!(query.len() >= unpadded + 4 && query.len() < unpadded + 4 + block);
        prop_assert_eq!(options(&query), (vec![0xFDE9, 12], query.len() - unpadded - 4));
    }
}
