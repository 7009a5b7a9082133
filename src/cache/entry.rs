//! One step's result as a document: values in, bytes out, and back.

use serde::{Deserialize, Serialize};

use super::written::{self, Documents};
use crate::image::{ImageConfig, Manifest, OCI_LAYER_GZIP, OCI_MANIFEST, parse_manifest};
use crate::vocab::{
    CacheKey, Descriptor, DiffId, Digest, KeyComponent, LayerForm, LayerId, ResultId, Timestamp,
};

/// Where the record is among the annotations. The number is the format's.
const ANNOTATION: &str = "builder.cache.step.v1";
/// Where records are in an image's config.
const RECORDS: &str = "builder.cache.records.v1";
/// A tar without entries, compressed: registries want at least one layer.
const NOTHING: [u8; 29] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x63, 0x60, 0x18, 0x05, 0xa3, 0x60,
    0x14, 0x8c, 0x54, 0x00, 0x00, 0x2e, 0xaf, 0xb5, 0xef, 0x00, 0x04, 0x00, 0x00,
];

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: CacheKey,
    /// What the key was made of.
    pub components: Vec<KeyComponent>,
    /// The step's name, for people.
    pub description: String,
    pub result: ResultId,
    /// `None` where the step adds no layer to its root.
    pub layer: Option<EntryLayer>,
    pub created: Timestamp,
    /// Bytes of the layer's files.
    pub size: u64,
    /// When the document that it was read from was last of use to a build, as far as that is noted. `None` for one that was not read
    /// from a document of its own.
    pub used: Option<Timestamp>,
}

/// A layer as others can have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryLayer {
    pub id: LayerId,
    /// None: nobody published its files.
    pub forms: Vec<PackedForm>,
}

/// One packed form of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedForm {
    pub form: LayerForm,
    pub diff_id: DiffId,
    pub blob: Descriptor,
    pub uncompressed_size: u64,
}

/// The record's text.
#[derive(Serialize, Deserialize)]
struct Written {
    /// Repeats the name: an entry that was copied to another one is a miss.
    key: String,
    result: String,
    layer: Option<String>,
    /// One for each layer of the manifest, in its order: form, diff ID, bytes of the tar.
    forms: Vec<(String, String, u64)>,
    created: String,
    size: u64,
    description: String,
    components: Vec<(String, String)>,
    /// Inside an image: which of its layers the step's is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<usize>,
}

/// Returns the layer of an entry that has none.
pub(super) fn nothing() -> (Descriptor, &'static [u8]) {
    let descriptor = Descriptor {
        media_type: OCI_LAYER_GZIP.to_owned(),
        digest: Digest::of(&NOTHING),
        size: NOTHING.len() as u64,
    };
    (descriptor, &NOTHING)
}

impl Entry {
    /// Writes the entry, of use `now`; `None` if it is longer than registries take.
    pub(super) fn documents(&self, now: Timestamp) -> Option<Documents> {
        let forms = self.forms();
        let text = serde_json::to_string(&self.written(forms, None))
            .expect("texts and numbers are always JSON");
        let mut layers: Vec<Descriptor> = forms.iter().map(|form| form.blob.clone()).collect();
        let mut diff_ids: Vec<DiffId> = forms.iter().map(|form| form.diff_id).collect();
        if layers.is_empty() {
            layers.push(nothing().0);
            diff_ids.push(DiffId(Digest::of(&[0; 1024])));
        }
        Documents::of(ANNOTATION, text, &layers, &diff_ids, now)
    }

    fn written(&self, forms: &[PackedForm], at: Option<usize>) -> Written {
        let forms = forms.iter().map(|form| {
            (
                form.form.to_string(),
                form.diff_id.to_string(),
                form.uncompressed_size,
            )
        });
        let components = self.components.iter();
        Written {
            key: self.key.to_string(),
            result: self.result.to_string(),
            layer: self.layer.as_ref().map(|layer| layer.id.to_string()),
            forms: forms.collect(),
            created: self.created.to_string(),
            size: self.size,
            description: self.description.clone(),
            components: components
                .map(|component| (component.name.clone(), component.value.clone()))
                .collect(),
            at,
        }
    }

    /// Reads an entry that was found under `key`. The error fits after "the entry".
    pub(super) fn parse(key: &CacheKey, manifest: &[u8]) -> Result<Entry, String> {
        let parsed = parse_manifest(manifest, Some(OCI_MANIFEST));
        let Manifest::Image { layers, .. } = parsed.map_err(|error| format!("is torn: {error}"))?
        else {
            return Err("is an index".to_owned());
        };
        let document: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
        let text = document["annotations"][ANNOTATION].as_str();
        let text = text.ok_or("has no record of a step, or one of another version")?;
        let written: Written =
            serde_json::from_str(text).map_err(|_| "has a record that is not understood")?;
        if Digest::from_hex(&written.key) != Some(key.0) {
            return Err("is another step's".to_owned());
        }
        let mut entry = written
            .entry(*key, layers)
            .ok_or_else(|| "has a record that contradicts itself".to_owned())?;
        entry.used = Some(written::used(&document).unwrap_or(entry.created));
        Ok(entry)
    }

    pub(super) fn forms(&self) -> &[PackedForm] {
        self.layer.as_ref().map_or(&[], |layer| &layer.forms)
    }
}

/// Writes records into an image's config. `layers` are those of the image, lowest first, where they are steps'.
pub fn put_records(
    config: &mut ImageConfig,
    entries: &[Entry],
    layers: &[Option<(LayerId, PackedForm)>],
) {
    let records = entries.iter().map(|entry| {
        let own = entry.layer.as_ref().map(|layer| layer.id);
        let found = layers.iter().enumerate().find_map(|(at, layer)| {
            let (id, form) = layer.as_ref()?;
            (Some(*id) == own).then_some((at, form))
        });
        match found {
            Some((at, form)) => entry.written(std::slice::from_ref(form), Some(at)),
            None => entry.written(&[], None),
        }
    });
    let records: Vec<Written> = records.collect();
    let value = serde_json::to_value(records).expect("texts and numbers are always JSON");
    config.other.insert(RECORDS.to_owned(), value);
}

/// Reads the records in an image's config; none if there are none, or of another version.
pub(super) fn records(config: &ImageConfig, layers: &[Descriptor]) -> Vec<Entry> {
    let Some(value) = config.other.get(RECORDS) else {
        return Vec::new();
    };
    let written: Vec<Written> = serde_json::from_value(value.clone()).unwrap_or_default();
    let entry = |written: Written| {
        let key = CacheKey(Digest::from_hex(&written.key)?);
        let blobs = match written.at {
            Some(at) => vec![layers.get(at)?.clone()],
            None => Vec::new(),
        };
        written.entry(key, blobs)
    };
    written.into_iter().filter_map(entry).collect()
}

impl Written {
    fn entry(self, key: CacheKey, blobs: Vec<Descriptor>) -> Option<Entry> {
        let layer = match self.layer {
            None => None,
            Some(id) => {
                // A manifest without a layer of its own has one that holds nothing.
                if !self.forms.is_empty() && self.forms.len() != blobs.len() {
                    return None;
                }
                let forms = self
                    .forms
                    .into_iter()
                    .zip(blobs)
                    .map(|((form, diff_id, uncompressed_size), blob)| {
                        Some(PackedForm {
                            form: LayerForm::parse(&form)?,
                            diff_id: DiffId(diff_id.parse().ok()?),
                            blob,
                            uncompressed_size,
                        })
                    })
                    .collect::<Option<Vec<_>>>()?;
                Some(EntryLayer {
                    id: LayerId(Digest::from_hex(&id)?),
                    forms,
                })
            }
        };
        Some(Entry {
            key,
            components: self
                .components
                .into_iter()
                .map(|(name, value)| KeyComponent { name, value })
                .collect(),
            description: self.description,
            result: ResultId(Digest::from_hex(&self.result)?),
            layer,
            created: Timestamp::parse(&self.created)?,
            size: self.size,
            used: None,
        })
    }
}
