//! The cache as octets, so that it survives a restart.
//!
//! ```text
//!   magic and version    8 octets
//!   saved at             u64, milliseconds of the wall clock since 1970
//!   per entry:           1, pool u64, age u64 (ms), lifetime u32, flags u8, length u16, the reply
//!   end                  0
//!   fingerprint          u64, of all before
//! ```
//!
//! Numbers are little-endian. Answers are written, fresh and stale; failures are not worth it. While the process was down the wall
//! clock has aged them. Whatever is wrong with the octets, the cache is empty then, and the error says what.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::entry::{Head, State};
use super::key::{EMPTY_FINGERPRINT, Key, PoolId, fingerprint};
use super::maintain::Flush;
use super::rules::Rules;
use super::shard::Retain;
use super::store::{Cache, lock};
use crate::wire::{QuestionFlags, read_reply};

/// Why a snapshot was not loaded.
#[derive(Debug)]
pub enum LoadError {
    /// It could not be read.
    Io(io::Error),
    /// It is not what was saved.
    DamagedSnapshot(DamagedSnapshot),
}

/// What is wrong with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamagedSnapshot {
    /// It is no snapshot, or one of another version.
    Magic,
    /// It ends too early.
    CutShort,
    /// An entry is none.
    Entry,
    /// It does not match its fingerprint.
    Fingerprint,
    /// Something follows it.
    OctetsLeft,
    /// It was saved later than now: the wall clock was set back, and nobody knows how old the entries are.
    FromTheFuture,
}

impl Cache {
    /// Writes all answers that are not gone, and says how many. `wall` is the wall clock's time since 1970.
    pub fn save(&self, rules: &Rules, now: Instant, wall: Duration, out: &mut impl Write) -> io::Result<u64> {
        let now = self.now(rules, now);
        let mut out = Summed { inner: out, sum: EMPTY_FINGERPRINT };
        out.write(&MAGIC)?;
        out.write(&(wall.as_millis() as u64).to_le_bytes())?;
        let mut saved = 0;
        // A visitor runs under the lock of a shard, so it writes into memory; that goes out between two steps.
        let mut step = Vec::new();
        for shard in self.shards() {
            let mut from = Some(0);
            while let Some(slot) = from {
                from = lock(shard).visit(slot, |head, kept| {
                    if head.state == State::Answer && !head.is_gone(now.millis, now.stale) {
                        saved += 1;
                        append_entry(head, kept, head.age(now.millis), &mut step);
                    }
                    Retain::Keep
                });
                out.write(&step)?;
                step.clear();
            }
        }
        out.write(&[END])?;
        let sum = out.sum;
        out.inner.write_all(&sum.to_le_bytes())?;
        Ok(saved)
    }

    /// Reads what was saved into this cache, and says how many entries are good still. Those of pools that are not `known` are
    /// left out. `hash` is the seeded hash of a question that look-ups use.
    pub fn load(
        &self,
        rules: &Rules,
        now: Instant,
        wall: Duration,
        known: &[PoolId],
        hash: impl Fn(&[u8]) -> u64,
        snapshot: &mut impl Read,
    ) -> Result<u64, LoadError> {
        let loaded = self.read_snapshot(rules, now, wall, known, hash, snapshot);
        if loaded.is_err() {
            self.flush(Flush::All);
        }
        loaded
    }

    fn read_snapshot(
        &self,
        rules: &Rules,
        now: Instant,
        wall: Duration,
        known: &[PoolId],
        hash: impl Fn(&[u8]) -> u64,
        snapshot: &mut impl Read,
    ) -> Result<u64, LoadError> {
        let now = self.now(rules, now);
        let mut snapshot = Summed { inner: snapshot, sum: EMPTY_FINGERPRINT };
        if snapshot.read()? != MAGIC {
            return Err(DamagedSnapshot::Magic.into());
        }
        let saved_at = u64::from_le_bytes(snapshot.read()?);
        // A clock that is set back by a moment, as NTP does, makes entries no older.
        let wall = wall.as_millis() as u64;
        if saved_at > wall + MAX_STEP.as_millis() as u64 {
            return Err(DamagedSnapshot::FromTheFuture.into());
        }
        let passed = wall.saturating_sub(saved_at);
        let mut loaded = 0;
        let mut reply = Vec::new();
        loop {
            match snapshot.read()? {
                [END] => break,
                [ENTRY] => {}
                _ => return Err(DamagedSnapshot::Entry.into()),
            }
            let pool = PoolId(u64::from_le_bytes(snapshot.read()?));
            let age = u64::from_le_bytes(snapshot.read()?).saturating_add(passed);
            let lifetime = u32::from_le_bytes(snapshot.read()?);
            let [octet] = snapshot.read()?;
            let flags = QuestionFlags::of_octet(octet).without_recursion_desired();
            let len = u16::from_le_bytes(snapshot.read()?);
            reply.resize(usize::from(len), 0);
            snapshot.fill(&mut reply)?;
            // Before it is in the cache it must be as sound as what comes from a backend.
            let question = read_reply(&reply).ok().and_then(|reply| reply.question()).ok_or(DamagedSnapshot::Entry)?;
            let question = question.as_wire();
            if flags.octet() != octet || !is_folded(question) {
                return Err(DamagedSnapshot::Entry.into());
            }
            let head =
                Head { state: State::Answer, lifetime, kept_at: now.millis.saturating_sub(age), ..Head::default() };
            if known.contains(&pool) && !head.is_gone(now.millis, now.stale) {
                let key = Key::new(pool, question, flags, hash(question));
                self.shard(&key).restore(&key, head, &reply, now);
                loaded += 1;
            }
        }
        let sum = snapshot.sum;
        if u64::from_le_bytes(snapshot.read()?) != sum {
            return Err(DamagedSnapshot::Fingerprint.into());
        }
        if snapshot.inner.read(&mut [0])? > 0 {
            return Err(DamagedSnapshot::OctetsLeft.into());
        }
        Ok(loaded)
    }
}

/// Appends an entry to a snapshot.
fn append_entry(head: &Head, kept: &[u8], age: u64, out: &mut Vec<u8>) {
    out.push(ENTRY);
    out.extend_from_slice(&head.pool.to_le_bytes());
    out.extend_from_slice(&age.to_le_bytes());
    out.extend_from_slice(&head.lifetime.to_le_bytes());
    out.push(head.flags.octet());
    out.extend_from_slice(&head.len.to_le_bytes());
    out.extend_from_slice(kept);
}

/// Whether the name of a question is folded, as all that is kept are; else nobody would find it.
fn is_folded(question: &[u8]) -> bool {
    question.split_last_chunk::<QTYPE_QCLASS>().is_some_and(|(name, _)| !name.iter().any(u8::is_ascii_uppercase))
}

/// What is read or written, and the fingerprint of all of it so far.
struct Summed<'a, T> {
    /// The other side.
    inner: &'a mut T,
    /// The fingerprint.
    sum: u64,
}

impl<W: Write> Summed<'_, W> {
    /// Writes all of these octets.
    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.sum = fingerprint(self.sum, octets);
        self.inner.write_all(octets)
    }
}

impl<R: Read> Summed<'_, R> {
    /// Reads so many octets as are asked for.
    fn read<const LEN: usize>(&mut self) -> Result<[u8; LEN], LoadError> {
        let mut octets = [0; LEN];
        self.fill(&mut octets)?;
        Ok(octets)
    }

    fn fill(&mut self, octets: &mut [u8]) -> Result<(), LoadError> {
        self.inner.read_exact(octets)?;
        self.sum = fingerprint(self.sum, octets);
        Ok(())
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::DamagedSnapshot(DamagedSnapshot::CutShort)
        } else {
            Self::Io(error)
        }
    }
}

impl From<DamagedSnapshot> for LoadError {
    fn from(damaged: DamagedSnapshot) -> Self {
        Self::DamagedSnapshot(damaged)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot be read: {error}"),
            Self::DamagedSnapshot(damaged) => damaged.fmt(f),
        }
    }
}

impl fmt::Display for DamagedSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magic => "is no saved cache, or one of another version",
            Self::CutShort => "is cut short",
            Self::Entry => "holds an entry that is none",
            Self::Fingerprint => "does not match its fingerprint",
            Self::OctetsLeft => "goes on behind its end",
            Self::FromTheFuture => "was saved later than now: the clock was set back, so its age is not known",
        })
    }
}

impl std::error::Error for LoadError {}

/// What a snapshot begins with. The last octet is the version.
const MAGIC: [u8; 8] = *b"hedgeca\x01";

/// By how much a clock may be set back between two processes.
const MAX_STEP: Duration = Duration::from_secs(1);

/// What an entry begins with.
const ENTRY: u8 = 1;

/// Octets of a question behind its name.
const QTYPE_QCLASS: usize = 4;

/// What stands behind the last entry.
const END: u8 = 0;
