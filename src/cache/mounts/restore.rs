//! A saved mount becomes two streams again.
//!
//! Packs are fetched by a few threads in the order in which they are needed, checked chunk by chunk, and lie in one file without a
//! name until the streams have read them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FallocateFlags, Mode, OFlags};

use super::chunks::places;
use super::document::{MountName, Version};
use super::error::MountError;
use super::index::{Chunk, Index, MOST_INDEX, Pack, decompressed};
use crate::cache::written::is_stale;
use crate::cache::{CacheError, Place};
use crate::registry::Client;
use crate::vocab::{Cancel, Descriptor, Timestamp};

/// Packs that are fetched at the same time. Each holds its blob in memory.
const AT_ONCE: usize = 4;

/// Asks a place for a mount; `None` if it has none.
pub fn look_up(
    client: &Client,
    place: &Place,
    name: &MountName,
) -> Result<Option<Version>, MountError> {
    let Some(bytes) = place.document(client, &place.mount(&name.key))? else {
        return Ok(None);
    };
    let (_, version) = Version::parse(&name.key, &bytes).map_err(MountError::Document)?;
    Ok(Some(version))
}

/// Notes at a place that a mount, found there as this version, is of use. At most once a day something is sent.
pub fn note_use(
    client: &Client,
    place: &Place,
    name: &MountName,
    version: &Version,
    now: Timestamp,
) -> Result<(), CacheError> {
    if !place.wants_notes() || !is_stale(version.used, now) {
        return Ok(());
    }
    let document = place.mount(&name.key);
    let Some(bytes) = place.document(client, &document)? else {
        return Ok(());
    };
    // Another job may have saved since, or noted the same.
    match Version::parse(&name.key, &bytes) {
        Ok((_, there)) if is_stale(there.used, now) => {
            place.note_use(client, &document, &bytes, now)
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Version {
    /// Fetches what says what the mount consists of.
    pub fn fetch_index(&self, client: &Client, place: &Place) -> Result<Index, MountError> {
        let contradiction = || MountError::Content(self.index.digest);
        if self.index.size > MOST_INDEX {
            return Err(contradiction());
        }
        let blob = fetch(client, place, &self.index)?;
        let bytes = decompressed(&blob, MOST_INDEX).map_err(|source| MountError::Blob {
            blob: self.index.digest,
            source,
        })?;
        let index = Index::decode(&bytes).ok_or_else(contradiction)?;
        // Whoever decides by the description what is too large has decided about this.
        match (index.bytes(), index.target) == (self.bytes, self.target) {
            true => Ok(index),
            false => Err(contradiction()),
        }
    }
}

/// Has `fill` read the two streams of a mount: headers, contents. `directory` is where packs may lie meanwhile; `progress` hears of bytes
/// that came, of how many. An error of a place or pack comes instead of what `fill` made of it.
pub fn restore<T>(
    client: &Client,
    place: &Place,
    index: &Index,
    directory: &Path,
    cancel: &Cancel,
    progress: &(dyn Fn(u64, u64) + Sync),
    fill: impl FnOnce(&mut dyn Read, &mut dyn Read) -> T,
) -> Result<T, MountError> {
    let spool = nameless(directory).map_err(|source| MountError::Keep {
        verb: "keep",
        source,
    })?;
    let work = Work::new(index, spool);
    let total = work.queue.iter().map(|at| index.packs[*at].size).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let filled = std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(work.queue.len()) {
            scope.spawn(|| {
                while let Some(at) = work.queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if cancel.is_cancelled() || work.state().is_over {
                        return work.end(None);
                    }
                    let pack = &index.packs[*at];
                    if let Err(error) = work.fetch(client, place, *at, pack) {
                        return work.end(Some(error));
                    }
                    let done = done.fetch_add(pack.size, Ordering::Relaxed) + pack.size;
                    progress(done, total);
                }
            });
        }
        let filled = fill(
            &mut work.stream(&index.headers),
            &mut work.stream(&index.contents),
        );
        work.end(None);
        filled
    });
    let failure = work.state().failure.take();
    match failure {
        Some(error) => Err(error),
        None => Ok(filled),
    }
}

/// Makes a file that goes with its last descriptor.
fn nameless(directory: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(directory, flags, mode) {
        Ok(file) => Ok(file.into()),
        // Not every file system has files without names.
        Err(_) => {
            let path = directory.join("packs");
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
    }
}

fn fetch(client: &Client, place: &Place, blob: &Descriptor) -> Result<Vec<u8>, MountError> {
    let failed = |source| MountError::Blob {
        blob: blob.digest,
        source,
    };
    let mut reader = place.blob(client, blob)?;
    let mut bytes = Vec::with_capacity(blob.size as usize);
    // Its end has to be seen: there the digest is checked.
    (&mut reader)
        .take(blob.size + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    match bytes.len() as u64 == blob.size {
        true => Ok(bytes),
        false => Err(failed(io::ErrorKind::UnexpectedEof.into())),
    }
}

struct Work {
    spool: File,
    /// Where in the file each pack begins.
    bases: Vec<u64>,
    /// By number: the chunk, its pack, and where in the file it is.
    chunks: Vec<(Chunk, usize, u64)>,
    /// Packs in the order in which they are fetched.
    queue: Vec<usize>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    is_here: Vec<bool>,
    /// How often each pack is still read.
    uses: Vec<u64>,
    failure: Option<MountError>,
    is_over: bool,
}

impl Work {
    fn new(index: &Index, spool: File) -> Work {
        let mut bases = Vec::new();
        let mut end = 0;
        for pack in &index.packs {
            bases.push(end);
            end += pack.bytes();
        }
        let chunks: Vec<(Chunk, usize, u64)> = places(index)
            .into_iter()
            .map(|(pack, offset, chunk)| (chunk, pack, bases[pack] + offset))
            .collect();
        let mut uses = vec![0; index.packs.len()];
        let mut queue = Vec::new();
        // Headers of a file are read before its content; their share is small, so they come first.
        for number in index.headers.iter().chain(&index.contents) {
            let (_, pack, _) = chunks[*number as usize];
            if uses[pack] == 0 {
                queue.push(pack);
            }
            uses[pack] += 1;
        }
        Work {
            spool,
            bases,
            chunks,
            queue,
            state: Mutex::new(State {
                is_here: vec![false; index.packs.len()],
                uses,
                failure: None,
                is_over: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn fetch(
        &self,
        client: &Client,
        place: &Place,
        at: usize,
        pack: &Pack,
    ) -> Result<(), MountError> {
        let blob = fetch(client, place, &pack.descriptor())?;
        let bytes = decompressed(&blob, pack.bytes()).map_err(|source| MountError::Blob {
            blob: pack.blob,
            source,
        })?;
        let mut rest = bytes.as_slice();
        for chunk in &pack.chunks {
            let (found, behind) = rest
                .split_at_checked(chunk.length as usize)
                .ok_or(MountError::Content(pack.blob))?;
            if Chunk::of(found) != *chunk {
                return Err(MountError::Content(pack.blob));
            }
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(MountError::Content(pack.blob));
        }
        let kept = self.spool.write_all_at(&bytes, self.bases[at]);
        kept.map_err(|source| MountError::Keep {
            verb: "keep",
            source,
        })?;
        self.state().is_here[at] = true;
        self.changed.notify_all();
        Ok(())
    }

    fn end(&self, failure: Option<MountError>) {
        let mut state = self.state();
        state.is_over = true;
        if let Some(failure) = failure {
            state.failure.get_or_insert(failure);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn stream<'a>(&'a self, numbers: &'a [u32]) -> Stream<'a> {
        Stream {
            work: self,
            numbers: numbers.iter(),
            chunk: Vec::new(),
            at: 0,
        }
    }

    fn read(&self, number: u32, into: &mut Vec<u8>) -> io::Result<()> {
        let (chunk, pack, offset) = self.chunks[number as usize];
        let mut state = self.state();
        while !state.is_here[pack] {
            if state.is_over {
                return Err(io::Error::other("the rest of it cannot be had"));
            }
            let waited = self.changed.wait_timeout(state, Duration::from_secs(1));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        into.resize(chunk.length as usize, 0);
        self.spool.read_exact_at(into, offset)?;
        let mut state = self.state();
        state.uses[pack] -= 1;
        if state.uses[pack] == 0 {
            let end = self.bases.get(pack + 1).copied();
            drop(state);
            // Room that may be wanted for what is made of it; not every file system gives it back.
            let length = end.map_or(offset + u64::from(chunk.length), |end| end) - self.bases[pack];
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.spool, flags, self.bases[pack], length).ok();
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the two streams.
struct Stream<'a> {
    work: &'a Work,
    numbers: std::slice::Iter<'a, u32>,
    chunk: Vec<u8>,
    /// What of the chunk was read.
    at: usize,
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while self.at == self.chunk.len() {
            let Some(number) = self.numbers.next() else {
                return Ok(0);
            };
            self.at = 0;
            self.chunk.clear();
            self.work.read(*number, &mut self.chunk)?;
        }
        let rest = &self.chunk[self.at..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}
