//! One instruction's line becomes its syntax.
//!
//! In: a cut line ([`Header`]), the bodies of its heredocs and the escape character. Out: [`Parsed`], and diagnostics for what
//! is wrong; `None` where nothing usable is left. Order of instructions and stages are `parse`'s.

use std::time::Duration;

use super::ast::{
    AddFlags, ArgDeclaration, Command, Copy, CopySource, From, Healthcheck, HealthcheckTest,
    Heredoc, InstructionKind, KeyValue, Onbuild, Run,
};
use super::flags::{FlagKind, Flags, KnownFlag};
use super::heredoc::Mark;
use super::json::{self, Json};
use super::lines::Part;
use super::words::{self, Header};
use super::{Word, duration, mount, suggest};
use crate::vocab::{Diagnostic, Spanned};

pub(super) enum Parsed {
    From(From, StageWords),
    Arg(Vec<ArgDeclaration>),
    Other(InstructionKind),
}

/// How keywords and names of a stage are written; for the lints about them.
pub(super) struct StageWords {
    /// `FROM`
    pub(super) keyword: Word,
    /// `AS` and the name.
    pub(super) name: Option<(Word, Word)>,
    /// The keywords of the stage's instructions, in order.
    pub(super) instructions: Vec<Word>,
}

/// A heredoc of the line, with the body as it stands in the file.
pub(super) struct Body {
    pub(super) mark: Mark,
    pub(super) raw: String,
    pub(super) heredoc: Heredoc,
}

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const RUN_FLAGS: [KnownFlag; 4] = [
    ("mount", FlagKind::List),
    ("network", FlagKind::Value),
    ("security", FlagKind::Value),
    ("device", FlagKind::List),
];
const COPY_FLAGS: [KnownFlag; 6] = [
    ("from", FlagKind::Value),
    ("chown", FlagKind::Value),
    ("chmod", FlagKind::Value),
    ("link", FlagKind::Bool),
    ("parents", FlagKind::Bool),
    ("exclude", FlagKind::List),
];
const ADD_FLAGS: [KnownFlag; 7] = [
    ("chown", FlagKind::Value),
    ("chmod", FlagKind::Value),
    ("link", FlagKind::Bool),
    ("exclude", FlagKind::List),
    ("checksum", FlagKind::Value),
    ("unpack", FlagKind::Bool),
    ("keep-git-dir", FlagKind::Bool),
];
const HEALTHCHECK_FLAGS: [KnownFlag; 5] = [
    ("interval", FlagKind::Value),
    ("timeout", FlagKind::Value),
    ("start-period", FlagKind::Value),
    ("start-interval", FlagKind::Value),
    ("retries", FlagKind::Value),
];
const FROM_FLAGS: [KnownFlag; 1] = [("platform", FlagKind::Value)];

/// Tells whether heredoc marks in an instruction's line mean anything.
pub(super) fn takes_heredocs(header: &Header<'_>) -> bool {
    match header.keyword.as_str().to_ascii_uppercase().as_str() {
        "RUN" | "COPY" | "ADD" => json::read(header.arguments.as_str()) == Json::No,
        "ONBUILD" => {
            let inner = Header::new(header.arguments);
            !inner.keyword.as_str().eq_ignore_ascii_case("ONBUILD") && takes_heredocs(&inner)
        }
        _ => false,
    }
}

/// Reads one instruction.
pub(super) fn parse(
    header: &Header<'_>,
    bodies: &[Body],
    escape: char,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Parsed> {
    let name = header.keyword.as_str().to_ascii_uppercase();
    let mut reader = Reader {
        name: &name,
        header,
        bodies,
        escape,
        diagnostics,
    };
    let kind = match name.as_str() {
        "FROM" => {
            let (from, words) = reader.from();
            return Some(Parsed::From(from, words));
        }
        "ARG" => return Some(Parsed::Arg(reader.arg()?)),
        "ADD" => reader.add()?,
        "CMD" => InstructionKind::Cmd(reader.plain_command()?),
        "COPY" => reader.copy()?,
        "ENTRYPOINT" => InstructionKind::Entrypoint(reader.plain_command()?),
        "ENV" => InstructionKind::Env(reader.key_values()?),
        "EXPOSE" => InstructionKind::Expose(reader.expose()?),
        "HEALTHCHECK" => InstructionKind::Healthcheck(reader.healthcheck()?),
        "LABEL" => InstructionKind::Label(reader.key_values()?),
        "MAINTAINER" => InstructionKind::Maintainer(reader.whole()?),
        "ONBUILD" => InstructionKind::Onbuild(reader.onbuild()?),
        "RUN" => InstructionKind::Run(reader.run()?),
        "SHELL" => InstructionKind::Shell(reader.shell()?),
        "STOPSIGNAL" => InstructionKind::Stopsignal(reader.whole()?),
        "USER" => InstructionKind::User(reader.whole()?),
        "VOLUME" => InstructionKind::Volume(reader.volume()?),
        "WORKDIR" => InstructionKind::Workdir(reader.whole()?),
        _ => {
            reader.unknown();
            return None;
        }
    };
    Some(Parsed::Other(kind))
}

/// Returns the instruction that a mistyped keyword was meant to be.
pub(super) fn closest_keyword(keyword: &str) -> Option<&'static str> {
    suggest::closest(keyword, &KEYWORDS)
}

/// Tells whether a word is an instruction.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS
        .iter()
        .any(|keyword| keyword.eq_ignore_ascii_case(word))
}

struct Reader<'h, 'a> {
    /// The keyword in upper case.
    name: &'h str,
    header: &'h Header<'a>,
    bodies: &'h [Body],
    escape: char,
    diagnostics: &'h mut Vec<Diagnostic>,
}

impl<'a> Reader<'_, 'a> {
    fn from(&mut self) -> (From, StageWords) {
        let flags = self.flags(&FROM_FLAGS);
        let arguments = words::split_blanks(self.header.arguments, &[]);
        let named = match arguments.as_slice() {
            [_, keyword, name] if keyword.as_str().eq_ignore_ascii_case("as") => {
                Some((*keyword, *name))
            }
            [_] => None,
            _ => {
                self.error_at_arguments("FROM takes an image, or an image, `AS` and a name");
                None
            }
        };
        let name = named.and_then(|(_, name)| self.stage_name(name));
        let image = match arguments.first() {
            Some(image) => image.word(),
            None => self.header.arguments.word(),
        };
        let from = From {
            image,
            platform: flags.value("platform"),
            name,
        };
        let words = StageWords {
            keyword: self.header.keyword.word(),
            name: named.map(|(keyword, name)| (keyword.word(), name.word())),
            instructions: Vec::new(),
        };
        (from, words)
    }

    fn stage_name(&mut self, written: Part<'a>) -> Option<Word> {
        let name = written.as_str().to_lowercase();
        let is_valid = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .chars()
                .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'));
        if !is_valid {
            self.diagnostics.push(
                Diagnostic::error(format!("invalid name of a stage: `{}`", written.as_str()))
                    .at(written.span())
                    .hint("a name starts with a letter; letters, digits, `-`, `_` and `.` follow"),
            );
            return None;
        }
        Some(Spanned::new(name, written.span()))
    }

    fn arg(&mut self) -> Option<Vec<ArgDeclaration>> {
        self.flags(&[]);
        let words = words::split_quoted(self.header.arguments, self.escape);
        self.at_least_one(words.len())?;
        let mut declarations = Vec::new();
        for word in words {
            let (name, default) = match words::split_equals(word) {
                Some((name, default)) => (name, Some(default.word())),
                None => (word, None),
            };
            if name.is_empty() {
                self.blank_name(word);
                continue;
            }
            declarations.push(ArgDeclaration {
                name: name.word(),
                default,
            });
        }
        Some(declarations)
    }

    fn key_values(&mut self) -> Option<Vec<KeyValue>> {
        self.flags(&[]);
        let arguments = self.header.arguments;
        let words = words::split_quoted(arguments, self.escape);
        self.at_least_one(words.len())?;
        if !words[0].as_str().contains('=') {
            return self.legacy_key_value(arguments);
        }
        let mut pairs = Vec::new();
        for word in words {
            match words::split_equals(word) {
                Some((key, _)) if key.is_empty() => self.blank_name(word),
                Some((key, value)) => pairs.push(KeyValue {
                    key: key.word(),
                    value: value.word(),
                    legacy: false,
                }),
                None => self.diagnostics.push(
                    Diagnostic::error(format!("`{}` has no `=`", word.as_str()))
                        .at(word.span())
                        .hint(format!(
                            "{} takes key=value pairs; a value with blanks stands in double quotes",
                            self.name
                        )),
                ),
            }
        }
        Some(pairs)
    }

    fn legacy_key_value(&mut self, arguments: Part<'a>) -> Option<Vec<KeyValue>> {
        let text = arguments.as_str();
        let Some(key_end) = text.find(words::is_blank) else {
            self.diagnostics.push(
                Diagnostic::error(format!("`{text}` has no value"))
                    .at(arguments.span())
                    .hint(format!("write `{} {text}=…`", self.name)),
            );
            return None;
        };
        let value_start = text.len() - text[key_end..].trim_start_matches(words::is_blank).len();
        Some(vec![KeyValue {
            key: arguments.slice(0..key_end).word(),
            value: arguments.after(value_start).word(),
            legacy: true,
        }])
    }

    fn copy(&mut self) -> Option<InstructionKind> {
        let flags = self.flags(&COPY_FLAGS);
        let from = flags.value("from");
        if let Some(from) = &from
            && from.value.contains('$')
        {
            self.diagnostics.push(
                Diagnostic::error("variables are not expanded in `--from`")
                    .at(from.span)
                    .hint("define a stage with `FROM … AS name`, where global arguments are, and name it"),
            );
        }
        Some(InstructionKind::Copy(self.copy_parts(&flags, from)?))
    }

    fn add(&mut self) -> Option<InstructionKind> {
        let flags = self.flags(&ADD_FLAGS);
        let copy = self.copy_parts(&flags, None)?;
        Some(InstructionKind::Add(
            copy,
            AddFlags {
                checksum: flags.value("checksum"),
                unpack: flags.boolean("unpack"),
                keep_git_dir: flags.boolean("keep-git-dir"),
            },
        ))
    }

    fn copy_parts(&mut self, flags: &Flags, from: Option<Word>) -> Option<Copy> {
        let mut sources = self.copy_words()?;
        let destination = match sources.pop() {
            Some(CopySource::Path(destination)) if !sources.is_empty() => destination,
            Some(CopySource::Heredoc(_)) if !sources.is_empty() => {
                self.error_at_arguments(&format!(
                    "a heredoc cannot be the destination of {}",
                    self.name
                ));
                return None;
            }
            _ => {
                self.error_at_arguments(&format!("{} needs a source and a destination", self.name));
                return None;
            }
        };
        let is_set = |name: &str| flags.boolean(name).is_some_and(|flag| flag.value);
        Some(Copy {
            sources,
            destination,
            from,
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            link: is_set("link"),
            parents: is_set("parents"),
            exclude: flags
                .list("exclude")
                .map(|(pattern, _)| pattern)
                .filter(|pattern| !pattern.value.is_empty())
                .collect(),
        })
    }

    /// Returns the sources and the destination.
    fn copy_words(&mut self) -> Option<Vec<CopySource>> {
        if let Some(strings) = self.json_words()? {
            return Some(strings.into_iter().map(CopySource::Path).collect());
        }
        let marks: Vec<_> = self
            .bodies
            .iter()
            .map(|body| body.mark.range.clone())
            .collect();
        let parts = words::split_blanks(self.header.arguments, &marks);
        let source = |part: Part<'_>| {
            let range = part.range();
            match self.bodies.iter().find(|body| body.mark.range == range) {
                Some(body) => CopySource::Heredoc(body.heredoc.clone()),
                None => CopySource::Path(part.word()),
            }
        };
        Some(parts.into_iter().map(source).collect())
    }

    fn run(&mut self) -> Option<Run> {
        let flags = self.flags(&RUN_FLAGS);
        let command = self.command(self.header.arguments)?;
        if command == Command::Exec(Vec::new()) {
            self.error_at_arguments("RUN needs a command");
            return None;
        }
        let mut mounts = Vec::new();
        for (value, span) in flags.list("mount") {
            mounts.push(mount::parse(&value, span, self.diagnostics));
        }
        let devices: Vec<Word> = flags.list("device").map(|(value, _)| value).collect();
        for device in &devices {
            self.check_device(device);
        }
        let network = flags.value("network");
        self.check_mode("network", network.as_ref(), &["default", "none", "host"]);
        let security = flags.value("security");
        self.check_mode("security", security.as_ref(), &["sandbox", "insecure"]);
        Some(Run {
            command,
            heredocs: self
                .bodies
                .iter()
                .map(|body| body.heredoc.clone())
                .collect(),
            mounts,
            network,
            security,
            devices,
        })
    }

    fn check_mode(&mut self, flag: &str, mode: Option<&Word>, known: &[&str]) {
        let Some(mode) = mode.filter(|mode| !known.contains(&mode.value.as_str())) else {
            return;
        };
        let problem = Diagnostic::error(format!("unknown mode of `--{flag}`: `{}`", mode.value))
            .at(mode.span);
        self.diagnostics
            .push(match suggest::closest(&mode.value, known) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("it is one of {}", known.join(", "))),
            });
    }

    /// A device is a name and `required`, with or without keys.
    fn check_device(&mut self, device: &Word) {
        let mut has_name = false;
        for field in device.value.split(',') {
            let problem = match field.split_once('=') {
                Some((key, value)) if key.eq_ignore_ascii_case("required") => {
                    (!mount::is_bool(value))
                        .then(|| format!("invalid value of `required`: `{value}`"))
                }
                None if field.eq_ignore_ascii_case("required") => None,
                // A CDI name has a `=` itself: `vendor.com/class=name`.
                _ if !has_name && !field.is_empty() => {
                    has_name = true;
                    None
                }
                _ => Some(format!("unknown option `{field}` of `--device`")),
            };
            if let Some(problem) = problem {
                self.diagnostics
                    .push(Diagnostic::error(problem).at(device.span));
            }
        }
        if !has_name {
            self.diagnostics
                .push(Diagnostic::error("flag `--device` names no device").at(device.span));
        }
    }

    fn plain_command(&mut self) -> Option<Command> {
        self.flags(&[]);
        self.command(self.header.arguments)
    }

    fn command(&mut self, text: Part<'a>) -> Option<Command> {
        match json::read(text.as_str()) {
            Json::Strings(strings) => Some(Command::Exec(
                strings.into_iter().map(|(string, _)| string).collect(),
            )),
            Json::OtherArray => {
                self.not_strings(text);
                None
            }
            Json::No => Some(Command::Shell(text.word())),
        }
    }

    /// Returns the words of the JSON form, `Some(None)` if it is the plain form.
    fn json_words(&mut self) -> Option<Option<Vec<Word>>> {
        let arguments = self.header.arguments;
        match json::read(arguments.as_str()) {
            Json::Strings(strings) => Some(Some(
                strings
                    .into_iter()
                    .map(|(string, range)| Spanned::new(string, arguments.slice(range).span()))
                    .collect(),
            )),
            Json::OtherArray => {
                self.not_strings(arguments);
                None
            }
            Json::No => Some(None),
        }
    }

    fn not_strings(&mut self, text: Part<'a>) {
        self.diagnostics.push(
            Diagnostic::error(format!("the JSON form of {} holds strings only", self.name))
                .at(text.span()),
        );
    }

    fn shell(&mut self) -> Option<Vec<String>> {
        self.flags(&[]);
        match self.json_words()? {
            Some(words) => {
                self.at_least_one(words.len())?;
                Some(words.into_iter().map(|word| word.value).collect())
            }
            None => {
                self.diagnostics.push(
                    Diagnostic::error("SHELL takes the JSON form only")
                        .at(self.arguments_or_keyword().span())
                        .hint("write `SHELL [\"/bin/sh\", \"-c\"]`"),
                );
                None
            }
        }
    }

    fn volume(&mut self) -> Option<Vec<Word>> {
        self.flags(&[]);
        let words = match self.json_words()? {
            Some(words) => words,
            None => words::split_blanks(self.header.arguments, &[])
                .into_iter()
                .map(Part::word)
                .collect(),
        };
        self.at_least_one(words.len())?;
        let mut volumes = Vec::new();
        for word in words {
            if word.value.trim().is_empty() {
                self.diagnostics
                    .push(Diagnostic::error("the path of a volume is empty").at(word.span));
                continue;
            }
            volumes.push(Spanned::new(word.value.trim().to_owned(), word.span));
        }
        Some(volumes)
    }

    fn expose(&mut self) -> Option<Vec<Word>> {
        self.flags(&[]);
        let words = words::split_blanks(self.header.arguments, &[]);
        self.at_least_one(words.len())?;
        Some(words.into_iter().map(Part::word).collect())
    }

    /// The whole line is the argument.
    fn whole(&mut self) -> Option<Word> {
        self.flags(&[]);
        self.at_least_one(usize::from(!self.header.arguments.is_empty()))?;
        Some(self.header.arguments.word())
    }

    fn healthcheck(&mut self) -> Option<Healthcheck> {
        let flags = self.flags(&HEALTHCHECK_FLAGS);
        let arguments = self.header.arguments;
        let text = arguments.as_str();
        let kind_end = text.find(char::is_whitespace).unwrap_or(text.len());
        let rest = arguments.after(kind_end).trim();
        match text[..kind_end].to_ascii_uppercase().as_str() {
            "NONE" => {
                if !rest.is_empty() {
                    self.diagnostics.push(
                        Diagnostic::error("HEALTHCHECK NONE takes no arguments").at(rest.span()),
                    );
                }
                if let Some(span) = flags.first_span() {
                    self.diagnostics.push(
                        Diagnostic::warning("flags of HEALTHCHECK NONE have no effect").at(span),
                    );
                }
                Some(Healthcheck::None)
            }
            "CMD" => {
                let command = self.command(rest)?;
                let is_empty = match &command {
                    Command::Exec(words) => words.is_empty(),
                    Command::Shell(text) => text.value.is_empty(),
                };
                if is_empty {
                    self.error_at_arguments("HEALTHCHECK CMD needs a command");
                    return None;
                }
                Some(Healthcheck::Cmd(HealthcheckTest {
                    command,
                    interval: self.interval(&flags, "interval"),
                    timeout: self.interval(&flags, "timeout"),
                    start_period: self.interval(&flags, "start-period"),
                    start_interval: self.interval(&flags, "start-interval"),
                    retries: self.retries(&flags),
                }))
            }
            "" => {
                self.at_least_one(0)?;
                None
            }
            other => {
                self.diagnostics.push(
                    Diagnostic::error(format!("unknown kind of HEALTHCHECK: `{other}`"))
                        .at(arguments.slice(0..kind_end).span())
                        .hint("write `HEALTHCHECK CMD …` or `HEALTHCHECK NONE`"),
                );
                None
            }
        }
    }

    /// Zero means the same as not given.
    fn interval(&mut self, flags: &Flags, name: &str) -> Option<Duration> {
        let word = flags.value(name)?;
        let problem = match duration::parse(&word.value) {
            Ok(Duration::ZERO) => return None,
            Ok(interval) if interval >= Duration::from_millis(1) => return Some(interval),
            Ok(_) => "it is shorter than 1ms".to_owned(),
            Err(error) => error.to_string(),
        };
        self.diagnostics.push(
            Diagnostic::error(format!("invalid value of `--{name}`: `{}`", word.value))
                .at(word.span)
                .cause(problem)
                .hint("durations are written like `30s`, `1m30s` or `500ms`"),
        );
        None
    }

    fn retries(&mut self, flags: &Flags) -> Option<u32> {
        let word = flags.value("retries")?;
        match word.value.parse::<i32>().map(u32::try_from) {
            Ok(Ok(retries)) => Some(retries),
            _ => {
                self.diagnostics.push(
                    Diagnostic::error(format!(
                        "invalid value of `--retries`: wanted a number that is not negative, found `{}`",
                        word.value
                    ))
                    .at(word.span),
                );
                None
            }
        }
    }

    fn onbuild(&mut self) -> Option<Onbuild> {
        self.flags(&[]);
        let arguments = self.header.arguments;
        self.at_least_one(usize::from(!arguments.is_empty()))?;
        let inner = Header::new(arguments);
        let keyword = inner.keyword.as_str().to_ascii_uppercase();
        if matches!(keyword.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            self.diagnostics.push(
                Diagnostic::error(format!("{keyword} cannot be a trigger of ONBUILD"))
                    .at(inner.keyword.span()),
            );
            return None;
        }
        // The trigger is read again when it fires; its mistakes are told to who wrote them.
        parse(&inner, self.bodies, self.escape, self.diagnostics)?;
        let mut trigger = self.header.after_keyword().to_owned();
        for body in self.bodies {
            trigger.push('\n');
            trigger.push_str(&body.raw);
            trigger.push_str(&body.mark.name);
        }
        Some(Onbuild { trigger })
    }

    fn unknown(&mut self) {
        let written = self.header.keyword.as_str();
        let problem = Diagnostic::error(format!("unknown instruction `{written}`"))
            .at(self.header.keyword.span());
        self.diagnostics.push(match closest_keyword(written) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint(
                "if this belongs to the instruction above, that line must end in a backslash",
            ),
        });
    }

    fn flags(&mut self, known: &[KnownFlag]) -> Flags {
        Flags::read(self.name, &self.header.flags, known, self.diagnostics)
    }

    fn at_least_one(&mut self, count: usize) -> Option<()> {
        if count == 0 {
            self.error_at_arguments(&format!("{} needs an argument", self.name));
            return None;
        }
        Some(())
    }

    fn blank_name(&mut self, word: Part<'_>) {
        self.diagnostics
            .push(Diagnostic::error(format!("a name in {} is empty", self.name)).at(word.span()));
    }

    fn error_at_arguments(&mut self, message: &str) {
        let span = self.arguments_or_keyword().span();
        self.diagnostics.push(Diagnostic::error(message).at(span));
    }

    fn arguments_or_keyword(&self) -> Part<'a> {
        match self.header.arguments.is_empty() {
            true => self.header.keyword,
            false => self.header.arguments,
        }
    }
}
