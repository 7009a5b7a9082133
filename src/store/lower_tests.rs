//! Lower stores as their readers meet them: whole, torn, copied, hostile, and going away.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::tests::{key, layer_id, make_layer, name, put_image, record, store};
use super::*;
use crate::vocab::{Compression, Descriptor, DiffId, Digest, LayerForm, Ownership};

/// A store with one step (its record, its layer and, where `packed`, a blob), an image `app` and a download.
fn lower(packed: bool) -> (tempfile::TempDir, PathBuf) {
    let (dir, store) = store();
    make_layer(&store, "l", &[("f", "12345")]);
    store
        .put_record(&key("k"), &record("r", Some("l")))
        .unwrap();
    if packed {
        pack(&store, "l");
    }
    put_image(&store, "app", &["app"]);
    let mut writer = store.download_writer().unwrap();
    writer.write_all(b"fetched").unwrap();
    writer.commit("https://x/file", None, None).unwrap();
    let root = store.root().parent().unwrap().to_owned();
    drop(store.use_shared().unwrap());
    (dir, root)
}

fn form() -> LayerForm {
    Compression::default().into()
}

fn pack(store: &Store, layer: &str) {
    let blob = format!("blob of {layer}");
    let packed = Packed {
        diff_id: DiffId(Digest::of(layer.as_bytes())),
        blob: Descriptor {
            media_type: "m".into(),
            digest: store.put_blob(blob.as_bytes()).unwrap(),
            size: blob.len() as u64,
        },
        uncompressed_size: 1,
        members: Vec::new(),
    };
    store.put_packed(&layer_id(layer), form(), &packed).unwrap();
}

/// Opens an empty store over others.
fn over(lowers: &[&Path]) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let lowers: Vec<PathBuf> = lowers.iter().map(|path| path.to_path_buf()).collect();
    let store = Store::open_over(&dir.path().join("state"), &lowers).unwrap();
    (dir, store)
}

/// Names, numbers, times and lengths of everything below a directory; those of reading may change.
fn everything(root: &Path) -> Vec<(PathBuf, u64, u32, i64, i64, i64, u64)> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        found.push((
            path,
            metadata.ino(),
            metadata.mode(),
            metadata.mtime(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            metadata.len(),
        ));
    }
    found.sort();
    found
}

/// Copies as `cp -r` does. In this process: a child would hold on to the locks of other tests until it has begun.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = entry.map(|entry| (entry.path(), to)).unwrap();
        let to = to.join(entry.file_name().unwrap());
        match entry.is_dir() {
            true => copy_tree(&entry, &to),
            false => {
                fs::copy(&entry, &to).unwrap();
            }
        }
    }
}

/// Lets every mark of this boot be of another.
fn after_another_boot(root: &Path) {
    let unsynced = root.join("v1/unsynced");
    let boot = fs::read_dir(&unsynced).unwrap().next().unwrap().unwrap();
    fs::rename(boot.path(), unsynced.join("another")).unwrap();
}

fn layer_dir(root: &Path, layer: &str) -> PathBuf {
    root.join("v1/layers").join(layer_id(layer).to_string())
}

#[test]
fn everything_is_found_below_and_nothing_is_written_there() {
    let (_lower_dir, root) = lower(true);
    let before = everything(&root);
    let (_dir, store) = over(&[&root]);
    let in_use = store.use_shared().unwrap();
    store.sweep().unwrap();
    let found = store.record(&key("k")).unwrap().unwrap();
    assert_eq!(found, record("r", Some("l")));
    let layer = store.layer(&layer_id("l")).unwrap().unwrap();
    assert!(layer.is_below && layer.fs.starts_with(&root));
    let packed = store.packed(&layer_id("l"), form()).unwrap().unwrap();
    assert_eq!(
        store.packed_in_any_form(&layer_id("l")).unwrap(),
        Some(packed.clone())
    );
    assert!(store.blob(&packed.blob.digest).unwrap().is_some());
    assert_eq!(store.blob_size(&packed.blob.digest), Some(packed.blob.size));
    let image = store.image(&name("app")).unwrap().unwrap();
    assert_eq!(image.lower.as_deref(), Some(root.as_path()));
    let limit = image.manifest.size;
    let manifest = store.read_blob(&image.manifest.digest, limit).unwrap();
    assert!(manifest.is_some());
    let kept = store.download("https://x/file").unwrap().unwrap();
    assert!(store.downloaded(&kept.digest).unwrap().is_some());
    assert_eq!(store.records().unwrap().len(), 1);
    drop(in_use);
    let options = PruneOptions {
        all: true,
        trees: true,
        ..PruneOptions::default()
    };
    let pruned = store.prune(&options).unwrap();
    assert_eq!((pruned.bytes(), pruned.failures.len()), (0, 0));
    assert_eq!(store.disk_usage().unwrap().total().bytes, 0);
    assert_eq!(store.verify().unwrap(), []);
    drop(store);
    assert_eq!(everything(&root), before);
}

#[test]
fn what_is_below_is_not_written_again() {
    let (_lower_dir, root) = lower(true);
    let (_dir, store) = over(&[&root]);
    let blob = store.put_blob(b"blob of l").unwrap();
    assert!(!store.blob_path(&blob).exists());
    put_image(&store, "app", &["app"]);
    assert!(!store.oci_layout().join("index.json").exists());
    make_layer(&store, "l", &[("f", "other")]);
    let layer = store.layer(&layer_id("l")).unwrap().unwrap();
    assert!(layer.is_below);
    // A name that means something else here is changed here.
    put_image(&store, "other", &["app"]);
    put_image(&store, "app", &["app"]);
    assert_eq!(store.image(&name("app")).unwrap().unwrap().lower, None);
}

#[test]
fn the_upper_store_and_then_the_first_lower_one_decide() {
    let (_one_dir, one) = lower(false);
    let (_two_dir, two) = lower(false);
    let changed = |root: &Path, result: &str| {
        let store = Store::open(root).unwrap();
        store.put_record(&key("k"), &record(result, None)).unwrap();
        put_image(&store, result, &["app", result])
    };
    changed(&one, "one");
    let second = changed(&two, "two");
    let (_dir, store) = over(&[&one, &two]);
    let result = |store: &Store| store.record(&key("k")).unwrap().unwrap();
    assert_eq!(result(&store), record("one", None));
    let images = |store: &Store| -> Vec<(String, bool)> {
        let images = store.images().unwrap();
        let named = images.iter().flat_map(|image| {
            let names = image.names.iter();
            names.map(|name| (name.familiar(), image.lower.is_some()))
        });
        named.collect()
    };
    let named = |name: &str, below| (name.to_owned(), below);
    let mut all = images(&store);
    all.sort();
    assert_eq!(
        all,
        [
            named("app:latest", true),
            named("one:latest", true),
            named("two:latest", true)
        ]
    );
    assert_eq!(store.image(&name("two")).unwrap().unwrap().manifest, second);
    store.put_record(&key("k"), &record("mine", None)).unwrap();
    assert_eq!(result(&store), record("mine", None));
    store.put_image(Some(&name("one")), &second, None).unwrap();
    let mut all = images(&store);
    all.sort();
    assert_eq!(
        all,
        [
            named("app:latest", true),
            named("one:latest", false),
            named("two:latest", true)
        ]
    );
    // Names of lower stores are not taken away from here.
    assert!(!store.untag_image(&name("two")).unwrap());
}

#[test]
fn a_record_of_the_upper_store_may_speak_of_a_layer_below() {
    let (_lower_dir, root) = lower(false);
    let (dir, store) = over(&[&root]);
    store
        .put_record(&key("mine"), &record("r", Some("l")))
        .unwrap();
    assert!(store.record(&key("mine")).unwrap().is_some());
    assert_eq!(store.verify().unwrap(), []);
    store.prune(&PruneOptions::default()).unwrap();
    assert!(store.record(&key("mine")).unwrap().is_some());
    drop(store);
    // Without the lower store it is a miss, and nothing holds on to it.
    let alone = Store::open(&dir.path().join("state")).unwrap();
    assert_eq!(alone.record(&key("mine")).unwrap(), None);
    let pruned = alone.prune(&PruneOptions::default()).unwrap();
    assert_eq!(pruned.records.count, 1);
}

#[test]
fn trees_of_copies_are_not_used_and_their_blobs_are() {
    for packed in [false, true] {
        let (lower_dir, root) = lower(packed);
        let copy = lower_dir.path().join("copy");
        copy_tree(&root, &copy);
        let (_dir, store) = over(&[&copy]);
        assert_eq!(store.layer(&layer_id("l")).unwrap(), None);
        assert_eq!(store.has_layer(&layer_id("l")), packed);
        assert_eq!(store.record(&key("k")).unwrap().is_some(), packed);
        assert!(store.image(&name("app")).unwrap().is_some());
        let known = store.packed(&layer_id("l"), form()).unwrap();
        assert_eq!(known.is_some(), packed);
    }
}

#[test]
fn a_tree_whose_modes_were_changed_is_not_used() {
    let (_lower_dir, root) = lower(false);
    let fs_path = layer_dir(&root, "l").join("fs");
    fs::set_permissions(&fs_path, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(&fs_path, fs::Permissions::from_mode(0o755)).unwrap();
    let (_dir, store) = over(&[&root]);
    assert_eq!(store.layer(&layer_id("l")).unwrap(), None);
    // It is as good as ever for the store itself.
    let itself = Store::open(&root).unwrap();
    assert!(itself.layer(&layer_id("l")).unwrap().is_some());
}

#[test]
fn what_another_boot_left_unsynced_is_added_up_before_it_is_used() {
    let (_lower_dir, root) = lower(false);
    let store = Store::open(&root).unwrap();
    make_layer(&store, "torn", &[("f", "12345"), ("g", "")]);
    drop(store);
    after_another_boot(&root);
    fs::write(layer_dir(&root, "torn").join("fs/f"), "").unwrap();
    let before = everything(&root);
    let (_dir, store) = over(&[&root]);
    for _ in 0..2 {
        assert!(store.layer(&layer_id("l")).unwrap().is_some());
        assert_eq!(store.layer(&layer_id("torn")).unwrap(), None);
    }
    // Made anew, it is there.
    make_layer(&store, "torn", &[("f", "12345"), ("g", "")]);
    let layer = store.layer(&layer_id("torn")).unwrap().unwrap();
    assert!(!layer.is_below);
    assert_eq!(everything(&root), before);
}

#[test]
fn prune_waits_for_the_disk_so_that_others_need_not_add_up() {
    let (_lower_dir, root) = lower(true);
    let marks = root.join("v1/unsynced");
    let count = || {
        let boots = fs::read_dir(&marks).unwrap().map(|boot| boot.unwrap());
        boots
            .map(|boot| fs::read_dir(boot.path()).unwrap().count())
            .sum::<usize>()
    };
    assert_eq!(count(), 1);
    let store = Store::open(&root).unwrap();
    store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(count(), 0);
    assert!(store.layer(&layer_id("l")).unwrap().is_some());
}

#[test]
fn a_store_that_cannot_be_used_is_left_out_and_told() {
    let check = |spoil: &dyn Fn(&Path), expected: &str| {
        let (_lower_dir, root) = lower(true);
        spoil(&root);
        let (_dir, store) = over(&[&root]);
        let lowers = store.lowers();
        let problem = lowers[0].problem.as_deref().unwrap_or("none");
        assert!(problem.contains(expected), "{problem}");
        assert_eq!(store.record(&key("k")).unwrap(), None);
        assert!(store.image(&name("app")).unwrap().is_none());
        drop(store.use_shared().unwrap());
    };
    let format =
        |text: &'static str| move |root: &Path| fs::write(root.join("v1/format"), text).unwrap();
    check(
        &|root| fs::remove_dir_all(root).unwrap(),
        "no such directory",
    );
    check(
        &|root| fs::remove_dir_all(root.join("v1")).unwrap(),
        "no state directory",
    );
    check(
        &|root| fs::rename(root.join("v1"), root.join("v2")).unwrap(),
        "a later version",
    );
    check(&format("builder-store 7"), "another format");
    check(&format(""), "another format");
    let (_lower_dir, root) = lower(true);
    let itself = Store::open_over(&root, std::slice::from_ref(&root)).unwrap();
    let problem = itself.lowers()[0].problem.clone().unwrap();
    assert!(problem.contains("itself"), "{problem}");
    let (_dir, twice) = over(&[&root, &root]);
    let used = twice.lowers();
    let used = used.iter().map(|lower| lower.problem.is_none());
    assert_eq!(used.collect::<Vec<_>>(), [true, false]);
}

#[test]
fn what_is_damaged_below_is_not_there_and_stays_as_it_is() {
    let blob = Digest::of(b"blob of l");
    let check = |spoil: &dyn Fn(&Path), is_hit: bool| {
        let (_lower_dir, root) = lower(true);
        spoil(&root);
        let before = everything(&root);
        let (_dir, store) = over(&[&root]);
        let found = store.record(&key("k")).unwrap();
        assert_eq!(found.is_some(), is_hit);
        store.images().unwrap();
        // It can be made anew, above.
        make_layer(&store, "l", &[("f", "12345")]);
        store
            .put_record(&key("k"), &record("r", Some("l")))
            .unwrap();
        assert!(store.record(&key("k")).unwrap().is_some());
        store.put_blob(b"blob of l").unwrap();
        assert_eq!(store.read_blob(&blob, 100).unwrap().unwrap(), b"blob of l");
        assert_eq!(everything(&root), before);
    };
    let record_path = |root: &Path| {
        let text = key("k").to_string();
        root.join("v1/records")
            .join(&text[..2])
            .join(format!("{text}.json"))
    };
    let blob_path = |root: &Path| root.join("v1/oci/blobs/sha256").join(blob.hex());
    check(&|root| fs::write(record_path(root), "{").unwrap(), false);
    check(
        &|root| {
            // Neither is read: a FIFO has no end.
            for path in [record_path(root), blob_path(root)] {
                fs::remove_file(&path).unwrap();
                let mode = rustix::fs::Mode::RWXU;
                let fifo = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
            }
        },
        false,
    );
    check(&|root| fs::write(blob_path(root), "blob").unwrap(), true);
    check(
        &|root| fs::write(blob_path(root), "BLOB of l").unwrap(),
        true,
    );
    check(
        &|root| {
            fs::write(layer_dir(root, "l").join("layer.json"), "").unwrap();
            fs::write(blob_path(root), "blob").unwrap();
        },
        false,
    );
    check(
        &|root| fs::write(root.join("v1/oci/index.json"), "{").unwrap(),
        true,
    );
}

#[test]
fn a_lower_stores_own_prune_waits_for_its_readers_where_it_can_be_locked() {
    let (_lower_dir, root) = lower(true);
    let (_dir, store) = over(&[&root]);
    let in_use = store.use_shared().unwrap();
    let itself = Store::open(&root).unwrap();
    let busy = itself.prune(&PruneOptions::default());
    assert!(matches!(busy, Err(StoreError::Busy { .. })), "{busy:?}");
    drop(in_use);
    itself.prune(&PruneOptions::default()).unwrap();
    drop(itself);
    // Where there is no lock, none is made.
    let lock = root.join("v1/locks/in-use");
    fs::remove_file(&lock).unwrap();
    drop(store.use_shared().unwrap());
    assert!(!lock.exists());
}

#[test]
fn trees_of_a_kind_that_look_wrong_are_refused_and_what_is_lost_is_passed_over() {
    let (_lower_dir, root) = lower(true);
    let blob = Digest::of(b"blob of l");
    let itself = Store::open(&root).unwrap();
    let made = itself.put_witness(|dir| fs::write(dir.join("w"), "w"));
    made.unwrap().unwrap();
    itself.put_witness(|_| Err("again")).unwrap().unwrap();
    drop(itself);
    let (_dir, store) = over(&[&root]);
    store.set_ownership(Ownership::OnDisk);
    let seen = |dir: &Path| match dir.join("w").exists() {
        true => Ok(()),
        false => Err("no".to_owned()),
    };
    assert_eq!(store.refuse_trees(&seen), []);
    assert!(store.layer(&layer_id("l")).unwrap().is_some());
    let refused = store.refuse_trees(&|_| Err("why".to_owned()));
    assert_eq!(refused, [(root.clone(), "why".to_owned())]);
    assert_eq!(store.layer(&layer_id("l")).unwrap(), None);
    assert!(store.has_layer(&layer_id("l")));
    assert!(store.pass_over_blob(&blob));
    assert!(!store.pass_over_blob(&blob));
    assert!(store.blob(&blob).unwrap().is_none() && !store.has_layer(&layer_id("l")));
    assert_eq!(store.record(&key("k")).unwrap(), None);

    let (_dir, store) = over(&[&root]);
    assert!(store.pass_over_layer(&layer_id("l")));
    assert!(!store.pass_over_layer(&layer_id("l")));
    assert_eq!(store.layer(&layer_id("l")).unwrap(), None);
}

#[test]
fn trees_that_can_be_unpacked_again_are_pruned_where_that_is_wanted() {
    let (_dir, store) = store();
    for layer in ["packed", "bare"] {
        make_layer(&store, layer, &[("f", "12345")]);
        store
            .put_record(&key(layer), &record("r", Some(layer)))
            .unwrap();
    }
    pack(&store, "packed");
    // A base: its tree is named by its diff ID, its blob by its manifest.
    put_image(&store, "base", &["base"]);
    make_layer(&store, "tar of base", &[("f", "12345")]);
    let options = PruneOptions {
        trees: true,
        ..PruneOptions::default()
    };
    let pruned = store.prune(&options).unwrap();
    assert_eq!(
        (
            pruned.layers.count,
            pruned.records.count,
            pruned.blobs.count
        ),
        (2, 0, 0)
    );
    let is_tree = |layer: &str| store.layer(&layer_id(layer)).unwrap().is_some();
    assert!(is_tree("bare") && !is_tree("packed") && !is_tree("tar of base"));
    // Records of layers without trees hold on to their blobs.
    store.prune(&PruneOptions::default()).unwrap();
    for layer in ["packed", "bare"] {
        assert!(store.record(&key(layer)).unwrap().is_some(), "{layer}");
    }
    assert_eq!(store.verify().unwrap(), []);
}
