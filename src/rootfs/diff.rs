//! An upper directory becomes a layer: the entries for what a step has changed.
//!
//! overlayfs copies a file up whole when it is opened for writing, touched or given the mode that it has, so being in the upper
//! directory proves nothing: each entry is compared with what the layers below show, in everything that a layer can carry
//! (kind, owner, mode, time, device number, link target, attributes, content), and left out where nothing differs. A directory
//! comes when it differs or when something below it comes.
//!
//! Deletion marks become `.wh.` entries where there is something to delete, and a directory that hides what is below it gets
//! `.wh..wh..opq` where there is something to hide. Sockets have no entry. Hard links are those of the upper directory:
//! one that a layer below has breaks when its file is copied up, and stays broken.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::layer::{Entry, EntryKind, LayerWriter, Mtime};
use crate::vocab::Cancel;

use super::error::{During, RootfsError, Shown, rooted};
use super::lower::{Found, LowerDirectory, LowerNode, Lowers};
use super::resolve::PATH_DIRECTORY;
use super::sidecar::Sidecar;
use super::stat::{FileKind, Stat};
use super::times::Times;
use super::walk::{Visit, Walk};
use super::xattr::Naming;

/// What a layer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffStats {
    /// Written, deletions included; none means that the step changed nothing.
    pub entries: u64,
    /// Of file content.
    pub bytes: u64,
    pub deletions: u64,
    /// Files that were copied up and are as they were.
    pub unchanged: u64,
    pub sockets: u64,
}

/// Writes what the upper directory changes against `lowers`, lowest first, in sorted order. The layer is not finished: that is
/// for the owner of `out`. Nothing may write to the tree meanwhile. What the files beside the directories note is what counts.
pub fn write_layer<W: Write>(
    upper: &Path,
    lowers: &[PathBuf],
    times: Times,
    out: &mut LayerWriter<W>,
    cancel: &Cancel,
) -> Result<DiffStats, RootfsError> {
    let root = rustix::fs::open(upper, PATH_DIRECTORY, Mode::empty())
        .during("open", upper.as_os_str().as_bytes())?;
    let mut diff = Diff {
        lowers: Lowers::open(lowers)?,
        sink: EntrySink {
            out,
            cancel,
            naming: Naming::Escaped,
            prefix: Vec::new(),
            times,
            linked: HashMap::new(),
            entries: 0,
            bytes: 0,
        },
        walk: Walk::of_layer(root.as_fd(), Sidecar::read(upper)?).during("list", "/")?,
        levels: Vec::new(),
        stats: DiffStats::default(),
    };
    diff.root()?;
    while let Some(visit) = diff.walk.next().during("read", rooted(diff.walk.path()))? {
        match visit {
            Visit::Entry(stat) => diff.visit(stat)?,
            Visit::Leave => drop(diff.levels.pop()),
        }
    }
    diff.stats.entries = diff.sink.entries;
    diff.stats.bytes = diff.sink.bytes;
    Ok(diff.stats)
}

struct Diff<'a, W: Write> {
    lowers: Lowers,
    sink: EntrySink<'a, W>,
    walk: Walk,
    levels: Vec<Level>,
    stats: DiffStats,
}

/// A directory that the walk is in.
struct Level {
    /// What shows through from below; `None` where nothing does.
    below: Option<LowerDirectory>,
    /// Its entry, as long as it has not been written.
    pending: Option<Entry>,
}

impl<W: Write> Diff<'_, W> {
    /// The root's time is no content: every step sets it, and no layer tells it.
    fn root(&mut self) -> Result<(), RootfsError> {
        let stat = self.walk.stat().during("stat", "/")?;
        let xattrs = self
            .walk
            .read_content(self.walk.directory(), Naming::Escaped)
            .during("read the attributes of", "/")?;
        let opaque = self
            .walk
            .is_opaque()
            .during("read the attributes of", "/")?;
        let mut below = None;
        if let Some((lower, lower_stat)) = self.lowers.root().during("stat", "/")? {
            let file = self
                .lowers
                .open_file(0, b".", OFlags::DIRECTORY)
                .during("open", "/")?;
            let lower_xattrs = self
                .lowers
                .read_content(0, b"", file.as_fd())
                .during("read the attributes of", "/")?;
            let same = Stat {
                mtime: stat.mtime,
                ..lower_stat
            };
            if !same_metadata(&stat, &same) || xattrs != lower_xattrs {
                self.sink
                    .put(entry(b"", &stat, EntryKind::Directory, xattrs))?;
            }
            if opaque {
                self.sink.put(whiteout(b"", b".wh..opq"))?;
            } else {
                below = Some(lower);
            }
        }
        self.levels.push(Level {
            below,
            pending: None,
        });
        Ok(())
    }

    fn visit(&mut self, stat: Stat) -> Result<(), RootfsError> {
        self.sink.check_cancelled()?;
        let path = self.walk.path();
        if self.walk.name().starts_with(b".wh.") {
            return Err(RootfsError::WhiteoutName {
                path: rooted(path).shown(),
            });
        }
        let below = match &self.levels.last().expect("the root is a level").below {
            Some(directory) => self
                .lowers
                .find(directory, path)
                .during("look below", rooted(path))?,
            None => None,
        };
        if stat.is_whiteout() || stat.kind == FileKind::Socket {
            self.stats.sockets += u64::from(!stat.is_whiteout());
            return match below {
                Some(_) => self.delete(),
                None => Ok(()),
            };
        }
        if stat.is_directory() {
            return self.enter(stat, below);
        }
        // One of several names: the link is news even where this name's file is not.
        if stat.links < 2
            && let Some(below) = below
            && self
                .is_unchanged(&stat, &below)
                .during("compare", rooted(path))?
        {
            self.stats.unchanged += 1;
            return Ok(());
        }
        self.put_parents()?;
        self.sink.put_file(&self.walk, &stat)
    }

    fn enter(&mut self, stat: Stat, below: Option<Found>) -> Result<(), RootfsError> {
        let path = self.walk.path().to_vec();
        self.walk.enter().during("open", rooted(&path))?;
        let verb = "read the attributes of";
        let xattrs = self
            .walk
            .read_content(self.walk.directory(), Naming::Escaped)
            .during(verb, rooted(&path))?;
        let opaque = self.walk.is_opaque().during(verb, rooted(&path))?;
        let mut level = Level {
            below: None,
            pending: None,
        };
        let mut changed = true;
        let mut hides = false;
        if let Some(Found {
            layer,
            node: LowerNode::Directory(lower, lower_stat),
        }) = below
        {
            let file = self
                .lowers
                .open_file(layer, &path, OFlags::DIRECTORY)
                .during("open", rooted(&path))?;
            let lower_xattrs = self
                .lowers
                .read_content(layer, &path, file.as_fd())
                .during(verb, rooted(&path))?;
            changed = opaque || !same_metadata(&stat, &lower_stat) || xattrs != lower_xattrs;
            hides = opaque;
            level.below = (!opaque).then_some(lower);
        }
        let entry = entry(&path, &stat, EntryKind::Directory, xattrs);
        if changed {
            self.put_parents()?;
            self.sink.put(entry)?;
        } else {
            level.pending = Some(entry);
        }
        if hides {
            self.sink.put(whiteout(&path, b".wh..opq"))?;
            self.stats.deletions += 1;
        }
        self.levels.push(level);
        Ok(())
    }

    fn delete(&mut self) -> Result<(), RootfsError> {
        self.put_parents()?;
        let (parent, name) = super::resolve::split_last(self.walk.path());
        self.sink.put(whiteout(parent, name))?;
        self.stats.deletions += 1;
        Ok(())
    }

    fn put_parents(&mut self) -> Result<(), RootfsError> {
        for level in &mut self.levels {
            if let Some(entry) = level.pending.take() {
                self.sink.put(entry)?;
            }
        }
        Ok(())
    }

    fn is_unchanged(&self, stat: &Stat, below: &Found) -> io::Result<bool> {
        let LowerNode::Other(lower) = &below.node else {
            return Ok(false);
        };
        if !same_metadata(stat, lower) {
            return Ok(false);
        }
        let path = self.walk.path();
        match stat.kind {
            FileKind::Symlink => {
                let target =
                    rustix::fs::readlinkat(self.walk.directory(), self.walk.name(), Vec::new())?;
                Ok(target.into_bytes() == self.lowers.read_link(below.layer, path)?)
            }
            FileKind::File => {
                let ours = open_file(&self.walk)?;
                let theirs = self.lowers.open_file(below.layer, path, OFlags::RDONLY)?;
                let naming = Naming::Escaped;
                Ok(self.walk.read_content(ours.as_fd(), naming)?
                    == self
                        .lowers
                        .read_content(below.layer, path, theirs.as_fd())?
                    && same_content(ours.into(), theirs.into(), self.sink.cancel)?)
            }
            _ => Ok(true),
        }
    }
}

/// Entries of a walk on their way into a layer; also for whole trees.
pub(super) struct EntrySink<'a, W: Write> {
    pub(super) out: &'a mut LayerWriter<W>,
    pub(super) cancel: &'a Cancel,
    pub(super) naming: Naming,
    /// A directory of the archive that all paths are put below; empty for its root.
    pub(super) prefix: Vec<u8>,
    pub(super) times: Times,
    /// The first path of each file that has several.
    pub(super) linked: HashMap<(u64, u64), Vec<u8>>,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl<W: Write> EntrySink<'_, W> {
    pub(super) fn check_cancelled(&self) -> Result<(), RootfsError> {
        match self.cancel.is_cancelled() {
            true => Err(RootfsError::Cancelled),
            false => Ok(()),
        }
    }

    /// Writes an entry without content.
    pub(super) fn put(&mut self, mut entry: Entry) -> Result<(), RootfsError> {
        self.entries += 1;
        self.dress(&mut entry);
        self.out
            .entry(&entry, &mut io::empty())
            .during("pack", rooted(&entry.path))
    }

    /// Makes an entry what the archive shows of it.
    fn dress(&self, entry: &mut Entry) {
        entry.mtime = self.times.of(entry.mtime);
        if self.prefix.is_empty() {
            return;
        }
        entry.path = below(&self.prefix, &entry.path);
        if let EntryKind::HardLink { target } = &mut entry.kind {
            *target = below(&self.prefix, target);
        }
    }

    /// Writes what the walk has come to: anything but a directory or socket.
    pub(super) fn put_file(&mut self, walk: &Walk, stat: &Stat) -> Result<(), RootfsError> {
        let path = walk.path();
        if stat.links > 1 {
            let identity = (stat.device, stat.inode);
            if let Some(target) = self.linked.get(&identity) {
                let kind = EntryKind::HardLink {
                    target: target.clone(),
                };
                return self.put(entry(path, stat, kind, Default::default()));
            }
            self.linked.insert(identity, path.to_vec());
        }
        let (major, minor) = stat.rdev;
        let kind = match stat.kind {
            FileKind::File => return self.put_content(walk, stat),
            FileKind::Symlink => {
                let target = rustix::fs::readlinkat(walk.directory(), walk.name(), Vec::new())
                    .during("read the link", rooted(path))?;
                EntryKind::Symlink {
                    target: target.into_bytes(),
                }
            }
            FileKind::CharDevice => EntryKind::CharDevice { major, minor },
            FileKind::BlockDevice => EntryKind::BlockDevice { major, minor },
            FileKind::Fifo => EntryKind::Fifo,
            FileKind::Directory | FileKind::Socket => {
                unreachable!("directories are entered and sockets have no entry")
            }
        };
        self.put(entry(path, stat, kind, Default::default()))
    }

    fn put_content(&mut self, walk: &Walk, stat: &Stat) -> Result<(), RootfsError> {
        let path = walk.path();
        let file = open_file(walk).during("open", rooted(path))?;
        let xattrs = walk
            .read_content(file.as_fd(), self.naming)
            .during("read the attributes of", rooted(path))?;
        let mut entry = entry(path, stat, EntryKind::File { size: stat.size }, xattrs);
        self.dress(&mut entry);
        self.entries += 1;
        self.bytes += stat.size;
        let mut content = Cancellable {
            file: file.into(),
            cancel: self.cancel,
        };
        let packed = self.out.entry(&entry, &mut content);
        self.check_cancelled()?;
        packed.during("pack", rooted(path))
    }
}

fn below(prefix: &[u8], path: &[u8]) -> Vec<u8> {
    match path {
        b"" => prefix.to_vec(),
        path => [prefix, b"/", path].concat(),
    }
}

/// A file whose reading ends when the build does.
struct Cancellable<'a> {
    file: File,
    cancel: &'a Cancel,
}

impl Read for Cancellable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.file.read(buffer)
    }
}

pub(super) fn entry(
    path: &[u8],
    stat: &Stat,
    kind: EntryKind,
    xattrs: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        xattrs,
    }
}

pub(super) fn open_file(walk: &Walk) -> io::Result<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        walk.directory(),
        walk.name(),
        flags,
        Mode::empty(),
    )?)
}

/// Returns the entry that deletes `name` in `parent`; its bytes depend on nothing else.
fn whiteout(parent: &[u8], name: &[u8]) -> Entry {
    let mut path = parent.to_vec();
    if !parent.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(b".wh.");
    path.extend_from_slice(name);
    Entry {
        path,
        kind: EntryKind::File { size: 0 },
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        xattrs: Default::default(),
    }
}

fn same_metadata(a: &Stat, b: &Stat) -> bool {
    let size_counts = a.kind == FileKind::File;
    (a.kind, a.mode, a.uid, a.gid, a.mtime, a.rdev)
        == (b.kind, b.mode, b.uid, b.gid, b.mtime, b.rdev)
        && (!size_counts || a.size == b.size)
}

fn same_content(ours: File, theirs: File, cancel: &Cancel) -> io::Result<bool> {
    const BLOCK: u64 = 256 << 10;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    loop {
        a.clear();
        b.clear();
        (&ours).take(BLOCK).read_to_end(&mut a)?;
        (&theirs).take(BLOCK).read_to_end(&mut b)?;
        if a != b {
            return Ok(false);
        }
        if a.is_empty() || cancel.is_cancelled() {
            return Ok(true);
        }
    }
}
