//! Reading of zones: `cargo bench --bench zone`.
//!
//! A million A records as most zones write them; the time per line is the reported time divided by a million.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use hedgerow::zone::master::{Source, Task, read};

/// Lines of the zone.
const LINES: u64 = 1_000_000;

criterion_group!(benches, master_files);
criterion_main!(benches);

/// Reading a master file without doing anything with its records.
fn master_files(criterion: &mut Criterion) {
    let mut text = String::new();
    for host in 0..LINES {
        writeln!(text, "host{host:07}.example.org. 300 IN A 1.2.3.4").expect("a String takes all that is written");
    }
    let source = Source { name: "zone".to_owned(), octets: text.into_bytes() };
    let mut group = criterion.benchmark_group("zone");
    group.sample_size(10).throughput(Throughput::Elements(LINES));
    group.bench_function("read_master_file", |bencher| {
        bencher.iter(|| {
            let mut octets = 0;
            let mut include = |path: &str| Err(path.to_owned());
            let task = Task { origin: None, default_ttl: None, include: &mut include };
            let summary = read(black_box(&source), task, &mut |record, _| octets += record.rdata.len());
            (summary.map(|summary| summary.records).ok(), octets)
        });
    });
    group.finish();
}
