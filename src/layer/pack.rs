//! Entries become a layer's blob in one pass: tar, digest of the tar, compression, digest of the blob, sink.
//!
//! The tar's bytes are those of [`TarWriter`](super::TarWriter). They are cut at the points that `cuts` gives and each
//! part is compressed on its own, so the blob depends on the entries, the compression and the compressors' versions: not on
//! the number of threads, nor on what was known before.
//!
//! ```text
//! caller ── fills a chunk ─┬─> thread: SHA-256 of the tar
//!    ^                     └─> threads: BLAKE3, compress ──┐
//!    └── SHA-256 of the blob, sink  <── in order ──────────┘
//! ```
//!
//! Threads begin with the second member; a small layer, and one with `threads` of 1, is made by the caller alone.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use crate::vocab::{Compression, DiffId, Digest, Sha256};

use super::chunk::{self, Chunk};
use super::crew::{Crew, Pool, Sealed};
use super::cuts::{STEP, cuts_before};
use super::encoder::Encoder;
use super::entry::{Entry, EntryKind};
use super::header::{BLOCK, padding};
use super::member::{KnownMembers, Member, Packed, Packer};
use super::tar_digest::TarDigest;
use super::writer::broken;

/// Nobody has more processors than that, and sums of it do not overflow.
const MAX_THREADS: usize = 1024;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedLayer {
    pub diff_id: DiffId,
    /// Of the blob.
    pub digest: Digest,
    /// Of the blob.
    pub size: u64,
    /// Of the tar.
    pub uncompressed_size: u64,
    /// In order, without gaps; empty if nothing was compressed.
    pub members: Vec<Member>,
}

/// Writes a layer's blob. It is complete after [`LayerWriter::finish`] alone; after an error in the middle of an entry nothing
/// more can be written. Dropping it ends its threads.
pub struct LayerWriter<W: Write> {
    blob: Blob<W>,
    encoder: Encoder,
    pool: Pool,
    chunk: Chunk,
    tar: TarDigest,
    packing: Packing,
    threads: usize,
    compression: Compression,
    known: Option<KnownMembers>,
    broken: bool,
}

/// Who compresses.
enum Packing {
    /// Nobody has needed to.
    Undecided,
    Stored,
    Caller(Box<Packer>),
    Crew(Box<Crew>),
}

impl<W: Write> LayerWriter<W> {
    /// Returns a writer that has written nothing. Levels of gzip are 0 (stored) to 9, those of zstd are libzstd's; one that is out
    /// of range means the nearest. `threads` is how many compress at the same time.
    pub fn new(sink: W, compression: Compression, threads: usize) -> LayerWriter<W> {
        let pool = Pool::default();
        LayerWriter {
            blob: Blob {
                sink,
                digest: Sha256::new(),
                size: 0,
                members: Vec::new(),
                uncompressed_size: 0,
            },
            encoder: Encoder::default(),
            chunk: pool.take(),
            pool,
            tar: TarDigest::Caller(Sha256::new()),
            packing: Packing::Undecided,
            threads: threads.clamp(1, MAX_THREADS),
            compression,
            known: None,
            broken: false,
        }
    }

    /// Has members taken from `known`, asked by the BLAKE3 of their uncompressed bytes, where it gives them. They must be what
    /// this compression at this level gave for these bytes before; one that is obviously something else is not used. `known`
    /// is called from several threads, one at a time and in no particular order.
    pub fn with_known_members(
        mut self,
        known: impl FnMut(&[u8; 32]) -> Option<Vec<u8>> + Send + 'static,
    ) -> LayerWriter<W> {
        self.known = Some(Arc::new(Mutex::new(known)));
        self
    }

    /// Writes one entry. For a file `content` must give exactly as many bytes as the entry states and then end; for anything
    /// else it is not looked at.
    pub fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        if self.broken {
            return Err(broken());
        }
        self.encoder.encode(entry)?;
        self.broken = true;
        let size = match entry.kind {
            EntryKind::File { size } => size,
            _ => 0,
        };
        let joined = match usize::try_from(size) {
            Ok(size) if size < STEP => size + padding(size as u64) as usize,
            _ => 0,
        };
        let piece = self.encoder.encoded().len() + joined;
        if cuts_before(&entry.path, piece, self.chunk.len()) {
            self.seal()?;
        }
        self.chunk.reserve(piece);
        self.chunk.put(self.encoder.encoded());
        if let EntryKind::File { size } = entry.kind {
            self.copy(&entry.path, size, content)?;
        }
        self.broken = false;
        Ok(())
    }

    /// Writes the end of the layer; returns the sink, flushed, and what was written.
    pub fn finish(mut self) -> io::Result<(W, PackedLayer)> {
        if self.broken {
            return Err(broken());
        }
        self.chunk.reserve(2 * BLOCK);
        self.chunk.put_zeros(2 * BLOCK);
        self.seal_last()?;
        let diff_id = self.tar.finish()?;
        let mut blob = self.blob;
        blob.sink.flush()?;
        let digest = match self.compression {
            Compression::Uncompressed => diff_id,
            _ => blob.digest.finish(),
        };
        let packed = PackedLayer {
            diff_id: DiffId(diff_id),
            digest,
            size: blob.size,
            uncompressed_size: blob.uncompressed_size,
            members: blob.members,
        };
        Ok((blob.sink, packed))
    }

    fn copy(&mut self, path: &[u8], size: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut rest = size;
        while rest > 0 {
            if size >= STEP as u64 {
                self.seal()?;
            }
            let step = rest.min(STEP as u64);
            let found = self.chunk.read_from(content, step as usize)? as u64;
            rest -= found;
            if found < step {
                return Err(chunk::short(path, size, size - rest));
            }
        }
        chunk::expect_end(content, path, size)?;
        self.chunk.reserve(padding(size) as usize);
        self.chunk.put_zeros(padding(size) as usize);
        Ok(())
    }

    /// Ends the current member, with others to follow.
    fn seal(&mut self) -> io::Result<()> {
        if self.threads > 1 {
            self.tar.start_thread();
        }
        if let Packing::Undecided = self.packing {
            self.packing = self.decide(self.threads)?;
        }
        self.pack()
    }

    /// Ends the last member and has all of them written.
    fn seal_last(&mut self) -> io::Result<()> {
        if let Packing::Undecided = self.packing {
            self.packing = self.decide(1)?;
        }
        self.pack()?;
        if let Packing::Crew(crew) = &mut self.packing {
            while let Some(packed) = crew.take() {
                self.blob.put(&packed?)?;
            }
        }
        Ok(())
    }

    fn decide(&self, threads: usize) -> io::Result<Packing> {
        let known = self.known.clone();
        Ok(match (self.compression, threads) {
            (Compression::Uncompressed, _) => Packing::Stored,
            (compression, 1) => Packing::Caller(Box::new(Packer::new(compression, known)?)),
            (compression, _) => Packing::Crew(Box::new(Crew::new(compression, known, threads))),
        })
    }

    fn pack(&mut self) -> io::Result<()> {
        let next = self.pool.take();
        let chunk = std::mem::replace(&mut self.chunk, next);
        let sealed = Sealed::new(chunk, &self.pool);
        self.tar.update(&sealed)?;
        match &mut self.packing {
            Packing::Undecided => unreachable!("whoever seals decides first"),
            Packing::Stored => self.blob.put_stored(sealed.bytes())?,
            Packing::Caller(packer) => self.blob.put(&packer.pack(sealed.bytes())?)?,
            Packing::Crew(crew) => {
                let length = sealed.bytes().len();
                while crew.is_full(length)
                    && let Some(packed) = crew.take()
                {
                    self.blob.put(&packed?)?;
                }
                crew.submit(sealed)?;
                while let Some(packed) = crew.take_ready() {
                    self.blob.put(&packed?)?;
                }
            }
        }
        Ok(())
    }
}

/// What comes out: the sink, and what is said about its bytes.
struct Blob<W> {
    sink: W,
    digest: Sha256,
    size: u64,
    members: Vec<Member>,
    uncompressed_size: u64,
}

impl<W: Write> Blob<W> {
    fn put(&mut self, packed: &Packed) -> io::Result<()> {
        self.sink.write_all(&packed.bytes)?;
        self.digest.update(&packed.bytes);
        let len = packed.bytes.len() as u64;
        self.members.push(Member {
            uncompressed_offset: self.uncompressed_size,
            uncompressed_len: packed.uncompressed_len,
            offset: self.size,
            len,
            digest: packed.digest,
        });
        self.size += len;
        self.uncompressed_size += packed.uncompressed_len;
        Ok(())
    }

    /// Bytes that are blob and tar at once; the tar's digest is the blob's.
    fn put_stored(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.write_all(bytes)?;
        self.size += bytes.len() as u64;
        self.uncompressed_size += bytes.len() as u64;
        Ok(())
    }
}
