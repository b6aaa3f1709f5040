//! The content of replies that passes to clients and into the cache.

use config::{PassingRules, PrivateAnswers};
use dns::Reply;

/// Returns a reply without private addresses, made in `room`, if the pool drops them and this reply has any.
#[inline]
pub(super) fn filter<'m>(rules: &PassingRules, reply: &Reply<'_>, room: &'m mut Vec<u8>) -> Option<Reply<'m>> {
    if rules.private_answers == PrivateAnswers::Allow { None } else { without_private(rules, reply, room) }
}

#[cold]
fn without_private<'m>(rules: &PassingRules, reply: &Reply<'_>, room: &'m mut Vec<u8>) -> Option<Reply<'m>> {
    // The name of the question counts: a page knows its host by this name, whatever aliases follow.
    let is_exempt = || {
        let mut qname = reply.question()?.qname().to_vec();
        dns::fold(&mut qname);
        let is_named = |suffix| rules.private_names.iter().any(|name| name.as_wire() == suffix);
        dns::suffixes(&qname).any(is_named).then_some(())
    };
    let reply = dns::without_private(reply, room)?;
    is_exempt().is_none().then_some(reply)
}
