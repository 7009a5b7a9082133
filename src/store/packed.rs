//! Packed forms: what a layer's tree became when it was made a blob, so that it need not be made one again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, disk};
use crate::vocab::{Descriptor, DiffId, Digest, LayerForm, LayerId};

/// Longer files are damaged: a member is at least a megabyte of layer, and its entry below 200 bytes.
const LIMIT: u64 = 256 << 20;

/// A layer as a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub diff_id: DiffId,
    pub blob: Descriptor,
    /// Bytes of the tar.
    pub uncompressed_size: u64,
    /// The independent parts of the blob in order; empty where it was not made of such.
    pub members: Vec<PackedMember>,
}

/// A part of a compressed blob that can be decompressed, and taken over, by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedMember {
    pub uncompressed_len: u64,
    /// In the blob.
    pub offset: u64,
    /// In the blob.
    pub len: u64,
    /// Of the uncompressed bytes; which hash is the packer's choice.
    pub digest: [u8; 32],
}

/// `VARIANT.json`
#[derive(Serialize, Deserialize)]
struct StoredPacked {
    diff_id: String,
    media_type: String,
    blob: String,
    size: u64,
    uncompressed_size: u64,
    /// `[uncompressed_len, offset, len, digest]`
    members: Vec<(u64, u64, u64, String)>,
}

impl Store {
    /// Returns a layer's packed form if it is known and its blob is there with its full length.
    pub fn packed(&self, id: &LayerId, form: LayerForm) -> Result<Option<Packed>, StoreError> {
        let path = self.packed_path(id, form);
        let Some(file) = disk::open(&path)? else {
            return Ok(self.packed_below(id, form));
        };
        let Some(packed) = disk::read_open(&file, LIMIT)
            .ok()
            .and_then(|bytes| decode(&bytes))
        else {
            // Torn: a miss. On a read-only store it stays.
            drop(disk::remove_file(&path));
            return Ok(self.packed_below(id, form));
        };
        match self.has_whole_blob(&packed) {
            true => Ok(Some(packed)),
            false => Ok(self.packed_below(id, form)),
        }
    }

    /// Returns what the lower stores know, if the blob is there.
    fn packed_below(&self, id: &LayerId, form: LayerForm) -> Option<Packed> {
        self.lower_stores().find_map(|lower| {
            let path = packed_dir_in(lower.home(), id).join(file_name(form));
            let packed = decode(&lower.bytes(&path, LIMIT)?)?;
            self.has_whole_blob(&packed).then_some(packed)
        })
    }

    fn has_whole_blob(&self, packed: &Packed) -> bool {
        self.blob_size(&packed.blob.digest) == Some(packed.blob.size)
    }

    /// Returns any packed form of a layer that says all that its tree says, times as well.
    pub fn packed_in_any_form(&self, id: &LayerId) -> Result<Option<Packed>, StoreError> {
        for (name, path) in disk::entries(&packed_dir_in(self.root(), id))? {
            let bytes = || disk::read(&path, LIMIT).ok().flatten();
            if says_all(&name)
                && let Some(packed) = bytes().and_then(|bytes| decode(&bytes))
                && self.has_whole_blob(&packed)
            {
                return Ok(Some(packed));
            }
        }
        Ok(self.lower_stores().find_map(|lower| {
            let entries = disk::entries(&packed_dir_in(lower.home(), id)).unwrap_or_default();
            let mut whole = entries.iter().filter(|(name, _)| says_all(name));
            whole.find_map(|(_, path)| {
                let packed = decode(&lower.bytes(path, LIMIT)?)?;
                self.has_whole_blob(&packed).then_some(packed)
            })
        }))
    }

    /// Remembers a layer's packed form. Its blob is committed already.
    pub fn put_packed(
        &self,
        id: &LayerId,
        form: LayerForm,
        packed: &Packed,
    ) -> Result<(), StoreError> {
        self.session()?
            .put(&self.packed_path(id, form), &encode(packed))
    }

    fn packed_path(&self, id: &LayerId, form: LayerForm) -> PathBuf {
        packed_dir_in(self.root(), id).join(file_name(form))
    }
}

fn packed_dir_in(home: &Path, id: &LayerId) -> PathBuf {
    let mut path = home.join("packed");
    path.push(id.to_string());
    path
}

fn file_name(form: LayerForm) -> String {
    format!("{form}.json")
}

/// Tells whether the packed form of that file has the times of the tree; else they were cut.
pub(super) fn says_all(name: &str) -> bool {
    !name.contains('@')
}

fn encode(packed: &Packed) -> Vec<u8> {
    let stored = StoredPacked {
        diff_id: packed.diff_id.to_string(),
        media_type: packed.blob.media_type.clone(),
        blob: packed.blob.digest.to_string(),
        size: packed.blob.size,
        uncompressed_size: packed.uncompressed_size,
        members: packed
            .members
            .iter()
            .map(|member| {
                (
                    member.uncompressed_len,
                    member.offset,
                    member.len,
                    Digest::from_bytes(member.digest).hex(),
                )
            })
            .collect(),
    };
    serde_json::to_vec(&stored).expect("texts and numbers are always JSON")
}

/// Returns `None` for anything that `encode` did not write.
pub(super) fn decode(bytes: &[u8]) -> Option<Packed> {
    let stored: StoredPacked = serde_json::from_slice(bytes).ok()?;
    let mut members = Vec::with_capacity(stored.members.len());
    for (uncompressed_len, offset, len, digest) in stored.members {
        if offset.checked_add(len)? > stored.size {
            return None;
        }
        members.push(PackedMember {
            uncompressed_len,
            offset,
            len,
            digest: *Digest::from_hex(&digest)?.as_bytes(),
        });
    }
    Some(Packed {
        diff_id: DiffId(stored.diff_id.parse().ok()?),
        blob: Descriptor {
            media_type: stored.media_type,
            digest: stored.blob.parse().ok()?,
            size: stored.size,
        },
        uncompressed_size: stored.uncompressed_size,
        members,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{layer_id, store};
    use crate::vocab::Compression;
    use std::fs;

    const GZIP: LayerForm = LayerForm {
        compression: Compression::Gzip { level: 6 },
        clamp: None,
    };

    fn example(store: &Store) -> Packed {
        let digest = store.put_blob(b"0123456789").unwrap();
        Packed {
            diff_id: DiffId(Digest::of(b"tar")),
            blob: Descriptor {
                media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
                digest,
                size: 10,
            },
            uncompressed_size: 20,
            members: vec![PackedMember {
                uncompressed_len: 20,
                offset: 0,
                len: 10,
                digest: [7; 32],
            }],
        }
    }

    #[test]
    fn what_was_put_comes_back_for_its_compression_only() {
        let (_dir, store) = store();
        let (id, packed) = (layer_id("a"), example(&store));
        store.put_packed(&id, GZIP, &packed).unwrap();
        assert_eq!(store.packed(&id, GZIP).unwrap(), Some(packed));
        for other in [
            Compression::Uncompressed.into(),
            Compression::Gzip { level: 5 }.into(),
            Compression::Zstd { level: 6 }.into(),
            LayerForm {
                clamp: Some(0),
                ..GZIP
            },
        ] {
            assert_eq!(store.packed(&id, other).unwrap(), None);
        }
    }

    #[test]
    fn without_its_whole_blob_it_is_a_miss() {
        let (_dir, store) = store();
        let (id, packed) = (layer_id("a"), example(&store));
        store.put_packed(&id, GZIP, &packed).unwrap();
        fs::write(store.blob_path(&packed.blob.digest), "012").unwrap();
        assert_eq!(store.packed(&id, GZIP).unwrap(), None);
        fs::remove_file(store.blob_path(&packed.blob.digest)).unwrap();
        assert_eq!(store.packed(&id, GZIP).unwrap(), None);
        store.put_blob(b"0123456789").unwrap();
        assert_eq!(store.packed(&id, GZIP).unwrap(), Some(packed));
    }

    #[test]
    fn every_torn_file_is_a_miss() {
        let (_dir, store) = store();
        let (id, packed) = (layer_id("a"), example(&store));
        let whole = encode(&packed);
        for length in 0..whole.len() {
            store.put_packed(&id, GZIP, &packed).unwrap();
            fs::write(store.packed_path(&id, GZIP), &whole[..length]).unwrap();
            assert_eq!(store.packed(&id, GZIP).unwrap(), None, "{length}");
        }
        let beyond = String::from_utf8(whole)
            .unwrap()
            .replace("[20,0,10,", "[20,1,10,");
        assert_eq!(decode(beyond.as_bytes()), None);
    }
}
