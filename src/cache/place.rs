//! A place, whatever its kind: documents by name, blobs by digest.

use std::io::Read;

use super::directory::Directory;
use super::entry::Entry;
use super::folder::Found;
use super::written::{Documents, used_at};
use super::{CacheError, actions, bucket, registry};
use crate::registry::{Client, OpenAt};
use crate::vocab::{
    ActionsPlace, BucketPlace, CacheKey, CachePlace, CacheScope, Descriptor, Digest, ImageRef,
    Timestamp,
};

/// Threads that look after one place at the same time.
pub(super) const AT_ONCE: usize = 8;
/// Layers that travel to a place at the same time, where nothing else is known.
const LAYERS_AT_ONCE: usize = 2;

/// What came of asking for a document.
pub(super) type Answer = Result<Option<Vec<u8>>, CacheError>;

/// A place, and the part of it that one use has.
#[derive(Clone, Debug)]
pub struct Place {
    kind: Kind,
    scope: CacheScope,
    /// For people.
    name: String,
    has_records: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Registry(ImageRef),
    Directory(Directory),
    Bucket(Box<BucketPlace>),
    Actions(ActionsPlace),
}

impl Place {
    /// Returns a place; nothing is asked or opened yet.
    pub fn new(place: &CachePlace, scope: &CacheScope) -> Place {
        Place {
            name: place.to_string(),
            scope: scope.clone(),
            has_records: true,
            kind: match place {
                CachePlace::Registry { image } => Kind::Registry(image.clone()),
                CachePlace::Directory { path } => Kind::Directory(Directory::new(path)),
                CachePlace::Bucket(place) => Kind::Bucket(place.clone()),
                CachePlace::Actions(place) => Kind::Actions(place.clone()),
            },
        }
    }

    /// Returns the place without the image of its name: another scope of the same place has read that.
    pub fn of_entries_alone(self) -> Place {
        Place {
            has_records: false,
            ..self
        }
    }

    /// Returns its name, as the user gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the part of the place that is used.
    pub fn scope(&self) -> &CacheScope {
        &self.scope
    }

    /// Tells whether blobs that are at one of two places are at the other one as well: scopes share them.
    pub fn has_blobs_of(&self, other: &Place) -> bool {
        match (self.repository(), other.repository()) {
            (Some(one), Some(other)) => one.name() == other.name(),
            (None, None) => self.blobs_of() == other.blobs_of(),
            _ => false,
        }
    }

    /// Returns a text that is equal for equal places, scope included.
    pub(super) fn identity(&self) -> String {
        let documents = match &self.kind {
            Kind::Bucket(place) => place.documents.as_str(),
            Kind::Registry(_) | Kind::Directory(_) | Kind::Actions(_) => "",
        };
        format!("{} {documents} {}", self.blobs_of(), self.scope.as_str())
    }

    /// Returns a text that is equal for places with the same blobs, if they are of one kind.
    fn blobs_of(&self) -> String {
        match &self.kind {
            Kind::Registry(_) | Kind::Directory(_) => self.name.clone(),
            Kind::Bucket(place) => format!("{} {}", self.name, place.blobs),
            Kind::Actions(place) => format!("{} {}", self.name, place.service),
        }
    }

    /// Returns how many layers travel there at the same time.
    pub(super) fn layers_at_once(&self) -> usize {
        match &self.kind {
            Kind::Bucket(place) => place.layers_at_once,
            Kind::Registry(_) | Kind::Directory(_) | Kind::Actions(_) => LAYERS_AT_ONCE,
        }
    }

    /// Returns the repository, where it is one of a registry.
    pub fn repository(&self) -> Option<&ImageRef> {
        match &self.kind {
            Kind::Registry(image) => Some(image),
            Kind::Directory(_) | Kind::Bucket(_) | Kind::Actions(_) => None,
        }
    }

    /// Returns the name of a step's document.
    pub(super) fn step(&self, key: &CacheKey) -> String {
        format!("{}-step-{key}", self.scope.as_str())
    }

    /// Returns the name of a mount's document.
    pub(super) fn mount(&self, key: &Digest) -> String {
        format!("{}-mount-{}", self.scope.as_str(), key.hex())
    }

    /// Returns the name of the trail of those who follow the same instructions.
    pub(super) fn trail(&self, instructions: &Digest) -> String {
        format!("{}-trail-{}", self.scope.as_str(), instructions.hex())
    }

    /// Returns the document under a name; `None` if there is none. What it says is not checked.
    pub(super) fn document(
        &self,
        client: &Client,
        name: &str,
    ) -> Result<Option<Vec<u8>>, CacheError> {
        match &self.kind {
            Kind::Registry(image) => registry::document(client, image, name),
            Kind::Directory(directory) => {
                let found = directory.document(name)?;
                if found.is_some() {
                    directory.note_use(name);
                }
                Ok(found)
            }
            Kind::Bucket(place) => bucket::document(client, place, name),
            Kind::Actions(place) => actions::document(client, place, name),
        }
    }

    /// Returns the documents under several names, asked for at the same time. Starts no thread.
    pub(super) fn documents_under(
        &self,
        client: &Client,
        names: &[String],
    ) -> Result<Vec<Answer>, CacheError> {
        match &self.kind {
            Kind::Registry(image) => registry::documents_under(client, image, names),
            Kind::Directory(_) => {
                let documents = names.iter().map(|name| self.document(client, name));
                Ok(documents.collect())
            }
            Kind::Bucket(place) => bucket::documents_under(client, place, names),
            Kind::Actions(place) => actions::documents_under(client, place, names),
        }
    }

    /// Tells whether each question takes as long as a network does.
    pub(super) fn is_far(&self) -> bool {
        !matches!(self.kind, Kind::Directory(_))
    }

    /// Returns the records inside the image that the place is named after; the inner error says what is there instead.
    pub(super) fn records(
        &self,
        client: &Client,
    ) -> Result<Result<Vec<Entry>, &'static str>, CacheError> {
        if !self.has_records {
            return Ok(Ok(Vec::new()));
        }
        match &self.kind {
            Kind::Registry(image) => registry::records(client, image),
            Kind::Directory(_) | Kind::Bucket(_) | Kind::Actions(_) => Ok(Ok(Vec::new())),
        }
    }

    /// Writes a document under a name, over what is there. Its blobs are there already.
    pub(super) fn put_document(
        &self,
        client: &Client,
        name: &str,
        documents: &Documents,
    ) -> Result<(), CacheError> {
        match &self.kind {
            Kind::Registry(image) => registry::put_document(client, image, name, documents),
            Kind::Directory(directory) => directory.put_document(name, documents),
            Kind::Bucket(place) => bucket::put_document(client, place, name, documents),
            Kind::Actions(place) => actions::put_document(client, place, name, documents),
        }
    }

    /// Tells whether uses have to be noted in documents: a look-up leaves no trace there.
    pub(super) fn wants_notes(&self) -> bool {
        match &self.kind {
            Kind::Registry(_) | Kind::Bucket(_) => true,
            // There reading is noted by the place.
            Kind::Directory(_) | Kind::Actions(_) => false,
        }
    }

    /// Writes a document that was just read, with another time of its last use.
    pub(super) fn note_use(
        &self,
        client: &Client,
        name: &str,
        document: &[u8],
        now: Timestamp,
    ) -> Result<(), CacheError> {
        let Some(document) = used_at(document, now) else {
            return Ok(());
        };
        match &self.kind {
            Kind::Registry(image) => registry::put_manifest(client, image, name, &document),
            Kind::Bucket(place) => bucket::put_bytes(client, place, name, document),
            Kind::Directory(_) | Kind::Actions(_) => Ok(()),
        }
    }

    /// Opens a blob; reading it to its end fails if it is not what it should be.
    pub(super) fn blob(
        &self,
        client: &Client,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, CacheError> {
        match &self.kind {
            Kind::Registry(image) => registry::blob(client, image, blob),
            Kind::Directory(directory) => Ok(Box::new(directory.blob(blob)?)),
            Kind::Bucket(place) => bucket::blob(client, place, blob),
            Kind::Actions(place) => actions::blob(client, place, blob),
        }
    }

    /// Brings a blob there, unless it is there. `mount_from` names repositories of registries that have it.
    pub(super) fn put_blob(
        &self,
        client: &Client,
        blob: &Descriptor,
        open: OpenAt<'_>,
        mount_from: &[ImageRef],
    ) -> Result<(), CacheError> {
        match &self.kind {
            Kind::Registry(image) => {
                let neighbours: Vec<String> = mount_from
                    .iter()
                    .filter(|other| other.registry == image.registry)
                    .map(|other| other.repository.clone())
                    .collect();
                registry::put_blob(client, image, blob, open, &neighbours)
            }
            Kind::Directory(directory) => {
                if directory.has_blob(blob) {
                    return Ok(());
                }
                let mut reader = open(0).map_err(|_| CacheError::Gone(blob.digest))?;
                directory.put_blob(blob, &mut reader)
            }
            Kind::Bucket(place) => bucket::put_blob(client, place, blob, open),
            Kind::Actions(place) => actions::put_blob(client, place, blob, open),
        }
    }
}

/// What lies at a place, for those who look after it.
impl Place {
    /// Returns the names of everything that is where documents are, in whatever scope.
    pub(super) fn documents(&self, client: &Client) -> Result<Vec<Named>, CacheError> {
        match &self.kind {
            Kind::Registry(image) => registry::documents(client, image),
            Kind::Directory(directory) => {
                let found = directory.documents()?.into_iter();
                Ok(found.map(Named::from).collect())
            }
            Kind::Bucket(place) => bucket::documents(client, place),
            Kind::Actions(_) => Err(actions::not_kept()),
        }
    }

    /// Reads a document without its being a use of it. The inner error says why it cannot be read, where others may well be.
    pub(super) fn look_at(
        &self,
        client: &Client,
        name: &str,
    ) -> Result<Result<Option<Vec<u8>>, String>, CacheError> {
        match &self.kind {
            Kind::Registry(image) => registry::look_at(client, image, name),
            Kind::Directory(directory) => Ok(directory
                .document(name)
                .map_err(|error| format!("cannot be read: {}", error.cause()))),
            Kind::Bucket(place) => Ok(Ok(bucket::document(client, place, name)?)),
            Kind::Actions(_) => Err(actions::not_kept()),
        }
    }

    /// Removes documents, each with its digest. `staying` are the other ones.
    pub(super) fn remove_documents(
        &self,
        client: &Client,
        going: &[(&Named, Digest)],
        staying: &[(&Named, Digest)],
    ) -> Removal {
        match &self.kind {
            Kind::Registry(image) => registry::remove(client, image, going, staying),
            Kind::Directory(directory) => Removal::one_by_one(going, |named| {
                directory.remove_document(&Found {
                    name: named.name.clone(),
                    size: named.size,
                    changed: named.changed.unwrap_or_default(),
                })
            }),
            Kind::Bucket(place) => {
                Removal::one_by_one(going, |named| bucket::remove_document(client, place, named))
            }
            Kind::Actions(_) => Removal {
                failure: Some(actions::not_kept()),
                ..Removal::default()
            },
        }
    }

    /// Tells whether blobs that no document names stay until somebody removes them; a registry sees to that itself.
    pub(super) fn leaves_blobs(&self) -> bool {
        match &self.kind {
            Kind::Registry(_) | Kind::Actions(_) => false,
            Kind::Directory(_) | Kind::Bucket(_) => true,
        }
    }

    /// Returns all blobs, where the place [leaves](Place::leaves_blobs) them; the name of each is its digest in hex.
    pub(super) fn blobs(&self, client: &Client) -> Result<Vec<Named>, CacheError> {
        match &self.kind {
            Kind::Registry(_) | Kind::Actions(_) => Ok(Vec::new()),
            Kind::Directory(directory) => {
                let found = directory.blobs()?.into_iter();
                Ok(found.map(Named::from).collect())
            }
            Kind::Bucket(place) => bucket::blobs(client, place),
        }
    }

    /// Removes a blob that no document names, unless somebody has meant to name it since `before`.
    pub(super) fn remove_blob(
        &self,
        client: &Client,
        blob: &Named,
        before: Timestamp,
    ) -> Result<bool, CacheError> {
        match &self.kind {
            Kind::Registry(_) | Kind::Actions(_) => Ok(false),
            Kind::Directory(directory) => directory.remove_blob(&blob.name, before),
            Kind::Bucket(place) => bucket::remove_blob(client, place, &blob.name, before),
        }
    }

    /// Returns what was on its way at some time before `before` and never came there. Uploads that a bucket holds are seen to by its rules.
    pub(super) fn leftovers(&self, before: Timestamp) -> Result<Vec<Named>, CacheError> {
        match &self.kind {
            Kind::Registry(_) | Kind::Bucket(_) | Kind::Actions(_) => Ok(Vec::new()),
            Kind::Directory(directory) => {
                let found = directory.leftovers(before)?.into_iter();
                Ok(found.map(Named::from).collect())
            }
        }
    }

    pub(super) fn remove_leftover(&self, leftover: &Named) -> Result<bool, CacheError> {
        match &self.kind {
            Kind::Registry(_) | Kind::Bucket(_) | Kind::Actions(_) => Ok(false),
            Kind::Directory(directory) => directory.remove_leftover(&Found {
                name: leftover.name.clone(),
                size: leftover.size,
                changed: leftover.changed.unwrap_or_default(),
            }),
        }
    }

    /// Returns the time by the clock that the place's own times come from, where that may be another one than `here`. May write to a
    /// place that was written to before.
    pub(super) fn clock(&self, here: Timestamp) -> Result<Timestamp, CacheError> {
        match &self.kind {
            Kind::Registry(_) | Kind::Bucket(_) | Kind::Actions(_) => Ok(here),
            Kind::Directory(directory) => Ok(directory.now()?.unwrap_or(here)),
        }
    }
}

/// Something at a place, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    /// 0 where the place does not tell.
    pub(super) size: u64,
    /// When it was written, or last of use; `None` where the place does not tell.
    pub(super) changed: Option<Timestamp>,
}

impl From<Found> for Named {
    fn from(found: Found) -> Named {
        Named {
            name: found.name,
            size: found.size,
            changed: Some(found.changed),
        }
    }
}

/// What came of removing documents.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// Names that are there no more.
    pub(super) gone: Vec<String>,
    /// Names that stay, and why, in words that fit after "stays: ".
    pub(super) left: Vec<(String, String)>,
    /// Why nothing more was removed.
    pub(super) failure: Option<CacheError>,
}

impl Removal {
    /// Removes one after the other. What has changed meanwhile stays.
    pub(super) fn one_by_one(
        going: &[(&Named, Digest)],
        remove: impl Fn(&Named) -> Result<bool, CacheError>,
    ) -> Removal {
        let mut removal = Removal::default();
        for (named, _) in going {
            match remove(named) {
                Ok(true) => removal.gone.push(named.name.clone()),
                Ok(false) => {
                    let why = "it was written to or used meanwhile".to_owned();
                    removal.left.push((named.name.clone(), why));
                }
                Err(error) => {
                    removal.failure = Some(error);
                    break;
                }
            }
        }
        removal
    }
}
