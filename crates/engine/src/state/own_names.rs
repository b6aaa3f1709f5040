//! The names that the forwarder answers itself, and the target of a name: local names, special names, and
//! routes, in this order.

use std::sync::Arc;

use config::PoolIndex;
use dns::{
    ClientForm, Cookie, HEADER_LEN, LocalRecord, LocalResponse, LocalSoa, Name, Query, Rcode, RecordClass, RecordType,
    Transport, fold, local_soa_rdata, write_local,
};

use super::local_names::LocalNames;
use super::special_names::{SpecialZone, SpecialZones, ZoneContent, may_be_special};
use super::{ForwarderState, ResolverArpa};

/// The names that the forwarder answers itself.
#[derive(Clone, Debug, Default)]
pub struct OwnNames {
    /// The hosts of the config and of hosts files.
    pub local: Arc<LocalNames>,
    pub(super) special: SpecialZones,
    pub(super) resolver_arpa: ResolverArpa,
}

/// The target of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The backends of this pool.
    Pool(PoolIndex),
    /// The forwarder itself: see [`ForwarderState::respond_own`].
    Own,
    /// No pool answers for the name.
    NoPool,
}

impl ForwarderState {
    /// Returns the target of a folded name in wire form.
    #[inline]
    pub fn resolve(&self, qname: &[u8], qtype: RecordType) -> Target {
        let OwnNames { local, special, .. } = &self.own;
        if local.has(qname) || may_be_special(qname) && special.find(qname, qtype, &self.routes).is_some() {
            return Target::Own;
        }
        self.routes.find(qname).map_or(Target::NoPool, Target::Pool)
    }

    /// Describes the source of the answer for a folded name that the forwarder answers itself.
    pub fn own_source(&self, qname: &[u8], qtype: RecordType) -> &'static str {
        match self.own.special.find(qname, qtype, &self.routes) {
            _ if self.own.local.has(qname) => "[forwarder.names] or a file of hosts_files has the name",
            Some((_, SpecialZone { content: ZoneContent::Resolver, .. })) => {
                "the forwarder answers for resolver.arpa itself (RFC 9462), as no route names it"
            }
            Some(_) | None => "the forwarder answers for this special name itself, as no route names it",
        }
    }

    /// Writes the response to a query that [`resolve`](Self::resolve) finds to be `Own`, and returns its
    /// rcode. Returns `None` if there is no response.
    pub fn respond_own(
        &self,
        (message, query): (&[u8], &Query<'_>),
        cookie: Option<&Cookie>,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Option<Rcode> {
        let by_zone =
            |out| self.own.resolver_arpa.respond((message, query), cookie, transport, self.edns_udp_size, out);
        if query.question.qclass() != RecordClass::IN {
            // REFUSED: the forwarder has no data of another class.
            return by_zone(out);
        }
        let mut folded = [0; Name::MAX_LEN];
        let (qname, qtype) = (query.question.qname(), query.question.qtype());
        let qname = folded.get_mut(..qname.len()).map(|place| {
            place.copy_from_slice(qname);
            fold(place);
            &*place
        })?;
        let form = ClientForm::of(query).with_cookie(cookie.copied());
        let limit = form.limit(transport, self.edns_udp_size);
        let mut write = |exists: bool, soa: LocalSoa<'_>, records: &mut dyn Iterator<Item = LocalRecord<'_>>| {
            let mut records = records.peekable();
            let soa = records.peek().is_none().then_some(soa);
            let rcode = if exists { Rcode::NOERROR } else { Rcode::NXDOMAIN };
            let response = LocalResponse { is_authoritative: true, soa, ..LocalResponse::new(rcode) };
            write_local(query.question.as_wire(), &form, &response, records, (self.edns_udp_size, limit), out);
            Some(rcode)
        };
        if let Some(host) = self.own.local.get(qname) {
            return write(true, LocalSoa { owner: qname, ttl: LocalNames::TTL }, &mut host.records(qtype));
        }
        let (apex, zone) = self.own.special.find(qname, qtype, &self.routes)?;
        if zone.content == ZoneContent::Resolver {
            return by_zone(out);
        }
        let is_apex = qname.len() == apex.len();
        let records = zone.content.records(qname);
        let soa = local_soa_rdata(SpecialZones::TTL);
        // RFC 6303 section 3: each zone has an SOA and an NS record, whose names are that of the zone.
        let at_apex: [(RecordType, &[u8]); 2] = [(RecordType::SOA, &soa), (RecordType::NS, &NAME_OF_QUERY)];
        let at_apex = if is_apex && zone.content != ZoneContent::Localhost { &at_apex[..] } else { &[] };
        // RFC 8020: a name above another one exists.
        let exists = records.is_some() || is_apex || self.own.local.has_below(qname);
        let records = records.unwrap_or_default().iter().chain(at_apex);
        let records = records.filter(|(rtype, _)| *rtype == qtype || qtype == RecordType::ANY);
        let record = |&(rtype, rdata): &(RecordType, _)| LocalRecord { rtype, ttl: SpecialZones::TTL, rdata };
        write(exists, LocalSoa { owner: apex, ttl: SpecialZones::TTL }, &mut records.map(record))
    }
}

/// A compression pointer to the name in the question, behind the header (RFC 1035 section 4.1.4).
const NAME_OF_QUERY: [u8; 2] = [0xC0, HEADER_LEN as u8];

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use config::Config;
    use dns::{Header, Message, Section, read_query};

    use super::*;

    /// Makes the state of a forwarder with these keys and one backend in the pool of the root.
    fn state(keys: &str, backend: &str) -> ForwarderState {
        let config = format!("[forwarder]\n{keys}\n[pools.p]\nbackends = [\"{backend}\"]\n");
        let config = Config::parse(&config, "c.toml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}"));
        ForwarderState::new(&config, None, None, None, 1, Instant::now()).expect("there is a forwarder")
    }

    const PUBLIC: &str = "192.0.2.1:53";

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn target(state: &ForwarderState, qname: &str) -> Target {
        state.resolve(name(qname).as_wire(), RecordType::A)
    }

    /// Returns the rcode, the data of the answer records, and the owner of the SOA record in authority.
    fn ask(state: &ForwarderState, qname: &str, qtype: RecordType) -> (Rcode, Vec<Vec<u8>>, Option<String>) {
        let qname = name(qname);
        let question = [qname.as_wire(), &qtype.0.to_be_bytes(), &[0, 1]].concat();
        let message = [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &question].concat();
        let query = read_query(&message).expect("a query");
        assert_eq!(state.resolve(qname.folded().as_wire(), qtype), Target::Own, "{qname}");
        let mut out = Vec::new();
        let rcode = state.respond_own((&message, &query), None, Transport::Udp, &mut out).expect("a response");
        let header = Header::read(&out).expect("a header");
        assert!(header.is_authoritative() && header.recursion_available(), "{qname}");
        assert_eq!(header.rcode(), rcode);
        let message = Message::read(&out).expect("a sound response");
        let all: Vec<_> = message.records().map(|record| record.expect("a sound record")).collect();
        let records = |section| all.iter().filter(move |record| record.section == section);
        let answers = records(Section::Answer).map(|record| record.rdata.to_vec()).collect();
        let soa = records(Section::Authority).next().map(|record| record.owner.to_string());
        (rcode, answers, soa)
    }

    #[test]
    fn resolver_arpa_is_our_own_unless_a_route_names_it() {
        let check = |suffixes: &[&str], expected: &[(&str, Target)]| {
            let pool = |place: usize| format!("[pools.p{place}]\nbackends = [\"192.0.2.1:53\"]\n");
            let routes = suffixes.iter().enumerate().map(|(pool, suffix)| format!("\"{suffix}\" = \"p{pool}\"\n"));
            let pools: String = (0..suffixes.len()).map(pool).collect();
            let config = format!("[forwarder.routes]\n{}{pools}", routes.collect::<String>());
            let config = Config::parse(&config, "c.toml", Path::new("")).expect("a sound config");
            let state = ForwarderState::new(&config, None, None, None, 1, Instant::now()).expect("a forwarder");
            for (qname, expected) in expected {
                assert_eq!(target(&state, qname), *expected, "{qname} by {suffixes:?}");
            }
        };
        let [zero, one] = [0, 1].map(|pool| Target::Pool(PoolIndex(pool)));
        check(
            &["."],
            &[
                ("resolver.arpa", Target::Own),
                ("_dns.resolver.arpa", Target::Own),
                ("a.b.resolver.arpa", Target::Own),
                ("arpa", zero),
                ("badresolver.arpa", zero),
                // A single label that ends with the same bytes.
                ("a\\008resolver.arpa", zero),
                ("resolver.arpa.example", zero),
            ],
        );
        check(&["example"], &[("resolver.arpa", Target::Own), ("arpa", Target::NoPool)]);
        check(&[".", "arpa"], &[("_dns.resolver.arpa", Target::Own), ("arpa", one)]);
        check(&[".", "Resolver.ARPA"], &[("_dns.resolver.arpa", one), ("resolver.arpa", one)]);
        check(&[".", "_dns.resolver.arpa"], &[("_dns.resolver.arpa", one), ("resolver.arpa", Target::Own)]);
        check(&["home.arpa"], &[("nas.home.arpa", zero), ("local", Target::Own), ("x.localhost", Target::Own)]);
        check(&["a.local"], &[("local", Target::NoPool), ("home.arpa", Target::Own)]);
        check(&["*.in-addr.arpa"], &[("1.0.0.127.in-addr.arpa", zero), ("1.e.f.ip6.arpa", Target::NoPool)]);
    }

    #[test]
    fn zones_of_private_networks_go_to_backends_that_may_know_them() {
        let private =
            ["1.0.0.10.in-addr.arpa", "1.31.172.in-addr.arpa", "168.192.in-addr.arpa", "127.100.in-addr.arpa"];
        let private = [&private[..], &["1.d.f.ip6.arpa", "nas.home.arpa", "printer.local"]].concat();
        let public = ["localhost", "a.invalid", "a.onion", "1.0.0.127.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"];
        let forwarded =
            ["test", "32.172.in-addr.arpa", "63.100.in-addr.arpa", "11.in-addr.arpa", "arpa", "c.f.ip6.arpa"];
        let check = |keys: &str, backend: &str, has_private: bool, has_public: bool| {
            let state = state(keys, backend);
            for (names, is_own) in [(&private[..], has_private), (&public, has_public), (&forwarded, false)] {
                for qname in names {
                    assert_eq!(target(&state, qname) == Target::Own, is_own, "{qname} with {keys} and {backend}");
                }
            }
        };
        check("", PUBLIC, true, true);
        check("", "[2001:db8::1]:53", true, true);
        for near in ["127.0.0.1:53", "10.0.0.1:53", "100.64.0.1:53", "169.254.1.1:53", "[fd00::1]:53", "[::1]:53"] {
            check("special_names = \"auto\"", near, false, true);
        }
        check("special_names = true", "10.0.0.1:53", true, true);
        check("special_names = false", PUBLIC, false, false);
    }

    #[test]
    fn members_that_come_and_go_decide_anew() {
        let state = state("", PUBLIC);
        let members = |backend: &str| {
            let mut pool = state.pools[0].config.clone();
            pool.backends =
                vec![config::BackendConfig::at(backend.parse::<std::net::SocketAddr>().expect("an address"))];
            state.with_pools(&[pool], 1, Instant::now())
        };
        assert_eq!(target(&members("10.0.0.1:53"), "nas.home.arpa"), Target::Pool(PoolIndex(0)));
        assert_eq!(target(&members("192.0.2.2:53"), "nas.home.arpa"), Target::Own);
    }

    #[test]
    fn special_names_have_the_answers_of_their_rfc() {
        let state = state("", PUBLIC);
        let nothing = Vec::<Vec<u8>>::new();
        let localhost = b"\x09localhost\0".to_vec();
        let loopback = [&[0; 15][..], &[1]].concat();
        let numbers = [1, 3600, 1200, 604_800, 300].map(u32::to_be_bytes).concat();
        let soa = [b"\x07invalid\0\x06nobody\x07invalid\0", &numbers[..]].concat();
        let reverse = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa";
        for (qname, qtype, rcode, answers, soa) in [
            ("localhost", RecordType::A, Rcode::NOERROR, vec![vec![127, 0, 0, 1]], None),
            ("A.LocalHost", RecordType::AAAA, Rcode::NOERROR, vec![loopback], None),
            ("a.localhost", RecordType::MX, Rcode::NOERROR, nothing.clone(), Some("localhost.")),
            ("1.0.0.127.in-addr.arpa", RecordType::PTR, Rcode::NOERROR, vec![localhost.clone()], None),
            ("1.0.0.127.in-addr.arpa", RecordType::A, Rcode::NOERROR, nothing.clone(), Some("127.in-addr.arpa.")),
            ("0.127.in-addr.arpa", RecordType::A, Rcode::NOERROR, nothing.clone(), Some("127.in-addr.arpa.")),
            ("2.0.0.127.in-addr.arpa", RecordType::PTR, Rcode::NXDOMAIN, nothing.clone(), Some("127.in-addr.arpa.")),
            (reverse, RecordType::PTR, Rcode::NOERROR, vec![localhost], None),
            (reverse, RecordType::NS, Rcode::NOERROR, vec![name(reverse).as_wire().to_vec()], None),
            ("a.b.onion", RecordType::A, Rcode::NXDOMAIN, nothing.clone(), Some("onion.")),
            ("onion", RecordType::A, Rcode::NOERROR, nothing.clone(), Some("onion.")),
            ("invalid", RecordType::SOA, Rcode::NOERROR, vec![soa], None),
            ("1.10.in-addr.arpa", RecordType::PTR, Rcode::NXDOMAIN, nothing, Some("10.in-addr.arpa.")),
        ] {
            assert_eq!(ask(&state, qname, qtype), (rcode, answers, soa.map(str::to_owned)), "{qname} {qtype}");
        }
        assert_eq!(ask(&state, "10.in-addr.arpa", RecordType::ANY).1.len(), 2);
        // The parent zone has the DS records, and the root zone has none of these.
        assert_eq!(state.resolve(name("10.in-addr.arpa").as_wire(), RecordType::DS), Target::Pool(PoolIndex(0)));
        assert_eq!(state.resolve(name("onion").as_wire(), RecordType::DS), Target::Own);
    }

    #[test]
    fn local_names_come_before_special_names_and_keep_names_above_alive() {
        let mut local = LocalNames::default();
        local.add(&[name("nas.lan.home.arpa"), name("localhost")], [192, 168, 1, 10].into()).expect("there is room");
        let state = state("", PUBLIC).with_local_names(Arc::new(local.finish()));
        let address = vec![vec![192, 168, 1, 10]];
        assert_eq!(ask(&state, "NAS.lan.home.arpa", RecordType::A), (Rcode::NOERROR, address.clone(), None));
        assert_eq!(ask(&state, "localhost", RecordType::A), (Rcode::NOERROR, address, None));
        let nodata = |soa: &str| (Rcode::NOERROR, Vec::new(), Some(soa.to_owned()));
        assert_eq!(ask(&state, "nas.lan.home.arpa", RecordType::MX), nodata("nas.lan.home.arpa."));
        assert_eq!(ask(&state, "lan.home.arpa", RecordType::A), nodata("home.arpa."));
        assert_eq!(ask(&state, "1.168.192.in-addr.arpa", RecordType::PTR), nodata("168.192.in-addr.arpa."));
        assert_eq!(ask(&state, "x.lan.home.arpa", RecordType::A).0, Rcode::NXDOMAIN);
    }
}
