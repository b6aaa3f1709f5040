//! Telling other servers of a new version of a zone by NOTIFY (RFC 1996), on the control thread.
//!
//! Each announcement is a task, with one for each server that is told, which obeys [`NotifyAttempts`]; a later announcement of
//! the same zone takes its place.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep_until;

use crate::config::Sharing;
use crate::net::client::UdpClient;
use crate::net::clock::unix_now;
use crate::net::tasks::{Task, TaskKind, Tasks, blocking};
use crate::transfer::tsig::{Key, sign_query};
use crate::transfer::{NotifyAttempts, NotifyStep, Records, Targets, is_notify_response, write_notify};
use crate::wire::{Name, RecordType, eq_ignore_case};
use crate::zone::Zone;

/// Tells others of changes.
pub struct Notifier {
    /// What is being told, by authority and zone: tasks, which end with their values.
    running: HashMap<(usize, Name), Task>,
    /// Those that are over are cleared away when there are so many.
    many: usize,
    /// One for each server that is told at a time of a zone.
    places: Arc<Semaphore>,
    /// The tasks of this thread.
    tasks: Tasks,
}

impl Notifier {
    /// Has nothing to tell yet; its tasks are among these.
    pub fn new(tasks: Tasks) -> Self {
        Self { running: HashMap::new(), many: MANY, places: Arc::new(Semaphore::new(PLACES)), tasks }
    }

    /// Tells whoever is to know of this version of a zone. Must be called within a `LocalSet`.
    pub fn notify(&mut self, authority: usize, zone: &Arc<Zone>, sharing: &Sharing, key: Option<Key>) {
        self.forget_zone(authority, zone.apex());
        if self.running.len() >= self.many {
            self.running.retain(|_, task| !task.is_over());
            self.many = MANY.max(self.running.len() * 2);
        }
        if sharing.transfer_to.is_empty() && sharing.also_notify.is_empty() {
            return;
        }
        let (name, zone, sharing) = (zone.apex().clone(), Arc::clone(zone), sharing.clone());
        let (tasks, places) = (self.tasks.clone(), Arc::clone(&self.places));
        let task = self.tasks.start(TaskKind::Notify, async move {
            let looked_into = Arc::clone(&zone);
            let targets = blocking(move || targets(&looked_into, &sharing)).await;
            // Ends when the last of them has let go of it.
            let (over, mut all_over) = mpsc::channel::<()>(1);
            let tell_one = |target| {
                let (zone, key, over, places) = (Arc::clone(&zone), key.clone(), over.clone(), Arc::clone(&places));
                tasks.start(TaskKind::Notify, async move {
                    // Each takes a socket, and there may be thousands of zones.
                    let _place = places.acquire_owned().await;
                    if let Err(error) = tell(&zone, target, key.as_ref()).await {
                        tracing::warn!(zone = %zone.apex(), serial = zone.serial(), %error, "NOTIFY cannot be sent");
                    }
                    drop(over);
                })
            };
            // Whoever ends this task ends these.
            let _told: Vec<Task> = targets.into_iter().map(tell_one).collect();
            drop(over);
            all_over.recv().await;
        });
        self.running.insert((authority, name), task);
    }

    /// Tells nobody any more of the zones of an authority.
    pub fn forget(&mut self, authority: usize) {
        self.running.retain(|(of, _), _| *of != authority);
    }

    /// Tells nobody any more of a zone.
    pub fn forget_zone(&mut self, authority: usize, zone: &Name) {
        self.running.remove(&(authority, zone.clone()));
    }
}

/// Whom to tell: those in the config, and if anybody may transfer the zone, the name servers that it names.
fn targets(zone: &Zone, sharing: &Sharing) -> Vec<SocketAddr> {
    let mut targets = sharing.also_notify.clone();
    if sharing.transfer_to.is_empty() {
        return targets;
    }
    let apex = zone.apex().as_wire();
    let is_apex = |rtype, owner: &[u8]| owner == apex && matches!(rtype, RecordType::SOA | RecordType::NS);
    // In two passes over a zone that may be large, and then over the few records that matter.
    let at_apex: Records = zone.iter().filter(|record| is_apex(record.rtype, record.owner)).collect();
    let is_server = |owner: &[u8]| {
        at_apex.iter().any(|record| record.rtype == RecordType::NS && eq_ignore_case(record.rdata, owner))
    };
    let addresses = zone
        .iter()
        .filter(|record| matches!(record.rtype, RecordType::A | RecordType::AAAA) && is_server(record.owner));
    let records: Records = at_apex.iter().chain(addresses).collect();
    for address in Targets::of(zone.apex(), records.iter()).addresses {
        let target = SocketAddr::new(address, DNS_PORT);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

/// Tells a server of a version of a zone until it responds or has been told often enough.
///
/// # Errors
/// If there is no socket to be had.
async fn tell(zone: &Zone, target: SocketAddr, key: Option<&Key>) -> io::Result<()> {
    let client = UdpClient::bind(target)?;
    let id = rand::random();
    let mut attempts = NotifyAttempts::new(Instant::now());
    let mut is_connected = false;
    loop {
        match attempts.next_step(Instant::now()) {
            NotifyStep::Send => {
                let mut message = Vec::new();
                write_notify(id, zone.apex(), zone.soa(), &mut message);
                if let Some(key) = key {
                    sign_query(key, unix_now(), &mut message);
                }
                // One that cannot be reached now is tried again like one that is silent.
                is_connected = client.connect().await.is_ok();
                if is_connected {
                    let _ = client.send(&message).await;
                }
            }
            NotifyStep::WaitUntil(at) if !is_connected => sleep_until(at.into()).await,
            NotifyStep::WaitUntil(at) => {
                // Not verified, if it is signed: a forged one would only keep us from saying it again.
                let is_response = |message: &[u8]| is_notify_response(message, id);
                match client.receive_by(at, &mut [0; RESPONSE], is_response).await {
                    Ok(_) => attempts.on_response(),
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                    Err(_) => sleep_until(at.into()).await,
                }
            }
            NotifyStep::GiveUp => {
                let (zone, serial) = (zone.apex(), zone.serial());
                tracing::warn!(%zone, serial, secondary = %target, "no response to NOTIFY, however often it was sent");
                return Ok(());
            }
            NotifyStep::Finished => return Ok(()),
        }
    }
}

/// Announcements among which those that are over are looked for.
const MANY: usize = 64;

/// Servers that are told at a time, of whatever zone.
const PLACES: usize = 256;

/// Where name servers listen.
const DNS_PORT: u16 = 53;

/// Octets of a response of which more than the header does not matter.
const RESPONSE: usize = 512;
