//! Compares what members of a pool say: one task for each pool that wants it, on the control thread.
//!
//! The task takes what workers have left ([`Compared`](crate::state::Compared)): questions to which replies differed, and now and then a
//! recent one for the audit. [`Divergences`] says which of them all members are to be asked, and what has come of it. All that take
//! queries are asked; of more than [`MOST`] those who are suspected or have said something before, and others by chance. These queries
//! count as probes. What is known is told to whoever asks, counted, and told in the log once a minute at most.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::IteratorRandom;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::sleep_until;

use super::ask::{Asked, Member, ask};
use super::said::Answer;
use crate::net::clock;
use crate::net::tasks::{Task, TaskKind, Tasks};
use crate::policy::BackendIndex;
use crate::policy::divergence::{Ask, Divergences, Heard, Kind, Said};
use crate::policy::serials::MemberId;
use crate::sight::divergence as shown;
use crate::state::{ForwarderState, PoolState, SharedBackend, SharedPool};
use crate::wire::{OwnEdns, QuestionFlags, Rcode, RecordClass, RecordType, display_name};

/// The comparisons of all pools that want any.
pub struct Comparisons {
    watches: HashMap<*const PoolState, Watch>,
    /// How many queries may be out at a time.
    places: Arc<Semaphore>,
    tasks: Tasks,
}

/// The comparison of a pool, and its task.
struct Watch {
    comparison: Rc<Comparison>,
    /// Ends with this value.
    _task: Task,
}

impl Comparisons {
    /// Of no pools yet. The tasks are among these; each query takes one of these places. Must be used within a `LocalSet`.
    pub fn new(tasks: Tasks, places: Arc<Semaphore>) -> Self {
        Self { watches: HashMap::new(), places, tasks }
    }

    /// Compares in the pools of this state, and no others. What is known of those that were compared before stays.
    pub fn set_state(&mut self, state: &ForwarderState) {
        let mut earlier = std::mem::take(&mut self.watches);
        for pool in state.pools.iter().filter(|pool| is_compared(pool)) {
            let place = Arc::as_ptr(&pool.state);
            let watch = match earlier.remove(&place) {
                Some(watch) => {
                    watch.comparison.pool.replace(Arc::clone(pool));
                    watch
                }
                None => self.watch(pool),
            };
            self.watches.insert(place, watch);
        }
    }

    /// Compares nothing any more.
    pub fn stop(&mut self) {
        self.watches.clear();
    }

    /// How many questions members of a pool answer differently.
    pub fn count(&self, pool: &SharedPool) -> usize {
        let watch = self.watches.get(&Arc::as_ptr(&pool.state));
        watch.map_or(0, |watch| watch.comparison.divergences.borrow().known().len())
    }

    /// What is known of these pools.
    pub fn show<'p>(&self, pools: impl Iterator<Item = &'p Arc<SharedPool>>) -> shown::Divergences {
        let mut all = shown::Divergences::default();
        for pool in pools {
            match self.watches.get(&Arc::as_ptr(&pool.state)) {
                Some(watch) => all.divergences.extend(watch.comparison.show()),
                None => all.not_compared.push(pool.config.name.clone()),
            }
        }
        all.divergences.sort_by(|a, b| a.since.total_cmp(&b.since));
        all
    }

    fn watch(&self, pool: &Arc<SharedPool>) -> Watch {
        let comparison = Rc::new(Comparison {
            pool: RefCell::new(Arc::clone(pool)),
            divergences: RefCell::default(),
            texts: RefCell::default(),
            rounds: Cell::new(0),
            warned: RefCell::default(),
            places: Arc::clone(&self.places),
            tasks: self.tasks.clone(),
        });
        let task = self.tasks.start(TaskKind::Replicas, Rc::clone(&comparison).run());
        Watch { comparison, _task: task }
    }
}

/// Whether anything is compared in a pool.
fn is_compared(pool: &SharedPool) -> bool {
    pool.config.compare > 0.0 || pool.config.audit.is_some()
}

/// The comparison of one pool.
struct Comparison {
    /// The pool as it is now.
    pool: RefCell<Arc<SharedPool>>,
    divergences: RefCell<Divergences>,
    /// What was said to questions that are known to be answered differently, in words.
    texts: RefCell<BTreeMap<Box<[u8]>, Texts>>,
    /// How many questions are being asked.
    rounds: Cell<usize>,
    warned: RefCell<Warned>,
    /// See [`Comparisons`].
    places: Arc<Semaphore>,
    tasks: Tasks,
}

/// Data in words, by digest.
type Texts = BTreeMap<u32, String>;

/// What the log was told.
#[derive(Default)]
struct Warned {
    /// When it was told something last.
    at: Option<Instant>,
    /// What it was not told since.
    untold: u64,
}

impl Comparison {
    /// Compares for ever.
    async fn run(self: Rc<Self>) {
        let mut next_audit = Instant::now();
        loop {
            let now = Instant::now();
            self.collect(&mut next_audit, now);
            while self.rounds.get() < MAX_ROUNDS
                && let Some(ask) = self.divergences.borrow_mut().ask(now)
            {
                self.rounds.set(self.rounds.get() + 1);
                self.tasks.start_and_leave(TaskKind::Replicas, Rc::clone(&self).round(ask));
            }
            let due = self.divergences.borrow().next().filter(|_| self.rounds.get() < MAX_ROUNDS);
            let next = due.map_or(now + LOOK, |due| due.min(now + LOOK));
            sleep_until(next.into()).await;
        }
    }

    /// Takes what workers have left.
    fn collect(&self, next_audit: &mut Instant, now: Instant) {
        let (pool, mut divergences) = (self.pool.borrow(), self.divergences.borrow_mut());
        for suspect in pool.state.compared.take_suspects() {
            divergences.suspect(suspect.question.as_octets(), Some(member(suspect.backend)), now);
        }
        let Some(every) = pool.config.audit else { return };
        if now >= *next_audit {
            *next_audit = now + every;
            if let Some(recent) = pool.state.compared.take_recent() {
                divergences.suspect(recent.as_octets(), None, now);
            }
        }
    }

    /// Asks members one question, and takes what they say.
    async fn round(self: Rc<Self>, Ask { question, members }: Ask) {
        let pool = Arc::clone(&self.pool.borrow());
        let (sender, mut answers) = unbounded_channel();
        let deadline = Instant::now() + PATIENCE;
        let ask_one = |backend: Arc<SharedBackend>| {
            let (question, sender, places) = (question.clone(), sender.clone(), Arc::clone(&self.places));
            self.tasks.start(TaskKind::Replicas, async move {
                // Its place ends with it. Who gets none is silent.
                let Ok(_place) = places.acquire_owned().await else { return };
                backend.probes.increment();
                let edns = Some(OwnEdns { udp_size: UDP_SIZE, wants_version: true });
                let Some((flags, question)) = question.split_last() else { return };
                let asked = Asked { question, flags: QuestionFlags::of_octet(*flags), edns };
                let reply = ask(&Member::of(&backend), &asked, deadline).await;
                if let Some(answer) = reply.ok().as_deref().and_then(Answer::of) {
                    let _ = sender.send((backend.index, answer));
                }
            })
        };
        let asked: Vec<_> = whom_to_ask(&pool, &members).into_iter().map(ask_one).collect();
        drop(sender);
        let mut all = Vec::new();
        while let Some(answer) = answers.recv().await {
            all.push(answer);
        }
        drop(asked);
        all.sort_by_key(|(index, _)| index.get());
        self.rounds.set(self.rounds.get() - 1);
        self.hear(&question, &all, Instant::now());
    }

    /// Takes what members have said to a question.
    fn hear(&self, question: &[u8], answers: &[(BackendIndex, Answer)], now: Instant) {
        let said: Vec<_> = answers.iter().map(|(index, answer)| answer.by(member(*index))).collect();
        let mut divergences = self.divergences.borrow_mut();
        let heard = divergences.hear(question, &said, now);
        let known = |question: &[u8]| divergences.get(question).is_some();
        let mut texts = self.texts.borrow_mut();
        // One that was forgotten for want of room, or since it is old, leaves its words behind.
        if texts.len() > divergences.known().len() {
            texts.retain(|question, _| known(question));
        }
        if known(question) {
            let words = answers.iter().map(|(_, answer)| (answer.digest, answer.data.clone()));
            texts.insert(question.into(), words.collect());
        }
        drop((divergences, texts));
        match heard {
            Heard::Confirmed(kind) => {
                self.pool.borrow().state.carried.divergences[kind as usize].increment();
                self.warn(question, kind, now);
            }
            Heard::Nothing | Heard::Gone => {}
        }
    }

    /// Tells the log, unless it was told something within a minute.
    fn warn(&self, question: &[u8], kind: Kind, now: Instant) {
        let mut warned = self.warned.borrow_mut();
        if warned.at.is_some_and(|at| now.saturating_duration_since(at) < WARN_EVERY) {
            warned.untold += 1;
            return;
        }
        let Some(shown) = self.show_one(question, now) else { return };
        let members = shown.groups().into_iter().map(|(said, who)| format!("{}: {}", who.join(", "), said.line()));
        let members = members.collect::<Vec<_>>().join("; ");
        let shown::Divergence { pool, name, qtype, .. } = &shown;
        let untold = std::mem::take(&mut warned.untold);
        warned.at = Some(now);
        tracing::warn!(pool, name, r#type = qtype, kind = kind.label(), members, untold, "replicas disagree");
    }

    /// What is known.
    fn show(&self) -> Vec<shown::Divergence> {
        let now = Instant::now();
        let questions: Vec<Box<[u8]>> =
            self.divergences.borrow().known().map(|(question, _)| question.into()).collect();
        questions.iter().filter_map(|question| self.show_one(question, now)).collect()
    }

    /// What is known of a question.
    fn show_one(&self, question: &[u8], now: Instant) -> Option<shown::Divergence> {
        let (pool, divergences, texts) = (self.pool.borrow(), self.divergences.borrow(), self.texts.borrow());
        let divergence = divergences.get(question)?;
        let (name, &[t0, t1, c0, c1, flags]) = question.split_last_chunk()?;
        let words = texts.get(question);
        let said = |said: &Said| {
            // Who has left the pool meanwhile has no name any more.
            let backend = pool.find(BackendIndex(u16::try_from(said.member.0).ok()?))?.name.clone();
            let data = words.and_then(|words| words.get(&said.digest)).cloned().unwrap_or_default();
            Some(shown::Said { backend, rcode: Rcode(said.rcode).to_string(), data, serial: said.serial })
        };
        let class = RecordClass(u16::from_be_bytes([c0, c1]));
        let ago = |at| clock::unix_seconds(now.saturating_duration_since(at));
        let flags = QuestionFlags::of_octet(flags);
        let set = [("RD", flags.recursion_desired()), ("CD", flags.checking_disabled()), ("DO", flags.dnssec_ok())];
        Some(shown::Divergence {
            pool: pool.config.name.clone(),
            name: display_name(name).to_string(),
            qtype: RecordType(u16::from_be_bytes([t0, t1])).to_string(),
            class: (class != RecordClass::IN).then(|| class.to_string()),
            flags: set.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| (*flag).to_owned()).collect(),
            kind: divergence.kind.label().to_owned(),
            since: ago(divergence.since),
            seen: ago(divergence.seen),
            said: divergence.said.iter().filter_map(said).collect(),
        })
    }
}

/// All members that take queries; of many those who are named, and others by chance if it is not known yet who says what.
fn whom_to_ask(pool: &SharedPool, named: &[MemberId]) -> Vec<Arc<SharedBackend>> {
    let taking = || pool.backends.iter().filter(|backend| backend.takes_queries());
    if taking().count() <= MOST {
        return taking().cloned().collect();
    }
    let is_named = |backend: &&Arc<SharedBackend>| named.contains(&member(backend.index));
    let mut asked: Vec<_> = taking().filter(is_named).take(MOST).cloned().collect();
    // One alone is who is suspected, or what is left of those who were asked.
    if named.len() < 2 {
        let others = taking().filter(|backend| !is_named(backend)).cloned();
        asked.extend(others.sample(&mut rand::rng(), MOST - asked.len()));
    }
    asked
}

/// What the comparison calls a backend.
fn member(index: BackendIndex) -> MemberId {
    MemberId(index.get() as u32)
}

/// Members that are asked one question at most.
pub const MOST: usize = 64;

/// How often it is looked what workers have left. A difference counts after ten times that.
const LOOK: Duration = Duration::from_millis(100);

/// How long a member has for its answer. Whoever takes longer is compared another time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Questions of a pool that are being asked at a time: one member that is silent holds each up for as long as that.
const MAX_ROUNDS: usize = 8;

/// What is offered: octets that pass every path without being fragmented (DNS flag day 2020).
const UDP_SIZE: u16 = 1232;

/// The log is told of one divergence of a pool in so long.
const WARN_EVERY: Duration = Duration::from_secs(60);
