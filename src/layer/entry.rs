//! One entry of a layer, with all the metadata that a tar can carry.

use std::collections::BTreeMap;

/// Path, kind and metadata. Paths are bytes, relative to the root, `/`-separated, without leading or trailing `/`; the root
/// itself is the empty path. Whiteouts are ordinary entries here (`.wh.NAME` files): making and meaning them is `rootfs`' work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// The twelve permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    /// Full names (`security.capability`, `user.x`) in sorted order.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of this many bytes; the content follows in the stream.
    File {
        size: u64,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    /// Another name of an entry earlier in the same layer; `target` is a path like [`Entry::path`].
    HardLink {
        target: Vec<u8>,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// A modification time; nanoseconds are below 10^9 and count forward also before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    pub seconds: i64,
    pub nanoseconds: u32,
}
