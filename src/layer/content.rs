//! One file's content as it lies in the archive: plain, with holes, or there but meaningless.

use std::io::{self, Read, Write};

use super::error::TarError;
use super::header::padding;
use super::input::Input;
use super::sparse::{Run, SparseMap};

/// What a file's content goes on with, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Zeros that the archive does not hold; they are stepped over.
    Hole(u64),
    /// To be read.
    Data(u64),
}

/// What of the current entry's content has not been read.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// Bytes in the archive.
    stored: u64,
    /// Behind them.
    padding: u64,
    layout: Layout,
}

#[derive(Debug, Default)]
enum Layout {
    #[default]
    Plain,
    /// Bytes that follow a directory's header.
    Hidden,
    Sparse(SparseMap),
}

impl Position {
    pub(super) fn plain(stored: u64) -> Position {
        Position {
            stored,
            padding: padding(stored),
            layout: Layout::Plain,
        }
    }

    pub(super) fn hidden(stored: u64) -> Position {
        Position {
            layout: Layout::Hidden,
            ..Position::plain(stored)
        }
    }

    pub(super) fn sparse(map: SparseMap, stored: u64) -> Position {
        Position {
            layout: Layout::Sparse(map),
            ..Position::plain(stored)
        }
    }

    /// Steps to the next header.
    pub(super) fn skip<R: Read>(&mut self, input: &mut Input<R>) -> Result<(), TarError> {
        let position = std::mem::take(self);
        input.skip(position.stored)?;
        input.skip(position.padding)
    }

    /// Steps over a hole that comes next, or says how much data does.
    pub(super) fn stretch(&mut self) -> Option<Stretch> {
        let run = self.run()?;
        Some(match run {
            Run::Data(length) => Stretch::Data(length),
            Run::Zeros(length) => {
                self.advance(&run, length);
                Stretch::Hole(length)
            }
        })
    }

    /// Returns the next run of the content; `None` at its end.
    fn run(&mut self) -> Option<Run> {
        match &mut self.layout {
            Layout::Plain => (self.stored > 0).then_some(Run::Data(self.stored)),
            Layout::Hidden => None,
            Layout::Sparse(map) => map.run(),
        }
    }

    fn advance(&mut self, run: &Run, count: u64) {
        if let Run::Data(_) = run {
            self.stored -= count;
        }
        if let Layout::Sparse(map) = &mut self.layout {
            map.advance(count);
        }
    }
}

/// Reads the current entry's content.
pub(super) struct Content<'a, R> {
    input: &'a mut Input<R>,
    position: &'a mut Position,
}

impl<'a, R: Read> Content<'a, R> {
    pub(super) fn new(input: &'a mut Input<R>, position: &'a mut Position) -> Content<'a, R> {
        Content { input, position }
    }

    pub(super) fn copy_to(&mut self, sink: &mut dyn Write) -> io::Result<u64> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut copied = 0;
        while let Some(run) = self.position.run() {
            let count = match run {
                Run::Zeros(count) => {
                    let count = count.min(ZEROS.len() as u64) as usize;
                    sink.write_all(&ZEROS[..count])?;
                    count
                }
                Run::Data(count) => {
                    let bytes = self.input.peek(count)?;
                    sink.write_all(bytes)?;
                    let count = bytes.len();
                    if count == 0 {
                        return Err(self.input.truncated().into());
                    }
                    self.input.advance(count);
                    count
                }
            };
            self.position.advance(&run, count as u64);
            copied += count as u64;
        }
        Ok(copied)
    }
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(run) = self.position.run() else {
            return Ok(0);
        };
        let (Run::Zeros(rest) | Run::Data(rest)) = run;
        let limit = usize::try_from(rest).map_or(into.len(), |rest| rest.min(into.len()));
        let into = &mut into[..limit];
        let count = match run {
            Run::Zeros(_) => {
                into.fill(0);
                limit
            }
            Run::Data(_) => {
                let count = self.input.read(into)?;
                if count == 0 && limit > 0 {
                    return Err(self.input.truncated().into());
                }
                count
            }
        };
        self.position.advance(&run, count as u64);
        Ok(count)
    }
}
