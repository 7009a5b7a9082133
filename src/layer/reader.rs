//! A tar archive becomes entries: ustar, PAX with global headers, GNU long names and sparse files, star, v7.
//!
//! Reads from a stream, from front to end, each byte once; opens and seeks nothing. Every byte is hostile: numbers, lengths and
//! maps are checked before they are used, what is kept in memory is bounded, and where programs are known to disagree the
//! archive is refused, not guessed at. Choices that matter:
//!
//! - a PAX `size` decides how many bytes follow, whatever the header says; only files are followed by content, so that links,
//!   directories and devices with a size step over nothing (as Go's reader, which the other container programs use, has it);
//! - a global header gives owners, times and attributes; one that names a path, a link or a size is refused;
//! - GNU long names go before PAX paths, and those before the header's;
//! - an archive may end without its two blocks of zeros (see [`TarReader::has_end`]), but not inside an entry.

use std::io::{self, Read, Write};
use std::mem;
use std::ops::Range;

use super::content::{Content, Position, Stretch};
use super::entry::{Entry, EntryKind, Mtime};
use super::error::TarError;
use super::header::{self, BLOCK, Block, Dialect, MAX_EXTENDED, MAX_PATH, padding};
use super::input::Input;
use super::path::normalise;
use super::pax::Attributes;
use super::sparse::{self, MapPlace, MapText, Segments, SparseMap};

/// Reads a tar archive.
pub struct TarReader<R: Read> {
    input: Input<R>,
    /// Of global headers.
    defaults: Attributes,
    /// What of the current entry's content has not been read.
    position: Position,
    state: State,
    /// What files hold is elsewhere.
    headers_alone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Entries,
    /// After the last entry, with or without blocks of zeros.
    End {
        marked: bool,
    },
    /// After an error that leaves no place to go on from.
    Broken,
}

/// What metadata blocks in front of an entry said about it.
#[derive(Default)]
struct Extended {
    attributes: Option<Attributes>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    /// Bytes of all of them.
    length: u64,
}

impl<R: Read> TarReader<R> {
    /// Returns a reader that has read nothing.
    pub fn new(reader: R) -> TarReader<R> {
        TarReader {
            input: Input::new(reader),
            defaults: Attributes::default(),
            position: Position::default(),
            state: State::Entries,
            headers_alone: false,
        }
    }

    /// Returns a reader of what [`HeaderWriter`](super::HeaderWriter) made: no file's content follows its header.
    pub fn of_headers(reader: R) -> TarReader<R> {
        TarReader {
            headers_alone: true,
            ..TarReader::new(reader)
        }
    }

    /// Steps over what is left of the current entry and returns the next one; `None` after the last. An entry that is refused
    /// for its name alone ([`TarError::Escapes`]) may be passed by calling again; all other errors are final.
    #[expect(
        clippy::should_implement_trait,
        reason = "the entry's content borrows the reader, so this is no iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        match self.state {
            State::Entries => {}
            State::End { .. } => return Ok(None),
            State::Broken => return Err(TarError::GivenUp),
        }
        self.state = State::Broken;
        self.position.skip(&mut self.input)?;
        let entry = self.read_entry();
        match entry {
            Ok(Some(_)) | Err(TarError::Escapes { .. }) => self.state = State::Entries,
            Ok(None) | Err(_) => {}
        }
        entry
    }

    /// The current entry's content; empty for all but files. What is not read is stepped over by [`TarReader::next`].
    pub fn content(&mut self) -> impl Read + '_ {
        Content::new(&mut self.input, &mut self.position)
    }

    /// Returns what the current entry's content goes on with; `None` at its end. A hole is stepped over: its length is a number that
    /// anybody can write, so whoever makes files of strangers asks here and does not read it.
    pub fn stretch(&mut self) -> Option<Stretch> {
        self.position.stretch()
    }

    /// Writes the rest of the current entry's content to `sink`, without the copy between that [`TarReader::content`] needs;
    /// returns the number of bytes.
    pub fn copy_content(&mut self, sink: &mut dyn Write) -> io::Result<u64> {
        Content::new(&mut self.input, &mut self.position).copy_to(sink)
    }

    /// Says whether the archive's end was reached and marked, as the format wants it, by two blocks of zeros.
    pub fn has_end(&self) -> bool {
        self.state == State::End { marked: true }
    }

    /// Reads whatever follows the archive up to the end of the stream, so that a digest of the stream covers all of it, and
    /// returns the stream.
    pub fn finish(mut self) -> Result<R, TarError> {
        self.input.drain()?;
        Ok(self.input.into_inner())
    }

    /// Reads the rest of the stream, which has to be zeros.
    pub(super) fn expect_zeros(&mut self) -> Result<(), TarError> {
        loop {
            let bytes = self.input.peek(u64::MAX)?;
            let (count, zeros) = (bytes.len(), bytes.iter().all(|byte| *byte == 0));
            if count == 0 {
                return Ok(());
            }
            self.input.advance(count);
            if !zeros {
                return Err(TarError::AfterEnd {
                    offset: self.input.offset(),
                });
            }
        }
    }

    fn read_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extended = Extended::default();
        loop {
            let offset = self.input.offset();
            let Some(block) = self.input.block()? else {
                if extended.length > 0 {
                    return Err(TarError::Truncated { offset });
                }
                self.state = State::End { marked: false };
                return Ok(None);
            };
            if block[0] == 0 && block.iter().all(|&byte| byte == 0) {
                if extended.length > 0 {
                    return Err(TarError::Truncated { offset });
                }
                self.read_end(offset)?;
                return Ok(None);
            }
            if !header::checksum_is_right(block) {
                return Err(TarError::Checksum { offset });
            }
            match block[header::TYPE] {
                kind @ (b'x' | b'X' | b'g' | b'L' | b'K' | b'V') => {
                    let size = size(block, offset)?;
                    self.read_extension(kind, size, offset, &mut extended)?;
                }
                _ => {
                    let block = *block;
                    return self.build_entry(&block, extended, offset).map(Some);
                }
            }
        }
    }

    /// Reads the second block of zeros. The stream may also end here.
    fn read_end(&mut self, offset: u64) -> Result<(), TarError> {
        let marked = match self.input.block()? {
            Some(block) if block.iter().any(|&byte| byte != 0) => {
                return Err(TarError::LoneZeroBlock { offset });
            }
            Some(_) => true,
            None => false,
        };
        self.state = State::End { marked };
        Ok(())
    }

    fn read_extension(
        &mut self,
        kind: u8,
        size: u64,
        offset: u64,
        extended: &mut Extended,
    ) -> Result<(), TarError> {
        // At least a block each, so that empty ones without end come to the limit too.
        extended.length = extended
            .length
            .saturating_add(size.saturating_add(BLOCK as u64));
        if extended.length > MAX_EXTENDED + 2 * BLOCK as u64 {
            return Err(TarError::TooLong {
                what: "the extended header",
                limit: MAX_EXTENDED,
                offset,
            });
        }
        let bytes = self.input.take_padded(size as usize)?;
        let pax = |reason| TarError::Pax { reason, offset };
        match kind {
            b'L' => extended.long_name = Some(header::text(&bytes).to_vec()),
            b'K' => extended.long_link = Some(header::text(&bytes).to_vec()),
            b'g' => {
                self.defaults.apply(&bytes).map_err(pax)?;
                if self.defaults.name_one_entry() {
                    return Err(pax("a global header names one entry's path or size"));
                }
                if self.defaults.held() > MAX_EXTENDED as usize {
                    return Err(TarError::TooLong {
                        what: "the global header",
                        limit: MAX_EXTENDED,
                        offset,
                    });
                }
            }
            // The volume's label is no entry.
            b'V' => {}
            _ => {
                let attributes = extended
                    .attributes
                    .get_or_insert_with(|| self.defaults.clone());
                attributes.apply(&bytes).map_err(pax)?;
            }
        }
        Ok(())
    }

    fn build_entry(
        &mut self,
        block: &Block,
        extended: Extended,
        offset: u64,
    ) -> Result<Entry, TarError> {
        let mut attributes = match extended.attributes {
            Some(attributes) => attributes,
            None => self.defaults.clone(),
        };
        let dialect = header::dialect(block);
        let name = extended
            .long_name
            .or_else(|| attributes.sparse.take_name())
            .or_else(|| attributes.path.take());
        let name = Name::new(name, block, dialect, offset)?;
        let kind_byte = match block[header::TYPE] {
            b'0' | b'7' | 0 if name.has_slash => b'D',
            0 | b'7' => b'0',
            byte => byte,
        };
        let stored = match attributes.size {
            Some(size) => size,
            None => size(block, offset)?,
        };
        // What follows has to be known before anything is refused that the caller may pass over.
        let content = match kind_byte {
            b'0' | b'D' | b'S' => stored,
            b'1'..=b'6' => 0,
            kind => return Err(TarError::UnsupportedType { kind, offset }),
        };
        if self.headers_alone && (kind_byte == b'S' || !attributes.sparse.is_empty()) {
            let reason = "there is no content that it could be a map of";
            return Err(TarError::Sparse { reason, offset });
        }
        let follows = match self.headers_alone {
            true => 0,
            false => content,
        };
        self.position = Position::plain(follows);
        let kind = match kind_byte {
            b'0' | b'S' => EntryKind::File {
                size: self.place_content(block, &attributes, dialect, content, offset)?,
            },
            b'1' | b'2' => {
                let target = link_target(block, extended.long_link, attributes.linkpath, offset)?;
                match kind_byte {
                    b'1' => EntryKind::HardLink {
                        target: normalise(&target)
                            .map_err(|_| TarError::Escapes { path: target })?,
                    },
                    _ => EntryKind::Symlink { target },
                }
            }
            b'3' | b'4' => {
                let device = |field: Range<usize>, what| {
                    header::number(&block[field])
                        .and_then(|number| u32::try_from(number).ok())
                        .ok_or(TarError::Number {
                            field: what,
                            offset,
                        })
                };
                let major = device(header::DEVMAJOR, "devmajor")?;
                let minor = device(header::DEVMINOR, "devminor")?;
                match kind_byte {
                    b'3' => EntryKind::CharDevice { major, minor },
                    _ => EntryKind::BlockDevice { major, minor },
                }
            }
            b'6' => EntryKind::Fifo,
            _ => {
                self.position = Position::hidden(follows);
                EntryKind::Directory
            }
        };
        let number = |what| TarError::Number {
            field: what,
            offset,
        };
        let id = |said: Option<u32>, field: Range<usize>, what| match said {
            Some(id) => Ok(id),
            None => header::number(&block[field])
                .and_then(|id| u32::try_from(id).ok())
                .ok_or(number(what)),
        };
        let entry = Entry {
            mode: header::number(&block[header::MODE])
                .filter(|mode| *mode >= 0)
                .ok_or(number("mode"))? as u32
                & 0o7777,
            uid: id(attributes.uid, header::UID, "uid")?,
            gid: id(attributes.gid, header::GID, "gid")?,
            mtime: match attributes.mtime {
                Some(mtime) => mtime,
                None => Mtime {
                    seconds: header::number(&block[header::MTIME]).ok_or(number("mtime"))?,
                    nanoseconds: 0,
                },
            },
            xattrs: mem::take(&mut attributes.xattrs),
            path: name.path?,
            kind,
        };
        if entry.path.is_empty() && entry.kind != EntryKind::Directory {
            return Err(TarError::EmptyName { offset });
        }
        Ok(entry)
    }

    /// Finds out how the file's data lies in the archive; returns the file's size.
    fn place_content(
        &mut self,
        block: &Block,
        attributes: &Attributes,
        dialect: Dialect,
        mut stored: u64,
        offset: u64,
    ) -> Result<u64, TarError> {
        let wrong = |reason| TarError::Sparse { reason, offset };
        let (segments, size) = if block[header::TYPE] == b'S' {
            if dialect != Dialect::Gnu {
                return Err(wrong("its header is not GNU tar's"));
            }
            let size = header::number(&block[header::GNU_SPARSE_SIZE])
                .and_then(|size| u64::try_from(size).ok())
                .ok_or(wrong("its size is not a number"))?;
            (self.read_old_gnu_map(block, offset)?, size)
        } else if attributes.sparse.is_empty() {
            return Ok(stored);
        } else {
            let size = attributes
                .sparse
                .size()
                .ok_or(wrong("its size is not stated"))?;
            match attributes.sparse.map_place().map_err(wrong)? {
                MapPlace::Records(segments) => (segments, size),
                MapPlace::FrontOfData => {
                    let mut map = MapText::default();
                    loop {
                        stored = stored
                            .checked_sub(BLOCK as u64)
                            .ok_or(wrong("its map is cut short"))?;
                        let at = self.input.offset();
                        let block = self
                            .input
                            .block()?
                            .ok_or(TarError::Truncated { offset: at })?;
                        if map.read(block).map_err(wrong)? {
                            break;
                        }
                    }
                    (map.finish(), size)
                }
            }
        };
        let map = SparseMap::new(segments, size, stored).map_err(wrong)?;
        self.position = Position::sparse(map, stored);
        Ok(size)
    }

    fn read_old_gnu_map(
        &mut self,
        block: &Block,
        offset: u64,
    ) -> Result<Vec<sparse::Segment>, TarError> {
        let wrong = |reason| TarError::Sparse { reason, offset };
        let mut segments = Segments::default();
        segments
            .read_old_gnu(&block[header::GNU_SPARSE_MAP])
            .map_err(wrong)?;
        let mut extended = block[header::GNU_SPARSE_EXTENDED] != 0;
        let mut empty = 0;
        while extended {
            let at = self.input.offset();
            let block = self
                .input
                .block()?
                .ok_or(TarError::Truncated { offset: at })?;
            let (pairs, more) = sparse::old_gnu_extension(block);
            let before = segments.len();
            segments.read_old_gnu(pairs).map_err(wrong)?;
            empty += usize::from(segments.len() == before);
            if empty > 1 {
                return Err(wrong("its map has empty blocks"));
            }
            extended = more;
        }
        Ok(segments.finish())
    }
}

/// The bytes that the header says follow it.
fn size(block: &Block, offset: u64) -> Result<u64, TarError> {
    header::number(&block[header::SIZE])
        .and_then(|size| u64::try_from(size).ok())
        .filter(|size| size.checked_add(padding(*size)).is_some())
        .ok_or(TarError::Number {
            field: "size",
            offset,
        })
}

/// An entry's name: normal, or refused for leaving the root.
struct Name {
    path: Result<Vec<u8>, TarError>,
    /// Old programs mark directories so, and by nothing else.
    has_slash: bool,
}

impl Name {
    fn new(
        said: Option<Vec<u8>>,
        block: &Block,
        dialect: Dialect,
        offset: u64,
    ) -> Result<Name, TarError> {
        let name = header::text(&block[header::NAME]);
        let prefix = match dialect {
            Dialect::Ustar => header::text(&block[header::PREFIX]),
            Dialect::Star => header::text(&block[header::STAR_PREFIX]),
            Dialect::Gnu | Dialect::V7 => b"",
        };
        match said {
            Some(path) => Name::of(&path, offset),
            None if prefix.is_empty() => Name::of(name, offset),
            None => Name::of(&[prefix, b"/", name].concat(), offset),
        }
    }

    fn of(raw: &[u8], offset: u64) -> Result<Name, TarError> {
        if raw.contains(&0) {
            return Err(TarError::NulInName { offset });
        }
        let path = normalise(raw).map_err(|_| TarError::Escapes { path: raw.to_vec() });
        if path.as_ref().is_ok_and(|path| path.len() > MAX_PATH) || raw.len() > 2 * MAX_PATH {
            return Err(TarError::TooLong {
                what: "the path",
                limit: MAX_PATH as u64,
                offset,
            });
        }
        Ok(Name {
            path,
            has_slash: raw.ends_with(b"/"),
        })
    }
}

fn link_target(
    block: &Block,
    long: Option<Vec<u8>>,
    said: Option<Vec<u8>>,
    offset: u64,
) -> Result<Vec<u8>, TarError> {
    let target = long
        .or(said)
        .unwrap_or_else(|| header::text(&block[header::LINKNAME]).to_vec());
    if target.contains(&0) {
        return Err(TarError::NulInName { offset });
    }
    if target.len() > MAX_PATH {
        return Err(TarError::TooLong {
            what: "the link's target",
            limit: MAX_PATH as u64,
            offset,
        });
    }
    Ok(target)
}
