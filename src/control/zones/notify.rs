//! Sends NOTIFY (RFC 1996) to other servers when a zone has a new version, on the control thread.
//!
//! Each announcement is a task with a child task per server, which follows [`NotifyAttempts`]. A later
//! announcement of the same zone replaces it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use config::Sharing;
use dns::{Name, RecordType, eq_ignore_case};
use net::sys::clock::unix_now;
use net::tasks::{Task, TaskKind, Tasks, blocking};
use net::to_backends::client::UdpClient;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep_until;
use zone::Zone;
use zone::transfer::tsig::{TsigKey, sign_query};
use zone::transfer::{NotifyAttempts, NotifyStep, Records, is_notify_response, servers_to_notify, write_notify};

/// Announces new versions of zones to other servers.
pub struct Notifier {
    /// By authority and zone. Dropping a task cancels the announcement.
    running: HashMap<(usize, Name), Task>,
    /// The size at which finished announcements are removed.
    many: usize,
    places: Arc<Semaphore>,
    tasks: Tasks,
}

impl Notifier {
    /// Creates a notifier whose tasks run among `tasks`.
    pub fn new(tasks: Tasks) -> Self {
        Self { running: HashMap::new(), many: MANY, places: Arc::new(Semaphore::new(PLACES)), tasks }
    }

    /// Announces this version of a zone to its targets. Must be called within a `LocalRuntime`.
    pub fn notify(&mut self, authority: usize, zone: &Arc<Zone>, sharing: &Sharing, key: Option<TsigKey>) {
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
            // The channel closes when the last child task drops its end.
            let (over, mut all_over) = mpsc::channel::<()>(1);
            let announce_to = |target| {
                let (zone, key, over, places) = (Arc::clone(&zone), key.clone(), over.clone(), Arc::clone(&places));
                tasks.start(TaskKind::Notify, async move {
                    // Each child takes a socket, and there may be thousands of zones.
                    let _place = places.acquire_owned().await;
                    if let Err(error) = announce(&zone, target, key.as_ref()).await {
                        tracing::warn!(zone = %zone.apex(), serial = zone.serial(), %error, "NOTIFY cannot be sent");
                    }
                    drop(over);
                })
            };
            let _running: Vec<Task> = targets.into_iter().map(announce_to).collect();
            drop(over);
            all_over.recv().await;
        });
        self.running.insert((authority, name), task);
    }

    /// Cancels the announcements for all zones of an authority.
    pub fn forget(&mut self, authority: usize) {
        self.running.retain(|(of, _), _| *of != authority);
    }

    /// Cancels the announcement for a zone.
    pub fn forget_zone(&mut self, authority: usize, zone: &Name) {
        self.running.remove(&(authority, zone.clone()));
    }
}

/// The config names targets; if any client may transfer the zone, its name servers are added.
fn targets(zone: &Zone, sharing: &Sharing) -> Vec<SocketAddr> {
    let mut targets = sharing.also_notify.clone();
    if sharing.transfer_to.is_empty() {
        return targets;
    }
    let apex = zone.apex().as_wire();
    let is_apex = |rtype, owner: &[u8]| owner == apex && matches!(rtype, RecordType::SOA | RecordType::NS);
    // Two passes: one over the zone, which may be large, then one over the few records at the apex.
    let at_apex: Records = zone.iter().filter(|record| is_apex(record.rtype, record.owner)).collect();
    let is_server = |owner: &[u8]| {
        at_apex.iter().any(|record| record.rtype == RecordType::NS && eq_ignore_case(record.rdata, owner))
    };
    let addresses = zone
        .iter()
        .filter(|record| matches!(record.rtype, RecordType::A | RecordType::AAAA) && is_server(record.owner));
    let records: Records = at_apex.iter().chain(addresses).collect();
    for address in servers_to_notify(zone.apex(), records.iter()) {
        let target = SocketAddr::new(address, DNS_PORT);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

async fn announce(zone: &Zone, target: SocketAddr, key: Option<&TsigKey>) -> io::Result<()> {
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
                // An unreachable server is retried like a silent one.
                is_connected = client.connect().await.is_ok();
                if is_connected {
                    let _ = client.send(&message).await;
                }
            }
            NotifyStep::WaitUntil(at) if !is_connected => sleep_until(at.into()).await,
            NotifyStep::WaitUntil(at) => {
                // Signatures are not verified: a forged response would only prevent a repetition.
                let is_response = |message: &[u8]| is_notify_response(message, id, zone.apex());
                match client.receive_by(at, &mut [0; RESPONSE], is_response).await {
                    Ok(_) => attempts.on_response(),
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                    Err(_) => sleep_until(at.into()).await,
                }
            }
            NotifyStep::GiveUp => {
                let (zone, serial) = (zone.apex(), zone.serial());
                tracing::warn!(%zone, serial, secondary = %target, "the secondary does not respond to NOTIFY");
                return Ok(());
            }
            NotifyStep::Finished => return Ok(()),
        }
    }
}

const MANY: usize = 64;

const PLACES: usize = 256;

const DNS_PORT: u16 = 53;

const RESPONSE: usize = 512;
