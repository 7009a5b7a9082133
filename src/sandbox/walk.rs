//! Paths inside a root that nobody trusts: resolved component by component, so that no link leads out of it.
//!
//! Every step opens one name without following it; a link's text is walked like the rest of the path, `/` in it is the root,
//! and `..` stops there. Links of /proc that lead elsewhere than their text says are therefore never taken. What is mounted in
//! the root is entered like any directory.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};
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

impl Kind {
    /// Refuses what is of the other kind.
    pub(super) fn check(self, found: BorrowedFd<'_>) -> Result<(), Errno> {
        let is_directory = FileType::from_raw_mode(fstat(found)?.st_mode) == FileType::Directory;
        match (self, is_directory) {
            (Kind::Directory, false) => Err(Errno::NOTDIR),
            (Kind::File, true) => Err(Errno::ISDIR),
            _ => Ok(()),
        }
    }
}

/// Opens (`O_PATH`) what `path` leads to inside `root`.
#[cfg(test)]
pub(super) fn find(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    walk(root, path, |_, _, _| Err(Errno::NOENT))
}

/// Opens (`O_PATH`) what `path` leads to inside `root`; `missing` is asked, with the directory, the name and whether it is the last one, to supply what is not there.
pub(super) fn walk(
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
            Err(Errno::NOENT) => match missing(parent, &name, rest.is_empty()) {
                // In a cache that is shared another step was quicker.
                Err(Errno::EXIST) => open(parent, &name)?,
                other => other?,
            },
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

pub(super) fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

pub(super) fn errno(error: std::io::Error) -> Errno {
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
    fn what_another_made_meanwhile_is_taken_as_it_is() {
        let (root, fd) = root();
        for made in ["new", "a/b/new"] {
            let at = root.path().join(made);
            let found = walk(fd.as_fd(), &format!("/{made}"), |_, _, _| {
                // A link, which is followed like any other.
                symlink("/etc/hosts", &at).unwrap();
                Err(Errno::EXIST)
            });
            let expected = inode(&root.path().join("etc/hosts"));
            assert_eq!(fstat(found.unwrap()).unwrap().st_ino, expected);
        }
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
}
