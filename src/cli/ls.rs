//! `hedgerow ls`: a forwarder without a config file, with one pool for all names.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use config::{
    Accept, BackendConfig, Config, CookieConfig, DiscoverConfig, EtcdConfig, ForwarderConfig, HttpEndpoint,
    NamesConfig, PoolConfig, PoolIndex, PoolRules, ProcessConfig, Route, Serves, Silence, SpecialNames, etcd_key,
    http_endpoint, limits, usual_rate_limit, words,
};
use dns::Name;
use dns::address::{BackendAddress, BackendUrl};
use hedge::balance::Balance;
use hedge::{Dispatch, HedgeDelay};
use limit::{AccessRules, WaitRules};

use super::listen::ListenArgs;
use super::{number, run, usage};
use crate::load::{self, Loader};

/// The options. Each corresponds to the config key of the same name, with the same values and default.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    rules: RuleArgs,
    /// Data-plane threads; 0 is one per CPU
    #[arg(short = 'N', long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = |text: &str| number(text, limits::WORKERS))]
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

#[derive(Debug, clap::Args)]
struct RuleArgs {
    /// The names that each server knows: split: some, as tables do | same: all, as resolvers do; sets the
    /// defaults of the others [default: split]
    #[arg(long, value_name = "WORD", value_parser = words::word::<Serves>)]
    serves: Option<Serves>,
    /// race | hedge | sequential | auto [default: race; hedge with --serves same]
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
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| limits::TIMEOUT.parse(text))]
    timeout: Option<Duration>,
    /// The answer when no backend replied: nxdomain | servfail | refused | drop [default: nxdomain; servfail
    /// with --serves same]
    #[arg(long, value_name = "WORD", value_parser = words::word::<Silence>)]
    on_timeout: Option<Silence>,
    /// The answer when all backends are down: nxdomain | servfail | refused | drop [default: nxdomain;
    /// servfail with --serves same]
    #[arg(long, value_name = "WORD", value_parser = words::word::<Silence>)]
    on_all_down: Option<Silence>,
    /// When a hedge starts, except with --dispatch auto: auto, a percentile such as p95, or a duration
    /// [default: auto]
    #[arg(long, value_name = "DELAY", value_parser = words::hedge_delay)]
    hedge_delay: Option<HedgeDelay>,
    /// Hedges per query, over time, 0 to 1 [default: 0.05]
    #[arg(long, value_name = "SHARE", value_parser = |text: &str| number(text, limits::BUDGET))]
    hedge_budget: Option<f64>,
}

impl RuleArgs {
    fn rules(&self) -> PoolRules {
        let mut rules = PoolRules::of(self.serves.unwrap_or(Serves::Split));
        rules.race = rules.race.clone().with_dispatch(self.dispatch.unwrap_or(rules.race.dispatch));
        rules.race.balance = self.balance.unwrap_or(rules.race.balance);
        rules.accept = self.accept.unwrap_or(rules.accept);
        rules.race.timeout = self.timeout.unwrap_or(rules.race.timeout);
        rules.on_timeout = self.on_timeout.unwrap_or(rules.on_timeout);
        rules.on_all_down = self.on_all_down.unwrap_or(rules.on_all_down);
        rules.race.hedge.delay = self.hedge_delay.unwrap_or(rules.race.hedge.delay);
        rules.race.hedge.budget = self.hedge_budget.unwrap_or(rules.race.hedge.budget);
        rules
    }
}

pub(super) fn run(args: Args) -> ExitCode {
    if let Some(twice) = duplicate(&args.backends) {
        return usage(format_args!("hedgerow ls: backend {twice} is given twice; name each server once"));
    }
    if let Err(problem) = args.listen.check() {
        return usage(format_args!("hedgerow ls: {problem}"));
    }
    if args.rules.dispatch == Some(Dispatch::Auto) && args.rules.hedge_delay.is_some() {
        return usage("hedgerow ls: --dispatch auto sets the delay of hedges; remove --hedge-delay");
    }
    let mut loader = Loader::default();
    match load::load_files_to_serve(config(&args), None, &mut loader) {
        // SIGHUP only reads the certificate again.
        Ok(setup) => run::foreground(setup, move |_| load::load_files_to_serve(config(&args), None, &mut loader)),
        Err(problems) => usage(format_args!("hedgerow ls: {problems}")),
    }
}

fn config(args: &Args) -> Config {
    let mut rules = args.rules.rules();
    rules.health.every_queries = args.probe_every;
    let pool = PoolConfig {
        name: "ls".to_owned(),
        backends: args.backends.iter().map(|url| backend(url, args.ca.as_ref())).collect(),
        discover: args.discover.clone().map(DiscoverConfig::of_key),
        serves: args.rules.serves,
        rules,
        ..PoolConfig::default()
    };
    let listen = args.listen.listen();
    Config {
        process: ProcessConfig { workers: NonZeroUsize::new(args.workers), ..ProcessConfig::default() },
        forwarder: Some(ForwarderConfig {
            rate_limit: usual_rate_limit(&listen),
            listen,
            edns_udp_size: ForwarderConfig::EDNS_UDP_SIZE,
            rules: Vec::new(),
            designated_resolver: None,
            connections: Default::default(),
            routes: vec![Route { suffix: Name::root(), is_below_only: false, pool: PoolIndex(0) }],
            // The pool is for all names.
            names: NamesConfig { special: SpecialNames::Never, ..NamesConfig::default() },
            access: AccessRules::of(&AccessRules::LOCAL),
            limits: WaitRules::default(),
            cookies: CookieConfig::default(),
        }),
        pools: vec![pool],
        certificates: args.listen.certificates(),
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
    let mut seen = HashSet::new();
    backends.iter().map(|backend| backend.address).find(|address| !seen.insert(*address))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use hedge::RaceRules;

    use super::*;

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
        assert_eq!(config.process.workers, None);
    }

    #[test]
    fn options_reach_the_rules() {
        let line = "-l [::1]:0 --dispatch hedge --balance ordered --accept any --timeout 2s --on-timeout drop \
                    --hedge-delay p99 --hedge-budget 0.5 -N 3 -R 7 127.0.0.1:1";
        let config = parse(line).unwrap();
        let rules = &config.pools[0].rules;
        assert_eq!(
            (rules.race.dispatch, rules.race.balance, rules.accept),
            (Dispatch::Hedge, Balance::Ordered, Accept::Any)
        );
        assert_eq!((rules.race.timeout, rules.on_timeout), (Duration::from_secs(2), Silence::Drop));
        assert_eq!((rules.race.hedge.delay, rules.race.hedge.budget), (HedgeDelay::Percentile(0.99), 0.5));
        assert_eq!((config.process.workers, rules.health.every_queries), (NonZeroUsize::new(3), 7));
    }

    #[test]
    fn serves_sets_the_defaults_and_flags_win_over_it() {
        let config = parse("-l 127.0.0.1:0 --serves same 127.0.0.1:1").unwrap();
        assert_eq!(config.pools[0].serves, Some(Serves::Same));
        assert_eq!(config.pools[0].rules, PoolRules::of(Serves::Same));
        let line =
            "-l 127.0.0.1:0 --serves same --dispatch race --on-timeout nxdomain --on-all-down refused 127.0.0.1:1";
        let expected = PoolRules {
            race: RaceRules { dispatch: Dispatch::Race, ..PoolRules::of(Serves::Same).race },
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
