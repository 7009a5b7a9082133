//! Trees that come from elsewhere: commits and downloads as steps, once they are known; until then they are asked for.
//!
//! A context that is a repository or a URL is such a tree too: whoever asks for the context by its name gets the right step.

use std::collections::BTreeMap;

use super::steps::Steps;
use super::wanted::{Known, Wanted};
use super::{Commit, Download, Git, GitKey, Http, HttpKey, Op, Origin, PlanInputs, StepId};
use crate::vocab::{GitRef, NamedContext, Span, percent_decoded, shown_url};

/// What a file is called whose URL has no name.
const UNNAMED: &str = "__unnamed__";
/// What the one file of a context is called that was downloaded.
const CONTEXT_FILE: &str = "context";
/// The longest file name of Linux.
const NAME_LIMIT: usize = 255;

/// Where the files of the main context come from.
#[derive(Clone, Copy, Debug, Default)]
pub enum MainContext<'a> {
    /// A directory of this machine.
    #[default]
    Directory,
    Git(&'a GitRef),
    /// One file, called `context`.
    Http(&'a str),
}

/// Something that is fetched.
#[derive(Clone, Debug)]
pub(super) enum Remote {
    Git(GitRef),
    Http {
        key: HttpKey,
        name: String,
        /// Archives are unpacked.
        unpack: bool,
    },
}

/// Where a tree is used, for messages.
pub(super) struct Use<'a> {
    pub(super) span: Option<Span>,
    pub(super) stage: &'a str,
    pub(super) name: String,
}

/// The remote trees of one plan.
pub(super) struct Remotes {
    downloads: BTreeMap<HttpKey, Download>,
    commits: BTreeMap<GitKey, Commit>,
    contexts: BTreeMap<Option<String>, Remote>,
    pub(super) wanted: Vec<Wanted>,
}

impl Remote {
    /// Returns what a context's URL stands for.
    fn context(url: &str) -> Remote {
        Remote::Http {
            key: HttpKey {
                url: url.to_owned(),
                checksum: None,
            },
            name: CONTEXT_FILE.to_owned(),
            unpack: false,
        }
    }

    /// Returns the URL, as messages show it.
    pub(super) fn shown(&self) -> String {
        match self {
            Remote::Git(git) => shown_url(&git.url),
            Remote::Http { key, .. } => shown_url(&key.url),
        }
    }
}

impl Remotes {
    pub(super) fn new(known: &Known, inputs: &PlanInputs) -> Remotes {
        let main = match inputs.context {
            MainContext::Directory => None,
            MainContext::Git(git) => Some(Remote::Git(git.clone())),
            MainContext::Http(url) => Some(Remote::context(url)),
        };
        let named = inputs.named_contexts.iter().filter_map(|(name, context)| {
            let remote = match context {
                NamedContext::Git(git) => Remote::Git(git.clone()),
                NamedContext::Http(url) => Remote::context(url),
                _ => return None,
            };
            Some((Some(name.clone()), remote))
        });
        Remotes {
            downloads: known.downloads.clone(),
            commits: known.commits.clone(),
            contexts: main
                .map(|main| (None, main))
                .into_iter()
                .chain(named)
                .collect(),
            wanted: Vec::new(),
        }
    }

    /// Returns what a context is, if it comes from elsewhere.
    pub(super) fn context(&self, name: Option<&str>) -> Option<Remote> {
        self.contexts.get(&name.map(str::to_owned)).cloned()
    }

    /// Returns the op of a tree; `None` where it had to be asked for.
    pub(super) fn op(&mut self, remote: &Remote, span: Option<Span>) -> Option<Op> {
        match remote {
            Remote::Git(git) => {
                let key = GitKey::from(git);
                let Some(commit) = self.commits.get(&key) else {
                    self.want(Wanted::Git { key, span });
                    return None;
                };
                // The history's directory lies at the top, so a part of the files has none.
                let keep_git_dir = git.keep_git_dir == Some(true) && git.subdirectory.is_none();
                Some(Op::Git(Git {
                    url: git.url.clone(),
                    commit: commit.id.clone(),
                    reference: commit.reference.clone().filter(|_| keep_git_dir),
                    subdirectory: git.subdirectory.clone(),
                    keep_git_dir,
                    submodules: git.submodules.unwrap_or(true),
                    times: git.times.unwrap_or_default(),
                }))
            }
            Remote::Http { key, name, unpack } => {
                let Some(download) = self.downloads.get(key) else {
                    let key = key.clone();
                    self.want(Wanted::Http { key, span });
                    return None;
                };
                Some(Op::Http(Http {
                    url: key.url.clone(),
                    digest: download.digest,
                    name: name.clone(),
                    modified: download.modified,
                    unpack: *unpack,
                }))
            }
        }
    }

    fn want(&mut self, wanted: Wanted) {
        let is_same = |known: &Wanted| match (known, &wanted) {
            (Wanted::Git { key, .. }, Wanted::Git { key: other, .. }) => key == other,
            (Wanted::Http { key, .. }, Wanted::Http { key: other, .. }) => key == other,
            _ => false,
        };
        if !self.wanted.iter().any(is_same) {
            self.wanted.push(wanted);
        }
    }
}

impl Steps {
    /// Adds a tree that comes from elsewhere. While it is not known, what is returned stands for it in a plan that will not be used.
    pub(super) fn remote(&mut self, remote: &Remote, usage: Use<'_>) -> StepId {
        match self.remotes.op(remote, usage.span) {
            None => self.scratch(usage.stage),
            Some(op) => {
                let origin = Origin {
                    span: usage.span,
                    stage: usage.stage.to_owned(),
                    name: usage.name,
                    ignore_cache: false,
                };
                self.add(op, Vec::new(), origin)
            }
        }
    }
}

/// Returns the name of the file that a URL stands for: the last part of its path.
pub(super) fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let path = rest[..end].split_once('/').map_or("", |(_, path)| path);
    let decoded = percent_decoded(path).unwrap_or_else(|| path.as_bytes().to_vec());
    let decoded = String::from_utf8_lossy(&decoded).into_owned();
    let name = decoded.trim_end_matches('/');
    let name = name.rsplit('/').next().unwrap_or_default();
    let is_odd = matches!(name, "" | "." | "..")
        || name.len() > NAME_LIMIT
        || name.chars().any(char::is_control);
    match is_odd {
        true => UNNAMED.to_owned(),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_the_last_part_of_the_path() {
        for (url, name) in [
            ("https://x/a/b.tar?v=/1#c", "b.tar"),
            ("https://x/a%20b", "a b"),
            ("https://x/a%2Fb", "b"),
            ("https://x/a/", "a"),
            ("https://x", UNNAMED),
            ("https://x/", UNNAMED),
            ("https://x?a/b", UNNAMED),
            ("https://x/a/..", UNNAMED),
            ("https://x/%2e%2e", UNNAMED),
            ("https://x/a%0ab", UNNAMED),
            ("https://x/a%00b", UNNAMED),
            ("https://x/%zz", "%zz"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
        assert_eq!(file_name(&format!("http://x/{}", "n".repeat(256))), UNNAMED);
    }
}
