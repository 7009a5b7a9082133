//! Paths of a root that is nobody's root directory: what a supervised process means by a path, found by the supervisor.
//!
//! In: a process, a directory of its (`AT_FDCWD` or a descriptor) and a path. Out: the thing itself as a descriptor, or the
//! directory and the name where it would be made. A root has *trees* in it as a real one has mounts; crossing into them and out
//! of them again is done here, by their canonical paths. `/proc` is a tree whose content is answered by [`procfs`](super::procfs).
//!
//! Nothing is ever resolved by the kernel from its own root directory, nor through a link of /proc. A descriptor that a lookup
//! starts from was given by the supervisor, or it leads below a tree; anything else is not there.
//!
//! ```text
//! table        the trees, and which one a canonical path lies in
//! directories  directories of processes: descriptor, tree and canonical path, remembered
//! lookup       the two ways: one `openat2` where no link is met, else component by component
//! native       what the kernel finds by itself, where the root is a root directory
//! ```

mod directories;
mod lookup;
mod native;
mod table;

pub(in crate::sandbox) use directories::{number, place_of};
pub(in crate::sandbox) use lookup::look;
pub(in crate::sandbox) use lookup::{Asker, Found, Last, Near, Node, Opened, Slot};
pub(in crate::sandbox) use native::Native;
pub(in crate::sandbox) use table::{Content, Guest, TreeId, own, strip_prefix};
