//! What the build reads before it plans: the context, the Dockerfile, the ignore files, the clock.

use std::collections::BTreeMap;

use crate::dockerfile::{Checks, Dockerfile, IgnorePatterns, parse};
use crate::plan::{Known, MainContext};
use crate::sandbox;
use crate::vocab::{
    BuildRequest, Diagnostic, Event, EventSink, ExitCode, ImageRef, LayerForm, NamedContext,
    OnFailure, OutputSpec, SourceText, Span, Timestamp,
};
use crate::worker::{Destination, LocalDirectory, Means, Setup, now};

use super::Failure;
use super::caches;
use super::contexts::{Context, local};
use super::images::Form;
use super::remotes::Remotes;

pub(super) struct Inputs {
    pub(super) dockerfile: Dockerfile,
    /// Which lint rules are on.
    pub(super) checks: Checks,
    /// Warnings that were told already.
    pub(super) warned: Vec<Diagnostic>,
    pub(super) now: Timestamp,
    source: SourceText,
    context: Context,
    locals: BTreeMap<Option<String>, LocalDirectory>,
}

impl Inputs {
    /// Reads and parses. Warnings go to `events` at once; errors come back together.
    pub(super) fn read(
        request: &BuildRequest,
        remotes: &Remotes<'_>,
        events: &dyn EventSink,
    ) -> Result<Inputs, Failure> {
        let parsed = Parsed::read(request, Ok(remotes))?;
        events.emit(Event::Source(parsed.source.clone()));
        let warned = report(parsed.diagnostics.clone(), events)?;
        parsed.complete(request, warned)
    }

    /// Returns what the main context leaves out.
    pub(super) fn ignore(&self) -> Option<&IgnorePatterns> {
        self.locals.get(&None)?.ignore.as_ref()
    }

    /// Returns where the files of the main context come from.
    pub(super) fn main_context(&self) -> MainContext<'_> {
        self.context.main()
    }

    /// Returns the time of the main context, in seconds since 1970; a directory has none.
    pub(super) fn context_time(&self) -> Option<i64> {
        self.context.time
    }

    /// Returns what reading the context has found out.
    pub(super) fn known(&self) -> Known {
        self.context.known.clone()
    }

    /// Returns the text of the Dockerfile at a place.
    pub(super) fn written(&self, span: Span) -> &str {
        self.source.text.get(span.start..span.end).unwrap_or("")
    }

    /// Returns the name of the Dockerfile and the line of a place.
    pub(super) fn place(&self, span: Span) -> (&str, usize) {
        (&self.source.name, self.source.line(span.start))
    }

    /// Returns what the worker is told.
    pub(super) fn setup(&self, request: &BuildRequest, epoch: Option<i64>) -> Setup {
        let forms = forms(request, epoch);
        Setup {
            dockerfile: self.source.name.clone(),
            means: means(&forms),
            locals: self.locals.clone(),
            registry: request.registry.clone(),
            forms,
            caches: caches::of(request),
            destinations: destinations(request, epoch),
            epoch,
            keeps_failed: request.on_failure != OnFailure::End,
        }
    }
}

/// Returns how much is done at once on this machine.
pub(super) fn means(forms: &[LayerForm]) -> Means {
    Means::of(sandbox::cpu_quota(), sandbox::usable_memory(), forms)
}

/// A Dockerfile that was read, whatever is wrong with it.
pub(super) struct Parsed {
    pub(super) source: SourceText,
    pub(super) dockerfile: Dockerfile,
    pub(super) checks: Checks,
    /// Those that the checks want.
    pub(super) diagnostics: Vec<Diagnostic>,
    context: Context,
    now: Timestamp,
}

impl Parsed {
    /// Finds the Dockerfile and parses it. A context that is no directory is fetched for that; without `remotes` its failure is
    /// told.
    pub(super) fn read(
        request: &BuildRequest,
        remotes: Result<&Remotes<'_>, &Failure>,
    ) -> Result<Parsed, Failure> {
        let now = now();
        let context = Context::read(request, remotes, now)?;
        let source = context.dockerfile.clone();
        let (dockerfile, diagnostics) = parse(&source.text);
        let checks = checks(request, &dockerfile)?;
        let diagnostics = checks.wanted(diagnostics);
        Ok(Parsed {
            source,
            dockerfile,
            checks,
            diagnostics,
            context,
            now,
        })
    }

    /// Reads the ignore files. `warned` was told of the Dockerfile.
    pub(super) fn complete(
        self,
        request: &BuildRequest,
        warned: Vec<Diagnostic>,
    ) -> Result<Inputs, Failure> {
        let mut locals = BTreeMap::new();
        locals.insert(None, self.context.directory()?);
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
            now: self.now,
            source: self.source,
            context: self.context,
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

/// Returns where layers are pushed to, and in which form.
fn destinations(request: &BuildRequest, epoch: Option<i64>) -> Vec<Destination> {
    let pushed = request.outputs.iter().filter_map(|output| match output {
        OutputSpec::Image { names, push, .. } => {
            let form = Form::of(output)?.layers(epoch);
            Some((form, names.as_slice(), *push))
        }
        _ => None,
    });
    let mut found = Vec::new();
    for (at, (form, names, push)) in pushed.enumerate() {
        let to = |image: &ImageRef| Destination {
            image: image.clone(),
            form,
        };
        if push {
            found.extend(names.iter().map(to));
        }
        // Indexes of several jobs get the first image.
        if at == 0 {
            found.extend(request.append_to.iter().map(|append| to(&append.image)));
        }
    }
    found
}

/// Returns `SOURCE_DATE_EPOCH` of the environment; anything but a number counts as not set.
pub(super) fn epoch_of_environment() -> Option<i64> {
    std::env::var("SOURCE_DATE_EPOCH").ok()?.parse().ok()
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
