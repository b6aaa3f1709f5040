//! Rules: the decision on a query, and the responses that rules make.

use std::sync::Arc;
use std::time::Instant;

use config::{PoolIndex, RuleAction};
use dns::{
    ClientForm, ExtendedError, LocalRecord, LocalResponse, LocalSoa, Query, Rcode, RecordClass, RecordType, write_local,
};
use engine::explanation::Event;
use engine::single_flight::WorkerId;
use engine::state::{Arrival, ForwarderRule, ForwarderRules, RuleRecord};
use engine::{ClientHandle as _, ResponseSummary};
use metrics::{DropReason, ResponseSource};

use super::ReplyChannel;
use super::derived::{Derivation, derive};
use super::explain::{ExplainedClient, Operator};
use super::outside::WorkerIo;
use super::receive::ReceivedMessage;

/// The rules as one worker applies them.
pub(super) struct RuleReader<'a> {
    pub(super) rules: &'a ForwarderRules,
    pub(super) worker: WorkerId,
    /// True if a match counts: not for a query that another worker has counted.
    pub(super) is_counted: bool,
}

/// The result of the rules for a query.
pub(super) enum RuleResult {
    /// The rule with this index makes the response.
    Made(usize),
    /// The backends of this pool.
    Pool(PoolIndex),
    /// No rule matches, or one says that names and routes decide.
    None,
}

impl RuleReader<'_> {
    /// Returns the result for a query of a client with this folded name. Queries that hedgerow makes are not
    /// matched, so there is no loop.
    pub(super) fn result(&self, client: &ReplyChannel, query: &Query<'_>, qname: &[u8]) -> RuleResult {
        if client.is_derived() {
            return RuleResult::None;
        }
        let arrival = (client.arrival(), client.transport());
        let Some(index) = self.rules.first_match(client.ip(), arrival, (qname, query.question.qtype())) else {
            return RuleResult::None;
        };
        let Some(rule) = self.rules.get(index) else { return RuleResult::None };
        if self.is_counted {
            rule.count(self.worker.0);
        }
        result_of(rule, index, qname)
    }
}

/// Returns the result of the rules for an explained question, and reports the rule. No match is counted.
pub(super) fn explained_rule(
    rules: &ForwarderRules,
    client: &ExplainedClient,
    question: (&[u8], RecordType),
    operator: &Operator,
) -> RuleResult {
    let &ExplainedClient { ip, listener, transport } = client;
    let listener = listener.and_then(|listener| rules.listener_at(listener));
    let index = rules.first_match(ip, (Arrival::Listener(listener), transport), question);
    let Some((index, rule)) = index.and_then(|index| Some((index, rules.get(index)?))) else {
        return RuleResult::None;
    };
    let result = result_of(rule, index, question.0);
    operator.send(Event::Rule(rule.name.clone(), matches!(result, RuleResult::Made(_))));
    result
}

/// Returns the result of a rule that matches a query for this folded name.
pub(super) fn result_of(rule: &ForwarderRule, index: usize, qname: &[u8]) -> RuleResult {
    match &rule.action {
        RuleAction::Routes => RuleResult::None,
        RuleAction::Pool(pool) => RuleResult::Pool(*pool),
        // The name would be an alias of itself.
        RuleAction::Cname(target) if dns::eq_ignore_case(target.as_wire(), qname) => RuleResult::None,
        RuleAction::Nxdomain
        | RuleAction::Nodata
        | RuleAction::Refused
        | RuleAction::Drop
        | RuleAction::Addresses(_)
        | RuleAction::Cname(_) => RuleResult::Made(index),
    }
}

/// Gives a query the response that a rule makes.
#[cold]
#[inline(never)]
pub(super) fn answer_by_rule(
    io: &mut WorkerIo,
    asked: &ReceivedMessage<'_>,
    query: &Query<'_>,
    rule: usize,
    now: Instant,
) {
    let state = Arc::clone(&io.state);
    let Some(rule) = state.rules.as_ref().and_then(|rules| rules.get(rule)) else { return };
    let (qtype, ttl) = (query.question.qtype(), rule.ttl);
    match &rule.action {
        RuleAction::Drop => {
            if !asked.client.is_admin() {
                io.counters.dropped(DropReason::Rule);
            }
            asked.client.respond_nothing();
        }
        RuleAction::Cname(target) if qtype != RecordType::CNAME => {
            let derivation = Derivation::Cname { ttl, source: ResponseSource::Rule };
            let of = (asked.message, query);
            derive(io, of, (&asked.client, asked.cookie()), derivation, (&**target, qtype), now);
        }
        action => io.respond_alone(asked, now, |own_udp_size, out| {
            let form = ClientForm::of(query).with_cookie(asked.cookie());
            let limit = form.limit(asked.client.transport(), own_udp_size);
            let is_of_internet = query.question.qclass() == RecordClass::IN;
            let records = rule.records.iter().filter(|record| is_of_internet && record.rtype == qtype);
            let answers = records.map(|RuleRecord { rtype, rdata }| LocalRecord { rtype: *rtype, ttl, rdata });
            let soa = LocalSoa { owner: query.question.qname(), ttl };
            let is_negative = answers.clone().next().is_none() && *action != RuleAction::Refused;
            let response = made_response(action);
            let response = LocalResponse { soa: (is_of_internet && is_negative).then_some(soa), ..response };
            write_local(query.question.as_wire(), &form, &response, answers, (own_udp_size, limit), out);
            Some(ResponseSummary { source: ResponseSource::Rule, rcode: response.rcode })
        }),
    }
}

/// Returns the response of a rule without its records.
fn made_response(action: &RuleAction) -> LocalResponse<'static> {
    // RFC 8914 section 4.16.
    let blocked = |rcode| LocalResponse { error: Some((ExtendedError::BLOCKED, "")), ..LocalResponse::new(rcode) };
    match action {
        RuleAction::Nxdomain => blocked(Rcode::NXDOMAIN),
        RuleAction::Nodata => blocked(Rcode::NOERROR),
        RuleAction::Refused => blocked(Rcode::REFUSED),
        RuleAction::Addresses(_) | RuleAction::Cname(_) => LocalResponse::new(Rcode::NOERROR),
        // These make no response.
        RuleAction::Drop | RuleAction::Routes | RuleAction::Pool(_) => LocalResponse::new(Rcode::NOERROR),
    }
}
