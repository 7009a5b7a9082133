//! Which stages a target needs, which bases they stand on, and which triggers fire in them.
//!
//! Only these stages become steps, and only their bases are asked for. A base that is not known yet may carry triggers that
//! name more; planning is asked again once it is known.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Report, Reported};
use super::stages::{Source, Stages, named_by};
use super::{Base, BaseKey, BaseWanted};
use crate::dockerfile::{self, Instruction, InstructionKind};
use crate::vocab::{Diagnostic, Span};

/// What one target needs.
#[derive(Default)]
pub(super) struct Reach {
    /// The instructions that the base's triggers put in front of a stage's own, by stage. Holds every needed stage.
    pub(super) stages: BTreeMap<usize, Vec<Instruction>>,
    /// Bases that are not known yet.
    pub(super) wanted: Vec<BaseWanted>,
}

impl Reach {
    /// Walks from `targets` over everything they need.
    pub(super) fn new(
        stages: &Stages,
        targets: Vec<usize>,
        bases: &BTreeMap<BaseKey, Base>,
        report: &mut Report,
    ) -> Result<Reach, Reported> {
        let mut reach = Reach::default();
        let mut queued: BTreeSet<usize> = targets.iter().copied().collect();
        let mut queue = targets;
        let mut failed = false;
        while let Some(at) = queue.pop() {
            match reach.visit(stages, at, bases, report) {
                Ok(needed) => {
                    queue.extend(needed.into_iter().filter(|stage| queued.insert(*stage)))
                }
                Err(Reported) => failed = true,
            }
        }
        // The order of the text, not of the walk.
        reach.wanted.sort_by_key(|wanted| wanted.span);
        if failed { Err(Reported) } else { Ok(reach) }
    }

    /// Notes what a stage needs and returns the stages among it.
    fn visit(
        &mut self,
        stages: &Stages,
        at: usize,
        bases: &BTreeMap<BaseKey, Base>,
        report: &mut Report,
    ) -> Result<Vec<usize>, Reported> {
        let stage = &stages.list[at];
        let mut needed = Vec::new();
        let triggers: Vec<&str> = match &stage.source {
            Source::Scratch | Source::Directory(_) => Vec::new(),
            Source::Stage(base) => {
                needed.push(*base);
                let base = &stages.list[*base];
                // What a named context gives in the place of a stage is taken as it is.
                let is_bare = base.replaced || stage.replaced;
                let own = base.stage.instructions.iter().filter(|_| !is_bare);
                own.filter_map(trigger_of).collect()
            }
            Source::Image(key) => {
                let image = &stage.stage.from.value.image;
                match self.known(key, Some(image.span), bases) {
                    Some(base) if !stage.replaced => base
                        .config
                        .config
                        .on_build
                        .iter()
                        .map(String::as_str)
                        .collect(),
                    _ => Vec::new(),
                }
            }
        };
        let mut fired = Vec::with_capacity(triggers.len());
        for trigger in triggers {
            fired.push(fire(trigger, stage.span(), report)?);
        }
        let own = stage.stage.instructions.iter().filter(|_| !stage.replaced);
        let own = own.map(|instruction| (instruction, None));
        let fired_by = Some(stage.span());
        let all = fired
            .iter()
            .map(|instruction| (instruction, fired_by))
            .chain(own);
        let mut failed = false;
        for (instruction, fired_by) in all {
            for from in named_by(&instruction.kind) {
                match stages.reference(from, at) {
                    Ok(Source::Stage(stage)) => needed.push(stage),
                    Ok(Source::Image(key)) => {
                        self.known(&key, Some(fired_by.unwrap_or(from.span)), bases);
                    }
                    Ok(Source::Scratch | Source::Directory(_)) => {}
                    Err(error) => {
                        report.add(moved(*error, fired_by));
                        failed = true;
                    }
                }
            }
        }
        self.stages.insert(at, fired);
        if failed { Err(Reported) } else { Ok(needed) }
    }

    fn known<'b>(
        &mut self,
        key: &BaseKey,
        span: Option<Span>,
        bases: &'b BTreeMap<BaseKey, Base>,
    ) -> Option<&'b Base> {
        let found = bases.get(key);
        if found.is_none() {
            match self.wanted.iter_mut().find(|wanted| wanted.key == *key) {
                // The first place that names it is the one to show.
                Some(known) => known.span = known.span.min(span),
                None => self.wanted.push(BaseWanted {
                    key: key.clone(),
                    span,
                }),
            }
        }
        found
    }
}

/// Points a mistake of a trigger at the FROM that fired it: its own places are in a text that nobody sees.
pub(super) fn moved(mut diagnostic: Diagnostic, fired_by: Option<Span>) -> Diagnostic {
    let Some(span) = fired_by else {
        return diagnostic;
    };
    diagnostic.labels.clear();
    diagnostic.label(span, "in an ONBUILD trigger of this base")
}

fn trigger_of(instruction: &Instruction) -> Option<&str> {
    match &instruction.kind {
        InstructionKind::Onbuild(onbuild) => Some(&onbuild.trigger),
        _ => None,
    }
}

fn fire(trigger: &str, from: Span, report: &mut Report) -> Result<Instruction, Reported> {
    let instruction = match dockerfile::parse_trigger(trigger) {
        Ok(instruction) => instruction,
        Err(mistakes) => {
            let line = trigger.lines().next().unwrap_or_default();
            let mut error = Diagnostic::error("an ONBUILD trigger of the base cannot be read");
            for mistake in mistakes.into_iter().filter(Diagnostic::is_error) {
                error = error.cause(mistake.message);
            }
            let error = error.cause(format!("the trigger is `{line}`"));
            return Err(report.refuse(moved(error, Some(from))));
        }
    };
    match instruction.kind {
        InstructionKind::Onbuild(_) | InstructionKind::Maintainer(_) => {
            let error = Diagnostic::error(format!(
                "a trigger cannot be ONBUILD or MAINTAINER: `{}`",
                instruction.text
            ));
            Err(report.refuse(moved(error, Some(from))))
        }
        _ => Ok(instruction),
    }
}
