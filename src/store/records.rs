//! Records: what a step's key came to.

use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::lower::Lower;
use super::{Store, StoreError, disk};
use crate::vocab::{CacheKey, Digest, KeyComponent, LayerId, ResultId, Timestamp};

/// Longer files are damaged.
const LIMIT: u64 = 64 << 20;
/// A use is noted when the last note is older.
const USE_STEP: Duration = Duration::from_secs(24 * 60 * 60);

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub result: ResultId,
    /// The tree that the step made; `None` where it changed no files, or where they are a base image's.
    pub layer: Option<LayerId>,
    pub created: Timestamp,
    /// Bytes of the files that the step made.
    pub size: u64,
    pub duration_ms: u64,
    /// The step's name, for people.
    pub description: String,
    /// What the key was made of, to explain a later miss.
    pub components: Vec<KeyComponent>,
    /// The key under which the same result was first found; that record is kept for as long as this one.
    pub alias_of: Option<CacheKey>,
}

/// `KEY.json`
#[derive(Serialize, Deserialize)]
struct StoredRecord {
    /// Repeats the file's name: a file that was renamed by hand is a miss.
    key: String,
    result: String,
    layer: Option<String>,
    created: String,
    size: u64,
    duration_ms: u64,
    description: String,
    /// `[name, value]`
    components: Vec<(String, String)>,
    alias_of: Option<String>,
}

impl Store {
    /// Returns the result of a key. A record that is damaged, or whose layer is gone, is a miss.
    ///
    /// Costs seven small system calls on a hit. The use is noted in the file's time, at most once a day.
    pub fn record(&self, key: &CacheKey) -> Result<Option<Record>, StoreError> {
        let own = self.own_record(key)?;
        if own.is_some() {
            return Ok(own);
        }
        let below = self.records_below(key);
        let has_layer = |record: &Record| record.layer.is_none_or(|layer| self.has_layer(&layer));
        Ok(below.into_iter().find(has_layer))
    }

    fn own_record(&self, key: &CacheKey) -> Result<Option<Record>, StoreError> {
        let path = self.record_path(key);
        let Some(file) = disk::open(&path)? else {
            return Ok(None);
        };
        let Some(record) = disk::read_open(&file, LIMIT)
            .ok()
            .and_then(|bytes| decode(key, &bytes))
        else {
            // On a read-only store it stays, and is a miss every time.
            drop(disk::remove_file(&path));
            return Ok(None);
        };
        if record.layer.is_some_and(|layer| !self.has_layer(&layer)) {
            return Ok(None);
        }
        note_use(&file);
        Ok(Some(record))
    }

    /// Remembers the result of a key, over what was known. Its layer is committed already.
    pub fn put_record(&self, key: &CacheKey, record: &Record) -> Result<(), StoreError> {
        self.session()?
            .put(&self.record_path(key), &encode(key, record))
    }

    /// Returns what the lower stores say of a key, in their order.
    fn records_below(&self, key: &CacheKey) -> Vec<Record> {
        let found = |lower: &Lower| {
            let bytes = lower.bytes(&record_path_in(lower.home(), key), LIMIT)?;
            decode(key, &bytes)
        };
        self.lower_stores().filter_map(found).collect()
    }

    /// Tells whether anything is recorded of a key.
    pub(super) fn has_record(&self, key: &CacheKey) -> bool {
        self.record_path(key).exists() || !self.records_below(key).is_empty()
    }

    /// Returns all records, in no order, also those whose layer is gone: for who explains, not for who looks up.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        // Of lower stores what can be read.
        for lower in self.lower_stores() {
            let folders = disk::entries(&lower.home().join("records")).unwrap_or_default();
            let paths = folders
                .iter()
                .flat_map(|(_, folder)| disk::entries(folder).unwrap_or_default());
            records.extend(paths.filter_map(|(_, path)| {
                let key = key_of(&path)?;
                decode(&key, &lower.bytes(&path, LIMIT)?)
            }));
        }
        for (_, folder) in disk::entries(&self.path("records"))? {
            for (_, path) in disk::entries(&folder)? {
                let Some(key) = key_of(&path) else {
                    continue;
                };
                if let Some(file) = disk::open(&path)?
                    && let Ok(bytes) = disk::read_open(&file, LIMIT)
                {
                    records.extend(decode(&key, &bytes));
                }
            }
        }
        Ok(records)
    }

    pub(super) fn record_path(&self, key: &CacheKey) -> PathBuf {
        record_path_in(self.root(), key)
    }
}

fn record_path_in(home: &Path, key: &CacheKey) -> PathBuf {
    let name = key.to_string();
    let mut path = home.join("records");
    path.push(&name[..2]);
    path.push(name + ".json");
    path
}

/// Returns the key that a record's file is named after.
pub(super) fn key_of(path: &Path) -> Option<CacheKey> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    Digest::from_hex(name).map(CacheKey)
}

/// Notes a use in the file's time, at most once a day.
pub(super) fn note_use(file: &File) {
    let now = SystemTime::now();
    let Ok(modified) = file.metadata().and_then(|metadata| metadata.modified()) else {
        return;
    };
    // A time in the future is corrected too.
    if now
        .duration_since(modified)
        .is_ok_and(|age| age <= USE_STEP)
    {
        return;
    }
    // Refused on a store that is read-only or another's; then nobody prunes by it either.
    drop(file.set_times(FileTimes::new().set_modified(now)));
}

fn encode(key: &CacheKey, record: &Record) -> Vec<u8> {
    let stored = StoredRecord {
        key: key.to_string(),
        result: record.result.to_string(),
        layer: record.layer.map(|layer| layer.to_string()),
        created: record.created.to_string(),
        size: record.size,
        duration_ms: record.duration_ms,
        description: record.description.clone(),
        components: record
            .components
            .iter()
            .map(|component| (component.name.clone(), component.value.clone()))
            .collect(),
        alias_of: record.alias_of.map(|key| key.to_string()),
    };
    serde_json::to_vec(&stored).expect("texts and numbers are always JSON")
}

/// Returns `None` for anything that `encode` did not write for this key.
pub(super) fn decode(key: &CacheKey, bytes: &[u8]) -> Option<Record> {
    let stored: StoredRecord = serde_json::from_slice(bytes).ok()?;
    if Digest::from_hex(&stored.key)? != key.0 {
        return None;
    }
    let optional = |text: Option<String>| match text {
        Some(text) => Digest::from_hex(&text).map(Some),
        None => Some(None),
    };
    Some(Record {
        result: ResultId(Digest::from_hex(&stored.result)?),
        layer: optional(stored.layer)?.map(LayerId),
        created: Timestamp::parse(&stored.created)?,
        size: stored.size,
        duration_ms: stored.duration_ms,
        description: stored.description,
        components: stored
            .components
            .into_iter()
            .map(|(name, value)| KeyComponent { name, value })
            .collect(),
        alias_of: optional(stored.alias_of)?.map(CacheKey),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{key, layer_id, make_layer, record, store};
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn pinned_bytes() {
        let example = Record {
            result: ResultId(Digest::of(b"result")),
            layer: Some(LayerId(Digest::of(b"layer"))),
            created: Timestamp {
                seconds: 1_795_271_400,
                nanoseconds: 500_000_000,
            },
            size: 1,
            duration_ms: 2,
            description: "[1/2] RUN \"x\"".into(),
            components: vec![KeyComponent {
                name: "command".into(),
                value: "x".into(),
            }],
            alias_of: Some(key("other")),
        };
        expect_test::expect![[r#"{"key":"2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683","result":"f6a214f7a5fcda0c2cee9660b7fc29f5649e3c68aad48e20e950137c98913a68","layer":"dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85","created":"2026-11-21T14:30:00.5Z","size":1,"duration_ms":2,"description":"[1/2] RUN \"x\"","components":[["command","x"]],"alias_of":"d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"}"#]]
            .assert_eq(std::str::from_utf8(&encode(&key("key"), &example)).unwrap());
    }

    proptest! {
        #[test]
        fn text_and_back_is_the_same_record(
            bytes in any::<[u8; 32]>(),
            layer in any::<Option<[u8; 32]>>(),
            seconds in -62_135_596_800i64..253_402_300_799,
            nanoseconds in 0u32..1_000_000_000,
            (size, duration_ms) in any::<(u64, u64)>(),
            description in any::<String>(),
            components in any::<Vec<(String, String)>>(),
            alias_of in any::<Option<[u8; 32]>>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let record = Record {
                result: ResultId(Digest::from_bytes(bytes)),
                layer: layer.map(|bytes| LayerId(Digest::from_bytes(bytes))),
                created: Timestamp { seconds, nanoseconds },
                size,
                duration_ms,
                description,
                components: components.into_iter().map(|(name, value)| KeyComponent { name, value }).collect(),
                alias_of: alias_of.map(|bytes| CacheKey(Digest::from_bytes(bytes))),
            };
            let bytes = encode(&key("k"), &record);
            prop_assert_eq!(decode(&key("other"), &bytes), None);
            prop_assert_eq!(decode(&key("k"), &bytes[..cut.index(bytes.len())]), None);
            prop_assert_eq!(decode(&key("k"), &bytes), Some(record));
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&key("k"), &bytes), None);
        }
    }

    #[test]
    fn a_record_without_its_layer_is_a_miss() {
        let (_dir, store) = store();
        let record = record("r", Some("l"));
        store.put_record(&key("k"), &record).unwrap();
        assert_eq!(store.record(&key("k")).unwrap(), None);
        make_layer(&store, "l", &[]);
        assert_eq!(store.record(&key("k")).unwrap(), Some(record));
        fs::remove_dir_all(store.layer_dir(&layer_id("l"))).unwrap();
        assert_eq!(store.record(&key("k")).unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_a_miss_and_goes() {
        let (_dir, store) = store();
        for damage in [&b""[..], b"{}", b"\0\0\0\0", b"null", b"\xff"] {
            store.put_record(&key("k"), &record("r", None)).unwrap();
            fs::write(store.record_path(&key("k")), damage).unwrap();
            assert_eq!(store.record(&key("k")).unwrap(), None);
            assert!(!store.record_path(&key("k")).exists());
        }
    }

    #[test]
    fn a_use_is_noted_once_a_day() {
        let (_dir, store) = store();
        store.put_record(&key("k"), &record("r", None)).unwrap();
        let path = store.record_path(&key("k"));
        let modified = || fs::metadata(&path).unwrap().modified().unwrap();
        let hours_ago = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 60 * 60);
        for (hours, noted) in [(1, false), (23, false), (25, true), (10_000, true)] {
            let past = hours_ago(hours);
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(past).unwrap();
            store.record(&key("k")).unwrap().unwrap();
            assert_eq!(modified() > hours_ago(1) + Duration::from_secs(60), noted);
        }
    }
}
