//! `hedgerow ls`: a forwarder without a config file, with one pool for all names.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::{EXIT_USAGE, run};
use crate::address::{BackendAddress, BackendUrl, ListenAddress, ListenUrl};
use crate::config::{
    BackendConfig, CertificateConfig, Config, CookieConfig, DiscoverConfig, EtcdConfig, ForwarderConfig, HttpEndpoint,
    Limits, ListenConfig, PoolConfig, PoolIndex, Route, etcd_key, http_endpoint, limits, listen_address,
    usual_rate_limit, words,
};
use crate::limit::{AccessRules, WaitRules};
use crate::load::{self, Loader};
use crate::policy::balance::Balance;
use crate::policy::{Accept, Dispatch, HedgeDelay, PoolRules, Serves, Silence};
use crate::wire::Name;

/// The options. Each corresponds to the config key of the same name, with the same values and default.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen: ADDRESS[:PORT] by UDP and TCP, or with tcp://, tls://, https://, http:// or quic://
    /// before it; may be given several times
    #[arg(short, long, value_name = "ADDR", required = true, value_parser = listen_address)]
    listen: Vec<ListenUrl>,
    /// The certificate chain of encrypted listeners, in PEM, the leaf first
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// The names that each server knows: split: some, as tables do | same: all, as resolvers do; sets the
    /// defaults of the others [default: split]
    #[arg(long, value_name = "WORD", value_parser = words::word::<Serves>)]
    serves: Option<Serves>,
    /// race | hedge | sequential [default: race; hedge with --serves same]
    #[arg(long, value_name = "WORD", value_parser = words::word::<Dispatch>)]
    dispatch: Option<Dispatch>,
    /// ordered | round-robin | random | sticky | hash | least-load | fastest [default: round-robin; fastest
    /// with --serves same]
    #[arg(long, value_name = "WORD", value_parser = words::word::<Balance>)]
    balance: Option<Balance>,
    /// positive | conclusive | any [default: positive; conclusive with --serves same]
    #[arg(long, value_name = "WORD", value_parser = words::word::<Accept>)]
    accept: Option<Accept>,
    /// The client's deadline [default: 3s]
    #[arg(long, value_name = "DURATION", value_parser = within(&limits::TIMEOUT))]
    timeout: Option<Duration>,
    /// The answer when no backend replied: nxdomain | servfail | refused | drop [default: nxdomain; servfail
    /// with --serves same]
    #[arg(long, value_name = "WORD", value_parser = words::word::<Silence>)]
    on_timeout: Option<Silence>,
    /// The answer when all backends are down: nxdomain | servfail | refused | drop [default: nxdomain;
    /// servfail with --serves same]
    #[arg(long, value_name = "WORD", value_parser = words::word::<Silence>)]
    on_all_down: Option<Silence>,
    /// When a hedge starts: auto, a percentile such as p95, or a duration [default: auto]
    #[arg(long, value_name = "DELAY", value_parser = words::hedge_delay)]
    hedge_delay: Option<HedgeDelay>,
    /// Hedges per query, over time, 0 to 1 [default: 0.05]
    #[arg(long, value_name = "SHARE", value_parser = budget)]
    hedge_budget: Option<f64>,
    /// Data-plane threads; 0 is one per CPU
    #[arg(short = 'N', long, value_name = "N", default_value_t = 0, value_parser = workers)]
    workers: usize,
    /// Also probe the backends after this number of queries; 0 disables it
    #[arg(short = 'R', long, value_name = "QUERIES", default_value_t = 0)]
    probe_every: u32,
    /// Trusted authorities for backends by TLS, HTTPS or QUIC, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// An etcd that members are registered in, http://ADDRESS:PORT; may be given several times
    #[arg(long, value_name = "URL", requires = "discover", value_parser = http_endpoint)]
    etcd: Vec<HttpEndpoint>,
    /// Also use the backends that are registered under this key
    #[arg(long, value_name = "KEY", requires = "etcd", value_parser = etcd_key)]
    discover: Option<String>,
    /// The backends, each ADDRESS, ADDRESS:PORT, or by tcp://ADDRESS, tls://ADDRESS#NAME,
    /// https://ADDRESS/PATH#NAME or quic://ADDRESS#NAME
    #[arg(required_unless_present = "discover", value_name = "BACKEND", value_parser = words::backend)]
    backends: Vec<BackendUrl>,
}

pub(super) fn run(args: Args) -> ExitCode {
    if let Some(twice) = duplicate(&args.backends) {
        eprintln!("hedgerow ls: backend {twice} is given twice; name each server once");
        return ExitCode::from(EXIT_USAGE);
    }
    if let Some(listener) = lacks_certificate(&args.listen, args.certificate.is_some()) {
        eprintln!("hedgerow ls: {listener} has no certificate to show, add --certificate FILE and --key FILE");
        return ExitCode::from(EXIT_USAGE);
    }
    let mut loader = Loader::default();
    match load::load_files_to_serve(config(&args), None, &mut loader) {
        // SIGHUP only reads the certificate again.
        Ok(setup) => run::foreground(setup, move |_| load::load_files_to_serve(config(&args), None, &mut loader)),
        Err(problems) => {
            eprintln!("hedgerow ls: {problems}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

pub(super) fn own_certificate(chain: Option<&Path>, key: Option<&Path>) -> Vec<CertificateConfig> {
    let section = |(chain, key): (&Path, &Path)| CertificateConfig {
        name: "main".to_owned(),
        chain: chain.to_owned(),
        key: key.to_owned(),
        names: Vec::new(),
    };
    chain.zip(key).map(section).into_iter().collect()
}

/// Returns the first listener that needs a certificate, if none is given.
pub(super) fn lacks_certificate(listen: &[ListenUrl], is_given: bool) -> Option<ListenAddress> {
    listen.iter().map(|listener| listener.address).find(|listener| listener.scheme.is_encrypted() && !is_given)
}

fn config(args: &Args) -> Config {
    let mut rules = PoolRules::of(args.serves.unwrap_or(Serves::Split));
    rules.dispatch = args.dispatch.unwrap_or(rules.dispatch);
    rules.balance = args.balance.unwrap_or(rules.balance);
    rules.accept = args.accept.unwrap_or(rules.accept);
    rules.timeout = args.timeout.unwrap_or(rules.timeout);
    rules.on_timeout = args.on_timeout.unwrap_or(rules.on_timeout);
    rules.on_all_down = args.on_all_down.unwrap_or(rules.on_all_down);
    rules.hedge.delay = args.hedge_delay.unwrap_or(rules.hedge.delay);
    rules.hedge.budget = args.hedge_budget.unwrap_or(rules.hedge.budget);
    rules.health.every_queries = args.probe_every;
    let pool = PoolConfig {
        name: "ls".to_owned(),
        backends: args.backends.iter().map(|url| backend(url, args.ca.as_ref())).collect(),
        discover: args.discover.clone().map(DiscoverConfig::of_key),
        serves: args.serves,
        rules,
        ..PoolConfig::default()
    };
    let listen: Vec<ListenConfig> = args.listen.iter().cloned().map(Into::into).collect();
    Config {
        workers: NonZeroUsize::new(args.workers),
        forwarder: Some(ForwarderConfig {
            rate_limit: usual_rate_limit(&listen),
            listen,
            edns_udp_size: ForwarderConfig::EDNS_UDP_SIZE,
            designated_resolver: None,
            connections: Default::default(),
            routes: vec![Route { suffix: Name::root(), pool: PoolIndex(0) }],
            access: AccessRules::of(&AccessRules::LOCAL),
            limits: WaitRules::default(),
            cookies: CookieConfig::default(),
        }),
        pools: vec![pool],
        certificates: own_certificate(args.certificate.as_deref(), args.key.as_deref()),
        etcd: EtcdConfig::of_endpoints(&args.etcd),
        ..Config::default()
    }
}

/// Returns a backend; an encrypted one uses the authorities of `ca`.
fn backend(url: &BackendUrl, ca: Option<&PathBuf>) -> BackendConfig {
    let mut backend = BackendConfig::of_url(url.clone());
    backend.trust.ca = ca.filter(|_| url.address.scheme.is_encrypted()).cloned();
    backend
}

fn duplicate(backends: &[BackendUrl]) -> Option<BackendAddress> {
    let addresses = || backends.iter().map(|backend| backend.address);
    addresses()
        .enumerate()
        .find(|(index, address)| addresses().take(*index).any(|other| other == *address))
        .map(|twice| twice.1)
}

fn within(limits: &'static Limits<Duration>) -> impl Fn(&str) -> Result<Duration, words::Expectation> + Clone {
    |text| limits.parse(text)
}

fn budget(text: &str) -> Result<f64, String> {
    let Limits { min, max } = limits::BUDGET;
    text.parse()
        .ok()
        .filter(|share| limits::BUDGET.holds(share))
        .ok_or_else(|| format!("expected a number from {min} to {max}"))
}

fn workers(text: &str) -> Result<usize, String> {
    let Limits { min, max } = limits::WORKERS;
    text.parse()
        .ok()
        .filter(|count| limits::WORKERS.holds(count))
        .ok_or_else(|| format!("expected a number from {min} to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Options {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Config, String> {
        let words = std::iter::once("ls").chain(line.split_whitespace());
        Options::try_parse_from(words).map(|options| config(&options.args)).map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_everything_is_at_its_default() {
        let config = parse("-l 127.0.0.1:0 127.0.0.1:1 127.0.0.1:2").unwrap();
        assert_eq!(config.pools[0].rules, PoolRules::default());
        assert_eq!(config.pools[0].backends.len(), 2);
        assert_eq!(config.workers, None);
    }

    #[test]
    fn options_reach_the_rules() {
        let line = "-l [::1]:0 --dispatch hedge --balance ordered --accept any --timeout 2s --on-timeout drop \
                    --hedge-delay p99 --hedge-budget 0.5 -N 3 -R 7 127.0.0.1:1";
        let config = parse(line).unwrap();
        let rules = &config.pools[0].rules;
        assert_eq!((rules.dispatch, rules.balance, rules.accept), (Dispatch::Hedge, Balance::Ordered, Accept::Any));
        assert_eq!((rules.timeout, rules.on_timeout), (Duration::from_secs(2), Silence::Drop));
        assert_eq!((rules.hedge.delay, rules.hedge.budget), (HedgeDelay::Percentile(0.99), 0.5));
        assert_eq!((config.workers, rules.health.every_queries), (NonZeroUsize::new(3), 7));
    }

    #[test]
    fn serves_sets_the_defaults_and_flags_win_over_it() {
        let config = parse("-l 127.0.0.1:0 --serves same 127.0.0.1:1").unwrap();
        assert_eq!(config.pools[0].serves, Some(Serves::Same));
        assert_eq!(config.pools[0].rules, PoolRules::of(Serves::Same));
        let line =
            "-l 127.0.0.1:0 --serves same --dispatch race --on-timeout nxdomain --on-all-down refused 127.0.0.1:1";
        let expected = PoolRules {
            dispatch: Dispatch::Race,
            on_timeout: Silence::Nxdomain,
            on_all_down: Silence::Refused,
            ..PoolRules::of(Serves::Same)
        };
        assert_eq!(parse(line).unwrap().pools[0].rules, expected);
    }

    #[test]
    fn mistakes_are_told_with_what_would_be_right() {
        for (line, reported) in [
            ("-l 127.0.0.1:0 --dispatch hegde 127.0.0.1:1", "did you mean \"hedge\"?"),
            ("-l 127.0.0.1:0 --hedge-budget 2 127.0.0.1:1", "expected a number from 0 to 1"),
            ("-l 127.0.0.1:0 --timeout 3 127.0.0.1:1", "expected a duration"),
            ("-l 127.0.0.1:0 localhost:53", "expected"),
            ("-l 127.0.0.1:0", "BACKEND"),
            ("127.0.0.1:1", "--listen"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(reported), "{line}: {error}");
        }
    }

    #[test]
    fn a_backend_that_stands_twice_is_found() {
        let backends =
            ["127.0.0.1:1", "tls://127.0.0.1:1", "127.0.0.1:1"].map(|text| text.parse::<BackendUrl>().unwrap());
        assert_eq!(duplicate(&backends), Some(backends[0].address));
        assert_eq!(duplicate(&backends[..2]), None);
    }
}
