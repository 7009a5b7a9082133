//! The room as a whole: what is written is read back, what others write is read, and hostile bytes are refused.

mod foreign;
mod hostile;
mod packing;
mod round_trip;

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::*;

/// Entries with the content of their files.
type Tree = Vec<(Entry, Vec<u8>)>;

pub(super) fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.into(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Mtime {
            seconds: 1_700_000_000,
            nanoseconds: 0,
        },
        xattrs: BTreeMap::new(),
    }
}

pub(super) fn file(path: &str, content: impl Into<Vec<u8>>) -> (Entry, Vec<u8>) {
    let content = content.into();
    let size = content.len() as u64;
    (entry(path, EntryKind::File { size }), content)
}

pub(super) fn directory(path: &str) -> (Entry, Vec<u8>) {
    (entry(path, EntryKind::Directory), Vec::new())
}

pub(super) fn write(tree: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (entry, content) in tree {
        writer.entry(entry, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap()
}

fn read(archive: impl Read) -> Result<Tree, TarError> {
    let mut reader = TarReader::new(archive);
    let mut tree = Tree::new();
    while let Some(entry) = reader.next()? {
        let mut content = Vec::new();
        reader.content().read_to_end(&mut content)?;
        tree.push((entry, content));
    }
    Ok(tree)
}

/// Gives a few bytes at a time, as pipes and sockets do.
struct Trickle<R>(R, usize);

impl<R: Read> Read for Trickle<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 * 31 % 1021 + 1;
        let limit = into.len().min(self.1);
        self.0.read(&mut into[..limit])
    }
}

/// Bytes that look random and are always the same.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Text that compresses about as source code does.
fn prose(seed: u64, length: usize) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "layer",
        "digest",
        "fn ",
        "return",
        "struct",
        "\n    ",
        "(&mut self)",
        "offset",
        " = ",
        "member",
        "{\n",
        "}\n",
    ];
    let mut text = Vec::with_capacity(length + 16);
    for byte in noise(seed, length) {
        if text.len() >= length {
            break;
        }
        text.extend(WORDS[usize::from(byte) % 12].as_bytes());
        if byte > 200 {
            text.push(byte);
        }
    }
    text.truncate(length);
    text
}
