//! A child that is left outside of a user namespace to map its ids: only from there can more than one be mapped.

use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getpid, waitpid};

use super::subordinate::{GIDS, Ids, UIDS, map_arguments};
use super::trouble::{By, Call, Trouble, decode, encode};

/// Waits for the word of its parent, which has entered a user namespace by then.
pub(super) struct Helper {
    pid: Pid,
    go: io::PipeWriter,
    answer: PipeReader,
}

impl Helper {
    /// Starts one that writes the maps itself, for which it needs the powers of root.
    pub(super) fn writing(uid_map: &str, gid_map: &str) -> Result<Helper, Trouble> {
        Helper::start(|parent| {
            let write = |name: &str, map: &str| {
                fs::write(format!("/proc/{}/{name}", parent.as_raw_pid()), map)
            };
            write("gid_map", gid_map).by(Call::GidMap)?;
            write("uid_map", uid_map).by(Call::UidMap)
        })
    }

    /// Starts one that runs the map programs, with the user's own rights.
    pub(super) fn running(ids: &Ids) -> Result<Helper, Trouble> {
        Helper::start(|parent| run_programs(parent, ids))
    }

    fn start(map: impl FnOnce(Pid) -> Result<(), Trouble>) -> Result<Helper, Trouble> {
        let parent = getpid();
        let (mut wait, go) = io::pipe().by(Call::Fork)?;
        let (answer, mut reply) = io::pipe().by(Call::Fork)?;
        // SAFETY: the process has one thread, which `enter` has checked; so the child is whole and may run any code.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()).by(Call::Fork),
            0 => {
                drop((go, answer));
                // Without the word the parent gave up.
                if wait.read_exact(&mut [0]).is_ok() {
                    let outcome = map(parent).map(|()| super::lack::Lacks::default());
                    // The parent waits for it, or is gone.
                    reply.write_all(&encode(&outcome)).ok();
                }
                // SAFETY: ends the child without running exit handlers, which are the parent's.
                unsafe { libc::_exit(0) }
            }
            pid => Ok(Helper {
                pid: Pid::from_raw(pid).expect("a child's pid is positive"),
                go,
                answer,
            }),
        }
    }

    /// Has the ids mapped.
    pub(super) fn map(self) -> Result<(), Trouble> {
        let Helper {
            pid,
            mut go,
            mut answer,
        } = self;
        let mut bytes = Vec::new();
        let heard = go
            .write_all(&[1])
            .and_then(|()| answer.read_to_end(&mut bytes));
        // Reaps it; its answer says all that its status does.
        while waitpid(Some(pid), WaitOptions::empty()).err() == Some(Errno::INTR) {}
        heard.by(Call::UidMap)?;
        decode(&bytes)
            .unwrap_or(Err(Trouble::Call {
                call: Call::UidMap,
                errno: libc::EPROTO,
            }))
            .map(drop)
    }
}

/// Runs both programs at the same time.
fn run_programs(parent: Pid, ids: &Ids) -> Result<(), Trouble> {
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
        (true, start(GIDS, ids.gid, &ids.gids)),
        (false, start(UIDS, ids.uid, &ids.uids)),
    ];
    let mut outcome = Ok(());
    for (is_group, child) in started {
        let message = match child.and_then(std::process::Child::wait_with_output) {
            Ok(output) if output.status.success() => continue,
            Ok(output) => {
                let printed = String::from_utf8_lossy(&output.stderr);
                match printed.trim() {
                    "" => output.status.to_string(),
                    printed => printed.replace('\n', "; "),
                }
            }
            // Empty: it is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => error.to_string(),
        };
        outcome = Err(Trouble::MapProgram { is_group, message });
    }
    outcome
}

/// The user's own path, and where distributions put the programs.
pub(super) fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/bin:/bin:/usr/sbin:/sbin")
}
