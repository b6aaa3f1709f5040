//! The check of `[xdp]` without serving: the abilities of each interface, its listeners, missing rights, and
//! settings that would work. It queries the kernel and attaches nothing; pure functions judge the result.

use std::io;
use std::net::{IpAddr, SocketAddr};

use af_xdp::EXPERIMENTAL;
use af_xdp::netlink::{self, DriverFeatures, InterfaceFacts};
use af_xdp::rights::Rights;
use af_xdp::socket::MEMORY;
use config::{Config, KeyWord, XdpConfig, XdpInterface, XdpMode, ZeroCopy, counted, remedy};
use dns::address::Scheme;

/// Describes the interfaces of `[xdp]`, with settings that would work. Attaches nothing.
///
/// # Errors
/// The reasons why the server would not start.
pub fn check_interfaces(config: &Config, warnings: &mut Vec<String>) -> Result<Vec<String>, String> {
    let findings = look(config);
    warnings.extend(findings.warnings);
    if findings.problems.is_empty() { Ok(findings.lines) } else { Err(findings.problems.join("\n")) }
}

#[derive(Debug, Default)]
struct Findings {
    lines: Vec<String>,
    warnings: Vec<String>,
    problems: Vec<String>,
}

fn look(config: &Config) -> Findings {
    let Some(xdp) = &config.xdp else { return Findings::default() };
    let mut findings = Findings { lines: vec![EXPERIMENTAL.to_owned()], ..Findings::default() };
    let mut sockets = 0;
    for (place, wanted) in xdp.interfaces.iter().enumerate() {
        let (key, name) = (format!("xdp.interfaces[{place}]"), &wanted.name);
        match find(config, name) {
            Ok(Some(found)) => {
                sockets += served(wanted, &found.facts).len();
                let Findings { lines, warnings, problems } =
                    judge(wanted, &found, config.process.workers.map(usize::from));
                findings.lines.extend(lines.into_iter().map(|line| format!("xdp: {line}")));
                findings.warnings.extend(warnings.into_iter().map(|warning| format!("{key}: {warning}")));
                findings.forbid(xdp, problems.into_iter().map(|problem| format!("{key}: {problem}")));
            }
            Ok(None) => {
                let names = netlink::interface_names().unwrap_or_default();
                findings.forbid(xdp, [format!("{key}: {}", absent(name, &names))]);
            }
            Err(error) => {
                findings.warnings.push(format!("{key}: the kernel does not describe interface {name}: {error}"));
            }
        }
    }
    match Rights::of_this_thread() {
        Ok(rights) if !rights.is_supported => {
            findings.forbid(xdp, ["xdp: this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)".to_owned()]);
        }
        Ok(rights) => findings.warnings.extend(lacking(&rights, sockets)),
        Err(error) => {
            findings.warnings.push(format!("xdp: the rights of this user cannot be read from the kernel: {error}"))
        }
    }
    findings
}

impl Findings {
    /// Records AF_XDP as not available: a warning if the config allows sockets in its place, otherwise a
    /// problem.
    fn forbid(&mut self, xdp: &XdpConfig, what: impl IntoIterator<Item = String>) {
        match xdp.fallback {
            true => self.warnings.extend(what.into_iter().map(|what| format!("{what}; sockets serve in its place"))),
            false => self.problems.extend(what),
        }
    }
}

#[derive(Debug)]
struct InterfaceAbilities {
    facts: InterfaceFacts,
    /// `None` on kernels before 6.3, which do not report features.
    features: Option<DriverFeatures>,
    listeners: Vec<SocketAddr>,
    backends: usize,
}

fn find(config: &Config, name: &str) -> io::Result<Option<InterfaceAbilities>> {
    let Some(facts) = netlink::interface(name)? else { return Ok(None) };
    let authorities = config.authorities.iter().flat_map(|authority| &authority.listen);
    let all = config.forwarder.iter().flat_map(|forwarder| &forwarder.listen).chain(authorities);
    let plain = all.filter(|listener| listener.address.scheme == Scheme::Plain).map(|listener| listener.socket());
    let listeners = plain.filter(|listener| is_on(*listener, &facts.addresses)).collect();
    let asked = config.pools.iter().flat_map(|pool| &pool.backends);
    let asked = asked.filter(|backend| backend.address.scheme == Scheme::Plain);
    let hops = asked.map(|backend| netlink::next_hop(backend.address.ip()));
    let backends = hops.filter(|hop| matches!(hop, Ok(Some(hop)) if hop.interface == facts.index)).count();
    let features = netlink::driver_features(facts.index);
    Ok(Some(InterfaceAbilities { facts, features, listeners, backends }))
}

/// Returns true if the listener receives datagrams sent to one of these addresses.
fn is_on(listener: SocketAddr, addresses: &[IpAddr]) -> bool {
    let is_all = |ip: &IpAddr| listener.ip().is_unspecified() && listener.is_ipv4() == ip.is_ipv4();
    addresses.iter().any(|ip| *ip == listener.ip() || is_all(ip))
}

fn judge(wanted: &XdpInterface, found: &InterfaceAbilities, workers: Option<usize>) -> Findings {
    let InterfaceAbilities { facts, features, listeners, backends } = found;
    let name = &wanted.name;
    let mut findings = Findings { lines: vec![summary(name, found)], ..Findings::default() };
    let Findings { lines, warnings, problems } = &mut findings;
    if !facts.is_ethernet {
        problems
            .push(format!("{name} is not an Ethernet interface, expected one that other hosts use to reach this host"));
        return findings;
    }
    if !facts.is_up {
        warnings.push(format!("{name} is down, or has no carrier"));
    }
    if listeners.is_empty() && *backends == 0 {
        warnings.push(format!(
            "nothing here uses {name}: no listener by UDP has an address of it, and no backend is reached by it"
        ));
    }
    if let Some(program) = facts.program {
        warnings.push(format!(
            "XDP program {program} is attached to {name} already, by a running hedgerow or by another program"
        ));
    }
    if let Some(queue) = wanted.queues.iter().flatten().find(|queue| **queue >= facts.queues) {
        let last = facts.queues.saturating_sub(1);
        problems.push(format!("there is no queue {queue}, expected 0 to {last} (ethtool -L {name} sets how many)"));
    }
    if wanted.mode == XdpMode::Native && !features.is_none_or(|features| features.native) {
        problems.push(format!("the driver of {name} has no native XDP, write mode = \"generic\" or \"auto\""));
    }
    if wanted.zero_copy == ZeroCopy::On && !features.is_none_or(|features| features.zero_copy) {
        problems.push(format!("the driver of {name} cannot do without copies, write zero_copy = \"off\" or \"auto\""));
    }
    let queues = served(wanted, facts).len();
    if let Some(workers) = workers.filter(|workers| *workers > queues && queues > 0) {
        let have = if queues == 1 { "has" } else { "have" };
        warnings.push(format!("of {} only {queues} {have} a queue here", counted(workers, "worker")));
    }
    lines.push(right(name, facts, *features));
    findings
}

fn summary(name: &str, InterfaceAbilities { facts, features, listeners, backends }: &InterfaceAbilities) -> String {
    let state = if facts.is_up { "up" } else { "down" };
    let driver = facts.driver.as_deref().map_or_else(|| "no driver".to_owned(), |driver| format!("driver {driver}"));
    let can = match features {
        None => "this kernel does not report the features of the driver",
        Some(DriverFeatures { native: false, .. }) => "generic XDP only",
        Some(DriverFeatures { zero_copy: false, .. }) => "native XDP, no zero copy",
        Some(_) => "native XDP, zero copy",
    };
    let listeners: Vec<_> = listeners.iter().map(SocketAddr::to_string).collect();
    let listeners =
        if listeners.is_empty() { "no listener".to_owned() } else { format!("listeners {}", listeners.join(", ")) };
    let (queues, backends) = (counted(facts.queues as usize, "queue"), counted(*backends, "backend"));
    format!("{name}: {state}, {driver}, {queues}, {can}; {listeners}, {backends}")
}

fn right(name: &str, facts: &InterfaceFacts, features: Option<DriverFeatures>) -> String {
    let (mode, zero_copy) = match features {
        None => (XdpMode::Auto, ZeroCopy::Auto),
        Some(DriverFeatures { native: false, .. }) => (XdpMode::Generic, ZeroCopy::Off),
        Some(DriverFeatures { zero_copy: false, .. }) => (XdpMode::Native, ZeroCopy::Off),
        Some(_) => (XdpMode::Native, ZeroCopy::On),
    };
    let (mode, zero_copy, queues) = (mode.word(), zero_copy.word(), facts.queues);
    format!("{name}: set mode = \"{mode}\", zero_copy = \"{zero_copy}\", and workers = {queues}, one for each queue")
}

fn served(wanted: &XdpInterface, facts: &InterfaceFacts) -> Vec<u32> {
    match &wanted.queues {
        _ if !facts.is_ethernet => Vec::new(),
        None => (0..facts.queues).collect(),
        Some(queues) => queues.iter().copied().filter(|queue| *queue < facts.queues).collect(),
    }
}

fn absent(name: &str, others: &[String]) -> String {
    format!("there is no interface {name}, {}", remedy(name, others.iter().map(String::as_str)))
}

fn lacking(rights: &Rights, sockets: usize) -> Vec<String> {
    let mut lacking = Vec::new();
    if !rights.missing.is_empty() {
        let missing = rights.missing.join(", ");
        lacking.push(format!("xdp: this user lacks {missing}, which serve needs at its start, as root has or by AmbientCapabilities= of systemd"));
    }
    let needed = sockets as u64 * MEMORY as u64;
    if let Some(lockable) = rights.lockable.filter(|lockable| *lockable < needed) {
        let (lockable, needed) = (lockable >> 10, needed >> 10);
        lacking.push(format!(
            "xdp: this user may lock {lockable} KiB of memory, and {} take {needed} KiB: raise it (LimitMEMLOCK= of systemd, ulimit -l), or give CAP_IPC_LOCK",
            counted(sockets, "queue")
        ));
    }
    lacking
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A typical interface: up, with four queues and one listener.
    fn card() -> InterfaceAbilities {
        let facts = InterfaceFacts {
            index: 2,
            is_ethernet: true,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1_500,
            is_up: true,
            addresses: vec!["192.0.2.1".parse().expect("an address")],
            driver: Some("ixgbe".to_owned()),
            queues: 4,
            program: None,
        };
        let features = Some(DriverFeatures { native: true, zero_copy: true });
        InterfaceAbilities {
            facts,
            features,
            listeners: vec!["192.0.2.1:53".parse().expect("an address")],
            backends: 2,
        }
    }

    /// An interface section with default settings.
    fn plain() -> XdpInterface {
        XdpInterface::of_name("eth0".to_owned())
    }

    #[test]
    fn what_an_interface_can_do_is_told() {
        let check = |found: &InterfaceAbilities, expected: [&str; 2]| {
            assert_eq!(judge(&plain(), found, None).lines, expected);
        };
        let right = |rest: &str| format!("eth0: set {rest}, one for each queue");
        check(
            &card(),
            [
                "eth0: up, driver ixgbe, 4 queues, native XDP, zero copy; listeners 192.0.2.1:53, 2 backends",
                &right("mode = \"native\", zero_copy = \"on\", and workers = 4"),
            ],
        );
        let mut veth = card();
        (veth.features, veth.backends, veth.facts.queues) =
            (Some(DriverFeatures { native: true, zero_copy: false }), 1, 1);
        check(
            &veth,
            [
                "eth0: up, driver ixgbe, 1 queue, native XDP, no zero copy; listeners 192.0.2.1:53, 1 backend",
                &right("mode = \"native\", zero_copy = \"off\", and workers = 1"),
            ],
        );
        let mut old = card();
        (old.features, old.facts.driver, old.facts.is_up) =
            (Some(DriverFeatures { native: false, zero_copy: false }), None, false);
        old.listeners.clear();
        check(
            &old,
            [
                "eth0: down, no driver, 4 queues, generic XDP only; no listener, 2 backends",
                &right("mode = \"generic\", zero_copy = \"off\", and workers = 4"),
            ],
        );
        check(
            &InterfaceAbilities { features: None, ..card() },
            [
                "eth0: up, driver ixgbe, 4 queues, this kernel does not report the features of the driver; listeners 192.0.2.1:53, 2 backends",
                &right("mode = \"auto\", zero_copy = \"auto\", and workers = 4"),
            ],
        );
    }

    #[test]
    fn what_is_wrong_with_an_interface_is_told() {
        let check = |wanted: &XdpInterface, found: &InterfaceAbilities, workers, odd: &[&str], impossible: &[&str]| {
            let verdict = judge(wanted, found, workers);
            assert_eq!(
                (verdict.warnings, verdict.problems),
                (to_owned(odd), to_owned(impossible)),
                "{wanted:?} {found:?}"
            );
        };
        check(&plain(), &card(), Some(4), &[], &[]);
        check(&plain(), &card(), Some(5), &["of 5 workers only 4 have a queue here"], &[]);
        let one = XdpInterface { queues: Some(vec![3]), ..plain() };
        check(&one, &card(), Some(1), &[], &[]);
        check(&one, &card(), Some(2), &["of 2 workers only 1 has a queue here"], &[]);
        let beyond = XdpInterface { queues: Some(vec![3, 4, 5]), ..plain() };
        let no_queue = "there is no queue 4, expected 0 to 3 (ethtool -L eth0 sets how many)";
        check(&beyond, &card(), None, &[], &[no_queue]);

        let mut generic = card();
        generic.features = Some(DriverFeatures { native: false, zero_copy: false });
        let demanding = XdpInterface { mode: XdpMode::Native, zero_copy: ZeroCopy::On, ..plain() };
        check(&plain(), &generic, None, &[], &[]);
        check(&demanding, &card(), None, &[], &[]);
        check(&demanding, &InterfaceAbilities { features: None, ..card() }, None, &[], &[]);
        let no_native = "the driver of eth0 has no native XDP, write mode = \"generic\" or \"auto\"";
        let copies = "the driver of eth0 cannot do without copies, write zero_copy = \"off\" or \"auto\"";
        check(&demanding, &generic, None, &[], &[no_native, copies]);

        let mut idle = card();
        (idle.backends, idle.facts.is_up, idle.facts.program) = (0, false, Some(7));
        idle.listeners.clear();
        let odd = [
            "eth0 is down, or has no carrier",
            "nothing here uses eth0: no listener by UDP has an address of it, and no backend is reached by it",
            "XDP program 7 is attached to eth0 already, by a running hedgerow or by another program",
        ];
        check(&plain(), &idle, None, &odd, &[]);

        let mut loopback = card();
        loopback.facts.is_ethernet = false;
        check(
            &plain(),
            &loopback,
            None,
            &[],
            &["eth0 is not an Ethernet interface, expected one that other hosts use to reach this host"],
        );
    }

    #[test]
    fn listeners_hear_their_own_address_or_all_of_their_family() {
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address"));
        for (listener, addresses, expected) in [
            ("192.0.2.1:53", &addresses[..], true),
            ("[2001:db8::1]:53", &addresses, true),
            ("192.0.2.2:53", &addresses, false),
            ("127.0.0.1:53", &addresses, false),
            ("0.0.0.0:53", &addresses, true),
            ("[::]:53", &addresses, true),
            ("0.0.0.0:53", &addresses[1..], false),
            ("[::]:53", &addresses[..1], false),
            ("0.0.0.0:53", &[], false),
        ] {
            assert_eq!(is_on(listener.parse().expect("an address"), addresses), expected, "{listener} {addresses:?}");
        }
    }

    #[test]
    fn names_that_are_not_there_are_guessed_at() {
        let others = ["eth0", "lo"].map(str::to_owned);
        assert_eq!(absent("eht0", &others), "there is no interface eht0, did you mean \"eth0\"?");
        assert_eq!(absent("wlan7", &others), "there is no interface wlan7, expected one of eth0, lo");
    }

    #[test]
    fn what_this_user_lacks_is_told_with_how_to_have_it() {
        let all = Rights { is_supported: true, missing: Vec::new(), lockable: None };
        assert_eq!(lacking(&all, 8), Vec::<String>::new());
        let enough = Rights { lockable: Some(2 * MEMORY as u64), ..all.clone() };
        assert_eq!(lacking(&enough, 2), Vec::<String>::new());
        assert!(lacking(&enough, 3)[0].contains("and 3 queues take"));
        let none = Rights { missing: vec!["CAP_NET_RAW", "CAP_BPF"], ..all };
        assert!(lacking(&none, 1)[0].starts_with("xdp: this user lacks CAP_NET_RAW, CAP_BPF, which serve needs"));
    }

    #[test]
    fn what_cannot_be_had_is_a_problem_without_sockets_in_its_place() {
        let xdp = |fallback| XdpConfig { interfaces: vec![plain()], fallback };
        let mut findings = Findings::default();
        findings.forbid(&xdp(true), ["a".to_owned()]);
        findings.forbid(&xdp(false), ["b".to_owned()]);
        assert_eq!(findings.warnings, ["a; sockets serve in its place"]);
        assert_eq!(findings.problems, ["b"]);
    }

    fn to_owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }
}
