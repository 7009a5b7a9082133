//! What a saved mount consists of: chunks in packs, and the order in which they make up two streams. Values in, bytes out, and
//! back.
//!
//! ```text
//! "builder-mount 1\n"
//! power of the target size: u8
//! bytes of the headers, bytes of the contents: u64
//! number of packs: u32, { SHA-256 of the blob, its size: u64, number of chunks: u32, { BLAKE3, length: u32 }… }…
//! for the headers, then the contents: number of chunks: u32, { number of a chunk, counted through all packs: u32 }…
//! ```
//!
//! Numbers are little-endian. A pack's blob is its chunks one after the other as one zstd frame. A chunk that no stream has any more
//! stays listed for as long as its pack is kept. What does not agree with this to the last byte, or with itself, is not read.

use std::collections::HashMap;
use std::io::Read;

use super::cuts::Target;
use crate::vocab::{Descriptor, Digest};

const MAGIC: &[u8; 16] = b"builder-mount 1\n";
/// Chunks of so many bytes go into a pack.
pub(super) const PACK: usize = 8 << 20;
/// Longer packs are nobody's: one chunk may go beyond.
const MOST_IN_PACK: u64 = 2 * PACK as u64;
/// Blobs are no longer than what does not compress.
const MOST_BLOB: u64 = MOST_IN_PACK + (1 << 20);
/// Larger indexes are refused: a hundred thousand chunks and more fit.
pub(super) const MOST_INDEX: u64 = 16 << 20;
/// The window of a frame, as a power of two.
const WINDOW: u32 = 25;

/// A chunk by what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Chunk {
    pub(super) digest: [u8; 32],
    pub(super) length: u32,
}

impl Chunk {
    pub(super) fn of(bytes: &[u8]) -> Chunk {
        Chunk {
            digest: *blake3::hash(bytes).as_bytes(),
            length: bytes.len() as u32,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pack {
    pub(super) blob: Digest,
    pub(super) size: u64,
    pub(super) chunks: Vec<Chunk>,
}

impl Pack {
    pub(super) fn bytes(&self) -> u64 {
        self.chunks
            .iter()
            .map(|chunk| u64::from(chunk.length))
            .sum()
    }

    pub(super) fn descriptor(&self) -> Descriptor {
        super::document::blob(self.blob, self.size)
    }
}

/// What a place has of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub(super) target: Target,
    pub(super) packs: Vec<Pack>,
    /// The chunks of the two streams, by their numbers.
    pub(super) headers: Vec<u32>,
    pub(super) contents: Vec<u32>,
}

impl Index {
    /// Writes a stream's chunks as numbers; every one is in a pack.
    pub(super) fn new(
        target: Target,
        packs: Vec<Pack>,
        headers: &[Chunk],
        contents: &[Chunk],
    ) -> Option<Index> {
        let mut numbers = HashMap::new();
        for (number, chunk) in packs.iter().flat_map(|pack| &pack.chunks).enumerate() {
            numbers.entry(*chunk).or_insert(number as u32);
        }
        let numbered = |chunks: &[Chunk]| -> Option<Vec<u32>> {
            let numbers = chunks.iter().map(|chunk| numbers.get(chunk).copied());
            numbers.collect()
        };
        Some(Index {
            target,
            headers: numbered(headers)?,
            contents: numbered(contents)?,
            packs,
        })
    }

    /// Returns all chunks in the order of their numbers.
    pub(super) fn chunks(&self) -> Vec<Chunk> {
        let chunks = self.packs.iter().flat_map(|pack| &pack.chunks);
        chunks.copied().collect()
    }

    /// Returns the bytes of both streams.
    pub(super) fn bytes(&self) -> u64 {
        let chunks = self.chunks();
        let numbers = self.headers.iter().chain(&self.contents);
        numbers
            .map(|number| u64::from(chunks[*number as usize].length))
            .sum()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let chunks = self.chunks();
        let sum = |numbers: &[u32]| -> u64 {
            let lengths = numbers.iter().map(|number| chunks[*number as usize].length);
            lengths.map(u64::from).sum()
        };
        let mut bytes = MAGIC.to_vec();
        bytes.push(self.target.power());
        bytes.extend(sum(&self.headers).to_le_bytes());
        bytes.extend(sum(&self.contents).to_le_bytes());
        bytes.extend((self.packs.len() as u32).to_le_bytes());
        for pack in &self.packs {
            bytes.extend(pack.blob.as_bytes());
            bytes.extend(pack.size.to_le_bytes());
            bytes.extend((pack.chunks.len() as u32).to_le_bytes());
            for chunk in &pack.chunks {
                bytes.extend(chunk.digest);
                bytes.extend(chunk.length.to_le_bytes());
            }
        }
        for numbers in [&self.headers, &self.contents] {
            bytes.extend((numbers.len() as u32).to_le_bytes());
            for number in numbers {
                bytes.extend(number.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads an index; `None` if it is none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Index> {
        let mut bytes = Bytes(bytes);
        if bytes.take(MAGIC.len())? != MAGIC {
            return None;
        }
        let target = Target::from_power(bytes.take(1)?[0])?;
        let sums = [bytes.u64()?, bytes.u64()?];
        let mut packs = Vec::new();
        for _ in 0..bytes.u32()? {
            let blob = Digest::from_bytes(bytes.array()?);
            let size = bytes.u64()?;
            let mut chunks = Vec::new();
            for _ in 0..bytes.u32()? {
                let digest = bytes.array()?;
                let length = bytes.u32()?;
                chunks.push(Chunk { digest, length });
            }
            let pack = Pack { blob, size, chunks };
            let is_empty = pack.chunks.iter().any(|chunk| chunk.length == 0);
            if is_empty || pack.bytes() > MOST_IN_PACK || size > MOST_BLOB {
                return None;
            }
            packs.push(pack);
        }
        let lengths: Vec<u64> = packs
            .iter()
            .flat_map(|pack| &pack.chunks)
            .map(|chunk| u64::from(chunk.length))
            .collect();
        let mut streams = [Vec::new(), Vec::new()];
        for (numbers, expected) in streams.iter_mut().zip(sums) {
            let mut sum: u64 = 0;
            for _ in 0..bytes.u32()? {
                let number = bytes.u32()?;
                sum = sum.checked_add(*lengths.get(number as usize)?)?;
                numbers.push(number);
            }
            if sum != expected {
                return None;
            }
        }
        let [headers, contents] = streams;
        bytes.0.is_empty().then_some(Index {
            target,
            packs,
            headers,
            contents,
        })
    }
}

/// Compresses what a blob holds.
pub(super) fn compressed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, 3)
}

/// Returns what a blob holds: at most `most` bytes.
pub(super) fn decompressed(blob: &[u8], most: u64) -> std::io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
    decoder.window_log_max(WINDOW)?;
    let mut bytes = Vec::new();
    decoder.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= most {
        true => Ok(bytes),
        false => Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "it holds more than it may",
        )),
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let chunk = |text: &str| Chunk::of(text.as_bytes());
        let packs = vec![
            Pack {
                blob: Digest::of(b"one"),
                size: 7,
                chunks: vec![chunk("header"), chunk("unused")],
            },
            Pack {
                blob: Digest::of(b"two"),
                size: 9,
                chunks: vec![chunk("content")],
            },
        ];
        let contents = [chunk("content"), chunk("header"), chunk("content")];
        let target = Target::from_power(16).unwrap();
        Index::new(target, packs, &[chunk("header")], &contents).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let index = index();
        assert_eq!(
            (index.headers.clone(), index.contents.clone()),
            (vec![0], vec![2, 0, 2])
        );
        assert_eq!(index.bytes(), 6 + 7 + 6 + 7);
        assert_eq!(Index::decode(&index.encode()), Some(index));
    }

    #[test]
    fn pinned_example() {
        let digest = Digest::of(&index().encode());
        assert_eq!(digest.hex(), PINNED);
    }

    /// If this changes, raise the number in `MAGIC`.
    const PINNED: &str = "3778948ed6aa4beadf3554bad2ff5c8c0e55b0c8fa406aab4986da5e3745bc29";

    #[test]
    fn a_cut_or_changed_index_is_refused_or_another_one_and_never_a_panic() {
        let whole = index().encode();
        for length in 0..whole.len() {
            assert_eq!(Index::decode(&whole[..length]), None, "cut at {length}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x81;
            assert_ne!(Index::decode(&changed), Some(index()), "changed at {at}");
        }
        let longer = [whole.as_slice(), b"x"].concat();
        assert_eq!(Index::decode(&longer), None);
    }

    #[test]
    fn nothing_holds_more_than_it_says() {
        let blob = compressed(&vec![0; 1 << 20]).unwrap();
        assert!(decompressed(&blob, 1 << 20).is_ok());
        assert!(decompressed(&blob, (1 << 20) - 1).is_err());
        assert!(decompressed(&blob[..blob.len() - 1], 1 << 20).is_err());
    }
}
