//! Compares the replies of pool members: one task for each pool that wants it, on the control thread.
//!
//! The task takes questions from the workers ([`Compared`](engine::state::Compared)): those with different
//! replies, and now and then a recent one for the audit. [`Divergences`] decides on the questions for all
//! members, and on the results. In a pool of more than [`MOST`] members, suspected ones and those with a
//! known answer are asked, and random others. These queries count as probes. Divergences are shown, counted,
//! and logged once a minute at most.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::{OwnEdns, QuestionFlags, Rcode, RecordClass, RecordType, display_name};
use engine::state::{ForwarderState, PoolState, SharedBackend, SharedPool};
use hedge::BackendIndex;
use net::sys::clock;
use net::tasks::{Task, TaskKind};
use rand::seq::IteratorRandom;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::sleep_until;

use super::ReplicaLinks;
use super::ask::{ReplicaMember, ReplicaQuestion, ask};
use super::said::ReplicaAnswer;
use crate::control::observe::sight::divergence as shown;
use crate::control::pools::replicas::divergence::{Ask, DivergenceKind, DivergenceTable, MemberAnswer, RoundResult};

/// The comparisons of all pools that want any.
pub struct Comparisons {
    watches: HashMap<*const PoolState, ComparisonTask>,
    links: ReplicaLinks,
}

struct ComparisonTask {
    comparison: Rc<PoolComparison>,
    _task: Task,
}

impl Comparisons {
    /// Makes a value without pools. Each query takes a place of the links. Must be used within a
    /// `LocalRuntime`.
    pub fn new(links: ReplicaLinks) -> Self {
        Self { watches: HashMap::new(), links }
    }

    /// Sets the pools. Pools that stay keep their data.
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

    /// Stops all comparisons.
    pub fn stop(&mut self) {
        self.watches.clear();
    }

    /// Returns the number of questions that members of a pool answer differently.
    pub fn count(&self, pool: &SharedPool) -> usize {
        let watch = self.watches.get(&Arc::as_ptr(&pool.state));
        watch.map_or(0, |watch| watch.comparison.divergences.borrow().known().len())
    }

    /// Returns the known divergences of these pools.
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

    fn watch(&self, pool: &Arc<SharedPool>) -> ComparisonTask {
        let comparison = Rc::new(PoolComparison {
            pool: RefCell::new(Arc::clone(pool)),
            divergences: RefCell::default(),
            texts: RefCell::default(),
            rounds: Cell::new(0),
            warned: RefCell::default(),
            links: self.links.clone(),
        });
        let task = self.links.tasks.start(TaskKind::Replicas, Rc::clone(&comparison).run());
        ComparisonTask { comparison, _task: task }
    }
}

fn is_compared(pool: &SharedPool) -> bool {
    pool.config.replicas.compare > 0.0 || pool.config.replicas.audit.is_some()
}

struct PoolComparison {
    pool: RefCell<Arc<SharedPool>>,
    divergences: RefCell<DivergenceTable>,
    /// Readable answers to questions with known divergences.
    texts: RefCell<BTreeMap<Box<[u8]>, Texts>>,
    rounds: Cell<usize>,
    warned: RefCell<WarningAccount>,
    links: ReplicaLinks,
}

type Texts = BTreeMap<u32, String>;

#[derive(Default)]
struct WarningAccount {
    at: Option<Instant>,
    /// Divergences that were not logged since.
    unreported: u64,
}

impl PoolComparison {
    async fn run(self: Rc<Self>) {
        let mut next_audit = Instant::now();
        loop {
            let now = Instant::now();
            self.collect(&mut next_audit, now);
            while self.rounds.get() < MAX_ROUNDS
                && let Some(ask) = self.divergences.borrow_mut().ask(now)
            {
                self.rounds.set(self.rounds.get() + 1);
                self.links.tasks.start_and_leave(TaskKind::Replicas, Rc::clone(&self).round(ask));
            }
            let due = self.divergences.borrow().next().filter(|_| self.rounds.get() < MAX_ROUNDS);
            let next = due.map_or(now + LOOK, |due| due.min(now + LOOK));
            sleep_until(next.into()).await;
        }
    }

    fn collect(&self, next_audit: &mut Instant, now: Instant) {
        let (pool, mut divergences) = (self.pool.borrow(), self.divergences.borrow_mut());
        for suspect in pool.state.compared.take_suspects() {
            divergences.suspect(suspect.question.as_octets(), Some(suspect.backend), now);
        }
        let Some(every) = pool.config.replicas.audit else { return };
        if now >= *next_audit {
            *next_audit = now + every;
            if let Some(recent) = pool.state.compared.take_recent() {
                divergences.suspect(recent.as_octets(), None, now);
            }
        }
    }

    async fn round(self: Rc<Self>, Ask { question, members }: Ask) {
        let pool = Arc::clone(&self.pool.borrow());
        let (sender, mut answers) = unbounded_channel();
        let deadline = Instant::now() + PATIENCE;
        let ask_one = |backend: Arc<SharedBackend>| {
            let (question, sender, links) = (question.clone(), sender.clone(), self.links.clone());
            self.links.tasks.start(TaskKind::Replicas, async move {
                // The place is released with the task. A member without a place counts as silent.
                let Ok(_place) = Arc::clone(&links.places).acquire_owned().await else { return };
                backend.probes.increment();
                let edns = Some(OwnEdns { udp_size: UDP_SIZE, wants_version: true });
                let Some((flags, question)) = question.split_last() else { return };
                let asked = ReplicaQuestion { question, flags: QuestionFlags::of_octet(*flags), edns };
                let reply = ask(&ReplicaMember::of(&backend, &links.tls), &asked, deadline).await;
                if let Some(answer) = reply.ok().as_deref().and_then(ReplicaAnswer::of) {
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

    fn hear(&self, question: &[u8], answers: &[(BackendIndex, ReplicaAnswer)], now: Instant) {
        let said: Vec<_> = answers.iter().map(|(index, answer)| answer.by(*index)).collect();
        let mut divergences = self.divergences.borrow_mut();
        let heard = divergences.hear(question, &said, now);
        let known = |question: &[u8]| divergences.get(question).is_some();
        let mut texts = self.texts.borrow_mut();
        // Removes the texts of divergences that were dropped for space or age.
        if texts.len() > divergences.known().len() {
            texts.retain(|question, _| known(question));
        }
        if known(question) {
            let words = answers.iter().map(|(_, answer)| (answer.digest, answer.data.clone()));
            texts.insert(question.into(), words.collect());
        }
        drop((divergences, texts));
        match heard {
            RoundResult::Confirmed(kind) => {
                self.pool.borrow().state.carried.divergences[kind as usize].increment();
                self.warn(question, kind, now);
            }
            RoundResult::Nothing | RoundResult::Gone => {}
        }
    }

    /// Logs a divergence, at most once a minute.
    fn warn(&self, question: &[u8], kind: DivergenceKind, now: Instant) {
        let mut warned = self.warned.borrow_mut();
        if warned.at.is_some_and(|at| now.saturating_duration_since(at) < WARN_EVERY) {
            warned.unreported += 1;
            return;
        }
        let Some(shown) = self.show_one(question, now) else { return };
        let members = shown.groups().into_iter().map(|(said, who)| format!("{}: {}", who.join(", "), said.line()));
        let members = members.collect::<Vec<_>>().join("; ");
        let shown::Divergence { pool, name, qtype, .. } = &shown;
        let unreported = std::mem::take(&mut warned.unreported);
        warned.at = Some(now);
        tracing::warn!(pool, name, r#type = qtype, kind = kind.label(), members, unreported, "replicas disagree");
    }

    fn show(&self) -> Vec<shown::Divergence> {
        let now = Instant::now();
        let questions: Vec<Box<[u8]>> =
            self.divergences.borrow().known().map(|(question, _)| question.into()).collect();
        questions.iter().filter_map(|question| self.show_one(question, now)).collect()
    }

    fn show_one(&self, question: &[u8], now: Instant) -> Option<shown::Divergence> {
        let (pool, divergences, texts) = (self.pool.borrow(), self.divergences.borrow(), self.texts.borrow());
        let divergence = divergences.get(question)?;
        let (name, &[t0, t1, c0, c1, flags]) = question.split_last_chunk()?;
        let words = texts.get(question);
        let said = |said: &MemberAnswer| {
            // A member that has left the pool has no name any more.
            let backend = pool.find(said.member)?.name.clone();
            let data = words.and_then(|words| words.get(&said.digest)).cloned().unwrap_or_default();
            Some(shown::DivergentAnswer { backend, rcode: Rcode(said.rcode).to_string(), data, serial: said.serial })
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

/// Returns all members that take queries; in a large pool the named ones, and random others if the answers
/// are not known yet.
fn whom_to_ask(pool: &SharedPool, named: &[BackendIndex]) -> Vec<Arc<SharedBackend>> {
    let taking = || pool.backends.iter().filter(|backend| backend.takes_queries());
    if taking().count() <= MOST {
        return taking().cloned().collect();
    }
    let is_named = |backend: &&Arc<SharedBackend>| named.contains(&backend.index);
    let mut asked: Vec<_> = taking().filter(is_named).take(MOST).cloned().collect();
    // A single member has nothing to be compared with.
    if named.len() < 2 {
        let others = taking().filter(|backend| !is_named(backend)).cloned();
        asked.extend(others.sample(&mut rand::rng(), MOST - asked.len()));
    }
    asked
}

/// The largest number of members asked one question.
pub const MOST: usize = 64;

/// The interval at which questions are taken from the workers. A difference counts after ten times that.
const LOOK: Duration = Duration::from_millis(100);

/// The time limit for an answer. A slower member is compared another time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Concurrent questions of a pool: one silent member delays each of them by the time limit.
const MAX_ROUNDS: usize = 8;

/// The offered UDP size, which passes every path without fragmentation (DNS flag day 2020).
const UDP_SIZE: u16 = 1232;

/// The interval of log lines on one pool.
const WARN_EVERY: Duration = Duration::from_secs(60);
