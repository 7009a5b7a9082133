//! RUN, COPY, ADD and WORKDIR on this machine: a writable root, the work, the layer sealed.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::context::Source;
use crate::layer::Mtime;
use crate::plan::{Copy, CopyFrom, Op, Owner, Run, Workdir};
use crate::rootfs::{self, RootfsError, Tree, UserError, lookup_owner, lookup_user, tree_size};
use crate::sandbox::{self, Exit, MountSource, RunError, RunMount, RunSpec};
use crate::solve::{Job, StepError, StepResult, readings};
use crate::store::PendingLayer;
use crate::vocab::{CancelReason, Event, ExitCode, LayerId, Secret, Security, Timestamp, VertexId};

use super::Machine;
use super::add::{Opened, with_archives};
use super::base::Guarded;
use super::copy::{Chmod, CopyOptions, Item, copy};
use super::machine::select_for;
use super::root::{Root, Stub};

/// Lines of a failed command's output that are told again with the error.
const TAIL_LINES: usize = 20;

impl Machine<'_> {
    pub(super) fn run(&self, job: &Job<'_>, run: &Run) -> Result<StepResult, StepError> {
        let layer = self.new_layer()?;
        let lowers = &job.inputs[0];
        self.keep_mount_points(job, &layer)?;
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
        drop(tree);

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
        let spec = RunSpec {
            root: root.into_fd(),
            argv: run.argv.clone(),
            env,
            cwd: run.cwd.clone(),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups,
            hostname: run.hostname.clone(),
            network: run.network,
            resolv_conf: sandbox::resolv_conf(),
            hosts: sandbox::hosts_file(&run.hostname, &run.add_hosts),
            shm_size: run.shm_size,
            ulimits: run.ulimits.clone(),
            mounts: run
                .scripts
                .iter()
                .map(|script| RunMount {
                    target: script.path.clone(),
                    source: MountSource::File {
                        content: Secret::new(script.content.clone().into_bytes()),
                        mode: 0o755,
                        uid: 0,
                        gid: 0,
                    },
                })
                .collect(),
            security: Security::Sandbox,
            devices: Vec::new(),
            emulators: Vec::new(),
        };
        let mut tail = Tail::default();
        let vertex = VertexId(job.step.0 as u32);
        let exit = sandbox::run(
            spec,
            &mut |stream, bytes| {
                tail.push(bytes);
                job.events.emit(Event::Output {
                    vertex,
                    stream,
                    bytes: bytes.to_vec(),
                });
            },
            job.cancel,
        )
        .map_err(|error| if_full(&layer, run_failed(&error, job)))?;
        let command = run.argv.join(" ");
        let failure = match exit {
            Exit::Code(0) => return self.seal(job, layer),
            Exit::Code(code) => format!("`{command}` failed with exit code {code}"),
            Exit::Signal(signal) => format!("`{command}` was killed by signal {signal}"),
        };
        let mut error = StepError::new(ExitCode::Step, failure);
        if matches!(exit, Exit::Signal(9)) {
            error = error
                .hint("signal 9 without a cause here mostly means that the memory limit was hit");
        }
        error.output = tail.lines();
        Err(if_full(&layer, error))
    }

    pub(super) fn workdir(
        &self,
        job: &Job<'_>,
        workdir: &Workdir,
    ) -> Result<StepResult, StepError> {
        let layer = self.new_layer()?;
        let root = Root::writable(
            self,
            job.graph,
            &job.inputs[0],
            &layer,
            Stub::Empty,
            job.cancel,
        )?;
        let tree = root.tree()?;
        let user = lookup_user(&tree, &workdir.user).map_err(|error| user_failed(&error))?;
        let owner = (user.uid, user.gid);
        tree.make_dirs(workdir.path.as_bytes(), owner, 0o755, mtime(workdir.epoch))
            .map_err(|error| workdir_failed(&workdir.path, &error))?;
        drop((tree, root));
        self.seal(job, layer)
    }

    pub(super) fn copy(&self, job: &Job<'_>, step: &Copy) -> Result<StepResult, StepError> {
        let layer = self.new_layer()?;
        let mut inputs = self.open_sources(job, step)?;
        // On nothing, writing to the layer is the same as writing through a mount, and costs less.
        let on_nothing = job.inputs[0].is_empty();
        let root = if step.link || on_nothing {
            None
        } else {
            Some(Root::writable(
                self,
                job.graph,
                &job.inputs[0],
                &layer,
                Stub::Empty,
                job.cancel,
            )?)
        };
        let owner = match &step.chown {
            None => None,
            Some(chown) => {
                let names = match &root {
                    Some(root) => root.tree()?,
                    None if on_nothing => open_layer(&layer)?,
                    // Names of a linked copy are looked up in the root that it will be stacked on.
                    None => Root::read_only(self, job.graph, &job.inputs[0], job.cancel)?.tree()?,
                };
                Some(owner_of(&names, &chown.user, chown.group.as_ref())?)
            }
        };
        let tree = match &root {
            Some(root) => root.tree()?,
            None => open_layer(&layer)?,
        };
        let chmod = match &step.chmod {
            Some(text) => Some(
                Chmod::parse(text)
                    .map_err(|error| StepError::new(ExitCode::Dockerfile, error.to_string()))?,
            ),
            None => None,
        };
        let options = CopyOptions {
            destination: &step.destination,
            owner,
            chmod: chmod.as_ref(),
            link: step.link,
            parents: step.parents,
            epoch: step.epoch.map(Timestamp::from_seconds),
            now: now(),
        };
        let place = |items: &mut Vec<Item<'_>>| {
            copy(tree.as_fd(), &std::mem::take(items), &options, job.cancel)
                .map(drop)
                .map_err(|error| {
                    let mut failure = StepError::new(ExitCode::Step, error.to_string());
                    if let Some(source) = std::error::Error::source(&error) {
                        failure = failure.caused_by(source);
                    }
                    failure
                })
        };
        let mut items = Vec::new();
        for opened in &mut inputs {
            match opened {
                Opened::Inline { name, content } => items.push(Item::Inline {
                    name,
                    content: content.as_bytes(),
                }),
                Opened::Files { source, selection } => {
                    items.push(Item::Selected { source, selection })
                }
                Opened::Archive { name, tar } => {
                    if !items.is_empty() {
                        place(&mut items)?;
                    }
                    let mut tar = Guarded::new(tar, job.cancel);
                    let destination = step.destination.as_bytes();
                    rootfs::extract_archive(&mut tar, &tree, destination, owner, mtime(step.epoch))
                        .map_err(|error| {
                            StepError::new(ExitCode::Step, format!("cannot unpack `{name}`"))
                                .caused_by(&error)
                        })?;
                }
            }
        }
        if !items.is_empty() {
            place(&mut items)?;
        }
        drop(items);
        drop((tree, root));
        self.seal(job, layer)
    }

    /// Opens the sources of a copy in order.
    pub(super) fn open_sources<'s>(
        &self,
        job: &Job<'_>,
        step: &'s Copy,
    ) -> Result<Vec<Opened<'s>>, StepError> {
        let graph_step = &job.graph.steps[job.step.0];
        let mut readings = readings(graph_step).into_iter();
        let mut opened = Vec::new();
        for from in &step.sources {
            let input = match from {
                CopyFrom::Inline { name, content } => {
                    opened.push(Opened::Inline { name, content });
                    continue;
                }
                CopyFrom::Tree { input, .. } => *input,
            };
            let reading = readings.next().expect("one reading per tree source");
            let source = match &job.graph.steps[reading.tree.0].op {
                Op::Local(local) => self.source(local)?,
                _ => {
                    let root = Root::read_only(self, job.graph, &job.inputs[input], job.cancel)?;
                    std::sync::Arc::new(Source::tree(root.into_fd()))
                }
            };
            let selection = select_for(&source, &reading)?;
            match step.unpack {
                true => with_archives(source, selection, &reading.pattern, &mut opened)?,
                false => opened.push(Opened::Files { source, selection }),
            }
        }
        Ok(opened)
    }

    fn new_layer(&self) -> Result<PendingLayer, StepError> {
        self.store
            .new_layer()
            .map_err(|error| Machine::store_failed(&error))
    }

    /// Makes `/proc`, `/sys` and `/dev` in the layer where no layer below has them, as they stay in the image.
    fn keep_mount_points(&self, job: &Job<'_>, layer: &PendingLayer) -> Result<(), StepError> {
        let lowers = self.lowers(job.graph, &job.inputs[0], job.cancel)?;
        for name in ["proc", "sys", "dev"] {
            if lowers
                .iter()
                .any(|lower| lower.join(name).symlink_metadata().is_ok())
            {
                continue;
            }
            let path = layer.fs().join(name);
            std::fs::create_dir(&path).map_err(|error| {
                StepError::new(ExitCode::Store, format!("cannot make `{}`", path.display()))
                    .caused_by(&error)
            })?;
        }
        Ok(())
    }

    /// Puts the finished layer into the store.
    fn seal(&self, job: &Job<'_>, layer: PendingLayer) -> Result<StepResult, StepError> {
        let size = tree_size(&layer.fs()).map_err(|error| {
            StepError::new(ExitCode::Store, "cannot read the layer that the step made")
                .caused_by(&error)
        })?;
        let id = LayerId::from(job.result);
        layer
            .commit(&id, size)
            .map_err(|error| Machine::store_failed(&error))?;
        Ok(StepResult {
            id: job.result,
            layer: Some(id),
            created: now(),
            size,
        })
    }
}

fn mtime(seconds: Option<i64>) -> Option<Mtime> {
    seconds.map(|seconds| Mtime {
        seconds,
        nanoseconds: 0,
    })
}

/// Returns the present moment.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: since.as_secs() as i64,
        nanoseconds: since.subsec_nanos(),
    }
}

/// Looks up `--chown` in the root that is written.
pub(super) fn owner_of(
    tree: &Tree,
    user: &Owner,
    group: Option<&Owner>,
) -> Result<(u32, u32), StepError> {
    let meant = |owner: &Owner| match owner {
        Owner::Id(id) => rootfs::Owner::Id(*id),
        Owner::Name(name) => rootfs::Owner::Name(name.clone()),
    };
    lookup_owner(tree, &meant(user), group.map(meant).as_ref()).map_err(|error| user_failed(&error))
}

fn open_layer(layer: &PendingLayer) -> Result<Tree, StepError> {
    Tree::open(&layer.fs()).map_err(|error| super::root::mount_failed(&error))
}

fn user_failed(error: &UserError) -> StepError {
    StepError::new(ExitCode::Step, error.to_string())
        .hint("names are looked up in /etc/passwd and /etc/group of the image at this step; numbers always work")
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

fn workdir_failed(path: &str, error: &RootfsError) -> StepError {
    StepError::new(
        ExitCode::Step,
        format!("cannot make the working directory `{path}`"),
    )
    .caused_by(error)
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
        RunError::NotEntered | RunError::Spawn { .. } | RunError::Setup { .. } => ExitCode::Sandbox,
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
