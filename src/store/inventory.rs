//! Everything that is in the store, and what holds on to what.
//!
//! Roots are images and records. An image holds its blobs and, as a head start for the next build, the unpacked layers that
//! its config names. A record holds its layer, the record that it is an alias of, and, because a base image is named in the
//! components of the keys that are built on it, whatever its components and result name by digest: a manifest with all its
//! parts, a blob or a layer. A layer holds the blobs of its packed forms, also where its tree is gone and it can be unpacked again.
//! What is in lower stores holds nothing and is held by nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::documents::PartKind;
use super::images::Index;
use super::layers::OWNERSHIPS;
use super::packed::{self, Packed};
use super::records::{self, Record};
use super::remotes::FoundRemote;
use super::{Store, StoreError, disk, tree};
use crate::vocab::{CacheKey, Digest, LayerId};

/// What the store's directories hold. Sizes are what the files say, so that nothing has to be walked.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) index: Index,
    pub(super) records: BTreeMap<CacheKey, FoundRecord>,
    /// Of a layer that is there in both kinds the sum: they stay and go together.
    pub(super) layers: BTreeMap<LayerId, u64>,
    pub(super) packed: Vec<FoundPacked>,
    pub(super) blobs: BTreeMap<Digest, u64>,
    pub(super) contexts: Vec<FoundFile>,
    /// Copies of cache mounts. Their sizes are walked: nobody knows them but the files.
    pub(super) mounts: Vec<FoundFile>,
    pub(super) remotes: Vec<FoundRemote>,
    /// What a crash has torn, and directories of layers that are on their way out. Nobody sees them.
    pub(super) junk: Vec<PathBuf>,
}

#[derive(Debug)]
pub(super) struct FoundRecord {
    pub(super) record: Record,
    pub(super) file: FoundFile,
}

#[derive(Debug)]
pub(super) struct FoundPacked {
    pub(super) layer: LayerId,
    pub(super) packed: Packed,
    pub(super) file: FoundFile,
}

#[derive(Debug)]
pub(super) struct FoundFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) used: SystemTime,
}

impl Store {
    /// Reads all directories. What disappears meanwhile was not there.
    pub(super) fn inventory(&self) -> Result<Inventory, StoreError> {
        let mut inventory = Inventory {
            index: self.index()?,
            ..Inventory::default()
        };
        for (_, folder) in disk::entries(&self.path("records"))? {
            for (_, path) in disk::entries(&folder)? {
                let record = records::key_of(&path)
                    .and_then(|key| Some((key, records::decode(&key, &contents(&path)?)?)));
                match (record, found_file(&path)) {
                    (Some((key, record)), Some(file)) => {
                        inventory.records.insert(key, FoundRecord { record, file });
                    }
                    _ => inventory.junk.push(path),
                }
            }
        }
        for ownership in OWNERSHIPS {
            for (name, path) in disk::entries(&self.layers_dir(ownership))? {
                let id = Digest::from_hex(&name).map(LayerId);
                let recorded = match &id {
                    Some(id) => self.recorded_layer(ownership, id)?,
                    None => None,
                };
                match (id, recorded) {
                    (Some(id), Some(recorded)) => {
                        *inventory.layers.entry(id).or_default() += recorded.size;
                    }
                    _ => inventory.junk.push(path),
                }
            }
        }
        for (name, folder) in disk::entries(&self.path("packed"))? {
            for (_, path) in disk::entries(&folder)? {
                let layer = Digest::from_hex(&name).map(LayerId);
                let packed = contents(&path).and_then(|bytes| packed::decode(&bytes));
                match (layer, packed, found_file(&path)) {
                    (Some(layer), Some(packed), Some(file)) => {
                        inventory.packed.push(FoundPacked {
                            layer,
                            packed,
                            file,
                        });
                    }
                    _ => inventory.junk.push(path),
                }
            }
        }
        for (name, path) in disk::entries(&self.path("oci/blobs/sha256"))? {
            // Names that are no digest are other tools' and stay.
            if let (Some(digest), Some(file)) = (Digest::from_hex(&name), found_file(&path)) {
                inventory.blobs.insert(digest, file.bytes);
            }
        }
        for name in ["contexts", "ingredients", "listings"] {
            for (_, path) in disk::entries(&self.path(name))? {
                inventory.contexts.extend(found_file(&path));
            }
        }
        for (_, cache) in disk::entries(&self.path("mounts"))? {
            for (_, path) in disk::entries(&cache)? {
                let lock = path.join("lock").symlink_metadata();
                let used = lock.and_then(|lock| lock.modified());
                inventory.mounts.push(FoundFile {
                    // Outside of the namespace some directories cannot be read, and steps may be writing: then it is what can be.
                    bytes: tree::size(&path.join("fs")).unwrap_or(0),
                    used: used.unwrap_or(SystemTime::UNIX_EPOCH),
                    path,
                });
            }
        }
        inventory.remotes = self.found_remotes(&mut inventory.junk)?;
        Ok(inventory)
    }
}

impl Inventory {
    /// Returns the layers that can be unpacked from blobs of this store.
    pub(super) fn packed_layers(&self) -> HashSet<LayerId> {
        let whole = self.packed.iter().filter(|found| {
            let blob = &found.packed.blob;
            let name = found.file.path.file_name().and_then(|name| name.to_str());
            name.is_some_and(packed::says_all) && self.blobs.get(&blob.digest) == Some(&blob.size)
        });
        whole.map(|found| found.layer).collect()
    }

    /// Returns how many aliases lie between a key and its first record. A chain that closes counts as deep.
    pub(super) fn alias_depth(&self, key: &CacheKey) -> usize {
        let next = |key: &CacheKey| self.records.get(key)?.record.alias_of;
        std::iter::successors(next(key), next).take(16).count()
    }
}

pub(super) fn contents(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

pub(super) fn found_file(path: &Path) -> Option<FoundFile> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    metadata.is_file().then(|| FoundFile {
        path: path.to_owned(),
        bytes: metadata.len(),
        used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

/// What is held so far. Marking can be taken back to an earlier [`Marks::checkpoint`].
pub(super) struct Marks<'a> {
    store: &'a Store,
    inventory: &'a Inventory,
    packed_of_layer: HashMap<LayerId, Vec<&'a FoundPacked>>,
    /// The lengths of the packed forms' own files, which stay for as long as their blob does.
    packed_bytes: HashMap<Digest, u64>,
    layers_of_diff_id: HashMap<Digest, Vec<LayerId>>,
    held: HashSet<Item>,
    /// In the order of marking.
    trail: Vec<(Item, u64)>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Item {
    Record(CacheKey),
    Layer(LayerId),
    Blob(Digest),
}

/// Whether an image holds on to unpacked trees, or to its blobs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageHolds {
    BlobsAndTrees,
    Blobs,
}

impl<'a> Marks<'a> {
    pub(super) fn new(store: &'a Store, inventory: &'a Inventory) -> Marks<'a> {
        let mut marks = Marks {
            store,
            inventory,
            packed_of_layer: HashMap::new(),
            packed_bytes: HashMap::new(),
            layers_of_diff_id: HashMap::new(),
            held: HashSet::new(),
            trail: Vec::new(),
            bytes: 0,
        };
        for found in &inventory.packed {
            marks
                .packed_of_layer
                .entry(found.layer)
                .or_default()
                .push(found);
            *marks
                .packed_bytes
                .entry(found.packed.blob.digest)
                .or_default() += found.file.bytes;
            marks
                .layers_of_diff_id
                .entry(found.packed.diff_id.0)
                .or_default()
                .push(found.layer);
        }
        marks
    }

    pub(super) fn holds_record(&self, key: &CacheKey) -> bool {
        self.held.contains(&Item::Record(*key))
    }

    pub(super) fn holds_layer(&self, id: &LayerId) -> bool {
        self.held.contains(&Item::Layer(*id))
    }

    pub(super) fn holds_blob(&self, digest: &Digest) -> bool {
        self.held.contains(&Item::Blob(*digest))
    }

    /// Returns the size of all that is held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn checkpoint(&self) -> usize {
        self.trail.len()
    }

    /// Lets go of all that was marked since the checkpoint.
    pub(super) fn take_back(&mut self, checkpoint: usize) {
        for (item, bytes) in self.trail.drain(checkpoint..) {
            self.held.remove(&item);
            self.bytes -= bytes;
        }
    }

    pub(super) fn image(&mut self, manifest: &Digest, holds: ImageHolds) -> Result<(), StoreError> {
        for part in self.store.image_parts(manifest)? {
            self.blob(&part.digest);
            if part.kind != PartKind::Config || holds == ImageHolds::Blobs {
                continue;
            }
            for diff_id in self.store.diff_ids(&part.digest)? {
                self.tree(&LayerId(diff_id));
                for layer in self
                    .layers_of_diff_id
                    .get(&diff_id)
                    .cloned()
                    .into_iter()
                    .flatten()
                {
                    self.tree(&layer);
                }
            }
        }
        Ok(())
    }

    pub(super) fn record(&mut self, key: &CacheKey) -> Result<(), StoreError> {
        let inventory = self.inventory;
        let mut next = Some(*key);
        // A chain of aliases that closes ends where it began.
        while let Some(key) = next {
            let Some(found) = inventory.records.get(&key) else {
                break;
            };
            if !self.hold(Item::Record(key), found.file.bytes) {
                break;
            }
            let record = &found.record;
            if let Some(layer) = &record.layer {
                self.layer(layer);
            }
            self.named(&record.result.0)?;
            for component in &record.components {
                for digest in digests_in(&component.value) {
                    self.named(&digest)?;
                }
            }
            next = record.alias_of;
        }
        Ok(())
    }

    /// Holds what a record names by a digest alone.
    fn named(&mut self, digest: &Digest) -> Result<(), StoreError> {
        self.tree(&LayerId(*digest));
        let known = self.holds_blob(digest);
        if self.inventory.blobs.contains_key(digest) && !known {
            match is_json(&self.store.blob_path(digest)) {
                true => self.image(digest, ImageHolds::BlobsAndTrees)?,
                false => self.blob(digest),
            }
        }
        Ok(())
    }

    /// Holds a layer if its tree is there.
    fn tree(&mut self, id: &LayerId) {
        if self.inventory.layers.contains_key(id) {
            self.layer(id);
        }
    }

    /// Holds a layer as what it is there: a tree, blobs, or both.
    fn layer(&mut self, id: &LayerId) {
        let size = self.inventory.layers.get(id).copied().unwrap_or(0);
        if self.hold(Item::Layer(*id), size) {
            for found in self.packed_of_layer.get(id).cloned().into_iter().flatten() {
                self.blob(&found.packed.blob.digest);
            }
        }
    }

    fn blob(&mut self, digest: &Digest) {
        if let Some(&size) = self.inventory.blobs.get(digest) {
            let packed = self.packed_bytes.get(digest).copied().unwrap_or(0);
            self.hold(Item::Blob(*digest), size.saturating_add(packed));
        }
    }

    fn hold(&mut self, item: Item, bytes: u64) -> bool {
        let new = self.held.insert(item);
        if new {
            self.trail.push((item, bytes));
            self.bytes = self.bytes.saturating_add(bytes);
        }
        new
    }
}

/// Returns every run of exactly 64 hex digits in a text.
fn digests_in(text: &str) -> impl Iterator<Item = Digest> {
    text.split(|c: char| !c.is_ascii_hexdigit())
        .filter_map(Digest::from_hex)
}

/// Compressed layers begin with a magic number, tars with a name.
pub(super) fn is_json(path: &Path) -> bool {
    let mut first = [0];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut first))
        .is_ok()
        && first == *b"{"
}
