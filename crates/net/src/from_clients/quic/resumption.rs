//! Detects resumed handshakes. QUIC does not report them, so the ticketer does. A handshake step runs on one
//! thread from start to end, so a thread-local flag belongs to its connection.

use std::cell::Cell;
use std::sync::Arc;

use tokio_rustls::rustls::server::{ProducesTickets, StoresServerSessions};

thread_local! {
    static IS_KNOWN: Cell<bool> = const { Cell::new(false) };
}

/// Returns true if a ticket was valid on this thread since the last call.
pub(super) fn take() -> bool {
    IS_KNOWN.take()
}

fn note<T>(session: Option<T>) -> Option<T> {
    if session.is_some() {
        IS_KNOWN.set(true);
    }
    session
}

#[derive(Debug)]
pub(super) struct Tickets(pub(super) Arc<dyn ProducesTickets>);

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        note(self.0.decrypt(cipher))
    }
}

#[derive(Debug)]
pub(super) struct Sessions(pub(super) Arc<dyn StoresServerSessions>);

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        note(self.0.get(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        note(self.0.take(key))
    }

    fn can_cache(&self) -> bool {
        self.0.can_cache()
    }
}
