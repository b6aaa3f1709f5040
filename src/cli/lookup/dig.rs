//! Formats a full reply, close enough to dig's text for readers and scripts that know dig.

use std::fmt::{self, Write};

use super::exchange::{LookupAnswer, LookupServer};
use super::list::LookupQuestion;
use super::message::{LookupOpt, LookupRecord, LookupReply};
use super::resolve::LookupResolution;
use crate::wire::{Name, suffixes};

pub(super) fn write(server: &LookupServer, question: &LookupQuestion, resolution: &LookupResolution) -> String {
    let mut text = String::new();
    let written = match &resolution.last {
        Some(answer) => write_answer(&mut text, server, question, resolution, answer),
        None => write_loss(&mut text, server, question, resolution),
    };
    written.expect("a String takes all that is written");
    text
}

fn write_answer(
    text: &mut String,
    server: &LookupServer,
    question: &LookupQuestion,
    resolution: &LookupResolution,
    answer: &LookupAnswer,
) -> fmt::Result {
    let reply = &answer.reply;
    write_header(text, reply)?;
    if let Some(opt) = &reply.opt {
        write_opt(text, opt, &question.name)?;
    }
    if reply.has_question {
        writeln!(text, ";; QUESTION SECTION:\n;{}\t\tIN\t{}\n", question.name, question.rtype)?;
    }
    for (title, records) in
        [("ANSWER", &reply.answers), ("AUTHORITY", &reply.authorities), ("ADDITIONAL", &reply.additionals)]
    {
        write_section(text, title, records)?;
    }
    let (address, transport) = (server.address, answer.transport.label().to_uppercase());
    writeln!(text, ";; Query time: {} msec", resolution.elapsed.as_millis())?;
    writeln!(text, ";; SERVER: {ip}#{}({ip}) ({transport})", address.port(), ip = address.ip())?;
    writeln!(text, ";; MSG SIZE  rcvd: {}\n", reply.size)
}

fn write_loss(
    text: &mut String,
    server: &LookupServer,
    question: &LookupQuestion,
    resolution: &LookupResolution,
) -> fmt::Result {
    let (name, rtype) = (&question.name, question.rtype);
    let (address, tries) = (server.address, resolution.tries);
    let times = if tries == 1 { "try" } else { "tries" };
    writeln!(text, ";{name}\t\tIN\t{rtype}")?;
    writeln!(text, ";; {}: {}#{} after {tries} {times}\n", resolution.verdict, address.ip(), address.port())
}

fn write_header(text: &mut String, reply: &LookupReply) -> fmt::Result {
    let header = reply.header;
    // Replies have opcode QUERY; others are ignored.
    writeln!(text, ";; ->>HEADER<<- opcode: QUERY, status: {}, id: {}", reply.rcode, header.id())?;
    text.push_str(";; flags: qr");
    for (flag, is_set) in [
        ("aa", header.is_authoritative()),
        ("tc", header.is_truncated()),
        ("rd", header.recursion_desired()),
        ("ra", header.recursion_available()),
        ("ad", header.authentic_data()),
        ("cd", header.checking_disabled()),
    ] {
        if is_set {
            write!(text, " {flag}")?;
        }
    }
    writeln!(
        text,
        "; QUERY: {}, ANSWER: {}, AUTHORITY: {}, ADDITIONAL: {}\n",
        u8::from(reply.has_question),
        reply.answers.len(),
        reply.authorities.len(),
        // As in dig, OPT counts as a record.
        reply.additionals.len() + usize::from(reply.opt.is_some()),
    )
}

fn write_opt(text: &mut String, opt: &LookupOpt, qname: &Name) -> fmt::Result {
    let flags = if opt.dnssec_ok { " do" } else { "" };
    writeln!(text, ";; OPT PSEUDOSECTION:\n; EDNS: version: {}, flags:{flags}; udp: {}", opt.version, opt.udp_size)?;
    for (code, extra) in &opt.errors {
        write!(text, "; EDE: {}", code.0)?;
        if let Some(purpose) = code.purpose() {
            write!(text, " ({purpose})")?;
        }
        if !extra.is_empty() {
            write!(text, ": ({extra})")?;
        }
        text.push('\n');
    }
    for (labels, serial) in &opt.zone_versions {
        // RFC 9660 section 2.1: the zone consists of this number of last labels of the query name.
        let above = qname.labels().count().checked_sub(usize::from(*labels));
        match above.and_then(|above| suffixes(qname.as_wire()).nth(above)).map(Name::from_wire) {
            Some(Ok(zone)) => writeln!(text, "; ZONEVERSION: {zone} SOA-SERIAL {serial}")?,
            Some(Err(_)) | None => writeln!(text, "; ZONEVERSION: {labels} labels, SOA-SERIAL {serial}")?,
        }
    }
    for (code, data) in &opt.options {
        write!(text, "; OPT={}:", code.0)?;
        for octet in data {
            write!(text, " {octet:02x}")?;
        }
        text.push('\n');
    }
    Ok(())
}

fn write_section(text: &mut String, title: &str, records: &[LookupRecord]) -> fmt::Result {
    if records.is_empty() {
        return Ok(());
    }
    writeln!(text, ";; {title} SECTION:")?;
    for record in records {
        let LookupRecord { owner, ttl, class, rtype, data, .. } = record;
        writeln!(text, "{owner}\t{ttl}\t{class}\t{rtype}\t{data}")?;
    }
    text.push('\n');
    Ok(())
}
