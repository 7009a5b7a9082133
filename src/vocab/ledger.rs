//! What files are in the image where the disk cannot say it.
//!
//! A process with one id alone can neither give files away nor make devices. Its trees lie on disk as its own files, and a
//! *ledger* keeps the truth: owner, mode, device numbers, protected attributes. A file without an entry is user 0's, group
//! 0's, and otherwise what the disk says. On disk the owner may always read and write a file, and search a directory too;
//! set-id bits are not there. So a mode without these rights, or with set-id bits, needs an entry.
//!
//! Files are known by what the kernel knows them by, so that renames and hard links need no book-keeping; the time of birth
//! tells a file from an earlier one whose inode number it has. An entry may leave the birth out: then it is that of whatever
//! file has the number. Two kinds of files need that: those of file systems that tell no births, and those that a mounted
//! overlay shows of its lower directories, which keep their number and change their birth when they are copied up. No other
//! file can get a number of theirs, because the lower file stays.
//!
//! A birth alone does not tell a file from one that has gone a moment ago: file systems stamp it by a clock that moves every few
//! milliseconds, and give numbers again at once. So an entry ends with the last name of its file, or at the latest when a new
//! file is seen to have its number: whoever removes files, or makes them, sees to that.

use std::collections::{BTreeMap, HashMap};

/// A file as the kernel tells it from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// `stx_dev_major` and `stx_dev_minor`.
    pub device: (u32, u32),
    pub inode: u64,
    /// `stx_btime`, seconds and nanoseconds; zeroes where the file system does not tell.
    pub birth: (i64, u32),
}

/// What a file is in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub uid: u32,
    pub gid: u32,
    /// The twelve permission bits.
    pub mode: u32,
    /// The device that a file stands for; on disk it is an empty regular file.
    pub device: Option<DeviceNumber>,
    /// Extended attributes that the disk does not take, by their whole names (`security.capability`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNumber {
    pub is_block: bool,
    pub major: u32,
    pub minor: u32,
}

impl DeviceNumber {
    /// Tells whether it is the device that stands for a deleted name on an overlay.
    pub fn is_whiteout(&self) -> bool {
        !self.is_block && (self.major, self.minor) == (0, 0)
    }
}

/// The files of one tree that are not what the disk says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    files: HashMap<FileId, Attributes>,
    /// Everything else of a file is what the disk says.
    only_devices: bool,
}

impl FileId {
    /// Returns what stands for the file whenever it was born.
    pub fn without_birth(self) -> FileId {
        FileId {
            birth: (0, 0),
            ..self
        }
    }
}

impl Ledger {
    /// Returns a ledger in which only device numbers count (see [`Ownership::DevicesInLedger`]).
    pub fn of_devices() -> Ledger {
        Ledger {
            only_devices: true,
            ..Ledger::default()
        }
    }

    /// Tells what is to be taken from it.
    pub fn ownership(&self) -> Ownership {
        match self.only_devices {
            true => Ownership::DevicesInLedger,
            false => Ownership::InLedger,
        }
    }

    /// Tells whether a file with the permission bits `on_disk` is shown right without an entry.
    pub fn is_plain(&self, attributes: &Attributes, on_disk: u32) -> bool {
        match self.only_devices {
            true => attributes.device.is_none(),
            false => attributes.is_plain(on_disk),
        }
    }

    /// Returns what was written down about a file, else about whatever file has its number.
    pub fn get(&self, file: &FileId) -> Option<&Attributes> {
        self.files
            .get(file)
            .or_else(|| self.files.get(&file.without_birth()))
    }

    /// Writes down what a file is. Attributes that the disk shows by itself (see [`Attributes::is_plain`]) need no entry. What
    /// is known of whatever file has its number changes as well.
    pub fn insert(&mut self, file: FileId, attributes: Attributes) {
        if let Some(known) = self.files.get_mut(&file.without_birth()) {
            known.clone_from(&attributes);
        }
        self.files.insert(file, attributes);
    }

    /// Forgets a file, however it is known.
    pub fn remove(&mut self, file: &FileId) -> Option<Attributes> {
        let known = self.files.remove(file);
        self.files.remove(&file.without_birth()).or(known)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&FileId, &Attributes)> {
        self.files.iter()
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl FromIterator<(FileId, Attributes)> for Ledger {
    fn from_iter<I: IntoIterator<Item = (FileId, Attributes)>>(files: I) -> Ledger {
        Ledger {
            files: files.into_iter().collect(),
            only_devices: false,
        }
    }
}

impl Attributes {
    /// Tells whether a file with the permission bits `on_disk` is shown right without an entry.
    pub fn is_plain(&self, on_disk: u32) -> bool {
        (self.uid, self.gid) == (0, 0)
            && self.mode == on_disk
            && self.device.is_none()
            && self.xattrs.is_empty()
    }
}

/// Where the truth about a tree's files is. A tree is made for one of them and never used as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// On disk: whoever made the tree could give files away, and make devices.
    OnDisk,
    /// On disk, but for the numbers of devices: these are empty regular files, with the owner and mode of the device, and
    /// otherwise in a [`Ledger`]. A user namespace may give files away, and make no device.
    DevicesInLedger,
    /// On disk as far as one id goes, the rest in a [`Ledger`].
    InLedger,
}

impl Ownership {
    pub const ALL: [Ownership; 3] = [
        Ownership::OnDisk,
        Ownership::DevicesInLedger,
        Ownership::InLedger,
    ];

    /// Tells whether files belong on disk to whom they belong to in the image.
    pub fn gives_away(self) -> bool {
        match self {
            Ownership::OnDisk | Ownership::DevicesInLedger => true,
            Ownership::InLedger => false,
        }
    }
}

/// Returns the permission bits that a file has on disk so that a process with one id can do with it what root may: no set-id
/// bits, and all that its owner needs. The sticky bit stays.
pub fn mode_on_disk(mode: u32, is_directory: bool) -> u32 {
    let owners = if is_directory { 0o700 } else { 0o600 };
    (mode & 0o1777) | owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_on_disk_leave_the_owner_every_right_and_nobody_a_set_id_bit() {
        for (mode, is_directory, expected) in [
            (0o4755, false, 0o755),
            (0o2755, true, 0o755),
            (0o0000, false, 0o600),
            (0o0444, false, 0o644),
            (0o1777, true, 0o1777),
            (0o0555, true, 0o755),
        ] {
            assert_eq!(mode_on_disk(mode, is_directory), expected, "{mode:o}");
        }
    }

    #[test]
    fn an_entry_without_a_birth_is_of_whatever_file_has_the_number() {
        let file = |birth| FileId {
            device: (1, 2),
            inode: 3,
            birth,
        };
        let owned = |uid| Attributes {
            uid,
            ..Attributes::default()
        };
        let mut ledger = Ledger::default();
        ledger.insert(file((5, 0)), owned(1));
        assert_eq!(ledger.get(&file((6, 0))), None);
        ledger.insert(file((0, 0)), owned(2));
        assert_eq!(ledger.get(&file((5, 0))), Some(&owned(1)));
        assert_eq!(ledger.get(&file((6, 0))), Some(&owned(2)));
        // Known by its number before it is copied up, and so afterwards.
        ledger.insert(file((6, 0)), owned(3));
        assert_eq!(ledger.get(&file((7, 0))), Some(&owned(3)));
        ledger.insert(file((7, 0)), owned(4));
        assert_eq!(ledger.get(&file((8, 0))), Some(&owned(4)));
        ledger.remove(&file((7, 0)));
        assert_eq!(ledger.get(&file((7, 0))), None);
    }

    #[test]
    fn only_what_the_disk_shows_by_itself_is_plain() {
        let plain = Attributes {
            mode: 0o644,
            ..Attributes::default()
        };
        assert!(plain.is_plain(0o644));
        assert!(!plain.is_plain(0o600));
        for other in [
            Attributes {
                uid: 1,
                ..plain.clone()
            },
            Attributes {
                gid: 1,
                ..plain.clone()
            },
            Attributes {
                device: Some(DeviceNumber {
                    is_block: false,
                    major: 1,
                    minor: 3,
                }),
                ..plain.clone()
            },
            Attributes {
                xattrs: [(b"security.capability".to_vec(), vec![1])].into(),
                ..plain
            },
        ] {
            assert!(!other.is_plain(0o644), "{other:?}");
        }
    }
}
