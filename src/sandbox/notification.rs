//! Whether a supervisor can do its work here: a child makes a call that is held, and is answered as commands are.
//!
//! The held call is `getpgid`, which nothing else makes meanwhile; its second argument, which the kernel does not look at,
//! leads to memory that the supervisor reads.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use super::control;
use super::filter::{self, IF_EQUAL, Instruction, end, jump_if};
use super::lack::Lacks;
use super::supervise::listener::{self, Answer, Listener};
use super::supervise::memory::Memory;
use super::trial;
use super::trouble::{By, Call, Trouble};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const HOLD: u32 = libc::SECCOMP_RET_USER_NOTIF;
const STOP: u32 = libc::SECCOMP_RET_TRACE;
/// What the held caller has in its memory.
const MARK: [u8; 8] = *b"look her";

/// Holds a call of a child, reads its memory, gives it a descriptor, and lets a second call continue. `gains` tells whether
/// filters can be installed without giving up to gain privileges.
pub(super) fn held_calls(gains: bool) -> Result<Lacks, Trouble> {
    let (here, there) = UnixStream::pair().by(Call::PassDescriptor)?;
    let child = trial::start(|| be_held(gains, &there))?;
    drop(there);
    let outcome = supervise(&here);
    // Whatever it waits for, nobody answers any more.
    drop(here);
    let status = wait(child).by(Call::Fork)?;
    outcome?;
    match status.exit_status() {
        Some(0) => Ok(Lacks::default()),
        code => Err(Trouble::Call {
            call: Call::GiveDescriptor,
            errno: code.unwrap_or(libc::ECHILD),
        }),
    }
}

fn supervise(socket: &UnixStream) -> Result<(), Trouble> {
    let mut said = [0; 4];
    let (_, fds) = control::take(socket, &mut said).by(Call::PassDescriptor)?;
    let Some(fd) = fds.into_iter().next() else {
        return Err(Trouble::Call {
            call: Call::Listener,
            errno: i32::from_le_bytes(said),
        });
    };
    let listener = Listener::from_fd(fd);
    let first = next(&listener)?;
    let mut found = [0; MARK.len()];
    let read = Memory::of(first.thread).read(first.arguments[1], &mut found);
    let answer = match (io::pipe(), found == MARK) {
        (Ok((reader, _)), true) => Answer::Descriptor {
            fd: reader.into(),
            close_on_exec: true,
        },
        _ => Answer::Error(Errno::IO),
    };
    listener.answer(first.id, answer);
    let second = next(&listener)?;
    listener.answer(second.id, Answer::Continue);
    read.by(Call::ReadMemory)
}

fn next(listener: &Listener) -> Result<listener::Notification, Trouble> {
    listener
        .receive()
        .and_then(|call| call.ok_or(Errno::NOENT))
        .by(Call::Notification)
}

/// The child; returns an error number as its status.
fn be_held(gains: bool, socket: &UnixStream) -> i32 {
    let installed = no_gains(!gains).and_then(|()| listener::install(&program(HOLD)));
    let passed = match &installed {
        Ok(fd) => control::pass(socket, &[0; 4], &[fd.as_fd()]),
        Err(errno) => control::pass(socket, &errno.raw_os_error().to_le_bytes(), &[]),
    };
    if installed.is_err() || passed.is_err() {
        return libc::ECHILD;
    }
    // The supervisor's is the only one.
    drop(installed);
    let given = call();
    let continued = call();
    match (given, continued) {
        (Ok(fd), Ok(_)) => {
            // SAFETY: asks for the flags of a number, whatever it stands for.
            match unsafe { libc::fcntl(fd, libc::F_GETFD) } {
                libc::FD_CLOEXEC => 0,
                _ => libc::EBADF,
            }
        }
        (Err(errno), _) | (_, Err(errno)) => errno.raw_os_error(),
    }
}

/// Stops a child at a call, as a tracer.
pub(super) fn traced_calls() -> Result<Lacks, Trouble> {
    let (mut wait_for, mut go) = io::pipe().by(Call::Fork)?;
    let child = trial::start(|| {
        let ready = wait_for.read_exact(&mut [0]).is_ok();
        let stopped = ready
            && no_gains(true)
                .and_then(|()| filter::install(&program(STOP)))
                .and_then(|()| call())
                .is_ok();
        i32::from(!stopped)
    })?;
    let options = libc::PTRACE_O_TRACESECCOMP | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SEIZE, child, options).by(Call::Trace)?;
    go.write_all(&[1]).by(Call::Trace)?;
    let stop = wait(child).by(Call::TraceStop)?;
    // A stop that is an event has its number above the signal's.
    if stop.as_raw() >> 8 != libc::SIGTRAP | (libc::PTRACE_EVENT_SECCOMP << 8) {
        return Err(Errno::NOSYS).by(Call::TraceStop);
    }
    ptrace(libc::PTRACE_CONT, child, 0).by(Call::Trace)?;
    match wait(child).by(Call::TraceStop)?.exit_status() {
        Some(0) => Ok(Lacks::default()),
        _ => Err(Errno::NOSYS).by(Call::TraceStop),
    }
}

fn ptrace(request: libc::c_uint, child: Pid, data: libc::c_int) -> Result<(), Errno> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: neither of the two requests touches memory of this process; the last argument is a number for both.
    let result = unsafe { libc::ptrace(request, child.as_raw_pid(), none, data as libc::c_long) };
    match result {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Makes the held call.
fn call() -> Result<i32, Errno> {
    // SAFETY: the kernel looks at the first argument alone, a number; the second is a live address that nobody writes to.
    let result = unsafe { libc::syscall(libc::SYS_getpgid, 0, MARK.as_ptr()) };
    match i32::try_from(result) {
        Ok(number @ 0..) => Ok(number),
        _ => Err(last_errno()),
    }
}

fn no_gains(is_needed: bool) -> Result<(), Errno> {
    match is_needed {
        true => rustix::thread::set_no_new_privs(true),
        false => Ok(()),
    }
}

/// A filter with this verdict on one call. The process makes calls through one gate alone.
fn program(verdict: u32) -> [Instruction; 4] {
    let number = libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    [
        number,
        jump_if(IF_EQUAL, libc::SYS_getpgid as u32, 0, 1),
        end(verdict),
        end(ALLOW),
    ]
}

fn wait(child: Pid) -> Result<WaitStatus, Errno> {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(Errno::INTR) | Ok(None) => {}
            Ok(Some((_, status))) => return Ok(status),
            Err(errno) => return Err(errno),
        }
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
