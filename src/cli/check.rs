//! `hedgerow check`: reads the config file and all files that it names, as `serve` does, and starts nothing.

mod rules;

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use config::words;
use dns::{Name, display_name};
use zone::{Zone, rdata_to_text};

use super::{EXIT_USAGE, count, failure, usage};
use crate::control::check_interfaces;
use crate::load::{self, ConfigText, LoadError, Loader, Setup};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Print this zone, or all zones, in canonical order, a record a line
    #[arg(long, value_name = "ZONE", value_parser = words::domain_name)]
    dump: Option<Option<Name>>,
    /// Exit with status 2 if there are warnings
    #[arg(long)]
    strict: bool,
}

/// Prints a summary and the abilities of interfaces on stdout, or every problem on stderr with exit status 2.
/// Warnings always go to stderr, and are exit status 2 with `--strict`. With `--dump`, zones go to stdout and
/// the summary to stderr.
pub(super) fn run(file: Option<PathBuf>, args: &Args) -> ExitCode {
    let CheckReport { summary, mut warnings, setup } = match check(file.as_deref()) {
        Ok(checked) => checked,
        Err(error) => return usage(error),
    };
    let interfaces = check_interfaces(&setup.config, &mut warnings);
    let proved = rules::report(&setup);
    warnings.extend(proved.warnings);
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let lines = match interfaces {
        Ok(lines) => lines,
        Err(problems) => return usage(problems),
    };
    let report = [&[summary], &proved.lines[..], &lines[..]].concat().join("\n");
    let status = if args.strict && !warnings.is_empty() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
    let Some(wanted) = &args.dump else {
        println!("{report}");
        return status;
    };
    eprintln!("{report}");
    let zones = match zones_of(&setup, wanted.as_ref()) {
        Ok(zones) => zones,
        Err(message) => return usage(message),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    match zones.iter().try_for_each(|zone| dump(zone, &mut out)).and_then(|()| out.flush()) {
        Ok(()) => status,
        // The reader of the pipe has closed it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => status,
        Err(error) => failure(format_args!("hedgerow: {error}")),
    }
}

#[derive(Debug)]
struct CheckReport {
    summary: String,
    warnings: Vec<String>,
    setup: Setup,
}

fn check(file: Option<&Path>) -> Result<CheckReport, LoadError> {
    let text = ConfigText::read(file)?;
    let config = text.parse(&load::find_user)?;
    let mut loader = Loader::default();
    let setup = load::load_files(config, &mut loader).map_err(|error| text.with_places(error))?;
    let summary = format!("{}: ok ({})", text.file.display(), summary(&setup));
    let warnings = [text.warnings(), load::warnings(&setup, &loader, Some(&text.file))].concat();
    Ok(CheckReport { summary, warnings, setup })
}

fn zones_of<'a>(setup: &'a Setup, wanted: Option<&Name>) -> Result<Vec<&'a Arc<Zone>>, String> {
    let all = || setup.zone_dbs.iter().flat_map(|zone_db| zone_db.zones());
    let mut zones: Vec<&Arc<Zone>> = Vec::new();
    for zone in all().filter(|zone| wanted.is_none_or(|name| name == zone.apex())) {
        if !zones.iter().any(|known| Arc::ptr_eq(known, zone)) {
            zones.push(zone);
        }
    }
    match wanted {
        Some(name) if zones.is_empty() => {
            let names: Vec<_> = all().map(|zone| zone.apex().to_string()).collect();
            Err(format!("no zone {name}, expected one of: {}", names.join(", ")))
        }
        Some(_) | None => Ok(zones),
    }
}

/// Prints a zone as a master file in canonical order (RFC 4034 section 6), with absolute names and one record
/// per line.
fn dump(zone: &Zone, out: &mut impl Write) -> io::Result<()> {
    for record in zone.canonical() {
        let data = rdata_to_text(record.rtype, record.rdata);
        writeln!(out, "{} {} IN {} {data}", display_name(record.owner), record.ttl, record.rtype)?;
    }
    Ok(())
}

fn summary(Setup { config, zone_dbs, .. }: &Setup) -> String {
    let mut parts = Vec::new();
    if let Some(forwarder) = &config.forwarder {
        let listen: Vec<_> = forwarder.listen.iter().map(|listener| listener.address.to_string()).collect();
        let backends = config.pools.iter().map(|pool| pool.backends.len()).sum();
        parts.push(format!("forwarder on {}", listen.join(", ")));
        let (pools, backends) = (count(config.pools.len(), "pool", "pools"), count(backends, "backend", "backends"));
        parts.push(format!("{pools} with {backends}"));
    }
    if !config.authorities.is_empty() {
        let files = config.authorities.iter().map(|authority| authority.zones.files.len()).sum();
        let hosts = zone_dbs.iter().map(|zone_db| zone_db.tables().hosts()).sum();
        let addresses = zone_dbs.iter().map(|zone_db| zone_db.tables().records()).sum();
        let name_servers = zone_dbs.iter().map(|zone_db| zone_db.name_servers()).sum();
        let zones = zone_dbs.iter().map(|zone_db| zone_db.zones().len()).sum();
        let records = zone_dbs.iter().flat_map(|zone_db| zone_db.zones()).map(|zone| zone.records()).sum();
        let authorities = count(config.authorities.len(), "authority", "authorities");
        let mut found = Vec::new();
        if zones > 0 {
            let records = count(records, "record", "records");
            found.push(format!("{} with {records}", count(zones, "zone", "zones")));
        }
        let secondaries = config.authorities.iter().map(|authority| authority.zones.secondaries.len()).sum();
        if secondaries > 0 {
            found.push(count(secondaries, "zone of other servers", "zones of other servers"));
        }
        if hosts > 0 || zones + secondaries == 0 {
            found.push(count(hosts, "host", "hosts"));
            found.push(count(addresses, "address", "addresses"));
        }
        if name_servers > 0 {
            found.push(format!("referrals to {}", count(name_servers, "name server", "name servers")));
        }
        parts.push(format!("{authorities} with {}: {}", count(files, "zone file", "zone files"), found.join(", ")));
    }
    if let Some(admin) = &config.admin {
        parts.push(format!("admin server on {}", admin.listen));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Checks the summary of a config with the zone files `a.txt` and `b.txt` beside it.
    fn check_summary(config: &str, expected: &str) {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let files = [
            ("config.toml", config),
            ("a.txt", "a.example 192.0.2.1 A\na.example 192.0.2.2 A\nb.example 2001:db8::1 AAAA"),
            ("b.txt", "c.example 192.0.2.3 A\nns.example - NS"),
            ("c.zone", "$ORIGIN example.\n@ 1 SOA ns mail 1 2 3 4 5\n@ 1 NS ns\nns 1 A 192.0.2.1"),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file of the test");
        }
        let file = folder.path().join("config.toml");
        let summary = check(Some(&file)).expect("a config that is right").summary;
        assert_eq!(summary, format!("{}: ok ({expected})", file.display()));
    }

    #[test]
    fn the_summary_tells_what_would_run() {
        let authority = "[authorities.one]\nlisten = ['[::1]:53']\nzones = ['a.txt']\n";
        check_summary(authority, "1 authority with 1 zone file: 2 hosts, 3 addresses");
        let referring = "[authorities.two]\nlisten = ['[::1]:54']\nzones = ['a.txt', 'b.txt']\n";
        check_summary(
            &format!("{authority}{referring}"),
            "2 authorities with 3 zone files: 5 hosts, 7 addresses, referrals to 1 name server",
        );
        let zone = "[authorities.three]\nlisten = ['[::1]:55']\nzones = ['c.zone'";
        check_summary(&format!("{zone}]\n"), "1 authority with 1 zone file: 1 zone with 3 records");
        check_summary(
            &format!("{zone}, 'b.txt']\n"),
            "1 authority with 2 zone files: 1 zone with 3 records, 1 host, 1 address, referrals to 1 name server",
        );
        check_summary(
            &format!("{zone}, {{ zone = 'a.example', primaries = ['192.0.2.1:53'] }}]\n"),
            "1 authority with 1 zone file: 1 zone with 3 records, 1 zone of other servers",
        );
        check_summary(
            "[forwarder]\nlisten = ['127.0.0.1:53']\n[pools.p]\nbackends = ['192.0.2.1:53', '192.0.2.2:53']\n",
            "forwarder on 127.0.0.1:53; 1 pool with 2 backends",
        );
        check_summary(
            "[forwarder]
listen = ['127.0.0.1:53']
[pools.p]
backends = ['192.0.2.1:53']
[admin]
",
            "forwarder on 127.0.0.1:53; 1 pool with 1 backend; admin server on 127.0.0.1:5380",
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let error = check(Some(Path::new("no/such.toml"))).expect_err("no file");
        assert!(matches!(error, LoadError::NotFound(_)), "{error}");
    }

    #[test]
    fn a_zone_is_printed_as_a_master_file_in_canonical_order() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let text = "$TTL 1h\n@ SOA ns mail 1 2 3 4 5\n NS Ns\nwww A 192.0.2.2\n A 192.0.2.1\n\
                    ns 60 A 192.0.2.1\nZ\\.1 TXT \"a b\"\na TYPE65280 \\# 2 0aff\n";
        for (name, text) in [
            ("config.toml", "[authorities.a]\nlisten = ['[::1]:53']\nzones = [{ file = 'z', origin = 'Example' }]"),
            ("z", text),
        ] {
            fs::write(folder.path().join(name), text).expect("a file of the test");
        }
        let setup = check(Some(&folder.path().join("config.toml"))).expect("a config that is right").setup;
        let mut out = Vec::new();
        let zones = zones_of(&setup, None).expect("all there are");
        dump(zones[0], &mut out).expect("a Vec takes all");
        let expected = "example. 3600 IN SOA ns.example. mail.example. 1 2 3 4 5\n\
                        example. 3600 IN NS Ns.example.\n\
                        a.example. 3600 IN TYPE65280 \\# 2 0aff\n\
                        ns.example. 60 IN A 192.0.2.1\n\
                        www.example. 3600 IN A 192.0.2.1\n\
                        www.example. 3600 IN A 192.0.2.2\n\
                        z\\.1.example. 3600 IN TXT \"a b\"\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
        let error = zones_of(&setup, Some(&Name::root())).expect_err("not there");
        assert_eq!(error, "no zone ., expected one of: example.");
    }
}
