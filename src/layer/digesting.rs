//! A reader that knows the digest and the number of the bytes that went through it.

use std::io::{self, Read};

use crate::vocab::{Digest, Sha256};

/// Counts and hashes what is read through it.
pub struct DigestingReader<R> {
    reader: R,
    digest: Sha256,
    count: u64,
}

impl<R: Read> DigestingReader<R> {
    /// Returns a reader of the same bytes.
    pub fn new(reader: R) -> DigestingReader<R> {
        DigestingReader {
            reader,
            digest: Sha256::new(),
            count: 0,
        }
    }
}

impl<R> DigestingReader<R> {
    /// Returns the digest and the number of the bytes that were read. What was not read is in neither.
    pub fn finish(self) -> (Digest, u64) {
        (self.digest.finish(), self.count)
    }
}

impl<R: Read> Read for DigestingReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(into)?;
        self.digest.update(&into[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_count_whatever_the_reads() {
        let mut reader = DigestingReader::new(&b"abc"[..]);
        let mut two = [0; 2];
        reader.read_exact(&mut two).unwrap();
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish(), (Digest::of(b"abc"), 3));
    }
}
