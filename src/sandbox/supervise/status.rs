//! What the kernel says about a file, and the structures in which programs want to be told.
//!
//! One `statx` gives everything; a program's own structure is filled in from it by a table of where its architecture has what.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use crate::vocab::{DeviceNumber, FileId};

use super::super::walk::errno;
use super::traps::Abi;

/// `struct statx`, as the kernel filled it in.
#[derive(Clone, Copy, Debug)]
pub(in crate::sandbox) struct Status([u8; 256]);

/// Where `struct statx` has what.
const MODE: usize = 28;
const UID: usize = 20;
const GID: usize = 24;
const RDEV: usize = 128;

/// All that every file system tells, and the time of birth.
const BASIC: u32 = 0x7ff | 0x800;

impl Status {
    /// Asks about what a descriptor leads to, whatever it is.
    pub(in crate::sandbox) fn of(fd: impl AsFd) -> Result<Status, Errno> {
        Status::asked(fd, 0, 0)
    }

    /// Asks for more, with `AT_STATX_*` flags.
    pub(super) fn asked(fd: impl AsFd, flags: u32, mask: u32) -> Result<Status, Errno> {
        let mut status = Status([0; 256]);
        // SAFETY: the kernel writes one `struct statx`, which has 256 bytes for ever, to a live local of that size; it does
        // not need it aligned. The path is a C string with static lifetime.
        let result = unsafe {
            libc::syscall(
                libc::SYS_statx,
                fd.as_fd().as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | flags.cast_signed(),
                mask | BASIC,
                status.0.as_mut_ptr(),
            )
        };
        match result {
            0 => Ok(status),
            _ => Err(errno(std::io::Error::last_os_error())),
        }
    }

    pub(in crate::sandbox) fn id(&self) -> FileId {
        FileId {
            device: self.device(),
            inode: self.u64(32),
            birth: (self.u64(80).cast_signed(), self.u32(88)),
        }
    }

    pub(in crate::sandbox) fn device(&self) -> (u32, u32) {
        (self.u32(136), self.u32(140))
    }

    pub(in crate::sandbox) fn uid(&self) -> u32 {
        self.u32(UID)
    }

    pub(in crate::sandbox) fn gid(&self) -> u32 {
        self.u32(GID)
    }

    /// How many names it has.
    pub(in crate::sandbox) fn links(&self) -> u32 {
        self.u32(16)
    }

    /// Kind and permission bits.
    pub(in crate::sandbox) fn mode(&self) -> u32 {
        u32::from(u16::from_ne_bytes([self.0[MODE], self.0[MODE + 1]]))
    }

    pub(in crate::sandbox) fn is_directory(&self) -> bool {
        self.mode() & libc::S_IFMT == libc::S_IFDIR
    }

    pub(in crate::sandbox) fn is_regular(&self) -> bool {
        self.mode() & libc::S_IFMT == libc::S_IFREG
    }

    pub(in crate::sandbox) fn is_link(&self) -> bool {
        self.mode() & libc::S_IFMT == libc::S_IFLNK
    }

    /// Says something else about whose it is and what it is.
    pub(in crate::sandbox) fn show(
        &mut self,
        uid: u32,
        gid: u32,
        permissions: u32,
        device: Option<DeviceNumber>,
    ) {
        let kind = match device {
            Some(device) if device.is_block => libc::S_IFBLK,
            Some(_) => libc::S_IFCHR,
            None => self.mode() & libc::S_IFMT,
        };
        let mode = (kind | permissions & 0o7777) as u16;
        self.0[MODE..MODE + 2].copy_from_slice(&mode.to_ne_bytes());
        self.0[UID..UID + 4].copy_from_slice(&uid.to_ne_bytes());
        self.0[GID..GID + 4].copy_from_slice(&gid.to_ne_bytes());
        if let Some(device) = device {
            self.0[RDEV..RDEV + 4].copy_from_slice(&device.major.to_ne_bytes());
            self.0[RDEV + 4..RDEV + 8].copy_from_slice(&device.minor.to_ne_bytes());
        }
    }

    /// Returns it as `struct statx`.
    pub(in crate::sandbox) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns it as the structure of `stat`, or of `stat64` where that is the one that is used.
    pub(in crate::sandbox) fn to_stat(self, abi: Abi) -> Vec<u8> {
        let layout = layout(abi);
        let mut bytes = vec![0; layout.size];
        for (field, offset, width) in layout.fields {
            let value = self.field(*field).to_le_bytes();
            bytes[*offset..offset + width].copy_from_slice(&value[..*width]);
        }
        bytes
    }

    fn field(&self, field: Field) -> u64 {
        let device = |at: usize| {
            let (major, minor) = (u64::from(self.u32(at)), u64::from(self.u32(at + 4)));
            minor & 0xff | major << 8 | (minor & !0xff) << 12
        };
        match field {
            Field::Device => device(136),
            Field::Inode => self.u64(32),
            Field::Mode => u64::from(self.mode()),
            Field::Links => u64::from(self.u32(16)),
            Field::Uid => u64::from(self.uid()),
            Field::Gid => u64::from(self.gid()),
            Field::Number => device(RDEV),
            Field::Size => self.u64(40),
            Field::BlockSize => u64::from(self.u32(4)),
            Field::Blocks => self.u64(48),
            Field::Access => self.u64(64),
            Field::AccessPart => u64::from(self.u32(72)),
            Field::Change => self.u64(96),
            Field::ChangePart => u64::from(self.u32(104)),
            Field::Modification => self.u64(112),
            Field::ModificationPart => u64::from(self.u32(120)),
        }
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }
}

#[derive(Clone, Copy)]
enum Field {
    Device,
    Inode,
    Mode,
    Links,
    Uid,
    Gid,
    /// Of the device that it is.
    Number,
    Size,
    BlockSize,
    Blocks,
    Access,
    AccessPart,
    Modification,
    ModificationPart,
    Change,
    ChangePart,
}

struct Layout {
    size: usize,
    /// Where in the structure, in how many bytes; little-endian, as all of these machines are.
    fields: &'static [(Field, usize, usize)],
}

fn layout(abi: Abi) -> Layout {
    match abi {
        Abi::X86_64 => Layout {
            size: 144,
            fields: &[
                (Field::Device, 0, 8),
                (Field::Inode, 8, 8),
                (Field::Links, 16, 8),
                (Field::Mode, 24, 4),
                (Field::Uid, 28, 4),
                (Field::Gid, 32, 4),
                (Field::Number, 40, 8),
                (Field::Size, 48, 8),
                (Field::BlockSize, 56, 8),
                (Field::Blocks, 64, 8),
                (Field::Access, 72, 8),
                (Field::AccessPart, 80, 8),
                (Field::Modification, 88, 8),
                (Field::ModificationPart, 96, 8),
                (Field::Change, 104, 8),
                (Field::ChangePart, 112, 8),
            ],
        },
        Abi::Arm64 => Layout {
            size: 128,
            fields: &[
                (Field::Device, 0, 8),
                (Field::Inode, 8, 8),
                (Field::Mode, 16, 4),
                (Field::Links, 20, 4),
                (Field::Uid, 24, 4),
                (Field::Gid, 28, 4),
                (Field::Number, 32, 8),
                (Field::Size, 48, 8),
                (Field::BlockSize, 56, 4),
                (Field::Blocks, 64, 8),
                (Field::Access, 72, 8),
                (Field::AccessPart, 80, 8),
                (Field::Modification, 88, 8),
                (Field::ModificationPart, 96, 8),
                (Field::Change, 104, 8),
                (Field::ChangePart, 112, 8),
            ],
        },
        Abi::I386 => Layout {
            size: 96,
            fields: &[
                (Field::Device, 0, 8),
                (Field::Inode, 12, 4),
                (Field::Mode, 16, 4),
                (Field::Links, 20, 4),
                (Field::Uid, 24, 4),
                (Field::Gid, 28, 4),
                (Field::Number, 32, 8),
                (Field::Size, 44, 8),
                (Field::BlockSize, 52, 4),
                (Field::Blocks, 56, 8),
                (Field::Access, 64, 4),
                (Field::AccessPart, 68, 4),
                (Field::Modification, 72, 4),
                (Field::ModificationPart, 76, 4),
                (Field::Change, 80, 4),
                (Field::ChangePart, 84, 4),
                (Field::Inode, 88, 8),
            ],
        },
        Abi::Arm => Layout {
            size: 104,
            fields: &[
                (Field::Device, 0, 8),
                (Field::Inode, 12, 4),
                (Field::Mode, 16, 4),
                (Field::Links, 20, 4),
                (Field::Uid, 24, 4),
                (Field::Gid, 28, 4),
                (Field::Number, 32, 8),
                (Field::Size, 48, 8),
                (Field::BlockSize, 56, 4),
                (Field::Blocks, 64, 8),
                (Field::Access, 72, 4),
                (Field::AccessPart, 76, 4),
                (Field::Modification, 80, 4),
                (Field::ModificationPart, 84, 4),
                (Field::Change, 88, 4),
                (Field::ChangePart, 92, 4),
                (Field::Inode, 96, 8),
            ],
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_status_says_what_the_kernel_says() {
        for path in ["/dev/null", "/", "/proc/self/exe", "/etc/passwd"] {
            let file = File::open(path).unwrap();
            let status = Status::of(&file).unwrap();
            let metadata = file.metadata().unwrap();
            assert_eq!(status.mode(), metadata.mode(), "{path}");
            assert_eq!(status.field(Field::Device), metadata.dev(), "{path}");
            assert_eq!(status.field(Field::Number), metadata.rdev(), "{path}");
            assert_eq!(status.id().inode, metadata.ino(), "{path}");
        }
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn the_native_structure_is_the_kernels_own() {
        let abi = match cfg!(target_arch = "aarch64") {
            true => Abi::Arm64,
            false => Abi::X86_64,
        };
        for path in ["/dev/null", "/", "/proc/self/exe", "/etc/passwd"] {
            let file = File::open(path).unwrap();
            let mut native = vec![0_u8; size_of::<libc::stat>()];
            // SAFETY: the C library writes one structure of exactly this size.
            let result = unsafe { libc::fstat(file.as_raw_fd(), native.as_mut_ptr().cast()) };
            assert_eq!(result, 0);
            assert_eq!(Status::of(&file).unwrap().to_stat(abi), native, "{path}");
        }
    }

    #[test]
    fn what_is_shown_is_told() {
        let mut status = Status::of(File::open("/etc/passwd").unwrap()).unwrap();
        let device = DeviceNumber {
            is_block: false,
            major: 1,
            minor: 3,
        };
        status.show(7, 8, 0o4666, Some(device));
        assert_eq!((status.uid(), status.gid()), (7, 8));
        assert_eq!(status.mode(), libc::S_IFCHR | 0o4666);
        assert_eq!(status.field(Field::Number), 0x103);
        let short = status.to_stat(Abi::I386);
        assert_eq!(
            (short[24], short[28], short[32..34].to_vec()),
            (7, 8, vec![3, 1])
        );
    }
}
