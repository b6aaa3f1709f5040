//! The tables of an authority and their answers.
//!
//! Tables are built from all table files at once and are immutable. A table is a set of hosts, not a tree.
//! Several tables form one set.

use dns::{Name, RecordType};

use super::answer::referral::Referral;
use super::load::{FileErrors, TablesBuilder, read_table};
use super::store::{Rrset, StoreBuilder, ZoneStore};

/// The tables of one authority.
#[derive(Debug)]
pub struct Tables {
    hosts: ZoneStore,
    referral: Option<Referral>,
    miss: Miss,
}

/// The answer of an authority for a name that is in no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No response, because another authority may know the name.
    Silent,
    /// A response with NXDOMAIN.
    Nxdomain,
    /// A response with REFUSED.
    Refused,
}

impl Tables {
    /// Builds tables from files, each a name for messages and its contents. All records get this TTL, because
    /// tables have none.
    ///
    /// # Errors
    ///
    /// Every bad line of every file.
    pub(crate) fn build(sources: &[(String, Vec<u8>)], ttl: u32, miss: Miss) -> Result<Self, FileErrors> {
        let mut builder = TablesBuilder::new(miss);
        for (file, octets) in sources {
            let errors = read_table(octets, ttl, &mut |record, place| builder.add(&record, place));
            builder.end_file(file, errors);
        }
        builder.finish()
    }

    pub(super) fn new(hosts: ZoneStore, referral: Option<Referral>, miss: Miss) -> Self {
        Self { hosts, referral, miss }
    }

    pub(super) fn store(&self) -> &ZoneStore {
        &self.hosts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hosts.owners() == 0 && self.referral.is_none()
    }

    /// Returns true if a host has this name, which is in lower case, or a name below it.
    pub(crate) fn has_at_or_below(&self, name: &Name) -> bool {
        self.hosts.find(name.as_wire()).is_some()
    }

    /// The number of hosts with addresses.
    pub fn hosts(&self) -> usize {
        self.hosts.owners()
    }

    /// The number of addresses of all hosts.
    pub fn records(&self) -> usize {
        self.hosts.records()
    }

    /// The number of name servers in the referral, or 0 if there is none.
    pub(crate) fn name_servers(&self) -> usize {
        self.referral.as_ref().map_or(0, |referral| usize::from(referral.servers()))
    }

    /// Returns tables without hosts, for an authority that has only zones.
    pub fn none() -> Self {
        let (hosts, _) = StoreBuilder::default().finish();
        Self { hosts, referral: None, miss: Miss::Refused }
    }

    pub(super) fn look_up(&self, qname: &[u8], qtype: RecordType) -> TableAnswer<'_> {
        let node = self.hosts.find(qname);
        if let Some(host) = node.as_ref().filter(|node| node.is_owner()) {
            // RFC 8482 section 4.1: one RRset is enough for ANY.
            return host
                .rrsets()
                .find(|rrset| rrset.rtype == qtype || qtype == RecordType::ANY)
                .map_or(TableAnswer::Nodata { authoritative: true }, TableAnswer::Records);
        }
        if let Some(referral) = &self.referral {
            return TableAnswer::Referral(referral);
        }
        // Probes ask for this. Silence would mark the server as down.
        if qname == Name::root().as_wire() && qtype == RecordType::NS {
            return TableAnswer::Refused;
        }
        match self.miss {
            Miss::Silent => TableAnswer::Silence,
            // RFC 8020 section 2: NXDOMAIN would deny the host below. Tables know no other types, so AA is
            // clear.
            Miss::Nxdomain if node.is_some() => TableAnswer::Nodata { authoritative: false },
            Miss::Nxdomain => TableAnswer::Nxdomain,
            Miss::Refused => TableAnswer::Refused,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum TableAnswer<'a> {
    Records(Rrset<'a>),
    Nodata {
        /// True if no other server knows more about the name.
        authoritative: bool,
    },
    Referral(&'a Referral),
    Nxdomain,
    Refused,
    Silence,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns sources named `f1`, `f2`, ... with these texts.
    fn sources(texts: &[&str]) -> Vec<(String, Vec<u8>)> {
        (1..).zip(texts).map(|(number, text)| (format!("f{number}"), text.as_bytes().to_vec())).collect()
    }

    /// Builds tables from valid sources.
    fn tables(texts: &[&str], miss: Miss) -> Tables {
        Tables::build(&sources(texts), 300, miss).expect("tables without errors")
    }

    fn word(answer: TableAnswer<'_>) -> String {
        match answer {
            TableAnswer::Records(rrset) => format!("{} {}", rrset.count, rrset.rtype),
            TableAnswer::Nodata { authoritative: true } => "nodata".into(),
            TableAnswer::Nodata { authoritative: false } => "nodata without aa".into(),
            TableAnswer::Referral(referral) => {
                format!("referral {}+{}", referral.servers(), referral.glue())
            }
            TableAnswer::Nxdomain => "nxdomain".into(),
            TableAnswer::Refused => "refused".into(),
            TableAnswer::Silence => "silence".into(),
        }
    }

    /// Looks up a name and compares the kind of answer.
    #[track_caller]
    fn check(tables: &Tables, name: &str, qtype: RecordType, expected: &str) {
        let name: Name = name.parse().expect("a name");
        assert_eq!(word(tables.look_up(name.folded().as_wire(), qtype)), expected, "{name} {qtype}");
    }

    /// The hosts of one table.
    const HOSTS: &str = "www.a.example 192.0.2.1 A\nWWW.A.example 192.0.2.2 A\nwww.a.example 2001:db8::1 AAAA\n\
                         a.example 192.0.2.3 A\n";

    #[test]
    fn hosts_have_their_records_whatever_miss_says() {
        for miss in [Miss::Silent, Miss::Nxdomain, Miss::Refused] {
            let found = tables(&[HOSTS], miss);
            check(&found, "www.a.example", RecordType::A, "2 A");
            check(&found, "wWw.A.eXample", RecordType::AAAA, "1 AAAA");
            check(&found, "a.example", RecordType::A, "1 A");
            check(&found, "a.example", RecordType::AAAA, "nodata");
            check(&found, "a.example", RecordType::NS, "nodata");
            check(&found, "www.a.example", RecordType::ANY, "2 A");
        }
    }

    #[test]
    fn misses_are_what_miss_says() {
        let check = |name: &str, qtype: RecordType, expected: [&str; 3]| {
            for (miss, expected) in [Miss::Silent, Miss::Nxdomain, Miss::Refused].into_iter().zip(expected) {
                check(&tables(&[HOSTS], miss), name, qtype, expected);
            }
        };
        let missed = ["silence", "nxdomain", "refused"];
        check("ftp.a.example", RecordType::A, missed);
        check("x.www.a.example", RecordType::A, missed);
        check("org", RecordType::ANY, missed);
        // The same bytes as the end of a host name, but inside a label.
        check(r"x\007example", RecordType::A, missed);
        // A name above a host.
        let above = ["silence", "nodata without aa", "refused"];
        check("example", RecordType::A, above);
        check(".", RecordType::A, above);
        // The name that probes ask for.
        check(".", RecordType::NS, ["refused"; 3]);
    }

    #[test]
    fn a_referral_takes_the_place_of_miss() {
        let servers = "ns.b.example - NS\nNS.b.example - NS\nns.elsewhere - NS\nns.b.example 192.0.2.53 A\n";
        for miss in [Miss::Silent, Miss::Nxdomain, Miss::Refused] {
            let found = tables(&[HOSTS, servers], miss);
            check(&found, "www.a.example", RecordType::A, "2 A");
            check(&found, "a.example", RecordType::AAAA, "nodata");
            check(&found, "ns.b.example", RecordType::A, "1 A");
            // A server without an address line is not a host.
            for missed in ["ns.elsewhere", "ftp.a.example", "example", "."] {
                check(&found, missed, RecordType::A, "referral 2+1");
            }
            check(&found, ".", RecordType::NS, "referral 2+1");
            assert_eq!((found.hosts(), found.records(), found.name_servers()), (3, 5, 2));
        }
    }

    #[test]
    fn tables_are_one_set_and_lines_said_twice_count_once() {
        let more = "www.a.example 192.0.2.1 A\nwww.a.example. 192.0.2.9 A\nnew.example 192.0.2.4 A";
        let found = tables(&[HOSTS, more, ""], Miss::Silent);
        check(&found, "www.a.example", RecordType::A, "3 A");
        check(&found, "new.example", RecordType::A, "1 A");
        assert_eq!((found.hosts(), found.records(), found.name_servers()), (3, 6, 0));
    }

    #[test]
    fn tables_may_be_empty() {
        let found = tables(&[], Miss::Nxdomain);
        check(&found, "www.a.example", RecordType::A, "nxdomain");
        check(&found, ".", RecordType::NS, "refused");
        assert_eq!((found.hosts(), found.records()), (0, 0));
    }

    #[test]
    fn every_bad_line_of_every_file_is_reported() {
        let bad = "a 192.0.2.1 A\nb 192.0.2.1\n\nc 192.0.2.1 AAA\n";
        let zone = "h 192.0.2.1 A\n$TTL 1h\nanother\n";
        let errors = Tables::build(&sources(&[bad, zone, "d - A"]), 300, Miss::Silent).expect_err("bad lines");
        assert_eq!(
            errors.to_string(),
            "f1:2:12: type is missing, expected HOST ADDRESS TYPE\n\
             f1:4:13: unknown type \"AAA\", expected A, AAAA or NS, did you mean \"AAAA\"?\n\
             f2:2:1: \"$TTL\" belongs in a master file, but lines of a table stand before: expected HOST ADDRESS TYPE\n\
             f3:1:3: type A needs an address, expected HOST ADDRESS TYPE (HOST - NS is for name servers)"
        );
    }

    #[test]
    fn what_no_message_can_hold_is_an_error() {
        let lines = |count: u32, line: &dyn Fn(u32) -> String| (0..count).map(line).collect::<String>();
        let check = |text: String, expected: Option<(usize, &str)>| {
            let found = Tables::build(&sources(&[&text]), 300, Miss::Silent).err().map(|errors| {
                let error = errors.iter().next().expect("an error");
                (error.line, error.error.problem.to_string())
            });
            assert_eq!(found.as_ref().map(|(line, text)| (*line, text.as_str())), expected);
        };
        let addresses = |n: u32| format!("h 2001:db8::{n:x} AAAA\n");
        check(lines(2330, &addresses), None);
        check(
            lines(2331, &addresses),
            Some((2331, "too many addresses: one message holds at most 2330 of this type for one host")),
        );
        let servers = |n: u32| format!("{}.n{n:05} - NS\n", "x".repeat(40));
        check(lines(268, &servers), None);
        check(
            lines(269, &servers),
            Some((269, "too many NS lines: they no longer fit into one referral, expected fewer")),
        );
    }

    #[test]
    fn the_tables_that_come_with_hedgerow_are_right() {
        let ts1 = include_str!("../../../zones/ts1.txt");
        let ts2 = include_str!("../../../zones/ts2.txt");
        let referral = include_str!("../../../zones/referral.txt");
        let [first, second] = [ts1, ts2].map(|text| tables(&[text], Miss::Silent));
        assert_eq!((first.hosts(), second.hosts()), (10, 12));
        check(&first, "www.princeton.edu", RecordType::A, "1 A");
        check(&first, "www.princeton.edu", RecordType::AAAA, "nodata");
        check(&first, "www.google.com", RecordType::A, "3 A");
        check(&second, "time.example.net", RecordType::A, "1 A");
        assert!(ts2.lines().count() > 1 && ts2.split_terminator('\n').rev().skip(1).all(|line| line.ends_with('\r')));
        assert!(!ts2.ends_with(['\r', '\n']));
        // The tables share no host and have no referral.
        assert_eq!(tables(&[ts1, ts2], Miss::Silent).hosts(), 22);
        assert_eq!((first.name_servers(), second.name_servers()), (0, 0));
        check(&tables(&[ts1, referral], Miss::Silent), "nothinghere.com", RecordType::A, "referral 2+2");
    }
}
