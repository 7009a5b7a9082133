//! Reading manifests, indexes and configs of strangers.
//!
//! In: bytes, and the type that they came with. Out: typed values, or a clear refusal. Nothing is believed: sizes are bounded,
//! digests must be ones that can be checked, and a document that could be read in two ways (CVE-2021-41190) is refused.

use std::collections::BTreeMap;

use oci_spec::image as oci;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::media::{
    DOCKER_CONFIG, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, MANIFEST_TYPES, OCI_CONFIG, OCI_INDEX,
    OCI_MANIFEST, is_layer,
};
use super::{ImageConfig, ImageError};
use crate::vocab::{Descriptor, DiffId, Digest, Platform};

/// Registries refuse manifests beyond 4 MiB.
const MANIFEST_LIMIT: u64 = 8 << 20;
/// A config holds history texts, labels and digests: the largest seen are some hundred KiB.
const CONFIG_LIMIT: u64 = 32 << 20;
/// One blob; no registry stores a larger one.
pub(super) const BLOB_LIMIT: u64 = 1 << 50;

/// What a name in a registry or layout points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image.
    Image {
        config: Descriptor,
        /// Lowest first.
        layers: Vec<Descriptor>,
    },
    /// Several, one of which [`select`](super::select) chooses.
    Index(Vec<IndexEntry>),
}

/// One line of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub descriptor: Descriptor,
    pub platform: Option<Platform>,
    pub annotations: BTreeMap<String, String>,
}

/// Reads a manifest or an index. `media_type` is the type that it came with, if any; parameters after `;` are ignored.
pub fn parse_manifest(bytes: &[u8], media_type: Option<&str>) -> Result<Manifest, ImageError> {
    bound("manifest", bytes.len() as u64, MANIFEST_LIMIT)?;
    let document: Value = parse("manifest", bytes)?;
    let inside = document.get("mediaType").and_then(Value::as_str);
    let outside = media_type
        .map(|text| text.split(';').next().unwrap_or(text).trim())
        .filter(|text| MANIFEST_TYPES.contains(text));
    if let (Some(inside), Some(outside)) = (inside, outside)
        && inside != outside
    {
        return Err(ImageError::Contradiction {
            outside: outside.to_owned(),
            inside: inside.to_owned(),
        });
    }
    match document.get("schemaVersion").and_then(Value::as_u64) {
        Some(2) => {}
        Some(1) => return Err(ImageError::Schema1),
        // Neither the field nor its value matter for what follows, but a document without it is of another kind.
        other => return Err(ImageError::SchemaVersion(other.unwrap_or(0))),
    }
    let (is_image, is_index) = (
        document.get("layers").is_some() || document.get("config").is_some(),
        document.get("manifests").is_some(),
    );
    if is_image && is_index {
        return Err(ImageError::Ambiguous);
    }
    match inside.or(outside) {
        Some(OCI_INDEX | DOCKER_MANIFEST_LIST) => index(document),
        Some(OCI_MANIFEST | DOCKER_MANIFEST) => image(document),
        Some(other) => Err(ImageError::NotAnImage(other.to_owned())),
        // The OCI specification lets the type be absent; then the fields decide.
        None if is_index => index(document),
        None => image(document),
    }
}

/// Reads an image config.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig, ImageError> {
    bound("image config", bytes.len() as u64, CONFIG_LIMIT)?;
    parse("image config", bytes)
}

impl ImageConfig {
    /// Returns the diff IDs of the layers, lowest first.
    pub fn diff_ids(&self) -> Result<Vec<DiffId>, ImageError> {
        self.rootfs
            .diff_ids
            .iter()
            .map(|text| digest("image config", text).map(DiffId))
            .collect()
    }

    /// Returns the platform that the image says it is for; `None` if it says none.
    pub fn platform(&self) -> Option<Platform> {
        if self.os.is_empty() || self.architecture.is_empty() {
            return None;
        }
        Some(Platform {
            os_version: self.os_version.clone(),
            ..Platform::new(&self.os, &self.architecture, self.variant.as_deref())
        })
    }
}

fn image(document: Value) -> Result<Manifest, ImageError> {
    let manifest: oci::ImageManifest = typed("manifest", document)?;
    let config = descriptor("manifest", manifest.config())?;
    bound("image config", config.size, CONFIG_LIMIT)?;
    if ![OCI_CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str()) {
        let kind = match manifest.artifact_type() {
            Some(artifact) => artifact.to_string(),
            None => config.media_type,
        };
        return Err(ImageError::NotAnImage(kind));
    }
    let mut layers = Vec::with_capacity(manifest.layers().len());
    for layer in manifest.layers() {
        let layer = descriptor("manifest", layer)?;
        // An attestation has an image's config and a statement where a layer would be.
        if !is_layer(&layer.media_type) {
            return Err(ImageError::NotAnImage(layer.media_type));
        }
        layers.push(layer);
    }
    Ok(Manifest::Image { config, layers })
}

fn index(document: Value) -> Result<Manifest, ImageError> {
    // `oci_spec` does not know the dots of `os.version`, so platforms are read here.
    let platforms: Vec<Option<Platform>> = document
        .get("manifests")
        .and_then(Value::as_array)
        .map(|entries| entries.iter().map(platform).collect())
        .unwrap_or_default();
    let index: oci::ImageIndex = typed("image index", document)?;
    let mut entries = Vec::with_capacity(index.manifests().len());
    for (entry, platform) in index.manifests().iter().zip(platforms) {
        let descriptor = descriptor("image index", entry)?;
        bound("manifest", descriptor.size, MANIFEST_LIMIT)?;
        let annotations = entry.annotations().iter().flatten();
        entries.push(IndexEntry {
            descriptor,
            platform,
            annotations: annotations.map(|(k, v)| (k.clone(), v.clone())).collect(),
        });
    }
    Ok(Manifest::Index(entries))
}

pub(super) fn platform(entry: &Value) -> Option<Platform> {
    let platform = entry.get("platform")?;
    let text = |key: &str| {
        let text = platform.get(key).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    Some(Platform {
        os_version: text("os.version").map(str::to_owned),
        ..Platform::new(text("os")?, text("architecture")?, text("variant"))
    })
}

fn descriptor(what: &'static str, from: &oci::Descriptor) -> Result<Descriptor, ImageError> {
    bound("blob", from.size(), BLOB_LIMIT)?;
    Ok(Descriptor {
        media_type: from.media_type().to_string(),
        digest: digest(what, from.digest().as_ref())?,
        size: from.size(),
    })
}

fn digest(what: &'static str, text: &str) -> Result<Digest, ImageError> {
    text.parse()
        .map_err(|source| ImageError::Digest { what, source })
}

fn bound(what: &'static str, size: u64, limit: u64) -> Result<(), ImageError> {
    if size > limit {
        return Err(ImageError::TooLarge { what, size, limit });
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Malformed { what, source })
}

fn typed<T: DeserializeOwned>(what: &'static str, document: Value) -> Result<T, ImageError> {
    serde_json::from_value(document).map_err(|source| ImageError::Malformed { what, source })
}
