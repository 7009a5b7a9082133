//! What a target can be given: build arguments, secrets, agents, caches.
//!
//! The same way from Dockerfile to stages as a plan's, but only ARG and ENV are carried out, and RUN is asked for its mounts.
//! Every name comes once: as the stage nearest to the target has it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::build::StageBuilder;
use super::planner::{self, Planning, Prepared};
use super::remotes::Remotes;
use super::report::{Report, Reported};
use super::steps::Steps;
use super::wanted::Known;
use super::{Base, BaseKey, BaseWanted, PlanInputs};
use crate::dockerfile::{
    self, ArgDeclaration, Dockerfile, Instruction, InstructionKind, MountFlag, Word,
};
use crate::vocab::{Diagnostic, Span};

/// What a target can be given, each in the order of the text. Spans are those of the instructions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name, if it has one.
    pub name: Option<String>,
    pub description: Option<String>,
    pub args: Vec<OutlineArg>,
    pub secrets: Vec<OutlineMount>,
    pub ssh: Vec<OutlineMount>,
    /// By their IDs.
    pub caches: Vec<OutlineMount>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArg {
    pub name: String,
    /// As it is now: what was given, or the default.
    pub value: Option<String>,
    pub description: Option<String>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineMount {
    pub name: String,
    pub required: bool,
    pub span: Span,
}

/// An outline, or what must be known first.
#[derive(Debug)]
pub enum Outlined {
    Wanted(Vec<BaseWanted>),
    Ready(Outline),
}

/// Collects while stages are walked.
#[derive(Default)]
pub(super) struct Collected {
    args: BTreeMap<String, OutlineArg>,
    secrets: BTreeMap<String, OutlineMount>,
    ssh: BTreeMap<String, OutlineMount>,
    caches: BTreeMap<String, OutlineMount>,
    /// Names whose value is a global ARG's.
    global: BTreeSet<String>,
}

/// Tells what the target can be given, or which bases must be known first.
pub fn outline(
    dockerfile: &Dockerfile,
    inputs: &PlanInputs,
    bases: &BTreeMap<BaseKey, Base>,
) -> Result<Outlined, Vec<Diagnostic>> {
    let mut report = Report::default();
    let outlined = outline_target(dockerfile, inputs, bases, &mut report);
    match (outlined, report.finish()) {
        (Ok(outlined), Ok(_)) => Ok(outlined),
        (_, Err(errors)) => Err(errors),
        (Err(Reported), Ok(_)) => {
            unreachable!("`Reported` is made only where an error is reported")
        }
    }
}

fn outline_target(
    dockerfile: &Dockerfile,
    inputs: &PlanInputs,
    bases: &BTreeMap<BaseKey, Base>,
    report: &mut Report,
) -> Result<Outlined, Reported> {
    let Prepared {
        build_args,
        targets,
        wanted,
        ..
    } = planner::prepare(dockerfile, inputs, bases, None, report)?;
    if !wanted.is_empty() {
        return Ok(Outlined::Wanted(wanted));
    }
    // What can be given is the same for every platform.
    let planner::Target {
        globals,
        stages,
        stage: target,
        reach,
        ..
    } = targets
        .first()
        .expect("there is a platform, if only the host's");
    let collected = RefCell::new(Collected::default());
    let mut planning = Planning {
        inputs,
        escape: dockerfile.escape,
        build_args: &build_args,
        globals,
        stages,
        bases,
        epoch: None,
        finished: BTreeMap::new(),
        outline: Some(&collected),
    };
    let mut steps = Steps::new(Remotes::new(&Known::default(), inputs));
    let mut from_words: Vec<&Word> = Vec::new();
    for (&at, fired) in &reach.stages {
        let from = &stages.list[at].stage.from.value;
        from_words.push(&from.image);
        from_words.extend(&from.platform);
        let finished = super::build::build(&planning, at, fired, &mut steps, report);
        planning.finished.insert(at, finished);
    }
    if report.has_errors() {
        return Err(Reported);
    }
    let mut collected = collected.into_inner();
    for word in from_words {
        collected.global.extend(names_in(word, dockerfile.escape));
    }
    add_globals(&mut collected, dockerfile, |name| {
        globals.values.get(name).map(str::to_owned)
    });
    for arg in collected.args.values_mut() {
        arg.description = dockerfile
            .description(arg.span, &arg.name)
            .map(str::to_owned);
    }
    let target = stages.list[*target].stage;
    let name = target.from.value.name.as_ref();
    let in_order = |mounts: BTreeMap<String, OutlineMount>| {
        let mut mounts: Vec<OutlineMount> = mounts.into_values().collect();
        mounts.sort_by_key(|mount| mount.span);
        mounts
    };
    let mut args: Vec<OutlineArg> = collected.args.into_values().collect();
    args.sort_by_key(|arg| arg.span);
    Ok(Outlined::Ready(Outline {
        name: name.map(|name| name.value.clone()),
        description: name
            .and_then(|name| dockerfile.description(target.from.span, &name.value))
            .map(str::to_owned),
        args,
        secrets: in_order(collected.secrets),
        ssh: in_order(collected.ssh),
        caches: in_order(collected.caches),
    }))
}

/// Adds the global ARGs that something uses, and those that these use.
fn add_globals(
    collected: &mut Collected,
    dockerfile: &Dockerfile,
    value: impl Fn(&str) -> Option<String>,
) {
    let lists = dockerfile.global_args.iter();
    let declared: Vec<(&ArgDeclaration, Span)> = lists
        .flat_map(|list| list.value.iter().map(|argument| (argument, list.span)))
        .collect();
    // A default uses only what stands before it.
    for (argument, span) in declared.into_iter().rev() {
        let name = &argument.name.value;
        if !collected.global.contains(name) {
            continue;
        }
        if let Some(default) = &argument.default {
            let used = names_in(default, dockerfile.escape);
            collected.global.extend(used);
        }
        collected.args.entry(name.clone()).or_insert(OutlineArg {
            name: name.clone(),
            value: value(name),
            description: None,
            span,
        });
    }
}

/// Returns the variables in a word.
fn names_in(word: &Word, escape: char) -> Vec<String> {
    let names = RefCell::new(Vec::new());
    // A word that cannot be expanded was told as an error.
    drop(dockerfile::expand(&word.value, escape, &|name| {
        names.borrow_mut().push(name.to_owned());
        Some("x".to_owned())
    }));
    names.into_inner()
}

impl StageBuilder<'_> {
    /// Takes an instruction for what it says of the outside. A mistake in it is in the report.
    pub(super) fn outline(&mut self, instruction: &Instruction) {
        let done = match &instruction.kind {
            InstructionKind::Arg(list) => self.arg(list, instruction.span),
            InstructionKind::Env(pairs) => self.env(pairs),
            InstructionKind::Run(run) => self.outline_mounts(&run.mounts, instruction.span),
            _ => Ok(()),
        };
        done.unwrap_or(());
    }

    /// Notes an argument that this stage declares. One without a default is the global one of its name, if there is one.
    pub(super) fn outline_arg(
        &self,
        argument: &ArgDeclaration,
        instruction: Span,
        value: Option<&str>,
    ) {
        let Some(collected) = self.planning.outline else {
            return;
        };
        let name = &argument.name.value;
        let mut collected = collected.borrow_mut();
        if argument.default.is_none() && self.planning.globals.knows(name) {
            collected.global.insert(name.clone());
            return;
        }
        // One from a trigger stands where its FROM does.
        let span = self.fired_by.unwrap_or(instruction);
        collected.args.insert(
            name.clone(),
            OutlineArg {
                name: name.clone(),
                value: value.map(str::to_owned),
                description: None,
                span,
            },
        );
    }

    /// Notes what a RUN mounts.
    fn outline_mounts(&mut self, mounts: &[MountFlag], instruction: Span) -> Result<(), Reported> {
        let Some(collected) = self.planning.outline else {
            return Ok(());
        };
        let span = self.fired_by.unwrap_or(instruction);
        for mount in mounts {
            let mut options: BTreeMap<&str, Option<String>> = BTreeMap::new();
            for (key, value) in &mount.options {
                let value = match value {
                    Some(value) => Some(self.expand(value)?),
                    None => None,
                };
                options.insert(&key.value, value);
            }
            let text = |key: &str| {
                options
                    .get(key)
                    .cloned()
                    .flatten()
                    .filter(|text| !text.is_empty())
            };
            let target = text("target").unwrap_or_default();
            let required = match options.get("required") {
                Some(Some(value)) => {
                    matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")
                }
                Some(None) => true,
                None => false,
            };
            let kind = text("type").unwrap_or_default().to_ascii_lowercase();
            let mut collected = collected.borrow_mut();
            let (list, name) = match kind.as_str() {
                "secret" => {
                    let base = target.rsplit('/').next().unwrap_or_default().to_owned();
                    let id = text("id").or_else(|| text("source")).unwrap_or(base);
                    (&mut collected.secrets, id)
                }
                "ssh" => (
                    &mut collected.ssh,
                    text("id").unwrap_or_else(|| "default".to_owned()),
                ),
                "cache" => (&mut collected.caches, text("id").unwrap_or(target)),
                _ => continue,
            };
            list.insert(
                name.clone(),
                OutlineMount {
                    name,
                    required,
                    span,
                },
            );
        }
        Ok(())
    }
}
