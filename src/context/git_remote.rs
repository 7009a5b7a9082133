//! What a repository elsewhere has: what its references stand for, and its commits, fetched into a mirror.

use std::path::Path;

use super::git::{Call, Git, GitError, Remote, bare_url};
use crate::vocab::is_commit;

/// What a reference stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitCommit {
    /// The full commit ID.
    pub id: String,
    /// The full name of the reference; `None` where the ID itself was named.
    pub reference: Option<String>,
}

impl GitCommit {
    /// Returns the full name of the tag that led to the commit.
    pub(super) fn tag(&self) -> Option<&str> {
        let reference = self.reference.as_deref();
        reference.filter(|name| name.starts_with("refs/tags/"))
    }
}

/// What a fetch says when the server will not give a single commit, or not without its history.
const REFUSALS: [&str; 6] = [
    "shallow",
    "--depth",
    "not our ref",
    "unadvertised object",
    "allow request for",
    "couldn't find remote ref",
];

impl Git {
    /// Asks a repository what `reference` stands for (`None`: its default branch), and compares the answer with `checksum`. A full
    /// commit ID stands for itself, and nothing is asked.
    pub fn resolve(
        &self,
        remote: Remote<'_>,
        reference: Option<&str>,
        checksum: Option<&str>,
    ) -> Result<GitCommit, GitError> {
        if let Some(id) = reference.filter(|text| is_commit(text)) {
            check(checksum, &[id])?;
            return Ok(GitCommit {
                id: id.to_owned(),
                reference: None,
            });
        }
        let url = bare_url(remote.url);
        let name = reference.unwrap_or("HEAD");
        let peeled = format!("{name}^{{}}");
        let mut call = Call::new(["ls-remote", "--", &url, name, &peeled]);
        call.remote = Some(remote);
        let printed = self.run(call)?;
        let listed = String::from_utf8_lossy(&printed);
        let found = |wanted: &str| {
            listed
                .lines()
                .filter_map(|line| line.split_once('\t'))
                .find(|(id, name)| *name == wanted && is_commit(id))
                .map(|(id, _)| id)
        };
        let Some(reference) = reference else {
            let id = found("HEAD").ok_or(GitError::NoDefault)?;
            check(checksum, &[id])?;
            return Ok(GitCommit {
                id: id.to_owned(),
                reference: Some("HEAD".to_owned()),
            });
        };
        // As git itself prefers: the name as it stands, then branches, then tags.
        let candidates = match reference.starts_with("refs/") {
            true => vec![reference.to_owned()],
            false => ["refs/", "refs/heads/", "refs/tags/"]
                .map(|prefix| format!("{prefix}{reference}"))
                .to_vec(),
        };
        for name in candidates {
            let Some(id) = found(&name) else { continue };
            // An annotated tag is an object of its own, which may be meant as well as its commit.
            let commit = found(&format!("{name}^{{}}")).unwrap_or(id);
            check(checksum, &[commit, id])?;
            return Ok(GitCommit {
                id: commit.to_owned(),
                reference: Some(name),
            });
        }
        Err(GitError::NoReference(reference.to_owned()))
    }

    /// Makes sure that the mirror has a commit with its files; with `tag` also the tag that it was found by, if it was one.
    ///
    /// Asks for the commit alone; of a server that does not give that, for the reference, then for everything.
    pub fn fetch(
        &self,
        mirror: &Path,
        remote: Remote<'_>,
        commit: &GitCommit,
        tag: bool,
    ) -> Result<(), GitError> {
        self.prepare(mirror)?;
        let keep = format!("refs/builder/{}", commit.id);
        let tag = commit.tag().filter(|_| tag);
        if self.has(mirror, &commit.id) && tag.is_none_or(|tag| self.is_at(mirror, tag, commit)) {
            return Ok(());
        }
        let url = bare_url(remote.url);
        let mut ways = Vec::new();
        ways.extend(tag.map(|tag| (true, vec![format!("+{tag}:{tag}")])));
        ways.push((true, vec![commit.id.clone()]));
        if let Some(reference) = commit.reference.as_ref().filter(|name| *name != "HEAD") {
            ways.push((true, vec![format!("+{reference}:{keep}")]));
        }
        let everything = tag.map(|tag| format!("+{tag}:{tag}"));
        let everything = everything
            .into_iter()
            .chain(["+refs/*:refs/origin/*".to_owned()]);
        ways.push((false, everything.collect()));
        let mut refused = None;
        for (shallow, wanted) in ways {
            let mut args = vec!["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
            if shallow {
                args.push("--depth=1");
            } else if mirror.join("shallow").exists() {
                args.push("--unshallow");
            }
            args.extend(["--", &url]);
            args.extend(wanted.iter().map(String::as_str));
            let mut call = Call::new(args).at(mirror);
            call.remote = Some(remote);
            match self.run(call) {
                Ok(_) => {}
                Err(GitError::Failed { said, command })
                    if REFUSALS.iter().any(|refusal| said.contains(refusal)) =>
                {
                    refused = Some(GitError::Failed { command, said });
                    continue;
                }
                Err(error) => return Err(error),
            }
            if self.has(mirror, &commit.id) {
                // Advertised to later fetches, and safe from being collected.
                self.run(Call::new(["update-ref", &keep, &commit.id]).at(mirror))?;
                return Ok(());
            }
        }
        Err(refused
            .filter(|error| {
                !matches!(error, GitError::Failed { said, .. }
                    if said.contains("not our ref") || said.contains("unadvertised object")
                        || said.contains("couldn't find remote ref"))
            })
            .unwrap_or_else(|| GitError::NoCommit(commit.id.clone())))
    }

    /// Tells whether a tag of the mirror stands for a commit.
    pub(super) fn is_at(&self, mirror: &Path, tag: &str, commit: &GitCommit) -> bool {
        let object = format!("{tag}^{{commit}}");
        let call = Call::new(["rev-parse", "--verify", "--quiet", &object]).at(mirror);
        self.run(call)
            .is_ok_and(|printed| printed.trim_ascii() == commit.id.as_bytes())
    }

    /// Makes an empty mirror, or clears away what a killed git left in this one.
    fn prepare(&self, mirror: &Path) -> Result<(), GitError> {
        if mirror.join("HEAD").exists() {
            for name in [
                "shallow.lock",
                "packed-refs.lock",
                "config.lock",
                "HEAD.lock",
            ] {
                // The caller holds the mirror alone: no git is at work in it.
                std::fs::remove_file(mirror.join(name)).ok();
            }
            return Ok(());
        }
        let mut call = Call::new(["init", "--quiet", "--bare", "--template=", "--"]);
        call.args.push(mirror.into());
        self.run(call)?;
        let mark = mirror.join("builder-used");
        std::fs::write(&mark, "").map_err(|source| GitError::Io {
            verb: "write",
            path: mark,
            source,
        })
    }

    /// Tells whether the mirror has a commit that was fetched whole.
    fn has(&self, mirror: &Path, commit: &str) -> bool {
        let object = format!("{commit}^{{tree}}");
        self.run(Call::new(["cat-file", "-e", &object]).at(mirror))
            .is_ok()
    }
}

fn check(checksum: Option<&str>, found: &[&str]) -> Result<(), GitError> {
    match checksum {
        Some(wanted) if !found.iter().any(|id| id.starts_with(wanted)) => Err(GitError::Checksum {
            wanted: wanted.to_owned(),
            found: found[0].to_owned(),
        }),
        _ => Ok(()),
    }
}
