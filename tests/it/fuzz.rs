//! The fuzz targets, on what is kept of earlier runs and on some thousand changes of it. For longer runs,
//! guided by what is reached: `fuzz/run`.
//!
//! A failing run prints its seed; `HEDGEROW_SEED=n` repeats it. With `HEDGEROW_FUZZ_SEEDS` set, corpora begin
//! anew.

#[path = "../../fuzz/targets.rs"]
#[allow(unreachable_pub, reason = "it is a part of other crates too")]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use targets::{TARGETS, Target, seeds};

/// Returns the stored corpus of a target: each file, and its bytes.
fn kept(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let Ok(files) = fs::read_dir(&folder) else { return Vec::new() };
    let paths = files.map(|file| file.expect("a file of our own").path());
    paths.map(|path| (path.clone(), fs::read(&path).expect("a file of our own"))).collect()
}

/// Puts the first corpus of a target where libFuzzer starts from.
fn keep_seeds(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    fs::create_dir_all(&folder).expect("a folder of our own");
    for (number, octets) in seeds(name).iter().enumerate() {
        fs::write(folder.join(format!("seed-{number}")), octets).expect("a file of our own");
    }
}

/// Names what a target failed with.
struct Blame<'a>(&'a str, &'a [u8]);

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {} fails with {:?}", self.0, self.1.escape_ascii().to_string());
        }
    }
}

fn run((name, target): Target, octets: &[u8]) {
    let _blame = Blame(name, octets);
    target(octets);
}

/// Changes octets here and there, or takes some from elsewhere.
fn mutate(octets: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    for _ in 0..random.random_range(1..=6) {
        if octets.is_empty() {
            return octets.extend(other);
        }
        let at = random.random_range(0..octets.len());
        match random.random_range(0..6) {
            0 => octets[at] = random.random(),
            1 => octets[at] ^= 1 << random.random_range(0..8),
            2 => drop(octets.drain(at..random.random_range(at..=octets.len()))),
            3 => octets.insert(at, *[0, 1, 2, 12, 41, 63, 64, 0xc0, 0xff].choose(random).expect("some")),
            4 => octets.extend_from_within(at..),
            _ if !other.is_empty() => {
                let from = random.random_range(0..other.len());
                let part = other[from..].iter().copied().take(40);
                octets.splice(at..at, part);
            }
            _ => {}
        }
        octets.truncate(MAX_LEN);
    }
}

#[test]
fn what_is_kept_holds() {
    for &target in TARGETS {
        if std::env::var_os("HEDGEROW_FUZZ_SEEDS").is_some() {
            keep_seeds(target.0);
        }
        let kept = kept(target.0);
        assert!(!kept.is_empty(), "nothing is kept for {}", target.0);
        kept.iter().for_each(|(_, octets)| run(target, octets));
        let is_new = |seed: &&Vec<u8>| !kept.iter().any(|(_, octets)| octets == *seed);
        seeds(target.0).iter().filter(is_new).for_each(|octets| run(target, octets));
    }
}

#[test]
fn changes_of_what_is_kept_hold() {
    let given = std::env::var("HEDGEROW_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("HEDGEROW_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for &target in TARGETS {
        let mut corpus = seeds(target.0);
        corpus.extend(kept(target.0).into_iter().map(|(_, octets)| octets));
        // A script of clients takes some hundred times as long as other inputs.
        for _ in 0..if target.0 == "clients" { CHANGES / 20 } else { CHANGES } {
            let mut octets = corpus.choose(&mut random).expect("some").clone();
            let other = corpus.choose(&mut random).expect("some");
            mutate(&mut octets, other, &mut random);
            run(target, &octets);
        }
    }
}

/// How many changes each target is given.
const CHANGES: usize = 1000;

/// Octets of an input at most: far more than the first checks look at, few enough to be quick.
const MAX_LEN: usize = 16 << 10;
