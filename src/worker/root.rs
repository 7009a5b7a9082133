//! The root of a step as a mounted tree.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::PoisonError;

use crate::plan::Graph;
use crate::rootfs::{RootfsError, Tree, mount_overlay, write_stub_layer};
use crate::solve::{ChainLayer, StepError};
use crate::store::PendingLayer;
use crate::vocab::{Cancel, ExitCode, LayerId};

use super::Machine;

/// A detached overlay mount: it goes when the last descriptor of it is closed, so nothing can be left behind.
pub(super) struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Mounts the layers of a root to look at.
    pub(super) fn read_only(
        machine: &Machine<'_>,
        graph: &Graph,
        root: &[ChainLayer],
        cancel: &Cancel,
    ) -> Result<Root, StepError> {
        let lowers = machine.lowers(graph, root, cancel)?;
        // Two lower layers at least: overlayfs wants them where nothing is writable.
        let stub = machine.empty_layer()?;
        let lowers: Vec<PathBuf> = std::iter::once(stub).chain(lowers).collect();
        Ok(Root {
            fd: mount_overlay(&lowers, None).map_err(|error| mount_failed(&error))?,
        })
    }

    /// Mounts the layers of a root with `layer` on top, where all changes go. `stub` puts mount points for RUN at the bottom.
    pub(super) fn writable(
        machine: &Machine<'_>,
        graph: &Graph,
        root: &[ChainLayer],
        layer: &PendingLayer,
        stub: Stub,
        cancel: &Cancel,
    ) -> Result<Root, StepError> {
        let lowers = machine.lowers(graph, root, cancel)?;
        let bottom = match stub {
            Stub::MountPoints => machine.stub_layer()?,
            Stub::Empty => machine.empty_layer()?,
        };
        let lowers: Vec<PathBuf> = std::iter::once(bottom).chain(lowers).collect();
        let fd = mount_overlay(&lowers, Some((&layer.fs(), &layer.work())))
            .map_err(|error| mount_failed(&error))?;
        Ok(Root { fd })
    }

    /// Opens the root as a tree whose paths cannot leave it.
    pub(super) fn tree(&self) -> Result<Tree, StepError> {
        let fd = self.fd.try_clone().map_err(|error| {
            StepError::new(
                ExitCode::Internal,
                "cannot duplicate the descriptor of a root",
            )
            .caused_by(&error)
        })?;
        Ok(Tree::from_fd(fd))
    }

    /// Hands over the mount.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// What lies under the lowest layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stub {
    /// Files and directories that RUN mounts on, so that none has to be made in the image.
    MountPoints,
    Empty,
}

impl Machine<'_> {
    /// Mounts a root for whoever exports its files.
    pub fn open_root(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        cancel: &Cancel,
    ) -> Result<Tree, StepError> {
        Ok(Tree::from_fd(
            Root::read_only(self, graph, root, cancel)?.into_fd(),
        ))
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
            present().insert(*id, layer.fs.clone());
        }
        Ok(found.map(|layer| layer.fs))
    }

    fn stub_layer(&self) -> Result<PathBuf, StepError> {
        let path = self
            .store
            .work_dir()
            .map_err(|error| Machine::store_failed(&error))?
            .join("mount-points");
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if !path.exists() {
            write_stub_layer(&path).map_err(|error| mount_failed(&error))?;
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

pub(super) fn mount_failed(error: &RootfsError) -> StepError {
    let is_io = matches!(error, RootfsError::Io { .. });
    let class = if is_io {
        ExitCode::Store
    } else {
        ExitCode::Sandbox
    };
    let failure = StepError::new(class, "cannot mount the root of the step").caused_by(error);
    if is_io {
        return failure;
    }
    failure.hint("overlayfs is needed: its files cannot lie on overlayfs themselves, so `--root` must name a disk, volume or tmpfs")
}
