//! Layers as entries, and what they amount to.

use std::collections::BTreeMap;

use crate::layer::{Entry, EntryKind, Mtime, TarReader, TarWriter};
use crate::vocab::{Cancel, Ownership};

use super::super::sidecar::Sidecar;

use super::{
    Aspect, Change, Digests, Listed, ListedKind, Listing, ListingError, Unresolved, aspects,
    compare,
};

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o640,
        uid: 1,
        gid: 2,
        mtime: Mtime::default(),
        xattrs: BTreeMap::new(),
    }
}

/// `d/`, `f=content`, `l->target`, `h=>target`.
fn layer(entries: &[&str]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for text in entries {
        let mut content = &b""[..];
        let entry = if let Some((path, target)) = text.split_once("=>") {
            let target = target.as_bytes().to_vec();
            entry(path, EntryKind::HardLink { target })
        } else if let Some((path, target)) = text.split_once("->") {
            let target = target.as_bytes().to_vec();
            entry(path, EntryKind::Symlink { target })
        } else if let Some((path, text)) = text.split_once('=') {
            content = text.as_bytes();
            let size = content.len() as u64;
            entry(path, EntryKind::File { size })
        } else if let Some(path) = text.strip_suffix('/') {
            entry(path, EntryKind::Directory)
        } else {
            entry(text, EntryKind::File { size: 0 })
        };
        writer.entry(&entry, &mut content).unwrap();
    }
    writer.finish().unwrap()
}

fn listing(layers: &[&[&str]]) -> Result<Listing, ListingError> {
    let mut listing = Listing::new(Digests::Taken);
    for entries in layers {
        let bytes = layer(entries);
        listing.add(&mut TarReader::new(bytes.as_slice()))?;
    }
    Ok(listing)
}

fn shown((path, listed): (&[u8], &Listed)) -> String {
    let path = String::from_utf8_lossy(path);
    match &listed.kind {
        ListedKind::Directory => format!("{path}/"),
        ListedKind::Symlink { target } => format!("{path}->{}", String::from_utf8_lossy(target)),
        _ => format!("{path}:{}", listed.origin.layer),
    }
}

#[track_caller]
fn check(layers: &[&[&str]], expected: &str) {
    let listing = listing(layers).unwrap();
    let all: Vec<String> = listing.below(b"").map(shown).collect();
    assert_eq!(all.join(" "), expected);
}

#[test]
fn layers_cover_each_other() {
    check(&[], "");
    check(&[&["a/", "a/b=x", "c=y"], &["c=z"]], "a/ a/b:0 c:1");
    check(&[&["a/b=x"]], "a/ a/b:0");
    // A file takes the place of a directory, and the other way.
    check(&[&["a/b=x", "a-b=x"], &["a=y"]], "a:1 a-b:0");
    check(&[&["a=x"], &["a/b=y"]], "a/ a/b:1");
    // A directory that is described again keeps what is in it.
    check(&[&["a/", "a/b=x"], &["a/", "a/c=y"]], "a/ a/b:0 a/c:1");
    check(&[&["a=1", "a=2"]], "a:0");
    check(&[&["d/", "d/x=1", "d=2"]], "d:0");
}

#[test]
fn deletions_speak_of_lower_layers_only() {
    check(
        &[&["a/b=x", "a/c=y", "ab=z"], &["a/.wh.b"]],
        "a/ a/c:0 ab:0",
    );
    check(&[&["a/b=x", "ab=z"], &[".wh.a"]], "ab:0");
    check(&[&["a=x"], &["a=y", ".wh.a"]], "a:1");
    check(&[&["a/b=x"], &[".wh.a", "a/c=y"]], "a/ a/c:1");
    check(&[&["a/b=x"], &["a/c=y", "a/.wh..wh..opq"]], "a/ a/c:1");
    check(
        &[&["a=x"], &[".wh..wh..opq", "b=y"], &[".wh..wh.plnk"]],
        "b:1",
    );
    check(&[&[".wh.missing"]], "");
    let wrong = listing(&[&[".wh."]]);
    assert!(matches!(wrong, Err(ListingError::Deletion { .. })));
}

#[test]
fn links_of_the_same_layer_lead_on_and_those_below_are_covered() {
    check(&[&["usr/", "lib->usr", "lib/x=1"]], "lib->usr usr/ usr/x:0");
    check(&[&["usr/", "lib->/usr"], &["lib/x=1"]], "lib/ lib/x:1 usr/");
    check(
        &[&["d->../../d2", "d2/", "d/x=1"]],
        "d->../../d2 d2/ d2/x:0",
    );
    let wrong = listing(&[&["a->b", "b->a", "a/x=1"]]);
    assert!(matches!(wrong, Err(ListingError::Links { .. })));
    let wrong = listing(&[&["a=1", "a/x=1"]]);
    assert!(matches!(wrong, Err(ListingError::NoDirectory { .. })));
}

#[test]
fn names_of_one_file_have_one_origin() {
    let listing = listing(&[&["a=x", "b=>a"], &["c=>a", "a=y"]]).unwrap();
    let origin = |path: &[u8]| listing.get(path).unwrap().origin;
    assert_eq!(origin(b"b"), origin(b"c"));
    assert_eq!(origin(b"a").layer, 1);
    let wrong = super::tests::listing(&[&["b=>a"]]);
    assert!(matches!(wrong, Err(ListingError::Link { .. })));
}

#[test]
fn contents_are_told_apart_by_their_digests() {
    let listing = listing(&[&["a=x", "b=x", "c=y"]]).unwrap();
    let kind = |path: &[u8]| listing.get(path).unwrap().kind.clone();
    assert_eq!(kind(b"a"), kind(b"b"));
    assert_ne!(kind(b"a"), kind(b"c"));
}

#[test]
fn paths_lead_through_links_and_never_out() {
    let listing = listing(&[&[
        "etc/",
        "etc/conf=x",
        "link->etc",
        "abs->/etc/conf",
        "up->../../../etc",
        "loop->loop",
        "file=x",
    ]])
    .unwrap();
    let check = |path: &str, expected: Result<&str, Unresolved>| {
        let found = listing.resolve(path.as_bytes());
        let found = found.map(|path| String::from_utf8(path).unwrap());
        assert_eq!(found, expected.map(str::to_owned), "{path}");
    };
    check("/", Ok(""));
    check("etc/./conf", Ok("etc/conf"));
    check("/link/conf", Ok("etc/conf"));
    check("abs", Ok("etc/conf"));
    check("up/conf", Ok("etc/conf"));
    check("../../etc/../file", Ok("file"));
    check("nope", Err(Unresolved::Missing("/nope".into())));
    check("file/x", Err(Unresolved::NoDirectory("/file".into())));
    check("loop", Err(Unresolved::Links("/loop".into())));
}

#[test]
fn children_are_one_level() {
    let listing = listing(&[&["a/b/c=x", "a/d=x", "a-e=x"]]).unwrap();
    let names = |path: &[u8]| listing.children(path).map(shown).collect::<Vec<_>>();
    assert_eq!(names(b""), ["a/", "a-e:0"]);
    assert_eq!(names(b"a"), ["a/b/", "a/d:0"]);
}

#[test]
fn differences_are_told_file_by_file() {
    let before = listing(&[&["a/x=1", "a/y=2", "a/z->1", "b=1", "same=1"]]).unwrap();
    let after = listing(&[&["a/x=2", "a/z->2", "a/new=1", "b->a", "same=1"]]).unwrap();
    let told = |path: &'static [u8]| {
        let found = compare(&before, &after, path);
        let told = found.iter().map(|difference| {
            let path = String::from_utf8_lossy(difference.path);
            match difference.change {
                Change::Added(_) => format!("A {path}"),
                Change::Deleted(_) => format!("D {path}"),
                Change::Changed { before, after } => {
                    format!("C {path} {:?}", aspects(before, after))
                }
            }
        });
        told.collect::<Vec<_>>()
    };
    let all = [
        "A a/new",
        "C a/x [Content]",
        "D a/y",
        "C a/z [Target]",
        "C b [Type]",
    ];
    assert_eq!(told(b""), all);
    assert_eq!(told(b"a"), all[..4]);
    assert_eq!(told(b"a/x"), all[1..2]);
    assert!(told(b"same").is_empty());
    let mut other = before.get(b"same").unwrap().clone();
    (other.mode, other.uid) = (0o600, 9);
    other.mtime.seconds += 1;
    other.xattrs.insert(b"user.x".to_vec(), Vec::new());
    assert_eq!(
        aspects(before.get(b"same").unwrap(), &other),
        [Aspect::Mode, Aspect::Owner, Aspect::Attributes]
    );
}

#[test]
fn what_later_layers_delete_or_replace_is_known_by_its_layer() {
    let found = listing(&[
        &["d/", "d/a=1234", "d/b=12", "e=1", "kept=123", "empty="],
        &["d/.wh.a", "e=22", "same=>kept", ".wh.empty"],
        &[".wh.d", ".wh.kept"],
    ])
    .unwrap();
    let hidden: Vec<(String, u64, usize, usize, bool)> = found
        .hidden()
        .into_iter()
        .map(|hidden| {
            let path = String::from_utf8_lossy(&hidden.path).into_owned();
            let (layer, by) = (hidden.origin.layer, hidden.by);
            (path, hidden.size, layer, by, hidden.is_deleted)
        })
        .collect();
    // `kept` has another name still.
    assert_eq!(
        hidden,
        [
            ("d/a".to_owned(), 4, 0, 1, true),
            ("e".to_owned(), 1, 0, 1, false),
            ("d/b".to_owned(), 2, 0, 2, true),
        ]
    );
}

#[test]
fn a_layer_directory_amounts_to_what_its_archive_does() {
    let place = tempfile::tempdir().unwrap();
    let fs = place.path().join("fs");
    std::fs::create_dir_all(fs.join("d/e")).unwrap();
    std::fs::write(fs.join("d/e/f"), "12345").unwrap();
    std::fs::hard_link(fs.join("d/e/f"), fs.join("d/g")).unwrap();
    let mut beside = Sidecar::new(Ownership::OnDisk);
    beside.set_whiteout(b"d/old");
    beside.set_opaque(b"d/e");
    beside.write(&fs).unwrap();
    let lower = layer(&["d/", "d/old=123", "d/e/", "d/e/under=1"]);
    let mut found = Listing::new(Digests::Left);
    found.add(&mut TarReader::new(lower.as_slice())).unwrap();
    found.add_directory(&fs, &Cancel::new()).unwrap();
    let paths: Vec<&[u8]> = found.below(b"").map(|(path, _)| path).collect();
    assert_eq!(paths, [&b"d"[..], b"d/e", b"d/e/f", b"d/g"]);
    assert_eq!(
        found.get(b"d/e/f").unwrap().origin,
        found.get(b"d/g").unwrap().origin
    );
    let hidden: u64 = found.hidden().iter().map(|hidden| hidden.size).sum();
    assert_eq!(hidden, 4);
    assert!(
        found
            .add_directory(&fs.join("none"), &Cancel::new())
            .is_err()
    );
}
