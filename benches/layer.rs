//! How fast a layer is written and read. `cargo bench --bench layer`.
//!
//! The tree is 20,000 small files of the sizes that source trees have, made of words, so that it compresses about as code does; no
//! file is opened.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{self, Read, Write};

use builder::layer::{Entry, EntryKind, LayerWriter, Mtime, TarReader, TarWriter, decompress};
use builder::vocab::{Compression, Sha256};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const FILES: usize = 20_000;

struct Tree {
    entries: Vec<Entry>,
    text: Vec<u8>,
}

impl Tree {
    fn new(files: usize) -> Tree {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
        };
        let entries = (0..files)
            .map(|at| Entry {
                path: format!("usr/share/project/module-{}/source-{at}.rs", at / 40).into_bytes(),
                kind: EntryKind::File {
                    size: next() % 6000 + 300,
                },
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Mtime {
                    seconds: 1_700_000_000,
                    nanoseconds: 0,
                },
                xattrs: BTreeMap::new(),
            })
            .collect();
        let words: Vec<String> = (0..3000)
            .map(|_| format!("{:x} ", next() % (1 << (8 + next() % 24))))
            .collect();
        let mut text = Vec::new();
        while text.len() < 4 << 20 {
            // Common words come more often.
            let rank = next() % 3000 * (next() % 3000) / 3000;
            text.extend_from_slice(words[rank as usize].as_bytes());
        }
        Tree { entries, text }
    }

    fn contents(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        self.entries.iter().enumerate().map(|(at, entry)| {
            let EntryKind::File { size } = entry.kind else {
                unreachable!("the tree has files alone");
            };
            let start = at * 4099 % (3 << 20);
            (entry, &self.text[start..start + size as usize])
        })
    }

    fn tar(&self) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        for (entry, mut content) in self.contents() {
            writer.entry(entry, &mut content).unwrap();
        }
        writer.finish().unwrap()
    }

    fn pack<W: Write>(&self, sink: W, compression: Compression, threads: usize) -> W {
        let mut writer = LayerWriter::new(sink, compression, threads);
        for (entry, mut content) in self.contents() {
            writer.entry(entry, &mut content).unwrap();
        }
        writer.finish().unwrap().0
    }
}

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
