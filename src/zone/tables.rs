//! The tables of an authority, and what they say of a name.
//!
//! Built whole from all table files of the authority, or not at all, and immutable from then on. A
//! table is a set of hosts, not a tree; several tables are one set.

use super::answer::referral::Referral;
use super::load::{FileErrors, TablesBuilder, read_table};
use super::store::{Rrset, Store, StoreBuilder};
use crate::wire::{Name, RecordType};

/// The tables of one authority.
#[derive(Debug)]
pub struct Tables {
    /// The hosts of all tables.
    hosts: Store,
    /// Said of names that are in no table, in place of `miss`.
    referral: Option<Referral>,
    /// Said of them if there is no referral.
    miss: Miss,
}

/// What an authority says of a name that is not in one of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Nothing: the other TS may have it.
    Silent,
    /// NXDOMAIN.
    Nxdomain,
    /// REFUSED.
    Refused,
}

impl Tables {
    /// Builds tables from files, each its name for messages and its octets. Records get this TTL, since tables
    /// have none.
    ///
    /// Every bad line of every file is reported.
    pub fn build(sources: &[(String, Vec<u8>)], ttl: u32, miss: Miss) -> Result<Self, FileErrors> {
        let mut builder = TablesBuilder::new(miss);
        for (file, octets) in sources {
            let errors = read_table(octets, ttl, &mut |record, place| builder.add(&record, place));
            builder.end_file(file, errors);
        }
        builder.finish()
    }

    /// Tables of these hosts.
    pub(super) fn new(hosts: Store, referral: Option<Referral>, miss: Miss) -> Self {
        Self { hosts, referral, miss }
    }

    /// The hosts.
    pub(super) fn store(&self) -> &Store {
        &self.hosts
    }

    /// Whether there is nothing in them: neither hosts nor a referral.
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.owners() == 0 && self.referral.is_none()
    }

    /// True if a host has this name, which is in lower case, or one below it.
    pub fn has_at_or_below(&self, name: &Name) -> bool {
        self.hosts.find(name.as_wire()).is_some()
    }

    /// How many hosts have addresses here.
    pub fn hosts(&self) -> usize {
        self.hosts.owners()
    }

    /// How many addresses all hosts have.
    pub fn records(&self) -> usize {
        self.hosts.records()
    }

    /// How many name servers the referral names; 0 if there is none.
    pub fn name_servers(&self) -> usize {
        self.referral.as_ref().map_or(0, |referral| usize::from(referral.servers()))
    }

    /// Tables without a host, as they are beside zones.
    pub fn none() -> Self {
        let (hosts, _) = StoreBuilder::default().finish();
        Self { hosts, referral: None, miss: Miss::Refused }
    }

    /// What there is to say of a folded name, and a type of data (or ANY) in class IN.
    pub(super) fn look_up(&self, qname: &[u8], qtype: RecordType) -> Answer<'_> {
        let node = self.hosts.find(qname);
        if let Some(host) = node.as_ref().filter(|node| node.is_owner()) {
            // RFC 8482 section 4.1: one RRset is answer enough to ANY.
            return host
                .rrsets()
                .find(|rrset| rrset.rtype == qtype || qtype == RecordType::ANY)
                .map_or(Answer::Nodata { authoritative: true }, Answer::Records);
        }
        if let Some(referral) = &self.referral {
            return Answer::Referral(referral);
        }
        // What probes ask: silence would look like death, whatever is said of other names.
        if qname == Name::root().as_wire() && qtype == RecordType::NS {
            return Answer::Refused;
        }
        match self.miss {
            Miss::Silent => Answer::Silence,
            // RFC 8020 section 2: NXDOMAIN would deny the host that is below this name. Without AA, since a
            // table does not tell what else is at the name.
            Miss::Nxdomain if node.is_some() => Answer::Nodata { authoritative: false },
            Miss::Nxdomain => Answer::Nxdomain,
            Miss::Refused => Answer::Refused,
        }
    }
}

/// What tables say of a name and type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer<'a> {
    /// These records are there.
    Records(Rrset<'a>),
    /// The name is there, the type is not.
    Nodata {
        /// Whether this is the last word on the name.
        authoritative: bool,
    },
    /// Others are to be asked.
    Referral(&'a Referral),
    /// There is no such name.
    Nxdomain,
    /// None of this authority's business.
    Refused,
    /// Nothing at all.
    Silence,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sources called `f1`, `f2`, ... with these texts.
    fn sources(texts: &[&str]) -> Vec<(String, Vec<u8>)> {
        (1..).zip(texts).map(|(number, text)| (format!("f{number}"), text.as_bytes().to_vec())).collect()
    }

    /// Tables that are right.
    fn tables(texts: &[&str], miss: Miss) -> Tables {
        Tables::build(&sources(texts), 300, miss).expect("tables without errors")
    }

    fn word(answer: Answer<'_>) -> String {
        match answer {
            Answer::Records(rrset) => format!("{} {}", rrset.count, rrset.rtype),
            Answer::Nodata { authoritative: true } => "nodata".into(),
            Answer::Nodata { authoritative: false } => "nodata without aa".into(),
            Answer::Referral(referral) => {
                format!("referral {}+{}", referral.servers(), referral.glue())
            }
            Answer::Nxdomain => "nxdomain".into(),
            Answer::Refused => "refused".into(),
            Answer::Silence => "silence".into(),
        }
    }

    /// Looks a name up and compares the answer's word.
    #[track_caller]
    fn check(tables: &Tables, name: &str, qtype: RecordType, expected: &str) {
        let name: Name = name.parse().expect("a name");
        assert_eq!(word(tables.look_up(name.folded().as_wire(), qtype)), expected, "{name} {qtype}");
    }

    /// Hosts in one table.
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
        // The same octets as a host's tail, but inside a label.
        check(r"x\007example", RecordType::A, missed);
        // Above a host.
        let above = ["silence", "nodata without aa", "refused"];
        check("example", RecordType::A, above);
        check(".", RecordType::A, above);
        // What probes ask.
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
            // A server without an address line is no host.
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
        let ts1 = include_str!("../../zones/ts1.txt");
        let ts2 = include_str!("../../zones/ts2.txt");
        let referral = include_str!("../../zones/referral.txt");
        let [first, second] = [ts1, ts2].map(|text| tables(&[text], Miss::Silent));
        assert_eq!((first.hosts(), second.hosts()), (10, 12));
        check(&first, "www.princeton.edu", RecordType::A, "1 A");
        check(&first, "www.princeton.edu", RecordType::AAAA, "nodata");
        check(&first, "www.google.com", RecordType::A, "3 A");
        check(&second, "time.example.net", RecordType::A, "1 A");
        assert!(ts2.lines().count() > 1 && ts2.split_terminator('\n').rev().skip(1).all(|line| line.ends_with('\r')));
        assert!(!ts2.ends_with(['\r', '\n']));
        // No host is in both, and neither refers elsewhere.
        assert_eq!(tables(&[ts1, ts2], Miss::Silent).hosts(), 22);
        assert_eq!((first.name_servers(), second.name_servers()), (0, 0));
        check(&tables(&[ts1, referral], Miss::Silent), "nothinghere.com", RecordType::A, "referral 2+2");
    }
}
