//! What the last layer of a step was compressed to, so that the next one takes over what has not changed.
//!
//! A step that is made again (a COPY after an edit, a RUN of another day) gives mostly the members that it gave before. A record
//! says which layer was packed last for a *place*: the same instruction, of the same directories, in the same form. It is a hint
//! and nothing else: without it, or with a wrong one, everything is compressed. The blob's digest is checked before the first
//! of its bytes is used again.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use crate::plan::Op;
use crate::store::{Packed, Record, Store, StoreError};
use crate::vocab::{
    CacheKey, Digest, KeyBuilder, KeyComponent, LayerForm, LayerId, ResultId, Sha256,
};

use super::machine::LocalDirectory;
use super::steps::now;

/// Names what is likely to give similar layers.
pub(super) struct Place {
    key: CacheKey,
    components: Vec<KeyComponent>,
}

impl Place {
    pub(super) fn of(
        op: &Op,
        locals: &BTreeMap<Option<String>, LocalDirectory>,
        form: LayerForm,
    ) -> Place {
        let paths: Vec<String> = locals
            .values()
            .map(|local| local.path.display().to_string())
            .collect();
        // The builder's version stands for its compressors': equal bytes give equal members with the same ones only.
        let (key, components) = KeyBuilder::new("packed-last")
            .add("builder", env!("CARGO_PKG_VERSION"))
            .add("step", &Digest::of(format!("{op:?}").as_bytes()).hex())
            .list("directories", &paths)
            .add("form", &format!("{form:?}"))
            .finish();
        Place { key, components }
    }

    /// Returns what gives the members of the layer that was packed here last, by the digest of their uncompressed bytes.
    pub(super) fn kept_members(
        &self,
        store: &Store,
        form: LayerForm,
    ) -> Option<impl FnMut(&[u8; 32]) -> Option<Vec<u8>> + Send + 'static + use<>> {
        // Whatever goes wrong with a hint, there is none.
        let layer = store.record(&self.key).ok()??.layer?;
        let packed = store.packed(&layer, form).ok()??;
        let mut blob = Some(store.blob(&packed.blob.digest).ok()??);
        let members: HashMap<[u8; 32], (u64, usize)> = packed
            .members
            .iter()
            .filter_map(|member| {
                Some((member.digest, (member.offset, member.len.try_into().ok()?)))
            })
            .collect();
        let mut is_checked = false;
        Some(move |digest: &[u8; 32]| {
            let &(offset, length) = members.get(digest)?;
            if !is_checked {
                is_checked = true;
                blob = blob
                    .take()
                    .filter(|file| has_digest(file, &packed.blob.digest));
            }
            let mut bytes = vec![0; length];
            blob.as_ref()?.read_exact_at(&mut bytes, offset).ok()?;
            Some(bytes)
        })
    }

    /// Notes what was packed. A layer of one member is compressed as quickly as it is found.
    pub(super) fn remember(
        self,
        store: &Store,
        layer: LayerId,
        packed: &Packed,
        name: &str,
    ) -> Result<(), StoreError> {
        if packed.members.len() < 2 {
            return Ok(());
        }
        let record = Record {
            result: ResultId(packed.blob.digest),
            layer: Some(layer),
            created: now(),
            size: packed.blob.size,
            duration_ms: 0,
            description: format!("packed: {name}"),
            components: self.components,
            alias_of: None,
        };
        store.put_record(&self.key, &record)
    }
}

fn has_digest(mut file: &File, digest: &Digest) -> bool {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return hash.finish() == *digest,
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::plan::Workdir;
    use crate::vocab::{Descriptor, DiffId};

    const GZIP: LayerForm = LayerForm {
        compression: crate::vocab::Compression::Gzip { level: 6 },
        clamp: None,
    };

    fn place(path: &str) -> Place {
        let op = Op::Workdir(Workdir {
            path: path.to_owned(),
            user: String::new(),
            epoch: None,
        });
        Place::of(&op, &BTreeMap::new(), GZIP)
    }

    #[test]
    fn members_of_the_last_layer_of_a_place_come_back_from_a_sound_blob_only() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path()).unwrap();
        let member = |digest, offset, len| crate::store::PackedMember {
            uncompressed_len: 100,
            offset,
            len,
            digest: [digest; 32],
        };
        let packed = Packed {
            diff_id: DiffId(Digest::of(b"tar")),
            blob: Descriptor {
                media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
                digest: store.put_blob(b"firstsecond").unwrap(),
                size: 11,
            },
            uncompressed_size: 200,
            members: vec![member(1, 0, 5), member(2, 5, 6)],
        };
        let layer = LayerId(Digest::of(b"layer"));
        store.new_layer().unwrap().commit(&layer, 0).unwrap();
        store.put_packed(&layer, GZIP, &packed).unwrap();
        let kept = |path: &str| place(path).kept_members(&store, GZIP);
        assert!(kept("/a").is_none());
        place("/a")
            .remember(&store, layer, &packed, "[1/1] WORKDIR /a")
            .unwrap();
        assert!(kept("/b").is_none());
        let mut found = kept("/a").unwrap();
        assert_eq!(found(&[2; 32]).as_deref(), Some(&b"second"[..]));
        assert_eq!(found(&[1; 32]).as_deref(), Some(&b"first"[..]));
        assert_eq!(found(&[3; 32]), None);

        let blob = File::options()
            .write(true)
            .open(store.blob_path(&packed.blob.digest))
            .unwrap();
        blob.write_all_at(b"x", 7).unwrap();
        let mut found = kept("/a").unwrap();
        assert_eq!((found(&[1; 32]), found(&[2; 32])), (None, None));
    }
}
