//! A place, whatever its kind: documents by name, blobs by digest.

use std::io::Read;

use super::directory::Directory;
use super::entry::Entry;
use super::written::{Documents, used_at};
use super::{CacheError, registry};
use crate::registry::{Client, OpenAt};
use crate::vocab::{CacheKey, CachePlace, CacheScope, Descriptor, Digest, ImageRef, Timestamp};

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
            (None, None) => self.name == other.name,
            _ => false,
        }
    }

    /// Returns a text that is equal for equal places, scope included.
    pub(super) fn identity(&self) -> String {
        format!("{} {}", self.name, self.scope.as_str())
    }

    /// Returns the repository, where it is one of a registry.
    pub fn repository(&self) -> Option<&ImageRef> {
        match &self.kind {
            Kind::Registry(image) => Some(image),
            Kind::Directory(_) => None,
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
        }
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
            Kind::Directory(_) => Ok(Ok(Vec::new())),
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
        }
    }

    /// Tells whether uses have to be noted in documents: a look-up leaves no trace there.
    pub(super) fn wants_notes(&self) -> bool {
        match &self.kind {
            Kind::Registry(_) => true,
            Kind::Directory(_) => false,
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
            Kind::Directory(_) => Ok(()),
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
        }
    }
}
