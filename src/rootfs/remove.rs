//! Deleting and measuring trees that something hostile has filled.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, StatxFlags};
use rustix::io::Errno;

use super::resolve::{PATH_DIRECTORY, READ_DIRECTORY};
use super::stat::FileKind;
use super::walk::{Visit, Walk};

/// Deletes whatever is at `path`, with everything below it; nothing there is fine. Links are deleted, never followed,
/// directories without permissions are opened up, depth does not matter, and another mount below is an error instead of
/// being emptied.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => (parent, name),
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    match rustix::fs::open(parent, PATH_DIRECTORY, Mode::empty()) {
        Ok(parent) => remove_at(parent.as_fd(), name.as_bytes()),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes `name` in `parent` as [`remove_tree`] does.
pub(super) fn remove_at(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    open_up(parent, name);
    let top = rustix::fs::openat(parent, name, READ_DIRECTORY, Mode::empty())?;
    let mount = mount_of(top.as_fd())?;
    let mut walk = Walk::new(top.as_fd())?;
    while let Some(visit) = walk.next()? {
        match visit {
            Visit::Entry(stat) if stat.is_directory() => {
                open_up(walk.directory(), walk.name());
                walk.enter()?;
                if mount_of(walk.directory())? != mount {
                    return Err(Errno::XDEV.into());
                }
            }
            Visit::Entry(_) => {
                rustix::fs::unlinkat(walk.directory(), walk.name(), AtFlags::empty())?
            }
            Visit::Leave => {
                rustix::fs::unlinkat(walk.directory(), walk.name(), AtFlags::REMOVEDIR)?
            }
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Returns the bytes of all regular files below `upper`, a file with several names counted once.
pub fn tree_size(upper: &Path) -> io::Result<u64> {
    let root = rustix::fs::open(upper, PATH_DIRECTORY, Mode::empty())?;
    let mut walk = Walk::new(root.as_fd())?;
    let mut linked = HashSet::new();
    let mut size = 0;
    while let Some(visit) = walk.next()? {
        match visit {
            Visit::Entry(stat) if stat.is_directory() => walk.enter()?,
            Visit::Entry(stat)
                if stat.kind == FileKind::File
                    && (stat.links < 2 || linked.insert((stat.device, stat.inode))) =>
            {
                // Holes are sizes that anybody can write.
                size = u64::saturating_add(size, stat.size);
            }
            _ => {}
        }
    }
    Ok(size)
}

/// Lets the owner of a directory list and change it. Needed without the capability to ignore modes; where it fails, opening
/// the directory says why.
fn open_up(parent: BorrowedFd<'_>, name: &[u8]) {
    if !rustix::process::geteuid().is_root() {
        rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty()).ok();
    }
}

/// Returns what tells mounts apart: the mount's number, or before Linux 5.8 the device's.
fn mount_of(directory: BorrowedFd<'_>) -> io::Result<u64> {
    let statx = rustix::fs::statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    if statx.stx_mask & StatxFlags::MNT_ID.bits() != 0 {
        return Ok(statx.stx_mnt_id);
    }
    Ok(u64::from(statx.stx_dev_major) << 32 | u64::from(statx.stx_dev_minor))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::tree::Tree;
    use super::*;

    #[test]
    fn links_are_deleted_and_their_targets_stay() {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir_all(host.path().join("kept/below")).unwrap();
        fs::write(host.path().join("kept/file"), "kept").unwrap();
        fs::create_dir_all(host.path().join("tree/a/b")).unwrap();
        symlink("../../kept", host.path().join("tree/a/link")).unwrap();
        symlink(host.path().join("kept"), host.path().join("tree/absolute")).unwrap();
        symlink("kept", host.path().join("link")).unwrap();
        remove_tree(&host.path().join("tree")).unwrap();
        remove_tree(&host.path().join("link")).unwrap();
        remove_tree(&host.path().join("missing")).unwrap();
        remove_tree(&host.path().join("missing/below")).unwrap();
        assert!(!host.path().join("tree").exists());
        assert_eq!(fs::read(host.path().join("kept/file")).unwrap(), b"kept");
        assert!(host.path().join("kept/below").exists());
    }

    #[test]
    fn directories_without_permissions_are_deleted() {
        let host = tempfile::tempdir().unwrap();
        let top = host.path().join("work");
        fs::create_dir_all(top.join("work/inner")).unwrap();
        fs::write(top.join("work/inner/file"), "").unwrap();
        for path in [top.join("work/inner"), top.join("work"), top.clone()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_or_descriptor_table_is_measured_and_deleted() {
        let host = tempfile::tempdir().unwrap();
        let me = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let mut at = Tree::open(host.path()).unwrap();
        for _ in 0..60 {
            let path = vec!["d"; 50].join("/");
            at.make_dirs(path.as_bytes(), me, 0o700, None).unwrap();
            at = Tree::from_fd(at.open_path(path.as_bytes(), true).unwrap());
        }
        assert_eq!(tree_size(host.path()).unwrap(), 0);
        remove_tree(&host.path().join("d")).unwrap();
        assert_eq!(fs::read_dir(host.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_with_two_names_is_counted_once() {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir(host.path().join("d")).unwrap();
        fs::write(host.path().join("d/a"), "12345").unwrap();
        fs::hard_link(host.path().join("d/a"), host.path().join("b")).unwrap();
        fs::write(host.path().join("c"), "123").unwrap();
        symlink("c", host.path().join("l")).unwrap();
        assert_eq!(tree_size(host.path()).unwrap(), 8);
    }
}
