//! The stream under a [`TarReader`](super::TarReader): buffered, counted, taken in blocks.

use std::io::{self, Read};

use super::error::TarError;
use super::header::{BLOCK, Block, padding};

const BUFFER: usize = 128 << 10;

pub(super) struct Input<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes handed out.
    offset: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R) -> Input<R> {
        Input {
            reader,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            offset: 0,
        }
    }

    /// Bytes of the archive up to here.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// Takes the next block; `None` where the stream ends in front of it.
    #[inline]
    pub(super) fn block(&mut self) -> Result<Option<&Block>, TarError> {
        if self.end - self.start < BLOCK {
            match self.gather()? {
                0 => return Ok(None),
                BLOCK.. => {}
                _ => return Err(self.truncated()),
            }
        }
        let at = self.start;
        self.advance(BLOCK);
        Ok(self.buffer[at..].first_chunk())
    }

    /// Takes `size` bytes and what pads them to a block. The caller has bounded the size.
    pub(super) fn take_padded(&mut self, size: usize) -> Result<Vec<u8>, TarError> {
        let mut bytes = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match self.read(&mut bytes[filled..])? {
                0 => return Err(self.truncated()),
                count => filled += count,
            }
        }
        self.skip(padding(size as u64))?;
        Ok(bytes)
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            if into.len() >= self.buffer.len() {
                let count = read_once(&mut self.reader, into)?;
                self.offset += count as u64;
                return Ok(count);
            }
            self.fill()?;
        }
        let count = into.len().min(self.end - self.start);
        into[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.advance(count);
        Ok(count)
    }

    /// Returns bytes that are at hand, at most `limit`; empty only at the end of the stream. [`Input::advance`] takes them.
    pub(super) fn peek(&mut self, limit: u64) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.fill()?;
        }
        let at_hand = self.end - self.start;
        let count = usize::try_from(limit).map_or(at_hand, |limit| at_hand.min(limit));
        Ok(&self.buffer[self.start..self.start + count])
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// Steps over `count` bytes, all of which have to be there.
    pub(super) fn skip(&mut self, mut count: u64) -> Result<(), TarError> {
        while count > 0 {
            let step = self.peek(count)?.len();
            if step == 0 {
                return Err(self.truncated());
            }
            self.advance(step);
            count -= step as u64;
        }
        Ok(())
    }

    /// Reads up to the end of the stream.
    pub(super) fn drain(&mut self) -> Result<(), TarError> {
        loop {
            match self.peek(u64::MAX)?.len() {
                0 => return Ok(()),
                count => self.advance(count),
            }
        }
    }

    pub(super) fn truncated(&self) -> TarError {
        TarError::Truncated {
            offset: self.offset,
        }
    }

    /// Reads into the empty buffer.
    fn fill(&mut self) -> io::Result<()> {
        self.start = 0;
        self.end = 0;
        self.end = read_once(&mut self.reader, &mut self.buffer)?;
        Ok(())
    }

    /// Reads until a whole block is at hand or the stream ends; returns the number of bytes at hand.
    fn gather(&mut self) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < BLOCK {
            match read_once(&mut self.reader, &mut self.buffer[self.end..])? {
                0 => break,
                count => self.end += count,
            }
        }
        Ok(self.end)
    }
}

fn read_once(reader: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
