//! Faults and orders: each begins at a drawn time, and ends by itself.

use std::time::Duration;

use hedgerow::supervisor::tree::{ChangeKind, Pid};
use rand::RngExt;

use super::clock::Event;
use super::host::HostId;
use super::{AUTHORITIES, FORWARDERS, World, member};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A process is killed: a member by its place, or the supervisor.
    Kill(HostId, usize),
    /// The whole host loses its power.
    PowerLoss(HostId),
    /// A process is stopped for a while: a member by its place, or the supervisor.
    Stop(HostId, usize, Option<Pid>),
    /// Nothing passes between two hosts, in one direction or both.
    Cut(HostId, HostId, bool),
    /// Nothing passes between a forwarder and all authorities.
    Isolate(HostId),
    /// Datagrams between hosts are lost, doubled or late.
    Loss(f64, f64, f64),
    /// A device in the network resets a stream.
    Reset,
    /// The disk of a host is full.
    FullDisk(HostId),
    /// The wall clock of a host jumps.
    ClockJump(HostId, i64),
    /// The operator writes a new version of the zone, or two.
    NewVersion,
    /// The operator reloads a forwarder.
    Reload(HostId, NewConfig),
    /// The operator asks for a restart or an upgrade.
    Change(HostId, bool),
    /// No endpoint of etcd answers.
    EtcdDown,
    /// An authority leaves the register, and comes back.
    Unregister(HostId),
    /// An authority leaves the register while no forwarder reaches it.
    Leave(HostId),
    /// etcd forgets its changes.
    Compact,
}

/// The config of a reload.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewConfig {
    Good,
    /// A backend has left the list.
    Fewer,
    Bad,
}

impl NewConfig {
    const ALL: [Self; 3] = [Self::Good, Self::Fewer, Self::Bad];

    fn of(self, pools: &str) -> String {
        match self {
            Self::Good => pools.replace("attempt_timeout = \"400ms\"", "attempt_timeout = \"300ms\""),
            Self::Fewer => match pools.split_once("backends = [") {
                Some((before, list)) => {
                    let rest = list.split_once(", ").map_or(list, |(_, rest)| rest);
                    format!("{before}backends = [{rest}")
                }
                None => pools.replace("hold = \"3s\"", "hold = \"1s\""),
            },
            Self::Bad => pools.replace("dispatch", "despatch"),
        }
    }
}

impl World {
    pub(crate) fn plan_faults(&mut self, length: usize) {
        let count = self.around.rng.random_range(2..=9) * length;
        for number in 0..count {
            let fault = self.draw_fault();
            self.faults.push(fault);
            let most = self.trouble.as_millis() as u64 - 500;
            let at = Duration::from_millis(500) + self.around.millis(most);
            self.around.after(at, Event::Fault(number));
        }
    }

    fn draw_fault(&mut self) -> Fault {
        let rng = &mut self.around.rng;
        let host = rng.random_range(0..5);
        let authority = AUTHORITIES[rng.random_range(0..3)];
        let forwarder = FORWARDERS[rng.random_range(0..2)];
        match rng.random_range(0..19) {
            0..3 => Fault::Kill(host, rng.random_range(0..3)),
            3 => Fault::PowerLoss(host),
            4 => {
                self.around.truth.longest_stop = MAX_STOP;
                Fault::Stop(host, rng.random_range(0..3), None)
            }
            5 => Fault::Cut(forwarder, authority, rng.random_bool(0.5)),
            6 => Fault::Cut(2, AUTHORITIES[rng.random_range(1..3)], rng.random_bool(0.5)),
            7 => Fault::Loss(rng.random_range(0.0..0.4), rng.random_range(0.0..0.2), rng.random_range(0.0..0.3)),
            8 => Fault::Reset,
            9 => Fault::FullDisk(authority),
            10 => Fault::ClockJump(host, [-86_400, -400, -5, 5, 400, 86_400][rng.random_range(0..6)]),
            11 | 12 => Fault::NewVersion,
            13 => Fault::Reload(forwarder, NewConfig::ALL[rng.random_range(0..3)]),
            14 => Fault::Change(host, rng.random_bool(0.5)),
            15 => [Fault::EtcdDown, Fault::Compact][rng.random_range(0..2)],
            16 => Fault::Isolate(forwarder),
            17 => Fault::Unregister(authority),
            _ => Fault::Leave(authority),
        }
    }

    pub(crate) fn begin_fault(&mut self, number: usize) {
        let fault = self.faults[number];
        self.around.log(format_args!("fault: {fault:?}"));
        let lasts = match fault {
            Fault::Stop(..) => self.around.millis(MAX_STOP.as_millis() as u64),
            _ => self.around.millis(3000),
        };
        let Self { around, hosts, .. } = self;
        match fault {
            Fault::Kill(host, place) => hosts[host].kill(place, around),
            Fault::PowerLoss(host) => hosts[host].kill_all(around),
            Fault::Stop(host, place, _) => {
                let pid = hosts[host].pid_at(place);
                hosts[host].set_stopped(pid, true, around);
                self.faults[number] = Fault::Stop(host, place, Some(pid));
            }
            Fault::Cut(from, to, is_mutual) => {
                around.links.set_cut(from, to, true);
                if is_mutual {
                    around.links.set_cut(to, from, true);
                }
            }
            Fault::Isolate(host) => AUTHORITIES.iter().for_each(|to| around.links.set_apart(host, *to, true)),
            Fault::Loss(loss, duplication, lateness) => {
                (around.links.loss, around.links.duplication, around.links.lateness) = (loss, duplication, lateness);
            }
            Fault::Reset => around.reset_one(),
            Fault::FullDisk(host) => hosts[host].disk.is_full = true,
            Fault::ClockJump(host, seconds) => *around.wrong_by.entry(host).or_default() += seconds,
            Fault::NewVersion => {
                for _ in 0..around.rng.random_range(1..=2) {
                    self.version += 1;
                    hosts[2].new_version(self.version, around);
                }
            }
            Fault::Reload(host, new) => {
                let is_good = !matches!(new, NewConfig::Bad);
                hosts[host].reload_forwarder(&new.of(&self.pools), is_good, around);
            }
            Fault::Change(host, is_upgrade) => {
                let kind = if is_upgrade { ChangeKind::Upgrade } else { ChangeKind::Restart };
                hosts[host].ask_change(kind, around);
            }
            Fault::EtcdDown => around.etcd.set_up(false, around.now),
            Fault::Unregister(host) => around.etcd.put(&host.to_string(), None, around.now),
            Fault::Leave(host) => {
                around.etcd.put(&host.to_string(), None, around.now);
                FORWARDERS.iter().for_each(|from| around.links.set_apart(*from, host, true));
            }
            Fault::Compact => around.etcd.compact(),
        }
        self.around.after(lasts, Event::Heal(number));
        (0..self.hosts.len()).for_each(|host| self.note_due(host));
    }

    pub(crate) fn end_fault(&mut self, number: usize) {
        let Self { around, hosts, faults, .. } = self;
        // Without an entry all faults are over already.
        let Some(fault) = faults.get(number) else { return };
        match *fault {
            Fault::Stop(host, _, Some(pid)) => hosts[host].set_stopped(pid, false, around),
            Fault::Cut(from, to, _) => {
                around.links.set_cut(from, to, false);
                around.links.set_cut(to, from, false);
            }
            Fault::Isolate(host) => AUTHORITIES.iter().for_each(|to| around.links.set_apart(host, *to, false)),
            Fault::Loss(..) => (around.links.loss, around.links.duplication, around.links.lateness) = (0.0, 0.0, 0.0),
            Fault::FullDisk(host) => hosts[host].disk.is_full = false,
            Fault::ClockJump(host, seconds) => *around.wrong_by.entry(host).or_default() -= seconds,
            Fault::Reload(host, _) => hosts[host].disk.is_broken = false,
            Fault::EtcdDown => around.etcd.set_up(true, around.now),
            Fault::Unregister(host) => around.etcd.put(&host.to_string(), Some(member(host)), around.now),
            Fault::Leave(host) => {
                around.etcd.put(&host.to_string(), Some(member(host)), around.now);
                FORWARDERS.iter().for_each(|from| around.links.set_apart(*from, host, false));
            }
            Fault::Kill(..) | Fault::PowerLoss(_) | Fault::Stop(..) | Fault::Reset | Fault::NewVersion => {}
            Fault::Change(..) | Fault::Compact => {}
        }
        (0..self.hosts.len()).for_each(|host| self.note_due(host));
    }

    /// Ends the faults that are left.
    pub(crate) fn heal_all(&mut self) {
        for number in 0..self.faults.len() {
            self.end_fault(number);
        }
        self.faults.clear();
        self.around.wrong_by.values_mut().for_each(|wrong_by| *wrong_by = 0);
        self.around.log(format_args!("all faults are over"));
    }
}

const MAX_STOP: Duration = Duration::from_secs(2);
