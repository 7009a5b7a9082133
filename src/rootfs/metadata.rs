//! Owner, mode, attributes and times of what an archive describes.
//!
//! The order matters: after the content the owner, whose change clears setuid bits and capabilities; then mode, attributes,
//! time. What the disk cannot hold goes to the tree's ledger (see [`Owners`]). Each function returns how many attributes this machine did not take.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::layer::{Entry, EntryKind};

use super::error::{During, RootfsError, Shown, rooted};
use super::owners::{DescribeError, Owners};
use super::stat::{FileKind, Stat};
use super::tree::{proc_path, times};
use super::xattr::{self, Fate, Naming};

/// Describes an open file or directory, all but its time.
pub(super) fn describe(
    file: BorrowedFd<'_>,
    path: &[u8],
    entry: &Entry,
    naming: Naming,
    owners: &Owners,
) -> Result<u64, RootfsError> {
    owners
        .describe(file, (entry.uid, entry.gid), entry.mode)
        .map_err(|error| refused(path, entry, error))?;
    let mut skipped = 0;
    for (name, value) in &entry.xattrs {
        let (name, needed) = match xattr::fate(name, naming) {
            Fate::Drop => continue,
            Fate::Need(name) => (name, true),
            Fate::Try(name) => (name, false),
        };
        let converted;
        let mut value = value.as_slice();
        if name == xattr::CAPABILITY {
            converted = xattr::without_root_id(value.to_vec());
            value = &converted;
        }
        match owners.set_xattr(file, &name, value) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) if !needed => {
                skipped += 1;
            }
            Err(error) => {
                let what = [path, b": ".as_slice(), &name].concat();
                return Err(error).during("set the extended attribute", rooted(&what));
            }
        }
    }
    Ok(skipped)
}

/// Describes a link, FIFO or device that was made a moment ago; the kernel lets none of them have attributes that matter.
pub(super) fn describe_node(
    parent: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    entry: &Entry,
    naming: Naming,
    owners: &Owners,
) -> Result<u64, RootfsError> {
    let has_mode = !matches!(entry.kind, EntryKind::Symlink { .. });
    let mode = has_mode.then_some(entry.mode);
    owners
        .describe_at(parent, name, (entry.uid, entry.gid), mode)
        .map_err(|error| refused(path, entry, error))?;
    rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .during("set the time of", rooted(path))?;
    let wanted = |name: &&Vec<u8>| xattr::fate(name, naming) != Fate::Drop;
    Ok(entry.xattrs.keys().filter(wanted).count() as u64)
}

/// Applies a hard link's entry to the file that it shares, which was `before`. Its attributes stay, also the capabilities that
/// a change of owner clears.
pub(super) fn describe_link(
    parent: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    before: &Stat,
    entry: &Entry,
    owners: &Owners,
) -> Result<(), RootfsError> {
    let set_time = || {
        rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .during("set the time of", rooted(path))
    };
    if !owners.ownership().gives_away() {
        let mode = (before.kind != FileKind::Symlink).then_some(entry.mode);
        owners
            .describe_at(parent, name, (entry.uid, entry.gid), mode)
            .map_err(|error| refused(path, entry, error))?;
        return set_time();
    }
    if (before.uid, before.gid) != (entry.uid, entry.gid) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(parent, name, flags, Mode::empty()).during("open", rooted(path))?;
        let capability = match before.kind {
            FileKind::File => capability(&file),
            _ => None,
        };
        let (uid, gid) = owner(entry);
        rustix::fs::chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH)
            .map_err(|error| refused(path, entry, DescribeError::Owner(error)))?;
        if let Some(value) = capability {
            let handle = proc_path(&file);
            rustix::fs::setxattr(handle, xattr::CAPABILITY, &value, XattrFlags::empty())
                .during("set the capabilities of", rooted(path))?;
        }
    }
    if before.kind != FileKind::Symlink {
        rustix::fs::chmodat(parent, name, mode(entry), AtFlags::empty())
            .during("chmod", rooted(path))?;
    }
    set_time()
}

/// Reads the capabilities of a file that is open as a path only.
fn capability(file: impl AsFd) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(proc_path(file), xattr::CAPABILITY, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o7777)
}

fn refused(path: &[u8], entry: &Entry, error: DescribeError) -> RootfsError {
    let path = rooted(path).shown();
    match error {
        DescribeError::Owner(Errno::INVAL) => RootfsError::Owner {
            path,
            uid: entry.uid,
            gid: entry.gid,
            source: Errno::INVAL.into(),
        },
        error => {
            let (verb, errno) = error.parts();
            RootfsError::Io {
                verb,
                path,
                source: errno.into(),
            }
        }
    }
}
