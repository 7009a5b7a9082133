//! Images as one tar: an OCI layout, or what `docker load` takes (the same with a `manifest.json`).

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::layer::{Entry, EntryKind, Mtime, TarWriter};

use super::layout::{LAYOUT_FILE, index_json};
use super::{Blobs, Export, ExportError};

/// Writes an OCI layout as a tar to `path`; `-` is standard output.
pub fn oci_archive(export: &Export<'_>, blobs: &Blobs<'_>, path: &Path) -> Result<(), ExportError> {
    to_file(path, |out| write(export, blobs, &[], out))
}

/// Writes an archive that `docker load` takes to `path`; `-` is standard output.
pub fn docker_archive(
    export: &Export<'_>,
    blobs: &Blobs<'_>,
    path: &Path,
) -> Result<(), ExportError> {
    let [image] = export.images.as_slice() else {
        return Err(ExportError::SeveralPlatforms(export.images.len()));
    };
    let blob = |digest: &crate::vocab::Digest| format!("blobs/sha256/{}", digest.hex());
    let manifest = json!([{
        "Config": blob(&image.config.digest),
        "RepoTags": export.names.iter().filter(|name| name.tag.is_some()).map(|name| name.familiar()).collect::<Vec<_>>(),
        "Layers": image.layers.iter().map(|layer| blob(&layer.digest)).collect::<Vec<_>>(),
    }]);
    let manifest = serde_json::to_vec(&manifest).expect("a JSON value can be written");
    to_file(path, |out| {
        write(export, blobs, &[("manifest.json", &manifest)], out)
    })
}

fn write(
    export: &Export<'_>,
    blobs: &Blobs<'_>,
    more: &[(&str, &[u8])],
    out: &mut dyn Write,
) -> Result<(), WriteError> {
    let mut tar = TarWriter::new(out);
    for directory in ["blobs", "blobs/sha256"] {
        tar.entry(&entry(directory, EntryKind::Directory), &mut io::empty())?;
    }
    let mut written = Vec::new();
    for (descriptor, bytes) in export.documents() {
        if !written.contains(&descriptor.digest) {
            written.push(descriptor.digest);
            file(
                &mut tar,
                &format!("blobs/sha256/{}", descriptor.digest.hex()),
                bytes.len() as u64,
                &mut &bytes[..],
            )?;
        }
    }
    for layer in export.layers() {
        let mut blob = blobs.reader(layer)?;
        file(
            &mut tar,
            &format!("blobs/sha256/{}", layer.digest.hex()),
            layer.size,
            &mut blob,
        )?;
    }
    let index = index_json(export, &Value::Null);
    file(
        &mut tar,
        "index.json",
        index.len() as u64,
        &mut index.as_slice(),
    )?;
    for (name, bytes) in more {
        file(&mut tar, name, bytes.len() as u64, &mut &bytes[..])?;
    }
    file(
        &mut tar,
        "oci-layout",
        LAYOUT_FILE.len() as u64,
        &mut LAYOUT_FILE.as_bytes(),
    )?;
    tar.finish()?;
    Ok(())
}

fn file(
    tar: &mut TarWriter<&mut dyn Write>,
    path: &str,
    size: u64,
    content: &mut dyn Read,
) -> io::Result<()> {
    tar.entry(&entry(path, EntryKind::File { size }), content)
}

/// Entries of the archive itself carry no time and no owner, so that equal images make equal archives.
fn entry(path: &str, kind: EntryKind) -> Entry {
    let mode = if kind == EntryKind::Directory {
        0o755
    } else {
        0o644
    };
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        xattrs: std::collections::BTreeMap::new(),
    }
}

/// Tells the failure of the sink (which knows its path later) from others.
pub(super) enum WriteError {
    Sink(io::Error),
    Other(ExportError),
}

impl WriteError {
    fn at(self, path: &Path) -> ExportError {
        match self {
            WriteError::Sink(error) => ExportError::io("write", path)(error),
            WriteError::Other(error) => error,
        }
    }
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        WriteError::Sink(error)
    }
}

impl From<ExportError> for WriteError {
    fn from(error: ExportError) -> WriteError {
        WriteError::Other(error)
    }
}

/// Lets `fill` write beside `path` and gives it its name at the end; `-` is standard output.
pub(super) fn to_file(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), WriteError>,
) -> Result<(), ExportError> {
    if path == Path::new("-") {
        let mut out = BufWriter::with_capacity(1 << 18, io::stdout().lock());
        let filled = fill(&mut out).and_then(|()| out.flush().map_err(WriteError::Sink));
        return filled.map_err(|error| match error {
            WriteError::Sink(error) => ExportError::Stdout(error),
            WriteError::Other(error) => error,
        });
    }
    // A device or FIFO is written to, not replaced.
    let is_special =
        fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
    if is_special {
        let filled = File::options()
            .write(true)
            .open(path)
            .map_err(WriteError::Sink)
            .and_then(|file| {
                let mut out = BufWriter::with_capacity(1 << 18, file);
                fill(&mut out)?;
                out.flush().map_err(WriteError::Sink)
            });
        return filled.map_err(|error| error.at(path));
    }
    let beside = beside(path);
    let filled = File::create(&beside)
        .map_err(WriteError::Sink)
        .and_then(|file| {
            let mut out = BufWriter::with_capacity(1 << 18, file);
            fill(&mut out)?;
            out.flush()?;
            fs::rename(&beside, path)?;
            Ok(())
        });
    filled.map_err(|error| {
        drop(fs::remove_file(&beside));
        error.at(path)
    })
}

fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}
