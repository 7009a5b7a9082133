//! The main context, wherever it is: a directory, standard input, a repository, a URL; and the Dockerfile, inside it or elsewhere.
//!
//! Archives are unpacked into the session's own folder, which goes with the build. Only directories of this machine have ignore
//! files: what was packed or committed was chosen already, as BuildKit has it.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::context::ignore_file;
use crate::dockerfile::IgnorePatterns;
use crate::layer::{Format, Mtime, decompress, detect, is_tar};
use crate::plan::{GitKey, HttpKey, Known, MainContext};
use crate::rootfs::{Tree, extract_context};
use crate::solve::StepError;
use crate::store::{KeptDownload, Store};
use crate::vocab::{
    BuildRequest, ContextSource, Diagnostic, DockerfileSource, ExitCode, GitRef, GitTimes,
    SourceText, Timestamp, shown_url,
};
use crate::worker::LocalDirectory;

use super::overlays;
use super::remotes::{Remotes, step_failed, told};
use super::{Failure, failure};

/// A Dockerfile is text that someone wrote; more than this is a mistake in `-f`.
const DOCKERFILE_LIMIT: u64 = 16 << 20;

/// Names of a Dockerfile that nobody has named, in the order in which they are looked for.
const DEFAULT_NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// The main context and the Dockerfile, read.
pub(super) struct Context {
    pub(super) dockerfile: SourceText,
    /// The files, where they lie in a directory of this machine.
    files: Files,
    /// What is laid over them.
    overlay: Option<PathBuf>,
    /// Where they come from, if not from there.
    remote: Option<RemoteContext>,
    /// What reading found out.
    pub(super) known: Known,
    /// When it was committed, or changed on its server, in seconds since 1970.
    pub(super) time: Option<i64>,
}

enum Files {
    /// The user's, with the Dockerfile that ignore files may be named after.
    Own(PathBuf, Option<PathBuf>),
    /// The user's, with the file that stands for ignore files.
    Chosen(PathBuf, PathBuf),
    Fetched(PathBuf),
}

enum RemoteContext {
    Git(GitRef),
    Http(String),
}

impl Context {
    /// Returns what planning is told.
    pub(super) fn main(&self) -> MainContext<'_> {
        match &self.remote {
            None => MainContext::Directory,
            Some(RemoteContext::Git(git)) => MainContext::Git(git),
            Some(RemoteContext::Http(url)) => MainContext::Http(url),
        }
    }

    /// Returns the directory with the files, and what is left out of it.
    pub(super) fn directory(&self) -> Result<LocalDirectory, Failure> {
        let mut directory = self.files()?;
        directory.overlay.clone_from(&self.overlay);
        Ok(directory)
    }

    fn files(&self) -> Result<LocalDirectory, Failure> {
        match &self.files {
            Files::Own(path, dockerfile) => local(path, dockerfile.as_deref()),
            Files::Chosen(path, file) => {
                let text = fs::read_to_string(file).map_err(|error| {
                    let message = format!("cannot read the ignore file `{}`", file.display());
                    Failure::new(
                        ExitCode::Source,
                        Diagnostic::error(message).caused_by(&error),
                    )
                })?;
                without(unfiltered(canonical(path), false), file, text)
            }
            Files::Fetched(path) => Ok(unfiltered(path.clone(), true)),
        }
    }

    /// Reads the context that the request names, without its ignore file. Where there is no state directory to keep what is
    /// fetched, that failure stands for `remotes`.
    pub(super) fn read(
        request: &BuildRequest,
        remotes: Result<&Remotes<'_>, &Failure>,
        now: Timestamp,
    ) -> Result<Context, Failure> {
        let reader = Reader {
            request,
            remotes,
            now,
        };
        let mut context = match &request.context {
            ContextSource::Directory(path) => reader.directory(path),
            ContextSource::Archive(path) => reader.file(path),
            ContextSource::Stdin => reader.stdin(),
            ContextSource::Git(git) => reader.repository(git),
            ContextSource::Http(url) => reader.url(url),
        }?;
        if !request.overlays.is_empty() {
            let (Files::Own(path, _) | Files::Chosen(path, _) | Files::Fetched(path)) =
                &context.files;
            let overlay = overlays::put_together(&request.overlays, reader.remotes()?, path, now)?;
            context.overlay = Some(overlay);
            // With something over it, it is no longer what was committed or downloaded: its files are known by their content.
            context.remote = None;
        }
        Ok(context)
    }
}

/// Returns a directory of this machine as a context, with its ignore file.
pub(super) fn local(
    directory: &Path,
    dockerfile: Option<&Path>,
) -> Result<LocalDirectory, Failure> {
    let found = ignore_file(directory, dockerfile).map_err(|error| {
        Failure::new(
            ExitCode::Source,
            Diagnostic::error("cannot read the ignore file").caused_by(&error),
        )
    })?;
    let local = unfiltered(canonical(directory), false);
    match found {
        Some((path, text)) => without(local, &path, text),
        None => Ok(local),
    }
}

fn canonical(directory: &Path) -> PathBuf {
    fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned())
}

/// Leaves out of a directory what the text of an ignore file says.
fn without(
    mut local: LocalDirectory,
    path: &Path,
    text: String,
) -> Result<LocalDirectory, Failure> {
    let patterns = IgnorePatterns::parse(&text).map_err(|error| {
        Failure::new(
            ExitCode::Source,
            Diagnostic::error(format!(
                "`{}` holds a pattern that cannot be read",
                path.display()
            ))
            .caused_by(&error),
        )
    })?;
    local.ignore = Some(patterns);
    local.ignore_text = text;
    Ok(local)
}

fn unfiltered(path: PathBuf, is_temporary: bool) -> LocalDirectory {
    LocalDirectory {
        path,
        ignore: None,
        ignore_text: String::new(),
        is_temporary,
        overlay: None,
    }
}

struct Reader<'a> {
    request: &'a BuildRequest,
    remotes: Result<&'a Remotes<'a>, &'a Failure>,
    now: Timestamp,
}

impl<'a> Reader<'a> {
    fn remotes(&self) -> Result<&'a Remotes<'a>, Failure> {
        self.remotes.map_err(Failure::clone)
    }

    fn store(&self) -> Result<&'a Store, Failure> {
        Ok(self.remotes()?.store())
    }

    fn directory(&self, path: &Path) -> Result<Context, Failure> {
        if !path.is_dir() {
            let problem = if path.exists() {
                "is not a directory"
            } else {
                "does not exist"
            };
            let message = format!("the build context `{}` {problem}", path.display());
            return Err(Failure::new(
                ExitCode::Source,
                Diagnostic::error(message).hint(
                    "the last argument names the directory that COPY and ADD read from, often `.`",
                ),
            ));
        }
        let (dockerfile, beside) = match &self.request.dockerfile {
            DockerfileSource::Default => {
                let candidates = DEFAULT_NAMES.map(|name| path.join(name));
                let found = candidates
                    .iter()
                    .find(|path| fs::symlink_metadata(path).is_ok());
                let file = found.unwrap_or(&candidates[0]);
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                (context_file(path, file, &name)?, Some(file.clone()))
            }
            DockerfileSource::File(file) => {
                let file = named_file(path, file)?;
                let name = file.display().to_string();
                (context_file(path, &file, &name)?, Some(file))
            }
            DockerfileSource::Stdin => (stdin_file()?, None),
            DockerfileSource::Http(url) => (self.url_file(url)?, None),
        };
        Ok(Context {
            dockerfile,
            files: match &self.request.ignore_file {
                Some(file) => Files::Chosen(path.to_owned(), file.clone()),
                None => Files::Own(path.to_owned(), beside),
            },
            overlay: None,
            remote: None,
            known: Known::default(),
            time: None,
        })
    }

    /// Takes a tar of this machine for the context.
    fn file(&self, path: &Path) -> Result<Context, Failure> {
        let failed = |error: &io::Error| {
            let message = format!("cannot read the build context `{}`", path.display());
            Failure::new(
                ExitCode::Source,
                Diagnostic::error(message).caused_by(error),
            )
        };
        let mut file = File::open(path).map_err(|error| failed(&error))?;
        if !is_archive(&mut file).map_err(|error| failed(&error))? {
            let message = format!(
                "the build context `{}` is neither a directory nor a tar",
                path.display()
            );
            return Err(Failure::new(
                ExitCode::Source,
                Diagnostic::error(message).hint("`-f FILE` names a Dockerfile"),
            ));
        }
        let directory = self.unpack(file)?;
        self.archive(directory, None)
    }

    fn stdin(&self) -> Result<Context, Failure> {
        let refuse = |message: &str, hint: &str| {
            Err(Failure::new(
                ExitCode::Usage,
                Diagnostic::error(message).hint(hint),
            ))
        };
        if matches!(self.request.dockerfile, DockerfileSource::Stdin) {
            return refuse(
                "context and Dockerfile cannot both come from standard input",
                "give one of them as a file or directory",
            );
        }
        if io::stdin().is_terminal() {
            return refuse(
                "the build context `-` is standard input, and that is a terminal",
                "pipe a tar or a Dockerfile into the builder: `tar -c . | builder build -`",
            );
        }
        let path = self.work_dir()?.join("stdin");
        let mut spool = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|error| spool_failed(&error))?;
        io::copy(&mut io::stdin().lock(), &mut spool).map_err(|error| spool_failed(&error))?;
        if is_archive(&mut spool).map_err(|error| spool_failed(&error))? {
            let directory = self.unpack(spool)?;
            // The bytes are not needed twice.
            fs::remove_file(&path).ok();
            return self.archive(directory, None);
        }
        if !matches!(self.request.dockerfile, DockerfileSource::Default) {
            return refuse(
                "standard input is no tar, so it is a Dockerfile, and `-f` names another",
                "leave `-f` out, or pipe a tar with the context into the builder",
            );
        }
        let bytes = read_limited(&mut spool).map_err(|error| unreadable("<stdin>", &error))?;
        Ok(Context {
            dockerfile: text("<stdin>", bytes)?,
            files: Files::Fetched(self.new_directory()?),
            overlay: None,
            remote: None,
            known: Known::default(),
            time: None,
        })
    }

    fn repository(&self, git: &GitRef) -> Result<Context, Failure> {
        let mut git = git.clone();
        if let Some(keep) = self.keep_git_dir()? {
            git.keep_git_dir = Some(git.keep_git_dir.unwrap_or(false) || keep);
        }
        let key = GitKey::from(&git);
        let commit = self.remotes()?.commit(&key)?;
        let keep_git_dir = git.keep_git_dir == Some(true) && git.subdirectory.is_none();
        // As planning will say it.
        let files = self.remotes()?.checkout(&crate::plan::Git {
            url: git.url.clone(),
            commit: commit.id.clone(),
            reference: commit.reference.clone().filter(|_| keep_git_dir),
            subdirectory: git.subdirectory.clone(),
            keep_git_dir,
            submodules: git.submodules.unwrap_or(true),
            times: git.times.unwrap_or_default(),
        })?;
        let mut known = Known::default();
        known.commits.insert(key, commit);
        // Files of a commit have its time.
        let modified = fs::metadata(&files).and_then(|metadata| metadata.modified());
        let seconds = modified.ok().and_then(|time| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            i64::try_from(since.as_secs()).ok()
        });
        Ok(Context {
            dockerfile: self.inner_file(&files)?,
            files: Files::Fetched(files),
            time: seconds.filter(|_| git.times != Some(GitTimes::Checkout)),
            overlay: None,
            remote: Some(RemoteContext::Git(git)),
            known,
        })
    }

    fn url(&self, url: &str) -> Result<Context, Failure> {
        let key = HttpKey {
            url: url.to_owned(),
            checksum: None,
        };
        let kept = self.remotes()?.download(&key)?;
        let mut file = self.open(&kept, url)?;
        if is_archive(&mut file).map_err(|error| unreadable(&shown_url(url), &error))? {
            let directory = self.unpack(file)?;
            return self.archive(directory, told(&kept).modified);
        }
        let dockerfile = match &self.request.dockerfile {
            DockerfileSource::Default => {
                let name = shown_url(url);
                let bytes = read_limited(&mut file).map_err(|error| unreadable(&name, &error))?;
                text(&name, bytes)?
            }
            _ => self.inner_file(&self.new_directory()?)?,
        };
        let mut known = Known::default();
        known.downloads.insert(key, told(&kept));
        Ok(Context {
            dockerfile,
            files: Files::Fetched(self.new_directory()?),
            overlay: None,
            remote: Some(RemoteContext::Http(url.to_owned())),
            known,
            time: told(&kept).modified,
        })
    }

    /// Returns the context that an archive was unpacked to.
    fn archive(&self, directory: PathBuf, time: Option<i64>) -> Result<Context, Failure> {
        Ok(Context {
            dockerfile: self.inner_file(&directory)?,
            files: Files::Fetched(directory),
            overlay: None,
            remote: None,
            known: Known::default(),
            time,
        })
    }

    /// Reads the Dockerfile of a context that is no directory of the user's: from inside it, unless the request says otherwise.
    fn inner_file(&self, root: &Path) -> Result<SourceText, Failure> {
        let names: Vec<String> = match &self.request.dockerfile {
            DockerfileSource::Stdin => return stdin_file(),
            DockerfileSource::Http(url) => return self.url_file(url),
            DockerfileSource::File(path) if path.is_absolute() => {
                return host_file(path, &path.display().to_string());
            }
            DockerfileSource::File(path) => vec![path.display().to_string()],
            DockerfileSource::Default => DEFAULT_NAMES.map(str::to_owned).to_vec(),
        };
        let failed = |error: &(dyn std::error::Error + 'static)| {
            let message = format!(
                "cannot read the Dockerfile `{}` of the build context",
                names[0]
            );
            Failure::new(
                ExitCode::Dockerfile,
                Diagnostic::error(message).caused_by(error),
            )
        };
        let tree = Tree::open(root).map_err(|error| failed(&error))?;
        for name in &names {
            let found = tree
                .read_small(name.as_bytes(), DOCKERFILE_LIMIT as usize)
                .map_err(|error| failed(&error))?;
            if let Some(bytes) = found {
                return text(name, bytes);
            }
        }
        let message = format!("the build context has no file `{}`", names[0]);
        Err(Failure::new(
            ExitCode::Dockerfile,
            Diagnostic::error(message).hint(
                "`-f FILE` names a file inside such a context, `-f /FILE` one of this machine",
            ),
        ))
    }

    fn url_file(&self, url: &str) -> Result<SourceText, Failure> {
        let kept = self.remotes()?.download(&HttpKey {
            url: url.to_owned(),
            checksum: None,
        })?;
        let name = shown_url(url);
        let mut file = self.open(&kept, url)?;
        let bytes = read_limited(&mut file).map_err(|error| unreadable(&name, &error))?;
        text(&name, bytes)
    }

    fn open(&self, kept: &KeptDownload, url: &str) -> Result<File, Failure> {
        self.store()?
            .downloaded(&kept.digest)
            .map_err(|error| failure::store(&error))?
            .ok_or_else(|| {
                unreadable(
                    &shown_url(url),
                    &io::Error::other("it is gone from the state directory"),
                )
            })
    }

    /// Unpacks an archive into a folder of the session.
    fn unpack(&self, file: File) -> Result<PathBuf, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            let error = StepError::new(ExitCode::Source, "cannot unpack the build context")
                .caused_by(error);
            step_failed(error)
        };
        let directory = self.new_directory()?;
        let tree = Tree::open(&directory).map_err(|error| failed(&error))?;
        let mut tar = decompress(file).map_err(|error| failed(&error))?;
        let time = Mtime {
            seconds: self.now.seconds,
            nanoseconds: self.now.nanoseconds,
        };
        extract_context(&mut tar, &tree, time).map_err(|error| failed(&error))?;
        Ok(directory)
    }

    fn new_directory(&self) -> Result<PathBuf, Failure> {
        let directory = self.work_dir()?.join("context");
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(spool_failed(&error)),
            _ => Ok(directory),
        }
    }

    fn work_dir(&self) -> Result<PathBuf, Failure> {
        self.store()?
            .work_dir()
            .map_err(|error| failure::store(&error))
    }

    /// Returns what the build argument for that says.
    fn keep_git_dir(&self) -> Result<Option<bool>, Failure> {
        const NAME: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
        let given = self.request.build_args.iter().rev();
        let Some((_, value)) = given.into_iter().find(|(name, _)| name == NAME) else {
            return Ok(None);
        };
        match value.as_str() {
            "" => Ok(None),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(Failure::new(
                ExitCode::Usage,
                Diagnostic::error(format!(
                    "build argument {NAME} is neither true nor false: `{value}`"
                )),
            )),
        }
    }
}

/// Tells an archive, compressed or not, from a text; leaves the file at its beginning.
fn is_archive(file: &mut File) -> io::Result<bool> {
    let mut first = Vec::with_capacity(512);
    file.seek(SeekFrom::Start(0))?;
    file.take(512).read_to_end(&mut first)?;
    file.seek(SeekFrom::Start(0))?;
    let is_plain_tar = is_tar(&first);
    Ok(is_plain_tar || detect(&first) != Format::Uncompressed)
}

/// Finds the Dockerfile that `-f` names: in the working directory, as `docker build` has it, else in the context, as kaniko has it.
fn named_file(context: &Path, file: &Path) -> Result<PathBuf, Failure> {
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    if file.is_absolute() || is_there(file) {
        return Ok(file.to_owned());
    }
    let inside = context.join(file);
    if is_there(&inside) {
        return Ok(inside);
    }
    let mut diagnostic =
        Diagnostic::error(format!("cannot read the Dockerfile `{}`", file.display()));
    let mut tried = vec![std::path::absolute(file).unwrap_or_else(|_| file.to_owned())];
    tried.push(std::path::absolute(&inside).unwrap_or(inside));
    tried.dedup();
    for path in tried {
        diagnostic = diagnostic.cause(format!("`{}` does not exist", path.display()));
    }
    Err(Failure::new(
        ExitCode::Dockerfile,
        diagnostic
            .hint("`-f FILE` is relative to the working directory, then to the build context"),
    ))
}

/// Reads a Dockerfile that may lie in the context. One that does is as little trusted as the rest of it: links are followed
/// inside the context only, since a file of the machine would be shown in messages about it.
fn context_file(context: &Path, path: &Path, name: &str) -> Result<SourceText, Failure> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let inside = fs::canonicalize(context)
        .ok()
        // In the root of the machine there are /dev/stdin and its like, and it is nobody's gift.
        .filter(|context| context.parent().is_some())
        .zip(fs::canonicalize(parent).ok())
        .and_then(|(context, parent)| Some(parent.strip_prefix(&context).ok()?.to_owned()))
        .zip(path.file_name())
        .map(|(directory, name)| directory.join(name));
    let Some(inside) = inside else {
        return host_file(path, name);
    };
    let failed = |error: &(dyn std::error::Error + 'static)| {
        let message = format!("cannot read the Dockerfile `{name}`");
        Failure::new(
            ExitCode::Dockerfile,
            Diagnostic::error(message).caused_by(error),
        )
    };
    let tree = Tree::open(context).map_err(|error| failed(&error))?;
    let found = tree.read_small(inside.as_os_str().as_bytes(), DOCKERFILE_LIMIT as usize);
    match found.map_err(|error| failed(&error))? {
        Some(bytes) => text(name, bytes),
        None if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
            let message = format!("cannot read the Dockerfile `{name}`");
            let diagnostic = Diagnostic::error(message)
                .cause("it is a link that leads to nothing inside the build context")
                .hint("`-f FILE` names the file itself");
            Err(Failure::new(ExitCode::Dockerfile, diagnostic))
        }
        None => {
            let shown = path.display().to_string();
            Err(unreadable(
                &shown,
                &io::Error::from_raw_os_error(nix::errno::Errno::ENOENT as i32),
            ))
        }
    }
}

fn host_file(path: &Path, name: &str) -> Result<SourceText, Failure> {
    let bytes = File::open(path)
        .and_then(|mut file| read_limited(&mut file))
        .map_err(|error| unreadable(&path.display().to_string(), &error))?;
    text(name, bytes)
}

fn stdin_file() -> Result<SourceText, Failure> {
    let bytes = read_limited(&mut io::stdin().lock());
    text(
        "<stdin>",
        bytes.map_err(|error| unreadable("<stdin>", &error))?,
    )
}

fn read_limited(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(DOCKERFILE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(name: &str, bytes: Vec<u8>) -> Result<SourceText, Failure> {
    if bytes.len() as u64 > DOCKERFILE_LIMIT {
        return Err(unreadable(
            name,
            &io::Error::other("it is larger than 16 MiB"),
        ));
    }
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Ok(SourceText {
        name: name.to_owned(),
        text,
    })
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    let mut diagnostic =
        Diagnostic::error(format!("cannot read the Dockerfile `{name}`")).caused_by(error);
    if error.kind() == io::ErrorKind::NotFound {
        diagnostic =
            diagnostic.hint("`-f FILE` names another file, relative to the working directory");
    }
    Failure::new(ExitCode::Dockerfile, diagnostic)
}

fn spool_failed(error: &io::Error) -> Failure {
    step_failed(StepError::new(ExitCode::Store, "cannot keep the build context").caused_by(error))
}
