//! One member: up to about 1 MiB of tar, compressed on its own. A row of gzip members is a gzip file, a row of zstd frames a zstd
//! file.
//!
//! Equal bytes give equal members with the same library versions, whichever thread works and in whichever order. Headers hold
//! no time, name or system. What cannot be compressed is found out first: libdeflate would spend as long on it as on text, zstd's
//! fastest level sees it at 4 GB/s.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use libdeflater::CompressionLvl;
use zstd::zstd_safe;

use crate::vocab::Compression;

/// One independently compressed part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where its bytes begin in the tar, and their number.
    pub uncompressed_offset: u64,
    pub uncompressed_len: u64,
    /// Where it begins in the blob, and its length there.
    pub offset: u64,
    pub len: u64,
    /// BLAKE3 of its uncompressed bytes.
    pub digest: [u8; 32],
}

/// Gives the compressed form of a member that was packed before, by the digest of its uncompressed bytes.
pub(super) type KnownMembers = Arc<Mutex<dyn FnMut(&[u8; 32]) -> Option<Vec<u8>> + Send>>;

/// A member on its way to the sink.
pub(super) struct Packed {
    pub(super) uncompressed_len: u64,
    /// Of the uncompressed bytes.
    pub(super) digest: [u8; 32],
    pub(super) bytes: Vec<u8>,
}

/// Makes members; each thread has its own.
pub(super) struct Packer {
    codec: Codec,
    known: Option<KnownMembers>,
}

impl Packer {
    pub(super) fn new(compression: Compression, known: Option<KnownMembers>) -> io::Result<Packer> {
        let codec = match compression {
            Compression::Uncompressed => {
                return Err(io::Error::other("an uncompressed layer has no members"));
            }
            Compression::Gzip { level } => Codec::Gzip(Gzip::new(level)?),
            Compression::Zstd { level } => Codec::Zstd(Zstd::new(level)?),
        };
        Ok(Packer { codec, known })
    }

    pub(super) fn pack(&mut self, bytes: &[u8]) -> io::Result<Packed> {
        let digest = *blake3::hash(bytes).as_bytes();
        let kept = self.known.as_ref().and_then(|known| {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known(&digest)
        });
        let packed = match kept {
            Some(kept) if self.codec.made(&kept, bytes) => kept,
            _ => self.codec.compress(bytes)?,
        };
        Ok(Packed {
            uncompressed_len: bytes.len() as u64,
            digest,
            bytes: packed,
        })
    }
}

enum Codec {
    Gzip(Gzip),
    Zstd(Zstd),
}

impl Codec {
    fn compress(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Codec::Gzip(gzip) => gzip.compress(bytes),
            Codec::Zstd(zstd) => zstd.compress(bytes),
        }
    }

    /// Says whether `kept` looks like the member of `bytes`: a cheap look that finds mix-ups and lost ends, no full check.
    fn made(&self, kept: &[u8], bytes: &[u8]) -> bool {
        match self {
            Codec::Gzip(_) => {
                kept.len() > GZIP_HEADER.len() + 8
                    && kept.starts_with(&GZIP_HEADER)
                    && kept.ends_with(&gzip_trailer(bytes))
            }
            Codec::Zstd(_) => {
                zstd_safe::find_frame_compressed_size(kept) == Ok(kept.len())
                    && zstd_safe::get_frame_content_size(kept)
                        .is_ok_and(|size| size == Some(bytes.len() as u64))
            }
        }
    }
}

/// Deflate, no flags, no time, no hint of the level, an unknown system (RFC 1952, 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

fn gzip_trailer(bytes: &[u8]) -> [u8; 8] {
    let mut trailer = [0; 8];
    trailer[..4].copy_from_slice(&libdeflater::crc32(bytes).to_le_bytes());
    // The length is stated modulo 2^32.
    trailer[4..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    trailer
}

struct Gzip {
    deflate: libdeflater::Compressor,
    store: libdeflater::Compressor,
    probe: Probe,
    scratch: Vec<u8>,
}

impl Gzip {
    fn new(level: u32) -> io::Result<Gzip> {
        let compressor = |level: u32| {
            CompressionLvl::new(level as i32)
                .map(libdeflater::Compressor::new)
                .map_err(|_| io::Error::other("libdeflate does not know the compression level"))
        };
        Ok(Gzip {
            // libdeflate goes on to 12, but no gzip level does.
            deflate: compressor(level.min(9))?,
            store: compressor(0)?,
            probe: Probe::new()?,
            scratch: Vec::new(),
        })
    }

    fn compress(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let deflate = match self.probe.incompressible(&mut self.scratch, bytes)? {
            Some(_) => &mut self.store,
            None => &mut self.deflate,
        };
        let bound = deflate.deflate_compress_bound(bytes.len());
        if self.scratch.len() < bound {
            self.scratch.resize(bound, 0);
        }
        let length = deflate
            .deflate_compress(bytes, &mut self.scratch)
            .map_err(|_| io::Error::other("libdeflate needs more than its own bound"))?;
        let deflated = &self.scratch[..length];
        Ok([&GZIP_HEADER[..], deflated, &gzip_trailer(bytes)].concat())
    }
}

struct Zstd {
    context: zstd::bulk::Compressor<'static>,
    probe: Option<Probe>,
    scratch: Vec<u8>,
}

/// Up to here zstd itself is quick to see what cannot be compressed.
const ZSTD_QUICK: i32 = 9;

impl Zstd {
    fn new(level: i32) -> io::Result<Zstd> {
        let levels = zstd::compression_level_range();
        let level = level.clamp(*levels.start(), *levels.end());
        Ok(Zstd {
            context: zstd::bulk::Compressor::new(level)?,
            probe: match level > ZSTD_QUICK {
                true => Some(Probe::new()?),
                false => None,
            },
            scratch: Vec::new(),
        })
    }

    fn compress(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        if let Some(probe) = &mut self.probe
            && let Some(frame) = probe.incompressible(&mut self.scratch, bytes)?
        {
            return Ok(frame.to_vec());
        }
        Ok(frame(&mut self.context, &mut self.scratch, bytes)?.to_vec())
    }
}

/// Compresses `bytes` into one frame in `scratch`.
fn frame<'a>(
    context: &mut zstd::bulk::Compressor<'static>,
    scratch: &'a mut Vec<u8>,
    bytes: &[u8],
) -> io::Result<&'a [u8]> {
    let bound = zstd_safe::compress_bound(bytes.len());
    if scratch.len() < bound {
        scratch.resize(bound, 0);
    }
    let length = context.compress_to_buffer(bytes, &mut scratch[..])?;
    Ok(&scratch[..length])
}

/// Finds out whether compressing is worth the time.
///
/// Four samples of 4 KiB go through zstd's fastest level; only if they do not shrink by a 64th, all bytes do, which is quick for
/// such bytes. Both must agree, so that a member is stored only if at most a 64th of it could be saved.
struct Probe {
    context: zstd::bulk::Compressor<'static>,
}

impl Probe {
    const SAMPLES: usize = 4;
    const SAMPLE: usize = 4096;

    fn new() -> io::Result<Probe> {
        Ok(Probe {
            context: zstd::bulk::Compressor::new(1)?,
        })
    }

    /// Returns all of `bytes` as one zstd frame, in `scratch`, if nothing is gained by compressing them.
    fn incompressible<'a>(
        &mut self,
        scratch: &'a mut Vec<u8>,
        bytes: &[u8],
    ) -> io::Result<Option<&'a [u8]>> {
        // Little bytes cost little time.
        if bytes.len() < 2 * Probe::SAMPLES * Probe::SAMPLE {
            return Ok(None);
        }
        let stride = (bytes.len() - Probe::SAMPLE) / (Probe::SAMPLES - 1);
        let mut length = 0;
        for sample in 0..Probe::SAMPLES {
            let sample = &bytes[sample * stride..][..Probe::SAMPLE];
            length += frame(&mut self.context, scratch, sample)?.len();
        }
        if shrinks(Probe::SAMPLES * Probe::SAMPLE, length) {
            return Ok(None);
        }
        let whole = frame(&mut self.context, scratch, bytes)?;
        Ok((!shrinks(bytes.len(), whole.len())).then_some(whole))
    }
}

fn shrinks(from: usize, to: usize) -> bool {
    to + from / 64 < from
}
