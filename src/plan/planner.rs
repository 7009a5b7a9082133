//! One call from Dockerfile to graph.
//!
//! Per platform: the global scope, the FROM lines, what the target needs, then one stage after the other. The platforms share
//! one table of steps.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::arguments::{BuildArgs, Globals};
use super::build::build;
use super::epoch;
use super::outline::Collected;
use super::reach::Reach;
use super::remotes::{MainContext, Remotes};
use super::report::{Report, Reported};
use super::stages::{Stages, check_defaults, check_references};
use super::start::State;
use super::steps::Steps;
use super::wanted::{Known, Wanted};
use super::{Base, BaseKey, BaseWanted, Beside, Graph, Linting, Output};
use crate::dockerfile::Dockerfile;
use crate::vocab::{Allowed, Diagnostic, NamedContext, NetworkMode, Platform, Ulimit};

/// Everything besides the Dockerfile that a plan depends on.
#[derive(Clone)]
pub struct PlanInputs<'a> {
    /// The stage to build; `None` is the last one.
    pub target: Option<&'a str>,
    /// Stages that are built beside it, whether it needs them or not.
    pub beside: &'a [String],
    pub build_args: &'a [(String, String)],
    pub labels: &'a [(String, String)],
    /// Empty: the host's, and then an image keeps the platform that its base says it is for.
    pub platforms: &'a [Platform],
    pub host: Platform,
    pub context: MainContext<'a>,
    pub named_contexts: &'a [(String, NamedContext)],
    pub add_hosts: &'a [(String, String)],
    /// `Host` is also the leave for `RUN --network=host`.
    pub network: NetworkMode,
    pub allowed: &'a Allowed,
    pub shm_size: u64,
    pub ulimits: &'a [Ulimit],
    pub no_cache: bool,
    /// Names of stages, in any letter case.
    pub no_cache_filter: &'a [String],
    /// Enters the key of every step.
    pub cache_version: Option<&'a str>,
    /// As the environment has it; a build argument of that name goes before it.
    pub source_date_epoch: Option<&'a str>,
    /// The time of the main context, in seconds since 1970: of its commit, or as its server says. A directory has none.
    pub context_time: Option<i64>,
    pub linting: Linting<'a>,
}

/// What planning comes to.
#[derive(Debug)]
pub enum Planned {
    /// Fetch these and plan again. The warnings that come with it come again: show those of the last call only.
    Wanted(Vec<Wanted>),
    Ready(Graph),
}

/// What the planning of one stage reads.
pub(super) struct Planning<'a> {
    pub(super) inputs: &'a PlanInputs<'a>,
    pub(super) escape: char,
    pub(super) build_args: &'a BuildArgs,
    pub(super) globals: &'a Globals,
    pub(super) stages: &'a Stages<'a>,
    pub(super) bases: &'a BTreeMap<BaseKey, Base>,
    pub(super) finished: BTreeMap<usize, State>,
    pub(super) epoch: Option<i64>,
    /// Where to note what can be given; then nothing but that is done.
    pub(super) outline: Option<&'a RefCell<Collected>>,
}

/// What is known before the first instruction is carried out.
pub(super) struct Prepared<'a> {
    pub(super) build_args: BuildArgs,
    /// One per platform.
    pub(super) targets: Vec<Target<'a>>,
    /// Bases that are not known yet.
    pub(super) wanted: Vec<BaseWanted>,
    pub(super) is_index: bool,
}

/// What is built for one platform.
pub(super) struct Target<'a> {
    pub(super) globals: Globals,
    pub(super) stages: Stages<'a>,
    pub(super) stage: usize,
    /// By the names that were asked for.
    pub(super) beside: Vec<(&'a str, usize)>,
    /// What all of these need.
    pub(super) reach: Reach,
}

/// Plans a build, or says what it must know first. All that can be named is asked for at once; bases come first, because what ADD
/// names may depend on their variables, and their triggers (ONBUILD) may name more. The warnings come with the answer; errors come with the warnings.
///
/// `dockerfile` has at least one stage, as everything that the parser passes has.
pub fn plan(
    dockerfile: &Dockerfile,
    inputs: &PlanInputs,
    known: &Known,
) -> Result<(Planned, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut report = Report::default();
    let planned = plan_all(dockerfile, inputs, known, &mut report);
    match (planned, report.finish()) {
        (Ok(planned), Ok(warnings)) => Ok((planned, warnings)),
        (_, Err(errors)) => Err(errors),
        (Err(Reported), Ok(_)) => {
            unreachable!("`Reported` is made only where an error is reported")
        }
    }
}

/// Returns the name of the stage to build, for arguments.
fn target_name<'a>(dockerfile: &'a Dockerfile, inputs: &PlanInputs<'a>) -> &'a str {
    let given = inputs.target.filter(|name| !name.is_empty());
    given.unwrap_or_else(|| {
        let last = dockerfile.stages.last();
        let name = last.and_then(|stage| stage.from.value.name.as_ref());
        name.map_or("default", |name| name.value.as_str())
    })
}

/// Finds out what the targets need. `epoch` is `SOURCE_DATE_EPOCH`, whatever its argument says.
pub(super) fn prepare<'a>(
    dockerfile: &'a Dockerfile,
    inputs: &PlanInputs<'a>,
    bases: &BTreeMap<BaseKey, Base>,
    epoch: Option<i64>,
    report: &mut Report,
) -> Result<Prepared<'a>, Reported> {
    if dockerfile.stages.is_empty() {
        return Err(report.refuse(Diagnostic::error("the Dockerfile has no FROM")));
    }
    let mut build_args = BuildArgs::new(inputs);
    let target_name = target_name(dockerfile, inputs);
    let implied = [inputs.host.clone()];
    let platforms = match inputs.platforms {
        [] => &implied,
        given => given,
    };

    let is_index = platforms.len() > 1 || report.take(build_args.multi_platform())?;
    build_args.resolve_epoch(epoch);
    build_args.warn_of_frontend(report);

    let mut targets = Vec::with_capacity(platforms.len());
    let mut wanted: Vec<BaseWanted> = Vec::new();
    for platform in platforms {
        let globals = |build_args: Option<&BuildArgs>, report: &mut Report| {
            Globals::new(
                dockerfile,
                build_args,
                &inputs.host,
                platform,
                target_name,
                report,
            )
        };
        // What is wrong with the defaults alone is wrong only if they are used.
        check_defaults(dockerfile, &globals(None, &mut Report::default()), report);
        let globals = globals(Some(&build_args), report);
        let stages = Stages::new(dockerfile, inputs, &globals, platform, report)?;
        check_references(&stages, report);
        let stage = report.take(stages.target(inputs.target))?;
        let mut beside = Vec::with_capacity(inputs.beside.len());
        for name in inputs.beside {
            beside.push((name.as_str(), report.take(stages.target(Some(name)))?));
        }
        let roots = match inputs.linting.all_stages {
            true => (0..stages.list.len()).collect(),
            false => std::iter::once(stage)
                .chain(beside.iter().map(|(_, stage)| *stage))
                .collect(),
        };
        let reach = Reach::new(&stages, roots, bases, report)?;
        for base in &reach.wanted {
            if !wanted.iter().any(|known| known.key == base.key) {
                wanted.push(base.clone());
            }
        }
        targets.push(Target {
            globals,
            stages,
            stage,
            beside,
            reach,
        });
    }
    let fired = targets
        .iter()
        .flat_map(|target| target.reach.stages.values().flatten());
    // The names are the same for every platform.
    if let Some(target) = targets.first() {
        target.stages.check_filter(inputs.no_cache_filter, report);
    }
    build_args.warn_of_unused(dockerfile, fired, inputs.context, report);
    if report.has_errors() {
        return Err(Reported);
    }
    Ok(Prepared {
        build_args,
        targets,
        wanted,
        is_index,
    })
}

fn plan_all(
    dockerfile: &Dockerfile,
    inputs: &PlanInputs,
    known: &Known,
    report: &mut Report,
) -> Result<Planned, Reported> {
    let build_args = BuildArgs::new(inputs);
    // Its mistakes are told by the real evaluation.
    let globals = Globals::new(
        dockerfile,
        Some(&build_args),
        &inputs.host,
        inputs.platforms.first().unwrap_or(&inputs.host),
        target_name(dockerfile, inputs),
        &mut Report::default(),
    );
    match epoch::find(dockerfile, inputs, known, &build_args, &globals, report)? {
        epoch::Found::Epoch(epoch) => plan_targets(dockerfile, inputs, known, epoch, report),
        epoch::Found::Wanted(wanted) => Ok(Planned::Wanted(wanted)),
    }
}

/// Plans with an epoch that is known.
pub(super) fn plan_targets(
    dockerfile: &Dockerfile,
    inputs: &PlanInputs,
    known: &Known,
    epoch: Option<i64>,
    report: &mut Report,
) -> Result<Planned, Reported> {
    let bases = &known.bases;
    let Prepared {
        build_args,
        targets,
        wanted,
        is_index,
    } = prepare(dockerfile, inputs, bases, epoch, report)?;
    if !wanted.is_empty() {
        return Ok(Planned::Wanted(
            wanted.into_iter().map(Wanted::Base).collect(),
        ));
    }

    let mut steps = Steps::new(Remotes::new(known, inputs));
    let mut outputs = Vec::with_capacity(targets.len());
    let mut beside = Vec::new();
    for target in &targets {
        let mut planning = Planning {
            inputs,
            escape: dockerfile.escape,
            build_args: &build_args,
            globals: &target.globals,
            stages: &target.stages,
            bases,
            finished: BTreeMap::new(),
            epoch,
            outline: None,
        };
        // Stages use earlier ones only, so their order is one in which each finds what it needs.
        for (&at, fired) in &target.reach.stages {
            let finished = build(&planning, at, fired, &mut steps, report);
            planning.finished.insert(at, finished);
        }
        for (name, stage) in &target.beside {
            let finished = &planning.finished[stage];
            let platform = finished.config.platform();
            beside.push(Beside {
                stage: (*name).to_owned(),
                platform: platform.unwrap_or_else(|| target.stages.target_platform().clone()),
                root: finished.root,
            });
        }
        outputs.push(output(planning, target.stage, inputs));
    }
    if report.has_errors() {
        return Err(Reported);
    }
    if !steps.remotes.wanted.is_empty() {
        return Ok(Planned::Wanted(steps.remotes.wanted));
    }
    let (steps, origins) = steps.finish();
    Ok(Planned::Ready(Graph {
        steps,
        origins,
        outputs,
        beside,
        is_index,
        epoch,
        cache_version: inputs.cache_version.map(str::to_owned),
    }))
}

fn output(mut planning: Planning, target: usize, inputs: &PlanInputs) -> Output {
    let stage = &planning.stages.list[target];
    let finished = planning
        .finished
        .remove(&target)
        .expect("the target needs itself");
    let mut config = finished.config;
    for (name, value) in inputs.labels {
        config.config.labels.insert(name.clone(), value.clone());
    }
    let wanted = &planning.stages.target_platform();
    if !inputs.platforms.is_empty() {
        // A platform that was asked for is what the image says, whatever its base said.
        let same = config.os == wanted.os && config.architecture == wanted.architecture;
        config.os.clone_from(&wanted.os);
        config.architecture.clone_from(&wanted.architecture);
        if wanted.variant.is_some() || !same {
            config.variant.clone_from(&wanted.variant);
        }
        if wanted.os_version.is_some() || !same {
            config.os_version.clone_from(&wanted.os_version);
        }
    }
    let platform = config.platform().unwrap_or_else(|| (*wanted).clone());
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
    config.variant.clone_from(&platform.variant);
    let others = planning.finished.iter();
    Output {
        platform,
        stage: stage.name().unwrap_or("default").to_owned(),
        root: finished.root,
        config,
        history: finished.history,
        stages: others
            .map(|(&at, other)| (planning.stages.label(at), other.root))
            .collect(),
    }
}
