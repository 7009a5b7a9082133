//! A shared cache in a directory: a volume, or what a CI system keeps between jobs.
//!
//! ```text
//! DIRECTORY/entries/NAME              a manifest
//! DIRECTORY/blobs/sha256/HEX          blobs, as in an OCI layout
//! DIRECTORY/tmp/…                     what is on its way
//! ```
//!
//! Files are written beside and renamed: other processes, and the next job after a kill, see whole ones only. Blobs are not
//! believed when they are read; their digests are checked.
//!
//! # Removing while others write
//!
//! Nobody locks: machines may share the directory whose locks do not reach each other. Instead the time of a blob says when somebody
//! last meant to name it in a document:
//!
//! - Whoever publishes sets the times of all blobs of a document, those that are there already as well, and then writes the document.
//!   A blob whose time cannot be set is brought anew.
//! - Whoever prunes reads the file system's clock, then the documents, then the times of blobs that none of them names, and removes those
//!   that were old by that clock ([`prune`](super::upkeep::prune)).
//!
//! A document that was written too late to be seen has blobs whose times were set shortly before, and shortly is less than the grace
//! time. A blob goes in two moves, because its time may be set after it was looked at: it is moved to where no publisher finds it,
//! looked at again, and brought back if it is new. Who sets a time looks afterwards whether the blob is there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use super::CacheError;
use super::folder::{Folder, Found};
use super::written::Documents;
use crate::vocab::{Descriptor, Digest, Sha256, Timestamp};

/// Larger files are no entries.
pub(super) const MOST_ENTRY: u64 = 8 << 20;

/// Tells files of one process apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Directory {
        Directory {
            path: path.to_owned(),
        }
    }

    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>, CacheError> {
        let path = self.entry_path(name);
        let Some(file) = open(&path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(MOST_ENTRY)
            .read_to_end(&mut bytes)
            .map_err(failed("read", &path))?;
        Ok(Some(bytes))
    }

    /// Writes a document; fails where a blob of it is not there.
    pub(super) fn put_document(&self, name: &str, documents: &Documents) -> Result<(), CacheError> {
        for layer in &documents.layers {
            // Where times cannot be set, what is there is as good as it gets.
            if !self.has_blob(layer) && !self.holds(layer) {
                return Err(CacheError::Gone(layer.digest));
            }
        }
        let path = self.entry_path(name);
        let beside = self.beside()?;
        fs::write(&beside, &documents.manifest).map_err(failed("write", &beside))?;
        self.place(&beside, &path)
    }

    /// Tells whether a blob is there, and sets its time: a document is about to name it. `false` where that cannot be done, too.
    pub(super) fn has_blob(&self, blob: &Descriptor) -> bool {
        let path = self.blob_path(&blob.digest);
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let is_new = rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        is_new && self.holds(blob)
    }

    fn holds(&self, blob: &Descriptor) -> bool {
        fs::symlink_metadata(self.blob_path(&blob.digest))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.size)
    }

    pub(super) fn blob(&self, blob: &Descriptor) -> Result<impl Read + Send + use<>, CacheError> {
        let path = self.blob_path(&blob.digest);
        let file = open(&path)?.ok_or(CacheError::Gone(blob.digest))?;
        Ok(Checked {
            file: file.take(blob.size + 1),
            hash: Some(Sha256::new()),
            read: 0,
            expected: blob.clone(),
        })
    }

    pub(super) fn put_blob(
        &self,
        blob: &Descriptor,
        reader: &mut dyn Read,
    ) -> Result<(), CacheError> {
        let beside = self.beside()?;
        let copied = File::create_new(&beside).and_then(|mut file| {
            let copied = io::copy(reader, &mut file)?;
            match copied == blob.size {
                true => Ok(()),
                false => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        });
        if let Err(error) = copied {
            drop(fs::remove_file(&beside));
            return Err(failed("write", &beside)(error));
        }
        self.place(&beside, &self.blob_path(&blob.digest))
    }

    /// Notes that an entry is of use, for who prunes by age.
    pub(super) fn note_use(&self, name: &str) {
        // A place that is only read takes no notes.
        if let Ok(file) = File::options().append(true).open(self.entry_path(name)) {
            drop(file.set_modified(SystemTime::now()));
        }
    }

    /// Returns all documents by their names.
    pub(super) fn documents(&self) -> Result<Vec<Found>, CacheError> {
        match Folder::open(&self.path, &["entries"])? {
            Some(entries) => entries.files(),
            None => Ok(Vec::new()),
        }
    }

    /// Removes a document; `false` if it stays because it has changed since it was seen.
    pub(super) fn remove_document(&self, seen: &Found) -> Result<bool, CacheError> {
        let Some(entries) = Folder::open(&self.path, &["entries"])? else {
            return Ok(true);
        };
        match entries.find(&seen.name)? {
            Some(there) if there != *seen => Ok(false),
            Some(_) | None => entries.remove(&seen.name).map(|_| true),
        }
    }

    /// Returns all blobs; the name of each is its digest in hex.
    pub(super) fn blobs(&self) -> Result<Vec<Found>, CacheError> {
        let Some(blobs) = Folder::open(&self.path, &["blobs", "sha256"])? else {
            return Ok(Vec::new());
        };
        let mut found = blobs.files()?;
        found.retain(|file| is_digest(&file.name));
        Ok(found)
    }

    /// Removes a blob that no document names, unless somebody has set its time since `before`.
    pub(super) fn remove_blob(&self, name: &str, before: Timestamp) -> Result<bool, CacheError> {
        // Makes the folder where there is none.
        let hidden = self.beside()?;
        let hidden = hidden.file_name().and_then(|name| name.to_str());
        let hidden = hidden.expect("its name is made of numbers");
        let (Some(blobs), Some(out)) = (
            Folder::open(&self.path, &["blobs", "sha256"])?,
            Folder::open(&self.path, &["tmp"])?,
        ) else {
            return Ok(false);
        };
        if !is_digest(name) || !blobs.rename(name, &out, hidden)? {
            return Ok(false);
        }
        let is_old = out.find(hidden)?.is_some_and(|file| file.changed < before);
        if !is_old {
            // Somebody may have brought it anew: then there are two of the same.
            out.rename(hidden, &blobs, name)?;
            return Ok(false);
        }
        out.remove(hidden)
    }

    /// Returns what was on its way at some time before `before` and never came there.
    pub(super) fn leftovers(&self, before: Timestamp) -> Result<Vec<Found>, CacheError> {
        let Some(out) = Folder::open(&self.path, &["tmp"])? else {
            return Ok(Vec::new());
        };
        let mut found = out.files()?;
        found.retain(|file| file.changed < before && is_beside(&file.name));
        Ok(found)
    }

    pub(super) fn remove_leftover(&self, seen: &Found) -> Result<bool, CacheError> {
        match Folder::open(&self.path, &["tmp"])? {
            Some(out) if out.find(&seen.name)?.as_ref() == Some(seen) => out.remove(&seen.name),
            _ => Ok(false),
        }
    }

    /// Returns the time by the clock that files get theirs from: that of another machine, it may be. `None` where there is no cache.
    pub(super) fn now(&self) -> Result<Option<Timestamp>, CacheError> {
        if Folder::open(&self.path, &["entries"])?.is_none()
            && Folder::open(&self.path, &["blobs", "sha256"])?.is_none()
        {
            return Ok(None);
        }
        let path = self.beside()?;
        File::create_new(&path).map_err(failed("write", &path))?;
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("its name is made of numbers");
        let out = Folder::open(&self.path, &["tmp"])?;
        let found = out.as_ref().map(|out| out.find(name)).transpose()?;
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        let found = found.flatten().ok_or(io::ErrorKind::NotFound);
        let found = found.map_err(|kind| failed("read", &path)(kind.into()))?;
        Ok(Some(found.changed))
    }

    fn entry_path(&self, name: &str) -> PathBuf {
        self.path.join("entries").join(name)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    /// Returns a new path on the same file system.
    fn beside(&self) -> Result<PathBuf, CacheError> {
        let directory = self.path.join("tmp");
        fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        // Processes of several machines may share the directory, so a process ID is not enough.
        Ok(directory.join(format!(
            "{}-{}-{number}",
            std::process::id(),
            since.as_nanos()
        )))
    }

    fn place(&self, beside: &Path, path: &Path) -> Result<(), CacheError> {
        let directory = path.parent().expect("entries and blobs have a directory");
        fs::create_dir_all(directory).map_err(failed("make", directory))?;
        fs::rename(beside, path).map_err(failed("write", path))
    }
}

/// Tells whether a name is a blob's.
fn is_digest(name: &str) -> bool {
    Digest::from_hex(name).is_some_and(|digest| digest.hex() == name)
}

/// Tells whether a name is of the kind that [`beside`](Directory::beside) makes.
fn is_beside(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    parts.len() == 3 && parts.iter().all(is_number)
}

/// Opens a regular file; `None` if there is nothing.
fn open(path: &Path) -> Result<Option<File>, CacheError> {
    use rustix::fs::{Mode, OFlags};
    // The directory may be anybody's: no link is followed out of it, and no FIFO waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(failed("open", path)(error.into())),
    };
    match file.metadata().map_err(failed("open", path))?.is_file() {
        true => Ok(Some(file)),
        false => Err(failed("open", path)(io::Error::other(
            "it is no regular file",
        ))),
    }
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError + use<> {
    let path = path.to_owned();
    move |source| CacheError::File { verb, path, source }
}

/// Reads a file to its end only if it is what it should be.
struct Checked {
    file: io::Take<File>,
    /// Gone when the end was checked.
    hash: Option<Sha256>,
    read: u64,
    expected: Descriptor,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..count]);
        }
        if count == 0
            && !buffer.is_empty()
            && let Some(hash) = self.hash.take()
        {
            let found = hash.finish();
            if found != self.expected.digest || self.read != self.expected.size {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "its {} bytes have digest {found}, wanted {}",
                        self.read, self.expected.digest
                    ),
                ));
            }
        }
        Ok(count)
    }
}
