//! Composed trees show and tell what overlayfs shows and tells.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use proptest::prelude::*;

use super::super::*;
use super::archive::Archive;
use super::property::{Edit, edit, make};
use super::snapshot::snapshot;
use super::{Room, can_mount, diff_with, inside, is_root, not_run, read_only};
use crate::layer::{LayerWriter, TarReader};
use crate::vocab::{Cancel, Compression, DeviceNumber, Ledger, Ownership};

/// Later times are the test's own.
const LONG_AGO: Times = Times::AtMost(1_000_000_000);

/// A stage that is built on trees.
struct Stage {
    trees: Trees,
    chain: Vec<PathBuf>,
    room: Room,
}

impl Stage {
    fn new(room: &Room) -> Stage {
        Stage {
            trees: Trees::new(room.0.join("trees"), Ownership::OnDisk),
            chain: Vec::new(),
            room: Room::new(&room.0),
        }
    }

    /// Performs a step; returns its layer directory.
    fn step(&mut self, name: &str, step: impl FnOnce(&Tree)) -> PathBuf {
        let mut writer = self.trees.write(&self.chain, &Cancel::new()).unwrap();
        step(&writer.tree().unwrap());
        let layer = self.room.dir(&format!("{name}/fs"));
        writer.fill(&layer, &Cancel::new()).unwrap();
        writer.seal(layer.clone());
        self.chain.push(layer.clone());
        layer
    }

    fn read(&self) -> Tree {
        self.trees.read(&self.chain, &Cancel::new()).unwrap()
    }

    /// Returns the entries of the topmost layer.
    fn entries(&self) -> Vec<String> {
        let (top, lowers) = self.chain.split_last().unwrap();
        let (tar, _) = diff_with(top, lowers, LONG_AGO).unwrap();
        names(&tar)
    }

    fn is_as_composed_anew(&self) {
        let other = Trees::new(self.room.0.join("others"), Ownership::OnDisk);
        let anew = other.read(&self.chain, &Cancel::new()).unwrap();
        assert_eq!(snapshot(&self.read()), snapshot(&anew));
    }
}

/// overlayfs gives a name a file of its own when it is opened for writing, and what is not written is in no layer: the image
/// has one file there, and the mount shows two.
fn opens_a_twin(mounted: &Tree, edit: &Edit) -> bool {
    match edit {
        Edit::Open(path) => {
            fs::metadata(inside(mounted, path)).is_ok_and(|found| found.nlink() > 1)
        }
        _ => false,
    }
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    let name = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        match entry.link_name_bytes() {
            Some(target) if entry.header().entry_type().is_hard_link() => {
                format!("{path} = {}", String::from_utf8_lossy(&target))
            }
            _ => path,
        }
    };
    entries.map(name).collect()
}

fn whole(tree: &Tree) -> Vec<u8> {
    let mut out = LayerWriter::new(Vec::new(), Compression::Uncompressed, 1);
    write_tree(tree, "", LONG_AGO, &mut out, &Cancel::new()).unwrap();
    out.finish().unwrap().0
}

fn check(rounds: &[Vec<Edit>]) {
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let mut lowers = Vec::new();
    let mut stage = Stage::new(&room);
    for (round, edits) in rounds.iter().enumerate() {
        let (mounted, upper) = room.writable(&lowers, &format!("upper-{round}"));
        let layer = stage.step(&format!("layer-{round}"), |tree| {
            for edit in edits {
                if opens_a_twin(&mounted, edit) {
                    continue;
                }
                // overlayfs refuses to move directories of the base; whoever asks copies them.
                if make(&mounted, edit).is_some() {
                    make(tree, edit);
                }
            }
        });
        drop(mounted);
        let (expected, _) = diff_with(&upper, &lowers, LONG_AGO).unwrap();
        let below = &stage.chain[..round];
        let (found, _) = diff_with(&layer, below, LONG_AGO).unwrap();
        assert_eq!(
            names(&found),
            names(&expected),
            "round {round}, the layer's names"
        );
        assert!(found == expected, "round {round}, the layer's bytes");
        lowers.push(upper);
        let merged = read_only(&lowers);
        assert!(
            whole(&stage.read()) == whole(&merged),
            "round {round}, the whole"
        );
        stage.is_as_composed_anew();
    }
}

#[test]
fn a_tree_gives_the_layers_that_overlayfs_gives() {
    if !can_mount("a_tree_gives_the_layers_that_overlayfs_gives") {
        return;
    }
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    // Each case is a few mounts and some hundred files; more on demand.
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 48;
    }
    let rounds = prop::collection::vec(prop::collection::vec(edit(), 1..25), 1..4);
    proptest!(config, |(rounds in rounds)| check(&rounds));
}

#[test]
fn every_kind_of_change_is_seen_and_nothing_else() {
    if !is_root("every_kind_of_change_is_seen_and_nothing_else") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let mut stage = Stage::new(&room);
    let files = [
        "content", "mode", "owner", "xattr", "time", "same", "gone", "kept", "moved",
    ];
    stage.step("base", |tree| {
        let at = |path: &str| inside(tree, path);
        fs::create_dir(at("d")).unwrap();
        fs::create_dir(at("quiet")).unwrap();
        fs::write(at("quiet/file"), "abc").unwrap();
        for name in files {
            fs::write(at(&format!("d/{name}")), "abc").unwrap();
        }
    });
    stage.step("changes", |tree| {
        let at = |name: &str| inside(tree, &format!("d/{name}"));
        let time = fs::metadata(at("content")).unwrap().modified().unwrap();
        fs::write(at("content"), "xyz").unwrap();
        let file = fs::File::options().write(true).open(at("content")).unwrap();
        file.set_modified(time).unwrap();
        fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::lchown(at("owner"), Some(0), Some(0)).unwrap();
        let note = "user.note";
        rustix::fs::setxattr(at("xattr"), note, b"1", rustix::fs::XattrFlags::empty()).unwrap();
        let file = fs::File::options().write(true).open(at("time")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        // Written again as it was: in the layer directory, not in the layer.
        let time = fs::metadata(at("same")).unwrap().modified().unwrap();
        fs::write(at("same"), "abc").unwrap();
        let file = fs::File::options().write(true).open(at("same")).unwrap();
        file.set_modified(time).unwrap();
        fs::remove_file(at("gone")).unwrap();
        fs::rename(at("moved"), at("here")).unwrap();
        fs::read(at("kept")).unwrap();
    });
    assert_eq!(
        stage.entries(),
        [
            "d/",
            "d/content",
            "d/.wh.gone",
            "d/here",
            "d/mode",
            "d/.wh.moved",
            "d/time",
            "d/xattr"
        ]
    );
    let layer = stage.chain.last().unwrap();
    assert!(!layer.join("d/kept").exists() && !layer.join("quiet").exists());
    assert!(layer.join("d/same").exists());
    stage.is_as_composed_anew();
}

#[test]
fn a_step_takes_the_tree_of_the_step_before() {
    if !is_root("a_step_takes_the_tree_of_the_step_before") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let mut stage = Stage::new(&room);
    stage.step("first", |tree| fs::write(inside(tree, "a"), "1").unwrap());
    let inode = |tree: &Tree| fs::metadata(inside(tree, "a")).unwrap().ino();
    let mut first = 0;
    stage.step("second", |tree| {
        first = inode(tree);
        fs::write(inside(tree, "b"), "2").unwrap();
    });
    let cancel = Cancel::new();
    assert_eq!(inode(&stage.read()), first);
    // Readers share it; who writes meanwhile gets a copy.
    let (one, other) = (stage.read(), stage.read());
    assert_eq!((inode(&one), inode(&other)), (first, first));
    let writer = stage.trees.write(&stage.chain, &cancel).unwrap();
    assert_ne!(inode(&writer.tree().unwrap()), first);
    drop(writer);
    drop((one, other));
    // Layers that were found elsewhere are added to the tree that has the rest.
    let mut elsewhere = Stage::new(&Room::new(&room.dir("elsewhere")));
    elsewhere.chain = stage.chain.clone();
    let found = elsewhere.step("third", |tree| fs::write(inside(tree, "c"), "3").unwrap());
    stage.chain.push(found);
    let tree = stage.read();
    assert_eq!(inode(&tree), first);
    assert_eq!(fs::read(inside(&tree, "c")).unwrap(), b"3");
    drop(tree);
    // A step that fails takes its tree along.
    let writer = stage.trees.write(&stage.chain, &cancel).unwrap();
    assert_eq!(inode(&writer.tree().unwrap()), first);
    fs::write(inside(&writer.tree().unwrap(), "half"), "").unwrap();
    drop(writer);
    // Its inodes may be given out again, so only what it held tells.
    let tree = stage.read();
    assert!(!inside(&tree, "half").exists());
    assert_eq!(fs::read_dir(room.0.join("trees")).unwrap().count(), 1);
}

#[test]
fn changes_of_a_copy_are_nobodys() {
    if !is_root("changes_of_a_copy_are_nobodys") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(&Room::new(host.path()));
    stage.step("base", |tree| fs::write(inside(tree, "a"), "1").unwrap());
    let copy = stage.trees.copy(&stage.chain, &Cancel::new()).unwrap();
    let tree = copy.tree().unwrap();
    fs::write(inside(&tree, "a"), "2").unwrap();
    drop(copy);
    assert_eq!(fs::read(inside(&stage.read(), "a")).unwrap(), b"1");
}

#[test]
fn names_of_one_file_are_joined_for_readers_and_apart_for_writers() {
    if !is_root("names_of_one_file_are_joined_for_readers_and_apart_for_writers") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(&Room::new(host.path()));
    let links = |tree: &Tree, name: &str| fs::metadata(inside(tree, name)).unwrap().nlink();
    stage.step("base", |tree| {
        let at = |path: &str| inside(tree, path);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("a"), "1").unwrap();
        for name in ["b", "d/c"] {
            fs::hard_link(at("a"), at(name)).unwrap();
        }
    });
    assert_eq!(stage.entries(), ["a", "b = a", "d/", "d/c = a"]);
    let before = fs::metadata(inside(&stage.read(), "d")).unwrap();
    assert_eq!(links(&stage.read(), "d/c"), 3);
    stage.step("write", |tree| {
        assert_eq!(links(tree, "a"), 1);
        let directory = fs::metadata(inside(tree, "d")).unwrap();
        assert_eq!(directory.modified().unwrap(), before.modified().unwrap());
        fs::write(inside(tree, "b"), "2").unwrap();
    });
    // Neither parting nor joining is a change, and the directory of the third name is as it was.
    assert_eq!(stage.entries(), ["b"]);
    let tree = stage.read();
    assert_eq!(fs::read(inside(&tree, "a")).unwrap(), b"1");
    assert_eq!(
        (links(&tree, "a"), links(&tree, "b"), links(&tree, "d/c")),
        (2, 1, 2)
    );
    drop(tree);
    stage.is_as_composed_anew();
    stage.step("link", |tree| {
        fs::hard_link(inside(tree, "a"), inside(tree, "e")).unwrap();
    });
    assert_eq!(stage.entries(), ["a", "e = a"]);
    stage.is_as_composed_anew();
}

#[test]
fn odd_files_go_into_the_layer_and_out_again() {
    let test = "odd_files_go_into_the_layer_and_out_again";
    if !can_mount(test) {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let mut stage = Stage::new(&room);
    let name = std::ffi::OsStr::from_bytes(b"\xff\n\x01");
    stage.step("base", |tree| {
        let at = |path: &str| inside(tree, path);
        fs::create_dir_all(at("closed/inner")).unwrap();
        fs::write(at("closed/inner/f"), "1").unwrap();
        fs::write(at("").join(name), "odd").unwrap();
        drop(UnixListener::bind(at("socket")).unwrap());
        symlink("nowhere", at("link")).unwrap();
        let sparse = fs::File::create(at("sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 32 << 20).unwrap();
        for path in ["closed/inner", "closed"] {
            fs::set_permissions(at(path), fs::Permissions::from_mode(0o000)).unwrap();
        }
    });
    let fresh = Trees::new(room.0.join("fresh"), Ownership::OnDisk);
    let tree = fresh.read(&stage.chain, &Cancel::new()).unwrap();
    let sparse = fs::metadata(inside(&tree, "sparse")).unwrap();
    assert_eq!(sparse.len(), 64 << 20);
    assert!(sparse.blocks() * 512 < 1 << 20, "the holes are kept");
    assert_eq!(fs::read(inside(&tree, "").join(name)).unwrap(), b"odd");
    assert_eq!(snapshot(&tree), snapshot(&read_only(&stage.chain)));
    // A socket has no entry, and deleting what a layer below has is a deletion all the same.
    assert!(!stage.entries().contains(&"socket".to_owned()));
    stage.step("remove", |tree| {
        fs::remove_file(inside(tree, "socket")).unwrap();
        fs::remove_dir_all(inside(tree, "closed")).unwrap();
    });
    assert_eq!(stage.entries(), [".wh.closed", ".wh.socket"]);
}

#[test]
fn a_directory_deeper_than_any_path_is_scanned_and_composed() {
    if !is_root("a_directory_deeper_than_any_path_is_scanned_and_composed") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(&Room::new(host.path()));
    stage.step("deep", |tree| {
        for depth in 0..60 {
            let path = vec!["d"; 50 * (depth + 1)].join("/");
            tree.make_dirs(path.as_bytes(), (0, 0), 0o755, None)
                .unwrap();
        }
    });
    stage.is_as_composed_anew();
}

#[test]
fn a_device_that_means_a_deletion_is_refused() {
    let test = "a_device_that_means_a_deletion_is_refused";
    if !is_root(test) {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let trees = Trees::new(room.0.join("trees"), Ownership::OnDisk);
    let mut writer = trees.write(&[], &Cancel::new()).unwrap();
    let tree = writer.tree().unwrap();
    let forged = inside(&tree, "forged");
    let kind = rustix::fs::FileType::CharacterDevice;
    let mode = rustix::fs::Mode::RUSR;
    if let Err(error) = rustix::fs::mknodat(rustix::fs::CWD, &forged, kind, mode, 0) {
        not_run(test, &error.to_string());
        return;
    }
    let error = writer.fill(&room.dir("fs"), &Cancel::new()).unwrap_err();
    let expected = "`/forged` cannot be in a layer: the device 0:0 means a deletion there";
    assert_eq!(error.to_string(), expected);
}

/// overlayfs takes no marks of overlayfs.
#[test]
fn marks_that_the_disk_refuses_lie_beside_the_layer() {
    if !can_mount("marks_that_the_disk_refuses_lie_beside_the_layer") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let (mounted, _) = room.writable(&[], "outer");
    let inner = Room::new(&inside(&mounted, ""));
    let mut stage = Stage::new(&inner);
    let base = |tree: &Tree| {
        let at = |path: &str| inside(tree, path);
        for name in ["gone", "again", "kept"] {
            fs::create_dir_all(at(&format!("d/{name}"))).unwrap();
            fs::write(at(&format!("d/{name}/f")), name).unwrap();
        }
    };
    let change = |tree: &Tree| {
        let at = |path: &str| inside(tree, path);
        fs::remove_dir_all(at("d/gone")).unwrap();
        fs::remove_dir_all(at("d/again")).unwrap();
        fs::create_dir(at("d/again")).unwrap();
        fs::remove_file(at("d/kept/f")).unwrap();
    };
    stage.step("base", base);
    let layer = stage.step("change", change);
    let beside = Sidecar::read(&layer).unwrap();
    assert!(beside.is_whiteout(b"d/gone") && beside.is_whiteout(b"d/kept/f"));
    let mut plain = Stage::new(&Room::new(&room.dir("plain")));
    plain.step("base", base);
    plain.step("change", change);
    assert_eq!(
        plain.entries(),
        [
            "d/",
            "d/again/",
            "d/again/.wh..wh..opq",
            "d/.wh.gone",
            "d/kept/",
            "d/kept/.wh.f"
        ]
    );
    assert_eq!(stage.entries(), plain.entries());
    stage.is_as_composed_anew();
}

/// Deletions in an archive, in every order that matters.
fn with_deletions() -> [Vec<u8>; 2] {
    let base = Archive::new()
        .directory("d")
        .file("d/gone/f", "")
        .file("d/again/f", "")
        .file("d/kept/f", "")
        .file("d/linked", "")
        .file("file", "")
        .file("later/f", "")
        .file("opaque/f", "")
        .file("replaced/deep/f", "")
        .symlink("link", "d");
    let above = Archive::new()
        .directory("d")
        .file("d/.wh.gone", "")
        .directory("d/again")
        .file("d/.wh.again", "")
        .file("d/kept/.wh.f", "")
        .symlink("link", "d")
        .file("link/.wh.linked", "")
        .file(".wh.file", "")
        .file("file/now/a/directory", "")
        .file(".wh.later", "")
        .directory("later")
        .file("opaque/.wh..wh..opq", "")
        .file("replaced/deep/.wh.f", "")
        .file("replaced", "a file");
    [base.finish(), above.finish()]
}

/// A snapshot without the times of directories, which are the present where the archive does not describe them.
fn timeless(tree: &Tree) -> BTreeMap<String, String> {
    let mut files = snapshot(tree);
    for text in files.values_mut() {
        if text.starts_with("Directory")
            && let Some((before, after)) = text.split_once(" Mtime")
        {
            let after = after.split_once('}').map_or("", |(_, after)| after);
            *text = format!("{before}{after}");
        }
    }
    files
}

#[test]
fn an_archives_deletions_mean_the_same_where_the_disk_refuses_them() {
    if !can_mount("an_archives_deletions_mean_the_same_where_the_disk_refuses_them") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let (mounted, _) = room.writable(&[], "outer");
    let inner = Room::new(&inside(&mounted, ""));
    let apply = |room: &Room| {
        let mut stage = Stage::new(room);
        for (name, tar) in ["base", "above"].iter().zip(with_deletions()) {
            stage.chain.push(room.apply(&tar, &format!("{name}/fs")));
        }
        stage
    };
    let (plain, refused) = (apply(&room), apply(&inner));
    let expected = timeless(&read_only(&plain.chain));
    assert_eq!(timeless(&plain.read()), expected);
    assert_eq!(timeless(&refused.read()), expected);
    let beside = Sidecar::read(&refused.chain[1]).unwrap();
    let deleted: Vec<_> = beside
        .iter()
        .filter(|(_, noted)| noted.is_whiteout)
        .map(|(path, _)| String::from_utf8_lossy(path))
        .collect();
    assert_eq!(deleted, ["d/gone", "d/kept/f", "d/linked"]);

    // Brought to a disk that takes marks, the layer is one like all others.
    let moved = room.dir("moved");
    let above = inner.0.join("above").display().to_string();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(above.replace("self", &std::process::id().to_string()))
        .arg(&moved)
        .status();
    assert!(copied.unwrap().success());
    let above = moved.join("above/fs");
    settle_marks(&above).unwrap();
    assert!(!Sidecar::read(&above).unwrap().has_marks());
    let chain = [plain.chain[0].clone(), above];
    assert_eq!(timeless(&read_only(&chain)), expected);
    let error = settle_marks(&refused.chain[1]).unwrap_err();
    assert!(matches!(error, RootfsError::Marks { .. }), "{error}");
}

/// Path, owner and mode of each entry.
fn owned(tar: &[u8]) -> Vec<String> {
    let mut reader = TarReader::new(tar);
    let mut owned = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let path = String::from_utf8_lossy(&entry.path);
        owned.push(format!(
            "{path} {}:{} {:o}",
            entry.uid, entry.gid, entry.mode
        ));
    }
    owned
}

/// An owner that is written down alone changes nothing on disk.
#[test]
fn owners_in_a_ledger_are_seen_to_change_and_go_into_the_layer() {
    let host = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(&Room::new(host.path()));
    stage.trees = Trees::new(host.path().join("trees"), Ownership::InLedger);
    let layer = |stage: &Stage| {
        let (top, lowers) = stage.chain.split_last().unwrap();
        owned(&diff_with(top, lowers, LONG_AGO).unwrap().0)
    };
    stage.step("made", |tree| {
        tree.make_dirs(b"d", (5, 6), 0o2750, None).unwrap();
        for name in ["d/f", "d/plain", "d/other"] {
            fs::write(inside(tree, name), name).unwrap();
        }
        let file = tree.open_file(b"d/f").unwrap();
        tree.owners()
            .describe(file.as_fd(), (7, 8), 0o4711)
            .unwrap();
        let directory = tree.open_path(b"d", false).unwrap();
        let null = DeviceNumber {
            is_block: false,
            major: 1,
            minor: 3,
        };
        let made = tree.owners().make_device(directory.as_fd(), b"null", null);
        made.unwrap();
    });
    assert_eq!(
        layer(&stage),
        [
            "d 5:6 2750",
            "d/f 7:8 4711",
            "d/null 0:0 600",
            "d/other 0:0 644",
            "d/plain 0:0 644"
        ]
    );
    stage.step("given away", |tree| {
        let known = tree.owners().ledger().unwrap();
        let mut others: Ledger = known
            .iter()
            .map(|(file, attributes)| {
                let mut attributes = attributes.clone();
                if attributes.mode == 0o4711 {
                    attributes.uid = 9;
                }
                (*file, attributes)
            })
            .collect();
        let plain = Owners::in_ledger(Ledger::default());
        let directory = tree.open_path(b"d", false).unwrap();
        let mode = Some(0o644);
        plain
            .describe_at(directory.as_fd(), b"plain", (1, 1), mode)
            .unwrap();
        for (file, attributes) in plain.ledger().unwrap().iter() {
            others.insert(*file, attributes.clone());
        }
        tree.owners().replace(others);
    });
    assert_eq!(
        layer(&stage),
        ["d 5:6 2750", "d/f 9:8 4711", "d/plain 1:1 644"]
    );
    // Composed anew, it is the same.
    let again = Trees::new(host.path().join("again"), Ownership::InLedger);
    let tree = again.read(&stage.chain, &Cancel::new()).unwrap();
    let stat = tree.stat(b"d/f", false).unwrap().unwrap();
    assert_eq!((stat.uid, stat.gid, stat.mode), (9, 8, 0o4711));
    let stat = tree.stat(b"d/null", false).unwrap().unwrap();
    assert_eq!((stat.kind, stat.rdev), (FileKind::CharDevice, (1, 3)));
    assert!(whole(&tree) == whole(&stage.read()));
}
