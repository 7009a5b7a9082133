//! Waiting for a held call and for signals at once, in one system call.
//!
//! A supervisor that asks with `poll` what there is, and then takes it, makes two calls where one does: a fifth of what a held
//! call costs. To take a call is itself a wait, which a signal interrupts; but one that comes just before the wait begins would
//! be slept over. So the wait is a few instructions that the handler knows: if it finds the thread in them, before the kernel
//! has taken the call, the thread leaves them instead.
//!
//! Signals come during the wait alone. The kernel gives a caller a descriptor (`SECCOMP_IOCTL_NOTIF_ADDFD`) in a wait of its own,
//! and if a signal interrupts that, the caller's call may have returned 0 without one; and some file systems fail when they
//! are interrupted.
//!
//! In: a listener, and a descriptor whose news are worth a signal. Out: a held call, or what has come. For one thread of one
//! process; handlers are the process's, which has no others.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::io::Errno;

/// What has come and was not taken yet.
static RAISED: AtomicU8 = AtomicU8::new(0);

const CHILD: u8 = 1;
const INPUT: u8 = 2;

/// What interrupted a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct News {
    /// Some child has something to tell.
    pub(in crate::sandbox) child: bool,
    /// So does the watched descriptor.
    pub(in crate::sandbox) input: bool,
}

/// Shows that the handlers are installed.
#[derive(Debug)]
pub(in crate::sandbox) struct Interrupts(());

impl Interrupts {
    /// Begins to note children's ends and stops, and that there is something to read from `input` or that its other end is
    /// gone. What came before counts as news too.
    pub(in crate::sandbox) fn begin(input: BorrowedFd<'_>) -> Result<Interrupts, Errno> {
        RAISED.store(CHILD | INPUT, Ordering::SeqCst);
        for signal in [libc::SIGCHLD, libc::SIGIO] {
            handle(signal)?;
        }
        let fd = input.as_raw_fd();
        // SAFETY: fcntl with numbers, on a descriptor that is borrowed for as long; the signal that this asks for has a handler.
        unsafe {
            check(libc::fcntl(fd, libc::F_SETOWN, libc::getpid()))?;
            let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
            check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_ASYNC))?;
        }
        mask(libc::SIG_BLOCK);
        Ok(Interrupts(()))
    }

    /// Takes what has come.
    pub(in crate::sandbox) fn take(&self) -> News {
        let raised = RAISED.swap(0, Ordering::SeqCst);
        News {
            child: raised & CHILD != 0,
            input: raised & INPUT != 0,
        }
    }

    /// Does an `ioctl` that may wait; EINTR if something has come before or while it waited.
    ///
    /// # Safety
    ///
    /// The kernel writes to `room` what the request says: it has to be large enough and aligned for that.
    pub(super) unsafe fn ioctl(
        &self,
        fd: BorrowedFd<'_>,
        request: u64,
        room: *mut u64,
    ) -> Result<(), Errno> {
        mask(libc::SIG_UNBLOCK);
        // SAFETY: the instructions below make one system call, which the caller answers for, and otherwise read one byte of a
        // static; they follow the C calling convention and touch no register that a callee has to keep.
        let result = unsafe { sandbox_wait(fd.as_raw_fd(), request, room, RAISED.as_ptr()) };
        mask(libc::SIG_BLOCK);
        match i32::try_from(-result) {
            Ok(..=0) => Ok(()),
            Ok(errno) => Err(Errno::from_raw_os_error(errno)),
            Err(_) => Err(Errno::IO),
        }
    }
}

/// Lets the signals come, or makes them wait.
fn mask(how: libc::c_int) {
    /// As the kernel has a set: bit by number, from 1 on.
    const SIGNALS: u64 = 1 << (libc::SIGCHLD - 1) | 1 << (libc::SIGIO - 1);
    // SAFETY: the kernel reads one set, as long as it is told, from a constant.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            std::ptr::from_ref(&SIGNALS),
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        );
    }
}

fn check(result: i32) -> Result<i32, Errno> {
    match result {
        0.. => Ok(result),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

fn handle(signal: libc::c_int) -> Result<(), Errno> {
    // SAFETY: sigaction is plain C data, for which zeroes are a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
    action.sa_sigaction = handler as libc::sighandler_t;
    // Other calls begin again by themselves; the wait does not, since the handler finds the thread in it.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the structure is live and initialised; `on_signal` has the signature of a handler with SA_SIGINFO, and touches
    // only an atomic and the context that it is given.
    let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    check(result).map(|_| ())
}

extern "C" fn on_signal(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let what = if signal == libc::SIGCHLD {
        CHILD
    } else {
        INPUT
    };
    RAISED.fetch_or(what, Ordering::SeqCst);
    let [first, call, leave] = [
        &raw const sandbox_wait_first,
        &raw const sandbox_wait_call,
        &raw const sandbox_wait_leave,
    ]
    .map(|label| label.addr());
    // SAFETY: the kernel gives a handler with SA_SIGINFO the thread's context, which is nobody else's while it runs.
    let at = unsafe { place(&mut *context.cast()) };
    if (first..=call).contains(&(*at as usize)) {
        *at = leave as Place;
    }
}

#[cfg(target_arch = "x86_64")]
type Place = i64;
#[cfg(target_arch = "aarch64")]
type Place = u64;

/// Returns where the thread goes on.
#[cfg(target_arch = "x86_64")]
fn place(context: &mut libc::ucontext_t) -> &mut Place {
    &mut context.uc_mcontext.gregs[libc::REG_RIP as usize]
}

#[cfg(target_arch = "aarch64")]
fn place(context: &mut libc::ucontext_t) -> &mut Place {
    &mut context.uc_mcontext.pc
}

// A call that a signal has interrupted is told as one that begins again: the thread is then at `call`, with what has come
// raised. One that has succeeded is past it, and its result is kept.
unsafe extern "C" {
    fn sandbox_wait(fd: libc::c_int, request: u64, room: *mut u64, raised: *const u8) -> i64;
    static sandbox_wait_first: u8;
    static sandbox_wait_call: u8;
    static sandbox_wait_leave: u8;
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .text.sandbox_wait, \"ax\", @progbits",
    ".globl sandbox_wait, sandbox_wait_first, sandbox_wait_call, sandbox_wait_leave",
    ".hidden sandbox_wait, sandbox_wait_first, sandbox_wait_call, sandbox_wait_leave",
    ".type sandbox_wait, @function",
    "sandbox_wait:",
    "sandbox_wait_first:",
    "cmp byte ptr [rcx], 0",
    "jne sandbox_wait_leave",
    "mov eax, {ioctl}",
    "sandbox_wait_call:",
    "syscall",
    "ret",
    "sandbox_wait_leave:",
    "mov rax, -{interrupted}",
    "ret",
    ".size sandbox_wait, . - sandbox_wait",
    ".popsection",
    ioctl = const libc::SYS_ioctl,
    interrupted = const libc::EINTR,
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .text.sandbox_wait, \"ax\", @progbits",
    ".globl sandbox_wait, sandbox_wait_first, sandbox_wait_call, sandbox_wait_leave",
    ".hidden sandbox_wait, sandbox_wait_first, sandbox_wait_call, sandbox_wait_leave",
    ".type sandbox_wait, @function",
    "sandbox_wait:",
    "sandbox_wait_first:",
    "ldrb w9, [x3]",
    "cbnz w9, sandbox_wait_leave",
    "mov x8, {ioctl}",
    "sandbox_wait_call:",
    "svc 0",
    "ret",
    "sandbox_wait_leave:",
    "mov x0, -{interrupted}",
    "ret",
    ".size sandbox_wait, . - sandbox_wait",
    ".popsection",
    ioctl = const libc::SYS_ioctl,
    interrupted = const libc::EINTR,
);
