//! An index as something that is changed: entries are added, replaced and put in order; what is not understood is kept.
//!
//! In: a stranger's index, or nothing. Out: the same index with other entries. An entry lies in a [`Slot`]: images of one platform
//! share theirs and replace each other, and an attestation goes where its image goes. The order of entries is fixed, so that
//! whoever puts the same entries together gets the same bytes, whatever came first.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::manifest::platform;
use super::select::REFERENCE_TYPE;
use super::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, ImageError};
use super::{IndexEntry, Manifest, MediaTypes, OCI_INDEX, OCI_MANIFEST, parse_manifest};
use crate::vocab::{Descriptor, Digest, Platform};

/// Says of an attestation which manifest it speaks of.
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// An index that can be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Everything but the entries.
    fields: Map<String, Value>,
    entries: Vec<ListingEntry>,
}

/// One line of an index with all its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingEntry {
    value: Value,
    entry: IndexEntry,
}

/// What one entry of an index is for; a later entry of the same slot replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    Platform(Platform),
    /// An artifact, or an image that does not say what it runs on.
    Digest(Digest),
}

impl ListingEntry {
    /// Returns the line for an image.
    pub fn image(manifest: &Descriptor, platform: Option<&Platform>) -> ListingEntry {
        let mut value = described(manifest);
        if let Some(platform) = platform {
            value["platform"] = platform_value(platform);
        }
        ListingEntry {
            value,
            entry: IndexEntry {
                descriptor: manifest.clone(),
                platform: platform.cloned(),
                annotations: BTreeMap::new(),
            },
        }
    }

    /// Returns the line for an artifact.
    pub fn artifact(
        manifest: &Descriptor,
        artifact_type: Option<&str>,
        annotations: &BTreeMap<String, String>,
    ) -> ListingEntry {
        let mut made = ListingEntry::image(manifest, None);
        if let Some(artifact_type) = artifact_type {
            made.value["artifactType"] = artifact_type.into();
        }
        for (key, text) in annotations {
            made.annotate(key, text);
        }
        made
    }

    /// Sets an annotation of the line.
    pub fn annotate(&mut self, key: &str, text: &str) {
        self.value["annotations"][key] = text.into();
        self.entry
            .annotations
            .insert(key.to_owned(), text.to_owned());
    }

    pub fn descriptor(&self) -> &Descriptor {
        &self.entry.descriptor
    }

    pub fn platform(&self) -> Option<&Platform> {
        self.entry.platform.as_ref()
    }

    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.entry.annotations
    }

    pub fn artifact_type(&self) -> Option<&str> {
        self.value.get("artifactType").and_then(Value::as_str)
    }

    /// Tells whether it speaks of another entry, as provenance and SBOMs of BuildKit do.
    pub fn is_attestation(&self) -> bool {
        self.entry.annotations.contains_key(REFERENCE_TYPE)
    }

    /// Returns the manifest that an attestation speaks of.
    pub fn about(&self) -> Option<Digest> {
        if !self.is_attestation() {
            return None;
        }
        self.entry.annotations.get(REFERENCE_DIGEST)?.parse().ok()
    }

    fn slot(&self) -> Slot {
        let known = self
            .platform()
            .filter(|platform| platform.os != "unknown" && platform.architecture != "unknown");
        match known {
            Some(platform) if !self.is_attestation() => Slot::Platform(platform.clone()),
            _ => Slot::Digest(self.descriptor().digest),
        }
    }
}

impl Listing {
    /// Returns an index without entries.
    pub fn new(media_types: MediaTypes) -> Listing {
        let mut fields = Map::new();
        fields.insert("schemaVersion".into(), 2.into());
        fields.insert("mediaType".into(), media_types.index().into());
        Listing {
            fields,
            entries: Vec::new(),
        }
    }

    /// Reads an index; `None` if it is an image's manifest.
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Option<Listing>, ImageError> {
        // An artifact is none of ours, and no index either.
        let entries = match parse_manifest(bytes, media_type)? {
            Manifest::Image { .. } => return Ok(None),
            Manifest::Index(entries) => entries,
        };
        let malformed = |source| ImageError::Malformed {
            what: "image index",
            source,
        };
        let mut fields: Map<String, Value> = serde_json::from_slice(bytes).map_err(malformed)?;
        let values = match fields.remove("manifests") {
            Some(Value::Array(values)) => values,
            _ => Vec::new(),
        };
        let kind = media_type.filter(|kind| *kind == DOCKER_MANIFEST_LIST);
        fields
            .entry("mediaType")
            .or_insert_with(|| kind.unwrap_or(OCI_INDEX).into());
        Ok(Some(Listing {
            fields,
            entries: values
                .into_iter()
                .zip(entries)
                .map(|(value, entry)| ListingEntry { value, entry })
                .collect(),
        }))
    }

    pub fn entries(&self) -> &[ListingEntry] {
        &self.entries
    }

    pub fn media_type(&self) -> &str {
        let kind = self.fields.get("mediaType").and_then(Value::as_str);
        kind.unwrap_or(OCI_INDEX)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.fields.get("annotations")?.get(key)?.as_str()
    }

    /// Returns the annotations that are texts.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let annotations = self.fields.get("annotations").and_then(Value::as_object);
        annotations
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    pub fn annotate(&mut self, key: &str, text: &str) {
        let annotations = self.fields.entry("annotations").or_insert(json!({}));
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[key] = text.into();
    }

    /// Tells whether an entry is there with its digest.
    pub fn has(&self, digest: &Digest) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.descriptor().digest == *digest)
    }

    /// Returns the platforms of its images.
    pub fn platforms(&self) -> Vec<Platform> {
        let mut platforms: Vec<Platform> = Vec::new();
        for entry in &self.entries {
            if let Slot::Platform(platform) = entry.slot()
                && !platforms.contains(&platform)
            {
                platforms.push(platform);
            }
        }
        platforms
    }

    /// Returns the entries by slot; attestations lie with the image that they speak of.
    pub fn parts(&self) -> Vec<(Slot, Vec<ListingEntry>)> {
        let mut parts: BTreeMap<Slot, Vec<ListingEntry>> = BTreeMap::new();
        for entry in &self.entries {
            let slot = match entry.about().and_then(|about| self.slot_of(&about)) {
                Some(slot) => slot,
                None => entry.slot(),
            };
            parts.entry(slot).or_default().push(entry.clone());
        }
        parts.into_iter().collect()
    }

    /// Puts entries in, in place of those of the same slots and of the attestations that spoke of these.
    pub fn put(&mut self, entries: &[ListingEntry]) {
        let slots: Vec<Slot> = entries
            .iter()
            .filter(|entry| !entry.is_attestation())
            .map(ListingEntry::slot)
            .collect();
        let is_new = |digest: &Digest| {
            entries
                .iter()
                .any(|entry| entry.descriptor().digest == *digest)
        };
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|entry| {
                is_new(&entry.descriptor().digest)
                    || !entry.is_attestation() && slots.contains(&entry.slot())
            });
        let was_about_one_gone = |entry: &ListingEntry| {
            entry.about().is_some_and(|about| {
                gone.iter().any(|gone| gone.descriptor().digest == about)
                    && !stay.iter().any(|stay| stay.descriptor().digest == about)
            })
        };
        self.entries = stay
            .iter()
            .filter(|entry| !was_about_one_gone(entry))
            .chain(entries)
            .cloned()
            .collect();
        self.arrange();
    }

    /// Takes an entry out, and what speaks of it; tells whether it was there.
    pub fn remove(&mut self, digest: &Digest) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| {
            entry.descriptor().digest != *digest && entry.about().as_ref() != Some(digest)
        });
        self.entries.len() != before
    }

    /// Changes the family of media types to OCI's unless everything in it is Docker's.
    pub fn settle_media_type(&mut self) {
        let is_docker = |entry: &ListingEntry| {
            [DOCKER_MANIFEST, DOCKER_MANIFEST_LIST]
                .contains(&entry.descriptor().media_type.as_str())
        };
        let family = match !self.entries.is_empty() && self.entries.iter().all(is_docker) {
            true => MediaTypes::Docker,
            false => MediaTypes::Oci,
        };
        self.fields
            .insert("mediaType".into(), family.index().into());
    }

    /// Returns the document.
    pub fn to_bytes(&self) -> (Descriptor, Vec<u8>) {
        let mut fields = self.fields.clone();
        let values = self.entries.iter().map(|entry| entry.value.clone());
        fields.insert("manifests".into(), Value::Array(values.collect()));
        let bytes =
            serde_json::to_vec(&Value::Object(fields)).expect("a JSON value can be written");
        let descriptor = Descriptor {
            media_type: self.media_type().to_owned(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        (descriptor, bytes)
    }

    fn slot_of(&self, digest: &Digest) -> Option<Slot> {
        self.entries
            .iter()
            .find(|entry| entry.descriptor().digest == *digest)
            .map(ListingEntry::slot)
    }

    /// Images by platform, then the rest by digest, then attestations in the order of what they speak of. Entries of one platform
    /// keep their order, which means something to those who choose.
    fn arrange(&mut self) {
        let places: BTreeMap<Digest, Slot> = self
            .entries
            .iter()
            .map(|entry| (entry.descriptor().digest, entry.slot()))
            .collect();
        self.entries.sort_by_cached_key(|entry| {
            let place = match entry.about() {
                Some(about) => places.get(&about).cloned(),
                None => Some(entry.slot()),
            };
            let digest = entry.is_attestation().then_some(entry.descriptor().digest);
            (entry.is_attestation(), place, digest)
        });
    }
}

/// What a manifest of any kind names, for a copy of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Children of an index.
    pub manifests: Vec<Descriptor>,
    /// Config and layers, whatever they are, each once.
    pub blobs: Vec<Descriptor>,
    /// What it was attached to.
    pub subject: Option<Descriptor>,
    pub artifact_type: Option<String>,
    pub annotations: BTreeMap<String, String>,
}

/// Reads what a manifest or index names without asking what it is for. Layers that lie elsewhere (`urls`) and no registry holds are
/// left out.
pub fn parts_of(bytes: &[u8]) -> Result<Parts, ImageError> {
    let what = "manifest";
    let document: Value =
        serde_json::from_slice(bytes).map_err(|source| ImageError::Malformed { what, source })?;
    let list = |key: &str| document.get(key).and_then(Value::as_array);
    if list("manifests").is_some() && (list("layers").is_some() || document.get("config").is_some())
    {
        return Err(ImageError::Ambiguous);
    }
    let read = |value: &Value| descriptor(what, value);
    let mut parts = Parts {
        subject: document.get("subject").map(read).transpose()?,
        ..Parts::default()
    };
    for value in list("manifests").into_iter().flatten() {
        parts.manifests.push(read(value)?);
    }
    let blobs = document
        .get("config")
        .into_iter()
        .chain(list("layers").into_iter().flatten())
        .filter(|value| !is_elsewhere(value));
    for value in blobs {
        let blob = read(value)?;
        if !parts.blobs.iter().any(|other| other.digest == blob.digest) {
            parts.blobs.push(blob);
        }
    }
    let text = |value: Option<&Value>| {
        let text = value.and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    // OCI 1.1: a manifest without the field is of its config's type.
    parts.artifact_type = text(document.get("artifactType")).or_else(|| {
        text(
            document
                .get("config")
                .and_then(|config| config.get("mediaType")),
        )
    });
    for (key, value) in document
        .get("annotations")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if let Some(value) = value.as_str() {
            parts.annotations.insert(key.clone(), value.to_owned());
        }
    }
    Ok(parts)
}

/// Tells whether a layer is one that registries do not hold.
fn is_elsewhere(value: &Value) -> bool {
    let kind = value.get("mediaType").and_then(Value::as_str);
    let has_urls = value
        .get("urls")
        .and_then(Value::as_array)
        .is_some_and(|urls| !urls.is_empty());
    has_urls
        && kind.is_some_and(|kind| kind.contains("nondistributable") || kind.contains("foreign"))
}

fn descriptor(what: &'static str, value: &Value) -> Result<Descriptor, ImageError> {
    let wrong = |text: &str| ImageError::Malformed {
        what,
        source: serde::de::Error::custom(text),
    };
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    Ok(Descriptor {
        media_type: text("mediaType").unwrap_or(OCI_MANIFEST).to_owned(),
        digest: text("digest")
            .ok_or_else(|| wrong("a descriptor has no digest"))?
            .parse()
            .map_err(|source| ImageError::Digest { what, source })?,
        size: value
            .get("size")
            .and_then(Value::as_u64)
            .filter(|size| *size <= super::manifest::BLOB_LIMIT)
            .ok_or_else(|| wrong("a descriptor has no size that can be"))?,
    })
}

fn described(descriptor: &Descriptor) -> Value {
    json!({
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest.to_string(),
        "size": descriptor.size,
    })
}

fn platform_value(from: &Platform) -> Value {
    let mut value = json!({ "architecture": from.architecture, "os": from.os });
    if let Some(version) = &from.os_version {
        value["os.version"] = version.as_str().into();
    }
    if let Some(variant) = &from.variant {
        value["variant"] = variant.as_str().into();
    }
    debug_assert_eq!(
        platform(&json!({ "platform": value })).map(|read| read.to_string()),
        Some(from.to_string()),
        "what is written is what is read"
    );
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> Descriptor {
        Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: Digest::of(name.as_bytes()),
            size: 100,
        }
    }

    fn image(name: &str, platform: &str) -> ListingEntry {
        ListingEntry::image(&manifest(name), Some(&platform.parse().unwrap()))
    }

    fn attestation(name: &str, about: &str) -> ListingEntry {
        let unknown = Platform::new("unknown", "unknown", None);
        let mut entry = ListingEntry::image(&manifest(name), Some(&unknown));
        entry.annotate(REFERENCE_TYPE, "attestation-manifest");
        entry.annotate(REFERENCE_DIGEST, &manifest(about).digest.to_string());
        entry
    }

    /// Returns which of `names` are in it, in its order.
    fn names<'a>(listing: &Listing, names: &[&'a str]) -> Vec<&'a str> {
        let find = |entry: &ListingEntry| {
            let digest = entry.descriptor().digest;
            names.iter().find(|name| manifest(name).digest == digest)
        };
        listing.entries().iter().filter_map(find).copied().collect()
    }

    const ALL: [&str; 7] = ["a", "a2", "b", "b2", "sa", "sb", "x"];

    #[test]
    fn the_order_of_arrival_does_not_show() {
        let one = [image("a", "linux/amd64"), attestation("sa", "a")];
        let two = [attestation("sb", "b"), image("b", "linux/arm64")];
        let mut first = Listing::new(MediaTypes::Oci);
        first.put(&one);
        first.put(&two);
        let mut second = Listing::new(MediaTypes::Oci);
        second.put(&two);
        second.put(&one);
        second.put(&two);
        assert_eq!(first.to_bytes(), second.to_bytes());
        assert_eq!(names(&first, &ALL), ["a", "b", "sa", "sb"]);
    }

    #[test]
    fn a_platform_is_replaced_with_its_attestations_and_nothing_else_is() {
        let mut listing = Listing::new(MediaTypes::Oci);
        listing.put(&[image("a", "linux/amd64"), attestation("sa", "a")]);
        listing.put(&[image("b", "linux/arm64"), attestation("sb", "b")]);
        listing.put(&[image("a2", "linux/amd64/v1")]);
        assert_eq!(names(&listing, &ALL), ["a2", "b", "sb"]);
        listing.put(&[image("b2", "linux/arm64/v9")]);
        assert_eq!(names(&listing, &ALL), ["a2", "b", "b2", "sb"]);
        listing.put(&[ListingEntry::artifact(
            &manifest("x"),
            Some("a/b"),
            &BTreeMap::new(),
        )]);
        assert_eq!(names(&listing, &ALL).len(), 5);
        assert!(listing.remove(&manifest("b").digest));
        assert_eq!(names(&listing, &ALL), ["a2", "b2", "x"]);
        assert!(!listing.remove(&manifest("b").digest));
    }

    #[test]
    fn two_forms_of_one_platform_stay_together_and_in_order() {
        let mut listing = Listing::new(MediaTypes::Oci);
        listing.put(&[image("b", "linux/amd64"), image("a", "linux/amd64")]);
        assert_eq!(names(&listing, &ALL), ["b", "a"]);
        assert_eq!(listing.parts().len(), 1);
        let (_, bytes) = listing.to_bytes();
        let mut read = Listing::parse(&bytes, None).unwrap().unwrap();
        read.put(&[image("x", "linux/arm64")]);
        assert_eq!(names(&read, &ALL), ["b", "a", "x"]);
        read.put(&[image("a2", "linux/amd64")]);
        assert_eq!(names(&read, &ALL), ["a2", "x"]);
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        let digest = manifest("a").digest;
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","artifactType":"t/x","annotations":{{"k":"v"}},"manifests":[
            {{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":100,"urls":["u"],
            "platform":{{"os":"windows","architecture":"amd64","os.version":"10.0.1","os.features":["win32k"]}},"annotations":{{"q":"w"}}}}]}}"#
        );
        let mut listing = Listing::parse(text.as_bytes(), Some(OCI_INDEX))
            .unwrap()
            .unwrap();
        listing.put(&[image("b", "linux/arm64")]);
        listing.annotate("run", "1");
        let (descriptor, bytes) = listing.to_bytes();
        assert_eq!(descriptor.media_type, OCI_INDEX);
        let written: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(written["artifactType"], "t/x");
        assert_eq!(written["annotations"], json!({"k": "v", "run": "1"}));
        let windows = &written["manifests"][1];
        assert_eq!(windows["platform"]["os.features"], json!(["win32k"]));
        assert_eq!(windows["platform"]["os.version"], "10.0.1");
        assert_eq!(windows["urls"], json!(["u"]));
        assert_eq!(windows["annotations"]["q"], "w");
        // Another version of Windows is another slot.
        let other = Platform {
            os_version: Some("10.0.2".to_owned()),
            ..Platform::new("windows", "amd64", None)
        };
        listing.put(&[ListingEntry::image(&manifest("x"), Some(&other))]);
        assert_eq!(listing.entries().len(), 3);
    }

    #[test]
    fn an_index_is_dockers_if_all_in_it_is() {
        let check = |kinds: &[&str], expected: &str| {
            let mut listing = Listing::new(MediaTypes::Oci);
            for (at, kind) in kinds.iter().enumerate() {
                let media_type = (*kind).to_owned();
                let digest = Digest::of(&[at as u8]);
                let from = Descriptor {
                    media_type,
                    digest,
                    size: 1,
                };
                listing.put(&[ListingEntry::image(&from, None)]);
            }
            listing.settle_media_type();
            assert_eq!(listing.media_type(), expected);
        };
        check(&[DOCKER_MANIFEST, DOCKER_MANIFEST], DOCKER_MANIFEST_LIST);
        check(&[DOCKER_MANIFEST, OCI_MANIFEST], OCI_INDEX);
        check(&[], OCI_INDEX);
    }

    #[test]
    fn an_image_is_no_index_and_a_riddle_is_nothing() {
        let config = manifest("c").digest;
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":1}},"layers":[]}}"#
        );
        assert_eq!(Listing::parse(text.as_bytes(), None).unwrap(), None);
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":2,"manifests":[{}]}"#,
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"sha256:../..","size":1}]}"#,
        ] {
            assert!(Listing::parse(wrong.as_bytes(), None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_parts_of_anything_are_found() {
        let digest = |name: &str| manifest(name).digest;
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{0}","size":2}},
            "layers":[{{"mediaType":"application/vnd.in-toto+json","digest":"{1}","size":3}},{{"mediaType":"x","digest":"{1}","size":3}},
            {{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{2}","size":9,"urls":["https://a"]}}],
            "subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{2}","size":9}},"annotations":{{"a":"b","n":1}}}}"#,
            digest("c"),
            digest("l"),
            digest("s"),
        );
        let parts = parts_of(text.as_bytes()).unwrap();
        assert_eq!(parts.blobs.len(), 2);
        assert_eq!(
            parts.subject.map(|subject| subject.digest),
            Some(digest("s"))
        );
        assert_eq!(
            parts.artifact_type.as_deref(),
            Some("application/vnd.oci.empty.v1+json")
        );
        assert_eq!(parts.annotations.len(), 1);
        for wrong in [
            "{",
            r#"{"manifests":[],"config":{}}"#,
            r#"{"layers":[{"digest":"sha256:1","size":1}]}"#,
            r#"{"layers":[{"size":1}]}"#,
            r#"{"config":{"digest":"D","size":-1}}"#,
            r#"{"config":{"digest":"D","size":99999999999999999}}"#,
        ] {
            let text = wrong.replace("\"D\"", &format!("\"{}\"", digest("c")));
            assert!(parts_of(text.as_bytes()).is_err(), "{wrong}");
        }
    }
}
