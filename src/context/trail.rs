//! A way down through directories that costs a bounded number of descriptors, however deep it goes.
//!
//! Only the innermost directories stay open. One that was closed is opened again through its child's `..`, and taken only if
//! it is the same directory as before: one that was moved meanwhile is an error, not a way out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, Result};

use super::meta::Meta;

/// So many directories stay open, besides the root.
const KEPT_OPEN: usize = 48;

/// A stack of directories: the root first, the innermost last.
#[derive(Debug)]
pub struct Trail {
    rungs: Vec<Rung>,
}

#[derive(Debug)]
enum Rung {
    Open(OwnedFd),
    Closed { device: (u32, u32), inode: u64 },
}

impl Trail {
    /// Starts at `root`.
    pub fn new(root: OwnedFd) -> Trail {
        Trail {
            rungs: vec![Rung::Open(root)],
        }
    }

    /// Returns the innermost directory.
    pub fn directory(&self) -> BorrowedFd<'_> {
        match self.rungs.last() {
            Some(Rung::Open(directory)) => directory.as_fd(),
            _ => unreachable!("the innermost directory is always open"),
        }
    }

    /// Returns where the trail started.
    pub fn root(&self) -> BorrowedFd<'_> {
        match self.rungs.first() {
            Some(Rung::Open(root)) => root.as_fd(),
            _ => unreachable!("the root stays open"),
        }
    }

    /// Returns how many directories lie below the root.
    pub fn depth(&self) -> usize {
        self.rungs.len() - 1
    }

    /// Goes into `directory`, which must be a child of the innermost one.
    pub fn push(&mut self, directory: OwnedFd) -> Result<()> {
        self.rungs.push(Rung::Open(directory));
        let Some(far) = self.depth().checked_sub(KEPT_OPEN).filter(|&far| far > 0) else {
            return Ok(());
        };
        if let Rung::Open(directory) = &self.rungs[far] {
            let meta = Meta::of(directory)?;
            self.rungs[far] = Rung::Closed {
                device: meta.device,
                inode: meta.inode,
            };
        }
        Ok(())
    }

    /// Goes back up and returns the directory that was left; `None` at the root.
    ///
    /// Fails with `ESTALE` where the parent is no longer the one that was passed on the way down.
    pub fn pop(&mut self) -> Result<Option<OwnedFd>> {
        if self.depth() == 0 {
            return Ok(None);
        }
        let parent = self.rungs.len() - 2;
        if let Rung::Closed { device, inode } = self.rungs[parent] {
            let directory = open_directory(self.directory(), "..")?;
            let meta = Meta::of(&directory)?;
            if (meta.device, meta.inode) != (device, inode) {
                return Err(Errno::STALE);
            }
            self.rungs[parent] = Rung::Open(directory);
        }
        match self.rungs.pop() {
            Some(Rung::Open(directory)) => Ok(Some(directory)),
            _ => unreachable!("the innermost directory is always open"),
        }
    }
}

/// Opens the directory `name` of `parent` for reading; a link is `ENOTDIR`.
pub fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens the directory at `path`, component by component, following no link at all.
pub fn descend(root: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    let mut directory = open_directory(root, ".")?;
    for name in path.split(|&byte| byte == b'/') {
        if !name.is_empty() {
            directory = open_directory(&directory, name)?;
        }
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_way_keeps_few_descriptors_and_comes_back() {
        let temp = tempfile::tempdir().unwrap();
        let root = rustix::fs::open(temp.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut trail = Trail::new(root);
        for _ in 0..300 {
            rustix::fs::mkdirat(trail.directory(), "d", Mode::RWXU).unwrap();
            let child = open_directory(trail.directory(), "d").unwrap();
            trail.push(child).unwrap();
        }
        let open = |trail: &Trail| {
            trail
                .rungs
                .iter()
                .filter(|rung| matches!(rung, Rung::Open(_)))
                .count()
        };
        assert_eq!(open(&trail), KEPT_OPEN + 1);
        while trail.pop().unwrap().is_some() {}
        assert_eq!(trail.depth(), 0);
        assert_eq!(
            Meta::of(trail.directory()).unwrap().inode,
            Meta::of(std::fs::File::open(temp.path()).unwrap())
                .unwrap()
                .inode
        );
    }

    #[test]
    fn a_directory_moved_away_meanwhile_is_no_way_out() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("root/a")).unwrap();
        let root =
            rustix::fs::open(temp.path().join("root"), OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut trail = Trail::new(root);
        let down = |trail: &mut Trail, name: &str| {
            let path = trail.directory();
            match rustix::fs::mkdirat(path, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => panic!("{error}"),
            }
            let child = open_directory(trail.directory(), name).unwrap();
            trail.push(child).unwrap();
        };
        down(&mut trail, "a");
        down(&mut trail, "b");
        for _ in 0..KEPT_OPEN {
            down(&mut trail, "d");
        }
        std::fs::rename(temp.path().join("root/a/b"), temp.path().join("outside")).unwrap();
        let mut outcome = Ok(None);
        while trail.depth() > 1 {
            outcome = trail.pop();
            if outcome.is_err() {
                break;
            }
        }
        assert_eq!(outcome.map(|_| ()), Err(Errno::STALE));
    }
}
