//! From Dockerfile text to keys: parser, planner, names of steps. Nothing is read and nothing looked up. Two lengths show whether cost
//! grows with the number of steps alone. `cargo bench --bench plan`.

#[path = "support/long.rs"]
mod long;
#[path = "support/names.rs"]
mod names;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn dockerfile(criterion: &mut Criterion) {
    for stages in [50, 250] {
        let text = long::dockerfile(stages);
        let parsed = long::parse(&text);
        let graph = long::plan(&parsed);
        let steps = stages * 4;
        let mut group = criterion.benchmark_group(format!("dockerfile-{steps}-steps"));
        group.sample_size(20);
        group.throughput(Throughput::Elements(steps as u64));
        group.bench_function("parse", |bencher| bencher.iter(|| long::parse(&text)));
        group.bench_function("plan", |bencher| bencher.iter(|| long::plan(&parsed)));
        group.bench_function("keys", |bencher| bencher.iter(|| names::of(&graph)));
        group.finish();
    }
}

criterion_group!(benches, dockerfile);
criterion_main!(benches);
