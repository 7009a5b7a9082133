//! The root of a step: layers stacked by overlayfs, or a plain directory that stands for them.
//!
//! Which of the two is decided once per build, when the process has entered the place where steps run. Steps do not see the
//! difference: they open a root, change it, and [`Machine::seal`] finds their changes in the layer's directory.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use crate::context::Source;
use crate::plan::Graph;
use crate::rootfs::{
    Owners, RootfsError, Tree, TreeWriter, Trees, mount_overlay, note_owners, seed_owners,
    settle_marks, subtree, write_stub_layer,
};
use crate::solve::{ChainLayer, StepError};
use crate::store::PendingLayer;
use crate::vocab::{Cancel, ExitCode, LayerId, StorageDriver};

use super::Machine;

/// A root that is there for as long as this is.
pub(super) struct Root {
    tree: Tree,
    holder: Holder,
}

enum Holder {
    /// A detached overlay mount goes when the last descriptor of it is closed, and a shared tree with the last handle of it.
    Itself,
    /// A mount that writes to a layer's directory, on these, lowest first.
    Mount {
        lowers: Vec<PathBuf>,
    },
    /// A mount whose changes are nobody's.
    Upper {
        _layer: PendingLayer,
    },
    Writer(TreeWriter),
}

impl Root {
    /// Opens a root to look at.
    pub(super) fn read_only(
        machine: &Machine<'_>,
        graph: &Graph,
        root: &[ChainLayer],
        cancel: &Cancel,
    ) -> Result<Root, StepError> {
        let lowers = machine.lowers(graph, root, cancel)?;
        let tree = match machine.driver() {
            StorageDriver::Overlay => {
                // Two lower layers at least: overlayfs wants them where nothing is writable.
                let lowers = on_top_of(machine.empty_layer()?, lowers);
                let fd = mount_overlay(&lowers, None).map_err(|error| root_failed(&error))?;
                seeded(machine, fd, &lowers, false)?
            }
            StorageDriver::Tree => {
                let tree = machine.trees()?.read(&lowers, cancel);
                tree.map_err(|error| root_failed(&error))?
            }
        };
        Ok(Root {
            tree,
            holder: Holder::Itself,
        })
    }

    /// Opens a root whose changes become `layer`: at once, or when it is sealed. With [`Stub::MountPoints`] a process can run in it.
    pub(super) fn writable(
        machine: &Machine<'_>,
        graph: &Graph,
        root: &[ChainLayer],
        layer: &PendingLayer,
        stub: Stub,
        cancel: &Cancel,
    ) -> Result<Root, StepError> {
        let lowers = machine.lowers(graph, root, cancel)?;
        match machine.driver() {
            StorageDriver::Overlay => {
                if stub == Stub::MountPoints {
                    keep_mount_points_below(&lowers, layer)?;
                }
                mounted(machine, lowers, layer, stub)
            }
            StorageDriver::Tree => {
                let writer = machine.trees()?.write(&lowers, cancel);
                let root = Root::written(writer)?;
                if stub == Stub::MountPoints {
                    keep_mount_points(&root.tree)?;
                }
                Ok(root)
            }
        }
    }

    /// Opens a root whose changes are nobody's.
    pub(super) fn throwaway(
        machine: &Machine<'_>,
        graph: &Graph,
        root: &[ChainLayer],
        cancel: &Cancel,
    ) -> Result<Root, StepError> {
        let lowers = machine.lowers(graph, root, cancel)?;
        match machine.driver() {
            StorageDriver::Overlay => {
                let layer = machine.new_layer()?;
                let root = mounted(machine, lowers, &layer, Stub::Empty)?;
                Ok(Root {
                    holder: Holder::Upper { _layer: layer },
                    ..root
                })
            }
            StorageDriver::Tree => Root::written(machine.trees()?.copy(&lowers, cancel)),
        }
    }

    fn written(writer: Result<TreeWriter, RootfsError>) -> Result<Root, StepError> {
        let open = |writer: TreeWriter| {
            Ok(Root {
                tree: writer.tree()?,
                holder: Holder::Writer(writer),
            })
        };
        writer.and_then(open).map_err(|error| root_failed(&error))
    }

    /// Opens the root as a tree whose paths cannot leave it.
    pub(super) fn tree(&self) -> Result<Tree, StepError> {
        self.tree.try_clone().map_err(|error| root_failed(&error))
    }

    /// Returns what its files are in the image. A command changes it.
    pub(super) fn owners(&self) -> &Owners {
        self.tree.owners()
    }

    /// Opens the root for who mounts it, which must let go of it before this goes.
    pub(super) fn fd(&self) -> Result<OwnedFd, StepError> {
        self.tree.as_fd().try_clone_to_owned().map_err(|error| {
            StepError::new(
                ExitCode::Internal,
                "cannot duplicate the descriptor of a root",
            )
            .caused_by(&error)
        })
    }

    /// Opens a part of the root for who mounts it; links on the way are followed inside.
    pub(super) fn part(&self, path: &str) -> Result<OwnedFd, RootfsError> {
        match self.tree.is_composed() {
            // It need not be a mount of its own, and where nothing can be mounted it cannot.
            true => self.tree.open_path(path.as_bytes(), true),
            false => {
                let root = self.tree.try_clone()?;
                subtree(root.into_fd(), path.as_bytes())
            }
        }
    }

    /// Makes it what instructions copy from.
    pub(super) fn into_source(self) -> Result<Source, StepError> {
        let fd = self.fd()?;
        let ledger = self.owners().ledger();
        let root: Arc<dyn Any + Send + Sync> = Arc::new(self.tree);
        Ok(Source::tree(fd, ledger).holding(root))
    }

    /// Puts what a step has changed into its layer, which may be placed then. Nothing may be running in the root.
    pub(super) fn finish(
        self,
        layer: &PendingLayer,
        cancel: &Cancel,
    ) -> Result<Finished, StepError> {
        let mut writer = match self.holder {
            Holder::Writer(writer) => writer,
            Holder::Mount { lowers } => {
                note_owners(&layer.fs(), &self.tree, &lowers)
                    .map_err(|error| owners_failed(&error))?;
                return Ok(Finished(None));
            }
            Holder::Itself | Holder::Upper { .. } => return Ok(Finished(None)),
        };
        drop(self.tree);
        match writer.fill(&layer.fs(), cancel) {
            Ok(_) => Ok(Finished(Some(writer))),
            Err(RootfsError::Cancelled) => Err(StepError::new(ExitCode::Step, "cancelled")),
            Err(error) => {
                let class = match error {
                    RootfsError::Io { .. } => ExitCode::Store,
                    _ => ExitCode::Step,
                };
                Err(StepError::new(class, "cannot make the layer of this step").caused_by(&error))
            }
        }
    }
}

/// A root whose step is over.
pub(super) struct Finished(Option<TreeWriter>);

impl Finished {
    /// Says where the layer is that the root has on top.
    pub(super) fn has_become(self, layer: PathBuf) {
        if let Some(writer) = self.0 {
            writer.seal(layer);
        }
    }
}

/// What lies under the lowest layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stub {
    /// Files and directories that RUN mounts on, so that none has to be made in the image.
    MountPoints,
    Empty,
}

/// Directories that every image has in which something has run.
const KEPT_MOUNT_POINTS: [&str; 3] = ["proc", "sys", "dev"];

fn mounted(
    machine: &Machine<'_>,
    lowers: Vec<PathBuf>,
    layer: &PendingLayer,
    stub: Stub,
) -> Result<Root, StepError> {
    let bottom = match stub {
        Stub::MountPoints => machine.stub_layer()?,
        Stub::Empty => machine.empty_layer()?,
    };
    let lowers = on_top_of(bottom, lowers);
    let fd = mount_overlay(&lowers, Some((&layer.fs(), &layer.work())))
        .map_err(|error| root_failed(&error))?;
    Ok(Root {
        tree: seeded(machine, fd, &lowers, true)?,
        holder: Holder::Mount { lowers },
    })
}

/// Makes a tree of a mount, with what the layers say of its files.
fn seeded(
    machine: &Machine<'_>,
    mount: OwnedFd,
    lowers: &[PathBuf],
    is_writable: bool,
) -> Result<Tree, StepError> {
    let ownership = machine.store.ownership();
    let owners = seed_owners(ownership, mount.as_fd(), lowers, is_writable)
        .map_err(|error| owners_failed(&error))?;
    Ok(Tree::from_fd(mount).with_owners(owners))
}

fn on_top_of(bottom: PathBuf, lowers: Vec<PathBuf>) -> Vec<PathBuf> {
    std::iter::once(bottom).chain(lowers).collect()
}

/// Makes `/proc`, `/sys` and `/dev` in the layer where no layer below has them, as they stay in the image.
fn keep_mount_points_below(lowers: &[PathBuf], layer: &PendingLayer) -> Result<(), StepError> {
    for name in KEPT_MOUNT_POINTS {
        let is_there = |lower: &PathBuf| lower.join(name).symlink_metadata().is_ok();
        if lowers.iter().any(is_there) {
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

/// Makes them in a plain directory.
fn keep_mount_points(tree: &Tree) -> Result<(), StepError> {
    for name in KEPT_MOUNT_POINTS {
        let make = || -> Result<(), RootfsError> {
            if tree.stat(name.as_bytes(), false)?.is_none() {
                tree.make_dirs(name.as_bytes(), (0, 0), 0o755, None)?;
            }
            Ok(())
        };
        make().map_err(|error| root_failed(&error))?;
    }
    Ok(())
}

impl Machine<'_> {
    /// Decides how roots are put together. Called once, before the first step is executed.
    pub fn put_roots_together_by(&self, driver: StorageDriver) {
        let known = self.driver.set(driver);
        debug_assert!(known.is_ok(), "the driver is chosen once");
    }

    /// Opens a root for whoever exports its files.
    pub fn open_root(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        cancel: &Cancel,
    ) -> Result<Tree, StepError> {
        Ok(Root::read_only(self, graph, root, cancel)?.tree)
    }

    /// Returns the directories of a root's layers, lowest first, after fetching and unpacking those that are not here.
    pub(super) fn lowers(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        cancel: &Cancel,
    ) -> Result<Vec<PathBuf>, StepError> {
        self.unpack_bases(graph, root, cancel)?;
        root.iter()
            .map(|layer| {
                self.layer_files(&layer.id())?.ok_or_else(|| {
                    self.is_lost_below(&layer.id());
                    StepError::new(
                        ExitCode::Store,
                        format!("layer {} is gone from the state directory", layer.id()),
                    )
                    .hint("something removed it while the build ran: build again")
                })
            })
            .collect()
    }

    /// Returns the directory of a layer if it is complete. Asks the store once for each.
    pub(super) fn layer_files(&self, id: &LayerId) -> Result<Option<PathBuf>, StepError> {
        let present = || self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = present().get(id) {
            return Ok(Some(path.clone()));
        }
        let found = self
            .store
            .layer(id)
            .map_err(|error| Machine::store_failed(&error))?;
        if let Some(layer) = &found {
            if layer.is_below {
                if !self.takes_from_below(id, layer) {
                    return self.layer_files(id);
                }
            } else if self.driver() == StorageDriver::Overlay {
                // Made as a tree, on a disk that took no marks then.
                settle_marks(&layer.fs).map_err(|error| root_failed(&error))?;
            }
            present().insert(*id, layer.fs.clone());
        }
        Ok(found.map(|layer| layer.fs))
    }

    pub(super) fn driver(&self) -> StorageDriver {
        *self.driver.get().unwrap_or(&StorageDriver::Overlay)
    }

    fn trees(&self) -> Result<&Trees, StepError> {
        if let Some(trees) = self.trees.get() {
            return Ok(trees);
        }
        let work = self
            .store
            .work_dir()
            .map_err(|error| Machine::store_failed(&error))?;
        Ok(self
            .trees
            .get_or_init(|| Trees::new(work.join("trees"), self.store.ownership())))
    }

    fn stub_layer(&self) -> Result<PathBuf, StepError> {
        let path = self
            .store
            .work_dir()
            .map_err(|error| Machine::store_failed(&error))?
            .join("mount-points");
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if !path.exists() {
            write_stub_layer(&path, self.store.ownership()).map_err(|error| root_failed(&error))?;
        }
        Ok(path)
    }

    fn empty_layer(&self) -> Result<PathBuf, StepError> {
        let path = self
            .store
            .work_dir()
            .map_err(|error| Machine::store_failed(&error))?
            .join("empty");
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(StepError::new(
                ExitCode::Store,
                format!("cannot make `{}`", path.display()),
            )
            .caused_by(&error)),
            _ => Ok(path),
        }
    }
}

/// Says that the owners of a tree's files cannot be read or written.
pub(super) fn owners_failed(error: &RootfsError) -> StepError {
    StepError::new(
        ExitCode::Store,
        "cannot tell the owners of the files of a step",
    )
    .caused_by(error)
}

pub(super) fn root_failed(error: &RootfsError) -> StepError {
    let class = match error {
        RootfsError::Cancelled => return StepError::new(ExitCode::Step, "cancelled"),
        RootfsError::Mount { .. } | RootfsError::TooManyLayers { .. } => ExitCode::Sandbox,
        _ => ExitCode::Store,
    };
    let failure =
        StepError::new(class, "cannot put the root of the step together").caused_by(error);
    match error {
        RootfsError::Mount { .. } => failure.hint("overlayfs is needed: its files cannot lie on overlayfs themselves, so `--root` must name a disk, volume or tmpfs; `--storage-driver tree` does without"),
        RootfsError::Marks { .. } => failure.hint("`--storage-driver tree` can use it"),
        _ => failure,
    }
}
