//! The tail of `auto` against the best fixed policy with the same budget, on 200 modelled pools at five
//! loads: `cargo bench --bench envelope`.

mod cell;
mod models;
mod report;
mod words;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{fs, thread};

use clap::{Parser, ValueEnum};

use self::cell::{Cell, Outcome};
use self::models::{Kind, Model};

/// Compare dispatch auto with fixed policies on modelled pools
#[derive(Parser)]
struct Options {
    /// Queries for each policy, model, load and budget.
    #[arg(short = 'n', long, default_value_t = 40_000)]
    queries: usize,
    /// Only this part of the models, such as 1/4.
    #[arg(long, value_parser = part)]
    part: Option<(usize, usize)>,
    /// Only these models, by number.
    #[arg(long, value_delimiter = ',')]
    models: Vec<usize>,
    /// Only these kinds of models.
    #[arg(long, value_enum, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Loads, in percent of the capacity.
    #[arg(long, value_delimiter = ',', default_values_t = [5, 20, 50, 80, 95])]
    loads: Vec<u32>,
    /// Print each result too.
    #[arg(long)]
    cells: bool,
    /// Write the models to their file.
    #[arg(long)]
    write: bool,
    /// Given by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let begun = Instant::now();
    let models = Model::all();
    let text: String =
        models.iter().map(|model| format!("{:?} {}\n", model.kind, model.words()).to_lowercase()).collect();
    if options.write {
        fs::write(FILE, &text).expect("the file of the models can be written");
    }
    assert!(fs::read_to_string(FILE).is_ok_and(|file| file == text), "{FILE} is old, write it with --write");

    let is_meant = |model: &&Model| {
        options.part.is_none_or(|(part, parts)| model.number / Kind::value_variants().len() % parts == part - 1)
            && (options.models.is_empty() || options.models.contains(&model.number))
            && (options.kinds.is_empty() || options.kinds.contains(&model.kind))
    };
    let mut cells = Vec::new();
    for model in models.iter().filter(is_meant) {
        for load in &options.loads {
            let load = f64::from(*load) / 100.0;
            cells.push(Cell { model, load, budget: 0.05 });
            if (model.number + model.number / Kind::value_variants().len()).is_multiple_of(RICH) {
                cells.push(Cell { model, load, budget: 1.0 });
            }
        }
    }
    let outcomes = play(&cells, options.queries);
    print!("{}", report::text(&outcomes, options.queries, options.cells));
    println!("took {:.0} s", begun.elapsed().as_secs_f64());
}

/// Plays all cells with two threads.
fn play<'m>(cells: &[Cell<'m>], queries: usize) -> Vec<Outcome<'m>> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = cell.play(queries);
                    let mut outcomes = outcomes.lock().expect("no thread panics");
                    outcomes.push(outcome);
                    if outcomes.len().is_multiple_of(100) {
                        eprintln!("{} of {}", outcomes.len(), cells.len());
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no thread panics");
    outcomes.sort_by(|one, other| {
        let key = |outcome: &Outcome<'_>| (outcome.cell.model.number, outcome.cell.budget, outcome.cell.load);
        key(one).partial_cmp(&key(other)).expect("they are numbers")
    });
    outcomes
}

fn part(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    parsed.filter(|(part, parts)| (1..=*parts).contains(part)).ok_or_else(|| "expected a part such as 1/4".to_owned())
}

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/models/models.txt");
const THREADS: usize = 2;
/// One model in this many is also played with a budget of 100 %.
const RICH: usize = 7;
