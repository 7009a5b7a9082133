//! What is exported: documents as bytes, blobs by descriptor.

use std::fs::File;
use std::io::{self, Read};

use crate::store::Store;
use crate::vocab::{Cancel, Descriptor, ImageRef, Platform};

use super::ExportError;

/// The whole result under its names.
pub struct Export<'a> {
    pub images: Vec<ExportedImage>,
    /// Present if there are several platforms.
    pub index: Option<ExportedIndex>,
    pub names: &'a [ImageRef],
}

/// One platform's image.
#[derive(Clone, Debug)]
pub struct ExportedImage {
    pub platform: Platform,
    pub manifest: Descriptor,
    pub manifest_bytes: Vec<u8>,
    pub config: Descriptor,
    pub config_bytes: Vec<u8>,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

/// The list of several platforms' images.
#[derive(Clone, Debug)]
pub struct ExportedIndex {
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
}

impl Export<'_> {
    /// Returns what a name of the result stands for: the index, else the one manifest.
    pub fn top(&self) -> (&Descriptor, &[u8]) {
        match (&self.index, self.images.as_slice()) {
            (Some(index), _) => (&index.descriptor, &index.bytes),
            (None, [image, ..]) => (&image.manifest, &image.manifest_bytes),
            (None, []) => unreachable!("a build has at least one output"),
        }
    }

    /// Returns every small document: configs, manifests, index.
    pub fn documents(&self) -> Vec<(&Descriptor, &[u8])> {
        let mut documents = Vec::new();
        for image in &self.images {
            documents.push((&image.config, image.config_bytes.as_slice()));
            documents.push((&image.manifest, image.manifest_bytes.as_slice()));
        }
        if let Some(index) = &self.index {
            documents.push((&index.descriptor, index.bytes.as_slice()));
        }
        documents
    }

    /// Returns the layers of all images, each once.
    pub fn layers(&self) -> Vec<&Descriptor> {
        let mut layers: Vec<&Descriptor> = Vec::new();
        for layer in self.images.iter().flat_map(|image| &image.layers) {
            if !layers.iter().any(|other| other.digest == layer.digest) {
                layers.push(layer);
            }
        }
        layers
    }
}

/// Layer blobs by descriptor: from the store, fetched into it first where a base's layer was never needed.
pub struct Blobs<'a> {
    pub store: &'a Store,
    /// Brings a blob into the store; an error is a text for the user.
    pub fetch: &'a (dyn Fn(&Descriptor) -> Result<(), ExportError> + Sync),
    /// Ends readers.
    pub cancel: &'a Cancel,
}

impl Blobs<'_> {
    pub(super) fn open(&self, descriptor: &Descriptor) -> Result<File, ExportError> {
        if let Some(file) = self.store.blob(&descriptor.digest)? {
            return Ok(file);
        }
        (self.fetch)(descriptor)?;
        self.store
            .blob(&descriptor.digest)?
            .ok_or(ExportError::MissingBlob(descriptor.digest))
    }

    /// Opens a blob for a copy, which ends with an error when the build does.
    pub(super) fn reader(&self, descriptor: &Descriptor) -> Result<BlobReader<'_>, ExportError> {
        Ok(BlobReader {
            file: self.open(descriptor)?,
            cancel: self.cancel,
        })
    }
}

/// A blob's bytes, as long as the build goes on.
pub(super) struct BlobReader<'a> {
    file: File,
    cancel: &'a Cancel,
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.file.read(buffer)
    }
}
