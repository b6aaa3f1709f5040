//! One query in flight: its race, what goes to backends, who waits for it.
//!
//! There may be a hundred thousand of these, so each holds in itself what nearly all need, in few octets, and what few need is
//! spilled: see [`Spill`]. Spills are used again, with their buffers: [`Spills`].

use std::time::Instant;

use super::QTYPE_QCLASS;
use super::io::{AskedFor, Client};
use super::plan::PlanNumber;
use super::pools::PoolSlot;
use super::proof::Proof;
use crate::limit::{Clients, Place};
use crate::metrics::PoolCounters;
use crate::policy::Rank;
use crate::policy::query_slots::{QuerySlot, SocketId};
use crate::policy::race::{Attempt, AttemptId, BackendIndex, MAX_ATTEMPTS, Offset, Race};
use crate::wire::{
    ClientCookie, ClientForm, Flag, HEADER_LEN, PlainForm, QuestionFlags, Reply, ReplyDigest, ShownCookie,
};

/// A client that waits for a race.
#[derive(Clone, Debug)]
pub struct Waiter<C> {
    /// Who it is.
    pub client: C,
    /// In which form it wants its response.
    pub form: ClientForm,
    /// The cookie that it has shown, if the form lacks what it gets for that.
    pub cookie: Option<ShownCookie>,
    /// How many queries the response answers: 1, and one for each retransmission.
    pub queries: u32,
    /// When the first of them came.
    pub since: Instant,
    /// Where it counts among its client's queries that wait.
    pub place: Place,
}

impl<C: Client> Waiter<C> {
    /// Counts how long it has waited for its response. An operator who has a question explained is no client.
    pub(super) fn count_wait(&self, counters: &PoolCounters, now: Instant) {
        if !self.client.is_admin() {
            counters.duration.record(now.saturating_duration_since(self.since));
        }
    }
}

/// Whether the clients of a race may be given an answer whose time to live is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaleAnswer {
    /// There is none.
    Unknown,
    /// There is one, and they get it at this time.
    At(Instant),
    /// They had it: who comes now gets it at once.
    Given,
}

/// One query in flight.
pub(super) struct Entry<C> {
    /// Who is asked, and who wins.
    pub(super) race: Race,
    /// The hash of its question.
    pub(super) hash: u64,
    /// What few need.
    spill: Option<Box<Spill<C>>>,
    /// The client that is nearly always the only one.
    first: Option<First<C>>,
    /// The query slots of the first few attempts; see [`Spill`] for the rest.
    slots: [Option<QuerySlot>; NEAR_SLOTS],
    /// The time for which a timer is set.
    armed: Option<Offset>,
    /// When those who wait are given a stale answer.
    stale_at: Option<Offset>,
    pub(super) pool: PoolSlot,
    /// By which plan of its pool it runs.
    pub(super) plan: PlanNumber,
    /// Octets of the question and the OPT record.
    body_len: u16,
    /// Where in them the OPT record starts; their end if there is none.
    opt_at: u16,
    /// The flags in the header of the query, as it goes to backends.
    header_flags: [u8; 2],
    /// Question and OPT record as they go to backends, if they fit.
    near_body: [u8; NEAR_BODY],
    /// RD, CD and DO, as the question's key has them.
    pub(super) flags: QuestionFlags,
    /// Whether this worker holds the claim for that hash.
    pub(super) is_claimed: bool,
    /// Whether it was started to refresh an answer that is still good, and not for a client.
    pub(super) is_refresh: bool,
    /// The race is over; the whole answer is being fetched by TCP for those who wait still.
    pub(super) is_fetching: bool,
    /// Those who waited were given a stale answer.
    is_stale_given: bool,
}

/// What few races need, so that the others stay small.
pub(super) struct Spill<C> {
    /// The best reply that was not accepted.
    kept: Vec<u8>,
    /// The clients but the first.
    waiters: Vec<Waiter<C>>,
    /// Question and OPT record, if they are long.
    body: Vec<u8>,
    /// A query with a TSIG record, as it came.
    signed: Vec<u8>,
    /// The query slots of the attempts after the first few.
    slots: [Option<QuerySlot>; FAR_SLOTS],
    /// When an attempt was asked again last.
    again_at: Option<Offset>,
    /// The replies that did not win at once, by attempt: when each came, and its rank.
    replies: Replies,
    /// How many clients were given a stale answer.
    stale_given: u32,
    /// When the first hedge was denied.
    denied_at: Option<Offset>,
    /// Whether an operator wants to know all of it.
    is_explained: bool,
    /// What the first reply says, if replies are compared.
    digest: Option<ReplyDigest>,
}

/// The replies to the attempts of a race that did not win at once: when each came, and its rank.
pub(super) type Replies = [Option<(Offset, Rank)>; MAX_ATTEMPTS];

impl<C> Default for Spill<C> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            waiters: Vec::new(),
            body: Vec::new(),
            signed: Vec::new(),
            slots: [None; FAR_SLOTS],
            again_at: None,
            replies: [None; MAX_ATTEMPTS],
            stale_given: 0,
            denied_at: None,
            is_explained: false,
            digest: None,
        }
    }
}

impl<C> Spill<C> {
    /// Makes it as good as new, but for buffers of a usual size.
    fn clear(&mut self) {
        self.waiters.clear();
        self.waiters.shrink_to(WAITERS_KEPT);
        for buffer in [&mut self.body, &mut self.kept, &mut self.signed] {
            buffer.clear();
            buffer.shrink_to(OCTETS_KEPT);
        }
        self.slots = [None; FAR_SLOTS];
        self.again_at = None;
        self.replies = [None; MAX_ATTEMPTS];
        self.stale_given = 0;
        self.denied_at = None;
        self.is_explained = false;
        self.digest = None;
    }
}

/// What was spilled by entries that are gone, for the next that need it.
pub(super) struct Spills<C>(
    #[expect(clippy::vec_box, reason = "an entry takes the box, not what is in it")] Vec<Box<Spill<C>>>,
);

impl<C> Spills<C> {
    /// Some at hand, for what is noted only where that allocates nothing.
    pub(super) fn new() -> Self {
        let mut spills = Vec::with_capacity(MAX_SPILLS);
        spills.resize_with(WARM_SPILLS, Box::default);
        Self(spills)
    }

    /// One that was used before, or a new one.
    fn take(&mut self) -> Box<Spill<C>> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes one back.
    fn give_back(&mut self, mut spill: Box<Spill<C>>) {
        if self.0.len() < MAX_SPILLS {
            spill.clear();
            self.0.push(spill);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The first client: times count from the start of the race, and the name is spelled as in the query to backends.
struct First<C> {
    client: C,
    /// The rest of its form.
    form: PlainForm,
    /// The cookie of its own, if its form says that it has shown one.
    cookie: ClientCookie,
    /// How many queries the response answers.
    queries: u16,
    /// When the first of them came.
    since: Offset,
    /// Where it counts among its client's queries that wait.
    place: Place,
}

/// What a new race starts with.
pub(super) struct Start<C> {
    pub(super) race: Race,
    pub(super) pool: PoolSlot,
    pub(super) plan: PlanNumber,
    /// The hash of its question.
    pub(super) hash: u64,
    /// Whether this worker holds the claim for that hash.
    pub(super) is_claimed: bool,
    /// Whether nobody joins it.
    pub(super) is_alone: bool,
    /// RD, CD and DO.
    pub(super) flags: QuestionFlags,
    /// Who waits for it; `None`: it is to refresh an answer.
    pub(super) waiter: Option<Waiter<C>>,
    /// Whether those who wait may be given a stale answer.
    pub(super) stale: StaleAnswer,
}

impl<C: Client> Entry<C> {
    /// A race that starts. `query` goes to backends; its OPT record starts at `opt_at`.
    pub(super) fn new(start: Start<C>, query: &[u8], opt_at: usize, spills: &mut Spills<C>) -> Self {
        let Start { race, pool, plan, hash, is_claimed, is_alone: _, flags, waiter, stale } = start;
        let (header, body) = query.split_at(HEADER_LEN.min(query.len()));
        let mut entry = Self {
            race,
            hash,
            spill: None,
            first: None,
            slots: [None; NEAR_SLOTS],
            armed: None,
            stale_at: None,
            pool,
            plan,
            body_len: body.len() as u16,
            opt_at: opt_at.saturating_sub(HEADER_LEN) as u16,
            header_flags: header.get(2..4).and_then(|flags| flags.first_chunk()).copied().unwrap_or_default(),
            near_body: [0; NEAR_BODY],
            flags,
            is_claimed,
            is_refresh: waiter.is_none(),
            is_fetching: false,
            is_stale_given: false,
        };
        match entry.near_body.get_mut(..body.len()) {
            Some(near) => near.copy_from_slice(body),
            None => entry.spill(spills).body.extend_from_slice(body),
        }
        entry.set_stale(stale);
        if let Some(waiter) = waiter {
            entry.add_waiter(waiter, spills);
        }
        entry
    }

    /// Where what few need goes.
    fn spill(&mut self, spills: &mut Spills<C>) -> &mut Spill<C> {
        self.spill.get_or_insert_with(|| spills.take())
    }

    /// The same for what can be done without, if there is one at hand: a query allocates nothing for that.
    fn spill_at_hand(&mut self, spills: &mut Spills<C>) -> Option<&mut Spill<C>> {
        if self.spill.is_none() {
            self.spill = spills.0.pop();
        }
        self.spill.as_deref_mut()
    }

    /// Gives back what was spilled: the entry is going.
    pub(super) fn give_back_spill(&mut self, spills: &mut Spills<C>) {
        if let Some(spill) = self.spill.take() {
            spills.give_back(spill);
        }
    }

    /// Name, type and class as asked.
    pub(super) fn question(&self) -> &[u8] {
        self.body().get(..usize::from(self.opt_at)).unwrap_or_default()
    }

    /// Whether it goes to backends with an OPT record.
    pub(super) fn has_opt(&self) -> bool {
        self.opt_at < self.body_len
    }

    /// The query bears a TSIG record: this is how it came, and goes to backends.
    pub(super) fn sign(&mut self, message: &[u8], spills: &mut Spills<C>) {
        self.flags = self.flags.signed();
        self.spill(spills).signed.extend_from_slice(message);
    }

    /// Whether the query bears a TSIG record: it goes to backends as it came, their replies go back as they come, and nobody
    /// joins it (RFC 8945 section 5.5).
    pub(super) fn is_signed(&self) -> bool {
        self.flags.is_signed()
    }

    /// Whether the query asks for AD, by AD or DO (RFC 6840 section 5.7).
    pub(super) fn asks_authentic(&self) -> bool {
        self.header_flags[1] & Flag::AuthenticData as u8 != 0 || self.flags.is_dnssec_ok()
    }

    /// True if the reply to an attempt made now counts only with AD, which backends set only if asked for it (RFC 6840 section 5.8).
    pub(super) fn needs_authentic(&self) -> bool {
        self.race.is_doubted() && !self.is_signed()
    }

    /// Writes the query into an empty buffer as it goes to backends, with ID 0, and with the OPT record that it may have or
    /// without. Returns where that starts. One with a TSIG record is written as it came, and as one without OPT.
    pub(super) fn write_query(&self, with_opt: bool, out: &mut Vec<u8>) -> usize {
        if self.is_signed() {
            out.extend_from_slice(self.spill.as_ref().map_or(&[], |spill| &spill.signed));
            return out.len();
        }
        let [high, low] = self.header_flags;
        let records = u8::from(with_opt && self.has_opt());
        // RFC 1035 section 4.1.1: ID, flags, and of counts one question and the OPT record.
        out.extend_from_slice(&[0, 0, high, low, 0, 1, 0, 0, 0, 0, 0, records]);
        out.extend_from_slice(if with_opt { self.body() } else { self.question() });
        HEADER_LEN + usize::from(self.opt_at)
    }

    /// The best reply that was not accepted; empty if there is none.
    pub(super) fn kept(&self) -> &[u8] {
        self.spill.as_ref().map_or(&[], |spill| &spill.kept)
    }

    /// Keeps a reply in place of the one kept before, with the header that it has now.
    pub(super) fn keep(&mut self, reply: &Reply<'_>, spills: &mut Spills<C>) {
        let kept = &mut self.spill(spills).kept;
        kept.clear();
        reply.append_to(kept);
    }

    /// Takes the kept reply out for the time of a borrow.
    pub(super) fn take_kept(&mut self) -> Vec<u8> {
        self.spill.as_mut().map(|spill| std::mem::take(&mut spill.kept)).unwrap_or_default()
    }

    pub(super) fn put_back_kept(&mut self, kept: Vec<u8>) {
        if let Some(spill) = &mut self.spill {
            spill.kept = kept;
        }
    }

    /// Notes the query slot of an attempt; `None`: nothing is waited for any more.
    pub(super) fn set_query_slot(&mut self, attempt: AttemptId, slot: Option<QuerySlot>, spills: &mut Spills<C>) {
        let at = usize::from(attempt.0);
        match at.checked_sub(NEAR_SLOTS) {
            None => self.slots[at] = slot,
            Some(at) => self.spill(spills).slots[at] = slot,
        }
    }

    /// Notes that an attempt was asked again.
    pub(super) fn asked_again(&mut self, now: Instant, spills: &mut Spills<C>) {
        let again_at = Offset::between(self.race.started(), now);
        self.spill(spills).again_at = Some(again_at);
    }

    /// Notes a reply that does not win at once.
    pub(super) fn note_reply(&mut self, attempt: AttemptId, rank: Rank, now: Instant, spills: &mut Spills<C>) {
        let at = Offset::between(self.race.started(), now);
        let spill = self.spill_at_hand(spills);
        if let Some(place) = spill.and_then(|spill| spill.replies.get_mut(usize::from(attempt.0))) {
            *place = Some((at, rank));
        }
    }

    /// The replies that did not win at once, by attempt.
    pub(super) fn replies(&self) -> Option<&Replies> {
        self.spill.as_ref().map(|spill| &spill.replies)
    }

    /// Compares what a reply says with what the first one has said, which this may be. Returns whether it is something else.
    pub(super) fn differs(&mut self, digest: ReplyDigest, spills: &mut Spills<C>) -> bool {
        let spill = self.spill_at_hand(spills);
        spill.is_some_and(|spill| *spill.digest.get_or_insert(digest) != digest)
    }

    /// What the first reply says, if replies are compared.
    pub(super) fn digest(&self) -> Option<ReplyDigest> {
        self.spill.as_ref().and_then(|spill| spill.digest)
    }

    /// Notes that an operator wants to know all of it.
    pub(super) fn explain(&mut self, spills: &mut Spills<C>) {
        self.spill(spills).is_explained = true;
    }

    /// Whether an operator wants to know all of it.
    pub(super) fn is_explained(&self) -> bool {
        self.spill.as_ref().is_some_and(|spill| spill.is_explained)
    }

    /// Notes that a hedge was denied by now.
    pub(super) fn note_denied(&mut self, now: Instant, spills: &mut Spills<C>) {
        let at = Offset::between(self.race.started(), now);
        if let Some(spill) = self.spill_at_hand(spills) {
            spill.denied_at.get_or_insert(at);
        }
    }

    /// When the first hedge was denied, if one was.
    pub(super) fn denied_at(&self) -> Option<Instant> {
        let at = self.spill.as_ref().and_then(|spill| spill.denied_at)?;
        Some(at.since(self.race.started()))
    }

    /// Notes that so many clients were given a stale answer.
    pub(super) fn note_stale_given(&mut self, clients: usize, spills: &mut Spills<C>) {
        if clients > 0
            && let Some(spill) = self.spill_at_hand(spills)
        {
            spill.stale_given = spill.stale_given.saturating_add(clients as u32);
        }
    }

    /// How many clients were given a stale answer; if that could not be noted, that somebody was.
    pub(super) fn stale_given(&self) -> u32 {
        let noted = self.spill.as_ref().map_or(0, |spill| spill.stale_given);
        noted.max(u32::from(self.is_stale_given))
    }

    /// When the query of an attempt was sent, the last time if that was more than once.
    pub(super) fn sent_at(&self, attempt: &Attempt, proof: Proof) -> Instant {
        let spill = self.spill.as_ref().filter(|_| proof.has(Proof::AGAIN));
        let again = spill.and_then(|spill| spill.again_at);
        again.map_or(attempt.asked_at, |again| again.since(self.race.started()))
    }

    pub(super) fn query_slots(&self) -> impl Iterator<Item = (AttemptId, QuerySlot)> + '_ {
        let far = self.spill.iter().flat_map(|spill| spill.slots);
        (0..).map(AttemptId).zip(self.slots.into_iter().chain(far)).filter_map(|(attempt, slot)| Some((attempt, slot?)))
    }

    /// Where the last attempt before this one waits that has asked the same backend.
    #[cold]
    pub(super) fn waits_at(&self, attempt: AttemptId, backend: BackendIndex) -> Option<SocketId> {
        let is_same = |id: AttemptId| self.race.attempt(id).is_some_and(|asked| asked.backend == backend);
        let same = self.query_slots().filter(|(id, _)| *id != attempt && is_same(*id));
        same.last().map(|(_, slot)| slot.socket())
    }

    /// Takes out the query slots of all attempts.
    pub(super) fn take_query_slots(&mut self) -> impl Iterator<Item = (AttemptId, QuerySlot)> + use<C> {
        let mut taken = [None; MAX_ATTEMPTS];
        let near = std::mem::take(&mut self.slots);
        let far = self.spill.as_mut().map(|spill| std::mem::take(&mut spill.slots)).unwrap_or_default();
        taken[..NEAR_SLOTS].copy_from_slice(&near);
        taken[NEAR_SLOTS..].copy_from_slice(&far);
        (0..).map(AttemptId).zip(taken).filter_map(|(attempt, slot)| Some((attempt, slot?)))
    }

    /// The time for which a timer is set.
    pub(super) fn armed(&self) -> Option<Instant> {
        self.armed.map(|armed| armed.since(self.race.started()))
    }

    /// Notes that a timer is set, and says for which time, to the microsecond.
    pub(super) fn arm(&mut self, at: Instant) -> Instant {
        let armed = Offset::between(self.race.started(), at);
        self.armed = Some(armed);
        armed.since(self.race.started())
    }

    /// Notes that no timer is set.
    pub(super) fn disarm(&mut self) {
        self.armed = None;
    }

    /// Whether those who wait may be given a stale answer.
    pub(super) fn stale(&self) -> StaleAnswer {
        match (self.stale_due(), self.is_stale_given) {
            (Some(at), _) => StaleAnswer::At(at),
            (None, true) => StaleAnswer::Given,
            (None, false) => StaleAnswer::Unknown,
        }
    }

    /// When they are to be given it.
    pub(super) fn stale_due(&self) -> Option<Instant> {
        self.stale_at.map(|at| at.since(self.race.started()))
    }

    /// Notes whether those who wait may be given a stale answer.
    pub(super) fn set_stale(&mut self, stale: StaleAnswer) {
        (self.stale_at, self.is_stale_given) = match stale {
            StaleAnswer::Unknown => (None, false),
            StaleAnswer::At(at) => (Some(Offset::between(self.race.started(), at)), false),
            StaleAnswer::Given => (None, true),
        };
    }

    /// Whether anybody waits.
    pub(super) fn has_waiters(&self) -> bool {
        self.first.is_some() || !self.further_waiters().is_empty()
    }

    /// Those who wait.
    pub(super) fn waiters(&self) -> impl Iterator<Item = Waiter<C>> + '_ {
        let first = self.first.as_ref().map(|first| self.whole(first));
        first.into_iter().chain(self.further_waiters().iter().cloned())
    }

    /// Whom a backend is told that asks: the first client.
    pub(super) fn asked_for(&self) -> AskedFor<'_, C> {
        self.first.as_ref().map_or(AskedFor::Ourselves, |first| AskedFor::Client(&first.client))
    }

    /// Adds one who waits.
    pub(super) fn add_waiter(&mut self, waiter: Waiter<C>, spills: &mut Spills<C>) {
        if !self.has_waiters() {
            let Waiter { client, form, cookie: _, queries, since, place } = waiter;
            let since = Offset::between(self.race.started(), since);
            let queries = u16::try_from(queries).unwrap_or(u16::MAX);
            self.first = Some(First { client, form: form.plain(), cookie: own_cookie(&form), queries, since, place });
            form.restore_case(self.qname_mut());
        } else {
            self.spill(spills).waiters.push(waiter);
        }
    }

    /// Lets go of those whom `is_kept` does not keep: they do not count any more.
    pub(super) fn retain_waiters(&mut self, clients: &Clients, mut is_kept: impl FnMut(&Waiter<C>) -> bool) {
        let mut is_kept = |waiter: &Waiter<C>| {
            let is_kept = is_kept(waiter);
            if !is_kept {
                clients.end_wait(waiter.place);
            }
            is_kept
        };
        if let Some(first) = &self.first
            && !is_kept(&self.whole(first))
        {
            self.first = None;
        }
        if let Some(spill) = &mut self.spill {
            spill.waiters.retain(is_kept);
        }
    }

    /// Lets go of all who wait.
    pub(super) fn release_waiters(&mut self, clients: &Clients) {
        if let Some(First { place, .. }) = self.first.take() {
            clients.end_wait(place);
        }
        if let Some(spill) = &mut self.spill {
            spill.waiters.drain(..).for_each(|waiter| clients.end_wait(waiter.place));
        }
    }

    /// Whether a client waits, who is not an operator that has the question explained.
    pub(super) fn has_clients(&self) -> bool {
        self.waiter_count() > usize::from(self.is_explained())
    }

    /// How many wait.
    pub(super) fn waiter_count(&self) -> usize {
        usize::from(self.first.is_some()) + self.further_waiters().len()
    }

    /// Counts one more query of a client that waits already, if it is one: the same socket and the same ID.
    pub(super) fn count_again(&mut self, client: &C, form: &ClientForm) -> bool {
        // It may have been put in another form, and the client may know only the last.
        if let Some(first) = &mut self.first
            && first.form.id == form.id
            && first.client.is_same_socket(client)
        {
            first.queries = first.queries.saturating_add(1);
            first.form = form.plain();
            first.cookie = own_cookie(form);
            form.restore_case(self.qname_mut());
            return true;
        }
        let further = self.spill.iter_mut().flat_map(|spill| &mut spill.waiters).take(RETRANSMISSIONS_SEEN);
        let mut same = further.filter(|known| known.form.id == form.id && known.client.is_same_socket(client));
        let Some(known) = same.next() else { return false };
        known.queries += 1;
        known.form = *form;
        true
    }

    /// The first client, as any other.
    fn whole(&self, first: &First<C>) -> Waiter<C> {
        let question = self.question();
        let qname = question.get(..question.len().saturating_sub(QTYPE_QCLASS)).unwrap_or_default();
        Waiter {
            client: first.client.clone(),
            form: first.form.with_case_of(qname),
            cookie: first.form.cookie.map(|state| ShownCookie { client: first.cookie, state }),
            queries: first.queries.into(),
            since: first.since.since(self.race.started()),
            place: first.place,
        }
    }

    /// The clients but the first.
    fn further_waiters(&self) -> &[Waiter<C>] {
        self.spill.as_ref().map_or(&[], |spill| &spill.waiters)
    }

    /// Question and OPT record.
    fn body(&self) -> &[u8] {
        let near = self.near_body.get(..usize::from(self.body_len));
        near.or_else(|| self.spill.as_ref().map(|spill| &spill.body[..])).unwrap_or_default()
    }

    /// The name that is asked for.
    fn qname_mut(&mut self) -> &mut [u8] {
        let near = self.near_body.get_mut(..usize::from(self.body_len));
        let body = near.or_else(|| self.spill.as_mut().map(|spill| &mut spill.body[..])).unwrap_or_default();
        body.get_mut(..usize::from(self.opt_at).saturating_sub(QTYPE_QCLASS)).unwrap_or_default()
    }
}

/// The cookie of a client's own.
fn own_cookie(form: &ClientForm) -> ClientCookie {
    form.cookie.map(|cookie| cookie.client).unwrap_or_default()
}

/// Octets of question and OPT record that an entry holds in itself: a name of 38 octets with EDNS.
const NEAR_BODY: usize = 53;

/// Attempts whose query slots an entry holds in itself: the first, a hedge, and a failover.
const NEAR_SLOTS: usize = 3;

/// The rest of them.
const FAR_SLOTS: usize = MAX_ATTEMPTS - NEAR_SLOTS;

/// Waiters for which there is room when it is used again; what many clients had joined gives the rest back.
const WAITERS_KEPT: usize = 8;

/// How many spills there are from the start.
pub(super) const WARM_SPILLS: usize = 64;

/// How many spills are kept to be used again.
const MAX_SPILLS: usize = 1024;

/// Octets of each buffer that are kept when it is used again: enough for nearly all queries and most replies.
const OCTETS_KEPT: usize = 512;

/// Among how many waiters of one race a retransmission is looked for; so many clients at once need no further hint.
const RETRANSMISSIONS_SEEN: usize = 256;
