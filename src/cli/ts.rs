//! `hedgerow ts`: an authoritative server without a config file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use config::{
    AuthorityConfig, AuthorityZones, Config, CookieConfig, EtcdConfig, HttpEndpoint, RegisterConfig, ZoneSource,
    etcd_key, http_endpoint, usual_rate_limit, words,
};
use dns::Name;
use limit::AccessRules;
use zone::{Identity, Miss};

use super::listen::ListenArgs;
use super::{run, usage};
use crate::load::{self, LoadError, Loader, Setup};

/// The options. Each corresponds to the config key of the same name, with the same values and default.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    listen: ListenArgs,
    /// The response for a name that is in no table: silent | nxdomain | refused [default: silent]
    #[arg(long, value_name = "WORD", value_parser = words::word::<Miss>)]
    miss: Option<Miss>,
    /// TTL of table records [default: 300s]
    #[arg(long, value_name = "DURATION", value_parser = words::ttl)]
    ttl: Option<Duration>,
    /// The name of the zone, for master files that do not name it
    #[arg(long, value_name = "NAME", value_parser = words::domain_name)]
    origin: Option<Name>,
    /// An etcd to register in, http://ADDRESS:PORT; may be given several times
    #[arg(long, value_name = "URL", requires = "register", value_parser = http_endpoint)]
    etcd: Vec<HttpEndpoint>,
    /// The key to register under, for as long as all zones are served
    #[arg(long, value_name = "KEY", requires = "etcd", value_parser = etcd_key)]
    register: Option<String>,
    /// The address to register [default: the first listen address]
    #[arg(long, value_name = "ADDR", requires = "register", value_parser = words::backend_address)]
    address: Option<SocketAddr>,
    /// Tables of lines HOST ADDRESS TYPE, or zones in master file format
    #[arg(required = true, value_name = "ZONEFILE")]
    zones: Vec<PathBuf>,
}

pub(super) fn run(args: Args) -> ExitCode {
    if args.register.is_some() && args.address.is_none() && args.listen.is_unspecified() {
        return usage("hedgerow ts: the listen address is unspecified and cannot be registered: set --address");
    }
    if let Err(problem) = args.listen.check() {
        return usage(format_args!("hedgerow ts: {problem}"));
    }
    let mut loader = Loader::default();
    match load(&args, &mut loader) {
        // SIGHUP reads the zone files again.
        Ok(setup) => run::foreground(setup, move |_| load(&args, &mut loader)),
        Err(problems) => usage(problems),
    }
}

fn load(args: &Args, loader: &mut Loader) -> Result<Setup, LoadError> {
    let listen = args.listen.listen();
    let rate_limit = usual_rate_limit(&listen);
    let authority = AuthorityConfig {
        name: "authority".to_owned(),
        listen,
        access: AccessRules::of(&AccessRules::EVERYBODY),
        zones: AuthorityZones {
            files: args
                .zones
                .iter()
                .map(|file| ZoneSource { file: file.clone(), origin: args.origin.as_ref().map(Name::folded) })
                .collect(),
            ..AuthorityZones::default()
        },
        miss: args.miss.unwrap_or(AuthorityConfig::MISS),
        ttl: args.ttl.unwrap_or(AuthorityConfig::TTL),
        identity: Identity::default(),
        rate_limit,
        cookies: CookieConfig::default(),
        connections: Default::default(),
        register: args.register.clone().map(|key| RegisterConfig::of_key(key, args.address)),
    };
    let config = Config {
        authorities: vec![authority],
        certificates: args.listen.certificates(),
        etcd: EtcdConfig::of_endpoints(&args.etcd),
        ..Config::default()
    };
    load::load_files_to_serve(config, None, loader)
}
