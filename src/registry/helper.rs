//! Credential helpers: programs named `docker-credential-NAME` that keep passwords elsewhere.
//!
//! A request goes to the child's standard input, the answer comes on its standard output, the verb is its argument. The child has a
//! limit of time, starts without a thread of ours, and what it writes to standard error is not shown: it may name secrets.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;

use super::auth_file::{Credential, user_and_password};
use super::environment::Environment;
use super::error::{RegistryError, clean};

/// More than any answer has.
const MOST_OUTPUT: usize = 1024 * 1024;

/// One helper, found in `PATH` when it is needed.
pub(super) struct Helper<'a> {
    name: &'a str,
    limit: Duration,
    environment: &'a Environment,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    user: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

impl<'a> Helper<'a> {
    pub(super) fn new(name: &'a str, limit: Duration, environment: &'a Environment) -> Helper<'a> {
        Helper {
            name,
            limit,
            environment,
        }
    }

    /// Tells whether there is such a program.
    pub(super) fn is_there(&self) -> bool {
        self.program().is_ok()
    }

    /// Asks for the credential under a key; `None` if the helper has none.
    pub(super) fn get(&self, key: &str) -> Result<Option<Credential>, RegistryError> {
        let (status, output) = self.run("get", key.as_bytes())?;
        if !status.success() {
            let said = clean(&String::from_utf8_lossy(&output));
            // The protocol's own words for "not there".
            if said.contains("credentials not found") {
                return Ok(None);
            }
            return Err(self.failed(format!("`get` ended with {status}: {said}")));
        }
        let answer: Answer = serde_json::from_slice(&output)
            .map_err(|_| self.failed("its answer is not the JSON that was wanted".to_owned()))?;
        Ok(user_and_password(answer.user, answer.secret))
    }

    /// Gives a credential into keeping.
    pub(super) fn store(&self, key: &str, user: &str, password: &str) -> Result<(), RegistryError> {
        let request = serde_json::json!({"ServerURL": key, "Username": user, "Secret": password});
        self.run_well("store", request.to_string().as_bytes())
    }

    /// Deletes the credential under a key.
    pub(super) fn erase(&self, key: &str) -> Result<(), RegistryError> {
        self.run_well("erase", key.as_bytes())
    }

    fn run_well(&self, verb: &str, input: &[u8]) -> Result<(), RegistryError> {
        match self.run(verb, input)? {
            (status, _) if status.success() => Ok(()),
            (status, _) => Err(self.failed(format!("`{verb}` ended with {status}"))),
        }
    }

    fn run(&self, verb: &str, input: &[u8]) -> Result<(ExitStatus, Vec<u8>), RegistryError> {
        let program = self.program()?;
        let mut child = Command::new(&program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| self.failed(format!("it does not start: {error}")))?;
        let talked = talk(&mut child, input, Instant::now() + self.limit);
        match talked {
            Ok(done) => Ok(done),
            Err(error) => {
                // It may have ended by itself; the wait keeps it from staying as a zombie.
                drop(child.kill());
                drop(child.wait());
                Err(self.failed(match error.kind() {
                    io::ErrorKind::TimedOut => {
                        format!("`{verb}` did not end within {:?}", self.limit)
                    }
                    _ => format!("`{verb}` could not be talked to: {error}"),
                }))
            }
        }
    }

    fn program(&self) -> Result<PathBuf, RegistryError> {
        if self.name.contains('/') {
            return Err(self.failed("its name holds a slash".to_owned()));
        }
        let file = format!("docker-credential-{}", self.name);
        self.environment
            .get("PATH")
            .into_iter()
            .flat_map(std::env::split_paths)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(&file))
            .find(|path| path.is_file())
            .ok_or_else(|| self.failed(format!("there is no `{file}` in PATH")))
    }

    fn failed(&self, what: String) -> RegistryError {
        RegistryError::Helper {
            helper: self.name.to_owned(),
            what,
        }
    }
}

fn talk(child: &mut Child, input: &[u8], end: Instant) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let mut stdout = child.stdout.take().expect("standard output is a pipe");
    // A request is far smaller than a pipe's buffer, so this does not block; a helper that does not read is no error.
    match stdin.write_all(input) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => drop(stdin),
    }
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        wait_readable(&stdout, end)?;
        match stdout.read(&mut buffer)? {
            0 => break,
            n if output.len() + n > MOST_OUTPUT => {
                return Err(io::Error::other("it writes without end"));
            }
            n => output.extend_from_slice(&buffer[..n]),
        }
    }
    drop(stdout);
    let pid = Pid::from_child(child);
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
        wait_readable(&process, end)?;
    }
    Ok((child.wait()?, output))
}

/// Waits until a read would not block.
fn wait_readable(fd: &impl AsFd, end: Instant) -> io::Result<()> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
