//! Tests of the module beside: when two roots are the same for a copy.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, XattrFlags, open, setxattr};

use super::*;
use crate::context::testing::{is_root, plant};
use crate::context::{Query, select};

/// The context of all tests here.
const CONTEXT: &str = "
    file a = a
    dir d
    file d/in = in
    file d/sub/deep = deep
    dir empty
";

/// Returns the facts of `COPY` with the words of `instruction` (`--parents`, sources, `<<NAME`, destination) in a root.
fn facts_in(root: &Path, instruction: &str) -> Option<Digest> {
    let context = tempfile::tempdir().unwrap();
    plant(context.path(), CONTEXT);
    let source = Source::directory(context.path(), None).unwrap();
    let mut words: Vec<&str> = instruction.split_whitespace().collect();
    let destination = words.pop().unwrap();
    let parents = words.first() == Some(&"--parents");
    let selections: Vec<(&str, Option<Selection>)> = words[usize::from(parents)..]
        .iter()
        .map(|&word| {
            let query = Query {
                pattern: word,
                parents,
                exclude: &[],
            };
            let is_inline = word.starts_with("<<");
            (word, (!is_inline).then(|| select(&source, &query).unwrap()))
        })
        .collect();
    let items: Vec<Item<'_>> = selections
        .iter()
        .map(|(word, selection)| match selection {
            Some(selection) => Item::Selected {
                source: &source,
                selection,
            },
            None => Item::Inline {
                name: &word[2..],
                content: b"",
            },
        })
        .collect();
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    destination_facts(&tree(&root), &items, destination, parents).unwrap()
}

fn tree(root: impl AsFd) -> Tree {
    Tree::from_fd(root.as_fd().try_clone_to_owned().unwrap())
}

fn facts(root: &str, instruction: &str) -> Option<Digest> {
    let directory = tempfile::tempdir().unwrap();
    plant(directory.path(), root);
    facts_in(directory.path(), instruction)
}

/// Plants both roots and compares what is told of them: `Some(true)` if it is the same.
#[track_caller]
fn check(instruction: &str, one: &str, other: &str, expected: Option<bool>) {
    if !is_root("facts of a root") {
        return;
    }
    let (first, second) = (facts(one, instruction), facts(other, instruction));
    let found = first.zip(second).map(|(first, second)| first == second);
    assert_eq!(found, expected, "COPY {instruction} on {one} and {other}");
}

#[test]
fn what_lies_elsewhere_does_not_count() {
    let (same, unknown) = (Some(true), None);
    check("a /x", "", "file other = 1", same);
    check("a /x/", "", "file other = 1", same);
    check("d /x/y", "", "dir deep/er", same);
    check("a /x", "file other = 1\ntime . 5", "time . 6", same);
    // A way that is there, with something beside it.
    let way = "dir usr 755\ndir usr/local 711\ntime usr/local 5\ntime usr 5";
    let beside =
        "dir usr 755\ndir usr/local 711\nfile usr/local/b = b\ntime usr/local 6\ntime usr 5";
    check("a /usr/local/", way, beside, same);
    check("a /usr/local", way, beside, same);
    check("a /usr/local/x/y", way, beside, same);
    check("d /usr/local", way, beside, same);
    check("<<EOF /usr/local", way, beside, same);
    check("a <<EOF d /usr/local/", way, beside, same);
    check("--parents d/sub/deep /usr/local", way, beside, same);
    check("a b* /usr/local/", way, beside, same);
    // Nothing would be put there: the directory's own time might show.
    check("b* /usr/local/", way, beside, unknown);
    check("empty /usr/local/", way, beside, unknown);
}

#[test]
fn names_that_are_taken_tell_nothing() {
    for (instruction, root) in [
        ("a /x", "file x = a"),
        ("a /x/", "file x/a = a"),
        ("a /x", "file x/a = a"),
        ("a /x", "dir x/a"),
        ("d /x", "file x/in = in"),
        ("d /x", "dir x/sub"),
        ("d /", "link sub -> x"),
        ("<<EOF /x/", "file x/EOF ="),
        ("--parents d/sub/deep /x", "dir x/d"),
        // What would fail.
        ("d /x", "file x = x"),
        ("a /x/y", "file x = x"),
        ("a /x/y", "link x -> y\nlink y -> x\n"),
    ] {
        if is_root("facts of a root") {
            let directory = tempfile::tempdir().unwrap();
            plant(directory.path(), root);
            // Links in circles are an error, which the caller takes for no answer.
            let found = std::panic::catch_unwind(|| facts_in(directory.path(), instruction));
            assert!(
                !matches!(found, Ok(Some(_))),
                "COPY {instruction} on {root}"
            );
        }
    }
    check("d /x", "file x/deep = 1", "file x/other = 1", Some(true));
    check(
        "--parents d/sub/deep /x",
        "file x/deep = 1",
        "file x/sub = 1",
        Some(true),
    );
}

#[test]
fn the_way_counts_with_all_that_a_layer_records_of_it() {
    let differ = Some(false);
    let way = "dir p/q 755\ntime p/q 5\ntime p 5";
    check(
        "a /p/q/x",
        way,
        "dir p/q 755\ntime p/q 6\ntime p 5",
        Some(true),
    );
    for other in [
        "",
        "dir p\ntime p 5",
        "dir p/q 711\ntime p/q 5\ntime p 5",
        "dir p/q 755\nmode p 711\ntime p/q 5\ntime p 5",
        "dir p/q 755\nown p/q 1 0\ntime p/q 5\ntime p 5",
        "dir p/q 755\nown p 0 1\ntime p/q 5\ntime p 5",
        "dir p/q 755\ntime p/q 5\ntime p 6",
        "dir p/q 755\ntime p/q 5\ntime p 5\nmode . 700",
        "dir p/q 755\ntime p/q 5\ntime p 5\nown . 1 1",
    ] {
        check("a /p/q/x", way, other, differ);
    }
    // A directory and a free name are two things.
    check("a /x", "", "dir x", differ);
    check("a /x", "", "link x -> y", differ);
}

#[test]
fn links_count_by_where_they_lead() {
    let real = "dir real/q\ntime real/q 5\ntime real 5\n";
    let through = |link: &str| format!("{real}{link}");
    let (absolute, relative) = (through("link p -> /real"), through("link p -> real"));
    check("a /p/q/x", &absolute, &relative, Some(true));
    check(
        "a /p/q/x",
        &absolute,
        &through("link p -> /else"),
        Some(false),
    );
    // A link that dangles is its target's missing name, whatever the link's own.
    check("a /p", "link p -> gone", "link p -> /gone", Some(true));
    check("a /p", "link p -> gone", "link p -> lost", Some(false));
    check(
        "a /p/x",
        "link p -> /gone/far",
        "link p -> gone/far",
        Some(true),
    );
    check("a /p/x", "link p -> gone/../far", "", None);
}

#[test]
fn attributes_of_the_way_count() {
    if !is_root("facts of a root") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    plant(root.path(), "dir p");
    let before = facts_in(root.path(), "a /p/x").unwrap();
    let path = root.path().join("p");
    if setxattr(&path, "user.note", b"1", XattrFlags::empty()).is_ok() {
        assert_ne!(facts_in(root.path(), "a /p/x"), Some(before));
        assert_ne!(facts_in(root.path(), "a /p/y/x"), Some(before));
    }
}

#[test]
fn many_names_are_compared_with_a_listing() {
    if !is_root("facts of a root") {
        return;
    }
    let (context, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for number in 0..LOOKED_UP * 2 {
        std::fs::write(context.path().join(format!("n{number}")), "").unwrap();
    }
    let source = Source::directory(context.path(), None).unwrap();
    let query = Query {
        pattern: "/",
        parents: false,
        exclude: &[],
    };
    let selection = select(&source, &query).unwrap();
    let items = [Item::Selected {
        source: &source,
        selection: &selection,
    }];
    let opened = openat_root(root.path());
    let facts = || destination_facts(&tree(&opened), &items, "/", false).unwrap();
    let before = facts();
    assert!(before.is_some());
    std::fs::write(root.path().join("beside"), "").unwrap();
    assert_eq!(facts(), before);
    std::fs::write(root.path().join("n77"), "").unwrap();
    assert_eq!(facts(), None);
}

fn openat_root(path: &Path) -> std::os::fd::OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

#[test]
fn a_directory_that_is_there_depends_on_nothing_but_the_root() {
    if !is_root("facts of a root") {
        return;
    }
    let facts = |lines: &str, path: &str| {
        let root = tempfile::tempdir().unwrap();
        plant(root.path(), lines);
        directory_facts(&tree(openat_root(root.path())), path).unwrap()
    };
    assert_eq!(
        facts("dir p/q 700", "/p/q"),
        facts("dir p/q 711\nown p 1 1", "/p/q")
    );
    assert_ne!(facts("dir p/q 700", "/p/q"), facts("dir p 700", "/p/q"));
    assert_eq!(
        facts("dir p\ntime p 5", "/p/q"),
        facts("dir p\nfile p/x =\ntime p 6", "/p/q")
    );
    assert_eq!(facts("file p =", "/p/q"), None);
    assert_eq!(
        facts("dir p\nlink w -> /p/q", "/w"),
        facts("dir p\nlink w -> p/q", "/w")
    );
}
