//! Unpacking a layer into a directory, and finding out what a step has changed in its upper directory. On the file system of the
//! temporary directory, page cache warm, layers uncompressed and in memory. Works as an ordinary user, who notes owners in a ledger
//! where root sets them, which costs something else: figures of the two are not to be compared.

#[path = "support/tree.rs"]
#[allow(dead_code, reason = "each bench uses its part of the tree")]
mod tree;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use builder::layer::{Entry, EntryKind, LayerWriter, Mtime, TarWriter};
use builder::rootfs::{DiffStats, Times, apply_layer, write_layer};
use builder::vocab::{Cancel, Compression, Ownership};
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};

const FILES: usize = 10_000;

/// Returns a layer of one file.
fn large(size: u64) -> Vec<u8> {
    let entry = Entry {
        path: b"var/lib/database".to_vec(),
        kind: EntryKind::File { size },
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Mtime {
            seconds: 1_700_000_000,
            nanoseconds: 0,
        },
        xattrs: BTreeMap::new(),
    };
    let content: Vec<u8> = (0..size).map(|at| ((at * at) >> 7) as u8 | 1).collect();
    let mut writer = TarWriter::new(Vec::new());
    writer.entry(&entry, &mut &content[..]).unwrap();
    writer.finish().unwrap()
}

fn ownership() -> Ownership {
    match rustix::process::geteuid().is_root() {
        true => Ownership::OnDisk,
        false => Ownership::InLedger,
    }
}

fn apply(layer: &[u8], directory: &Path) {
    std::fs::create_dir(directory).expect("a name used once");
    apply_layer(&mut &*layer, directory, ownership()).expect("space in the temporary directory");
}

/// Few samples: each leaves its files behind. Nothing is removed meanwhile: ext4 is slow to give inodes that were freed a moment ago to others.
fn settings(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(10);
    group.sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
}

fn unpack(criterion: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let mut group = criterion.benchmark_group("unpack-layer");
    settings(&mut group);
    let mut next = 0;
    for (name, layer) in [
        ("10k small files", tree::Tree::new(FILES).tar()),
        ("one file of 64 MiB", large(64 << 20)),
    ] {
        group.throughput(Throughput::Bytes(layer.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    next += 1;
                    temp.path().join(next.to_string())
                },
                |directory| apply(&layer, &directory),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn diff(criterion: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let layer = tree::Tree::new(FILES).tar();
    let (lower, upper) = (temp.path().join("lower"), temp.path().join("upper"));
    apply(&layer, &lower);
    apply(&layer, &upper);
    let empty = temp.path().join("empty");
    apply(&TarWriter::new(Vec::new()).finish().unwrap(), &empty);
    let mut group = criterion.benchmark_group("diff-10k");
    settings(&mut group);
    group.throughput(Throughput::Elements(FILES as u64));
    // Copied up whole and changed in nothing: every file is compared with the one below.
    for (name, lower, written) in [("all new", &empty, true), ("none changed", &lower, false)] {
        assert_eq!(write(&upper, lower).entries > 0, written, "{name}");
        group.bench_function(name, |bencher| bencher.iter(|| write(&upper, lower)));
    }
    group.finish();
}

/// Makes the layer of `upper`, without compression or a place for it.
fn write(upper: &Path, lower: &PathBuf) -> DiffStats {
    let mut writer = LayerWriter::new(io::sink(), Compression::Uncompressed, 1);
    let lowers = std::slice::from_ref(lower);
    let stats = write_layer(upper, lowers, Times::Kept, &mut writer, &Cancel::new())
        .expect("nothing else writes");
    writer.finish().expect("a sink takes everything");
    stats
}

criterion_group!(benches, unpack, diff);
criterion_main!(benches);
