//! One instruction's line becomes its syntax.
//!
//! In: a cut line ([`Header`]), the bodies of its heredocs and the escape character. Out: [`Parsed`], and diagnostics for what
//! is wrong; `None` where nothing usable is left. COPY and ADD are in `copies`, what runs is in `commands`. The order of
//! instructions, and stages, are `parse`'s.

use super::Word;
use super::ast::{ArgDeclaration, From, Heredoc, InstructionKind, KeyValue, Onbuild};
use super::flags::{FlagKind, Flags, KnownFlag};
use super::heredoc::Mark;
use super::json::{self, Json};
use super::lines::Part;
use super::words::{self, Header};
use crate::vocab::{Diagnostic, Spanned, nearest};

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
    nearest(keyword, KEYWORDS.iter().copied())
}

/// Tells whether a word is an instruction.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS
        .iter()
        .any(|keyword| keyword.eq_ignore_ascii_case(word))
}

/// One instruction while it is read.
pub(super) struct Reader<'h, 'a> {
    /// The keyword in upper case.
    pub(super) name: &'h str,
    pub(super) header: &'h Header<'a>,
    pub(super) bodies: &'h [Body],
    escape: char,
    pub(super) diagnostics: &'h mut Vec<Diagnostic>,
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
        let Some((key, value)) = words::split_legacy(arguments) else {
            let text = arguments.as_str();
            self.diagnostics.push(
                Diagnostic::error(format!("`{text}` has no value"))
                    .at(arguments.span())
                    .hint(format!("write `{} {text}=…`", self.name)),
            );
            return None;
        };
        Some(vec![KeyValue {
            key: key.word(),
            value: value.word(),
            legacy: true,
        }])
    }

    /// Returns the words of the JSON form, `Some(None)` if it is the plain form.
    pub(super) fn json_words(&mut self) -> Option<Option<Vec<Word>>> {
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

    pub(super) fn not_strings(&mut self, text: Part<'a>) {
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

    pub(super) fn flags(&mut self, known: &[KnownFlag]) -> Flags {
        Flags::read(self.name, &self.header.flags, known, self.diagnostics)
    }

    pub(super) fn at_least_one(&mut self, count: usize) -> Option<()> {
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

    pub(super) fn error_at_arguments(&mut self, message: &str) {
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
