//! Blobs: bytes named by their digest, in an OCI layout.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lower::Lower;
use super::session::Session;
use super::{Store, StoreError, disk, fault};
use crate::vocab::{Digest, Sha256};

/// Writes a blob whose digest is known at the end. Dropped without a commit, it leaves nothing.
///
/// Unbuffered: hand it large pieces.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    session: Arc<Session>,
    path: PathBuf,
    file: File,
    written: u64,
    hash: Option<Sha256Writer>,
}

/// [`Sha256`] with a `Debug` that does not show its state.
struct Sha256Writer(Sha256);

impl std::fmt::Debug for Sha256Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256")
    }
}

impl Store {
    /// Opens a blob without checking its content; `None` if it is not there.
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        if let Some(file) = disk::open(&self.blob_path(digest))? {
            return Ok(Some(file));
        }
        Ok(self
            .blobs_below(digest)
            .find_map(|(lower, path)| lower.file(&path)))
    }

    /// Returns where the blob is in this store, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path_in(self.root(), digest)
    }

    /// Returns where the blob would be in the lower stores.
    fn blobs_below(&self, digest: &Digest) -> impl Iterator<Item = (&Lower, PathBuf)> {
        let path = |lower: &Lower| blob_path_in(lower.home(), digest);
        let paths = self.lower_stores().map(move |lower| (lower, path(lower)));
        let is_usable = !self.passes_over_blob(digest);
        paths.filter(move |_| is_usable)
    }

    /// Returns a blob's length; `None` if it is not there.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        self.own_blob_size(digest).or_else(|| {
            self.blobs_below(digest)
                .find_map(|(lower, path)| lower.size(&path))
        })
    }

    /// Returns the length of a blob of this store itself.
    pub(super) fn own_blob_size(&self, digest: &Digest) -> Option<u64> {
        let metadata = std::fs::symlink_metadata(self.blob_path(digest)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Starts a blob.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        let session = self.session()?;
        let path = session.unique();
        let file = fault::growth()
            .and_then(|()| {
                File::options()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&path)
            })
            .map_err(|error| StoreError::from_io(&path, "write", error))?;
        Ok(BlobWriter {
            store: self.clone(),
            session,
            path,
            file,
            written: 0,
            hash: None,
        })
    }

    /// Stores bytes under their digest.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let is_below = || {
            let limit = bytes.len() as u64;
            let mut below = self.blobs_below(&digest);
            below.any(|(lower, path)| lower.bytes(&path, limit).is_some_and(|own| own == bytes))
        };
        if self.own_blob_size(&digest) != Some(bytes.len() as u64) && !is_below() {
            self.session()?.put(&self.blob_path(&digest), bytes)?;
        }
        Ok(digest)
    }

    /// Reads a blob and checks it against its digest.
    ///
    /// A damaged blob is removed and not there: it can be fetched or made again. A blob longer than `limit` is an error.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(bytes) = self.read_own_blob(digest, limit)? {
            return Ok(Some(bytes));
        }
        Ok(self.blobs_below(digest).find_map(|(lower, path)| {
            let bytes = lower.bytes(&path, limit)?;
            (Digest::of(&bytes) == *digest).then_some(bytes)
        }))
    }

    fn read_own_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.blob_path(digest);
        let Some(file) = disk::open(&path)? else {
            return Ok(None);
        };
        let fail = |error| StoreError::from_io(&path, "read", error);
        let size = file.metadata().map_err(fail)?.len();
        if size > limit {
            return Err(StoreError::TooLarge {
                digest: *digest,
                size,
                limit,
            });
        }
        let bytes = disk::read_open(&file, limit).map_err(fail)?;
        if Digest::of(&bytes) == *digest {
            return Ok(Some(bytes));
        }
        // On a read-only store it stays, and stays unseen.
        drop(disk::remove_file(&path));
        Ok(None)
    }
}

impl BlobWriter {
    /// Lets the bytes be hashed as they are written, for [`BlobWriter::commit_checked`].
    pub fn hashing(mut self) -> BlobWriter {
        if self.written == 0 {
            self.hash = Some(Sha256Writer(Sha256::new()));
        }
        self
    }

    /// Returns how many bytes were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Puts the blob in its place. The caller has hashed the bytes.
    ///
    /// One of the same length that is there stays, because it may have been synced; of another length, it is replaced.
    pub fn commit(self, digest: &Digest) -> Result<(), StoreError> {
        if self.store.own_blob_size(digest) == Some(self.written) {
            return Ok(());
        }
        disk::rename_over(&self.path, &self.store.blob_path(digest))
    }

    /// Puts the blob in its place if its bytes have that digest. Without [`BlobWriter::hashing`] the file is read again.
    pub fn commit_checked(mut self, digest: &Digest) -> Result<(), StoreError> {
        let found = match self.hash.take() {
            Some(hash) => hash.0.finish(),
            None => hash_file(&self.path)
                .map_err(|error| StoreError::from_io(&self.path, "read", error))?,
        };
        if found != *digest {
            return Err(StoreError::Mismatch {
                wanted: *digest,
                found,
            });
        }
        self.commit(digest)
    }

    /// Turns an error of writing into the store's own, which knows what to do about a full disk.
    pub fn error(&self, error: io::Error) -> StoreError {
        StoreError::from_io(self.session.dir(), "write a blob", error)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fault::growth()?;
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        if let Some(hash) = &mut self.hash {
            hash.0.update(&bytes[..count]);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a commit that moved it there is nothing to remove.
        drop(disk::remove_file(&self.path));
    }
}

fn blob_path_in(home: &Path, digest: &Digest) -> PathBuf {
    let mut path = home.join("oci/blobs/sha256");
    path.push(digest.hex());
    path
}

/// Reads a file and returns the digest of its bytes.
pub(super) fn hash_file(path: &Path) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    io::copy(
        &mut io::BufReader::with_capacity(1 << 18, File::open(path)?),
        &mut hash,
    )?;
    Ok(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;
    use std::fs;

    #[test]
    fn bytes_come_back_and_dropped_writers_leave_nothing() {
        let (_dir, store) = store();
        let digest = Digest::of(b"hello");
        for hashing in [false, true, true] {
            let mut writer = store.blob_writer().unwrap();
            if hashing {
                writer = writer.hashing();
            }
            writer.write_all(b"hel").unwrap();
            writer.write_all(b"lo").unwrap();
            writer.commit_checked(&digest).unwrap();
        }
        assert_eq!(store.read_blob(&digest, 5).unwrap().unwrap(), b"hello");
        assert_eq!(store.blob_size(&digest), Some(5));
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(b"x").unwrap();
        drop(writer);
        assert!(
            disk::names(store.session().unwrap().dir())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn bytes_other_than_announced_are_refused() {
        let (_dir, store) = store();
        for hashing in [false, true] {
            let mut writer = store.blob_writer().unwrap();
            if hashing {
                writer = writer.hashing();
            }
            writer.write_all(b"evil").unwrap();
            let error = writer.commit_checked(&Digest::of(b"good")).unwrap_err();
            assert!(matches!(error, StoreError::Mismatch { .. }));
        }
        assert_eq!(store.blob_size(&Digest::of(b"good")), None);
        assert_eq!(store.blob_size(&Digest::of(b"evil")), None);
    }

    #[test]
    fn a_damaged_blob_is_not_returned_and_can_be_written_again() {
        let (_dir, store) = store();
        let digest = store.put_blob(b"hello").unwrap();
        for damage in ["", "jello", "hello and more"] {
            fs::write(store.blob_path(&digest), damage).unwrap();
            assert_eq!(store.read_blob(&digest, 100).unwrap(), None, "{damage}");
            store.put_blob(b"hello").unwrap();
            assert_eq!(store.read_blob(&digest, 100).unwrap().unwrap(), b"hello");
        }
    }

    #[test]
    fn a_blob_above_the_limit_is_not_read() {
        let (_dir, store) = store();
        let digest = store.put_blob(b"hello").unwrap();
        let error = store.read_blob(&digest, 4).unwrap_err();
        assert!(matches!(
            error,
            StoreError::TooLarge {
                size: 5,
                limit: 4,
                ..
            }
        ));
        assert_eq!(store.read_blob(&Digest::of(b"none"), 4).unwrap(), None);
    }
}
