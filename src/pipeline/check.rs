//! Looking at a Dockerfile without building: lint rules, what a target can be given, which targets there are.
//!
//! Nothing is executed and no layer is fetched. Configs of base images are looked up as for a build (the state directory first,
//! then a registry), but one that cannot be had ends nothing: what depends on it is left out, and a note says so.

use std::collections::BTreeSet;

use crate::dockerfile::{Dockerfile, nodes};
use crate::image::ImageConfig;
use crate::plan::{
    Base, BaseKey, BaseLocation, BaseWanted, Commit, Download, Known, Linting, Outline, Outlined,
    PlanInputs, Planned, Wanted,
};
use crate::store::Store;
use crate::vocab::{
    BuildRequest, Diagnostic, Digest, Event, EventSink, ExitCode, Nobody, SourceText, Span,
};

use super::Failure;
use super::bases::{self, Resolver, TaskIds, plan_inputs};
use super::failure;
use super::inputs::{Inputs, Parsed};
use super::lending;
use super::remotes::Remotes;

/// What there is to say of a Dockerfile.
#[derive(Clone, Debug)]
pub struct Checked {
    pub source: SourceText,
    /// Broken lint rules, in the order of the text.
    pub warnings: Vec<Diagnostic>,
    /// Other warnings.
    pub notes: Vec<Diagnostic>,
    /// Why it cannot be built, as far as that shows without building.
    pub errors: Vec<Diagnostic>,
    lines: InstructionLines,
}

/// Checks a Dockerfile: all its stages, or with a target those that the target needs.
pub fn check(request: &BuildRequest) -> Result<Checked, Failure> {
    let parsed = read(request)?;
    let source = parsed.source.clone();
    let checks = parsed.checks.clone();
    let mut told = parsed.diagnostics.clone();
    if !told.iter().any(Diagnostic::is_error) {
        let inputs = parsed.complete(request, Vec::new())?;
        let mut planning = |plan: &PlanInputs, known: &Known| {
            let planned = crate::plan::plan(&inputs.dockerfile, plan, known);
            Ok(match planned? {
                (Planned::Wanted(wanted), _) => Attempt::Wanted(wanted),
                (Planned::Ready(_), warnings) => Attempt::Ready(warnings),
            })
        };
        let (settled, notes) = settle(request, &inputs, request.target.is_none(), &mut planning)?;
        told.extend(checks.wanted(settled.unwrap_or_else(|mistakes| mistakes)));
        told.extend(notes);
    }
    let (mut errors, warnings): (Vec<_>, Vec<_>) = told.into_iter().partition(Diagnostic::is_error);
    let (mut warnings, notes): (Vec<_>, Vec<_>) = warnings
        .into_iter()
        .partition(|warning| warning.code.is_some());
    warnings.sort_by_key(|warning| warning.labels.first().map(|label| label.span.start));
    errors.extend(checks.verdict(&warnings));
    let lines = InstructionLines::of(&source.text);
    Ok(Checked {
        source,
        warnings,
        notes,
        errors,
        lines,
    })
}

impl Checked {
    /// Returns the first and last line (from 1) of the instruction that a diagnostic is about.
    pub fn lines(&self, diagnostic: &Diagnostic) -> Option<(usize, usize)> {
        // Of an empty line inside an instruction, checks speak as of the instruction's last line.
        let label = match diagnostic.code {
            Some("NoEmptyContinuation") => {
                let last = self.lines.line(diagnostic.labels.last()?.span.start);
                return Some((last, last));
            }
            _ => diagnostic.labels.first()?,
        };
        Some(self.lines.around(label.span))
    }
}

/// A Dockerfile with what its target can be given.
#[derive(Clone, Debug)]
pub struct OutlinedTarget {
    pub source: SourceText,
    pub outline: Outline,
    /// What was left out.
    pub notes: Vec<Diagnostic>,
    lines: InstructionLines,
}

/// Tells what the target can be given. `events` is told where a mistake is.
pub fn outline(request: &BuildRequest, events: &dyn EventSink) -> Result<OutlinedTarget, Failure> {
    let inputs_of = |parsed: Parsed| -> Result<(SourceText, Inputs), Failure> {
        let source = parsed.source.clone();
        events.emit(Event::Source(source.clone()));
        only_errors(&parsed.diagnostics)?;
        Ok((source, parsed.complete(request, Vec::new())?))
    };
    let (source, inputs) = inputs_of(read(request)?)?;
    let mut outlining = |plan: &PlanInputs, known: &Known| {
        let outlined = crate::plan::outline(&inputs.dockerfile, plan, &known.bases)?;
        Ok(match outlined {
            Outlined::Wanted(wanted) => {
                Attempt::Wanted(wanted.into_iter().map(Wanted::Base).collect())
            }
            Outlined::Ready(outline) => Attempt::Ready(outline),
        })
    };
    let (settled, notes) = settle(request, &inputs, false, &mut outlining)?;
    let outline = settled.map_err(|mistakes| wrong(&mistakes))?;
    let lines = InstructionLines::of(&source.text);
    Ok(OutlinedTarget {
        source,
        outline,
        notes,
        lines,
    })
}

impl OutlinedTarget {
    /// Returns the first and last line (from 1) of the instruction at `span`.
    pub fn lines(&self, span: Span) -> (usize, usize) {
        self.lines.around(span)
    }
}

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: Option<String>,
    pub description: Option<String>,
    /// The last one, which is built if none is named.
    pub is_default: bool,
    /// FROM's image and platform, as written.
    pub base: String,
    pub platform: Option<String>,
    /// First and last line, from 1.
    pub lines: (usize, usize),
}

/// Lists the stages of a Dockerfile, whose text comes with them.
pub fn targets(
    request: &BuildRequest,
    events: &dyn EventSink,
) -> Result<(SourceText, Vec<Target>), Failure> {
    let parsed = read(request)?;
    events.emit(Event::Source(parsed.source.clone()));
    only_errors(&parsed.diagnostics)?;
    let lines = InstructionLines::of(&parsed.source.text);
    Ok((parsed.source, list_targets(&parsed.dockerfile, &lines)))
}

fn list_targets(dockerfile: &Dockerfile, lines: &InstructionLines) -> Vec<Target> {
    let last = dockerfile.stages.len().saturating_sub(1);
    let stages = dockerfile.stages.iter().enumerate();
    stages
        .map(|(at, stage)| {
            let from = &stage.from.value;
            let name = from.name.as_ref().map(|name| name.value.clone());
            Target {
                description: name
                    .as_ref()
                    .and_then(|name| dockerfile.description(stage.from.span, name))
                    .map(str::to_owned),
                name,
                is_default: at == last,
                base: from.image.value.clone(),
                platform: from.platform.as_ref().map(|word| word.value.clone()),
                lines: lines.around(stage.from.span),
            }
        })
        .collect()
}

fn only_errors(diagnostics: &[Diagnostic]) -> Result<(), Failure> {
    match diagnostics.iter().any(Diagnostic::is_error) {
        true => Err(wrong(diagnostics)),
        false => Ok(()),
    }
}

fn wrong(diagnostics: &[Diagnostic]) -> Failure {
    let errors = diagnostics.iter().filter(|one| one.is_error());
    Failure {
        class: ExitCode::Dockerfile,
        diagnostics: errors.cloned().collect(),
    }
}

/// What one attempt at planning came to.
enum Attempt<T> {
    Wanted(Vec<Wanted>),
    Ready(T),
}

type Planning<'a, T> = dyn FnMut(&PlanInputs, &Known) -> Result<Attempt<T>, Vec<Diagnostic>> + 'a;

/// Reads the Dockerfile, from wherever the context is.
fn read(request: &BuildRequest) -> Result<Parsed, Failure> {
    let client = bases::client(request)?;
    let tasks = TaskIds::default();
    match Store::open_over(&request.root, &request.lower_roots) {
        Ok(store) => {
            let secrets = lending::for_repositories(request)?;
            let remotes = Remotes::new(&store, &client, secrets, &Nobody, &tasks);
            Parsed::read(request, Ok(&remotes))
        }
        // Files of this machine can be looked at all the same.
        Err(error) => Parsed::read(request, Err(&failure::store(&error))),
    }
}

/// Repeats an attempt until it has the bases it wants. Those that cannot be had are made up and noted; downloads and commits are made
/// up without asking. The inner result has the
/// mistakes of the attempt.
#[expect(
    clippy::type_complexity,
    reason = "a result, and what was left out on the way to it"
)]
fn settle<T>(
    request: &BuildRequest,
    inputs: &Inputs,
    all_stages: bool,
    attempt: &mut Planning<'_, T>,
) -> Result<(Result<T, Vec<Diagnostic>>, Vec<Diagnostic>), Failure> {
    let store = Store::open_over(&request.root, &request.lower_roots);
    let client = bases::client(request)?;
    let tasks = TaskIds::default();
    let mut known = inputs.known();
    let mut unknown = Vec::new();
    let mut notes = Vec::new();
    // A registry that failed once is not waited for again.
    let mut silent = BTreeSet::new();
    loop {
        let linting = Linting {
            ignore: inputs.ignore(),
            all_stages,
            unknown: &unknown,
        };
        let attempted = attempt(&plan_inputs(request, inputs, linting), &known);
        let wanted = match attempted {
            Ok(Attempt::Ready(ready)) => return Ok((Ok(ready), notes)),
            Err(mistakes) => return Ok((Err(mistakes), notes)),
            Ok(Attempt::Wanted(wanted)) => wanted,
        };
        for wanted in wanted {
            let base = match wanted {
                Wanted::Base(base) => base,
                Wanted::Http { key, .. } => {
                    let digest = Digest::of(b"");
                    let download = Download {
                        digest,
                        modified: None,
                    };
                    known.downloads.insert(key, download);
                    continue;
                }
                Wanted::Git { key, .. } => {
                    let commit = Commit {
                        id: "0".repeat(40),
                        reference: None,
                    };
                    known.commits.insert(key, commit);
                    continue;
                }
                Wanted::Time { timed, .. } => {
                    known.times.insert(timed, None);
                    continue;
                }
            };
            let registry = match &base.key.location {
                BaseLocation::Image(image) => Some(image.registry.clone()),
                BaseLocation::OciLayout { .. } => None,
            };
            let found = match &store {
                Ok(store) => {
                    let resolver = Resolver {
                        store,
                        client: &client,
                        pull: request.pull,
                    };
                    match registry.as_ref().is_some_and(|name| silent.contains(name)) {
                        true => resolver.stored(&base),
                        false => resolver.resolve(&base, &Nobody, &tasks).map(Some),
                    }
                }
                Err(_) => Ok(None),
            };
            let found = found.unwrap_or_else(|failure| {
                silent.extend(registry);
                notes.push(note(&base, &failure));
                None
            });
            let found = found.unwrap_or_else(|| {
                unknown.push(base.key.clone());
                made_up(&base.key)
            });
            known.bases.insert(base.key, found);
        }
    }
}

fn note(base: &BaseWanted, failure: &Failure) -> Diagnostic {
    let name = match &base.key.location {
        BaseLocation::Image(image) => image.familiar(),
        BaseLocation::OciLayout { path, .. } => path.display().to_string(),
    };
    let mut note = Diagnostic::warning(format!(
        "the base image {name} could not be looked at: what depends on it was not checked"
    ));
    if let Some(span) = base.span {
        note = note.at(span);
    }
    for diagnostic in &failure.diagnostics {
        note = note.cause(diagnostic.message.clone());
        note.causes.extend(diagnostic.causes.iter().cloned());
    }
    note
}

/// Returns a base that says nothing but its platform.
fn made_up(key: &BaseKey) -> Base {
    Base {
        key: key.clone(),
        manifest: Digest::of(b""),
        layers: Vec::new(),
        config: ImageConfig::default(),
        platform: key.platform.clone(),
    }
}

/// The lines of every instruction, as checks tell them.
#[derive(Clone, Debug, Default)]
struct InstructionLines {
    /// Where lines start.
    starts: Vec<usize>,
    /// First and last lines, from 1, ascending.
    ranges: Vec<(usize, usize)>,
}

impl InstructionLines {
    fn of(text: &str) -> InstructionLines {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let ranges = match nodes(text) {
            Ok((nodes, _)) => nodes.iter().map(|node| node.lines).collect(),
            // A file with mistakes has the lines that its mistakes point at.
            Err(_) => Vec::new(),
        };
        InstructionLines {
            starts: std::iter::once(0).chain(ends).collect(),
            ranges,
        }
    }

    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// Returns the lines of the instruction that holds the beginning of a span; the span's own where there is none.
    fn around(&self, span: Span) -> (usize, usize) {
        let line = self.line(span.start);
        let after = self.ranges.partition_point(|&(first, _)| first <= line);
        match after.checked_sub(1).map(|at| self.ranges[at]) {
            Some((first, last)) if line <= last => (first, last),
            _ => (line, self.line(span.end.saturating_sub(1).max(span.start))),
        }
    }
}
