//! The choice, opening and closing of sockets: a fresh one while there are few, and none for long.

use std::io;
use std::time::Instant;

use rand::RngExt;
use rustix::event::epoll;

use super::connections::FIRST as FIRST_CONNECTION;
use super::sent::SentIds;
use super::socket::{self, BackendSocket};
use super::{
    BATCHES_PER_SOCKET, BackendSockets, EDGE, GRO_TRIAL, SLOTS_PER_SOCKET, SOCKET_LIFETIME, SOCKETS_PER_BACKEND,
    SocketSet,
};
use crate::net::sys::options::enable_gro;
use crate::policy::query_slots::{SocketId, SocketSetId};

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Chooses the socket of a batch: a fresh one for a single message while there is credit for renewals, a
    /// fresh one while there are few, otherwise a random one. If none can be opened, an open one is reused.
    pub(super) fn choose_socket(&mut self, set_id: SocketSetId, now: Instant) -> io::Result<SocketId> {
        let live = self.set(set_id).live.len();
        if self.renewals.allow(now)
            && let Ok(number) = self.open(set_id, now)
        {
            self.socket(number).is_for_one = true;
            self.retire_spent(set_id);
            // The oldest socket makes room. Its pending queries still get their replies.
            if live >= SOCKETS_PER_BACKEND
                && let Some(&oldest) = self.set(set_id).live.first()
            {
                self.retire(oldest);
            }
            return Ok(number);
        }
        if live < SOCKETS_PER_BACKEND {
            match self.open(set_id, now) {
                Ok(number) => {
                    self.retire_spent(set_id);
                    return Ok(number);
                }
                Err(error) if live == 0 => return Err(error),
                Err(_) => {}
            }
        }
        let index = self.rng.random_range(0..live);
        let number = self.set(set_id).live[index];
        let socket = self.socket(number);
        let has_ids = socket.taken_slots < SLOTS_PER_SOCKET;
        if has_ids && socket.batches < BATCHES_PER_SOCKET && now.duration_since(socket.opened) < SOCKET_LIFETIME {
            return Ok(number);
        }
        if let Ok(fresh) = self.open(set_id, now) {
            self.retire(number);
            return Ok(fresh);
        }
        let mut live = self.set(set_id).live.clone().into_iter();
        let with_ids =
            if has_ids { Some(number) } else { live.find(|live| self.socket(*live).taken_slots < SLOTS_PER_SOCKET) };
        with_ids.ok_or_else(|| io::ErrorKind::ResourceBusy.into())
    }

    fn open(&mut self, set_id: SocketSetId, now: Instant) -> io::Result<SocketId> {
        let SocketSet { address, open, .. } = *self.set(set_id);
        if !self.set(set_id).live.is_empty() && !self.room.has_place(open) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        // A backend's port is never taken: on the same host, such a socket would receive its own messages
        // instead of ICMP errors, and would block the backend's start.
        let is_backends = |port| self.ports.contains_key(&port);
        let udp = socket::connected(address, is_backends, &mut self.rng)?;
        let left = &mut self.set(set_id).gro_sockets_left;
        let is_expected = *left > 0;
        *left = left.saturating_sub(1);
        if (is_expected || self.rng.random_ratio(1, GRO_TRIAL)) && !self.held_ports.bypass().is_gro_off() {
            enable_gro(&udp);
        }
        let number = match self.free_numbers.pop() {
            Some(number) => number,
            None if self.sockets.len() < FIRST_CONNECTION as usize => {
                self.sockets.push(None);
                SocketId(self.sockets.len() as u32 - 1)
            }
            None => return Err(io::ErrorKind::ResourceBusy.into()),
        };
        if let Err(error) = epoll::add(&self.epoll, &udp, epoll::EventData::new_u64(number.0.into()), EDGE) {
            self.free_numbers.push(number);
            return Err(error.into());
        }
        let sent = self.spare.pop().unwrap_or_else(SentIds::new);
        let by_kernel_at = &mut self.sets[set_id.0 as usize].as_mut().expect("its socket opens").by_kernel_at;
        self.held_ports.hold(number, &udp, address, by_kernel_at, now);
        let socket = BackendSocket {
            udp,
            set_id,
            opened: now,
            batches: 0,
            batches_before: 0,
            taken_slots: 0,
            sent,
            is_retired: false,
            is_spent: false,
            is_for_one: false,
            near_misses: 0,
            is_void: false,
        };
        self.ages.push_back((now + SOCKET_LIFETIME, number));
        self.sockets[number.index()] = Some(socket);
        let set = self.set(set_id);
        set.live.push(number);
        set.open += 1;
        self.room.add(open);
        Ok(number)
    }

    /// Retires a socket at once if its backend has another, else when that has been opened.
    pub(super) fn spend(&mut self, number: SocketId) {
        let Some(socket) = self.sockets.get_mut(number.index()).and_then(Option::as_mut) else { return };
        let set_id = socket.set_id;
        socket.is_spent = true;
        if self.set(set_id).live.len() > 1 {
            self.retire(number);
        }
    }

    fn retire_spent(&mut self, set_id: SocketSetId) {
        if let [before, _] = self.set(set_id).live[..]
            && self.socket(before).is_spent
        {
            self.retire(before);
        }
    }

    pub(super) fn retire(&mut self, number: SocketId) {
        let Some(socket) = self.sockets.get_mut(number.index()).and_then(Option::as_mut) else { return };
        let (set_id, was_retired) = (socket.set_id, std::mem::replace(&mut socket.is_retired, true));
        if !was_retired {
            self.set(set_id).live.retain(|live| *live != number);
        }
        self.close_if_done(number);
    }

    /// Closes a retired socket that is idle and has no batch. The kernel removes it from the epoll set.
    pub(super) fn close_if_done(&mut self, number: SocketId) {
        let Some(socket) = &self.sockets[number.index()] else { return };
        let (is_idle, set_id) = (socket.is_retired && socket.taken_slots == 0 && !socket.is_void, socket.set_id);
        if is_idle && !self.set(set_id).fills(number) {
            self.close(number);
        }
    }

    /// Closes a socket. Its number stays taken until the next [`ready`](Self::ready): the caller may be
    /// processing a batch of its replies, which must not match queries of another socket.
    pub(super) fn close(&mut self, number: SocketId) {
        self.closed_numbers.push(number);
        let Some(BackendSocket { udp, set_id, mut sent, .. }) = self.sockets[number.index()].take() else {
            return;
        };
        self.held_ports.release(number);
        self.closing.push(udp);
        sent.clear();
        self.spare.push(sent);
        if let Some(set) = &mut self.sets[set_id.0 as usize] {
            self.room.remove(set.open);
            set.open -= 1;
        }
    }
}
