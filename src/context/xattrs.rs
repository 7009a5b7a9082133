//! The extended attributes that a copy takes along.
//!
//! Kept: `user.*`, which belong to whoever made the file, and `security.capability`, which a program may need to work. Left
//! out: `security.selinux`, `security.ima` and their like (labels of this host), `system.posix_acl_*` (they name ids of this
//! host, and no peer writes them to layers), `trusted.*` (not readable by most), and `user.overlay.*`, which would be orders to
//! the kernel once it lies in an overlay's upper directory.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{fgetxattr, flistxattr};
use rustix::io::{Errno, Result};

use super::meta::Meta;

/// Full names and values, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads the attributes of an open file or directory that a copy keeps, those that it has in the image alone among them. A file
/// system without attributes has none.
pub fn read_xattrs(file: impl AsFd, meta: &Meta) -> Result<Xattrs> {
    let mut xattrs = read(file.as_fd(), is_kept)?;
    let known = meta.xattrs.iter().filter(|(name, _)| is_kept(name));
    for (name, value) in known {
        xattrs.retain(|(on_disk, _)| on_disk != name);
        xattrs.push((name.clone(), value.clone()));
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// Reads all attributes of an open file or directory that the kernel tells.
pub fn read_all_xattrs(file: impl AsFd) -> Result<Xattrs> {
    read(file.as_fd(), |name| !name.is_empty())
}

fn read(file: BorrowedFd<'_>, is_wanted: impl Fn(&[u8]) -> bool) -> Result<Xattrs> {
    let names = match grown(|buffer| flistxattr(file, buffer)) {
        Ok(names) if names.is_empty() => return Ok(Xattrs::new()),
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        Err(error) => return Err(error),
    };
    let mut xattrs = Xattrs::new();
    for name in names
        .split(|&byte| byte == 0)
        .filter(|name| is_wanted(name))
    {
        match grown(|buffer| fgetxattr(file, name, buffer)) {
            Ok(value) => xattrs.push((name.to_vec(), value)),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Calls with a small buffer, then with larger ones for as long as the kernel says that it does not fit.
fn grown(mut call: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(length) => return Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    // The kernel allows 64 KiB, for lists and for values.
    let mut large = vec![0; 64 * 1024];
    let length = call(&mut large)?;
    large.truncate(length);
    Ok(large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_portable_names_are_kept() {
        for (name, kept) in [
            ("user.note", true),
            ("user.overlay.redirect", false),
            ("user.overlay.opaque", false),
            ("security.capability", true),
            ("security.selinux", false),
            ("system.posix_acl_access", false),
            ("trusted.overlay.opaque", false),
            ("", false),
        ] {
            assert_eq!(is_kept(name.as_bytes()), kept, "{name}");
        }
    }
}
