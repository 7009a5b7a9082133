//! What the build reads before it plans: the Dockerfile, the ignore files, the clock.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::context::ignore_file;
use crate::dockerfile::{Checks, Dockerfile, IgnorePatterns, parse};
use crate::vocab::{
    BuildRequest, ContextSource, Diagnostic, DockerfileSource, Event, EventSink, ExitCode,
    LayerForm, NamedContext, SourceText, Timestamp,
};
use crate::worker::{LocalDirectory, Setup, now};

use super::Failure;
use super::images::Form;

/// A Dockerfile is text that someone wrote; more than this is a mistake in `-f`.
const DOCKERFILE_LIMIT: u64 = 16 << 20;

pub(super) struct Inputs {
    pub(super) dockerfile: Dockerfile,
    /// Which lint rules are on.
    pub(super) checks: Checks,
    /// Warnings that were told already.
    pub(super) warned: Vec<Diagnostic>,
    pub(super) now: Timestamp,
    /// The time of the main context, in seconds since 1970; a directory has none.
    pub(super) context_time: Option<i64>,
    locals: BTreeMap<Option<String>, LocalDirectory>,
}

impl Inputs {
    /// Reads and parses. Warnings go to `events` at once; errors come back together.
    pub(super) fn read(request: &BuildRequest, events: &dyn EventSink) -> Result<Inputs, Failure> {
        let parsed = Parsed::read(request)?;
        events.emit(Event::Source(parsed.source.clone()));
        let warned = report(parsed.diagnostics.clone(), events)?;
        parsed.complete(request, warned)
    }

    /// Returns what the main context leaves out.
    pub(super) fn ignore(&self) -> Option<&IgnorePatterns> {
        self.locals.get(&None)?.ignore.as_ref()
    }

    /// Returns what the worker is told.
    pub(super) fn setup(&self, request: &BuildRequest, epoch: Option<i64>) -> Setup {
        Setup {
            locals: self.locals.clone(),
            registry: request.registry.clone(),
            forms: forms(request, epoch),
            threads: crate::sandbox::cpu_quota(),
            epoch,
        }
    }
}

/// A Dockerfile that was read, whatever is wrong with it.
pub(super) struct Parsed {
    pub(super) source: SourceText,
    pub(super) dockerfile: Dockerfile,
    pub(super) checks: Checks,
    /// Those that the checks want.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// `None` for standard input.
    path: Option<PathBuf>,
}

impl Parsed {
    /// Finds the Dockerfile and parses it.
    pub(super) fn read(request: &BuildRequest) -> Result<Parsed, Failure> {
        let ContextSource::Directory(context) = &request.context;
        if !context.is_dir() {
            let problem = if context.exists() {
                "is not a directory"
            } else {
                "does not exist"
            };
            return Err(Failure::new(
                ExitCode::Source,
                Diagnostic::error(format!(
                    "the build context `{}` {problem}",
                    context.display()
                ))
                .hint(
                    "the last argument names the directory that COPY and ADD read from, often `.`",
                ),
            ));
        }
        let (source, path) = read_dockerfile(request, context)?;
        let (dockerfile, diagnostics) = parse(&source.text);
        let checks = checks(request, &dockerfile)?;
        let diagnostics = checks.wanted(diagnostics);
        Ok(Parsed {
            source,
            dockerfile,
            checks,
            diagnostics,
            path,
        })
    }

    /// Reads the ignore files. `warned` was told of the Dockerfile.
    pub(super) fn complete(
        self,
        request: &BuildRequest,
        warned: Vec<Diagnostic>,
    ) -> Result<Inputs, Failure> {
        let ContextSource::Directory(context) = &request.context;
        let mut locals = BTreeMap::new();
        locals.insert(None, local(context, self.path.as_deref())?);
        for (name, named) in &request.named_contexts {
            if let NamedContext::Directory(path) = named {
                if !path.is_dir() {
                    return Err(Failure::new(
                        ExitCode::Source,
                        Diagnostic::error(format!(
                            "the build context `{name}` is `{}`, which is no directory",
                            path.display()
                        )),
                    ));
                }
                locals.insert(Some(name.clone()), local(path, None)?);
            }
        }
        Ok(Inputs {
            dockerfile: self.dockerfile,
            checks: self.checks,
            warned,
            now: now(),
            context_time: None,
            locals,
        })
    }
}

/// Returns the lint rules that are on: those of the file, or of the build argument that takes their place.
pub(super) fn checks(request: &BuildRequest, dockerfile: &Dockerfile) -> Result<Checks, Failure> {
    const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";
    let mut given = request.build_args.iter().rev();
    let given = given.find(|(name, _)| name == ARGUMENT);
    Checks::new(dockerfile, given.map(|(_, value)| value.as_str())).map_err(|problem| {
        Failure::new(
            ExitCode::Usage,
            Diagnostic::error(format!("build argument {ARGUMENT} cannot be used")).cause(problem),
        )
    })
}

/// Sends warnings on and returns them; fails with all errors if there is one.
pub(super) fn report(
    diagnostics: Vec<Diagnostic>,
    events: &dyn EventSink,
) -> Result<Vec<Diagnostic>, Failure> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        diagnostics.into_iter().partition(Diagnostic::is_error);
    for warning in &warnings {
        events.emit(Event::Diagnostic(warning.clone()));
    }
    if errors.is_empty() {
        Ok(warnings)
    } else {
        Err(Failure {
            class: ExitCode::Dockerfile,
            diagnostics: errors,
        })
    }
}

/// Returns the forms in which layers leave the build, each once. `epoch` is the build's.
fn forms(request: &BuildRequest, epoch: Option<i64>) -> Vec<LayerForm> {
    let mut wanted = Vec::new();
    for form in request.outputs.iter().filter_map(Form::of) {
        let form = form.layers(epoch);
        if !wanted.contains(&form) {
            wanted.push(form);
        }
    }
    wanted
}

/// Finds and reads the Dockerfile; the path is `None` for standard input.
fn read_dockerfile(
    request: &BuildRequest,
    context: &Path,
) -> Result<(SourceText, Option<PathBuf>), Failure> {
    let failed = |name: &str, error: io::Error| {
        let mut diagnostic =
            Diagnostic::error(format!("cannot read the Dockerfile `{name}`")).caused_by(&error);
        if error.kind() == io::ErrorKind::NotFound {
            diagnostic =
                diagnostic.hint("`-f FILE` names another file, relative to the working directory");
        }
        Failure::new(ExitCode::Dockerfile, diagnostic)
    };
    let (bytes, name, path) = match &request.dockerfile {
        DockerfileSource::Stdin => {
            let mut bytes = Vec::new();
            let read = io::stdin()
                .lock()
                .take(DOCKERFILE_LIMIT + 1)
                .read_to_end(&mut bytes);
            read.map_err(|error| failed("<stdin>", error))?;
            (bytes, "<stdin>".to_owned(), None)
        }
        DockerfileSource::File(path) => {
            let name = path.display().to_string();
            (
                read_limited(path).map_err(|error| failed(&name, error))?,
                name,
                Some(path.clone()),
            )
        }
        DockerfileSource::Default => {
            let candidates =
                ["Dockerfile", "dockerfile", "Containerfile"].map(|name| context.join(name));
            let path = candidates
                .iter()
                .find(|path| path.exists())
                .unwrap_or(&candidates[0])
                .clone();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let bytes =
                read_limited(&path).map_err(|error| failed(&path.display().to_string(), error))?;
            (bytes, name, Some(path))
        }
    };
    if bytes.len() as u64 > DOCKERFILE_LIMIT {
        return Err(failed(&name, io::Error::other("it is larger than 16 MiB")));
    }
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Ok((SourceText { name, text }, path))
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(DOCKERFILE_LIMIT + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Joins a directory with its ignore file.
fn local(directory: &Path, dockerfile: Option<&Path>) -> Result<LocalDirectory, Failure> {
    let found = ignore_file(directory, dockerfile).map_err(|error| {
        Failure::new(
            ExitCode::Source,
            Diagnostic::error("cannot read the ignore file").caused_by(&error),
        )
    })?;
    let mut local = LocalDirectory {
        path: absolute(directory),
        ignore: None,
        ignore_text: String::new(),
    };
    if let Some((path, text)) = found {
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
    }
    Ok(local)
}

/// Returns `SOURCE_DATE_EPOCH` of the environment; anything but a number counts as not set.
pub(super) fn epoch_of_environment() -> Option<i64> {
    std::env::var("SOURCE_DATE_EPOCH").ok()?.parse().ok()
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns a text that no other call returns, here or elsewhere.
pub(super) fn nonce() -> String {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let clock = now();
    // The clock makes up for a kernel that gives no random bytes.
    format!(
        "{bytes:02x?} {filled:?} {} {} {:?}",
        clock.seconds,
        clock.nanoseconds,
        std::thread::current().id()
    )
}
