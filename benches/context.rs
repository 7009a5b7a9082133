//! Scanning, digesting and copying a build context: 50,000 files of 4 KiB in 2,000 directories, page cache warm.

use std::path::{Path, PathBuf};

use builder::context::{Query, Source, list, select};
use builder::rootfs::Tree;
use builder::vocab::{Cancel, Timestamp};
use builder::worker::{CopyOptions, Item, copy};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// Makes `count` files of 4 KiB, 25 in a directory, three levels deep.
fn plant(root: &Path, count: usize) {
    let mut content = vec![0; 4096];
    for file in 0..count {
        let directory = root.join(format!(
            "src/package{}/module{}",
            file / 500,
            file / 25 % 20
        ));
        if file % 25 == 0 {
            std::fs::create_dir_all(&directory).expect("space in the temporary directory");
        }
        content[..8].copy_from_slice(&file.to_le_bytes());
        std::fs::write(directory.join(format!("file{file}.txt")), &content)
            .expect("space for files");
    }
}

fn source(root: &Path, cache: Option<&Path>, threads: usize) -> Source {
    let source = Source::directory(root, None)
        .expect("it was just made")
        .with_threads(threads);
    match cache {
        Some(cache) => source.with_stat_cache(cache.to_owned()),
        None => source,
    }
}

const EVERYTHING: Query<'_> = Query {
    pattern: ".",
    parents: false,
    exclude: &[],
};

fn digest(source: &Source) {
    let selection = select(source, &EVERYTHING).expect("a root is always there");
    selection.digest(source).expect("nothing changes meanwhile");
}

fn scan(criterion: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let root = temp.path().join("context");
    plant(&root, 50_000);
    // Times must be safely past for the cache to believe them.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let cache: PathBuf = temp.path().join("stat");
    let mut group = criterion.benchmark_group("context-50k");
    group.sample_size(10);
    group.bench_function("list", |bencher| {
        bencher.iter(|| list(&source(&root, None, 1)).count());
    });
    for threads in [1, 2] {
        group.bench_function(format!("digest-cold-{threads}"), |bencher| {
            bencher.iter(|| digest(&source(&root, None, threads)));
        });
    }
    group.bench_function("digest-fill-cache", |bencher| {
        bencher.iter(|| {
            drop(std::fs::remove_file(&cache));
            digest(&source(&root, Some(&cache), 1));
        });
    });
    group.bench_function("digest-warm", |bencher| {
        bencher.iter(|| digest(&source(&root, Some(&cache), 1)));
    });
    group.finish();
}

fn place(criterion: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let root = temp.path().join("context");
    plant(&root, 10_000);
    let source = source(&root, None, 1);
    let selection = select(&source, &EVERYTHING).expect("a root is always there");
    let options = CopyOptions {
        destination: "/app/",
        owner: None,
        chmod: None,
        link: false,
        parents: false,
        epoch: None,
        now: Timestamp::default(),
    };
    let mut group = criterion.benchmark_group("copy-10k");
    group.sample_size(10);
    group.bench_function("one-thread", |bencher| {
        bencher.iter_batched(
            || tempfile::tempdir_in(temp.path()).expect("a temporary directory"),
            |target| {
                let directory = Tree::open(target.path()).expect("it was just made");
                let item = Item::Selected {
                    source: &source,
                    selection: &selection,
                };
                copy(&directory, &[item], &options, &Cancel::new()).expect("space for copies");
                target
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, scan, place);
criterion_main!(benches);
