//! A mount's directory filled with what was saved of it.

use std::io;
use std::sync::atomic::Ordering;

use crate::cache::Place;
use crate::cache::mounts::{Index, MountError, MountName, Version, look_up, restore};
use crate::plan::CacheMount;
use crate::registry::Client;
use crate::rootfs::{RootfsError, fill_cache};
use crate::solve::{Job, StepError};
use crate::store::StoreError;
use crate::vocab::{
    CacheKey, Cancel, Diagnostic, Digest, Event, ExitCode, KeyBuilder, VertexId, size,
};
use crate::worker::Machine;

use super::known::{MountsFrom, Origin, locked, shown};

/// The first number of restoring tasks: above those of the pipeline's.
const FIRST_TASK: u32 = 1 << 25;

/// Why a mount was not restored from a place.
enum Missed {
    /// Nothing is there.
    Absent,
    /// Something is, and it is no use.
    Bad(String, Option<String>, Vec<String>),
    Stopped(StepError),
}

impl Machine<'_> {
    /// Fills a mount's directory with what was saved of it, where there is none or nothing in it.
    pub(in crate::worker) fn restore_mount(
        &self,
        job: &Job<'_>,
        key: &Digest,
        cache: &CacheMount,
    ) -> Result<(), StepError> {
        let places = self.travel.from.iter();
        let places: Vec<&MountsFrom> = places.filter(|from| from.choice.has(&cache.id)).collect();
        if places.is_empty() {
            return Ok(());
        }
        let seen = locked(&self.travel.seen).entry(*key).or_default().clone();
        let mut seen = locked(&seen);
        if seen.is_done {
            return Ok(());
        }
        seen.is_done = true;
        let store_failed = |error: StoreError| Machine::store_failed(&error);
        if self.store.mount_is_filled(key).map_err(store_failed)? {
            return Ok(());
        }
        let lock = self
            .store
            .lock_wait(&restore_key(key), &|| job.cancel.is_cancelled());
        let Some(_lock) = lock.map_err(store_failed)? else {
            return Err(StepError::new(ExitCode::Step, "stopped"));
        };
        if self.store.mount_is_filled(key).map_err(store_failed)? {
            return Ok(());
        }
        let name = self.mount_name(job, cache);
        for from in places {
            if locked(&self.travel.silent).contains(from.place.name()) {
                continue;
            }
            match self.restore_from(job, key, &name, from) {
                Ok(origin) => {
                    seen.origin = origin;
                    return Ok(());
                }
                Err(Missed::Absent) => {}
                Err(Missed::Stopped(error)) => return Err(error),
                Err(Missed::Bad(message, hint, causes)) => {
                    let mut warning = Diagnostic::warning(message);
                    warning.causes = causes;
                    warning.hints.extend(hint);
                    self.events.emit(Event::Diagnostic(warning));
                }
            }
        }
        Ok(())
    }

    fn restore_from(
        &self,
        job: &Job<'_>,
        key: &Digest,
        name: &MountName,
        from: &MountsFrom,
    ) -> Result<Option<Origin>, Missed> {
        let bad = |error: &(dyn std::error::Error + 'static), hint: Option<String>| {
            if job.cancel.is_cancelled() {
                return Missed::Stopped(StepError::new(ExitCode::Step, "stopped"));
            }
            let message = format!(
                "the cache mount `{}` cannot be restored from {}",
                shown(&name.id),
                from.place.name()
            );
            let told = Diagnostic::warning("").caused_by(error);
            Missed::Bad(message, hint, told.causes)
        };
        let client = self.client().map_err(|error| bad(&error, error.hint()))?;
        let failed = |error: MountError| {
            if let MountError::Place(_) = error
                && !error.is_spoilt()
            {
                locked(&self.travel.silent).insert(from.place.name().to_owned());
            }
            bad(&error, error.hint())
        };
        let found = look_up(client, &from.place, name).map_err(failed)?;
        let version = found.ok_or(Missed::Absent)?;
        if version.bytes > from.most {
            let message = format!(
                "the cache mount `{}` is not restored from {}: its {} are more than {}",
                shown(&name.id),
                from.place.name(),
                size(version.bytes),
                size(from.most)
            );
            return Err(Missed::Bad(
                message,
                Some(size_hint("--cache-from")),
                Vec::new(),
            ));
        }
        let vertex = VertexId(FIRST_TASK + self.travel.tasks.fetch_add(1, Ordering::Relaxed));
        let title = format!("restore cache mount {}", shown(&name.id));
        self.events.emit(Event::Declared {
            vertex,
            name: title,
        });
        self.events.emit(Event::Started { vertex });
        let what = "fetched".to_owned();
        let progress = |done, total| {
            self.events.emit(Event::Progress {
                vertex,
                what: what.clone(),
                done,
                total,
            });
        };
        let restored = self.fill(key, client, &from.place, &version, job.cancel, &progress);
        let (is_placed, index) = match restored {
            Ok(restored) => restored,
            Err(error) => {
                self.events.emit(Event::Failed {
                    vertex,
                    message: error.to_string(),
                });
                return Err(match error {
                    Unfilled::Mount(error) => failed(error),
                    Unfilled::Rootfs(error) => bad(&error, None),
                    Unfilled::Store(error) => bad(&error, Some(error.hint())),
                });
            }
        };
        let line = format!(
            "{} of scope {}, saved {}\n",
            size(version.bytes),
            from.place.scope().as_str(),
            version.saved
        );
        self.tell(vertex, line);
        self.events.emit(Event::Finished { vertex });
        // Another process may have been quicker, with a step of its own.
        Ok(is_placed.then(|| Origin {
            place: from.place.name().to_owned(),
            version,
            index,
        }))
    }

    fn fill(
        &self,
        key: &Digest,
        client: &Client,
        place: &Place,
        version: &Version,
        cancel: &Cancel,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<(bool, Index), Unfilled> {
        let index = version.fetch_index(client, place)?;
        let new = self.store.new_mount(key)?;
        let path = new.path();
        let ownership = self.store.ownership();
        let fill = |headers: &mut dyn io::Read, contents: &mut dyn io::Read| {
            fill_cache(headers, contents, &path, ownership, cancel)
        };
        restore(client, place, &index, new.beside(), cancel, progress, fill)??;
        Ok((new.place_over_empty()?, index))
    }
}

/// Why a directory was not filled.
#[derive(Debug, thiserror::Error)]
enum Unfilled {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn restore_key(key: &Digest) -> CacheKey {
    KeyBuilder::new("restore-mount")
        .add("mount", &key.hex())
        .finish()
        .0
}

fn size_hint(flag: &str) -> String {
    format!("`{flag} …,mounts-max-size=SIZE` raises the limit")
}
