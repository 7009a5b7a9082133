//! An archive that is a build context is unpacked by whoever runs the builder, before any namespace is entered.
//!
//! So everything belongs to that user (whose files read as 0:0 in a context), attributes are left out, devices are not made, and
//! no thread is started. A directory that its own mode would close is open until the end.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind::UnexpectedEof, Read};

use rustix::fs::Mode;

use crate::layer::{Entry, EntryKind, Mtime, Stretch, TarReader};

use super::error::{During, RootfsError, rooted};
use super::owners::Owners;
use super::resolve::{self, READ_DIRECTORY};
use super::tree::Tree;
use super::unpack::{Rules, Unpacked, Unpacker};
use super::xattr::Naming;

const PIECE: usize = 256 << 10;

/// Unpacks an uncompressed archive into `root`, as the calling user's. `time` is that of directories that the archive implies.
pub fn extract_context(
    tar: &mut dyn Read,
    root: &Tree,
    time: Mtime,
) -> Result<Unpacked, RootfsError> {
    let mut writer = ContextWriter::new(root, time)?;
    writer.archive(tar, b"")?;
    writer.finish()
}

/// Puts files into a directory of the calling user's. Nothing is reached beside it, whatever names and links say.
pub struct ContextWriter<'t> {
    root: &'t Tree,
    unpacker: Unpacker,
    /// What was made, and so is not made again for what lies below it.
    seen: BTreeSet<Vec<u8>>,
    /// Directories that get their mode in the end.
    closed: Vec<(Vec<u8>, u32)>,
    skipped: u64,
    time: Mtime,
    piece: Vec<u8>,
}

impl<'t> ContextWriter<'t> {
    /// Begins; `time` is that of directories that nobody has described.
    pub fn new(root: &'t Tree, time: Mtime) -> Result<ContextWriter<'t>, RootfsError> {
        let owner = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let rules = Rules {
            layer: None,
            root: false,
            owner: Some(owner),
            naming: Naming::of(root.as_fd()).during("examine", "/")?,
            time: None,
        };
        let fd = root.as_fd().try_clone_to_owned().during("open", "/")?;
        Ok(ContextWriter {
            root,
            unpacker: Unpacker::new(fd, rules, Owners::OnDisk),
            seen: BTreeSet::new(),
            closed: Vec::new(),
            skipped: 0,
            time,
            piece: vec![0; PIECE],
        })
    }

    /// Unpacks an uncompressed archive into the directory `below`, whose path is clean.
    pub fn archive(&mut self, tar: &mut dyn Read, below: &[u8]) -> Result<(), RootfsError> {
        let mut reader = TarReader::new(&mut *tar);
        while let Some(mut entry) = reader.next()? {
            if !below.is_empty() {
                entry.path = joined(below, &entry.path);
                if let EntryKind::HardLink { target } = &mut entry.kind {
                    *target = joined(below, target);
                }
            }
            let is_file = matches!(entry.kind, EntryKind::File { .. });
            if !self.describe(entry)? || !is_file {
                continue;
            }
            while let Some(stretch) = reader.stretch() {
                if let Stretch::Hole(length) = stretch {
                    self.unpacker.hole(length);
                    continue;
                }
                let read = reader.content().read(&mut self.piece);
                let count = read.map_err(|error| RootfsError::Archive(error.into()))?;
                self.unpacker.content(&self.piece[..count])?;
            }
        }
        Ok(())
    }

    /// Puts one entry there, with the bytes of `content` if it is a file, which must be as many as it says.
    pub fn entry(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), RootfsError> {
        let EntryKind::File { size } = entry.kind else {
            self.describe(entry)?;
            return Ok(());
        };
        self.describe(entry)?;
        let mut left = size;
        while left > 0 {
            let most = self.piece.len().min(usize::try_from(left).unwrap_or(PIECE));
            let count = match content.read(&mut self.piece[..most]) {
                Ok(0) => return Err(RootfsError::Archive(io::Error::from(UnexpectedEof).into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(RootfsError::Archive(error.into())),
            };
            self.unpacker.content(&self.piece[..count])?;
            left -= count as u64;
        }
        // Who knows a sum of the content compares it at the end.
        match content.read(&mut self.piece[..1]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(RootfsError::Archive(
                io::Error::other("a file is longer than it is said to be").into(),
            )),
            Err(error) => Err(RootfsError::Archive(error.into())),
        }
    }

    /// Makes an entry, after the directories that its path implies; a file's content comes next. Tells whether it was made.
    fn describe(&mut self, mut entry: Entry) -> Result<bool, RootfsError> {
        for (at, _) in entry
            .path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
        {
            let parent = &entry.path[..at];
            // What the archive has under this name may be a link, and stays.
            if self.seen.insert(parent.to_vec()) {
                self.unpacker.entry(directory(parent, self.time))?;
            }
        }
        self.seen.insert(entry.path.clone());
        entry.xattrs.clear();
        match entry.kind {
            EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => {
                self.skipped += 1;
                return Ok(false);
            }
            EntryKind::Directory if entry.mode & 0o700 != 0o700 => {
                self.closed.push((entry.path.clone(), entry.mode));
                entry.mode |= 0o700;
            }
            _ => {}
        }
        self.unpacker.entry(entry)?;
        Ok(true)
    }

    /// Ends: times and modes of directories are as they were described.
    pub fn finish(mut self) -> Result<Unpacked, RootfsError> {
        let mut unpacked = self.unpacker.finish()?;
        unpacked.skipped_devices += self.skipped;
        // Inner ones first: an outer one may hide them.
        self.closed
            .sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        for (path, mode) in self.closed {
            // A later entry may have taken its place.
            if let Ok(directory) = resolve::open_in_root(self.root.as_fd(), &path, READ_DIRECTORY) {
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))
                    .during("chmod", rooted(&path))?;
            }
        }
        Ok(unpacked)
    }
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match name.is_empty() {
        true => directory.to_vec(),
        false => [directory, name].join(&b'/'),
    }
}

fn directory(path: &[u8], mtime: Mtime) -> Entry {
    Entry {
        path: path.to_vec(),
        kind: EntryKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime,
        xattrs: Default::default(),
    }
}
