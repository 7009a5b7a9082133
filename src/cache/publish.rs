//! What a build gives to its shared caches, while it goes on.
//!
//! Records are noted as they come up, layers travel as soon as they are packed, on threads of their own; the rest goes when the
//! build is done. What another machine published first stays: nothing that is whole is written over, but for the time of its last
//! use, once a day.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::entry::{Entry, PackedForm, nothing};
use super::trail::Trail;
use super::written::is_stale;
use super::{CacheError, Place, Shared};
use crate::registry::Client;
use crate::vocab::{
    CacheKey, Cancel, Compression, Descriptor, Digest, ImageRef, LayerForm, LayerId, Timestamp,
};

/// Entries that are written at the same time when the build is done.
const ENTRIES_AT_ONCE: usize = 6;

/// How often blobs are brought that were there and then were not.
const PUT_ATTEMPTS: usize = 3;

/// Opens a blob from an offset on.
pub type Open = Arc<dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync>;

/// A place that is given to.
pub struct Publication {
    pub place: Place,
    /// A place that takes nothing fails no build.
    pub ignore_error: bool,
    /// Whether it gets the layers of all steps, and not only those that leave the build.
    pub all_layers: bool,
    /// Of layers that no output wants.
    pub compression: Compression,
}

/// One packed form of a layer, and how to read it.
#[derive(Clone)]
pub struct ToPublish {
    pub form: PackedForm,
    pub open: Open,
    /// Where registries have it already.
    pub mount_from: Option<ImageRef>,
    /// By an output of the build, or by a cache that had it: it costs nothing.
    pub is_wanted: bool,
}

impl Publication {
    /// Returns what of a layer the place gets: a whole form that some output wants anyway, or its own, and outputs' forms beside it.
    fn takes(&self, ready: Ready) -> Vec<ToPublish> {
        if !ready.leaves && !self.all_layers {
            return Vec::new();
        }
        let is_own = |form: &LayerForm| *form == LayerForm::from(self.compression);
        let has_own = ready.forms.iter().any(|to| is_own(&to.form.form));
        let mut forms = ready.forms;
        // Others may have asked for more.
        forms.retain(|to| to.is_wanted || !has_own || is_own(&to.form.form));
        forms
    }
}

/// Gives to all places.
pub struct Publisher {
    inner: Arc<Inner>,
    takes_notes: bool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Inner {
    publications: Vec<Publication>,
    /// When the build has its uses.
    now: Timestamp,
    cancel: Cancel,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    notes: BTreeMap<CacheKey, Note>,
    /// Layers that may travel.
    ready: HashMap<LayerId, Ready>,
    /// Layers whose turn it is.
    queue: Vec<LayerId>,
    /// Entries that are there: place, key.
    done: BTreeSet<(usize, CacheKey)>,
    /// Entries that promise what is not there, and are written over.
    spoilt: BTreeSet<CacheKey>,
    /// Given with the last entries.
    trail: Option<Left>,
    /// Per place: what went wrong first. It is given nothing any more.
    failed: Vec<Option<CacheError>>,
    /// Per place: whether it has refused to note a use. It is spared the next ones.
    takes_no_notes: Vec<bool>,
    is_ending: bool,
}

#[derive(Clone, Default)]
struct Ready {
    forms: Vec<ToPublish>,
    /// The build, with an output.
    leaves: bool,
}

struct Note {
    entry: Entry,
    /// Where the entry was found: it is there.
    found_at: Option<Place>,
}

/// What a build leaves for the next one.
struct Left {
    instructions: Digest,
    trail: Trail,
    /// Those that were found, each with the identity of its place.
    trails: Vec<(String, Trail)>,
}

impl Publisher {
    /// Returns a publisher that has no thread yet, of a build that began `now`. `takes_notes`: also where there is nobody to give to.
    pub fn new(
        publications: Vec<Publication>,
        takes_notes: bool,
        now: Timestamp,
        cancel: &Cancel,
    ) -> Publisher {
        let state = State {
            failed: publications.iter().map(|_| None).collect(),
            takes_no_notes: vec![false; publications.len()],
            ..State::default()
        };
        Publisher {
            takes_notes: takes_notes || !publications.is_empty(),
            inner: Arc::new(Inner {
                publications,
                now,
                cancel: cancel.clone(),
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            threads: Mutex::default(),
        }
    }

    /// Tells whether there is anybody to give to.
    pub fn is_empty(&self) -> bool {
        self.inner.publications.is_empty()
    }

    /// Tells whether anybody gets the layers of all steps.
    pub fn wants_all_layers(&self) -> bool {
        let mut publications = self.inner.publications.iter();
        publications.any(|publication| publication.all_layers)
    }

    /// Returns the compressions of layers that no output wants, each once: all of them, or those of the places that get the layers of all steps.
    pub fn compressions(&self, leaves: bool) -> Vec<Compression> {
        let mut wanted = Vec::new();
        for publication in &self.inner.publications {
            if (leaves || publication.all_layers) && !wanted.contains(&publication.compression) {
                wanted.push(publication.compression);
            }
        }
        wanted
    }

    /// Takes the record of a step. Its forms are those of a layer that is elsewhere; a layer of this machine comes with
    /// [`layer_ready`](Publisher::layer_ready). `found_at` is the place that has it already.
    pub fn note(&self, entry: Entry, found_at: Option<&Place>) {
        if !self.takes_notes {
            return;
        }
        let note = Note {
            entry,
            found_at: found_at.cloned(),
        };
        self.inner.state().notes.insert(note.entry.key, note);
    }

    /// Returns all that was noted.
    pub fn entries(&self) -> Vec<Entry> {
        let state = self.inner.state();
        state
            .notes
            .values()
            .map(|note| note.entry.clone())
            .collect()
    }

    /// Tells whether anything is noted.
    pub fn takes_notes(&self) -> bool {
        self.takes_notes
    }

    /// Has entries under these keys written, whatever is there.
    pub fn replace(&self, keys: &[CacheKey]) {
        let mut state = self.inner.state();
        for key in keys {
            state.notes.remove(key);
            state.spoilt.insert(*key);
            state.done.retain(|(_, done)| done != key);
        }
    }

    /// Tells whether a layer was given already, as one that `leaves` the build where it does.
    pub fn has_layer(&self, layer: &LayerId, leaves: bool) -> bool {
        let state = self.inner.state();
        let ready = state.ready.get(layer);
        ready.is_some_and(|ready| ready.leaves || !leaves)
    }

    /// Takes a layer of this machine in its forms, and sends it on its way: to everybody if it `leaves` the build with an output.
    pub fn layer_ready(
        &self,
        client: &Client,
        layer: LayerId,
        forms: Vec<ToPublish>,
        leaves: bool,
    ) {
        if self.is_empty() || forms.is_empty() || self.has_layer(&layer, leaves) {
            return;
        }
        let mut state = self.inner.state();
        state.ready.insert(layer, Ready { forms, leaves });
        state.queue.push(layer);
        drop(state);
        self.inner.changed.notify_one();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let places = self.inner.publications.iter();
        let at_once = places.map(|publication| publication.place.layers_at_once());
        if threads.len() < at_once.max().unwrap_or_default() {
            let (inner, client) = (self.inner.clone(), client.clone());
            let started = std::thread::Builder::new()
                .name("publish".to_owned())
                .spawn(move || inner.work(&client));
            // Without a thread, the end of the build does it.
            threads.extend(started.ok());
        }
    }

    /// Notes what a build of these instructions asks about, for the next one. `shared` has seen the trails that are there.
    pub fn leave_trail(&self, instructions: Digest, keys: Vec<CacheKey>, shared: &Shared<'_>) {
        let used = self.inner.now;
        self.inner.state().trail = Some(Left {
            instructions,
            trail: Trail { keys, used },
            trails: shared.trails(),
        });
    }

    /// Gives what was not given yet and waits for all. Returns what went wrong, place by place. A step whose layer was never ready is given as a record alone.
    pub fn finish(&self, client: &Client) -> Vec<(&Publication, CacheError)> {
        self.inner.state().is_ending = true;
        self.inner.changed.notify_all();
        self.inner.work(client);
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // It cannot panic but by a bug, and then its entries are missing and nothing else.
            drop(thread.join());
        }
        let keys: Vec<CacheKey> = self.inner.state().notes.keys().copied().collect();
        // The trail is `None`.
        let last = std::iter::once(None);
        let queue = Mutex::new(keys.into_iter().map(Some).chain(last));
        std::thread::scope(|scope| {
            for _ in 0..ENTRIES_AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        match next {
                            None => return,
                            Some(None) => self.inner.publish_trail(client),
                            Some(Some(key)) => self.inner.publish_entry(client, &key),
                        }
                    }
                });
            }
        });
        let mut state = self.inner.state();
        state
            .failed
            .iter_mut()
            .zip(&self.inner.publications)
            .filter_map(|(failed, publication)| Some((publication, failed.take()?)))
            .collect()
    }
}

impl Drop for Publisher {
    /// Nobody waits for what a failed build would have given.
    fn drop(&mut self) {
        let mut state = self.inner.state();
        state.is_ending = true;
        state.queue.clear();
        drop(state);
        self.inner.changed.notify_all();
    }
}

impl Inner {
    /// One thread's life: takes layers until the end.
    fn work(&self, client: &Client) {
        let mut state = self.state();
        loop {
            if self.cancel.is_cancelled() {
                return;
            }
            let Some(layer) = state.queue.pop() else {
                if state.is_ending {
                    return;
                }
                let waited = self
                    .changed
                    .wait_timeout(state, std::time::Duration::from_millis(100));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            let of_layer = |note: &&Note| {
                let own = note.entry.layer.as_ref();
                own.is_some_and(|own| own.id == layer)
            };
            let keys: Vec<CacheKey> = state
                .notes
                .values()
                .filter(of_layer)
                .map(|note| note.entry.key)
                .collect();
            drop(state);
            for key in keys {
                self.publish_entry(client, &key);
            }
            state = self.state();
        }
    }

    /// Gives one entry, its layer first, to every place that lacks it.
    fn publish_entry(&self, client: &Client, key: &CacheKey) {
        for (at, publication) in self.publications.iter().enumerate() {
            let (mut entry, ready, found_at, is_spoilt) = {
                let state = self.state();
                let Some(note) = state.notes.get(key) else {
                    return;
                };
                if state.failed[at].is_some() || state.done.contains(&(at, *key)) {
                    continue;
                }
                let own = note.entry.layer.as_ref().map(|layer| layer.id);
                let ready = own.and_then(|own| state.ready.get(&own)).cloned();
                (
                    note.entry.clone(),
                    ready.unwrap_or_default(),
                    note.found_at.clone(),
                    state.spoilt.contains(key),
                )
            };
            if self.cancel.is_cancelled() {
                return;
            }
            let forms = publication.takes(ready);
            let place = &publication.place;
            if let Some(found) = &found_at
                && found.identity() == place.identity()
            {
                self.say_used(client, at, &entry);
                self.state().done.insert((at, *key));
                continue;
            }
            if let Some(layer) = &mut entry.layer {
                let has_files = found_at.is_some_and(|found| found.has_blobs_of(place));
                if !forms.is_empty() {
                    layer.forms = forms.iter().map(|form| form.form.clone()).collect();
                } else if !has_files {
                    layer.forms.clear();
                }
            }
            let mut given = self.give(client, at, &entry, &forms, is_spoilt);
            if forms.is_empty()
                && let Some(layer) = &mut entry.layer
                && !layer.forms.is_empty()
                && given.as_ref().is_err_and(CacheError::misses_blobs)
            {
                // What another scope of the place has promised is gone.
                layer.forms.clear();
                given = self.give(client, at, &entry, &forms, is_spoilt);
            }
            let mut state = self.state();
            match given {
                Ok(()) => {
                    state.done.insert((at, *key));
                }
                Err(error) => {
                    state.failed[at].get_or_insert(error);
                }
            }
        }
    }

    /// Gives the trail to every place that lacks it. Nobody misses one that cannot be given.
    fn publish_trail(&self, client: &Client) {
        let Some(Left {
            instructions,
            trail,
            trails,
        }) = self.state().trail.take()
        else {
            return;
        };
        if !trail.is_of_use() {
            return;
        }
        for (at, publication) in self.publications.iter().enumerate() {
            let place = &publication.place;
            if !place.is_far() || self.state().failed[at].is_some() || self.cancel.is_cancelled() {
                continue;
            }
            let name = place.trail(&instructions);
            let mut found = trails.iter();
            let there = match found.find(|(found_at, _)| *found_at == place.identity()) {
                Some((_, there)) => Some(there.clone()),
                // One that cannot be read is written over.
                None => {
                    let bytes = place.document(client, &name).ok().flatten();
                    bytes.and_then(|bytes| Trail::parse(&instructions, &bytes).ok())
                }
            };
            let notes_uses = place.wants_notes() && !self.state().takes_no_notes[at];
            let is_there = there.as_ref().is_some_and(|there| {
                there.has(&trail) && !(notes_uses && is_stale(there.used, self.now))
            });
            let documents = trail.with(there.as_ref()).documents(&instructions);
            if !is_there && let Some(documents) = documents {
                let (blob, bytes) = nothing();
                let put = put_bytes(client, place, &blob, bytes);
                drop(put.and_then(|()| place.put_document(client, &name, &documents)));
            }
        }
    }

    /// Has an entry say that it was of use, where that was not said for a day.
    fn say_used(&self, client: &Client, at: usize, entry: &Entry) {
        let place = &self.publications[at].place;
        let is_due = entry.used.is_some_and(|used| is_stale(used, self.now));
        if !is_due || !place.wants_notes() || self.state().takes_no_notes[at] {
            return;
        }
        // Another job may have written to it since it was looked up.
        if let Ok(Some(bytes)) = place.document(client, &place.step(&entry.key)) {
            self.note_use(client, at, &entry.key, &bytes);
        }
    }

    /// Writes an entry that was just read again, with the time of this build. Whatever prevents that prevents no build.
    fn note_use(&self, client: &Client, at: usize, key: &CacheKey, bytes: &[u8]) {
        let place = &self.publications[at].place;
        let there = Entry::parse(key, bytes).ok().and_then(|there| there.used);
        let is_due = there.is_some_and(|used| is_stale(used, self.now));
        if !is_due || !place.wants_notes() || self.state().takes_no_notes[at] {
            return;
        }
        let noted = place.note_use(client, &place.step(key), bytes, self.now);
        if noted.is_err() {
            self.state().takes_no_notes[at] = true;
        }
    }

    /// Gives one entry to one place, unless that has it.
    fn give(
        &self,
        client: &Client,
        at: usize,
        entry: &Entry,
        forms: &[ToPublish],
        is_spoilt: bool,
    ) -> Result<(), CacheError> {
        let place = &self.publications[at].place;
        let Some(documents) = entry.documents(self.now) else {
            return Ok(());
        };
        if !is_spoilt && let Some(bytes) = place.document(client, &place.step(&entry.key))? {
            let there = Entry::parse(&entry.key, &bytes);
            if there.is_ok_and(|there| !there.forms().is_empty() || entry.forms().is_empty()) {
                self.note_use(client, at, &entry.key, &bytes);
                return Ok(());
            }
        }
        let put = || {
            for form in forms {
                let mount_from: Vec<ImageRef> = form.mount_from.iter().cloned().collect();
                place.put_blob(client, &form.form.blob, &*form.open, &mount_from)?;
            }
            if entry.forms().is_empty() {
                let (blob, bytes) = nothing();
                put_bytes(client, place, &blob, bytes)?;
            }
            place.put_document(client, &place.step(&entry.key), &documents)
        };
        // Somebody who prunes may take a blob for a moment, or just before it was found to be there.
        let mut put_once = put();
        for _ in 1..PUT_ATTEMPTS {
            match put_once {
                Err(error) if error.misses_blobs() => put_once = put(),
                done => return done,
            }
        }
        put_once
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put_bytes(
    client: &Client,
    place: &Place,
    blob: &Descriptor,
    bytes: &'static [u8],
) -> Result<(), CacheError> {
    let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(&bytes[bytes.len().min(offset as usize)..]))
    };
    place.put_blob(client, blob, &open, &[])
}
