//! What a step has changed in a plain directory, found by comparing the tree with its index and put into a layer directory.
//!
//! The rule, for a tree that nobody writes to meanwhile: a name is unchanged if it is the same file (inode, birth) with the
//! same time of last change. The kernel moves that time with everything that can be done to a file, and no process can set
//! it. So no content is read that did not change, and none that did is missed, whatever was done to sizes and times. The
//! clock of that time may be a coarse one: a step must not start before it has moved past the newest file of the index
//! ([`await_tick`]).
//!
//! The layer directory gets what overlayfs would have put there: changed files whole, as hard links of each other where they
//! are in the tree; the directories above them, with what they are in the tree; a deletion mark for each name that is gone; an
//! opaque mark on a directory that has taken the place of another. A directory that is moved comes whole under its new name.
//! One difference is left: overlayfs refuses to move a directory of the base, so `mv d x; mv x d` copies it twice, where here
//! nothing has changed.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, Timestamps};
use rustix::io::Errno;

use crate::vocab::{Cancel, FileId, Ledger};

use super::carry::{Carrier, Original, Spot};
use super::cursor::Cursor;
use super::error::{During, RootfsError, Shown, rooted};
use super::index::{Index, Record, Seen};
use super::ledgers::note_owners;
use super::marks;
use super::owners::Owners;
use super::resolve::{PATH_DIRECTORY, open_directory_beneath, split_last};
use super::sidecar::Sidecar;
use super::tree::Tree;
use super::twins::Twins;
use super::walk;
use super::xattr::Naming;

/// What a step's changes came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanStats {
    /// Names in the tree.
    pub names: u64,
    /// Files that were put into the layer.
    pub changed: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Names that are gone.
    pub deletions: u64,
}

/// What filling a layer directory has found out.
pub(super) struct Filled {
    /// The tree as it is now.
    pub(super) index: Index,
    /// Names that the step has made links of each other.
    pub(super) twins: Vec<Twins>,
    pub(super) stats: ScanStats,
}

/// Reads the index of a tree.
pub(super) fn index(root: BorrowedFd<'_>, cancel: &Cancel) -> Result<Index, RootfsError> {
    let mut scan = Scan::new(root, None, None, cancel)?;
    scan.run()?;
    scan.after.settle();
    Ok(scan.after)
}

/// A tree as it was when a step began, and whose its files are.
pub(super) struct Before<'a> {
    pub(super) index: &'a Index,
    pub(super) owners: &'a Owners,
    /// Files of which something else is written down since: the disk need not have changed with them.
    pub(super) rewritten: HashSet<FileId>,
}

/// Puts what has changed in the tree since `before` into the empty directory `upper`, and what the disk does not say beside
/// it.
pub(super) fn fill(
    root: BorrowedFd<'_>,
    before: &Before<'_>,
    upper: &Path,
    cancel: &Cancel,
) -> Result<Filled, RootfsError> {
    let shown = upper.as_os_str().as_bytes();
    let directory = rustix::fs::open(upper, PATH_DIRECTORY, Mode::empty()).during("open", shown)?;
    let ownership = before.owners.ownership();
    let owners = Owners::new(ownership);
    let upper_path = upper;
    let upper = Upper {
        at: Cursor::new(directory.as_fd()).during("open", shown)?,
        root: directory,
        tree: before.owners,
        carrier: Carrier::new(Naming::Mounted, Naming::Escaped, owners.clone(), cancel),
        refused: Sidecar::new(ownership),
        linked: HashMap::new(),
        stats: ScanStats::default(),
    };
    let mut scan = Scan::new(root, Some(before), Some(upper), cancel)?;
    scan.run()?;
    scan.after.settle();
    let upper = scan.upper.take().expect("given above");
    upper.refused.write(upper_path)?;
    note_owners(
        upper_path,
        &Tree::open(upper_path)?.with_owners(owners),
        &[],
    )?;
    let twins = upper.linked.into_values().map(|(_, twins)| twins);
    Ok(Filled {
        twins: twins.filter(Twins::are_several).collect(),
        stats: ScanStats {
            names: scan.after.len() as u64,
            bytes: upper.carrier.bytes,
            ..upper.stats
        },
        index: scan.after,
    })
}

/// Waits until a change that is made from now on has a later time than all of `index`. `scratch` is a directory on the tree's
/// file system.
pub(super) fn await_tick(scratch: BorrowedFd<'_>, index: &Index) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_micros(500);
    /// Longer than the coarsest clock of any file system. One that was set back is not waited for: times that are merely
    /// different are seen too.
    const ATTEMPTS: usize = 6000;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let probe = rustix::fs::openat(scratch, "clock", flags, Mode::RUSR | Mode::WUSR)?;
    for _ in 0..ATTEMPTS {
        rustix::fs::futimens(&probe, &NOW)?;
        let seen = Seen::at(&probe, b"")?.ok_or(Errno::NOENT)?;
        if seen.changed() > index.newest() {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

const NOW: Timestamps = {
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    Timestamps {
        last_access: now,
        last_modification: now,
    }
};

impl Before<'_> {
    fn has_rewritten(&self, seen: &Seen) -> bool {
        self.rewritten.contains(&seen.id) || self.rewritten.contains(&seen.id.without_birth())
    }
}

/// Returns the files of which two ledgers say different things.
pub(super) fn rewritten(before: &Ledger, after: &Ledger) -> HashSet<FileId> {
    let differs = |one: &Ledger, other: &Ledger| {
        let differing = one.iter().filter(|(id, what)| other.get(id) != Some(what));
        differing.map(|(id, _)| *id).collect::<Vec<_>>()
    };
    let mut files: HashSet<FileId> = differs(before, after).into_iter().collect();
    files.extend(differs(after, before));
    files
}

struct Scan<'a> {
    tree: Cursor,
    /// Of the directory that the scan is in.
    path: Vec<u8>,
    frames: Vec<Frame<'a>>,
    before: Option<&'a Before<'a>>,
    after: Index,
    upper: Option<Upper<'a>>,
    cancel: &'a Cancel,
}

/// A directory that the scan is in.
struct Frame<'a> {
    path_length: usize,
    /// The directories in it that are still to be entered, the next one last.
    left: Vec<Below<'a>>,
}

/// A directory to be entered.
#[derive(Clone, Copy)]
struct Below<'a> {
    /// In the new index.
    number: u32,
    fate: Fate<'a>,
}

#[derive(Clone, Copy)]
enum Fate<'a> {
    /// Its names are those of the record, and nothing about itself has changed.
    Unchanged(&'a Record),
    /// It is the directory of the record, and something about it has changed.
    Touched(&'a Record),
    New,
    /// It has taken the place of another directory.
    Replaced,
}

impl<'a> Scan<'a> {
    fn new(
        root: BorrowedFd<'_>,
        before: Option<&'a Before<'a>>,
        upper: Option<Upper<'a>>,
        cancel: &'a Cancel,
    ) -> Result<Scan<'a>, RootfsError> {
        Ok(Scan {
            tree: Cursor::new(root).during("open", "/")?,
            path: Vec::new(),
            frames: Vec::new(),
            before,
            after: Index::default(),
            upper,
            cancel,
        })
    }

    fn run(&mut self) -> Result<(), RootfsError> {
        let seen = Seen::at(self.tree.directory(), b"").during("stat", "/")?;
        let seen = seen.ok_or(Errno::NOENT).during("stat", "/")?;
        self.after.set_root(&seen);
        let fate = match self.before.map(|before| before.index.root()) {
            Some(record) if seen.is_unchanged(record) => Fate::Unchanged(record),
            Some(record) => Fate::Touched(record),
            None => Fate::New,
        };
        self.read(None, fate)?;
        while let Some(frame) = self.frames.last_mut() {
            match frame.left.pop() {
                Some(below) => self.enter(below)?,
                None => self.leave()?,
            }
        }
        Ok(())
    }

    fn enter(&mut self, Below { number, fate }: Below<'a>) -> Result<(), RootfsError> {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        let name_at = self.path.len();
        self.path.extend_from_slice(self.after.name_of(number));
        self.tree
            .enter(&self.path[name_at..])
            .during("open", rooted(&self.path))?;
        self.read(Some(number), fate)?;
        let Some(upper) = &mut self.upper else {
            return Ok(());
        };
        match fate {
            Fate::Unchanged(_) => Ok(()),
            Fate::Touched(_) | Fate::New => upper.ensure(&self.path, &self.frames),
            Fate::Replaced => {
                upper.ensure(&self.path, &self.frames)?;
                let is_taken = marks::hide_below(upper.at.directory())
                    .during("mark as opaque", rooted(&self.path))?;
                if !is_taken {
                    upper.refused.set_opaque(&self.path);
                }
                Ok(())
            }
        }
    }

    fn leave(&mut self) -> Result<(), RootfsError> {
        self.frames.pop();
        let depth = self.frames.len();
        if let Some(upper) = &mut self.upper
            && upper.at.depth() == depth
        {
            let mut finish = || -> io::Result<()> {
                let directory = self.tree.directory();
                let seen = Seen::at(directory, b"")?.ok_or(Errno::NOENT)?;
                let original = upper.original(&seen);
                let (stat, xattrs) = upper.carrier.directory_of(directory, original)?;
                let to = upper.at.directory();
                upper.carrier.directory(&stat, &xattrs, to, false)?;
                match depth {
                    0 => Ok(()),
                    _ => upper.at.leave(),
                }
            };
            finish().during("set the metadata of", rooted(&self.path))?;
        }
        let Some(above) = self.frames.last() else {
            return Ok(());
        };
        self.tree.leave().during("leave", rooted(&self.path))?;
        self.path.truncate(above.path_length);
        Ok(())
    }

    /// Looks at all names of the directory that the scan has come to, `number` in the new index.
    fn read(&mut self, number: Option<u32>, fate: Fate<'a>) -> Result<(), RootfsError> {
        if self.cancel.is_cancelled() {
            return Err(RootfsError::Cancelled);
        }
        let path_length = self.path.len();
        self.frames.push(Frame {
            path_length,
            left: Vec::new(),
        });
        let first = self.after.len();
        let old = match (fate, self.before) {
            (Fate::Unchanged(record) | Fate::Touched(record), Some(before)) => {
                Some((before.index, before.index.children(record)))
            }
            _ => None,
        };
        match (fate, old) {
            (Fate::Unchanged(_), Some((before, records))) => {
                for record in records {
                    self.look(before.name(record), Some(record))?;
                }
            }
            (_, old) => {
                let mut names =
                    walk::names(self.tree.directory()).during("list", rooted(&self.path))?;
                names.sort_unstable();
                let (mut records, before) = match old {
                    Some((before, records)) => (records, Some(before)),
                    None => (&[][..], None),
                };
                for name in &names {
                    let mut known = None;
                    while let (Some(before), Some((record, rest))) = (before, records.split_first())
                    {
                        let its_name = before.name(record);
                        if its_name > &**name {
                            break;
                        }
                        records = rest;
                        if its_name == &**name {
                            known = Some(record);
                            break;
                        }
                        self.gone(its_name)?;
                    }
                    self.look(name, known)?;
                }
                if let Some(before) = before {
                    for record in records {
                        self.gone(before.name(record))?;
                    }
                }
            }
        }
        self.after
            .list(number, first)
            .during("index", rooted(&self.path))?;
        let frame = self.frames.last_mut().expect("pushed above");
        frame.left.reverse();
        Ok(())
    }

    /// Compares a name with its record, which is `None` where the index has no such name.
    fn look(&mut self, name: &[u8], known: Option<&'a Record>) -> Result<(), RootfsError> {
        let seen = Seen::at(self.tree.directory(), name).during("stat", self.child(name))?;
        let Some(seen) = seen else {
            // Listed by the index, and by nothing else.
            return self.gone(name);
        };
        let number = self
            .after
            .push(name, &seen)
            .during("index", self.child(name))?;
        if seen.stat.is_directory() {
            let fate = match known {
                Some(record) if !record.is_directory() => Fate::New,
                Some(record) if self.is_unchanged(&seen, record) => Fate::Unchanged(record),
                Some(record) if seen.is_same_file(record) => Fate::Touched(record),
                Some(_) => Fate::Replaced,
                None => Fate::New,
            };
            let frame = self.frames.last_mut().expect("the directory that is read");
            frame.left.push(Below { number, fate });
            return Ok(());
        }
        if known.is_some_and(|record| self.is_unchanged(&seen, record)) {
            return Ok(());
        }
        let Some(upper) = &mut self.upper else {
            return Ok(());
        };
        upper.ensure(&self.path, &self.frames)?;
        upper.put(self.tree.directory(), &self.path, name, &seen)
    }

    /// Takes note that a name of the index is not there any more.
    fn gone(&mut self, name: &[u8]) -> Result<(), RootfsError> {
        let Some(upper) = &mut self.upper else {
            return Ok(());
        };
        upper.ensure(&self.path, &self.frames)?;
        upper.stats.deletions += 1;
        let is_taken = marks::delete(upper.at.directory(), name)
            .during("mark as deleted", Child(&self.path, name))?;
        if !is_taken {
            upper.refused.set_whiteout(&joined(&self.path, name));
        }
        Ok(())
    }

    fn is_unchanged(&self, seen: &Seen, record: &Record) -> bool {
        seen.is_unchanged(record)
            && self
                .before
                .is_none_or(|before| before.rewritten.is_empty() || !before.has_rewritten(seen))
    }

    fn child<'s>(&'s self, name: &'s [u8]) -> Child<'s> {
        Child(&self.path, name)
    }
}

/// The layer directory that is filled.
struct Upper<'a> {
    root: OwnedFd,
    /// The deepest directory on the scan's way that is in the layer.
    at: Cursor,
    /// Of the tree.
    tree: &'a Owners,
    carrier: Carrier<'a>,
    /// Marks that the disk does not take.
    refused: Sidecar,
    /// Files with several names, by device and inode.
    linked: HashMap<(u64, u64), (Vec<u8>, Twins)>,
    stats: ScanStats,
}

impl Upper<'_> {
    /// Makes the directories down to the one that the scan is in.
    fn ensure(&mut self, path: &[u8], frames: &[Frame<'_>]) -> Result<(), RootfsError> {
        for pair in frames[self.at.depth()..].windows(2) {
            let (above, end) = (pair[0].path_length, pair[1].path_length);
            let name_at = if above == 0 { 0 } else { above + 1 };
            let name = &path[name_at..end];
            let mut make = || -> io::Result<()> {
                rustix::fs::mkdirat(self.at.directory(), name, Mode::RWXU)?;
                self.at.enter(name)
            };
            make().during("make directory", rooted(&path[..end]))?;
        }
        Ok(())
    }

    /// Puts a file of the tree, which is no directory, where the layer's cursor is.
    fn put(
        &mut self,
        tree: BorrowedFd<'_>,
        directory: &[u8],
        name: &[u8],
        seen: &Seen,
    ) -> Result<(), RootfsError> {
        let shown = Child(directory, name);
        let original = self.original(seen);
        let stat = original.stat;
        if stat.is_whiteout() {
            return Err(RootfsError::DeletionDevice {
                path: shown.shown(),
            });
        }
        self.stats.changed += 1;
        if stat.links > 1 {
            let file = (stat.device, stat.inode);
            let path = joined(directory, name);
            if let Some((first, twins)) = self.linked.get_mut(&file) {
                let (parent, first) = split_last(first);
                open_directory_beneath(self.root.as_fd(), parent, OFlags::empty())
                    .and_then(|parent| {
                        let (to, flags) = (self.at.directory(), AtFlags::empty());
                        Ok(rustix::fs::linkat(&parent, first, to, name, flags)?)
                    })
                    .during("link", shown)?;
                twins.add(path, seen.identity());
                return Ok(());
            }
            let twins = Twins::joined(path.clone(), seen.identity());
            self.linked.insert(file, (path, twins));
        }
        let spot = |directory| Spot { directory, name };
        let (from, to) = (spot(tree), spot(self.at.directory()));
        self.carrier
            .entry(from, original, to)
            .map(drop)
            .during("copy", shown)
    }
}

impl Upper<'_> {
    /// Returns what a file of the tree is in the image.
    fn original(&self, seen: &Seen) -> Original {
        let known = self.tree.known_of(&seen.id);
        Original::new(seen.stat, self.tree.ownership(), known.as_ref())
    }
}

/// The path of a name, put together where there is an error to tell.
#[derive(Clone, Copy)]
struct Child<'a>(&'a [u8], &'a [u8]);

impl Shown for Child<'_> {
    fn shown(&self) -> String {
        rooted(&joined(self.0, self.1)).shown()
    }
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        directory => [directory, b"/", name].concat(),
    }
}
