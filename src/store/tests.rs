//! The store as several processes see it, some of which are killed.
//!
//! The processes are this test binary again, told by the environment to play a part in [`child`].

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::vocab::{
    CacheKey, Compression, Descriptor, DiffId, Digest, ImageRef, KeyComponent, LayerId, Platform,
    ResultId, Timestamp,
};

pub(super) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

pub(super) fn key(text: &str) -> CacheKey {
    CacheKey(Digest::of(text.as_bytes()))
}

pub(super) fn layer_id(text: &str) -> LayerId {
    LayerId(Digest::of(text.as_bytes()))
}

pub(super) fn name(text: &str) -> ImageRef {
    text.parse().unwrap()
}

pub(super) fn record(result: &str, layer: Option<&str>) -> Record {
    Record {
        result: ResultId(Digest::of(result.as_bytes())),
        layer: layer.map(layer_id),
        created: Timestamp::from_seconds(1_795_271_400),
        size: 5,
        duration_ms: 7,
        description: format!("[1/1] RUN {result}"),
        components: vec![KeyComponent {
            name: "command".into(),
            value: result.into(),
        }],
        alias_of: None,
    }
}

/// Makes a layer of some files.
pub(super) fn make_layer(store: &Store, text: &str, files: &[(&str, &str)]) {
    try_layer(store, text, files).unwrap();
}

fn try_layer(store: &Store, text: &str, files: &[(&str, &str)]) -> Result<Layer, StoreError> {
    let pending = store.new_layer()?;
    let mut size = 0;
    for (name, content) in files {
        let path = pending.fs().join(name);
        fs::write(&path, content).map_err(|error| StoreError::from_io(&path, "write", error))?;
        size += content.len() as u64;
    }
    pending.commit(&layer_id(text), size)
}

pub(super) fn config(text: &str) -> String {
    let diff_id = Digest::of(format!("tar of {text}").as_bytes());
    format!(
        r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}},"x":"{text}"}}"#
    )
}

/// Makes an image of one layer and puts it under names.
pub(super) fn put_image(store: &Store, text: &str, names: &[&str]) -> Descriptor {
    try_image(store, text, names).unwrap()
}

fn try_image(store: &Store, text: &str, names: &[&str]) -> Result<Descriptor, StoreError> {
    let mut writer = store.blob_writer()?;
    let blob = format!("layer of {text}");
    writer
        .write_all(blob.as_bytes())
        .map_err(|error| writer.error(error))?;
    let layer = Digest::of(blob.as_bytes());
    writer.commit(&layer)?;
    let config = config(text);
    let config_digest = store.put_blob(config.as_bytes())?;
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{config_digest}","size":{}}},"layers":[{{"digest":"{layer}","size":{}}}]}}"#,
        config.len(),
        blob.len(),
    );
    let manifest = Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        digest: store.put_blob(manifest.as_bytes())?,
        size: manifest.len() as u64,
    };
    let platform = Platform::new("linux", "arm64", None);
    for text in names {
        store.put_image(Some(&name(text)), &manifest, Some(&platform))?;
    }
    Ok(manifest)
}

/// Does everything that a build does, `round` telling one build from another, and prunes every third time.
fn build(store: &Store, round: u64) -> Result<(), StoreError> {
    let in_use = store.use_shared()?;
    store.sweep()?;
    let text = &format!("step {round}");
    let lock = store.lock(&key(text))?;
    if store.record(&key(text))?.is_none() {
        try_layer(store, text, &[("a", "12345"), ("b", text)])?;
        let mut writer = store.blob_writer()?.hashing();
        writer
            .write_all(text.as_bytes())
            .map_err(|error| writer.error(error))?;
        let digest = Digest::of(text.as_bytes());
        writer.commit_checked(&digest)?;
        let packed = Packed {
            diff_id: DiffId(digest),
            blob: Descriptor {
                media_type: "m".into(),
                digest,
                size: text.len() as u64,
            },
            uncompressed_size: text.len() as u64,
            members: Vec::new(),
        };
        store.put_packed(&layer_id(text), Compression::default().into(), &packed)?;
        store.put_record(&key(text), &record(text, Some(text)))?;
        let alias = Record {
            alias_of: Some(key(text)),
            ..record(text, Some(text))
        };
        store.put_record(&key(&format!("alias of {text}")), &alias)?;
    }
    drop(lock);
    drop(fs::write(store.work_dir()?.join("scratch"), "x"));
    try_image(store, text, &["app:latest"])?;
    drop(in_use);
    if round % 3 == 2 {
        let options = PruneOptions {
            all: round.is_multiple_of(2),
            ..PruneOptions::default()
        };
        match store.prune(&options) {
            Ok(_) | Err(StoreError::Busy { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Not a test by itself: what the processes of the other tests do.
#[test]
fn child() {
    let Ok(part) = std::env::var("BUILDER_STORE_CHILD") else {
        return;
    };
    let root = std::env::var_os("BUILDER_STORE_ROOT").unwrap();
    match part.as_str() {
        "builds" => {
            let store = Store::open(root.as_ref()).unwrap();
            for round in 0..4 {
                build(&store, round).unwrap();
            }
        }
        "full" => {
            let failed = Store::open(root.as_ref())
                .and_then(|store| (0..4).try_for_each(|round| build(&store, round)));
            match failed {
                Ok(()) => {}
                Err(error) if error.is_full() => std::process::abort(),
                Err(error) => panic!("{error:?}"),
            }
        }
        "builds for ever" => {
            for round in 0.. {
                let store = Store::open(root.as_ref()).unwrap();
                build(&store, round % 16).unwrap();
                say("round");
            }
        }
        "counts" => {
            // A read and a write that lose counts unless the lock excludes.
            let store = Store::open(root.as_ref()).unwrap();
            let path = Path::new(&root).join("count");
            for _ in 0..100 {
                let _lock = store.lock(&key("count")).unwrap();
                let count: u64 = fs::read_to_string(&path).map_or(0, |text| text.parse().unwrap());
                fs::write(&path, (count + 1).to_string()).unwrap();
            }
        }
        "holds" => {
            let store = Store::open(root.as_ref()).unwrap();
            let _lock = store.lock(&key("held")).unwrap();
            let _in_use = store.use_shared().unwrap();
            let pending = store.new_layer().unwrap();
            fs::write(pending.fs().join("f"), "x").unwrap();
            say("holding");
            // Until this process is killed.
            drop(std::io::stdin().read_line(&mut String::new()));
        }
        other => panic!("{other}"),
    }
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn say(word: &str) {
    println!("\n{word}");
}

fn start(root: &Path, part: &str, fault: Option<String>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "store::tests::child", "--nocapture"])
        .env("BUILDER_STORE_CHILD", part)
        .env("BUILDER_STORE_ROOT", root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(fault) = fault {
        command.env("BUILDER_STORE_FAULT", fault);
    }
    command.spawn().unwrap()
}

/// Reads the child's output up to the `count`th time that it says `word`.
fn hear(child: &mut Child, word: &str, count: usize) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let heard = lines
        .map_while(Result::ok)
        .filter(|line| line == word)
        .take(count);
    assert_eq!(heard.count(), count);
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Looks at a store that nobody uses: nothing visible is damaged, and a sweep leaves no trace of the dead.
fn check_sound(root: &Path, what: &str) {
    let store = Store::open(root).unwrap();
    assert_eq!(store.verify().unwrap(), [], "{what}");
    for round in 0..16 {
        let text = &format!("step {round}");
        for key in [key(text), key(&format!("alias of {text}"))] {
            if let Some(found) = store.record(&key).unwrap() {
                assert_eq!(found.layer, Some(layer_id(text)), "{what}");
                let layer = store.layer(&layer_id(text)).unwrap().expect(what);
                assert_eq!(fs::read_to_string(layer.fs.join("b")).unwrap(), *text);
            }
        }
        if let Some(packed) = store
            .packed(&layer_id(text), Compression::default().into())
            .unwrap()
        {
            let blob = store.read_blob(&packed.blob.digest, 100).unwrap();
            assert_eq!(blob.expect(what), text.as_bytes());
        }
    }
    assert_eq!(store.sweep().unwrap().left, 0, "{what}");
    for folder in ["tmp", "locks"] {
        let mut left = disk::names(&store.path(folder)).unwrap();
        left.retain(|name| name != "in-use");
        // The session that the check itself may have.
        left.retain(|name| {
            !name
                .to_str()
                .unwrap()
                .starts_with(&format!("{}-", std::process::id()))
        });
        assert!(left.is_empty(), "{what}: {left:?}");
    }
    build(&store, 1).expect(what);
    assert!(store.image(&name("app")).unwrap().is_some(), "{what}");
    assert_eq!(store.verify().unwrap(), [], "{what}");
}

#[test]
fn killed_at_any_change_of_the_disk_the_store_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let mut at = 1;
    loop {
        let root = dir.path().join(at.to_string());
        let status = start(&root, "builds", Some(format!("kill:{at}")))
            .wait()
            .unwrap();
        check_sound(&root, &format!("killed at {at}"));
        fs::remove_dir_all(&root).unwrap();
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(9), "at {at}");
        at += if at < 60 { 1 } else { 3 };
    }
    assert!(at > 100, "the builds have only {at} points");
}

#[test]
fn full_at_any_change_of_the_disk_the_store_says_so_and_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let mut at = 1;
    loop {
        let root = dir.path().join(at.to_string());
        let status = start(&root, "full", Some(format!("full:{at}")))
            .wait()
            .unwrap();
        check_sound(&root, &format!("full at {at}"));
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(6), "at {at}");
        at += if at < 40 { 1 } else { 5 };
    }
}

#[test]
fn killed_again_and_again_beside_others_the_store_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("state");
    for round in 0..8 {
        let mut children = [0, 1, 2].map(|_| start(&root, "builds for ever", None));
        for (at, child) in children.iter_mut().enumerate() {
            hear(child, "round", 1 + (round * 7 + at * 5) % 11);
        }
        children.into_iter().for_each(kill);
        check_sound(&root, &format!("round {round}"));
    }
}

#[test]
fn processes_and_threads_exclude_each_other() {
    let (dir, store) = store();
    let root = dir.path().join("state");
    let mut children = [0, 1, 2].map(|_| start(&root, "counts", None));
    let path = root.join("count");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _lock = store.lock_wait(&key("count"), &|| false).unwrap().unwrap();
                    let count: u64 =
                        fs::read_to_string(&path).map_or(0, |text| text.parse().unwrap());
                    fs::write(&path, (count + 1).to_string()).unwrap();
                }
            });
        }
    });
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "400");
    assert_eq!(store.sweep().unwrap(), Swept::default());
}

#[test]
fn what_a_living_process_has_stays_until_it_dies() {
    let (dir, store) = store();
    let mut child = start(&dir.path().join("state"), "holds", None);
    hear(&mut child, "holding", 1);
    let pid = child.id();
    assert!(matches!(
        store.try_lock(&key("held")).unwrap(),
        TryLock::Held { pid: Some(found) } if found == pid
    ));
    match store.prune(&PruneOptions::default()) {
        Err(StoreError::Busy { pids, .. }) => assert!(pids.is_empty() || pids == [pid]),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.sweep().unwrap(), Swept::default());
    assert_eq!(store.disk_usage().unwrap().tmp.bytes, 1);
    assert_eq!(store.disk_usage().unwrap().tmp.reclaimable, 0);
    kill(child);
    assert_eq!(store.disk_usage().unwrap().tmp.reclaimable, 1);
    let swept = store.sweep().unwrap();
    assert_eq!((swept.sessions, swept.locks, swept.left), (1, 1, 0));
    store.prune(&PruneOptions::default()).unwrap();
}

#[test]
fn opening_changes_nothing_and_the_session_goes_with_the_store() {
    let (dir, store) = store();
    assert_eq!(store.record(&key("k")).unwrap(), None);
    assert!(store.images().unwrap().is_empty());
    assert_eq!(store.verify().unwrap(), []);
    assert_eq!(store.disk_usage().unwrap(), DiskUsage::default());
    assert!(!dir.path().join("state").exists());
    fs::write(store.work_dir().unwrap().join("f"), "x").unwrap();
    let clone = store.clone();
    drop(store);
    assert!(clone.work_dir().unwrap().join("f").exists());
    let tmp = clone.path("tmp");
    drop(clone);
    assert!(disk::names(&tmp).unwrap().is_empty());
}

#[test]
fn another_format_is_refused_and_an_empty_one_is_a_crash() {
    let (dir, store) = store();
    let root = dir.path().join("state");
    put_image(&store, "one", &["a"]);
    for (content, version) in [("builder-store 2\n", true), ("junk\x07", true), ("", false)] {
        fs::write(store.path("format"), content).unwrap();
        match Store::open(&root) {
            Err(error @ StoreError::Version { .. }) => {
                assert!(version, "{content:?}");
                assert!(!error.to_string().contains('\x07'));
                assert!(error.hint().contains("--root"));
            }
            Ok(again) => {
                assert!(!version, "{content:?}");
                put_image(&again, "two", &["b"]);
                assert_eq!(again.images().unwrap().len(), 2);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    Store::open(&root).unwrap();
}

/// Lets the power go: names survive, but every file that was not synced is empty.
fn cut_power(store: Store) -> Store {
    let root = store.root().parent().unwrap().to_owned();
    let synced = fault::SYNCED.take();
    let mut waiting = vec![store.root().to_owned()];
    while let Some(folder) = waiting.pop() {
        for (_, path) in disk::entries(&folder).unwrap() {
            if path.is_dir() {
                waiting.push(path);
            } else if !synced.contains(&path) {
                fs::write(&path, "").unwrap();
            }
        }
    }
    for (_, boot) in disk::entries(&store.path("unsynced")).unwrap() {
        fs::rename(boot, store.path("unsynced/before")).unwrap();
    }
    drop(store);
    Store::open(&root).unwrap()
}

#[test]
fn a_power_cut_costs_what_can_be_made_again_and_nothing_else() {
    let (_dir, store) = store();
    build(&store, 0).unwrap();
    build(&store, 1).unwrap();
    let store = cut_power(store);
    for round in 0..2 {
        let text = &format!("step {round}");
        assert_eq!(store.record(&key(text)).unwrap(), None);
        assert_eq!(store.layer(&layer_id(text)).unwrap(), None);
        let packed = store.packed(&layer_id(text), Compression::default().into());
        assert_eq!(packed.unwrap(), None);
    }
    let image = store.image(&name("app")).unwrap().unwrap();
    for part in store.image_parts(&image.manifest.digest).unwrap() {
        assert!(store.read_blob(&part.digest, 1000).unwrap().is_some());
    }
    store.repair(&store.verify().unwrap()).unwrap();
    assert_eq!(store.sweep().unwrap().left, 0);
    assert_eq!(store.verify().unwrap(), []);
    build(&store, 0).unwrap();
    assert!(store.record(&key("step 0")).unwrap().is_some());
}

#[test]
fn a_power_cut_after_the_kernel_has_written_costs_nothing() {
    let (_dir, store) = store();
    build(&store, 0).unwrap();
    let mut waiting = vec![store.root().to_owned()];
    while let Some(folder) = waiting.pop() {
        for (_, path) in disk::entries(&folder).unwrap() {
            match path.is_dir() {
                true => waiting.push(path),
                false => fault::synced(&path),
            }
        }
    }
    let store = cut_power(store);
    // Its tree is hidden until a sweep has looked; it can be unpacked.
    assert_eq!(store.layer(&layer_id("step 0")).unwrap(), None);
    assert!(store.record(&key("step 0")).unwrap().is_some());
    assert_eq!(store.sweep().unwrap().layers, 0);
    assert!(store.layer(&layer_id("step 0")).unwrap().is_some());
}

#[test]
fn only_names_wait_for_the_disk_and_only_once() {
    let (_dir, store) = store();
    make_layer(&store, "l", &[("f", "x")]);
    store
        .put_record(&key("k"), &record("r", Some("l")))
        .unwrap();
    let manifest = put_image(&store, "one", &[]);
    assert_eq!(fault::SYNCED.take(), [""; 0].map(std::path::PathBuf::from));
    put_image(&store, "one", &["a"]);
    let synced = fault::SYNCED.take();
    let at = |path: &Path| {
        synced
            .iter()
            .position(|synced| synced == path)
            .expect("synced")
    };
    let index = at(&store.path("oci/index.json"));
    for part in store.image_parts(&manifest.digest).unwrap() {
        assert!(at(&store.blob_path(&part.digest)) < index);
    }
    assert!(at(&store.path("oci/blobs/sha256")) < index && index < at(&store.path("oci")));
    put_image(&store, "one", &["a"]);
    assert!(fault::SYNCED.take().is_empty());
}

/// Runs `test` on a small tmpfs that is unmounted with the thread, or says that it could not.
fn on_small_disk(test: impl FnOnce(&Path) + Send) {
    use nix::mount::{MsFlags, mount};
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            let none = None::<&str>;
            let mounted = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
                .and_then(|()| {
                    let options = Some("size=400k");
                    mount(none, dir.path(), Some("tmpfs"), MsFlags::empty(), options)
                });
            match mounted {
                Ok(()) => test(dir.path()),
                Err(error) => did_not_run(&format!("mounting needs root ({error})")),
            }
        });
        done.join().unwrap();
    });
}

/// Says so past the capture of the test's output; panics where the power is required.
pub(super) fn did_not_run(why: &str) {
    assert!(
        std::env::var_os("BUILDER_TEST_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{why}"
    );
    writeln!(std::io::stderr(), "\nTEST DID NOT RUN: {why}\n").expect("stderr is open");
}

#[test]
fn a_full_disk_is_told_and_pruning_frees_it() {
    on_small_disk(|path| {
        let store = Store::open(path).unwrap();
        build(&store, 0).unwrap();
        let filler = "x".repeat(20_000);
        let mut count = 0;
        let error = loop {
            match try_layer(&store, &format!("filler {count}"), &[("f", &filler)]) {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
        };
        assert!(error.is_full() && count > 5, "{count} {error:?}");
        assert!(error.hint().contains("prune"));
        // To the last page.
        while fs::write(path.join(format!("fill {count}")), &filler).is_ok() {
            count += 1;
        }
        assert!(try_image(&store, "more", &["more"]).unwrap_err().is_full());
        assert_eq!(store.verify().unwrap(), []);
        let pruned = store.prune(&PruneOptions::default()).unwrap();
        assert!(pruned.layers.count > 5 && pruned.failures.is_empty());
        put_image(&store, "more", &["more"]);
        assert_eq!(store.images().unwrap().len(), 2);
        assert_eq!(store.verify().unwrap(), []);
    });
}

#[test]
fn a_read_only_store_is_read_and_writing_says_why_not() {
    on_small_disk(|path| {
        use nix::mount::{MsFlags, mount};
        let root = path.join("state");
        build(&Store::open(&root).unwrap(), 0).unwrap();
        fs::write(root.join("v1/locks/stale"), "").unwrap();
        let none = None::<&str>;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, path, none, flags, none).unwrap();
        let store = Store::open(&root).unwrap();
        let _in_use = store.use_shared().unwrap();
        assert!(store.record(&key("step 0")).unwrap().is_some());
        assert!(store.image(&name("app")).unwrap().is_some());
        assert_eq!(store.verify().unwrap(), []);
        assert_eq!(store.sweep().unwrap(), Swept::default());
        let again = store.image(&name("app")).unwrap().unwrap();
        store
            .put_image(Some(&name("app")), &again.manifest, None)
            .unwrap();
        let error = store.put_blob(b"new").unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
        assert!(error.hint().contains("--root"));
        assert!(matches!(
            store.lock(&key("k")).unwrap_err(),
            StoreError::ReadOnly { .. }
        ));
    });
}

#[test]
fn a_file_in_the_place_of_the_store_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("file");
    fs::write(&root, "x").unwrap();
    let error = Store::open(&root)
        .and_then(|store| store.put_blob(b"x"))
        .unwrap_err();
    assert!(error.hint().contains("directory"), "{error:?}");
    assert_eq!(fs::read(&root).unwrap(), b"x");
}

/// `cargo test --release --lib store::tests::measure -- --ignored --nocapture`
#[test]
#[ignore = "prints a measurement"]
#[expect(clippy::print_stderr, reason = "prints a measurement")]
fn measure_opening_and_ten_hits() {
    let (dir, store) = store();
    let root = dir.path().join("state");
    let keys: Vec<_> = (0..10).map(|at| key(&format!("k{at}"))).collect();
    for (at, key) in keys.iter().enumerate() {
        let mut record = record("r", Some(&format!("l{at}")));
        for component in 0..20 {
            record.components.push(KeyComponent {
                name: format!("component {component}"),
                value: "v".repeat(64),
            });
        }
        make_layer(&store, &format!("l{at}"), &[("f", "x")]);
        store.put_record(key, &record).unwrap();
    }
    drop(store);
    let mut times: Vec<_> = (0..1001)
        .map(|_| {
            let start = std::time::Instant::now();
            let store = Store::open(&root).unwrap();
            for key in &keys {
                store.record(key).unwrap().unwrap();
            }
            start.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("median {:?}, worst of 1001 {:?}", times[500], times[1000]);
}
