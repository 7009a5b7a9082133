//! Images: the names in `oci/index.json`.
//!
//! The index is the only home of names. It is changed under a lock, as a whole, and synced; entries and fields that others
//! have written are kept. Names that are no full image reference are not ours: they keep their image from being pruned, and
//! are otherwise left alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::documents::PartKind;
use super::lock::LockFile;
use super::{Store, StoreError, disk};
use crate::vocab::{Descriptor, Digest, ImageRef, Platform, Timestamp};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CREATED: &str = "org.opencontainers.image.created";
/// Of `index.json`.
const INDEX_LIMIT: u64 = 64 << 20;

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// Sorted; none for an image whose names went to others.
    pub names: Vec<ImageRef>,
    /// Of a manifest or an index.
    pub manifest: Descriptor,
    /// `None` for an index, or where another tool did not say.
    pub platform: Option<Platform>,
    /// When it was first put into the store.
    pub created: Timestamp,
    /// The lower store that has it; `None` for this one.
    pub lower: Option<PathBuf>,
}

/// `index.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType", default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default)]
    pub(super) manifests: Vec<IndexEntry>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IndexEntry {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl Default for Index {
    fn default() -> Index {
        Index {
            schema_version: 2,
            media_type: Some(INDEX_TYPE.to_owned()),
            manifests: Vec::new(),
            other: BTreeMap::new(),
        }
    }
}

impl IndexEntry {
    fn new(manifest: &Descriptor, platform: Option<&Platform>, created: &str) -> IndexEntry {
        IndexEntry {
            media_type: manifest.media_type.clone(),
            digest: manifest.digest.to_string(),
            size: manifest.size,
            platform: platform.map(platform_to_json),
            annotations: BTreeMap::from([(CREATED.to_owned(), created.to_owned())]),
            other: BTreeMap::new(),
        }
    }

    /// Returns the digest, if it is one that the store can hold.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest.parse().ok()
    }

    /// Returns the name as written, by us or others.
    pub(super) fn name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }

    /// Returns the name if it is a full reference.
    fn reference(&self) -> Option<ImageRef> {
        let name = self.name()?;
        let reference: ImageRef = name.parse().ok()?;
        (reference.to_string() == name).then_some(reference)
    }

    pub(super) fn created(&self) -> Timestamp {
        self.annotations
            .get(CREATED)
            .and_then(|text| Timestamp::parse(text))
            .unwrap_or_default()
    }

    pub(super) fn descriptor(&self) -> Option<Descriptor> {
        Some(Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest()?,
            size: self.size,
        })
    }
}

impl Store {
    /// Returns the image of a name. A name with a digest means that manifest, whatever it is called here.
    pub fn image(&self, name: &ImageRef) -> Result<Option<StoredImage>, StoreError> {
        let is_meant = |image: &StoredImage| match &name.digest {
            Some(digest) => image.manifest.digest == *digest,
            None => image.names.contains(name),
        };
        Ok(self.images()?.into_iter().find(is_meant))
    }

    /// Returns all images, the newest first.
    ///
    /// Those of lower stores come after all of this one, without names that mean something else further up.
    pub fn images(&self) -> Result<Vec<StoredImage>, StoreError> {
        let mut images = self.own_images()?;
        for lower in self.lower_stores() {
            let bytes = lower.bytes(&lower.home().join("oci/index.json"), INDEX_LIMIT);
            let index = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            for mut image in images_of(&index.unwrap_or_default()) {
                let is_hidden = |name: &ImageRef| {
                    let mut above = images.iter();
                    above.any(|above| {
                        above.names.contains(name) && above.lower.as_deref() != Some(lower.root())
                    })
                };
                let had_names = !image.names.is_empty();
                image.names.retain(|name| !is_hidden(name));
                if !had_names || !image.names.is_empty() {
                    image.lower = Some(lower.root().to_owned());
                    images.push(image);
                }
            }
        }
        Ok(images)
    }

    /// Returns the images of this store itself.
    pub(super) fn own_images(&self) -> Result<Vec<StoredImage>, StoreError> {
        Ok(images_of(&self.index()?))
    }

    /// Returns the images that a user may mean: the one of that name, or else those whose manifest or config digest starts
    /// with `text` (at least four hex digits, with or without `sha256:`).
    pub fn find_images(&self, text: &str) -> Result<Vec<StoredImage>, StoreError> {
        if let Ok(name) = text.parse::<ImageRef>()
            && let Some(image) = self.image(&name)?
        {
            return Ok(vec![image]);
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.len() < 4 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        let prefix = prefix.to_ascii_lowercase();
        let mut found = Vec::new();
        for image in self.images()? {
            let meant = image.manifest.digest.hex().starts_with(&prefix)
                || self
                    .image_parts(&image.manifest.digest)?
                    .iter()
                    .any(|part| {
                        part.kind == PartKind::Config && part.digest.hex().starts_with(&prefix)
                    });
            if meant {
                found.push(image);
            }
        }
        Ok(found)
    }

    /// Puts an image under a name, or under none, and waits until it will survive a crash of the machine. Its manifest is in the
    /// store; layers that are not (they stay with a registry) are no error.
    ///
    /// The image that had the name before stays without it. Where the name already means this image nothing is written.
    pub fn put_image(
        &self,
        name: Option<&ImageRef>,
        manifest: &Descriptor,
        platform: Option<&Platform>,
    ) -> Result<(), StoreError> {
        let full_name = name;
        let name = name.map(ImageRef::to_string);
        let is_there = |index: &Index| {
            index.manifests.iter().any(|entry| {
                entry.descriptor().as_ref() == Some(manifest)
                    && (name.is_none() || entry.name() == name.as_deref())
            })
        };
        if self.blob_size(&manifest.digest) != Some(manifest.size) {
            return Err(StoreError::Damaged {
                path: self.blob_path(&manifest.digest),
                what: "the manifest of a new image is not there".to_owned(),
            });
        }
        if is_there(&self.index()?) || self.is_named_below(full_name, manifest)? {
            return Ok(());
        }
        for part in self.image_parts(&manifest.digest)? {
            disk::sync(&self.blob_path(&part.digest))?;
        }
        disk::sync(&self.path("oci/blobs/sha256"))?;
        self.change_index(|index| {
            if is_there(index) {
                return false;
            }
            let digest = manifest.digest.to_string();
            let created = index
                .manifests
                .iter()
                .filter(|entry| entry.digest == digest)
                .map(IndexEntry::created)
                .min()
                .unwrap_or_else(now)
                .to_string();
            if let Some(name) = &name {
                untag(index, name, true);
                // An image that has a name needs no entry without one.
                index
                    .manifests
                    .retain(|entry| entry.digest != digest || entry.name().is_some());
            }
            let mut entry = IndexEntry::new(manifest, platform, &created);
            if let Some(name) = &name {
                entry.annotations.insert(REF_NAME.to_owned(), name.clone());
            }
            index.manifests.push(entry);
            true
        })?;
        // The directories on the way, for a store that is new.
        for path in [self.path("oci/blobs"), self.root().to_owned()] {
            disk::sync(&path)?;
        }
        match self.root().parent() {
            Some(root) => disk::sync(root),
            None => Ok(()),
        }
    }

    /// Tells whether a lower store has an image under a name that means nothing else here, or at all where there is no name.
    fn is_named_below(
        &self,
        name: Option<&ImageRef>,
        manifest: &Descriptor,
    ) -> Result<bool, StoreError> {
        if self.lower_stores().next().is_none() {
            return Ok(false);
        }
        let is_below = |image: &StoredImage| image.lower.is_some() && image.manifest == *manifest;
        Ok(match name {
            Some(name) => self.image(name)?.is_some_and(|image| is_below(&image)),
            None => self.images()?.iter().any(is_below),
        })
    }

    /// Takes a name away; tells whether it was there. An image that loses its last name is gone from the list, and its blobs go
    /// with the next `prune`.
    pub fn untag_image(&self, name: &ImageRef) -> Result<bool, StoreError> {
        let name = name.to_string();
        self.change_index(|index| untag(index, &name, false))
    }

    /// Takes an image with all its names off the list; tells whether it was there. Its blobs go with the next `prune`.
    pub fn remove_image(&self, manifest: &Digest) -> Result<bool, StoreError> {
        let digest = manifest.to_string();
        self.change_index(|index| {
            let before = index.manifests.len();
            index.manifests.retain(|entry| entry.digest != digest);
            index.manifests.len() != before
        })
    }

    /// Reads `index.json`.
    pub(super) fn index(&self) -> Result<Index, StoreError> {
        let path = self.path("oci/index.json");
        match disk::read(&path, INDEX_LIMIT)? {
            None => Ok(Index::default()),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| StoreError::Damaged {
                path,
                what: format!("the list of images cannot be read ({error})"),
            }),
        }
    }

    /// Changes the index under its lock; `change` tells whether it changed anything, and so does this.
    pub(super) fn change_index(
        &self,
        change: impl FnOnce(&mut Index) -> bool,
    ) -> Result<bool, StoreError> {
        let session = self.session()?;
        let _lock = LockFile::acquire(&self.path("locks/images"))?;
        let mut index = self.index()?;
        if !change(&mut index) {
            return Ok(false);
        }
        let bytes = serde_json::to_vec(&index).expect("texts, numbers and JSON are always JSON");
        session.put_synced(&self.path("oci/index.json"), &bytes)?;
        Ok(true)
    }
}

/// Takes a name from the image that has it; with `keep` its last entry stays, nameless.
fn untag(index: &mut Index, name: &str, keep: bool) -> bool {
    let Some(at) = index
        .manifests
        .iter()
        .position(|entry| entry.name() == Some(name))
    else {
        return false;
    };
    let mut entry = index.manifests.remove(at);
    let last = index
        .manifests
        .iter()
        .all(|other| other.digest != entry.digest);
    if keep && last {
        entry.annotations.remove(REF_NAME);
        index.manifests.insert(at, entry);
    }
    true
}

fn images_of(index: &Index) -> Vec<StoredImage> {
    let mut images: BTreeMap<Digest, StoredImage> = BTreeMap::new();
    for entry in &index.manifests {
        let Some(manifest) = entry.descriptor() else {
            continue;
        };
        let image = images
            .entry(manifest.digest)
            .or_insert_with(|| StoredImage {
                names: Vec::new(),
                manifest,
                platform: entry.platform.as_ref().and_then(platform_from_json),
                created: entry.created(),
                lower: None,
            });
        image.created = image.created.min(entry.created());
        image.names.extend(entry.reference());
    }
    let mut images: Vec<_> = images.into_values().collect();
    for image in &mut images {
        image.names.sort();
    }
    images.sort_by(|a, b| {
        b.created
            .cmp(&a.created)
            .then_with(|| a.names.cmp(&b.names))
    });
    images
}

fn platform_to_json(platform: &Platform) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("architecture".into(), platform.architecture.clone().into());
    object.insert("os".into(), platform.os.clone().into());
    if let Some(version) = &platform.os_version {
        object.insert("os.version".into(), version.clone().into());
    }
    if let Some(variant) = &platform.variant {
        object.insert("variant".into(), variant.clone().into());
    }
    Value::Object(object)
}

fn platform_from_json(value: &Value) -> Option<Platform> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    Some(Platform {
        os_version: text("os.version").map(str::to_owned),
        ..Platform::new(text("os")?, text("architecture")?, text("variant"))
    })
}

/// Returns the present moment, to the second.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::from_seconds(since.map_or(0, |since| since.as_secs() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{name, put_image, store};
    use std::fs;

    #[test]
    fn a_name_moves_and_the_old_image_stays_without_it() {
        let (_dir, store) = store();
        let one = put_image(&store, "one", &["a", "b"]);
        let two = put_image(&store, "two", &["a"]);
        assert_eq!(store.image(&name("a")).unwrap().unwrap().manifest, two);
        assert_eq!(store.image(&name("b")).unwrap().unwrap().manifest, one);
        put_image(&store, "two", &["b"]);
        let images = store.images().unwrap();
        assert_eq!(images.len(), 2);
        for image in images {
            let expected = match image.manifest == two {
                true => vec![name("a"), name("b")],
                false => vec![],
            };
            assert_eq!(image.names, expected);
            assert_eq!(image.platform, Some(Platform::new("linux", "arm64", None)));
        }
        put_image(&store, "one", &["c"]);
        assert_eq!(store.index().unwrap().manifests.len(), 3);
        assert!(store.untag_image(&name("c")).unwrap());
        assert!(!store.untag_image(&name("c")).unwrap());
        assert!(store.remove_image(&two.digest).unwrap());
        assert!(store.images().unwrap().is_empty());
    }

    #[test]
    fn naming_again_writes_nothing() {
        let (_dir, store) = store();
        put_image(&store, "one", &["a"]);
        let path = store.path("oci/index.json");
        let before = (
            fs::read(&path).unwrap(),
            fs::metadata(&path).unwrap().modified().unwrap(),
        );
        put_image(&store, "one", &["a"]);
        let manifest = store.images().unwrap().remove(0).manifest;
        store.put_image(None, &manifest, None).unwrap();
        let after = (
            fs::read(&path).unwrap(),
            fs::metadata(&path).unwrap().modified().unwrap(),
        );
        assert_eq!(before, after);
    }

    #[test]
    fn images_are_found_by_name_and_by_prefix_of_either_digest() {
        let (_dir, store) = store();
        let one = put_image(&store, "one", &["me/app:1"]);
        let config = Digest::of(crate::store::tests::config("one").as_bytes());
        for text in [
            "me/app:1".to_owned(),
            "docker.io/me/app:1".to_owned(),
            format!("elsewhere@{}", one.digest),
            one.digest.to_string(),
            one.digest.hex()[..12].to_owned(),
            config.hex()[..12].to_owned(),
            config.to_string(),
        ] {
            let found = store.find_images(&text).unwrap();
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0].manifest, one);
        }
        for text in ["me/app", "", "abc", "zzzzzz", "ABCDEF0123456789"] {
            assert!(store.find_images(text).unwrap().is_empty(), "{text}");
        }
    }

    #[test]
    fn entries_and_fields_of_other_tools_are_kept() {
        let (_dir, store) = store();
        put_image(&store, "one", &["a"]);
        let path = store.path("oci/index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        index["annotations"] = serde_json::json!({"x": "y"});
        let foreign = serde_json::json!({
            "mediaType": "m", "digest": "sha512:00", "size": 1, "artifactType": "t",
            "annotations": {(REF_NAME): "latest"}
        });
        index["manifests"]
            .as_array_mut()
            .unwrap()
            .push(foreign.clone());
        fs::write(&path, index.to_string()).unwrap();
        assert_eq!(store.images().unwrap().len(), 1);
        put_image(&store, "two", &["b"]);
        let index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(index["annotations"]["x"], "y");
        assert!(index["manifests"].as_array().unwrap().contains(&foreign));
    }

    #[test]
    fn a_damaged_index_is_an_error_and_is_not_written_over() {
        let (_dir, store) = store();
        let one = put_image(&store, "one", &["a"]);
        fs::write(store.path("oci/index.json"), "{").unwrap();
        assert!(matches!(store.images(), Err(StoreError::Damaged { .. })));
        assert!(store.put_image(Some(&name("b")), &one, None).is_err());
        assert_eq!(fs::read(store.path("oci/index.json")).unwrap(), b"{");
    }

    #[test]
    fn an_image_without_its_manifest_is_refused() {
        let (_dir, store) = store();
        let manifest = Descriptor {
            media_type: "m".into(),
            digest: Digest::of(b"none"),
            size: 4,
        };
        assert!(store.put_image(Some(&name("a")), &manifest, None).is_err());
        assert!(store.images().unwrap().is_empty());
    }
}
