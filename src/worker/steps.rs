//! COPY, ADD and WORKDIR on this machine: a writable root, the work, the layer sealed.

use std::time::SystemTime;

use crate::layer::Mtime;
use crate::plan::{Copy, CopyFrom, Op, Owner, Workdir};
use crate::rootfs::{
    self, Owners, RootfsError, Tree, UserError, lookup_owner, lookup_user, tree_size,
};
use crate::solve::{Job, StepError, StepResult, readings};
use crate::store::PendingLayer;
use crate::vocab::{ExitCode, LayerId, Timestamp};

use super::Machine;
use super::add::{Opened, with_archives};
use super::base::Guarded;
use super::copy::{Chmod, CopyError, CopyOptions, Item, copy};
use super::machine::select_for;
use super::root::{Root, Stub, owners_failed};

impl Machine<'_> {
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
        drop(tree);
        self.seal(job, layer, Some(root))
    }

    pub(super) fn copy(&self, job: &Job<'_>, step: &Copy) -> Result<StepResult, StepError> {
        let layer = self.new_layer()?;
        let mut inputs = self.open_sources(job, step)?;
        let chmod = match &step.chmod {
            Some(text) => Some(
                Chmod::parse(text)
                    .map_err(|error| StepError::new(ExitCode::Dockerfile, error.to_string()))?,
            ),
            None => None,
        };
        let options = CopyOptions {
            destination: &step.destination,
            owner: None,
            chmod: chmod.as_ref(),
            link: step.link,
            parents: step.parents,
            epoch: step.epoch.map(Timestamp::from_seconds),
            now: now(),
        };
        if job.is_wanted_packed_alone
            && let Some(made) = self.copy_packed(job, step, &layer, &inputs, options)?
        {
            return Ok(made);
        }
        // On nothing, writing to the layer is the same as writing through a mount, and costs less.
        let root = match step.link || job.inputs[0].is_empty() {
            true => None,
            false => Some(Root::writable(
                self,
                job.graph,
                &job.inputs[0],
                &layer,
                Stub::Empty,
                job.cancel,
            )?),
        };
        let tree = match &root {
            Some(root) => root.tree()?,
            None => self.open_layer(&layer)?,
        };
        let options = CopyOptions {
            owner: self.new_owner(job, step, &tree)?,
            ..options
        };
        let place = |items: &mut Vec<Item<'_>>| {
            copy(&tree, &std::mem::take(items), &options, job.cancel)
                .map(drop)
                .map_err(|error| copy_failed(&error))
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
                    let (destination, owner) = (step.destination.as_bytes(), options.owner);
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
        if root.is_none() {
            rootfs::note_owners(&layer.fs(), &tree, &[]).map_err(|error| owners_failed(&error))?;
        }
        drop(tree);
        // One of the sources may be the same root.
        drop(inputs);
        self.seal(job, layer, root)
    }

    /// Makes the packed layer of a copy and not its files, where that is possible. `layer` is empty and stays so.
    fn copy_packed(
        &self,
        job: &Job<'_>,
        step: &Copy,
        layer: &PendingLayer,
        inputs: &[Opened<'_>],
        options: CopyOptions<'_>,
    ) -> Result<Option<StepResult>, StepError> {
        let items: Option<Vec<Item<'_>>> = inputs.iter().map(Opened::item).collect();
        let Some(items) = items else {
            return Ok(None);
        };
        let tree = match step.link || job.inputs[0].is_empty() {
            true => self.open_layer(layer)?,
            false => Root::read_only(self, job.graph, &job.inputs[0], job.cancel)?.tree()?,
        };
        let options = CopyOptions {
            owner: self.new_owner(job, step, &tree)?,
            ..options
        };
        let packed = self.pack_straight(job, &tree, &items, &options)?;
        Ok(packed.map(|size| StepResult {
            id: job.result,
            layer: Some(LayerId::from(job.result)),
            created: now(),
            size,
        }))
    }

    /// Looks up the names of `--chown` in `tree`, or in the root that a linked copy will be stacked on.
    fn new_owner(
        &self,
        job: &Job<'_>,
        step: &Copy,
        tree: &Tree,
    ) -> Result<Option<(u32, u32)>, StepError> {
        let Some(chown) = &step.chown else {
            return Ok(None);
        };
        let below = match step.link && !job.inputs[0].is_empty() {
            true => Some(Root::read_only(self, job.graph, &job.inputs[0], job.cancel)?.tree()?),
            false => None,
        };
        let names = below.as_ref().unwrap_or(tree);
        owner_of(names, &chown.user, chown.group.as_ref()).map(Some)
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
            let op = &job.graph.steps[reading.tree.0].op;
            let fetched = self.fetched(op)?;
            let source = match (op, fetched) {
                (_, Some(fetched)) => fetched,
                (Op::Local(local), None) => self.source(local)?,
                _ => {
                    let root = Root::read_only(self, job.graph, &job.inputs[input], job.cancel)?;
                    std::sync::Arc::new(root.into_source()?)
                }
            };
            let selection = select_for(&source, &reading)?;
            let unpack = match op {
                Op::Http(http) => http.unpack,
                Op::Git(_) => false,
                _ => step.unpack,
            };
            match unpack {
                true => with_archives(source, selection, &reading.pattern, &mut opened)?,
                false => opened.push(Opened::Files { source, selection }),
            }
        }
        Ok(opened)
    }

    pub(super) fn new_layer(&self) -> Result<PendingLayer, StepError> {
        self.store
            .new_layer()
            .map_err(|error| Machine::store_failed(&error))
    }

    /// Opens a layer on nothing as a tree to fill.
    fn open_layer(&self, layer: &PendingLayer) -> Result<Tree, StepError> {
        let tree = Tree::open(&layer.fs()).map_err(|error| super::root::root_failed(&error))?;
        Ok(tree.with_owners(Owners::new(self.store.ownership())))
    }

    /// Puts the finished layer into the store; `root` is where it was made, unless that was the layer itself.
    pub(super) fn seal(
        &self,
        job: &Job<'_>,
        layer: PendingLayer,
        root: Option<Root>,
    ) -> Result<StepResult, StepError> {
        let finished = match root {
            Some(root) => Some(root.finish(&layer, job.cancel)?),
            None => None,
        };
        self.layers_stay()?;
        let size = tree_size(&layer.fs()).map_err(|error| {
            StepError::new(ExitCode::Store, "cannot read the layer that the step made")
                .caused_by(&error)
        })?;
        let id = LayerId::from(job.result);
        let is_new = self.layer_files(&id)?.is_none();
        let layer = layer
            .commit(&id, size)
            .map_err(|error| Machine::store_failed(&error))?;
        // A layer that was there is somebody else's: the same for every key, not to the second.
        if let Some(finished) = finished.filter(|_| is_new) {
            finished.has_become(layer.fs);
        }
        Ok(StepResult {
            id: job.result,
            layer: Some(id),
            created: now(),
            size,
        })
    }
}

pub(super) fn copy_failed(error: &CopyError) -> StepError {
    let failure = StepError::new(ExitCode::Step, error.to_string());
    match std::error::Error::source(error) {
        Some(source) => failure.caused_by(source),
        None => failure,
    }
}

pub(super) fn mtime(seconds: Option<i64>) -> Option<Mtime> {
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

pub(super) fn user_failed(error: &UserError) -> StepError {
    StepError::new(ExitCode::Step, error.to_string())
        .hint("names are looked up in /etc/passwd and /etc/group of the image at this step; numbers always work")
}

pub(super) fn workdir_failed(path: &str, error: &RootfsError) -> StepError {
    StepError::new(
        ExitCode::Step,
        format!("cannot make the working directory `{path}`"),
    )
    .caused_by(error)
}
