//! A query in flight: its race, the query for backends, and the waiting clients.
//!
//! There may be 100,000 entries, so each holds compactly what nearly all need. Rarely needed state goes into
//! a [`Spill`]; [`Spills`] reuses these with their buffers.

use std::time::Instant;

use config::Rank;
use dns::{
    ClientCookie, ClientForm, ClientSubnet, Flag, HEADER_LEN, OptRecord, PlainForm, QuestionFlags, Reply, ReplyDigest,
    ShownCookie,
};
use hedge::race::{Attempt, AttemptId, BackendIndex, MAX_ATTEMPTS, Offset};
use limit::{ClientPlace, Clients, ZonePlaces};

use super::io::{AskedFor, ClientHandle};
use super::pool::PlanNumber;
use super::pools::PoolSlot;
use super::proof::ReplyProof;
use super::query_slots::{QuerySlot, SocketId};
use super::subnet::SentSubnet;
use super::{QTYPE_QCLASS, Race};

/// A client that waits for a race.
#[derive(Clone, Debug)]
pub struct Waiter<C> {
    /// The client, with its reply channel.
    pub client: C,
    /// The form of the response that the client expects.
    pub form: ClientForm,
    /// The cookie that the client sent, if the form lacks the server cookie for it.
    pub cookie: Option<ShownCookie>,
    /// The client subnet that the client sent, for the option of the response.
    pub subnet: Option<ClientSubnet>,
    /// The number of queries that the response answers: 1, and one for each retransmission.
    pub queries: u32,
    /// The arrival time of the first of them.
    pub since: Instant,
    /// The place in the counts of waiting queries.
    pub place: ClientPlace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaleAnswer {
    Unknown,
    /// A stale answer exists, and the clients get it at this time.
    At(Instant),
    /// The clients got the stale answer; new clients get it at once.
    Given,
}

pub(super) struct RaceEntry<C> {
    pub(super) race: Race,
    pub(super) hash: u64,
    spill: Option<Box<Spill<C>>>,
    first: Option<C>,
    /// Beside the client, where it has no padding.
    first_query: Option<FirstQuery>,
    slots: [Option<QuerySlot>; NEAR_SLOTS],
    armed: Option<Offset>,
    /// The time of the stale answer, or [`Offset::MAX`] if the clients got it.
    stale_at: Option<Offset>,
    pub(super) origin: RaceStart,
    pub(super) query: NearQuery,
    /// The counts of waiting queries below suffixes of the name.
    pub(super) zones: ZonePlaces,
    pub(super) is_fetching: bool,
}

/// The circumstances in which a race began.
#[derive(Clone, Copy)]
pub(super) struct RaceStart {
    pub(super) pool: PoolSlot,
    pub(super) plan: PlanNumber,
    /// True if single-flight knows that this worker races for the question.
    pub(super) is_claimed: bool,
    /// True if it began without a client.
    pub(super) is_refresh: bool,
}

/// The query for backends. A long question and an OPT record with options are in the spill.
pub(super) struct NearQuery {
    pub(super) flags: QuestionFlags,
    opt: QueryOpt,
    question_len: u16,
    /// RD of the first byte of the flags, and AD and CD of the second.
    header_flags: u8,
    question: [u8; NEAR_QUESTION],
}

/// The OPT record of a query.
#[derive(PartialEq, Eq)]
enum QueryOpt {
    None,
    /// A record without options, which is written anew each time.
    Plain,
    /// A record with options, in the spill behind a long question.
    Far,
}

impl NearQuery {
    fn new(query: &[u8], opt_at: usize, flags: QuestionFlags) -> Self {
        let header_flags = query.get(2..4).map_or(0, |flags| flags.iter().fold(0, |all, flags| all | flags));
        let opt = match query.len().saturating_sub(opt_at) {
            0 => QueryOpt::None,
            OPT_FIXED_LEN => QueryOpt::Plain,
            _ => QueryOpt::Far,
        };
        let question = query.get(HEADER_LEN..opt_at).unwrap_or_default();
        let (question_len, near) = (question.len() as u16, [0; NEAR_QUESTION]);
        let mut near = Self { flags, opt, question_len, header_flags, question: near };
        if let Some(place) = near.question_mut() {
            place.copy_from_slice(question);
        }
        near
    }

    fn question(&self) -> Option<&[u8]> {
        self.question.get(..usize::from(self.question_len))
    }

    fn question_mut(&mut self) -> Option<&mut [u8]> {
        self.question.get_mut(..usize::from(self.question_len))
    }
}

/// The state that few races need, kept apart so that the other entries stay small.
pub(super) struct Spill<C> {
    kept: Vec<u8>,
    waiters: Vec<Waiter<C>>,
    query: Vec<u8>,
    signed: Vec<u8>,
    slots: [Option<QuerySlot>; FAR_SLOTS],
    again_at: Option<Offset>,
    replies: Replies,
    stale: GivenStale,
    denied_at: Option<Offset>,
    is_explained: bool,
    digest: Option<ReplyDigest>,
    subnets: SpilledSubnets,
}

/// The clients that got a stale answer while the race went on: their number, and the place of one of them.
/// The race holds that place until it ends. Otherwise one client could start any number of races for expired
/// names.
#[derive(Default)]
struct GivenStale {
    clients: u32,
    place: Option<ClientPlace>,
}

/// The client subnet of the query, and that of the first client.
#[derive(Clone, Copy, Default)]
struct SpilledSubnets {
    sent: Option<SentSubnet>,
    first: Option<ClientSubnet>,
}

/// The replies that did not win at once, by attempt: arrival time and rank.
pub(super) type Replies = [Option<(Offset, Rank)>; MAX_ATTEMPTS];

impl<C> Default for Spill<C> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            waiters: Vec::new(),
            query: Vec::new(),
            signed: Vec::new(),
            slots: [None; FAR_SLOTS],
            again_at: None,
            replies: [None; MAX_ATTEMPTS],
            stale: GivenStale::default(),
            denied_at: None,
            is_explained: false,
            digest: None,
            subnets: SpilledSubnets::default(),
        }
    }
}

impl<C> Spill<C> {
    fn clear(&mut self) {
        self.waiters.clear();
        self.waiters.shrink_to(WAITERS_KEPT);
        for buffer in [&mut self.query, &mut self.kept, &mut self.signed] {
            buffer.clear();
            buffer.shrink_to(OCTETS_KEPT);
        }
        self.slots = [None; FAR_SLOTS];
        self.again_at = None;
        self.replies = [None; MAX_ATTEMPTS];
        self.stale = GivenStale::default();
        self.denied_at = None;
        self.is_explained = false;
        self.digest = None;
        self.subnets = SpilledSubnets::default();
    }
}

pub(super) struct Spills<C>(
    #[expect(clippy::vec_box, reason = "an entry takes the box, not what is in it")] Vec<Box<Spill<C>>>,
);

impl<C> Spills<C> {
    pub(super) fn new() -> Self {
        let mut spills = Vec::with_capacity(MAX_SPILLS);
        spills.resize_with(WARM_SPILLS, Box::default);
        Self(spills)
    }

    fn take(&mut self) -> Box<Spill<C>> {
        self.0.pop().unwrap_or_default()
    }

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

/// The query of the first client. Times count from the start of the race, and the name has the spelling of
/// the query for backends.
#[derive(Clone, Copy)]
struct FirstQuery {
    form: PlainForm,
    cookie: ClientCookie,
    queries: u8,
    since: Offset,
    place: ClientPlace,
}

pub(super) struct Start<C> {
    pub(super) race: Race,
    pub(super) pool: PoolSlot,
    pub(super) plan: PlanNumber,
    pub(super) hash: u64,
    pub(super) is_claimed: bool,
    pub(super) is_alone: bool,
    pub(super) flags: QuestionFlags,
    pub(super) waiter: Option<Waiter<C>>,
    pub(super) subnet: Option<SentSubnet>,
    pub(super) zones: ZonePlaces,
    pub(super) stale: StaleAnswer,
}

impl<C: ClientHandle> RaceEntry<C> {
    pub(super) fn new(start: Start<C>, query: &[u8], opt_at: usize, spills: &mut Spills<C>) -> Self {
        let Start { race, pool, plan, hash, is_claimed, is_alone: _, flags, waiter, subnet, zones, stale } = start;
        let is_refresh = waiter.is_none();
        let mut entry = Self {
            race,
            hash,
            spill: None,
            first: None,
            first_query: None,
            slots: [None; NEAR_SLOTS],
            armed: None,
            stale_at: None,
            origin: RaceStart { pool, plan, is_claimed, is_refresh },
            query: NearQuery::new(query, opt_at, flags),
            zones,
            is_fetching: false,
        };
        if entry.query.question().is_none() {
            entry.spill(spills).query.extend_from_slice(query.get(HEADER_LEN..opt_at).unwrap_or_default());
        }
        if entry.query.opt == QueryOpt::Far {
            entry.spill(spills).query.extend_from_slice(query.get(opt_at..).unwrap_or_default());
        }
        if subnet.is_some() {
            entry.spill(spills).subnets.sent = subnet;
        }
        entry.set_stale(stale);
        if let Some(waiter) = waiter {
            entry.add_waiter(waiter, spills);
        }
        entry
    }

    fn spill(&mut self, spills: &mut Spills<C>) -> &mut Spill<C> {
        self.spill.get_or_insert_with(|| spills.take())
    }

    fn spill_at_hand(&mut self, spills: &mut Spills<C>) -> Option<&mut Spill<C>> {
        if self.spill.is_none() {
            self.spill = spills.0.pop();
        }
        self.spill.as_deref_mut()
    }

    pub(super) fn give_back_spill(&mut self, spills: &mut Spills<C>) {
        if let Some(spill) = self.spill.take() {
            spills.give_back(spill);
        }
    }

    pub(super) fn question(&self) -> &[u8] {
        let far = || self.spill.as_ref()?.query.get(..usize::from(self.query.question_len));
        self.query.question().or_else(far).unwrap_or_default()
    }

    /// Returns the client subnet that the query carries.
    pub(super) fn subnet(&self) -> Option<&SentSubnet> {
        self.spill.as_ref().and_then(|spill| spill.subnets.sent.as_ref())
    }

    pub(super) fn has_opt(&self) -> bool {
        self.query.opt != QueryOpt::None
    }

    pub(super) fn sign(&mut self, message: &[u8], spills: &mut Spills<C>) {
        self.query.flags = self.query.flags.signed();
        self.spill(spills).signed.extend_from_slice(message);
    }

    /// Returns true if the query has a TSIG record. Query and replies then pass unchanged, and no other query
    /// joins (RFC 8945 section 5.5).
    pub(super) fn is_signed(&self) -> bool {
        self.query.flags.is_signed()
    }

    /// Returns true if the query asks for AD, by AD or DO (RFC 6840 section 5.7).
    pub(super) fn asks_authentic(&self) -> bool {
        self.query.header_flags & Flag::AuthenticData as u8 != 0 || self.query.flags.dnssec_ok()
    }

    /// Returns true if a reply to an attempt made now needs AD, set only on request (RFC 6840 section 5.8).
    pub(super) fn needs_authentic(&self) -> bool {
        self.race.is_doubted() && !self.is_signed()
    }

    /// Writes the query for backends into an empty buffer, with ID 0, with its OPT record or without. Returns
    /// the offset of the OPT record. A query with TSIG is written as received and treated as one without OPT.
    pub(super) fn write_query(&self, with_opt: bool, own_udp_size: u16, out: &mut Vec<u8>) -> usize {
        if self.is_signed() {
            out.extend_from_slice(self.spill.as_ref().map_or(&[], |spill| &spill.signed));
            return out.len();
        }
        let [high, low] = [RD_OCTET, !RD_OCTET].map(|mask| self.query.header_flags & mask);
        let records = u8::from(with_opt && self.has_opt());
        // RFC 1035 section 4.1.1: ID, flags, and the counts: one question and the OPT record.
        out.extend_from_slice(&[0, 0, high, low, 0, 1, 0, 0, 0, 0, 0, records]);
        out.extend_from_slice(self.question());
        let opt_at = out.len();
        match (&self.query.opt, &self.spill) {
            (QueryOpt::Plain, _) if with_opt => OptRecord::new(own_udp_size, self.query.flags.dnssec_ok()).append(out),
            (QueryOpt::Far, Some(spill)) if with_opt => {
                let is_near = self.query.question().is_some();
                let at = if is_near { 0 } else { usize::from(self.query.question_len) };
                out.extend_from_slice(spill.query.get(at..).unwrap_or_default());
            }
            (QueryOpt::None | QueryOpt::Plain | QueryOpt::Far, _) => {}
        }
        opt_at
    }

    pub(super) fn kept(&self) -> &[u8] {
        self.spill.as_ref().map_or(&[], |spill| &spill.kept)
    }

    pub(super) fn keep(&mut self, reply: &Reply<'_>, spills: &mut Spills<C>) {
        let kept = &mut self.spill(spills).kept;
        kept.clear();
        reply.append_to(kept);
    }

    pub(super) fn take_kept(&mut self) -> Vec<u8> {
        self.spill.as_mut().map(|spill| std::mem::take(&mut spill.kept)).unwrap_or_default()
    }

    pub(super) fn put_back_kept(&mut self, kept: Vec<u8>) {
        if let Some(spill) = &mut self.spill {
            spill.kept = kept;
        }
    }

    /// Sets the query slot of an attempt; `None` if it waits for no reply any more.
    pub(super) fn set_query_slot(&mut self, attempt: AttemptId, slot: Option<QuerySlot>, spills: &mut Spills<C>) {
        let at = usize::from(attempt.0);
        match at.checked_sub(NEAR_SLOTS) {
            None => self.slots[at] = slot,
            Some(at) => self.spill(spills).slots[at] = slot,
        }
    }

    pub(super) fn asked_again(&mut self, now: Instant, spills: &mut Spills<C>) {
        let again_at = Offset::between(self.race.started(), now);
        self.spill(spills).again_at = Some(again_at);
    }

    pub(super) fn note_reply(&mut self, attempt: AttemptId, rank: Rank, now: Instant, spills: &mut Spills<C>) {
        let at = Offset::between(self.race.started(), now);
        let spill = self.spill_at_hand(spills);
        if let Some(place) = spill.and_then(|spill| spill.replies.get_mut(usize::from(attempt.0))) {
            *place = Some((at, rank));
        }
    }

    pub(super) fn replies(&self) -> Option<&Replies> {
        self.spill.as_ref().map(|spill| &spill.replies)
    }

    /// Returns true if a reply differs from the first one, which this may be.
    pub(super) fn differs(&mut self, digest: ReplyDigest, spills: &mut Spills<C>) -> bool {
        let spill = self.spill_at_hand(spills);
        spill.is_some_and(|spill| *spill.digest.get_or_insert(digest) != digest)
    }

    pub(super) fn digest(&self) -> Option<ReplyDigest> {
        self.spill.as_ref().and_then(|spill| spill.digest)
    }

    pub(super) fn explain(&mut self, spills: &mut Spills<C>) {
        self.spill(spills).is_explained = true;
    }

    pub(super) fn is_explained(&self) -> bool {
        self.spill.as_ref().is_some_and(|spill| spill.is_explained)
    }

    pub(super) fn note_denied(&mut self, now: Instant, spills: &mut Spills<C>) {
        let at = Offset::between(self.race.started(), now);
        if let Some(spill) = self.spill_at_hand(spills) {
            spill.denied_at.get_or_insert(at);
        }
    }

    pub(super) fn denied_at(&self) -> Option<Instant> {
        let at = self.spill.as_ref().and_then(|spill| spill.denied_at)?;
        Some(at.since(self.race.started()))
    }

    pub(super) fn note_stale_given(&mut self, clients: usize, spills: &mut Spills<C>) {
        if clients > 0
            && let Some(spill) = self.spill_at_hand(spills)
        {
            spill.stale.clients = spill.stale.clients.saturating_add(clients as u32);
        }
    }

    /// Returns the number of clients that got a stale answer; 1 if the number could not be noted.
    pub(super) fn stale_given(&self) -> u32 {
        let noted = self.spill.as_ref().map_or(0, |spill| spill.stale.clients);
        noted.max(u32::from(self.stale() == StaleAnswer::Given))
    }

    pub(super) fn sent_at(&self, attempt: &Attempt, proof: ReplyProof) -> Instant {
        let spill = self.spill.as_ref().filter(|_| proof.has(ReplyProof::AGAIN));
        let again = spill.and_then(|spill| spill.again_at);
        again.map_or(attempt.asked_at, |again| again.since(self.race.started()))
    }

    pub(super) fn query_slots(&self) -> impl Iterator<Item = (AttemptId, QuerySlot)> + '_ {
        let far = self.spill.iter().flat_map(|spill| spill.slots);
        (0..).map(AttemptId).zip(self.slots.into_iter().chain(far)).filter_map(|(attempt, slot)| Some((attempt, slot?)))
    }

    #[cold]
    pub(super) fn waits_at(&self, attempt: AttemptId, backend: BackendIndex) -> Option<SocketId> {
        let is_same = |id: AttemptId| self.race.attempt(id).is_some_and(|asked| asked.backend == backend);
        let same = self.query_slots().filter(|(id, _)| *id != attempt && is_same(*id));
        same.last().map(|(_, slot)| slot.socket())
    }

    pub(super) fn take_query_slots(&mut self) -> impl Iterator<Item = (AttemptId, QuerySlot)> + use<C> {
        let mut taken = [None; MAX_ATTEMPTS];
        let near = std::mem::take(&mut self.slots);
        let far = self.spill.as_mut().map(|spill| std::mem::take(&mut spill.slots)).unwrap_or_default();
        taken[..NEAR_SLOTS].copy_from_slice(&near);
        taken[NEAR_SLOTS..].copy_from_slice(&far);
        (0..).map(AttemptId).zip(taken).filter_map(|(attempt, slot)| Some((attempt, slot?)))
    }

    pub(super) fn armed(&self) -> Option<Instant> {
        self.armed.map(|armed| armed.since(self.race.started()))
    }

    pub(super) fn arm(&mut self, at: Instant) -> Instant {
        let armed = Offset::between(self.race.started(), at);
        self.armed = Some(armed);
        armed.since(self.race.started())
    }

    pub(super) fn disarm(&mut self) {
        self.armed = None;
    }

    pub(super) fn stale(&self) -> StaleAnswer {
        match (self.stale_due(), self.stale_at) {
            (Some(at), _) => StaleAnswer::At(at),
            (None, Some(_)) => StaleAnswer::Given,
            (None, None) => StaleAnswer::Unknown,
        }
    }

    pub(super) fn stale_due(&self) -> Option<Instant> {
        self.stale_at.filter(|at| *at != Offset::MAX).map(|at| at.since(self.race.started()))
    }

    pub(super) fn set_stale(&mut self, stale: StaleAnswer) {
        self.stale_at = match stale {
            StaleAnswer::Unknown => None,
            StaleAnswer::At(at) => Some(Offset::between(self.race.started(), at)),
            StaleAnswer::Given => Some(Offset::MAX),
        };
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.first.is_some() || !self.further_waiters().is_empty()
    }

    pub(super) fn waiters(&self) -> impl Iterator<Item = Waiter<C>> + '_ {
        self.first_waiter().into_iter().chain(self.further_waiters().iter().cloned())
    }

    pub(super) fn asked_for(&self) -> AskedFor<'_, C> {
        self.first.as_ref().map_or(AskedFor::Ourselves, AskedFor::Client)
    }

    pub(super) fn add_waiter(&mut self, waiter: Waiter<C>, spills: &mut Spills<C>) {
        if !self.has_waiters() {
            let Waiter { client, form, cookie: _, subnet, queries, since, place } = waiter;
            let since = Offset::between(self.race.started(), since);
            let queries = u8::try_from(queries).unwrap_or(u8::MAX);
            self.first = Some(client);
            self.first_query =
                Some(FirstQuery { form: form.plain(), cookie: own_cookie(&form), queries, since, place });
            form.restore_case(self.qname_mut());
            if let Some(spill) = &mut self.spill {
                spill.subnets.first = subnet;
            }
        } else {
            self.spill(spills).waiters.push(waiter);
        }
    }

    pub(super) fn retain_waiters(&mut self, clients: &Clients, is_kept: impl FnMut(&Waiter<C>) -> bool) {
        let zones = self.zones;
        self.end_waits(is_kept, |place| clients.end_wait(place, zones));
    }

    /// Ends the wait of the clients that get a stale answer. The place of the first is held until the race
    /// ends.
    pub(super) fn retain_without_stale(
        &mut self,
        clients: &Clients,
        spills: &mut Spills<C>,
        is_kept: impl FnMut(&Waiter<C>) -> bool,
    ) {
        let zones = self.zones;
        let known = self.spill.as_ref().and_then(|spill| spill.stale.place);
        let mut held = known;
        self.end_waits(is_kept, |place| match held {
            Some(_) => clients.end_wait(place, zones),
            None => held = Some(place),
        });
        if held != known {
            self.spill(spills).stale.place = held;
        }
    }

    fn end_waits(&mut self, mut is_kept: impl FnMut(&Waiter<C>) -> bool, mut end: impl FnMut(ClientPlace)) {
        let mut is_kept = |waiter: &Waiter<C>| {
            let is_kept = is_kept(waiter);
            if !is_kept {
                end(waiter.place);
            }
            is_kept
        };
        if self.first_waiter().is_some_and(|first| !is_kept(&first)) {
            self.first = None;
        }
        if let Some(spill) = &mut self.spill {
            spill.waiters.retain(is_kept);
        }
    }

    pub(super) fn release_waiters(&mut self, clients: &Clients) {
        if let Some((_, FirstQuery { place, .. })) = self.first.take().zip(self.first_query) {
            clients.end_wait(place, self.zones);
        }
        if let Some(spill) = &mut self.spill {
            let held = spill.stale.place.take();
            let places = spill.waiters.drain(..).map(|waiter| waiter.place).chain(held);
            places.for_each(|place| clients.end_wait(place, self.zones));
        }
    }

    pub(super) fn has_clients(&self) -> bool {
        self.waiter_count() > usize::from(self.is_explained())
    }

    /// Returns the number of places that its clients hold, one of which may have a stale answer already.
    pub(super) fn place_count(&self) -> usize {
        self.waiter_count() + usize::from(self.spill.as_ref().is_some_and(|spill| spill.stale.place.is_some()))
    }

    pub(super) fn waiter_count(&self) -> usize {
        usize::from(self.first.is_some()) + self.further_waiters().len()
    }

    pub(super) fn count_again(&mut self, client: &C, form: &ClientForm) -> bool {
        // The client may know only the last spelling of the name.
        if let (Some(known), Some(first)) = (&self.first, &mut self.first_query)
            && first.form.id == form.id
            && known.is_same_socket(client)
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

    fn first_waiter(&self) -> Option<Waiter<C>> {
        let (client, first) = self.first.as_ref().zip(self.first_query)?;
        let question = self.question();
        let qname = question.get(..question.len().saturating_sub(QTYPE_QCLASS)).unwrap_or_default();
        Some(Waiter {
            client: client.clone(),
            form: first.form.with_case_of(qname),
            cookie: first.form.cookie.map(|state| ShownCookie { client: first.cookie, state }),
            subnet: self.spill.as_ref().and_then(|spill| spill.subnets.first),
            queries: first.queries.into(),
            since: first.since.since(self.race.started()),
            place: first.place,
        })
    }

    fn further_waiters(&self) -> &[Waiter<C>] {
        self.spill.as_ref().map_or(&[], |spill| &spill.waiters)
    }

    fn qname_mut(&mut self) -> &mut [u8] {
        let length = usize::from(self.query.question_len).saturating_sub(QTYPE_QCLASS);
        let near = self.query.question_mut();
        let question = near.or_else(|| self.spill.as_mut().map(|spill| &mut spill.query[..])).unwrap_or_default();
        question.get_mut(..length).unwrap_or_default()
    }
}

fn own_cookie(form: &ClientForm) -> ClientCookie {
    form.cookie.map(|cookie| cookie.client).unwrap_or_default()
}

/// The bytes of a question that fit in an entry: a name of 35 bytes.
const NEAR_QUESTION: usize = 39;

/// RD in the first byte of the flags (RFC 1035 section 4.1.1).
const RD_OCTET: u8 = 1;

/// The length of an OPT record without options (RFC 6891 section 6.1.2).
const OPT_FIXED_LEN: usize = 11;

/// The attempts whose query slots are in the entry: the first, a hedge, and a failover.
const NEAR_SLOTS: usize = 3;

const FAR_SLOTS: usize = MAX_ATTEMPTS - NEAR_SLOTS;

const WAITERS_KEPT: usize = 8;

pub(super) const WARM_SPILLS: usize = 64;

const MAX_SPILLS: usize = 1024;

/// The capacity of each buffer that a reused spill keeps: enough for nearly all queries and most replies.
const OCTETS_KEPT: usize = 512;

const RETRANSMISSIONS_SEEN: usize = 256;
