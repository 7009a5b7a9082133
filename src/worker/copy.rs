//! Places what COPY and ADD selected in a root.
//!
//! In: a root as a writable tree (usually a merged overlay), selections and heredoc files, and the
//! instruction's flags with names already looked up. Out: the files are there, and some counts. Not here: which files are
//! selected (`context`), archives, looking up owners, mounting, the layer.
//!
//! What it does with metadata:
//!
//! | | mode | owner | mtime |
//! |---|---|---|---|
//! | files, and directories below a source directory | the source's, `--chmod` applied | the source's (0:0 from the host), or `--chown` | the source's, to the nanosecond |
//! | links | – | the same | the same |
//! | heredoc files | 0644, `--chmod` applied | 0:0 or `--chown` | the build's time |
//! | directories made for the destination | 0755, or an octal `--chmod` below 01000 | 0:0 or `--chown` | the build's time; of the one a directory is copied to, that directory's |
//! | directories that were there on the way | stays | stays | the build's time if something is put right into it; where a directory is copied to, that directory's |
//! | directories made by `--parents` | the source's, `--chmod` applied | as files | the source's |
//!
//! A directory *below* a source directory that the destination has already takes the source's mode and owner, as in BuildKit.
//! The build's time is `epoch`, or else `now`; so equal inputs give equal trees.
//!
//! With `link` the result is what a layer made on an empty root, stacked on this one, would show: links in the destination's path
//! become directories, whatever is in the way is replaced, and directories on the way get the metadata of made ones. To make such
//! a layer by itself call [`copy`] with an empty directory as the root.
//!
//! Invariants: nothing outside the root is touched, whatever links the root or a source has or gets meanwhile: every step goes
//! through the descriptor of a directory and follows no link; links in the destination's path are read and followed by us, with
//! the root as `/`. Memory does not grow with the size of files, and hardly with their number. A FIFO or device is never opened.

mod content;
mod destination;
mod facts;
mod outline;
mod place;
mod tree;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, futimens};

pub use super::chmod::{Chmod, ChmodError};
use crate::context::{
    ContextError, Kind, Meta, Node, SelectedRoot, Selection, Source, open_directory,
};
use crate::layer::Mtime;
use crate::rootfs::{Owners, Tree};
use crate::vocab::{Cancel, Timestamp};
use content::Content;
use destination::{Place, shown};
pub(super) use facts::{destination_facts, directory_facts};
pub(super) use outline::outline;

/// The instruction's flags.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions<'a> {
    /// Absolute and clean; a `/` at its end says "a directory".
    pub destination: &'a str,
    /// `--chown`, looked up.
    pub owner: Option<(u32, u32)>,
    pub chmod: Option<&'a Chmod>,
    pub link: bool,
    pub parents: bool,
    /// `SOURCE_DATE_EPOCH`
    pub epoch: Option<Timestamp>,
    pub now: Timestamp,
}

/// Something to copy.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    Selected {
        source: &'a Source,
        selection: &'a Selection,
    },
    /// A heredoc.
    Inline { name: &'a str, content: &'a [u8] },
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyStats {
    /// Regular files written; further hard links do not count.
    pub files: u64,
    pub directories: u64,
    /// Bytes of regular files, holes included.
    pub bytes: u64,
    /// Extended attributes that the root's file system or the kernel would not take.
    pub lost_xattrs: u64,
}

/// Why a copy failed. Paths are absolute in the root that is written.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("cancelled")]
    Cancelled,
    /// Several files would get one name, one after the other.
    #[error(
        "cannot copy several sources to `{destination}`: it is no directory and does not end with `/`"
    )]
    SeveralSources { destination: String },
    /// A directory or something below it should go where a file is.
    #[error("cannot copy to non-directory `{}`", path.display())]
    NotADirectory { path: PathBuf },
    /// A file should go where a directory is.
    #[error("cannot replace the directory `{}` with a file", path.display())]
    IsADirectory { path: PathBuf },
    /// Links that lead to each other, or more than forty in a row.
    #[error("too many symbolic links in the destination `{}`", path.display())]
    Links { path: PathBuf },
    /// A heredoc's name that is no file name.
    #[error("`{name}` is not a file name")]
    Name { name: String },
    /// A character device 0:0 would delete what lies below it.
    #[error("cannot copy `{}`: a character device 0:0 means a deleted file in a layer", path.display())]
    Whiteout { path: PathBuf },
    /// The kernel does not let us give a file away.
    #[error("cannot give `{}` to {uid}:{gid}", path.display())]
    Owner {
        path: PathBuf,
        uid: u32,
        gid: u32,
        #[source]
        source: std::io::Error,
    },
    /// Reading failed.
    #[error(transparent)]
    Source(#[from] ContextError),
    /// Writing failed.
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Copies `items`, in order, into `root`. What was copied before an error stays.
pub fn copy(
    root: &Tree,
    items: &[Item<'_>],
    options: &CopyOptions<'_>,
    cancel: &Cancel,
) -> Result<CopyStats, CopyError> {
    // Times cannot be set through `O_PATH`.
    let opened =
        open_directory(root.as_fd(), ".").map_err(|error| io("open", PathBuf::from("/"), error))?;
    let mut copier = Copier::new(opened.as_fd(), root.owners(), options, cancel);
    copier.refuse_one_name_for_many(items)?;
    for item in items {
        match *item {
            Item::Inline { name, content } => copier.inline(name, content)?,
            Item::Selected { source, selection } if options.parents => {
                copier.with_parents(source, selection)?;
            }
            Item::Selected { source, selection } => {
                for root in &selection.roots {
                    copier.root(source, selection, root)?;
                }
            }
        }
    }
    Ok(copier.stats)
}

/// The state of one copy.
struct Copier<'a> {
    root: BorrowedFd<'a>,
    /// What the files of the root are in the image.
    owners: &'a Owners,
    options: &'a CopyOptions<'a>,
    cancel: &'a Cancel,
    stats: CopyStats,
    content: Content,
    /// The destination and its path, once it is known to be a directory.
    directory: Option<(OwnedFd, Vec<u8>)>,
}

impl<'a> Copier<'a> {
    fn new(
        root: BorrowedFd<'a>,
        owners: &'a Owners,
        options: &'a CopyOptions<'a>,
        cancel: &'a Cancel,
    ) -> Copier<'a> {
        Copier {
            root,
            owners,
            options,
            cancel,
            stats: CopyStats::default(),
            content: Content::new(),
            directory: None,
        }
    }

    fn refuse_one_name_for_many(&self, items: &[Item<'_>]) -> Result<(), CopyError> {
        let (mut all, mut single) = (0, 0);
        for item in items {
            match item {
                Item::Inline { .. } => (all, single) = (all + 1, single + 1),
                Item::Selected { selection, .. } => {
                    all += selection.roots.len();
                    single += selection
                        .roots
                        .iter()
                        .filter(|root| !root.is_directory)
                        .count();
                }
            }
        }
        let says_directory = self.options.parents || self.options.destination.ends_with('/');
        if all < 2 || single == 0 || says_directory || self.is_existing_directory()? {
            return Ok(());
        }
        Err(CopyError::SeveralSources {
            destination: self.options.destination.to_owned(),
        })
    }

    fn inline(&mut self, name: &str, content: &[u8]) -> Result<(), CopyError> {
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(CopyError::Name {
                name: name.to_owned(),
            });
        }
        let directory = self.options.parents || self.options.destination.ends_with('/');
        let (directory, name, base) = self.place_for(name.as_bytes(), directory)?;
        self.write_inline(directory.as_fd(), &name, content, &base)?;
        self.stamp(directory.as_fd(), &base)
    }

    /// Copies one match without `--parents`.
    fn root(
        &mut self,
        source: &Source,
        selection: &Selection,
        root: &SelectedRoot,
    ) -> Result<(), CopyError> {
        if root.is_directory {
            let (directory, base) = self.destination_directory()?;
            return self.merge(directory, &base, source, selection, root);
        }
        let is_directory = self.options.destination.ends_with('/');
        let (directory, name, base) = self.place_for(&root.name, is_directory)?;
        self.single(directory.as_fd(), &name, &base, source, root)?;
        self.stamp(directory.as_fd(), &base)
    }

    /// Returns the directory and the name there for a file that is called `name`, and the directory's path.
    fn place_for(
        &mut self,
        name: &[u8],
        is_directory: bool,
    ) -> Result<(OwnedFd, Vec<u8>, Vec<u8>), CopyError> {
        if is_directory || self.directory.is_some() {
            let (directory, path) = self.destination_directory()?;
            return Ok((directory, name.to_vec(), path));
        }
        Ok(
            match self.locate(self.options.destination.as_bytes(), false)? {
                Place::Entry {
                    directory,
                    path,
                    name,
                } => (directory, name, path),
                Place::Directory { directory, path } => {
                    let copy = reopen(directory.as_fd(), &path)?;
                    self.directory = Some((copy, path.clone()));
                    (directory, name.to_vec(), path)
                }
            },
        )
    }

    /// Returns the destination, made if need be, and its path.
    fn destination_directory(&mut self) -> Result<(OwnedFd, Vec<u8>), CopyError> {
        if let Some((directory, path)) = &self.directory {
            return Ok((reopen(directory.as_fd(), path)?, path.clone()));
        }
        match self.locate(self.options.destination.as_bytes(), true)? {
            Place::Directory { directory, path } => {
                self.directory = Some((reopen(directory.as_fd(), &path)?, path.clone()));
                Ok((directory, path))
            }
            Place::Entry { .. } => unreachable!("a directory was asked for"),
        }
    }

    /// Copies an entry that is no directory.
    fn single(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        base: &[u8],
        source: &Source,
        root: &SelectedRoot,
    ) -> Result<(), CopyError> {
        with_single(source, root, |node| {
            self.place(directory, name, node, &shown(base, name))
        })
    }

    fn check_cancelled(&self) -> Result<(), CopyError> {
        match self.cancel.is_cancelled() {
            true => Err(CopyError::Cancelled),
            false => Ok(()),
        }
    }

    fn build_time(&self) -> Mtime {
        self.options.build_time()
    }

    /// Gives a directory that something was put into the build's time.
    fn stamp(&self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<(), CopyError> {
        futimens(directory, &times(self.build_time()))
            .map_err(|error| io("set the time of", shown(path, b""), error))
    }

    fn owner(&self) -> (u32, u32) {
        self.options.owner_of_made()
    }

    fn mode(&self, mode: u32, is_directory: bool) -> u32 {
        self.options.mode(mode, is_directory)
    }
}

impl CopyOptions<'_> {
    /// The time of everything that has no source.
    fn build_time(&self) -> Mtime {
        let time = self.epoch.unwrap_or(self.now);
        Mtime {
            seconds: time.seconds,
            nanoseconds: time.nanoseconds,
        }
    }

    /// The owner of what has none in a source.
    fn owner_of_made(&self) -> (u32, u32) {
        self.owner.unwrap_or((0, 0))
    }

    /// The mode of a directory that is made for what it holds.
    fn mode_of_made(&self) -> u32 {
        let octal = self.chmod.and_then(|chmod| chmod.octal());
        octal.unwrap_or(0o755) & 0o777
    }

    fn owner_of(&self, meta: &Meta) -> (u32, u32) {
        self.owner.unwrap_or((meta.uid, meta.gid))
    }

    fn mode(&self, mode: u32, is_directory: bool) -> u32 {
        match self.chmod {
            Some(chmod) => chmod.apply(mode, is_directory),
            None => mode,
        }
    }
}

/// Shows `use_it` a match that is no directory, opened anew from the source's root.
fn with_single<T>(
    source: &Source,
    root: &SelectedRoot,
    use_it: impl FnOnce(&Node<'_>) -> Result<T, CopyError>,
) -> Result<T, CopyError> {
    let (parent, last) = match root.path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&root.path[..at], &root.path[at + 1..]),
        None => (&b""[..], &root.path[..]),
    };
    let parent = source.open_holder(parent, last)?;
    let changed = || ContextError::Changed {
        path: String::from_utf8_lossy(&root.path).into_owned().into(),
    };
    // A link was followed when it was selected: whatever is a link or a directory now was put there since.
    let meta = source.meta_at(&parent, last).map_err(|error| match error {
        rustix::io::Errno::NOENT => changed(),
        error => ContextError::Io {
            verb: "stat",
            path: String::from_utf8_lossy(&root.path).into_owned().into(),
            source: error.into(),
        },
    })?;
    if matches!(meta.kind, Kind::Symlink | Kind::Directory) {
        return Err(changed().into());
    }
    use_it(&Node {
        path: last,
        name: last,
        source_path: &root.path,
        meta,
        parent: parent.as_fd(),
    })
}

fn reopen(directory: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, CopyError> {
    rustix::io::fcntl_dupfd_cloexec(directory, 0)
        .map_err(|error| io("open the directory", shown(path, b""), error))
}

fn io(verb: &'static str, path: PathBuf, error: rustix::io::Errno) -> CopyError {
    CopyError::Io {
        verb,
        path,
        source: error.into(),
    }
}

fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanoseconds.into(),
        },
    }
}

#[cfg(test)]
#[path = "copy/tests.rs"]
mod tests;
