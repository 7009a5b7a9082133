//! A small directory beside unpacked layers that shows what a disk and an id map made of them.
//!
//! In: an empty directory, from whoever makes layers there. Out, later and from elsewhere (another mount of the disk, another user
//! namespace): whether layers would look the same. Three things are told by it: a deletion mark, an opaque directory, and a file
//! that belongs to user and group 1, or to whoever made it where a ledger has the owners.
//!
//! ```text
//! marks     which of the others the disk took: words, one a line
//! deleted   character device 0:0
//! opaque/   with the attribute `user.overlay.opaque`
//! owned     of 1:1
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::error::{During, RootfsError};
use super::marks;
use super::resolve::READ_DIRECTORY;
use super::tree::stat_at;
use super::xattr;
use crate::vocab::Ownership;

/// The owner that a user namespace of more than one id has besides root.
const OTHER: u32 = 1;

/// Why layers beside a witness are not what they were.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    #[error(
        "nothing tells whether their owners are right: it was made by an older version, or its witness cannot be read"
    )]
    Missing(#[source] io::Error),
    #[error("deletion marks are not visible there")]
    Deletions,
    #[error("attributes are not visible there")]
    Attributes,
    /// Another range of subordinate ids, a shifted mount, another user.
    #[error("owners look different from here: {uid}:{gid} instead of {wanted}")]
    Owners { uid: u32, gid: u32, wanted: String },
}

/// Fills an empty directory.
pub fn write_witness(dir: &Path, ownership: Ownership) -> Result<(), RootfsError> {
    let shown = dir.as_os_str().as_bytes();
    let root = rustix::fs::open(dir, READ_DIRECTORY, Mode::empty()).during("open", shown)?;
    let write = || -> io::Result<()> {
        let mut taken = String::new();
        if marks::delete(root.as_fd(), b"deleted")? {
            taken.push_str("deleted\n");
        }
        rustix::fs::mkdirat(&root, "opaque", Mode::from_raw_mode(0o755))?;
        if marks::hide_below(open(&root, "opaque", OFlags::DIRECTORY)?.as_fd())? {
            taken.push_str("opaque\n");
        }
        make(&root, "owned", b"")?;
        if ownership.gives_away() {
            let uid = rustix::fs::Uid::from_raw(OTHER);
            let gid = rustix::fs::Gid::from_raw(OTHER);
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&root, "owned", Some(uid), Some(gid), flags)?;
        }
        make(&root, "marks", taken.as_bytes())
    };
    write().during("write the witness", shown)
}

/// Tells whether layers beside a witness look from here as they looked where they were made.
pub fn check_witness(dir: &Path, ownership: Ownership) -> Result<(), WitnessError> {
    let read = || -> io::Result<(OwnedFd, String)> {
        let root = rustix::fs::open(dir, READ_DIRECTORY, Mode::empty())?;
        let mut text = vec![0; 64];
        let length = rustix::io::read(open(&root, "marks", OFlags::empty())?, &mut text)?;
        text.truncate(length);
        let text = String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok((root, text))
    };
    let (root, taken) = read().map_err(WitnessError::Missing)?;
    let took = |what: &str| taken.lines().any(|line| line == what);
    let stat = |name: &str| stat_at(root.as_fd(), name.as_bytes()).map_err(WitnessError::Missing);
    if took("deleted") && !stat("deleted")?.is_some_and(|stat| stat.is_whiteout()) {
        return Err(WitnessError::Deletions);
    }
    let is_opaque = || xattr::is_opaque(open(&root, "opaque", OFlags::DIRECTORY)?);
    if took("opaque") && !is_opaque().unwrap_or(false) {
        return Err(WitnessError::Attributes);
    }
    let Some(owned) = stat("owned")? else {
        return Err(WitnessError::Missing(io::ErrorKind::NotFound.into()));
    };
    let uid = rustix::process::geteuid().as_raw();
    let (is_right, wanted) = match ownership.gives_away() {
        true => (
            (owned.uid, owned.gid) == (OTHER, OTHER),
            format!("{OTHER}:{OTHER}"),
        ),
        // Steps have to read what its maker may read alone.
        false => (owned.uid == uid, format!("user {uid}")),
    };
    match is_right {
        true => Ok(()),
        false => Err(WitnessError::Owners {
            uid: owned.uid,
            gid: owned.gid,
            wanted,
        }),
    }
}

fn open(root: &OwnedFd, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(root, name, flags, Mode::empty())?)
}

fn make(root: &OwnedFd, name: &str, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, name, flags, Mode::from_raw_mode(0o644))?;
    io::Write::write_all(&mut std::fs::File::from(file), content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A witness of layers whose owners are in a ledger, which anybody can make.
    fn witness() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("witness");
        fs::create_dir(&dir).unwrap();
        write_witness(&dir, Ownership::InLedger).unwrap();
        (home, dir)
    }

    #[test]
    fn what_the_disk_took_is_seen_again() {
        let (_home, dir) = witness();
        check_witness(&dir, Ownership::InLedger).unwrap();
    }

    #[test]
    fn what_a_copy_or_mount_loses_is_noticed() {
        let check = |spoil: &dyn Fn(&Path), expected: &str| {
            let (_home, dir) = witness();
            fs::write(dir.join("marks"), "deleted\nopaque\n").unwrap();
            spoil(&dir);
            let error = check_witness(&dir, Ownership::InLedger).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(
            &|dir| {
                fs::remove_file(dir.join("deleted")).ok();
            },
            "deletion marks",
        );
        check(
            &|dir| {
                fs::remove_file(dir.join("deleted")).ok();
                fs::write(dir.join("deleted"), "").unwrap();
            },
            "deletion marks",
        );
        check(
            &|dir| {
                fs::write(dir.join("marks"), "opaque\n").unwrap();
                fs::remove_dir(dir.join("opaque")).unwrap();
                fs::create_dir(dir.join("opaque")).unwrap();
            },
            "attributes",
        );
        let without_marks = |dir: &Path| fs::write(dir.join("marks"), "").unwrap();
        check(
            &|dir| {
                without_marks(dir);
                fs::remove_file(dir.join("owned")).unwrap();
            },
            "older version",
        );
        check(
            &|dir| fs::remove_file(dir.join("marks")).unwrap(),
            "older version",
        );
    }

    #[test]
    fn owners_that_were_lost_are_noticed() {
        let (_home, dir) = witness();
        // Made by who cannot give away: as a copy of one that was given away looks.
        let error = check_witness(&dir, Ownership::OnDisk).unwrap_err();
        assert!(error.to_string().contains("instead of 1:1"), "{error}");
    }
}
