//! What lies in shared caches, and pruning them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use builder::vocab::Timestamp;
use serde_json::Value;

use crate::support::lab::{Lab, Ran};
use crate::support::registry::{FakeRegistry, Fault};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const USED: &str = "builder.cache.used.v1";
const DAY: u64 = 24 * 60 * 60;

/// Pushes a base to a registry, and returns machines that can build on it, with nothing else in common.
fn machines<const N: usize>(registry: &FakeRegistry) -> Option<[Lab; N]> {
    let lab = Lab::with_base()?;
    let base = format!("{}/base:v1", registry.host());
    lab.builder(&["push", "base", &base]).succeeds();
    Some([(); N].map(|()| Lab::new()))
}

/// Writes a Dockerfile on that base.
fn dockerfile(lab: &Lab, registry: &FakeRegistry, steps: &str) {
    lab.dockerfile(&format!("FROM {}/base:v1\n{steps}", registry.host()));
}

/// Two steps, the first of which leaves something in a mount.
fn steps(name: &str) -> String {
    format!(
        "RUN --mount=type=cache,target=/c,id=c head -c 100000 /dev/urandom > /c/{name}; head -c 1000 /dev/urandom > /1\nRUN echo {name} > /2\n"
    )
}

fn local(lab: &Lab) -> String {
    lab.path("shared").to_str().unwrap().to_owned()
}

/// Returns the days before now as documents write them: today and yesterday, should one begin in between.
fn day(ago: u64) -> String {
    let then = SystemTime::now() - Duration::from_secs(ago * DAY);
    let since = then.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_seconds(since.as_secs() as i64).to_string()[..10].to_owned()
}

/// Makes a document of today one of twenty days ago.
fn aged(document: &str) -> String {
    let then = day(20);
    document.replace(&day(0), &then).replace(&day(1), &then)
}

fn age_tags(registry: &FakeRegistry, repository: &str) {
    for tag in registry.tags(repository) {
        let (_, bytes) = registry.manifest(repository, &tag).unwrap();
        let text = aged(std::str::from_utf8(&bytes).unwrap());
        registry.put_manifest(repository, &tag, MANIFEST, text.as_bytes());
    }
}

fn steps_of(registry: &FakeRegistry) -> Vec<String> {
    let mut tags = registry.tags("cache");
    tags.retain(|tag| tag.contains("-step-"));
    tags
}

fn age_directory(directory: &str) {
    let then = SystemTime::now() - Duration::from_secs(20 * DAY);
    for path in all_files(Path::new(directory)) {
        if path
            .parent()
            .is_some_and(|parent| parent.ends_with("entries"))
        {
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, aged(&text)).unwrap();
        }
        let file = fs::File::open(&path).unwrap();
        file.set_modified(then).unwrap();
    }
}

fn all_files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(all_files(&path)),
            false => {
                found.insert(path);
            }
        }
    }
    found
}

fn used(registry: &FakeRegistry, tag: &str) -> String {
    let (_, bytes) = registry.manifest("cache", tag).unwrap();
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    document["annotations"][USED].as_str().unwrap().to_owned()
}

fn count(lines: &[String], method: &str, part: &str) -> usize {
    let lines = lines.iter();
    lines
        .filter(|line| line.starts_with(method) && line.contains(part))
        .count()
}

fn writes(lines: &[String]) -> Vec<&String> {
    let lines = lines.iter();
    lines
        .filter(|line| !["GET", "HEAD", "TLS"].contains(&line.split(' ').next().unwrap()))
        .collect()
}

#[track_caller]
fn says(ran: &Ran, parts: &[&str]) {
    for part in parts {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
}

#[test]
fn what_lies_in_a_cache_is_listed_and_what_is_none_of_it_told_of() {
    let registry = FakeRegistry::start();
    let Some([lab]) = machines(&registry) else {
        return;
    };
    let directory = local(&lab);
    let repository = format!("{}/cache", registry.host());
    dockerfile(&lab, &registry, &steps("one"));
    lab.build(&["--cache", &directory, "--cache", &repository])
        .succeeds();
    for place in [&directory, &repository] {
        let ran = lab.builder(&["cache", "ls", "--remote", place]);
        ran.succeeds();
        says(
            &ran,
            &[
                &format!("{place}:\n"),
                "step    cache   ",
                "RUN echo one > /2",
                "mount   cache   ",
                "total: 2 steps, 1 cache mount: ",
            ],
        );
        assert!(!ran.stdout.contains("not of the cache"), "{}", ran.stdout);
        let none = ["cache", "ls", "--remote", place, "--scope", "other"];
        let ran = lab.builder(&none);
        says(ran.succeeds(), &["total: 0 steps, 0 cache mounts: 0B\n"]);
        let ran = lab.builder(&["cache", "ls", "--format=json", "--remote", place]);
        let told: Value = serde_json::from_str(&ran.succeeds().stdout).unwrap();
        let entries = told["places"][0]["entries"].as_array().unwrap();
        let sizes = entries.iter().map(|entry| entry["bytes"].as_u64().unwrap());
        // No two of them share a blob.
        assert_eq!(told["places"][0]["bytes"], sizes.sum::<u64>(), "{told}");
        assert_eq!(entries[2]["kind"], "mount");
        assert_eq!(entries[2]["description"], "c");
        assert!(entries[2]["bytes"].as_u64().unwrap() > 100_000, "{told}");
        assert_eq!(entries[0]["lastUsed"].as_str().unwrap()[..4], day(0)[..4]);
    }
    let zeros = "0".repeat(64);
    registry.put_manifest(
        "cache",
        &format!("cache-step-{zeros}"),
        MANIFEST,
        b"torn\x1b",
    );
    let foreign = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    registry.put_manifest("cache", &format!("a-mount-{zeros}"), MANIFEST, foreign);
    registry.put_manifest("cache", "v1", MANIFEST, foreign);
    let ran = lab.builder(&["cache", "ls", "--remote", &repository]);
    says(
        ran.succeeds(),
        &[
            "damaged   cache   ",
            "foreign   a  ",
            "; 1 damaged; 1 of other programs; 1 not of the cache\n",
        ],
    );
    assert!(!ran.stdout.contains('\x1b'));
    // The places that builds are told of by variables.
    let mut command = lab.command();
    command.args(["cache", "ls", "--remote"]);
    command.env("BUILDER_CACHE", format!("{directory};"));
    command.env(
        "BUILDER_CACHE_TO",
        format!("type=registry,ref={repository},mode=max"),
    );
    let ran = Ran::of(command.output().unwrap());
    says(
        ran.succeeds(),
        &[&format!("{directory}:\n"), &format!("{repository}:\n")],
    );
}

#[test]
fn without_remote_it_is_the_state_directory() {
    let registry = FakeRegistry::start();
    let Some([lab]) = machines(&registry) else {
        return;
    };
    dockerfile(&lab, &registry, &steps("one"));
    lab.build(&[]).succeeds();
    let du = lab.builder(&["du"]).succeeds().stdout.clone();
    let ran = lab.builder(&["cache", "ls"]);
    assert_eq!(ran.succeeds().stdout, du);
    let ran = lab.builder(&["cache", "prune", "--dry-run", "--keep-last", "100"]);
    says(ran.succeeds(), &[" 0 records, 0 cache mounts"]);
    let ran = lab.builder(&["cache", "prune", "--keep-last", "0"]);
    says(ran.succeeds(), &[" 1 cache mounts"]);
    assert_eq!(lab.build(&[]).succeeds().executed(), 2);
    lab.is_sound();
    // The last used is the last step. What it stands on stays as well.
    let ran = lab.builder(&["cache", "prune", "--keep-last", "1"]);
    says(ran.succeeds(), &["removed "]);
    lab.is_sound();
    lab.builder(&["cache", "ls", "--scope", "x"])
        .fails(2, &["--remote"]);
    lab.builder(&["cache", "ls", "--remote"])
        .fails(2, &["BUILDER_CACHE", "hint: "]);
    lab.builder(&["cache", "prune", "--remote", "/nowhere"])
        .fails(2, &["nothing says what may go", "--older-than"]);
}

#[test]
fn a_directory_loses_what_was_not_used_and_keeps_what_was() {
    let registry = FakeRegistry::start();
    let Some([first, second, third, fourth]) = machines(&registry) else {
        return;
    };
    let directory = local(&first);
    dockerfile(&first, &registry, &steps("old"));
    first.build(&["--cache", &directory]).succeeds();
    age_directory(&directory);
    dockerfile(&second, &registry, &steps("new"));
    second.build(&["--cache", &directory]).succeeds();
    let shared = Path::new(&directory);
    let state = || -> Vec<_> {
        let files = all_files(shared).into_iter();
        files
            .map(|path| {
                let metadata = fs::metadata(&path).unwrap();
                (path, metadata.modified().unwrap(), metadata.len())
            })
            .collect()
    };
    let before = state();
    let prune = ["cache", "prune", "--remote", &directory, "--older-than=10d"];
    let ran = first.builder(&[&prune[..], &["--dry-run"]].concat());
    says(
        ran.succeeds(),
        &[
            "RUN echo old > /2",
            "would remove 2 steps, 0 cache mounts, ",
        ],
    );
    assert!(!ran.stdout.contains("new"), "{}", ran.stdout);
    assert_eq!(state(), before);
    let ran = first.builder(&prune);
    says(ran.succeeds(), &["removed 2 steps, 0 cache mounts, "]);
    let left = all_files(shared);
    assert!(left.len() + 4 <= before.len(), "{left:#?}");
    let entries = shared.join("entries");
    let documents: String = left
        .iter()
        .filter(|path| path.starts_with(&entries))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let blobs = left.iter().filter(|path| !path.starts_with(&entries));
    for blob in blobs {
        let hex = blob.file_name().unwrap().to_str().unwrap();
        assert!(documents.contains(hex), "{hex}");
    }
    let says_nothing = first.builder(&prune);
    says(
        says_nothing.succeeds(),
        &["removed 0 steps, 0 cache mounts, 0 blobs: 0B"],
    );
    // What was kept is hit, whole; what went is performed.
    dockerfile(&third, &registry, &steps("new"));
    let ran = third.build(&["--cache-from", &directory, "-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    assert_eq!(third.saved("image").files().text("2"), "new\n");
    third.is_sound();
    dockerfile(&fourth, &registry, &steps("old"));
    let ran = fourth.build(&["--cache", &directory]);
    assert_eq!(ran.succeeds().executed(), 2, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("restore cache mount c"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
}

#[test]
fn a_registry_loses_what_was_not_used_and_nothing_else() {
    let registry = FakeRegistry::start();
    let Some([first, second, third]) = machines(&registry) else {
        return;
    };
    let repository = format!("{}/cache", registry.host());
    dockerfile(&first, &registry, &steps("old"));
    first.build(&["--cache", &repository]).succeeds();
    age_tags(&registry, "cache");
    let image = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    registry.put_manifest("cache", "v1", MANIFEST, image);
    dockerfile(&second, &registry, &steps("new"));
    second.build(&["--cache", &repository]).succeeds();
    registry.habits(|habits| habits.tags_per_page = Some(2));
    let before = registry.tags("cache");
    // Two steps, a mount and a trail of one; two steps, a trail and an image.
    assert_eq!(before.len(), 8);
    registry.take_log();
    let prune = [
        "cache",
        "prune",
        "--remote",
        &repository,
        "--older-than=10d",
    ];
    let ran = first.builder(&[&prune[..], &["--dry-run"]].concat());
    says(
        ran.succeeds(),
        &[
            "RUN echo old > /2",
            "would remove 2 steps, 0 cache mounts; up to ",
        ],
    );
    let lines = registry.take_lines();
    assert!(writes(&lines).is_empty(), "{lines:#?}");
    // A registry that deletes nothing.
    registry.habits(|habits| habits.refuses_deletion = Some(405));
    first
        .builder(&prune)
        .fails(6, &["does not let", "REGISTRY_STORAGE_DELETE_ENABLED=true"]);
    assert_eq!(registry.tags("cache"), before);
    registry.habits(|habits| habits.refuses_deletion = None);
    registry.take_log();
    let ran = first.builder(&prune);
    says(ran.succeeds(), &["removed 2 steps, 0 cache mounts; up to "]);
    let lines = registry.take_lines();
    assert_eq!(
        count(&lines, "DELETE", "/cache/manifests/sha256:"),
        3,
        "two steps, and the trail that led to them: {lines:#?}"
    );
    assert_eq!(writes(&lines).len(), 3, "{lines:#?}");
    assert_eq!(count(&lines, "GET", "/cache/manifests/"), 7, "{lines:#?}");
    assert_eq!(registry.tags("cache").len(), 5);
    dockerfile(&third, &registry, &steps("new"));
    let ran = third.build(&["--cache-from", &repository, "-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    assert_eq!(third.saved("image").files().text("2"), "new\n");
    // One that wants the names to go first.
    registry.habits(|habits| habits.wants_tags_deleted_first = Some(400));
    let all = ["cache", "prune", "--remote", &repository, "--max-size=0"];
    let ran = first.builder(&all);
    says(
        ran.succeeds(),
        &["removed 2 steps, 1 cache mount; up to ", "; 0B stay"],
    );
    assert_eq!(registry.tags("cache"), ["v1"]);
    let empty = format!("{}/nothing", registry.host());
    let ran = first.builder(&["cache", "prune", "--remote", &empty, "--keep-last=1"]);
    says(
        ran.succeeds(),
        &["removed 0 steps, 0 cache mounts; 0B stay"],
    );
}

#[test]
fn a_name_that_stays_keeps_what_it_stands_for() {
    let registry = FakeRegistry::start();
    let Some([lab]) = machines(&registry) else {
        return;
    };
    let repository = format!("{}/cache", registry.host());
    dockerfile(&lab, &registry, "RUN echo 1 > /1\nRUN echo 2 > /2\n");
    lab.build(&["--cache", &repository]).succeeds();
    let tags = steps_of(&registry);
    let [one, other] = tags.as_slice() else {
        panic!("{tags:?}");
    };
    let twin = one.replace("cache-", "branch-");
    let (_, shared) = registry.manifest("cache", one).unwrap();
    registry.put_manifest("cache", &twin, MANIFEST, &shared);
    let (_, named) = registry.manifest("cache", other).unwrap();
    registry.put_manifest("cache", "keep", MANIFEST, &named);
    let scope = [
        "cache",
        "prune",
        "--remote",
        &repository,
        "--keep-last=0",
        "--scope=branch",
    ];
    registry.habits(|habits| habits.refuses_tag_deletion = Some(400));
    let ran = lab.builder(&scope);
    says(
        ran.succeeds(),
        &["removed 0 steps", &format!("{twin} stays: another name")],
    );
    assert_eq!(registry.tags("cache").len(), 5);
    registry.habits(|habits| habits.refuses_tag_deletion = None);
    registry.take_log();
    let ran = lab.builder(&scope);
    says(ran.succeeds(), &["removed 1 step, 0 cache mounts; "]);
    let lines = registry.take_lines();
    let deleted = format!("DELETE /v2/cache/manifests/{twin} 202");
    assert_eq!(writes(&lines), [&deleted]);
    assert_eq!(registry.manifest("cache", one).unwrap().1, shared);
    // Both names of the cache at once, and one that an image has as well.
    registry.put_manifest("cache", &twin, MANIFEST, &shared);
    let all = ["cache", "prune", "--remote", &repository, "--keep-last=0"];
    let ran = lab.builder(&all);
    says(ran.succeeds(), &["removed 3 steps"]);
    let lines = registry.take_lines();
    assert_eq!(
        count(&lines, "DELETE", "/manifests/sha256:"),
        2,
        "and the trail, which leads nowhere: {lines:#?}"
    );
    assert_eq!(count(&lines, "DELETE", other), 1, "{lines:#?}");
    assert_eq!(registry.tags("cache"), ["keep"]);
    assert_eq!(registry.manifest("cache", "keep").unwrap().1, named);
}

#[test]
fn a_use_is_noted_once_a_day_and_never_where_a_place_is_only_read() {
    let registry = FakeRegistry::start();
    let Some([first, second, third, fourth]) = machines(&registry) else {
        return;
    };
    let repository = format!("{}/cache", registry.host());
    for lab in [&first, &second, &third, &fourth] {
        dockerfile(lab, &registry, "RUN echo 1 > /1\nRUN echo 2 > /2\n");
    }
    first.build(&["--cache", &repository]).succeeds();
    let tags = steps_of(&registry);
    assert_eq!(tags.len(), 2);
    let asked = |lab: &Lab, flag: &str| {
        registry.take_log();
        let ran = lab.build(&[flag, &repository]);
        assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
        let mut lines = registry.take_lines();
        lines.retain(|line| line.contains("/cache/"));
        lines
    };
    // What is fresh costs the look-ups, of steps and of the trail, and nothing else.
    let lines = asked(&second, "--cache");
    assert_eq!(count(&lines, "GET", "/cache/manifests/"), 3, "{lines:#?}");
    assert_eq!(count(&lines, "", "/manifests/"), 3, "{lines:#?}");
    assert!(writes(&lines).is_empty(), "{lines:#?}");
    age_tags(&registry, "cache");
    let old = tags
        .iter()
        .map(|tag| registry.manifest("cache", tag).unwrap());
    let old: Vec<_> = old.collect();
    let lines = asked(&third, "--cache-from");
    assert!(writes(&lines).is_empty(), "{lines:#?}");
    assert_eq!(count(&lines, "GET", "/cache/manifests/"), 3, "{lines:#?}");
    // Each is read again, and written.
    let lines = asked(&fourth, "--cache");
    assert_eq!(count(&lines, "GET", "/cache/manifests/"), 5, "{lines:#?}");
    assert_eq!(count(&lines, "PUT", "/cache/manifests/"), 3, "{lines:#?}");
    assert_eq!(writes(&lines).len(), 3, "{lines:#?}");
    for (tag, (_, old)) in tags.iter().zip(&old) {
        assert_ne!(used(&registry, tag)[..10], day(20));
        let parse = |bytes: &[u8]| -> Value {
            let mut document: Value = serde_json::from_slice(bytes).unwrap();
            document["annotations"]
                .as_object_mut()
                .unwrap()
                .remove(USED);
            document
        };
        let (_, new) = registry.manifest("cache", tag).unwrap();
        assert_eq!(parse(&new), parse(old));
    }
    let lines = asked(&fourth, "--cache");
    assert!(writes(&lines).is_empty(), "{lines:#?}");
    // One whose steps are all its own looks whether the place has them, and then knows.
    age_tags(&registry, "cache");
    let lines = asked(&first, "--cache");
    assert_eq!(count(&lines, "GET", "/cache/manifests/"), 3, "{lines:#?}");
    assert_eq!(count(&lines, "PUT", "/cache/manifests/"), 3, "{lines:#?}");
    // A registry where nothing is moved once it is there has no uses noted, and its builds do not suffer.
    age_tags(&registry, "cache");
    registry.habits(|habits| habits.immutable_tags = Some((409, "immutable".to_owned())));
    let lines = asked(&first, "--cache");
    assert!(count(&lines, "PUT", "/cache/manifests/") >= 1, "{lines:#?}");
    assert_eq!(used(&registry, &tags[0])[..10], day(20));
}

#[test]
fn documents_that_say_nothing_of_uses_count_by_when_they_were_made() {
    let registry = FakeRegistry::start();
    let Some([first, second]) = machines(&registry) else {
        return;
    };
    let repository = format!("{}/cache", registry.host());
    dockerfile(&first, &registry, "RUN echo 1 > /1\n");
    first.build(&["--cache", &repository]).succeeds();
    age_tags(&registry, "cache");
    let tag = steps_of(&registry).remove(0);
    let (_, bytes) = registry.manifest("cache", &tag).unwrap();
    let mut document: Value = serde_json::from_slice(&bytes).unwrap();
    document["annotations"]
        .as_object_mut()
        .unwrap()
        .remove(USED);
    registry.put_manifest("cache", &tag, MANIFEST, document.to_string().as_bytes());
    let prune = [
        "cache",
        "prune",
        "--remote",
        &repository,
        "--dry-run",
        "--older-than",
    ];
    let ran = first.builder(&[&prune[..], &["18d"]].concat());
    says(ran.succeeds(), &["would remove 1 step,"]);
    let ran = first.builder(&[&prune[..], &["22d"]].concat());
    says(ran.succeeds(), &["would remove 0 steps,"]);
    dockerfile(&second, &registry, "RUN echo 1 > /1\n");
    let ran = second.build(&["--cache", &repository]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    assert_ne!(used(&registry, &tag)[..10], day(20));
}

#[test]
fn a_use_of_a_mount_is_noted_too() {
    let registry = FakeRegistry::start();
    let Some([first, second]) = machines(&registry) else {
        return;
    };
    let repository = format!("{}/cache", registry.host());
    dockerfile(&first, &registry, &steps("one"));
    first.build(&["--cache", &repository]).succeeds();
    age_tags(&registry, "cache");
    let tags = registry.tags("cache");
    let mount = tags.iter().find(|tag| tag.contains("-mount-")).unwrap();
    let looks = "RUN --mount=type=cache,target=/c,id=c ls /c > /NAME\n";
    let build = |name: &str, flag: &str| {
        dockerfile(&second, &registry, &looks.replace("NAME", name));
        registry.take_log();
        let ran = second.build(&[flag, &repository]);
        assert_eq!(ran.succeeds().executed(), 1, "{}", ran.stderr);
        registry.take_lines()
    };
    let lines = build("first", "--cache-from");
    assert!(writes(&lines).is_empty(), "{lines:#?}");
    let lines = build("second", "--cache");
    assert_eq!(count(&lines, "PUT", mount), 1, "{lines:#?}");
    assert_ne!(used(&registry, mount)[..10], day(20));
    let lines = build("third", "--cache");
    assert_eq!(count(&lines, "PUT", mount), 0, "{lines:#?}");
    // Whatever the registry says to that, the build has done its work.
    age_tags(&registry, "cache");
    registry.faults("PUT", mount, &Fault::Status(403), 5);
    build("fourth", "--cache");
    assert_eq!(used(&registry, mount)[..10], day(20));
}

#[test]
fn whoever_publishes_while_a_directory_is_pruned_loses_nothing() {
    let registry = FakeRegistry::start();
    let Some([first, second]) = machines(&registry) else {
        return;
    };
    let directory = local(&first);
    dockerfile(&first, &registry, &steps("one"));
    first.build(&["--cache", &directory]).succeeds();
    // Old blobs that nothing names any more, and that the next build counts on.
    age_directory(&directory);
    fs::remove_dir_all(Path::new(&directory).join("entries")).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                let prune = [
                    "cache",
                    "prune",
                    "--remote",
                    &directory,
                    "--older-than=1000d",
                ];
                first.builder(&prune).succeeds();
            }
        });
        let ran = first.build(&["--cache", &directory]);
        is_done.store(true, Ordering::SeqCst);
        ran.succeeds();
    });
    dockerfile(&second, &registry, &steps("one"));
    let ran = second.build(&["--cache-from", &directory, "-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert_eq!(second.saved("image").files().text("2"), "one\n");
}
