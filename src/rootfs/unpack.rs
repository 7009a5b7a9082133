//! Archive entries become files beneath a root.
//!
//! In: entries in the archive's order, each file's content after it. Out: files with owner, mode, attributes and times. The
//! archive is hostile: a parent path is resolved beneath the root by the kernel, the last component is never followed and
//! always made anew, and what has no meaning in a file tree (a deletion of `..`, a device 0:0) is refused.
//!
//! A directory's time is set at the very end, since each new entry changes it.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::layer::{Entry, EntryKind, Mtime};
use crate::vocab::DeviceNumber;

use super::error::{During, RootfsError, Shown, rooted};
use super::marks;
use super::metadata;
use super::owners::Owners;
use super::remove::remove_at;
use super::resolve::{self, End, Obstacle, PATH_DIRECTORY, READ_DIRECTORY, Walker, split_last};
use super::sidecar::Sidecar;
use super::stat::Stat;
use super::tree::{from_refused, make_directory, not_a_directory, stat_at, stat_of, times};
use super::xattr::Naming;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";
/// Marks of AUFS that nothing reads any more.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// Parents kept open.
const PARENTS: usize = 16;
/// Zeros of at least this length become a hole.
const HOLE: usize = 32 << 10;

/// What the archive's names and owners mean.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// The layer directory that is filled: `.wh.` names are deletions, and the root's own entry is meant.
    pub(super) layer: Option<PathBuf>,
    /// The root's own entry is meant, though no layer is.
    pub(super) root: bool,
    /// Whose everything is, instead of the archive's owners.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) naming: Naming,
    /// The time of directories that the archive fills and does not describe; `None` is the present.
    pub(super) time: Option<Mtime>,
}

/// What was made, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub entries: u64,
    /// Of file content.
    pub bytes: u64,
    /// An entry took the place of an earlier one, whose content is in `bytes` too.
    pub has_replaced: bool,
    /// Directories that the archive implies and does not describe; they are 0755 0:0.
    pub implied_directories: u64,
    /// Device nodes that this user namespace may not make.
    pub skipped_devices: u64,
    /// Attributes that the file system or namespace does not take.
    pub skipped_xattrs: u64,
}

pub(super) struct Unpacker {
    root: OwnedFd,
    rules: Rules,
    owners: Owners,
    parents: Vec<(Vec<u8>, Arc<OwnedFd>)>,
    next_parent: usize,
    file: Option<OpenFile>,
    directories: Vec<(Vec<u8>, Mtime)>,
    /// Directories that something was put into, where the rules give them a time.
    filled: BTreeSet<Vec<u8>>,
    unpacked: Unpacked,
    /// Deletions and hiding directories that the disk does not take.
    refused: Refused,
}

#[derive(Default)]
struct Refused {
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
}

/// A file whose content is still coming.
struct OpenFile {
    file: File,
    path: Vec<u8>,
    entry: Entry,
    size: u64,
    written: u64,
    /// The end of the file may not have been written.
    holes: bool,
}

impl Unpacker {
    /// Unpacks into `root`, whose files' truth is in `owners`.
    pub(super) fn new(root: OwnedFd, rules: Rules, owners: Owners) -> Unpacker {
        Unpacker {
            root,
            rules,
            owners,
            parents: Vec::new(),
            next_parent: 0,
            file: None,
            directories: Vec::new(),
            filled: BTreeSet::new(),
            unpacked: Unpacked::default(),
            refused: Refused::default(),
        }
    }

    /// Makes one entry. A file's content is given to [`Unpacker::content`] next.
    pub(super) fn entry(&mut self, mut entry: Entry) -> Result<(), RootfsError> {
        self.finish_file()?;
        check_path(&entry.path)?;
        if let Some((uid, gid)) = self.rules.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        self.unpacked.entries += 1;
        let path = entry.path.clone();
        if entry.path.is_empty() {
            return self.root_entry(&path, &entry);
        }
        let (parent, name) = split_last(&path);
        if self.rules.layer.is_some() && name.starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(&path, parent, name, &entry);
        }
        let parent = self.parent(parent)?;
        let parent = parent.as_fd();
        match &entry.kind {
            EntryKind::File { size } => {
                let size = *size;
                self.file(parent, &path, name, size, entry)
            }
            EntryKind::Directory => self.directory(parent, &path, name, &entry),
            EntryKind::Symlink { target } => {
                self.make(parent, &path, name, |parent, name| {
                    rustix::fs::symlinkat(target, parent, name)
                })?;
                self.node(parent, &path, name, &entry)
            }
            EntryKind::HardLink { target } => self.hard_link(parent, &path, name, target, &entry),
            EntryKind::CharDevice { major: 0, minor: 0 } => Err(refuse(
                &path,
                "is the device 0:0, which overlayfs takes for a deletion",
            )),
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                let device = DeviceNumber {
                    is_block: matches!(entry.kind, EntryKind::BlockDevice { .. }),
                    major: *major,
                    minor: *minor,
                };
                self.device(parent, &path, name, &entry, device)
            }
            EntryKind::Fifo => {
                self.make(parent, &path, name, |parent, name| {
                    rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::RUSR, 0)
                })?;
                self.node(parent, &path, name, &entry)
            }
        }
    }

    /// Adds to the content of the last file.
    pub(super) fn content(&mut self, content: &[u8]) -> Result<(), RootfsError> {
        // Content of a whiteout means nothing.
        let Some(open) = &mut self.file else {
            return Ok(());
        };
        if content.len() >= HOLE && content.iter().all(|&byte| byte == 0) {
            open.holes = true;
        } else {
            open.file
                .write_all_at(content, open.written)
                .during("write", rooted(&open.path))?;
        }
        open.written += content.len() as u64;
        self.count(content.len() as u64);
        Ok(())
    }

    /// Adds zeros to the content of the last file, at no cost however many they are.
    pub(super) fn hole(&mut self, length: u64) {
        if let Some(open) = &mut self.file {
            open.written += length;
            open.holes = true;
            self.count(length);
        }
    }

    /// A few holes are soon more than a number holds.
    fn count(&mut self, bytes: u64) {
        self.unpacked.bytes = self.unpacked.bytes.saturating_add(bytes);
    }

    /// Sets the times of directories and returns the account. Marks of a layer that its disk does not take are kept beside it.
    pub(super) fn finish(mut self) -> Result<Unpacked, RootfsError> {
        self.finish_file()?;
        if let Some(layer) = self.rules.layer.take() {
            self.keep_refused(&layer)?;
        }
        if let Some(time) = self.rules.time {
            for path in &self.filled {
                // A later entry may have taken its place.
                if let Ok(directory) =
                    resolve::open_in_root(self.root.as_fd(), path, READ_DIRECTORY)
                {
                    rustix::fs::futimens(&directory, &times(time))
                        .during("set the time of", rooted(path))?;
                }
            }
        }
        for (path, mtime) in std::mem::take(&mut self.directories) {
            let (parent, name) = split_last(&path);
            let parent = resolve::open_in_root(self.root.as_fd(), parent, PATH_DIRECTORY);
            let name: &[u8] = if name.is_empty() { b"." } else { name };
            let directory = parent.and_then(|parent| {
                Ok(rustix::fs::openat(
                    parent,
                    name,
                    READ_DIRECTORY,
                    Mode::empty(),
                )?)
            });
            // A later entry may have taken its place.
            if let Ok(directory) = directory {
                rustix::fs::futimens(&directory, &times(mtime))
                    .during("set the time of", rooted(&path))?;
            }
        }
        Ok(self.unpacked)
    }

    /// The archive's own root: a layer describes the directory that it is applied to, and so does a cache; another archive does not.
    fn root_entry(&mut self, path: &[u8], entry: &Entry) -> Result<(), RootfsError> {
        if entry.kind != EntryKind::Directory {
            return Err(refuse(path, "has the root's path and is no directory"));
        }
        if self.rules.layer.is_none() && !self.rules.root {
            return Ok(());
        }
        let root = rustix::fs::openat(&self.root, ".", READ_DIRECTORY, Mode::empty())
            .during("open", "/")?;
        self.unpacked.skipped_xattrs +=
            metadata::describe(root.as_fd(), path, entry, self.rules.naming, &self.owners)?;
        self.directories.push((path.to_vec(), entry.mtime));
        Ok(())
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
        size: u64,
        entry: Entry,
    ) -> Result<(), RootfsError> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = self.make(parent, path, name, |parent, name| {
            rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        self.file = Some(OpenFile {
            file: file.into(),
            path: path.to_vec(),
            entry,
            size,
            written: 0,
            holes: false,
        });
        Ok(())
    }

    fn finish_file(&mut self) -> Result<(), RootfsError> {
        let Some(OpenFile {
            file,
            path,
            entry,
            size,
            written,
            holes,
        }) = self.file.take()
        else {
            return Ok(());
        };
        if written != size {
            return Err(refuse(&path, "has less content than it says"));
        }
        if holes {
            file.set_len(size)
                .during("set the size of", rooted(&path))?;
        }
        self.unpacked.skipped_xattrs +=
            metadata::describe(file.as_fd(), &path, &entry, self.rules.naming, &self.owners)?;
        rustix::fs::futimens(&file, &times(entry.mtime)).during("set the time of", rooted(&path))
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), RootfsError> {
        let mut opaque = false;
        loop {
            match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error).during("make directory", rooted(path)),
            }
            match stat_at(parent, name).during("stat", rooted(path))? {
                Some(stat) if stat.is_directory() => break,
                Some(stat) if self.is_whiteout(&stat) => opaque = true,
                _ => {}
            }
            self.clear(parent, path, name)?;
        }
        let directory = rustix::fs::openat(parent, name, READ_DIRECTORY, Mode::empty())
            .during("open", rooted(path))?;
        if opaque {
            self.hide_below(&directory, path)?;
        }
        self.unpacked.skipped_xattrs += metadata::describe(
            directory.as_fd(),
            path,
            entry,
            self.rules.naming,
            &self.owners,
        )?;
        self.directories.push((path.to_vec(), entry.mtime));
        Ok(())
    }

    fn device(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
        entry: &Entry,
        device: DeviceNumber,
    ) -> Result<(), RootfsError> {
        let owners = self.owners.clone();
        let made = self.make(parent, path, name, |parent, name| {
            match owners.make_device(parent, name, device) {
                Ok(()) => Ok(true),
                // Only the machine's own root may; a process gets its devices from a fresh /dev.
                Err(Errno::PERM) => Ok(false),
                Err(error) => Err(error),
            }
        })?;
        if !made {
            self.unpacked.skipped_devices += 1;
            return Ok(());
        }
        self.node(parent, path, name, entry)
    }

    fn node(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), RootfsError> {
        self.unpacked.skipped_xattrs +=
            metadata::describe_node(parent, path, name, entry, self.rules.naming, &self.owners)?;
        Ok(())
    }

    /// Gives a file another name. The entry's owner, mode and time go to the file that both names mean.
    fn hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
        target: &[u8],
        entry: &Entry,
    ) -> Result<(), RootfsError> {
        check_path(target)?;
        let target = target.to_vec();
        if target == path {
            return Err(refuse(path, "is a hard link to itself"));
        }
        let (target_parent, target_name) = split_last(&target);
        let missing = || refuse(path, "is a hard link to nothing in this archive");
        let target_parent =
            match resolve::open_in_root(self.root.as_fd(), target_parent, PATH_DIRECTORY) {
                Ok(target_parent) => target_parent,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
                Err(error) => return Err(error).during("open the parent of", rooted(&target)),
            };
        let stat = match stat_at(&target_parent, target_name).during("stat", rooted(&target))? {
            Some(stat) if stat.is_whiteout() => return Err(missing()),
            Some(stat) if stat.is_directory() => {
                return Err(refuse(path, "is a hard link to a directory"));
            }
            Some(stat) => stat,
            None => return Err(missing()),
        };
        self.make(parent, path, name, |parent, name| {
            rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())
        })?;
        metadata::describe_link(parent, path, name, &stat, entry, &self.owners)
    }

    /// A `.wh.` name of a layer. It speaks of lower layers only: what this layer has under the name stays.
    fn whiteout(
        &mut self,
        path: &[u8],
        parent_path: &[u8],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), RootfsError> {
        if name == OPAQUE_WHITEOUT {
            let parent = self.parent(parent_path)?;
            let directory = rustix::fs::openat(&*parent, ".", READ_DIRECTORY, Mode::empty())
                .during("open", rooted(parent_path))?;
            return self.hide_below(&directory, parent_path);
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        let deleted = &name[WHITEOUT_PREFIX.len()..];
        if matches!(deleted, b"" | b"." | b"..") {
            return Err(refuse(path, "deletes no name"));
        }
        if matches!(entry.kind, EntryKind::Directory) {
            return Err(refuse(path, "is a deletion and a directory"));
        }
        let parent = self.parent(parent_path)?;
        match stat_at(&*parent, deleted).during("stat", rooted(path))? {
            None => {
                let is_taken = marks::delete(parent.as_fd(), deleted)
                    .during("make the deletion mark", rooted(path))?;
                if !is_taken {
                    let path = self.resolved(&joined(parent_path, deleted))?;
                    self.refused.whiteouts.insert(path);
                }
                Ok(())
            }
            Some(stat) if stat.is_directory() => {
                let directory =
                    rustix::fs::openat(&*parent, deleted, READ_DIRECTORY, Mode::empty())
                        .during("open", rooted(path))?;
                self.hide_below(&directory, &joined(parent_path, deleted))
            }
            Some(_) => Ok(()),
        }
    }

    fn hide_below(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<(), RootfsError> {
        let is_taken =
            marks::hide_below(directory.as_fd()).during("mark as opaque", rooted(path))?;
        if !is_taken {
            let path = self.resolved(path)?;
            self.refused.opaque.insert(path);
        }
        Ok(())
    }

    /// Returns a path without links in its parents, which must be there.
    fn resolved(&self, path: &[u8]) -> Result<Vec<u8>, RootfsError> {
        let (parent, name) = split_last(path);
        let mut walker = Walker::new(self.root.as_fd());
        match walker.go(parent, true, &mut |_, _, _| Ok(false)) {
            Ok(_) => Ok(walker.path_of(name)),
            Err(refused) => Err(from_refused(refused, "resolve")),
        }
    }

    /// Writes beside the layer what the disk refused, as far as it still means something: a file of the layer hides by itself,
    /// and a directory that is also deleted hides what is below it, whichever came first.
    fn keep_refused(&mut self, layer: &Path) -> Result<(), RootfsError> {
        if self.refused.is_empty() {
            return Ok(());
        }
        let Refused { whiteouts, opaque } = std::mem::take(&mut self.refused);
        // `None` where what it was in is no directory any more.
        let at = |path: &[u8]| -> std::io::Result<Option<Option<Stat>>> {
            let (parent, name) = split_last(path);
            match resolve::open_directory_beneath(self.root.as_fd(), parent, OFlags::empty()) {
                Ok(root) if name.is_empty() => Ok(Some(Some(stat_of(&root)?))),
                Ok(parent) => stat_at(&parent, name).map(Some),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                    _ => Err(error),
                },
            }
        };
        let mut beside = Sidecar::read(layer)?;
        for path in &whiteouts {
            match at(path).during("stat", rooted(path))? {
                Some(None) => beside.set_whiteout(path),
                Some(Some(stat)) if stat.is_directory() => beside.set_opaque(path),
                _ => {}
            }
        }
        for path in &opaque {
            if let Some(Some(stat)) = at(path).during("stat", rooted(path))?
                && stat.is_directory()
            {
                beside.set_opaque(path);
            }
        }
        beside.write(layer)
    }

    /// Returns the directory that holds an entry. What is missing is made as root's, 0755.
    fn parent(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, RootfsError> {
        if let Some((_, parent)) = self.parents.iter().find(|(known, _)| known == path) {
            return Ok(Arc::clone(parent));
        }
        let parent = match resolve::open_in_root(self.root.as_fd(), path, PATH_DIRECTORY) {
            Ok(parent) => parent,
            // Missing, or below something that is no directory, such as a deletion mark: the walk finds out.
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NOENT | Errno::NOTDIR)
                ) =>
            {
                self.make_parent(path)?
            }
            Err(error) => return Err(error).during("open", rooted(path)),
        };
        if self.rules.time.is_some() {
            self.filled.insert(path.to_vec());
        }
        let parent = Arc::new(parent);
        let known = (path.to_vec(), Arc::clone(&parent));
        if self.parents.len() < PARENTS {
            self.parents.push(known);
        } else {
            self.parents[self.next_parent] = known;
            self.next_parent = (self.next_parent + 1) % PARENTS;
        }
        Ok(parent)
    }

    fn make_parent(&mut self, path: &[u8]) -> Result<OwnedFd, RootfsError> {
        let mut walker = Walker::new(self.root.as_fd());
        let (layer, owners) = (self.rules.layer.is_some(), &self.owners);
        let unpacked = &mut self.unpacked;
        let mut filled = self.rules.time.is_some().then_some(&mut self.filled);
        let refused = &mut self.refused;
        let end = walker.go(path, true, &mut |walk, name, obstacle| {
            let here = walk.directory();
            if obstacle == Obstacle::Whiteout {
                if !layer {
                    return Ok(false);
                }
                rustix::fs::unlinkat(here, name, AtFlags::empty())?;
            }
            let directory = make_directory(here, name, (0, 0), 0o755, owners)?;
            if obstacle == Obstacle::Whiteout && !marks::hide_below(directory.as_fd())? {
                refused.opaque.insert(walk.path_of(name));
            }
            unpacked.implied_directories += 1;
            if let Some(filled) = &mut filled {
                let path = walk.path_of(name);
                filled.insert(split_last(&path).0.to_vec());
                filled.insert(path);
            }
            Ok(true)
        });
        match end {
            Ok(End::Directory) => walker
                .directory()
                .try_clone_to_owned()
                .during("open", rooted(path)),
            Ok(End::Other(name)) => Err(not_a_directory(&walker.path_of(&name))),
            Err(refused) => Err(from_refused(refused, "make directory")),
        }
    }

    /// Makes a name with `create`, which must fail where the name exists, and replaces what is there.
    fn make<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
        create: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T, RootfsError> {
        match create(parent, name) {
            Err(Errno::EXIST) => {}
            other => return other.during("make", rooted(path)),
        }
        self.clear(parent, path, name)?;
        create(parent, name).during("make", rooted(path))
    }

    fn clear(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
    ) -> Result<(), RootfsError> {
        self.unpacked.has_replaced = true;
        // Parents that were found through what goes.
        self.parents.clear();
        self.next_parent = 0;
        if !self.refused.is_empty() {
            let path = self.resolved(path)?;
            self.refused.forget_below(&path);
        }
        remove_at(parent, name).during("replace", rooted(path))
    }

    fn is_whiteout(&self, stat: &Stat) -> bool {
        self.rules.layer.is_some() && stat.is_whiteout()
    }
}

impl Refused {
    fn is_empty(&self) -> bool {
        self.whiteouts.is_empty() && self.opaque.is_empty()
    }

    /// Forgets what lies below a path that is made anew.
    fn forget_below(&mut self, path: &[u8]) {
        let prefix = joined(path, b"");
        for marks in [&mut self.whiteouts, &mut self.opaque] {
            marks.retain(|marked| !marked.starts_with(&prefix));
        }
        self.opaque.remove(path);
    }
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        b"" => name.to_vec(),
        parent => [parent, b"/", name].concat(),
    }
}

/// Checks what the archive reader promises; a slip there must not become an escape here.
fn check_path(path: &[u8]) -> Result<(), RootfsError> {
    let odd = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
    if !path.is_empty() && path.split(|&byte| byte == b'/').any(odd) {
        return Err(refuse(path, "is no path beneath the root"));
    }
    Ok(())
}

fn refuse(path: &[u8], problem: &'static str) -> RootfsError {
    RootfsError::Entry {
        path: rooted(path).shown(),
        problem,
    }
}

/// Gives a layer's root the owner and mode of one that the layer does not describe.
pub(super) fn prepare_root(root: BorrowedFd<'_>, owners: &Owners) -> std::io::Result<()> {
    let directory = rustix::fs::openat(root, ".", READ_DIRECTORY, Mode::empty())?;
    Ok(owners.describe(directory.as_fd(), (0, 0), 0o755)?)
}
