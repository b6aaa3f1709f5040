//! The verdict on a reply to a probe: its kind, and the reason if it may count as a failure.

use std::net::IpAddr;

use config::{ExpectedReply, ProbeConfig};
use dns::{Rcode, RecordType, Section};
use hedge::health::ProbeReply;
use zone::rdata_to_text;

/// Returns the kind of a reply, and the reason why it is bad if failures count.
pub(super) fn judge(probe: &ProbeConfig, reply: &[u8]) -> (ProbeReply, String) {
    let rcode = dns::Header::read(reply).map(dns::Header::rcode);
    if let Some(expected) = &probe.expect {
        return match mismatch(expected, probe.rtype, reply) {
            None => (ProbeReply::Answer, String::new()),
            Some(reason) => (ProbeReply::Failure, reason),
        };
    }
    let is_default = *probe == ProbeConfig::default();
    match rcode {
        Some(rcode @ (Rcode::SERVFAIL | Rcode::REFUSED)) => {
            let kind = if is_default && rcode == Rcode::REFUSED { ProbeReply::Unserved } else { ProbeReply::Failure };
            (kind, format!("replied {rcode}, expected no failure"))
        }
        Some(_) | None => (ProbeReply::Answer, String::new()),
    }
}

fn mismatch(expected: &ExpectedReply, rtype: RecordType, message: &[u8]) -> Option<String> {
    let Ok(reply) = dns::read_reply(message) else { return Some("sent a malformed reply".to_owned()) };
    if reply.rcode() != expected.rcode {
        return Some(format!("replied {}, expected {}", reply.rcode(), expected.rcode));
    }
    let answer = expected.answer.as_deref()?;
    let records =
        dns::Message::read(message).ok().into_iter().flat_map(|message| message.records().map_while(Result::ok));
    let mut answers = records.filter(|record| record.section == Section::Answer && record.rtype == rtype);
    if answers.any(|record| is_same(&rdata_to_text(rtype, &record.rdata), answer)) {
        return None;
    }
    let truncated = if reply.is_truncated() { " in a truncated reply" } else { "" };
    Some(format!("no answer record {answer}{truncated}"))
}

/// Compares RDATA as text: addresses by value, names without the last dot, strings with or without quotes.
fn is_same(rdata: &str, expected: &str) -> bool {
    if let (Ok(one), Ok(other)) = (rdata.parse::<IpAddr>(), expected.parse::<IpAddr>()) {
        return one == other;
    }
    let bare = |text: &'_ str| text.trim_matches('"').trim_end_matches('.').to_ascii_lowercase();
    bare(rdata) == bare(expected)
}

#[cfg(test)]
mod tests {
    use testkit::{NXDOMAIN, REFUSED, Reply, SERVFAIL, a, query, record, reply_to, wire_name};

    use super::*;

    fn check(probe: &ProbeConfig, edit: impl FnOnce(Reply) -> Reply, expected: (ProbeReply, &str)) {
        let reply = edit(reply_to(&query("www.example", probe.rtype.0).to_vec())).to_vec();
        assert_eq!(judge(probe, &reply), (expected.0, expected.1.to_owned()));
    }

    #[test]
    fn refused_to_the_default_probe_is_not_yet_a_failure() {
        let (default, own) = (ProbeConfig::default(), ProbeConfig { rtype: RecordType::A, ..ProbeConfig::default() });
        check(&default, |reply| reply, (ProbeReply::Answer, ""));
        check(&own, |reply| reply.rcode(NXDOMAIN), (ProbeReply::Answer, ""));
        let reason = "replied SERVFAIL, expected no failure";
        check(&default, |reply| reply.rcode(SERVFAIL), (ProbeReply::Failure, reason));
        check(&own, |reply| reply.rcode(SERVFAIL), (ProbeReply::Failure, reason));
        let reason = "replied REFUSED, expected no failure";
        check(&default, |reply| reply.rcode(REFUSED), (ProbeReply::Unserved, reason));
        check(&own, |reply| reply.rcode(REFUSED), (ProbeReply::Failure, reason));
    }

    #[test]
    fn reply_is_compared_with_the_expected_one() {
        let expecting = |rtype, rcode, answer: Option<&str>| {
            let expect = Some(ExpectedReply { rcode, answer: answer.map(str::to_owned) });
            ProbeConfig { rtype, expect, ..ProbeConfig::default() }
        };
        let rcode = expecting(RecordType::A, Rcode::NOERROR, None);
        check(&rcode, |reply| reply, (ProbeReply::Answer, ""));
        check(&rcode, |reply| reply.rcode(NXDOMAIN), (ProbeReply::Failure, "replied NXDOMAIN, expected NOERROR"));
        let negative = expecting(RecordType::A, Rcode::NXDOMAIN, None);
        check(&negative, |reply| reply.rcode(NXDOMAIN), (ProbeReply::Answer, ""));
        check(&negative, |reply| reply, (ProbeReply::Failure, "replied NOERROR, expected NXDOMAIN"));
        let address = expecting(RecordType::A, Rcode::NOERROR, Some("192.0.2.1"));
        let lacking = (ProbeReply::Failure, "no answer record 192.0.2.1");
        check(&address, |reply| reply.answer(a("192.0.2.2")).answer(a("192.0.2.1")), (ProbeReply::Answer, ""));
        check(&address, |reply| reply.answer(a("192.0.2.2")), lacking);
        check(&address, |reply| reply.additional(a("192.0.2.1")), lacking);
        let six = expecting(RecordType::AAAA, Rcode::NOERROR, Some("2001:DB8:0::1"));
        let octets = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        check(&six, |reply| reply.answer(record("www.example", 28, &octets)), (ProbeReply::Answer, ""));
        let name = expecting(RecordType::NS, Rcode::NOERROR, Some("NS1.example"));
        check(&name, |reply| reply.answer(record("example", 2, &wire_name("ns1.example"))), (ProbeReply::Answer, ""));
        let text = expecting(RecordType::TXT, Rcode::NOERROR, Some("fine"));
        check(&text, |reply| reply.answer(record("www.example", 16, b"\x04fine")), (ProbeReply::Answer, ""));
        assert_eq!(judge(&address, &[0xFF; 40]), (ProbeReply::Failure, "sent a malformed reply".to_owned()));
    }
}
