//! An opened directory and how its files are to be read.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::error::ContextError;
use super::meta::Meta;
use super::overlay::{Opened, Place, Side};
use super::stat_cache::StatCache;
use super::xattrs::{Xattrs, read_xattrs};
use crate::dockerfile::IgnorePatterns;
use crate::vocab::Ledger;

/// A tree that instructions copy from. Dropping it writes what its stat cache has learnt.
#[derive(Debug)]
pub struct Source {
    root: OwnedFd,
    /// What is laid over it.
    overlay: Option<OwnedFd>,
    owners: Owners,
    pub(super) ignore: Option<IgnorePatterns>,
    ignore_text: String,
    pub(super) cache: Option<Mutex<StatCache>>,
    pub(super) threads: usize,
    /// Keeps the tree as it is.
    held: Option<Arc<dyn Any + Send + Sync>>,
}

/// To whom a source's files belong in the image.
#[derive(Debug)]
enum Owners {
    /// Ids of the host mean nothing in an image: everything is 0:0.
    Root,
    Kept,
    /// The disk does not say all that the files are.
    InLedger(Ledger),
}

impl Source {
    /// Opens a directory of the host. Its files read as owned by 0:0, and what `ignore` excludes is not in it.
    pub fn directory(path: &Path, ignore: Option<IgnorePatterns>) -> Result<Source, ContextError> {
        let root = open_host(path)?;
        Ok(Source {
            root,
            overlay: None,
            owners: Owners::Root,
            ignore,
            ignore_text: String::new(),
            cache: None,
            threads: 1,
            held: None,
        })
    }

    /// Takes the root of a stage, opened for reading, and what is known of its files where the disk does not say it. Owners are
    /// kept, nothing is ignored.
    pub fn tree(root: OwnedFd, ledger: Option<Ledger>) -> Source {
        Source {
            root,
            overlay: None,
            owners: match ledger {
                Some(ledger) if !ledger.is_empty() || !ledger.ownership().gives_away() => {
                    Owners::InLedger(ledger)
                }
                _ => Owners::Kept,
            },
            ignore: None,
            ignore_text: String::new(),
            cache: None,
            threads: 1,
            held: None,
        }
    }

    /// Lays the files of another directory of the host over it.
    pub fn under(mut self, overlay: &Path) -> Result<Source, ContextError> {
        self.overlay = Some(open_host(overlay)?);
        Ok(self)
    }

    /// Holds on to what keeps others from changing the tree.
    pub fn holding(mut self, held: Arc<dyn Any + Send + Sync>) -> Source {
        self.held = Some(held);
        self
    }

    /// Tells the text that the ignore patterns were read from, so that errors can quote it.
    pub fn with_ignore_text(mut self, text: String) -> Source {
        self.ignore_text = text;
        self
    }

    /// Remembers content hashes in the file `path`, which is read when it is first needed.
    pub fn with_stat_cache(mut self, path: PathBuf) -> Source {
        self.cache = Some(Mutex::new(StatCache::new(path)));
        self
    }

    /// Allows so many threads to hash contents that are not known. They end with the call that needed them; without this call
    /// everything happens in the calling thread.
    pub fn with_threads(mut self, threads: usize) -> Source {
        self.threads = threads.max(1);
        self
    }

    /// Writes what the stat cache has learnt. Dropping the source does so too, but cannot say what went wrong.
    pub fn save_stat_cache(&self) -> Result<(), ContextError> {
        match &self.cache {
            Some(cache) => cache.lock().unwrap_or_else(|e| e.into_inner()).save(),
            None => Ok(()),
        }
    }

    /// Tells whether something lies over it.
    pub(super) fn has_overlay(&self) -> bool {
        self.overlay.is_some()
    }

    /// Returns the root.
    pub(super) fn root(&self) -> Place<'_> {
        Place {
            lower: Some(self.root.as_fd()),
            over: self.overlay.as_ref().map(AsFd::as_fd),
        }
    }

    /// Opens a directory by its path without links, as selections hold it. A link on the way means that someone replaced it.
    pub(super) fn open(&self, path: &[u8]) -> Result<Opened, ContextError> {
        self.root().descend(path).map_err(|error| match error {
            rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP => ContextError::Changed {
                path: super::error::shown(path),
            },
            error => ContextError::io("open the directory", path, error),
        })
    }

    /// Opens, in the same way, the directory that has `name` in the directory `path`; of a name that is gone, any.
    pub fn open_holder(&self, path: &[u8], name: &[u8]) -> Result<OwnedFd, ContextError> {
        let opened = self.open(path)?;
        if self.overlay.is_none() {
            return Ok(opened.into_main());
        }
        let found = opened
            .place()
            .find(name, |directory, name| Meta::at(directory, name));
        Ok(match (found, opened) {
            (
                Ok((_, Side::Over)),
                Opened {
                    over: Some(over), ..
                },
            ) => over,
            (_, opened) => opened.into_main(),
        })
    }

    /// Returns what a directory that `--parents` makes takes from the source's directory `path`: nothing but the time if the
    /// directory itself is excluded.
    pub fn parent_metadata(&self, path: &[u8]) -> Result<(Meta, Xattrs), ContextError> {
        let directory = self.open(path)?.into_main();
        let meta = self
            .meta_of(&directory)
            .map_err(|error| ContextError::io("stat", path, error))?;
        let is_excluded =
            |ignore: &IgnorePatterns| !path.is_empty() && ignore.decide(path).excluded;
        if self.ignore.as_ref().is_some_and(is_excluded) {
            return Ok((meta.implied(), Xattrs::new()));
        }
        let xattrs = read_xattrs(&directory, &meta)
            .map_err(|error| ContextError::io("read attributes of", path, error))?;
        Ok((meta, xattrs))
    }

    /// Returns a line of the ignore file, counted from 1; empty if its text is not known.
    pub(super) fn ignore_line(&self, line: usize) -> String {
        let text = self.ignore_text.lines().nth(line.saturating_sub(1));
        text.unwrap_or_default().trim().to_owned()
    }

    /// Returns what the image will say of the entry `name` in `directory`.
    pub fn meta_at(
        &self,
        directory: impl AsFd,
        name: impl rustix::path::Arg,
    ) -> rustix::io::Result<Meta> {
        Ok(self.as_owned(match self.owners {
            Owners::InLedger(_) => Meta::born_at(directory, name)?,
            Owners::Root | Owners::Kept => Meta::at(directory, name)?,
        }))
    }

    /// Returns what the image will say of an open file.
    pub fn meta_of(&self, file: impl AsFd) -> rustix::io::Result<Meta> {
        Ok(self.as_owned(match self.owners {
            Owners::InLedger(_) => Meta::born_of(file)?,
            Owners::Root | Owners::Kept => Meta::of(file)?,
        }))
    }

    fn as_owned(&self, mut meta: Meta) -> Meta {
        match &self.owners {
            Owners::Root => (meta.uid, meta.gid) = (0, 0),
            Owners::Kept => {}
            Owners::InLedger(ledger) => {
                let known = ledger.get(&meta.file_id());
                meta = meta.in_image(ledger.ownership(), known);
            }
        }
        meta
    }
}

fn open_host(path: &Path) -> Result<OwnedFd, ContextError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|error| ContextError::Io {
        verb: "open the directory",
        path: path.to_owned(),
        source: error.into(),
    })
}

impl Drop for Source {
    fn drop(&mut self) {
        // A cache that cannot be written costs time in the next build and nothing else.
        drop(self.save_stat_cache());
    }
}
