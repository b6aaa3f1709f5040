//! The parser of hosts files (hosts(5)): lines of `ADDRESS NAME [ALIAS ...]`.
//!
//! Fields, comments and ends of lines are those of tables. A link-local address with a zone, such as
//! `fe80::1%eth0`, means nothing to other hosts, so its line is skipped.

use std::net::IpAddr;

use dns::Name;

use super::error::{FileProblem, LineError};
use super::table::{TableEntry, TableErrors, TableField, fields, numbered_lines};

/// Reads a hosts file and passes each address with its names, the canonical one first, and its line to
/// `sink`. Returns the errors by line.
pub fn read_hosts(octets: &[u8], sink: &mut dyn FnMut(IpAddr, &[Name], usize)) -> TableErrors {
    let text = String::from_utf8_lossy(octets);
    let mut errors = Vec::new();
    for (number, line) in numbered_lines(&text) {
        match read_line(line) {
            Ok(None) => {}
            Ok(Some((address, names))) => sink(address, &names, number),
            Err(error) => errors.push((number, error)),
        }
    }
    TableErrors(errors)
}

/// Returns true if the first line with fields begins with an address, and is no line of a table.
pub(super) fn is_hosts_file(text: &str) -> bool {
    let first = numbered_lines(text).find_map(|(_, line)| Some((line, fields_of(line).next()?)));
    first.is_some_and(|(line, field)| {
        address_in(field.text).parse::<IpAddr>().is_ok() && TableEntry::read(line).is_err()
    })
}

fn read_line(line: &str) -> Result<Option<(IpAddr, Vec<Name>)>, LineError> {
    let mut fields = fields_of(line);
    let Some(first) = fields.next() else { return Ok(None) };
    let address = address_in(first.text).parse().map_err(|_| first.error(FileProblem::BadAddress))?;
    let names = fields.map(TableField::read_name).collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() {
        return Err(first.error(FileProblem::NoHostsName));
    }
    Ok(Some((address, names)).filter(|_| !first.text.contains('%')))
}

fn fields_of(line: &str) -> impl Iterator<Item = TableField<'_>> {
    fields(line.split_once('#').map_or(line, |(content, _)| content))
}

fn address_in(field: &str) -> &str {
    field.split_once('%').map_or(field, |(address, _)| address)
}

#[cfg(test)]
mod tests {
    use dns::RecordType;

    use super::super::table::{is_master_file, read_table};
    use super::*;

    #[test]
    fn addresses_have_all_their_names() {
        let text = "\u{FEFF}# hosts\r\n127.0.0.1\tlocalhost\r\n192.0.2.1 NAS.home.arpa nas # the NAS\n\nfe80::1%eth0 router\n::1 a";
        let mut found = Vec::new();
        let errors = read_hosts(text.as_bytes(), &mut |address, names, line| {
            found.push((line, address.to_string(), names.iter().map(Name::to_string).collect::<Vec<_>>()));
        });
        assert!(errors.0.is_empty(), "{errors:?}");
        let entry = |line, address: &str, names: &[&str]| {
            (line, address.to_owned(), names.iter().map(|&name| name.to_owned()).collect())
        };
        let expected = [
            entry(2, "127.0.0.1", &["localhost."]),
            entry(3, "192.0.2.1", &["NAS.home.arpa.", "nas."]),
            entry(6, "::1", &["a."]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn wrong_lines_have_a_place_and_a_remedy() {
        for (line, column, expected) in [
            (
                "nas 192.0.2.1",
                1,
                "bad address \"nas\", expected ADDRESS NAME [ALIAS ...], as in 192.0.2.1 www.example.org",
            ),
            (" 192.0.2.1 # nas", 2, "\"192.0.2.1\" has no name, expected ADDRESS NAME [ALIAS ...]"),
            ("192.0.2.1 a a..b", 13, "bad name \"a..b\": empty label: dots stand between labels, one at a time"),
            (
                "192.0.2.1 *.lan",
                11,
                "\"*.lan\" is a wildcard, which tables do not have, expected one line for each host",
            ),
            ("192.0.2.1 .", 11, "the root is no host, expected a name such as www.example.org"),
        ] {
            let error = read_line(line).expect_err(line);
            assert_eq!((error.column, error.problem.to_string().as_str()), (column, expected), "{line}");
        }
    }

    #[test]
    fn hosts_files_stand_in_for_tables() {
        let mut found = Vec::new();
        let text = b"# hosts\n192.0.2.1 A.b c\n::1 c\nwrong";
        let errors = read_table(text, 7, &mut |record, place| {
            found.push((place.line, record.owner.to_vec(), record.rtype, record.ttl, record.rdata.len()));
        });
        let expected = [
            (2, b"\x01a\x01b\0".to_vec(), RecordType::A, 7, 4),
            (2, b"\x01c\0".to_vec(), RecordType::A, 7, 4),
            (3, b"\x01c\0".to_vec(), RecordType::AAAA, 7, 16),
        ];
        assert_eq!(found, expected);
        assert_eq!(errors.0.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4]);
        assert!(!is_master_file(b"192.0.2.1 a\n$TTL 1h"), "the first line decides");
        // A host of a table may look like an address.
        assert!(!is_hosts_file("1.2.3.4 192.0.2.1 A") && !is_hosts_file("h 192.0.2.1 A") && !is_hosts_file(""));
    }
}
