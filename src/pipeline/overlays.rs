//! What `--context-overlay` lays over the main context: artifacts of earlier jobs, put together in a folder of the session that
//! goes with the build. The context itself is neither written to nor copied: it is read with that folder over it.
//!
//! It costs reading and writing the overlays once in each build; keys are made of their content, so a build whose every step hits
//! does nothing else with them. Downloaded archives stay in the state directory.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::context::{Kind, Query, Source, Visit, open_file, select};
use crate::layer::{
    Entry, EntryKind, Format, Mtime, ZipReader, decompress, detect, is_tar, is_zip,
};
use crate::plan::HttpKey;
use crate::rootfs::{ContextWriter, Tree};
use crate::vocab::{ContextOverlay, Diagnostic, ExitCode, OverlaySource, Timestamp, shown_url};

use super::remotes::Remotes;
use super::{Failure, failure};

/// Puts the overlays together, later ones over earlier ones. `context` is what they will lie over.
pub(super) fn put_together(
    overlays: &[ContextOverlay],
    remotes: &Remotes<'_>,
    context: &Path,
    now: Timestamp,
) -> Result<PathBuf, Failure> {
    let store_failed = |error: &_| failure::store(error);
    let folder = remotes.store().work_dir().map_err(|e| store_failed(&e))?;
    let folder = folder.join("overlay");
    let failed = |error: &(dyn std::error::Error + 'static)| {
        let message = "cannot keep what is laid over the build context";
        Failure::new(ExitCode::Store, Diagnostic::error(message).caused_by(error))
    };
    fs::create_dir(&folder).map_err(|error| failed(&error))?;
    let tree = Tree::open(&folder).map_err(|error| failed(&error))?;
    for overlay in overlays {
        let laid = Laid {
            overlay,
            folder: &folder,
            context,
            time: Mtime {
                seconds: now.seconds,
                nanoseconds: now.nanoseconds,
            },
        };
        // One after the other: what is described by none of them is made anew by each.
        let mut writer = ContextWriter::new(&tree, laid.time).map_err(|error| failed(&error))?;
        match &overlay.source {
            OverlaySource::Path(path) if path.is_dir() => laid.directory(path, &mut writer)?,
            OverlaySource::Path(path) => {
                let file = File::open(path).map_err(|error| laid.refuse(&error))?;
                let name = path.file_name().unwrap_or_default();
                laid.file(file, name.as_bytes(), &mut writer)?;
            }
            OverlaySource::Http(url) => {
                let kept = remotes.download(&HttpKey {
                    url: url.clone(),
                    checksum: None,
                })?;
                let file = remotes.store().downloaded(&kept.digest);
                let file = file.map_err(|error| store_failed(&error))?;
                let gone = || io::Error::other("it is gone from the state directory");
                let file = file.ok_or_else(|| laid.refuse(&gone()))?;
                laid.file(file, name_of(url).as_bytes(), &mut writer)?;
            }
        }
        writer.finish().map_err(|error| laid.refuse(&error))?;
    }
    Ok(folder)
}

/// Returns the last part of a URL's path.
fn name_of(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, path)| path);
    match path.trim_end_matches('/').rsplit_once('/') {
        Some((_, name)) if !name.is_empty() => name,
        _ => "download",
    }
}

/// One overlay.
struct Laid<'a> {
    overlay: &'a ContextOverlay,
    /// Where overlays are put together.
    folder: &'a Path,
    context: &'a Path,
    time: Mtime,
}

impl Laid<'_> {
    fn refuse(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        let name = match &self.overlay.source {
            OverlaySource::Path(path) => path.display().to_string(),
            OverlaySource::Http(url) => shown_url(url),
        };
        let message = format!("cannot lay `{name}` over the build context");
        Failure::new(
            ExitCode::Source,
            Diagnostic::error(message).caused_by(error),
        )
    }

    /// Lays the files of a directory over the context. It is read as a context is: no link leads out of it.
    fn directory(&self, path: &Path, writer: &mut ContextWriter<'_>) -> Result<(), Failure> {
        let refuse = |error: &(dyn std::error::Error + 'static)| self.refuse(error);
        let source = Source::directory(path, None).map_err(|error| refuse(&error))?;
        let all = Query {
            pattern: ".",
            parents: false,
            exclude: &[],
        };
        let selection = select(&source, &all).map_err(|error| refuse(&error))?;
        for root in &selection.roots {
            let mut walk = selection
                .walk(&source, root)
                .map_err(|error| refuse(&error))?;
            while let Some(visit) = walk.next().map_err(|error| refuse(&error))? {
                let (Visit::Enter { node, .. } | Visit::Leaf(node)) = visit else {
                    continue;
                };
                let mut content: Box<dyn Read> = Box::new(io::empty());
                let kind = match node.meta.kind {
                    Kind::Directory => EntryKind::Directory,
                    Kind::Symlink => {
                        let target = rustix::fs::readlinkat(node.parent, node.name, Vec::new());
                        EntryKind::Symlink {
                            target: target.map_err(|error| refuse(&error))?.into_bytes(),
                        }
                    }
                    Kind::File => {
                        let file = open_file(node.parent, node.name, node.source_path);
                        let file = File::from(file.map_err(|error| refuse(&error))?);
                        // Asked again: what was there a moment ago may have grown.
                        let size = file.metadata().map_err(|error| refuse(&error))?.len();
                        content = Box::new(file.take(size));
                        EntryKind::File { size }
                    }
                    // Nothing that a context can hold.
                    _ => continue,
                };
                let entry = Entry {
                    path: self.inside(node.path),
                    kind,
                    mode: node.meta.mode,
                    uid: 0,
                    gid: 0,
                    mtime: node.meta.mtime,
                    xattrs: Default::default(),
                };
                let written = writer.entry(entry, &mut content);
                written.map_err(|error| refuse(&error))?;
            }
        }
        Ok(())
    }

    /// Unpacks an archive, or puts the file itself there.
    fn file(
        &self,
        mut file: File,
        name: &[u8],
        writer: &mut ContextWriter<'_>,
    ) -> Result<(), Failure> {
        let refuse = |error: &(dyn std::error::Error + 'static)| self.refuse(error);
        let metadata = file.metadata().map_err(|error| refuse(&error))?;
        if !metadata.is_file() {
            return Err(refuse(&io::Error::other(
                "it is neither a file nor a directory",
            )));
        }
        // Much else is a zip archive inside, and is meant as the file that it is: .jar, .war, .apk, .whl.
        let is_named_zip = name.to_ascii_lowercase().ends_with(b".zip");
        if is_named_zip && is_zip(&first(&mut file).map_err(|error| refuse(&error))?) {
            return self.zip(file, writer);
        }
        if is_tar_inside(&mut file).map_err(|error| refuse(&error))? {
            let mut tar = decompress(file).map_err(|error| refuse(&error))?;
            let unpacked = writer.archive(&mut tar, self.overlay.dest.as_bytes());
            return unpacked.map_err(|error| refuse(&error));
        }
        let metadata_time = || {
            use std::os::unix::fs::MetadataExt as _;
            Mtime {
                seconds: metadata.mtime(),
                nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
            }
        };
        let is_own = matches!(self.overlay.source, OverlaySource::Path(_));
        let entry = Entry {
            path: match self.names_a_directory() {
                true => self.inside(name),
                false => self.overlay.dest.clone().into_bytes(),
            },
            kind: EntryKind::File {
                size: metadata.len(),
            },
            mode: match is_own {
                true => {
                    use std::os::unix::fs::PermissionsExt as _;
                    metadata.permissions().mode() & 0o7777
                }
                false => 0o644,
            },
            uid: 0,
            gid: 0,
            mtime: match is_own {
                true => metadata_time(),
                false => self.time,
            },
            xattrs: Default::default(),
        };
        writer
            .entry(entry, &mut file.take(metadata.len()))
            .map_err(|error| refuse(&error))
    }

    fn zip(&self, file: File, writer: &mut ContextWriter<'_>) -> Result<(), Failure> {
        let refuse = |error: &(dyn std::error::Error + 'static)| self.refuse(error);
        let mut zip = ZipReader::new(io::BufReader::new(file)).map_err(|error| refuse(&error))?;
        while let Some(mut member) = zip.next_member().map_err(|error| refuse(&error))? {
            member.entry.path = self.inside(&member.entry.path);
            let written = writer.entry(member.entry, &mut member.content);
            written.map_err(|error| refuse(&error))?;
        }
        Ok(())
    }

    /// Tells whether a file goes into the destination under its own name, as COPY has it.
    fn names_a_directory(&self) -> bool {
        let dest = &self.overlay.dest;
        self.overlay.is_into
            || dest.is_empty()
            || self.context.join(dest).is_dir()
            || self.folder.join(dest).is_dir()
    }

    /// Returns the path in the context.
    fn inside(&self, path: &[u8]) -> Vec<u8> {
        match self.overlay.dest.is_empty() {
            true => path.to_vec(),
            false => [self.overlay.dest.as_bytes(), path].join(&b'/'),
        }
    }
}

/// Returns how a file begins, and goes back to there.
fn first(file: &mut File) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(512);
    file.seek(SeekFrom::Start(0))?;
    file.take(512).read_to_end(&mut first)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(first)
}

/// Tells a tar, compressed or not, from all else: a compressed file that is no tar inside is a file like others.
fn is_tar_inside(file: &mut File) -> io::Result<bool> {
    let begin = first(file)?;
    if detect(&begin) == Format::Uncompressed {
        return Ok(is_tar(&begin));
    }
    let mut inner = Vec::with_capacity(512);
    let is_tar = match decompress(file.try_clone()?) {
        // What cannot be unpacked is no archive.
        Ok(plain) => plain.take(512).read_to_end(&mut inner).is_ok() && is_tar(&inner),
        Err(_) => false,
    };
    file.seek(SeekFrom::Start(0))?;
    Ok(is_tar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_file() {
        for (url, name) in [
            ("https://h/a/app.tgz", "app.tgz"),
            ("https://h/a/app.zip?token=x/y", "app.zip"),
            ("https://h/", "download"),
            ("https://h", "download"),
        ] {
            assert_eq!(name_of(url), name, "{url}");
        }
    }
}
