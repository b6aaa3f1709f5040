//! Formats a full reply, close enough to dig's text for readers and scripts that know dig.

use std::fmt::{self, Formatter};

use dns::{Name, Section, suffixes};

use super::exchange::{LookupAnswer, LookupServer};
use super::list::LookupQuestion;
use super::message::{LookupOpt, LookupReply, data_of};
use super::resolve::LookupResolution;

/// A result as dig shows it.
pub(super) struct DigText<'a> {
    pub(super) server: &'a LookupServer,
    pub(super) question: &'a LookupQuestion,
    pub(super) resolution: &'a LookupResolution,
}

impl fmt::Display for DigText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { server, question, resolution } = self;
        let (ip, port) = (server.address.ip(), server.address.port());
        let Some(LookupAnswer { reply, transport }) = &resolution.last else {
            let times = if resolution.effort.tries == 1 { "try" } else { "tries" };
            writeln!(f, ";{}\t\tIN\t{}", question.name, question.rtype)?;
            return writeln!(f, ";; {}: {ip}#{port} after {} {times}\n", resolution.verdict, resolution.effort.tries);
        };
        write_header(f, reply)?;
        if let Some(opt) = &reply.opt {
            write_opt(f, opt, &question.name)?;
        }
        if reply.has_question {
            writeln!(f, ";; QUESTION SECTION:\n;{}\t\tIN\t{}\n", question.name, question.rtype)?;
        }
        write_section(f, "ANSWER", reply, Section::Answer)?;
        write_section(f, "AUTHORITY", reply, Section::Authority)?;
        write_section(f, "ADDITIONAL", reply, Section::Additional)?;
        writeln!(f, ";; Query time: {} msec", resolution.effort.elapsed.as_millis())?;
        writeln!(f, ";; SERVER: {ip}#{port}({ip}) ({})", transport.label().to_uppercase())?;
        writeln!(f, ";; MSG SIZE  rcvd: {}\n", reply.size)
    }
}

fn write_header(f: &mut Formatter<'_>, reply: &LookupReply) -> fmt::Result {
    let header = reply.header;
    // Replies have opcode QUERY; others are ignored.
    writeln!(f, ";; ->>HEADER<<- opcode: QUERY, status: {}, id: {}", reply.rcode, header.id())?;
    f.write_str(";; flags: qr")?;
    for (flag, is_set) in [
        ("aa", header.is_authoritative()),
        ("tc", header.is_truncated()),
        ("rd", header.recursion_desired()),
        ("ra", header.recursion_available()),
        ("ad", header.authentic_data()),
        ("cd", header.checking_disabled()),
    ] {
        if is_set {
            write!(f, " {flag}")?;
        }
    }
    writeln!(
        f,
        "; QUERY: {}, ANSWER: {}, AUTHORITY: {}, ADDITIONAL: {}\n",
        u8::from(reply.has_question),
        reply.section(Section::Answer).count(),
        reply.section(Section::Authority).count(),
        // As in dig, OPT counts as a record.
        reply.section(Section::Additional).count() + usize::from(reply.opt.is_some()),
    )
}

fn write_opt(f: &mut Formatter<'_>, opt: &LookupOpt, qname: &Name) -> fmt::Result {
    let flags = if opt.dnssec_ok { " do" } else { "" };
    writeln!(f, ";; OPT PSEUDOSECTION:\n; EDNS: version: {}, flags:{flags}; udp: {}", opt.version, opt.udp_size)?;
    for (code, extra) in &opt.errors {
        write!(f, "; EDE: {}", code.0)?;
        if let Some(purpose) = code.purpose() {
            write!(f, " ({purpose})")?;
        }
        if !extra.is_empty() {
            write!(f, ": ({extra})")?;
        }
        writeln!(f)?;
    }
    for (labels, serial) in &opt.zone_versions {
        // RFC 9660 section 2.1: the zone consists of this number of last labels of the query name.
        let above = qname.labels().count().checked_sub(usize::from(*labels));
        match above.and_then(|above| suffixes(qname.as_wire()).nth(above)).map(Name::from_wire) {
            Some(Ok(zone)) => writeln!(f, "; ZONEVERSION: {zone} SOA-SERIAL {serial}")?,
            Some(Err(_)) | None => writeln!(f, "; ZONEVERSION: {labels} labels, SOA-SERIAL {serial}")?,
        }
    }
    for (code, data) in &opt.options {
        write!(f, "; OPT={}:", code.0)?;
        for octet in data {
            write!(f, " {octet:02x}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}

fn write_section(f: &mut Formatter<'_>, title: &str, reply: &LookupReply, section: Section) -> fmt::Result {
    let mut records = reply.section(section).peekable();
    if records.peek().is_none() {
        return Ok(());
    }
    writeln!(f, ";; {title} SECTION:")?;
    for record in records {
        writeln!(f, "{}\t{}\t{}\t{}\t{}", record.owner, record.ttl, record.class, record.rtype, data_of(record))?;
    }
    writeln!(f)
}
