//! Moves the bytes of one file to another: by sharing blocks where the file system can, in the kernel where it is large, and
//! through one buffer otherwise. Holes stay holes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, read, write};

use crate::context::Meta;
use crate::vocab::Cancel;

/// Files up to here are read and written: one call each, and no worse than asking the kernel to do it.
const BUFFER: usize = 128 * 1024;
/// So much is copied between two looks at the cancel flag.
const STRIDE: u64 = 16 * 1024 * 1024;

/// The buffer, and what was learnt about the file systems.
pub(super) struct Content {
    buffer: Vec<u8>,
    /// The source's file system for which sharing blocks with the root failed last.
    no_clone: Option<(u32, u32)>,
    no_range: bool,
}

/// Which side failed, or that the build is over.
pub(super) enum ContentError {
    Read(Errno),
    Write(Errno),
    Cancelled,
}

impl Content {
    pub(super) fn new() -> Content {
        Content {
            buffer: vec![0; BUFFER],
            no_clone: None,
            no_range: false,
        }
    }

    /// Copies what `from`, of which `meta` was just asked, holds into the empty file `to`. No more than `meta` says: a file
    /// that grows meanwhile has no end.
    pub(super) fn copy(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        meta: &Meta,
        cancel: &Cancel,
    ) -> Result<(), ContentError> {
        if meta.size == 0 {
            return Ok(());
        }
        if self.no_clone != Some(meta.device) {
            match ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                // Not this file system, not this pair of them, or not allowed: whatever the reason, bytes can be copied.
                Err(_) => self.no_clone = Some(meta.device),
            }
        }
        if meta.size > BUFFER as u64 && meta.blocks.saturating_mul(512) < meta.size {
            return self.with_holes(from, to, meta, cancel);
        }
        self.range(from, to, meta.size, cancel)
    }

    /// Copies up to `length` bytes from where both files stand.
    fn range(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        mut length: u64,
        cancel: &Cancel,
    ) -> Result<(), ContentError> {
        while length > BUFFER as u64 && !self.no_range {
            if cancel.is_cancelled() {
                return Err(ContentError::Cancelled);
            }
            let want = usize::try_from(length.min(STRIDE)).unwrap_or(BUFFER);
            match copy_file_range(from, None, to, None, want) {
                // The end, or a file system that says 0 for what it cannot: reading tells.
                Ok(0) => break,
                Ok(copied) => length -= copied as u64,
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                    return Err(ContentError::Write(error));
                }
                Err(_) => self.no_range = true,
            }
        }
        let mut since_look = 0;
        while length > 0 {
            if since_look >= STRIDE {
                since_look = 0;
                if cancel.is_cancelled() {
                    return Err(ContentError::Cancelled);
                }
            }
            let want = usize::try_from(length).unwrap_or(BUFFER).min(BUFFER);
            let got = match read(from, &mut self.buffer[..want]) {
                Ok(0) => return Ok(()),
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(ContentError::Read(error)),
            };
            write_all(to, &self.buffer[..got]).map_err(ContentError::Write)?;
            length -= got as u64;
            since_look += got as u64;
        }
        Ok(())
    }

    /// Copies the parts that hold data and gives the file its length.
    fn with_holes(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        meta: &Meta,
        cancel: &Cancel,
    ) -> Result<(), ContentError> {
        let mut at = 0;
        while at < meta.size {
            let data = match seek(from, SeekFrom::Data(at)) {
                Ok(data) if data < meta.size => data,
                // Nothing but a hole up to the end.
                Ok(_) | Err(Errno::NXIO) => break,
                Err(error) => return Err(ContentError::Read(error)),
            };
            let hole = seek(from, SeekFrom::Hole(data)).map_err(ContentError::Read)?;
            let hole = hole.min(meta.size);
            seek(from, SeekFrom::Start(data)).map_err(ContentError::Read)?;
            seek(to, SeekFrom::Start(data)).map_err(ContentError::Write)?;
            self.range(from, to, hole - data, cancel)?;
            // A file that shrinks meanwhile has no data where it had some: go on in any case.
            at = hole.max(data + 1);
        }
        ftruncate(to, meta.size).map_err(ContentError::Write)
    }
}

pub(super) fn write_all(to: impl AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match write(&to, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
