//! What the steps of a project were made of the last time, to explain a miss: opaque bytes of the worker, and lists of files.
//!
//! Hints and nothing else: what is lost here makes an explanation shorter. So both are bounded in number, and the oldest go.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Store, StoreError, disk};
use crate::vocab::Digest;

/// Longer files are not read.
const LIMIT: u64 = 32 << 20;
/// How many files of each kind stay.
const MOST: usize = 256;
/// How many bytes of lists stay.
const MOST_BYTES: u64 = 256 << 20;

impl Store {
    /// Returns what was kept for a project.
    pub fn ingredients(&self, project: &Digest) -> Option<Vec<u8>> {
        let path = self.ingredients_path(project);
        let own = disk::read(&path, LIMIT).ok().flatten();
        own.or_else(|| {
            let name = format!("ingredients/{}", project.hex());
            self.lower_stores()
                .find_map(|lower| lower.bytes(&lower.home().join(&name), LIMIT))
        })
    }

    /// Tells whether something is kept for a project here.
    pub fn has_ingredients(&self, project: &Digest) -> bool {
        self.ingredients_path(project).exists()
    }

    /// Keeps something for a project, over what there was.
    pub fn put_ingredients(&self, project: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.session()?
            .put(&self.ingredients_path(project), bytes)?;
        self.trim(&self.path("ingredients"), MOST, u64::MAX)?;
        self.trim(&self.path("listings"), MOST, MOST_BYTES)
    }

    /// Returns the bytes that have this digest, if they were kept.
    pub fn listing(&self, digest: &Digest) -> Option<Vec<u8>> {
        let own = disk::read(&self.listing_path(digest), LIMIT).ok().flatten();
        let bytes = own.or_else(|| {
            let name = format!("listings/{}", digest.hex());
            self.lower_stores()
                .find_map(|lower| lower.bytes(&lower.home().join(&name), LIMIT))
        })?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Keeps a list under its digest, which the caller has computed.
    pub fn put_listing(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.listing_path(digest);
        match path.exists() {
            true => Ok(()),
            false => self.session()?.put(&path, bytes),
        }
    }

    /// Forgets a list.
    pub fn remove_listing(&self, digest: &Digest) -> Result<(), StoreError> {
        disk::remove_file(&self.listing_path(digest)).map(drop)
    }

    fn ingredients_path(&self, project: &Digest) -> PathBuf {
        self.path("ingredients").join(project.hex())
    }

    fn listing_path(&self, digest: &Digest) -> PathBuf {
        self.path("listings").join(digest.hex())
    }

    /// Removes the oldest files of a directory until few enough are left.
    fn trim(&self, directory: &Path, most: usize, most_bytes: u64) -> Result<(), StoreError> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = disk::entries(directory)?
            .into_iter()
            .filter_map(|(_, path)| {
                let metadata = path.symlink_metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), path))
            })
            .collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, size, _)| size).sum();
        let mut count = files.len();
        for (_, size, path) in files {
            if count <= most && bytes <= most_bytes {
                break;
            }
            disk::remove_file(&path)?;
            count -= 1;
            bytes -= size;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;

    #[test]
    fn lists_come_back_whole_or_not_at_all() {
        let (_dir, store) = store();
        let digest = Digest::of(b"list");
        assert_eq!(store.listing(&digest), None);
        store.put_listing(&digest, b"list").unwrap();
        assert_eq!(store.listing(&digest).as_deref(), Some(&b"list"[..]));
        std::fs::write(store.listing_path(&digest), b"lis").unwrap();
        assert_eq!(store.listing(&digest), None);
        store.remove_listing(&digest).unwrap();
        store.remove_listing(&digest).unwrap();
    }

    #[test]
    fn the_oldest_projects_are_forgotten() {
        let (_dir, store) = store();
        for number in 0..MOST + 3 {
            let project = Digest::of(number.to_string().as_bytes());
            store.put_ingredients(&project, b"x").unwrap();
        }
        let left = disk::entries(&store.path("ingredients")).unwrap().len();
        assert_eq!(left, MOST);
        let last = Digest::of((MOST + 2).to_string().as_bytes());
        assert!(store.has_ingredients(&last));
        assert_eq!(store.ingredients(&last).as_deref(), Some(&b"x"[..]));
    }
}
