//! The room's tests that need mounts: layers and trees against the kernel's own overlay.

mod archive;
mod hostile;
mod layers;
mod mounts;
mod ownership;
mod property;
mod snapshot;
mod trees;

use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::layer::LayerWriter;
use crate::vocab::{Cancel, Compression, Ownership};

/// Set in the copy of this program that runs in a user namespace.
const IN_NAMESPACE: &str = "BUILDER_TEST_ROOTFS_IN_NAMESPACE";

/// Tells whether overlays can be mounted here; if not, says that `test` did not run, or fails where it has to.
fn can_mount(test: &str) -> bool {
    if !is_root(test) {
        return false;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    match mount_overlay(
        &[room.dir("lower")],
        Some((&room.dir("upper"), &room.dir("work"))),
    ) {
        Ok(_) => true,
        Err(error) => {
            not_run(test, &error.to_string());
            false
        }
    }
}

/// Tells whether files can be given to root. A user's tests find that in [`all_of_it_holds_in_a_user_namespace`], which
/// fails where it has to, so nothing is missed here.
fn is_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        say(&format!("NOT RUN outside of a user namespace: {test}"));
    }
    is_root
}

fn not_run(test: &str, reason: &str) {
    let required = std::env::var_os("BUILDER_TEST_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "{test} cannot run: {reason}");
    say(&format!("NOT RUN: {test}: {reason}"));
}

/// Writes to standard error past the test harness, which would swallow it.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

/// Directories of one test.
struct Room(PathBuf);

impl Room {
    fn new(path: &Path) -> Room {
        Room(path.to_owned())
    }

    /// Returns a directory, made where it is missing.
    fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Mounts `lowers` under the fresh upper directory `name`.
    fn writable(&self, lowers: &[PathBuf], name: &str) -> (Tree, PathBuf) {
        self.writable_as(lowers, name, Ownership::OnDisk)
    }

    fn writable_as(&self, lowers: &[PathBuf], name: &str, ownership: Ownership) -> (Tree, PathBuf) {
        let upper = self.dir(name);
        let work = self.dir(&format!("{name}.work"));
        let root = mount_overlay(&two_or_more(lowers, &upper), Some((&upper, &work))).unwrap();
        let owners = seed_owners(ownership, root.as_fd(), lowers, true).unwrap();
        (Tree::from_fd(root).with_owners(owners), upper)
    }

    fn apply(&self, tar: &[u8], name: &str) -> PathBuf {
        self.apply_as(tar, name, Ownership::OnDisk)
    }

    fn apply_as(&self, tar: &[u8], name: &str, ownership: Ownership) -> PathBuf {
        let dir = self.dir(name);
        let applied = apply_layer(&mut &tar[..], &dir, ownership).unwrap();
        if !applied.has_replaced {
            assert_eq!(applied.bytes, tree_size(&dir).unwrap());
        }
        dir
    }
}

fn read_only(lowers: &[PathBuf]) -> Tree {
    read_only_as(lowers, Ownership::OnDisk)
}

fn read_only_as(lowers: &[PathBuf], ownership: Ownership) -> Tree {
    let root = match lowers.first() {
        Some(first) => mount_overlay(&two_or_more(lowers, first), None).unwrap(),
        None => mount_overlay(lowers, None).unwrap(),
    };
    let owners = seed_owners(ownership, root.as_fd(), lowers, false).unwrap();
    Tree::from_fd(root).with_owners(owners)
}

/// Adds what an overlay without enough layers needs, on the file system of `beside`: where layers lie on several, an overlay makes
/// up the numbers of directories.
fn two_or_more(lowers: &[PathBuf], beside: &Path) -> Vec<PathBuf> {
    let nothing = beside.with_file_name("nothing");
    std::fs::create_dir_all(&nothing).unwrap();
    match lowers.len() {
        0 | 1 => [&[nothing], lowers].concat(),
        _ => lowers.to_vec(),
    }
}

/// Returns a path by which the standard library reaches into a tree.
fn inside(tree: &Tree, path: &str) -> PathBuf {
    let root = format!("/proc/self/fd/{}", tree.as_fd().as_fd().as_raw_fd());
    Path::new(&root).join(path)
}

/// Returns the layer of an upper directory, uncompressed.
fn diff(upper: &Path, lowers: &[PathBuf]) -> (Vec<u8>, DiffStats) {
    try_diff(upper, lowers).unwrap()
}

fn try_diff(upper: &Path, lowers: &[PathBuf]) -> Result<(Vec<u8>, DiffStats), RootfsError> {
    diff_with(upper, lowers, Times::Kept)
}

fn diff_with(
    upper: &Path,
    lowers: &[PathBuf],
    times: Times,
) -> Result<(Vec<u8>, DiffStats), RootfsError> {
    let mut out = LayerWriter::new(Vec::new(), Compression::Uncompressed, 1);
    let stats = write_layer(upper, lowers, times, &mut out, &Cancel::new())?;
    Ok((out.finish().unwrap().0, stats))
}

/// Every test of the room once more as the root of a user namespace with one id, which is what most users are.
#[test]
fn all_of_it_holds_in_a_user_namespace() {
    if std::env::var_os(IN_NAMESPACE).is_some() {
        return;
    }
    let test = "all_of_it_holds_in_a_user_namespace";
    let unshare = ["--user", "--map-root-user", "--mount"];
    let probe = Command::new("unshare").args(unshare).arg("true").output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            not_run(test, &String::from_utf8_lossy(&output.stderr));
            return;
        }
        Err(error) => {
            not_run(test, &format!("unshare: {error}"));
            return;
        }
    }
    let output = Command::new("unshare")
        .args(unshare)
        .arg(std::env::current_exe().unwrap())
        .args(["rootfs::", "--test-threads=2"])
        .env(IN_NAMESPACE, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
