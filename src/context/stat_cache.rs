//! Content hashes of files that were hashed before, found again by what `stat` says of them.
//!
//! A key is made of everything by which an unchanged file can be recognised: path in the source, device, inode, size, mode,
//! mtime and ctime. Whatever changes a file changes its ctime, which programs cannot set; so equal keys mean equal contents and
//! equal attributes, but for one gap: a file that changes twice within one tick of the file system's clock shows one time for
//! two contents. Like git's index we do not believe such times: a file whose mtime or ctime was not safely in the past when it
//! was hashed is left out, and hashed again next time.
//!
//! ```text
//! "builder-stat-1\n\0"                             16 bytes
//! { key: 16 bytes, fingerprint: 32 bytes, age: 1 }  sorted by key
//! BLAKE3 of all before                             32 bytes
//! ```
//!
//! The file is read when it is first needed, written beside and renamed into place; whatever is wrong with it, it counts as
//! empty. Processes that share it overwrite each other's additions, which costs a hash and never a wrong one. Entries that went
//! unused through several writes are dropped.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::ContextError;
use super::meta::Meta;
use crate::layer::Mtime;

const MAGIC: &[u8; 16] = b"builder-stat-1\n\0";
const ENTRY: usize = 16 + 32 + 1;
const CHECKSUM: usize = 32;
/// An entry lives through so many writes without being used.
const OLDEST: u8 = 16;
/// Times with fractions come from a clock that ticks at least a hundred times a second.
const FINE_TICK: i128 = 50_000_000;
/// Whole seconds may come from a file system that stores nothing finer than two.
const COARSE_TICK: i128 = 2_100_000_000;

/// Names a file's state.
pub(super) type StatKey = [u8; 16];
/// Names a file's content and attributes.
pub(super) type Fingerprint = [u8; 32];

#[derive(Debug)]
pub(super) struct StatCache {
    path: PathBuf,
    /// The file's entries; `None` until asked for.
    loaded: Option<Vec<u8>>,
    /// Which of the loaded entries were used.
    used: Vec<bool>,
    added: HashMap<StatKey, Fingerprint>,
}

impl StatCache {
    pub(super) fn new(path: PathBuf) -> StatCache {
        StatCache {
            path,
            loaded: None,
            used: Vec::new(),
            added: HashMap::new(),
        }
    }

    /// Returns the key of a file; `path` is relative to the source's root.
    pub(super) fn key(path: &[u8], meta: &Meta) -> StatKey {
        let mut hasher = blake3::Hasher::new();
        let mut fixed = [0; 60];
        let fields: [&[u8]; 10] = [
            &meta.device.0.to_le_bytes(),
            &meta.device.1.to_le_bytes(),
            &meta.inode.to_le_bytes(),
            &meta.size.to_le_bytes(),
            &meta.mode.to_le_bytes(),
            &meta.mtime.seconds.to_le_bytes(),
            &meta.mtime.nanoseconds.to_le_bytes(),
            &meta.ctime.seconds.to_le_bytes(),
            &meta.ctime.nanoseconds.to_le_bytes(),
            &meta.blocks.to_le_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            fixed[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        debug_assert_eq!(at, fixed.len());
        // The path comes last and has no length of its own: what is before it has a fixed one.
        hasher.update(&fixed).update(path);
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        key
    }

    pub(super) fn get(&mut self, key: &StatKey) -> Option<Fingerprint> {
        self.load();
        if let Some(fingerprint) = self.added.get(key) {
            return Some(*fingerprint);
        }
        let at = self.find(key)?;
        self.used[at] = true;
        let entry = self.entry(at);
        Some(entry[16..48].try_into().expect("32 bytes"))
    }

    /// Adds what was found by reading a file that had `meta` when reading began and after it ended, which was not before
    /// `now`.
    pub(super) fn insert(
        &mut self,
        key: StatKey,
        meta: &Meta,
        fingerprint: Fingerprint,
        now: Mtime,
    ) {
        if is_settled(meta.mtime, now) && is_settled(meta.ctime, now) {
            self.added.insert(key, fingerprint);
        }
    }

    /// Writes the file if there is something to add.
    pub(super) fn save(&mut self) -> Result<(), ContextError> {
        if self.added.is_empty() {
            return Ok(());
        }
        self.load();
        let mut entries: Vec<[u8; ENTRY]> = Vec::with_capacity(self.used.len() + self.added.len());
        for at in 0..self.used.len() {
            let mut entry: [u8; ENTRY] = self.entry(at).try_into().expect("an entry's length");
            entry[48] = if self.used[at] {
                0
            } else {
                entry[48].saturating_add(1)
            };
            if entry[48] <= OLDEST && !self.added.contains_key(&entry[..16]) {
                entries.push(entry);
            }
        }
        for (key, fingerprint) in &self.added {
            let mut entry = [0; ENTRY];
            entry[..16].copy_from_slice(key);
            entry[16..48].copy_from_slice(fingerprint);
            entries.push(entry);
        }
        entries.sort_unstable();
        let mut bytes = Vec::with_capacity(MAGIC.len() + entries.len() * ENTRY + CHECKSUM);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(entries.as_flattened());
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        self.write(&bytes).map_err(|source| ContextError::Io {
            verb: "write",
            path: self.path.clone(),
            source,
        })?;
        bytes.truncate(bytes.len() - CHECKSUM);
        bytes.drain(..MAGIC.len());
        // What was just written counts as used: it is not written again unless something is added.
        self.used = vec![true; entries.len()];
        self.loaded = Some(bytes);
        self.added.clear();
        Ok(())
    }

    /// No sync: a file that a crash leaves damaged counts as empty.
    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}.tmp", std::process::id()));
        let beside = PathBuf::from(name);
        if let Some(parent) = self.path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let written = std::fs::File::create(&beside)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| std::fs::rename(&beside, &self.path));
        if written.is_err() {
            // The first error is the one to tell.
            drop(std::fs::remove_file(&beside));
        }
        written
    }

    fn load(&mut self) {
        if self.loaded.is_some() {
            return;
        }
        let entries = std::fs::read(&self.path).ok().and_then(checked);
        let entries = entries.unwrap_or_default();
        self.used = vec![false; entries.len() / ENTRY];
        self.loaded = Some(entries);
    }

    fn entry(&self, at: usize) -> &[u8] {
        let entries = self.loaded.as_deref().unwrap_or_default();
        &entries[at * ENTRY..(at + 1) * ENTRY]
    }

    /// Keys are evenly spread, so the place of one is guessed before it is searched.
    fn find(&self, key: &StatKey) -> Option<usize> {
        let count = self.used.len();
        let value = u64::from_be_bytes(key[..8].try_into().expect("8 bytes"));
        let guess = ((u128::from(value) * count as u128) >> 64) as usize;
        // Widen around the guess until the key's place is inside, then halve.
        let (mut low, mut high) = (guess, guess);
        let mut step = 8;
        while low > 0 && self.entry(low)[..16] > key[..] {
            low = low.saturating_sub(step);
            step *= 2;
        }
        let mut step = 8;
        while high < count && self.entry(high)[..16] <= key[..] {
            high = (high + step).min(count);
            step *= 2;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle)[..16].cmp(&key[..]) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// Returns the entries of an undamaged file.
fn checked(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.len().checked_sub(CHECKSUM)?;
    if !bytes.starts_with(MAGIC) || end < MAGIC.len() {
        return None;
    }
    if !(end - MAGIC.len()).is_multiple_of(ENTRY)
        || blake3::hash(&bytes[..end]).as_bytes() != &bytes[end..]
    {
        return None;
    }
    bytes.truncate(end);
    bytes.drain(..MAGIC.len());
    Some(bytes)
}

/// Tells whether a change at `now` would have got a later time than `time`.
fn is_settled(time: Mtime, now: Mtime) -> bool {
    let nanoseconds =
        |time: Mtime| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let tick = match time.nanoseconds {
        0 => COARSE_TICK,
        _ => FINE_TICK,
    };
    nanoseconds(time) + tick < nanoseconds(now)
}

/// Returns the time of day, to compare with times of files.
pub(super) fn now() -> Mtime {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Mtime {
            seconds: since.as_secs() as i64,
            nanoseconds: since.subsec_nanos(),
        },
        // A clock before 1970 settles nothing.
        Err(_) => Mtime {
            seconds: i64::MIN,
            nanoseconds: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::meta::Kind;

    fn meta(inode: u64, seconds: i64) -> Meta {
        let time = Mtime {
            seconds,
            nanoseconds: 1,
        };
        Meta {
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 5,
            blocks: 8,
            mtime: time,
            ctime: time,
            device: (8, 1),
            inode,
            links: 1,
            node: (0, 0),
            birth: (0, 0),
            xattrs: Vec::new(),
        }
    }

    fn at(seconds: i64, nanoseconds: u32) -> Mtime {
        Mtime {
            seconds,
            nanoseconds,
        }
    }

    #[test]
    fn what_was_saved_is_found_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("deep/er/stat");
        for count in [0_u64, 1, 2, 3, 1000] {
            let mut cache = StatCache::new(path.clone());
            let key = |inode| StatCache::key(b"src/a", &meta(inode, 10));
            for inode in 0..count {
                let mut fingerprint = [0; 32];
                fingerprint[..8].copy_from_slice(&inode.to_le_bytes());
                cache.insert(key(inode), &meta(inode, 10), fingerprint, at(20, 0));
            }
            cache.save().unwrap();
            let mut cache = StatCache::new(path.clone());
            for inode in 0..count {
                assert_eq!(cache.get(&key(inode)).unwrap()[..8], inode.to_le_bytes());
            }
            for inode in count.max(1000)..2000 {
                assert_eq!(cache.get(&key(inode)), None);
            }
        }
    }

    #[test]
    fn every_field_that_shows_a_change_is_in_the_key() {
        let base = StatCache::key(b"a", &meta(1, 10));
        let changes: [fn(&mut Meta); 9] = [
            |meta| meta.device.0 += 1,
            |meta| meta.device.1 += 1,
            |meta| meta.inode += 1,
            |meta| meta.size += 1,
            |meta| meta.mode ^= 0o100,
            |meta| meta.mtime.seconds += 1,
            |meta| meta.mtime.nanoseconds += 1,
            |meta| meta.ctime.seconds += 1,
            |meta| meta.ctime.nanoseconds += 1,
        ];
        for change in changes {
            let mut changed = meta(1, 10);
            change(&mut changed);
            assert_ne!(StatCache::key(b"a", &changed), base);
        }
        assert_ne!(StatCache::key(b"b", &meta(1, 10)), base);
        assert_eq!(StatCache::key(b"a", &meta(1, 10)), base);
    }

    #[test]
    fn times_that_are_not_safely_past_are_not_believed() {
        for (time, now, settled) in [
            (at(10, 1), at(10, 1), false),
            (at(10, 1), at(9, 0), false),
            (at(10, 1), at(10, 50_000_000), false),
            (at(10, 1), at(10, 50_000_002), true),
            (at(10, 0), at(11, 0), false),
            (at(10, 0), at(12, 0), false),
            (at(10, 0), at(13, 0), true),
            (at(10, 0), at(i64::MIN, 0), false),
        ] {
            assert_eq!(is_settled(time, now), settled, "{time:?} {now:?}");
            let mut cache = StatCache::new(PathBuf::from("/nonexistent/x"));
            let mut changed = meta(1, 0);
            changed.ctime = time;
            cache.insert([1; 16], &changed, [2; 32], now);
            assert_eq!(cache.get(&[1; 16]).is_some(), settled);
        }
    }

    #[test]
    fn a_damaged_file_is_an_empty_cache() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("stat");
        let key = StatCache::key(b"a", &meta(1, 10));
        let mut cache = StatCache::new(path.clone());
        cache.insert(key, &meta(1, 10), [7; 32], at(20, 0));
        cache.save().unwrap();
        let good = std::fs::read(&path).unwrap();
        let mut cases = vec![Vec::new(), b"x".to_vec(), [&good[..], &[0]].concat()];
        for length in 0..good.len() {
            cases.push(good[..length].to_vec());
            let mut flipped = good.clone();
            flipped[length] ^= 1;
            cases.push(flipped);
        }
        for bytes in cases {
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(StatCache::new(path.clone()).get(&key), None);
        }
        std::fs::write(&path, &good).unwrap();
        assert_eq!(StatCache::new(path).get(&key), Some([7; 32]));
    }

    #[test]
    fn entries_that_nobody_asks_for_are_dropped_in_the_end() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("stat");
        let key = |inode| StatCache::key(b"a", &meta(inode, 10));
        let add = |inode| {
            let mut cache = StatCache::new(path.clone());
            // Entry 1 is used each time, entry 0 never.
            cache.get(&key(1));
            cache.insert(key(inode), &meta(inode, 10), [1; 32], at(20, 0));
            cache.save().unwrap();
        };
        for inode in 0..u64::from(OLDEST) + 1 {
            add(inode);
        }
        assert!(StatCache::new(path.clone()).get(&key(0)).is_some());
        add(100);
        assert!(StatCache::new(path.clone()).get(&key(0)).is_none());
        assert!(StatCache::new(path).get(&key(1)).is_some());
    }
}
