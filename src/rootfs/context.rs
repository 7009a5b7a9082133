//! An archive that is a build context is unpacked by whoever runs the builder, before any namespace is entered.
//!
//! So everything belongs to that user (whose files read as 0:0 in a context), attributes are left out, devices are not made, and
//! no thread is started. A directory that its own mode would close is open until the end.

use std::collections::BTreeSet;
use std::io::Read;

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
    let mut unpacker = Unpacker::new(fd, rules, Owners::OnDisk);
    let mut seen: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut closed = Vec::new();
    let mut skipped = 0;
    let mut piece = vec![0; PIECE];
    let mut reader = TarReader::new(&mut *tar);
    while let Some(mut entry) = reader.next()? {
        for (at, _) in entry
            .path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
        {
            let parent = &entry.path[..at];
            // What the archive has under this name may be a link, and stays.
            if seen.insert(parent.to_vec()) {
                unpacker.entry(directory(parent, time))?;
            }
        }
        seen.insert(entry.path.clone());
        entry.xattrs.clear();
        match entry.kind {
            EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => {
                skipped += 1;
                continue;
            }
            EntryKind::Directory if entry.mode & 0o700 != 0o700 => {
                closed.push((entry.path.clone(), entry.mode));
                entry.mode |= 0o700;
            }
            _ => {}
        }
        let is_file = matches!(entry.kind, EntryKind::File { .. });
        unpacker.entry(entry)?;
        if !is_file {
            continue;
        }
        while let Some(stretch) = reader.stretch() {
            if let Stretch::Hole(length) = stretch {
                unpacker.hole(length);
                continue;
            }
            let read = reader.content().read(&mut piece);
            let count = read.map_err(|error| RootfsError::Archive(error.into()))?;
            unpacker.content(&piece[..count])?;
        }
    }
    let mut unpacked = unpacker.finish()?;
    unpacked.skipped_devices += skipped;
    // Inner ones first: an outer one may hide them.
    closed.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    for (path, mode) in closed {
        // A later entry may have taken its place.
        if let Ok(directory) = resolve::open_in_root(root.as_fd(), &path, READ_DIRECTORY) {
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))
                .during("chmod", rooted(&path))?;
        }
    }
    Ok(unpacked)
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
