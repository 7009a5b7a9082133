//! COPY and ADD.

use super::build::StageBuilder;
use super::owner::{check_chmod, parse_chown};
use super::report::Reported;
use super::stages::Source;
use super::start::pinned;
use super::{Chown, Copy as CopyOp, CopyFrom, Op, Origin, StepId, paths};
use crate::dockerfile::{AddFlags, Copy, CopySource, Heredoc, Instruction, Word};
use crate::vocab::{Diagnostic, Span};

/// What COPY and ADD differ in.
#[derive(Clone, Copy)]
struct Manner {
    keyword: &'static str,
    unpack: bool,
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
        };
        let expanded = self.expand_copy(copy)?;
        for (path, span) in &expanded.paths {
            if let Some(kind) = remote_kind(path) {
                let error = Diagnostic::error(format!("COPY cannot fetch {kind}: `{path}`"));
                return Err(self.refuse(error.at(*span)));
            }
        }
        self.copy_files(copy, expanded, manner, instruction)
    }

    /// ADD of local files and heredocs.
    pub(super) fn add(
        &mut self,
        copy: &Copy,
        flags: &AddFlags,
        instruction: &Instruction,
    ) -> Result<(), Reported> {
        let manner = Manner {
            keyword: "ADD",
            unpack: flags.unpack.as_ref().is_none_or(|unpack| unpack.value),
        };
        let expanded = self.expand_copy(copy)?;
        let mut result = Ok(());
        for (path, span) in &expanded.paths {
            if let Some(kind) = remote_kind(path) {
                let error = Diagnostic::error(format!("ADD of {kind} is not supported: `{path}`"));
                let error = error.at(*span).hint(match kind {
                    "a URL" => "fetch it before the build, or in a RUN with curl or wget",
                    _ => "clone it before the build, or in a RUN with git",
                });
                result = Err(self.refuse(error));
            }
        }
        result?;
        if let Some(checksum) = &flags.checksum {
            let error = Diagnostic::error("`ADD --checksum` needs a URL or a git repository");
            let error = error
                .at(checksum.span)
                .hint("local files need no checksum: leave the flag out");
            return Err(self.refuse(error));
        }
        if let Some(keep) = &flags.keep_git_dir {
            let error = Diagnostic::error("`ADD --keep-git-dir` needs a git repository");
            let error = error
                .at(keep.span)
                .hint("local files are taken as they are: leave the flag out");
            return Err(self.refuse(error));
        }
        self.copy_files(copy, expanded, manner, instruction)
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
        let created_by = created_by(copy, &expanded, manner);
        let mut inputs = Vec::new();
        let mut from = Vec::with_capacity(sources);
        if !expanded.paths.is_empty() {
            inputs.push(self.tree(copy)?);
        }
        for (path, span) in expanded.paths {
            self.lint_source(manner.keyword, copy, &path, span);
            // The stage's root is the first input, the tree the second. An empty path is the tree's root.
            let pattern = if path.is_empty() {
                "/".to_owned()
            } else {
                path
            };
            from.push(CopyFrom::Tree { input: 1, pattern });
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
            unpack: manner.unpack && !inputs.is_empty(),
            epoch: self.planning.epoch,
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
fn created_by(copy: &Copy, expanded: &Expanded, manner: Manner) -> String {
    let mut words = vec![manner.keyword.to_owned()];
    if copy.parents {
        words.push("--parents".to_owned());
    }
    if let Some((chown, _)) = &expanded.chown {
        words.push(format!("--chown={chown}"));
    }
    if let Some(chmod) = &expanded.chmod {
        words.push(format!("--chmod={chmod}"));
    }
    words.extend(expanded.paths.iter().map(|(path, _)| path.clone()));
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
    const GIT: &str = "a git repository";
    if source.starts_with("git://") || source.starts_with("ssh://") || is_scp(source) {
        return Some(GIT);
    }
    if !source.starts_with("http://") && !source.starts_with("https://") {
        return None;
    }
    let path = source.split(['#', '?']).next().unwrap_or(source);
    Some(match path.ends_with(".git") {
        true => GIT,
        false => "a URL",
    })
}

/// `USER@HOST:PATH`, as git takes it.
fn is_scp(source: &str) -> bool {
    let Some((user, rest)) = source.split_once('@') else {
        return false;
    };
    let Some((host, path)) = rest.split_once(':') else {
        return false;
    };
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    word(user) && word(host) && !path.is_empty()
}

#[cfg(test)]
mod tests {
    use super::remote_kind;

    #[test]
    fn urls_and_repositories_are_told_from_paths() {
        for (source, kind) in [
            ("a", None),
            ("/a.git", None),
            ("github.com/a/b.git", None),
            ("a@b", None),
            ("dir/a@b:c", None),
            ("https://x/a.tar", Some("a URL")),
            ("http://x", Some("a URL")),
            ("https://x/a.git", Some("a git repository")),
            ("https://x/a.git#main:dir", Some("a git repository")),
            ("https://x/a.git?ref=v1", Some("a git repository")),
            ("https://x/a?f=b.git", Some("a URL")),
            ("git://x/a", Some("a git repository")),
            ("ssh://git@x/a", Some("a git repository")),
            ("git@github.com:a/b.git", Some("a git repository")),
        ] {
            assert_eq!(remote_kind(source), kind, "{source}");
        }
    }
}
