//! Mount points that are made where a root lacks them, and taken away again.
//!
//! A mount point is remembered with its parent directory, both open. It is removed only if it is still there and empty, and
//! then its parent gets back the time it had before, unless something else has changed it meanwhile. Whatever a command puts
//! in its place, or beside it in a directory that was made for it, stays.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, Stat, Timespec, Timestamps, fstat, mkdirat, mknodat, statat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::walk::{self, Kind, errno};
use super::wire::{Reader, Writer};

/// The mount points that had to be made, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Stubs(Vec<Stub>);

/// One of them.
#[derive(Debug)]
pub(super) struct Stub {
    parent: OwnedFd,
    /// Keeps its inode from being given to something else.
    made: OwnedFd,
    name: CString,
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
        let found = walk::walk(root, path, |parent, name, is_last| {
            let stub = Stub::make(parent, name, !is_last || kind == Kind::Directory)?;
            let made = stub.made()?;
            self.0.push(stub);
            Ok(made)
        })?;
        kind.check(found.as_fd())?;
        Ok(found)
    }

    /// Takes one over that was made elsewhere, after all that are here.
    pub(super) fn push(&mut self, stub: Stub) {
        self.0.push(stub);
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
    /// Makes a directory or an empty file.
    pub(super) fn make(
        parent: BorrowedFd<'_>,
        name: &CStr,
        is_directory: bool,
    ) -> Result<Stub, Errno> {
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
        let made = walk::open(parent, name)?;
        Ok(Stub {
            made,
            name: name.to_owned(),
            is_directory,
            parent_before: times(&before),
            parent_after: times(&fstat(parent)?).last_modification,
            parent: parent.try_clone_to_owned().map_err(errno)?,
        })
    }

    /// Returns a descriptor (`O_PATH`) of what was made.
    pub(super) fn made(&self) -> Result<OwnedFd, Errno> {
        self.made.try_clone().map_err(errno)
    }

    /// Returns all but the descriptors.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(self.name.as_bytes());
        writer.claim(self.is_directory);
        for time in [
            &self.parent_before.last_access,
            &self.parent_before.last_modification,
            &self.parent_after,
        ] {
            writer.i64(time.tv_sec);
            writer.i64(time.tv_nsec);
        }
        writer.0
    }

    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.parent.as_fd(), self.made.as_fd()]
    }

    /// Returns `None` for anything that [`Stub::encode`] and [`Stub::descriptors`] do not make.
    pub(super) fn decode(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Option<Stub> {
        let [parent, made] = <[OwnedFd; 2]>::try_from(descriptors).ok()?;
        let mut reader = Reader(bytes);
        let name = CString::new(reader.bytes()?).ok()?;
        let is_directory = reader.claim()?;
        let mut time = || {
            Some(Timespec {
                tv_sec: reader.i64()?,
                tv_nsec: reader.i64()?,
            })
        };
        let parent_before = Timestamps {
            last_access: time()?,
            last_modification: time()?,
        };
        let parent_after = time()?;
        reader.finish(Stub {
            parent,
            made,
            name,
            is_directory,
            parent_before,
            parent_after,
        })
    }

    fn remove(&self) -> Result<(), Errno> {
        let present = statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let made = fstat(&self.made)?;
        if (present.st_dev, present.st_ino) != (made.st_dev, made.st_ino) {
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn root() -> (TempDir, File) {
        let root = TempDir::new().unwrap();
        let at = root.path();
        fs::create_dir_all(at.join("etc")).unwrap();
        fs::write(at.join("etc/hosts"), "image's").unwrap();
        fs::write(at.join("file"), "").unwrap();
        symlink("../run/systemd/resolv.conf", at.join("etc/resolv.conf")).unwrap();
        let fd = File::open(at).unwrap();
        (root, fd)
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
