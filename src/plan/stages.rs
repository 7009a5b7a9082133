//! FROM lines and stage references resolved: what each stage stands on, and what a name means.
//!
//! All stages are looked at, also those that no target needs: a FROM that cannot be right fails the build wherever it stands.
//! Their instructions are another matter (see `reach`).

use std::collections::BTreeSet;

use super::arguments::Globals;
use super::report::{Mistake, Report, Reported};
use super::words::{Matched, Words};
use super::{BaseKey, BaseLocation, PlanInputs};
use crate::dockerfile::{Dockerfile, InstructionKind, MountFlag, Stage, Word};
use crate::vocab::{Diagnostic, ImageRef, NamedContext, Platform, PlatformError, Span, nearest};

/// The image name that stands for nothing at all.
const SCRATCH: &str = "scratch";

/// What a name in FROM or `--from` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Scratch,
    /// An earlier stage, by index.
    Stage(usize),
    Image(BaseKey),
    /// A named context that is a tree of files (a directory, a repository, a download), by the name it was given under.
    Directory(String),
}

/// A stage with its FROM resolved.
pub(super) struct ResolvedStage<'a> {
    pub(super) stage: &'a Stage,
    pub(super) source: Source,
    /// FROM's image as it stands after expansion, for messages.
    pub(super) image: String,
    /// Its own or the target's; a stage on a stage has that one's.
    pub(super) platform: Platform,
    /// A named context of its name takes the place of the stage: its instructions are not carried out.
    pub(super) replaced: bool,
}

impl ResolvedStage<'_> {
    /// Returns the stage's name, if it has one.
    pub(super) fn name(&self) -> Option<&str> {
        self.stage
            .from
            .value
            .name
            .as_ref()
            .map(|name| name.value.as_str())
    }

    /// Returns where the stage begins.
    pub(super) fn span(&self) -> Span {
        self.stage.from.span
    }
}

/// The stages of one Dockerfile for one target platform.
pub(super) struct Stages<'a> {
    pub(super) list: Vec<ResolvedStage<'a>>,
    target: Platform,
    contexts: &'a [(String, NamedContext)],
}

impl<'a> Stages<'a> {
    /// Resolves every FROM.
    pub(super) fn new(
        dockerfile: &'a Dockerfile,
        inputs: &PlanInputs<'a>,
        globals: &Globals,
        target: &Platform,
        report: &mut Report,
    ) -> Result<Stages<'a>, Reported> {
        let mut stages = Stages {
            list: Vec::with_capacity(dockerfile.stages.len()),
            target: target.clone(),
            contexts: inputs.named_contexts,
        };
        let mut failed = false;
        for stage in &dockerfile.stages {
            match stages.resolve(dockerfile, stage, globals, report) {
                Ok(stage) => stages.list.push(stage),
                Err(Reported) => {
                    failed = true;
                    // Later stages may name it: they must find something.
                    stages.list.push(ResolvedStage {
                        stage,
                        source: Source::Scratch,
                        image: stage.from.value.image.value.clone(),
                        platform: target.clone(),
                        replaced: false,
                    });
                }
            }
        }
        if failed { Err(Reported) } else { Ok(stages) }
    }

    fn resolve(
        &self,
        dockerfile: &Dockerfile,
        stage: &'a Stage,
        globals: &Globals,
        report: &mut Report,
    ) -> Result<ResolvedStage<'a>, Reported> {
        let from = &stage.from.value;
        let words = Words {
            escape: dockerfile.escape,
            values: &globals.values,
            declared: &|_| true,
            at: None,
        };
        let matched = report.take(words.matched(&from.image))?;
        warn_of_undeclared(&matched, from.image.span, globals, report);
        let image = matched.text;
        if image.is_empty() {
            return Err(report.refuse(blank("base name", &from.image, &matched.missing, globals)));
        }
        let platform = match &from.platform {
            Some(word) => Some(platform(word, stage, &words, globals, report)?),
            None => None,
        };
        let own = platform.as_ref().unwrap_or(&self.target).clone();
        let name = from.name.as_ref().map(|name| name.value.as_str());
        let replacement = match name {
            Some(name) => report.take(
                self.context(name, &own, self.list.len())
                    .map_err(|error| Box::new(error.at(from.image.span))),
            )?,
            None => None,
        };
        if let Some(source) = replacement {
            return Ok(ResolvedStage {
                stage,
                source,
                image,
                platform: own,
                replaced: true,
            });
        }
        let (source, platform) = if image == SCRATCH {
            (Source::Scratch, self.target.clone())
        } else if let Some(base) = self.earlier(&image, self.list.len()) {
            (Source::Stage(base), self.list[base].platform.clone())
        } else {
            let source = self.image(&image, &own, self.list.len());
            let source = source.map_err(|error| Box::new(error.at(from.image.span)));
            (report.take(source)?, own)
        };
        Ok(ResolvedStage {
            stage,
            source,
            image,
            platform,
            replaced: false,
        })
    }

    /// Returns the stage to build: the one of that name, or the last.
    pub(super) fn target(&self, name: Option<&str>) -> Result<usize, Mistake> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(self.list.len() - 1);
        };
        if let Some(found) = self.earlier(name, self.list.len()) {
            return Ok(found);
        }
        let error = Diagnostic::error(format!("the Dockerfile has no stage `{name}` to build"));
        Err(Box::new(self.with_names(error, name)))
    }

    /// Adds which stages there are to what is said of one that is not.
    fn with_names(&self, diagnostic: Diagnostic, missing: &str) -> Diagnostic {
        let names: Vec<&str> = self.list.iter().filter_map(ResolvedStage::name).collect();
        diagnostic.hint(match nearest(missing, names.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None if names.is_empty() => "no stage has a name: add `AS NAME` to its FROM".to_owned(),
            None => format!("its stages are: {}", names.join(", ")),
        })
    }

    /// Warns of names in `--no-cache-filter` that are no stage's: the cache is read where it should not be.
    pub(super) fn check_filter(&self, filter: &[String], report: &mut Report) {
        for name in filter {
            let wanted = name.to_lowercase();
            let is_known = self
                .list
                .iter()
                .any(|it| it.name() == Some(wanted.as_str()));
            if !is_known {
                let warning = Diagnostic::warning(format!(
                    "`--no-cache-filter`: the Dockerfile has no stage `{name}`"
                ));
                report.add(self.with_names(warning, &wanted));
            }
        }
    }

    /// Returns the platform that the result is for.
    pub(super) fn target_platform(&self) -> &Platform {
        &self.target
    }

    /// Returns a stage's name, or its number.
    pub(super) fn label(&self, at: usize) -> String {
        let name = self.list[at].name();
        name.map_or_else(|| at.to_string(), str::to_owned)
    }

    /// Returns what `--from` in stage `user` stands for.
    pub(super) fn reference(&self, word: &Word, user: usize) -> Result<Source, Mistake> {
        let name = word.value.as_str();
        let refuse = |message: String| Err(Box::new(Diagnostic::error(message).at(word.span)));
        if let Ok(number) = name.parse::<i64>() {
            let last = self.list.len() - 1;
            return match usize::try_from(number) {
                Ok(index) if index < user => Ok(Source::Stage(index)),
                Ok(index) if index == user => refuse("a stage cannot copy from itself".to_owned()),
                Ok(index) if index <= last => refuse(later(name)),
                _ => refuse(format!(
                    "there is no stage {number}: the last one is {last}"
                )),
            };
        }
        let lower = name.to_lowercase();
        if self.list[user].name() == Some(&lower) {
            return refuse(format!("stage `{name}` cannot copy from itself"));
        }
        if let Some(index) = self.earlier(name, user) {
            return Ok(Source::Stage(index));
        }
        if self.list[user..]
            .iter()
            .any(|stage| stage.name() == Some(&lower))
        {
            return refuse(later(name));
        }
        if name == SCRATCH {
            return Ok(Source::Scratch);
        }
        self.image(name, &self.target, user).map_err(|error| {
            let error = error.at(word.span);
            let names = self.list[..user].iter().filter_map(ResolvedStage::name);
            Box::new(match nearest(&lower, names) {
                Some(known) => error.hint(format!("did you mean the stage `{known}`?")),
                None => error,
            })
        })
    }

    /// Returns the last of the stages before `end` that has the name, in any letter case.
    fn earlier(&self, name: &str, end: usize) -> Option<usize> {
        let name = name.to_lowercase();
        let before = &self.list[..end];
        before.iter().rposition(|stage| stage.name() == Some(&name))
    }

    /// Returns the named context of that name, or the image. Stages before `end` exist.
    fn image(&self, name: &str, platform: &Platform, end: usize) -> Result<Source, Mistake> {
        if let Some(source) = self.context(name, platform, end)? {
            return Ok(source);
        }
        match name.parse::<ImageRef>() {
            Ok(image) => Ok(Source::Image(BaseKey {
                location: BaseLocation::Image(image),
                platform: platform.clone(),
            })),
            Err(error) => Err(Box::new(Diagnostic::error(error.to_string()))),
        }
    }

    /// Returns what `--build-context` gives for a name: for this platform, or for all.
    fn context(
        &self,
        name: &str,
        platform: &Platform,
        end: usize,
    ) -> Result<Option<Source>, Mistake> {
        let name = short(name);
        if ["scratch", "context"].contains(&name.as_str()) {
            return Ok(None);
        }
        let given = |wanted: Option<String>| {
            self.contexts.iter().rfind(|(given, _)| {
                let (given, suffix) = match given.split_once("::") {
                    Some((given, platform)) => (given, Some(platform)),
                    None => (given.as_str(), None),
                };
                let suffix = suffix.map(|text| match text.parse::<Platform>() {
                    Ok(platform) => platform.to_string(),
                    Err(_) => text.to_owned(),
                });
                short(given) == name && suffix == wanted
            })
        };
        let Some((given, context)) = given(Some(platform.to_string())).or_else(|| given(None))
        else {
            return Ok(None);
        };
        let location = match context {
            NamedContext::Directory(_) | NamedContext::Git(_) | NamedContext::Http(_) => {
                return Ok(Some(Source::Directory(given.clone())));
            }
            NamedContext::Stage(stage) => {
                return match self.earlier(stage, end) {
                    Some(index) => Ok(Some(Source::Stage(index))),
                    None => Err(Box::new(self.no_such_target(given, stage, end))),
                };
            }
            NamedContext::Image(image) if short(&image.familiar()) == SCRATCH => {
                return Ok(Some(Source::Scratch));
            }
            NamedContext::Image(image) => BaseLocation::Image(image.clone()),
            NamedContext::OciLayout { path, reference } => BaseLocation::OciLayout {
                path: path.clone(),
                reference: reference.clone(),
            },
        };
        Ok(Some(Source::Image(BaseKey {
            location,
            platform: platform.clone(),
        })))
    }

    fn no_such_target(&self, context: &str, stage: &str, end: usize) -> Diagnostic {
        let error = Diagnostic::error(format!(
            "the context `{context}` is `target:{stage}`, and no stage before this one has that name"
        ));
        let names = self.list[..end].iter().filter_map(ResolvedStage::name);
        match nearest(&stage.to_lowercase(), names) {
            Some(known) => error.hint(format!("did you mean `target:{known}`?")),
            None => error.hint("`target:` names a stage of this Dockerfile that comes earlier"),
        }
    }
}

/// Checks the `--from` of every COPY, and of every mount, also in stages that are not built: a stage can be neither its own source nor one that does
/// not exist.
pub(super) fn check_references(stages: &Stages, report: &mut Report) {
    for (user, stage) in stages.list.iter().enumerate() {
        for instruction in &stage.stage.instructions {
            for from in named_by(&instruction.kind) {
                let is_own = stage.name() == Some(&from.value.to_lowercase());
                let is_no_stage = from.value.parse::<i64>().is_ok_and(|number| {
                    usize::try_from(number).map_or(true, |at| at >= stages.list.len() || at == user)
                });
                if (is_own || is_no_stage)
                    && let Err(error) = stages.reference(from, user)
                {
                    report.add(*error);
                }
            }
        }
    }
}

/// Returns what an instruction takes files from: the `--from` of COPY, the `from` of mounts that show files.
pub(super) fn named_by(kind: &InstructionKind) -> Vec<&Word> {
    match kind {
        InstructionKind::Copy(copy) | InstructionKind::Add(copy, _) => copy.from.iter().collect(),
        InstructionKind::Run(run) => run.mounts.iter().filter_map(mount_from).collect(),
        _ => Vec::new(),
    }
}

/// Returns the `from` of a mount, unless its type has no use for it. A type that is not known yet has one.
fn mount_from(mount: &MountFlag) -> Option<&Word> {
    let value = |wanted: &str| {
        let found = mount.options.iter().rfind(|(key, _)| key.value == wanted);
        found.and_then(|(_, value)| value.as_ref())
    };
    let shows_nothing = value("type").is_some_and(|kind| {
        ["tmpfs", "secret", "ssh"].contains(&kind.value.to_ascii_lowercase().as_str())
    });
    value("from").filter(|from| !shows_nothing && !from.value.is_empty())
}

/// Warns of base names that come out wrong when no build argument is given.
pub(super) fn check_defaults(dockerfile: &Dockerfile, defaults: &Globals, report: &mut Report) {
    let names: BTreeSet<String> = dockerfile
        .stages
        .iter()
        .filter_map(|stage| stage.from.value.name.as_ref())
        .map(|name| name.value.clone())
        .collect();
    for stage in &dockerfile.stages {
        let words = Words {
            escape: dockerfile.escape,
            values: &defaults.values,
            declared: &|_| true,
            at: None,
        };
        let image = &stage.from.value.image;
        let Ok(matched) = words.matched(image) else {
            // The real evaluation says so too.
            continue;
        };
        let fine = matched.text.parse::<ImageRef>().is_ok()
            || names.contains(&matched.text.to_lowercase());
        if !fine {
            let warning = Diagnostic::warning(format!(
                "without build arguments `{}` is no image name: `{}`",
                image.value, matched.text
            ));
            report.add(warning.code("InvalidDefaultArgInFrom").at(image.span));
        }
    }
}

fn platform(
    word: &Word,
    stage: &Stage,
    words: &Words,
    globals: &Globals,
    report: &mut Report,
) -> Result<Platform, Reported> {
    let matched = report.take(words.matched(word))?;
    warn_of_undeclared(&matched, word.span, globals, report);
    if matched.text.is_empty() {
        return Err(report.refuse(blank("platform", word, &matched.missing, globals)));
    }
    let platform: Platform =
        report.take(matched.text.parse().map_err(|error: PlatformError| {
            Box::new(Diagnostic::error(error.to_string()).at(word.span))
        }))?;
    let used: BTreeSet<&str> = matched.used.iter().map(String::as_str).collect();
    if used == BTreeSet::from(["TARGETPLATFORM"])
        && matched.missing.is_empty()
        && globals.values.get("TARGETPLATFORM") == Some(&matched.text)
    {
        let warning = Diagnostic::warning(format!(
            "`--platform={}` is not needed: it is the default",
            word.value
        ));
        report.add(warning.code("RedundantTargetPlatform").at(word.span));
    }
    let name = stage.from.value.name.as_ref();
    let name = name.map_or("", |name| name.value.as_str());
    if used.is_empty()
        && matched.missing.is_empty()
        && !name.contains(&platform.os)
        && !name.contains(&platform.architecture)
    {
        let warning = Diagnostic::warning(format!(
            "`--platform` should not be the constant `{}`",
            matched.text
        ))
        .code("FromPlatformFlagConstDisallowed")
        .at(word.span);
        report.add(
            warning
                .hint("give the platform when building, or use $BUILDPLATFORM or $TARGETPLATFORM"),
        );
    }
    Ok(platform)
}

fn warn_of_undeclared(matched: &Matched, span: Span, globals: &Globals, report: &mut Report) {
    for name in &matched.missing {
        if globals.knows(name) {
            continue;
        }
        let warning = Diagnostic::warning(format!(
            "FROM uses `{name}`, which no ARG before it declares"
        ))
        .code("UndefinedArgInFrom")
        .at(span);
        report.add(match nearest(name, globals.names()) {
            Some(known) => warning.hint(format!("did you mean `{known}`?")),
            None => warning,
        });
    }
}

fn blank(what: &str, word: &Word, missing: &[String], globals: &Globals) -> Diagnostic {
    let error = Diagnostic::error(format!("the {what} is blank: `{}`", word.value)).at(word.span);
    let Some(name) = missing.first() else {
        return error;
    };
    if !globals.knows(name) {
        let near = nearest(name, globals.names());
        return error.hint(match near {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("declare `ARG {name}` before the first FROM"),
        });
    }
    error.hint(format!(
        "give it with `--build-arg {name}=VALUE`, or a default: `ARG {name}=VALUE`"
    ))
}

fn later(name: &str) -> String {
    format!("stage `{name}` comes later: a stage can copy from earlier ones only")
}

/// Returns an image's name in its short form without `latest`, as named contexts are compared.
fn short(name: &str) -> String {
    match name.parse::<ImageRef>() {
        Ok(image) => {
            let familiar = image.familiar();
            let short = familiar.strip_suffix(":latest");
            short.map(str::to_owned).unwrap_or(familiar)
        }
        Err(_) => name.to_lowercase(),
    }
}
