//! Directory trees that others have made: removing and measuring them.
//!
//! The trees are hostile: directories without permissions, symbolic links to anywhere, any depth. Everything goes by open
//! directory and single name, never through a link, with a bounded number of open files and a bounded stack.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::StoreError;
use super::fault;

/// Directories deeper than this are moved up before they are emptied.
const DEPTH: usize = 48;

/// Removes whatever `path` names; nothing there is fine. Goes on after a failure and returns the first one.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    let remove = || -> io::Result<()> {
        fault::removal();
        match open_dir(CWD, path) {
            Ok(top) => {
                let mut removal = Removal {
                    top: top.as_fd(),
                    moved: 0,
                    first: None,
                };
                removal.empty(top.try_clone()?, 0);
                if let Some(error) = removal.first {
                    return Err(error.into());
                }
                Ok(rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
            }
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                Ok(rustix::fs::unlinkat(CWD, path, AtFlags::empty())?)
            }
            Err(error) => Err(error.into()),
        }
    };
    match remove() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::from_io(path, "remove", error))
        }
        _ => Ok(()),
    }
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
    first: Option<Errno>,
}

impl Removal<'_> {
    fn empty(&mut self, directory: OwnedFd, depth: usize) {
        let mut directory = match Dir::new(directory) {
            Ok(directory) => directory,
            Err(error) => return self.note(error),
        };
        // Until a pass meets nothing: what was moved up appears late, and some file systems skip entries when a directory
        // changes below its reader.
        loop {
            let (mut removed, mut left) = (false, false);
            directory.rewind();
            while let Some(entry) = directory.read() {
                let (entry, parent) = match (entry, directory.fd()) {
                    (Ok(entry), Ok(parent)) => (entry, parent),
                    (Err(error), _) | (_, Err(error)) => return self.note(error),
                };
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                match self.remove_entry(parent, name, entry.file_type(), depth) {
                    Ok(()) | Err(Errno::NOENT) => removed = true,
                    Err(error) => {
                        self.note(error);
                        left = true;
                    }
                }
            }
            if left || !removed {
                return;
            }
        }
    }

    fn remove_entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        depth: usize,
    ) -> rustix::io::Result<()> {
        if kind != FileType::Directory {
            match unlink(parent, name, AtFlags::empty()) {
                // Of unknown kind, and a directory after all.
                Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
                result => return result,
            }
        }
        match unlink(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            result => return result,
        }
        if depth == DEPTH {
            loop {
                self.moved += 1;
                let to = CString::new(format!(".removed-{}", self.moved)).expect("no NUL inside");
                match rustix::fs::renameat(parent, name, self.top, &to) {
                    // The tree has such a name itself, or an earlier removal was cut short.
                    Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                    result => return result,
                }
            }
        }
        let directory = match open_dir(parent, name) {
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                open_dir(parent, name)
            }
            result => result,
        }?;
        self.empty(directory, depth + 1);
        unlink(parent, name, AtFlags::REMOVEDIR)
    }

    fn note(&mut self, error: Errno) {
        self.first.get_or_insert(error);
    }
}

/// Unlinks; where the directory forbids it, gives its owner the right first.
fn unlink(parent: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> rustix::io::Result<()> {
    fault::removal();
    match rustix::fs::unlinkat(parent, name, flags) {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(parent, Mode::RWXU)?;
            rustix::fs::unlinkat(parent, name, flags)
        }
        result => result,
    }
}

fn open_dir<P: rustix::path::Arg>(parent: BorrowedFd<'_>, name: P) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Returns the bytes of all regular files below `path`, a file with several names counted once. Directories that cannot be
/// read are an error; a missing `path` is zero bytes.
pub(super) fn size(path: &Path) -> Result<u64, StoreError> {
    let fail = |error: Errno| StoreError::from_io(path, "measure", error.into());
    let mut total = 0;
    let mut linked = std::collections::HashSet::new();
    // By path and not by open directory, so that any number of directories can wait. Nobody else changes these trees.
    let mut waiting = vec![path.to_owned()];
    while let Some(at) = waiting.pop() {
        let mut directory = match open_dir(CWD, &at) {
            Ok(directory) => Dir::new(directory).map_err(fail)?,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(fail(error)),
        };
        while let Some(entry) = directory.read() {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let parent = directory.fd().map_err(fail)?;
            let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(fail(error)),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    use std::os::unix::ffi::OsStrExt;
                    waiting.push(at.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
                }
                FileType::RegularFile
                    if stat.st_nlink == 1 || linked.insert((stat.st_dev, stat.st_ino)) =>
                {
                    total += stat.st_size as u64;
                }
                _ => {}
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Runs as a user whom permissions bind: in a thread of that user, where the tests run as root.
    fn unprivileged(dir: &Path, test: impl FnOnce() + Send) {
        let nobody = nix::unistd::Uid::from_raw(65534);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if nix::unistd::geteuid().is_root() {
                    if let Err(error) = nix::unistd::chown(dir, Some(nobody), None) {
                        return crate::store::tests::did_not_run(&format!(
                            "the only user here is root ({error})"
                        ));
                    }
                    nix::unistd::setfsuid(nobody);
                }
                test();
            });
        });
    }

    #[test]
    fn the_owner_of_a_tree_without_permissions_can_remove_it() {
        let dir = tempfile::tempdir().unwrap();
        unprivileged(dir.path(), || {
            let tree = dir.path().join("tree");
            fs::create_dir_all(tree.join("a/b/c")).unwrap();
            fs::write(tree.join("a/b/f"), "x").unwrap();
            fs::create_dir(tree.join("empty")).unwrap();
            for (name, mode) in [("a/b/c", 0o0), ("a/b", 0o555), ("a", 0o0), ("empty", 0o0)] {
                fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
            }
            fs::set_permissions(&tree, fs::Permissions::from_mode(0o555)).unwrap();
            assert!(matches!(size(&tree), Err(StoreError::Denied { .. })));
            remove(&tree).unwrap();
            assert!(!tree.exists());
        });
    }

    #[test]
    fn a_tree_without_permissions_is_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/f"), "x").unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        for name in ["a/b", "a"] {
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(0o0)).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove(&tree).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_paths_can_be_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open_dir(CWD, &tree).unwrap();
        for _ in 0..1500 {
            for name in ["d", "e"] {
                rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            }
            at = open_dir(at.as_fd(), "d").unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_link_in_the_place_of_a_tree_is_removed_itself() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        symlink("target", dir.path().join("link")).unwrap();
        remove(&dir.path().join("link")).unwrap();
        assert!(dir.path().join("target").exists());
    }

    #[test]
    fn a_file_with_two_names_is_measured_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/a"), "12345").unwrap();
        fs::hard_link(dir.path().join("d/a"), dir.path().join("b")).unwrap();
        fs::write(dir.path().join("c"), "12").unwrap();
        assert_eq!(size(dir.path()).unwrap(), 7);
    }
}
