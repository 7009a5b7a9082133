//! A check of a whole layer, stricter than reading it: what this program writes must pass, other programs' layers need not.
//!
//! Each path comes once. What has children in the layer is a directory, and comes before them if it comes at all. A hard link
//! names an earlier file. A whiteout is an empty file whose name says what it removes, and the layer does not also have that. The
//! archive has its end mark and nothing but zeros behind it.

use std::collections::HashMap;
use std::io::{self, Read};

use crate::vocab::DiffId;

use super::digesting::DigestingReader;
use super::entry::{Entry, EntryKind};
use super::error::TarError;
use super::reader::TarReader;

const WHITEOUT: &[u8] = b".wh.";
/// Hides all of a directory that lower layers have.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a valid layer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSummary {
    pub diff_id: DiffId,
    /// Bytes of the archive.
    pub size: u64,
    pub entries: u64,
    /// Whiteouts among the entries, opaque ones included.
    pub whiteouts: u64,
    /// Bytes of all files.
    pub content: u64,
    /// Directories that entries are in and that have no entry of their own.
    pub implied_parents: u64,
    /// Whether each directory's entries follow it, in the order of their names' bytes.
    pub is_sorted: bool,
}

/// Reads every byte of an uncompressed layer and checks its entries against each other.
pub fn validate_layer(reader: impl Read) -> Result<LayerSummary, TarError> {
    let mut reader = TarReader::new(DigestingReader::new(reader));
    let mut seen = Seen::default();
    let mut content = 0;
    while let Some(entry) = reader.next()? {
        content += reader.copy_content(&mut io::sink())?;
        seen.add(&entry)?;
    }
    if !reader.has_end() {
        return Err(TarError::NoEnd);
    }
    reader.expect_zeros()?;
    let (digest, size) = reader.finish()?.finish();
    Ok(LayerSummary {
        diff_id: DiffId(digest),
        size,
        entries: seen.entries,
        whiteouts: seen.whiteouts,
        content,
        implied_parents: seen.implied_parents(),
        is_sorted: !seen.out_of_order,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Directory,
    Other,
    /// Has children, and no entry so far.
    Implied,
    /// A whiteout names it.
    Removed,
}

#[derive(Default)]
struct Seen {
    shapes: HashMap<Vec<u8>, Shape>,
    last: Vec<u8>,
    entries: u64,
    whiteouts: u64,
    out_of_order: bool,
}

impl Seen {
    fn add(&mut self, entry: &Entry) -> Result<(), TarError> {
        let path = &entry.path;
        let wrong = |problem| TarError::Layer {
            path: path.clone(),
            problem,
        };
        self.check_parents(path).map_err(wrong)?;
        if let EntryKind::HardLink { target } = &entry.kind
            && self.shapes.get(target) != Some(&Shape::Other)
        {
            return Err(wrong("is a hard link to no earlier file"));
        }
        let shape = match entry.kind {
            EntryKind::Directory => Shape::Directory,
            _ => Shape::Other,
        };
        match self.shapes.insert(path.clone(), shape) {
            None => {}
            Some(Shape::Implied) => return Err(wrong("comes after what is in it")),
            Some(Shape::Removed) => return Err(wrong("is also removed by a whiteout")),
            Some(_) => return Err(wrong("comes twice")),
        }
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        if let Some(removed) = name.strip_prefix(WHITEOUT) {
            self.whiteouts += 1;
            if entry.kind != (EntryKind::File { size: 0 }) {
                return Err(wrong("is a whiteout, but no empty file"));
            }
            if name != OPAQUE {
                if matches!(removed, b"" | b"." | b"..") || removed.starts_with(WHITEOUT) {
                    return Err(wrong("is a whiteout of nothing"));
                }
                let removed = [&path[..path.len() - name.len()], removed].concat();
                if self.shapes.insert(removed, Shape::Removed).is_some() {
                    return Err(wrong("removes what the layer has"));
                }
            }
        }
        if self.entries > 0 && !comes_before(&self.last, path) {
            self.out_of_order = true;
        }
        self.last.clone_from(path);
        self.entries += 1;
        Ok(())
    }

    /// All directories above `path`, the root left out.
    fn check_parents(&mut self, path: &[u8]) -> Result<(), &'static str> {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            match self.shapes.get(&path[..at]) {
                Some(Shape::Directory | Shape::Implied) => {}
                Some(Shape::Other) => return Err("is in something that is no directory"),
                Some(Shape::Removed) => return Err("is in something that a whiteout removes"),
                None => {
                    self.shapes.insert(path[..at].to_vec(), Shape::Implied);
                }
            }
        }
        Ok(())
    }

    fn implied_parents(&self) -> u64 {
        let implied = |shape: &&Shape| **shape == Shape::Implied;
        self.shapes.values().filter(implied).count() as u64
    }
}

/// Compares component by component.
fn comes_before(first: &[u8], second: &[u8]) -> bool {
    let components = |path| <[u8]>::split(path, |byte: &u8| *byte == b'/');
    first.is_empty() || components(first).lt(components(second))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{directory, entry, file, write};
    use super::*;

    fn link(path: &str, target: &str) -> (Entry, Vec<u8>) {
        let target = target.into();
        (entry(path, EntryKind::HardLink { target }), Vec::new())
    }

    fn fifo(path: &str) -> (Entry, Vec<u8>) {
        (entry(path, EntryKind::Fifo), Vec::new())
    }

    #[test]
    fn a_layer_is_summed_up() {
        let archive = write(&[
            directory(""),
            directory("a"),
            file("a/.wh..wh..opq", ""),
            file("a/b", "content"),
            link("a/c", "a/b"),
            file("a-b/c/.wh.gone", ""),
        ]);
        let summary = validate_layer(&archive[..]).unwrap();
        let expected = LayerSummary {
            diff_id: DiffId(crate::vocab::Digest::of(&archive)),
            size: archive.len() as u64,
            entries: 6,
            whiteouts: 2,
            content: 7,
            implied_parents: 2,
            is_sorted: true,
        };
        assert_eq!(summary, expected);
        let archive = write(&[file("b", ""), file("a", "")]);
        assert!(!validate_layer(&archive[..]).unwrap().is_sorted);
    }

    #[test]
    fn entries_that_contradict_each_other_are_refused() {
        let check = |tree: &[(Entry, Vec<u8>)], wanted: &str| {
            let result = validate_layer(&write(tree)[..]);
            match result {
                Err(TarError::Layer { problem, .. }) => assert_eq!(problem, wanted),
                other => panic!("{other:?}"),
            }
        };
        check(&[file("a", ""), file("a", "")], "comes twice");
        check(&[directory("a"), directory("a")], "comes twice");
        check(
            &[file("a/b", ""), directory("a")],
            "comes after what is in it",
        );
        check(
            &[file("a", ""), file("a/b", "")],
            "is in something that is no directory",
        );
        check(
            &[link("a", "b"), file("b", "")],
            "is a hard link to no earlier file",
        );
        check(
            &[directory("b"), link("a", "b")],
            "is a hard link to no earlier file",
        );
        check(&[file(".wh.a", "x")], "is a whiteout, but no empty file");
        check(&[fifo(".wh.a")], "is a whiteout, but no empty file");
        check(&[file(".wh.", "")], "is a whiteout of nothing");
        check(&[file(".wh...", "")], "is a whiteout of nothing");
        check(
            &[file("a", ""), file(".wh.a", "")],
            "removes what the layer has",
        );
        check(
            &[file(".wh.a", ""), file("a", "")],
            "is also removed by a whiteout",
        );
        check(
            &[file("d/.wh.a", ""), file("d/a/b", "")],
            "is in something that a whiteout removes",
        );
    }

    #[test]
    fn the_end_is_marked_and_is_the_end() {
        let archive = write(&[file("a", "")]);
        let check = |archive: &[u8]| validate_layer(archive);
        assert!(matches!(
            check(&archive[..archive.len() - 512]),
            Err(TarError::NoEnd)
        ));
        assert!(check(&[&archive[..], &[0; 9216]].concat()).is_ok());
        assert!(matches!(
            check(&[&archive[..], &[0; 600], b"x"].concat()),
            Err(TarError::AfterEnd { .. })
        ));
    }
}
