//! What a build asks of its shared caches, and remembers of the answers.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::entry::{Entry, EntryLayer, PackedForm};
use super::trail::Trail;
use super::{CacheError, Place, ToPublish};
use crate::registry::Client;
use crate::vocab::{
    CacheKey, Cancel, Descriptor, Diagnostic, Digest, Event, EventSink, ImageRef, KeyComponent,
    LayerForm, LayerId,
};

/// Documents that are asked for together.
const TOGETHER: usize = 16;
/// A longer document that nobody has asked for yet is not kept.
const LONGEST_EARLY: usize = 256 << 10;

/// The caches that a build reads.
///
/// A place that fails once is not asked again. A layer that was promised and cannot be had is *lost*: the entries that promised
/// it are misses from then on, and a build that failed for it can be begun again.
pub struct Shared<'a> {
    places: Vec<Place>,
    events: &'a dyn EventSink,
    cancel: Cancel,
    /// What trails along the way of its look-ups are called after.
    instructions: OnceLock<Digest>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What was asked for, and what came of it.
    answers: HashMap<CacheKey, Option<Found>>,
    layers: HashMap<LayerId, Known>,
    blobs: HashMap<Digest, LayerId>,
    lost: HashSet<LayerId>,
    /// Lost since the last time that somebody asked.
    newly_lost: Vec<LayerId>,
    /// Of the same length as the places.
    silent: Vec<bool>,
    /// Places that were asked something; the first question asks for the trail, too. Of the same length as the places.
    begun: Vec<bool>,
    /// Trails that were found, by place.
    trails: HashMap<usize, Trail>,
    /// What lies ahead on a trail, by place.
    ahead: HashMap<usize, Vec<CacheKey>>,
    /// Documents of steps that came before anybody asked for them, by place.
    early: HashMap<(usize, CacheKey), Option<Vec<u8>>>,
    /// Records inside images; read when a place has no entry of its own. Of the same length as the places.
    records: Vec<Option<HashMap<CacheKey, Entry>>>,
}

/// An entry, and the place that had it.
#[derive(Clone)]
struct Found {
    entry: Entry,
    place: usize,
}

/// A layer that entries promise.
#[derive(Clone)]
struct Known {
    layer: EntryLayer,
    place: usize,
}

impl State {
    /// Takes a key and some after it from what lies ahead at a place; those before it were passed. Empty if it is not there.
    fn take_ahead(&mut self, at: usize, key: &CacheKey) -> Vec<CacheKey> {
        let Some(ahead) = self.ahead.get_mut(&at) else {
            return Vec::new();
        };
        let Some(here) = ahead.iter().position(|other| other == key) else {
            return Vec::new();
        };
        let rest = ahead.split_off((here + TOGETHER).min(ahead.len()));
        let taken = ahead.split_off(here);
        *ahead = rest;
        taken
    }
}

impl<'a> Shared<'a> {
    /// Returns the places as one cache, which asks them in order. Nothing is asked yet.
    pub fn new(places: Vec<Place>, events: &'a dyn EventSink, cancel: &Cancel) -> Shared<'a> {
        let state = State {
            silent: vec![false; places.len()],
            begun: vec![false; places.len()],
            records: vec![None; places.len()],
            ..State::default()
        };
        Shared {
            places,
            events,
            cancel: cancel.clone(),
            instructions: OnceLock::new(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Says after what the trail of the look-ups to come is called. Where a place knows it, their questions travel together. The first
    /// word counts.
    pub fn follow(&self, instructions: Digest) {
        self.instructions.get_or_init(|| instructions);
    }

    /// Returns the trails that were found, each with the identity of its place.
    pub(super) fn trails(&self) -> Vec<(String, Trail)> {
        let state = self.state();
        let trails = state.trails.iter();
        trails
            .map(|(at, trail)| (self.places[*at].identity(), trail.clone()))
            .collect()
    }

    /// Tells whether there is any place to ask.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns what is known under a key, and which place knows it; asks at most once for each key. An entry is used only if it states the same inputs.
    pub fn look_up(
        &self,
        client: &Client,
        key: &CacheKey,
        components: &[KeyComponent],
    ) -> Option<(Entry, &Place)> {
        let known = self.state().answers.get(key).cloned();
        let found = match known {
            Some(found) => found,
            None => self.ask(client, key, components),
        }?;
        Some((found.entry, &self.places[found.place]))
    }

    /// Asks again where nothing was known.
    pub fn look_up_again(
        &self,
        client: &Client,
        key: &CacheKey,
        components: &[KeyComponent],
    ) -> Option<(Entry, &Place)> {
        let mut state = self.state();
        state.answers.remove(key);
        // Since those came, a step was executed.
        state.early.clear();
        drop(state);
        self.look_up(client, key, components)
    }

    fn ask(&self, client: &Client, key: &CacheKey, components: &[KeyComponent]) -> Option<Found> {
        for (at, place) in self.places.iter().enumerate() {
            if self.state().silent[at] {
                continue;
            }
            let entry = match self.document(client, at, key) {
                Ok(Some(bytes)) => Entry::parse(key, &bytes),
                Ok(None) => match self.record(client, at, key) {
                    Some(entry) => Ok(entry),
                    None => continue,
                },
                Err(error) => {
                    self.silence(at, &error);
                    continue;
                }
            };
            let entry = entry.and_then(|entry| match entry.components == components {
                true => Ok(entry),
                false => Err("states other inputs than its name stands for".to_owned()),
            });
            let entry = match entry {
                Ok(entry) => entry,
                Err(why) => {
                    self.warn(format!(
                        "an entry of the cache {} is not used: it {why}",
                        place.name()
                    ));
                    continue;
                }
            };
            let mut state = self.state();
            if let Some(layer) = &entry.layer {
                if state.lost.contains(&layer.id) {
                    continue;
                }
                for form in &layer.forms {
                    state.blobs.insert(form.blob.digest, layer.id);
                }
                let known = Known {
                    layer: layer.clone(),
                    place: at,
                };
                let better = state
                    .layers
                    .get(&layer.id)
                    .is_none_or(|before| before.layer.forms.len() < known.layer.forms.len());
                if better {
                    state.layers.insert(layer.id, known);
                }
            }
            let found = Found { entry, place: at };
            state.answers.insert(*key, Some(found.clone()));
            return Some(found);
        }
        self.state().answers.insert(*key, None);
        None
    }

    /// Asks a place for the document of a step, and for what lies ahead of it.
    fn document(
        &self,
        client: &Client,
        at: usize,
        key: &CacheKey,
    ) -> Result<Option<Vec<u8>>, CacheError> {
        let place = &self.places[at];
        let (is_first, early, together) = {
            let mut state = self.state();
            let is_first = !std::mem::replace(&mut state.begun[at], true);
            let early = state.early.remove(&(at, *key));
            (is_first, early, state.take_ahead(at, key))
        };
        match (early, self.instructions.get()) {
            (Some(document), _) => Ok(document),
            (None, Some(instructions)) if is_first && place.is_far() => {
                self.begin(client, at, key, instructions)
            }
            (None, _) if together.is_empty() => place.document(client, &place.step(key)),
            (None, _) => self.together(client, at, &together),
        }
    }

    /// Asks a place for the first document, and for the trail: the next questions go along it.
    fn begin(
        &self,
        client: &Client,
        at: usize,
        key: &CacheKey,
        instructions: &Digest,
    ) -> Result<Option<Vec<u8>>, CacheError> {
        let place = &self.places[at];
        let names = [place.step(key), place.trail(instructions)];
        let mut answers = place.documents_under(client, &names)?;
        let trail = answers.pop().and_then(Result::ok).flatten();
        let answer = answers.pop().unwrap_or(Ok(None));
        let trail = trail.and_then(|bytes| Trail::parse(instructions, &bytes).ok());
        if let Some(trail) = trail {
            let after = trail.after(key);
            let mut state = self.state();
            state.trails.insert(at, trail);
            // Places before it that know no trail (the scope of a new branch) will be asked the same.
            for place in 0..=at {
                let is_asked = place == at || (state.begun[place] && !state.silent[place]);
                if is_asked && self.places[place].is_far() {
                    state.ahead.entry(place).or_insert_with(|| after.clone());
                }
            }
        }
        answer
    }

    /// Asks a place for documents of steps at the same time, and returns the first one. What goes wrong with the others is met again by
    /// whoever needs them.
    fn together(
        &self,
        client: &Client,
        at: usize,
        keys: &[CacheKey],
    ) -> Result<Option<Vec<u8>>, CacheError> {
        let place = &self.places[at];
        let names: Vec<String> = keys.iter().map(|key| place.step(key)).collect();
        let mut answers = place.documents_under(client, &names)?.into_iter();
        let first = answers.next().unwrap_or(Ok(None));
        let mut state = self.state();
        for (key, answer) in keys[1..].iter().zip(answers) {
            if let Ok(document) = answer
                && document.as_ref().map_or(0, Vec::len) <= LONGEST_EARLY
            {
                state.early.insert((at, *key), document);
            }
        }
        first
    }

    /// Returns what an image of a place's name says of a key. The image is read once.
    fn record(&self, client: &Client, at: usize, key: &CacheKey) -> Option<Entry> {
        if let Some(records) = &self.state().records[at] {
            return records.get(key).cloned();
        }
        let place = &self.places[at];
        let records = match place.records(client) {
            Ok(Ok(records)) => records,
            Ok(Err(what)) => {
                self.warn(format!(
                    "{} {what}, whose keys mean something else: nothing of it is used",
                    place.name()
                ));
                Vec::new()
            }
            // What cannot be read inside an image is not there; entries are asked for all the same.
            Err(_) => Vec::new(),
        };
        let records: HashMap<CacheKey, Entry> = records
            .into_iter()
            .map(|entry| (entry.key, entry))
            .collect();
        let found = records.get(key).cloned();
        self.state().records[at] = Some(records);
        found
    }

    /// Returns the packed form of a layer that is elsewhere.
    pub fn packed(&self, layer: &LayerId, form: LayerForm) -> Option<PackedForm> {
        let state = self.state();
        let known = state.layers.get(layer)?;
        let mut forms = known.layer.forms.iter();
        forms.find(|packed| packed.form == form).cloned()
    }

    /// Returns a form of a layer that says all that its files are, times as well.
    pub fn packed_in_any_form(&self, layer: &LayerId) -> Option<PackedForm> {
        let state = self.state();
        let known = state.layers.get(layer)?;
        let mut forms = known.layer.forms.iter();
        forms.find(|packed| packed.form.clamp.is_none()).cloned()
    }

    /// Returns the layer and form of a blob that is elsewhere.
    pub fn form_of(&self, blob: &Digest) -> Option<(LayerId, PackedForm)> {
        let state = self.state();
        let id = state.blobs.get(blob)?;
        let forms = &state.layers.get(id)?.layer.forms;
        let form = forms.iter().find(|form| form.blob.digest == *blob)?;
        Some((*id, form.clone()))
    }

    /// Returns all entries that were found for a layer.
    pub fn entries_of(&self, layer: &LayerId) -> Vec<Entry> {
        let state = self.state();
        let found = state.answers.values().flatten();
        found
            .filter(|found| {
                found
                    .entry
                    .layer
                    .as_ref()
                    .is_some_and(|own| own.id == *layer)
            })
            .map(|found| found.entry.clone())
            .collect()
    }

    /// Returns the repository that has a blob, where a registry has it.
    pub fn repository_of(&self, blob: &Digest) -> Option<ImageRef> {
        let state = self.state();
        let id = state.blobs.get(blob)?;
        let place = state.layers.get(id)?.place;
        self.places[place].repository().cloned()
    }

    /// Opens a blob. Where it cannot be had, or turns out to be another one, its layer is lost.
    pub fn open(
        &self,
        client: &Client,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, CacheError> {
        let (layer, place) = {
            let state = self.state();
            let layer = state.blobs.get(&blob.digest).copied();
            let layer = layer.ok_or(CacheError::Gone(blob.digest))?;
            (layer, state.layers[&layer].place)
        };
        match self.places[place].blob(client, blob) {
            Ok(reader) => Ok(Box::new(Watched {
                reader,
                layer,
                cancel: self.cancel.clone(),
                state: self.state.clone(),
            })),
            Err(error) => {
                self.lose(layer);
                Err(error)
            }
        }
    }

    /// Returns the forms of a layer that is elsewhere, to be given to another place.
    pub fn to_publish(&self, client: &Client, layer: &LayerId) -> Vec<ToPublish> {
        let Some(known) = self.state().layers.get(layer).cloned() else {
            return Vec::new();
        };
        let place = &self.places[known.place];
        let repository = place.repository().cloned();
        let forms = known.layer.forms.into_iter();
        forms
            .map(|form| {
                let (client, place, blob) = (client.clone(), place.clone(), form.blob.clone());
                ToPublish {
                    form,
                    open: Arc::new(move |offset| {
                        let mut reader = place.blob(&client, &blob).map_err(io::Error::other)?;
                        io::copy(&mut (&mut reader).take(offset), &mut io::sink())?;
                        Ok(reader)
                    }),
                    mount_from: repository.clone(),
                    is_wanted: true,
                }
            })
            .collect()
    }

    /// Tells whether an entry speaks of a layer, be its files anywhere or not.
    pub fn is_promised(&self, layer: &LayerId) -> bool {
        self.state().layers.contains_key(layer)
    }

    /// Notes that a layer cannot be had.
    pub fn lose(&self, layer: LayerId) {
        lose(&self.state, &self.cancel, layer);
    }

    /// Returns the keys whose entries promised what was lost since the last call; they are misses from now on.
    pub fn forget_lost(&self) -> Vec<CacheKey> {
        let mut state = self.state();
        let lost = std::mem::take(&mut state.newly_lost);
        let mut keys = Vec::new();
        for layer in lost {
            if let Some(known) = state.layers.remove(&layer) {
                for form in &known.layer.forms {
                    state.blobs.remove(&form.blob.digest);
                }
            }
            for (key, answer) in &mut state.answers {
                let promised = answer
                    .as_ref()
                    .and_then(|found| found.entry.layer.as_ref())
                    .is_some_and(|own| own.id == layer);
                if promised {
                    *answer = None;
                    keys.push(*key);
                }
            }
        }
        keys
    }

    fn silence(&self, at: usize, error: &CacheError) {
        let mut state = self.state();
        if self.cancel.is_cancelled() || state.silent[at] {
            return;
        }
        // All scopes of it.
        for (silent, place) in state.silent.iter_mut().zip(&self.places) {
            *silent |= place.name() == self.places[at].name();
        }
        drop(state);
        let mut warning = Diagnostic::warning(format!(
            "the cache {} cannot be read, and is left out",
            self.places[at].name()
        ))
        .caused_by(error);
        warning.hints.extend(error.hint());
        self.events.emit(Event::Diagnostic(warning));
    }

    fn warn(&self, text: String) {
        self.events
            .emit(Event::Diagnostic(Diagnostic::warning(text)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lose(state: &Mutex<State>, cancel: &Cancel, layer: LayerId) {
    // Whatever fails after the end of the build fails because of that.
    if cancel.is_cancelled() {
        return;
    }
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if state.lost.insert(layer) {
        state.newly_lost.push(layer);
    }
}

/// Notes where a blob cannot be read.
struct Watched {
    reader: Box<dyn Read + Send>,
    layer: LayerId,
    cancel: Cancel,
    state: Arc<Mutex<State>>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                lose(&self.state, &self.cancel, self.layer);
            }
        })
    }
}
