//! Reading everything again, for those who distrust their disk.

use std::fmt;
use std::path::{Path, PathBuf};

use super::blobs::hash_file;
use super::documents::{Part, PartKind};
use super::layers::OWNERSHIPS;
use super::{Store, StoreError, disk, packed, records, tree};
use crate::vocab::{Digest, LayerId, Ownership};

/// Something in the store that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub path: PathBuf,
    pub kind: ProblemKind,
    pub what: String,
}

/// What a problem is about, and so what [`Store::repair`] does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The bytes of a blob or a download have another digest, or the files of a commit are not whole: it is removed, and fetched or made again when it is needed.
    DamagedBlob,
    /// A cache entry that cannot be read, or speaks of what is not there: a miss already, it is removed.
    DeadEntry,
    /// An image lacks a part. Layers may be with a registry; a config or manifest should be here. Nothing is done.
    IncompleteImage,
    /// A file that the store did not put there. Nothing is done.
    Foreign,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.path.display())
    }
}

impl Store {
    /// Reads every blob and every entry of the store and follows every reference. Takes as long as reading the disk does.
    pub fn verify(&self) -> Result<Vec<Problem>, StoreError> {
        // Nothing is pruned from under it. A store that does not exist yet is not made by asking about it.
        let _in_use = match self.root().exists() {
            true => Some(self.use_shared()?),
            false => None,
        };
        let mut problems = Vec::new();
        let mut note = |path: &Path, kind, what: &str| {
            problems.push(Problem {
                path: path.to_owned(),
                kind,
                what: what.to_owned(),
            });
        };
        for (name, path) in disk::entries(&self.path("oci/blobs/sha256"))? {
            match Digest::from_hex(&name) {
                None => note(&path, ProblemKind::Foreign, "not a blob"),
                Some(digest) => match hash_file(&path) {
                    Ok(found) if found == digest => {}
                    Err(error) if disk::is_absent(&error) => {}
                    Ok(_) => note(
                        &path,
                        ProblemKind::DamagedBlob,
                        "a blob has other bytes than its name says",
                    ),
                    Err(error) => note(
                        &path,
                        ProblemKind::DamagedBlob,
                        &format!("a blob cannot be read ({error})"),
                    ),
                },
            }
        }
        for ownership in OWNERSHIPS {
            for (name, path) in disk::entries(&self.layers_dir(ownership))? {
                match Digest::from_hex(&name).map(LayerId) {
                    None => note(&path, ProblemKind::Foreign, "not a layer"),
                    Some(id) => {
                        if let Some(what) = self.layer_problem(ownership, &id)? {
                            note(&path, ProblemKind::DeadEntry, what);
                        }
                    }
                }
            }
        }
        for (_, folder) in disk::entries(&self.path("records"))? {
            for (_, path) in disk::entries(&folder)? {
                if let Some(what) = self.record_problem(&path)? {
                    note(&path, ProblemKind::DeadEntry, what);
                }
            }
        }
        for (_, folder) in disk::entries(&self.path("packed"))? {
            for (_, path) in disk::entries(&folder)? {
                if let Some(what) = self.packed_problem(&path)? {
                    note(&path, ProblemKind::DeadEntry, what);
                }
            }
        }
        for (path, what) in self.remote_problems()? {
            note(&path, ProblemKind::DamagedBlob, what);
        }
        let index = self.path("oci/index.json");
        for image in self.own_images()? {
            let name = match image.names.first() {
                Some(name) => name.familiar(),
                None => image.manifest.digest.to_string(),
            };
            for part in self.image_parts(&image.manifest.digest)? {
                if let Some(what) = self.part_problem(&part) {
                    note(
                        &index,
                        ProblemKind::IncompleteImage,
                        &format!("`{name}` {what} {}", part.digest),
                    );
                }
            }
        }
        Ok(problems)
    }

    /// Removes what [`Store::verify`] found to be damaged or dead, after looking again. [`StoreError::Busy`] while builds are
    /// running. Returns how many things went.
    pub fn repair(&self, problems: &[Problem]) -> Result<usize, StoreError> {
        let _lock = self.use_exclusive()?;
        let mut removed = 0;
        for Problem { path, kind, .. } in problems {
            let goes = match kind {
                ProblemKind::IncompleteImage | ProblemKind::Foreign => false,
                ProblemKind::DamagedBlob => {
                    self.is_damaged_blob(path) || self.remote_problem(path).is_some()
                }
                ProblemKind::DeadEntry => self.is_dead_entry(path)?,
            };
            if goes {
                // Of a layer this hides it first; nothing else has such a file.
                disk::remove_file(&path.join("layer.json"))?;
                tree::remove(path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Never by the path alone: it must be a place of ours, and still be damaged.
    fn is_damaged_blob(&self, path: &Path) -> bool {
        let digest = named_digest(path).filter(|digest| *path == self.blob_path(digest));
        digest.is_some_and(|digest| path.exists() && hash_file(path).ok() != Some(digest))
    }

    fn is_dead_entry(&self, path: &Path) -> Result<bool, StoreError> {
        let folder = path.parent().unwrap_or(path);
        let kind = OWNERSHIPS
            .into_iter()
            .find(|&ownership| folder == self.layers_dir(ownership));
        if let Some(ownership) = kind {
            let Some(id) = named_digest(path).map(LayerId) else {
                return Ok(false);
            };
            return Ok(path.exists() && self.layer_problem(ownership, &id)?.is_some());
        }
        match folder.parent() {
            _ if !path.is_file() => Ok(false),
            Some(place) if *place == self.path("records") => {
                Ok(self.record_problem(path)?.is_some())
            }
            Some(place) if *place == self.path("packed") => {
                Ok(self.packed_problem(path)?.is_some())
            }
            _ => Ok(false),
        }
    }

    fn layer_problem(
        &self,
        ownership: Ownership,
        id: &LayerId,
    ) -> Result<Option<&'static str>, StoreError> {
        let Some(recorded) = self.recorded_layer(ownership, id)? else {
            return Ok(Some("a layer is incomplete"));
        };
        let dir = self.layer_dir_of(ownership, id);
        if !dir.join("fs").is_dir() {
            return Ok(Some("a layer has no files"));
        }
        Ok((!recorded.has_whole_ledger(&dir)).then_some("a layer has lost its owners"))
    }

    fn record_problem(&self, path: &Path) -> Result<Option<&'static str>, StoreError> {
        let Some(key) = records::key_of(path) else {
            return Ok(Some("not a record"));
        };
        let Some(bytes) = disk::read(path, u64::MAX - 1)? else {
            return Ok(None);
        };
        let Some(record) = records::decode(&key, &bytes) else {
            return Ok(Some("a record cannot be read"));
        };
        if record.layer.is_some_and(|layer| !self.has_layer(&layer)) {
            return Ok(Some("a record's layer is gone"));
        }
        let target = record.alias_of;
        Ok(target
            .is_some_and(|target| !self.has_record(&target))
            .then_some("a record's other key is gone"))
    }

    fn packed_problem(&self, path: &Path) -> Result<Option<&'static str>, StoreError> {
        let Some(bytes) = disk::read(path, u64::MAX - 1)? else {
            return Ok(None);
        };
        let Some(packed) = packed::decode(&bytes) else {
            return Ok(Some("a packed form cannot be read"));
        };
        let there = self.blob_size(&packed.blob.digest) == Some(packed.blob.size);
        Ok((!there).then_some("a packed form's blob is gone"))
    }

    fn part_problem(&self, part: &Part) -> Option<&'static str> {
        match self.blob_size(&part.digest) {
            Some(size) if size == part.size => None,
            Some(_) => Some("has a part of another length:"),
            None => Some(match part.kind {
                PartKind::Manifest => "lacks its manifest:",
                PartKind::Config => "lacks its config:",
                PartKind::Layer => "lacks a layer:",
            }),
        }
    }
}

fn named_digest(path: &Path) -> Option<Digest> {
    Digest::from_hex(path.file_name()?.to_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{key, layer_id, make_layer, put_image, record, store};
    use std::fs;

    #[test]
    fn every_kind_of_damage_is_found_and_repaired() {
        let (_dir, store) = store();
        put_image(&store, "one", &["a"]);
        make_layer(&store, "l", &[("f", "x")]);
        make_layer(&store, "torn", &[("f", "x")]);
        store
            .put_record(&key("k"), &record("r", Some("l")))
            .unwrap();
        store
            .put_record(&key("dead"), &record("r", Some("torn")))
            .unwrap();
        let blob = store.put_blob(b"good").unwrap();
        assert_eq!(store.verify().unwrap(), []);
        fs::write(store.blob_path(&blob), "evil").unwrap();
        fs::write(store.layer_dir(&layer_id("torn")).join("layer.json"), "").unwrap();
        fs::write(store.path("oci/blobs/sha256/README"), "mine").unwrap();
        let problems = store.verify().unwrap();
        let kinds: Vec<_> = problems.iter().map(|problem| problem.kind).collect();
        use ProblemKind::*;
        assert_eq!(kinds.len(), 4, "{problems:?}");
        for (kind, count) in [(DamagedBlob, 1), (Foreign, 1), (DeadEntry, 2)] {
            assert_eq!(kinds.iter().filter(|&&found| found == kind).count(), count);
        }
        assert_eq!(store.repair(&problems).unwrap(), 3);
        assert_eq!(store.repair(&problems).unwrap(), 0);
        assert_eq!(store.verify().unwrap().len(), 1);
        assert!(store.record(&key("k")).unwrap().is_some());
    }

    #[test]
    fn an_image_without_a_part_is_told() {
        let (_dir, store) = store();
        put_image(&store, "one", &["a"]);
        let config = Digest::of(crate::store::tests::config("one").as_bytes());
        fs::remove_file(store.blob_path(&config)).unwrap();
        let problems = store.verify().unwrap();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].to_string().contains("lacks its config"),
            "{}",
            problems[0]
        );
        assert_eq!(store.repair(&problems).unwrap(), 0);
    }

    #[test]
    fn repair_touches_nothing_that_it_was_not_shown_to_be_damaged() {
        let (dir, store) = store();
        store.put_blob(b"good").unwrap();
        drop(store.use_shared().unwrap());
        let outside = dir.path().join("outside");
        fs::write(&outside, "x").unwrap();
        for kind in [ProblemKind::DamagedBlob, ProblemKind::DeadEntry] {
            for path in [
                outside.clone(),
                store.path("oci"),
                store.path("layers"),
                store.path("records"),
            ] {
                let problem = Problem {
                    path,
                    kind,
                    what: String::new(),
                };
                assert_eq!(store.repair(&[problem]).unwrap(), 0);
            }
        }
    }
}
