//! COPY and ADD.

use super::build::StageBuilder;
use super::owner::{check_chmod, parse_chown};
use super::remotes::{Remote, Use, file_name};
use super::report::Reported;
use super::stages::Source;
use super::start::pinned;
use super::{Chown, Copy as CopyOp, CopyFrom, HttpKey, Op, Origin, StepId, paths};
use crate::dockerfile::{AddFlags, Copy, CopySource, Heredoc, Instruction, Word};
use crate::vocab::{
    Diagnostic, Digest, GitPlace, GitRef, Span, check_commit, shown_url, without_passwords,
};

/// What COPY and ADD differ in.
struct Manner {
    keyword: &'static str,
    /// Archives among local files are unpacked.
    unpack: bool,
    /// What is fetched, by the place of its source; `None` and missing ones are local.
    remotes: Vec<Option<Remote>>,
}

/// The values of flags and words, with variables replaced.
struct Expanded {
    /// Paths as written, each with its place.
    paths: Vec<(String, Span)>,
    inline: Vec<CopyFrom>,
    destination: String,
    chown: Option<(String, Chown)>,
    chmod: Option<String>,
    exclude: Vec<String>,
}

impl StageBuilder<'_> {
    /// COPY.
    pub(super) fn copy(&mut self, copy: &Copy, instruction: &Instruction) -> Result<(), Reported> {
        let manner = Manner {
            keyword: "COPY",
            unpack: false,
            remotes: Vec::new(),
        };
        let expanded = self.expand_copy(copy)?;
        for (path, span) in &expanded.paths {
            if let Some(kind) = remote_kind(path) {
                let error = Diagnostic::error(format!("COPY cannot fetch {kind}: `{path}`"));
                let error = error.at(*span).hint("ADD fetches URLs and repositories");
                return Err(self.refuse(error));
            }
        }
        self.copy_files(copy, expanded, manner, instruction)
    }

    /// ADD of local files, heredocs, URLs and repositories.
    pub(super) fn add(
        &mut self,
        copy: &Copy,
        flags: &AddFlags,
        instruction: &Instruction,
    ) -> Result<(), Reported> {
        let expanded = self.expand_copy(copy)?;
        let checksum = self.flag(flags.checksum.as_ref())?;
        if let Some((_, span)) = &checksum
            && expanded.paths.len() + expanded.inline.len() != 1
        {
            let error = Diagnostic::error("`ADD --checksum` takes one source");
            let error = error
                .at(*span)
                .hint("write one ADD for each file that is checked");
            return Err(self.refuse(error));
        }
        let mut remotes = Vec::with_capacity(expanded.paths.len());
        for (path, span) in &expanded.paths {
            remotes.push(match GitRef::parse(path, GitPlace::Dockerfile) {
                Some(Ok(git)) => Some(self.repository(git, *span, flags, checksum.as_ref())?),
                Some(Err(reason)) => {
                    let error = Diagnostic::error(format!(
                        "the repository cannot be used: `{}`",
                        shown_url(path)
                    ));
                    return Err(self.refuse(error.cause(reason.to_string()).at(*span)));
                }
                None if is_url(path) => Some(self.download(path, flags, checksum.as_ref())?),
                None => None,
            });
        }
        let local = remotes.iter().all(Option::is_none);
        if local && let Some((_, span)) = checksum {
            let error = Diagnostic::error("`ADD --checksum` needs a URL or a git repository");
            let error = error
                .at(span)
                .hint("local files need no checksum: leave the flag out");
            return Err(self.refuse(error));
        }
        let is_git = |remote: &Option<Remote>| matches!(remote, Some(Remote::Git(_)));
        if !remotes.iter().any(is_git)
            && let Some(keep) = &flags.keep_git_dir
        {
            let error = Diagnostic::error("`ADD --keep-git-dir` needs a git repository");
            let error = error
                .at(keep.span)
                .hint("other sources are taken as they are: leave the flag out");
            return Err(self.refuse(error));
        }
        let manner = Manner {
            keyword: "ADD",
            unpack: flags.unpack.as_ref().is_none_or(|unpack| unpack.value),
            remotes,
        };
        self.copy_files(copy, expanded, manner, instruction)
    }

    /// Joins what a repository's name says with what the flags say.
    fn repository(
        &mut self,
        mut git: GitRef,
        span: Span,
        flags: &AddFlags,
        checksum: Option<&(String, Span)>,
    ) -> Result<Remote, Reported> {
        if let Some(keep) = &flags.keep_git_dir {
            if git.keep_git_dir.is_some_and(|said| said != keep.value) {
                let error = Diagnostic::error(
                    "`--keep-git-dir` and the repository's `keep-git-dir` say different things",
                );
                return Err(self.refuse(error.at(keep.span).at(span)));
            }
            git.keep_git_dir = Some(keep.value);
        }
        if let Some((text, at)) = checksum {
            let given = text.to_ascii_lowercase();
            if let Err(reason) = check_commit(&given) {
                let error = Diagnostic::error("the value of `--checksum` is wrong");
                return Err(self.refuse(error.cause(reason.to_string()).at(*at)));
            }
            if let Some(said) = &git.checksum
                && *said != given
            {
                let error = Diagnostic::error(format!(
                    "`--checksum` and the repository's `commit` say different things: `{given}`, `{said}`"
                ));
                return Err(self.refuse(error.at(*at).at(span)));
            }
            git.checksum = Some(given);
        }
        Ok(Remote::Git(git))
    }

    fn download(
        &mut self,
        url: &str,
        flags: &AddFlags,
        checksum: Option<&(String, Span)>,
    ) -> Result<Remote, Reported> {
        let checksum = match checksum {
            Some((text, span)) => match text.parse::<Digest>() {
                Ok(digest) => Some(digest),
                Err(reason) => {
                    let error = Diagnostic::error("the value of `--checksum` is wrong");
                    return Err(self.refuse(error.cause(reason.to_string()).at(*span)));
                }
            },
            None => None,
        };
        Ok(Remote::Http {
            key: HttpKey {
                url: url.to_owned(),
                checksum,
            },
            name: file_name(url),
            unpack: flags.unpack.as_ref().is_some_and(|unpack| unpack.value),
        })
    }

    fn copy_files(
        &mut self,
        copy: &Copy,
        expanded: Expanded,
        manner: Manner,
        instruction: &Instruction,
    ) -> Result<(), Reported> {
        let destination = paths::destination(&self.cwd(), &expanded.destination);
        let sources = expanded.paths.len() + expanded.inline.len();
        // With --parents every source keeps its own path below the destination.
        if sources > 1 && !destination.ends_with('/') && !copy.parents {
            let error = Diagnostic::error(format!(
                "{} of several sources needs a directory, and `{}` does not end in `/`",
                manner.keyword, expanded.destination
            ));
            let error = error.at(copy.destination.span).hint(format!(
                "write `{}/` to put them into it",
                expanded.destination
            ));
            return Err(self.refuse(error));
        }
        let created_by = created_by(copy, &expanded, manner.keyword);
        // The stage's root is the first input of the step; the trees come after it.
        let mut inputs = Vec::new();
        let mut from = Vec::with_capacity(sources);
        let mut local = None;
        let mut remotes = manner.remotes.into_iter();
        for (path, span) in expanded.paths {
            let Some(remote) = remotes.next().flatten() else {
                self.lint_source(manner.keyword, copy, &path, span);
                let input = match local {
                    Some(input) => input,
                    None => {
                        inputs.push(self.tree(copy)?);
                        *local.insert(inputs.len())
                    }
                };
                // An empty path is the tree's root.
                let pattern = match path.is_empty() {
                    true => "/".to_owned(),
                    false => path,
                };
                from.push(CopyFrom::Tree { input, pattern });
                continue;
            };
            let usage = Use {
                span: Some(self.place(span)),
                stage: &self.naming.stage,
                name: format!("load {}", remote.shown()),
            };
            inputs.push(self.steps.remote(&remote, usage));
            from.push(CopyFrom::Tree {
                input: inputs.len(),
                pattern: match &remote {
                    Remote::Git(_) => "/".to_owned(),
                    Remote::Http { name, .. } => format!("/{}", paths::literal(name)),
                },
            });
        }
        from.extend(expanded.inline);
        let op = Op::Copy(CopyOp {
            sources: from,
            destination,
            chown: expanded.chown.map(|(_, chown)| chown),
            chmod: expanded.chmod,
            link: copy.link,
            parents: copy.parents,
            exclude: expanded.exclude,
            unpack: manner.unpack && local.is_some(),
            epoch: self.planning.epoch,
            is_shown_only: false,
        });
        self.layer(op, inputs, instruction, "", created_by);
        Ok(())
    }

    fn expand_copy(&mut self, copy: &Copy) -> Result<Expanded, Reported> {
        let mut paths = Vec::new();
        let mut inline = Vec::new();
        for source in &copy.sources {
            match source {
                CopySource::Path(word) => paths.push((self.expand(word)?, word.span)),
                CopySource::Heredoc(heredoc) => inline.push(self.inline(heredoc)?),
            }
        }
        let destination = self.expand(&copy.destination)?;
        let chown = match self.flag(copy.chown.as_ref())? {
            Some((text, span)) => match parse_chown(&text) {
                Ok(chown) => Some((text, chown)),
                Err(reason) => {
                    let error = Diagnostic::error("the value of `--chown` is wrong").cause(reason);
                    return Err(self.refuse(error.at(span)));
                }
            },
            None => None,
        };
        let chmod = match self.flag(copy.chmod.as_ref())? {
            Some((text, span)) => match check_chmod(&text) {
                Ok(()) => Some(text),
                Err(reason) => {
                    let error = Diagnostic::error("the value of `--chmod` is wrong").cause(reason);
                    return Err(self.refuse(error.at(span)));
                }
            },
            None => None,
        };
        let mut exclude = Vec::with_capacity(copy.exclude.len());
        for pattern in &copy.exclude {
            exclude.push(self.expand(pattern)?);
        }
        Ok(Expanded {
            paths,
            inline,
            destination,
            chown,
            chmod,
            exclude,
        })
    }

    /// Returns a flag's value; one that comes out empty counts as not given.
    fn flag(&mut self, word: Option<&Word>) -> Result<Option<(String, Span)>, Reported> {
        let Some(word) = word else {
            return Ok(None);
        };
        let text = self.expand(word)?;
        Ok(Some((text, word.span)).filter(|(text, _)| !text.is_empty()))
    }

    fn inline(&mut self, heredoc: &Heredoc) -> Result<CopyFrom, Reported> {
        let content = match heredoc.expand {
            true => self.with_words(|words, report| {
                words.heredoc(&heredoc.content, heredoc.span, report)
            })?,
            false => heredoc.content.clone(),
        };
        Ok(CopyFrom::Inline {
            name: heredoc.name.clone(),
            content,
        })
    }

    /// Returns the tree that the paths are looked up in.
    fn tree(&mut self, copy: &Copy) -> Result<StepId, Reported> {
        let label = self.naming.stage.clone();
        let Some(from) = &copy.from else {
            return Ok(self.steps.local(None, None, &label));
        };
        let span = self.fired_by.is_none().then_some(from.span);
        match self.planning.stages.reference(from, self.at) {
            Ok(Source::Stage(stage)) => {
                let stage = self.planning.finished.get(&stage);
                Ok(stage
                    .expect("a stage that is copied from is needed and comes earlier")
                    .root)
            }
            Ok(Source::Scratch) => Ok(self.steps.scratch(&label)),
            Ok(Source::Directory(name)) => Ok(self.steps.local(Some(&name), span, &label)),
            Ok(Source::Image(key)) => {
                let base = self.planning.base(&key);
                let origin = Origin {
                    span,
                    stage: label,
                    name: format!("FROM {}", pinned(base)),
                    ignore_cache: false,
                };
                Ok(self.steps.base(base, origin))
            }
            Err(error) => Err(self.refuse(*error)),
        }
    }
}

/// Flags first, then the words as they came out; `--from` and `--link` are not told.
fn created_by(copy: &Copy, expanded: &Expanded, keyword: &str) -> String {
    let mut words = vec![keyword.to_owned()];
    if copy.parents {
        words.push("--parents".to_owned());
    }
    if let Some((chown, _)) = &expanded.chown {
        words.push(format!("--chown={chown}"));
    }
    if let Some(chmod) = &expanded.chmod {
        words.push(format!("--chmod={chmod}"));
    }
    let paths = expanded.paths.iter();
    words.extend(paths.map(|(path, _)| without_passwords(path)));
    for source in &expanded.inline {
        if let CopyFrom::Inline { name, .. } = source {
            words.push(format!("<<{name}"));
        }
    }
    words.push(expanded.destination.clone());
    words.push("# buildkit".to_owned());
    words.join(" ")
}

/// Tells what a source is that is no local path.
fn remote_kind(source: &str) -> Option<&'static str> {
    if GitRef::parse(source, GitPlace::Dockerfile).is_some() {
        return Some("a git repository");
    }
    is_url(source).then_some("a URL")
}

fn is_url(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}
