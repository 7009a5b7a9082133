//! What the store takes up, by kind.

use super::inventory::{ImageHolds, Marks};
use super::lock::LockFile;
use super::prune::PruneOptions;
use super::{Store, StoreError, tree};

/// One kind's share of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub count: usize,
    pub bytes: u64,
    /// What [`Store::prune`] with `all` would free.
    pub reclaimable: u64,
}

/// The whole store. Bytes are lengths of files, as recorded when they were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Images with and without names, and the blobs that they are made of.
    pub images: Usage,
    /// Unpacked layers.
    pub layers: Usage,
    /// Blobs of no image: packed layers of the cache, base images.
    pub blobs: Usage,
    /// Records and packed forms.
    pub records: Usage,
    /// What is remembered of build contexts.
    pub contexts: Usage,
    /// Copies of cache mounts.
    pub mounts: Usage,
    /// Downloads, mirrors of repositories, files of commits.
    pub remotes: Usage,
    /// Running builds, and what dead ones left.
    pub tmp: Usage,
}

impl DiskUsage {
    /// Returns the sum.
    pub fn total(&self) -> Usage {
        let kinds = [
            self.images,
            self.layers,
            self.blobs,
            self.records,
            self.contexts,
            self.mounts,
            self.remotes,
            self.tmp,
        ];
        kinds.iter().fold(Usage::default(), |sum, kind| Usage {
            count: sum.count + kind.count,
            bytes: sum.bytes + kind.bytes,
            reclaimable: sum.reclaimable + kind.reclaimable,
        })
    }
}

impl Usage {
    fn of(sizes: impl Iterator<Item = u64>) -> Usage {
        sizes.fold(Usage::default(), |sum, size| Usage {
            count: sum.count + 1,
            bytes: sum.bytes.saturating_add(size),
            reclaimable: 0,
        })
    }
}

impl Store {
    /// Measures the store. Changes nothing; other processes may go on meanwhile.
    pub fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        let inventory = self.inventory()?;
        let mut marks = Marks::new(self, &inventory);
        let mut images = inventory
            .index
            .manifests
            .iter()
            .filter_map(|entry| entry.digest());
        images.try_for_each(|digest| marks.image(&digest, ImageHolds::Blobs))?;
        let blobs_of = |of_images: bool| {
            let blobs = inventory.blobs.iter();
            Usage::of(
                blobs
                    .filter(|(digest, _)| marks.holds_blob(digest) == of_images)
                    .map(|(_, &size)| size),
            )
        };
        let records = inventory.records.values().map(|found| &found.file);
        let packed = inventory.packed.iter().map(|found| &found.file);
        let mut usage = DiskUsage {
            images: Usage {
                count: self.own_images()?.len(),
                ..blobs_of(true)
            },
            layers: Usage::of(inventory.layers.values().copied()),
            blobs: blobs_of(false),
            records: Usage::of(records.chain(packed).map(|file| file.bytes)),
            contexts: Usage::of(inventory.contexts.iter().map(|file| file.bytes)),
            mounts: Usage::of(inventory.mounts.iter().map(|copy| copy.bytes)),
            remotes: Usage::of(inventory.remotes.iter().map(|remote| remote.bytes)),
            tmp: self.tmp_usage()?,
        };
        let plan = self.plan(
            &inventory,
            &PruneOptions {
                all: true,
                ..PruneOptions::default()
            },
        )?;
        for (digest, size) in &plan.blobs {
            match marks.holds_blob(digest) {
                true => usage.images.reclaimable += size,
                false => usage.blobs.reclaimable += size,
            }
        }
        usage.layers.reclaimable = plan.layers.iter().map(|(_, size)| size).sum();
        let files = plan.records.iter().chain(&plan.packed);
        usage.records.reclaimable = files.map(|(_, size)| size).sum();
        usage.contexts.reclaimable = plan.contexts.iter().map(|(_, size)| size).sum();
        usage.mounts.reclaimable = plan.mounts.iter().map(|(_, size)| size).sum();
        usage.remotes.reclaimable = plan.remotes.iter().map(|(_, size)| size).sum();
        Ok(usage)
    }

    fn tmp_usage(&self) -> Result<Usage, StoreError> {
        let tmp = self.path("tmp");
        let mut usage = Usage::default();
        for name in self.session_names()? {
            // Outside of the namespace some directories cannot be read: then the sum is what can.
            let bytes = tree::size(&tmp.join(&name)).unwrap_or(0);
            usage.count += 1;
            usage.bytes += bytes;
            if LockFile::is_free(&tmp.join(format!("{name}.lock"))) {
                usage.reclaimable += bytes;
            }
        }
        Ok(usage)
    }
}
