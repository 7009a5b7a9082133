//! Owner, mode, attributes and times of what an archive describes.
//!
//! The order matters: after the content the owner, whose change clears setuid bits and capabilities; then mode, attributes,
//! time. Each function returns how many attributes this machine did not take.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::layer::{Entry, EntryKind};

use super::error::{During, RootfsError, Shown, rooted};
use super::stat::{FileKind, Stat};
use super::tree::{proc_path, times};
use super::xattr::{self, Fate, Naming};

/// Describes an open file or directory, all but its time.
pub(super) fn describe(
    file: BorrowedFd<'_>,
    path: &[u8],
    entry: &Entry,
    naming: Naming,
) -> Result<u64, RootfsError> {
    let (uid, gid) = owner(entry);
    rustix::fs::fchown(file, uid, gid).map_err(|error| owner_error(path, entry, error))?;
    rustix::fs::fchmod(file, mode(entry)).during("chmod", rooted(path))?;
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
        match rustix::fs::fsetxattr(file, &name, value, XattrFlags::empty()) {
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
) -> Result<u64, RootfsError> {
    let (uid, gid) = owner(entry);
    rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| owner_error(path, entry, error))?;
    // Follows links, so it must not be called for one.
    if !matches!(entry.kind, EntryKind::Symlink { .. }) {
        rustix::fs::chmodat(parent, name, mode(entry), AtFlags::empty())
            .during("chmod", rooted(path))?;
    }
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
) -> Result<(), RootfsError> {
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
            .map_err(|error| owner_error(path, entry, error))?;
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
    rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .during("set the time of", rooted(path))
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

fn owner_error(path: &[u8], entry: &Entry, error: Errno) -> RootfsError {
    let path = rooted(path).shown();
    match error {
        Errno::INVAL => RootfsError::Owner {
            path,
            uid: entry.uid,
            gid: entry.gid,
            source: error.into(),
        },
        _ => RootfsError::Io {
            verb: "chown",
            path,
            source: error.into(),
        },
    }
}
