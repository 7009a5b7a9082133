//! The document of a mount: an image manifest whose first layer is the index and whose others are the packs.

use serde::{Deserialize, Serialize};

use super::cuts::Target;
use super::index::Index;
use crate::cache::written::{self, Documents};
use crate::image::{Manifest, OCI_LAYER_ZSTD, OCI_MANIFEST, parse_manifest};
use crate::vocab::{Descriptor, DiffId, Digest, Timestamp};

/// Where the description is among the annotations. The number is the format's.
const ANNOTATION: &str = "builder.cache.mount.v1";

/// A mount by what it is on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountName {
    /// Of all that makes it another cache.
    pub key: Digest,
    /// For people.
    pub id: String,
}

/// What a place has under a mount's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Equal for equal files that were cut alike.
    pub identity: Digest,
    /// Of what the files are and hold.
    pub bytes: u64,
    pub saved: Timestamp,
    /// When it was last of use to a build, as far as that is noted.
    pub used: Timestamp,
    pub(super) target: Target,
    pub(super) index: Descriptor,
}

/// The description's text.
#[derive(Serialize, Deserialize)]
struct Written {
    /// Repeats the name: a document that was copied to another one is none.
    key: String,
    id: String,
    identity: String,
    bytes: u64,
    saved: String,
    /// The size that chunks are aimed at, as a power of two.
    power: u8,
}

/// Returns what names a blob of a mount. Registries that know media types know this one.
pub(super) fn blob(digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: OCI_LAYER_ZSTD.to_owned(),
        digest,
        size,
    }
}

impl Version {
    /// Writes the document; `None` if it is longer than registries take.
    pub(super) fn documents(&self, name: &MountName, index: &Index) -> Option<Documents> {
        let written = Written {
            key: name.key.hex(),
            id: name.id.clone(),
            identity: self.identity.hex(),
            bytes: self.bytes,
            saved: self.saved.to_string(),
            power: self.target.power(),
        };
        let text = serde_json::to_string(&written).expect("texts and numbers are always JSON");
        let mut layers = vec![self.index.clone()];
        layers.extend(index.packs.iter().map(|pack| pack.descriptor()));
        // Nobody unpacks them as layers; a config has as many diff IDs as there are layers.
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| DiffId(layer.digest)).collect();
        Documents::of(ANNOTATION, text, &layers, &diff_ids, self.used)
    }

    /// Reads a document that was found under the name of a mount with this key. The error fits after "the saved cache mount".
    pub(in crate::cache) fn parse(
        key: &Digest,
        manifest: &[u8],
    ) -> Result<(MountName, Version), String> {
        let parsed = parse_manifest(manifest, Some(OCI_MANIFEST));
        let Manifest::Image { layers, .. } = parsed.map_err(|error| format!("is torn: {error}"))?
        else {
            return Err("is an index of images".to_owned());
        };
        let document: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
        let text = document["annotations"][ANNOTATION].as_str();
        let text = text.ok_or("has no description, or one of another version")?;
        let written: Written =
            serde_json::from_str(text).map_err(|_| "has a description that is not understood")?;
        if Digest::from_hex(&written.key) != Some(*key) {
            return Err("is another mount's".to_owned());
        }
        let name = MountName {
            key: *key,
            id: written.id,
        };
        let version = || {
            let saved = Timestamp::parse(&written.saved)?;
            Some(Version {
                identity: Digest::from_hex(&written.identity)?,
                bytes: written.bytes,
                saved,
                used: written::used(&document).unwrap_or(saved),
                target: Target::from_power(written.power)?,
                index: layers.into_iter().next()?,
            })
        };
        let version = version();
        version
            .map(|version| (name, version))
            .ok_or_else(|| "has a description that contradicts itself".to_owned())
    }
}
