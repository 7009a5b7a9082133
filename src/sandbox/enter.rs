//! Entering the sandbox: the one change that the whole process makes, early and once.

use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{
    DumpableBehavior, Gid, Pid, Uid, WaitOptions, getgid, getpid, getuid, set_dumpable_behavior,
    waitpid,
};
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, set_thread_res_gid, set_thread_res_uid,
    unshare_unsafe,
};

use super::error::SandboxError;
use super::mount::{Attributes, Mount};
use super::subordinate::{Ids, map_arguments};

/// How commands are confined here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Real root, in a mount namespace.
    Ns,
    /// An ordinary user in a user namespace, whose ids are the user's own as 0 and the subordinate ones from 1 on.
    NsSub,
}

impl std::fmt::Display for Rung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rung::Ns => "ns",
            Rung::NsSub => "ns-sub",
        })
    }
}

static ENTERED: OnceLock<Rung> = OnceLock::new();

const UIDS: &str = "newuidmap";
const GIDS: &str = "newgidmap";

/// Moves this process into namespaces of its own, in which it may mount. Idempotent.
///
/// Needs a process with a single thread. After a failure the process may be half-way (in a user namespace without ids) and
/// should do nothing more but report it. Supplementary groups are kept: they may be what makes the build's files readable;
/// commands do not have them.
pub fn enter() -> Result<Rung, SandboxError> {
    if let Some(rung) = ENTERED.get() {
        return Ok(*rung);
    }
    let count = fs::read_dir("/proc/self/task")
        .map_err(|source| SandboxError::Read {
            path: "/proc/self/task".into(),
            source,
        })?
        .count();
    if count != 1 {
        return Err(SandboxError::Threads { count });
    }
    let rung = if may_mount() {
        Rung::Ns
    } else {
        user_namespace()?;
        Rung::NsSub
    };
    mount_namespace()?;
    Ok(*ENTERED.get_or_init(|| rung))
}

/// Tells whether [`enter`] has succeeded.
pub fn entered() -> bool {
    ENTERED.get().is_some()
}

/// Shuts other processes of the same user out of this one: no core dump, no tracing, no look at its memory or environment.
/// For the builder, once it has entered; its own use of /proc/self goes on working.
pub fn protect_self() {
    // Fails for no process that asks for this value.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
}

fn may_mount() -> bool {
    getuid().is_root()
        && rustix::process::geteuid().is_root()
        && capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

fn mount_namespace() -> Result<(), SandboxError> {
    const UNSHARE: &str = "unshare(CLONE_NEWNS)";
    unshare(UnshareFlags::NEWNS).map_err(|source| refused(UNSHARE, source))?;
    // Slave: mounts made here stay here, and what the host unmounts goes here too.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(|errno| refused("mount", errno.into()))?;
    // Security modules may allow all of the above and refuse this. It ends where it is made.
    Mount::create("tmpfs", &[], Attributes::empty())
        .map(drop)
        .map_err(|errno| refused("fsmount", errno.into()))
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the callers do not pass FILES, the flag that the function warns of.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Enters a user namespace with the user's subordinate ids, as its root.
fn user_namespace() -> Result<(), SandboxError> {
    const UNSHARE: &str = "unshare(CLONE_NEWUSER)";
    let ids = Ids::of(getuid().as_raw(), getgid().as_raw())?;
    // The map programs must run outside, with the user's own rights: a child is left behind for that.
    let helper = Helper::start(&ids).map_err(|source| refused("fork", source))?;
    unshare(UnshareFlags::NEWUSER).map_err(|source| refused(UNSHARE, source))?;
    helper.map()?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .map_err(|errno| refused("setresgid", errno.into()))?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
        .map_err(|errno| refused("setresuid", errno.into()))
}

/// Finds the reason behind a refusal.
fn refused(call: &'static str, source: io::Error) -> SandboxError {
    let setting = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let is = |path: &str, value: &str| setting(path).is_ok_and(|found| found == value);
    match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EUSERS) => SandboxError::NamespaceLimit {
            limit: setting("/proc/sys/user/max_user_namespaces")
                .unwrap_or_else(|_| "unknown".to_owned()),
        },
        Some(libc::ENOSYS | libc::EINVAL) => SandboxError::Kernel { call },
        Some(libc::EPERM | libc::EACCES) if !getuid().is_root() || !may_mount() => {
            if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
                SandboxError::NamespacesOff
            } else if is(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1",
            ) {
                SandboxError::AppArmor { call }
            } else {
                SandboxError::Refused { call, source }
            }
        }
        _ => SandboxError::Refused { call, source },
    }
}

/// A child outside the user namespace that runs the map programs when told to.
struct Helper {
    pid: Pid,
    go: io::PipeWriter,
    answer: PipeReader,
}

impl Helper {
    fn start(ids: &Ids) -> io::Result<Helper> {
        let parent = getpid();
        let (wait, go) = io::pipe()?;
        let (answer, reply) = io::pipe()?;
        // SAFETY: the process has one thread, which `enter` has checked; so the child is whole and may run any code.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop((go, answer));
                let status = help(wait, reply, parent, ids);
                // SAFETY: ends the child without running exit handlers, which are the parent's.
                unsafe { libc::_exit(status) }
            }
            pid => Ok(Helper {
                pid: Pid::from_raw(pid).expect("a child's pid is positive"),
                go,
                answer,
            }),
        }
    }

    /// Has the ids mapped.
    fn map(self) -> Result<(), SandboxError> {
        let Helper {
            pid,
            mut go,
            mut answer,
        } = self;
        let mut text = String::new();
        let heard = go
            .write_all(&[1])
            .and_then(|()| answer.read_to_string(&mut text));
        // Reaps it; its answer says all that its status does.
        waitpid(Some(pid), WaitOptions::empty()).ok();
        heard.map_err(|source| SandboxError::Refused {
            call: "read",
            source,
        })?;
        // One line: nothing if all went well, else the program, and what it printed; without that it is not there.
        if text == "ok" {
            return Ok(());
        }
        let (name, message) = text.split_once(' ').unwrap_or((&text, "it did not run"));
        let program = if name == GIDS { GIDS } else { UIDS };
        Err(if message.is_empty() {
            SandboxError::NoMapProgram { program }
        } else {
            SandboxError::MapProgram {
                program,
                message: message.to_owned(),
                no_new_privileges: rustix::thread::no_new_privs().unwrap_or(false),
            }
        })
    }
}

/// The child: waits for the word, runs both programs at the same time and answers.
fn help(mut wait: PipeReader, mut reply: io::PipeWriter, parent: Pid, ids: &Ids) -> i32 {
    let mut word = [0];
    if wait.read_exact(&mut word).is_err() {
        // The parent gave up.
        return 0;
    }
    let start = |program: &str, own: u32, ranges| {
        Command::new(program)
            .arg(parent.as_raw_pid().to_string())
            .args(map_arguments(own, ranges))
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    };
    let started = [
        (GIDS, start(GIDS, ids.gid, &ids.gids)),
        (UIDS, start(UIDS, ids.uid, &ids.uids)),
    ];
    let mut answer = "ok".to_owned();
    for (program, child) in started {
        match child.and_then(std::process::Child::wait_with_output) {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let printed = String::from_utf8_lossy(&output.stderr);
                let message = match printed.trim() {
                    "" => output.status.to_string(),
                    printed => printed.replace('\n', "; "),
                };
                answer = format!("{program} {message}");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => answer = format!("{program} "),
            Err(error) => answer = format!("{program} {error}"),
        }
    }
    i32::from(reply.write_all(answer.as_bytes()).is_err())
}

/// The user's own path, and where distributions put the programs.
fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/bin:/bin:/usr/sbin:/sbin")
}
