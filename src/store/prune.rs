//! Removing what nothing holds on to, or what was not used for long.
//!
//! Prune needs the store for itself and never waits for it: it says which builds are running. It chooses and hides under the
//! lock, which is short, and deletes afterwards. At every line of it the store is sound: names go before records, aliases
//! before other records, records before the layers and packed forms that they speak of, packed forms before blobs.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::inventory::{FoundFile, ImageHolds, Inventory, Marks, is_json};
use super::layers::OWNERSHIPS;
use super::session::Session;
use super::{Store, StoreError, disk, tree};
use crate::vocab::{CacheKey, Digest, LayerId};

/// What to remove besides what nothing holds on to, which always goes.
///
/// Named images stay whatever the options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// The whole cache: also all records and cache mounts (unless another field spares them), and the unpacked trees of images.
    pub all: bool,
    /// Records and cache mounts that were not used for so long (uses of records are noted to the day). With `all`, only those.
    pub older_than: Option<Duration>,
    /// The least recently used records and cache mounts, until what is left of the store is not larger. With `all`, only those.
    pub keep_bytes: Option<u64>,
    /// The records and cache mounts that were used last, so many, stay whatever the other fields say; where these say nothing of age and
    /// size, all others go.
    pub keep_last: Option<usize>,
    /// Also the unpacked trees of layers that can be unpacked again from blobs that stay.
    pub trees: bool,
    /// Only tell.
    pub dry_run: bool,
}

/// How much of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub count: usize,
    pub bytes: u64,
}

/// What was removed, or would be.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Images without a name; their bytes are among the blobs.
    pub images: Tally,
    pub layers: Tally,
    pub blobs: Tally,
    /// Records and packed forms.
    pub records: Tally,
    pub contexts: Tally,
    /// Copies of cache mounts.
    pub mounts: Tally,
    /// Downloads, mirrors of repositories, files of commits.
    pub remotes: Tally,
    /// What could not be removed. The rest was.
    pub failures: Vec<StoreError>,
}

impl Pruned {
    /// Returns the bytes of all kinds.
    pub fn bytes(&self) -> u64 {
        [
            self.images,
            self.layers,
            self.blobs,
            self.records,
            self.contexts,
            self.mounts,
            self.remotes,
        ]
        .iter()
        .map(|tally| tally.bytes)
        .sum()
    }
}

/// What goes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) images: Vec<Digest>,
    pub(super) records: Vec<(PathBuf, u64)>,
    pub(super) packed: Vec<(PathBuf, u64)>,
    pub(super) layers: Vec<(LayerId, u64)>,
    pub(super) blobs: Vec<(Digest, u64)>,
    pub(super) contexts: Vec<(PathBuf, u64)>,
    pub(super) mounts: Vec<(PathBuf, u64)>,
    /// Each in the order in which its parts go.
    pub(super) remotes: Vec<(Vec<PathBuf>, u64)>,
    pub(super) junk: Vec<PathBuf>,
}

impl Store {
    /// Removes what nothing holds on to, and what the options say. [`StoreError::Busy`] while builds are running.
    ///
    /// Works on a full disk. Must run inside the namespace that makes layers, because their files may belong to other IDs.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, StoreError> {
        if options.dry_run {
            return Ok(self.plan(&self.inventory()?, options)?.tally());
        }
        let lock = self.use_exclusive()?;
        self.sweep()?;
        let inventory = self.inventory()?;
        let mut plan = self.plan(&inventory, options)?;
        let mut failures = Vec::new();
        // Without a session (no room for one) everything is removed in its place.
        let session = self.session().ok();
        if let Err(error) = self.drop_images(&plan.images) {
            // No room for another index: the images stay this time, with what they hold.
            failures.push(error);
            let spared = std::mem::take(&mut plan.images);
            plan = self.plan_keeping(&inventory, options, &spared)?;
        }
        let mut note = |result: Result<bool, StoreError>| match result {
            Ok(_) => true,
            Err(error) => {
                failures.push(error);
                false
            }
        };
        plan.records
            .retain(|(path, _)| note(disk::remove_file(path)));
        plan.packed
            .retain(|(path, _)| note(disk::remove_file(path)));
        let mut trash = Vec::new();
        plan.layers
            .retain(|(id, _)| note(self.discard_layer(id, session.as_deref(), &mut trash)));
        plan.blobs
            .retain(|(digest, _)| note(disk::remove_file(&self.blob_path(digest))));
        plan.contexts
            .retain(|(path, _)| note(disk::remove_file(path)));
        plan.mounts
            .retain(|(path, _)| note(discard(path, session.as_deref(), &mut trash)));
        plan.remotes.retain(|(paths, _)| {
            let mut parts = paths.iter();
            note(
                parts
                    .try_for_each(|path| discard(path, session.as_deref(), &mut trash).map(drop))
                    .map(|()| true),
            )
        });
        for path in &plan.junk {
            note(tree::remove(path).map(|()| true));
        }
        if options.trees {
            // Its deletion mark would be in the way of whoever copies what is left into an image. The next build makes it again.
            note(tree::remove(&self.path("witness")).map(|()| true));
        }
        self.remove_empty_folders();
        // Whoever reads this store from another machine knows nothing of this one's boot. A disk that cannot be synced keeps its
        // marks.
        drop(self.settle_this_boot());
        // Hidden from everyone: builds may go on.
        drop(lock);
        for path in trash {
            note(tree::remove(&path).map(|()| true));
        }
        Ok(Pruned {
            failures,
            ..plan.tally()
        })
    }

    /// Chooses what goes.
    pub(super) fn plan(
        &self,
        inventory: &Inventory,
        options: &PruneOptions,
    ) -> Result<Plan, StoreError> {
        self.plan_keeping(inventory, options, &[])
    }

    /// Chooses what goes, sparing some images without a name.
    fn plan_keeping(
        &self,
        inventory: &Inventory,
        options: &PruneOptions,
        spared: &[Digest],
    ) -> Result<Plan, StoreError> {
        let cutoff = options.older_than.map(|age| {
            SystemTime::now()
                .checked_sub(age)
                .unwrap_or(SystemTime::UNIX_EPOCH)
        });
        let image_holds = match options.all {
            true => ImageHolds::Blobs,
            false => ImageHolds::BlobsAndTrees,
        };
        let mut plan = Plan::default();
        let mut marks = Marks::new(self, inventory);
        for entry in &inventory.index.manifests {
            let Some(digest) = entry.digest() else {
                continue;
            };
            let created = entry.created().seconds.max(0) as u64;
            let is_old = cutoff.is_none_or(|cutoff| {
                SystemTime::UNIX_EPOCH + Duration::from_secs(created) <= cutoff
            });
            if entry.name().is_none() && is_old && !spared.contains(&digest) {
                plan.images.push(digest);
            } else {
                marks.image(&digest, image_holds)?;
            }
        }
        // What is kept besides what is marked.
        let mut others: u64 = inventory.contexts.iter().map(|file| file.bytes).sum();
        let mut kept_mounts = BTreeSet::new();
        let packed_layers = inventory.packed_layers();
        let can_be_had = |id: &LayerId| {
            inventory.layers.contains_key(id)
                || packed_layers.contains(id)
                || self.has_layer_below(id)
        };
        for (kept, is_spared) in kept(inventory, options, cutoff, &can_be_had) {
            let checkpoint = marks.checkpoint();
            match kept {
                Kept::Record(key) => marks.record(&key)?,
                Kept::Mount(copy) => others = others.saturating_add(copy.bytes),
            }
            let left = marks.bytes().saturating_add(others);
            if !is_spared && options.keep_bytes.is_some_and(|keep| left > keep) {
                // This one and all that were used less recently.
                marks.take_back(checkpoint);
                if let Kept::Mount(copy) = kept {
                    others -= copy.bytes;
                }
                break;
            }
            if let Kept::Mount(copy) = kept {
                kept_mounts.insert(&copy.path);
            }
        }
        for copy in &inventory.mounts {
            if !kept_mounts.contains(&copy.path) {
                plan.mounts.push((copy.path.clone(), copy.bytes));
            }
        }
        let mut records: Vec<_> = inventory
            .records
            .iter()
            .filter(|(key, _)| !marks.holds_record(key))
            .collect();
        // Aliases before what they stand for, the longest chains first.
        records.sort_by_key(|(key, _)| Reverse(inventory.alias_depth(key)));
        plan.records = records
            .iter()
            .map(|(_, found)| (found.file.path.clone(), found.file.bytes))
            .collect();
        for found in &inventory.packed {
            if !marks.holds_blob(&found.packed.blob.digest) {
                plan.packed
                    .push((found.file.path.clone(), found.file.bytes));
            }
        }
        let layers = inventory.layers.iter().map(|(id, size)| (*id, *size));
        let unpackable = match options.trees {
            true => self.unpackable(inventory, &marks, &packed_layers)?,
            false => HashSet::new(),
        };
        let goes = |id: &LayerId| !marks.holds_layer(id) || unpackable.contains(id);
        plan.layers = layers.filter(|(id, _)| goes(id)).collect();
        let blobs = inventory
            .blobs
            .iter()
            .map(|(digest, size)| (*digest, *size));
        plan.blobs = blobs
            .filter(|(digest, _)| !marks.holds_blob(digest))
            .collect();
        for file in &inventory.contexts {
            let goes = match cutoff {
                Some(cutoff) => file.used < cutoff,
                None => options.all && options.keep_bytes.is_none(),
            };
            if goes {
                plan.contexts.push((file.path.clone(), file.bytes));
            }
        }
        let mut left = marks.bytes().saturating_add(others);
        let mut remotes: Vec<_> = inventory.remotes.iter().collect();
        remotes.sort_by_key(|remote| Reverse(remote.used));
        for remote in remotes {
            left = left.saturating_add(remote.bytes);
            let goes = match (cutoff, options.keep_bytes) {
                (Some(cutoff), _) if remote.used < cutoff => true,
                (_, Some(keep)) => left > keep,
                (Some(_), None) => false,
                (None, None) => options.all,
            };
            if goes {
                plan.remotes.push((remote.paths.clone(), remote.bytes));
            }
        }
        plan.junk.clone_from(&inventory.junk);
        Ok(plan)
    }

    /// Returns the layers whose trees can be made again from blobs that stay.
    fn unpackable(
        &self,
        inventory: &Inventory,
        marks: &Marks<'_>,
        packed_layers: &HashSet<LayerId>,
    ) -> Result<HashSet<LayerId>, StoreError> {
        let mut unpackable = packed_layers.clone();
        // Bases are unpacked by what their manifests say.
        for digest in inventory
            .blobs
            .keys()
            .filter(|digest| marks.holds_blob(digest))
        {
            if is_json(&self.blob_path(digest)) {
                let diff_ids = self.unpackable_layers(digest)?;
                unpackable.extend(diff_ids.into_iter().map(LayerId));
            }
        }
        Ok(unpackable)
    }

    fn drop_images(&self, dangling: &[Digest]) -> Result<(), StoreError> {
        if dangling.is_empty() {
            return Ok(());
        }
        self.change_index(|index| {
            index.manifests.retain(|entry| {
                entry.name().is_some()
                    || !entry
                        .digest()
                        .is_some_and(|digest| dangling.contains(&digest))
            });
            true
        })
        .map(drop)
    }

    /// Moves a layer out of sight; where that needs room that is not there, hides it and removes it in its place.
    pub(super) fn discard_layer(
        &self,
        id: &LayerId,
        session: Option<&Session>,
        trash: &mut Vec<PathBuf>,
    ) -> Result<bool, StoreError> {
        for ownership in OWNERSHIPS {
            let dir = self.layer_dir_of(ownership, id);
            if !dir.exists() {
                continue;
            }
            let moved = session
                .map(Session::unique)
                .filter(|to| std::fs::rename(&dir, to).is_ok());
            match moved {
                Some(to) => trash.push(to),
                None => {
                    self.hide_layer(ownership, id)?;
                    tree::remove(&dir)?;
                }
            }
        }
        self.forget_mark(id);
        Ok(true)
    }

    fn remove_empty_folders(&self) {
        for parent in ["records", "packed", "mounts"] {
            for (_, folder) in disk::entries(&self.path(parent)).unwrap_or_default() {
                // Fails where something is in it, which is as it should be.
                drop(std::fs::remove_dir(folder));
            }
        }
    }
}

impl Plan {
    fn tally(&self) -> Pruned {
        fn sum<T>(items: &[(T, u64)]) -> Tally {
            Tally {
                count: items.len(),
                bytes: items.iter().map(|(_, bytes)| bytes).sum(),
            }
        }
        let (records, packed) = (sum(&self.records), sum(&self.packed));
        Pruned {
            images: Tally {
                count: self.images.len(),
                bytes: 0,
            },
            layers: sum(&self.layers),
            blobs: sum(&self.blobs),
            records: Tally {
                count: records.count + packed.count,
                bytes: records.bytes + packed.bytes,
            },
            contexts: sum(&self.contexts),
            mounts: sum(&self.mounts),
            remotes: sum(&self.remotes),
            failures: Vec::new(),
        }
    }
}

/// Removes files at once; moves a directory out of sight, or removes it in its place.
fn discard(
    path: &Path,
    session: Option<&Session>,
    trash: &mut Vec<PathBuf>,
) -> Result<bool, StoreError> {
    if !path.is_dir() {
        return disk::remove_file(path);
    }
    let moved = session
        .map(Session::unique)
        .filter(|to| std::fs::rename(path, to).is_ok());
    match moved {
        Some(to) => trash.push(to),
        None => tree::remove(path)?,
    }
    Ok(true)
}

/// What the options spare.
#[derive(Clone, Copy)]
enum Kept<'a> {
    Record(CacheKey),
    Mount(&'a FoundFile),
}

/// Returns the records and cache mounts that the options spare, records only if they can still hit; the most recently used
/// first, and of each whether it stays in any case.
fn kept<'a>(
    inventory: &'a Inventory,
    options: &PruneOptions,
    cutoff: Option<SystemTime>,
    can_be_had: &dyn Fn(&LayerId) -> bool,
) -> Vec<(Kept<'a>, bool)> {
    let spares = |used: SystemTime| match (cutoff, options.keep_bytes) {
        (Some(cutoff), _) => used >= cutoff,
        (None, Some(_)) => true,
        (None, None) => !options.all && options.keep_last.is_none(),
    };
    let records = inventory
        .records
        .iter()
        .filter(|(_, found)| {
            let layer = found.record.layer;
            layer.is_none_or(|layer| can_be_had(&layer))
        })
        .map(|(key, found)| (found.file.used, &found.file.path, Kept::Record(*key)));
    let mounts = inventory.mounts.iter();
    let mounts = mounts.map(|copy| (copy.used, &copy.path, Kept::Mount(copy)));
    let mut kept: Vec<_> = records.chain(mounts).collect();
    kept.sort_by(|(a_used, a_path, _), (b_used, b_path, _)| {
        b_used.cmp(a_used).then_with(|| a_path.cmp(b_path))
    });
    let numbered = kept.into_iter().enumerate();
    let numbered = numbered.map(|(at, (used, _, kept))| {
        let is_last = options.keep_last.is_some_and(|count| at < count);
        (kept, is_last, is_last || spares(used))
    });
    numbered
        .filter(|(.., stays)| *stays)
        .map(|(kept, is_last, _)| (kept, is_last))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{key, layer_id, make_layer, put_image, record, store};
    use crate::store::{Packed, Record};
    use crate::vocab::{Compression, Descriptor, DiffId, KeyComponent};
    use std::fs::File;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Makes a step's record, layer (100 bytes) and packed form (10 bytes), last used so many days ago.
    fn make_step(store: &Store, name: &str, days: u32) {
        make_layer(store, name, &[("f", &"x".repeat(100))]);
        let blob = format!("{name:>10}");
        let packed = Packed {
            diff_id: DiffId(Digest::of(name.as_bytes())),
            blob: Descriptor {
                media_type: "m".into(),
                digest: store.put_blob(blob.as_bytes()).unwrap(),
                size: 10,
            },
            uncompressed_size: 100,
            members: Vec::new(),
        };
        store
            .put_packed(&layer_id(name), Compression::default().into(), &packed)
            .unwrap();
        store
            .put_record(&key(name), &record(name, Some(name)))
            .unwrap();
        set_used(store, name, days);
    }

    fn set_used(store: &Store, name: &str, days: u32) {
        let path = store.record_path(&key(name));
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - DAY * days).unwrap();
    }

    fn check(store: &Store, options: PruneOptions, steps: &[(&str, bool)]) -> Pruned {
        let told = store
            .prune(&PruneOptions {
                dry_run: true,
                ..options.clone()
            })
            .unwrap();
        let pruned = store.prune(&options).unwrap();
        assert!(pruned.failures.is_empty(), "{:?}", pruned.failures);
        assert_eq!(told.bytes(), pruned.bytes(), "{options:?}");
        for (name, kept) in steps {
            let layer = store.layer(&layer_id(name)).unwrap();
            assert_eq!(layer.is_some(), *kept, "layer of {name}: {options:?}");
            let packed = store
                .packed(&layer_id(name), Compression::default().into())
                .unwrap();
            assert_eq!(
                packed.is_some(),
                *kept,
                "packed form of {name}: {options:?}"
            );
            // Not asked for, because that would be a use.
            let record = store.record_path(&key(name));
            assert_eq!(record.exists(), *kept, "record of {name}: {options:?}");
        }
        assert!(store.verify().unwrap().is_empty());
        let again = store.prune(&options).unwrap();
        assert_eq!(again.bytes(), 0, "{options:?}");
        pruned
    }

    fn older_than(days: u32) -> PruneOptions {
        PruneOptions {
            older_than: Some(DAY * days),
            ..PruneOptions::default()
        }
    }

    fn all() -> PruneOptions {
        PruneOptions {
            all: true,
            ..PruneOptions::default()
        }
    }

    #[test]
    fn what_records_or_named_images_hold_stays_and_orphans_go() {
        let (_dir, store) = store();
        make_step(&store, "a", 400);
        make_layer(&store, "orphan", &[("f", "12345")]);
        store.put_blob(b"orphan").unwrap();
        let one = put_image(&store, "one", &["x"]);
        let pruned = check(&store, PruneOptions::default(), &[("a", true)]);
        assert_eq!(pruned.layers, Tally { count: 1, bytes: 5 });
        assert_eq!(pruned.blobs, Tally { count: 1, bytes: 6 });
        assert!(store.blob_size(&one.digest).is_some());
        put_image(&store, "two", &["x"]);
        let pruned = check(&store, PruneOptions::default(), &[("a", true)]);
        assert_eq!(pruned.images.count, 1);
        assert_eq!(store.images().unwrap().len(), 1);
        assert!(store.blob_size(&one.digest).is_none());
    }

    #[test]
    fn age_is_counted_from_the_last_use() {
        let (_dir, store) = store();
        for (name, days) in [("a", 1), ("b", 10), ("c", 30)] {
            make_step(&store, name, days);
        }
        let steps = |b| [("a", true), ("b", b), ("c", false)];
        check(&store, older_than(20), &steps(true));
        check(&store, older_than(5), &steps(false));
        check(&store, all(), &[("a", false)]);
    }

    #[test]
    fn the_last_used_stay_whatever_else_is_said() {
        let keep_last = |count| PruneOptions {
            keep_last: Some(count),
            ..PruneOptions::default()
        };
        let (_dir, store) = store();
        for (name, days) in [("a", 1), ("b", 20), ("c", 10), ("d", 30)] {
            make_step(&store, name, days);
        }
        let steps = |b, c, d| [("a", true), ("b", b), ("c", c), ("d", d)];
        check(&store, keep_last(4), &steps(true, true, true));
        let old = PruneOptions {
            older_than: Some(DAY * 15),
            ..keep_last(3)
        };
        check(&store, old, &steps(true, true, false));
        let large = PruneOptions {
            keep_bytes: Some(0),
            ..keep_last(2)
        };
        check(&store, large, &steps(false, true, false));
        check(&store, keep_last(1), &steps(false, false, false));
    }

    #[test]
    fn the_least_recently_used_go_until_the_rest_fits() {
        let (_dir, store) = store();
        for (name, days) in [("a", 1), ("b", 20), ("c", 10)] {
            make_step(&store, name, days);
        }
        let keep = |bytes| PruneOptions {
            keep_bytes: Some(bytes),
            ..PruneOptions::default()
        };
        let all = store.disk_usage().unwrap().total().bytes;
        check(&store, keep(all), &[("a", true), ("b", true), ("c", true)]);
        check(
            &store,
            keep(all - 1),
            &[("a", true), ("b", false), ("c", true)],
        );
        check(&store, keep(all / 2), &[("a", true), ("c", false)]);
        check(&store, keep(0), &[("a", false)]);
    }

    #[test]
    fn all_takes_the_cache_and_leaves_images_whole() {
        let (_dir, store) = store();
        make_step(&store, "a", 0);
        // The image's layer, unpacked.
        make_layer(&store, "tar of one", &[("f", "x")]);
        put_image(&store, "one", &["x"]);
        check(&store, PruneOptions::default(), &[("a", true)]);
        assert!(store.layer(&layer_id("tar of one")).unwrap().is_some());
        std::fs::write(store.stat_cache_path("/c".as_ref()), "x").unwrap();
        let pruned = check(&store, all(), &[("a", false)]);
        assert_eq!(pruned.contexts.count, 1);
        assert!(store.layer(&layer_id("tar of one")).unwrap().is_none());
        assert_eq!(store.images().unwrap().len(), 1);
    }

    #[test]
    fn a_base_image_named_in_a_key_stays_with_its_parts() {
        let (_dir, store) = store();
        let base = put_image(&store, "one", &["base"]);
        store.remove_image(&base.digest).unwrap();
        let record = Record {
            components: vec![KeyComponent {
                name: "manifest".into(),
                value: base.digest.to_string(),
            }],
            ..record("r", None)
        };
        store.put_record(&key("k"), &record).unwrap();
        let blobs = store.disk_usage().unwrap().blobs;
        store.prune(&PruneOptions::default()).unwrap();
        assert_eq!(store.disk_usage().unwrap().blobs, blobs);
        assert_eq!(blobs.count, 3);
        store.prune(&all()).unwrap();
        assert_eq!(store.disk_usage().unwrap().blobs.count, 0);
    }

    #[test]
    fn an_alias_keeps_what_it_stands_for() {
        let (_dir, store) = store();
        make_step(&store, "a", 30);
        let alias = Record {
            alias_of: Some(key("a")),
            ..record("a", Some("a"))
        };
        store.put_record(&key("alias"), &alias).unwrap();
        check(&store, older_than(5), &[("a", true)]);
        set_used(&store, "a", 30);
        set_used(&store, "alias", 30);
        check(&store, older_than(5), &[("a", false)]);
    }

    #[test]
    fn running_builds_keep_prune_away() {
        let (_dir, store) = store();
        make_step(&store, "a", 0);
        let in_use = store.use_shared().unwrap();
        assert!(matches!(store.prune(&all()), Err(StoreError::Busy { .. })));
        drop(in_use);
        check(&store, all(), &[("a", false)]);
    }

    #[test]
    fn usage_counts_what_is_there_and_what_all_would_free() {
        let (_dir, store) = store();
        make_step(&store, "a", 0);
        put_image(&store, "one", &["x", "y"]);
        let usage = store.disk_usage().unwrap();
        assert_eq!((usage.images.count, usage.images.reclaimable), (1, 0));
        assert_eq!((usage.layers.bytes, usage.layers.reclaimable), (100, 100));
        assert_eq!((usage.blobs.bytes, usage.blobs.reclaimable), (10, 10));
        assert_eq!(usage.records.count, 2);
        let freed = store.prune(&all()).unwrap();
        assert_eq!(freed.bytes(), usage.total().reclaimable);
    }
}
