//! The cache in the small: `cargo bench --bench cache`.
//!
//! A hit among few and among many entries, in random order, from the query's bytes to the response's, as a
//! worker does it but for the sockets; and keeping a reply.

#[path = "steps/cached.rs"]
mod cached;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, hits, keeps);
criterion_main!(benches);

/// Entries of the small and of the large cache.
const SIZES: [(&str, u32); 2] = [("10k", 10_000), ("1m", 1_000_000)];

/// Memory of both: what the entries of the large one need, so that its table is as full as tables get.
const MEMORY: usize = 160 << 20;

/// A look-up that finds a fresh answer.
fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hit");
    for (label, entries) in SIZES {
        let mut hit = cached::hits(entries, MEMORY);
        group.bench_function(label, |bencher| bencher.iter(&mut hit));
    }
    group.finish();
}

/// Keeping a reply: one that is new each time, so that another has to go.
fn keeps(criterion: &mut Criterion) {
    let mut keep = cached::keeps();
    criterion.bench_function("keep", |bencher| bencher.iter(&mut keep));
}
