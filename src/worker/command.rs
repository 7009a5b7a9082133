//! A command in a root: what a RUN does, what tries an image out, and what looks into a failed step are all this.
//!
//! In: a root with the layer that it writes to, the command with all it asks for, and where its streams lead. Out: how it ended.
//! It does not decide what becomes of the layer.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::plan::Run;
use crate::rootfs::lookup_user;
use crate::sandbox::{
    self, Dialogue, Emulator, Exit, GroupError, MountSource, RunError, RunMount, RunSpec,
};
use crate::solve::{Job, StepError};
use crate::store::PendingLayer;
use crate::vocab::{Diagnostic, Event, ExitCode, Rung, Stream, VertexId};

use super::Machine;
use super::memory::Memory;
use super::mounts::{Given, in_order};
use super::redact::Needles;
use super::root::Root;
use super::steps::{mtime, user_failed, workdir_failed};

/// Lines of a failed command's output that are told again with the error.
const TAIL_LINES: usize = 20;

/// Where the streams of a command lead.
pub enum Streams<'a> {
    /// What it prints becomes events of its step, without secrets; it reads nothing.
    Told,
    /// It speaks with whoever started it.
    Attended(Attended<'a>),
}

/// Somebody who speaks with a command.
pub struct Attended<'a> {
    pub dialogue: Dialogue<'a>,
    /// Takes what it prints.
    pub output: &'a mut dyn FnMut(Stream, &[u8]),
}

/// A file or directory of this machine that a command sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMount {
    pub source: PathBuf,
    /// Absolute.
    pub target: String,
    pub read_only: bool,
}

/// A command and where it runs.
pub(super) struct Attempt<'a> {
    pub(super) root: &'a Root,
    /// What the root writes to.
    pub(super) layer: &'a PendingLayer,
    pub(super) run: &'a Run,
    pub(super) host_mounts: &'a [HostMount],
}

/// A command that has come to its end.
pub(super) struct Performed {
    /// How it ended, or why it never began.
    pub(super) ended: Result<Exit, RunError>,
    /// The last lines that it printed, if they were told.
    pub(super) tail: Vec<String>,
    /// Knows whether memory ran out. What is left in the command's groups ends with it.
    pub(super) memory: Memory,
}

impl Machine<'_> {
    /// Runs a command to its end. `given` is what [`given`](Machine::given) prepared for it, before the root was made.
    pub(super) fn perform(
        &self,
        job: &Job<'_>,
        attempt: &Attempt<'_>,
        mut given: Given,
        streams: Streams<'_>,
    ) -> Result<Performed, StepError> {
        let Attempt {
            root, layer, run, ..
        } = *attempt;
        for mount in attempt.host_mounts {
            given.mounts.push(open_mount(mount)?);
        }
        in_order(&mut given.mounts);
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
                Some(scratch(layer)?)
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
        let (ended, tail) = match streams {
            Streams::Told => tell(job, spec, self.needles()),
            Streams::Attended(Attended { dialogue, output }) => (
                sandbox::run_attended(spec, &dialogue, output, job.cancel),
                Vec::new(),
            ),
        };
        let ended = match ended {
            Ok(ended) => {
                if let Some(ledger) = ended.ledger {
                    root.owners().replace(ledger);
                }
                given.keep_owners(root.owners()).map_err(|error| {
                    StepError::new(ExitCode::Store, "cannot keep the owners of a cache's files")
                        .caused_by(&error)
                })?;
                Ok(ended.exit)
            }
            Err(error) => Err(error),
        };
        // Caches and agents are needed no longer; the layer may take its time.
        drop(given);
        Ok(Performed {
            ended,
            tail,
            memory,
        })
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

/// Runs a command whose output is told, without secrets. Returns also the last lines of it.
fn tell(
    job: &Job<'_>,
    spec: RunSpec,
    needles: &Needles,
) -> (Result<sandbox::Ended, RunError>, Vec<String>) {
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
    (ended, tail.lines())
}

/// Opens what a command sees of this machine.
fn open_mount(mount: &HostMount) -> Result<RunMount, StepError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&mount.source, flags, Mode::empty()).map_err(|errno| {
        StepError::new(
            ExitCode::Source,
            format!("cannot mount `{}`", mount.source.display()),
        )
        .caused_by(&std::io::Error::from(errno))
    })?;
    Ok(RunMount {
        target: mount.target.clone(),
        source: MountSource::Tree {
            fd,
            read_only: mount.read_only,
        },
    })
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
    let mut at = 0;
    let path = loop {
        let path = layer.work().join(format!("command-{at}"));
        match std::fs::create_dir(&path) {
            Ok(()) => break path,
            // Of a command that ran in the same root before.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => at += 1,
            Err(error) => return Err(scratch_failed(&path, &error)),
        }
    };
    let opened = File::open(&path).map(OwnedFd::from);
    opened.map_err(|error| scratch_failed(&path, &error))
}

fn scratch_failed(path: &Path, error: &std::io::Error) -> StepError {
    let message = format!("cannot make `{}`", path.display());
    StepError::new(ExitCode::Sandbox, message).caused_by(error)
}

fn no_group(error: &GroupError) -> StepError {
    let mut failure =
        StepError::new(ExitCode::Sandbox, "the step cannot be limited").caused_by(error);
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
