//! Layer directories stacked by overlayfs into one detached mount.
//!
//! The mount is in no mount table: its descriptor is its root, a process in another mount namespace can attach it with
//! `move_mount`, and closing the last descriptor ends it, also when the process is killed.
//!
//! Options are always the same: `userxattr`, so that user namespaces and real root share one form on disk; no redirects, no
//! metadata-only copies, no index, so that an upper directory is a complete layer by itself; `volatile` for the upper, so that
//! a package manager's syncs cost nothing. An upper that must survive a power failure has to be synced by its keeper.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags,
};

use crate::layer::Mtime;
use crate::vocab::Ownership;

use super::error::{During, RootfsError};
use super::owners::Owners;
use super::remove::remove_tree;
use super::resolve::{PATH_DIRECTORY, READ_DIRECTORY};
use super::tree::{make_directory, proc_path, stat_of, times};
use super::walk;
use super::xattr;

/// The kernel's limit of stacked directories.
pub const MAX_LOWERS: usize = 500;

/// The longest text, with its NUL, that `fsconfig` takes.
const FSCONFIG_MAX: usize = 256;

/// Mounts `lowers`, lowest first, under `writable`'s upper directory, or read-only. The work directory must be empty, on the
/// upper's file system, and used by nothing else. A fresh upper directory gets the owner, mode and
/// attributes of the root below it.
///
/// The returned descriptor is the root directory and the mount's life.
pub fn mount_overlay(
    lowers: &[PathBuf],
    writable: Option<(&Path, &Path)>,
) -> Result<OwnedFd, RootfsError> {
    if lowers.len() > MAX_LOWERS {
        return Err(RootfsError::TooManyLayers {
            count: lowers.len(),
        });
    }
    let stack = Stack {
        lowers: visible(lowers)?,
        writable,
    };
    if let Some((upper, work)) = writable {
        if let Some(below) = stack.lowers.first() {
            adopt_root(upper, below)?;
        }
        forget_volatile(work)?;
    }
    if stack.missing() > 0 {
        return in_own_namespace(|scratch| {
            mount_one_by_one(&stack, Some(scratch))
                .or_else(|error| retry(error, || mount_as_one_text(&stack, scratch)))
        });
    }
    mount_one_by_one(&stack, None).or_else(|error| {
        retry(error, || {
            in_own_namespace(|scratch| mount_as_one_text(&stack, scratch))
        })
    })
}

/// Mounts as kernels before Linux 6.7 need it.
#[cfg(test)]
pub(super) fn mount_in_old_way(
    lowers: &[PathBuf],
    writable: Option<(&Path, &Path)>,
) -> Result<OwnedFd, RootfsError> {
    let stack = Stack {
        lowers: visible(lowers)?,
        writable,
    };
    in_own_namespace(|scratch| mount_as_one_text(&stack, scratch))
}

/// Makes the bottom layer of every root in which a process runs: the mount points that it needs, so that none of them has to
/// be made in, and then kept out of, the upper directory. All of it is user 0's, which no ledger needs to say.
pub fn write_stub_layer(dir: &Path, ownership: Ownership) -> Result<(), RootfsError> {
    const EPOCH: Mtime = Mtime {
        seconds: 0,
        nanoseconds: 0,
    };
    let shown = dir.as_os_str().as_bytes();
    std::fs::create_dir_all(dir).during("make directory", shown)?;
    let root = rustix::fs::open(dir, READ_DIRECTORY, Mode::empty()).during("open", shown)?;
    let owners = Owners::new(ownership);
    let write = || -> io::Result<()> {
        for name in ["dev", "etc", "proc", "sys"] {
            make_directory(root.as_fd(), name.as_bytes(), (0, 0), 0o755, &owners)?;
        }
        for name in ["etc/hosts", "etc/resolv.conf"] {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&root, name, flags, Mode::RUSR)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
            rustix::fs::futimens(&file, &times(EPOCH))?;
        }
        for name in ["dev", "etc", "proc", "sys", "."] {
            rustix::fs::utimensat(&root, name, &times(EPOCH), AtFlags::empty())?;
        }
        Ok(rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?)
    };
    write().during("write the stub layer", shown)
}

/// What is mounted; `lowers` topmost first.
struct Stack<'a> {
    lowers: Vec<&'a Path>,
    writable: Option<(&'a Path, &'a Path)>,
}

impl Stack<'_> {
    /// Returns how many empty directories have to fill the stack up: overlayfs wants one directory below an upper, two without.
    fn missing(&self) -> usize {
        let wanted: usize = if self.writable.is_some() { 1 } else { 2 };
        wanted.saturating_sub(self.lowers.len())
    }
}

/// Returns the directories that show, topmost first: overlayfs does not look whether a root is opaque, and refuses a directory
/// that stands twice. Of such a layer (two empty ones, a linked copy that was made again) only the upper place shows: it hides
/// and holds the same.
pub(super) fn visible(lowers: &[PathBuf]) -> Result<Vec<&Path>, RootfsError> {
    let mut visible = Vec::with_capacity(lowers.len());
    let mut seen = HashSet::with_capacity(lowers.len());
    for path in lowers.iter().rev() {
        if !seen.insert(path) {
            continue;
        }
        visible.push(path.as_path());
        let shown = path.as_os_str().as_bytes();
        let directory =
            rustix::fs::open(path, READ_DIRECTORY, Mode::empty()).during("open", shown)?;
        if xattr::is_opaque(&directory).during("read the attributes of", shown)? {
            break;
        }
    }
    Ok(visible)
}

/// A merged root shows the metadata of its topmost directory, so a fresh one takes over that of the next.
fn adopt_root(upper: &Path, below: &Path) -> Result<(), RootfsError> {
    let shown = upper.as_os_str().as_bytes();
    let directory = rustix::fs::open(upper, READ_DIRECTORY, Mode::empty()).during("open", shown)?;
    if !walk::names(directory.as_fd())
        .during("list", shown)?
        .is_empty()
    {
        return Ok(());
    }
    let below_shown = below.as_os_str().as_bytes();
    let below =
        rustix::fs::open(below, READ_DIRECTORY, Mode::empty()).during("open", below_shown)?;
    let stat = stat_of(&below).during("stat", below_shown)?;
    let uid = rustix::fs::Uid::from_raw(stat.uid);
    let gid = rustix::fs::Gid::from_raw(stat.gid);
    // Where a ledger has the owners, both directories are the process' own.
    rustix::fs::fchown(&directory, Some(uid), Some(gid)).during("chown", shown)?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(stat.mode)).during("chmod", shown)?;
    xattr::copy_content(below, directory).during("set the attributes of", shown)
}

/// Clears the mark by which the kernel refuses a work directory that a `volatile` mount has used. It guards against a crash
/// between two mounts, after which no upper directory is used again.
fn forget_volatile(work: &Path) -> Result<(), RootfsError> {
    let mark = work.join("work/incompat");
    remove_tree(&mark).during("delete", mark.as_os_str().as_bytes())
}

/// Tries `other` after what may be an unknown option: before Linux 6.7 there is none for one more layer. Where both fail, a
/// kernel that explains itself is a recent one, and the first error is the true one.
fn retry(
    error: RootfsError,
    other: impl FnOnce() -> Result<OwnedFd, RootfsError>,
) -> Result<OwnedFd, RootfsError> {
    let RootfsError::Mount { source, log, .. } = &error else {
        return Err(error);
    };
    if source.kind() != io::ErrorKind::InvalidInput {
        return Err(error);
    }
    let explained = !log.is_empty();
    other().map_err(|second| if explained { error } else { second })
}

/// Mounts with one call per layer, which sets no limit to their names.
fn mount_one_by_one(stack: &Stack<'_>, scratch: Option<&Scratch>) -> Result<OwnedFd, RootfsError> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|error| mount_error("open the file system", None, error))?;
    let set = |key: &'static str, value: &str| {
        rustix::mount::fsconfig_set_string(&context, key, value)
            .map_err(|error| mount_error(key, Some(&context), error))
    };
    let flag = |key: &'static str| {
        rustix::mount::fsconfig_set_flag(&context, key)
            .map_err(|error| mount_error(key, Some(&context), error))
    };
    // Kept open until the mount is made: some names are by descriptor.
    let mut names = Names::default();
    set("source", "builder")?;
    for lower in &stack.lowers {
        set("lowerdir+", &names.of(lower)?)?;
    }
    if let Some(scratch) = scratch {
        for empty in scratch.empty_directories(stack.missing())? {
            set("lowerdir+", &proc_path(&empty))?;
            names.held.push(empty);
        }
    }
    if let Some((upper, work)) = stack.writable {
        set("upperdir", &names.of(upper)?)?;
        set("workdir", &names.of(work)?)?;
        flag("volatile")?;
    }
    flag("userxattr")?;
    for (key, value) in OPTIONS {
        set(key, value)?;
    }
    rustix::mount::fsconfig_create(&context)
        .map_err(|error| mount_error("create the file system", Some(&context), error))?;
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, stack.writable.is_none());
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|error| mount_error("create the mount", Some(&context), error))
}

/// With `userxattr` the kernel refuses `redirect_dir=off` where `off` is configured to mean `follow`.
const OPTIONS: [(&str, &str); 3] = [
    ("redirect_dir", "nofollow"),
    ("metacopy", "off"),
    ("index", "off"),
];

/// Mounts with all layers in one text of at most a page, which needs the old call and a place to mount on. Layers are named by
/// descriptor number, so their own names may be of any length.
fn mount_as_one_text(stack: &Stack<'_>, scratch: &Scratch) -> Result<OwnedFd, RootfsError> {
    let mut held = Vec::new();
    for path in &stack.lowers {
        held.push(open(path)?);
    }
    held.extend(scratch.empty_directories(stack.missing())?);
    let lowers: Vec<String> = held
        .iter()
        .map(|directory| directory.as_raw_fd().to_string())
        .collect();
    let mut text = format!("lowerdir={},userxattr", lowers.join(":"));
    for (key, value) in OPTIONS {
        text.push_str(&format!(",{key}={value}"));
    }
    let mut flags = MountFlags::RDONLY;
    if let Some((upper, work)) = stack.writable {
        let (upper, work) = (open(upper)?, open(work)?);
        let numbers = (upper.as_raw_fd(), work.as_raw_fd());
        text.push_str(&format!(
            ",upperdir={},workdir={},volatile",
            numbers.0, numbers.1
        ));
        held.extend([upper, work]);
        flags = MountFlags::empty();
    }
    let text = CString::new(text).expect("numbers and option names have no NUL");
    let target = scratch.mount_point()?;
    rustix::process::chdir("/proc/self/fd")
        .map_err(|error| mount_error("name layers by descriptor in /proc", None, error))?;
    rustix::mount::mount("builder", &target, "overlay", flags, text.as_c_str())
        .map_err(|error| mount_error("mount", None, error))?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(rustix::fs::CWD, &target, clone)
        .map_err(|error| mount_error("detach the mount", None, error))
}

/// Runs `mount` in a thread with a mount namespace and working directory of its own, and a scratch file system in it. All of it
/// ends with the thread: nothing is seen outside, nothing is left when the process is killed.
pub(super) fn in_own_namespace(
    mount: impl FnOnce(&Scratch) -> Result<OwnedFd, RootfsError> + Send,
) -> Result<OwnedFd, RootfsError> {
    let enter = || -> Result<OwnedFd, RootfsError> {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
            .map_err(|errno| mount_error("make a mount namespace", None, errno_of(errno)))?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave)
            .map_err(|error| mount_error("separate the mount namespace", None, error))?;
        mount(&Scratch::mount()?)
    };
    std::thread::scope(|scope| match scope.spawn(enter).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// A file system in memory, seen by one thread: a home for empty directories (a deleted one cannot be listed, so it would not
/// do) and a place to mount on.
pub(super) struct Scratch(OwnedFd);

impl Scratch {
    fn mount() -> Result<Scratch, RootfsError> {
        let step = "mount a scratch file system";
        let mount = || -> rustix::io::Result<OwnedFd> {
            let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_create(&context)?;
            let flags = FsMountFlags::FSMOUNT_CLOEXEC;
            let root = rustix::mount::fsmount(&context, flags, MountAttrFlags::empty())?;
            // overlayfs takes layers of this namespace only. On top of "/" the mount hides nothing: the thread's own root
            // stays what it was.
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(&root, "", rustix::fs::CWD, "/", flags)?;
            Ok(root)
        };
        mount()
            .map(Scratch)
            .map_err(|error| mount_error(step, None, error))
    }

    fn empty_directories(&self, count: usize) -> Result<Vec<OwnedFd>, RootfsError> {
        let make = |number: usize| {
            let name = format!("empty-{number}");
            match rustix::fs::mkdirat(&self.0, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            rustix::fs::openat(&self.0, &name, PATH_DIRECTORY, Mode::empty())
        };
        let made: rustix::io::Result<Vec<OwnedFd>> = (0..count).map(make).collect();
        made.map_err(|error| mount_error("make an empty directory", None, error))
    }

    pub(super) fn mount_point(&self) -> Result<String, RootfsError> {
        rustix::fs::mkdirat(&self.0, "root", Mode::RWXU)
            .map_err(|error| mount_error("make a mount point", None, error))?;
        Ok(format!("{}/root", proc_path(&self.0)))
    }
}

fn errno_of(errno: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

fn open(path: &Path) -> Result<OwnedFd, RootfsError> {
    rustix::fs::open(path, PATH_DIRECTORY, Mode::empty())
        .during("open", path.as_os_str().as_bytes())
}

/// Names for `fsconfig`: the path itself, or its descriptor's where the path is long or has characters that options give a
/// meaning.
#[derive(Default)]
struct Names {
    held: Vec<OwnedFd>,
}

impl Names {
    fn of(&mut self, path: &Path) -> Result<String, RootfsError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@=~ ".contains(&byte);
        if let Some(text) = path.to_str()
            && text.len() < FSCONFIG_MAX
            && text.bytes().all(plain)
        {
            return Ok(text.to_owned());
        }
        let directory = open(path)?;
        let name = proc_path(&directory);
        self.held.push(directory);
        Ok(name)
    }
}

/// Joins the error number and what the kernel wrote into the context's log.
pub(super) fn mount_error(
    step: &'static str,
    context: Option<&OwnedFd>,
    error: Errno,
) -> RootfsError {
    let mut log = String::new();
    if let Some(context) = context {
        let mut message = [0; 1024];
        while let Ok(length) = rustix::io::read(context, &mut message) {
            if length == 0 {
                break;
            }
            log.push_str(": ");
            log.push_str(String::from_utf8_lossy(&message[..length]).trim_end());
        }
    }
    RootfsError::Mount {
        step,
        log,
        source: error.into(),
    }
}
