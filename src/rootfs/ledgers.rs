//! A root's ledger: what it begins with, from the files beside its layers, and what is noted beside the layer that it made.
//!
//! In: an open root, the layer directories that it shows, and after the step the one that it wrote. Out: [`Owners`], then the
//! file beside the new layer directory. On disk there is nothing to do, and nothing is done.
//!
//! Layers know files by path, a ledger by what the kernel knows them by. In a composed tree that is for good. A mounted overlay
//! shows a lower file by the lower's inode number and birth; once it is copied up it has the upper file's birth, and the lower's
//! number only for as long as the kernel has it in memory (a user namespace may not look it up again, and of a link nobody can),
//! then the upper's. So what comes from a lower layer is entered without its birth, and files of several names are copied up at
//! once, since they change their number right away. After the step a file that is not found is looked for by what lies below its
//! path, and one that has been moved by the time of its birth, which is that of its copy. overlayfs itself does not tell in a user
//! namespace where a file comes from, only that it was copied up.
//!
//! All layers of a mount with a ledger lie on one file system. Of others overlayfs makes up the numbers of directories, anew each
//! time that it looks.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::vocab::{Attributes, FileId, Ledger, Ownership, mode_on_disk};

use super::diff::open_file;
use super::error::{During, RootfsError, rooted};
use super::lower::{LowerDirectory, LowerNode, Lowers};
use super::owners::{Owners, identity, statx_at, statx_of};
use super::resolve::{PATH_DIRECTORY, open_directory_beneath, split_last};
use super::sidecar::Sidecar;
use super::stat::{FileKind, Stat};
use super::tree::{Tree, stat_at};
use super::walk::{Visit, Walk};
use super::xattr::{self, Naming};

/// Returns where the truth about the files of `root` is, which shows `layers`, lowest first. `is_writable` says that they may be
/// copied up.
pub fn seed_owners(
    ownership: Ownership,
    root: BorrowedFd<'_>,
    layers: &[PathBuf],
    is_writable: bool,
) -> Result<Owners, RootfsError> {
    if ownership == Ownership::OnDisk {
        return Ok(Owners::OnDisk);
    }
    let lowers = Lowers::open(layers)?;
    let mut paths: Vec<&[u8]> = Vec::new();
    for noted in lowers.all_noted() {
        let with_attributes = noted.iter().filter(|(_, noted)| noted.attributes.is_some());
        paths.extend(with_attributes.map(|(path, _)| path.as_slice()));
    }
    paths.sort_unstable();
    paths.dedup();
    let is_mounted = Naming::of(root).during("examine", "/")? == Naming::Mounted;
    let mut ledger = match ownership {
        Ownership::DevicesInLedger => Ledger::of_devices(),
        _ => Ledger::default(),
    };
    let mut places = Places::new(root);
    let mut merged = Merged::new(&lowers)?;
    for path in paths {
        let Some((layer, stat)) = merged.top(path)? else {
            continue;
        };
        let Some(attributes) = lowers.noted(layer).attributes(path) else {
            continue;
        };
        let (parent, name) = places.of(path)?;
        let mut file = statx_at(parent, name)
            .map(|found| identity(&found))
            .during("stat", rooted(path))?;
        let changes_number = stat.links > 1 && !stat.is_directory();
        if is_mounted && is_writable && changes_number {
            rustix::fs::chownat(parent, name, None, None, AtFlags::SYMLINK_NOFOLLOW)
                .during("copy up", rooted(path))?;
            file = statx_at(parent, name)
                .map(|found| identity(&found))
                .during("stat", rooted(path))?;
        } else if is_mounted {
            file = file.without_birth();
        }
        ledger.insert(file, attributes.clone());
    }
    Ok(Owners::in_ledger(ledger))
}

/// Writes beside the layer directory `layer` what its files are in the image. It is what a step has changed in `root`, or is the
/// root itself, which lay on `lowers`, lowest first. Marks that are noted there already stay.
///
/// Files that were made with other modes on disk than a process with one id needs get these. Call this once nothing else writes
/// to the tree, and before `root` is closed: a mount's ledger means that mount's files.
pub fn note_owners(layer: &Path, root: &Tree, lowers: &[PathBuf]) -> Result<(), RootfsError> {
    let ownership = root.owners().ownership();
    let is_on_disk = match ownership {
        Ownership::OnDisk => true,
        Ownership::DevicesInLedger => !root.owners().has_entries(),
        Ownership::InLedger => false,
    };
    if is_on_disk {
        return Ok(());
    }
    let mut noted = Sidecar::new(ownership);
    noted.take_marks(&Sidecar::read(layer)?);
    let top = rustix::fs::open(layer, PATH_DIRECTORY, Mode::empty())
        .during("open", layer.as_os_str().as_bytes())?;
    let mut noter = Noter {
        owners: root.owners(),
        lowers: Lowers::open(lowers)?,
        is_mounted: root.naming().during("examine", "/")? == Naming::Mounted,
        by_birth: None,
        lost: None,
        top: top.as_fd(),
        root: root.as_fd(),
        names: HashMap::new(),
        noted,
    };
    let mut places = Places::new(root.as_fd());
    let mut walk = Walk::new(top.as_fd()).during("list", "/")?;
    let stat = walk.stat().during("stat", "/")?;
    let seen = statx_of(root.as_fd()).during("stat", "/")?;
    let known = noter.owners.known_of(&identity(&seen));
    noter.note(b"", known, &stat, walk.directory(), b".")?;
    while let Some(visit) = walk.next().during("read", rooted(walk.path()))? {
        let Visit::Entry(stat) = visit else {
            continue;
        };
        if stat.is_whiteout() || stat.kind == FileKind::Socket {
            continue;
        }
        let path = walk.path();
        let (parent, name) = places.of(path)?;
        let known = noter
            .known(&walk, &stat, parent, name)
            .during("look for", rooted(path))?;
        noter.note(path, known, &stat, walk.directory(), walk.name())?;
        if stat.links > 1 && !stat.is_directory() {
            noter
                .names
                .entry(stat.inode)
                .or_default()
                .push(path.to_vec());
        }
        if stat.is_directory() {
            walk.enter().during("open", rooted(walk.path()))?;
        }
    }
    noter.tell_all_names();
    noter.noted.write(layer)
}

/// Finds out what the files of a layer are.
struct Noter<'a> {
    owners: &'a Owners,
    lowers: Lowers,
    is_mounted: bool,
    /// The numbers under which files of one birth are known; made when it is first needed.
    by_birth: Option<HashMap<Birth, Vec<FileId>>>,
    /// What is known of files that are in no place of their own; found when it is first needed.
    lost: Option<HashMap<Birth, Vec<Attributes>>>,
    /// The layer.
    top: BorrowedFd<'a>,
    root: BorrowedFd<'a>,
    /// The paths of files with several names, by inode number.
    names: HashMap<u64, Vec<Vec<u8>>>,
    noted: Sidecar,
}

/// A device, and seconds and nanoseconds on it.
type Birth = ((u32, u32), (i64, u32));

impl Noter<'_> {
    /// Notes what `name` in `parent`, a file of the layer, is in the image, and gives it the mode that it needs on disk.
    fn note(
        &mut self,
        path: &[u8],
        known: Option<Attributes>,
        stat: &Stat,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), RootfsError> {
        if self.noted.ownership() == Ownership::DevicesInLedger {
            if let Some(device) = known.and_then(|known| known.device) {
                let attributes = Attributes {
                    uid: stat.uid,
                    gid: stat.gid,
                    mode: stat.mode,
                    device: Some(device),
                    ..Attributes::default()
                };
                self.noted.set_attributes(path, attributes);
            }
            return Ok(());
        }
        let attributes = known.unwrap_or_else(|| Attributes {
            mode: stat.mode,
            ..Attributes::default()
        });
        let on_disk = match stat.kind {
            FileKind::Symlink => stat.mode,
            _ => mode_on_disk(attributes.mode, stat.is_directory()),
        };
        if on_disk != stat.mode {
            let mode = Mode::from_raw_mode(on_disk);
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
                .during("chmod", rooted(path))?;
        }
        if !attributes.is_plain(on_disk) {
            self.noted.set_attributes(path, attributes);
        }
        Ok(())
    }

    /// Notes what is known of one name of a file for all of its names: a mount may show a file that was copied up and then linked
    /// by two numbers, of which a ledger knows one.
    fn tell_all_names(&mut self) {
        for names in self.names.values() {
            let known = names.iter().find_map(|path| self.noted.attributes(path));
            let Some(known) = known.cloned() else {
                continue;
            };
            for path in names {
                if self.noted.attributes(path).is_none() {
                    self.noted.set_attributes(path, known.clone());
                }
            }
        }
    }

    /// Returns what is known of the last entry of a walk over the layer, which the root shows as `name` in `parent`.
    fn known(
        &mut self,
        walk: &Walk,
        stat: &Stat,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> io::Result<Option<Attributes>> {
        let file = identity(&statx_at(parent, name)?);
        let known = self.owners.known_of(&file);
        // The number is not the upper file's: the kernel remembers where it comes from, and so it would have been found.
        let is_remembered = file.inode != stat.inode;
        if known.is_some() || !self.is_mounted || stat.is_directory() || is_remembered {
            return Ok(known);
        }
        self.known_before(walk, stat, &file)
    }

    /// Returns what is known of a file by a number that it had before the kernel forgot where it was copied up from.
    fn known_before(
        &mut self,
        walk: &Walk,
        stat: &Stat,
        file: &FileId,
    ) -> io::Result<Option<Attributes>> {
        if stat.kind == FileKind::File {
            let was_copied_up = xattr::get(open_file(walk)?.as_fd(), xattr::ORIGIN)?.is_some();
            if !was_copied_up {
                // Made in this layer, or parted from its other names: known by its own number, if at all.
                return Ok(None);
            }
        }
        let path = walk.path();
        // Changed after it was copied up: known by the birth that it has, and the number of what lies below.
        let owners = self.owners;
        let by_birth = self.by_birth.get_or_insert_with(|| by_birth(owners));
        let inodes = self.lowers.inodes(path)?;
        for other in by_birth
            .get(&(file.device, file.birth))
            .into_iter()
            .flatten()
        {
            if inodes.contains(&other.inode) {
                return Ok(self.owners.known_of(other));
            }
        }
        if !inodes.is_empty() {
            return self.known_below(walk, stat, file);
        }
        match stat.kind {
            FileKind::File => self.known_elsewhere(file),
            _ => Ok(None),
        }
    }

    /// Returns what is known of a file as one that was moved here, after it was copied up.
    fn known_elsewhere(&mut self, file: &FileId) -> io::Result<Option<Attributes>> {
        if self.lost.is_none() {
            self.lost = Some(self.find_lost()?);
        }
        let lost = self.lost.as_ref().expect("just found");
        let Some([first, others @ ..]) = lost.get(&(file.device, file.birth)).map(Vec::as_slice)
        else {
            return Ok(None);
        };
        match others.iter().all(|other| other == first) {
            true => Ok(Some(first.clone())),
            // Copied up in the same moment, moved, and forgotten.
            false => Err(io::Error::other("several files may have been moved here")),
        }
    }

    /// Finds what is written down of files that no name of the layer shows, nor what lies below one, by their birth.
    fn find_lost(&self) -> io::Result<HashMap<Birth, Vec<Attributes>>> {
        let mut shown = HashSet::new();
        let mut places = Places::new(self.root);
        let mut walk = Walk::new(self.top)?;
        while let Some(visit) = walk.next()? {
            let Visit::Entry(stat) = visit else {
                continue;
            };
            if stat.is_whiteout() {
                continue;
            }
            let (parent, name) = places.of(walk.path()).map_err(io::Error::other)?;
            shown.insert(stat.inode);
            shown.insert(statx_at(parent, name)?.stx_ino);
            // What was made here is not what lies below.
            let is_copy = stat.kind != FileKind::File
                || xattr::get(open_file(&walk)?.as_fd(), xattr::ORIGIN)?.is_some();
            if is_copy {
                shown.extend(self.lowers.inodes(walk.path())?);
            }
            if stat.is_directory() {
                walk.enter()?;
            }
        }
        let mut lost: HashMap<Birth, Vec<Attributes>> = HashMap::new();
        for (file, attributes) in self.owners.ledger().unwrap_or_default().iter() {
            if *file != file.without_birth() && !shown.contains(&file.inode) {
                let born = lost.entry((file.device, file.birth)).or_default();
                born.push(attributes.clone());
            }
        }
        Ok(lost)
    }

    /// Returns what is known of a file as the one that lies below its path, and has not changed since it was copied up.
    fn known_below(
        &self,
        walk: &Walk,
        stat: &Stat,
        file: &FileId,
    ) -> io::Result<Option<Attributes>> {
        let path = walk.path();
        let Some(layer) = self.lowers.noting(path) else {
            return Ok(None);
        };
        let Some(lower) = self.lowers.stat(layer, path)? else {
            return Ok(None);
        };
        if stat.kind == FileKind::Symlink {
            // Another link in its place may lead to the same, but is younger.
            let target = rustix::fs::readlinkat(walk.directory(), walk.name(), Vec::new())?;
            let is_copy = (lower.kind, lower.mtime) == (stat.kind, stat.mtime)
                && target.as_bytes() == self.lowers.read_link(layer, path)?;
            if !is_copy {
                return Ok(None);
            }
        } else if stat.kind != FileKind::File {
            return Ok(None);
        }
        let lower = FileId {
            inode: lower.inode,
            ..file.without_birth()
        };
        Ok(self.owners.known_of(&lower))
    }
}

fn by_birth(owners: &Owners) -> HashMap<Birth, Vec<FileId>> {
    let mut by_birth: HashMap<Birth, Vec<FileId>> = HashMap::new();
    for (file, _) in owners.ledger().unwrap_or_default().iter() {
        if *file != file.without_birth() {
            let born = by_birth.entry((file.device, file.birth)).or_default();
            born.push(*file);
        }
    }
    by_birth
}

/// Opens the directories of paths that come in about the order of a walk.
struct Places<'a> {
    root: BorrowedFd<'a>,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Places<'a> {
    fn new(root: BorrowedFd<'a>) -> Places<'a> {
        Places { root, last: None }
    }

    /// Returns the directory of a path, and its name there; of the root itself `.`.
    fn of<'p>(&mut self, path: &'p [u8]) -> Result<(BorrowedFd<'_>, &'p [u8]), RootfsError> {
        if path.is_empty() {
            return Ok((self.root, b"."));
        }
        let (parent, name) = split_last(path);
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            let directory = open_directory_beneath(self.root, parent, OFlags::PATH)
                .during("open", rooted(parent))?;
            self.last = Some((parent.to_vec(), directory));
        }
        let (_, directory) = self.last.as_ref().expect("it was just opened");
        Ok((directory.as_fd(), name))
    }
}

/// Looks paths up in the merged view of layers; remembers directories.
struct Merged<'a> {
    lowers: &'a Lowers,
    directories: HashMap<Vec<u8>, Option<LowerDirectory>>,
}

impl<'a> Merged<'a> {
    fn new(lowers: &'a Lowers) -> Result<Merged<'a>, RootfsError> {
        let root = lowers.root().during("stat", "/")?;
        let directories = HashMap::from([(Vec::new(), root.map(|(root, _)| root))]);
        Ok(Merged {
            lowers,
            directories,
        })
    }

    /// Returns the layer that shows a path, and what it is there.
    fn top(&mut self, path: &[u8]) -> Result<Option<(usize, Stat)>, RootfsError> {
        if path.is_empty() {
            let root = self.lowers.root().during("stat", "/")?;
            return Ok(root.map(|(_, stat)| (0, stat)));
        }
        let Some(directory) = self.directory(split_last(path).0)? else {
            return Ok(None);
        };
        let found = self
            .lowers
            .find(&directory, path)
            .during("look for", rooted(path))?;
        Ok(found.map(|found| match found.node {
            LowerNode::Directory(_, stat) | LowerNode::Other(stat) => (found.layer, stat),
        }))
    }

    /// Returns the layers that make up a directory, if it shows and is one.
    fn directory(&mut self, path: &[u8]) -> Result<Option<LowerDirectory>, RootfsError> {
        if let Some(known) = self.directories.get(path) {
            return Ok(known.clone());
        }
        let mut ends: Vec<usize> = (0..path.len()).filter(|&at| path[at] == b'/').collect();
        ends.push(path.len());
        let mut parent = self.directories[&b""[..]].clone();
        for end in ends {
            let path = &path[..end];
            if let Some(known) = self.directories.get(path) {
                parent = known.clone();
                continue;
            }
            let found = match &parent {
                Some(parent) => self
                    .lowers
                    .find(parent, path)
                    .during("look for", rooted(path))?,
                None => None,
            };
            parent = match found.map(|found| found.node) {
                Some(LowerNode::Directory(directory, _)) => Some(directory),
                _ => None,
            };
            self.directories.insert(path.to_vec(), parent.clone());
        }
        Ok(parent)
    }
}

impl Lowers {
    /// Returns what inodes `path` is in the layers. What is on the way to it there is not known: no link is followed.
    fn inodes(&self, path: &[u8]) -> io::Result<Vec<u64>> {
        let (parent, name) = split_last(path);
        let mut inodes = Vec::new();
        for layer in 0..self.len() {
            let found = open_directory_beneath(self.root_of(layer), parent, OFlags::PATH)
                .and_then(|parent| stat_at(parent, name));
            match found {
                Ok(Some(stat)) if !stat.is_whiteout() => inodes.push(stat.inode),
                Ok(_) => {}
                Err(error) if is_no_place(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(inodes)
    }

    /// Returns the topmost layer that notes what `path` is.
    fn noting(&self, path: &[u8]) -> Option<usize> {
        (0..self.len()).find(|&layer| self.noted(layer).attributes(path).is_some())
    }
}

/// Something on the way is missing or no directory in that layer.
fn is_no_place(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}
