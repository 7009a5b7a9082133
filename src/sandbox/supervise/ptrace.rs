//! The kernel's ptrace calls, and the registers that hold a system call.
//!
//! A tracee of these functions stands still (in a stop that `waitpid` reported) or is about to be seized. One that has been
//! killed meanwhile gives ESRCH, which callers pass over: its end is reported too.

use std::mem::MaybeUninit;

use rustix::io::Errno;

/// What a traced thread tells by stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Exited(i32),
    Killed(i32),
    /// Held by the filter.
    Seccomp,
    /// A call that it was told to stop after has ended.
    CallEnded,
    Executed,
    /// Has made a process that shares no memory with it.
    Forked,
    /// Has made a process that uses its memory until it executes something.
    Vforked,
    /// Has made a thread, or a process of some other kind.
    Cloned,
    /// Stopped as a job is; it stays so until it is continued by a signal.
    GroupStopped,
    /// New, or interrupted.
    Other,
    /// About to get a signal.
    Signal(i32),
}

const SEIZE: libc::c_uint = 0x4206;
const LISTEN: libc::c_uint = 0x4208;
const EVENT_SECCOMP: i32 = 7;
const EVENT_STOP: i32 = 128;
/// Marks the stop after a call (PTRACE_O_TRACESYSGOOD).
const CALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// Follow every child; die with the tracer; stop where the filter says so, and when something is executed.
const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_EXITKILL;

impl Stop {
    fn of(status: i32) -> Stop {
        if libc::WIFEXITED(status) {
            return Stop::Exited(libc::WEXITSTATUS(status));
        }
        if libc::WIFSIGNALED(status) {
            return Stop::Killed(libc::WTERMSIG(status));
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            EVENT_SECCOMP => Stop::Seccomp,
            libc::PTRACE_EVENT_EXEC => Stop::Executed,
            libc::PTRACE_EVENT_FORK => Stop::Forked,
            libc::PTRACE_EVENT_VFORK => Stop::Vforked,
            libc::PTRACE_EVENT_CLONE => Stop::Cloned,
            EVENT_STOP => match signal {
                libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Stop::GroupStopped,
                _ => Stop::Other,
            },
            0 if signal == CALL_STOP => Stop::CallEnded,
            0 => Stop::Signal(signal),
            _ => Stop::Other,
        }
    }
}

/// Returns what any child has to tell, without waiting; ECHILD if there are none.
pub(super) fn next() -> Result<Option<(i32, Stop)>, Errno> {
    wait(libc::WNOHANG)
}

/// Waits until a child has something to tell.
pub(super) fn wait_for_next() -> Result<Option<(i32, Stop)>, Errno> {
    wait(0)
}

fn wait(flags: i32) -> Result<Option<(i32, Stop)>, Errno> {
    let mut status = 0;
    // SAFETY: the kernel writes one number to a live local.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | flags) } {
        0 => Ok(None),
        pid @ 1.. => Ok(Some((pid, Stop::of(status)))),
        _ => match last_errno() {
            Errno::INTR => Ok(None),
            errno => Err(errno),
        },
    }
}

/// Begins to trace a process and all that it will make.
pub(super) fn seize(pid: i32) -> Result<(), Errno> {
    ptrace(SEIZE, pid, 0, OPTIONS as usize)
}

/// Lets it go on, with a signal if it was about to get one.
pub(super) fn go_on(thread: i32, signal: i32) -> Result<(), Errno> {
    ptrace(libc::PTRACE_CONT, thread, 0, signal as usize)
}

/// Lets it go on to the end of the call that it is in.
pub(super) fn go_on_to_end_of_call(thread: i32) -> Result<(), Errno> {
    ptrace(libc::PTRACE_SYSCALL, thread, 0, 0)
}

/// Leaves it stopped as a job.
pub(super) fn listen(thread: i32) -> Result<(), Errno> {
    ptrace(LISTEN, thread, 0, 0)
}

/// Returns the number that comes with an event: the child's, or the thread's that executed.
pub(super) fn message(thread: i32) -> Result<i32, Errno> {
    let mut message: libc::c_ulong = 0;
    ptrace(
        libc::PTRACE_GETEVENTMSG,
        thread,
        0,
        (&raw mut message).expose_provenance(),
    )?;
    i32::try_from(message).map_err(|_| Errno::INVAL)
}

/// `data` is a number, or an exposed pointer to what the request reads or writes.
fn ptrace(request: libc::c_uint, thread: i32, address: usize, data: usize) -> Result<(), Errno> {
    // SAFETY: every caller in this file passes a number that the request takes for one, or the address of a live local of the
    // very type that the request reads or writes.
    let result = unsafe {
        libc::ptrace(
            request,
            thread,
            std::ptr::without_provenance_mut::<libc::c_void>(address),
            std::ptr::with_exposed_provenance_mut::<libc::c_void>(data),
        )
    };
    match result {
        0.. => Ok(()),
        _ => Err(last_errno()),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A thread's registers at a system call.
#[derive(Clone, Copy)]
pub(super) struct Registers(Raw);

#[cfg(target_arch = "x86_64")]
type Raw = libc::user_regs_struct;
#[cfg(target_arch = "aarch64")]
type Raw = libc::user_regs_struct;

/// NT_PRSTATUS: the general registers.
const GENERAL: usize = 1;
/// NT_ARM_SYSTEM_CALL: the number of the call, which is in no register while the thread stands at it.
#[cfg(target_arch = "aarch64")]
const SYSTEM_CALL: usize = 0x404;

impl Registers {
    pub(super) fn of(thread: i32) -> Result<Registers, Errno> {
        let mut raw = MaybeUninit::<Raw>::uninit();
        let mut room = libc::iovec {
            iov_base: raw.as_mut_ptr().cast(),
            iov_len: size_of::<Raw>(),
        };
        ptrace(
            libc::PTRACE_GETREGSET,
            thread,
            GENERAL,
            (&raw mut room).expose_provenance(),
        )?;
        if room.iov_len != size_of::<Raw>() {
            // A 32-bit thread, which the filter does not let do anything.
            return Err(Errno::NOSYS);
        }
        // SAFETY: the kernel has filled the whole structure, as the length that it returned says; all fields are numbers.
        Ok(Registers(unsafe { raw.assume_init() }))
    }

    pub(super) fn write(&self, thread: i32) -> Result<(), Errno> {
        let mut raw = self.0;
        let mut room = libc::iovec {
            iov_base: (&raw mut raw).cast(),
            iov_len: size_of::<Raw>(),
        };
        ptrace(
            libc::PTRACE_SETREGSET,
            thread,
            GENERAL,
            (&raw mut room).expose_provenance(),
        )
    }
}

#[cfg(target_arch = "x86_64")]
impl Registers {
    pub(super) fn number(&self) -> u32 {
        // The kernel takes an int.
        self.0.orig_rax as u32
    }

    /// Has the thread make another call, when these are written.
    pub(super) fn set_number(&mut self, _thread: i32, number: i64) -> Result<(), Errno> {
        self.0.orig_rax = number.cast_unsigned();
        Ok(())
    }

    pub(super) fn argument(&self, at: usize) -> u64 {
        let raw = &self.0;
        [raw.rdi, raw.rsi, raw.rdx, raw.r10, raw.r8, raw.r9][at]
    }

    pub(super) fn set_argument(&mut self, at: usize, value: u64) {
        let raw = &mut self.0;
        *[
            &mut raw.rdi,
            &mut raw.rsi,
            &mut raw.rdx,
            &mut raw.r10,
            &mut raw.r8,
            &mut raw.r9,
        ][at] = value;
    }

    pub(super) fn result(&self) -> i64 {
        self.0.rax.cast_signed()
    }

    pub(super) fn set_result(&mut self, result: i64) {
        self.0.rax = result.cast_unsigned();
    }

    /// Has the thread, which is at the end of a call, make `number` again with the present arguments.
    pub(super) fn call_again(&mut self, number: u32) {
        const INSTRUCTION: u64 = 2;
        self.0.rip -= INSTRUCTION;
        self.0.rax = u64::from(number);
    }

    /// Tells whether the thread is at the same instruction, with the same stack.
    pub(super) fn is_where(&self, other: &Registers) -> bool {
        (self.0.rip, self.0.rsp, self.0.orig_rax) == (other.0.rip, other.0.rsp, other.0.orig_rax)
    }

    /// Returns the lowest address that the thread's functions may be using.
    pub(super) fn stack(&self) -> u64 {
        /// What a leaf function may use below the pointer.
        const RED_ZONE: u64 = 128;
        self.0.rsp.saturating_sub(RED_ZONE)
    }
}

#[cfg(target_arch = "aarch64")]
impl Registers {
    pub(super) fn number(&self) -> u32 {
        self.0.regs[8] as u32
    }

    /// Has the thread make another call, when these are written.
    pub(super) fn set_number(&mut self, thread: i32, number: i64) -> Result<(), Errno> {
        let mut call = number as i32;
        let mut room = libc::iovec {
            iov_base: (&raw mut call).cast(),
            iov_len: size_of::<i32>(),
        };
        ptrace(
            libc::PTRACE_SETREGSET,
            thread,
            SYSTEM_CALL,
            (&raw mut room).expose_provenance(),
        )
    }

    pub(super) fn argument(&self, at: usize) -> u64 {
        self.0.regs[at]
    }

    pub(super) fn set_argument(&mut self, at: usize, value: u64) {
        self.0.regs[at] = value;
    }

    pub(super) fn result(&self) -> i64 {
        self.0.regs[0].cast_signed()
    }

    pub(super) fn set_result(&mut self, result: i64) {
        self.0.regs[0] = result.cast_unsigned();
    }

    /// Has the thread, which is at the end of a call, make `number` again with the present arguments.
    pub(super) fn call_again(&mut self, number: u32) {
        const INSTRUCTION: u64 = 4;
        self.0.pc -= INSTRUCTION;
        self.0.regs[8] = u64::from(number);
    }

    /// Tells whether the thread is at the same instruction, with the same stack.
    pub(super) fn is_where(&self, other: &Registers) -> bool {
        (self.0.pc, self.0.sp, self.0.regs[8]) == (other.0.pc, other.0.sp, other.0.regs[8])
    }

    /// Returns the lowest address that the thread's functions may be using.
    pub(super) fn stack(&self) -> u64 {
        self.0.sp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        let stopped = |signal: i32, event: i32| event << 16 | signal << 8 | 0x7f;
        for (status, expected) in [
            (0x0300, Stop::Exited(3)),
            (9, Stop::Killed(9)),
            (stopped(libc::SIGTRAP, 7), Stop::Seccomp),
            (stopped(libc::SIGTRAP, 4), Stop::Executed),
            (stopped(libc::SIGTRAP, 1), Stop::Forked),
            (stopped(libc::SIGTRAP, 2), Stop::Vforked),
            (stopped(libc::SIGTRAP, 3), Stop::Cloned),
            (stopped(libc::SIGTRAP, 128), Stop::Other),
            (stopped(libc::SIGSTOP, 128), Stop::GroupStopped),
            (stopped(libc::SIGTSTP, 128), Stop::GroupStopped),
            (stopped(libc::SIGSTOP, 0), Stop::Signal(libc::SIGSTOP)),
            (stopped(libc::SIGTRAP, 0), Stop::Signal(libc::SIGTRAP)),
            (stopped(libc::SIGTRAP | 0x80, 0), Stop::CallEnded),
        ] {
            assert_eq!(Stop::of(status), expected, "{status:x}");
        }
    }
}
