//! `hedgerow simulate`: runs the real race logic on modelled backends and compares policies
//! (docs/src/contract.md, Commands).
//!
//! The scenario comes from the command line or a file (`settings`, `backend`, `policy` and `values` parse
//! it), or from a config and a running server (`live`). `sim` plays it once per policy with the same queries;
//! `output` and `plot` show the results.

mod backend;
mod file;
mod live;
mod output;
mod plot;
mod policy;
mod settings;
mod trace;
mod values;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use config::PoolRules;
use engine::sim::{BackendModel, Course, NameDistribution, PoolModel, Scenario, Tally};

use self::output::{PolicyRun, Setting};
use self::policy::Policy;
use self::settings::{Mistake, SettingEntries};
use super::ctl::CommandFailure;
use super::ctl::connection::AdminTarget;
use super::print;
use crate::files::{NewFile, Readers};

/// Compare policies on modelled backends
#[derive(Debug, clap::Args)]
#[command(after_help = LANGUAGE)]
pub(super) struct Args {
    /// A backend, such as 'latency=1ms+1%:500ms loss=5%'; may be given several times [default: two with a
    /// tail]
    #[arg(short, long = "backend", value_name = "WORDS")]
    backends: Vec<String>,
    /// A policy, such as 'hedge delay=p95 budget=2%'; may be given several times [default: a few that differ]
    #[arg(short, long = "policy", value_name = "WORDS")]
    policies: Vec<String>,
    #[command(flatten)]
    settings: ScenarioSettings,
    /// Read the scenario from a TOML file with these keys; options given here take precedence
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Begin with the rules of a pool of this config
    #[arg(long, value_name = "CONFIG")]
    from: Option<PathBuf>,
    /// Pool of the config, if it has several
    #[arg(long, value_name = "NAME", requires = "from")]
    pool: Option<String>,
    /// The admin server of a running hedgerow, which reports the state of the backends of that pool
    #[arg(long, value_name = "URL", requires = "from", conflicts_with = "backends")]
    status: Option<AdminTarget>,
    /// Play the first half of a trace that hedgerow ctl record has written, and show the second half
    #[arg(long, value_name = "FILE", conflicts_with_all = ["backends", "status", "file"])]
    trace: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Draw the curves and the cost of the policies
    #[arg(long, value_name = "FILE.svg", value_parser = file_name)]
    plot: Option<PathBuf>,
}

// The keys of a scenario, on the command line and in a file.
#[derive(Clone, Debug, Default, clap::Args)]
struct ScenarioSettings {
    /// Queries for each policy [default: 1000000]
    #[arg(short = 'n', long, value_name = "N", value_parser = values::queries)]
    queries: Option<usize>,
    /// Mean queries per second, at random times [default: that of the running server, or else 3000]
    #[arg(short, long, value_name = "N", value_parser = values::rate)]
    rate: Option<f64>,
    /// Query names: unique, each name once, or zipf(EXPONENT,NAMES), some more often than others [default:
    /// unique]
    #[arg(long, value_name = "NAMES", value_parser = values::names)]
    names: Option<NameDistribution>,
    /// Cache answers, which have this time to live
    #[arg(long, value_name = "TIME", value_parser = values::ttl)]
    ttl: Option<Duration>,
    /// Slowdown of all backends at times, such as 20x@500ms/30s
    #[arg(long, value_name = "COURSE", value_parser = values::slow)]
    slow: Option<Course<f64>>,
    /// Workers that share the queries, as threads of the server do [default: 1]
    #[arg(long, value_name = "N", value_parser = values::workers)]
    workers: Option<u16>,
    /// Random seed: the same seed gives the same table [default: 1]
    #[arg(long, value_name = "N", value_parser = values::seed)]
    seed: Option<u64>,
}

impl ScenarioSettings {
    /// Takes the keys of a file; those of the command line take precedence. Each key is taken, and so
    /// checked, even then.
    fn or_of(&self, file: &mut SettingEntries) -> Result<Self, Mistake> {
        let given = self.clone();
        Ok(Self {
            queries: given.queries.or(file.take("queries", values::queries)?),
            rate: given.rate.or(file.take("rate", values::rate)?),
            workers: given.workers.or(file.take("workers", values::workers)?),
            seed: given.seed.or(file.take("seed", values::seed)?),
            slow: given.slow.or(file.take("slow", values::slow)?),
            names: given.names.or(file.take("names", values::names)?),
            ttl: given.ttl.or(file.take("ttl", values::ttl)?),
        })
    }
}

const LANGUAGE: &str = "\
Words of a backend, all optional:
  latency=COURSE      the time of a reply; 1ms by default
  loss=COURSE         the share of datagrams that are lost
  failure=SHARE       the share of replies that are failures
  stall=WHEN,...      when it pauses; queries that arrive meanwhile wait
  connections=N       it is asked by stream, over N connections; all queries ride on them, and what is lost is sent again
  stall=SHARE:TIME    the share of the time that all on one connection waits, and for how long each time
  crash=WHEN,...      when it is down
  service=LATENCY servers=N   how long it works on a query, and on how many at a time; others queue
  site=NAME slow=COURSE   how much slower it is, such as 20x@500ms/30s; backends of one site at the same times
  weight=N count=N    its share of the load; how many there are like it
  tier=1              a spare, which takes turns while fewer than min_up of lower tiers are up
Words of a policy: race, hedge, auto, sequential, first (the first backend alone) or present (the pool as --from has it), then
  pool keys: fanout=N balance=WORD accept=WORD timeout=TIME attempt_timeout=auto|TIME tries=N grace=TIME interval=TIME
  for hedge: delay=auto|pNN|TIME budget=SHARE max=N min_delay=TIME max_delay=TIME; for auto: target=pNN budget=SHARE max=N
  name=WORD for the table
LATENCY is 1ms, uniform(1ms,3ms), lognormal(MEDIAN,SIGMA), pareto(LEAST,SHAPE), each with any number of +SHARE:LATENCY
COURSE is VALUE,VALUE@WHEN,...; WHEN is 30s..60s, 30s.. or LENGTH/EVERY (by chance); SHARE is 5% or 0.05";

/// Runs the command. Exit status 0: played. 1: the server cannot be reached or does not fit, or the plot
/// cannot be written. 2: the description is wrong.
pub(super) fn run(args: &Args) -> ExitCode {
    simulate(args)
        .map_or_else(|failure| failure.report("hedgerow simulate"), |text| print(format!("{text}\n").as_bytes()))
}

fn simulate(args: &Args) -> Result<String, CommandFailure> {
    let SimulationPlan { scenario, policies, setting } = plan(args)?;
    // Opened first, so that a wrong path is reported before the simulation runs.
    let open = |path| NewFile::open(path, Readers::Usual).map_err(|error| unwritten(path, error));
    let plot = args.plot.as_deref().map(|path| open(path).map(|file| (path, file)));
    let plot = plot.transpose()?;
    let played = play(&scenario, policies, setting.seed);
    if let Some((path, mut file)) = plot {
        let svg = plot::draw(&setting.headline(), &output::to_curves(&played));
        let svg = svg.map_err(|error| unwritten(path, error))?;
        file.write_all(svg.as_bytes()).and_then(|()| file.finish()).map_err(|error| unwritten(path, error))?;
    }
    Ok(if args.json { output::to_json(&setting, &played) } else { output::to_text(&setting, &played) })
}

fn unwritten(path: &Path, error: impl fmt::Display) -> CommandFailure {
    CommandFailure::Server(format!("--plot: {}: cannot be written: {error}", path.display()))
}

struct SimulationPlan {
    scenario: Scenario,
    policies: Vec<Policy>,
    setting: Setting,
}

fn plan(args: &Args) -> Result<SimulationPlan, CommandFailure> {
    let mut described = args.file.as_deref().map(file::read).transpose()?.unwrap_or_default();
    let given = args.settings.or_of(&mut described.settings)?;
    described.settings.finish()?;

    let pool = args.from.as_deref().map(|file| live::pool(file, args.pool.as_deref())).transpose()?;
    let found = match (&pool, &args.status) {
        (Some(pool), Some(url)) => Some(live::ask(url, pool)?),
        _ => None,
    };
    let seed = given.seed.unwrap_or(1);
    let trace = args.trace.as_deref().map(|file| trace::read(file, seed)).transpose()?;
    let known = || found.as_ref().map(|found| found.rate).or(trace.as_ref()?.rate);
    let rate = given.rate.or_else(known).unwrap_or(USUAL_RATE);
    let found = found.map(|found| found.backends);
    let (replay, measured) = trace.map(|trace| (trace.replay, trace.measured)).unzip();
    let backends = match &replay {
        Some(_) => vec![BackendModel::default(); 2],
        None => backends(&args.backends, described.backends, found, pool.is_some())?,
    };
    let queries = given.queries.unwrap_or(USUAL_QUERIES);
    let names = given.names.unwrap_or(NameDistribution::Unique);
    let ttl = given.ttl;
    let has_repeats = names != NameDistribution::Unique || ttl.is_some();
    let setting = Setting { queries, rate, backends: backends.len(), seed, has_repeats, measured };
    let rules = pool.map(|pool| pool.rules);
    let policies = policies(&args.policies, described.policies, rules.as_ref())?;
    let scenario = Scenario {
        queries,
        names,
        ttl,
        gap: Duration::from_secs_f64(1.0 / rate),
        slow: given.slow.unwrap_or_else(|| Course::always(1.0)),
        is_probed: true,
        replay,
        workers: given.workers.unwrap_or(1),
        ..Scenario::of_pool(rules.unwrap_or_default(), backends)
    };
    Ok(SimulationPlan { scenario, policies, setting })
}

/// Returns the backends of the command line, or else of the file or the running server, or those of the
/// demonstration.
fn backends(
    words: &[String],
    described: Vec<SettingEntries>,
    found: Option<Vec<BackendModel>>,
    has_pool: bool,
) -> Result<Vec<BackendModel>, Mistake> {
    let words = words.iter().map(|text| SettingEntries::of_words(format!("--backend {text:?}"), text, None));
    let given = all(words.collect::<Result<Vec<_>, _>>()?)?;
    let described = all(described)?;
    match found {
        Some(_) if !described.is_empty() => {
            Err(Mistake::at("--status", "the file describes backends too, expected one of both"))
        }
        Some(found) => Ok(found),
        None if !given.is_empty() => Ok(given),
        None if !described.is_empty() => Ok(described),
        None if has_pool => {
            Err(Mistake::at("--from", "has only the rules, expected --status URL or --backend WORDS too"))
        }
        None => backend::read(SettingEntries::of_words("the demonstration".to_owned(), DEMONSTRATION, None)?),
    }
}

fn all(described: Vec<SettingEntries>) -> Result<Vec<BackendModel>, Mistake> {
    let backends = described.into_iter().map(backend::read).collect::<Result<Vec<_>, _>>()?;
    Ok(backends.into_iter().flatten().collect())
}

/// Returns the policies of the command line, or else of the file, or a default set.
fn policies(
    words: &[String],
    described: Vec<SettingEntries>,
    rules: Option<&PoolRules>,
) -> Result<Vec<Policy>, Mistake> {
    let described = described.into_iter().map(|settings| Policy::read(settings, rules));
    let described = described.collect::<Result<Vec<_>, _>>()?;
    if words.is_empty() && !described.is_empty() {
        return Ok(described);
    }
    let mut words: Vec<_> = words.iter().map(String::as_str).collect();
    if words.is_empty() {
        words.extend(if rules.is_some() { &VARIATIONS[..] } else { &POLICIES });
    }
    words.into_iter().map(|text| Policy::of_words(text, rules)).collect()
}

fn play(scenario: &Scenario, policies: Vec<Policy>, seed: u64) -> Vec<PolicyRun> {
    let start = Instant::now();
    let count = policies.len();
    let left = Mutex::new(policies.into_iter().enumerate());
    let work = || {
        let mut played = Vec::new();
        loop {
            let next = left.lock().expect("nothing panics while it is held").next();
            let Some((place, Policy { name, rules, is_first_only })) = next else { return played };
            let mut backends = scenario.pools.iter().flat_map(|pool| pool.backends.clone()).collect::<Vec<_>>();
            if is_first_only {
                backends.truncate(1);
            }
            let scenario = Scenario { pools: vec![PoolModel { rules, backends }], ..scenario.clone() };
            played.push((place, PolicyRun { name, tally: Tally::of(&scenario, start, seed) }));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(count);
    let mut played: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a scenario ends")).collect()
    });
    played.sort_by_key(|(place, _)| *place);
    played.into_iter().map(|(_, played)| played).collect()
}

/// Parses the name of a file to write. The figure cannot go to stdout, where the table is printed.
fn file_name(text: &str) -> Result<PathBuf, String> {
    let is_name = !text.is_empty() && text != "-";
    is_name.then(|| text.into()).ok_or_else(|| "expected the name of a file, such as tail.svg".to_owned())
}

impl From<Mistake> for CommandFailure {
    fn from(mistake: Mistake) -> Self {
        Self::Usage(mistake.to_string())
    }
}

/// Enough for a p99.9 that hardly depends on the seed, and still fast.
const USUAL_QUERIES: usize = 1_000_000;
/// Queries per second, as in the benchmark.
const USUAL_RATE: f64 = 3_000.0;
/// The default backends: fast ones with a tail, where policies differ most.
const DEMONSTRATION: &str = "latency=lognormal(1ms,0.3)+1%:500ms count=2";
const POLICIES: [&str; 5] = ["sequential", "race", "hedge delay=auto budget=5%", "auto budget=5%", "hedge delay=p90"];
const VARIATIONS: [&str; 9] = [
    "present",
    "sequential",
    "race",
    "hedge delay=p50",
    "hedge delay=p90",
    "hedge delay=p95",
    "hedge delay=p99",
    "hedge delay=auto budget=2%",
    "hedge delay=auto budget=10%",
];
