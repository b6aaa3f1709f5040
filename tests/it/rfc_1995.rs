//! RFC 1995: IXFR, out and in.

use dns::{Header, Rcode, RecordType};
use proptest::prelude::*;
use zone::Record;
use zone::transfer::{
    Difference, Journal, MESSAGE_LIMIT, Records, Serial, TransferError, TransferKind, TransferOffer, TransferProgress,
    TransferReader, TransferResult, differences, read_transfer_query, whole, write_datagram, write_transfer_query,
};

use crate::support::transfers::{ID, query, response, version, zone};

/// Reads messages as an IXFR from this version.
fn read(from: u32, messages: &[Vec<u8>]) -> Result<TransferProgress, TransferError> {
    let mut reader = TransferReader::new(zone(), ID, TransferKind::Ixfr { from: Serial(from) }, None, usize::MAX);
    let mut progress = TransferProgress::More;
    for message in messages {
        progress = reader.take(message, 0)?;
    }
    Ok(progress)
}

/// The steps between versions 1, 2, 3 ... of these hosts, and the last version.
fn history(hosts: &[Vec<u8>]) -> (Records, Vec<Difference>, Records) {
    let versions: Vec<_> = (1..).zip(hosts).map(|(serial, hosts)| version(serial, hosts.iter().copied())).collect();
    let step = |pair: &[Records]| Difference::between(pair[0].iter(), pair[1].iter()).unwrap();
    let steps = versions.windows(2).map(step).collect();
    (versions[0].clone(), steps, versions[versions.len() - 1].clone())
}

/// The records in an order of their own.
fn sorted(records: &Records) -> Vec<(Vec<u8>, u16, Vec<u8>)> {
    let parts = |record: Record<'_>| (record.owner.to_vec(), record.rtype.0, record.rdata.to_vec());
    let mut all: Vec<_> = records.iter().map(parts).collect();
    all.sort();
    all
}

#[test]
fn section_2_the_same_or_a_newer_version_gets_the_soa() {
    let (_, steps, _) = history(&[vec![1], vec![2]]);
    let mut journal = Journal::new(10, usize::MAX);
    steps.into_iter().for_each(|step| journal.push(step));
    let check = |from: u32, expected: TransferOffer<'_>| {
        let asked = TransferKind::Ixfr { from: Serial(from) };
        assert_eq!(TransferOffer::choose(asked, &journal, Serial(2), usize::MAX), expected, "{from}");
    };
    let step = journal.since(Serial(1)).unwrap().next().unwrap();
    check(2, TransferOffer::UpToDate);
    check(3, TransferOffer::UpToDate);
    check(1, TransferOffer::Steps(vec![step]));
    // Not known any more: the whole zone.
    check(0, TransferOffer::Whole);
    assert_eq!(TransferOffer::choose(TransferKind::Axfr, &journal, Serial(2), usize::MAX), TransferOffer::Whole);
    // Section 5: longer than the zone, or not up to the present version.
    let asked = TransferKind::Ixfr { from: Serial(1) };
    assert_eq!(TransferOffer::choose(asked, &journal, Serial(2), 10), TransferOffer::Whole);
    assert_eq!(TransferOffer::choose(asked, &journal, Serial(3), usize::MAX), TransferOffer::Whole);
}

#[test]
fn section_2_a_response_that_does_not_fit_is_the_soa() {
    let octets = query(RecordType::IXFR);
    let message = dns::Message::read(&octets).unwrap();
    let (_, steps, new) = history(&[vec![], (0..100).collect()]);
    let soa = new.first().unwrap();
    let mut out = Vec::new();
    for (limit, count) in [(512, 1), (8_192, 104)] {
        let records = differences(soa, &steps);
        write_datagram(message.header, &message.question.unwrap(), b"", soa, records, limit, &mut out);
        assert!(out.len() <= limit);
        assert_eq!(Header::read(&out).unwrap().ancount(), count);
        // The SOA alone announces more, which comes by TCP.
        let steps = TransferProgress::Done(TransferResult::Steps(steps.clone()));
        assert_eq!(read(1, &[out.clone()]), Ok(if count == 1 { TransferProgress::More } else { steps }));
    }
    assert!(read(2, &[out.clone()]).is_err(), "steps from a version that we do not have");
}

#[test]
fn section_3_the_query_has_our_soa() {
    let records = version(7, []);
    let mut out = Vec::new();
    assert_eq!(write_transfer_query(ID, &zone(), records.first(), &mut out), TransferKind::Ixfr { from: Serial(7) });
    let read = read_transfer_query(&out).unwrap();
    assert_eq!((read.asked, read.header.id()), (TransferKind::Ixfr { from: Serial(7) }, ID));
    assert_eq!(write_transfer_query(ID, &zone(), None, &mut out), TransferKind::Axfr);
    assert_eq!(read_transfer_query(&out).unwrap().asked, TransferKind::Axfr);
    // Without an SOA, and of another type.
    assert_eq!(read_transfer_query(&query(RecordType::IXFR)).unwrap_err(), Rcode::FORMERR);
    assert_eq!(read_transfer_query(&query(RecordType::A)).unwrap_err(), Rcode::FORMERR);
    assert_eq!(read_transfer_query(b"").unwrap_err(), Rcode::FORMERR);
}

#[test]
fn section_4_all_three_forms_are_understood() {
    let (old, steps, new) = history(&[vec![1, 2], vec![2, 3], vec![3, 4]]);
    let soa = new.first().unwrap();
    let check = |messages: Vec<Vec<u8>>, expected: TransferResult| {
        assert_eq!(read(1, &messages), Ok(TransferProgress::Done(expected)));
    };
    let ixfr = |records: &mut dyn Iterator<Item = Record<'_>>| -> Vec<Vec<u8>> {
        response(RecordType::IXFR, records.collect::<Records>().iter(), MESSAGE_LIMIT)
    };
    check(ixfr(&mut differences(soa, &steps)), TransferResult::Steps(steps.clone()));
    let condensed = Difference::condensed(&steps).unwrap();
    check(ixfr(&mut differences(soa, [&condensed])), TransferResult::Steps(vec![condensed.clone()]));
    check(ixfr(&mut whole(soa, new.iter())), TransferResult::Whole(new.clone()));
    check(ixfr(&mut old.iter().take(1)), TransferResult::UpToDate);
    // By TCP a newer SOA alone is the start of more.
    assert_eq!(read(1, &ixfr(&mut new.iter().take(1))), Ok(TransferProgress::More));
}

#[test]
fn section_4_steps_are_in_a_row() {
    let (_, steps, new) = history(&[vec![1], vec![2], vec![3], vec![4]]);
    let soa = new.first().unwrap();
    let ixfr =
        |steps: &[&Difference]| response(RecordType::IXFR, differences(soa, steps.iter().copied()), MESSAGE_LIMIT);
    assert!(matches!(read(1, &ixfr(&[&steps[0], &steps[1], &steps[2]])), Ok(TransferProgress::Done(_))));
    assert_eq!(read(1, &ixfr(&[&steps[0], &steps[2]])), Err(TransferError::OutOfOrder));
    assert_eq!(read(1, &ixfr(&[&steps[1], &steps[2]])), Err(TransferError::OutOfOrder));
    assert_eq!(read(1, &ixfr(&[&steps[0], &steps[1]])), Err(TransferError::OutOfOrder));
}

proptest! {
    #[test]
    fn what_is_sent_and_applied_is_the_new_version(
        hosts in prop::collection::vec(prop::collection::btree_set(0..20_u8, 0..15), 2..6),
        limit in 80..2_000_usize,
    ) {
        let hosts: Vec<Vec<u8>> = hosts.into_iter().map(|hosts| hosts.into_iter().collect()).collect();
        let (old, steps, new) = history(&hosts);
        let messages = response(RecordType::IXFR, differences(new.first().unwrap(), &steps), limit);
        for cut in 0..messages.len() {
            prop_assert_eq!(read(1, &messages[..cut]), Ok(TransferProgress::More));
        }
        let Ok(TransferProgress::Done(TransferResult::Steps(received))) = read(1, &messages) else { panic!("no steps") };
        let applied = Difference::condensed(&received).unwrap().apply(old.iter()).unwrap();
        prop_assert_eq!(sorted(&applied), sorted(&new));
    }

    #[test]
    fn no_octets_do_harm(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), junk in prop::collection::vec(any::<u8>(), 0..100)) {
        let (old, steps, new) = history(&[vec![1, 2, 3], vec![2, 5], vec![1]]);
        let [mut message] = <[_; 1]>::try_from(response(RecordType::IXFR, differences(new.first().unwrap(), &steps), MESSAGE_LIMIT)).unwrap();
        for (at, octet) in flips {
            let at = at.index(message.len());
            message[at] = octet;
        }
        if let Ok(TransferProgress::Done(TransferResult::Steps(steps))) = read(1, &[message]) {
            let _ = Difference::condensed(&steps).map(|step| step.apply(old.iter()));
        }
        let _ = read_transfer_query(&junk);
        let _ = read(1, &[junk]);
    }
}
