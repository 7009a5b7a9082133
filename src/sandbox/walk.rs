//! Paths inside a root that nobody trusts: resolved component by component, so that no link leads out of it; and mount points
//! that are made where the root lacks them, and taken away again.
//!
//! Every step opens one name without following it; a link's text is walked like the rest of the path, `/` in it is the root,
//! and `..` stops there. Links of /proc that lead elsewhere than their text says are therefore never taken.
//!
//! A mount point is remembered by its parent directory and inode. It is removed only if it is still that inode and empty, and
//! then its parent gets back the time it had before, unless something else has changed it meanwhile.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fstat, mkdirat, mknodat, openat,
    readlinkat, statat, unlinkat, utimensat,
};
use rustix::io::Errno;

/// Links on one path, as the kernel counts them.
const LINKS: usize = 40;

/// What a mount point has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    /// Anything that is no directory.
    File,
}

/// Opens (`O_PATH`) what `path` leads to inside `root`.
pub(super) fn find(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    walk(root, path, |_, _, _| Err(Errno::NOENT))
}

/// The mount points that had to be made, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Stubs(Vec<Stub>);

#[derive(Debug)]
struct Stub {
    parent: OwnedFd,
    name: CString,
    device: u64,
    inode: u64,
    is_directory: bool,
    parent_before: Timestamps,
    parent_after: Timespec,
}

impl Stubs {
    /// Opens (`O_PATH`) what `path` leads to inside `root`, and makes it, with its parents, where it is missing.
    pub(super) fn find_or_make(
        &mut self,
        root: BorrowedFd<'_>,
        path: &str,
        kind: Kind,
    ) -> Result<OwnedFd, Errno> {
        let found = walk(root, path, |parent, name, is_last| {
            let is_directory = !is_last || kind == Kind::Directory;
            self.make(parent, name, is_directory)
        })?;
        let is_directory = FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Directory;
        match (kind, is_directory) {
            (Kind::Directory, false) => Err(Errno::NOTDIR),
            (Kind::File, true) => Err(Errno::ISDIR),
            _ => Ok(found),
        }
    }

    fn make(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        is_directory: bool,
    ) -> Result<OwnedFd, Errno> {
        let before = fstat(parent)?;
        if is_directory {
            mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
        } else {
            // Not `open`: it would copy up a lower file that appeared since.
            mknodat(
                parent,
                name,
                FileType::RegularFile,
                Mode::from_raw_mode(0o644),
                0,
            )?;
        }
        let made = open(parent, name)?;
        let stat = fstat(&made)?;
        self.0.push(Stub {
            parent: parent.try_clone_to_owned().map_err(errno)?,
            name: name.to_owned(),
            device: stat.st_dev,
            inode: stat.st_ino,
            is_directory,
            parent_before: times(&before),
            parent_after: times(&fstat(parent)?).last_modification,
        });
        Ok(made)
    }

    /// Leaves in place what was made so far.
    pub(super) fn keep(&mut self) {
        self.0.clear();
    }

    /// Removes what was made and is still as it was made, last first.
    pub(super) fn remove(self) {
        for stub in self.0.into_iter().rev() {
            // A mount point that stays behind is at worst an empty file in a layer; the command's own end is what counts.
            stub.remove().ok();
        }
    }
}

impl Stub {
    fn remove(&self) -> Result<(), Errno> {
        let present = statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (present.st_dev, present.st_ino) != (self.device, self.inode) {
            return Ok(());
        }
        let flags = if self.is_directory {
            // Fails, as it should, if something is in it.
            AtFlags::REMOVEDIR
        } else if present.st_size == 0 && present.st_nlink == 1 {
            AtFlags::empty()
        } else {
            return Ok(());
        };
        let parent_now = times(&fstat(&self.parent)?).last_modification;
        unlinkat(&self.parent, &self.name, flags)?;
        if parent_now == self.parent_after {
            utimensat(
                &self.parent,
                c".",
                &self.parent_before,
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(())
    }
}

/// Walks `path`; `missing` is asked, with the directory, the name and whether it is the last one, to supply what is not there.
fn walk(
    root: BorrowedFd<'_>,
    path: &str,
    mut missing: impl FnMut(BorrowedFd<'_>, &CStr, bool) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    let mut rest: VecDeque<Vec<u8>> = components(path.as_bytes()).collect();
    let mut directories: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == b".." {
            directories.pop();
            continue;
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let parent = directories
            .last()
            .map_or(root, |directory| directory.as_fd());
        let next = match open(parent, &name) {
            Err(Errno::NOENT) => missing(parent, &name, rest.is_empty())?,
            other => other?,
        };
        if FileType::from_raw_mode(fstat(&next)?.st_mode) != FileType::Symlink {
            // What is no directory and not the last one fails with ENOTDIR at the next turn.
            directories.push(next);
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(Errno::LOOP);
        }
        let target = readlinkat(&next, c"", Vec::new())?.into_bytes();
        if target.starts_with(b"/") {
            directories.clear();
        }
        for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(part);
        }
    }
    match directories.pop() {
        Some(found) => Ok(found),
        None => root.try_clone_to_owned().map_err(errno),
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: stat.st_atime_nsec as _,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    fn root() -> (TempDir, File) {
        let root = TempDir::new().unwrap();
        let at = root.path();
        fs::create_dir_all(at.join("etc")).unwrap();
        fs::create_dir_all(at.join("a/b")).unwrap();
        fs::write(at.join("etc/hosts"), "image's").unwrap();
        fs::write(at.join("file"), "").unwrap();
        symlink("/etc/hosts", at.join("absolute")).unwrap();
        symlink("../../../../etc/hosts", at.join("a/b/up")).unwrap();
        symlink("a/b", at.join("short")).unwrap();
        symlink("loop", at.join("loop")).unwrap();
        symlink("../run/systemd/resolv.conf", at.join("etc/resolv.conf")).unwrap();
        let fd = File::open(at).unwrap();
        (root, fd)
    }

    fn inode(path: &Path) -> u64 {
        fs::symlink_metadata(path).unwrap().ino()
    }

    #[test]
    fn links_stay_inside_the_root() {
        let (root, fd) = root();
        for (path, expected) in [
            ("/etc/hosts", Ok("etc/hosts")),
            ("/absolute", Ok("etc/hosts")),
            ("/a/b/up", Ok("etc/hosts")),
            ("/short/up", Ok("etc/hosts")),
            ("/../../etc/hosts", Ok("etc/hosts")),
            ("/short/..", Ok("a")),
            ("/", Ok("")),
            ("/loop", Err(Errno::LOOP)),
            ("/file/x", Err(Errno::NOTDIR)),
            ("/none", Err(Errno::NOENT)),
            ("/etc/resolv.conf", Err(Errno::NOENT)),
        ] {
            let found = find(fd.as_fd(), path).map(|found| fstat(found).unwrap().st_ino);
            let expected = expected.map(|name| inode(&root.path().join(name)));
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn stubs_come_and_go_without_a_trace() {
        let (root, fd) = root();
        let at = root.path();
        let before = fs::metadata(at).unwrap().modified().unwrap();
        let mut stubs = Stubs::default();
        stubs
            .find_or_make(fd.as_fd(), "/etc/resolv.conf", Kind::File)
            .unwrap();
        stubs
            .find_or_make(fd.as_fd(), "/m/n/f", Kind::File)
            .unwrap();
        stubs
            .find_or_make(fd.as_fd(), "/m/d", Kind::Directory)
            .unwrap();
        stubs
            .find_or_make(fd.as_fd(), "/etc/hosts", Kind::File)
            .unwrap();
        assert!(at.join("run/systemd/resolv.conf").is_file());
        assert!(at.join("m/n/f").is_file() && at.join("m/d").is_dir());
        stubs.remove();
        assert!(!at.join("run").exists() && !at.join("m").exists());
        assert_eq!(fs::read(at.join("etc/hosts")).unwrap(), b"image's");
        assert_eq!(fs::metadata(at).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn what_was_changed_since_is_not_removed() {
        let (root, fd) = root();
        let at = root.path();
        let mut stubs = Stubs::default();
        for path in ["/written", "/replaced", "/dir/f", "/linked"] {
            stubs.find_or_make(fd.as_fd(), path, Kind::File).unwrap();
        }
        fs::write(at.join("written"), "x").unwrap();
        fs::write(at.join("other"), "").unwrap();
        fs::rename(at.join("other"), at.join("replaced")).unwrap();
        fs::write(at.join("dir/own"), "").unwrap();
        fs::hard_link(at.join("linked"), at.join("link")).unwrap();
        stubs.remove();
        for path in ["written", "replaced", "dir/own", "linked"] {
            assert!(at.join(path).exists(), "{path}");
        }
        assert!(!at.join("dir/f").exists());
    }

    #[test]
    fn a_mount_point_of_the_wrong_kind_is_refused() {
        let (_root, fd) = root();
        let mut stubs = Stubs::default();
        let mut check = |path, kind| stubs.find_or_make(fd.as_fd(), path, kind).unwrap_err();
        assert_eq!(check("/etc", Kind::File), Errno::ISDIR);
        assert_eq!(check("/file", Kind::Directory), Errno::NOTDIR);
        assert_eq!(check("/file/x", Kind::File), Errno::NOTDIR);
    }
}
