//! The parser of tables: lines of `HOST ADDRESS TYPE` or `HOST - NS`. A hosts file is a table too.
//!
//! Blanks or tabs separate fields, `#` begins a comment anywhere, and lines without fields are skipped. LF,
//! CRLF, a missing final newline and a UTF-8 byte order mark are accepted. Types are case-insensitive.
//! `tables.rs` combines the lines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dns::{Name, RecordType};

use super::error::{FileError, FileErrors, FileProblem, LineError, MAX_ERRORS};
use super::hosts::{is_hosts_file, read_hosts};
use crate::answer::referral::ReferralBuilder;
use crate::store::record::{FilePlace, Record};
use crate::store::{AddOutcome, Full, StoreBuilder};
use crate::tables::{Miss, Tables};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum TableEntry {
    /// The host has this address: `HOST ADDRESS TYPE`.
    Address { host: Name, address: IpAddr },
    /// The server for all names that are not in the tables: `HOST - NS`.
    NameServer { host: Name },
}

impl TableEntry {
    pub(super) fn read(line: &str) -> Result<Option<Self>, LineError> {
        let content = line.split_once('#').map_or(line, |(content, _)| content);
        let missing = |problem| LineError { column: content.trim_end().chars().count() + 1, problem };
        let mut fields = fields(content);
        let Some(host) = fields.next() else {
            return Ok(None);
        };
        let address = fields.next().ok_or_else(|| missing(FileProblem::NoAddress))?;
        let rtype = fields.next().ok_or_else(|| missing(FileProblem::NoType))?;
        if let Some(extra) = fields.next() {
            return Err(extra.error(FileProblem::TooMany));
        }
        Self::from_fields(host, address, rtype).map(Some)
    }

    fn from_fields(host: TableField<'_>, address: TableField<'_>, rtype: TableField<'_>) -> Result<Self, LineError> {
        let host = host.read_host()?;
        match rtype.text.parse() {
            Ok(RecordType::A) => {
                let address = address.read_ipv4()?.into();
                Ok(Self::Address { host, address })
            }
            Ok(RecordType::AAAA) => {
                let address = address.read_ipv6()?.into();
                Ok(Self::Address { host, address })
            }
            Ok(RecordType::NS) if address.text == NO_ADDRESS => Ok(Self::NameServer { host }),
            Ok(RecordType::NS) => Err(address.error(FileProblem::AddressWithNs)),
            Ok(_) => Err(rtype.error(FileProblem::OtherType)),
            Err(_) if address.text.parse::<RecordType>().is_ok() && rtype.text.parse::<IpAddr>().is_ok() => {
                Err(address.error(|_| FileProblem::Swapped))
            }
            Err(_) => Err(rtype.error(FileProblem::UnknownType)),
        }
    }

    fn with_record<T>(&self, ttl: u32, take: impl FnOnce(Record<'_>) -> T) -> T {
        let (host, rtype, rdata): (_, _, &[u8]) = match self {
            Self::Address { host, address: IpAddr::V4(address) } => (host, RecordType::A, &address.octets()),
            Self::Address { host, address: IpAddr::V6(address) } => (host, RecordType::AAAA, &address.octets()),
            Self::NameServer { host } => (host, RecordType::NS, &[]),
        };
        take(Record { owner: host.as_wire(), rtype, ttl, rdata })
    }
}

/// Reads a table and passes each line to `sink` as a record with this TTL. A `HOST - NS` line becomes an NS
/// record without data, owned by the server. Returns the errors by line.
pub fn read_table(octets: &[u8], ttl: u32, sink: &mut dyn FnMut(Record<'_>, FilePlace)) -> TableErrors {
    let text = String::from_utf8_lossy(octets);
    let place = |line: usize| FilePlace { file: 0, line: u32::try_from(line).unwrap_or(u32::MAX), column: 1 };
    if is_hosts_file(&text) {
        return read_hosts(octets, &mut |address, names, line| {
            for host in names {
                let entry = TableEntry::Address { host: host.folded(), address };
                entry.with_record(ttl, |record| sink(record, place(line)));
            }
        });
    }
    let mut errors = Vec::new();
    for (line, entry) in entries(&text) {
        match entry {
            Ok(entry) => entry.with_record(ttl, |record| sink(record, place(line))),
            Err(error) => errors.push((line, error)),
        }
    }
    if !errors.is_empty()
        && let Some(sign) = numbered_lines(&text).find_map(|(number, line)| Some((number, master_file_sign(line)?)))
    {
        errors = vec![sign];
    }
    TableErrors(errors)
}

/// The errors of a table with their line numbers, from 1.
#[derive(Debug)]
pub struct TableErrors(pub(crate) Vec<(usize, LineError)>);

impl TableErrors {
    /// Returns a line for each error of a file of this name, at most `most` and the number of further ones.
    pub fn lines(self, file: &str, most: usize) -> Vec<String> {
        let more = self.0.len().saturating_sub(most);
        let error = |(line, error)| FileError { file: file.to_owned(), line, error }.to_string();
        let mut lines: Vec<_> = self.0.into_iter().take(most).map(error).collect();
        lines.extend((more > 0).then(|| format!("{file}: and {more} more errors")));
        lines
    }
}

/// Returns true if a `$` directive, or an SOA after an owner name, comes before any line of a table.
pub fn is_master_file(octets: &[u8]) -> bool {
    let text = octets.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(octets);
    for line in text.split(|octet| *octet == b'\n') {
        let line = String::from_utf8_lossy(line);
        if master_file_sign(&line).is_some() {
            return true;
        }
        if matches!(TableEntry::read(&line), Ok(Some(_))) || is_hosts_file(&line) {
            return false;
        }
    }
    false
}

fn entries(text: &str) -> impl Iterator<Item = (usize, Result<TableEntry, LineError>)> {
    numbered_lines(text).filter_map(|(number, line)| Some((number, TableEntry::read(line).transpose()?)))
}

fn master_file_sign(line: &str) -> Option<LineError> {
    let content = line.split_once(['#', ';']).map_or(line, |(content, _)| content);
    let mut signs = fields(content).enumerate().filter(|(index, field)| match index {
        0 => field.text.starts_with('$') || (line.starts_with([' ', '\t']) && field.text.eq_ignore_ascii_case("SOA")),
        _ => field.text.eq_ignore_ascii_case("SOA"),
    });
    signs.next().map(|(_, field)| field.error(FileProblem::MasterFile))
}

pub(super) fn numbered_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    (1..).zip(text.lines())
}

#[derive(Clone, Copy)]
pub(super) struct TableField<'a> {
    line: &'a str,
    at: usize,
    pub(super) text: &'a str,
}

impl TableField<'_> {
    #[cold]
    pub(super) fn error(self, problem: impl FnOnce(String) -> FileProblem) -> LineError {
        let before = self.line.get(..self.at).unwrap_or_default();
        LineError { column: before.chars().count() + 1, problem: problem(self.text.to_owned()) }
    }

    fn read_host(self) -> Result<Name, LineError> {
        self.read_name().map(|name| name.folded())
    }

    pub(super) fn read_name(self) -> Result<Name, LineError> {
        let name = self.text.parse::<Name>().map_err(|error| self.error(|text| FileProblem::BadName(text, error)))?;
        if name.is_root() {
            return Err(self.error(|_| FileProblem::RootHost));
        }
        // A table is a set of hosts without wildcards (RFC 4592), so such a line would match only itself.
        if name.labels().any(|label| label == b"*") {
            return Err(self.error(FileProblem::Wildcard));
        }
        Ok(name)
    }

    fn read_ipv4(self) -> Result<Ipv4Addr, LineError> {
        self.text.parse().map_err(|_| {
            if self.text == NO_ADDRESS {
                self.error(|_| FileProblem::NoAddressForType("A"))
            } else if self.text.parse::<Ipv6Addr>().is_ok() {
                self.error(FileProblem::Ipv6InA)
            } else {
                self.error(FileProblem::BadIpv4)
            }
        })
    }

    fn read_ipv6(self) -> Result<Ipv6Addr, LineError> {
        self.text.parse().map_err(|_| {
            if self.text == NO_ADDRESS {
                self.error(|_| FileProblem::NoAddressForType("AAAA"))
            } else if self.text.parse::<Ipv4Addr>().is_ok() {
                self.error(FileProblem::Ipv4InAaaa)
            } else {
                self.error(FileProblem::BadIpv6)
            }
        })
    }
}

pub(super) fn fields(line: &str) -> impl Iterator<Item = TableField<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        // The last line may end in a carriage return without a newline.
        let is_blank = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r');
        let rest = line.as_bytes().get(at..)?;
        let start = at + rest.iter().position(|octet| !is_blank(octet))?;
        let end = line.as_bytes().get(start..)?.iter().position(is_blank).map_or(line.len(), |len| start + len);
        at = end;
        Some(TableField { line, at: start, text: line.get(start..end)? })
    })
}

const NO_ADDRESS: &str = "-";

/// Collects the lines of table files.
#[derive(Debug)]
pub struct TablesBuilder {
    miss: Miss,
    hosts: StoreBuilder,
    referral: ReferralBuilder,
    overflow: Vec<(usize, LineError)>,
    errors: Vec<FileError>,
}

impl TablesBuilder {
    /// Returns a builder without hosts.
    pub fn new(miss: Miss) -> Self {
        let (hosts, referral) = (StoreBuilder::default(), ReferralBuilder::default());
        Self { miss, hosts, referral, overflow: Vec::new(), errors: Vec::new() }
    }

    /// Reserves memory for many hosts.
    pub fn expect_many(&mut self) {
        self.hosts.expect_many();
    }

    /// Adds a line in the form that `read_table` passes on.
    pub fn add(&mut self, record: &Record<'_>, place: FilePlace) {
        let Record { owner, rtype, ttl, rdata } = *record;
        let problem = if rtype == RecordType::NS {
            let is_added = Name::from_wire(owner).is_ok_and(|host| self.referral.add(&host, ttl));
            (!is_added).then_some(FileProblem::TooManyNameServers)
        } else {
            self.hosts.open(owner, place);
            match self.hosts.add(rtype, ttl, rdata) {
                Ok(AddOutcome::New | AddOutcome::Duplicate | AddOutcome::OtherTtl) => None,
                Err(Full { limit }) => Some(FileProblem::TooManyAddresses { limit }),
            }
        };
        if let Some(problem) = problem {
            self.overflow.push((place.line as usize, LineError { column: 1, problem }));
        }
    }

    /// Completes a file of this name with the errors of its lines. If there are too many errors, only the
    /// first are kept.
    pub fn end_file(&mut self, file: &str, TableErrors(mut errors): TableErrors) {
        errors.append(&mut self.overflow);
        errors.sort_by_key(|(line, _)| *line);
        if errors.len() > MAX_ERRORS {
            let more = errors.len() - MAX_ERRORS;
            errors.truncate(MAX_ERRORS + 1);
            if let Some((_, error)) = errors.last_mut() {
                *error = LineError { column: 1, problem: FileProblem::More(more) };
            }
        }
        let error = |(line, error)| FileError { file: file.to_owned(), line, error };
        self.errors.extend(errors.into_iter().map(error));
    }

    /// Compiles the tables, or returns all errors of all files.
    pub fn finish(mut self) -> Result<Tables, FileErrors> {
        FileErrors::check(self.errors)?;
        self.hosts.fill_gaps(Name::root().as_wire().len());
        let (hosts, _) = self.hosts.finish();
        let referral = self.referral.finish(&hosts);
        Ok(Tables::new(hosts, referral, self.miss))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, address: &str) -> TableEntry {
        TableEntry::Address { host: host.parse().expect("a name"), address: address.parse().expect("an address") }
    }

    #[test]
    fn lines_are_read() {
        let check = |line: &str, expected: Option<TableEntry>| {
            assert_eq!(TableEntry::read(line), Ok(expected), "{line:?}");
        };
        let www = || Some(address("www.example.org", "192.0.2.1"));
        check("www.example.org 192.0.2.1 A", www());
        check("www.example.org. 192.0.2.1 A", www());
        check("WWW.Example.ORG\t192.0.2.1 \t a", www());
        check("  www.example.org 192.0.2.1 A  ", www());
        check("www.example.org 192.0.2.1 A # first", www());
        check("www.example.org 192.0.2.1 A# first # and last", www());
        check("www.example.org 192.0.2.1 A\r", www());
        check(r"www.ex\097mple.org 192.0.2.1 A", www());
        check("h 2001:DB8::1 aaaa", Some(address("h", "2001:db8::1")));
        check("h ::ffff:192.0.2.1 AAAA", Some(address("h", "::ffff:192.0.2.1")));
        let host = "ns.example".parse().expect("a name");
        check("NS.example - ns", Some(TableEntry::NameServer { host }));
        check("", None);
        check(" \t\r", None);
        check("# www.example.org 192.0.2.1 A", None);
        check("  # indented", None);
    }

    #[test]
    fn bad_lines_say_where_and_what_would_be_right() {
        let check = |line: &str, column: usize, expected: &str| {
            let error = TableEntry::read(line).expect_err(line);
            assert_eq!((error.column, error.problem.to_string().as_str()), (column, expected), "{line:?}");
        };
        check("www.example.org", 16, "address and type are missing, expected HOST ADDRESS TYPE");
        check("www.example.org 192.0.2.1  # A", 26, "type is missing, expected HOST ADDRESS TYPE");
        check(
            "h 192.0.2.1 A 300",
            15,
            "unexpected \"300\" after the type, expected HOST ADDRESS TYPE (a comment begins with #)",
        );
        check("h A 192.0.2.1", 3, "type stands before address, expected HOST ADDRESS TYPE");
        check(" a..b 192.0.2.1 A", 2, "bad name \"a..b\": empty label: dots stand between labels, one at a time");
        check(
            "b\u{fc}cher.example 192.0.2.1 A",
            1,
            "bad name \"b\u{fc}cher.example\": '\u{fc}' in a name: write the label in Punycode (xn--...)",
        );
        check(". 192.0.2.1 A", 1, "the root is no host, expected a name such as www.example.org");
        check(
            "*.example 192.0.2.1 A",
            1,
            "\"*.example\" is a wildcard, which tables do not have, expected one line for each host",
        );
        check(
            "h 192.0.2.256 A",
            3,
            "bad IPv4 address \"192.0.2.256\", expected four numbers of 0 to 255 such as 192.0.2.1",
        );
        check("h 2001:db8::1 A", 3, "\"2001:db8::1\" is an IPv6 address, type A takes IPv4: did you mean \"AAAA\"?");
        check("h 192.0.2.1 AAAA", 3, "\"192.0.2.1\" is an IPv4 address, type AAAA takes IPv6: did you mean \"A\"?");
        check("h 2001:db8::1::2 AAAA", 3, "bad IPv6 address \"2001:db8::1::2\", expected one such as 2001:db8::1");
        check("h - A", 3, "type A needs an address, expected HOST ADDRESS TYPE (HOST - NS is for name servers)");
        check(
            "h 192.0.2.1 NS",
            3,
            "\"192.0.2.1\" in an NS line, expected HOST - NS (an address of HOST is a line of its own)",
        );
        check("h 192.0.2.1 MX", 13, "type \"MX\" has no place in a table, expected A, AAAA or NS");
        // Columns count characters, not bytes.
        check(
            "\u{e9}\u{e9} 192.0.2.1 AAA",
            1,
            "bad name \"\u{e9}\u{e9}\": '\u{e9}' in a name: write the label in Punycode (xn--...)",
        );
    }

    #[test]
    fn a_mistyped_type_is_recognized() {
        let check = |typed: &str, meant: Option<&str>| {
            let error = TableEntry::read(&format!("h 192.0.2.1 {typed}")).expect_err(typed);
            let hint = meant.map_or(String::new(), |meant| format!(", did you mean {meant:?}?"));
            let expected = format!("unknown type {typed:?}, expected A, AAAA or NS{hint}");
            assert_eq!(error.problem.to_string(), expected);
        };
        check("AAA", Some("AAAA"));
        check("aaaaa", Some("AAAA"));
        check("AA", Some("A"));
        check("sn", Some("NS"));
        check("N", Some("NS"));
        check("IPv4", None);
    }

    #[test]
    fn entries_have_line_numbers_whatever_ends_a_line() {
        let check = |text: &str| {
            let lines: Vec<_> = entries(text).map(|(line, entry)| (line, entry.is_ok())).collect();
            assert_eq!(lines, [(2, true), (4, false), (5, true)], "{text:?}");
        };
        check("# head\na 192.0.2.1 A\n\nb\nc 192.0.2.3 A");
        check("# head\na 192.0.2.1 A\n\nb\nc 192.0.2.3 A\n");
        check("# head\r\na 192.0.2.1 A\r\n\r\nb\r\nc 192.0.2.3 A\r\n");
        check("\u{FEFF}# head\r\na 192.0.2.1 A\r\n\r\nb\r\nc 192.0.2.3 A\r");
    }

    #[test]
    fn master_files_are_recognized() {
        let check = |text: &str, expected: bool| assert_eq!(is_master_file(text.as_bytes()), expected, "{text:?}");
        check("$ORIGIN example.org.\n", true);
        check("\u{FEFF}$ORIGIN example.org.\n", true);
        check("; a zone\n\n  $TTL 1h\n", true);
        check("@ IN soa ns hostmaster 1 2 3 4 5\n", true);
        check("@ IN SOA( ns", false);
        check("example.org. (\n SOA ns hostmaster 1 2 3 4 5)", true);
        check("example.org. 300 IN A 192.0.2.1\nexample.org. SOA ns hostmaster 1 2 3 4 5", true);
        check("soa.example 192.0.2.1 A\nsoa 192.0.2.1 A\n", false);
        check("# $ORIGIN\nh 192.0.2.1 A # SOA\n", false);
        check("h 192.0.2.1 A\n$TTL 1h\n", false);
        check("", false);
    }

    #[test]
    fn lines_become_records() {
        let mut found = Vec::new();
        let text = b"# head\nA.b 192.0.2.1 A\nc ::1 AAAA\nwrong\nns.b - NS";
        let errors = read_table(text, 7, &mut |record, place| {
            found.push((place.line, record.owner.to_vec(), record.rtype, record.ttl, record.rdata.to_vec()));
        });
        let loopback = [&[0; 15][..], &[1]].concat();
        assert_eq!(
            found,
            [
                (2, b"\x01a\x01b\0".to_vec(), RecordType::A, 7, vec![192, 0, 2, 1]),
                (3, b"\x01c\0".to_vec(), RecordType::AAAA, 7, loopback),
                (5, b"\x02ns\x01b\0".to_vec(), RecordType::NS, 7, Vec::new()),
            ]
        );
        assert_eq!(errors.0.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4]);
    }
}
