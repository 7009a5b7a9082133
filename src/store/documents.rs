//! What image documents point at: just enough of them to know which blobs belong together.

use serde::Deserialize;

use super::{Store, StoreError};
use crate::vocab::Digest;

/// Of a manifest or config; registries refuse manifests above 4 MiB.
const DOCUMENT_LIMIT: u64 = 16 << 20;
/// An index names manifests; some tools write one more level.
const NESTING: usize = 4;

/// What a document points at: a manifest's config and layers, or an index's manifests.
#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<Pointer>,
    #[serde(default)]
    layers: Vec<Pointer>,
    #[serde(default)]
    manifests: Vec<Pointer>,
}

#[derive(Debug, Deserialize)]
struct Pointer {
    digest: String,
    size: u64,
}

/// A blob that an image is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) digest: Digest,
    /// As announced by what points at it.
    pub(super) size: u64,
    pub(super) kind: PartKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    /// Of a manifest or an index.
    Manifest,
    Config,
    Layer,
}

impl Store {
    /// Returns all blobs that an image is made of, itself first, each once. Documents that are not there have no parts.
    pub(super) fn image_parts(&self, manifest: &Digest) -> Result<Vec<Part>, StoreError> {
        let size = self.blob_size(manifest).unwrap_or(0);
        let mut parts = vec![Part {
            digest: *manifest,
            size,
            kind: PartKind::Manifest,
        }];
        self.add_parts(manifest, NESTING, &mut parts)?;
        Ok(parts)
    }

    /// Returns the diff IDs of the layers of an image that can be unpacked from blobs that are there.
    pub(super) fn unpackable_layers(&self, manifest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let mut unpackable = Vec::new();
        for part in self.image_parts(manifest)? {
            if part.kind != PartKind::Manifest {
                continue;
            }
            let Ok(Some(bytes)) = self.read_blob(&part.digest, DOCUMENT_LIMIT) else {
                continue;
            };
            let document = serde_json::from_slice::<Document>(&bytes).unwrap_or_default();
            let config = document
                .config
                .and_then(|config| config.digest.parse().ok());
            let diff_ids = match config {
                Some(config) => self.diff_ids(&config)?,
                None => continue,
            };
            if diff_ids.len() != document.layers.len() {
                continue;
            }
            for (diff_id, layer) in diff_ids.into_iter().zip(&document.layers) {
                let digest = layer.digest.parse().ok();
                if digest.is_some_and(|digest| self.blob_size(&digest) == Some(layer.size)) {
                    unpackable.push(diff_id);
                }
            }
        }
        Ok(unpackable)
    }

    fn add_parts(
        &self,
        document: &Digest,
        nesting: usize,
        parts: &mut Vec<Part>,
    ) -> Result<(), StoreError> {
        let Some(nesting) = nesting.checked_sub(1) else {
            return Ok(());
        };
        let document = match self.read_blob(document, DOCUMENT_LIMIT) {
            Ok(Some(bytes)) => serde_json::from_slice::<Document>(&bytes).unwrap_or_default(),
            // Not there, or no document; `verify` tells.
            Ok(None) | Err(StoreError::TooLarge { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut add = |pointer: &Pointer, kind| {
            let digest = pointer.digest.parse().ok()?;
            let size = pointer.size;
            if parts.iter().any(|part| part.digest == digest) {
                return None;
            }
            parts.push(Part { digest, size, kind });
            Some(digest)
        };
        if let Some(pointer) = &document.config {
            add(pointer, PartKind::Config);
        }
        for pointer in &document.layers {
            add(pointer, PartKind::Layer);
        }
        let inner: Vec<_> = document
            .manifests
            .iter()
            .filter_map(|pointer| add(pointer, PartKind::Manifest))
            .collect();
        for digest in inner {
            self.add_parts(&digest, nesting, parts)?;
        }
        Ok(())
    }

    /// Returns the diff IDs that a config names; none if it cannot be read.
    pub(super) fn diff_ids(&self, config: &Digest) -> Result<Vec<Digest>, StoreError> {
        #[derive(Default, Deserialize)]
        struct Config {
            #[serde(default)]
            rootfs: RootFs,
        }
        #[derive(Default, Deserialize)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Vec<String>,
        }
        let config = match self.read_blob(config, DOCUMENT_LIMIT) {
            Ok(Some(bytes)) => serde_json::from_slice::<Config>(&bytes).unwrap_or_default(),
            Ok(None) | Err(StoreError::TooLarge { .. }) => Config::default(),
            Err(error) => return Err(error),
        };
        let parsed = config.rootfs.diff_ids.iter();
        Ok(parsed.filter_map(|text| text.parse().ok()).collect())
    }
}
