//! The state of one interface of `[xdp]`.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use af_xdp::SharedXsk;
use af_xdp::bpf::{BpfLink, Mode};
use af_xdp::filter::XdpFilter;
use af_xdp::frame::Checksums;
use af_xdp::netlink::{self, InterfaceFacts};
use af_xdp::socket::{Copying, FrameCounts, Xsk, dropped_by_kernel};
use config::{KeyWord, XdpInterface, XdpMode, ZeroCopy};
use metrics::FrameSnapshot;
use tokio::sync::Mutex;

use super::frames::DeviceSocket;

pub(super) struct XdpDevice {
    config: XdpInterface,
    prepared: Option<PreparedDevice>,
    problem: Option<String>,
    logged: Option<Option<String>>,
    before: FrameSnapshot,
}

/// The parts whose creation needs privileges.
struct PreparedDevice {
    facts: InterfaceFacts,
    mtu: Arc<AtomicU32>,
    filter: Arc<XdpFilter>,
    queues: Vec<DeviceQueue>,
    listening: HashSet<SocketAddr>,
    attached: Option<(BpfLink, Mode)>,
}

struct DeviceQueue {
    number: u32,
    xsk: SharedXsk,
    fd: OwnedFd,
    counts: Arc<FrameCounts>,
    is_bound: bool,
}

impl XdpDevice {
    pub(super) fn prepare(config: XdpInterface, workers: u32) -> Self {
        let before = FrameSnapshot { interface: config.name.clone(), ..FrameSnapshot::default() };
        let mut this = Self { config, prepared: None, problem: None, logged: None, before };
        match netlink::interface(&this.config.name) {
            Ok(Some(facts)) => match PreparedDevice::new(&this.config, facts, workers) {
                Ok(prepared) => this.prepared = Some(prepared),
                Err(problem) => this.problem = Some(problem),
            },
            Ok(None) => this.problem = Some(ABSENT.to_owned()),
            Err(error) => this.problem = Some(format!("the interfaces cannot be read from the kernel: {error}")),
        }
        this
    }

    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(super) fn attached(&self) -> Option<(u32, [u8; 6])> {
        let prepared = self.prepared.as_ref().filter(|prepared| prepared.is_whole())?;
        Some((prepared.facts.index, prepared.facts.mac))
    }

    /// Repairs the interface. Returns true if workers need its sockets again.
    pub(super) fn look(&mut self, listening: &[SocketAddr], workers: u32) -> bool {
        let was_whole = self.prepared.as_ref().is_some_and(PreparedDevice::is_whole);
        let was = self.prepared.as_ref().map(|prepared| Arc::as_ptr(&prepared.filter));
        let outcome = self.try_to_attach(listening, workers);
        let is_same = was == self.prepared.as_ref().map(|prepared| Arc::as_ptr(&prepared.filter));
        self.problem = outcome.err();
        if self.logged.as_ref() != Some(&self.problem) || self.problem.is_none() && !(was_whole && is_same) {
            self.log();
            self.logged = Some(self.problem.clone());
        }
        let is_whole = self.prepared.as_ref().is_some_and(PreparedDevice::is_whole);
        !is_same || is_whole != was_whole
    }

    fn log(&self) {
        let interface = &*self.config.name;
        match (&self.problem, &self.prepared) {
            (Some(problem), _) => {
                tracing::warn!(interface, "xdp: {interface}: {problem}: served by sockets");
            }
            (None, Some(prepared)) => {
                let mode = prepared.attached.as_ref().map(|(_, mode)| mode_word(*mode));
                let queues = prepared.queues.len();
                let zero_copy = prepared.is_zero_copy();
                tracing::info!(interface, mode, zero_copy, queues, "xdp: {interface}: datagrams come by AF_XDP");
            }
            (None, None) => {}
        }
    }

    fn try_to_attach(&mut self, listening: &[SocketAddr], workers: u32) -> Result<(), String> {
        let facts = netlink::interface(&self.config.name).map_err(|error| error.to_string())?;
        let Some(facts) = facts else {
            self.forget();
            return Err(ABSENT.to_owned());
        };
        match &self.prepared {
            Some(prepared) if prepared.facts.index != facts.index => self.forget(),
            // Bound sockets stay in use if new ones cannot be made.
            Some(prepared) if prepared.facts.mac != facts.mac || prepared.facts.queues != facts.queues => {
                match PreparedDevice::new(&self.config, facts.clone(), workers) {
                    Ok(renewed) => {
                        self.forget();
                        self.prepared = Some(renewed);
                    }
                    Err(problem) => return Err(format!("its address or queues have changed, and {problem}")),
                }
            }
            Some(_) | None => {}
        }
        let prepared = match &mut self.prepared {
            Some(prepared) => prepared,
            absent => absent.insert(PreparedDevice::new(&self.config, facts.clone(), workers)?),
        };
        prepared.mtu.store(facts.mtu, Ordering::Relaxed);
        prepared.facts = facts;
        prepared
            .listen(listening)
            .map_err(|error| format!("the listening addresses cannot be given to the XDP program: {error}"))?;
        prepared.attach(self.config.mode)?;
        prepared.bind()
    }

    pub(super) fn forget(&mut self) {
        self.before = self.snapshot();
        self.prepared = None;
    }

    pub(super) fn of_worker(&self, worker: usize, workers: u32) -> Vec<DeviceSocket> {
        let Some(prepared) = self.prepared.as_ref().filter(|prepared| prepared.is_whole()) else { return Vec::new() };
        let its = prepared.queues.iter().filter(|queue| (queue.number % workers) as usize == worker);
        let socket = |queue: &DeviceQueue| DeviceSocket {
            interface: prepared.facts.index,
            checksums: prepared.checksums(),
            filter: Arc::clone(&prepared.filter),
            xsk: Arc::clone(&queue.xsk),
        };
        its.map(socket).collect()
    }

    pub(super) fn add_counted(&mut self, counted: &[FrameSnapshot]) {
        if let Some(counted) = counted.iter().find(|counted| counted.interface == self.before.interface) {
            self.before = self.before.with(counted, u64::saturating_add);
        }
    }

    pub(super) fn snapshot(&self) -> FrameSnapshot {
        let mut all = self.before.clone();
        if let Some(prepared) = &self.prepared {
            all.passed += prepared.filter.passed();
            for DeviceQueue { counts, fd, .. } in &prepared.queues {
                all.taken += counts.taken.load(Ordering::Relaxed);
                all.in_dropped += counts.invalid.load(Ordering::Relaxed) + dropped_by_kernel(fd);
                all.sent += counts.sent.load(Ordering::Relaxed);
                all.out_dropped += counts.unsent.load(Ordering::Relaxed);
            }
        }
        all
    }
}

impl PreparedDevice {
    fn new(config: &XdpInterface, facts: InterfaceFacts, workers: u32) -> Result<Self, String> {
        let numbers: Vec<u32> = config.queues.clone().unwrap_or_else(|| (0..facts.queues).collect());
        if let Some(absent) = numbers.iter().find(|queue| **queue >= facts.queues) {
            return Err(format!("it has no queue {absent}, only {}", facts.queues));
        }
        let filter = XdpFilter::load(facts.mac, workers, facts.queues).map_err(|error| lacks("XDP program", &error))?;
        let mtu = Arc::new(AtomicU32::new(facts.mtu));
        let copying = match config.zero_copy {
            ZeroCopy::Auto => Copying::Auto,
            ZeroCopy::On => Copying::Never,
            ZeroCopy::Off => Copying::Always,
        };
        let queue = |number| {
            let xsk = Xsk::new(number, Arc::clone(&mtu), copying).map_err(|error| lacks("socket of AF_XDP", &error))?;
            let counts = Arc::clone(xsk.counts());
            let fd = xsk.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
            Ok(DeviceQueue { number, xsk: Arc::new(Mutex::new(xsk)), fd, counts, is_bound: false })
        };
        let queues = numbers.into_iter().map(queue).collect::<Result<_, String>>()?;
        Ok(Self { facts, mtu, filter: Arc::new(filter), queues, listening: HashSet::new(), attached: None })
    }

    fn is_whole(&self) -> bool {
        self.attached.is_some() && self.queues.iter().all(|queue| queue.is_bound)
    }

    fn is_zero_copy(&self) -> bool {
        self.facts.index > 0 && self.queues.iter().any(|queue| queue.with(Xsk::is_zero_copy).unwrap_or_default())
    }

    fn listen(&mut self, listening: &[SocketAddr]) -> io::Result<()> {
        let of = |bound: &SocketAddr| -> Vec<SocketAddr> {
            let is_meant =
                |ip: &&IpAddr| ip.is_ipv4() == bound.is_ipv4() && (bound.ip().is_unspecified() || **ip == bound.ip());
            self.facts.addresses.iter().filter(is_meant).map(|ip| SocketAddr::new(*ip, bound.port())).collect()
        };
        let wanted: HashSet<_> = listening.iter().flat_map(of).collect();
        for left in self.listening.difference(&wanted) {
            self.filter.ignore(*left)?;
        }
        for come in wanted.difference(&self.listening) {
            self.filter.listen(*come)?;
        }
        self.listening = wanted;
        Ok(())
    }

    fn attach(&mut self, mode: XdpMode) -> Result<(), String> {
        if self.attached.is_some() && self.facts.program.is_some() {
            return Ok(());
        }
        // Another program replaced ours.
        self.attached = None;
        let modes: &[Mode] = match mode {
            XdpMode::Auto if self.hands_over_whole() => &[Mode::Native],
            XdpMode::Auto => &[Mode::Native, Mode::Generic],
            XdpMode::Native => &[Mode::Native],
            XdpMode::Generic => &[Mode::Generic],
        };
        let mut problem = String::new();
        for mode in modes {
            match self.filter.attach(self.facts.index, *mode) {
                Ok(link) => {
                    self.attached = Some((link, *mode));
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    return Err(
                        "another XDP program is attached (see ip link show), perhaps by another hedgerow".to_owned()
                    );
                }
                Err(error) => problem = lacks(&format!("mode {}", mode_word(*mode)), &error),
            }
        }
        Err(problem)
    }

    /// Returns true if a GSO batch from the same machine may arrive in one piece, which a generic program
    /// would read as one datagram. Native mode never gets one.
    fn hands_over_whole(&self) -> bool {
        self.facts.driver.as_deref().is_some_and(|driver| WHOLE.contains(&driver))
    }

    /// A generic program, or a virtual driver, also sees partial checksums from this machine.
    fn checksums(&self) -> Checksums {
        let is_generic = matches!(self.attached, Some((_, Mode::Generic)));
        if is_generic || self.hands_over_whole() { Checksums::MaybePartial } else { Checksums::Whole }
    }

    fn bind(&mut self) -> Result<(), String> {
        for queue in self.queues.iter_mut().filter(|queue| !queue.is_bound) {
            let (index, number, filter) = (self.facts.index, queue.number, &self.filter);
            let bound = queue.with(|xsk| {
                xsk.bind(index)?;
                filter.set_socket(number, xsk.as_fd())
            });
            match bound {
                Some(Ok(())) => queue.is_bound = true,
                Some(Err(error)) if error.raw_os_error() == Some(libc::EBUSY) => {
                    return Err(format!("another AF_XDP socket uses queue {number}, perhaps of another hedgerow"));
                }
                Some(Err(error)) => return Err(lacks(&format!("queue {number}"), &error)),
                None => return Err(format!("the socket of queue {number} is lost")),
            }
        }
        Ok(())
    }
}

impl DeviceQueue {
    fn with<T>(&self, what: impl FnOnce(&Xsk) -> T) -> Option<T> {
        self.xsk.try_lock().ok().as_deref().map(what)
    }
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => XdpMode::Native.word(),
        Mode::Generic => XdpMode::Generic.word(),
    }
}

fn lacks(what: &str, error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            ": start as root, or with CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF; after the start, rights are given up: restart"
        }
        Some(libc::ENOBUFS | libc::ENOMEM) => ": raise the limit of locked memory (ulimit -l, LimitMEMLOCK=)",
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => {
            ": this kernel is built without AF_XDP (CONFIG_XDP_SOCKETS)"
        }
        Some(libc::EOPNOTSUPP) => ": the driver cannot do that; try mode = \"generic\" or zero_copy = \"off\"",
        Some(libc::ENOSPC) => ": it receives by fewer queues than its peer, or the card, sends by (ethtool -L)",
        Some(_) | None => "",
    };
    format!("no {what}: {error}{remedy}")
}

/// Drivers with possible senders on the same machine.
const WHOLE: [&str; 3] = ["veth", "tun", "virtio_net"];

const ABSENT: &str = "there is no such interface";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_another_process_has_counted_are_added_to_those_of_the_same_interface() {
        let mut interface = XdpDevice::prepare(XdpInterface::of_name("absent0".to_owned()), 1);
        let counted = |interface: &str, taken| FrameSnapshot {
            interface: interface.to_owned(),
            taken,
            passed: 2,
            in_dropped: 3,
            sent: 4,
            out_dropped: 5,
        };
        interface.add_counted(&[counted("other0", 9), counted("absent0", 1)]);
        assert_eq!(interface.snapshot(), counted("absent0", 1));
    }
}
