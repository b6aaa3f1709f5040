//! Random small zones and queries, against a model of look-up that is slow, plain and obviously right: a list
//! of records, and the rules of RFC 1034 and RFC 4592 said over it as they stand there.

use std::collections::BTreeSet;

use crate::support::zones::*;
use proptest::prelude::*;

const APEX: &str = "z.";

/// One record: owner, type, RDATA.
type Record = (String, &'static str, String);

/// The content of a response: rcode, AA, the records of its sections.
type Said = (&'static str, bool, [BTreeSet<String>; 3]);

/// A zone as a list.
struct Model(Vec<Record>);

impl Model {
    /// The RDATA of a type at a name.
    fn data(&self, owner: &str, rtype: &str) -> Vec<&str> {
        let records = self.0.iter().filter(|(name, found, _)| name == owner && *found == rtype);
        records.map(|(_, _, rdata)| rdata.as_str()).collect()
    }

    /// Returns true if a type is at a name.
    fn has(&self, owner: &str, rtype: &str) -> bool {
        !self.data(owner, rtype).is_empty()
    }

    /// Returns true if a name exists: it, or one below it, owns records (RFC 4592 section 2.2.2).
    fn exists(&self, name: &str) -> bool {
        self.0.iter().any(|(owner, ..)| is_at_or_below(owner, name))
    }

    /// The source of synthesis of a name that does not exist, if it exists (RFC 4592 section 3.3.1).
    fn source(&self, name: &str) -> Option<String> {
        let encloser = ancestors(name).into_iter().skip(1).find(|above| self.exists(above))?;
        let wildcard = format!("*.{encloser}");
        self.exists(&wildcard).then_some(wildcard)
    }

    /// The first name from the apex down to this one that is a cut or has a DNAME record above the name.
    fn border(&self, name: &str, qtype: &str) -> Option<(String, bool)> {
        ancestors(name).into_iter().rev().find_map(|above| {
            let is_whole = above == name;
            if above != APEX && self.has(&above, "NS") && !(is_whole && qtype == "DS") {
                return Some((above, true));
            }
            (!is_whole && self.has(&above, "DNAME")).then_some((above, false))
        })
    }

    /// The answer to a question.
    fn answer(&self, qname: &str, qtype: &str) -> Said {
        let mut sections = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
        let mut met = BTreeSet::new();
        let mut name = qname.to_owned();
        let mut rcode = "NOERROR";
        while is_at_or_below(&name, APEX) {
            let source = match self.border(&name, qtype) {
                Some((cut, true)) => {
                    self.put(&mut sections[1], &cut, &cut, "NS");
                    self.put_hosts(&mut sections[2], &cut, "NS");
                    return (rcode, !met.is_empty(), sections);
                }
                Some((owner, false)) => {
                    if met.len() == 8 || !met.insert(owner.clone()) {
                        break;
                    }
                    self.put(&mut sections[0], &owner, &owner, "DNAME");
                    let target = self.data(&owner, "DNAME")[0];
                    let new = format!("{}{target}", name.strip_suffix(&owner).expect("it is below"));
                    sections[0].insert(format!("{name} 300 IN CNAME {new}"));
                    if qtype == "CNAME" || new == name {
                        break;
                    }
                    name = new;
                    continue;
                }
                None if self.exists(&name) => Some(name.clone()),
                None => self.source(&name),
            };
            let Some(source) = source else {
                rcode = "NXDOMAIN";
                self.put(&mut sections[1], APEX, APEX, "SOA");
                break;
            };
            if source != name && self.has(&source, "NS") && qtype != "DS" {
                self.put(&mut sections[1], &name, &source, "NS");
                self.put_hosts(&mut sections[2], &source, "NS");
                return (rcode, !met.is_empty(), sections);
            }
            if self.has(&source, qtype) {
                self.put(&mut sections[0], &name, &source, qtype);
                self.put_hosts(&mut sections[2], &source, qtype);
                break;
            }
            if !self.has(&source, "CNAME") {
                self.put(&mut sections[1], APEX, APEX, "SOA");
                break;
            }
            if met.len() == 8 || !met.insert(name.clone()) {
                break;
            }
            self.put(&mut sections[0], &name, &source, "CNAME");
            name = self.data(&source, "CNAME")[0].to_owned();
        }
        (rcode, true, sections)
    }

    /// Puts the records of a type at `source` into a section, under another name.
    fn put(&self, section: &mut BTreeSet<String>, owner: &str, source: &str, rtype: &str) {
        for rdata in self.data(source, rtype) {
            section.insert(format!("{owner} 300 IN {rtype} {rdata}"));
        }
    }

    /// Puts the addresses of the hosts that records point at into a section.
    fn put_hosts(&self, section: &mut BTreeSet<String>, owner: &str, rtype: &str) {
        let hosts = if rtype == "NS" { self.data(owner, rtype) } else { Vec::new() };
        for host in hosts.into_iter().filter(|host| is_at_or_below(host, APEX)) {
            if self.exists(host) {
                self.put(section, host, host, "A");
            } else if self.border(host, "A").is_none()
                && let Some(source) = self.source(host)
            {
                self.put(section, host, &source, "A");
            }
        }
    }
}

/// Returns true if a name is another, or below it.
fn is_at_or_below(name: &str, above: &str) -> bool {
    name == above || name.ends_with(&format!(".{above}"))
}

/// A name and what is above it, up to the apex.
fn ancestors(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    while names.last().is_some_and(|last| last != APEX) {
        let (_, above) = names.last().and_then(|last| last.split_once('.')).expect("the apex is above");
        names.push(above.to_owned());
    }
    names
}

/// A name in the zone: up to four labels of few.
fn any_name() -> impl Strategy<Value = String> {
    let label = prop_oneof![3 => Just("a"), 3 => Just("b"), 2 => Just("*")];
    prop::collection::vec(label, 0..4)
        .prop_map(|labels| labels.iter().map(|label| format!("{label}.")).collect::<String>() + APEX)
}

/// A strategy for the records of one name of a zone.
fn any_data() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let target = || prop_oneof![5 => any_name(), 1 => Just("elsewhere.".to_owned())];
    let address = (0..4_u8).prop_map(|last| ("A", format!("192.0.2.{last}")));
    let text = (0..4_u8).prop_map(|number| ("TXT", format!("\"{number}\"")));
    prop_oneof![
        3 => prop::collection::vec(prop_oneof![address, text], 1..4),
        2 => target().prop_map(|target| vec![("CNAME", target)]),
        1 => target().prop_map(|target| vec![("DNAME", target)]),
        2 => prop::collection::vec(target().prop_map(|target| ("NS", target)), 1..3),
    ]
}

/// The records of a zone that is right: what names own, but for the apex, which has no alias, and for what is
/// below a DNAME record.
fn any_zone() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::btree_map(any_name(), any_data(), 0..10).prop_map(|names| {
        let has_dname =
            |name: &String| names.get(name).is_some_and(|data| data.iter().any(|(rtype, _)| *rtype == "DNAME"));
        let apex = [("SOA", "s.z. h.z. 1 2 3 4 300"), ("NS", "ns.elsewhere.")];
        let apex = apex.into_iter().map(|(rtype, rdata)| (APEX.to_owned(), rtype, rdata.to_owned()));
        let rest = names.iter().filter(|(name, data)| {
            let is_below_dname = ancestors(name).iter().skip(1).any(has_dname);
            !(is_below_dname || *name == APEX && data[0].0 == "CNAME")
        });
        let rest = rest.flat_map(|(name, data)| {
            let data: BTreeSet<_> = data.iter().cloned().collect();
            data.into_iter().map(|(rtype, rdata)| (name.clone(), rtype, rdata))
        });
        apex.chain(rest).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Every zone answers every question as its list of records does.
    #[test]
    fn zones_answer_as_the_model_does(
        records in any_zone(),
        questions in prop::collection::vec((any_name(), prop::sample::select(vec!["A", "TXT", "NS", "CNAME", "DNAME", "DS"])), 1..20),
    ) {
        let lines: String =
            records.iter().map(|(owner, rtype, rdata)| format!("{owner} 300 IN {rtype} {rdata}\n")).collect();
        let zone_db = zone_db(&[&lines]);
        let model = Model(records);
        for (qname, qtype) in questions {
            let response = asked(&qname, qtype).by_tcp().of(&zone_db);
            let (rcode, authoritative, sections) = model.answer(&qname, qtype);
            let found: [BTreeSet<String>; 3] = [0, 1, 2].map(|section| response.set(section).into_iter().map(str::to_owned).collect());
            prop_assert_eq!(&found, &sections, "{} {}\n{}", qname, qtype, lines);
            prop_assert_eq!(response.rcode().to_string(), rcode, "{} {}\n{}", qname, qtype, lines);
            prop_assert_eq!(response.flags(), if authoritative { "QR AA" } else { "QR" }, "{} {}\n{}", qname, qtype, lines);
            let lines_of = |section: usize| response.sections[section].len();
            prop_assert_eq!([0, 1, 2].map(lines_of), [0, 1, 2].map(|section| sections[section].len()), "nothing twice");
        }
    }
}
