//! The files that tell the next job what was built: `--iidfile`, `--metadata-file`, and kaniko's files of digests.
//!
//! They are written when everything else has succeeded. A reader sees the old file or the whole new one: each is written beside its
//! place and renamed, unless what is there is no ordinary file, as the termination log of a Kubernetes container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde_json::json;

use crate::vocab::{BuildRequest, Diagnostic, Digest, ExitCode, ImageRef};

use super::Failure;
use super::deliver::Delivered;

/// Docker Hub's name in kaniko's files.
const DOCKER_HUB: &str = "index.docker.io";

impl Delivered {
    /// Writes the files that hold one thing each.
    pub(super) fn write_files(&self, request: &BuildRequest) -> Result<(), Failure> {
        if let Some(path) = &request.iidfile {
            let id = self.id().map(|id| id.to_string()).unwrap_or_default();
            write_result(path, id.as_bytes())?;
        }
        if let Some(path) = &request.metadata_file {
            write_result(path, &self.metadata())?;
        }
        let Some(top) = &self.top else {
            return Ok(());
        };
        let files = &request.digest_files;
        if let Some(path) = &files.digest {
            write_result(path, top.digest.to_string().as_bytes())?;
        }
        let names = match self.names.is_empty() {
            true => &request.tags,
            false => &self.names,
        };
        if let Some(path) = &files.name {
            write_result(path, lines(names, &top.digest, false).as_bytes())?;
        }
        if let Some(path) = &files.name_and_tag {
            write_result(path, lines(names, &top.digest, true).as_bytes())?;
        }
        Ok(())
    }

    pub(super) fn metadata(&self) -> Vec<u8> {
        let mut metadata = json!({});
        if let Some(top) = &self.top {
            metadata["containerimage.digest"] = json!(top.digest.to_string());
            metadata["containerimage.descriptor"] = json!({ "mediaType": top.media_type, "digest": top.digest.to_string(), "size": top.size });
        }
        if let [image] = self.images.as_slice() {
            metadata["containerimage.config.digest"] = json!(image.config.digest.to_string());
        }
        if !self.names.is_empty() {
            let names: Vec<String> = self.names.iter().map(ImageRef::to_string).collect();
            metadata["image.name"] = json!(names.join(","));
        }
        serde_json::to_vec_pretty(&metadata).expect("a JSON value can be written")
    }
}

/// Returns a line for each name, in the order in which they were given.
fn lines(names: &[ImageRef], digest: &Digest, with_tag: bool) -> String {
    let mut text = String::new();
    for name in names {
        let registry = match name.registry.as_str() {
            "docker.io" => DOCKER_HUB,
            other => other,
        };
        let tag = match &name.tag {
            Some(tag) if with_tag => format!(":{tag}"),
            _ => String::new(),
        };
        let line = format!("{registry}/{}{tag}@{digest}\n", name.repository);
        // One tag of several may be all that sets names apart.
        if !text.lines().any(|known| known == line.trim_end()) {
            text.push_str(&line);
        }
    }
    text
}

/// Writes a file that the next job reads.
pub fn write_result(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    put(path, bytes).map_err(|error| cannot_write(path, &error))
}

/// Sees to it, before anything is built, that a file can be written when it has been.
pub fn check_result(path: &Path) -> Result<(), Failure> {
    let is_free = |path: &Path, metadata: fs::Metadata| match metadata.is_dir() {
        true => access(path, Access::WRITE_OK | Access::EXEC_OK),
        false => Err(Errno::NOTDIR),
    };
    let checked = match fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(Errno::ISDIR),
        // It may be all of its directory that may be written.
        Ok(_) => access(path, Access::WRITE_OK),
        // What is missing above it is made. A link that leads nowhere is told when it is written through.
        Err(_) => path
            .ancestors()
            .skip(1)
            .map(|above| match above.as_os_str().is_empty() {
                true => Path::new("."),
                false => above,
            })
            .find_map(|above| Some(is_free(above, fs::metadata(above).ok()?)))
            .unwrap_or(Ok(())),
    };
    checked.map_err(|errno| cannot_write(path, &errno.into()))
}

pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        ExitCode::Export,
        Diagnostic::error(format!("cannot write `{}`", path.display())).caused_by(error),
    )
}

pub(super) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link is written through.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&path) {
        Ok(there) if !there.is_file() => return fs::write(&path, bytes),
        Ok(_) => {}
        Err(_) => {
            if let Some(parent) = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
            {
                fs::create_dir_all(parent)?;
            }
        }
    }
    let beside = beside(&path);
    let renamed = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, &path));
    if renamed.is_err() {
        // What was not written is not there to remove.
        fs::remove_file(&beside).ok();
        // A file may be mounted, or be all that may be written of its directory.
        return fs::write(&path, bytes);
    }
    Ok(())
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], with_tag: bool, expected: &str) {
        let names: Vec<ImageRef> = names.iter().map(|name| name.parse().unwrap()).collect();
        let digest = Digest::of(b"");
        let expected = expected.replace('D', &digest.to_string());
        assert_eq!(lines(&names, &digest, with_tag), expected);
    }

    #[test]
    fn names_are_written_as_kaniko_writes_them() {
        check(&["r.io:5000/a/b:1"], false, "r.io:5000/a/b@D\n");
        check(&["r.io/a:1", "r.io/a:2"], true, "r.io/a:1@D\nr.io/a:2@D\n");
        check(&["me/app"], true, "index.docker.io/me/app:latest@D\n");
        check(&["app:1"], false, "index.docker.io/library/app@D\n");
        check(&[], true, "");
    }

    #[test]
    fn a_file_is_replaced_whole_and_its_directories_are_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/digest");
        put(&path, b"one").unwrap();
        put(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        put(&link, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1);
        check_result(Path::new("/dev/null")).unwrap();
        put(Path::new("/dev/null"), b"x").unwrap();
        assert!(put(directory.path(), b"x").is_err());
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        check_result(&file).unwrap();
        check_result(&directory.path().join("a/b/c")).unwrap();
        check_result(Path::new("results-of-nobody")).unwrap();
        let why = |path: &Path| {
            check_result(path).unwrap_err().diagnostics[0]
                .causes
                .join("")
        };
        assert!(why(directory.path()).contains("Is a directory"));
        assert!(why(&file.join("below")).contains("Not a directory"));
    }
}
