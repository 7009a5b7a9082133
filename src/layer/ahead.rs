//! Reading ahead on a thread of its own, so that whoever makes bytes (a decompressor) and whoever uses them work at the same time.
//!
//! Bytes cross in pieces of 256 KiB, a few of which may wait; emptied ones go back to be filled again. An error comes out where
//! the bytes before it end. Dropping the reader ends the thread, after the read that it is in.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

const PIECE: usize = 256 << 10;
/// Pieces that wait.
const WAITING: usize = 2;

/// The bytes of another reader, read by a thread.
pub struct ReadAhead {
    /// `None` once the reader is dropped.
    pieces: Option<Receiver<io::Result<Vec<u8>>>>,
    state: State,
    emptied: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Failed,
}

impl ReadAhead {
    /// Starts to read.
    pub fn new(reader: impl Read + Send + 'static) -> io::Result<ReadAhead> {
        let (full, pieces) = sync_channel(WAITING);
        let (emptied, to_fill) = sync_channel(WAITING + 2);
        let thread = thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(move || read(reader, &full, &to_fill))?;
        Ok(ReadAhead {
            pieces: Some(pieces),
            state: State::Reading,
            emptied,
            piece: Vec::new(),
            at: 0,
            thread: Some(thread),
        })
    }

    /// Waits for the next piece; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        let pieces = match (&self.pieces, self.state) {
            (Some(pieces), State::Reading) => pieces,
            (_, State::Ended) => return Ok(false),
            _ => return Err(io::Error::other("the reader has failed")),
        };
        match pieces.recv() {
            Ok(Ok(piece)) => {
                // The thread may have ended.
                drop(
                    self.emptied
                        .try_send(std::mem::replace(&mut self.piece, piece)),
                );
                self.at = 0;
                Ok(true)
            }
            Ok(Err(error)) => {
                self.state = State::Failed;
                Err(error)
            }
            Err(_) => match self.thread.take().map(JoinHandle::join) {
                Some(Ok(())) => {
                    self.state = State::Ended;
                    Ok(false)
                }
                _ => {
                    self.state = State::Failed;
                    Err(io::Error::other("the thread that reads ahead panicked"))
                }
            },
        }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while self.at == self.piece.len() {
            if !self.next()? {
                return Ok(0);
            }
        }
        let count = into.len().min(self.piece.len() - self.at);
        into[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.pieces = None;
        if let Some(thread) = self.thread.take() {
            // Nobody wants its bytes any more.
            drop(thread.join());
        }
    }
}

fn read(
    mut reader: impl Read,
    full: &SyncSender<io::Result<Vec<u8>>>,
    to_fill: &Receiver<Vec<u8>>,
) {
    loop {
        let mut piece = to_fill.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let mut filled = 0;
        let mut end = None;
        while filled < PIECE && end.is_none() {
            match reader.read(&mut piece[filled..]) {
                Ok(0) => end = Some(None),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => end = Some(Some(error)),
            }
        }
        piece.truncate(filled);
        // Whoever reads may be gone.
        if filled > 0 && full.send(Ok(piece)).is_err() {
            return;
        }
        match end {
            None => {}
            Some(None) => return,
            Some(Some(error)) => {
                drop(full.send(Err(error)));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes a few at a time and then an error, if it has one.
    struct Slow(Vec<u8>, Option<io::ErrorKind>);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(into.len()).min(100_000);
            into[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            match (count, self.1) {
                (0, Some(kind)) => Err(kind.into()),
                _ => Ok(count),
            }
        }
    }

    fn bytes(length: u32) -> Vec<u8> {
        (0..length).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn the_bytes_are_those_of_the_reader() {
        for length in [0, 1, 65_536, 65_537, 700_000] {
            let mut ahead = ReadAhead::new(Slow(bytes(length), None)).unwrap();
            let mut found = Vec::new();
            ahead.read_to_end(&mut found).unwrap();
            assert!(found == bytes(length), "{length}");
            assert_eq!(ahead.read(&mut [0; 10]).unwrap(), 0);
        }
    }

    #[test]
    fn an_error_comes_behind_the_bytes_before_it() {
        let mut ahead =
            ReadAhead::new(Slow(bytes(100_000), Some(io::ErrorKind::TimedOut))).unwrap();
        let mut found = Vec::new();
        let error = ahead.read_to_end(&mut found).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(ahead.read(&mut [0; 10]).is_err());
        assert!(found == bytes(100_000));
    }

    #[test]
    fn a_reader_that_is_dropped_early_ends_its_thread() {
        let mut ahead = ReadAhead::new(io::repeat(7)).unwrap();
        ahead.read_exact(&mut [0; 1000]).unwrap();
        drop(ahead);
    }
}
