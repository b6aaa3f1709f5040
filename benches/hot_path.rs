//! The steps of one query in the small: `cargo bench --bench hot_path`.
//!
//! Each is what a worker does once for a query or reply, without sockets; the load run (`--bench load`) says
//! what they come to together, and `--bench instructions` counts what they execute, whatever else the machine
//! does.

mod steps;

use criterion::{Criterion, criterion_group, criterion_main};

use steps::STEPS;

criterion_group!(benches, hot_path);
criterion_main!(benches);

fn hot_path(criterion: &mut Criterion) {
    for step in STEPS {
        criterion.bench_function(step.name, |bencher| bencher.iter((step.set_up)()));
    }
}
