//! One stage, from its base to its last instruction: the order of things, and what all instructions lean on.
//!
//! What single instructions do is in `metadata` (those that only change the config), `run` and `copy`.

use std::collections::BTreeMap;

use super::naming::{Naming, shown};
use super::planner::Planning;
use super::reach::moved;
use super::report::{Report, Reported};
use super::stages::{ResolvedStage, Source};
use super::start::State;
use super::steps::Steps;
use super::words::Words;
use super::{HistoryItem, Op, StepId, paths};
use crate::dockerfile::{Instruction, InstructionKind, Word};
use crate::vocab::{Diagnostic, Span};

/// Plans one stage.
pub(super) struct StageBuilder<'a> {
    pub(super) planning: &'a Planning<'a>,
    pub(super) at: usize,
    pub(super) steps: &'a mut Steps,
    pub(super) report: &'a mut Report,
    pub(super) naming: Naming,
    pub(super) state: State,
    /// Whether CMD was among this stage's instructions: then ENTRYPOINT leaves it alone.
    pub(super) cmd_is_own: bool,
    /// Where the last instruction stands of each kind that makes sense once.
    pub(super) used: BTreeMap<&'static str, Span>,
    /// The FROM whose base has the trigger that is carried out now.
    pub(super) fired_by: Option<Span>,
}

/// Carries out a stage: its base, `fired` (the instructions of the base's triggers) and its own instructions. Mistakes go to the
/// report; what can be planned in spite of them is.
pub(super) fn build(
    planning: &Planning,
    at: usize,
    fired: &[Instruction],
    steps: &mut Steps,
    report: &mut Report,
) -> State {
    let stage = &planning.stages.list[at];
    let own: &[Instruction] = match stage.replaced {
        true => &[],
        false => &stage.stage.instructions,
    };
    let has_base_step = matches!(stage.source, Source::Image(_) | Source::Directory(_));
    let numbered = fired
        .iter()
        .chain(own)
        .filter(|instruction| is_numbered(&instruction.kind));
    let mut naming = Naming::new(planning, at, usize::from(has_base_step) + numbered.count());
    let mut builder = StageBuilder {
        state: State::new(planning, at, &mut naming, steps, report),
        planning,
        at,
        steps,
        report,
        naming,
        cmd_is_own: false,
        used: BTreeMap::new(),
        fired_by: Some(stage.span()),
    };
    for instruction in fired {
        builder.carry_out(instruction);
    }
    builder.fired_by = None;
    for instruction in own {
        builder.carry_out(instruction);
    }
    builder.state
}

impl<'a> StageBuilder<'a> {
    /// Returns the stage with its FROM.
    pub(super) fn stage(&self) -> &'a ResolvedStage<'a> {
        &self.planning.stages.list[self.at]
    }

    /// Returns where to point for `span`: the FROM, if it lies in a trigger.
    pub(super) fn place(&self, span: Span) -> Span {
        self.fired_by.unwrap_or(span)
    }

    /// Reports a mistake and says where.
    pub(super) fn refuse(&mut self, diagnostic: Diagnostic) -> Reported {
        self.report.refuse(moved(diagnostic, self.fired_by))
    }

    /// Returns the text that a word stands for.
    pub(super) fn expand(&mut self, word: &Word) -> Result<String, Reported> {
        self.with_words(|words, report| words.one(word, report))
    }

    /// Lends the words of this moment.
    pub(super) fn with_words<T>(&mut self, use_them: impl FnOnce(&Words, &mut Report) -> T) -> T {
        let arguments = &self.state.arguments;
        let knows_base = self.state.base_is_known;
        let words = Words {
            escape: self.planning.escape,
            values: &self.state.environment,
            declared: &|name| !knows_base || arguments.iter().any(|(known, _)| known == name),
            at: self.fired_by,
        };
        use_them(&words, self.report)
    }

    /// Returns the working directory.
    pub(super) fn cwd(&self) -> String {
        paths::resolve("/", &self.state.config.config.working_dir)
    }

    /// Notes an instruction that changes no file.
    pub(super) fn note(&mut self, created_by: String) {
        self.state.history.push(HistoryItem::Empty { created_by });
    }

    /// Adds a step on the stage's root, which becomes the root, and notes its layer. `remark` goes behind the step's name.
    pub(super) fn layer(
        &mut self,
        op: Op,
        sources: Vec<StepId>,
        instruction: &Instruction,
        remark: &str,
        created_by: String,
    ) {
        let mut inputs = vec![self.state.root];
        inputs.extend(sources);
        let text = format!("{}{remark}", shown(&instruction.text));
        let origin = match self.fired_by {
            Some(from) => self.naming.next(&format!("ONBUILD {text}"), from),
            None => self.naming.next(&text, instruction.span),
        };
        let step = self.steps.add(op, inputs, origin);
        self.state.root = step;
        self.state
            .history
            .push(HistoryItem::Layer { created_by, step });
    }

    /// Carries out one instruction. A mistake in it does not keep the later ones from being looked at.
    fn carry_out(&mut self, instruction: &Instruction) {
        if self.planning.outline.is_some() {
            return self.outline(instruction);
        }
        self.lint(instruction);
        let done = match &instruction.kind {
            InstructionKind::Add(copy, flags) => self.add(copy, flags, instruction),
            InstructionKind::Arg(list) => self.arg(list, instruction.span),
            InstructionKind::Cmd(command) => self.cmd(command),
            InstructionKind::Copy(copy) => self.copy(copy, instruction),
            InstructionKind::Entrypoint(command) => self.entrypoint(command),
            InstructionKind::Env(pairs) => self.env(pairs),
            InstructionKind::Expose(words) => self.expose(words),
            InstructionKind::Healthcheck(check) => self.healthcheck(check, instruction.span),
            InstructionKind::Label(pairs) => self.label(pairs),
            InstructionKind::Maintainer(name) => self.maintainer(name),
            InstructionKind::Onbuild(onbuild) => self.onbuild(onbuild),
            InstructionKind::Run(run) => self.run(run, instruction),
            InstructionKind::Shell(argv) => self.shell(argv),
            InstructionKind::Stopsignal(word) => self.stopsignal(word),
            InstructionKind::User(word) => self.user(word),
            InstructionKind::Volume(words) => self.volume(words),
            InstructionKind::Workdir(word) => self.workdir(word, instruction),
        };
        // The report has the mistake.
        done.unwrap_or(());
    }
}

fn is_numbered(kind: &InstructionKind) -> bool {
    matches!(
        kind,
        InstructionKind::Add(..)
            | InstructionKind::Copy(_)
            | InstructionKind::Run(_)
            | InstructionKind::Workdir(_)
    )
}
