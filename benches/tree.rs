//! Roots without overlayfs: composing one, and finding out what a step has changed in it. Page cache warm. Wants to be root.

use std::path::{Path, PathBuf};

use builder::rootfs::Trees;
use builder::vocab::{Cancel, Ownership};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};

/// Makes `count` files of 4 KiB, 25 in a directory, as a layer.
fn plant(layer: &Path, count: usize) {
    let mut content = vec![0; 4096];
    for file in 0..count {
        let directory = layer.join(format!("usr/package{}/part{}", file / 500, file / 25 % 20));
        if file % 25 == 0 {
            std::fs::create_dir_all(&directory).expect("space in the temporary directory");
        }
        content[..8].copy_from_slice(&file.to_le_bytes());
        std::fs::write(directory.join(format!("file{file}.txt")), &content)
            .expect("space for files");
    }
}

/// One stage, step after step.
struct Stage {
    trees: Trees,
    chain: Vec<PathBuf>,
    layers: PathBuf,
}

impl Stage {
    fn new(at: &Path, base: &Path) -> Stage {
        let layers = at.join("layers");
        std::fs::create_dir_all(&layers).expect("a temporary directory");
        Stage {
            trees: Trees::new(at.join("trees"), Ownership::OnDisk),
            chain: vec![base.to_owned()],
            layers,
        }
    }

    /// Performs a step that writes `changed` files.
    fn step(&mut self, changed: usize) {
        let cancel = Cancel::new();
        let mut writer = self.trees.write(&self.chain, &cancel).expect("a tree");
        let tree = writer.tree().expect("a tree");
        for file in 0..changed {
            let path = format!("usr/package{}/part{}", file / 20, file % 20);
            let path = tree.open_path(path.as_bytes(), false).expect("planted");
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&path));
            std::fs::write(Path::new(&path).join("new"), "content").expect("space for a file");
        }
        let layer = self.layers.join(self.chain.len().to_string());
        std::fs::create_dir(&layer).expect("a name used once");
        writer.fill(&layer, &cancel).expect("nothing else writes");
        writer.seal(layer.clone());
        self.chain.push(layer);
    }
}

fn trees(criterion: &mut Criterion) {
    for count in [10_000, 100_000] {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let base = temp.path().join("base");
        plant(&base, count);
        let mut group = criterion.benchmark_group(format!("tree-{}k", count / 1000));
        group.sample_size(10);
        group.sampling_mode(SamplingMode::Flat);
        if count == 10_000 {
            // No tree is removed meanwhile: ext4 is slow to give inodes that were freed a moment ago to others.
            let mut next = 0;
            group.bench_function("compose", |bencher| {
                bencher.iter(|| {
                    next += 1;
                    let at = temp.path().join(format!("composed-{next}"));
                    let trees = Trees::new(at, Ownership::OnDisk);
                    let tree = trees.read(std::slice::from_ref(&base), &Cancel::new());
                    drop(tree.expect("space in the temporary directory"));
                });
            });
        }
        let mut stage = Stage::new(temp.path(), &base);
        stage.step(0);
        for changed in [0, 100] {
            group.bench_function(format!("step-{changed}-changed"), |bencher| {
                bencher.iter(|| stage.step(changed));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, trees);
criterion_main!(benches);
