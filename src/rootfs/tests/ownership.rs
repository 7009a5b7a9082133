//! Trees whose owners are in a ledger say the same as trees that have them on disk, and give nothing away.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD};

use super::super::owners::{ASKED, identity};
use super::super::*;
use super::snapshot::snapshot;
use super::{Room, can_mount, diff, inside, read_only_as};
use crate::layer::{Entry, EntryKind, LayerWriter, Mtime, TarReader};
use crate::vocab::{Attributes, Cancel, Compression, FileId, Ledger, Ownership, mode_on_disk};

/// An archive in the making.
#[derive(Default)]
struct Entries(Vec<(Entry, Vec<u8>)>);

impl Entries {
    fn new() -> Entries {
        Entries::default()
    }

    /// Returns an entry to change: 0644 or 0755, 0:0.
    fn entry(path: &str, kind: EntryKind) -> Entry {
        let mode = match kind {
            EntryKind::Directory => 0o755,
            _ => 0o644,
        };
        Entry {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Mtime {
                seconds: 1_600_000_000,
                nanoseconds: 5,
            },
            xattrs: Default::default(),
        }
    }

    fn add(mut self, entry: Entry, content: &[u8]) -> Entries {
        self.0.push((entry, content.to_vec()));
        self
    }

    fn file(self, path: &str, content: &str) -> Entries {
        let size = content.len() as u64;
        self.add(
            Entries::entry(path, EntryKind::File { size }),
            content.as_bytes(),
        )
    }

    fn directory(self, path: &str) -> Entries {
        self.add(Entries::entry(path, EntryKind::Directory), b"")
    }

    fn finish(self) -> Vec<u8> {
        let mut out = LayerWriter::new(Vec::new(), Compression::Uncompressed, 1);
        for (entry, content) in self.0 {
            out.entry(&entry, &mut &content[..]).unwrap();
        }
        out.finish().unwrap().0
    }
}

/// What a command does to a file that its supervisor writes down.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Owner(u32),
    Mode(u32),
    Capability(Vec<u8>),
}

/// Does to the ledger of a tree what `lchown`, `chmod` and `setxattr` do to a tree on disk.
pub(super) fn change(tree: &Tree, path: &str, change: Change) -> Option<()> {
    let at = inside(tree, path);
    let flags = match change {
        Change::Mode(_) => AtFlags::empty(),
        _ => AtFlags::SYMLINK_NOFOLLOW,
    };
    // As a change does, it copies the file up.
    rustix::fs::chownat(CWD, &at, None, None, flags).ok()?;
    let found = rustix::fs::statx(CWD, &at, flags, ASKED).ok()?;
    let stat = Stat::from(&found);
    let file = identity(&found);
    let mut ledger = tree.owners().ledger().unwrap();
    let seems = || Attributes {
        mode: stat.mode,
        ..Attributes::default()
    };
    let mut attributes = ledger.get(&file).cloned().unwrap_or_else(seems);
    match change {
        Change::Owner(id) => {
            (attributes.uid, attributes.gid) = (id, id);
            if !stat.is_directory() && stat.kind != FileKind::Symlink {
                let group = match attributes.mode & 0o010 {
                    0 => 0,
                    _ => 0o2000,
                };
                attributes.mode &= !(0o4000 | group);
                attributes.xattrs.clear();
            }
        }
        Change::Mode(mode) => {
            attributes.mode = mode;
            let on_disk = mode_on_disk(mode, stat.is_directory());
            fs::set_permissions(&at, fs::Permissions::from_mode(on_disk)).ok()?;
        }
        Change::Capability(value) => {
            let name = b"security.capability".to_vec();
            attributes.xattrs.insert(name, value);
        }
    }
    ledger.insert(file, attributes);
    tree.owners().replace(ledger);
    Some(())
}

/// Writing to a file takes its capabilities from it.
pub(super) fn drop_capability(tree: &Tree, path: &str) {
    let at = inside(tree, path);
    let Ok(found) = rustix::fs::statx(CWD, &at, AtFlags::empty(), ASKED) else {
        return;
    };
    let mut ledger = tree.owners().ledger().unwrap();
    let file = identity(&found);
    if let Some(mut attributes) = ledger.get(&file).cloned() {
        attributes.xattrs.clear();
        ledger.insert(file, attributes);
        tree.owners().replace(ledger);
    }
}

/// Returns what a path is in the image, links not followed.
pub(super) fn kind_of(tree: &Tree, path: &str) -> Option<FileKind> {
    let at = inside(tree, path);
    let name = std::os::unix::ffi::OsStrExt::as_bytes(at.as_os_str());
    Some(tree.owners().stat_at(CWD, name).ok()??.kind)
}

/// A layer with everything that a disk of one id does not take.
fn everything() -> Vec<u8> {
    let capability = [
        1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0_u8,
    ];
    let directory = |path: &str, mode, uid, gid| {
        let mut entry = Entries::entry(path, EntryKind::Directory);
        (entry.mode, entry.uid, entry.gid) = (mode, uid, gid);
        entry
    };
    let file = |path: &str, mode, uid, gid| {
        let mut entry = Entries::entry(path, EntryKind::File { size: 4 });
        (entry.mode, entry.uid, entry.gid) = (mode, uid, gid);
        entry
    };
    let device = |path: &str, kind| {
        let mut entry = Entries::entry(path, kind);
        (entry.mode, entry.gid) = (0o666, 5);
        entry
    };
    let mut root = directory("", 0o1777, 3, 4);
    root.xattrs.insert(b"user.root".to_vec(), vec![1]);
    let mut ping = file("ping", 0o755, 0, 0);
    ping.xattrs
        .insert(b"security.capability".to_vec(), capability.to_vec());
    ping.xattrs.insert(b"user.note".to_vec(), b"x".to_vec());
    let (char_device, block_device) = (
        EntryKind::CharDevice { major: 1, minor: 3 },
        EntryKind::BlockDevice { major: 8, minor: 0 },
    );
    let link = |path: &str, target: &str| {
        let target = target.as_bytes().to_vec();
        let mut entry = Entries::entry(path, EntryKind::HardLink { target });
        (entry.mode, entry.uid, entry.gid) = (0o640, 33, 33);
        entry
    };
    let mut symlink = Entries::entry(
        "link",
        EntryKind::Symlink {
            target: b"ping".to_vec(),
        },
    );
    (symlink.uid, symlink.gid) = (7, 8);
    let mut fifo = Entries::entry("fifo", EntryKind::Fifo);
    (fifo.mode, fifo.uid) = (0o020, 9);
    Entries::new()
        .add(root, b"")
        .add(directory("closed", 0o000, 0, 0), b"")
        .add(file("closed/none", 0o000, 0, 0), b"text")
        .add(file("closed/read", 0o444, 0, 0), b"text")
        .add(directory("group", 0o2775, 0, 50), b"")
        .add(file("group/sudo", 0o4755, 0, 0), b"text")
        .add(file("group/plain", 0o644, 0, 0), b"text")
        .add(ping, b"text")
        .add(device("null", char_device.clone()), b"")
        .add(device("sda", block_device), b"")
        .add(file("twin", 0o600, 1, 1), b"text")
        .add(link("other-twin", "twin"), b"")
        .add(symlink, b"")
        .add(fifo, b"")
        .add(file("replaced", 0o600, 1, 1), b"text")
        .add(file("replaced", 0o644, 0, 0), b"text")
        .finish()
}

fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut reader = TarReader::new(tar);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        entries.push(entry);
    }
    entries
}

/// Tells whether any file below a directory is another user's than the calling one's, or needs one: the names of such.
fn given_away(top: &Path) -> Vec<PathBuf> {
    let me = rustix::process::geteuid().as_raw();
    let mut found = Vec::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let is_set_id = !meta.is_symlink() && meta.mode() & 0o6000 != 0;
        if meta.uid() != me || is_set_id {
            found.push(path.clone());
        }
        if meta.is_dir() {
            assert_eq!(meta.mode() & 0o700, 0o700, "{}", path.display());
            for entry in fs::read_dir(&path).unwrap() {
                waiting.push(entry.unwrap().path());
            }
        }
    }
    found
}

#[test]
fn a_layer_unpacked_with_a_ledger_gives_the_same_layer_and_nothing_away() {
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let tar = everything();
    let in_ledger = room.apply_as(&tar, "in-ledger", Ownership::InLedger);
    assert_eq!(given_away(&in_ledger), Vec::<PathBuf>::new());
    let noted = Sidecar::read(&in_ledger).unwrap();
    let mut paths = String::new();
    for (path, noted) in noted.iter() {
        let attributes = noted.attributes.as_ref().unwrap();
        paths.push_str(&format!(
            "{:o} {}:{} {}\n",
            attributes.mode,
            attributes.uid,
            attributes.gid,
            path.escape_ascii()
        ));
    }
    expect_test::expect![[r#"
        1777 3:4 
        0 0:0 closed
        0 0:0 closed/none
        444 0:0 closed/read
        20 9:0 fifo
        2775 0:50 group
        4755 0:0 group/sudo
        777 7:8 link
        666 0:5 null
        640 33:33 other-twin
        755 0:0 ping
        666 0:5 sda
        640 33:33 twin
    "#]]
    .assert_eq(&paths);
    // What it says is what it was made of.
    let (again, _) = diff(&in_ledger, &[]);
    let copy = room.apply_as(&again, "copy", Ownership::InLedger);
    assert!(diff(&copy, &[]).0 == again);
    if !super::is_root("layers on disk are compared with layers in a ledger") {
        return;
    }
    let Ok(on_disk) =
        std::panic::catch_unwind(|| room.apply_as(&tar, "on-disk", Ownership::OnDisk))
    else {
        return super::say("NOT RUN: a comparison with real owners: this namespace has one id");
    };
    assert_eq!(entries(&diff(&on_disk, &[]).0), entries(&again));
    assert!(diff(&on_disk, &[]).0 == again);
    let whole = |layer: &Path, owners: Owners| {
        let mut out = LayerWriter::new(Vec::new(), Compression::Uncompressed, 1);
        let tree = Tree::open(layer).unwrap().with_owners(owners);
        write_tree(&tree, "", Times::Kept, &mut out, &Cancel::new()).unwrap();
        out.finish().unwrap().0
    };
    let top = Tree::open(&in_ledger).unwrap();
    let layers = std::slice::from_ref(&in_ledger);
    let seeded = seed_owners(Ownership::InLedger, top.as_fd(), layers, false).unwrap();
    assert!(whole(&on_disk, Owners::OnDisk) == whole(&in_ledger, seeded));
}

#[test]
fn an_archive_is_extracted_into_a_ledger() {
    let host = tempfile::tempdir().unwrap();
    let owners = Owners::new(Ownership::InLedger);
    let tree = Tree::open(host.path()).unwrap().with_owners(owners);
    let tar = everything();
    for owner in [None, Some((55, 66))] {
        extract_archive(&mut &tar[..], &tree, b"a/b", owner, None).unwrap();
        let stat = |path: &str| tree.stat(path.as_bytes(), false).unwrap().unwrap();
        let sudo = stat("a/b/group/sudo");
        assert_eq!((sudo.uid, sudo.gid), owner.unwrap_or((0, 0)));
        assert_eq!(sudo.mode, 0o4755);
        let null = stat("a/b/null");
        assert_eq!((null.kind, null.rdev), (FileKind::CharDevice, (1, 3)));
        // No regular file to whoever asks for one.
        assert!(matches!(
            tree.open_file(b"a/b/null"),
            Err(RootfsError::NotAFile { .. })
        ));
        let plain = stat("a/b/replaced");
        assert_eq!((plain.uid, plain.gid), owner.unwrap_or((0, 0)));
    }
    tree.make_dirs(b"work/dir", (12, 13), 0o2750, None).unwrap();
    let made = tree.stat(b"work/dir", true).unwrap().unwrap();
    assert_eq!((made.uid, made.gid, made.mode), (12, 13, 0o2750));
    assert_eq!(given_away(host.path()), Vec::<PathBuf>::new());
}

/// The layer directories of `tars`, and the merged root over them.
fn stacked(room: &Room, tars: &[Vec<u8>]) -> Vec<PathBuf> {
    tars.iter()
        .enumerate()
        .map(|(at, tar)| room.apply_as(tar, &format!("layer-{at}"), Ownership::InLedger))
        .collect()
}

fn owned(path: &str, uid: u32) -> Entry {
    let mut entry = Entries::entry(path, EntryKind::File { size: 0 });
    entry.uid = uid;
    entry
}

#[test]
fn a_root_knows_the_owners_of_the_topmost_layers() {
    if !can_mount("a_root_knows_the_owners_of_the_topmost_layers") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let mut directory = Entries::entry("d", EntryKind::Directory);
    directory.uid = 1;
    let mut plain = directory.clone();
    plain.uid = 0;
    let layers = stacked(
        &room,
        &[
            Entries::new()
                .add(directory.clone(), b"")
                .add(owned("d/kept", 2), b"")
                .add(owned("d/plain-above", 2), b"")
                .add(owned("d/gone", 2), b"")
                .add(owned("d/other-above", 2), b"")
                .add(owned("hidden/f", 2), b"")
                .add(owned("file-above/f", 2), b"")
                .finish(),
            Entries::new()
                .add(plain, b"")
                .add(owned("d/plain-above", 0), b"")
                .file("d/.wh.gone", "")
                .add(owned("d/other-above", 3), b"")
                .file("hidden/.wh..wh..opq", "")
                .add(owned("hidden/f", 0), b"")
                .file("file-above", "")
                .finish(),
        ],
    );
    let tree = read_only_as(&layers, Ownership::InLedger);
    let mut shown = String::new();
    for path in [
        "d",
        "d/kept",
        "d/plain-above",
        "d/gone",
        "d/other-above",
        "hidden/f",
        "file-above",
    ] {
        let uid = tree.stat(path.as_bytes(), false).unwrap();
        shown.push_str(&format!("{path} {:?}\n", uid.map(|stat| stat.uid)));
    }
    expect_test::expect![[r#"
        d Some(0)
        d/kept Some(2)
        d/plain-above Some(0)
        d/gone None
        d/other-above Some(3)
        hidden/f Some(0)
        file-above Some(0)
    "#]]
    .assert_eq(&shown);
    assert_eq!(tree.owners().ledger().unwrap().len(), 2);
}

#[test]
fn owners_of_lower_files_survive_that_a_command_copies_them_up() {
    if !can_mount("owners_of_lower_files_survive_that_a_command_copies_them_up") {
        return;
    }
    for is_forgotten in [false, true] {
        copy_up_and_note(is_forgotten);
    }
}

/// Renames a file as under supervision: it is copied up first and known by its birth as a copy.
pub(super) fn rename(tree: &Tree, from: &str, to: &str) {
    settle(tree, from);
    fs::rename(inside(tree, from), inside(tree, to)).unwrap();
}

/// Has a file that is written down copied up, and known by what it is then.
pub(super) fn settle(tree: &Tree, path: &str) {
    let at = inside(tree, path);
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let look = || rustix::fs::statx(CWD, &at, flags, ASKED).ok();
    let Some(found) = look() else {
        return;
    };
    if Stat::from(&found).is_directory() {
        return;
    }
    let Some(known) = tree.owners().known_of(&identity(&found)) else {
        return;
    };
    rustix::fs::chownat(CWD, &at, None, None, flags).unwrap();
    let mut ledger = tree.owners().ledger().unwrap();
    ledger.insert(identity(&look().unwrap()), known);
    tree.owners().replace(ledger);
}

/// Mounts the upper directory `upper` of a tree once more: a mount of which the kernel has nothing in memory.
fn mounted_anew(room: &Room, tree: Tree, lowers: &[PathBuf]) -> Tree {
    let device = |tree: &Tree| {
        let root = rustix::fs::statx(tree.as_fd(), c"", AtFlags::EMPTY_PATH, ASKED);
        identity(&root.unwrap()).device
    };
    let (before, ledger) = (device(&tree), tree.owners().ledger().unwrap());
    drop(tree);
    let (upper, work) = (room.dir("upper"), room.dir("upper.work"));
    let lowers = super::two_or_more(lowers, &upper);
    let fd = mount_overlay(&lowers, Some((&upper, &work))).unwrap();
    let tree = Tree::from_fd(fd);
    let now = device(&tree);
    let same_files = ledger.iter().map(|(file, attributes)| {
        assert_eq!(file.device, before);
        let file = FileId {
            device: now,
            ..*file
        };
        (file, attributes.clone())
    });
    let owners = Owners::in_ledger(same_files.collect());
    tree.with_owners(owners)
}

/// Does to lower files what copies them up. The kernel may be made to forget which they were before they are noted.
fn copy_up_and_note(is_forgotten: bool) {
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let mut link = Entries::entry(
        "link",
        EntryKind::Symlink {
            target: b"x".to_vec(),
        },
    );
    link.uid = 6;
    let twin = Entries::entry(
        "twin",
        EntryKind::HardLink {
            target: b"first".to_vec(),
        },
    );
    let twin = Entry { uid: 5, ..twin };
    let below = Entries::new()
        .add(owned("appended", 1), b"")
        .add(owned("replaced", 2), b"")
        .add(owned("renamed", 3), b"")
        .add(owned("chowned", 4), b"")
        .add(owned("first", 5), b"")
        .add(twin, b"")
        .add(link, b"")
        .file("given", "")
        .file("given-and-renamed", "")
        .file("given-and-replaced", "");
    let layers = stacked(&room, &[below.finish()]);
    let (tree, upper) = room.writable_as(&layers, "upper", Ownership::InLedger);
    let at = |path: &str| inside(&tree, path);
    fs::write(at("appended"), "more").unwrap();
    fs::remove_file(at("replaced")).unwrap();
    fs::write(at("replaced"), "new").unwrap();
    rename(&tree, "renamed", "moved");
    change(&tree, "given-and-renamed", Change::Owner(77)).unwrap();
    fs::rename(at("given-and-renamed"), at("moved-too")).unwrap();
    // Another file of the same moment takes the place of one that was copied up.
    change(&tree, "given-and-replaced", Change::Owner(88)).unwrap();
    fs::rename(at("given-and-replaced"), at("elsewhere")).unwrap();
    fs::write(at("given-and-replaced"), "").unwrap();
    change(&tree, "chowned", Change::Owner(44)).unwrap();
    change(&tree, "given", Change::Owner(55)).unwrap();
    change(&tree, "link", Change::Owner(66)).unwrap();
    // One of two names is written to: the other stays below.
    fs::write(at("twin"), "more").unwrap();
    let live = super::snapshot::without_links(snapshot(&tree));
    match is_forgotten {
        false => note_owners(&upper, &tree, &layers).unwrap(),
        true => {
            let tree = mounted_anew(&room, tree, &layers);
            note_owners(&upper, &tree, &layers).unwrap();
        }
    }
    let mut stack = layers.clone();
    stack.push(upper.clone());
    let again = snapshot(&read_only_as(&stack, Ownership::InLedger));
    assert_eq!(super::snapshot::without_links(again), live);
    let uid = |path: &str| {
        let tree = read_only_as(&stack, Ownership::InLedger);
        tree.stat(path.as_bytes(), false).unwrap().unwrap().uid
    };
    for (path, expected) in [
        ("appended", 1),
        ("replaced", 0),
        ("moved", 3),
        ("moved-too", 77),
        ("elsewhere", 88),
        ("given-and-replaced", 0),
        ("chowned", 44),
        ("first", 5),
        ("twin", 5),
        ("link", 66),
        ("given", 55),
    ] {
        assert_eq!(uid(path), expected, "{path}");
    }
    assert_eq!(given_away(&upper), Vec::<PathBuf>::new());
}

#[test]
fn files_made_without_rights_get_those_that_one_id_needs() {
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let layer = room.dir("layer");
    fs::create_dir(layer.join("closed")).unwrap();
    fs::write(layer.join("closed/file"), "x").unwrap();
    symlink("closed", layer.join("link")).unwrap();
    for (path, mode) in [("closed/file", 0o4400), ("closed", 0o2555)] {
        fs::set_permissions(layer.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let tree = Tree::open(&layer)
        .unwrap()
        .with_owners(Owners::in_ledger(Ledger::default()));
    note_owners(&layer, &tree, &[]).unwrap();
    assert_eq!(given_away(&layer), Vec::<PathBuf>::new());
    let noted = Sidecar::read(&layer).unwrap();
    let mode = |path: &str| noted.attributes(path.as_bytes()).map(|found| found.mode);
    assert_eq!(mode("closed"), Some(0o2555));
    assert_eq!(mode("closed/file"), Some(0o4400));
    assert_eq!(mode("link"), None);
}

#[test]
fn marks_that_the_disk_has_refused_count_as_if_it_had_them() {
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let below = Entries::new()
        .directory("a")
        .file("a/f", "")
        .file("a-b", "")
        .directory("c")
        .file("c/old", "");
    let below = room.apply_as(&below.finish(), "below", Ownership::InLedger);
    let upper = room.dir("upper");
    fs::create_dir_all(upper.join("c/new")).unwrap();
    fs::create_dir_all(upper.join("a/z")).unwrap();
    let mut noted = Sidecar::new(Ownership::InLedger);
    for path in ["a/f", "a-b", "never-there"] {
        noted.set_whiteout(path.as_bytes());
    }
    noted.set_opaque(b"c");
    noted.write(&upper).unwrap();
    let list = |upper: &Path, lowers: &[PathBuf]| {
        let paths = entries(&diff(upper, lowers).0).into_iter();
        paths
            .map(|entry| String::from_utf8(entry.path).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        list(&upper, std::slice::from_ref(&below)),
        [
            "a",
            "a/.wh.f",
            "a/z",
            ".wh.a-b",
            "c",
            "c/.wh..wh..opq",
            "c/new"
        ]
    );
    // And as lower layers: nothing is there to delete again.
    let top = room.dir("top");
    fs::create_dir_all(top.join("c")).unwrap();
    let mut noted = Sidecar::new(Ownership::InLedger);
    noted.set_whiteout(b"a-b");
    noted.set_whiteout(b"c/old");
    noted.set_whiteout(b"c/new");
    noted.write(&top).unwrap();
    let listed = list(&top, &[below, upper]);
    assert!(listed.contains(&"c/.wh.new".to_owned()), "{listed:?}");
    assert!(!listed.contains(&".wh.a-b".to_owned()), "{listed:?}");
    assert!(!listed.contains(&"c/.wh.old".to_owned()), "{listed:?}");
}

#[test]
fn a_shared_ledger_is_one() {
    let host = tempfile::tempdir().unwrap();
    let owners = Owners::new(Ownership::InLedger);
    let tree = Tree::open(host.path()).unwrap().with_owners(owners.clone());
    let other = tree.try_clone().unwrap();
    tree.make_dirs(b"d", (5, 5), 0o755, None).unwrap();
    assert_eq!(other.stat(b"d", true).unwrap().unwrap().uid, 5);
    let more = Owners::new(Ownership::InLedger);
    more.extend(&owners);
    let directory = fs::File::open(host.path().join("d")).unwrap();
    assert_eq!(more.stat_of(directory.as_fd()).unwrap().uid, 5);
    owners.replace(Ledger::default());
    assert_eq!(other.stat(b"d", true).unwrap().unwrap().uid, 0);
}

#[test]
fn devices_are_noted_where_all_else_is_on_disk() {
    let test = "devices_are_noted_where_all_else_is_on_disk";
    if !can_mount(test) {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let ownership = Ownership::DevicesInLedger;
    let device = |path: &str, kind, mode| {
        let mut entry = Entries::entry(path, kind);
        entry.mode = mode;
        entry
    };
    let null = EntryKind::CharDevice { major: 1, minor: 3 };
    let disk = EntryKind::BlockDevice { major: 8, minor: 0 };
    let twin = EntryKind::HardLink {
        target: b"null".to_vec(),
    };
    let tar = Entries::new()
        .directory("d")
        .add(device("d/gone", null.clone(), 0o600), b"")
        .add(device("d/kept", disk, 0o640), b"")
        .file("d/plain", "x")
        .add(device("null", null.clone(), 0o666), b"")
        .add(device("null-twin", twin, 0o666), b"")
        .finish();
    let below = room.apply_as(&tar, "below", ownership);
    assert!(diff(&below, &[]).0 == tar_in_order(&tar));
    let noted = Sidecar::read(&below).unwrap();
    assert_eq!(noted.ownership(), ownership);
    let paths: Vec<_> = noted.iter().map(|(path, _)| path.as_slice()).collect();
    let expected: [&[u8]; 4] = [b"d/gone", b"d/kept", b"null", b"null-twin"];
    assert_eq!(paths, expected);

    let layers = [below];
    let (tree, upper) = room.writable_as(&layers, "upper", ownership);
    let at = |path: &str| inside(&tree, path);
    let kind = |path: &str| tree.stat(path.as_bytes(), false).unwrap().unwrap().kind;
    assert_eq!(kind("d/kept"), FileKind::BlockDevice);
    fs::set_permissions(at("d/kept"), fs::Permissions::from_mode(0o604)).unwrap();
    fs::remove_file(at("d/gone")).unwrap();
    fs::write(at("d/gone"), "a file").unwrap();
    rename(&tree, "null", "moved");
    extract_archive(&mut &tar[..], &tree, b"more", None, None).unwrap();
    assert_eq!(kind("more/null"), FileKind::CharDevice);
    let live = super::snapshot::without_links(snapshot(&tree));
    note_owners(&upper, &tree, &layers).unwrap();
    drop(tree);
    let stack = [layers[0].clone(), upper.clone()];
    let again = snapshot(&read_only_as(&stack, ownership));
    assert_eq!(super::snapshot::without_links(again.clone()), live);
    let starts = |path: &str, text: &str| assert!(again[path].starts_with(text), "{path}");
    starts("d/kept", "BlockDevice 604 0:0");
    starts("d/gone", "File 644 0:0");
    starts("moved", "CharDevice 666 0:0");
    // Both drivers make the same layer.
    let pool = Trees::new(room.dir("trees"), ownership);
    let mut writer = pool.write(&layers, &Cancel::new()).unwrap();
    let composed = writer.tree().unwrap();
    let link = composed.stat(b"null-twin", false).unwrap().unwrap();
    assert_eq!(link.kind, FileKind::CharDevice);
    let made = fs::File::open(inside(&composed, "d"));
    let made = made.unwrap();
    let number = crate::vocab::DeviceNumber {
        is_block: false,
        major: 5,
        minor: 6,
    };
    let owners = composed.owners().clone();
    owners.make_device(made.as_fd(), b"new", number).unwrap();
    owners
        .describe_at(made.as_fd(), b"new", (0, 0), Some(0o600))
        .unwrap();
    drop(composed);
    let filled = room.dir("filled");
    writer.fill(&filled, &Cancel::new()).unwrap();
    let noted = Sidecar::read(&filled).unwrap();
    let device = noted.attributes(b"d/new").and_then(|found| found.device);
    assert_eq!(device, Some(number));
    // Without devices there is nothing to note.
    let plain = room.apply_as(&Entries::new().file("f", "").finish(), "plain", ownership);
    assert!(!Sidecar::path_of(&plain).exists());
}

/// The entries of an archive as a layer has them.
fn tar_in_order(tar: &[u8]) -> Vec<u8> {
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    diff(&room.apply_as(tar, "reference", Ownership::InLedger), &[]).0
}
