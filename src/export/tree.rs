//! The root file system alone: as a tar, or as a directory.

use std::path::Path;

use crate::layer::LayerWriter;
use crate::rootfs::{Times, Tree, export_tree, write_tree};
use crate::vocab::{Cancel, Compression};

use super::ExportError;
use super::archive::{WriteError, to_file};

/// Writes every file of each root as one tar to `path`; `-` is standard output. Each root has the directory beside it, which is empty
/// for the tar's root.
pub fn root_tar(
    roots: &[(String, Tree)],
    path: &Path,
    times: Times,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    to_file(path, |out| {
        let mut writer = LayerWriter::new(SendNothing(out), Compression::Uncompressed, 1);
        for (prefix, root) in roots {
            write_tree(root, prefix, times, &mut writer, cancel)
                .map_err(|error| WriteError::Other(ExportError::Root(error)))?;
        }
        writer.finish()?;
        Ok(())
    })
}

/// Writes every file of `root` below the directory `path`, which is made if it does not exist.
pub fn root_directory(
    root: &Tree,
    path: &Path,
    times: Times,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    export_tree(root, path, times, cancel)
        .map(drop)
        .map_err(ExportError::Root)
}

/// A sink that stays on its thread.
struct SendNothing<'a>(&'a mut dyn std::io::Write);

impl std::io::Write for SendNothing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
