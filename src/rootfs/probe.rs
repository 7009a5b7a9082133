//! Whether overlayfs works on the file system of a directory: found out by doing what steps do.
//!
//! That a mount succeeds says too little: in a user namespace an overlay may mount and then refuse to rename directories, and
//! some file systems take no whiteouts.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::error::{During, RootfsError};
use super::overlay::mount_overlay;
use super::remove::remove_tree;

/// Stacks two small directories in `directory`, changes what is merged, and leaves nothing behind. Needs a process that may
/// mount.
pub fn overlay_works(directory: &Path) -> Result<(), RootfsError> {
    let place = Place::make(directory)?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.0.join(name));
    for path in [&lower, &upper, &work, &lower.join("kept")] {
        std::fs::create_dir(path).during("make directory", path.as_os_str().as_bytes())?;
    }
    for path in [lower.join("deleted"), lower.join("kept/file")] {
        std::fs::write(&path, "below").during("write", path.as_os_str().as_bytes())?;
    }
    let root = mount_overlay(&[lower], Some((&upper, &work)))?;
    change(&root).during("change an overlay in", directory.as_os_str().as_bytes())?;
    let deleted = upper.join("deleted");
    let mark = rustix::fs::lstat(&deleted).during("stat", deleted.as_os_str().as_bytes())?;
    if FileType::from_raw_mode(mark.st_mode) != FileType::CharacterDevice || mark.st_rdev != 0 {
        return Err(Errno::OPNOTSUPP)
            .during("leave a whiteout in", directory.as_os_str().as_bytes());
    }
    Ok(())
}

/// What package managers do to a root.
fn change(root: impl AsFd) -> io::Result<()> {
    let root = root.as_fd();
    let write = |name: &str| {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(root, name, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::io::write(&file, b"above").map(drop)
    };
    rustix::fs::mkdirat(root, "new", Mode::RWXU)?;
    write("new/file")?;
    rustix::fs::renameat(root, "new", root, "renamed")?;
    write("kept/file")?;
    rustix::fs::unlinkat(root, "deleted", AtFlags::empty())?;
    rustix::fs::statx(
        root,
        "renamed/file",
        AtFlags::empty(),
        StatxFlags::BASIC_STATS,
    )?;
    Ok(())
}

/// A directory for one probe, removed at its end.
struct Place(PathBuf);

impl Place {
    fn make(directory: &Path) -> Result<Place, RootfsError> {
        let mut number = 0_u32;
        loop {
            let path = directory.join(format!("overlay-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                // Left by a process of the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => {
                    number += 1;
                }
                made => {
                    made.during("make directory", path.as_os_str().as_bytes())?;
                    return Ok(Place(path));
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed now is in the directory of temporary things.
        remove_tree(&self.0).ok();
    }
}
