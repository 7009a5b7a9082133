//! What the kernel said of every file of a tree at one moment, small enough to keep for a whole image.
//!
//! A *record* is what tells a changed file from an unchanged one: inode and birth say whether it is the same file, the time
//! of the last change whether anything about it is different. That time cannot be set, and content, owner, mode, attributes,
//! links and names all move it. About 40 bytes and the name for each file.

use std::io;

use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

use crate::vocab::FileId;

use super::owners;
use super::stat::Stat;

/// The records of a tree, directory by directory, names in byte order.
#[derive(Debug, Default)]
pub(super) struct Index {
    names: Vec<u8>,
    records: Vec<Record>,
    listings: Vec<Listing>,
    root: Option<Record>,
    newest: i64,
}

/// One name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    inode: u64,
    /// Nanoseconds since 1970; 0 where the file system does not tell.
    birth: i64,
    /// Nanoseconds since 1970.
    changed: i64,
    name_at: u32,
    /// The directory's listing; [`NONE`] for other files.
    listing: u32,
    name_length: u8,
}

const NONE: u32 = u32::MAX;

/// The names of one directory are neighbours among the records.
#[derive(Clone, Copy, Debug)]
struct Listing {
    first: u32,
    count: u32,
}

/// One file as the kernel tells it now.
#[derive(Debug)]
pub(super) struct Seen {
    /// As the disk says.
    pub(super) stat: Stat,
    /// Its name in a ledger.
    pub(super) id: FileId,
    birth: i64,
    changed: i64,
}

impl Seen {
    /// Looks at `name` in `directory`, a link itself, or with an empty name at the directory; `None` where there is nothing.
    pub(super) fn at(
        directory: impl std::os::fd::AsFd,
        name: &[u8],
    ) -> rustix::io::Result<Option<Seen>> {
        let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        flags.set(AtFlags::EMPTY_PATH, name.is_empty());
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        match rustix::fs::statx(directory, name, flags, mask) {
            Ok(statx) => Ok(Some(Seen::of(&statx))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn of(statx: &Statx) -> Seen {
        let id = owners::identity(statx);
        Seen {
            stat: Stat::from(statx),
            id,
            birth: nanoseconds(id.birth),
            changed: nanoseconds(told(&statx.stx_ctime)),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            inode: self.id.inode,
            birth: self.birth,
        }
    }

    /// When anything about the file was last changed, in nanoseconds since 1970.
    pub(super) fn changed(&self) -> i64 {
        self.changed
    }

    /// Tells whether this is the file of a record, changed or not.
    pub(super) fn is_same_file(&self, record: &Record) -> bool {
        self.identity() == record.identity()
    }

    /// Tells whether nothing about the file has changed since the record was made.
    pub(super) fn is_unchanged(&self, record: &Record) -> bool {
        self.is_same_file(record) && self.changed == record.changed
    }
}

/// What tells a file from all others of its tree, also from an earlier one with its inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    birth: i64,
}

impl Record {
    pub(super) fn identity(&self) -> Identity {
        Identity {
            inode: self.inode,
            birth: self.birth,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.listing != NONE
    }

    /// Tells whether two indexes saw the same file in the same state.
    pub(super) fn is_as(&self, other: &Record) -> bool {
        self.identity() == other.identity() && self.changed == other.changed
    }
}

impl Index {
    /// Returns the record of the root directory.
    pub(super) fn root(&self) -> &Record {
        self.root.as_ref().expect("set before anything else")
    }

    /// Returns the latest change of any file.
    pub(super) fn newest(&self) -> i64 {
        self.newest
    }

    /// Returns how many names there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns what a directory holds.
    pub(super) fn children(&self, directory: &Record) -> &[Record] {
        match self.listings.get(directory.listing as usize) {
            Some(Listing { first, count }) => {
                let first = *first as usize;
                &self.records[first..first + *count as usize]
            }
            None => &[],
        }
    }

    pub(super) fn name(&self, record: &Record) -> &[u8] {
        let at = record.name_at as usize;
        &self.names[at..at + usize::from(record.name_length)]
    }

    /// Finds the record of a path from the root.
    pub(super) fn find(&self, path: &[u8]) -> Option<&Record> {
        Some(&self.records[self.position(path)?])
    }

    fn position(&self, path: &[u8]) -> Option<usize> {
        let mut directory = *self.root();
        let mut found = None;
        for name in path.split(|&byte| byte == b'/') {
            let Listing { first, .. } = *self.listings.get(directory.listing as usize)?;
            let children = self.children(&directory);
            let at = children
                .binary_search_by(|child| self.name(child).cmp(name))
                .ok()?;
            directory = children[at];
            found = Some(first as usize + at);
        }
        found
    }

    /// Takes note of what a path, or the root as the empty one, has become.
    pub(super) fn refresh(&mut self, path: &[u8], seen: &Seen) {
        let record = match path.is_empty() {
            true => self.root.as_mut(),
            false => self.position(path).map(|at| &mut self.records[at]),
        };
        if let Some(record) = record {
            record.inode = seen.id.inode;
            record.birth = seen.birth;
            record.changed = seen.changed;
            self.newest = self.newest.max(seen.changed);
        }
    }

    pub(super) fn set_root(&mut self, seen: &Seen) {
        self.newest = self.newest.max(seen.changed);
        self.root = Some(Record {
            inode: seen.id.inode,
            birth: seen.birth,
            changed: seen.changed,
            name_at: 0,
            listing: NONE,
            name_length: 0,
        });
    }

    /// Adds a name to the directory that is being listed. Returns its number.
    pub(super) fn push(&mut self, name: &[u8], seen: &Seen) -> io::Result<u32> {
        let number = |number: usize| u32::try_from(number).map_err(|_| too_many());
        let record = Record {
            inode: seen.id.inode,
            birth: seen.birth,
            changed: seen.changed,
            name_at: number(self.names.len())?,
            listing: NONE,
            name_length: u8::try_from(name.len()).map_err(|_| too_many())?,
        };
        let at = number(self.records.len())?;
        self.names.extend_from_slice(name);
        self.records.push(record);
        self.newest = self.newest.max(seen.changed);
        Ok(at)
    }

    /// Makes the names from `first` on those of a directory: the root, or the one with that number.
    pub(super) fn list(&mut self, directory: Option<u32>, first: usize) -> io::Result<()> {
        let number = |number: usize| u32::try_from(number).map_err(|_| too_many());
        let listing = number(self.listings.len())?;
        self.listings.push(Listing {
            first: number(first)?,
            count: number(self.records.len() - first)?,
        });
        let record = match directory {
            None => self.root.as_mut().expect("set before anything else"),
            Some(at) => &mut self.records[at as usize],
        };
        record.listing = listing;
        Ok(())
    }

    /// Returns the name with a number that [`Index::push`] gave.
    pub(super) fn name_of(&self, number: u32) -> &[u8] {
        self.name(&self.records[number as usize])
    }

    /// Gives back memory that growing took in advance.
    pub(super) fn settle(&mut self) {
        self.names.shrink_to_fit();
        self.records.shrink_to_fit();
        self.listings.shrink_to_fit();
    }
}

fn too_many() -> io::Error {
    io::Error::other("more files than an index can hold")
}

fn told(time: &StatxTimestamp) -> (i64, u32) {
    (time.tv_sec, time.tv_nsec)
}

fn nanoseconds((seconds, nanoseconds): (i64, u32)) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(nanoseconds))
}
