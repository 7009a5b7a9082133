//! Whatever a step does to its root, the layer that is made of it does the same when it is applied.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, XattrFlags};

use super::super::owners::{ASKED, identity, statx_of};
use super::super::*;
use super::ownership::{Change, change, drop_capability, kind_of, settle};
use super::snapshot::{snapshot, without_links};
use super::{Room, can_mount, diff, inside, read_only_as};
use crate::vocab::{DeviceNumber, FileId, Ownership};

/// One thing that a command may do. Most are tried on paths where they fail; that is as good.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Write(String, u8),
    /// Opened for writing, and nothing written.
    Open(String),
    MakeDirectory(String),
    Remove(String),
    /// Removed and made again, empty.
    Remake(String),
    Rename(String, String),
    Symlink(String, String),
    HardLink(String, String),
    Chmod(String, u32),
    Chown(String, u32),
    Touch(String, u32),
    Xattr(String, &'static str, u8),
    Capability(String),
    Fifo(String),
    Device(String, u32),
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    let modes = prop::sample::select(vec![0o755, 0o644, 0o4755, 0o2755, 0o1777, 0o000, 0o600]);
    let names = prop::sample::select(vec![
        "user.x",
        "user.overlay.opaque",
        "user.overlay.whiteout",
        "user.overlay.origin",
    ]);
    prop_oneof![
        4 => (path(), 0..4_u8).prop_map(|(path, seed)| Edit::Write(path, seed)),
        2 => path().prop_map(Edit::Open),
        4 => path().prop_map(Edit::MakeDirectory),
        2 => path().prop_map(Edit::Remove),
        2 => path().prop_map(Edit::Remake),
        3 => (path(), path()).prop_map(|(from, to)| Edit::Rename(from, to)),
        2 => (path(), path()).prop_map(|(path, target)| Edit::Symlink(path, target)),
        3 => (path(), path()).prop_map(|(from, to)| Edit::HardLink(from, to)),
        2 => (path(), modes).prop_map(|(path, mode)| Edit::Chmod(path, mode)),
        2 => (path(), 0..3_u32).prop_map(|(path, id)| Edit::Chown(path, id)),
        2 => (path(), any::<u32>()).prop_map(|(path, time)| Edit::Touch(path, time)),
        2 => (path(), names, any::<u8>()).prop_map(|(path, name, value)| Edit::Xattr(path, name, value)),
        1 => path().prop_map(Edit::Capability),
        1 => path().prop_map(Edit::Fifo),
        1 => (path(), 0..3_u32).prop_map(|(path, minor)| Edit::Device(path, minor)),
    ]
}

/// Does what an edit says; `None` where something of it could not be done. In a ledger it does what a supervisor of the command
/// would do.
pub(super) fn make(tree: &Tree, edit: &Edit) -> Option<()> {
    let in_ledger = tree.owners().ownership() == Ownership::InLedger;
    let at = |path: &str| inside(tree, path);
    let remove = |path: &Path| match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    if in_ledger {
        hold(tree, edit);
    }
    match edit {
        // Not into FIFOs and devices: opening them waits or acts.
        Edit::Write(path, _) | Edit::Open(path) => {
            if let Ok(found) = fs::metadata(at(path))
                && !found.is_file()
            {
                return None;
            }
            match edit {
                Edit::Write(_, seed) => {
                    if in_ledger {
                        drop_capability(tree, path);
                    }
                    fs::write(at(path), vec![*seed; usize::from(*seed) * 3000]).ok()
                }
                _ => fs::File::options()
                    .append(true)
                    .open(at(path))
                    .ok()
                    .map(drop),
            }
        }
        Edit::MakeDirectory(path) => fs::create_dir_all(at(path)).ok(),
        Edit::Remove(path) if in_ledger => remove_and_forget(tree, &at(path)),
        Edit::Remake(path) if in_ledger => {
            remove_and_forget(tree, &at(path))?;
            fs::create_dir(at(path)).ok()
        }
        Edit::Rename(from, to) if in_ledger => {
            let ends = ends_with(&at(to)).filter(|replaced| {
                let moved = look(&at(from)).map(|found| identity(&found));
                moved.is_some_and(|moved| moved != *replaced)
            });
            settle(tree, from);
            fs::rename(at(from), at(to)).ok()?;
            forget(tree, ends);
            Some(())
        }
        Edit::Remove(path) => remove(&at(path)).ok(),
        Edit::Remake(path) => {
            remove(&at(path)).ok()?;
            fs::create_dir(at(path)).ok()
        }
        Edit::Rename(from, to) => fs::rename(at(from), at(to)).ok(),
        Edit::Symlink(path, target) => symlink(target, at(path)).ok(),
        Edit::HardLink(from, to) => fs::hard_link(at(from), at(to)).ok(),
        Edit::Chmod(path, mode) if in_ledger => change(tree, path, Change::Mode(*mode)),
        Edit::Chown(path, id) if in_ledger => change(tree, path, Change::Owner(*id)),
        Edit::Capability(path) if in_ledger => match kind_of(tree, path)? {
            FileKind::File | FileKind::Directory => {
                change(tree, path, Change::Capability(CAPABILITY.to_vec()))
            }
            _ => None,
        },
        Edit::Device(path, minor) if in_ledger => {
            let (parent, name) = match path.rsplit_once('/') {
                Some((parent, name)) => (parent, name),
                None => (".", path.as_str()),
            };
            let device = DeviceNumber {
                is_block: false,
                major: *minor,
                minor: *minor,
            };
            if *minor == 0 {
                return None;
            }
            let flags = OFlags::DIRECTORY | OFlags::RDONLY;
            let parent = rustix::fs::open(at(parent), flags, Mode::empty()).ok()?;
            let owners = tree.owners();
            owners
                .make_device(parent.as_fd(), name.as_bytes(), device)
                .ok()?;
            owners
                .describe_at(parent.as_fd(), name.as_bytes(), (0, 0), Some(0o400))
                .ok()
        }
        Edit::Chmod(path, mode) => {
            fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)).ok()
        }
        Edit::Chown(path, id) => lchown(at(path), Some(*id), Some(*id)).ok(),
        Edit::Touch(path, time) => {
            let stamp = rustix::fs::Timespec {
                tv_sec: i64::from(*time) - 1000,
                tv_nsec: i64::from(*time % 1_000_000_000),
            };
            let times = rustix::fs::Timestamps {
                last_access: stamp,
                last_modification: stamp,
            };
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(CWD, at(path), &times, flags).ok()
        }
        Edit::Xattr(path, name, value) => {
            rustix::fs::lsetxattr(at(path), *name, &[*value], XattrFlags::empty()).ok()
        }
        Edit::Capability(path) => {
            let name = "security.capability";
            rustix::fs::lsetxattr(at(path), name, &CAPABILITY, XattrFlags::empty()).ok()
        }
        Edit::Fifo(path) => rustix::fs::mknodat(CWD, at(path), FileType::Fifo, Mode::RUSR, 0).ok(),
        Edit::Device(path, minor) => {
            // 0:0 among them: a command cannot forge a deletion.
            let number = rustix::fs::makedev(*minor, *minor);
            rustix::fs::mknodat(CWD, at(path), FileType::CharacterDevice, Mode::RUSR, number).ok()
        }
    }
}

thread_local! {
    /// Files that the kernel must not forget.
    static HELD: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

/// Does as the supervisor does: a file of a lower layer that is changed is held open.
fn hold(tree: &Tree, edit: &Edit) {
    let path = match edit {
        Edit::Write(path, _)
        | Edit::Open(path)
        | Edit::Rename(path, _)
        | Edit::HardLink(path, _)
        | Edit::Chmod(path, _)
        | Edit::Chown(path, _)
        | Edit::Touch(path, _)
        | Edit::Xattr(path, _, _)
        | Edit::Capability(path) => inside(tree, path),
        _ => return,
    };
    for flags in [OFlags::PATH, OFlags::PATH | OFlags::NOFOLLOW] {
        if let Ok(file) = rustix::fs::open(&path, flags, Mode::empty()) {
            HELD.with_borrow_mut(|held| held.push(file));
        }
    }
}

/// Lets the kernel forget all files but links, of which nothing tells where they come from.
fn let_go() {
    let is_link = |file: &OwnedFd| {
        let found = statx_of(file.as_fd()).unwrap();
        Stat::from(&found).kind == FileKind::Symlink
    };
    HELD.with_borrow_mut(|held| held.retain(is_link));
}

fn look(path: &Path) -> Option<Statx> {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, ASKED).ok()
}

/// Returns the file that is gone when a name of it is.
fn ends_with(path: &Path) -> Option<FileId> {
    let found = look(path)?;
    let stat = Stat::from(&found);
    (stat.is_directory() || stat.links < 2).then(|| identity(&found))
}

fn forget(tree: &Tree, file: Option<FileId>) {
    let mut ledger = tree.owners().ledger().unwrap();
    if let Some(file) = file {
        ledger.remove(&file);
        tree.owners().replace(ledger);
    }
}

/// What is written down of a file goes with its last name.
fn remove_and_forget(tree: &Tree, path: &Path) -> Option<()> {
    let is_directory = fs::symlink_metadata(path).ok()?.is_dir();
    if is_directory {
        for entry in fs::read_dir(path).ok()? {
            remove_and_forget(tree, &entry.ok()?.path())?;
        }
    }
    let ends = ends_with(path);
    match is_directory {
        true => fs::remove_dir(path).ok()?,
        false => fs::remove_file(path).ok()?,
    }
    forget(tree, ends);
    Some(())
}

const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Which edits are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edits {
    All,
    /// Not those whose consequences only a supervisor sees that holds every call: directories that hand their group down; and more
    /// names of lower files, since the mount in which these are copied up shows two inodes for two names.
    Followed,
}

impl Edits {
    fn include(self, edit: &Edit, tree: &Tree, lowers: &[PathBuf], upper: &Path) -> bool {
        match (self, edit) {
            (Edits::All, _) => true,
            (_, Edit::HardLink(from, _)) => is_new(lowers, upper, from),
            (_, Edit::Chmod(path, mode)) => mode & 0o2000 == 0 || !inside(tree, path).is_dir(),
            _ => true,
        }
    }
}

/// Tells whether a file was made in this round.
fn is_new(lowers: &[PathBuf], upper: &Path, path: &str) -> bool {
    let mut value = [0; 256];
    let origin = rustix::fs::lgetxattr(upper.join(path), "user.overlay.origin", &mut value[..]);
    let is_file = fs::symlink_metadata(upper.join(path)).is_ok_and(|found| found.is_file());
    lowers.is_empty()
        || is_file
            && origin == Err(rustix::io::Errno::NODATA)
            && !lowers
                .iter()
                .any(|lower| fs::symlink_metadata(lower.join(path)).is_ok())
}

/// Returns what the last root shows.
fn check(rounds: &[Vec<Edit>], ownership: Ownership, which: Edits) -> BTreeMap<String, String> {
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let mut lowers = Vec::new();
    for (round, edits) in rounds.iter().enumerate() {
        let (tree, upper) = room.writable_as(&lowers, &format!("upper-{round}"), ownership);
        for edit in edits {
            if which.include(edit, &tree, &lowers, &upper) {
                make(&tree, edit);
            }
        }
        let live = without_links(snapshot(&tree));
        let_go();
        note_owners(&upper, &tree, &lowers).unwrap();
        HELD.with_borrow_mut(Vec::clear);
        drop(tree);
        let (tar, stats) = diff(&upper, &lowers);
        let applied = room.apply_as(&tar, &format!("applied-{round}"), ownership);
        let with = |top: &Path| {
            let mut stack = lowers.clone();
            stack.push(top.to_owned());
            snapshot(&read_only_as(&stack, ownership))
        };
        let expected = with(&upper);
        assert_eq!(
            without_links(expected.clone()),
            live,
            "round {round}, mounted again"
        );
        // A copied-up file that is as it was is in no layer, and so is not parted from its other names.
        let shown = |snapshot| match stats.unchanged {
            0 => snapshot,
            _ => without_links(snapshot),
        };
        assert_eq!(
            shown(with(&applied)),
            shown(expected.clone()),
            "round {round}, the applied layer"
        );
        // What was applied says the same again, and against itself nothing.
        let (again, _) = diff(&applied, &lowers);
        assert!(
            again == tar,
            "round {round}: the layer of the applied layer differs"
        );
        if stats.entries == 0 {
            assert_eq!(
                shown(snapshot(&read_only_as(&lowers, ownership))),
                shown(expected),
                "round {round}, an empty layer"
            );
        }
        // Both forms of a layer have to do as a lower one.
        lowers.push(if round % 2 == 0 { upper } else { applied });
    }
    without_links(snapshot(&read_only_as(&lowers, ownership)))
}

/// A snapshot that does not say when files were changed: two trees are not made at the same time.
fn without_times(mut snapshot: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for text in snapshot.values_mut() {
        let from = text.find("Mtime {").expect("every entry has a time");
        let to = from + text[from..].find('}').expect("which ends");
        text.replace_range(from..=to, "");
    }
    snapshot
}

#[test]
fn applying_a_trees_layer_gives_the_tree() {
    if !can_mount("applying_a_trees_layer_gives_the_tree") {
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
    proptest!(config, |(rounds in rounds)| {
        check(&rounds, Ownership::OnDisk, Edits::All);
    });
}

#[test]
fn a_trees_layer_is_the_same_with_a_ledger() {
    if !can_mount("a_trees_layer_is_the_same_with_a_ledger") {
        return;
    }
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 48;
    }
    let rounds = prop::collection::vec(prop::collection::vec(edit(), 1..25), 1..4);
    // Where ids cannot be given, a tree of real owners is another one.
    let can_give = can_give_to_others();
    proptest!(config, |(rounds in rounds)| {
        let in_ledger = check(&rounds, Ownership::InLedger, Edits::Followed);
        if can_give {
            let on_disk = check(&rounds, Ownership::OnDisk, Edits::Followed);
            assert_eq!(without_times(in_ledger), without_times(on_disk));
        }
    });
}

fn can_give_to_others() -> bool {
    let host = tempfile::tempdir().unwrap();
    let can = lchown(host.path(), Some(1), Some(2)).is_ok();
    if !can {
        super::say(
            "trees of real owners and of a ledger are not compared in a namespace of one id",
        );
    }
    can
}
