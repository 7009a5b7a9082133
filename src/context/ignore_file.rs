//! Finds the file that says what is left out of a context.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::error::ContextError;
use super::meta::{Kind, Meta};

/// Returns the ignore file of a context and its text, if there is one. The first that exists wins whole:
///
/// 1. `<Dockerfile>.dockerignore` beside the Dockerfile; for a name that starts with `Containerfile`, `.containerignore` in its
///    place before it;
/// 2. `.dockerignore` in the context, or else `.containerignore`; with such a name it is the other way round.
///
/// `dockerfile` is `None` where it does not come from a file.
pub fn ignore_file(
    context: &Path,
    dockerfile: Option<&Path>,
) -> Result<Option<(PathBuf, String)>, ContextError> {
    let name = dockerfile.and_then(Path::file_name);
    let endings: &[&str] = match name {
        Some(name) if name.as_encoded_bytes().starts_with(b"Containerfile") => {
            &[".containerignore", ".dockerignore"]
        }
        _ => &[".dockerignore"],
    };
    let beside = dockerfile.into_iter().flat_map(|dockerfile| {
        endings.iter().map(move |ending| {
            let mut name = OsString::from(dockerfile.file_name().unwrap_or_default());
            name.push(ending);
            dockerfile.with_file_name(name)
        })
    });
    let inside = endings
        .iter()
        .chain(&[".containerignore"])
        .map(|name| context.join(name));
    for path in beside.chain(inside) {
        if let Some(text) = read(&path)? {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<String>, ContextError> {
    let failed = |source: io::Error| ContextError::Io {
        verb: "read",
        path: path.to_owned(),
        source,
    };
    // A FIFO must not make the build wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(failed(error.into())),
    };
    if Meta::of(&file).map_err(|error| failed(error.into()))?.kind != Kind::File {
        return Err(ContextError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut text = Vec::new();
    std::fs::File::from(file)
        .read_to_end(&mut text)
        .map_err(failed)?;
    match String::from_utf8(text) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(ContextError::NotText {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], dockerfile: Option<&str>, expected: Option<&str>) {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let dockerfile = dockerfile.map(|name| temp.path().join(name));
        let found = ignore_file(&temp.path().join("context"), dockerfile.as_deref()).unwrap();
        assert_eq!(
            found.as_ref().map(|(_, text)| text.as_str()),
            expected,
            "{dockerfile:?}"
        );
    }

    #[test]
    fn the_specific_file_wins_whole() {
        let files = [
            ("context/.dockerignore", "general"),
            ("context/.containerignore", "container"),
            ("docker/App.dockerignore", "specific"),
            ("docker/Containerfile.dockerignore", "d"),
            ("docker/Containerfile.b.containerignore", "c"),
            ("docker/Containerfile.b.dockerignore", "d"),
        ];
        check(&files, Some("docker/App"), Some("specific"));
        check(&files, Some("docker/Other"), Some("general"));
        check(&files, Some("context/Dockerfile"), Some("general"));
        check(&files, Some("docker/Containerfile"), Some("d"));
        check(&files, Some("docker/Containerfile.b"), Some("c"));
        check(&files, Some("docker/Containerfile.c"), Some("container"));
        check(&files, None, Some("general"));
        check(&files[1..], Some("docker/Dockerfile"), Some("container"));
        check(&files[2..], Some("docker/Dockerfile"), None);
        check(&files[2..3], Some("docker/App"), Some("specific"));
        check(&[("docker/x", "")], None, None);
        check(&[("context/.dockerignore", "")], None, Some(""));
    }

    #[test]
    fn what_is_no_text_file_is_refused_and_a_fifo_does_not_block() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join(".dockerignore");
        std::fs::write(&path, b"\xff").unwrap();
        assert!(matches!(
            ignore_file(temp.path(), None),
            Err(ContextError::NotText { .. })
        ));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(
            ignore_file(temp.path(), None),
            Err(ContextError::NotAFile { .. })
        ));
        std::fs::remove_dir(&path).unwrap();
        let flags = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(CWD, &path, flags, Mode::RUSR, 0).unwrap();
        assert!(matches!(
            ignore_file(temp.path(), None),
            Err(ContextError::NotAFile { .. })
        ));
    }
}
