//! The light mode: which call is answered where.
//!
//! The command starts as root in a root of its own, so the kernel finds and opens files for it. Held is what is about owners and
//! modes, what makes files, what takes names away, and what may take a file from the layer below. A process that has become another user is kept to
//! the ledger's modes where it opens for writing, makes or executes something or asks whether it may; reading, and going
//! through directories, are the kernel's, for which it is root.

use rustix::io::Errno;

use super::listener::Answer;
use super::make::Kind;
use super::place::{HERE, Place};
use super::supervision::{Caller, Supervision};
use super::traps::Call;

const SYMLINK_NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
const SYMLINK_FOLLOW: u32 = libc::AT_SYMLINK_FOLLOW.cast_unsigned();
const EMPTY_PATH: u32 = libc::AT_EMPTY_PATH.cast_unsigned();

impl Supervision {
    pub(super) fn light(&mut self, call: Call, caller: &Caller) -> Result<Answer, Errno> {
        let address = |argument: usize| caller.arguments[argument];
        let number = |argument: usize| caller.number(argument);
        let follows = |argument: usize| number(argument) & SYMLINK_NOFOLLOW == 0;
        let may_be_empty = |argument: usize| number(argument) & EMPTY_PATH != 0;
        match call {
            Call::Stat | Call::Lstat => {
                let follow = call == Call::Stat;
                self.show_stat(caller, (HERE, address(0), follow, false), address(1))
            }
            Call::Fstat => self.show_stat_of(caller, number(0), address(1)),
            Call::Newfstatat => {
                let place = (number(0), address(1), follows(3), may_be_empty(3));
                self.show_stat(caller, place, address(2))
            }
            Call::Statx => self.show_statx(caller),
            Call::Access => {
                self.may_access(caller, (HERE, address(0), true, false), number(1), false)
            }
            Call::Faccessat => self.may_access(
                caller,
                (number(0), address(1), true, false),
                number(2),
                false,
            ),
            Call::Faccessat2 => {
                let place = (number(0), address(1), follows(3), may_be_empty(3));
                let effective = number(3) & libc::AT_EACCESS.cast_unsigned() != 0;
                self.may_access(caller, place, number(2), effective)
            }
            Call::Chown | Call::Lchown => {
                let place =
                    self.read_place(caller, HERE, address(0), call == Call::Chown, false)?;
                self.set_owner_of(caller, &place, [number(1), number(2)])
            }
            Call::Fchown => {
                let place = Place::descriptor(number(0));
                self.set_owner_of(caller, &place, [number(1), number(2)])
            }
            Call::Fchownat => {
                if number(4) & !(SYMLINK_NOFOLLOW | EMPTY_PATH) != 0 {
                    return Err(Errno::INVAL);
                }
                let place =
                    self.read_place(caller, number(0), address(1), follows(4), may_be_empty(4))?;
                self.set_owner_of(caller, &place, [number(2), number(3)])
            }
            Call::Chmod => {
                let place = self.read_place(caller, HERE, address(0), true, false)?;
                self.set_mode_of(caller, &place, number(1))
            }
            Call::Fchmod => {
                let place = Place::descriptor(number(0));
                self.set_mode_of(caller, &place, number(1))
            }
            Call::Fchmodat => {
                let place = self.read_place(caller, number(0), address(1), true, false)?;
                self.set_mode_of(caller, &place, number(2))
            }
            Call::Fchmodat2 => {
                if number(3) & !(SYMLINK_NOFOLLOW | EMPTY_PATH) != 0 {
                    return Err(Errno::INVAL);
                }
                let place =
                    self.read_place(caller, number(0), address(1), follows(3), may_be_empty(3))?;
                self.set_mode_of(caller, &place, number(2))
            }
            Call::Creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                self.open_file(caller, (HERE, address(0)), flags.cast_unsigned(), number(1))
            }
            Call::Open => self.open_file(caller, (HERE, address(0)), number(1), number(2)),
            Call::Openat => self.open_file(caller, (number(0), address(1)), number(2), number(3)),
            Call::Mkdir => self.make(caller, (HERE, address(0)), Kind::Directory, number(1)),
            Call::Mkdirat => self.make(caller, (number(0), address(1)), Kind::Directory, number(2)),
            Call::Mknod => self.make(
                caller,
                (HERE, address(0)),
                Kind::node(number(1), number(2)),
                number(1),
            ),
            Call::Mknodat => {
                let kind = Kind::node(number(2), number(3));
                self.make(caller, (number(0), address(1)), kind, number(2))
            }
            Call::Symlink => self.make(caller, (HERE, address(1)), Kind::Link(address(0)), 0o777),
            Call::Symlinkat => self.make(
                caller,
                (number(1), address(2)),
                Kind::Link(address(0)),
                0o777,
            ),
            Call::Link => self.make_link(caller, (HERE, address(0)), false, (HERE, address(1))),
            Call::Linkat => {
                let follow = number(4) & SYMLINK_FOLLOW != 0;
                let new = (number(2), address(3));
                self.make_link(caller, (number(0), address(1)), follow, new)
            }
            Call::Rename => self.move_name(caller, (HERE, address(0)), (HERE, address(1)), 0),
            Call::Renameat | Call::Renameat2 => {
                let flags = match call {
                    Call::Renameat2 => number(4),
                    _ => 0,
                };
                let new = (number(2), address(3));
                self.move_name(caller, (number(0), address(1)), new, flags)
            }
            Call::Uname => self.uname(caller),
            Call::Unlink => self.remove_name(caller, (HERE, address(0)), 0),
            Call::Rmdir => {
                let flags = libc::AT_REMOVEDIR.cast_unsigned();
                self.remove_name(caller, (HERE, address(0)), flags)
            }
            Call::Unlinkat => self.remove_name(caller, (number(0), address(1)), number(2)),
            Call::Execve => self.execute(caller, HERE, address(0), 0),
            Call::Execveat => self.execute(caller, number(0), address(1), number(4)),
            Call::Setxattr | Call::Lsetxattr | Call::Fsetxattr => {
                self.write_xattr(caller, xattr_target(call))
            }
            Call::Getxattr | Call::Lgetxattr | Call::Fgetxattr => {
                self.show_xattr(caller, xattr_target(call))
            }
            Call::Listxattr | Call::Llistxattr | Call::Flistxattr => {
                self.show_xattrs(caller, xattr_target(call))
            }
            Call::Removexattr | Call::Lremovexattr | Call::Fremovexattr => {
                self.drop_xattr(caller, xattr_target(call))
            }
            Call::Chroot => {
                let who = self.credentials(caller)?;
                if !who.may(super::credentials::Capability::SysChroot) {
                    return Err(Errno::PERM);
                }
                self.has_other_roots = true;
                Ok(Answer::Continue)
            }
            // Answered before.
            _ => Ok(Answer::Continue),
        }
    }
}

/// How the three forms of each call about extended attributes name the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Path,
    Link,
    Descriptor,
}

fn xattr_target(call: Call) -> Target {
    match call {
        Call::Fgetxattr | Call::Flistxattr | Call::Fremovexattr | Call::Fsetxattr => {
            Target::Descriptor
        }
        Call::Lgetxattr | Call::Llistxattr | Call::Lremovexattr | Call::Lsetxattr => Target::Link,
        _ => Target::Path,
    }
}
