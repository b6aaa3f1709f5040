//! The reaction of a scripted backend to a query: nothing, or one or more datagrams, now, later, or on
//! release. Scripts are built from smaller ones: `servfail().then(answer("192.0.2.1").held())`.

use std::time::Duration;

use crate::Seen;
use crate::message::*;

/// Decides what is sent for each query in turn.
pub struct Script(Box<Reaction>);

type Reaction = dyn FnMut(&Seen) -> Vec<Sending> + Send;

/// One message on its way out of a backend.
pub struct Sending {
    /// The message.
    pub bytes: Vec<u8>,
    pub(crate) when: When,
    /// The source address of the message.
    pub(crate) source: Source,
}

/// The time at which a message leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// At once.
    Now,
    /// So much later.
    After(Duration),
    /// At `Backend::release`.
    Released,
}

/// The source address of a datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// The address that was asked, as it should be.
    Asked,
    /// The backend's address, from another port.
    OtherPort,
    /// Another address, the same port.
    OtherAddress,
}

impl Script {
    /// Sends the bytes that `react` returns for a query at once.
    pub fn new(mut react: impl FnMut(&Seen) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let send = |bytes| Sending { bytes, when: When::Now, source: Source::Asked };
        Self(Box::new(move |seen| react(seen).map(send).into_iter().collect()))
    }

    /// Sends the datagrams that `react` returns for each query.
    pub fn each_of(react: impl FnMut(&Seen) -> Vec<Sending> + Send + 'static) -> Self {
        Self(Box::new(react))
    }

    /// Returns the datagrams to send for this query.
    pub fn react(&mut self, seen: &Seen) -> Vec<Sending> {
        (self.0)(seen)
    }

    /// Delays each message by this time.
    pub fn after(self, delay: Duration) -> Self {
        self.each(move |sending| sending.when = When::After(delay))
    }

    /// Holds each message until `Backend::release`.
    pub fn held(self) -> Self {
        self.each(|sending| sending.when = When::Released)
    }

    /// Sends each message from another source.
    pub fn sent_from(self, source: Source) -> Self {
        self.each(move |sending| sending.source = source)
    }

    /// Changes the bytes of each message.
    pub fn edited(self, edit: impl Fn(&mut Vec<u8>) + Send + 'static) -> Self {
        self.each(move |sending| edit(&mut sending.bytes))
    }

    /// Adds cookies for clients that ask for them (RFC 7873): the client's own and this one.
    pub fn giving_cookie(mut self, server: &'static [u8]) -> Self {
        Self(Box::new(move |seen| {
            let mut sendings = self.react(seen);
            if let Some(cookie) = seen.cookie() {
                let data = [&cookie[..8], server].concat();
                sendings.iter_mut().for_each(|sending| add_option(&mut sending.bytes, COOKIE, &data));
            }
            sendings
        }))
    }

    /// This for the first query, `other` for all that follow.
    pub fn then(mut self, mut other: Self) -> Self {
        let mut first = true;
        Self(Box::new(move |seen| {
            let script = if std::mem::take(&mut first) { &mut self } else { &mut other };
            script.react(seen)
        }))
    }

    /// This and `other` for each query.
    pub fn and(mut self, mut other: Self) -> Self {
        Self(Box::new(move |seen| {
            let mut sendings = self.react(seen);
            sendings.extend(other.react(seen));
            sendings
        }))
    }

    /// `other` for names that begin with `label`, this for the rest.
    pub fn except(mut self, label: &'static str, mut other: Self) -> Self {
        Self(Box::new(move |seen| {
            let its = seen.name().split('.').next() == Some(label);
            if its { other.react(seen) } else { self.react(seen) }
        }))
    }

    /// This over UDP, `other` over TCP.
    pub fn by_tcp(mut self, mut other: Self) -> Self {
        Self(Box::new(move |seen| if seen.tcp { other.react(seen) } else { self.react(seen) }))
    }

    /// Applies a change to each message.
    fn each(mut self, change: impl Fn(&mut Sending) + Send + 'static) -> Self {
        Self(Box::new(move |seen| {
            let mut sendings = self.react(seen);
            sendings.iter_mut().for_each(&change);
            sendings
        }))
    }
}

/// Whatever `build` makes of the plain reply.
pub fn reply(build: impl Fn(Reply) -> Reply + Send + 'static) -> Script {
    Script::new(move |seen| Some(build(reply_to(&seen.bytes)).to_vec()))
}

/// The cookie of the query was not good (RFC 7873 section 5.2.3).
pub fn badcookie() -> Script {
    reply(|reply| reply.rcode(BADCOOKIE))
}

/// Never a word (but to probes).
pub fn silent() -> Script {
    Script::new(|_| None)
}

/// An authoritative answer: this address, whatever was asked.
pub fn answer(address: &'static str) -> Script {
    reply(move |reply| reply.with_flags(AA).answer(a(address)))
}

/// Answers with this address and this TTL.
pub fn answer_for(seconds: u32, address: &'static str) -> Script {
    reply(move |reply| reply.with_flags(AA).answer(a(address).lasting(seconds)))
}

/// Nothing but an rcode.
pub fn rcode(rcode: u16) -> Script {
    reply(move |reply| reply.rcode(rcode))
}

/// SERVFAIL, and nothing else.
pub fn servfail() -> Script {
    rcode(SERVFAIL)
}

/// From an authority, with the SOA record that goes with it.
pub fn nxdomain() -> Script {
    nxdomain_for(60)
}

/// Answers NXDOMAIN with this negative TTL.
pub fn nxdomain_for(seconds: u32) -> Script {
    reply(move |reply| reply.rcode(NXDOMAIN).with_flags(AA).authority(soa().lasting(seconds)))
}

/// NODATA from an authority.
pub fn nodata_authoritative() -> Script {
    nodata_for(60)
}

/// Answers NODATA with this negative TTL.
pub fn nodata_for(seconds: u32) -> Script {
    reply(move |reply| reply.with_flags(AA).authority(soa().lasting(seconds)))
}

/// NODATA from something that is no authority.
pub fn nodata() -> Script {
    reply(|reply| reply.authority(soa()))
}

/// A referral to `ns.elsewhere.example`, with glue.
pub fn referral() -> Script {
    reply(|reply| {
        reply.authority(record(".", NS, &wire_name("ns.elsewhere.example"))).additional(record(
            "ns.elsewhere.example",
            A,
            &ipv4("192.0.2.53"),
        ))
    })
}

/// TC=1 and no records.
pub fn truncated() -> Script {
    reply(|reply| reply.with_flags(TC))
}

/// Twelve bytes: the ID and SERVFAIL, no question.
pub fn bare_servfail() -> Script {
    Script::new(|seen| Some(header(seen.id(), QR | SERVFAIL, [0; 4])))
}

/// `rcode` to queries with OPT, the address to those without: a server from before EDNS.
pub fn refuses_opt(rcode: u16, address: &'static str) -> Script {
    Script::new(move |seen| {
        let reply = reply_to(&seen.bytes).without_opt();
        let reply = match opt_of(&seen.bytes) {
            Some(_) => reply.rcode(rcode),
            None => reply.with_flags(AA).answer(a(address)),
        };
        Some(reply.to_vec())
    })
}

/// A plausible SOA record for negative replies (RFC 2308 section 3).
fn soa() -> Record {
    let names = [wire_name("ns.example"), wire_name("hostmaster.example")].concat();
    let numbers = [1u32, 3600, 600, 86400, 60].map(u32::to_be_bytes).concat();
    record("example", SOA, &[names, numbers].concat())
}
