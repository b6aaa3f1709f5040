//! The whole server on one simulated clock: two forwarders and three authorities, each with the tree of its
//! supervisor, an etcd and clients, on a network that loses, delays, doubles and reorders, under faults.
//!
//! One seed decides everything. The state machines are those of the program: engine and race, probes,
//! roster, supervisor tree, secondary, transfers, zones, and a reload that is prepared and then committed to
//! one worker after the other. Sockets, disks, clocks and the locks of the kernel are models.
//!
//! The checkers hold at each step: one response for each query by its deadline, unless its process was
//! killed; at most eight attempts; no answer that no backend gave within its TTL; no serial that goes back;
//! one server on each host; the members that etcd lists; the invariants of the engine. After the last fault
//! everything must become whole: processes, members, health, zones, and right answers to all names.

mod authority;
mod checks;
mod clients;
mod clock;
mod content;
mod etcd;
mod faults;
mod forwarder;
mod host;
mod network;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rand::RngExt;

use self::clients::Client;
use self::clock::{Around, Event};
use self::faults::Fault;
use self::forwarder::{Forwarder, address_of};
use self::host::{Host, HostId, Part};
use self::network::Endpoint;

/// The forwarders and the authorities, of which the first is the primary.
pub(crate) const FORWARDERS: [HostId; 2] = [0, 1];
pub(crate) const AUTHORITIES: [HostId; 3] = [2, 3, 4];

/// The time of the faults in a short story.
const TROUBLE: Duration = Duration::from_secs(6);

/// The queries of a short story.
const QUERIES: usize = 40;

/// The time in which everything must become whole after the last fault.
const CALM: Duration = Duration::from_secs(180);

/// Connections of both forwarders, and those that faults left half open.
const MAX_STREAMS: usize = 100;

pub(crate) struct World {
    around: Around,
    hosts: Vec<Host>,
    /// When each host has something to do.
    dues: Vec<Option<Instant>>,
    clients: Vec<Client>,
    faults: Vec<Fault>,
    version: u32,
    /// The time of the faults.
    trouble: Duration,
    /// How the forwarders find their backends.
    pools: String,
}

/// The result of one seed.
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) queries: usize,
    pub(crate) failure: Option<String>,
    pub(crate) story: Vec<String>,
}

/// Plays one seed. With a story if `is_logged`.
pub(crate) fn play(seed: u64, is_logged: bool) -> Outcome {
    // Some seeds that `cargo test` does not play are longer.
    let length = if seed >= FIRST_LONG && seed.is_multiple_of(4) { 6 } else { 1 };
    let mut world = World::new(seed, length, is_logged);
    let failure = catch_unwind(AssertUnwindSafe(|| world.run())).err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    });
    let queries = world.clients.len();
    Outcome { seed, queries, failure, story: world.around.take_story() }
}

/// Plays the seed of a failure again, and returns the failure with its story.
pub(crate) fn report(outcome: &Outcome) -> String {
    let Outcome { seed, failure, .. } = outcome;
    let story = play(*seed, true).story;
    let last = story[story.len().saturating_sub(LINES)..].join("\n");
    format!(
        "seed {seed}: {}\nits story, which HEDGEROW_WORLD_SEED={seed} repeats:\n{last}",
        failure.clone().unwrap_or_default()
    )
}

/// The first seed that may be long.
pub(crate) const FIRST_LONG: u64 = 1_000_000;

/// The last lines of a story that are printed.
const LINES: usize = 150;

impl World {
    fn new(seed: u64, length: u32, is_logged: bool) -> Self {
        let mut around = Around::new(seed, is_logged);
        let pools = pools(&mut around);
        around.truth.may_truncate = around.chance(0.3);
        let primaries = vec![AUTHORITIES[0]];
        for host in AUTHORITIES {
            around.etcd.put(&format!("{host}"), Some(member(host)), around.now);
        }
        around.etcd.set_up(true, around.now);
        let part = |host: HostId| match host {
            _ if FORWARDERS.contains(&host) => Part::Forwarder,
            2 => Part::Authority { primaries: Vec::new(), targets: vec![3, 4] },
            // The last one may also ask the second.
            3 => Part::Authority { primaries: primaries.clone(), targets: vec![4] },
            _ => Part::Authority { primaries: vec![2, 3], targets: Vec::new() },
        };
        let hosts: Vec<_> = (0..5).map(|host| Host::new(host, part(host), pools.clone(), &mut around)).collect();
        let dues = hosts.iter().map(|host| host.next_due(&around)).collect();
        let mut world = Self {
            around,
            hosts,
            dues,
            clients: Vec::new(),
            faults: Vec::new(),
            version: content::FIRST,
            trouble: TROUBLE * length,
            pools,
        };
        world.plan_faults(length as usize);
        for _ in 0..QUERIES * length as usize {
            let at = world.around.millis(world.trouble.as_millis() as u64);
            let client = Client::random(&mut world.around);
            world.add_client(client, at);
        }
        world
    }

    fn run(&mut self) {
        let start = self.around.start;
        self.run_until(start + self.trouble + Duration::from_secs(2));
        self.heal_all();
        let until = self.around.now + CALM;
        while !self.is_whole() {
            let next = self.around.now + Duration::from_millis(500);
            assert!(next < until, "not whole after {CALM:?}: {}", self.describe());
            self.run_until(next);
        }
        // What the caches know is over then.
        let next = self.around.now + Duration::from_secs(u64::from(content::TTL)) + checks::STALE;
        self.run_until(next + Duration::from_secs(1));
        let mut forwarders = FORWARDERS.iter().filter_map(|host| self.hosts[*host].forwarder());
        assert!(forwarders.all(Forwarder::has_free_slots), "a query is in quarantine for too long");
        self.ask_everything();
        self.check_queries();
        let streams = self.around.links.open_streams();
        assert!(streams <= MAX_STREAMS, "{streams} streams are left");
    }

    fn run_until(&mut self, end: Instant) {
        loop {
            let due = self.dues.iter().zip(0..).filter_map(|(due, host)| Some(((*due)?, host))).min();
            let event = self.around.next_at();
            let next = [due.map(|(at, _)| at), event].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.around.now = self.around.now.max(next);
            match self.around.pop_due() {
                Some(event) => self.on_event(event),
                None => {
                    if let Some((_, host)) = due {
                        self.hosts[host].live(&mut self.around);
                        self.note_due(host);
                    }
                }
            }
        }
        self.around.now = self.around.now.max(end);
    }

    pub(crate) fn note_due(&mut self, host: HostId) {
        self.dues[host] = self.hosts[host].next_due(&self.around);
    }

    fn on_event(&mut self, event: Event) {
        let Self { around, hosts, .. } = self;
        let host = match event {
            Event::Arrives(datagram) => match datagram.to {
                Endpoint::Client(client) => return self.clients[client].on_response(&datagram.octets, false),
                Endpoint::Service(host) | Endpoint::Own { host, .. } => {
                    hosts[host].on_datagram(datagram, around);
                    host
                }
            },
            Event::Unreachable(datagram) => match datagram.from {
                Endpoint::Client(_) => return,
                Endpoint::Service(host) | Endpoint::Own { host, .. } => {
                    hosts[host].on_unreachable(datagram, around);
                    host
                }
            },
            Event::Stream(event) => match event.to {
                Endpoint::Client(client) => return self.on_client_stream(client, event),
                Endpoint::Service(host) | Endpoint::Own { host, .. } => {
                    hosts[host].on_stream(event, around);
                    host
                }
            },
            Event::Ask(client) => return self.ask(client),
            Event::Fault(number) => return self.begin_fault(number),
            Event::Heal(number) => return self.end_fault(number),
            Event::Boot(host) => {
                hosts[host].boot(around);
                host
            }
        };
        self.note_due(host);
    }

    /// Returns true if nothing is left of the faults.
    fn is_whole(&self) -> bool {
        let now = self.around.now;
        let forwarders = FORWARDERS.map(|host| self.hosts[host].forwarder());
        let are_ready = forwarders.iter().all(|forwarder| {
            forwarder.is_some_and(|forwarder| {
                let is_up = forwarder.backends().all(|backend| backend.is_up());
                is_up
                    && forwarder.is_empty()
                    && forwarder.membership.members().is_none_or(|members| members == self.members())
            })
        });
        let served = |host: &HostId| self.hosts[*host].authority().and_then(|authority| authority.served(now));
        are_ready
            && AUTHORITIES.iter().all(|host| served(host) == Some(self.version))
            && self.hosts.iter().all(Host::is_whole)
    }

    fn describe(&self) -> String {
        let mut parts: Vec<String> = self.hosts.iter().map(Host::describe).collect();
        let now = self.around.now;
        for host in AUTHORITIES {
            let Some(authority) = self.hosts[host].authority() else { continue };
            let (served, rest) = (authority.served(now), authority.describe());
            parts.push(format!("authority {host} serves {served:?} of {}, {rest}", self.version));
        }
        for forwarder in FORWARDERS.iter().filter_map(|host| self.hosts[*host].forwarder()) {
            let up: Vec<_> =
                forwarder.backends().map(|backend| (backend.address.to_string(), backend.is_up())).collect();
            parts.push(format!(
                "backends {up:?}, members {:?}, idle: {}",
                forwarder.membership.members(),
                forwarder.is_empty()
            ));
        }
        parts.join("; ")
    }

    /// Returns the addresses of the members that etcd lists.
    fn members(&self) -> Vec<String> {
        let hosts = AUTHORITIES.iter().filter(|host| self.around.etcd.keys.contains_key(&host.to_string()));
        hosts.map(|host| format!("{}:53", address_of(*host))).collect()
    }

    /// Asks both forwarders for each name, which must give the newest answer.
    fn ask_everything(&mut self) {
        let first = self.clients.len();
        for forwarder in FORWARDERS {
            for name in 0..content::NAMES {
                let at = self.around.now - self.around.start + self.around.millis(200);
                let is_by_stream = self.around.chance(0.2);
                self.add_client(Client::new(name, forwarder, is_by_stream), at);
            }
        }
        let end = self.around.now + Duration::from_secs(3);
        self.run_until(end);
        for client in first..self.clients.len() {
            let asked = &self.around.truth.queries[&client];
            let right = checks::right_answer(self.version, asked.name);
            assert_eq!(asked.answer, Some(right), "the answer for n{} in the end", asked.name);
        }
    }

    /// Checks that each query that a process has read got its response.
    fn check_queries(&self) {
        for (client, asked) in &self.around.truth.queries {
            let done = asked.responses + asked.excused;
            assert_eq!(asked.read, done, "queries of client {client} for n{}, and those with a response", asked.name);
        }
    }
}

/// Draws how the forwarders find their backends, as the pools of a config.
fn pools(around: &mut Around) -> String {
    let scheme = |around: &mut Around| ["", "", "tcp://", "tls://", "quic://"][around.rng.random_range(0..5)];
    let backend = |around: &mut Around, host: &HostId| format!("\"{}{}\"", scheme(around), address_of(*host));
    // Without a hold, a member that has left the register is gone at once.
    let hold = if around.chance(0.5) { "3s" } else { "0s" };
    let (backends, etcd) = match around.chance(0.4) {
        true => (
            format!("discover = {{ etcd = \"w\", hold = \"{hold}\" }}"),
            "[etcd]\nendpoints = [\"http://10.0.0.9:2379\"]\n",
        ),
        false => {
            let all: Vec<_> = AUTHORITIES.iter().map(|host| backend(around, host)).collect();
            (format!("backends = [{}]", all.join(", ")), "")
        }
    };
    let dispatch = ["race", "hedge", "sequential", "auto"][around.rng.random_range(0..4)];
    let balance = ["round-robin", "fastest", "least-load", "hash"][around.rng.random_range(0..4)];
    let tries = around.rng.random_range(1..=3);
    let stale = if around.chance(0.5) { "6s" } else { "0s" };
    let cache = if around.chance(0.8) {
        format!("[cache]\nsize = \"1MiB\"\nstale = \"{stale}\"\nstale_answer_after = \"500ms\"\n")
    } else {
        String::new()
    };
    format!(
        "[forwarder]\nlisten = [\"10.0.0.1:53\"]\nallow = [\"0.0.0.0/0\"]\ncookies = false\n{cache}{etcd}\
         [pools.w]\n{backends}\ndispatch = \"{dispatch}\"\nbalance = \"{balance}\"\ntries = {tries}\n\
         timeout = \"1500ms\"\nattempt_timeout = \"400ms\"\nhedge = {{ budget = 0.05 }}\n\
         health = {{ interval = \"2s\", timeout = \"500ms\" }}\n\
         cookies = false\n"
    )
}

/// Returns the JSON of a member.
pub(crate) fn member(host: HostId) -> String {
    format!("{{\"address\":\"{}:53\",\"name\":\"ts{host}\",\"weight\":1,\"state\":\"up\"}}", address_of(host))
}
