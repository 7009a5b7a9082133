//! Fixed work in memory, for `benches/instructions/run` to count the instructions of: no files, one thread, the same bytes every time.
//!
//! | name | work |
//! |---|---|
//! | `tar` | writes the tar of a layer of 20,000 files, into nothing |
//! | `pack` | the same of 2,000 files, with digests, not compressed |
//! | `plan` | parses and plans a Dockerfile of 200 steps, and builds their keys |
//!
//! Without a name all are done, which shows that they work.

#[path = "../support/long.rs"]
mod long;
#[path = "../support/names.rs"]
mod names;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;

use builder::layer::{Entry, EntryKind, LayerWriter, Mtime, TarWriter};
use builder::vocab::Compression;

const WORK: [(&str, fn()); 3] = [("tar", tar), ("pack", pack), ("plan", plan)];

fn main() {
    // `cargo bench` adds a flag of its own.
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let mut found = false;
    for (name, work) in WORK {
        if wanted.as_deref().is_none_or(|wanted| wanted == name) {
            work();
            found = true;
        }
    }
    assert!(found, "usage: instructions [tar|pack|plan]");
}

fn tar() {
    let mut writer = TarWriter::new(io::sink());
    each_file(20_000, |entry, mut content| {
        writer.entry(entry, &mut content)
    });
    writer.finish().expect("a sink takes everything");
}

fn pack() {
    let mut writer = LayerWriter::new(io::sink(), Compression::Uncompressed, 1);
    each_file(2000, |entry, mut content| writer.entry(entry, &mut content));
    let (_, packed) = writer.finish().expect("a sink takes everything");
    black_box(packed);
}

/// Calls `write` with files of up to 3,000 bytes.
fn each_file(count: usize, mut write: impl FnMut(&Entry, &[u8]) -> io::Result<()>) {
    let text = [b'x'; 3000];
    for at in 0..count {
        let size = at * 7919 % text.len();
        let entry = Entry {
            path: format!("usr/share/project/module-{}/source-{at}.rs", at / 40).into_bytes(),
            kind: EntryKind::File { size: size as u64 },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Mtime {
                seconds: 1_700_000_000,
                nanoseconds: 0,
            },
            xattrs: BTreeMap::new(),
        };
        write(&entry, &text[..size]).expect("a sink takes everything");
    }
}

/// 50 stages, 200 steps.
fn plan() {
    let text = long::dockerfile(50);
    let graph = long::plan(&long::parse(&text));
    black_box(names::of(&graph));
}
