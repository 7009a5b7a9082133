//! ADD's way with archives: a local file that is a tar, compressed or not, is unpacked; all else is copied.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::context::{SelectedRoot, Selection, Source};
use crate::layer::{decompress, is_tar};
use crate::solve::StepError;
use crate::vocab::ExitCode;

use super::copy::Item;

/// A source of a copy, ready to be placed.
pub(super) enum Opened<'a> {
    Inline {
        name: &'a str,
        content: &'a str,
    },
    Files {
        source: Arc<Source>,
        selection: Selection,
    },
    /// The uncompressed bytes of an archive.
    Archive {
        name: String,
        tar: Box<dyn Read + Send>,
    },
}

impl Opened<'_> {
    /// Returns the source as something to place; `None` of an archive.
    pub(super) fn item(&self) -> Option<Item<'_>> {
        match self {
            Opened::Inline { name, content } => Some(Item::Inline {
                name,
                content: content.as_bytes(),
            }),
            Opened::Files { source, selection } => Some(Item::Selected { source, selection }),
            Opened::Archive { .. } => None,
        }
    }
}

/// Takes the archives out of a selection, which keep their place among the rest.
pub(super) fn with_archives<'a>(
    source: Arc<Source>,
    selection: Selection,
    pattern: &str,
    opened: &mut Vec<Opened<'a>>,
) -> Result<(), StepError> {
    let failed = |error: io::Error| {
        StepError::new(
            ExitCode::Source,
            format!("cannot read `{pattern}` of the build context"),
        )
        .caused_by(&error)
    };
    let mut plain = selection.clone();
    plain.roots.clear();
    let before = opened.len();
    for root in selection.roots {
        match archive(&source, &root).map_err(failed)? {
            None => plain.roots.push(root),
            Some(tar) => {
                if !plain.roots.is_empty() {
                    opened.push(Opened::Files {
                        source: source.clone(),
                        selection: plain.clone(),
                    });
                    plain.roots.clear();
                }
                opened.push(Opened::Archive {
                    name: String::from_utf8_lossy(&root.path).into_owned(),
                    tar,
                });
            }
        }
    }
    // A wildcard that matched nothing is still a source.
    if !plain.roots.is_empty() || opened.len() == before {
        opened.push(Opened::Files {
            source,
            selection: plain,
        });
    }
    Ok(())
}

/// Returns the archive's bytes if a match is one, told by its content alone.
fn archive(source: &Source, root: &SelectedRoot) -> io::Result<Option<Box<dyn Read + Send>>> {
    if root.is_directory {
        return Ok(None);
    }
    let Some(mut file) = open_regular(source, &root.path)? else {
        return Ok(None);
    };
    let mut first = [0; 512];
    let read = fill(&mut decompress(file.try_clone()?)?, &mut first);
    file.seek(SeekFrom::Start(0))?;
    match read {
        // What cannot be decompressed is no archive.
        Err(_) => Ok(None),
        Ok(count) if count < first.len() || !is_tar(&first) => Ok(None),
        Ok(_) => Ok(Some(decompress(file)?)),
    }
}

/// Opens a regular file by its path without links; `None` if it is of another kind.
fn open_regular(source: &Source, path: &[u8]) -> io::Result<Option<File>> {
    let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b""[..], path),
    };
    let parent = source.open_holder(parent, name).map_err(io::Error::other)?;
    // Not blocking: the name may belong to a FIFO.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // A link, a socket, a device without a driver.
        Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
