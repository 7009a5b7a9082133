//! Extended attributes: which of them belong to a tree's content, and overlayfs' own among them.
//!
//! A layer carries `user.*` and `security.capability`. Labels of the machine (`security.selinux`, `security.ima`, ...) are not
//! content, `trusted.*` is the storage's, and access control lists are left out, since files get them from the default list of
//! whatever directory the store lies in.
//!
//! overlayfs keeps its marks in `user.overlay.*` and hides them; a process inside that sets such a name gets
//! `user.overlay.overlay.*` on disk. In a layer or upper directory names are therefore *escaped*, in a mounted tree they are not.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

const OVERLAY: &[u8] = b"user.overlay.";
const ESCAPED: &[u8] = b"user.overlay.overlay.";
/// What a copied-up file has, other files not.
pub(super) const ORIGIN: &[u8] = b"user.overlay.origin";
const OPAQUE: &[u8] = b"user.overlay.opaque";
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// `OVERLAYFS_SUPER_MAGIC`
const OVERLAYFS: u64 = 0x794c_7630;

/// How a tree stores names that begin with `user.overlay.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// The files are those of a layer or upper directory.
    Escaped,
    /// The kernel escapes: the files are seen through a mounted overlay.
    Mounted,
}

impl Naming {
    /// Finds out what kind of tree a directory is in.
    pub(super) fn of(directory: BorrowedFd<'_>) -> io::Result<Naming> {
        let statfs = rustix::fs::fstatfs(directory)?;
        Ok(match statfs.f_type as u64 & 0xffff_ffff {
            OVERLAYFS => Naming::Mounted,
            _ => Naming::Escaped,
        })
    }
}

/// What becomes of an archive's attribute.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not content, or another storage's marks.
    Drop,
    /// Has to be there: the tree means something else without it.
    Need(Vec<u8>),
    /// Is set where the machine allows it.
    Try(Vec<u8>),
}

/// Decides on the attribute `name` of an archive for a tree with `naming`.
pub(super) fn fate(name: &[u8], naming: Naming) -> Fate {
    if name.starts_with(b"trusted.overlay.") || is_machine_label(name) {
        return Fate::Drop;
    }
    if let Some(rest) = name.strip_prefix(OVERLAY)
        && naming == Naming::Escaped
    {
        return Fate::Need([ESCAPED, rest].concat());
    }
    if name == CAPABILITY || name.starts_with(b"user.") {
        return Fate::Need(name.to_vec());
    }
    Fate::Try(name.to_vec())
}

/// Reads the attributes that a layer carries.
pub(super) fn read_content(
    file: impl AsFd,
    naming: Naming,
) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut content = BTreeMap::new();
    for name in list(file.as_fd())? {
        let Some(meant) = meant(&name, naming) else {
            continue;
        };
        if let Some(value) = get(file.as_fd(), &name)? {
            let value = match name == CAPABILITY {
                true => without_root_id(value),
                false => value,
            };
            content.insert(meant, value);
        }
    }
    Ok(content)
}

/// Tells whether a layer's directory hides what is below it.
pub(super) fn is_opaque(directory: impl AsFd) -> io::Result<bool> {
    Ok(get(directory.as_fd(), OPAQUE)?.as_deref() == Some(b"y"))
}

/// Makes a layer's directory hide what is below it.
pub(super) fn set_opaque(directory: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        directory,
        OPAQUE,
        b"y",
        XattrFlags::empty(),
    )?)
}

/// Gives one directory of the store the attributes of another that are content.
pub(super) fn copy_content(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    for (name, value) in read_content(from, Naming::Escaped)? {
        if let Fate::Need(name) = fate(&name, Naming::Escaped) {
            rustix::fs::fsetxattr(&to, &name, &value, XattrFlags::empty())?;
        }
    }
    Ok(())
}

/// An attribute on its way from one tree to another, by the name that it has there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// The tree means something else without it.
    pub(super) is_needed: bool,
}

/// Reads all attributes that go along when a file is carried from one tree to another: those of a layer's content, and what
/// else decides who may do what with the file.
pub(super) fn carried(file: impl AsFd, from: Naming, to: Naming) -> io::Result<Vec<Carried>> {
    let mut attributes = Vec::new();
    for stored in list(file.as_fd())? {
        let (name, is_needed) = match carried_as(&stored, from, to) {
            Fate::Drop => continue,
            Fate::Need(name) => (name, true),
            Fate::Try(name) => (name, false),
        };
        if let Some(mut value) = get(file.as_fd(), &stored)? {
            if stored == CAPABILITY {
                value = without_root_id(value);
            }
            attributes.push(Carried {
                name,
                value,
                is_needed,
            });
        }
    }
    Ok(attributes)
}

fn carried_as(stored: &[u8], from: Naming, to: Naming) -> Fate {
    match from {
        Naming::Escaped if stored.starts_with(OVERLAY) => match meant(stored, from) {
            Some(meant) => fate(&meant, to),
            None => Fate::Drop,
        },
        _ if stored.starts_with(b"trusted.") => Fate::Drop,
        _ => fate(stored, to),
    }
}

/// Returns one attribute's value, or `None` where there is none.
pub(super) fn get(file: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::fgetxattr(file, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            // The kernel takes no values above 64 KiB.
            Err(Errno::RANGE) if value.len() < 1 << 16 => value.resize(1 << 16, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Brings file capabilities to version 2: the third version's number of a namespace's root means nothing elsewhere.
pub(super) fn without_root_id(mut value: Vec<u8>) -> Vec<u8> {
    const VERSION_2_LENGTH: usize = 20;
    // Little-endian magic: the version is its highest byte, the lowest bit of the first is the "effective" flag.
    if value.len() > VERSION_2_LENGTH && value[3] == 3 {
        value.truncate(VERSION_2_LENGTH);
        value[3] = 2;
    }
    value
}

fn meant(name: &[u8], naming: Naming) -> Option<Vec<u8>> {
    match naming {
        Naming::Escaped if name.starts_with(OVERLAY) => {
            let rest = name.strip_prefix(ESCAPED)?;
            Some([OVERLAY, rest].concat())
        }
        _ if name.starts_with(b"user.") || name == CAPABILITY => Some(name.to_vec()),
        _ => None,
    }
}

fn is_machine_label(name: &[u8]) -> bool {
    name.starts_with(b"security.") && name != CAPABILITY
}

fn list(file: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = vec![0; 512];
    loop {
        match rustix::fs::flistxattr(file, &mut names[..]) {
            Ok(length) => {
                names.truncate(length);
                break;
            }
            Err(Errno::RANGE) if names.len() < 1 << 16 => names.resize(1 << 16, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_an_archive_cannot_steer_the_overlay() {
        let check = |name: &str, naming, expected: Fate| {
            assert_eq!(fate(name.as_bytes(), naming), expected, "{name}");
        };
        let need = |name: &str| Fate::Need(name.as_bytes().to_vec());
        check(
            "user.overlay.opaque",
            Naming::Escaped,
            need("user.overlay.overlay.opaque"),
        );
        check(
            "user.overlay.overlay.x",
            Naming::Escaped,
            need("user.overlay.overlay.overlay.x"),
        );
        check(
            "user.overlay.opaque",
            Naming::Mounted,
            need("user.overlay.opaque"),
        );
        check("trusted.overlay.opaque", Naming::Escaped, Fate::Drop);
        check("trusted.overlay.opaque", Naming::Mounted, Fate::Drop);
        check("security.selinux", Naming::Escaped, Fate::Drop);
        check(
            "security.capability",
            Naming::Escaped,
            need("security.capability"),
        );
        check("user.mime", Naming::Escaped, need("user.mime"));
        check(
            "system.posix_acl_access",
            Naming::Escaped,
            Fate::Try(b"system.posix_acl_access".to_vec()),
        );
    }

    #[test]
    fn marks_on_disk_are_no_content_and_escaped_names_come_back() {
        let check = |name: &str, naming, expected: Option<&str>| {
            let found = meant(name.as_bytes(), naming);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{name}");
        };
        check("user.overlay.origin", Naming::Escaped, None);
        check(
            "user.overlay.overlay.opaque",
            Naming::Escaped,
            Some("user.overlay.opaque"),
        );
        check(
            "user.overlay.opaque",
            Naming::Mounted,
            Some("user.overlay.opaque"),
        );
        check("trusted.overlay.opaque", Naming::Escaped, None);
        check("security.selinux", Naming::Mounted, None);
        check("system.posix_acl_default", Naming::Escaped, None);
        check(
            "security.capability",
            Naming::Escaped,
            Some("security.capability"),
        );
    }

    #[test]
    fn attributes_are_carried_by_the_name_that_they_have_in_the_other_tree() {
        let need = |name: &str| Fate::Need(name.as_bytes().to_vec());
        let check = |stored: &str, from, to, expected: Fate| {
            assert_eq!(
                carried_as(stored.as_bytes(), from, to),
                expected,
                "{stored}"
            );
        };
        let (layer, root) = (Naming::Escaped, Naming::Mounted);
        check("user.overlay.opaque", layer, root, Fate::Drop);
        check("user.overlay.origin", layer, root, Fate::Drop);
        check(
            "user.overlay.overlay.opaque",
            layer,
            root,
            need("user.overlay.opaque"),
        );
        check(
            "user.overlay.opaque",
            root,
            layer,
            need("user.overlay.overlay.opaque"),
        );
        check("user.note", root, layer, need("user.note"));
        check("trusted.note", root, layer, Fate::Drop);
        check("security.selinux", root, layer, Fate::Drop);
        check(
            "security.capability",
            layer,
            root,
            need("security.capability"),
        );
        check(
            "system.posix_acl_access",
            layer,
            root,
            Fate::Try(b"system.posix_acl_access".to_vec()),
        );
    }

    #[test]
    fn capabilities_lose_the_root_id_of_their_namespace() {
        let mut third = vec![1, 0, 0, 3];
        third.extend([7; 16]);
        let mut second = third.clone();
        second[3] = 2;
        third.extend(100_000_u32.to_le_bytes());
        assert_eq!(without_root_id(third), second);
        assert_eq!(without_root_id(second.clone()), second);
    }
}
