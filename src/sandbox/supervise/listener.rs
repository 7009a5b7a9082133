//! The kernel's end of supervision: a filter whose verdict "notify" holds a call until somebody outside has answered it.
//!
//! The filter is installed by the process that is to be supervised; what it gets for it, the listener, is sent to the
//! supervisor. A notification is one held call. Its caller may be killed at any moment, and then its id is dead and its thread's
//! number may belong to another: whoever has looked at the caller by that number asks [`Listener::is_held`] before he believes
//! what he saw.
//!
//! What newer kernels know beyond Linux 5.9 is used where it is there: answering and giving a descriptor in one step (5.14),
//! calls that only a fatal signal interrupts (5.19), and waking the caller on this processor (6.6).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::super::filter::Instruction;
use super::interrupt::Interrupts;

/// Receives and answers held calls.
#[derive(Debug)]
pub(in crate::sandbox) struct Listener(OwnedFd);

/// One held call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct Notification {
    pub(in crate::sandbox) id: u64,
    /// The calling thread as this process knows it.
    pub(in crate::sandbox) thread: i32,
    /// `AUDIT_ARCH_*`.
    pub(in crate::sandbox) arch: u32,
    pub(in crate::sandbox) number: u32,
    pub(in crate::sandbox) arguments: [u64; 6],
}

/// What becomes of a held call.
#[derive(Debug)]
pub(in crate::sandbox) enum Answer {
    /// The kernel performs it. Never a decision about what is allowed: the caller's other threads may change what pointers
    /// lead to.
    Continue,
    /// It returns this.
    Value(i64),
    Error(Errno),
    /// It returns a copy of this descriptor.
    Descriptor {
        fd: OwnedFd,
        close_on_exec: bool,
    },
    /// Somebody else answers, or has answered.
    Later,
}

impl From<Errno> for Answer {
    fn from(errno: Errno) -> Answer {
        Answer::Error(errno)
    }
}

/// Puts a filter on this thread and all that it becomes; returns the listener. Needs CAP_SYS_ADMIN in the user namespace, or
/// no_new_privs.
pub(in crate::sandbox) fn install(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let header = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        filter: program.as_ptr().cast_mut(),
    };
    let wanted = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let mut last = Errno::INVAL;
    for flags in [
        wanted | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        wanted,
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    ] {
        // SAFETY: the kernel copies `header.len` instructions from `header.filter` during the call; both are made from one
        // slice that is borrowed for as long, and the kernel does not write through the pointer.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
                flags,
                &raw const header,
            )
        };
        match i32::try_from(result) {
            // SAFETY: the call has just returned this descriptor, which nobody else knows.
            Ok(fd @ 0..) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => last = last_errno(),
        }
        if last != Errno::INVAL {
            break;
        }
    }
    Err(last)
}

impl Listener {
    pub(in crate::sandbox) fn from_fd(fd: OwnedFd) -> Listener {
        /// Linux 6.6: `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`.
        const SYNC_WAKE_UP: libc::c_ulong = 1;
        // SAFETY: takes a number. Older kernels refuse it, which is well.
        unsafe {
            libc::ioctl(
                fd.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                SYNC_WAKE_UP,
            )
        };
        Listener(fd)
    }

    /// Takes the next held call; `None` if its caller is gone. To be called when the descriptor is readable, else it blocks.
    pub(in crate::sandbox) fn receive(&self) -> Result<Option<Notification>, Errno> {
        // The kernel wants zeroes, and may have a longer structure than the one known here.
        let mut room = Room::<NOTIFICATION>::default();
        // SAFETY: `room` is aligned for the structure and longer than that of any kernel: it has grown by nothing since it
        // was introduced, and the kernel writes its own length.
        let result = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                room.0.as_mut_ptr(),
            )
        };
        if result < 0 {
            return match last_errno() {
                Errno::NOENT | Errno::INTR => Ok(None),
                errno => Err(errno),
            };
        }
        // SAFETY: the kernel has filled in the structure at the start of the room.
        Ok(Some(unsafe { room.notification() }))
    }

    /// Waits for the next held call and takes it; `None` if its caller is gone, EINTR if a signal has come.
    pub(in crate::sandbox) fn wait(
        &self,
        interrupts: &Interrupts,
    ) -> Result<Option<Notification>, Errno> {
        let mut room = Room::<NOTIFICATION>::default();
        // SAFETY: as in `receive`.
        let result = unsafe {
            interrupts.ioctl(
                self.0.as_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                room.0.as_mut_ptr(),
            )
        };
        match result {
            // SAFETY: the kernel has filled in the structure at the start of the room.
            Ok(()) => Ok(Some(unsafe { room.notification() })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Tells whether the call is still held: so its caller's number was its own until now.
    pub(in crate::sandbox) fn is_held(&self, id: u64) -> bool {
        // SAFETY: the kernel reads one number from a live local.
        unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                &raw const id,
            ) == 0
        }
    }

    /// Ends the hold. Nothing can be done about a caller that is gone.
    pub(in crate::sandbox) fn answer(&self, id: u64, answer: Answer) {
        let (value, error, flags) = match answer {
            Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Value(value) => (value, 0, 0),
            Answer::Error(errno) => (0, -errno.raw_os_error(), 0),
            Answer::Descriptor { fd, close_on_exec } => {
                return self.give(id, fd.as_fd(), close_on_exec);
            }
            Answer::Later => return,
        };
        self.send(id, value, error, flags);
    }

    fn give(&self, id: u64, fd: BorrowedFd<'_>, close_on_exec: bool) {
        const SEND: u32 = libc::SECCOMP_ADDFD_FLAG_SEND as u32;
        match self.add(id, fd, close_on_exec, SEND) {
            Ok(_) => {}
            // Before Linux 5.14 in two steps.
            Err(Errno::INVAL) => match self.add(id, fd, close_on_exec, 0) {
                Ok(number) => self.send(id, i64::from(number), 0, 0),
                Err(errno) => self.send(id, 0, -errno.raw_os_error(), 0),
            },
            Err(errno) => self.send(id, 0, -errno.raw_os_error(), 0),
        }
    }

    /// Copies a descriptor into the caller; returns its number there.
    fn add(
        &self,
        id: u64,
        fd: BorrowedFd<'_>,
        close_on_exec: bool,
        flags: u32,
    ) -> Result<i32, Errno> {
        let request = libc::seccomp_notif_addfd {
            id,
            flags,
            srcfd: fd.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if close_on_exec {
                libc::O_CLOEXEC.cast_unsigned()
            } else {
                0
            },
        };
        // SAFETY: the kernel reads the structure, a live local of the very type that the call is for.
        let number = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ADDFD,
                &raw const request,
            )
        };
        if number < 0 {
            return Err(last_errno());
        }
        Ok(number)
    }

    fn send(&self, id: u64, value: i64, error: i32, flags: u32) {
        let response = libc::seccomp_notif_resp {
            id,
            val: value,
            error,
            flags,
        };
        // SAFETY: the kernel reads the structure, a live local of the very type that the call is for. It fails for callers
        // that are gone, who need no answer.
        unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw const response,
            )
        };
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Twice what the kernel's structure has, in words.
const NOTIFICATION: usize = 2 * size_of::<libc::seccomp_notif>() / size_of::<u64>();

struct Room<const WORDS: usize>([u64; WORDS]);

impl Room<NOTIFICATION> {
    /// # Safety
    ///
    /// The kernel has written its structure here.
    unsafe fn notification(&self) -> Notification {
        // SAFETY: the structure is at the start of the room, which is large enough and aligned for it, and all of its fields are
        // numbers.
        let call = unsafe { self.0.as_ptr().cast::<libc::seccomp_notif>().read() };
        Notification {
            id: call.id,
            thread: i32::try_from(call.pid).unwrap_or(0),
            arch: call.data.arch,
            number: call.data.nr.cast_unsigned(),
            arguments: call.data.args,
        }
    }
}

impl<const WORDS: usize> Default for Room<WORDS> {
    fn default() -> Self {
        Room([0; WORDS])
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
