//! The calls with paths, performed on behalf of a command that the kernel would show another tree.
//!
//! A held call is decoded into an operation with its paths; [`guest`](super::guest) finds what they mean; the operation is done
//! here, on descriptors, with the caller's permissions; what the disk cannot say goes to the ledger. A file that is opened is
//! passed as a descriptor, so that all reading and writing is the kernel's own business again.
//!
//! ```text
//! open        files, directories, devices, FIFOs
//! show        stat, access, readlink, getcwd, statfs
//! names       mkdir, unlink, rename, link, symlink, mknod
//! attributes  chmod, chown, utimensat, truncate
//! xattrs      extended attributes
//! sync        what waits for the disk
//! sockets     sockets with names in the tree
//! processes   what concerns other processes
//! written     files of /proc that are written anew
//! follow      the tracer's half: what threads do between two stops
//! execution   execve and chdir
//! replacement other arguments for them
//! detour      the same by a descriptor
//! native      what the kernel does itself
//! ```

mod attributes;
mod detour;
mod devices;
mod execution;
mod follow;
mod helpers;
mod names;
mod native;
mod open;
mod processes;
mod replacement;
mod rooms;
mod show;
mod sockets;
mod sync;
mod written;
mod xattrs;

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;

use crate::vocab::Attributes;

use super::calls::{Operation, Operations};
use super::family::Family;
use super::guest::{Asker, Guest, Last, Node, Opened, TreeId, look};
use super::listener::Answer;
use super::memory::{Memories, Memory};
use super::permission::{Truth, file_id};
use super::supervision::{Caller, Supervision};

pub(in crate::sandbox) use devices::HARMLESS;
pub(in crate::sandbox) use follow::Followed;
pub(in crate::sandbox) use written::fill_listing;

/// What serving a command's paths takes.
#[derive(Debug)]
pub(in crate::sandbox) struct Service {
    pub(in crate::sandbox) guest: Guest,
    pub(in crate::sandbox) family: Family,
    /// The command's root file system is written to by this user and group alone.
    uid: u32,
    gid: u32,
    operations: Operations,
    devices: devices::Devices,
    sockets: sockets::Sockets,
    helpers: helpers::Helpers,
    rooms: rooms::Rooms,
    following: follow::Following,
    programs: execution::Programs,
    memories: Memories,
    /// Where copies of programs lie.
    scratch: OwnedFd,
}

impl Service {
    /// Begins with a root in which everything is mounted. `scratch` is a directory of the command's own.
    pub(in crate::sandbox) fn new(guest: Guest, scratch: OwnedFd) -> Service {
        Service {
            guest,
            family: Family::default(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            operations: Operations::new(),
            devices: devices::Devices::default(),
            sockets: sockets::Sockets::default(),
            helpers: helpers::Helpers::default(),
            rooms: rooms::Rooms::default(),
            following: follow::Following::default(),
            programs: execution::Programs::default(),
            memories: Memories::default(),
            scratch,
        }
    }
}

/// A path among the arguments: where it starts and its address.
#[derive(Clone, Copy, Debug)]
struct Path {
    at: i32,
    address: u64,
}

impl Supervision {
    /// Returns the operation that a held call of a served command is.
    pub(super) fn operation(&self, arch: u32, number: u32) -> Option<Operation> {
        self.service.as_ref()?.operations.decode(arch, number)
    }

    /// Answers a held call of a served command.
    pub(super) fn perform(
        &mut self,
        operation: Operation,
        caller: &Caller,
    ) -> Result<Answer, Errno> {
        use Operation as O;
        if let Some(answer) = self.shortcut(operation, caller) {
            return Ok(answer);
        }
        let here = |address: usize| Path {
            at: libc::AT_FDCWD,
            address: caller.arguments[address],
        };
        let at = |descriptor: usize| Path {
            at: caller.number(descriptor).cast_signed(),
            address: caller.arguments[descriptor + 1],
        };
        let number = |at: usize| caller.number(at);
        let address = |at: usize| caller.arguments[at];
        let nofollow = libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
        match operation {
            O::Identity => Err(Errno::NOSYS),
            O::Open => self.open(caller, here(0), number(1), number(2)),
            O::Openat => self.open(caller, at(0), number(2), number(3)),
            O::Creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                self.open(caller, here(0), flags.cast_unsigned(), number(1))
            }
            O::Stat => self.stat(caller, here(0), 0, address(1)),
            O::Lstat => self.stat(caller, here(0), nofollow, address(1)),
            O::Fstat => self.stat_descriptor(caller, number(0).cast_signed(), address(1)),
            O::Fsync => self.sync(caller, number(0).cast_signed()),
            O::Newfstatat => self.stat(caller, at(0), number(3), address(2)),
            O::Statx => self.statx(caller, at(0), number(2), number(3), address(4)),
            O::Access => self.access(caller, here(0), number(1), 0),
            O::Faccessat => self.access(caller, at(0), number(2), 0),
            O::Faccessat2 => self.access(caller, at(0), number(2), number(3)),
            O::Readlink => self.readlink(caller, here(0), address(1), number(2)),
            O::Readlinkat => self.readlink(caller, at(0), address(2), number(3)),
            O::Getcwd => self.getcwd(caller, address(0), address(1)),
            O::Statfs => self.statfs(caller, here(0), address(1)),
            O::Mkdir => self.mkdir(caller, here(0), number(1)),
            O::Mkdirat => self.mkdir(caller, at(0), number(2)),
            O::Rmdir => self.unlink(caller, here(0), libc::AT_REMOVEDIR.cast_unsigned()),
            O::Unlink => self.unlink(caller, here(0), 0),
            O::Unlinkat => self.unlink(caller, at(0), number(2)),
            O::Rename => self.rename(caller, here(0), here(1), 0),
            O::Renameat => self.rename(caller, at(0), at(2), 0),
            O::Renameat2 => self.rename(caller, at(0), at(2), number(4)),
            O::Link => self.link(caller, here(0), here(1), 0),
            O::Linkat => self.link(caller, at(0), at(2), number(4)),
            O::Symlink => self.symlink(caller, address(0), here(1)),
            O::Symlinkat => self.symlink(caller, address(0), at(1)),
            O::Mknod => self.mknod(caller, here(0), number(1), number(2)),
            O::Mknodat => self.mknod(caller, at(0), number(2), number(3)),
            O::Chmod => self.chmod(caller, here(0), number(1), 0),
            O::Fchmodat => self.chmod(caller, at(0), number(2), 0),
            O::Fchmodat2 => self.chmod(caller, at(0), number(2), number(3)),
            O::Fchmod => self.chmod_descriptor(caller, number(0).cast_signed(), number(1)),
            O::Chown => self.chown(caller, here(0), [number(1), number(2)], 0),
            O::Lchown => self.chown(caller, here(0), [number(1), number(2)], nofollow),
            O::Fchownat => self.chown(caller, at(0), [number(2), number(3)], number(4)),
            O::Fchown => {
                let ids = [number(1), number(2)];
                self.chown_descriptor(caller, number(0).cast_signed(), ids)
            }
            O::Utime => self.utime(caller, here(0), address(1)),
            O::Utimes => self.utimes(caller, here(0), address(1)),
            O::Futimesat => self.utimes(caller, at(0), address(2)),
            O::Utimensat => self.utimensat(caller, at(0), address(2), number(3)),
            O::Truncate => self.truncate(caller, here(0), address(1)),
            O::Setxattr => self.set_xattr(caller, here(0), Last::Follow),
            O::Lsetxattr => self.set_xattr(caller, here(0), Last::Keep),
            O::Fsetxattr => self.set_xattr_of_descriptor(caller),
            O::Getxattr => self.get_xattr(caller, here(0), Last::Follow),
            O::Lgetxattr => self.get_xattr(caller, here(0), Last::Keep),
            O::Fgetxattr => self.get_xattr_of_descriptor(caller),
            O::Listxattr => self.list_xattrs(caller, here(0), Last::Follow),
            O::Llistxattr => self.list_xattrs(caller, here(0), Last::Keep),
            O::Flistxattr => self.list_xattrs_of_descriptor(caller),
            O::Removexattr => self.remove_xattr(caller, here(0), Last::Follow),
            O::Lremovexattr => self.remove_xattr(caller, here(0), Last::Keep),
            O::Fremovexattr => self.remove_xattr_of_descriptor(caller),
            O::Socket => self.socket(caller),
            O::Bind => self.bind(caller),
            O::Connect => self.connect(caller),
            O::Getsockname => self.getsockname(caller),
            O::Sendto => self.sendto(caller),
            O::Sendmsg => self.sendmsg(caller, 1),
            O::Sendmmsg => self.sendmsg(caller, number(2)),
            O::Umask => self.umask(caller),
            O::Uname => self.uname(caller),
            O::Prctl => self.prctl(caller),
            O::Kill => self.kill(caller),
            O::OfProcess(argument) => self.of_process(caller, usize::from(argument)),
            // A program that has its calls traced already cannot be traced by another.
            O::Ptrace | O::Chroot => Err(Errno::PERM),
            // Programs then do without watching.
            O::InotifyAddWatch => Err(Errno::NOSPC),
            O::NameToHandleAt => Err(Errno::OPNOTSUPP),
        }
    }

    /// Returns the memory of a thread whose call is held.
    pub(super) fn memory_of(&mut self, thread: i32) -> Memory {
        let Service {
            memories, guest, ..
        } = self.service();
        memories.of(guest.proc(), thread)
    }

    pub(super) fn service(&mut self) -> &mut Service {
        self.service
            .as_mut()
            .expect("only calls of served commands come here")
    }

    /// Returns where paths are looked up, and who looks.
    fn scene(&mut self, caller: &Caller) -> Result<(&mut Guest, Asker<'_>), Errno> {
        let who = self.credentials(caller)?;
        let service = self
            .service
            .as_mut()
            .expect("only calls of served commands come here");
        let Service {
            guest,
            family,
            uid,
            gid,
            ..
        } = &mut **service;
        let asker = Asker {
            thread: caller.thread,
            process: family.process_of(caller.thread).unwrap_or(caller.thread),
            family,
            who,
            truth: Truth {
                ledger: &self.files.ledger,
                uid: *uid,
                gid: *gid,
            },
        };
        Ok((guest, asker))
    }

    fn truth(&self) -> Truth<'_> {
        let (uid, gid) = self
            .service
            .as_ref()
            .map_or((0, 0), |service| (service.uid, service.gid));
        Truth {
            ledger: &self.files.ledger,
            uid,
            gid,
        }
    }

    /// Finds what a path argument leads to; with `AT_EMPTY_PATH` in `flags`, perhaps the descriptor itself.
    fn find(&mut self, caller: &Caller, path: Path, flags: u32) -> Result<Node, Errno> {
        let may_be_empty = flags & libc::AT_EMPTY_PATH.cast_unsigned() != 0;
        // An address of nothing is an empty path for newer kernels.
        let text = match path.address {
            0 if may_be_empty => Default::default(),
            address => caller.memory().path(address)?,
        };
        self.find_text(caller, path.at, &text, flags)
    }

    fn find_text(
        &mut self,
        caller: &Caller,
        at: i32,
        text: &CStr,
        flags: u32,
    ) -> Result<Node, Errno> {
        if text.is_empty() && flags & libc::AT_EMPTY_PATH.cast_unsigned() != 0 {
            return self.behind(caller, at).map(Node::Opened);
        }
        let last = match flags & libc::AT_SYMLINK_NOFOLLOW.cast_unsigned() {
            0 => Last::Follow,
            _ => Last::Keep,
        };
        let (guest, asker) = self.scene(caller)?;
        guest.find(&asker, at, text.to_bytes(), last)
    }

    /// Opens what a descriptor of the caller leads to.
    fn behind(&mut self, caller: &Caller, descriptor: i32) -> Result<Opened, Errno> {
        let (guest, asker) = self.scene(caller)?;
        let place = super::guest::place_of(caller.thread, descriptor)?;
        guest.behind(&asker, &place).map_err(|errno| match errno {
            Errno::NOENT => Errno::BADF,
            errno => errno,
        })
    }

    /// Refuses to change what is mounted read-only.
    fn check_writable(&mut self, tree: Option<TreeId>) -> Result<(), Errno> {
        match tree {
            Some(tree) if self.service().guest.tree(tree).read_only => Err(Errno::ROFS),
            _ => Ok(()),
        }
    }

    /// Writes down what a file has become.
    fn record(&mut self, stat: &rustix::fs::Statx, change: impl FnOnce(&mut Attributes)) {
        let id = file_id(stat);
        let on_disk = u32::from(stat.stx_mode) & 0o7777;
        let mut attributes = self.files.ledger.get(&id).cloned().unwrap_or(Attributes {
            mode: on_disk,
            ..Attributes::default()
        });
        change(&mut attributes);
        if attributes.is_plain(on_disk) {
            self.files.ledger.remove(&id);
        } else {
            self.files.ledger.insert(id, attributes);
        }
    }

    /// Writes down whose a new file is and what mode it was given, where that is not what the disk shows.
    fn record_new(
        &mut self,
        fd: std::os::fd::BorrowedFd<'_>,
        (uid, gid): (u32, u32),
        mode: u32,
        on_disk: u32,
    ) -> Result<(), Errno> {
        // A new file may have the number, and the birth, of one that is written down and gone.
        if (uid, gid) == (0, 0) && mode == on_disk && self.files.is_empty() {
            return Ok(());
        }
        let stat = look(fd)?;
        self.files.ledger.remove(&file_id(&stat));
        self.record(&stat, |attributes| {
            attributes.uid = uid;
            attributes.gid = gid;
            attributes.mode = mode;
        });
        Ok(())
    }
}

/// Returns a descriptor of one's own.
fn own(fd: Rc<OwnedFd>) -> Result<OwnedFd, Errno> {
    Rc::try_unwrap(fd).or_else(|shared| {
        shared
            .try_clone()
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))
    })
}

/// Returns a name as the kernel takes it, with the slash that followed it.
fn c_name(name: &[u8], is_directory: bool) -> Result<std::ffi::CString, Errno> {
    let mut name = name.to_vec();
    if is_directory {
        name.push(b'/');
    }
    std::ffi::CString::new(name).map_err(|_| Errno::INVAL)
}

const EMPTY: &CStr = c"";
