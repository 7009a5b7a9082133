//! Bytes on their way out: a buffer that is filled from slices and readers without being cleared in between.

use std::io::{self, Read};

use super::error::EntryError;

/// A buffer of fixed capacity, initialised once; what was put is at its front.
pub(super) struct Chunk {
    bytes: Vec<u8>,
    filled: usize,
}

impl Chunk {
    pub(super) fn new(capacity: usize) -> Chunk {
        Chunk {
            bytes: vec![0; capacity],
            filled: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.filled
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.bytes.len()
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Makes room for `count` bytes more.
    pub(super) fn reserve(&mut self, count: usize) {
        let wanted = self.filled + count;
        if wanted > self.bytes.len() {
            self.bytes.resize(wanted, 0);
        }
    }

    /// Takes as many bytes as there is room for; returns their number.
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.bytes.len() - self.filled);
        self.bytes[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        count
    }

    /// Puts up to `count` zeros; returns their number.
    pub(super) fn put_zeros(&mut self, count: usize) -> usize {
        let count = count.min(self.bytes.len() - self.filled);
        self.bytes[self.filled..self.filled + count].fill(0);
        self.filled += count;
        count
    }

    /// Reads until `count` bytes came, the buffer is full or the content ends; returns their number.
    pub(super) fn read_from(
        &mut self,
        content: &mut (impl Read + ?Sized),
        count: usize,
    ) -> io::Result<usize> {
        let end = self.filled + count.min(self.bytes.len() - self.filled);
        let start = self.filled;
        while self.filled < end {
            match content.read(&mut self.bytes[self.filled..end]) {
                Ok(0) => break,
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.filled - start)
    }
}

/// Fails unless the content ends here.
pub(super) fn expect_end(content: &mut dyn Read, path: &[u8], size: u64) -> io::Result<()> {
    loop {
        match content.read(&mut [0]) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                return Err(EntryError::Long {
                    path: path.to_vec(),
                    wanted: size,
                }
                .into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The error of content that ended after `found` bytes.
pub(super) fn short(path: &[u8], wanted: u64, found: u64) -> io::Error {
    EntryError::Short {
        path: path.to_vec(),
        wanted,
        found,
    }
    .into()
}
