//! What the layer of a copy holds, told without making its files: entry by entry, straight from the source.
//!
//! ```text
//! root ── the directories on the way, as they are there ──┐
//! options ── those that are missing ──────────────────────┼─> entries, in a layer's order
//! source ── a walk, in the same order ────────────────────┘
//! ```
//!
//! For the copy that is nearly every large one: a single directory or file, put where nothing has its name. The entries are those
//! that [`copy`](super::copy) and reading back its layer would give, to the byte. For all else, and for whatever is odd, there is
//! no answer: making the files finds out what it comes to, or what is wrong.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::readlinkat;
use rustix::io::Errno;

use super::destination::{Survey, shown, survey};
use super::facts::{described, is_free};
use super::{CopyError, CopyOptions, Item, io as failed, with_single};
use crate::context::{
    ContextError, Kind, Meta, Node, SelectedRoot, Selection, Source, Visit, Xattrs, open_directory,
    open_file, read_xattrs,
};
use crate::layer::{Entry, EntryKind, Mtime};
use crate::rootfs::Tree;
use crate::vocab::Cancel;
use crate::worker::base::Guarded;

/// Takes an entry and its content.
type Put<'a> = &'a mut dyn FnMut(Entry, &mut dyn Read) -> io::Result<()>;

/// Hands the entries of the layer that copying `items` to `root` would make to `put`, and returns the bytes of its files; `None` where that
/// cannot be told, perhaps after some entries. Nothing is written.
pub(in crate::worker) fn outline(
    root: &Tree,
    items: &[Item<'_>],
    options: &CopyOptions<'_>,
    cancel: &Cancel,
    put: Put<'_>,
) -> Result<Option<u64>, CopyError> {
    let [Item::Selected { source, selection }] = *items else {
        return Ok(None);
    };
    let [matched] = selection.roots.as_slice() else {
        return Ok(None);
    };
    if options.parents {
        return Ok(None);
    }
    let opened = open_directory(root.as_fd(), ".")
        .map_err(|error| failed("open", shown(b"", b""), error))?;
    let is_directory = matched.is_directory || options.destination.ends_with('/');
    let found = survey(opened.as_fd(), options.destination.as_bytes(), is_directory)?;
    let Some(found) = found else {
        return Ok(None);
    };
    if !is_free(opened.as_fd(), &found, items)? {
        return Ok(None);
    }
    let mut outline = Outline {
        root,
        options,
        cancel,
        put,
        bytes: 0,
        linked: HashMap::new(),
    };
    let done = match matched.is_directory {
        true => outline.directory(&found, source, selection, matched),
        false => outline.file(&found, source, matched),
    };
    match done {
        Ok(()) => Ok(Some(outline.bytes)),
        Err(Stop::Odd) if cancel.is_cancelled() => Err(CopyError::Cancelled),
        Err(Stop::Odd) => Ok(None),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Why there is no whole outline.
enum Stop {
    /// Something that is for others to deal with.
    Odd,
    Failed(CopyError),
}

impl<E: Into<CopyError>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.into())
    }
}

struct Outline<'a> {
    root: &'a Tree,
    options: &'a CopyOptions<'a>,
    cancel: &'a Cancel,
    put: Put<'a>,
    /// Of files, each counted once.
    bytes: u64,
    /// The first path of each file that has several.
    linked: HashMap<((u32, u32), u64), Vec<u8>>,
}

impl Outline<'_> {
    fn directory(
        &mut self,
        found: &Survey,
        source: &Source,
        selection: &Selection,
        root: &SelectedRoot,
    ) -> Result<(), Stop> {
        let mut walk = selection.walk(source, root)?;
        let start = walk.start_meta()?;
        let base = self.way(found, start.mtime)?;
        while let Some(visit) = walk.next()? {
            match visit {
                Visit::Enter { node, directory } => {
                    let xattrs = match directory {
                        Some(directory) => read_xattrs(directory, &node.meta)
                            .map_err(|error| reading("read attributes of", &node, error))?,
                        None => Xattrs::new(),
                    };
                    let mode = self.options.mode(node.meta.mode, true);
                    let path = joined(&base, node.path);
                    self.put(
                        path,
                        EntryKind::Directory,
                        mode,
                        &node.meta,
                        xattrs,
                        &mut io::empty(),
                    )?;
                }
                Visit::Leaf(node) => self.leaf(joined(&base, node.path), &node)?,
                Visit::Leave => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, found: &Survey, source: &Source, root: &SelectedRoot) -> Result<(), Stop> {
        let base = self.way(found, self.options.build_time())?;
        let name = match &found.entry {
            Some((name, _)) => name,
            None => &root.name,
        };
        let path = joined(&base, name);
        with_single(source, root, |node| Ok(self.leaf(path, node)))?
    }

    /// Puts the directories on the way, and returns the path of the last one, whose time is `last`.
    fn way(&mut self, found: &Survey, last: Mtime) -> Result<Vec<u8>, Stop> {
        let mut path = Vec::new();
        let mut directory = |name: &[u8], mode, (uid, gid), mtime| {
            path = joined(&path, name);
            Entry {
                path: path.clone(),
                kind: EntryKind::Directory,
                mode,
                uid,
                gid,
                mtime,
                xattrs: BTreeMap::new(),
            }
        };
        let made = self.options.build_time();
        let mut entries = Vec::new();
        for (name, there) in &found.found {
            let (meta, xattrs) = described(there.as_fd(), self.root.owners(), name)?;
            if !xattrs.is_empty() {
                return Err(Stop::Odd);
            }
            entries.push(directory(name, meta.mode, (meta.uid, meta.gid), meta.mtime));
        }
        // A directory that gets another one has changed.
        if let (Some(holder), false) = (entries.last_mut(), found.missing.is_empty()) {
            holder.mtime = made;
        }
        for name in &found.missing {
            let (mode, owner) = (self.options.mode_of_made(), self.options.owner_of_made());
            entries.push(directory(name, mode, owner, made));
        }
        if let Some(entry) = entries.last_mut() {
            entry.mtime = last;
        }
        for entry in entries {
            self.hand_over(entry, &mut io::empty())?;
        }
        Ok(path)
    }

    /// Puts anything but a directory.
    fn leaf(&mut self, path: Vec<u8>, node: &Node<'_>) -> Result<(), Stop> {
        let meta = &node.meta;
        let mode = self.options.mode(meta.mode, false);
        let (major, minor) = meta.node;
        let kind = match meta.kind {
            Kind::File => return self.content(path, node, mode),
            Kind::Socket => EntryKind::File { size: 0 },
            Kind::Symlink => {
                let target = readlinkat(node.parent, node.name, Vec::new())
                    .map_err(|error| reading("read the link", node, error))?;
                let target = target.into_bytes();
                let kind = EntryKind::Symlink { target };
                // The kernel gives no others.
                let mode = 0o777;
                return self.put(path, kind, mode, meta, Xattrs::new(), &mut io::empty());
            }
            Kind::Fifo => EntryKind::Fifo,
            // It would delete what lies below it.
            Kind::CharDevice if meta.node == (0, 0) => return Err(Stop::Odd),
            Kind::CharDevice => EntryKind::CharDevice { major, minor },
            Kind::BlockDevice => EntryKind::BlockDevice { major, minor },
            Kind::Directory => unreachable!("directories are entered"),
        };
        self.put(path, kind, mode, meta, Xattrs::new(), &mut io::empty())
    }

    fn content(&mut self, path: Vec<u8>, node: &Node<'_>, mode: u32) -> Result<(), Stop> {
        if node.meta.links > 1 {
            let inode = (node.meta.device, node.meta.inode);
            if let Some(target) = self.linked.get(&inode) {
                let target = target.clone();
                let kind = EntryKind::HardLink { target };
                return self.put(
                    path,
                    kind,
                    mode,
                    &node.meta,
                    Xattrs::new(),
                    &mut io::empty(),
                );
            }
            self.linked.insert(inode, path.clone());
        }
        let file = open_file(node.parent, node.name, node.source_path)?;
        let now = Meta::of(&file).map_err(|error| reading("stat", node, error))?;
        if now.kind != Kind::File {
            return Err(Stop::Odd);
        }
        let xattrs = read_xattrs(&file, &node.meta)
            .map_err(|error| reading("read attributes of", node, error))?;
        let kind = EntryKind::File { size: now.size };
        self.bytes = self.bytes.saturating_add(now.size);
        let mut content = Guarded::new(File::from(file), self.cancel);
        self.put(path, kind, mode, &node.meta, xattrs, &mut content)
    }

    fn put(
        &mut self,
        path: Vec<u8>,
        kind: EntryKind,
        mode: u32,
        meta: &Meta,
        xattrs: Xattrs,
        content: &mut dyn Read,
    ) -> Result<(), Stop> {
        let (uid, gid) = self.options.owner_of(meta);
        let entry = Entry {
            path,
            kind,
            mode,
            uid,
            gid,
            mtime: meta.mtime,
            xattrs: xattrs.into_iter().collect(),
        };
        self.hand_over(entry, content)
    }

    fn hand_over(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            return Err(Stop::Failed(CopyError::Cancelled));
        }
        let name = entry.path.rsplit(|&byte| byte == b'/').next();
        // A deletion in disguise is refused, and a capability may be written in a way that is this machine's.
        let is_odd = name.is_some_and(|name| name.starts_with(b".wh."))
            || entry.xattrs.keys().any(|name| !name.starts_with(b"user."));
        match is_odd {
            true => Err(Stop::Odd),
            // Whether the source or the disk fails: it will do so again.
            false => (self.put)(entry, content).map_err(|_| Stop::Odd),
        }
    }
}

fn joined(base: &[u8], path: &[u8]) -> Vec<u8> {
    match base {
        b"" => path.to_vec(),
        base => [base, b"/", path].concat(),
    }
}

fn reading(verb: &'static str, node: &Node<'_>, error: Errno) -> ContextError {
    ContextError::Io {
        verb,
        path: String::from_utf8_lossy(node.source_path)
            .into_owned()
            .into(),
        source: error.into(),
    }
}
