//! RUN on this machine: a writable root, the command with all it asks for, the layer sealed.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::plan::Run;
use crate::rootfs::lookup_user;
use crate::sandbox::{self, Emulator, Exit, GroupError, MountSource, RunError, RunMount, RunSpec};
use crate::solve::{Job, StepError, StepResult};
use crate::store::PendingLayer;
use crate::vocab::{CancelReason, Diagnostic, Event, ExitCode, Rung, Stream, VertexId};

use super::Machine;
use super::memory::Memory;
use super::redact::Needles;
use super::root::{Root, Stub};
use super::steps::{mtime, user_failed, workdir_failed};

/// Lines of a failed command's output that are told again with the error.
const TAIL_LINES: usize = 20;

impl Machine<'_> {
    pub(super) fn run(&self, job: &Job<'_>, run: &Run) -> Result<StepResult, StepError> {
        let mut given = self.given(job, run)?;
        let layer = self.new_layer()?;
        let lowers = &job.inputs[0];
        let root = Root::writable(
            self,
            job.graph,
            lowers,
            &layer,
            Stub::MountPoints,
            job.cancel,
        )?;
        let tree = root.tree()?;
        let user = lookup_user(&tree, &run.user).map_err(|error| user_failed(&error))?;
        // A base may name a working directory that it does not have, and a step may have removed it.
        tree.make_dirs(run.cwd.as_bytes(), (0, 0), 0o755, mtime(self.setup.epoch))
            .map_err(|error| workdir_failed(&run.cwd, &error))?;
        given.tell_owners(root.owners());

        let mut env = run.env.clone();
        if !env.iter().any(|(name, _)| name == "HOME") {
            env.push(("HOME".to_owned(), user.home));
        }
        env.extend(
            run.ambient_env
                .iter()
                .filter(|(name, _)| !run.env.iter().any(|(other, _)| other == name))
                .cloned(),
        );
        env.retain(|(name, _)| !given.env.iter().any(|(other, _)| other == name));
        env.append(&mut given.env);
        let mut groups = user.groups;
        groups.append(&mut given.groups);
        let group = self.groups.get().map(|groups| groups.step());
        let group = group.transpose().map_err(|error| no_group(&error))?;
        let group = group.map(Arc::new);
        let memory = Memory::watch(group.clone());
        let scratch = match sandbox::entered_rung() {
            Some(Rung::Chroot | Rung::Paths) => {
                tell_sizes(job, &given.mounts);
                Some(scratch(&layer)?)
            }
            _ => None,
        };
        let spec = RunSpec {
            scratch,
            root: root.fd()?,
            argv: run.argv.clone(),
            env,
            cwd: run.cwd.clone(),
            uid: user.uid,
            gid: user.gid,
            groups,
            hostname: run.hostname.clone(),
            network: run.network,
            resolv_conf: sandbox::resolv_conf(),
            hosts: sandbox::hosts_file(&run.hostname, &run.add_hosts),
            shm_size: run.shm_size,
            ulimits: run.ulimits.clone(),
            mounts: std::mem::take(&mut given.mounts),
            security: run.security,
            devices: std::mem::take(&mut given.devices),
            emulators: self.emulators(run)?,
            ledger: root.owners().ledger(),
            group,
        };
        let needles = Needles::new(&given.secrets);
        let mut redactors = [needles.redactor(), needles.redactor()];
        let mut tail = Tail::default();
        let vertex = VertexId(job.step.0 as u32);
        let mut tell = |stream, bytes: Vec<u8>| {
            if bytes.is_empty() {
                return;
            }
            tail.push(&bytes);
            job.events.emit(Event::Output {
                vertex,
                stream,
                bytes,
            });
        };
        let ended = sandbox::run(
            spec,
            &mut |stream, bytes| {
                let redactor = match stream {
                    Stream::Stdout => &mut redactors[0],
                    Stream::Stderr => &mut redactors[1],
                };
                tell(stream, redactor.push(bytes));
            },
            job.cancel,
        );
        let [stdout, stderr] = redactors;
        tell(Stream::Stdout, stdout.finish());
        tell(Stream::Stderr, stderr.finish());
        let ended =
            ended.map_err(|error| memory.blame(if_full(&layer, run_failed(&error, job))))?;
        if let Some(ledger) = ended.ledger {
            root.owners().replace(ledger);
        }
        given.keep_owners(root.owners()).map_err(|error| {
            StepError::new(ExitCode::Store, "cannot keep the owners of a cache's files")
                .caused_by(&error)
        })?;
        // Caches and agents are needed no longer; the layer may take its time.
        drop(given);
        let command = run.argv.join(" ");
        let failure = match ended.exit {
            Exit::Code(0) => {
                // Whatever is left in its groups ends before its layer is read.
                drop(memory);
                return self.seal(job, layer, Some(root));
            }
            Exit::Code(code) => format!("`{command}` failed with exit code {code}"),
            Exit::Signal(signal) => format!("`{command}` was killed by signal {signal}"),
        };
        let mut error = StepError::new(ExitCode::Step, failure);
        if matches!(ended.exit, Exit::Signal(9)) && !memory.is_watched() {
            error = error
                .hint("signal 9 without a cause here mostly means that the memory limit was hit");
        }
        error.output = tail.lines();
        Err(memory.blame(if_full(&layer, error)))
    }

    /// Returns the emulator for programs of another machine, if the user gave one.
    fn emulators(&self, run: &Run) -> Result<Vec<Emulator>, StepError> {
        let given = run.foreign.as_ref().zip(self.credentials.get());
        let Some((architecture, program)) = given.and_then(|(platform, credentials)| {
            let architecture = &platform.architecture;
            Some((architecture, credentials.emulators.get(architecture)?))
        }) else {
            return Ok(Vec::new());
        };
        let program = program.try_clone().map_err(|error| {
            StepError::new(ExitCode::Internal, "cannot duplicate a descriptor").caused_by(&error)
        })?;
        Ok(vec![Emulator {
            architecture: architecture.clone(),
            program: OwnedFd::from(program),
        }])
    }
}

/// Blames a disk without room for a command's failure: the command says so in its own words, or not at all.
fn if_full(layer: &PendingLayer, error: StepError) -> StepError {
    /// What is left where writing has failed: file systems keep a little back, and what was asked for did not fit.
    const NOTHING: u64 = 256 << 10;
    match rustix::fs::statvfs(layer.fs()) {
        Ok(disk)
            if disk.f_bavail * disk.f_frsize < NOTHING
                || (disk.f_files > 0 && disk.f_favail == 0) =>
        {
            let failure = StepError {
                message: format!("{}, and the state directory's disk is full", error.message),
                ..error
            };
            failure.on_full_disk()
        }
        _ => error,
    }
}

/// Nothing is mounted for a command without namespaces: what it has as a file system of memory is a directory.
fn tell_sizes(job: &Job<'_>, mounts: &[RunMount]) {
    for mount in mounts {
        if let MountSource::Tmpfs { size: Some(_) } = mount.source {
            let warning = format!(
                "the size of the tmpfs at `{}` has no effect here: nothing can be mounted",
                mount.target
            );
            job.events
                .emit(Event::Diagnostic(Diagnostic::warning(warning)));
        }
    }
}

/// Makes a directory that goes with the layer's own, whether that is sealed or not.
fn scratch(layer: &PendingLayer) -> Result<OwnedFd, StepError> {
    let path = layer.work().join("command");
    let open = || {
        std::fs::create_dir(&path)?;
        std::fs::File::open(&path)
    };
    open().map(OwnedFd::from).map_err(|error| {
        let message = format!("cannot make `{}`", path.display());
        StepError::new(ExitCode::Sandbox, message).caused_by(&error)
    })
}

fn no_group(error: &GroupError) -> StepError {
    let mut failure =
        StepError::new(ExitCode::Sandbox, "the step cannot be limited").caused_by(error);
    failure.hints.extend(error.hint());
    failure
}

fn run_failed(error: &RunError, job: &Job<'_>) -> StepError {
    if job.cancel.is_cancelled() {
        let why = match job.cancel.reason() {
            Some(CancelReason::Timeout) => "stopped: the build's time is up",
            Some(CancelReason::Failed) => "stopped: another step failed",
            _ => "stopped",
        };
        return StepError::new(ExitCode::Step, why);
    }
    let class = match error {
        RunError::NotEntered
        | RunError::Spawn { .. }
        | RunError::Setup { .. }
        | RunError::Group { .. } => ExitCode::Sandbox,
        _ => ExitCode::Step,
    };
    let mut failure = StepError::new(class, error.to_string());
    if let Some(source) = std::error::Error::source(error) {
        failure = failure.caused_by(source);
    }
    failure.hints.extend(error.hint());
    failure
}

/// The last lines of what a command printed.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

/// A line longer than this is cut in what is told again.
const TAIL_WIDTH: usize = 4096;

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.open.len() < TAIL_WIDTH {
                self.open.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(
            String::from_utf8_lossy(&self.open)
                .trim_end_matches('\r')
                .to_owned(),
        );
        self.open.clear();
    }

    fn lines(mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.end_line();
        }
        self.lines.into()
    }
}
