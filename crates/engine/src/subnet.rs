//! Client subnets (RFC 7871): the network that a query to backends carries, and the place of its answers in
//! the cache.
//!
//! A pool with `client_subnet` keeps several answers to one question, each for the network that the SCOPE
//! PREFIX-LENGTH of its reply gives. A look-up tries the scopes that replies of this pool have had, from the
//! longest. Answers to queries without a network are apart: the server chose them for hedgerow itself.
//!
//! ```text
//!   query with a network:     its whole prefix, then each known shorter scope, then scope 0
//!   query without a network:  the answers of such queries, then scope 0
//! ```

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use config::ClientSubnetRule;
use dns::{ClientSubnet, QuestionHasher, Reply};

use crate::cache::PoolId;

/// The network that a query to backends carries, with a hash that clients cannot foresee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentSubnet {
    pub(super) subnet: ClientSubnet,
    hash: u64,
}

impl SentSubnet {
    /// Returns the network for backends of a client at this address, which sent this option or none.
    pub(super) fn choose(
        rule: ClientSubnetRule,
        own: Option<ClientSubnet>,
        client: IpAddr,
        hasher: &QuestionHasher,
    ) -> Option<Self> {
        let subnet = match rule {
            ClientSubnetRule::Strip => None,
            ClientSubnetRule::Pass => own,
            ClientSubnetRule::Prefix { ipv4, ipv6 } => match own {
                // RFC 7871 section 7.1.2: the client wants its address to stay private.
                Some(own) if own.source() == 0 => Some(own),
                Some(own) if own.is_private() => None,
                Some(own) => Some(own.cut(if own.is_ipv6() { ipv6 } else { ipv4 })),
                None if dns::is_private(client) => None,
                None => Some(ClientSubnet::of_address(client, ipv4, ipv6)),
            },
        };
        subnet.map(|subnet| Self { subnet, hash: hasher.hash_one(subnet) })
    }

    /// Returns the bits that distinguish races for one question.
    pub(super) fn mark(sent: Option<&Self>) -> u64 {
        sent.map_or(0, |sent| sent.hash)
    }

    /// Returns true if a reply may answer a query with this network: it repeats the network or has none.
    pub(super) fn is_of(&self, reply: &Reply<'_>) -> bool {
        match ClientSubnet::of_reply(reply.edns().as_ref()) {
            Ok(Some((subnet, _))) => self.subnet.is_repeated_by(&subnet),
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

/// Returns the scope of a reply. RFC 7871 section 7.3: a reply without the option has scope 0.
pub(super) fn scope(reply: &Reply<'_>) -> u8 {
    ClientSubnet::of_reply(reply.edns().as_ref()).ok().flatten().map_or(0, |(_, scope)| scope)
}

/// The scopes of a pool's replies so far, shared by all workers.
#[derive(Debug)]
pub(crate) struct SubnetScopes {
    /// Distinguishes the answers of earlier settings.
    number: AtomicU64,
    /// For IPv4 and IPv6, a bit for each scope by [`step`].
    seen: [AtomicU64; 2],
}

/// The place of an answer in the cache: the cache's ID, and the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubnetPlace {
    pub(super) pool: PoolId,
    pub(super) scope: u8,
}

impl SubnetScopes {
    pub(super) fn new() -> Self {
        Self { number: AtomicU64::new(next_number()), seen: Default::default() }
    }

    /// Makes all answers of earlier settings unreachable.
    pub(super) fn renew(&self) {
        self.number.store(next_number(), Relaxed);
    }

    /// Returns the place of a reply with this scope. A scope longer than the network of the query counts as
    /// that (RFC 7871 section 7.3.1).
    pub(super) fn keep(
        &self,
        pool: PoolId,
        sent: Option<&SentSubnet>,
        scope: u8,
        hasher: &QuestionHasher,
    ) -> SubnetPlace {
        let Some(sent) = has_prefix(sent) else { return SubnetPlace { pool, scope: 0 } };
        let (unit, source) = (unit(sent), sent.source());
        let scope = scope.next_multiple_of(unit).min(source);
        if scope < source {
            self.seen(sent).fetch_or(1 << step(scope, unit), Relaxed);
        }
        self.place(pool, sent, scope, hasher)
    }

    /// Returns the places where an answer to a query may be, the best first.
    pub(super) fn places<'a>(
        &'a self,
        pool: PoolId,
        sent: Option<&'a SentSubnet>,
        hasher: &'a QuestionHasher,
    ) -> impl Iterator<Item = SubnetPlace> + 'a {
        let none = ClientSubnet::of_address(IpAddr::from([0; 4]), 0, 0);
        let sent = has_prefix(sent);
        let own = if sent.is_none() { Some(SubnetPlace { pool, scope: 0 }) } else { None };
        let subnet = sent.copied().unwrap_or(none);
        let (unit, source) = (unit(&subnet), subnet.source());
        let seen = self.seen(&subnet).load(Relaxed) | 1;
        let shorter = (0..step(source, unit)).rev().filter(move |step| seen & 1 << step != 0);
        let scopes = std::iter::once(source).chain(shorter.map(move |step| step as u8 * unit));
        own.into_iter().chain(scopes.map(move |scope| self.place(pool, &subnet, scope, hasher)))
    }

    fn seen(&self, subnet: &ClientSubnet) -> &AtomicU64 {
        &self.seen[usize::from(subnet.is_ipv6())]
    }

    fn place(&self, pool: PoolId, subnet: &ClientSubnet, scope: u8, hasher: &QuestionHasher) -> SubnetPlace {
        let number = self.number.load(Relaxed);
        // Scope 0 is one answer for clients of both families.
        let prefix = (scope > 0).then(|| subnet.cut(scope));
        // The hash is secret: no client can find two networks that share answers.
        SubnetPlace { pool: PoolId(hasher.hash_one((pool.0, number, prefix))), scope }
    }
}

fn has_prefix(sent: Option<&SentSubnet>) -> Option<&ClientSubnet> {
    sent.map(|sent| &sent.subnet).filter(|subnet| subnet.source() > 0)
}

/// Returns the scopes that share a bit: a longer scope than that of the reply is always right.
fn unit(subnet: &ClientSubnet) -> u8 {
    if subnet.is_ipv6() { 4 } else { 1 }
}

fn step(scope: u8, unit: u8) -> u32 {
    u32::from(scope.div_ceil(unit))
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

#[cfg(test)]
mod tests {
    use dns::HashSeed;

    use super::*;

    const POOL: PoolId = PoolId(7);

    fn hasher() -> QuestionHasher {
        HashSeed([1, 2]).question_hasher()
    }

    fn sent(address: &str, length: u8) -> SentSubnet {
        let subnet = ClientSubnet::of_address(address.parse().expect("an address"), length, length);
        SentSubnet::choose(ClientSubnetRule::Pass, Some(subnet), IpAddr::from([127, 0, 0, 1]), &hasher()).expect("one")
    }

    #[test]
    fn the_network_for_backends_depends_on_rule_option_and_address() {
        let of = |address: &str, length| Some(sent(address, length).subnet);
        let rule = ClientSubnetRule::Prefix { ipv4: 24, ipv6: 56 };
        for (rule, own, client, expected) in [
            (ClientSubnetRule::Strip, of("192.0.2.0", 24), "192.0.2.1", None),
            (ClientSubnetRule::Pass, None, "192.0.2.1", None),
            (ClientSubnetRule::Pass, of("10.0.0.1", 32), "192.0.2.1", of("10.0.0.1", 32)),
            (rule, None, "192.0.2.1", of("192.0.2.0", 24)),
            (rule, None, "2001:db8::1", of("2001:db8::", 56)),
            (rule, None, "::ffff:192.0.2.1", of("192.0.2.0", 24)),
            (rule, None, "10.0.0.1", None),
            (rule, None, "fd00::1", None),
            (rule, of("198.51.100.7", 32), "10.0.0.1", of("198.51.100.0", 24)),
            (rule, of("198.51.0.0", 16), "10.0.0.1", of("198.51.0.0", 16)),
            (rule, of("0.0.0.0", 0), "192.0.2.1", of("0.0.0.0", 0)),
            (rule, of("10.0.0.0", 8), "192.0.2.1", None),
        ] {
            let chosen = SentSubnet::choose(rule, own, client.parse().expect("an address"), &hasher());
            assert_eq!(chosen.map(|sent| sent.subnet), expected, "{rule:?} {own:?} {client}");
        }
    }

    #[test]
    fn an_answer_is_found_for_its_scope_and_for_no_other_network() {
        for (kept, scope, looked, is_found) in [
            (("192.0.2.1", 24), 24, ("192.0.2.9", 24), true),
            (("192.0.2.1", 24), 24, ("192.0.3.1", 24), false),
            (("192.0.2.1", 24), 32, ("192.0.2.9", 24), true),
            (("192.0.2.1", 24), 16, ("192.0.3.1", 24), true),
            (("192.0.2.1", 24), 16, ("192.1.2.1", 24), false),
            (("192.0.2.1", 24), 0, ("198.51.100.1", 24), true),
            (("192.0.2.1", 24), 0, ("2001:db8::", 56), true),
            (("192.0.2.1", 24), 24, ("192.0.2.1", 16), false),
            (("2001:db8::", 56), 56, ("2001:db8:0:ff::", 56), true),
            (("2001:db8::", 56), 47, ("2001:db8:0:ffff::", 56), true),
            (("2001:db8::", 56), 47, ("2001:db8:1::", 56), false),
            (("2001:db8::", 57), 60, ("2001:db8::", 57), true),
        ] {
            let scopes = SubnetScopes::new();
            let place = scopes.keep(POOL, Some(&sent(kept.0, kept.1)), scope, &hasher());
            let looked = sent(looked.0, looked.1);
            let found: Vec<_> = scopes.places(POOL, Some(&looked), &hasher()).filter(|other| *other == place).collect();
            assert_eq!(found.len(), usize::from(is_found), "{kept:?} {scope} {looked:?}");
            scopes.renew();
            assert!(!scopes.places(POOL, Some(&looked), &hasher()).any(|other| other == place), "of earlier settings");
        }
    }

    #[test]
    fn queries_without_a_network_share_scope_0_and_have_answers_of_their_own() {
        let scopes = SubnetScopes::new();
        let own = scopes.keep(POOL, None, 24, &hasher());
        assert_eq!(own, SubnetPlace { pool: POOL, scope: 0 });
        assert_eq!(scopes.keep(POOL, Some(&sent("192.0.2.1", 0)), 0, &hasher()), own);
        let for_all = scopes.keep(POOL, Some(&sent("192.0.2.1", 24)), 0, &hasher());
        assert_eq!(scopes.places(POOL, None, &hasher()).collect::<Vec<_>>(), [own, for_all]);
        let with_network = sent("192.0.2.1", 24);
        assert!(!scopes.places(POOL, Some(&with_network), &hasher()).any(|place| place == own));
        assert_eq!(scopes.places(POOL, Some(&with_network), &hasher()).count(), 2, "the whole prefix and scope 0");
    }
}
