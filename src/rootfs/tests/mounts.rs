//! What the mount itself promises.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::mount::{MountPropagationFlags, MoveMountFlags};

use super::super::*;
use super::{Room, can_mount, inside, is_root, read_only};
use crate::vocab::Ownership;

fn lowers(room: &Room, count: usize, name: &dyn Fn(usize) -> String) -> Vec<PathBuf> {
    let mut lowers = Vec::new();
    for number in 0..count {
        let dir = room.dir(&name(number));
        fs::write(dir.join("which"), number.to_string()).unwrap();
        fs::write(dir.join(format!("only-{number}")), "").unwrap();
        lowers.push(dir);
    }
    lowers
}

fn check_stack(tree: &Tree, count: usize) {
    let which = (count - 1).to_string();
    assert_eq!(
        tree.read_small(b"which", 100).unwrap().unwrap(),
        which.as_bytes()
    );
    for number in [0, count / 2, count - 1] {
        assert!(
            tree.stat(format!("only-{number}").as_bytes(), false)
                .unwrap()
                .is_some()
        );
    }
}

#[test]
fn any_number_of_layers_is_stacked_in_order() {
    if !can_mount("any_number_of_layers_is_stacked_in_order") {
        return;
    }
    for count in [1, 2, 3, 127, 300] {
        let host = tempfile::tempdir().unwrap();
        let room = Room::new(host.path());
        let lowers = lowers(&room, count, &|number| format!("layer-{number}"));
        let tree = read_only(&lowers);
        check_stack(&tree, count);
        assert!(fs::write(inside(&tree, "new"), "").is_err());
        let (tree, upper) = room.writable(&lowers, "upper");
        check_stack(&tree, count);
        fs::write(inside(&tree, "new"), "").unwrap();
        assert!(upper.join("new").exists());
    }
    let none: Tree = read_only(&[]);
    assert_eq!(fs::read_dir(inside(&none, ".")).unwrap().count(), 0);
    let many = vec![PathBuf::from("/"); MAX_LOWERS + 1];
    assert!(matches!(
        mount_overlay(&many, None),
        Err(RootfsError::TooManyLayers { count: 501 })
    ));
}

/// The kernel says "too many levels of symbolic links" to it. Images have their empty layers twice and more.
#[test]
fn a_layer_that_stands_twice_shows_where_it_stands_last() {
    if !can_mount("a_layer_that_stands_twice_shows_where_it_stands_last") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let layers = lowers(&room, 3, &|number| format!("layer-{number}"));
    let [zero, one, two] = [0, 1, 2].map(|number: usize| layers[number].clone());
    let stack = [
        zero.clone(),
        one.clone(),
        zero.clone(),
        two,
        one,
        zero.clone(),
        zero,
    ];
    for tree in [read_only(&stack), room.writable(&stack, "upper").0] {
        assert_eq!(tree.read_small(b"which", 100).unwrap().unwrap(), b"0");
        for number in 0..3 {
            let path = format!("only-{number}");
            assert!(tree.stat(path.as_bytes(), false).unwrap().is_some());
        }
    }
}

#[test]
fn a_deletion_in_the_only_layer_is_not_seen() {
    if !can_mount("a_deletion_in_the_only_layer_is_not_seen") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let tar = super::archive::Archive::new()
        .file(".wh.gone", "")
        .file("here", "")
        .finish();
    let tree = read_only(&[room.apply(&tar, "layer")]);
    assert_eq!(tree.stat(b"gone", false).unwrap(), None);
    assert!(tree.stat(b"here", false).unwrap().is_some());
}

#[test]
fn odd_and_long_names_of_layer_directories_are_fine() {
    if !can_mount("odd_and_long_names_of_layer_directories_are_fine") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let long = "x".repeat(200);
    let name = |number| format!("a:b,c\\d\"e {long}/{long}/{number}");
    let lowers = lowers(&room, 3, &name);
    check_stack(&read_only(&lowers), 3);
    let (tree, _) = room.writable(&lowers, "u:p,p\\er");
    check_stack(&tree, 3);
}

#[test]
fn kernels_that_take_one_text_for_all_layers_are_served() {
    if !can_mount("kernels_that_take_one_text_for_all_layers_are_served") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let long = "x".repeat(200);
    let lowers = lowers(&room, 200, &|number| format!("{long}:,{number}"));
    let (upper, work) = (room.dir("upper"), room.dir("work"));
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let here = std::env::current_dir().unwrap();
    for writable in [None, Some((upper.as_path(), work.as_path()))] {
        let tree = Tree::from_fd(overlay::mount_in_old_way(&lowers, writable).unwrap());
        check_stack(&tree, 200);
        assert_eq!(
            fs::write(inside(&tree, "new"), "").is_ok(),
            writable.is_some()
        );
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    assert_eq!(std::env::current_dir().unwrap(), here);
}

#[test]
fn the_same_upper_directory_can_be_mounted_again() {
    if !can_mount("the_same_upper_directory_can_be_mounted_again") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    for round in 0..3 {
        let (tree, _) = room.writable(&[room.dir("lower")], "upper");
        fs::write(inside(&tree, &format!("{round}")), "").unwrap();
        assert_eq!(fs::read_dir(inside(&tree, ".")).unwrap().count(), round + 1);
    }
    remove_tree(&host.path().join("upper.work")).unwrap();
}

#[test]
fn nothing_is_mounted_and_nothing_is_left() {
    if !can_mount("nothing_is_mounted_and_nothing_is_left") {
        return;
    }
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let tree = read_only(&[room.dir("lower")]);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    drop(tree);
    // A mount on it would make this fail.
    fs::remove_dir(host.path().join("lower")).unwrap();
}

#[test]
fn a_mount_can_be_attached_in_another_namespace() {
    if !can_mount("a_mount_can_be_attached_in_another_namespace") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let lowers = lowers(&room, 3, &|number| format!("layer-{number}"));
    let (upper, work, target) = (room.dir("upper"), room.dir("work"), room.dir("target"));
    let roots = [
        mount_overlay(&lowers[..1], None).unwrap(),
        mount_overlay(&lowers, Some((&upper, &work))).unwrap(),
        overlay::mount_in_old_way(&lowers, None).unwrap(),
    ];
    let attach = || {
        nix::sched::unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave).unwrap();
        for root in &roots {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(root, "", rustix::fs::CWD, &target, flags).unwrap();
            assert!(target.join("only-0").exists());
        }
    };
    std::thread::scope(|scope| scope.spawn(attach).join().unwrap());
    assert!(!target.join("only-0").exists());
}

#[test]
fn the_probe_takes_what_layers_take_and_leaves_nothing() {
    if !can_mount("the_probe_takes_what_layers_take_and_leaves_nothing") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let entries = |path: &Path| fs::read_dir(path).unwrap().count();
    overlay_works(host.path()).unwrap();
    assert_eq!(entries(host.path()), 0);
    // On an overlay, as in a container without a volume, there is no upper directory.
    let room = Room::new(host.path());
    let (upper, work) = (room.dir("upper"), room.dir("work"));
    let root = mount_overlay(&[room.dir("lower")], Some((&upper, &work))).unwrap();
    let inside = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
    let error = overlay_works(&inside).unwrap_err();
    assert!(matches!(error, RootfsError::Mount { .. }), "{error}");
    assert_eq!(entries(&inside), 0);
    let missing = overlay_works(&host.path().join("missing")).unwrap_err();
    assert!(
        missing.to_string().contains("cannot make directory"),
        "{missing}"
    );
}

#[test]
fn a_missing_layer_is_named() {
    let error = mount_overlay(&[PathBuf::from("/nowhere/layer")], None).unwrap_err();
    assert_eq!(error.to_string(), "cannot open `/nowhere/layer`");
}

#[test]
fn the_stub_layer_has_the_mount_points_and_is_always_the_same() {
    let host = tempfile::tempdir().unwrap();
    if !is_root("the_stub_layer_has_the_mount_points_and_is_always_the_same") {
        return;
    }
    let (one, two) = (host.path().join("one"), host.path().join("two"));
    for dir in [&one, &two] {
        write_stub_layer(dir, Ownership::OnDisk).unwrap();
    }
    let shown = |dir: &Path| super::snapshot::snapshot(&Tree::open(dir).unwrap());
    let stub = shown(&one);
    assert_eq!(stub, shown(&two));
    let names: Vec<_> = stub.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["dev", "etc", "etc/hosts", "etc/resolv.conf", "proc", "sys"]
    );
}

#[test]
fn a_part_of_a_root_is_a_mount_by_itself() {
    if !can_mount("a_part_of_a_root_is_a_mount_by_itself") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let layer = room.dir("layer");
    fs::create_dir_all(layer.join("a/b")).unwrap();
    fs::write(layer.join("a/b/file"), "content").unwrap();
    std::os::unix::fs::symlink("/a/b", layer.join("link")).unwrap();
    std::os::unix::fs::symlink("../../../../etc", layer.join("out")).unwrap();
    let old = subtree::subtree_as_old_kernels_need_it;
    let new = |root: &OwnedFd, path: &[u8]| subtree(root.try_clone().unwrap(), path);
    type Way<'a> = &'a dyn Fn(&OwnedFd, &[u8]) -> Result<OwnedFd, RootfsError>;
    for way in [&new as Way<'_>, &old] {
        for (path, inner, wanted) in [
            ("/a/b", "/file", Some("content")),
            ("link", "/file", Some("content")),
            ("/link/file", "", Some("content")),
            ("/a/../a", "/b/file", Some("content")),
            ("/out", "", None),
            ("/none", "", None),
        ] {
            let root = mount_overlay(std::slice::from_ref(&layer), None).unwrap();
            let part = way(&root, path.as_bytes());
            drop(root);
            let found = part.ok().map(|part| {
                let at = format!("/proc/self/fd/{}{inner}", part.as_raw_fd());
                fs::read_to_string(at).unwrap()
            });
            assert_eq!(found.as_deref(), wanted, "{path}");
        }
    }
}
