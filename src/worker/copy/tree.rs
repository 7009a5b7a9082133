//! Merges directories of a source into directories of the root, and makes the directories of `--parents`.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, futimens, linkat, mkdirat};
use rustix::io::Errno;

use super::destination::remove;
use super::{Copier, CopyError, io, shown, times};
use crate::context::{
    ContextError, Kind, Meta, Node, ParentDirectory, SelectedRoot, Selection, Source, Trail, Visit,
    Xattrs, descend, open_directory, read_xattrs,
};

/// What a directory gets when its contents are complete.
enum Finish {
    /// Everything that the source's directory has.
    All(Box<Meta>, Xattrs),
    /// It was there before: only the time.
    Time(Box<Meta>),
}

/// The files of a tree that have several names, and where the first of them went, relative to where the tree went.
type Linked = HashMap<((u32, u32), u64), Vec<u8>>;

impl Copier<'_> {
    /// Copies the contents of `root` into `target`, whose path is `base`, and gives `target` the time of `root`.
    pub(super) fn merge(
        &mut self,
        target: OwnedFd,
        base: &[u8],
        source: &Source,
        selection: &Selection,
        root: &SelectedRoot,
    ) -> Result<(), CopyError> {
        let mut walk = selection.walk(source, root)?;
        let start = walk.start_meta()?;
        let mut trail = Trail::new(target);
        let mut finishes: Vec<Finish> = Vec::new();
        // Of the innermost directory, relative to where the walk started.
        let mut entered: Vec<u8> = Vec::new();
        let mut linked = Linked::new();
        while let Some(visit) = walk.next()? {
            match visit {
                Visit::Enter { node, directory } => {
                    self.check_cancelled()?;
                    let path = shown(base, node.path);
                    let (child, is_new) = self.child(trail.directory(), node.name, &path)?;
                    let finish = self.finish_for(&node, directory, is_new)?;
                    trail
                        .push(child)
                        .map_err(|error| io("open the directory", path, error))?;
                    finishes.push(finish);
                    entered.clear();
                    entered.extend_from_slice(node.path);
                }
                Visit::Leaf(node) => self.leaf(&trail, &node, base, &mut linked)?,
                Visit::Leave => {
                    let finish = finishes.pop().expect("one for each directory entered");
                    self.leave(&mut trail, finish, shown(base, &entered))?;
                    let parent = entered.iter().rposition(|&byte| byte == b'/');
                    entered.truncate(parent.unwrap_or(0));
                }
            }
        }
        futimens(trail.directory(), &times(start.mtime))
            .map_err(|error| io("set the time of", shown(base, b""), error))
    }

    /// Copies a selection with `--parents`: each match below the directories that lead to it.
    pub(super) fn with_parents(
        &mut self,
        source: &Source,
        selection: &Selection,
    ) -> Result<(), CopyError> {
        if selection.roots.is_empty() {
            return Ok(());
        }
        let (destination, base) = self.destination_directory()?;
        let mut trail = Trail::new(destination);
        let mut entered: Vec<(&ParentDirectory, Finish)> = Vec::new();
        for root in &selection.roots {
            // Matches come in the order of a walk, so what they share is entered once.
            let shared = entered
                .iter()
                .zip(&root.parents)
                .take_while(|((entered, _), parent)| entered.target == parent.target)
                .count();
            while entered.len() > shared {
                let (parent, finish) = entered.pop().expect("longer than what is shared");
                self.leave(&mut trail, finish, shown(&base, &parent.target))?;
            }
            for parent in &root.parents[shared..] {
                let path = shown(&base, &parent.target);
                let name = last(&parent.target);
                let (child, is_new) = self.child(trail.directory(), name, &path)?;
                let (meta, xattrs) = source.parent_metadata(&parent.source)?;
                let finish = match is_new {
                    true => Finish::All(Box::new(meta), xattrs),
                    false => Finish::Time(Box::new(meta)),
                };
                trail
                    .push(child)
                    .map_err(|error| io("open the directory", path, error))?;
                entered.push((parent, finish));
            }
            let mut place = base.clone();
            if let Some(parent) = root.parents.last() {
                if !place.is_empty() {
                    place.push(b'/');
                }
                place.extend_from_slice(&parent.target);
            }
            if root.is_directory {
                let directory = super::reopen(trail.directory(), &place)?;
                self.merge(directory, &place, source, selection, root)?;
            } else {
                self.single(trail.directory(), &root.name, &place, source, root)?;
            }
        }
        while let Some((parent, finish)) = entered.pop() {
            self.leave(&mut trail, finish, shown(&base, &parent.target))?;
        }
        self.stamp(trail.directory(), &base)
    }

    fn leaf(
        &mut self,
        trail: &Trail,
        node: &Node<'_>,
        base: &[u8],
        linked: &mut Linked,
    ) -> Result<(), CopyError> {
        let path = shown(base, node.path);
        if node.meta.kind == Kind::File && node.meta.links > 1 {
            let inode = (node.meta.device, node.meta.inode);
            if let Some(first) = linked.get(&inode) {
                if self.hard_link(trail, first, node, &path)? {
                    return Ok(());
                }
            } else {
                linked.insert(inode, node.path.to_vec());
            }
        }
        self.place(trail.directory(), node.name, node, &path)
    }

    /// Links `node` to the file that its first name became; false where the file system will not have it.
    fn hard_link(
        &mut self,
        trail: &Trail,
        first: &[u8],
        node: &Node<'_>,
        path: &std::path::Path,
    ) -> Result<bool, CopyError> {
        let (parent, name) = match first.iter().rposition(|&byte| byte == b'/') {
            Some(at) => (&first[..at], &first[at + 1..]),
            None => (&b""[..], first),
        };
        let parent = descend(trail.root(), parent)
            .map_err(|error| io("open the directory of the link to", path.to_owned(), error))?;
        let directory = trail.directory();
        let make = || linkat(&parent, name, directory, node.name, AtFlags::empty());
        let made = match make() {
            Err(Errno::EXIST) => {
                self.clear(directory, node.name, path)?;
                make()
            }
            made => made,
        };
        match made {
            Ok(()) => Ok(true),
            Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(io("link", path.to_owned(), error)),
        }
    }

    /// Opens the directory `name`, made if it is missing; tells whether everything about it is to be set.
    fn child(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &std::path::Path,
    ) -> Result<(OwnedFd, bool), CopyError> {
        let mut is_new = self.options.link;
        // Nobody else gets in before its mode is set.
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => {
                is_new = true;
                self.stats.directories += 1;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(io("make the directory", path.to_owned(), error)),
        }
        match open_directory(parent, name) {
            Ok(directory) => Ok((directory, is_new)),
            Err(Errno::NOTDIR | Errno::LOOP) if self.options.link => {
                let made = remove(parent, name)
                    .and_then(|()| mkdirat(parent, name, Mode::RWXU))
                    .and_then(|()| open_directory(parent, name));
                self.stats.directories += 1;
                let directory =
                    made.map_err(|error| io("make the directory", path.to_owned(), error))?;
                Ok((directory, true))
            }
            Err(Errno::NOTDIR | Errno::LOOP) => Err(CopyError::NotADirectory {
                path: path.to_owned(),
            }),
            Err(error) => Err(io("open the directory", path.to_owned(), error)),
        }
    }

    fn finish_for(
        &self,
        node: &Node<'_>,
        directory: Option<BorrowedFd<'_>>,
        is_new: bool,
    ) -> Result<Finish, CopyError> {
        let meta = Box::new(node.meta.clone());
        let Some(directory) = directory else {
            return Ok(match is_new {
                true => Finish::All(meta, Xattrs::new()),
                false => Finish::Time(meta),
            });
        };
        let xattrs = read_xattrs(directory, &node.meta).map_err(|error| ContextError::Io {
            verb: "read attributes of",
            path: String::from_utf8_lossy(node.source_path)
                .into_owned()
                .into(),
            source: error.into(),
        })?;
        Ok(Finish::All(meta, xattrs))
    }

    /// Goes up and sets what the directory that is left gets. It is set last: filling a directory changes its time, and its mode
    /// may not allow filling it.
    fn leave(&mut self, trail: &mut Trail, finish: Finish, path: PathBuf) -> Result<(), CopyError> {
        let directory = trail
            .pop()
            .map_err(|error| io("go back up from", path.clone(), error))?
            .expect("it was entered");
        match finish {
            Finish::All(meta, xattrs) => {
                self.finish_directory(directory.as_fd(), &meta, &xattrs, &path)
            }
            Finish::Time(meta) => futimens(&directory, &times(meta.mtime))
                .map_err(|error| io("set the time of", path, error)),
        }
    }
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}
