//! A ledger as bytes, passed between the builder and init in memory that has a descriptor.
//!
//! ```text
//! list of: device major, minor | u64 inode | i64 birth, nanoseconds | uid | gid | mode
//!          | is_block, major, minor or none | list of (name, value)                         (see `wire` for the pieces)
//! ```

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;

use crate::vocab::{Attributes, DeviceNumber, FileId, Ledger, Ownership};

use super::super::walk::errno;
use super::super::wire::{Reader, Writer};

/// A ledger longer than this is refused: some ten million files.
const LONGEST: u64 = 1 << 30;
/// It cannot change while it is read.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Writes a ledger down.
pub(in crate::sandbox) fn pack(ledger: &Ledger) -> Result<OwnedFd, Errno> {
    let bytes = encode(ledger);
    if bytes.len() as u64 > LONGEST {
        return Err(Errno::TOOBIG);
    }
    let memory = memfd_create("ledger", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut memory = File::from(memory);
    memory.write_all(&bytes).map_err(errno)?;
    fcntl_add_seals(&memory, SEALS)?;
    Ok(memory.into())
}

/// Reads what [`pack`] wrote.
pub(in crate::sandbox) fn unpack(memory: OwnedFd) -> Result<Ledger, Errno> {
    if !fcntl_get_seals(&memory)?.contains(SEALS) {
        return Err(Errno::BADMSG);
    }
    let memory = File::from(memory);
    let length = memory.metadata().map_err(errno)?.len();
    if length > LONGEST {
        return Err(Errno::TOOBIG);
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| Errno::TOOBIG)?];
    memory.read_exact_at(&mut bytes, 0).map_err(errno)?;
    decode(&bytes).ok_or(Errno::BADMSG)
}

fn encode(ledger: &Ledger) -> Vec<u8> {
    let files: Vec<_> = ledger.iter().collect();
    let mut writer = Writer::default();
    writer.claim(ledger.ownership() == Ownership::DevicesInLedger);
    writer.list(&files, |writer, (file, attributes)| {
        writer.u32(file.device.0);
        writer.u32(file.device.1);
        writer.u64(file.inode);
        writer.i64(file.birth.0);
        writer.u32(file.birth.1);
        writer.u32(attributes.uid);
        writer.u32(attributes.gid);
        writer.u32(attributes.mode);
        writer.option(attributes.device, |writer, device| {
            writer.claim(device.is_block);
            writer.u32(device.major);
            writer.u32(device.minor);
        });
        let xattrs: Vec<_> = attributes.xattrs.iter().collect();
        writer.list(&xattrs, |writer, (name, value)| {
            writer.bytes(name);
            writer.bytes(value);
        });
    });
    writer.0
}

fn decode(bytes: &[u8]) -> Option<Ledger> {
    let mut reader = Reader(bytes);
    let mut ledger = match reader.claim()? {
        true => Ledger::of_devices(),
        false => Ledger::default(),
    };
    let files = reader.list(|reader| {
        let file = FileId {
            device: (reader.u32()?, reader.u32()?),
            inode: reader.u64()?,
            birth: (reader.i64()?, reader.u32()?),
        };
        let attributes = Attributes {
            uid: reader.u32()?,
            gid: reader.u32()?,
            mode: reader.u32()?,
            device: reader.option(|reader| {
                Some(DeviceNumber {
                    is_block: reader.claim()?,
                    major: reader.u32()?,
                    minor: reader.u32()?,
                })
            })?,
            xattrs: reader
                .list(|reader| Some((reader.bytes()?.to_vec(), reader.bytes()?.to_vec())))?
                .into_iter()
                .collect(),
        };
        Some((file, attributes))
    })?;
    for (file, attributes) in files {
        ledger.insert(file, attributes);
    }
    reader.finish(ledger)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let file = |inode| FileId {
            device: (8, 1),
            inode,
            birth: (-1, 999_999_999),
        };
        let plain = Attributes {
            uid: 1000,
            gid: u32::MAX - 1,
            mode: 0o4755,
            ..Attributes::default()
        };
        let device = Attributes {
            device: Some(DeviceNumber {
                is_block: true,
                major: 7,
                minor: 1 << 19,
            }),
            xattrs: [(b"security.capability".to_vec(), vec![0, 1, 255])].into(),
            ..plain.clone()
        };
        [(file(1), plain), (file(u64::MAX), device)]
            .into_iter()
            .collect()
    }

    #[test]
    fn ledgers_survive_the_passage() {
        let mut of_devices = Ledger::of_devices();
        for (file, attributes) in ledger().iter() {
            of_devices.insert(*file, attributes.clone());
        }
        for ledger in [Ledger::default(), ledger(), of_devices] {
            assert_eq!(unpack(pack(&ledger).unwrap()), Ok(ledger));
        }
    }

    #[test]
    fn torn_ledgers_are_none() {
        let bytes = encode(&ledger());
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(decode(&[bytes, vec![0]].concat()), None);
    }

    #[test]
    fn memory_that_may_still_change_is_refused() {
        let open = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert_eq!(unpack(open), Err(Errno::BADMSG));
    }
}
