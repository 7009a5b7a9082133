//! The file beside a layer directory: what its files are in the image, where the disk does not say it.
//!
//! The layer directory `X/fs` may have beside it `X/fs.ledger`. In it stand, by path, the attributes of files that are not what
//! the disk shows (see [`Owners`](super::Owners)), and marks of overlayfs that the disk has refused: a file system that takes no
//! device 0:0, or no attribute. A layer directory with refused marks can be read and composed, not mounted.
//!
//! ```text
//! "builder-ledger 1\n"
//! ownership: 'd' on disk (the file holds marks alone), 'n' on disk but for the numbers of devices, or 'l' in this file
//! for each path, in ascending order of bytes, none twice; "" is the layer's root:
//!   path: text      relative, without "." and ".."
//!   flags: u8       1 attributes, 2 deletion, 4 hides what is below it
//!   if attributes:  uid, gid, mode: u32
//!                   device: 0, or 'b' or 'c' with major, minor: u32
//!                   number of extended attributes: u32, { name, value: text }… in ascending order of names
//! SHA-256 of all before it
//! ```
//!
//! Texts are preceded by their length as u32; numbers are little-endian. What does not agree with this to the last byte is an
//! error and never believed in part. The file is written beside its place and renamed.

use std::collections::{BTreeMap, btree_map};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::vocab::{Attributes, DeviceNumber, Digest, Ownership};

use super::error::{During, RootfsError, Shown};
use super::resolve::split_last;
use super::stat::Stat;
use super::xattr::{self, Naming};

const MAGIC: &[u8] = b"builder-ledger 1\n";
const CHECKSUM: usize = 32;
const HAS_ATTRIBUTES: u8 = 1;
const IS_WHITEOUT: u8 = 2;
const IS_OPAQUE: u8 = 4;

/// The contents of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    ownership: Ownership,
    files: BTreeMap<Vec<u8>, Noted>,
}

/// What is noted of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// What the file is; without them it is what the disk says, owned by 0:0 where the ledger has the owners.
    pub attributes: Option<Attributes>,
    /// The path is deleted: nothing is there on disk.
    pub is_whiteout: bool,
    /// The directory hides what is below it.
    pub is_opaque: bool,
}

impl Sidecar {
    pub fn new(ownership: Ownership) -> Sidecar {
        Sidecar {
            ownership,
            files: BTreeMap::new(),
        }
    }

    /// Returns where the file of a layer directory is.
    pub fn path_of(layer: &Path) -> PathBuf {
        let mut path = OsString::from(layer);
        path.push(".ledger");
        path.into()
    }

    /// Reads the file beside a layer directory. Without one everything is on disk.
    pub fn read(layer: &Path) -> Result<Sidecar, RootfsError> {
        let path = Sidecar::path_of(layer);
        let shown = path.as_os_str().as_bytes();
        let mut bytes = Vec::new();
        match std::fs::File::open(&path) {
            Ok(mut file) => file.read_to_end(&mut bytes).during("read", shown)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Sidecar::new(Ownership::OnDisk));
            }
            Err(error) => return Err(error).during("open", shown),
        };
        Sidecar::decode(&bytes).ok_or_else(|| RootfsError::Sidecar {
            path: shown.shown(),
        })
    }

    /// Writes the file beside a layer directory, in one step. Nothing to say and everything on disk is no file.
    pub fn write(&self, layer: &Path) -> Result<(), RootfsError> {
        let path = Sidecar::path_of(layer);
        if self.ownership.gives_away() && self.files.is_empty() {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).during("remove", path.as_os_str().as_bytes())
                }
                _ => Ok(()),
            };
        }
        let mut beside = OsString::from(&path);
        beside.push(".new");
        std::fs::write(&beside, self.encode()).during("write", beside.as_bytes())?;
        std::fs::rename(&beside, &path).during("write", path.as_os_str().as_bytes())
    }

    /// Tells where the layer's owners are.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Notes what a file is.
    pub fn set_attributes(&mut self, path: &[u8], attributes: Attributes) {
        self.noted(path).attributes = Some(attributes);
    }

    /// Notes a deletion.
    pub fn set_whiteout(&mut self, path: &[u8]) {
        self.noted(path).is_whiteout = true;
    }

    /// Notes that a directory hides what is below it.
    pub fn set_opaque(&mut self, path: &[u8]) {
        self.noted(path).is_opaque = true;
    }

    /// Takes over the marks of another, not the attributes.
    pub fn take_marks(&mut self, other: &Sidecar) {
        for (path, noted) in &other.files {
            if noted.is_whiteout {
                self.set_whiteout(path);
            }
            if noted.is_opaque {
                self.set_opaque(path);
            }
        }
    }

    /// Returns what is noted of a path.
    pub fn get(&self, path: &[u8]) -> Option<&Noted> {
        self.files.get(path)
    }

    /// Returns what a file is, where it is not what the disk says.
    pub fn attributes(&self, path: &[u8]) -> Option<&Attributes> {
        self.get(path)?.attributes.as_ref()
    }

    /// Tells whether a path is deleted by a mark that the disk has refused.
    pub fn is_whiteout(&self, path: &[u8]) -> bool {
        self.get(path).is_some_and(|noted| noted.is_whiteout)
    }

    /// Tells whether a directory hides what is below it by a mark that the disk has refused.
    pub fn is_opaque(&self, path: &[u8]) -> bool {
        self.get(path).is_some_and(|noted| noted.is_opaque)
    }

    /// Tells whether the disk has refused marks, so that the layer cannot be mounted.
    pub fn has_marks(&self) -> bool {
        self.files
            .values()
            .any(|noted| noted.is_whiteout || noted.is_opaque)
    }

    /// Returns everything, in ascending order of paths.
    pub fn iter(&self) -> btree_map::Iter<'_, Vec<u8>, Noted> {
        self.files.iter()
    }

    /// Returns the names in a directory that are deleted by marks that the disk has refused, in order.
    pub fn whiteouts_in(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let mut prefix = directory.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        self.files
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix))
            .filter(|(_, noted)| noted.is_whiteout)
            .map(|(path, _)| split_last(path))
            .filter(|(parent, name)| *parent == directory && !name.is_empty())
            .map(|(_, name)| name.to_vec())
            .collect()
    }

    /// Returns what a file of the layer is in the image, of which the disk says `stat`.
    pub(super) fn in_image(&self, path: &[u8], stat: Stat) -> Stat {
        stat.in_image(self.ownership, self.attributes(path))
    }

    /// Reads the attributes of an open file of the layer that a layer carries.
    pub(super) fn read_content(
        &self,
        path: &[u8],
        file: BorrowedFd<'_>,
        naming: Naming,
    ) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut content = xattr::read_content(file, naming)?;
        if let Some(attributes) = self.attributes(path) {
            content.extend(attributes.xattrs.clone());
        }
        Ok(content)
    }

    /// Returns the bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(match self.ownership {
            Ownership::OnDisk => b'd',
            Ownership::DevicesInLedger => b'n',
            Ownership::InLedger => b'l',
        });
        for (path, noted) in &self.files {
            put_text(&mut bytes, path);
            let flag = |is_set, flag| if is_set { flag } else { 0 };
            bytes.push(
                flag(noted.attributes.is_some(), HAS_ATTRIBUTES)
                    | flag(noted.is_whiteout, IS_WHITEOUT)
                    | flag(noted.is_opaque, IS_OPAQUE),
            );
            if let Some(attributes) = &noted.attributes {
                put_attributes(&mut bytes, attributes);
            }
        }
        let checksum = Digest::of(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    /// Reads the bytes of the file; `None` if they are not what [`Sidecar::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Option<Sidecar> {
        let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
        if Digest::of(content).as_bytes().as_slice() != checksum {
            return None;
        }
        let mut rest = content.strip_prefix(MAGIC)?;
        let mut sidecar = Sidecar::new(match take_byte(&mut rest)? {
            b'd' => Ownership::OnDisk,
            b'n' => Ownership::DevicesInLedger,
            b'l' => Ownership::InLedger,
            _ => return None,
        });
        let mut last: Option<&[u8]> = None;
        while !rest.is_empty() {
            let path = take_text(&mut rest)?;
            if !is_plain_path(path) || last.is_some_and(|last| last >= path) {
                return None;
            }
            last = Some(path);
            let flags = take_byte(&mut rest)?;
            if flags == 0 || flags & !(HAS_ATTRIBUTES | IS_WHITEOUT | IS_OPAQUE) != 0 {
                return None;
            }
            let attributes = match flags & HAS_ATTRIBUTES {
                0 => None,
                _ => Some(take_attributes(&mut rest)?),
            };
            let noted = Noted {
                attributes,
                is_whiteout: flags & IS_WHITEOUT != 0,
                is_opaque: flags & IS_OPAQUE != 0,
            };
            sidecar.files.insert(path.to_vec(), noted);
        }
        Some(sidecar)
    }

    fn noted(&mut self, path: &[u8]) -> &mut Noted {
        self.files.entry(path.to_vec()).or_default()
    }
}

fn put_attributes(bytes: &mut Vec<u8>, attributes: &Attributes) {
    for number in [attributes.uid, attributes.gid, attributes.mode] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    match attributes.device {
        None => bytes.push(0),
        Some(device) => {
            bytes.push(if device.is_block { b'b' } else { b'c' });
            bytes.extend_from_slice(&device.major.to_le_bytes());
            bytes.extend_from_slice(&device.minor.to_le_bytes());
        }
    }
    // The kernel takes 64 KiB of names for a file.
    bytes.extend_from_slice(&(attributes.xattrs.len() as u32).to_le_bytes());
    for (name, value) in &attributes.xattrs {
        put_text(bytes, name);
        put_text(bytes, value);
    }
}

fn take_attributes(rest: &mut &[u8]) -> Option<Attributes> {
    let (uid, gid, mode) = (take_number(rest)?, take_number(rest)?, take_number(rest)?);
    let device = match take_byte(rest)? {
        0 => None,
        kind @ (b'b' | b'c') => Some(DeviceNumber {
            is_block: kind == b'b',
            major: take_number(rest)?,
            minor: take_number(rest)?,
        }),
        _ => return None,
    };
    let mut attributes = Attributes {
        uid,
        gid,
        mode,
        device,
        xattrs: BTreeMap::new(),
    };
    for _ in 0..take_number(rest)? {
        let (name, value) = (take_text(rest)?, take_text(rest)?);
        let last = attributes.xattrs.last_key_value();
        if name.is_empty() || last.is_some_and(|(last, _)| last.as_slice() >= name) {
            return None;
        }
        attributes.xattrs.insert(name.to_vec(), value.to_vec());
    }
    (mode <= 0o7777).then_some(attributes)
}

/// Paths and attributes are far below 4 GiB: the kernel does not take them otherwise.
fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text);
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (&first, left) = rest.split_first()?;
    *rest = left;
    Some(first)
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let (number, left) = rest.split_first_chunk::<4>()?;
    *rest = left;
    Some(u32::from_le_bytes(*number))
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(rest)?).ok()?;
    let (text, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(text)
}

/// A relative path of plain names, or the root's.
fn is_plain_path(path: &[u8]) -> bool {
    let odd = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
    path.is_empty() || !path.split(|&byte| byte == b'/').any(odd)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Sidecar {
        let mut sidecar = Sidecar::new(Ownership::InLedger);
        sidecar.set_attributes(
            b"usr/bin/ping",
            Attributes {
                uid: 1,
                gid: 2,
                mode: 0o4755,
                device: None,
                xattrs: [(b"security.capability".to_vec(), vec![1, 0, 0, 2])].into(),
            },
        );
        sidecar.set_attributes(
            b"dev/null",
            Attributes {
                mode: 0o666,
                device: Some(DeviceNumber {
                    is_block: false,
                    major: 1,
                    minor: 3,
                }),
                ..Attributes::default()
            },
        );
        sidecar.set_whiteout(b"gone");
        sidecar.set_opaque(b"usr");
        sidecar
    }

    #[test]
    fn the_bytes_are_these() {
        let text = example().encode();
        let (content, _) = text.split_at(text.len() - CHECKSUM);
        expect_test::expect![[r#"builder-ledger 1\nl\x08\x00\x00\x00dev/null\x01\x00\x00\x00\x00\x00\x00\x00\x00\xb6\x01\x00\x00c\x01\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00gone\x02\x03\x00\x00\x00usr\x04\x0c\x00\x00\x00usr/bin/ping\x01\x01\x00\x00\x00\x02\x00\x00\x00\xed\t\x00\x00\x00\x01\x00\x00\x00\x13\x00\x00\x00security.capability\x04\x00\x00\x00\x01\x00\x00\x02"#]]
            .assert_eq(&content.escape_ascii().to_string());
        assert_eq!(Sidecar::decode(&text), Some(example()));
    }

    #[test]
    fn damaged_bytes_are_an_error_and_no_part_of_them_is_believed() {
        let whole = example().encode();
        for length in 0..whole.len() {
            assert_eq!(Sidecar::decode(&whole[..length]), None, "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(Sidecar::decode(&other), None, "byte {at}");
        }
        // With the right checksum, too.
        let content = &whole[..whole.len() - CHECKSUM];
        let with_checksum = |content: &[u8]| {
            let mut bytes = content.to_vec();
            bytes.extend_from_slice(Digest::of(content).as_bytes());
            bytes
        };
        for length in 0..content.len() {
            let decoded = Sidecar::decode(&with_checksum(&content[..length]));
            if let Some(decoded) = decoded {
                assert_eq!(decoded.encode(), with_checksum(&content[..length]));
            }
        }
        let head = [MAGIC, b"l"].concat();
        for paths in [
            &["b", "a"][..],
            &["a", "a"],
            &["../a"],
            &["/a"],
            &["a/"],
            &["a//b"],
            &["."],
            &["a\0"],
        ] {
            let mut bytes = head.clone();
            for path in paths {
                put_text(&mut bytes, path.as_bytes());
                bytes.push(IS_WHITEOUT);
            }
            assert_eq!(Sidecar::decode(&with_checksum(&bytes)), None, "{paths:?}");
        }
        let mut long = head;
        long.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Sidecar::decode(&with_checksum(&long)), None);
    }

    #[test]
    fn a_torn_file_is_an_error_with_its_name_and_a_missing_one_is_the_disks_word() {
        let host = tempfile::tempdir().unwrap();
        let layer = host.path().join("fs");
        assert_eq!(
            Sidecar::read(&layer).unwrap(),
            Sidecar::new(Ownership::OnDisk)
        );
        example().write(&layer).unwrap();
        assert_eq!(Sidecar::read(&layer).unwrap(), example());
        let path = host.path().join("fs.ledger");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let error = Sidecar::read(&layer).unwrap_err().to_string();
        assert!(error.contains("fs.ledger` is damaged"), "{error}");
        // Nothing to say leaves nothing behind.
        Sidecar::new(Ownership::OnDisk).write(&layer).unwrap();
        assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 0);
    }

    #[test]
    fn deletions_are_listed_by_directory() {
        let mut sidecar = Sidecar::new(Ownership::OnDisk);
        for path in ["a", "a-b", "a/b", "a/b/c", "a/d", "b"] {
            sidecar.set_whiteout(path.as_bytes());
        }
        sidecar.set_opaque(b"a/c");
        let names = |directory: &str| {
            let names = sidecar.whiteouts_in(directory.as_bytes());
            names
                .iter()
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["a", "a-b", "b"]);
        assert_eq!(names("a"), ["b", "d"]);
        assert_eq!(names("a/b"), ["c"]);
        assert_eq!(names("c"), Vec::<String>::new());
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 1..6)
    }

    prop_compose! {
        fn noted()(
            ids in any::<(u32, u32)>(),
            mode in 0..0o10000_u32,
            device in any::<Option<(bool, u32, u32)>>(),
            xattrs in prop::collection::btree_map(text(), text(), 0..3),
            has in any::<bool>(),
            is_whiteout in any::<bool>(),
            is_opaque in any::<bool>(),
        ) -> Noted {
            let device = device.map(|(is_block, major, minor)| DeviceNumber { is_block, major, minor });
            let attributes = Attributes { uid: ids.0, gid: ids.1, mode, device, xattrs };
            let has = has || !(is_whiteout || is_opaque);
            Noted { attributes: has.then_some(attributes), is_whiteout, is_opaque }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            files in prop::collection::btree_map("[a-c]{1,2}(/[a-c]){0,3}", noted(), 0..8),
            kind in 0..Ownership::ALL.len(),
        ) {
            let sidecar = Sidecar {
                ownership: Ownership::ALL[kind],
                files: files.into_iter().map(|(path, noted)| (path.into_bytes(), noted)).collect(),
            };
            prop_assert_eq!(Sidecar::decode(&sidecar.encode()), Some(sidecar));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut content = MAGIC.to_vec();
            content.extend_from_slice(&bytes);
            content.extend_from_slice(Digest::of(&content).as_bytes());
            if let Some(sidecar) = Sidecar::decode(&content) {
                prop_assert_eq!(sidecar.encode(), content);
            }
        }
    }
}
