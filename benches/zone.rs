//! Reading and building of zones: `cargo bench --bench zone`.
//!
//! A million A records as most zones write them, and as a table; the time per line is the reported time
//! divided by a million. Reading discards the records; building is on top of that, on the same thread, where
//! a server takes two.

#[path = "steps/master.rs"]
mod master;

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zone::master::ZoneFileSource;
use zone::{DeferredZoneBuilder, Miss, TablesBuilder, read_table};

use master::read_zone;

/// Lines of the zone.
const LINES: u64 = 1_000_000;

criterion_group!(benches, zones);
criterion_main!(benches);

/// Reads master files and tables, and builds what they say.
fn zones(criterion: &mut Criterion) {
    let mut zone = "@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\n".to_owned();
    let mut table = String::new();
    for host in 0..LINES {
        writeln!(zone, "host{host:07}.example.org. 300 IN A 1.2.3.4").expect("a String takes all that is written");
        writeln!(table, "host{host:07}.example.org 1.2.3.4 A").expect("a String takes all that is written");
    }
    let source = ZoneFileSource { name: "zone".to_owned(), octets: zone.into_bytes() };
    let mut group = criterion.benchmark_group("zone");
    group.sample_size(10).throughput(Throughput::Elements(LINES));
    group.bench_function("read_master_file", |bencher| {
        bencher.iter(|| {
            let mut octets = 0;
            (read_zone(black_box(&source), &mut |record, _| octets += record.rdata.len()), octets)
        });
    });
    group.bench_function("read_table", |bencher| {
        bencher.iter(|| {
            let mut octets = 0;
            read_table(black_box(table.as_bytes()), 300, &mut |record, _| octets += record.rdata.len());
            octets
        });
    });
    group.bench_function("build_zone", |bencher| {
        bencher.iter(|| {
            let mut builder = DeferredZoneBuilder::new(None);
            read_zone(black_box(&source), &mut |record, place| builder.add(&record, place));
            builder.finish().map(|(zone, _)| zone.records()).ok()
        });
    });
    group.bench_function("build_table", |bencher| {
        bencher.iter(|| {
            let mut builder = TablesBuilder::new(Miss::Silent);
            let faults = read_table(black_box(table.as_bytes()), 300, &mut |record, place| builder.add(&record, place));
            builder.end_file("table", faults);
            builder.finish().map(|tables| tables.records()).ok()
        });
    });
    group.finish();
}
