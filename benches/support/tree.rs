//! A tree in memory: small files of the sizes that source trees have, made of words, so that it compresses about as code does. The same
//! bytes every time.

use std::collections::BTreeMap;
use std::io::Write;

use builder::layer::{Entry, EntryKind, LayerWriter, Mtime, TarWriter};
use builder::vocab::Compression;

pub(crate) struct Tree {
    entries: Vec<Entry>,
    text: Vec<u8>,
}

impl Tree {
    pub(crate) fn new(files: usize) -> Tree {
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

    pub(crate) fn contents(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        self.entries.iter().enumerate().map(|(at, entry)| {
            let EntryKind::File { size } = entry.kind else {
                unreachable!("the tree has files alone");
            };
            let start = at * 4099 % (3 << 20);
            (entry, &self.text[start..start + size as usize])
        })
    }

    pub(crate) fn tar(&self) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        for (entry, mut content) in self.contents() {
            writer.entry(entry, &mut content).unwrap();
        }
        writer.finish().unwrap()
    }

    pub(crate) fn pack<W: Write>(&self, sink: W, compression: Compression, threads: usize) -> W {
        let mut writer = LayerWriter::new(sink, compression, threads);
        for (entry, mut content) in self.contents() {
            writer.entry(entry, &mut content).unwrap();
        }
        writer.finish().unwrap().0
    }
}
