//! What comes over the network besides images: downloads and repositories, found out while planning and fetched before steps run.
//!
//! Everything here happens before the process enters a namespace: git and ssh then run as the user, with the user's keys and known
//! hosts. A download is asked for with the marks of the copy at hand; a reference is asked for with `git ls-remote`. The files of
//! a commit are fetched only for a step that has to run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::context::{Git, GitCommit, GitError, Remote, is_plain_directory, level};
use crate::layer::{EntryKind, TarError, TarReader, decompress};
use crate::plan::{Commit, Download, GitKey, Graph, HttpKey, Known, Op, Timed, Wanted};
use crate::registry::{Client, Fetch, FetchError, Outcome, Sink, http_date};
use crate::sandbox::spawn_bound;
use crate::solve::{StepError, StepResult};
use crate::store::{DownloadWriter, KeptDownload, Store};
use crate::vocab::{
    Diagnostic, Event, EventSink, ExitCode, GitTimes, Secret, Span, VertexId, is_commit, shown_url,
};
use crate::worker::{checkout_id, no_subdirectory};

use super::bases::TaskIds;
use super::{Failure, failure};

/// Repositories inside repositories, so deep.
const SUBMODULE_DEPTH: usize = 16;
/// And so many in all.
const SUBMODULES: usize = 1000;

/// Fetches for one build.
pub(super) struct Remotes<'a> {
    store: &'a Store,
    client: &'a Client,
    git: Git,
    /// By id.
    secrets: BTreeMap<String, Secret<String>>,
    events: &'a dyn EventSink,
    tasks: &'a TaskIds,
    /// Where commits were found: a server may give a reference and not a commit.
    references: RefCell<BTreeMap<(String, String), String>>,
}

/// One commit of a repository, to be written.
struct Files<'a> {
    url: &'a str,
    /// The repository that the user named.
    named: &'a str,
    commit: GitCommit,
    keep_git_dir: bool,
    submodules: bool,
}

impl<'a> Remotes<'a> {
    pub(super) fn new(
        store: &'a Store,
        client: &'a Client,
        secrets: BTreeMap<String, Secret<String>>,
        events: &'a dyn EventSink,
        tasks: &'a TaskIds,
    ) -> Remotes<'a> {
        Remotes {
            store,
            client,
            git: Git::new(secrets.clone()).spawned_by(spawn_bound),
            secrets,
            events,
            tasks,
            references: RefCell::default(),
        }
    }

    /// Returns where what was fetched is kept.
    pub(super) fn store(&self) -> &'a Store {
        self.store
    }

    /// Finds out what a download or a reference is. Bases are somebody else's.
    pub(super) fn answer(&self, wanted: &Wanted, known: &mut Known) -> Result<(), Failure> {
        match wanted {
            Wanted::Base(_) => {}
            Wanted::Http { key, span } => {
                let kept = self.download(key).map_err(|failure| at(failure, *span))?;
                known.downloads.insert(key.clone(), told(&kept));
            }
            Wanted::Git { key, span } => {
                let commit = self.commit(key).map_err(|failure| at(failure, *span))?;
                known.commits.insert(key.clone(), commit);
            }
            Wanted::Time { timed, span } => {
                let time = self.time(timed).map_err(|failure| at(failure, *span))?;
                known.times.insert(timed.clone(), time);
            }
        }
        Ok(())
    }

    /// Returns the time of a commit, which is fetched for it, or of an archive's newest file.
    fn time(&self, timed: &Timed) -> Result<Option<i64>, Failure> {
        let (url, id) = match timed {
            Timed::Commit { url, id } => (url, id),
            Timed::Archive(digest) => {
                let file = self.store.downloaded(digest);
                let file = file.map_err(|error| failure::store(&error))?;
                // What cannot be read as an archive is none.
                return Ok(file.and_then(|file| newest(file).ok().flatten()));
            }
        };
        let name = format!("fetch {} {}", shown_url(url), &id[..12]);
        let vertex = self.tasks.start(name, self.events);
        let known = self.references.borrow();
        let commit = GitCommit {
            id: id.clone(),
            reference: known.get(&(url.clone(), id.clone())).cloned(),
        };
        let time = self
            .store
            .repository(&crate::vocab::split_credentials(url).0)
            .map_err(|error| failure::store(&error))
            .and_then(|repository| {
                let remote = Remote { url, named: url };
                self.git
                    .fetch(&repository.path, remote, &commit, false)
                    .and_then(|()| self.git.commit_time(&repository.path, id))
                    .map_err(|error| git_failed(url, &error))
            });
        self.ended(vertex, &time);
        time.map(Some)
    }

    /// Downloads a URL, unless the copy at hand is right.
    pub(super) fn download(&self, key: &HttpKey) -> Result<KeptDownload, Failure> {
        let url = key.url.as_str();
        let kept = self
            .store
            .download(url)
            .map_err(|error| failure::store(&error))?;
        if let (Some(kept), Some(checksum)) = (&kept, &key.checksum)
            && kept.digest == *checksum
        {
            return Ok(kept.clone());
        }
        let vertex = self
            .tasks
            .start(format!("download {}", shown_url(url)), self.events);
        let done = self.download_anew(key, kept, vertex);
        self.ended(vertex, &done);
        done
    }

    fn download_anew(
        &self,
        key: &HttpKey,
        kept: Option<KeptDownload>,
        vertex: VertexId,
    ) -> Result<KeptDownload, Failure> {
        let url = key.url.as_str();
        let mark = |mark: fn(&KeptDownload) -> Option<&str>| kept.as_ref().and_then(mark);
        let fetch = Fetch {
            url,
            etag: mark(|kept| kept.etag.as_deref()),
            last_modified: mark(|kept| kept.last_modified.as_deref()),
            authorization: self.authorization(url),
        };
        let mut keeping = Keeping {
            writer: self
                .store
                .download_writer()
                .map_err(|error| failure::store(&error))?,
            events: self.events,
            vertex,
            name: shown_url(url),
        };
        let outcome = match self.client.download(&fetch, &mut keeping) {
            Ok(outcome) => outcome,
            Err(FetchError::Sink(error)) => {
                return Err(failure::store(&keeping.writer.error(error)));
            }
            Err(FetchError::Remote(error)) => {
                let message = format!("cannot download `{}`", shown_url(url));
                let mut diagnostic = Diagnostic::error(message).caused_by(&error);
                diagnostic.hints.extend(error.hint());
                return Err(Failure::new(ExitCode::Source, diagnostic));
            }
        };
        let found = match (&outcome, &kept) {
            (Outcome::Unchanged, Some(kept)) => kept.digest,
            _ => keeping.writer.digest(),
        };
        if let Some(checksum) = key.checksum
            && checksum != found
        {
            // What was written goes with its writer.
            let message = format!("`{}` is not what its checksum says", shown_url(url));
            let diagnostic = Diagnostic::error(message)
                .cause(format!("wanted {checksum}, found {found}"))
                .hint("the file has changed, or the checksum belongs to another one");
            return Err(Failure::new(ExitCode::Source, diagnostic));
        }
        match (outcome, kept) {
            (Outcome::Unchanged, Some(kept)) => Ok(kept),
            (Outcome::Unchanged, None) => {
                unreachable!("without a copy nothing conditional is asked")
            }
            (
                Outcome::Whole {
                    etag,
                    last_modified,
                },
                _,
            ) => keeping
                .writer
                .commit(url, etag, last_modified)
                .map_err(|error| failure::store(&error)),
        }
    }

    /// Returns the value of `Authorization` for a URL.
    fn authorization(&self, url: &str) -> Option<Secret<String>> {
        let rest = url.split_once("://")?.1;
        let authority = rest.split(['/', '?', '#']).next()?;
        let authority = authority.rsplit('@').next()?;
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        [authority, host].iter().find_map(|host| {
            let secret = |kind: &str| self.secrets.get(&format!("HTTP_AUTH_{kind}_{host}"));
            secret("HEADER")
                .map(|header| Secret::new(header.reveal().trim_end().to_owned()))
                .or_else(|| {
                    let token = secret("TOKEN")?;
                    Some(Secret::new(format!("Bearer {}", token.reveal().trim_end())))
                })
        })
    }

    /// Asks a repository what a reference stands for.
    pub(super) fn commit(&self, key: &GitKey) -> Result<Commit, Failure> {
        let url = key.url.as_str();
        let remote = Remote { url, named: url };
        let resolve = || {
            self.git
                .resolve(remote, key.reference.as_deref(), key.checksum.as_deref())
                .map_err(|error| git_failed(url, &error))
        };
        let found = match &key.reference {
            // Nobody is asked.
            Some(reference) if is_commit(reference) => resolve()?,
            _ => {
                let name = format!("resolve {}", shown_url(url));
                let vertex = self.tasks.start(name, self.events);
                let found = resolve();
                self.ended(vertex, &found);
                found?
            }
        };
        if let Some(reference) = &found.reference {
            self.references
                .borrow_mut()
                .insert((url.to_owned(), found.id.clone()), reference.clone());
        }
        Ok(Commit {
            id: found.id,
            reference: found.reference,
        })
    }

    /// Fetches the files of commits that steps without a result read.
    pub(super) fn prepare(
        &self,
        graph: &Graph,
        known: &[Option<StepResult>],
    ) -> Result<(), Failure> {
        for (at_step, step) in graph.steps.iter().enumerate() {
            if known[at_step].is_some() {
                continue;
            }
            for input in &step.inputs {
                if let Op::Git(git) = &graph.steps[input.0].op {
                    let origin = &graph.origins[at_step];
                    self.checkout(git)
                        .map_err(|failure| at(failure, origin.span))?;
                }
            }
        }
        Ok(())
    }

    /// Returns the directory with the files of a commit, which is fetched where it is not here.
    pub(super) fn checkout(&self, git: &crate::plan::Git) -> Result<PathBuf, Failure> {
        let id = checkout_id(git);
        let store = |error| failure::store(&error);
        let files = match self.store.checkout(&id).map_err(store)? {
            Some(files) => files,
            None => {
                let _one_at_a_time = self.store.lock_checkout(&id).map_err(store)?;
                match self.store.checkout(&id).map_err(store)? {
                    Some(files) => files,
                    None => {
                        let name = format!("fetch {} {}", shown_url(&git.url), &git.commit[..12]);
                        let vertex = self.tasks.start(name, self.events);
                        let written = self.write(git, &id);
                        self.ended(vertex, &written);
                        written?
                    }
                }
            }
        };
        let Some(subdirectory) = &git.subdirectory else {
            return Ok(files);
        };
        if !is_plain_directory(&files, Path::new(subdirectory)) {
            return Err(step_failed(no_subdirectory(&git.url, subdirectory)));
        }
        Ok(files.join(subdirectory))
    }

    fn write(&self, git: &crate::plan::Git, id: &crate::vocab::Digest) -> Result<PathBuf, Failure> {
        let store = |error| failure::store(&error);
        let reference = git.reference.clone().or_else(|| {
            let references = self.references.borrow();
            references
                .get(&(git.url.clone(), git.commit.clone()))
                .cloned()
        });
        let files = Files {
            url: &git.url,
            named: &git.url,
            commit: GitCommit {
                id: git.commit.clone(),
                reference,
            },
            keep_git_dir: git.keep_git_dir,
            submodules: git.submodules,
        };
        let pending = self.store.new_checkout().map_err(store)?;
        let directory = pending.fs();
        let time = self.fill(&files, &directory, 0, &mut 0)?;
        let time = match git.times {
            GitTimes::Commit => Some(time),
            GitTimes::Checkout => None,
        };
        level(&directory, time).map_err(|error| git_failed(&git.url, &error))?;
        pending.commit(id).map_err(store)
    }

    /// Writes the files of a commit and of its submodules; returns the time of the commit.
    fn fill(
        &self,
        files: &Files<'_>,
        directory: &Path,
        depth: usize,
        count: &mut usize,
    ) -> Result<i64, Failure> {
        let failed = |error: GitError| git_failed(files.url, &error);
        let (time, submodules) = {
            let repository = self
                .store
                .repository(&crate::vocab::split_credentials(files.url).0)
                .map_err(|error| failure::store(&error))?;
            let was_there = repository.path.exists();
            match self.fill_one(files, &repository.path, directory) {
                // A mirror that a crash has damaged is made anew.
                Err(GitError::Failed { command, .. })
                    if was_there && command != "fetch" && command != "ls-remote" =>
                {
                    self.store
                        .forget_repository(&repository)
                        .map_err(|error| failure::store(&error))?;
                    empty(directory)
                        .and_then(|()| self.fill_one(files, &repository.path, directory))
                        .map_err(failed)?
                }
                filled => filled.map_err(failed)?,
            }
        };
        for submodule in submodules {
            *count += 1;
            let refuse = |problem: &str| {
                failed(GitError::Submodule {
                    path: submodule.path.display().to_string(),
                    problem: problem.to_owned(),
                })
            };
            if depth >= SUBMODULE_DEPTH || *count > SUBMODULES {
                return Err(refuse("there are too many of them"));
            }
            if !is_plain_directory(directory, &submodule.path) {
                return Err(refuse("its place is no directory"));
            }
            let inner = Files {
                url: &submodule.url,
                named: files.named,
                commit: GitCommit {
                    id: submodule.commit.clone(),
                    reference: None,
                },
                keep_git_dir: files.keep_git_dir,
                submodules: true,
            };
            self.fill(&inner, &directory.join(&submodule.path), depth + 1, count)?;
        }
        Ok(time)
    }

    fn fill_one(
        &self,
        files: &Files<'_>,
        mirror: &Path,
        directory: &Path,
    ) -> Result<(i64, Vec<crate::context::Submodule>), GitError> {
        let remote = Remote {
            url: files.url,
            named: files.named,
        };
        self.git
            .fetch(mirror, remote, &files.commit, files.keep_git_dir)?;
        let id = &files.commit.id;
        match files.keep_git_dir {
            true => self
                .git
                .write_clone(mirror, files.url, &files.commit, directory)?,
            false => {
                let scratch = directory.parent().unwrap_or(directory);
                self.git.write_files(mirror, id, directory, scratch)?;
            }
        }
        let submodules = match files.submodules {
            true => self.git.submodules(mirror, files.url, id)?,
            false => Vec::new(),
        };
        Ok((self.git.commit_time(mirror, id)?, submodules))
    }

    fn ended<T>(&self, vertex: VertexId, outcome: &Result<T, Failure>) {
        self.events.emit(match outcome {
            Ok(_) => Event::Finished { vertex },
            Err(failure) => Event::Failed {
                vertex,
                message: failure.diagnostics[0].message.clone(),
            },
        });
    }
}

/// Returns the time of an archive's newest regular file.
fn newest(file: File) -> Result<Option<i64>, TarError> {
    let mut archive = TarReader::new(decompress(file)?);
    let mut newest = None;
    while let Some(entry) = archive.next()? {
        if matches!(entry.kind, EntryKind::File { .. }) {
            newest = newest.max(Some(entry.mtime.seconds));
        }
    }
    Ok(newest)
}

/// Returns what planning wants to know of a download.
pub(super) fn told(kept: &KeptDownload) -> Download {
    Download {
        digest: kept.digest,
        modified: kept.last_modified.as_deref().and_then(http_date),
    }
}

/// Makes a step's failure one of the build.
pub(super) fn step_failed(error: StepError) -> Failure {
    let mut diagnostic = Diagnostic::error(error.message);
    diagnostic.causes = error.causes;
    diagnostic.hints = error.hints;
    Failure::new(error.class, diagnostic)
}

/// Writes a download, and tells how far it is.
struct Keeping<'a> {
    writer: DownloadWriter,
    events: &'a dyn EventSink,
    vertex: VertexId,
    name: String,
}

impl Sink for Keeping<'_> {
    fn restart(&mut self) -> io::Result<()> {
        self.writer.restart()
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    fn progress(&mut self, done: u64, total: Option<u64>) {
        self.events.emit(Event::Progress {
            vertex: self.vertex,
            what: self.name.clone(),
            done,
            total: total.unwrap_or(done),
        });
    }
}

fn git_failed(url: &str, error: &GitError) -> Failure {
    let message = format!("cannot fetch the repository `{}`", shown_url(url));
    let mut failed = StepError::new(ExitCode::Source, message).caused_by(error);
    if matches!(error, GitError::Failed { said, .. } if said.contains("No space left on device")) {
        failed = failed.on_full_disk();
    }
    failed.hints.extend(error.hint());
    step_failed(failed)
}

/// Removes what an attempt has left in a directory.
fn empty(directory: &Path) -> Result<(), GitError> {
    let again = || {
        std::fs::remove_dir_all(directory)?;
        std::fs::create_dir(directory)
    };
    again().map_err(|source| GitError::Io {
        verb: "empty",
        path: directory.to_owned(),
        source,
    })
}

/// Points a failure at a place in the Dockerfile.
fn at(failure: Failure, span: Option<Span>) -> Failure {
    let Some(span) = span else {
        return failure;
    };
    let diagnostics =
        failure
            .diagnostics
            .into_iter()
            .map(|diagnostic| match diagnostic.labels.is_empty() {
                true => diagnostic.at(span),
                false => diagnostic,
            });
    Failure {
        diagnostics: diagnostics.collect(),
        ..failure
    }
}
