//! `hedgerow ts`: an authoritative server without a config file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::ls::{lacks_certificate, own_certificate};
use super::{EXIT_USAGE, run};
use crate::address::ListenUrl;
use crate::config::{
    AuthorityConfig, Config, CookieConfig, EtcdConfig, HttpEndpoint, ListenConfig, RegisterConfig, ZoneSource,
    etcd_key, http_endpoint, listen_address, usual_rate_limit, words,
};
use crate::limit::AccessRules;
use crate::load::{self, LoadError, Loader, Setup};
use crate::wire::Name;
use crate::zone::{Identity, Miss};

/// The options. Each corresponds to the config key of the same name, with the same values and default.
#[derive(Clone, Debug, clap::Args)]
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
    let is_any = args.listen.first().is_some_and(|first| first.address.socket.ip().is_unspecified());
    if args.register.is_some() && args.address.is_none() && is_any {
        eprintln!("hedgerow ts: the listen address is unspecified and cannot be registered: set --address");
        return ExitCode::from(EXIT_USAGE);
    }
    if let Some(listener) = lacks_certificate(&args.listen, args.certificate.is_some()) {
        eprintln!("hedgerow ts: {listener} has no certificate to show, add --certificate FILE and --key FILE");
        return ExitCode::from(EXIT_USAGE);
    }
    let mut loader = Loader::default();
    match load(&args, &mut loader) {
        // SIGHUP reads the zone files again.
        Ok(setup) => run::foreground(setup, move |_| load(&args, &mut loader)),
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn load(args: &Args, loader: &mut Loader) -> Result<Setup, LoadError> {
    let listen: Vec<ListenConfig> = args.listen.iter().cloned().map(Into::into).collect();
    let rate_limit = usual_rate_limit(&listen);
    let authority = AuthorityConfig {
        name: "authority".to_owned(),
        listen,
        access: AccessRules::of(&AccessRules::EVERYBODY),
        zones: args
            .zones
            .iter()
            .map(|file| ZoneSource { file: file.clone(), origin: args.origin.as_ref().map(Name::folded) })
            .collect(),
        miss: args.miss.unwrap_or(AuthorityConfig::MISS),
        ttl: args.ttl.unwrap_or(AuthorityConfig::TTL),
        identity: Identity::default(),
        shared: Vec::new(),
        secondaries: Vec::new(),
        catalogs: Vec::new(),
        produced: Vec::new(),
        members_folder: Default::default(),
        rate_limit,
        cookies: CookieConfig::default(),
        connections: Default::default(),
        register: args.register.clone().map(|key| RegisterConfig::of_key(key, args.address)),
    };
    let config = Config {
        authorities: vec![authority],
        certificates: own_certificate(args.certificate.as_deref(), args.key.as_deref()),
        etcd: EtcdConfig::of_endpoints(&args.etcd),
        ..Config::default()
    };
    load::load_files_to_serve(config, None, loader)
}
