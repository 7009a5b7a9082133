//! Sparse files of GNU tar: where the data that the archive carries belongs in the file, and where zeros are.
//!
//! Four encodings come to one [`SparseMap`]: the old one in the header (type `S`), 0.0 and 0.1 in PAX records, 1.0 as text in
//! front of the data. Written archives have none of them. A map must be in order, without overlap, inside the file, and account
//! for every byte of data.

use super::header::{self, Block};
use super::pax::decimal;

/// More pieces than this are refused; an honest map of 1 GiB in 4 KiB pieces fits.
const MAX_SEGMENTS: usize = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    offset: u64,
    length: u64,
}

/// The layout of one file, and how far it has been read.
#[derive(Debug)]
pub(super) struct SparseMap {
    segments: Vec<Segment>,
    size: u64,
    at: u64,
    index: usize,
}

/// What comes next in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Run {
    Zeros(u64),
    Data(u64),
}

impl SparseMap {
    /// Checks the segments against the file's size and the bytes of data in the archive.
    pub(super) fn new(
        segments: Vec<Segment>,
        size: u64,
        data: u64,
    ) -> Result<SparseMap, &'static str> {
        let (mut end, mut total) = (0_u64, 0_u64);
        for segment in &segments {
            if segment.offset < end {
                return Err("its pieces overlap or are out of order");
            }
            end = segment
                .offset
                .checked_add(segment.length)
                .filter(|end| *end <= size)
                .ok_or("a piece lies beyond its end")?;
            total += segment.length;
        }
        if total != data {
            return Err("its map and its data differ in length");
        }
        Ok(SparseMap {
            segments,
            size,
            at: 0,
            index: 0,
        })
    }

    /// Returns the next run, never an empty one; `None` at the file's end.
    pub(super) fn run(&mut self) -> Option<Run> {
        while let Some(segment) = self.segments.get(self.index) {
            if self.at < segment.offset {
                return Some(Run::Zeros(segment.offset - self.at));
            }
            let rest = segment.offset + segment.length - self.at;
            if rest > 0 {
                return Some(Run::Data(rest));
            }
            self.index += 1;
        }
        (self.at < self.size).then(|| Run::Zeros(self.size - self.at))
    }

    /// Steps over `count` bytes of the current run.
    pub(super) fn advance(&mut self, count: u64) {
        self.at += count;
    }
}

/// Segments as they are found, bounded.
#[derive(Debug, Default)]
pub(super) struct Segments(Vec<Segment>);

impl Segments {
    fn push(&mut self, offset: u64, length: u64) -> Result<(), &'static str> {
        if self.0.len() == MAX_SEGMENTS {
            return Err("it has too many pieces");
        }
        self.0.push(Segment { offset, length });
        Ok(())
    }

    /// Reads the map of an old GNU header or of one of its extension blocks: pairs of 12-digit numbers up to an empty one.
    pub(super) fn read_old_gnu(&mut self, field: &[u8]) -> Result<(), &'static str> {
        for pair in field.chunks_exact(24) {
            if pair[0] == 0 || pair[12] == 0 {
                break;
            }
            let read = |field| header::number(field).and_then(|value| u64::try_from(value).ok());
            let offset = read(&pair[..12]).ok_or("a piece's offset is not a number")?;
            let length = read(&pair[12..]).ok_or("a piece's length is not a number")?;
            self.push(offset, length)?;
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn finish(self) -> Vec<Segment> {
        self.0
    }
}

/// Extension blocks of the old format: 21 pairs, then whether another block follows.
pub(super) fn old_gnu_extension(block: &Block) -> (&[u8], bool) {
    (&block[..21 * 24], block[21 * 24] != 0)
}

/// The `GNU.sparse.*` records of one entry.
#[derive(Clone, Debug, Default)]
pub(super) struct SparseRecords {
    version: (Option<u64>, Option<u64>),
    name: Option<Vec<u8>>,
    size: Option<u64>,
    pieces: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
}

/// Where a PAX sparse file's map is.
pub(super) enum MapPlace {
    Records(Vec<Segment>),
    FrontOfData,
}

impl SparseRecords {
    pub(super) fn is_empty(&self) -> bool {
        self.version == (None, None)
            && self.name.is_none()
            && self.size.is_none()
            && self.pieces.is_none()
            && self.numbers.is_empty()
    }

    /// Takes one record, its key without the common prefix.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = || decimal(value).ok_or("a sparse file's number is malformed");
        match key {
            b"major" => self.version.0 = Some(number()?),
            b"minor" => self.version.1 = Some(number()?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number()?),
            b"numblocks" => self.pieces = Some(number()?),
            b"offset" | b"numbytes" => {
                let wants_offset = self.numbers.len().is_multiple_of(2);
                if wants_offset != (key == b"offset") {
                    return Err("a sparse file's offsets and lengths do not alternate");
                }
                self.numbers.push(number()?);
            }
            b"map" => {
                self.numbers = match value {
                    b"" => Vec::new(),
                    _ => value
                        .split(|&byte| byte == b',')
                        .map(decimal)
                        .collect::<Option<_>>()
                        .ok_or("a sparse file's map is malformed")?,
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// The entry's real name; its header has a made-up one.
    pub(super) fn take_name(&mut self) -> Option<Vec<u8>> {
        self.name.take()
    }

    /// The file's size with its holes.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    pub(super) fn map_place(&self) -> Result<MapPlace, &'static str> {
        match self.version {
            (Some(1), Some(0)) => return Ok(MapPlace::FrontOfData),
            (None, None) | (Some(0), _) => {}
            _ => return Err("its encoding is of an unknown version"),
        }
        if !self.numbers.len().is_multiple_of(2) {
            return Err("its map is incomplete");
        }
        let mut segments = Segments::default();
        for pair in self.numbers.chunks_exact(2) {
            segments.push(pair[0], pair[1])?;
        }
        if self
            .pieces
            .is_some_and(|pieces| pieces != segments.0.len() as u64)
        {
            return Err("its map is not as long as stated");
        }
        Ok(MapPlace::Records(segments.finish()))
    }
}

/// The text of a 1.0 map: the number of pieces, then offset and length of each, one number a line, padded to a block.
#[derive(Default)]
pub(super) struct MapText {
    /// Digits of a line that the block's end cut.
    digits: Vec<u8>,
    pieces: Option<u64>,
    offset: Option<u64>,
    segments: Segments,
}

impl MapText {
    /// Reads one block; says whether the map is complete.
    pub(super) fn read(&mut self, block: &Block) -> Result<bool, &'static str> {
        for &byte in block {
            if self.is_complete() {
                return Ok(true);
            }
            if byte != b'\n' {
                if self.digits.len() == 20 {
                    return Err("its map is malformed");
                }
                self.digits.push(byte);
                continue;
            }
            let number = decimal(&self.digits).ok_or("its map is malformed")?;
            self.digits.clear();
            match (self.pieces, self.offset.take()) {
                (None, _) => self.pieces = Some(number),
                (_, None) => self.offset = Some(number),
                (_, Some(offset)) => self.segments.push(offset, number)?,
            }
        }
        Ok(self.is_complete())
    }

    fn is_complete(&self) -> bool {
        self.pieces == Some(self.segments.0.len() as u64) && self.offset.is_none()
    }

    pub(super) fn finish(self) -> Vec<Segment> {
        self.segments.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(pairs: &[(u64, u64)]) -> Vec<Segment> {
        let segment = |&(offset, length)| Segment { offset, length };
        pairs.iter().map(segment).collect()
    }

    #[test]
    fn maps_that_contradict_themselves_are_refused() {
        let check = |pairs: &[(u64, u64)], size, data, good| {
            let map = SparseMap::new(segments(pairs), size, data);
            assert_eq!(map.is_ok(), good, "{pairs:?} {size} {data}");
        };
        check(&[], 10, 0, true);
        check(&[(0, 5), (5, 5)], 10, 10, true);
        check(&[(2, 3), (10, 0)], 10, 3, true);
        check(&[(0, 5), (4, 1)], 10, 6, false);
        check(&[(5, 1), (0, 1)], 10, 2, false);
        check(&[(8, 3)], 10, 3, false);
        check(&[(u64::MAX, 2)], u64::MAX, 2, false);
        check(&[(0, 5)], 10, 4, false);
    }

    #[test]
    fn runs_cover_the_file_once() {
        let mut map = SparseMap::new(segments(&[(2, 3), (5, 1), (8, 0)]), 10, 4).unwrap();
        let mut runs = Vec::new();
        while let Some(run) = map.run() {
            let (Run::Zeros(count) | Run::Data(count)) = run;
            map.advance(count);
            runs.push(run);
        }
        let expected = [
            Run::Zeros(2),
            Run::Data(3),
            Run::Data(1),
            Run::Zeros(2),
            Run::Zeros(2),
        ];
        assert_eq!(runs, expected);
    }

    #[test]
    fn a_text_map_may_cross_blocks() {
        let mut text = b"100\n".to_vec();
        for at in 0..100 {
            text.extend_from_slice(format!("{}\n{}\n", at * 1000, 7).as_bytes());
        }
        text.resize(text.len().next_multiple_of(512), 0);
        let mut map = MapText::default();
        let blocks: Vec<_> = text.chunks_exact(512).collect();
        for (at, block) in blocks.iter().enumerate() {
            let complete = map.read(block.first_chunk().unwrap()).unwrap();
            assert_eq!(complete, at + 1 == blocks.len());
        }
        assert_eq!(map.finish().len(), 100);
        assert!(MapText::default().read(&[b'x'; 512]).is_err());
        assert!(MapText::default().read(&[0; 512]).is_err());
    }
}
