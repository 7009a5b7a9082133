//! What layers amount to, without unpacking them: the files of an image by name.
//!
//! In: the layers as archives, lowest first. Out: every file with its metadata, and where its content stands. Nothing is written,
//! no namespace is needed, and contents are kept nowhere: what this takes is memory for each name. The meaning of deletions, opaque
//! directories and links is that of unpacking: a layer is a tree by itself, whose parents may be links of the same layer, and then
//! covers what is below.

mod compare;
mod directory;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use thiserror::Error;

pub use compare::{Aspect, Change, Difference, aspects, compare};

use crate::layer::{EntryKind, Mtime, TarError, TarReader};

const DELETION: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Marks of AUFS that nothing reads any more.
const AUFS: &[u8] = b".wh..wh.";
/// Names that are kept in memory at most.
const MOST: usize = 8 << 20;
/// Links that one path may lead through, as in the kernel.
const LINKS: usize = 40;
const PIECE: usize = 256 << 10;

/// The files of an image.
pub struct Listing {
    files: BTreeMap<Vec<u8>, Listed>,
    layers: usize,
    digests: Digests,
    hidden: Vec<Hidden>,
}

/// A file of a lower layer that is not in the image any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    pub path: Vec<u8>,
    pub size: u64,
    pub origin: Origin,
    /// The layer that hides it.
    pub by: usize,
    /// Whether it is gone; otherwise another file is in its place.
    pub is_deleted: bool,
}

/// Whether the contents of files are to be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digests {
    Left,
    Taken,
}

/// One file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub kind: ListedKind,
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedKind {
    File {
        size: u64,
        /// Of the content, where digests are taken.
        digest: Option<[u8; 32]>,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// Where a file was described: two names of one file have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// From the lowest, which is 0.
    pub layer: usize,
    /// The number of the entry in its archive.
    pub entry: u64,
}

/// Why layers cannot be listed.
#[derive(Debug, Error)]
pub enum ListingError {
    #[error("cannot read the layer")]
    Tar(#[from] TarError),
    #[error("cannot read the content of `{path}`")]
    Content { path: String, source: io::Error },
    #[error("`{path}` is another name of `{target}`, which is not there")]
    Link { path: String, target: String },
    #[error("cannot read the layer's files")]
    Directory { source: io::Error },
    #[error("`{path}` deletes no name")]
    Deletion { path: String },
    #[error("`{path}` is below something that is no directory")]
    NoDirectory { path: String },
    #[error("too many links on the way to `{path}`")]
    Links { path: String },
    #[error("more than {MOST} files")]
    TooMany,
}

/// Why a path leads to no file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unresolved {
    #[error("`{0}` does not exist")]
    Missing(String),
    #[error("`{0}` is no directory")]
    NoDirectory(String),
    #[error("too many links on the way to `{0}`")]
    Links(String),
}

/// One layer as a tree by itself.
#[derive(Default)]
struct Layer {
    /// `None` are directories that are filled and not described.
    files: BTreeMap<Vec<u8>, Option<Listed>>,
    deleted: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
}

impl Listing {
    /// Returns the listing of no layer: a root.
    pub fn new(digests: Digests) -> Listing {
        Listing {
            files: BTreeMap::from([(Vec::new(), directory(0))]),
            layers: 0,
            digests,
            hidden: Vec::new(),
        }
    }

    /// Adds the next layer above. Reads `tar` to its last entry.
    pub fn add<R: Read>(&mut self, tar: &mut TarReader<R>) -> Result<(), ListingError> {
        let mut layer = Layer::default();
        let mut number = 0;
        while let Some(entry) = tar.next()? {
            let origin = Origin {
                layer: self.layers,
                entry: number,
            };
            number += 1;
            let kind = match entry.kind {
                EntryKind::File { size } => {
                    let digest = match self.digests {
                        Digests::Left => None,
                        Digests::Taken => Some(digest(&mut tar.content()).map_err(|source| {
                            let path = shown(&entry.path);
                            ListingError::Content { path, source }
                        })?),
                    };
                    ListedKind::File { size, digest }
                }
                EntryKind::Directory => ListedKind::Directory,
                EntryKind::Symlink { target } => ListedKind::Symlink { target },
                EntryKind::CharDevice { major, minor } => ListedKind::CharDevice { major, minor },
                EntryKind::BlockDevice { major, minor } => ListedKind::BlockDevice { major, minor },
                EntryKind::Fifo => ListedKind::Fifo,
                EntryKind::HardLink { target } => {
                    self.link(&mut layer, &entry.path, &target)?;
                    continue;
                }
            };
            let listed = Listed {
                kind,
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                mtime: entry.mtime,
                xattrs: entry.xattrs,
                origin,
            };
            layer.put(&entry.path, listed)?;
            if self.files.len() + layer.files.len() > MOST {
                return Err(ListingError::TooMany);
            }
        }
        self.cover(layer);
        Ok(())
    }

    /// Gives a file of this layer, or of one below, another name.
    fn link(&self, layer: &mut Layer, path: &[u8], target: &[u8]) -> Result<(), ListingError> {
        let at = layer.place(target)?;
        let found = match layer.files.get(&at) {
            Some(found) => found.as_ref(),
            None => self.files.get(&at),
        };
        let found = found.cloned().ok_or_else(|| ListingError::Link {
            path: shown(path),
            target: shown(target),
        })?;
        layer.put(path, found)
    }

    fn cover(&mut self, layer: Layer) {
        for path in &layer.deleted {
            self.remove(path, true);
            self.remove_below(path);
        }
        for path in &layer.opaque {
            self.remove_below(path);
        }
        for (path, listed) in layer.files {
            let was_directory = self.files.get(&path).is_some_and(Listed::is_directory);
            match listed {
                None if was_directory => {}
                None => {
                    self.remove(&path, false);
                    self.files.insert(path, directory(self.layers));
                }
                Some(listed) => {
                    if was_directory && !listed.is_directory() {
                        self.remove_below(&path);
                    }
                    let is_the_same =
                        |known: &Listed| known.kind == listed.kind && known.origin == listed.origin;
                    if !self.files.get(&path).is_some_and(is_the_same) {
                        self.remove(&path, false);
                    }
                    self.files.insert(path, listed);
                }
            }
        }
        self.layers += 1;
    }

    /// Takes a file away, and notes what ships for nothing then.
    fn remove(&mut self, path: &[u8], is_deleted: bool) {
        if let Some(listed) = self.files.remove(path)
            && let ListedKind::File { size, .. } = listed.kind
            && size > 0
        {
            self.hidden.push(Hidden {
                path: path.to_vec(),
                size,
                origin: listed.origin,
                by: self.layers,
                is_deleted,
            });
        }
    }

    fn remove_below(&mut self, path: &[u8]) {
        let gone: Vec<Vec<u8>> = self.below(path).map(|(path, _)| path.to_vec()).collect();
        for path in gone {
            self.remove(&path, true);
        }
    }

    /// Returns the files that are in layers and, by none of their names, in the image; each once.
    pub fn hidden(&self) -> Vec<&Hidden> {
        if self.hidden.is_empty() {
            return Vec::new();
        }
        let mut seen: BTreeSet<Origin> = self.files.values().map(|listed| listed.origin).collect();
        let once = self
            .hidden
            .iter()
            .filter(|hidden| seen.insert(hidden.origin));
        once.collect()
    }

    /// Returns a file by its path, without a slash in front; the root's is empty.
    pub fn get(&self, path: &[u8]) -> Option<&Listed> {
        self.files.get(path)
    }

    /// Returns everything below a path, in the order of names.
    pub fn below(&self, path: &[u8]) -> impl Iterator<Item = (&[u8], &Listed)> {
        let (first, last) = match path {
            b"" => (vec![1], None),
            path => {
                let with = |byte: u8| [path, &[byte]].concat();
                (with(b'/'), Some(with(b'/' + 1)))
            }
        };
        self.files
            .range(first..)
            .take_while(move |(path, _)| last.as_ref().is_none_or(|last| *path < last))
            .map(|(path, listed)| (path.as_slice(), listed))
    }

    /// Returns what is in a directory, in the order of names.
    pub fn children(&self, path: &[u8]) -> impl Iterator<Item = (&[u8], &Listed)> {
        let skipped = match path {
            b"" => 0,
            path => path.len() + 1,
        };
        self.below(path)
            .filter(move |(path, _)| !path[skipped..].contains(&b'/'))
    }

    /// Finds what a path leads to beneath the root, through links, the last one too. Returns the path without links.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, Unresolved> {
        let mut links = 0;
        let mut at: Vec<u8> = Vec::new();
        let mut rest: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
        while let Some(part) = rest.pop() {
            if !self.files.get(&at).is_some_and(Listed::is_directory) {
                return Err(Unresolved::NoDirectory(shown(&at)));
            }
            if part == b".." {
                at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            let next = joined(&at, &part);
            match self.files.get(&next).map(|listed| &listed.kind) {
                None => return Err(Unresolved::Missing(shown(&next))),
                Some(ListedKind::Symlink { target }) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Unresolved::Links(shown(path)));
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    rest.extend(parts(target).rev().map(<[u8]>::to_vec));
                }
                Some(_) => at = next,
            }
        }
        Ok(at)
    }
}

impl Listed {
    /// Tells whether there can be something below it.
    pub fn is_directory(&self) -> bool {
        self.kind == ListedKind::Directory
    }
}

impl Layer {
    /// Puts an entry in its place, whatever was there in this layer.
    fn put(&mut self, path: &[u8], listed: Listed) -> Result<(), ListingError> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        if name.starts_with(DELETION) {
            let parent = self.directory(parent)?;
            if name == OPAQUE {
                self.opaque.insert(parent);
            } else if !name.starts_with(AUFS) {
                let deleted = &name[DELETION.len()..];
                if matches!(deleted, b"" | b"." | b"..") {
                    return Err(ListingError::Deletion { path: shown(path) });
                }
                self.deleted.insert(joined(&parent, deleted));
            }
            return Ok(());
        }
        let at = match path {
            b"" => Vec::new(),
            _ => joined(&self.directory(parent)?, name),
        };
        if !listed.is_directory() {
            let below: Vec<Vec<u8>> = {
                let first = joined(&at, b"");
                let files = self.files.range(first.clone()..);
                let below = files.take_while(|(path, _)| path.starts_with(&first));
                below.map(|(path, _)| path.clone()).collect()
            };
            for path in below {
                self.files.remove(&path);
            }
        }
        self.files.insert(at, Some(listed));
        Ok(())
    }

    /// Returns where a path of an entry is: links of this layer are followed on the way, and not at its end.
    fn place(&mut self, path: &[u8]) -> Result<Vec<u8>, ListingError> {
        match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => Ok(joined(&self.directory(&path[..at])?, &path[at + 1..])),
            None => Ok(path.to_vec()),
        }
    }

    /// Returns the directory that a path leads to; what it lacks is made.
    fn directory(&mut self, path: &[u8]) -> Result<Vec<u8>, ListingError> {
        let mut links = 0;
        let mut at: Vec<u8> = Vec::new();
        let mut rest: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
        while let Some(part) = rest.pop() {
            if part == b".." {
                at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            let next = joined(&at, &part);
            match self.files.get(&next) {
                None => {
                    self.files.insert(next.clone(), None);
                    at = next;
                }
                Some(Some(Listed {
                    kind: ListedKind::Symlink { target },
                    ..
                })) => {
                    links += 1;
                    if links > LINKS {
                        return Err(ListingError::Links { path: shown(path) });
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    rest.extend(parts(target).rev().map(<[u8]>::to_vec));
                }
                Some(Some(listed)) if !listed.is_directory() => {
                    return Err(ListingError::NoDirectory { path: shown(path) });
                }
                Some(_) => at = next,
            }
        }
        Ok(at)
    }
}

/// What a directory is that no entry describes.
fn directory(layer: usize) -> Listed {
    Listed {
        kind: ListedKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        xattrs: BTreeMap::new(),
        origin: Origin {
            layer,
            entry: u64::MAX,
        },
    }
}

fn digest(content: &mut dyn Read) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(*hasher.finalize().as_bytes()),
            Ok(count) => drop(hasher.update(&buffer[..count])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        b"" => name.to_vec(),
        parent => [parent, b"/", name].concat(),
    }
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}
