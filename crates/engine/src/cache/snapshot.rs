//! The cache as bytes, so that it survives a restart.
//!
//! ```text
//!   magic and version    8 octets
//!   saved at             u64, milliseconds of the wall clock since 1970
//!   per entry:           1, pool u64, age u64 (ms), lifetime u32, flags u8, length u16, the reply
//!   end                  0
//!   fingerprint          u64, of all before
//! ```
//!
//! Numbers are little-endian. A snapshot holds fresh and stale answers, no failures. Entries age by the wall
//! clock while the process is down. After any error the cache is empty.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use config::CacheRules;
use dns::{QuestionFlags, read_reply};

use super::entry::{EntryHead, State};
use super::key::{CacheKey, EMPTY_FINGERPRINT, PoolId, fingerprint};
use super::maintain::Flush;
use super::shard::Retain;
use super::store::{Cache, lock};

/// The reason why a snapshot was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotLoadError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Io(io::Error),
    /// The content is damaged.
    #[error(transparent)]
    DamagedSnapshot(#[from] DamagedSnapshot),
}

/// The damage of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamagedSnapshot {
    /// The magic number or the version is wrong.
    #[error("is not a saved cache of this version")]
    Magic,
    /// The snapshot ends too early.
    #[error("is cut short")]
    CutShort,
    /// An entry is malformed.
    #[error("has an invalid entry")]
    Entry,
    /// The fingerprint does not match.
    #[error("does not match its fingerprint")]
    Fingerprint,
    /// Bytes follow the snapshot.
    #[error("has data behind its end")]
    OctetsLeft,
    /// The wall clock was set back, so the age of the entries is unknown.
    #[error("was saved later than now: the clock was set back, so its age is not known")]
    FromTheFuture,
}

impl Cache {
    /// Writes all fresh and stale answers, and returns their number. `wall` is the wall clock since 1970.
    pub fn save(&self, rules: &CacheRules, now: Instant, wall: Duration, out: &mut impl Write) -> io::Result<u64> {
        let now = self.now(rules, now);
        let mut out = ChecksumStream { inner: out, sum: EMPTY_FINGERPRINT };
        out.write(&MAGIC)?;
        out.write(&(wall.as_millis() as u64).to_le_bytes())?;
        let mut saved = 0;
        // The visitor runs under the lock of a shard, so it writes into memory first.
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

    /// Reads a snapshot into this cache, without pools that are not `known`, and returns the number of
    /// entries that are fresh or stale. `hash` is the seeded hash of a question that look-ups use.
    pub fn load(
        &self,
        rules: &CacheRules,
        now: Instant,
        wall: Duration,
        known: &[PoolId],
        hash: impl Fn(&[u8]) -> u64,
        snapshot: &mut impl Read,
    ) -> Result<u64, SnapshotLoadError> {
        let loaded = self.read_snapshot(rules, now, wall, known, hash, snapshot);
        if loaded.is_err() {
            self.flush(Flush::All);
        }
        loaded
    }

    fn read_snapshot(
        &self,
        rules: &CacheRules,
        now: Instant,
        wall: Duration,
        known: &[PoolId],
        hash: impl Fn(&[u8]) -> u64,
        snapshot: &mut impl Read,
    ) -> Result<u64, SnapshotLoadError> {
        let now = self.now(rules, now);
        let mut snapshot = ChecksumStream { inner: snapshot, sum: EMPTY_FINGERPRINT };
        let passed = snapshot.read_start(wall)?;
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
            // A loaded entry must be as sound as a reply from a backend.
            let question = read_reply(&reply).ok().and_then(|reply| reply.question()).ok_or(DamagedSnapshot::Entry)?;
            let question = question.as_wire();
            if flags.octet() != octet || !is_folded(question) {
                return Err(DamagedSnapshot::Entry.into());
            }
            let head = EntryHead {
                state: State::Answer,
                lifetime,
                kept_at: now.millis.saturating_sub(age),
                ..EntryHead::default()
            };
            if known.contains(&pool) && !head.is_gone(now.millis, now.stale) {
                let key = CacheKey::new(pool, question, flags, hash(question));
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

fn append_entry(head: &EntryHead, kept: &[u8], age: u64, out: &mut Vec<u8>) {
    out.push(ENTRY);
    out.extend_from_slice(&head.pool.to_le_bytes());
    out.extend_from_slice(&age.to_le_bytes());
    out.extend_from_slice(&head.lifetime.to_le_bytes());
    out.push(head.flags.octet());
    out.extend_from_slice(&head.len.to_le_bytes());
    out.extend_from_slice(kept);
}

/// Returns true if the name of a question is folded. Look-ups would never find an entry with another name.
fn is_folded(question: &[u8]) -> bool {
    question.split_last_chunk::<QTYPE_QCLASS>().is_some_and(|(name, _)| !name.iter().any(u8::is_ascii_uppercase))
}

struct ChecksumStream<'a, T> {
    inner: &'a mut T,
    sum: u64,
}

impl<W: Write> ChecksumStream<'_, W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.sum = fingerprint(self.sum, octets);
        self.inner.write_all(octets)
    }
}

impl<R: Read> ChecksumStream<'_, R> {
    /// Reads the start, and returns the milliseconds since the snapshot was saved.
    fn read_start(&mut self, wall: Duration) -> Result<u64, SnapshotLoadError> {
        if self.read()? != MAGIC {
            return Err(DamagedSnapshot::Magic.into());
        }
        let saved_at = u64::from_le_bytes(self.read()?);
        // A small step back of the clock, as NTP makes it, does not change the age of entries.
        let wall = wall.as_millis() as u64;
        if saved_at > wall + MAX_STEP.as_millis() as u64 {
            return Err(DamagedSnapshot::FromTheFuture.into());
        }
        Ok(wall.saturating_sub(saved_at))
    }

    fn read<const LEN: usize>(&mut self) -> Result<[u8; LEN], SnapshotLoadError> {
        let mut octets = [0; LEN];
        self.fill(&mut octets)?;
        Ok(octets)
    }

    fn fill(&mut self, octets: &mut [u8]) -> Result<(), SnapshotLoadError> {
        self.inner.read_exact(octets)?;
        self.sum = fingerprint(self.sum, octets);
        Ok(())
    }
}

impl From<io::Error> for SnapshotLoadError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::DamagedSnapshot(DamagedSnapshot::CutShort)
        } else {
            Self::Io(error)
        }
    }
}

/// The start of a snapshot. The last byte is the version.
const MAGIC: [u8; 8] = *b"hedgeca\x01";

const MAX_STEP: Duration = Duration::from_secs(1);

const ENTRY: u8 = 1;

const QTYPE_QCLASS: usize = 4;

const END: u8 = 0;
