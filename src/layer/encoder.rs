//! One entry becomes the header bytes in front of its content.
//!
//! Ustar where it fits, PAX records where it does not: long paths, large ids, sizes of 8 GiB and more, fractions of a second,
//! times before 1970, extended attributes. No GNU extensions, no names of users or groups. Names are raw bytes; other than
//! ASCII needs no record. Equal entries give equal bytes.

use super::entry::{Entry, EntryKind};
use super::error::EntryError;
use super::header::{self, BLOCK, Block, MAX_EXTENDED, MAX_OCTAL_7, MAX_OCTAL_11, MAX_PATH};
use super::path::is_normal;
use super::pax;

/// All that headers have in common.
static TEMPLATE: Block = template();

const fn template() -> Block {
    let mut block = [0; BLOCK];
    let magic = b"ustar\x0000";
    let mut at = 0;
    while at < magic.len() {
        block[header::MAGIC.start + at] = magic[at];
        at += 1;
    }
    block
}

/// Makes headers; keeps its buffers from one entry to the next.
#[derive(Default)]
pub(super) struct Encoder {
    encoded: Vec<u8>,
    records: Vec<u8>,
}

impl Encoder {
    /// The bytes in front of the content of the entry that was encoded last: a multiple of the block size.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    pub(super) fn encode(&mut self, entry: &Entry) -> Result<(), EntryError> {
        check(entry)?;
        let records = &mut self.records;
        records.clear();

        let mut block = TEMPLATE;
        put_path(&mut block, records, entry);
        let number = |what| EntryError::Number {
            path: entry.path.clone(),
            what,
        };
        if entry.mode > 0o7777 {
            return Err(number("mode"));
        }
        header::put_octal(&mut block[header::MODE], u64::from(entry.mode));
        let size = match &entry.kind {
            EntryKind::File { size } => *size,
            _ => 0,
        };
        block[header::TYPE] = match &entry.kind {
            EntryKind::File { .. } => b'0',
            EntryKind::HardLink { target } => {
                put_link(&mut block, records, target);
                b'1'
            }
            EntryKind::Symlink { target } => {
                put_link(&mut block, records, target);
                b'2'
            }
            EntryKind::CharDevice { major, minor } => {
                put_device(&mut block, *major, *minor).ok_or_else(|| number("device number"))?;
                b'3'
            }
            EntryKind::BlockDevice { major, minor } => {
                put_device(&mut block, *major, *minor).ok_or_else(|| number("device number"))?;
                b'4'
            }
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
        };
        if size > i64::MAX as u64 - BLOCK as u64 {
            return Err(number("size"));
        }
        put_number(
            &mut block[header::SIZE],
            records,
            b"size",
            size,
            MAX_OCTAL_11,
        );
        for (field, key, id) in [
            (header::UID, &b"uid"[..], entry.uid),
            (header::GID, b"gid", entry.gid),
        ] {
            put_number(&mut block[field], records, key, u64::from(id), MAX_OCTAL_7);
        }
        if entry.mtime.nanoseconds >= 1_000_000_000 {
            return Err(number("modification time"));
        }
        put_mtime(&mut block, records, entry);
        for (name, value) in &entry.xattrs {
            pax::put_xattr(records, name, value);
        }
        header::put_checksum(&mut block);

        self.encoded.clear();
        if !self.records.is_empty() {
            if self.records.len() as u64 > MAX_EXTENDED {
                return Err(EntryError::TooLong {
                    path: entry.path.clone(),
                    what: "metadata",
                    limit: MAX_EXTENDED as usize,
                });
            }
            self.put_extended_header(&entry.path);
        }
        self.encoded.extend_from_slice(&block);
        Ok(())
    }

    fn put_extended_header(&mut self, path: &[u8]) {
        let mut block = TEMPLATE;
        // Programs that know no PAX make a file of this name; POSIX leaves it free.
        let directory = b"PaxHeaders.0/";
        let base = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let base = &base[..base.len().min(header::NAME.len() - directory.len())];
        block[..directory.len()].copy_from_slice(directory);
        block[directory.len()..directory.len() + base.len()].copy_from_slice(base);
        block[header::TYPE] = b'x';
        header::put_octal(&mut block[header::MODE], 0o644);
        header::put_octal(&mut block[header::UID], 0);
        header::put_octal(&mut block[header::GID], 0);
        header::put_octal(&mut block[header::MTIME], 0);
        header::put_octal(&mut block[header::SIZE], self.records.len() as u64);
        header::put_checksum(&mut block);
        self.encoded.extend_from_slice(&block);
        self.encoded.extend_from_slice(&self.records);
        let padded = self.encoded.len().next_multiple_of(BLOCK);
        self.encoded.resize(padded, 0);
    }
}

/// Refuses what no reader could give back.
fn check(entry: &Entry) -> Result<(), EntryError> {
    let refuse_nul = |text: &[u8], what| {
        if text.contains(&0) {
            return Err(EntryError::Nul {
                path: entry.path.clone(),
                what,
            });
        }
        Ok(())
    };
    let refuse_long = |text: &[u8], what| {
        if text.len() > MAX_PATH {
            return Err(EntryError::TooLong {
                path: entry.path.clone(),
                what,
                limit: MAX_PATH,
            });
        }
        Ok(())
    };
    let path = &entry.path;
    refuse_nul(path, "path")?;
    refuse_long(path, "path")?;
    if !is_normal(path) {
        return Err(EntryError::Path { path: path.clone() });
    }
    if path.is_empty() && entry.kind != EntryKind::Directory {
        return Err(EntryError::Root);
    }
    if let EntryKind::Symlink { target } | EntryKind::HardLink { target } = &entry.kind {
        refuse_nul(target, "target")?;
        refuse_long(target, "target")?;
    }
    if let EntryKind::HardLink { target } = &entry.kind
        && (target.is_empty() || !is_normal(target))
    {
        return Err(EntryError::Path {
            path: target.clone(),
        });
    }
    for name in entry.xattrs.keys() {
        refuse_nul(name, "attribute's name")?;
        if name.is_empty() {
            return Err(EntryError::Number {
                path: path.clone(),
                what: "extended attribute without a name",
            });
        }
    }
    Ok(())
}

/// Directories end in a slash, and the root is `./`.
fn put_path(block: &mut Block, records: &mut Vec<u8>, entry: &Entry) {
    let path = match &entry.path[..] {
        b"" => b".",
        path => path,
    };
    let slash = usize::from(entry.kind == EntryKind::Directory);
    let length = path.len() + slash;
    let mut put_name = |name: &[u8]| {
        block[..name.len()].copy_from_slice(name);
        if slash == 1 && name.len() < header::NAME.len() {
            block[name.len()] = b'/';
        }
    };
    if length <= header::NAME.len() {
        put_name(path);
        return;
    }
    // The first slash that leaves no more than a name's length behind it.
    let first = (length - header::NAME.len() - 1).max(1);
    let last = (path.len() - 1).min(header::PREFIX.len());
    let split = (first..=last).find(|&at| path[at] == b'/');
    if let Some(split) = split {
        put_name(&path[split + 1..]);
        block[header::PREFIX][..split].copy_from_slice(&path[..split]);
        return;
    }
    put_name(&path[..header::NAME.len()]);
    match slash {
        0 => pax::put(records, b"path", path),
        _ => pax::put(records, b"path", &[path, b"/"].concat()),
    }
}

fn put_link(block: &mut Block, records: &mut Vec<u8>, target: &[u8]) {
    let fits = target.len().min(header::LINKNAME.len());
    block[header::LINKNAME][..fits].copy_from_slice(&target[..fits]);
    if fits < target.len() {
        pax::put(records, b"linkpath", target);
    }
}

fn put_device(block: &mut Block, major: u32, minor: u32) -> Option<()> {
    if u64::from(major.max(minor)) > MAX_OCTAL_7 {
        return None;
    }
    header::put_octal(&mut block[header::DEVMAJOR], u64::from(major));
    header::put_octal(&mut block[header::DEVMINOR], u64::from(minor));
    Some(())
}

fn put_number(field: &mut [u8], records: &mut Vec<u8>, key: &[u8], value: u64, max: u64) {
    if value <= max {
        header::put_octal(field, value);
        return;
    }
    header::put_octal(field, 0);
    pax::put(records, key, value.to_string().as_bytes());
}

fn put_mtime(block: &mut Block, records: &mut Vec<u8>, entry: &Entry) {
    let mtime = entry.mtime;
    let whole = u64::try_from(mtime.seconds)
        .ok()
        .filter(|seconds| *seconds <= MAX_OCTAL_11);
    header::put_octal(&mut block[header::MTIME], whole.unwrap_or(0));
    if whole.is_none() || mtime.nanoseconds != 0 {
        pax::put_time(records, mtime);
    }
}
