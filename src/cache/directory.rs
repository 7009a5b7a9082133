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

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use super::CacheError;
use super::written::Documents;
use crate::vocab::{Descriptor, Digest, Sha256};

/// Larger files are no entries.
const MOST_ENTRY: u64 = 8 << 20;

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
