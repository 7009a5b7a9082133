//! Trees that came from elsewhere as sources: the files of commits, and downloads as directories of one file.
//!
//! The bytes are in the store before a step is executed: whoever planned has fetched them. Nothing here touches the network.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use crate::context::{Source, is_plain_directory};
use crate::plan::{Git, Http, Op};
use crate::solve::StepError;
use crate::vocab::{Digest, ExitCode, GitTimes, KeyBuilder, Sha256, shown_url, split_credentials};

use super::Machine;

/// Returns the name under which the store keeps the files of a commit.
pub fn checkout_id(git: &Git) -> Digest {
    let flag = |given: bool| if given { "yes" } else { "no" };
    let mut key = KeyBuilder::new("checkout")
        .add("commit", &git.commit)
        .add("submodules", flag(git.submodules))
        .add("keep-git-dir", flag(git.keep_git_dir))
        .add(
            "times",
            match git.times {
                GitTimes::Commit => "commit",
                GitTimes::Checkout => "checkout",
            },
        );
    if git.keep_git_dir {
        // Both are in its configuration.
        key = key
            .add("url", &split_credentials(&git.url).0)
            .add("reference", git.reference.as_deref().unwrap_or_default());
    }
    key.finish().0.0
}

impl Machine<'_> {
    /// Opens a tree that came from elsewhere, once; `None` for every other op.
    pub(super) fn fetched(&self, op: &Op) -> Result<Option<Arc<Source>>, StepError> {
        if !matches!(op, Op::Git(_) | Op::Http(_)) {
            return Ok(None);
        }
        let mut opened = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, source)) = opened.iter().find(|(known, _)| known == op) {
            return Ok(Some(source.clone()));
        }
        let directory = match op {
            Op::Git(git) => self.files_of_commit(git)?,
            Op::Http(http) => self.download(http, opened.len())?,
            _ => unreachable!("seen above"),
        };
        let source = Source::directory(&directory, None).map_err(|error| {
            StepError::new(ExitCode::Store, "cannot open what was fetched").caused_by(&error)
        })?;
        let source = Arc::new(source);
        opened.push((op.clone(), source.clone()));
        Ok(Some(source))
    }

    fn files_of_commit(&self, git: &Git) -> Result<PathBuf, StepError> {
        let files = self
            .store
            .checkout(&checkout_id(git))
            .map_err(|error| Machine::store_failed(&error))?
            .ok_or_else(|| gone(&git.url))?;
        let Some(subdirectory) = &git.subdirectory else {
            return Ok(files);
        };
        if !is_plain_directory(&files, Path::new(subdirectory)) {
            return Err(no_subdirectory(&git.url, subdirectory));
        }
        Ok(files.join(subdirectory))
    }

    /// Copies a download into a directory of its own, under its name and with its time.
    fn download(&self, http: &Http, number: usize) -> Result<PathBuf, StepError> {
        let failed = |error: io::Error| {
            StepError::new(
                ExitCode::Store,
                format!("cannot copy the download of `{}`", shown_url(&http.url)),
            )
            .caused_by(&error)
        };
        let directory = self
            .store
            .work_dir()
            .map_err(|error| Machine::store_failed(&error))?
            .join(format!("download-{number}"));
        let mut from = self
            .store
            .downloaded(&http.digest)
            .map_err(|error| Machine::store_failed(&error))?
            .ok_or_else(|| gone(&http.url))?;
        fs::create_dir_all(&directory).map_err(failed)?;
        let path = directory.join(&http.name);
        let mut to = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        if copy(&mut from, &mut to).map_err(failed)? != http.digest {
            return Err(StepError::new(
                ExitCode::Store,
                format!("the download of `{}` is damaged", shown_url(&http.url)),
            )
            .hint(
                "`builder du --verify` finds what is damaged, `builder prune --all` removes it",
            ));
        }
        to.set_times(FileTimes::new().set_modified(moment(http.modified.unwrap_or(0))))
            .map_err(failed)?;
        Ok(directory)
    }
}

/// Says that a repository lacks the directory that is to be taken of it.
pub fn no_subdirectory(url: &str, subdirectory: &str) -> StepError {
    StepError::new(
        ExitCode::Source,
        format!(
            "the repository `{}` has no directory `{subdirectory}`",
            shown_url(url)
        ),
    )
    .hint("links are not followed on the way to it")
}

fn gone(url: &str) -> StepError {
    StepError::new(
        ExitCode::Store,
        format!(
            "what was fetched from `{}` is gone from the state directory",
            shown_url(url)
        ),
    )
    .hint("something removed it while the build ran: build again")
}

/// Copies to the end and returns the digest of what was copied.
fn copy(from: &mut File, to: &mut File) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hash.finish()),
            Ok(count) => {
                hash.update(&buffer[..count]);
                to.write_all(&buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moment = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    };
    moment.unwrap_or(SystemTime::UNIX_EPOCH)
}
