//! The syntax of a Dockerfile, as written: words are not expanded, names are not resolved.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::vocab::{Span, Spanned};

/// A piece of text as the user wrote it, after continuation lines were joined; quotes and variables are still in it.
pub type Word = Spanned<String>;

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    pub directives: Directives,
    /// `\`, or a backtick by directive.
    pub escape: char,
    /// `ARG`s before the first `FROM`, an entry per instruction.
    pub global_args: Vec<Spanned<Vec<ArgDeclaration>>>,
    pub stages: Vec<Stage>,
    /// Comment lines right above instructions, by where the instruction's span starts.
    pub comments: BTreeMap<usize, Vec<Word>>,
}

impl Dockerfile {
    /// Returns the places of all instructions, in no order.
    pub fn instruction_spans(&self) -> impl Iterator<Item = Span> {
        let global = self.global_args.iter().map(|arguments| arguments.span);
        let staged = self.stages.iter().flat_map(|stage| {
            let own = stage.instructions.iter();
            std::iter::once(stage.from.span).chain(own.map(|instruction| instruction.span))
        });
        global.chain(staged)
    }

    /// Returns what the comment above the instruction at `span` says of `name`: the rest of the line that begins with it.
    pub fn description(&self, span: Span, name: &str) -> Option<&str> {
        let comments = self.comments.get(&span.start)?;
        comments.iter().find_map(|comment| {
            let rest = comment.value.strip_prefix(name)?;
            rest.strip_prefix(' ').map(str::trim)
        })
    }
}

/// The parser directives at the top; each as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub syntax: Option<Word>,
    pub escape: Option<Word>,
    pub check: Option<Word>,
}

/// A `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    pub from: Spanned<From>,
    pub instructions: Vec<Instruction>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    pub image: Word,
    pub platform: Option<Word>,
    /// The name after `AS`, in lower case.
    pub name: Option<Word>,
}

/// One instruction of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub kind: InstructionKind,
    /// From the keyword to the end of the last line, heredoc bodies included.
    pub span: Span,
    /// The instruction on one line for display and for history: continuation lines joined, as written otherwise; without
    /// heredoc bodies.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstructionKind {
    Add(Copy, AddFlags),
    Arg(Vec<ArgDeclaration>),
    Cmd(Command),
    Copy(Copy),
    Entrypoint(Command),
    Env(Vec<KeyValue>),
    Expose(Vec<Word>),
    Healthcheck(Healthcheck),
    Label(Vec<KeyValue>),
    Maintainer(Word),
    Onbuild(Onbuild),
    Run(Run),
    Shell(Vec<String>),
    Stopsignal(Word),
    User(Word),
    Volume(Vec<Word>),
    Workdir(Word),
}

/// What CMD, ENTRYPOINT, RUN and HEALTHCHECK CMD run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The JSON form.
    Exec(Vec<String>),
    /// Everything else: text for the shell, inner white space kept, ends trimmed.
    Shell(Word),
}

/// `NAME` or `NAME=default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDeclaration {
    pub name: Word,
    pub default: Option<Word>,
}

/// A pair of ENV or LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Word,
    pub value: Word,
    /// The old form `ENV key value with blanks`.
    pub legacy: bool,
}

/// COPY, and what ADD shares with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub sources: Vec<CopySource>,
    pub destination: Word,
    pub from: Option<Word>,
    pub chown: Option<Word>,
    pub chmod: Option<Word>,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<Word>,
}

/// ADD's own flags; `None` where not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddFlags {
    pub checksum: Option<Word>,
    pub unpack: Option<Spanned<bool>>,
    pub keep_git_dir: Option<Spanned<bool>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    Path(Word),
    Heredoc(Heredoc),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes.
    pub name: String,
    /// The body; with `chomp` the leading tabs are already gone.
    pub content: String,
    /// False where the delimiter was quoted.
    pub expand: bool,
    /// True for `<<-`.
    pub chomp: bool,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`
    None,
    Cmd(HealthcheckTest),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthcheckTest {
    pub command: Command,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
    pub retries: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// The trigger as it goes into the image's config: the text after `ONBUILD`, heredoc bodies included.
    pub trigger: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// With heredocs: the text of the line as written (`<<EOF sh`).
    pub command: Command,
    pub heredocs: Vec<Heredoc>,
    pub mounts: Vec<MountFlag>,
    pub network: Option<Word>,
    pub security: Option<Word>,
    pub devices: Vec<Word>,
}

/// One `--mount=…`: its comma-separated options in order. Keys are known ones; values are unexpanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlag {
    pub options: Vec<(Word, Option<Word>)>,
    pub span: Span,
}
