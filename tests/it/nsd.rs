//! Against NSD: two servers with one zone, which holds every type of data that NSD knows and every shape of
//! tree, are asked the same, and say the same.
//!
//! Needs the program `nsd`, of Debian's package of that name; without it there is nothing to compare with.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use testkit::*;

/// Starts NSD with a zone, and waits until it answers; `None` if it is not installed.
fn start_nsd(zone: &str) -> Option<(Daemon, SocketAddr)> {
    let mut command = Command::new(need_program("answers beside those of NSD", "nsd")?);
    let address = free_address();
    let nsd = Daemon::start(|folder| {
        let path = folder.display();
        fs::write(folder.join("zone"), zone).expect("our own folder");
        let config = format!(
            "server:\n server-count: 1\n ip-address: 127.0.0.1@{port}\n username: \"\"\n chroot: \"\"\n zonesdir: \"{path}\"\n \
             database: \"\"\n pidfile: \"{path}/pid\"\n xfrdfile: \"{path}/xfrd\"\n xfrdir: \"{path}\"\n \
             zonelistfile: \"{path}/list\"\n minimal-responses: no\n rrl-ratelimit: 0\n rrl-whitelist-ratelimit: 0\n\
             remote-control:\n control-enable: no\nzone:\n name: \"example.org\"\n zonefile: \"{path}/zone\"\n",
            port = address.port(),
        );
        fs::write(folder.join("nsd.conf"), config).expect("our own folder");
        command.arg("-d").arg("-c").arg(folder.join("nsd.conf"));
        command
    });
    let client = Client::of(address);
    until("NSD answers", || client.try_ask(&query("example.org", SOA)));
    Some((nsd, address))
}

/// A response as it is compared: rcode and flags, and the sections as sets.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    head: (u16, bool, bool),
    /// Answer, authority and additional section without OPT, in lower case.
    sections: [BTreeSet<String>; 3],
}

impl Said {
    fn read(response: &Response) -> Self {
        let message = response.message();
        let lines = |records: &[hickory_proto::rr::Record]| {
            records.iter().map(|record| record.to_string().to_lowercase()).collect::<BTreeSet<_>>()
        };
        let sections = [lines(&message.answers), lines(&message.authorities), lines(&message.additionals)];
        Self { head: (response.rcode(), response.has(AA), response.has(TC)), sections }
    }

    /// Returns true if the response equals that of NSD, but for known differences.
    fn is(&self, other: &Self, rtype: u16) -> bool {
        // Which records went when not all fitted is for each server to choose; the client asks again by TCP.
        let is_cut = self.head.2 && other.head.2;
        let [answer, authority, additional] = &self.sections;
        let [other_answer, other_authority, other_additional] = &other.sections;
        // RFC 4035 section 3.1.4.1 speaks of signed zones. NSD leaves DS records out of the referrals of
        // others, where we give a client that wants them what there is.
        let is_due = |line: &&String| !line.contains(" in ds ") || other_authority.contains(*line);
        let authority: BTreeSet<_> = authority.iter().filter(is_due).collect();
        // NSD adds the name servers of the zone and their addresses to an answer, which the client does not
        // need.
        let servers = other_authority.iter().all(|line| line.starts_with("example.org. ") && line.contains(" in ns "));
        let is_extra = !answer.is_empty() && authority.is_empty() && servers;
        let is_wanted = |line: &&String| !line.starts_with("ns.example.org. ") || additional.contains(*line);
        let is_same_behind = if is_extra {
            HELPFUL.contains(&rtype) || additional.iter().eq(other_additional.iter().filter(is_wanted))
        } else {
            authority == other_authority.iter().collect() && additional == other_additional
        };
        let is_same = answer == other_answer && is_same_behind;
        self.head == other.head && (is_cut || is_same)
    }
}

#[test]
fn a_zone_of_every_type_is_answered_as_nsd_does() {
    let zone = include_str!("../nsd/example.org.zone");
    let Some((_nsd, address)) = start_nsd(zone) else { return };
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'z', origin = 'example.org' }]\n";
    let server = Server::start_with_files(config, &[("z", zone)]);
    let (ours, theirs) = (Client::of(server.listener("ts")), Client::of(address));
    let mut differences = Vec::new();
    let mut count = 0;
    for name in names(zone) {
        for rtype in types() {
            let plain = query(&name, rtype);
            for asked in [plain.clone(), plain.edns(4096).dnssec_ok()] {
                let (found, expected) = (Said::read(&ours.ask(&asked)), Said::read(&theirs.ask(&asked)));
                count += 1;
                if !found.is(&expected, rtype) {
                    differences.push(format!("{name} TYPE{rtype}\n  ours: {found:?}\n  NSD: {expected:?}"));
                }
            }
        }
    }
    assert!(count > 1000, "{count} questions");
    let first: Vec<_> = differences.iter().step_by(1 + differences.len() / 20).map(String::as_str).collect();
    assert!(differences.is_empty(), "{} of {count}\n{}", differences.len(), first.join("\n"));
}

/// The owners in the zone, and names below, beside and above them.
fn names(zone: &str) -> BTreeSet<String> {
    let owners = zone.lines().filter(|line| !line.starts_with([' ', ';', '$']));
    let owners = owners.filter_map(|line| line.split_whitespace().next());
    let mut names = BTreeSet::from(["org".to_owned(), "other.test".to_owned()]);
    for owner in owners {
        let full = if owner == "@" { "example.org".to_owned() } else { format!("{owner}.example.org") };
        names.extend([format!("below.{full}"), full]);
    }
    names.extend(
        ["a.b.example.org", "a.b.far.example.org", "a.b.out.example.org", "a.b.x.wild.example.org"].map(str::to_owned),
    );
    names.extend(["b.ent.example.org", "ent.example.org", "x.ent.example.org"].map(str::to_owned));
    names
}

/// Types that are asked for: all in the zone, and some that nothing has. ANY is left out, which each server
/// answers with what it likes (RFC 8482), and so is NSEC3, for which NSD follows no alias (RFC 5155 section
/// 7.2.8 has no owner of such a record be a name of the zone).
fn types() -> impl Iterator<Item = u16> {
    let all = (1..=64).chain([99, 104, 105, 106, 107, 108, 109, 256, 257, 1234, 65_280]);
    all.filter(|rtype| ![OPT, NSEC3].contains(rtype))
}

/// AFSDB, RT, SVCB: we add the addresses of the hosts that the first and the last point at (RFC 1183 section
/// 1, RFC 9460 section 4.1), NSD those of the second. A client asks for what it misses.
const HELPFUL: [u16; 3] = [18, 21, 64];

/// The type of the EDNS record, which is no data.
const OPT: u16 = 41;
/// Proof by hashed names.
const NSEC3: u16 = 50;
