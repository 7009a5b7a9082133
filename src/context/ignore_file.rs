//! Finds the file that says what is left out of a context.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::error::ContextError;
use super::meta::{Kind, Meta};
use super::resolve::{Found, resolve};
use super::source::Source;

/// Longer ones are no list of patterns; as for Dockerfiles.
const LIMIT: u64 = 16 << 20;

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
        if let Some(text) = read(context, &path)? {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}

/// Reads an ignore file, which may lie in the context. One that does is as little trusted as the rest of it: links are followed
/// inside the context only, since messages show lines of the file.
fn read(context: &Path, path: &Path) -> Result<Option<String>, ContextError> {
    let file = match inside(context, path) {
        Some(inside) => open_inside(context, &inside, path)?,
        None => open(CWD, path.as_os_str().as_bytes(), OFlags::empty(), path)?,
    };
    let Some(file) = file else {
        return Ok(None);
    };
    let failed = |source: io::Error| ContextError::Io {
        verb: "read",
        path: path.to_owned(),
        source,
    };
    if Meta::of(&file).map_err(|error| failed(error.into()))?.kind != Kind::File {
        return Err(ContextError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut text = Vec::new();
    File::from(file)
        .take(LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > LIMIT {
        return Err(failed(io::Error::other("it is larger than 16 MiB")));
    }
    match String::from_utf8(text) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(ContextError::NotText {
            path: path.to_owned(),
        }),
    }
}

/// Returns where in the context a file lies, if it does. The root of the machine is nobody's gift, and is none.
fn inside(context: &Path, path: &Path) -> Option<PathBuf> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let context = fs::canonicalize(context).ok()?;
    context.parent()?;
    let parent = fs::canonicalize(parent).ok()?;
    Some(parent.strip_prefix(context).ok()?.join(path.file_name()?))
}

/// Opens a file of the context for reading. `shown` is for messages.
fn open_inside(context: &Path, path: &Path, shown: &Path) -> Result<Option<OwnedFd>, ContextError> {
    let source = Source::directory(context, None)?;
    let components: Vec<&[u8]> = path.iter().map(OsStrExt::as_bytes).collect();
    match resolve(&source, &components)? {
        Found::Entry { path, .. } => {
            let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
                Some(at) => (&path[..at], &path[at + 1..]),
                None => (&b""[..], &path[..]),
            };
            // What a link led to is none; one that takes its place now is not followed.
            open(
                source.open_holder(parent, name)?,
                name,
                OFlags::NOFOLLOW,
                shown,
            )
        }
        Found::Missing(_) | Found::Links => match fs::symlink_metadata(shown) {
            Ok(found) if found.is_symlink() => Err(ContextError::LeadsNowhere {
                path: shown.to_owned(),
            }),
            _ => Ok(None),
        },
    }
}

fn open(
    directory: impl AsFd,
    name: &[u8],
    more: OFlags,
    shown: &Path,
) -> Result<Option<OwnedFd>, ContextError> {
    // A FIFO must not make the build wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
    match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(ContextError::Io {
            verb: "read",
            path: shown.to_owned(),
            source: error.into(),
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
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
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
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(
            ignore_file(temp.path(), None),
            Err(ContextError::NotText { .. })
        ));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(
            ignore_file(temp.path(), None),
            Err(ContextError::NotAFile { .. })
        ));
        fs::remove_dir(&path).unwrap();
        let flags = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(CWD, &path, flags, Mode::RUSR, 0).unwrap();
        assert!(matches!(
            ignore_file(temp.path(), None),
            Err(ContextError::NotAFile { .. })
        ));
    }

    #[test]
    fn links_are_followed_inside_the_context_only() {
        use std::os::unix::fs::symlink;

        let temp = tempfile::tempdir().unwrap();
        let context = temp.path().join("context");
        fs::create_dir_all(context.join("d")).unwrap();
        fs::write(context.join("d/patterns"), "own").unwrap();
        fs::write(temp.path().join("private"), "[secret").unwrap();
        let private = temp.path().join("private");
        let names = [
            (".dockerignore", None),
            ("Dockerfile.dockerignore", Some(context.join("Dockerfile"))),
            ("d/App.dockerignore", Some(context.join("d/App"))),
        ];
        for (name, dockerfile) in &names {
            let path = context.join(name);
            let found = |target: &Path| {
                symlink(target, &path).unwrap();
                let found = ignore_file(&context, dockerfile.as_deref());
                fs::remove_file(&path).unwrap();
                found.map(|found| found.map(|(_, text)| text))
            };
            for target in ["../private", "../../private", "d/none", "x/../.."] {
                let found = found(Path::new(target));
                assert!(found.is_err(), "{name} -> {target}: {found:?}");
            }
            assert!(matches!(
                found(&private),
                Err(ContextError::LeadsNowhere { .. })
            ));
            // As a process whose root the context is would see it.
            let inner = found(Path::new("/../d/patterns")).unwrap();
            assert_eq!(inner.as_deref(), Some("own"), "{name}");
        }
        // Whoever names a Dockerfile elsewhere has made what lies beside it.
        symlink(&private, temp.path().join("App.dockerignore")).unwrap();
        let found = ignore_file(&context, Some(&temp.path().join("App"))).unwrap();
        assert_eq!(found.unwrap().1, "[secret");
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = File::create(temp.path().join(".dockerignore")).unwrap();
        file.set_len(1 << 40).unwrap();
        let error = ignore_file(temp.path(), None).unwrap_err();
        assert!(matches!(error, ContextError::Io { .. }), "{error}");
    }
}
