//! An opened root directory: the one way to name files inside an image.
//!
//! In: paths of bytes, from Dockerfiles, images and archives. Out: file descriptors and facts. Every path resolves beneath
//! the root as a process confined to it would see it; no answer ever depends on the host's tree. What a tree holds is hostile:
//! nothing is opened before it is known to be a regular file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::layer::Mtime;

use super::error::{During, RootfsError, Shown, rooted};
use super::owners::Owners;
use super::pool::Reading;
use super::resolve::{
    self, End, Obstacle, PATH_DIRECTORY, READ_DIRECTORY, Refused, Walker, split_last,
};
use super::stat::{FileKind, Stat};
use super::xattr::Naming;

/// A root directory, and where the truth about its files is; cheap to clone by [`Tree::try_clone`].
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    owners: Owners,
    /// How names of attributes are to be understood in it; `None` where the file system tells.
    naming: Option<Naming>,
    is_composed: bool,
    /// Keeps writers out of it.
    reading: Option<Arc<Reading>>,
}

impl Tree {
    /// Opens a directory of the host as a root.
    pub fn open(path: &Path) -> Result<Tree, RootfsError> {
        let root = rustix::fs::open(path, PATH_DIRECTORY, Mode::empty())
            .during("open", path.as_os_str().as_bytes())?;
        Ok(Tree {
            // It may lie on overlayfs and is no mount of ours all the same.
            naming: Some(Naming::Escaped),
            ..Tree::from_fd(root)
        })
    }

    /// Takes an open directory as a root; [`mount_overlay`](super::mount_overlay) returns such.
    pub fn from_fd(root: OwnedFd) -> Tree {
        Tree {
            root,
            owners: Owners::OnDisk,
            naming: None,
            is_composed: false,
            reading: None,
        }
    }

    /// Takes a root of [`Trees`](super::Trees).
    pub(super) fn composed(root: OwnedFd, owners: Owners, reading: Option<Arc<Reading>>) -> Tree {
        Tree {
            root,
            owners,
            // As a command sees it, and as it sets them.
            naming: Some(Naming::Mounted),
            is_composed: true,
            reading,
        }
    }

    /// Says that the truth about the tree's files is in `owners`.
    pub fn with_owners(self, owners: Owners) -> Tree {
        Tree { owners, ..self }
    }

    /// Returns where the truth about the tree's files is.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Tells whether it is a plain directory of [`Trees`](super::Trees), and no mount.
    pub fn is_composed(&self) -> bool {
        self.is_composed
    }

    /// Hands over the root; a composed tree's may be changed by others then.
    pub fn into_fd(self) -> OwnedFd {
        self.root
    }

    /// Tells how names of attributes are to be understood in it.
    pub(super) fn naming(&self) -> io::Result<Naming> {
        match self.naming {
            Some(naming) => Ok(naming),
            None => Naming::of(self.as_fd()),
        }
    }

    /// Returns the root directory. It may be an `O_PATH` descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns another handle of the same root; a mount lives as long as the last of them.
    pub fn try_clone(&self) -> Result<Tree, RootfsError> {
        Ok(Tree {
            root: self.root.try_clone().during("clone", "/")?,
            owners: self.owners.clone(),
            naming: self.naming,
            is_composed: self.is_composed,
            reading: self.reading.clone(),
        })
    }

    /// Opens a regular file for reading; links are followed.
    pub fn open_file(&self, path: &[u8]) -> Result<File, RootfsError> {
        self.find_file(path)?
            .ok_or(Errno::NOENT)
            .during("open", rooted(path))
    }

    /// Opens whatever is at `path` as an `O_PATH` descriptor.
    pub fn open_path(&self, path: &[u8], follow_last: bool) -> Result<OwnedFd, RootfsError> {
        self.open_o_path(path, follow_last)
            .during("open", rooted(path))
    }

    /// Returns the content of a regular file of at most `limit` bytes, or `None` where there is nothing; links are followed.
    pub fn read_small(&self, path: &[u8], limit: usize) -> Result<Option<Vec<u8>>, RootfsError> {
        let Some(file) = self.find_file(path)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        file.take(limit as u64 + 1)
            .read_to_end(&mut content)
            .during("read", rooted(path))?;
        if content.len() > limit {
            return Err(RootfsError::TooLarge {
                path: rooted(path).shown(),
                limit,
            });
        }
        Ok(Some(content))
    }

    /// Returns what is at `path`, or `None` where there is nothing.
    pub fn stat(&self, path: &[u8], follow_last: bool) -> Result<Option<Stat>, RootfsError> {
        match self.open_o_path(path, follow_last) {
            Ok(file) => Ok(Some(
                self.owners.stat_of(&file).during("stat", rooted(path))?,
            )),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error).during("stat", rooted(path)),
        }
    }

    /// Makes the directory `path` and what is missing above it, and returns the paths that were made, links resolved, outermost
    /// first. Links on the way are followed, also those whose target has to be made. What exists stays as it is; a file in the
    /// way is an error. They, and the
    /// existing ones that they are put into, get `mtime`, or the present time without one.
    pub fn make_dirs(
        &self,
        path: &[u8],
        owner: (u32, u32),
        mode: u32,
        mtime: Option<Mtime>,
    ) -> Result<Vec<Vec<u8>>, RootfsError> {
        let mut made = Vec::new();
        let mut walker = Walker::new(self.as_fd());
        let end = walker.go(path, true, &mut |walk, name, obstacle| {
            if obstacle == Obstacle::Whiteout {
                return Ok(false);
            }
            make_directory(walk.directory(), name, owner, mode, &self.owners)?;
            made.push(walk.path_of(name));
            Ok(true)
        });
        match end {
            Ok(End::Directory) => {}
            Ok(End::Other(name)) => return Err(not_a_directory(&walker.path_of(&name))),
            Err(refused) => return Err(from_refused(refused, "make directory")),
        }
        if let Some(mtime) = mtime {
            // After all of them exist: a new entry sets its parent's time.
            let parents = made.iter().map(|path| split_last(path).0);
            let changed: BTreeSet<&[u8]> = made.iter().map(Vec::as_slice).chain(parents).collect();
            for path in changed {
                resolve::open_directory_beneath(self.as_fd(), path, OFlags::empty())
                    .and_then(|directory| Ok(rustix::fs::futimens(&directory, &times(mtime))?))
                    .during("set the time of", rooted(path))?;
            }
        }
        Ok(made)
    }

    fn open_o_path(&self, path: &[u8], follow_last: bool) -> io::Result<OwnedFd> {
        let mut flags = OFlags::PATH;
        flags.set(OFlags::NOFOLLOW, !follow_last);
        resolve::open_in_root(self.as_fd(), path, flags)
    }

    fn find_file(&self, path: &[u8]) -> Result<Option<File>, RootfsError> {
        // Looked at before it is opened: opening a device or a FIFO can act or wait.
        match self.stat(path, true)? {
            None => return Ok(None),
            Some(stat) if stat.kind == FileKind::File => {}
            Some(_) => {
                return Err(RootfsError::NotAFile {
                    path: rooted(path).shown(),
                });
            }
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = resolve::open_in_root(self.as_fd(), path, flags).during("open", rooted(path))?;
        if stat_of(&file).during("stat", rooted(path))?.kind != FileKind::File {
            return Err(RootfsError::NotAFile {
                path: rooted(path).shown(),
            });
        }
        Ok(Some(File::from(file)))
    }
}

/// Makes one directory whose owner and mode do not depend on the process or the parent.
pub(super) fn make_directory(
    parent: BorrowedFd<'_>,
    name: &[u8],
    owner: (u32, u32),
    mode: u32,
    owners: &Owners,
) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
    let directory = rustix::fs::openat(parent, name, READ_DIRECTORY, Mode::empty())?;
    owners.describe(directory.as_fd(), owner, mode)?;
    Ok(directory)
}

pub(super) fn stat_of(file: impl AsFd) -> io::Result<Stat> {
    Ok(rustix::fs::fstat(file)?.into())
}

/// Returns what is at `name` in `parent`, a link itself, or `None` where there is nothing.
pub(super) fn stat_at(parent: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the argument of `futimens` that sets the modification time alone.
pub(super) fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanoseconds.min(999_999_999).into(),
        },
    }
}

/// Returns a host path of an open file, for the few calls that take no descriptor.
pub(super) fn proc_path(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

pub(super) fn not_a_directory(path: &[u8]) -> RootfsError {
    RootfsError::NotADirectory {
        path: rooted(path).shown(),
    }
}

pub(super) fn from_refused(refused: Refused, verb: &'static str) -> RootfsError {
    if refused.source.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) {
        return not_a_directory(&refused.path);
    }
    RootfsError::Io {
        verb,
        path: rooted(&refused.path).shown(),
        source: refused.source,
    }
}

/// A path below a file names nothing, as one below a missing directory does.
fn is_missing(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn me() -> (u32, u32) {
        let uid = rustix::process::geteuid().as_raw();
        (uid, rustix::process::getegid().as_raw())
    }

    fn tree() -> (tempfile::TempDir, Tree) {
        let host = tempfile::tempdir().unwrap();
        std::fs::create_dir(host.path().join("root")).unwrap();
        std::fs::write(host.path().join("secret"), "host").unwrap();
        let tree = Tree::open(&host.path().join("root")).unwrap();
        (host, tree)
    }

    #[test]
    fn links_and_dots_stay_in_the_root() {
        let (host, tree) = tree();
        let root = host.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/passwd"), "image").unwrap();
        std::fs::write(root.join("secret"), "image").unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        symlink("../../../../../secret", root.join("up")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let check = |path: &str, expected: Option<&str>| {
            let found = tree.read_small(path.as_bytes(), 100).ok().flatten();
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path}");
        };
        check("absolute/passwd", Some("image"));
        check("/absolute/../../../etc/passwd", Some("image"));
        check("up", Some("image"));
        check("../secret", Some("image"));
        check("magic/secret", None);
        check("loop", None);
        check("etc/passwd/x", None);
        check("etc", None);
    }

    #[test]
    fn the_walk_by_hand_agrees_with_the_kernel() {
        let (host, tree) = tree();
        let root = host.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/file"), "").unwrap();
        symlink("/a", root.join("link")).unwrap();
        symlink("../../../link/b", root.join("a/b/up")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        for path in [
            "",
            "/",
            ".",
            "a",
            "a/",
            "a/b/..",
            "a/file",
            "a/file/x",
            "link",
            "link/b/up",
            "link/../..",
            "dangling",
            "missing/x",
            "a/b/up/up/up/../file",
        ] {
            for flags in [OFlags::PATH, OFlags::PATH | OFlags::NOFOLLOW] {
                let kernel = resolve::open_in_root(tree.as_fd(), path.as_bytes(), flags);
                let walked = resolve::open_by_walking(
                    tree.as_fd(),
                    path.as_bytes(),
                    flags | OFlags::CLOEXEC,
                );
                let inode = |found: io::Result<OwnedFd>| match found {
                    Ok(file) => Ok(stat_of(file).unwrap().inode),
                    Err(error) => Err(error.raw_os_error()),
                };
                assert_eq!(inode(walked), inode(kernel), "{path} {flags:?}");
            }
        }
    }

    #[test]
    fn paths_longer_than_the_kernel_takes_are_walked() {
        let (_host, tree) = tree();
        let path = vec!["d".repeat(200); 30].join("/");
        let made = tree.make_dirs(path.as_bytes(), me(), 0o755, None);
        assert_eq!(made.unwrap().len(), 30);
        let stat = tree.stat(path.as_bytes(), true).unwrap().unwrap();
        assert!(stat.is_directory());
    }

    #[test]
    fn a_fifo_is_no_file_and_is_not_waited_for() {
        let (host, tree) = tree();
        let root =
            rustix::fs::open(host.path().join("root"), PATH_DIRECTORY, Mode::empty()).unwrap();
        rustix::fs::mknodat(&root, "fifo", rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(
            tree.open_file(b"fifo"),
            Err(RootfsError::NotAFile { .. })
        ));
        assert!(matches!(
            tree.read_small(b"fifo", 1),
            Err(RootfsError::NotAFile { .. })
        ));
    }

    #[test]
    fn a_file_above_the_limit_is_refused() {
        let (host, tree) = tree();
        std::fs::write(host.path().join("root/f"), "12345").unwrap();
        assert_eq!(tree.read_small(b"f", 5).unwrap().unwrap(), b"12345");
        assert!(matches!(
            tree.read_small(b"f", 4),
            Err(RootfsError::TooLarge { .. })
        ));
        assert_eq!(tree.read_small(b"g", 4).unwrap(), None);
    }

    #[test]
    fn directories_are_made_through_links_and_a_file_in_the_way_is_named() {
        let (host, tree) = tree();
        let root = host.path().join("root");
        symlink("/made/by/link", root.join("dangling")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        let mtime = Mtime {
            seconds: 7,
            nanoseconds: 5,
        };
        let made = tree
            .make_dirs(b"/dangling/x", me(), 0o1750, Some(mtime))
            .unwrap();
        let names: Vec<_> = made.iter().map(|path| path.as_slice().shown()).collect();
        assert_eq!(names, ["made", "made/by", "made/by/link", "made/by/link/x"]);
        for path in &made {
            let stat = tree.stat(path, false).unwrap().unwrap();
            assert_eq!(
                (stat.mode, stat.mtime),
                (0o1750, mtime),
                "{}",
                path.as_slice().shown()
            );
        }
        assert_eq!(
            tree.make_dirs(b"dangling/x", me(), 0o700, None).unwrap(),
            Vec::<Vec<u8>>::new()
        );
        for path in ["file", "file/x"] {
            let error = tree
                .make_dirs(path.as_bytes(), me(), 0o755, None)
                .unwrap_err();
            assert_eq!(error.to_string(), "`/file` is not a directory");
        }
    }
}
