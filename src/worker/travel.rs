//! Cache mounts that come from other machines, and go to them.
//!
//! In: a mount that a step is about to get, or what a build's steps have left in theirs. Out: a directory filled before the step
//! begins, or a version at a place. Decides what travels and when; how is [`cache::mounts`](crate::cache::mounts)' work, and what a
//! directory is as streams is `rootfs`'.
//!
//! - *Restored* is what is not here: a mount whose first copy is missing or empty, once per build, under a lock that other builds
//!   wait for, and in a directory beside, which takes the place of the empty one by a rename. A directory that holds something stays
//!   as it is: this machine's steps wrote it.
//! - *Saved* is what a step of this build could write to, after the build, from the first copy, in the way that its steps share it: one
//!   that is alone on its mount is never read in the middle of its work. A mount that others write to meanwhile is read again.
//! - Whatever is wrong with what was saved is a warning, and the mount begins as it would without.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cache::Place;
use crate::cache::mounts::{
    Index, MountError, MountName, Outline, PackError, Packed, Streams, Version, look_up, restore,
    save,
};
use crate::plan::CacheMount;
use crate::registry::RegistryError;
use crate::rootfs::{Owners, Piece, RootfsError, SharedOwners, fill_cache, read_cache, tree_size};
use crate::solve::{Job, StepError};
use crate::store::{CacheDirectory, MountClaim, Share, StoreError};
use crate::vocab::{
    CacheKey, Cancel, Diagnostic, Digest, Event, ExitCode, KeyBuilder, MountChoice, Ownership,
    Stream, VertexId, size,
};

use super::Machine;
use super::steps::now;

/// How often a mount is read that changes meanwhile.
const MOST_READS: usize = 3;
/// The first number of restoring tasks: above those of the pipeline's.
const FIRST_TASK: u32 = 1 << 25;

/// A place that mounts are restored from.
#[derive(Debug)]
pub struct MountsFrom {
    pub place: Place,
    pub choice: MountChoice,
    /// Bytes of the largest mount.
    pub most: u64,
}

/// A place that mounts are saved to.
#[derive(Debug)]
pub struct MountsTo {
    pub place: Place,
    pub choice: MountChoice,
    /// Bytes of the largest mount.
    pub most: u64,
    /// A place that takes nothing fails no build.
    pub ignore_error: bool,
}

/// What a build knows of mounts that travel.
#[derive(Default)]
pub(super) struct Travel {
    from: Vec<MountsFrom>,
    to: Vec<MountsTo>,
    /// By the key of the directory. Held while it is restored.
    seen: Mutex<HashMap<Digest, Arc<Mutex<Seen>>>>,
    /// Directories that steps could write to.
    used: Mutex<BTreeMap<Digest, Used>>,
    /// Places that have failed.
    silent: Mutex<HashSet<String>>,
    tasks: AtomicU32,
}

#[derive(Default)]
struct Seen {
    is_done: bool,
    origin: Option<Origin>,
}

/// What a directory was restored from.
#[derive(Clone)]
struct Origin {
    place: String,
    version: Version,
    index: Index,
}

#[derive(Clone)]
struct Used {
    name: MountName,
    share: Share,
}

/// Why a mount was not restored from a place.
enum Missed {
    /// Nothing is there.
    Absent,
    /// Something is, and it is no use.
    Bad(String, Option<String>, Vec<String>),
    Stopped(StepError),
}

/// Why a mount was not read.
enum Unread {
    /// In words that fit after "it is not saved: ".
    Skipped(String, Option<RootfsError>),
    Failed(MountError),
    Stopped,
}

impl Travel {
    pub(super) fn new(from: Vec<MountsFrom>, to: Vec<MountsTo>) -> Travel {
        Travel {
            from,
            to,
            ..Travel::default()
        }
    }

    /// Notes that a step gets a directory that it can write to.
    pub(super) fn note_use(
        &self,
        key: Digest,
        directory: &CacheDirectory,
        used: (MountName, Share),
    ) {
        let (name, share) = used;
        if !directory.is_first() || !self.to.iter().any(|to| to.choice.has(&name.id)) {
            return;
        }
        let mut all = locked(&self.used);
        let known = all.entry(key).or_insert(Used { name, share });
        known.share = super::mounts::stricter(known.share, share);
    }
}

impl Machine<'_> {
    /// Fills a mount's directory with what was saved of it, where there is none or nothing in it.
    pub(super) fn restore_mount(
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
        client: &crate::registry::Client,
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

    /// Tells whether mounts of this build are to be saved.
    pub fn has_mounts_to_save(&self) -> bool {
        !locked(&self.travel.used).is_empty()
    }

    /// Saves what steps of this build have left in their mounts. Returns what went wrong, place by place; a mount that cannot be
    /// saved for its own sake is told of as a warning.
    pub fn save_mounts(
        &self,
        vertex: VertexId,
        cancel: &Cancel,
    ) -> Result<Vec<(&MountsTo, MountError)>, RegistryError> {
        let used = locked(&self.travel.used).clone();
        let client = self.client()?;
        let mut failures = Vec::new();
        for to in &self.travel.to {
            for (key, used) in &used {
                if !to.choice.has(&used.name.id) {
                    continue;
                }
                match self.save_mount(vertex, client, to, key, used, cancel) {
                    Ok(()) => {}
                    Err(Unread::Stopped) => return Ok(failures),
                    Err(Unread::Skipped(why, cause)) => {
                        let mut warning = Diagnostic::warning(format!(
                            "the cache mount `{}` is not saved: {why}",
                            shown(&used.name.id)
                        ));
                        if let Some(cause) = &cause {
                            warning = warning.caused_by(cause);
                        }
                        self.events.emit(Event::Diagnostic(warning));
                    }
                    Err(Unread::Failed(error)) => {
                        failures.push((to, error));
                        break;
                    }
                }
            }
        }
        Ok(failures)
    }

    fn save_mount(
        &self,
        vertex: VertexId,
        client: &crate::registry::Client,
        to: &MountsTo,
        key: &Digest,
        used: &Used,
        cancel: &Cancel,
    ) -> Result<(), Unread> {
        let name = &used.name;
        let own = match look_up(client, &to.place, name) {
            Ok(own) => own,
            // It is written over.
            Err(error) if error.is_spoilt() => None,
            Err(error) => return Err(Unread::Failed(error)),
        };
        let seen = locked(&self.travel.seen).get(key).cloned();
        let origin = seen.and_then(|seen| locked(&seen).origin.clone());
        let origin = origin.filter(|origin| origin.place == to.place.name());
        // A branch that has saved nothing begins with what it was given of another.
        let previous = own
            .as_ref()
            .or(origin.as_ref().map(|origin| &origin.version));
        let Some((directory, outline)) = self.outline(to, key, used, previous, cancel)? else {
            return Ok(());
        };
        if previous.is_some_and(|previous| previous.identity == outline.identity()) {
            self.tell(vertex, format!("{}: unchanged\n", shown(&name.id)));
            return Ok(());
        }
        let index = match (own, origin) {
            (own, Some(origin))
                if own
                    .as_ref()
                    .is_none_or(|own| own.identity == origin.version.identity) =>
            {
                Some(origin.index)
            }
            (Some(own), _) => match own.fetch_index(client, &to.place) {
                Ok(index) => Some(index),
                Err(error) if error.is_spoilt() => None,
                Err(error) => return Err(Unread::Failed(error)),
            },
            (None, _) => None,
        };
        let what = shown(&name.id).to_owned();
        let progress = |done, total| {
            self.events.emit(Event::Progress {
                vertex,
                what: what.clone(),
                done,
                total,
            });
        };
        let send = |(outline, packed, _scratch): (Outline, Packed, Scratch)| {
            let place = &to.place;
            let moment = now();
            save(
                client, place, name, &outline, packed, moment, cancel, &progress,
            )
        };
        let ready = self.pack_mount(key, &directory, outline, index.as_ref(), cancel)?;
        // Other builds may have it while it is on its way.
        drop(directory);
        let saved = match send(ready) {
            // What the last version consisted of is not all there any more.
            Err(error) if error.misses_blobs() && index.is_some() => {
                let Some((directory, outline)) = self.outline(to, key, used, None, cancel)? else {
                    return Ok(());
                };
                let ready = self.pack_mount(key, &directory, outline, None, cancel)?;
                drop(directory);
                send(ready)
            }
            saved => saved,
        };
        let saved = saved.map_err(|error| match cancel.is_cancelled() {
            true => Unread::Stopped,
            false => Unread::Failed(error),
        })?;
        let (sent, bytes) = (size(saved.sent), size(saved.version.bytes));
        self.tell(vertex, format!("{what}: {sent} sent for {bytes}\n"));
        Ok(())
    }

    /// Reads a mount for the first time, and keeps it as its steps would; `None` if there is nothing to save.
    fn outline(
        &self,
        to: &MountsTo,
        key: &Digest,
        used: &Used,
        previous: Option<&Version>,
        cancel: &Cancel,
    ) -> Result<Option<(CacheDirectory, Outline)>, Unread> {
        let skipped = |why: &str| Unread::Skipped(why.to_owned(), None);
        let share = match used.share {
            Share::Together => Share::Together,
            // Its steps get the first copy where they can.
            Share::Apart | Share::InTurn => Share::InTurn,
        };
        let directory = match self.store.claim_mount(key, share) {
            Ok(MountClaim::Ready(directory)) if directory.is_first() => directory,
            // Whoever has it can save it, and all that this build has left in it.
            Ok(MountClaim::Held { pid: Some(pid) }) => {
                return Err(skipped(&format!("process {pid} uses it")));
            }
            Ok(MountClaim::Ready(_) | MountClaim::Held { pid: None }) => {
                return Err(skipped("another build uses it"));
            }
            Ok(MountClaim::Missing(_)) => return Ok(None),
            Err(error) => return Err(skipped(&error.to_string())),
        };
        let filled = self.store.mount_is_filled(key);
        if previous.is_none() && matches!(filled, Ok(false)) {
            return Ok(None);
        }
        let bytes = tree_size(directory.path()).unwrap_or_default();
        let too_large = |bytes| {
            let why = "are more than";
            Unread::Skipped(format!("its {} {why} {}", size(bytes), size(to.most)), None)
        };
        if bytes > to.most {
            return Err(too_large(bytes));
        }
        let outline = self.read_again(cancel, || {
            let owners = self.owners_of(&directory)?;
            Outline::read(bytes, previous, |streams| {
                read(&directory, &owners, streams, cancel)
            })
        })?;
        if outline.bytes() > to.most {
            return Err(too_large(outline.bytes()));
        }
        Ok(Some((directory, outline)))
    }

    /// Reads a mount for the second time.
    fn pack_mount(
        &self,
        key: &Digest,
        directory: &CacheDirectory,
        mut outline: Outline,
        previous: Option<&Index>,
        cancel: &Cancel,
    ) -> Result<(Outline, Packed, Scratch), Unread> {
        let keep = |source| {
            Unread::Failed(MountError::Keep {
                verb: "keep",
                source,
            })
        };
        let work = self.store.work_dir().map_err(io::Error::other);
        let scratch = work.and_then(|work| Scratch::new(work.join(format!("mount-{}", key.hex()))));
        let scratch = scratch.map_err(keep)?;
        for _ in 0..MOST_READS {
            let owners = self.read_again(cancel, || self.owners_of(directory))?;
            let packed = outline.pack(previous, &scratch.0, |streams| {
                read(directory, &owners, streams, cancel)
            });
            match packed {
                Ok(packed) => return Ok((outline, packed, scratch)),
                Err(PackError::Keep(error)) => return Err(keep(error)),
                Err(PackError::Read(RootfsError::Cancelled)) => return Err(Unread::Stopped),
                Err(PackError::Changed | PackError::Read(_)) => {}
            }
            scratch.clear().map_err(keep)?;
            outline = self.read_again(cancel, || {
                let owners = self.owners_of(directory)?;
                outline.again(|streams| read(directory, &owners, streams, cancel))
            })?;
        }
        Err(Unread::Skipped(
            "it changes while it is read".to_owned(),
            None,
        ))
    }

    /// Reads until nothing comes between, or gives up.
    fn read_again<T>(
        &self,
        cancel: &Cancel,
        mut attempt: impl FnMut() -> Result<T, RootfsError>,
    ) -> Result<T, Unread> {
        let mut tries = 1;
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(RootfsError::Cancelled) => return Err(Unread::Stopped),
                Err(_) if cancel.is_cancelled() => return Err(Unread::Stopped),
                Err(_) if tries < MOST_READS => tries += 1,
                Err(error) => {
                    let why = "it cannot be read, or changes meanwhile".to_owned();
                    return Err(Unread::Skipped(why, Some(error)));
                }
            }
        }
    }

    fn owners_of(&self, directory: &CacheDirectory) -> Result<Owners, RootfsError> {
        match self.store.ownership() {
            Ownership::InLedger => {
                let (owners, _) = SharedOwners::seed(directory.path(), Ownership::InLedger)?;
                Ok(owners)
            }
            Ownership::OnDisk | Ownership::DevicesInLedger => Ok(Owners::OnDisk),
        }
    }

    fn tell(&self, vertex: VertexId, line: String) {
        self.events.emit(Event::Output {
            vertex,
            stream: Stream::Stderr,
            bytes: line.into_bytes(),
        });
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

/// A directory for what is on its way.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(path: std::path::PathBuf) -> io::Result<Scratch> {
        std::fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    fn clear(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.0)?;
        std::fs::create_dir(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left goes with the session.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn read(
    directory: &CacheDirectory,
    owners: &Owners,
    streams: &mut Streams<'_>,
    cancel: &Cancel,
) -> Result<(), RootfsError> {
    read_cache(directory.path(), owners, cancel, &mut |piece| match piece {
        Piece::Header(bytes) => streams.header(bytes),
        Piece::Content(bytes) => streams.content(bytes),
        Piece::FileBegins(size) | Piece::FileEnds(size) => streams.border(size),
    })
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

/// Returns an id as the user wrote it.
fn shown(id: &str) -> &str {
    id.strip_prefix('/').unwrap_or(id)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
