//! Tests of the module beside.

use std::path::Path;

use super::*;
use crate::context::testing::{deep_directory, is_root, plant, plant_deep, remove_deep, set_mtime};
use crate::context::{Query, select};
use crate::dockerfile::IgnorePatterns;

fn digest_of(source: &Source, pattern: &str) -> String {
    let query = Query {
        pattern,
        parents: false,
        exclude: &[],
    };
    let selection = select(source, &query).unwrap();
    selection.digest(source).unwrap().hex()
}

fn digest(root: &Path, pattern: &str) -> String {
    digest_of(&Source::directory(root, None).unwrap(), pattern)
}

const TREE: &str = "
    dir s/d 750
    file s/d/f 640 = content
    file s/e
    link s/l -> d/f
    fifo s/p
";

/// Makes the tree, changes it, and tells whether the digest of `s` changed.
fn check(change: &str, changes_digest: bool) {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(a.path(), TREE);
    plant(b.path(), TREE);
    for line in change
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        if let Some(path) = line.strip_prefix("rm ") {
            std::fs::remove_file(b.path().join(path)).unwrap();
        } else {
            plant(b.path(), line);
        }
    }
    let is_changed = digest(a.path(), "s") != digest(b.path(), "s");
    assert_eq!(is_changed, changes_digest, "{change}");
}

#[test]
fn what_an_image_would_show_is_in_the_digest() {
    for change in [
        "file s/d/f 640 = Content",
        "file s/d/f 640 = content.",
        "file s/d/f 644 = content",
        "file s/d/f 4640 = content",
        "dir s/d 755",
        "file s/new",
        "dir s/new",
        "rm s/e",
        "rm s/l\nlink s/l -> d/g",
        "rm s/l\nfile s/l 777 = d/f",
        "rm s/e\nfifo s/e",
        "rm s/e\nhard s/e = s/d/f",
        "rm s/e\nfile s/E",
    ] {
        check(change, true);
    }
}

#[test]
fn what_an_image_would_not_show_is_not() {
    for change in [
        "",
        "time s/e 5",
        "time s/d 5",
        "time s 5",
        "dir s 700",
        "file other = x",
        // Rewritten in place, equal.
        "rm s/e\nfile s/e",
        // A second name outside of what is copied.
        "hard elsewhere = s/e",
        // A socket counts as an empty file.
        "rm s/e\nsocket s/e\nmode s/e 644",
    ] {
        check(change, false);
    }
}

#[test]
fn the_name_of_a_source_file_counts_but_not_that_of_a_directory() {
    let temp = tempfile::tempdir().unwrap();
    plant(
        temp.path(),
        "file a/f = 1\nfile b/f = 1\nfile c/g = 1\nlink d -> a",
    );
    let digest = |pattern| digest(temp.path(), pattern);
    assert_eq!(digest("a"), digest("b"));
    assert_eq!(digest("a"), digest("d"));
    assert_eq!(digest("a/f"), digest("b/f"));
    assert_ne!(digest("a/f"), digest("c/g"));
    assert_ne!(digest("a/f"), digest("a"));
    assert_ne!(digest("*/f"), digest("a/f"));
    assert_ne!(digest("nothing*"), digest("a/f"));
}

#[test]
fn host_owners_do_not_count_but_owners_in_a_stage_do() {
    if !is_root("host_owners_do_not_count_but_owners_in_a_stage_do") {
        return;
    }
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(a.path(), "file s/f\nfile s/d/x");
    plant(b.path(), "file s/f\nfile s/d/x\nown s/f 5 6\nown s/d 7 8");
    assert_eq!(digest(a.path(), "s"), digest(b.path(), "s"));
    let tree = |root: &Path| {
        let flags = rustix::fs::OFlags::DIRECTORY;
        Source::tree(
            rustix::fs::open(root, flags, rustix::fs::Mode::empty()).unwrap(),
            None,
        )
    };
    assert_eq!(digest_of(&tree(a.path()), "s"), digest(b.path(), "s"));
    assert_ne!(digest_of(&tree(b.path()), "s"), digest(b.path(), "s"));
}

#[test]
fn ignored_files_do_not_count() {
    let temp = tempfile::tempdir().unwrap();
    plant(temp.path(), TREE);
    let with = |ignore: &str| {
        let ignore = IgnorePatterns::parse(ignore).unwrap();
        digest_of(&Source::directory(temp.path(), Some(ignore)).unwrap(), "s")
    };
    let before = with("s/e");
    assert_ne!(before, with("nothing"));
    plant(temp.path(), "file s/e = changed");
    assert_eq!(before, with("s/e"));
    assert_eq!(before, with("s/e\ns/nothing"));
}

#[test]
fn excluded_files_do_not_count() {
    let temp = tempfile::tempdir().unwrap();
    plant(temp.path(), TREE);
    let source = Source::directory(temp.path(), None).unwrap();
    let with = |patterns: &[&str]| {
        let exclude: Vec<String> = patterns.iter().map(|text| text.to_string()).collect();
        let query = Query {
            pattern: "s",
            parents: false,
            exclude: &exclude,
        };
        select(&source, &query).unwrap().digest(&source).unwrap()
    };
    let before = with(&["e"]);
    plant(temp.path(), "file s/e = changed");
    assert_eq!(before, with(&["e"]));
    assert_ne!(before, with(&[]));
}

#[test]
fn with_parents_the_directories_on_the_way_count() {
    let digest = |tree: &str| {
        let temp = tempfile::tempdir().unwrap();
        plant(temp.path(), tree);
        let source = Source::directory(temp.path(), None).unwrap();
        let query = Query {
            pattern: "a/./b/*",
            parents: true,
            exclude: &[],
        };
        select(&source, &query).unwrap().digest(&source).unwrap()
    };
    let base = digest("file a/b/c\nfile a/z");
    assert_eq!(base, digest("file a/b/c\ndir a 700"));
    assert_ne!(base, digest("file a/b/c\ndir a/b 700"));
    assert_ne!(base, digest("file a/b/c\nfile a/b/d"));
}

#[test]
fn attributes_of_users_count_and_others_do_not() {
    let temp = tempfile::tempdir().unwrap();
    plant(temp.path(), "file s/f\ndir s/d");
    let before = digest(temp.path(), "s");
    let set = |path: &str, name: &str| {
        let path = temp.path().join(path);
        rustix::fs::setxattr(&path, name, b"1", rustix::fs::XattrFlags::empty())
    };
    set("s/f", "user.overlay.opaque").unwrap();
    assert_eq!(before, digest(temp.path(), "s"));
    set("s/f", "user.a").unwrap();
    let with_file = digest(temp.path(), "s");
    assert_ne!(before, with_file);
    set("s/d", "user.a").unwrap();
    assert_ne!(with_file, digest(temp.path(), "s"));
}

#[test]
fn threads_and_caches_do_not_change_the_digest() {
    let temp = tempfile::tempdir().unwrap();
    let mut tree = String::new();
    for file in 0..3000 {
        tree += &format!("file s/d{}/f{file} = content {file}\n", file % 100);
    }
    plant(temp.path(), &tree);
    std::fs::write(temp.path().join("s/large"), vec![7; 3 * CHUNK + 5]).unwrap();
    let expected = digest(temp.path(), "s");
    let cache = tempfile::tempdir().unwrap();
    for threads in [1, 2, 5] {
        let open = || {
            Source::directory(temp.path(), None)
                .unwrap()
                .with_threads(threads)
        };
        assert_eq!(digest_of(&open(), "s"), expected);
        let path = cache.path().join(threads.to_string());
        for _ in 0..2 {
            let source = open().with_stat_cache(path.clone());
            assert_eq!(digest_of(&source, "s"), expected);
            assert_eq!(digest_of(&source, "s"), expected);
        }
    }
}

#[test]
fn a_changed_file_is_seen_through_the_cache() {
    let (temp, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(temp.path(), "file s/f = one");
    set_mtime(&temp.path().join("s/f"), 1000);
    let open = || {
        Source::directory(temp.path(), None)
            .unwrap()
            .with_stat_cache(cache.path().join("stat"))
    };
    let before = digest_of(&open(), "s");
    // Same length, same mtime, same inode: only the ctime tells, and it may be the same tick as before.
    std::fs::write(temp.path().join("s/f"), "two").unwrap();
    set_mtime(&temp.path().join("s/f"), 1000);
    let after = digest_of(&open(), "s");
    assert_ne!(before, after);
    assert_eq!(after, digest(temp.path(), "s"));
}

#[test]
fn unchanged_files_are_not_read_again() {
    if !is_root("unchanged_files_are_not_read_again") {
        return;
    }
    let (temp, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(temp.path(), "file s/f = content");
    let open = || {
        Source::directory(temp.path(), None)
            .unwrap()
            .with_stat_cache(cache.path().join("stat"))
    };
    let meta = Meta::at(rustix::fs::CWD, temp.path().join("s/f")).unwrap();
    let key = StatCache::key(b"s/f", &meta);
    let mut planted = StatCache::new(cache.path().join("stat"));
    let later = Mtime {
        seconds: meta.ctime.seconds + 10,
        nanoseconds: 0,
    };
    planted.insert(key, &meta, [9; 32], later);
    planted.save().unwrap();
    // What the cache says is believed, so the file was not read.
    assert_ne!(digest_of(&open(), "s"), digest(temp.path(), "s"));
}

#[test]
fn a_tree_five_thousand_deep_has_a_digest() {
    let temp = deep_directory();
    plant_deep(temp.path(), 5000);
    digest(temp.path(), ".");
    remove_deep(&temp.path().join("d"));
}

#[test]
fn pinned_example() {
    let temp = tempfile::tempdir().unwrap();
    plant(
        temp.path(),
        "
        dir s/d 750
        file s/d/f 4755 = content
        hard s/d/g = s/d/f
        link s/l -> d/f
        fifo s/p
        file s/empty 600
        ",
    );
    assert_eq!(digest(temp.path(), "s"), PINNED);
}

/// If this changes, every COPY of every user runs again: raise `FORMAT` and know why.
const PINNED: &str = "8d15979ac099e6a6d2c8b0d4f9e9f59149c2d6057ebe0c3becf6d13263bbf022";
