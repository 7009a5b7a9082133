//! What steps have left in their mounts, on its way to places.

use std::io;
use std::path::PathBuf;

use crate::cache::mounts::{
    Index, MountError, Outline, PackError, Packed, Streams, Version, look_up, note_use, save,
};
use crate::registry::{Client, RegistryError};
use crate::rootfs::{Owners, Piece, RootfsError, SharedOwners, read_cache, tree_size};
use crate::store::{CacheDirectory, MountClaim, Share};
use crate::vocab::{Cancel, Diagnostic, Digest, Event, Ownership, VertexId, size};
use crate::worker::Machine;
use crate::worker::steps::now;

use super::known::{MountsTo, Used, locked, shown};

/// How often a mount is read that changes meanwhile.
const MOST_READS: usize = 3;

/// Why a mount was not read.
enum Unread {
    /// In words that fit after "it is not saved: ".
    Skipped(String, Option<RootfsError>),
    Failed(MountError),
    Stopped,
}

impl Machine<'_> {
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
        client: &Client,
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
            if let Some(own) = &own {
                // For who prunes. A place that does not take it has what was saved all the same.
                drop(note_use(client, &to.place, name, own, now()));
            }
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
}

/// A directory for what is on its way.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> io::Result<Scratch> {
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
