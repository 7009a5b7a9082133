//! `SOURCE_DATE_EPOCH`: the time that outputs show instead of the build's.
//!
//! Its value is a build argument, the environment's, or the default of an `ARG` before the first FROM, in this order: seconds since
//! 1970, or a word for a place that has a time: `context` (the main context), the name of a context, or the name of a stage that
//! is nothing but one ADD of a URL or repository onto scratch. A commit has its time, a download what its server says, else
//! that of the newest file of an archive. A directory has none, and then there is no epoch. An empty value is none.

use super::arguments::{BuildArgs, Globals};
use super::planner::plan_targets;
use super::remotes::Remotes;
use super::report::{Mistake, Report, Reported};
use super::wanted::{Known, Timed, Wanted};
use super::{Op, PlanInputs, Planned};
use crate::dockerfile::{CopySource, Dockerfile, InstructionKind, Stage};
use crate::vocab::{Diagnostic, NamedContext, Span, nearest};

/// The argument's name.
pub(super) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The seconds, or what has to be known before they are.
pub(super) enum Found {
    Epoch(Option<i64>),
    Wanted(Vec<Wanted>),
}

/// Returns the epoch that the value stands for. `globals` are evaluated with it as it was given.
pub(super) fn find(
    dockerfile: &Dockerfile,
    inputs: &PlanInputs,
    known: &Known,
    build_args: &BuildArgs,
    globals: &Globals,
    report: &mut Report,
) -> Result<Found, Reported> {
    let text = match build_args.get(EPOCH) {
        Some(given) => given,
        None => globals.values.get(EPOCH).unwrap_or_default(),
    };
    if text.is_empty() {
        return Ok(Found::Epoch(None));
    }
    if let Ok(seconds) = text.parse() {
        return Ok(Found::Epoch(Some(seconds)));
    }
    if text == "context" {
        return Ok(Found::Epoch(inputs.context_time));
    }
    let context = inputs.named_contexts.iter().rev();
    let mut context = context.filter(|(name, _)| name.eq_ignore_ascii_case(text));
    if let Some((name, context)) = context.next() {
        return Ok(match context {
            NamedContext::Git(_) | NamedContext::Http(_) => of_context(name, inputs, known),
            _ => Found::Epoch(None),
        });
    }
    let named = |stage: &&Stage| {
        let name = stage.from.value.name.as_ref();
        name.is_some_and(|name| name.value.eq_ignore_ascii_case(text))
    };
    if let Some(stage) = dockerfile.stages.iter().find(named) {
        return of_stage(dockerfile, stage, inputs, known, report);
    }
    report.take(Err(unknown(dockerfile, inputs, text)))
}

fn unknown(dockerfile: &Dockerfile, inputs: &PlanInputs, text: &str) -> Mistake {
    let error = Diagnostic::error(format!(
        "`{EPOCH}` is neither a number of seconds nor `context` nor the name of a context or stage: `{text}`"
    ));
    let stages = dockerfile.stages.iter();
    let stages = stages.filter_map(|stage| Some(stage.from.value.name.as_ref()?.value.as_str()));
    let contexts = inputs.named_contexts.iter().map(|(name, _)| name.as_str());
    let names = contexts.chain(stages).chain(["context"]);
    Box::new(match nearest(text, names) {
        Some(known) => error.hint(format!("did you mean `{known}`?")),
        None => error.hint("seconds since 1970: `date +%s`, or `git log -1 --format=%ct`"),
    })
}

/// A named context that is a repository or a URL.
fn of_context(name: &str, inputs: &PlanInputs, known: &Known) -> Found {
    let mut remotes = Remotes::new(known, inputs);
    let remote = remotes.context(Some(name));
    match remote.and_then(|remote| remotes.op(&remote, None)) {
        Some(op) => of_tree(&op, None, known),
        None => Found::Wanted(remotes.wanted),
    }
}

/// A stage whose only source is fetched.
fn of_stage(
    dockerfile: &Dockerfile,
    stage: &Stage,
    inputs: &PlanInputs,
    known: &Known,
    report: &mut Report,
) -> Result<Found, Reported> {
    let name = &stage.from.value.name;
    let name = name.as_ref().map_or("", |name| name.value.as_str());
    let refuse =
        |report: &mut Report, span: Span, why: &str| {
            let error = Diagnostic::error(format!("stage `{name}` cannot give `{EPOCH}`: {why}"));
            Err(report.refuse(error.at(span).hint(
                "the stage is FROM scratch, with ARGs and one ADD of one URL or git repository",
            )))
        };
    let mut adds = 0;
    for instruction in &stage.instructions {
        match &instruction.kind {
            InstructionKind::Arg(_) => {}
            InstructionKind::Add(copy, _)
                if matches!(copy.sources.as_slice(), [CopySource::Path(_)]) =>
            {
                adds += 1;
            }
            _ => return refuse(report, instruction.span, "it does more than fetch"),
        }
    }
    if adds != 1 {
        return refuse(report, stage.from.span, "it has not one ADD");
    }
    let alone = PlanInputs {
        target: Some(name),
        beside: &[],
        source_date_epoch: None,
        ..inputs.clone()
    };
    let graph = match plan_targets(dockerfile, &alone, known, None, report)? {
        Planned::Wanted(wanted) => return Ok(Found::Wanted(wanted)),
        Planned::Ready(graph) => graph,
    };
    let is_tree = |op: &&Op| matches!(op, Op::Git(_) | Op::Http(_));
    let trees: Vec<&Op> = graph
        .steps
        .iter()
        .map(|step| &step.op)
        .filter(is_tree)
        .collect();
    let is_on_scratch = !graph
        .steps
        .iter()
        .any(|step| matches!(step.op, Op::Base(_)));
    match trees.as_slice() {
        [tree] if is_on_scratch => Ok(of_tree(tree, Some(stage.from.span), known)),
        _ => refuse(
            report,
            stage.from.span,
            "it adds no URL or repository to scratch",
        ),
    }
}

/// A commit or a download.
fn of_tree(op: &Op, span: Option<Span>, known: &Known) -> Found {
    let timed = match op {
        Op::Git(git) => Timed::Commit {
            url: git.url.clone(),
            id: git.commit.clone(),
        },
        Op::Http(http) if http.modified.is_some() => return Found::Epoch(http.modified),
        Op::Http(http) => Timed::Archive(http.digest),
        _ => return Found::Epoch(None),
    };
    match known.times.get(&timed) {
        Some(time) => Found::Epoch(*time),
        None => Found::Wanted(vec![Wanted::Time { timed, span }]),
    }
}
