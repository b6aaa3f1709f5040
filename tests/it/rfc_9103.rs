//! RFC 9103: zone transfers by TLS, and what it changes for those by TCP.

use dns::RecordType;
use testkit::*;
use zone::transfer::{
    TransferError, TransferKind, TransferProgress, TransferReader, TransferResult, whole, write_transfer_query,
};

use crate::support::transfers::{ID, response, version, with_header, zone};

/// The first version of a zone with these records besides.
fn text(records: &str) -> String {
    format!("@ 300 SOA ns.elsewhere. h 1 3600 3600 86400 60\n@ NS ns.elsewhere.\nwww A 192.0.2.1\n{records}")
}

/// A primary of `a.example` and `b.example`, both with these records besides.
fn primary(keys: &str, records: &str) -> Server {
    let zone = |name: &str| format!("{{ file = 'z.zone', origin = '{name}', transfer_to = ['127.0.0.1'] }}");
    let zones = [zone("a.example"), zone("b.example")].join(", ");
    let config = format!("workers = 1\n{keys}[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{zones}]\n");
    Server::start_with_files(&config, &[("z.zone", &text(records))])
}

#[test]
fn section_7_9_1_messages_with_an_opt_record_alone_are_skipped() {
    let records = version(1, 0..100);
    let messages = response(RecordType::AXFR, whole(records.first().unwrap(), records.iter()), 500);
    assert!(messages.len() > 3);
    // A header, the padding of 100 octets, and no question.
    let padding = [&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 104, 0, 12, 0, 100][..], &[0; 100]].concat();
    let empty = with_header(messages[1][..12].to_vec(), |header| header.with_counts([0, 0, 0, 1]));
    let empty = [empty, padding].concat();
    let read = |empties: usize, limit: usize| {
        let mut reader = TransferReader::new(zone(), ID, TransferKind::Axfr, None, limit);
        let mut progress = TransferProgress::More;
        for message in &messages {
            progress = reader.take(message, 0)?;
            if progress == TransferProgress::More {
                for _ in 0..empties {
                    assert_eq!(reader.take(&empty, 0)?, TransferProgress::More);
                }
            }
        }
        Ok(progress)
    };
    let done = Ok(TransferProgress::Done(TransferResult::Whole(records.clone())));
    assert_eq!(read(0, 10_000), done);
    assert_eq!(read(3, 1_000_000), done);
    // They cannot come forever.
    assert_eq!(read(1_000, 10_000), Err(TransferError::TooLarge));
}

#[test]
fn section_6_3_4_each_message_has_an_opt_record_if_the_query_has() {
    let hosts: String = (0..10_000).map(|host| format!("h{host} A 192.0.2.1\n")).collect();
    let server = primary("", &hosts);
    for (asked, has_opt) in [(query("a.example", AXFR), false), (query("a.example", AXFR).edns(1232), true)] {
        let mut client = TcpClient::of(server.listener("ts"));
        client.send(std::slice::from_ref(&asked));
        let (mut messages, mut ends) = (0, 0);
        while ends < 2 {
            let response = client.receive();
            assert_eq!(response.has_opt(), has_opt);
            messages += 1;
            ends += response.message().answers.iter().filter(|record| u16::from(record.record_type()) == SOA).count();
        }
        assert!(messages > 1);
    }
    // An IXFR of the present version by UDP.
    let mut ixfr = Vec::new();
    let zone = crate::support::zones::zone("a.example. 300 SOA a. b. 1 2 3 4 5\na.example. NS a.\n");
    write_transfer_query(7, zone.apex(), zone.soa(), &mut ixfr);
    ixfr[11] = 1;
    ixfr.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let client = Client::of(server.listener("ts"));
    client.send_bytes(&ixfr);
    let response = client.receive();
    assert_eq!((response.message().answers.len(), response.has_opt()), (1, true));
}

#[test]
fn section_6_2_a_connection_carries_several_transfers_at_once() {
    let hosts: String = (0..5_000).map(|host| format!("h{host} A 192.0.2.1\n")).collect();
    let server = primary("", &hosts);
    let mut client = TcpClient::of(server.listener("ts"));
    // IXFR from a version that the server does not know brings the whole zone.
    let mut ixfr = Vec::new();
    let old = crate::support::zones::zone("a.example. 300 SOA a. b. 0 2 3 4 5\na.example. NS a.\n");
    write_transfer_query(3, old.apex(), old.soa(), &mut ixfr);
    let [first, second, third] = [("a.example", 1), ("b.example", 2), ("a.example", 4)];
    let axfr = |(name, id): (&str, u16)| framed(&query(name, AXFR).id(id).to_vec());
    let host = framed(&query("www.b.example", A).id(5).to_vec());
    client.send_bytes(&[axfr(first), axfr(second), framed(&ixfr), axfr(third), host].concat());
    let mut counts = [0; 6];
    while counts != [0, 5_004, 5_004, 5_004, 5_004, 1] {
        let response = client.receive();
        let count = &mut counts[usize::from(response.id())];
        *count += response.message().answers.len();
        assert!(*count <= 5_004, "{counts:?}");
    }
}

#[test]
fn section_6_3_3_a_transfer_above_the_limit_is_servfail() {
    // More than the kernel keeps for one connection.
    let long = format!("\"{}\" ", "x".repeat(250)).repeat(40);
    let hosts: String = (0..1_500).map(|host| format!("host-{host} TXT {long}\n")).collect();
    let server = primary("", &hosts);
    let transfers = [query("a.example", AXFR).id(1), query("b.example", AXFR).id(2)];
    // Each holds two transfers, which it does not read: 32 in all are the limit.
    let mut idlers: Vec<_> = (0..16).map(|_| TcpClient::of(server.listener("ts"))).collect();
    idlers.iter_mut().for_each(|idler| idler.send(&transfers));
    let ask = || TcpClient::of(server.listener("ts")).try_ask(&transfers[0]);
    until("the limit is reached", || (ask()?.rcode() == SERVFAIL).then_some(()));
    assert_eq!(TcpClient::of(server.listener("ts")).ask(&query("www.a.example", A)).answers(), ["192.0.2.1"]);
    drop(idlers);
    until("others get the zone again", || (ask()?.rcode() == NOERROR).then_some(()));
}
