//! Telling other servers of a new version of a zone by NOTIFY (RFC 1996), on the control thread.
//!
//! Each announcement is a task that obeys [`NotifyRound`]; a later one of the same zone takes its place.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep_until;

use crate::config::Sharing;
use crate::net::bind;
use crate::net::clock::unix_now;
use crate::net::tasks::{Task, TaskKind, Tasks, blocking};
use crate::transfer::tsig::{Key, sign_query};
use crate::transfer::{NotifyRound, NotifyStep, Records, Targets, is_notify_response, write_notify};
use crate::wire::{Name, RecordType, eq_ignore_case};
use crate::zone::Zone;

/// Tells others of changes.
pub struct Notifier {
    /// What is being told: the authority, the zone, and the task, which ends with its value.
    running: Vec<(usize, Name, Task)>,
    /// The tasks of this thread.
    tasks: Tasks,
}

impl Notifier {
    /// Has nothing to tell yet; its tasks are among these.
    pub fn new(tasks: Tasks) -> Self {
        Self { running: Vec::new(), tasks }
    }

    /// Tells whoever is to know of this version of a zone. Must be called within a `LocalSet`.
    pub fn notify(&mut self, authority: usize, zone: &Arc<Zone>, sharing: &Sharing, key: Option<Key>) {
        self.running.retain(|(of, name, task)| {
            let is_over = task.is_over();
            let is_outdated = *of == authority && name == zone.apex();
            !is_over && !is_outdated
        });
        if sharing.transfer_to.is_empty() && sharing.also_notify.is_empty() {
            return;
        }
        let (name, zone, sharing) = (zone.apex().clone(), Arc::clone(zone), sharing.clone());
        let task = self.tasks.start(TaskKind::Notify, async move {
            let looked_into = Arc::clone(&zone);
            let targets = blocking(move || targets(&looked_into, &sharing)).await;
            if targets.is_empty() {
                return;
            }
            if let Err(error) = tell(&zone, &targets, key.as_ref()).await {
                tracing::warn!(zone = %zone.apex(), serial = zone.serial(), %error, "NOTIFY cannot be sent");
            }
        });
        self.running.push((authority, name, task));
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

/// Tells all targets, each until it responds or has been told often enough.
async fn tell(zone: &Zone, targets: &[SocketAddr], key: Option<&Key>) -> io::Result<()> {
    // Where there is no IPv6, its place has a socket for IPv4, which reaches nobody there.
    let mut sockets = [bind::asking(false)?, bind::asking(true).or_else(|_| bind::asking(false))?];
    let ids: Vec<u16> = targets.iter().map(|_| rand::random()).collect();
    let mut announcement = NotifyRound::new(targets.len(), Instant::now());
    let (mut from_4, mut from_6) = ([0; RESPONSE], [0; RESPONSE]);
    loop {
        match announcement.next_step(Instant::now()) {
            NotifyStep::Send { target } => {
                let (Some(to), Some(id)) = (targets.get(target), ids.get(target)) else { continue };
                let mut message = Vec::new();
                write_notify(*id, zone.apex(), zone.soa(), &mut message);
                if let Some(key) = key {
                    sign_query(key, unix_now(), &mut message);
                }
                // One that cannot be reached now is tried again like one that is silent.
                let _ = sockets[usize::from(to.is_ipv6())].send_to(&message, to).await;
            }
            NotifyStep::GiveUp { target } => {
                let (zone, serial) = (zone.apex(), zone.serial());
                let target = targets.get(target).map(SocketAddr::to_string).unwrap_or_default();
                tracing::warn!(%zone, serial, secondary = %target, "no response to NOTIFY, however often it was sent");
            }
            NotifyStep::WaitUntil(at) => {
                let [socket_4, socket_6] = &mut sockets;
                let received = tokio::select! {
                    received = socket_4.recv_from(&mut from_4) => received.ok().map(|(len, from)| (&from_4[..len], from)),
                    received = socket_6.recv_from(&mut from_6) => received.ok().map(|(len, from)| (&from_6[..len], from)),
                    () = sleep_until(at.into()) => None,
                };
                // Not verified, if it is signed: a forged one would only keep us from saying it again.
                let Some((response, from)) = received else { continue };
                for (target, _) in targets.iter().enumerate().filter(|(_, target)| **target == from) {
                    if ids.get(target).is_some_and(|id| is_notify_response(response, *id)) {
                        announcement.on_response(target);
                    }
                }
            }
            NotifyStep::Finished => return Ok(()),
        }
    }
}

/// Where name servers listen.
const DNS_PORT: u16 = 53;

/// Octets of a response of which more than the header does not matter.
const RESPONSE: usize = 512;
