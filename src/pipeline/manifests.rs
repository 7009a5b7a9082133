//! Indexes of images that were made elsewhere: put together in the state directory, at a registry, or under a tag that other jobs add
//! to as well.
//!
//! In: names of images, here or at registries. What an index names goes where the index goes, and before it: children first, and
//! what a neighbouring repository has is mounted rather than sent.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use crate::image::{
    Listing, ListingEntry, Manifest, MediaTypes, Slot, parse_config, parse_manifest, parts_of,
};
use crate::registry::{Addition, Appended, Client, RegistryError, Threads};
use crate::store::{Store, StoredImage};
use crate::vocab::{
    AppendTo, Descriptor, Diagnostic, Digest, Event, EventSink, ExitCode, ImageRef, KeyBuilder,
    Platform, RegistryOptions, VertexId,
};

use super::bases::TaskIds;
use super::{Failure, failure, transfer};

/// Documents larger than this are no manifests or configs.
const DOCUMENT_LIMIT: u64 = 8 << 20;
/// Manifests below one source; more are not meant well.
const MOST_DOCUMENTS: usize = 1000;
/// Indexes within indexes.
const NESTING: usize = 4;
/// Blobs that travel at the same time.
const BLOBS_AT_ONCE: usize = 4;

/// An image to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListSource {
    /// Of the state directory.
    Stored(StoredImage),
    /// As its registry has it at this moment.
    Registry(ImageRef),
}

/// Where a new index goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewIndex {
    /// Into the state directory, with everything that belongs to it.
    Store,
    /// Straight to its registry.
    Registry,
}

/// Puts indexes together.
pub struct Indexing<'a> {
    pub store: &'a Store,
    pub client: Client,
    pub events: &'a dyn EventSink,
    pub tasks: TaskIds,
}

/// A source that was looked at.
struct Source<'a> {
    name: String,
    place: &'a ListSource,
    parts: Vec<(Slot, Vec<ListingEntry>)>,
}

/// Does something with a blob, and says how far it has come.
type BlobWork<'a> = dyn Fn(&Descriptor, &(dyn Fn(u64) + Sync)) -> Result<(), Failure> + Sync + 'a;

/// What belongs to a source.
#[derive(Default)]
struct Parts {
    /// Children first.
    documents: Vec<(Descriptor, Vec<u8>)>,
    blobs: Vec<Descriptor>,
}

/// Adds images of the state directory to the index under a name there, or makes one of them if the name stands for none. What else
/// the name stood for keeps its own digest.
pub(super) fn add_to_stored(
    store: &Store,
    name: &ImageRef,
    parts: &[(Slot, Vec<ListingEntry>)],
    annotations: &[(String, String)],
) -> Result<Descriptor, Failure> {
    let add = || {
        // Two builds that add to one index at the same time would each write its own.
        let (key, _) = KeyBuilder::new("index of the state directory")
            .add("name", &name.to_string())
            .finish();
        let _turn = store.lock(&key)?;
        let there = match store.image(name)? {
            Some(stored) => store
                .read_blob(&stored.manifest.digest, DOCUMENT_LIMIT)?
                .and_then(|bytes| {
                    let media_type = stored.manifest.media_type.as_str();
                    // What was kept was read once already; an image is no list to add to.
                    Listing::parse(&bytes, Some(media_type)).ok().flatten()
                }),
            None => None,
        };
        let mut listing = there.unwrap_or_else(|| Listing::new(MediaTypes::Oci));
        for (_, entries) in parts {
            listing.put(entries);
        }
        for (key, text) in annotations {
            listing.annotate(key, text);
        }
        listing.settle_media_type();
        let (index, bytes) = listing.to_bytes();
        store.put_blob(&bytes)?;
        store.put_image(Some(name), &index, None)?;
        Ok(index)
    };
    add().map_err(|error| failure::store(&error))
}

impl<'a> Indexing<'a> {
    pub fn new(
        store: &'a Store,
        options: &RegistryOptions,
        events: &'a dyn EventSink,
    ) -> Result<Indexing<'a>, Failure> {
        let client = Client::new(options, Threads::Some).map_err(|error| {
            let text = "the registry settings cannot be used";
            Failure::new(ExitCode::Usage, Diagnostic::error(text).caused_by(&error))
        })?;
        Ok(Indexing {
            store,
            client,
            events,
            tasks: TaskIds::default(),
        })
    }

    /// Makes an index of the sources, under a name that may stand for something else so far.
    pub fn create(
        &self,
        name: &ImageRef,
        sources: &[ListSource],
        annotations: &[(String, String)],
        to: NewIndex,
    ) -> Result<Descriptor, Failure> {
        let _in_use = self
            .store
            .use_shared()
            .map_err(|error| failure::store(&error))?;
        let sources = self.look_at(sources)?;
        let mut listing = Listing::new(MediaTypes::Oci);
        for source in &sources {
            match to {
                NewIndex::Store => self.keep(source)?,
                NewIndex::Registry => self.send(source, name)?,
            }
            for (_, entries) in &source.parts {
                listing.put(entries);
            }
        }
        for (key, text) in annotations {
            listing.annotate(key, text);
        }
        listing.settle_media_type();
        let (index, bytes) = listing.to_bytes();
        match to {
            NewIndex::Store => {
                let put = self
                    .store
                    .put_blob(&bytes)
                    .and_then(|_| self.store.put_image(Some(name), &index, None));
                put.map_err(|error| failure::store(&error))?;
            }
            NewIndex::Registry => {
                let pushed = self.client.push_manifest(name, &index.media_type, &bytes);
                pushed.map_err(|error| cannot("push", name, &error, ExitCode::Export))?;
            }
        }
        Ok(index)
    }

    /// Adds the sources to an index of the state directory.
    pub fn add(
        &self,
        name: &ImageRef,
        sources: &[ListSource],
        annotations: &[(String, String)],
    ) -> Result<Descriptor, Failure> {
        let _in_use = self
            .store
            .use_shared()
            .map_err(|error| failure::store(&error))?;
        let sources = self.look_at(sources)?;
        for source in &sources {
            self.keep(source)?;
        }
        let parts: Vec<_> = sources
            .into_iter()
            .flat_map(|source| source.parts)
            .collect();
        add_to_stored(self.store, name, &parts, annotations)
    }

    /// Adds the sources to the index under a tag.
    pub fn append(
        &self,
        to: &AppendTo,
        sources: &[ListSource],
        annotations: &[(String, String)],
    ) -> Result<Appended, Failure> {
        let _in_use = self
            .store
            .use_shared()
            .map_err(|error| failure::store(&error))?;
        let sources = self.look_at(sources)?;
        for source in &sources {
            self.send(source, &to.image)?;
        }
        let parts: Vec<_> = sources
            .into_iter()
            .flat_map(|source| source.parts)
            .collect();
        let vertex = self
            .tasks
            .start(format!("append to {}", to.image.familiar()), self.events);
        self.ended(vertex, append(&self.client, to, &parts, annotations))
    }

    /// Finds out what each source is, and that no two are the same thing.
    fn look_at(&self, places: &'a [ListSource]) -> Result<Vec<Source<'a>>, Failure> {
        let mut sources: Vec<Source<'a>> = Vec::new();
        for place in places {
            let source = self.source(place)?;
            for (slot, _) in &source.parts {
                let other = sources
                    .iter()
                    .find(|other| other.parts.iter().any(|(known, _)| known == slot));
                if let (Some(other), Slot::Platform(platform)) = (other, slot) {
                    return Err(Failure::new(
                        ExitCode::Usage,
                        Diagnostic::error(format!(
                            "{} and {} are both for {platform}",
                            other.name, source.name
                        ))
                        .hint("an index has one image for each platform"),
                    ));
                }
            }
            sources.push(source);
        }
        Ok(sources)
    }

    fn source(&self, place: &'a ListSource) -> Result<Source<'a>, Failure> {
        let (name, top, bytes) = match place {
            ListSource::Stored(stored) => {
                let name = match stored.names.first() {
                    Some(name) => name.familiar(),
                    None => stored.manifest.digest.to_string(),
                };
                let bytes = self.document(place, &stored.manifest)?;
                (name, stored.manifest.clone(), bytes)
            }
            ListSource::Registry(image) => {
                let standing = self.client.standing(image);
                let standing =
                    standing.map_err(|error| cannot("read", image, &error, ExitCode::Source))?;
                let Some(fetched) = standing else {
                    return Err(Failure::new(
                        ExitCode::Source,
                        Diagnostic::error(format!(
                            "neither the state directory nor the registry has {}",
                            image.familiar()
                        ))
                        .hint("push it first, or name one that is there"),
                    ));
                };
                (image.familiar(), fetched.descriptor, fetched.bytes)
            }
        };
        let unusable = |error| {
            Failure::new(
                ExitCode::Source,
                Diagnostic::error(format!("{name} cannot be listed in an index")).caused_by(&error),
            )
        };
        let media_type = Some(top.media_type.as_str()).filter(|text| !text.is_empty());
        let parts = match Listing::parse(&bytes, media_type).map_err(unusable)? {
            Some(listing) => listing.parts(),
            None => {
                let Manifest::Image { config, .. } =
                    parse_manifest(&bytes, media_type).map_err(unusable)?
                else {
                    unreachable!("an index was read as one");
                };
                let config = self.config(place, &config)?;
                let config = parse_config(&config).map_err(unusable)?;
                let platform = config.platform().ok_or_else(|| {
                    Failure::new(
                        ExitCode::Source,
                        Diagnostic::error(format!("{name} does not say what platform it is for")),
                    )
                })?;
                let entry = ListingEntry::image(&top, Some(&platform));
                vec![(Slot::Platform(platform), vec![entry])]
            }
        };
        Ok(Source { name, place, parts })
    }

    /// Reads a manifest.
    fn document(&self, place: &ListSource, document: &Descriptor) -> Result<Vec<u8>, Failure> {
        match place {
            ListSource::Stored(_) => self.stored(&document.digest),
            ListSource::Registry(image) => {
                let pinned = image.with_digest(document.digest);
                let fetched = self.client.manifest(&pinned);
                let fetched =
                    fetched.map_err(|error| cannot("read", &pinned, &error, ExitCode::Source))?;
                Ok(fetched.bytes)
            }
        }
    }

    fn config(&self, place: &ListSource, config: &Descriptor) -> Result<Vec<u8>, Failure> {
        let image = match place {
            ListSource::Stored(_) => return self.stored(&config.digest),
            ListSource::Registry(image) => image,
        };
        let failed = |error: io::Error| {
            Failure::new(
                ExitCode::Source,
                Diagnostic::error(format!("cannot read the config of {}", image.familiar()))
                    .caused_by(&error),
            )
        };
        if config.size > DOCUMENT_LIMIT {
            return Err(failed(io::Error::other(format!(
                "it says that it has {} bytes",
                config.size
            ))));
        }
        let mut bytes = Vec::new();
        self.client
            .blob(image, config)
            .map_err(|error| cannot("read", image, &error, ExitCode::Source))?
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(bytes)
    }

    fn stored(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        let read = self.store.read_blob(digest, DOCUMENT_LIMIT);
        read.map_err(|error| failure::store(&error))?
            .ok_or_else(|| not_here(digest))
    }

    /// Finds everything that a source's entries name.
    fn parts(&self, source: &Source<'_>) -> Result<Parts, Failure> {
        let mut parts = Parts::default();
        for entry in source.parts.iter().flat_map(|(_, entries)| entries) {
            self.add_parts(source, entry.descriptor(), NESTING, &mut parts)?;
        }
        Ok(parts)
    }

    fn add_parts(
        &self,
        source: &Source<'_>,
        document: &Descriptor,
        nesting: usize,
        parts: &mut Parts,
    ) -> Result<(), Failure> {
        let is_known = |(known, _): &(Descriptor, _)| known.digest == document.digest;
        if parts.documents.iter().any(is_known) {
            return Ok(());
        }
        if nesting == 0 || parts.documents.len() >= MOST_DOCUMENTS {
            return Err(Failure::new(
                ExitCode::Source,
                Diagnostic::error(format!("{} has indexes without end", source.name)),
            ));
        }
        let bytes = self.document(source.place, document)?;
        let named = parts_of(&bytes).map_err(|error| {
            Failure::new(
                ExitCode::Source,
                Diagnostic::error(format!("{} cannot be listed in an index", source.name))
                    .caused_by(&error),
            )
        })?;
        for child in &named.manifests {
            self.add_parts(source, child, nesting - 1, parts)?;
        }
        for blob in named.blobs {
            if !parts.blobs.iter().any(|known| known.digest == blob.digest) {
                parts.blobs.push(blob);
            }
        }
        parts.documents.push((document.clone(), bytes));
        Ok(())
    }

    /// Brings what a source names into the state directory.
    fn keep(&self, source: &Source<'_>) -> Result<(), Failure> {
        let parts = self.parts(source)?;
        let vertex = self
            .tasks
            .start(format!("fetch {}", source.name), self.events);
        let work = |blob: &Descriptor, progress: &(dyn Fn(u64) + Sync)| match source.place {
            ListSource::Stored(_) if self.store.blob_size(&blob.digest).is_some() => Ok(()),
            ListSource::Stored(_) => Err(not_here(&blob.digest)),
            ListSource::Registry(image) => {
                transfer::pull_blob(self.store, &self.client, image, blob, progress)
            }
        };
        self.ended(vertex, self.each_blob(&parts.blobs, vertex, &work))?;
        for (_, bytes) in &parts.documents {
            let put = self.store.put_blob(bytes);
            put.map_err(|error| failure::store(&error))?;
        }
        Ok(())
    }

    /// Brings what a source names into the repository that `to` is in.
    fn send(&self, source: &Source<'_>, to: &ImageRef) -> Result<(), Failure> {
        let mut mount_from = Vec::new();
        if let ListSource::Registry(from) = source.place
            && from.registry == to.registry
        {
            if from.repository == to.repository {
                return Ok(());
            }
            mount_from.push(from.repository.clone());
        }
        let parts = self.parts(source)?;
        let title = format!("copy {} to {}", source.name, to.name());
        let vertex = self.tasks.start(title, self.events);
        let work = |blob: &Descriptor, progress: &(dyn Fn(u64) + Sync)| {
            let open = |offset| self.open(source.place, blob, offset);
            let pushed = self
                .client
                .push_blob(to, blob, &open, &mount_from, progress);
            pushed
                .map(drop)
                .map_err(|error| cannot("copy to", to, &error, ExitCode::Export))
        };
        let sent = self.each_blob(&parts.blobs, vertex, &work).and_then(|()| {
            for (document, bytes) in &parts.documents {
                let by_digest = to.with_digest(document.digest);
                self.client
                    .push_manifest(&by_digest, &document.media_type, bytes)
                    .map_err(|error| cannot("copy to", to, &error, ExitCode::Export))?;
            }
            Ok(())
        });
        self.ended(vertex, sent)
    }

    /// Opens a blob where a source has it.
    fn open(
        &self,
        place: &ListSource,
        blob: &Descriptor,
        offset: u64,
    ) -> io::Result<Box<dyn Read + Send>> {
        match place {
            ListSource::Stored(_) => {
                let file = self.store.blob(&blob.digest).map_err(io::Error::other)?;
                let mut file = file.ok_or_else(|| {
                    io::Error::other(format!("{} is not in the state directory", blob.digest))
                })?;
                file.seek(SeekFrom::Start(offset))?;
                Ok(Box::new(file))
            }
            // From its first byte, or its digest could not be checked.
            ListSource::Registry(image) => {
                let mut reader = self.client.blob(image, blob).map_err(io::Error::other)?;
                io::copy(&mut (&mut reader).take(offset), &mut io::sink())?;
                Ok(Box::new(reader))
            }
        }
    }

    /// Does something for each blob, several at once.
    fn each_blob(
        &self,
        blobs: &[Descriptor],
        vertex: VertexId,
        work: &BlobWork<'_>,
    ) -> Result<(), Failure> {
        let queue = Mutex::new(blobs.iter());
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..blobs.len().min(BLOBS_AT_ONCE) {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(blob) = next else { return };
                        let progress = |done| {
                            self.events.emit(Event::Progress {
                                vertex,
                                what: blob.digest.to_string(),
                                done,
                                total: blob.size,
                            });
                        };
                        if let Err(error) = work(blob, &progress) {
                            // The others find nothing more to do.
                            *queue.lock().unwrap_or_else(PoisonError::into_inner) = [].iter();
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.get_or_insert(error);
                            return;
                        }
                    }
                });
            }
        });
        failed
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }

    fn ended<T>(&self, vertex: VertexId, result: Result<T, Failure>) -> Result<T, Failure> {
        match &result {
            Ok(_) => self.events.emit(Event::Finished { vertex }),
            Err(failure) => self.events.emit(Event::Failed {
                vertex,
                message: failure.diagnostics[0].message.clone(),
            }),
        }
        result
    }
}

/// Adds entries, whose manifests are in the repository already, to the index under a tag.
pub(super) fn append(
    client: &Client,
    to: &AppendTo,
    parts: &[(Slot, Vec<ListingEntry>)],
    annotations: &[(String, String)],
) -> Result<Appended, Failure> {
    let addition = Addition {
        parts,
        run: to.run.as_deref(),
        expect: &to.expect,
        annotations,
    };
    let appended = client.append(&to.image, &addition);
    appended.map_err(|error| cannot("append to", &to.image, &error, ExitCode::Export))
}

/// Returns warnings about an index that came out otherwise than somebody may think.
pub fn appended_otherwise(to: &ImageRef, appended: &Appended) -> Vec<Diagnostic> {
    let Appended::Published { replaced, .. } = appended else {
        return Vec::new();
    };
    let name = |slot: &Slot| match slot {
        Slot::Platform(platform) => platform.to_string(),
        Slot::Digest(digest) => digest.to_string(),
    };
    let warning = |slot: &Slot| {
        Diagnostic::warning(format!(
            "another job has put its own image for {} into {}",
            name(slot),
            to.familiar()
        ))
    };
    replaced.iter().map(warning).collect()
}

/// Names platforms in a message.
pub fn listed(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    names.join(", ")
}

fn not_here(digest: &Digest) -> Failure {
    Failure::new(
        ExitCode::Source,
        Diagnostic::error(format!("{digest} is not in the state directory"))
            .hint("`--pull` takes the image from its registry instead"),
    )
}

fn cannot(verb: &str, name: &ImageRef, error: &RegistryError, class: ExitCode) -> Failure {
    let mut diagnostic =
        Diagnostic::error(format!("cannot {verb} {}", name.familiar())).caused_by(error);
    diagnostic.hints.extend(error.hint());
    Failure::new(class, diagnostic)
}
