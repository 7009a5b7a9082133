//! Two threads for one archive: the caller's reads and parses (and decompresses, below the reader it was given), another
//! makes files.
//!
//! Entries and content travel in parcels of a few hundred KiB, so that ten thousand small files are some hundred hand-overs,
//! and in a bounded queue, so that memory stays at a few MiB. Emptied parcels go back to be filled again.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::layer::{Entry, EntryKind, Stretch, TarReader};

use super::error::RootfsError;
use super::unpack::{Unpacked, Unpacker};

const PARCEL_BYTES: usize = 256 << 10;
const PARCEL_ENTRIES: usize = 512;
const PARCELS: usize = 6;

#[derive(Default)]
struct Parcel {
    items: Vec<Item>,
    content: Vec<u8>,
    /// Bytes that the entries themselves hold.
    names: usize,
}

enum Item {
    Entry(Entry),
    /// The next bytes of the parcel's content belong to the last file.
    Content(usize),
    /// The last file goes on with so many zeros.
    Hole(u64),
}

/// Reads `tar` to its end, also what follows the archive, and has `unpacker` make what is in it.
pub(super) fn unpack(tar: &mut dyn Read, unpacker: Unpacker) -> Result<Unpacked, RootfsError> {
    let (full, to_unpack) = sync_channel(PARCELS);
    let (empty, to_fill) = sync_channel(PARCELS + 2);
    std::thread::scope(|scope| {
        let unpacking = scope.spawn(move || make_files(unpacker, &to_unpack, &empty));
        let read = Packer {
            full,
            to_fill,
            parcel: Parcel::default(),
        }
        .read(tar);
        match (read, unpacking.join()) {
            (_, Err(panic)) => std::panic::resume_unwind(panic),
            // A file that misses its end is the consequence.
            (Err(error), Ok(_)) => Err(error),
            // Whatever stopped the unpacking, the reading only found nobody to give to.
            (Ok(()), Ok(unpacked)) => unpacked,
        }
    })
}

fn make_files(
    mut unpacker: Unpacker,
    to_unpack: &Receiver<Parcel>,
    empty: &SyncSender<Parcel>,
) -> Result<Unpacked, RootfsError> {
    for mut parcel in to_unpack {
        let mut at = 0;
        for item in parcel.items.drain(..) {
            match item {
                Item::Entry(entry) => unpacker.entry(entry)?,
                Item::Content(length) => {
                    unpacker.content(&parcel.content[at..at + length])?;
                    at += length;
                }
                Item::Hole(length) => unpacker.hole(length),
            }
        }
        parcel.content.clear();
        parcel.names = 0;
        // The reader may have finished.
        drop(empty.try_send(parcel));
    }
    unpacker.finish()
}

/// The reading side.
struct Packer {
    full: SyncSender<Parcel>,
    to_fill: Receiver<Parcel>,
    parcel: Parcel,
}

/// Nobody takes parcels any more; the unpacking thread knows why.
struct Abandoned;

impl Packer {
    fn read(mut self, tar: &mut dyn Read) -> Result<(), RootfsError> {
        let mut reader = TarReader::new(&mut *tar);
        while let Some(entry) = reader.next()? {
            let is_file = matches!(entry.kind, EntryKind::File { .. });
            if self.add(entry).is_err() {
                return Ok(());
            }
            if is_file {
                match self.fill(&mut reader) {
                    Ok(Ok(())) => {}
                    Ok(Err(Abandoned)) => return Ok(()),
                    Err(error) => return Err(RootfsError::Archive(error.into())),
                }
            }
        }
        drop(reader);
        if self.send().is_err() {
            return Ok(());
        }
        // Whoever hashes the stream below wants to see all of it.
        io::copy(tar, &mut io::sink()).map_err(|error| RootfsError::Archive(error.into()))?;
        Ok(())
    }

    fn add(&mut self, entry: Entry) -> Result<(), Abandoned> {
        self.parcel.names += entry.path.len()
            + entry
                .xattrs
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>();
        self.parcel.items.push(Item::Entry(entry));
        if self.parcel.items.len() >= PARCEL_ENTRIES || self.parcel.names >= PARCEL_BYTES {
            return self.send();
        }
        Ok(())
    }

    fn fill<R: Read>(&mut self, reader: &mut TarReader<R>) -> io::Result<Result<(), Abandoned>> {
        while let Some(stretch) = reader.stretch() {
            let is_full = match stretch {
                Stretch::Hole(length) => {
                    self.parcel.items.push(Item::Hole(length));
                    self.parcel.items.len() >= PARCEL_ENTRIES
                }
                Stretch::Data(length) => {
                    let room = PARCEL_BYTES - self.parcel.content.len();
                    let length = reader
                        .content()
                        .take(length.min(room as u64))
                        .read_to_end(&mut self.parcel.content)?;
                    self.parcel.items.push(Item::Content(length));
                    length == room
                }
            };
            if is_full && self.send().is_err() {
                return Ok(Err(Abandoned));
            }
        }
        Ok(Ok(()))
    }

    fn send(&mut self) -> Result<(), Abandoned> {
        if self.parcel.items.is_empty() {
            return Ok(());
        }
        let mut next = self.to_fill.try_recv().unwrap_or_default();
        next.content.reserve(PARCEL_BYTES);
        let parcel = std::mem::replace(&mut self.parcel, next);
        self.full.send(parcel).map_err(|_| Abandoned)
    }
}
