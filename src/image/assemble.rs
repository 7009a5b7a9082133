//! Writing configs, manifests and indexes.
//!
//! Every document goes through `serde_json::Value`, whose maps are sorted: the same image has the same bytes, and so the same
//! digest, in every run. A pinned test holds an example of each.

use std::collections::BTreeMap;

use oci_spec::image as oci;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{History, ImageConfig, MediaTypes};
use crate::vocab::{Descriptor, DiffId, Digest, Platform, Timestamp};

/// The bytes of the config of what is no image.
pub const EMPTY_CONFIG: &[u8] = b"{}";

/// The two documents of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    pub config: Descriptor,
    pub config_bytes: Vec<u8>,
    pub manifest: Descriptor,
    pub manifest_bytes: Vec<u8>,
}

/// Fills in what only a finished build knows. `layers` and `history` are the whole image's, the base's part in front.
pub fn complete(
    mut config: ImageConfig,
    layers: &[DiffId],
    history: Vec<History>,
    created: Option<Timestamp>,
) -> ImageConfig {
    config.created = created.map(|created| created.to_string());
    config.rootfs.kind = "layers".to_owned();
    config.rootfs.diff_ids = layers.iter().map(DiffId::to_string).collect();
    config.history = history;
    config
}

/// Writes the config and the manifest of an image. `config` is complete (see [`complete`]); `layers` are lowest first, and
/// their media types become those of `media_types`.
pub fn assemble(
    config: ImageConfig,
    layers: &[Descriptor],
    annotations: &BTreeMap<String, String>,
    media_types: MediaTypes,
) -> Assembled {
    let config_bytes = bytes(value(&config));
    let config = describe(&config_bytes, media_types.config());
    let layers: Vec<oci::Descriptor> = layers
        .iter()
        .map(|layer| descriptor(layer, media_types.layer(&layer.media_type)))
        .collect();
    let mut manifest = oci::ImageManifestBuilder::default()
        .schema_version(oci::SCHEMA_VERSION)
        .media_type(media_types.manifest())
        .config(descriptor(&config, &config.media_type))
        .layers(layers)
        .build()
        .expect("every required field of a manifest is set");
    if !annotations.is_empty() {
        manifest.set_annotations(Some(annotations.clone().into_iter().collect()));
    }
    let manifest_bytes = bytes(value(&manifest));
    Assembled {
        config,
        config_bytes,
        manifest: describe(&manifest_bytes, media_types.manifest()),
        manifest_bytes,
    }
}

/// Writes the index of several images, in the order given.
pub fn index(
    manifests: &[(Descriptor, Platform)],
    annotations: &BTreeMap<String, String>,
    media_types: MediaTypes,
) -> (Descriptor, Vec<u8>) {
    let mut index = oci::ImageIndexBuilder::default()
        .schema_version(oci::SCHEMA_VERSION)
        .media_type(media_types.index())
        .manifests(Vec::new())
        .build()
        .expect("every required field of an index is set");
    if !annotations.is_empty() {
        index.set_annotations(Some(annotations.clone().into_iter().collect()));
    }
    let entries = manifests.iter().map(|(manifest, platform)| {
        let mut entry = value(&descriptor(manifest, &manifest.media_type));
        entry["platform"] = platform_value(platform);
        entry
    });
    let mut document = value(&index);
    document["manifests"] = Value::Array(entries.collect());
    let bytes = bytes(document);
    (describe(&bytes, media_types.index()), bytes)
}

/// Writes the manifest of an artifact that is attached to `subject`, with the empty config that OCI 1.1 has for it (see
/// [`EMPTY_CONFIG`]).
pub fn artifact(
    artifact_type: &str,
    blobs: &[Descriptor],
    subject: &Descriptor,
    annotations: &BTreeMap<String, String>,
) -> (Descriptor, Vec<u8>) {
    let empty = describe(EMPTY_CONFIG, "application/vnd.oci.empty.v1+json");
    let described = |from: &Descriptor| value(&descriptor(from, &from.media_type));
    // A list of layers must not be empty.
    let layers = match blobs {
        [] => vec![described(&empty)],
        blobs => blobs.iter().map(described).collect(),
    };
    let mut document = json!({
        "schemaVersion": oci::SCHEMA_VERSION,
        "mediaType": MediaTypes::Oci.manifest(),
        "artifactType": artifact_type,
        "config": described(&empty),
        "layers": layers,
        "subject": described(subject),
    });
    if !annotations.is_empty() {
        document["annotations"] = value(annotations);
    }
    let bytes = bytes(document);
    (describe(&bytes, MediaTypes::Oci.manifest()), bytes)
}

/// `oci_spec` does not know the dots of `os.version`, so platforms are written here.
fn platform_value(platform: &Platform) -> Value {
    let mut map = Map::new();
    map.insert("architecture".into(), platform.architecture.clone().into());
    map.insert("os".into(), platform.os.clone().into());
    if let Some(version) = &platform.os_version {
        map.insert("os.version".into(), version.clone().into());
    }
    if let Some(variant) = &platform.variant {
        map.insert("variant".into(), variant.clone().into());
    }
    Value::Object(map)
}

fn descriptor(from: &Descriptor, media_type: &str) -> oci::Descriptor {
    let digest: oci::Digest = from
        .digest
        .to_string()
        .parse()
        .expect("a SHA-256 digest is one for `oci_spec` too");
    oci::Descriptor::new(media_type.into(), from.size, digest)
}

fn describe(bytes: &[u8], media_type: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

fn value(document: &impl Serialize) -> Value {
    serde_json::to_value(document).expect("image documents have text keys and finite numbers only")
}

fn bytes(document: Value) -> Vec<u8> {
    serde_json::to_vec(&document).expect("a JSON value can be written to memory")
}
