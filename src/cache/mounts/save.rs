//! A mount goes to a place: packs that nobody has, the index, and last the document, so that what is found is whole.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::chunks::{Outline, Packed};
use super::document::{self, MountName, Version};
use super::error::MountError;
use super::index::{Index, compressed};
use crate::cache::{CacheError, Place};
use crate::registry::Client;
use crate::vocab::{Cancel, Digest, Timestamp};

/// Packs that are sent at the same time.
const AT_ONCE: usize = 4;

/// What has gone to a place.
#[derive(Debug)]
pub struct Saved {
    pub version: Version,
    pub index: Index,
    /// Bytes of blobs that were offered.
    pub sent: u64,
}

/// Gives a mount to a place, over what is there under its name. `progress` hears of bytes that were sent, of how many.
#[expect(
    clippy::too_many_arguments,
    reason = "each is another thing, and there is one caller"
)]
pub fn save(
    client: &Client,
    place: &Place,
    name: &MountName,
    outline: &Outline,
    packed: Packed,
    now: Timestamp,
    cancel: &Cancel,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Saved, MountError> {
    let Packed { index, fresh } = packed;
    let keep = |source| MountError::Keep {
        verb: "compress",
        source,
    };
    let index_blob = compressed(&index.encode()).map_err(keep)?;
    let version = Version {
        identity: outline.identity(),
        bytes: outline.bytes(),
        saved: now,
        used: now,
        target: outline.target,
        index: document::blob(Digest::of(&index_blob), index_blob.len() as u64),
    };
    let documents = version.documents(name, &index).ok_or(MountError::TooMany)?;
    let total = fresh.iter().map(|(pack, _)| pack.size).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let failure: Mutex<Option<CacheError>> = Mutex::new(None);
    let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(fresh.len()) {
            scope.spawn(|| {
                while let Some((pack, path)) = fresh.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if failed().is_some() || cancel.is_cancelled() {
                        return;
                    }
                    let open = |offset| open(path, offset);
                    let sent = place.put_blob(client, &pack.descriptor(), &open, &[]);
                    if let Err(error) = sent {
                        failed().get_or_insert(error);
                        return;
                    }
                    let done = done.fetch_add(pack.size, Ordering::Relaxed) + pack.size;
                    progress(done, total);
                }
            });
        }
    });
    if let Some(error) = failed().take() {
        return Err(error.into());
    }
    if cancel.is_cancelled() {
        let source = io::Error::other("cancelled");
        return Err(MountError::Keep {
            verb: "send",
            source,
        });
    }
    let open_index = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        let rest = index_blob.get(offset as usize..).unwrap_or_default();
        Ok(Box::new(io::Cursor::new(rest.to_vec())))
    };
    place.put_blob(client, &version.index, &open_index, &[])?;
    place.put_document(client, &place.mount(&name.key), &documents)?;
    Ok(Saved {
        sent: total + version.index.size,
        version,
        index,
    })
}

fn open(path: &Path, offset: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(Box::new(file))
}
