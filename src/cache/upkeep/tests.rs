//! Directories that are looked after, also while others write to them.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::cache::{Entry, EntryLayer, PackedForm, Place, Publication, Publisher, ToPublish};
use crate::registry::{Client, Threads};
use crate::vocab::{
    CacheKey, CachePlace, CacheScope, Cancel, Compression, Descriptor, DiffId, Digest, LayerForm,
    LayerId, RegistryOptions, ResultId, Timestamp,
};

const DAY: u64 = 24 * 60 * 60;

struct Shared {
    temp: tempfile::TempDir,
    client: Client,
}

impl Shared {
    fn new() -> Shared {
        Shared {
            temp: tempfile::tempdir().unwrap(),
            client: Client::new(&RegistryOptions::default(), Threads::None).unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join("cache").join(name)
    }

    fn place(&self, scope: &str) -> Place {
        let path = self.temp.path().join("cache");
        Place::new(&CachePlace::Directory { path }, &CacheScope::new(scope))
    }

    /// Publishes a step with a layer of these bytes.
    fn publish(&self, scope: &str, name: &str, bytes: &'static [u8]) {
        let form = LayerForm {
            compression: Compression::Gzip { level: 6 },
            clamp: None,
        };
        let form = PackedForm {
            form,
            diff_id: DiffId(Digest::of(bytes)),
            blob: blob(bytes),
            uncompressed_size: 10,
        };
        let layer = LayerId(Digest::of(name.as_bytes()));
        let entry = Entry {
            key: key(name),
            components: Vec::new(),
            description: format!("RUN {name}"),
            result: ResultId(Digest::of(b"result")),
            layer: Some(EntryLayer {
                id: layer,
                forms: Vec::new(),
            }),
            created: now(),
            size: 7,
            used: None,
        };
        let to = vec![Publication {
            place: self.place(scope),
            ignore_error: false,
            all_layers: true,
            compression: Compression::Gzip { level: 6 },
        }];
        let publisher = Publisher::new(to, false, now(), &Cancel::new());
        publisher.note(entry, None);
        let ready = ToPublish {
            form,
            open: Arc::new(move |offset| {
                Ok(Box::new(&bytes[offset as usize..]) as Box<dyn Read + Send>)
            }),
            mount_from: None,
            is_wanted: true,
        };
        publisher.layer_ready(&self.client, layer, vec![ready], true);
        let failures = publisher.finish(&self.client);
        assert!(failures.is_empty(), "{:?}", failures[0].1);
    }

    fn list(&self) -> Contents {
        list(&self.client, &self.place("x"), &Scopes::All, now()).unwrap()
    }

    fn prune(&self, criteria: Criteria, dry_run: bool) -> Pruned {
        let pruning = Pruning {
            scopes: Scopes::All,
            criteria,
            dry_run,
            now: now(),
        };
        let pruned = prune(&self.client, &self.place("x"), &pruning).unwrap();
        assert!(pruned.failure.is_none(), "{:?}", pruned.failure);
        pruned
    }

    /// Returns whether there is a blob of these bytes.
    fn has(&self, bytes: &[u8]) -> bool {
        self.blob_path(bytes).exists()
    }

    fn blob_path(&self, bytes: &[u8]) -> PathBuf {
        self.path("blobs/sha256").join(Digest::of(bytes).hex())
    }

    fn entry_path(&self, scope: &str, name: &str) -> PathBuf {
        self.path("entries")
            .join(format!("{scope}-step-{}", key(name)))
    }
}

fn key(name: &str) -> CacheKey {
    CacheKey(Digest::of(name.as_bytes()))
}

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::from_seconds(since.unwrap().as_secs() as i64)
}

/// Has a file be so many days old.
fn age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * DAY);
    File::open(path).unwrap().set_modified(then).unwrap();
}

fn older_than(days: u64) -> Criteria {
    Criteria {
        older_than: Some(Duration::from_secs(days * DAY)),
        ..Criteria::default()
    }
}

#[test]
fn entries_go_and_then_the_blobs_that_none_names_and_that_are_old() {
    let (shared, begun) = (Shared::new(), now());
    shared.publish("main", "old", b"old");
    shared.publish("main", "also", b"shared");
    shared.publish("main", "new", b"shared");
    shared.publish("main", "recent", b"recent");
    // Entries that were written long ago say so themselves.
    for name in ["old", "also", "recent"] {
        let path = shared.entry_path("main", name);
        let text = fs::read_to_string(&path).unwrap();
        let day = |time: Timestamp| time.to_string()[..10].to_owned();
        let long_ago = day(Timestamp::from_seconds(now().seconds - 100 * DAY as i64));
        let text = text.replace(&day(begun), &long_ago);
        fs::write(&path, text.replace(&day(now()), &long_ago)).unwrap();
        age(&path, 20);
    }
    for bytes in [b"old".as_slice(), b"shared"] {
        age(&shared.blob_path(bytes), 20);
    }
    let would = shared.prune(older_than(10), true);
    assert_eq!((would.gone.len(), would.blobs), (3, 1));
    assert_eq!(shared.list().listed.len(), 4);
    let pruned = shared.prune(older_than(10), false);
    assert_eq!((pruned.gone.len(), pruned.blobs), (3, 1));
    assert_eq!(pruned.bytes, would.bytes);
    assert_eq!(pruned.young, (1, 6), "its blob is new");
    assert!(!shared.has(b"old") && shared.has(b"shared") && shared.has(b"recent"));
    let listed = shared.list().listed;
    let [listed] = listed.as_slice() else {
        panic!("{listed:?}");
    };
    assert_eq!(listed.about().unwrap().description, "RUN new");
    assert_eq!(pruned.kept_bytes, 6);
}

#[test]
fn a_look_counts_as_no_use() {
    let shared = Shared::new();
    shared.publish("main", "step", b"bytes");
    let path = shared.entry_path("main", "step");
    age(&path, 20);
    shared.list();
    shared.prune(older_than(30), false);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    assert!(modified.elapsed().unwrap() > Duration::from_secs(19 * DAY));
}

#[test]
fn what_does_not_look_like_the_caches_stays() {
    let shared = Shared::new();
    shared.publish("main", "step", b"bytes");
    shared.publish("main", "torn", b"torn");
    let torn = shared.entry_path("main", "torn");
    let text = fs::read_to_string(&torn).unwrap();
    fs::write(&torn, &text[..text.len() / 2]).unwrap();
    let foreign = shared.entry_path("main", "foreign");
    let digest = blob(b"foreign").digest;
    fs::write(
        &foreign,
        format!(r#"{{"schemaVersion":2,"config":{{}},"layers":[],"x":"{digest}"}}"#),
    )
    .unwrap();
    let moved = shared.entry_path("main", "moved");
    fs::copy(shared.entry_path("main", "step"), &moved).unwrap();
    fs::write(shared.path("entries/README"), "read me").unwrap();
    fs::write(shared.blob_path(b"foreign"), "foreign").unwrap();
    fs::write(shared.path("blobs/sha256/README"), "read me").unwrap();
    fs::write(shared.path("tmp/README"), "read me").unwrap();
    for name in ["blobs/sha256/README", "tmp/README"] {
        age(&shared.path(name), 20);
    }
    for bytes in [b"bytes".as_slice(), b"torn", b"foreign"] {
        age(&shared.blob_path(bytes), 20);
    }
    let contents = shared.list();
    assert_eq!(contents.others, 1);
    let mut states: Vec<&str> = contents
        .listed
        .iter()
        .map(|listed| match &listed.state {
            State::Sound(_) => "sound",
            State::Damaged(why) if why.contains("torn") => "torn",
            State::Damaged(why) => why,
            State::Foreign => "foreign",
        })
        .collect();
    states.sort_unstable();
    assert_eq!(states, ["foreign", "is another step's", "sound", "torn"]);
    let pruned = shared.prune(older_than(0), false);
    assert_eq!(pruned.gone.len(), 1);
    let left = fs::read_dir(shared.path("entries")).unwrap().count();
    assert_eq!(left, 4);
    for name in ["blobs/sha256/README", "tmp/README"] {
        assert!(shared.path(name).exists(), "{name}");
    }
    // One blob is named by what is no entry, and one by a copy under a wrong name.
    assert!(shared.has(b"foreign") && shared.has(b"bytes"));
}

#[test]
fn a_blob_that_is_meant_again_stays_and_one_that_went_is_brought_again() {
    let shared = Shared::new();
    let place = shared.place("main");
    let before = now();
    shared.publish("main", "one", b"bytes");
    let client = &shared.client;
    let blobs = place.blobs(client).unwrap();
    // Its time was set after it was found old.
    assert!(
        !place
            .remove_blob(
                client,
                &blobs[0],
                Timestamp {
                    seconds: before.seconds - 5,
                    ..before
                }
            )
            .unwrap()
    );
    assert!(shared.has(b"bytes"));
    age(&shared.blob_path(b"bytes"), 20);
    assert!(place.remove_blob(client, &blobs[0], before).unwrap());
    assert!(!shared.has(b"bytes"));
    shared.publish("main", "two", b"bytes");
    assert!(shared.has(b"bytes"));
    age(&shared.blob_path(b"bytes"), 20);
    shared.publish("main", "three", b"bytes");
    let modified = fs::metadata(shared.blob_path(b"bytes")).unwrap();
    assert!(modified.modified().unwrap().elapsed().unwrap() < Duration::from_secs(DAY));
    assert_eq!(fs::read_dir(shared.path("tmp")).unwrap().count(), 0);
}

#[test]
fn who_publishes_while_another_prunes_loses_nothing() {
    let shared = Shared::new();
    shared.publish("main", "first", b"bytes");
    for round in 0..200 {
        // Nothing names the blob, and it is old: one removes it, the other counts on it.
        for entry in fs::read_dir(shared.path("entries")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        if !shared.has(b"bytes") {
            fs::write(shared.blob_path(b"bytes"), b"bytes").unwrap();
        }
        age(&shared.blob_path(b"bytes"), 20);
        let name = format!("step {round}");
        std::thread::scope(|scope| {
            scope.spawn(|| shared.prune(older_than(1000), false));
            shared.publish("main", &name, b"bytes");
        });
        assert_eq!(shared.list().listed.len(), 1);
        assert!(shared.has(b"bytes"), "round {round}");
    }
    assert_eq!(fs::read_dir(shared.path("tmp")).unwrap().count(), 0);
}

#[test]
fn what_never_arrived_goes_after_a_day() {
    let shared = Shared::new();
    shared.publish("main", "step", b"bytes");
    for (name, days) in [("12-34-5", 2), ("12-34-6", 0), ("12-x-7", 2)] {
        let path = shared.path("tmp").join(name);
        fs::write(&path, "left over").unwrap();
        age(&path, days);
    }
    let link = shared.path("tmp/12-34-8");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    let would = shared.prune(older_than(1000), true);
    let pruned = shared.prune(older_than(1000), false);
    assert_eq!((would.bytes, pruned.bytes), (9, 9));
    let mut left: Vec<_> = fs::read_dir(shared.path("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["12-34-6", "12-34-8", "12-x-7"]);
}

#[test]
fn nothing_is_removed_through_links() {
    let shared = Shared::new();
    shared.publish("main", "step", b"bytes");
    let elsewhere = tempfile::tempdir().unwrap();
    let hex = Digest::of(b"precious").hex();
    let precious = elsewhere.path().join(&hex);
    fs::write(&precious, "precious").unwrap();
    age(&precious, 20);
    fs::rename(shared.path("blobs/sha256"), shared.path("blobs/moved")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), shared.path("blobs/sha256")).unwrap();
    let pruning = Pruning {
        scopes: Scopes::All,
        criteria: older_than(1000),
        dry_run: false,
        now: now(),
    };
    let pruned = prune(&shared.client, &shared.place("x"), &pruning).unwrap();
    assert!(pruned.failure.is_some());
    assert!(precious.exists());
}

#[test]
fn where_there_is_no_cache_none_is_made() {
    let shared = Shared::new();
    for exists in [false, true] {
        if exists {
            fs::create_dir(shared.path("")).unwrap();
        }
        let pruned = shared.prune(older_than(0), false);
        assert_eq!((pruned.gone.len(), pruned.bytes), (0, 0));
        assert_eq!(shared.path("").exists(), exists);
        assert!(!shared.path("tmp").exists());
    }
}

#[test]
fn an_entry_that_was_used_meanwhile_stays() {
    let shared = Shared::new();
    shared.publish("main", "step", b"bytes");
    let place = shared.place("main");
    let named = place.documents(&shared.client).unwrap();
    age(&shared.entry_path("main", "step"), 20);
    let removal = place.remove_documents(&shared.client, &[(&named[0], Digest::of(b""))], &[]);
    assert_eq!((removal.gone.len(), removal.left.len()), (0, 1));
    assert_eq!(shared.list().listed.len(), 1);
    // One that somebody else has removed is gone.
    fs::remove_file(shared.entry_path("main", "step")).unwrap();
    let removal = place.remove_documents(&shared.client, &[(&named[0], Digest::of(b""))], &[]);
    assert_eq!((removal.gone.len(), removal.left.len()), (1, 0));
}
