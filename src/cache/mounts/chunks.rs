//! Two streams become chunks, and those that nobody has become packs.
//!
//! The streams are read twice. The first time says which chunks there are, and so what has to travel; the second time gives the
//! bytes, and shows that nothing changed meanwhile. Where nothing has to travel the second time is left out.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cuts::{Cutter, Target};
use super::document::Version;
use super::index::{Chunk, Index, PACK, Pack, compressed};
use crate::vocab::Digest;

/// Packs below half the size. Of more than these the smallest are put together.
const MOST_SMALL: usize = 8;

/// Takes two streams and cuts them.
pub struct Streams<'a> {
    headers: Stream,
    contents: Stream,
    take: &'a mut dyn FnMut(Which, &[u8]) -> io::Result<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Headers,
    Contents,
}

struct Stream {
    which: Which,
    cutter: Cutter,
    /// Of the chunk that is not cut yet.
    begun: Vec<u8>,
}

impl<'a> Streams<'a> {
    fn new(target: Target, take: &'a mut dyn FnMut(Which, &[u8]) -> io::Result<()>) -> Streams<'a> {
        let stream = |which| Stream {
            which,
            cutter: Cutter::new(target),
            begun: Vec::new(),
        };
        Streams {
            headers: stream(Which::Headers),
            contents: stream(Which::Contents),
            take,
        }
    }

    /// Takes more of the first stream.
    pub fn header(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.headers.put(bytes, self.take)
    }

    /// Takes more of the second stream.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.contents.put(bytes, self.take)
    }

    /// Hears that a file of `size` bytes begins or ends in the second stream.
    pub fn border(&mut self, size: u64) -> io::Result<()> {
        match self.contents.cutter.cuts_at_border(size) {
            true => self.contents.end(self.take),
            false => Ok(()),
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.headers.end(self.take)?;
        self.contents.end(self.take)
    }
}

impl Stream {
    fn put(
        &mut self,
        mut bytes: &[u8],
        take: &mut dyn FnMut(Which, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let (count, is_cut) = self.cutter.take(bytes);
            let (now, later) = bytes.split_at(count);
            bytes = later;
            if is_cut && self.begun.is_empty() {
                take(self.which, now)?;
                continue;
            }
            self.begun.extend_from_slice(now);
            if is_cut {
                take(self.which, &self.begun)?;
                self.begun.clear();
            }
        }
        Ok(())
    }

    fn end(&mut self, take: &mut dyn FnMut(Which, &[u8]) -> io::Result<()>) -> io::Result<()> {
        self.cutter.cut();
        if self.begun.is_empty() {
            return Ok(());
        }
        take(self.which, &self.begun)?;
        self.begun.clear();
        Ok(())
    }
}

/// What the streams consist of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    pub(super) target: Target,
    headers: Vec<Chunk>,
    contents: Vec<Chunk>,
}

/// Why there are no packs.
#[derive(Debug)]
pub enum PackError<E> {
    /// The streams were not those of the outline.
    Changed,
    Read(E),
    /// A pack could not be kept until it is sent.
    Keep(io::Error),
}

/// What is to be sent.
#[derive(Debug)]
pub struct Packed {
    pub(super) index: Index,
    /// Packs that no place is known to have, and where their blobs are.
    pub(super) fresh: Vec<(Pack, PathBuf)>,
}

impl Outline {
    /// Reads the streams for the first time. `bytes` is about their length; `previous` decides how they are cut, if it can.
    pub fn read<E>(
        bytes: u64,
        previous: Option<&Version>,
        read: impl FnOnce(&mut Streams<'_>) -> Result<(), E>,
    ) -> Result<Outline, E> {
        let target = Target::of(bytes, previous.map(|previous| previous.target));
        Outline::cut(target, read)
    }

    /// Reads streams that were not those of this outline, and cuts them like this one.
    pub fn again<E>(
        &self,
        read: impl FnOnce(&mut Streams<'_>) -> Result<(), E>,
    ) -> Result<Outline, E> {
        Outline::cut(self.target, read)
    }

    fn cut<E>(
        target: Target,
        read: impl FnOnce(&mut Streams<'_>) -> Result<(), E>,
    ) -> Result<Outline, E> {
        let mut outline = Outline {
            target,
            headers: Vec::new(),
            contents: Vec::new(),
        };
        let mut note = |which, bytes: &[u8]| {
            outline.chunks_mut(which).push(Chunk::of(bytes));
            Ok(())
        };
        let mut streams = Streams::new(target, &mut note);
        read(&mut streams)?;
        let finished = streams.finish();
        finished.expect("nothing but the taking of chunks can fail, and noting them does not");
        Ok(outline)
    }

    /// Returns what is equal for equal files that were cut alike.
    pub fn identity(&self) -> Digest {
        let mut bytes = vec![self.target.power()];
        for chunks in [&self.headers, &self.contents] {
            bytes.extend((chunks.len() as u64).to_le_bytes());
            for chunk in chunks {
                bytes.extend(chunk.digest);
                bytes.extend(chunk.length.to_le_bytes());
            }
        }
        Digest::of(&bytes)
    }

    /// Returns the bytes of both streams.
    pub fn bytes(&self) -> u64 {
        let chunks = self.headers.iter().chain(&self.contents);
        chunks.map(|chunk| u64::from(chunk.length)).sum()
    }

    /// Reads the streams again, and puts what `previous` has not into packs below `directory`, which is empty.
    pub fn pack<E>(
        &self,
        previous: Option<&Index>,
        directory: &Path,
        read: impl FnOnce(&mut Streams<'_>) -> Result<(), E>,
    ) -> Result<Packed, PackError<E>> {
        let kept = self.kept(previous);
        let mut packer = Packer {
            wanted: self.chunks().copied().collect(),
            open: [OpenPack::default(), OpenPack::default()],
            fresh: Vec::new(),
            directory,
            failed: None,
        };
        for chunk in kept.iter().flat_map(|pack| &pack.chunks) {
            packer.wanted.remove(chunk);
        }
        let mut expected = [self.headers.iter(), self.contents.iter()];
        let mut has_changed = false;
        let mut take = |which: Which, bytes: &[u8]| {
            let chunk = Chunk::of(bytes);
            if expected[which as usize].next() != Some(&chunk) {
                has_changed = true;
                return Err(io::Error::other("it changed while it was read"));
            }
            packer.put(which, chunk, bytes)
        };
        let mut streams = Streams::new(self.target, &mut take);
        let done = read(&mut streams).map(|()| streams.finish());
        let is_short = expected.iter_mut().any(|rest| rest.next().is_some());
        if has_changed {
            return Err(PackError::Changed);
        }
        if let Some(failed) = packer.failed {
            return Err(PackError::Keep(failed));
        }
        match done {
            Err(error) => return Err(PackError::Read(error)),
            Ok(Err(error)) => return Err(PackError::Keep(error)),
            Ok(Ok(())) if is_short => return Err(PackError::Changed),
            Ok(Ok(())) => {}
        }
        packer.finish().map_err(PackError::Keep)?;
        let mut packs = kept;
        packs.extend(packer.fresh.iter().map(|(pack, _)| pack.clone()));
        let index = Index::new(self.target, packs, &self.headers, &self.contents);
        Ok(Packed {
            index: index.expect("every chunk is in a pack that was kept or made"),
            fresh: packer.fresh,
        })
    }

    /// Returns the packs that stay: those that are needed for the most part. Many small ones are too many requests.
    fn kept(&self, previous: Option<&Index>) -> Vec<Pack> {
        let live: HashSet<&Chunk> = self.chunks().collect();
        let packs = previous.map_or(&[][..], |previous| &previous.packs);
        let mut kept: Vec<(u64, &Pack)> = packs
            .iter()
            .map(|pack| {
                let needed = pack.chunks.iter().filter(|chunk| live.contains(chunk));
                (needed.map(|chunk| u64::from(chunk.length)).sum(), pack)
            })
            .filter(|(needed, pack)| *needed > 0 && needed * 2 >= pack.bytes())
            .collect();
        let mut small: Vec<(u64, Digest)> = kept
            .iter()
            .filter(|(_, pack)| pack.bytes() < PACK as u64 / 2)
            .map(|(needed, pack)| (*needed, pack.blob))
            .collect();
        if small.len() > MOST_SMALL {
            small.sort_unstable();
            small.truncate(small.len() - MOST_SMALL);
            let dissolved: HashSet<Digest> = small.into_iter().map(|(_, blob)| blob).collect();
            kept.retain(|(_, pack)| !dissolved.contains(&pack.blob));
        }
        kept.into_iter().map(|(_, pack)| pack.clone()).collect()
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.headers.iter().chain(&self.contents)
    }

    fn chunks_mut(&mut self, which: Which) -> &mut Vec<Chunk> {
        match which {
            Which::Headers => &mut self.headers,
            Which::Contents => &mut self.contents,
        }
    }
}

struct Packer<'a> {
    /// Chunks that have to go into a pack, and are in none.
    wanted: HashSet<Chunk>,
    /// For each stream: what files are changes more often than what they hold.
    open: [OpenPack; 2],
    fresh: Vec<(Pack, PathBuf)>,
    directory: &'a Path,
    /// Why nothing more can be kept.
    failed: Option<io::Error>,
}

#[derive(Default)]
struct OpenPack {
    chunks: Vec<Chunk>,
    bytes: Vec<u8>,
}

impl Packer<'_> {
    fn put(&mut self, which: Which, chunk: Chunk, bytes: &[u8]) -> io::Result<()> {
        if !self.wanted.remove(&chunk) {
            return Ok(());
        }
        let open = &mut self.open[which as usize];
        open.chunks.push(chunk);
        open.bytes.extend_from_slice(bytes);
        if open.bytes.len() < PACK {
            return Ok(());
        }
        let full = std::mem::take(open);
        self.keep(full).map_err(|error| {
            self.failed = Some(error);
            io::Error::other("a pack cannot be kept")
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        let [mut headers, mut contents] = std::mem::take(&mut self.open);
        if headers.bytes.len() + contents.bytes.len() <= PACK {
            headers.chunks.append(&mut contents.chunks);
            headers.bytes.append(&mut contents.bytes);
        }
        for open in [headers, contents] {
            if !open.chunks.is_empty() {
                self.keep(open)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, open: OpenPack) -> io::Result<()> {
        let blob = compressed(&open.bytes)?;
        let path = self.directory.join(self.fresh.len().to_string());
        fs::write(&path, &blob)?;
        let pack = Pack {
            blob: Digest::of(&blob),
            size: blob.len() as u64,
            chunks: open.chunks,
        };
        self.fresh.push((pack, path));
        Ok(())
    }
}

/// Where chunks are: by number, the pack and the place in it.
pub(super) fn places(index: &Index) -> Vec<(usize, u64, Chunk)> {
    let mut places = Vec::new();
    for (at, pack) in index.packs.iter().enumerate() {
        let mut offset = 0;
        for chunk in &pack.chunks {
            places.push((at, offset, *chunk));
            offset += u64::from(chunk.length);
        }
    }
    places
}
