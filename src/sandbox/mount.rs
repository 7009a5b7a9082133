//! Mounts as values: made detached, restricted, then attached by descriptor.
//!
//! No call here takes a path that a hostile root could redirect: targets are descriptors. A mount that is never attached ends
//! with its value.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};

pub(super) use rustix::mount::MountAttrFlags as Attributes;

/// A mount, attached or not.
#[derive(Debug)]
pub(super) struct Mount(OwnedFd);

impl Mount {
    /// Takes a descriptor of a mount's root.
    pub(super) fn from_fd(fd: OwnedFd) -> Mount {
        Mount(fd)
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Makes a file system.
    pub(super) fn create(
        kind: &str,
        options: &[(&str, &str)],
        attributes: Attributes,
    ) -> Result<Mount, Errno> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        // What mount tables show as the device.
        fsconfig_set_string(&context, "source", kind)?;
        for (name, value) in options {
            fsconfig_set_string(&context, *name, *value)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map(Mount)
    }

    /// Makes a mount of a file or directory that is there already, without what is mounted below. An empty path is `at` itself.
    pub(super) fn copy(at: impl AsFd, path: &Path) -> Result<Mount, Errno> {
        Mount::open(at, path, OpenTreeFlags::empty())
    }

    /// Makes a mount of a directory with all that is mounted below.
    pub(super) fn copy_tree(at: impl AsFd, path: &Path) -> Result<Mount, Errno> {
        Mount::open(at, path, OpenTreeFlags::AT_RECURSIVE)
    }

    fn open(at: impl AsFd, path: &Path, more: OpenTreeFlags) -> Result<Mount, Errno> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | more;
        if path.as_os_str().is_empty() {
            flags |= OpenTreeFlags::AT_EMPTY_PATH;
        }
        open_tree(at, path, flags).map(Mount)
    }

    /// Adds attributes to this mount.
    pub(super) fn restrict(&self, attributes: Attributes) -> Result<(), Errno> {
        mount_setattr(self.as_fd(), attributes, Attributes::empty(), 0)
    }

    /// Adds attributes to this mount and all below.
    pub(super) fn restrict_tree(&self, attributes: Attributes) -> Result<(), Errno> {
        mount_setattr(
            self.as_fd(),
            attributes,
            Attributes::empty(),
            libc::AT_RECURSIVE,
        )
    }

    /// Takes attributes from this mount.
    pub(super) fn permit(&self, attributes: Attributes) -> Result<(), Errno> {
        mount_setattr(self.as_fd(), Attributes::empty(), attributes, 0)
    }

    /// Attaches it onto a file or directory.
    pub(super) fn attach(&self, target: impl AsFd) -> Result<(), Errno> {
        move_mount(
            self.as_fd(),
            "",
            target,
            "",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        )
    }

    /// Attaches it over a directory of the present root. The root directory itself can be covered too: paths go on to lead
    /// below what covers it.
    pub(super) fn attach_over(&self, path: &str) -> Result<(), Errno> {
        move_mount(
            self.as_fd(),
            "",
            rustix::fs::CWD,
            path,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
    }
}

impl AsFd for Mount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns the number of the mount that a descriptor belongs to.
pub(super) fn mount_id(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let found = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok(found.stx_mnt_id)
}

/// `struct mount_attr`, version 0.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn mount_setattr(
    mount: BorrowedFd<'_>,
    set: Attributes,
    clear: Attributes,
    flags: libc::c_int,
) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: u64::from(set.bits()),
        attr_clr: u64::from(clear.bits()),
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the kernel reads `size_of::<MountAttr>()` bytes at `attr`, which is a live local laid out as the kernel's own
    // structure, and the empty path is a C string with static lifetime.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            (libc::AT_EMPTY_PATH | flags) as libc::c_uint,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result < 0 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}
