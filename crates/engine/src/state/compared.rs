//! Questions that workers leave for the comparison of pool members. A worker never waits for the lock.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use dns::{QuestionFlags, QuestionKey};
use hedge::BackendIndex;

/// The questions for the comparison.
#[derive(Debug, Default)]
pub struct ComparisonQuestions {
    suspects: Mutex<Vec<Suspect>>,
    has_suspects: AtomicBool,
    recent: Mutex<Option<QuestionKey>>,
    is_wanted: AtomicBool,
}

/// A question with differing replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The question, with the flags of its query.
    pub question: QuestionKey,
    /// The backend with the differing reply.
    pub backend: BackendIndex,
}

impl ComparisonQuestions {
    /// Records that a backend replied differently to a question in wire form.
    #[cold]
    pub(crate) fn suspect(&self, question: &[u8], flags: QuestionFlags, backend: BackendIndex) {
        let Some(mut suspects) = try_lock(&self.suspects) else { return };
        let Some(question) = QuestionKey::of_parts(question, flags) else { return };
        if suspects.len() < MAX_SUSPECTS && !suspects.iter().any(|suspect| suspect.question == question) {
            suspects.push(Suspect { question, backend });
            self.has_suspects.store(true, Relaxed);
        }
    }

    /// Takes the questions recorded since the last call.
    pub fn take_suspects(&self) -> Vec<Suspect> {
        match self.has_suspects.swap(false, Relaxed) {
            true => std::mem::take(&mut *lock(&self.suspects)),
            false => Vec::new(),
        }
    }

    /// Records a recent question in wire form, if one is wanted.
    #[inline]
    pub(crate) fn note_recent(&self, question: &[u8], flags: QuestionFlags) {
        if self.is_wanted.load(Relaxed) {
            self.keep_recent(question, flags);
        }
    }

    #[cold]
    fn keep_recent(&self, question: &[u8], flags: QuestionFlags) {
        let Some(mut recent) = try_lock(&self.recent) else { return };
        *recent = QuestionKey::of_parts(question, flags);
        self.is_wanted.store(false, Relaxed);
    }

    /// Takes the recent question, if there is one, and requests another.
    pub fn take_recent(&self) -> Option<QuestionKey> {
        let taken = lock(&self.recent).take();
        self.is_wanted.store(true, Relaxed);
        taken
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// The maximum number of pending questions; each takes some 300 bytes.
const MAX_SUSPECTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn question(number: u8) -> [u8; 7] {
        [1, number, 0, 0, 1, 0, 1]
    }

    #[test]
    fn each_suspect_is_left_once_as_long_as_there_is_room() {
        let compared = ComparisonQuestions::default();
        let flags = QuestionFlags::default();
        for number in (0..=200).chain(0..=200) {
            compared.suspect(&question(number), flags, BackendIndex(0));
        }
        let taken = compared.take_suspects();
        assert_eq!(taken.len(), MAX_SUSPECTS);
        assert_eq!(taken[9].question.as_octets(), [&question(9)[..], &[0]].concat());
        assert!(compared.take_suspects().is_empty());
        compared.suspect(&question(9), flags, BackendIndex(0));
        assert_eq!(compared.take_suspects().len(), 1);
    }

    #[test]
    fn a_recent_question_is_left_where_one_was_taken() {
        let compared = ComparisonQuestions::default();
        let flags = QuestionFlags::of_octet(1);
        compared.note_recent(&question(b'a'), flags);
        assert_eq!(compared.take_recent(), None, "no audit had asked for one");
        compared.note_recent(&question(b'B'), flags);
        compared.note_recent(&question(b'c'), flags);
        let taken = compared.take_recent().expect("a question");
        assert_eq!(taken.as_octets(), [&question(b'b')[..], &[1]].concat());
        assert_eq!(compared.take_recent(), None);
    }
}
