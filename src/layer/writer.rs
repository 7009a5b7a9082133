//! Entries become a tar archive whose bytes depend on the entries alone. The headers are [`Encoder`]'s work.

use std::io::{self, Read, Write};

use super::chunk::{self, Chunk};
use super::encoder::Encoder;
use super::entry::{Entry, EntryKind};
use super::header::{BLOCK, padding};

/// Bytes that are gathered before the sink is called.
const BUFFER: usize = 256 << 10;

/// Writes a tar archive. It is complete after [`TarWriter::finish`] alone; after an error in the middle of an entry nothing
/// more can be written.
pub struct TarWriter<W: Write> {
    encoder: Encoder,
    output: Output<W>,
    broken: bool,
}

impl<W: Write> TarWriter<W> {
    /// Returns a writer that has written nothing.
    pub fn new(sink: W) -> TarWriter<W> {
        TarWriter {
            encoder: Encoder::default(),
            output: Output {
                sink,
                chunk: Chunk::new(BUFFER),
            },
            broken: false,
        }
    }

    /// Writes one entry. For a file `content` must give exactly as many bytes as the entry states and then end; for anything
    /// else it is not looked at.
    pub fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        if self.broken {
            return Err(broken());
        }
        self.encoder.encode(entry)?;
        self.broken = true;
        self.output.put(self.encoder.encoded())?;
        if let EntryKind::File { size } = entry.kind {
            self.output.copy(&entry.path, size, content)?;
        }
        self.broken = false;
        Ok(())
    }

    /// Writes the end of the archive and returns the sink, flushed.
    pub fn finish(mut self) -> io::Result<W> {
        if self.broken {
            return Err(broken());
        }
        self.output.zeros(2 * BLOCK)?;
        self.output.drain()?;
        self.output.sink.flush()?;
        Ok(self.output.sink)
    }
}

/// Makes the headers of an archive whose contents are kept elsewhere; [`TarReader::of_headers`](super::TarReader::of_headers)
/// reads them. It has no end: whoever keeps it knows its length.
#[derive(Default)]
pub struct HeaderWriter {
    encoder: Encoder,
}

impl HeaderWriter {
    /// Returns the bytes that stand for an entry.
    pub fn header(&mut self, entry: &Entry) -> io::Result<&[u8]> {
        self.encoder.encode(entry)?;
        Ok(self.encoder.encoded())
    }
}

/// The error of writing on after an error.
pub(super) fn broken() -> io::Error {
    io::Error::other("the archive broke off at an earlier error")
}

struct Output<W> {
    sink: W,
    chunk: Chunk,
}

impl<W: Write> Output<W> {
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.chunk.put(bytes);
            bytes = &bytes[count..];
            self.drain_if_full()?;
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            count -= self.chunk.put_zeros(count);
            self.drain_if_full()?;
        }
        Ok(())
    }

    fn copy(&mut self, path: &[u8], size: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut rest = size;
        while rest > 0 {
            let wanted = usize::try_from(rest).unwrap_or(usize::MAX).min(BUFFER);
            match self.chunk.read_from(content, wanted)? {
                0 => return Err(chunk::short(path, size, size - rest)),
                count => rest -= count as u64,
            }
            self.drain_if_full()?;
        }
        chunk::expect_end(content, path, size)?;
        self.zeros(padding(size) as usize)
    }

    fn drain_if_full(&mut self) -> io::Result<()> {
        match self.chunk.is_full() {
            true => self.drain(),
            false => Ok(()),
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        self.sink.write_all(self.chunk.filled())?;
        self.chunk.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Mtime, TarReader};

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o640,
            uid: 1000,
            gid: 50,
            mtime: Mtime {
                seconds: 1_000_000_000,
                nanoseconds: 5,
            },
            xattrs: [(b"user.k".to_vec(), b"v".to_vec())].into(),
        }
    }

    #[test]
    fn headers_alone_are_read_one_after_the_other() {
        let target = b"a".to_vec();
        let entries = [
            entry("", EntryKind::Directory),
            entry("a", EntryKind::File { size: 1 << 40 }),
            entry(&"long/".repeat(60), EntryKind::Directory),
            entry(
                "b",
                EntryKind::HardLink {
                    target: target.clone(),
                },
            ),
            entry("c", EntryKind::Symlink { target }),
            entry("d", EntryKind::File { size: 0 }),
        ];
        let mut writer = HeaderWriter::default();
        let mut headers = Vec::new();
        let mut expected = Vec::new();
        for mut entry in entries {
            entry.path = entry
                .path
                .strip_suffix(b"/")
                .unwrap_or(&entry.path)
                .to_vec();
            headers.extend_from_slice(writer.header(&entry).unwrap());
            expected.push(entry);
        }
        let mut reader = TarReader::of_headers(&headers[..]);
        let mut read = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            assert_eq!(reader.stretch(), None);
            read.push(entry);
        }
        assert_eq!(read, expected);
        let mut cut = TarReader::of_headers(&headers[..headers.len() - 1]);
        let error = std::iter::from_fn(|| cut.next().transpose()).find(Result::is_err);
        assert!(error.is_some());
    }
}
