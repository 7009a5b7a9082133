//! How fast a layer is written and read. `cargo bench --bench layer`.
//!
//! The tree is 20,000 small files of the sizes that source trees have, made of words, so that it compresses about as code does; no
//! file is opened.

#[path = "support/tree.rs"]
mod tree;

use std::hint::black_box;
use std::io::{self, Read};

use builder::layer::{TarReader, TarWriter, decompress};
use builder::vocab::{Compression, Sha256};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use tree::Tree;

const FILES: usize = 20_000;

fn tar(criterion: &mut Criterion) {
    let tree = Tree::new(FILES);
    let archive = tree.tar();
    let mut group = criterion.benchmark_group("tar");
    group.throughput(Throughput::Bytes(archive.len() as u64));
    group.bench_function("write 20k entries", |bencher| {
        bencher.iter(|| {
            let mut writer = TarWriter::new(io::sink());
            for (entry, mut content) in tree.contents() {
                writer.entry(entry, &mut content).unwrap();
            }
            writer.finish().unwrap()
        });
    });
    group.bench_function("read 20k entries", |bencher| {
        bencher.iter(|| {
            let mut reader = TarReader::new(&archive[..]);
            while let Some(entry) = reader.next().unwrap() {
                black_box(entry);
            }
        });
    });
    group.bench_function("read 20k entries and content", |bencher| {
        bencher.iter(|| {
            let mut reader = TarReader::new(&archive[..]);
            while let Some(entry) = reader.next().unwrap() {
                black_box(entry);
                reader.copy_content(&mut io::sink()).unwrap();
            }
        });
    });
    group.bench_function("sha256 of it", |bencher| {
        bencher.iter(|| {
            let mut digest = Sha256::new();
            digest.update(&archive);
            digest.finish()
        });
    });
    group.finish();
}

fn pack(criterion: &mut Criterion) {
    let tree = Tree::new(FILES);
    let length = tree.tar().len() as u64;
    let mut group = criterion.benchmark_group("pack");
    group.throughput(Throughput::Bytes(length));
    group.sample_size(10);
    for (name, compression) in [
        ("uncompressed", Compression::Uncompressed),
        ("gzip 6", Compression::Gzip { level: 6 }),
        ("gzip 1", Compression::Gzip { level: 1 }),
        ("zstd 3", Compression::Zstd { level: 3 }),
    ] {
        for threads in [1, 2] {
            group.bench_function(format!("{name}, threads {threads}"), |bencher| {
                bencher.iter(|| tree.pack(io::sink(), compression, threads));
            });
        }
    }
    group.finish();
}

fn unpack(criterion: &mut Criterion) {
    let tree = Tree::new(FILES);
    let mut group = criterion.benchmark_group("unpack");
    group.throughput(Throughput::Bytes(tree.tar().len() as u64));
    group.sample_size(10);
    for (name, compression) in [
        ("gzip 6", Compression::Gzip { level: 6 }),
        ("zstd 3", Compression::Zstd { level: 3 }),
    ] {
        let blob = tree.pack(Vec::new(), compression, 2);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut reader = decompress(io::Cursor::new(blob.clone())).unwrap();
                let mut buffer = vec![0; 256 << 10];
                while reader.read(&mut buffer).unwrap() > 0 {}
            });
        });
    }
    group.finish();
}

criterion_group!(benches, tar, pack, unpack);
criterion_main!(benches);
