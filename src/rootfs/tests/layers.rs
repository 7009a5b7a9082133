//! What a layer's archive means, and what an upper directory's layer says.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::super::*;
use super::archive::Archive;
use super::snapshot::snapshot;
use super::{Room, can_mount, diff, inside, is_root, read_only, try_diff};
use crate::layer::{EntryKind, TarReader};
use crate::vocab::Ownership;

fn names(tree: &Tree) -> Vec<String> {
    snapshot(tree).into_keys().collect()
}

/// Shows a layer's entries: path, and `/` or a link's target.
fn listed(tar: &[u8]) -> Vec<String> {
    let mut reader = TarReader::new(tar);
    let mut listed = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let path = String::from_utf8(entry.path).unwrap();
        listed.push(match entry.kind {
            EntryKind::Directory => format!("{path}/"),
            EntryKind::Symlink { target } => format!("{path} -> {}", target.escape_ascii()),
            EntryKind::HardLink { target } => format!("{path} = {}", target.escape_ascii()),
            EntryKind::CharDevice { .. } => format!("{path} c"),
            EntryKind::Fifo => format!("{path} p"),
            _ => path,
        });
    }
    listed
}

#[test]
fn deletions_of_a_layer_speak_of_lower_layers_only() {
    if !can_mount("deletions_of_a_layer_speak_of_lower_layers_only") {
        return;
    }
    let check = |above: Archive, expected: &[&str]| {
        let host = tempfile::tempdir().unwrap();
        let room = Room::new(host.path());
        let below = Archive::new()
            .directory("a")
            .file("a/old", "")
            .directory("a/sub")
            .file("a/sub/old", "")
            .file("b", "");
        let layers = [
            room.apply(&below.finish(), "below"),
            room.apply(&above.finish(), "above"),
        ];
        assert_eq!(names(&read_only(&layers)), expected);
    };
    let new = Archive::new;
    check(new(), &["a", "a/old", "a/sub", "a/sub/old", "b"]);
    check(
        new().file(".wh.b", ""),
        &["a", "a/old", "a/sub", "a/sub/old"],
    );
    check(new().file(".wh.a", ""), &["b"]);
    check(
        new().file(".wh.missing", ""),
        &["a", "a/old", "a/sub", "a/sub/old", "b"],
    );
    check(
        new().file("a/.wh.old", ""),
        &["a", "a/sub", "a/sub/old", "b"],
    );
    check(new().file("a/.wh..wh..opq", ""), &["a", "b"]);
    check(
        new()
            .directory("a")
            .file("a/new", "")
            .file("a/.wh..wh..opq", ""),
        &["a", "a/new", "b"],
    );
    check(
        new().file("a/sub/.wh..wh..opq", "").file("a/sub/new", ""),
        &["a", "a/old", "a/sub", "a/sub/new", "b"],
    );
    // In one layer a name can be deleted and made, in either order: what is made stays, what was below is gone.
    check(
        new().file(".wh.a", "").file("a/new", ""),
        &["a", "a/new", "b"],
    );
    check(
        new().file(".wh.a", "").directory("a").file("a/new", ""),
        &["a", "a/new", "b"],
    );
    check(
        new().directory("a").file("a/new", "").file(".wh.a", ""),
        &["a", "a/new", "b"],
    );
    check(
        new().file(".wh.b", "").file("b", "x"),
        &["a", "a/old", "a/sub", "a/sub/old", "b"],
    );
    check(
        new().file("b", "x").file(".wh.b", ""),
        &["a", "a/old", "a/sub", "a/sub/old", "b"],
    );
    check(new().file(".wh..wh..opq", "").file("c", ""), &["c"]);
    // A file over a directory and the other way round.
    check(new().file("a", "x"), &["a", "b"]);
    check(
        new().directory("b").file("b/new", ""),
        &["a", "a/old", "a/sub", "a/sub/old", "b", "b/new"],
    );
}

#[test]
fn later_entries_of_an_archive_replace_earlier_ones() {
    if !is_root("later_entries_of_an_archive_replace_earlier_ones") {
        return;
    }
    let check = |archive: Archive, expected: &[&str]| {
        let host = tempfile::tempdir().unwrap();
        let room = Room::new(host.path());
        let layer = room.apply(&archive.finish(), "layer");
        assert_eq!(names(&Tree::open(&layer).unwrap()), expected);
    };
    let new = Archive::new;
    check(new().directory("d").file("d/f", "").file("d", "x"), &["d"]);
    check(
        new().file("d", "x").directory("d").file("d/f", ""),
        &["d", "d/f"],
    );
    check(
        new().symlink("d", "e").directory("d").file("d/f", ""),
        &["d", "d/f"],
    );
    check(
        new().directory("e").symlink("d", "e").file("d/f", ""),
        &["d", "e", "e/f"],
    );
    check(
        new().symlink("d", "deep/er").file("d/f", ""),
        &["d", "deep", "deep/er", "deep/er/f"],
    );
    check(
        new()
            .directory("e")
            .symlink("d", "e")
            .file("d/f", "")
            .directory("d")
            .file("d/g", ""),
        &["d", "d/g", "e", "e/f"],
    );
    check(
        new().directory("d").file("d/f", "").directory("d"),
        &["d", "d/f"],
    );
}

#[test]
fn parents_that_the_archive_implies_are_roots() {
    if !is_root("parents_that_the_archive_implies_are_roots") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let tar = Archive::new().file("a/b/c", "x").finish();
    let applied = apply_layer(&mut &tar[..], &room.dir("layer"), Ownership::OnDisk).unwrap();
    assert_eq!(
        (applied.entries, applied.implied_directories, applied.bytes),
        (1, 2, 1)
    );
    let tree = Tree::open(&room.dir("layer")).unwrap();
    let stat = tree.stat(b"a/b", false).unwrap().unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid), (0o755, 0, 0));
}

#[test]
fn a_file_below_a_file_is_an_error_that_names_it() {
    if !is_root("a_file_below_a_file_is_an_error_that_names_it") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let tar = Archive::new().file("f", "").file("f/x", "").finish();
    let error = apply_layer(&mut &tar[..], host.path(), Ownership::OnDisk).unwrap_err();
    assert_eq!(error.to_string(), "`/f` is not a directory");
}

#[test]
fn large_and_sparse_files_keep_their_bytes() {
    if !is_root("large_and_sparse_files_keep_their_bytes") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let mut content = vec![0; 3 << 20];
    content[1 << 20..][..5].copy_from_slice(b"bytes");
    let tar = Archive::new()
        .add("f", b'0', "", 0o600, &content)
        .add("empty", b'0', "", 0o600, b"")
        .finish();
    let applied = apply_layer(&mut &tar[..], host.path(), Ownership::OnDisk).unwrap();
    assert_eq!(applied.bytes, content.len() as u64);
    assert!(fs::read(host.path().join("f")).unwrap() == content);
    assert_eq!(fs::read(host.path().join("empty")).unwrap(), b"");
}

type At<'a> = &'a dyn Fn(&str) -> PathBuf;

/// Makes a change in a mounted root over `below` and lists the layer that it comes to.
fn changed(below: Archive, change: impl FnOnce(At<'_>)) -> (Vec<String>, DiffStats) {
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let lowers = [room.apply(&below.finish(), "below")];
    let (tree, upper) = room.writable(&lowers, "upper");
    change(&|path: &str| inside(&tree, path));
    let (tar, stats) = diff(&upper, &lowers);
    (listed(&tar), stats)
}

fn base() -> Archive {
    Archive::new()
        .directory("d")
        .file("d/f", "content")
        .directory("d/sub")
        .file("d/sub/g", "")
        .symlink("l", "d")
        .file("top", "x")
}

#[test]
fn a_layer_holds_what_changed_and_its_parents() {
    if !can_mount("a_layer_holds_what_changed_and_its_parents") {
        return;
    }
    let check = |change: &dyn Fn(At<'_>), expected: &[&str]| {
        let (listed, _) = changed(base(), |at| change(at));
        assert_eq!(listed, expected);
    };
    check(&|_| {}, &[]);
    check(&|at| fs::write(at("new"), "x").unwrap(), &["new"]);
    check(
        &|at| fs::write(at("d/f"), "changed").unwrap(),
        &["d/", "d/f"],
    );
    check(
        &|at| fs::remove_file(at("d/f")).unwrap(),
        &["d/", "d/.wh.f"],
    );
    check(&|at| fs::remove_dir_all(at("d")).unwrap(), &[".wh.d"]);
    check(
        &|at| fs::rename(at("d/f"), at("d/h")).unwrap(),
        &["d/", "d/.wh.f", "d/h"],
    );
    // Made and deleted again: nothing below to delete.
    check(
        &|at| {
            fs::write(at("t"), "").unwrap();
            fs::remove_file(at("t")).unwrap();
        },
        &[],
    );
    // Deleted and made again, empty: only what was there has to go.
    check(
        &|at| {
            fs::remove_dir_all(at("d/sub")).unwrap();
            fs::create_dir(at("d/sub")).unwrap();
        },
        &["d/", "d/sub/", "d/sub/.wh..wh..opq"],
    );
    check(
        &|at| fs::create_dir_all(at("n/m")).unwrap(),
        &["n/", "n/m/"],
    );
    check(
        &|at| {
            fs::remove_file(at("top")).unwrap();
            fs::create_dir(at("top")).unwrap();
        },
        &["top/"],
    );
    check(
        &|at| {
            fs::remove_file(at("l")).unwrap();
            symlink("top", at("l")).unwrap();
        },
        &["l -> top"],
    );
}

#[test]
fn a_file_that_was_copied_up_and_is_as_it_was_is_left_out() {
    if !can_mount("a_file_that_was_copied_up_and_is_as_it_was_is_left_out") {
        return;
    }
    let (listed, stats) = changed(base(), |at| {
        drop(
            fs::File::options()
                .read(true)
                .write(true)
                .open(at("d/f"))
                .unwrap(),
        );
        fs::set_permissions(at("top"), fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::lchown(at("l"), Some(0), Some(0)).unwrap();
    });
    assert_eq!(listed, Vec::<String>::new());
    assert_eq!((stats.entries, stats.unchanged), (0, 3));
}

#[test]
fn one_byte_a_bit_a_time_or_an_attribute_is_a_change() {
    if !can_mount("one_byte_a_bit_a_time_or_an_attribute_is_a_change") {
        return;
    }
    let check = |change: &dyn Fn(PathBuf)| {
        let (listed, _) = changed(base(), |at| change(at("top")));
        assert_eq!(listed, ["top"]);
    };
    check(&|path| {
        // Same size, same time.
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "y").unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    });
    check(&|path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap());
    check(&|path| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 1);
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    });
    check(&|path| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(path, "user.x", b"", flags).unwrap();
    });
}

#[test]
fn hard_links_made_by_the_step_are_kept_and_others_are_not_invented() {
    if !can_mount("hard_links_made_by_the_step_are_kept_and_others_are_not_invented") {
        return;
    }
    // The file itself is unchanged, its second name is not.
    let (listed, _) = changed(base(), |at| fs::hard_link(at("d/f"), at("d/z")).unwrap());
    assert_eq!(listed, ["d/", "d/f", "d/z = d/f"]);
    // A twin of the lower layer breaks when one of the two is written.
    let twins = Archive::new().file("a", "x").hard_link("b", "a");
    let (listed, _) = changed(twins, |at| fs::write(at("b"), "y").unwrap());
    assert_eq!(listed, ["b"]);
}

#[test]
fn a_socket_has_no_entry_and_still_hides_what_it_replaced() {
    if !can_mount("a_socket_has_no_entry_and_still_hides_what_it_replaced") {
        return;
    }
    let (listed, stats) = changed(base(), |at| {
        fs::remove_file(at("top")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(at("top")).unwrap());
        drop(std::os::unix::net::UnixListener::bind(at("s")).unwrap());
    });
    assert_eq!(listed, [".wh.top"]);
    assert_eq!(stats.sockets, 2);
}

#[test]
fn a_name_that_would_mean_a_deletion_is_refused() {
    if !can_mount("a_name_that_would_mean_a_deletion_is_refused") {
        return;
    }
    for name in [".wh.passwd", ".wh..wh..opq", ".wh."] {
        let host = tempfile::tempdir().unwrap();
        let room = Room::new(host.path());
        let (tree, upper) = room.writable(&[], "upper");
        fs::create_dir(inside(&tree, "etc")).unwrap();
        fs::write(inside(&tree, "etc").join(name), "").unwrap();
        let error = try_diff(&upper, &[]).unwrap_err();
        assert!(
            matches!(&error, RootfsError::WhiteoutName { path } if *path == format!("/etc/{name}")),
            "{error}"
        );
    }
}

#[test]
fn a_changed_root_directory_is_in_the_layer() {
    if !can_mount("a_changed_root_directory_is_in_the_layer") {
        return;
    }
    let (listed, _) = changed(base(), |at| {
        fs::set_permissions(at("."), fs::Permissions::from_mode(0o700)).unwrap()
    });
    assert_eq!(listed, ["/"]);
    // A fresh upper directory takes over what is below it, so that it is no change.
    let private = Archive::new()
        .xattr("user.overlay.x", b"1")
        .add("./", b'5', "", 0o711, b"");
    let (listed, _) = changed(private, |at| {
        assert_eq!(
            fs::metadata(at(".")).unwrap().permissions().mode() & 0o7777,
            0o711
        );
    });
    assert_eq!(listed, Vec::<String>::new());
}

#[test]
fn a_layer_compares_with_every_layer_below() {
    if !can_mount("a_layer_compares_with_every_layer_below") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let lowers = [
        room.apply(
            &Archive::new()
                .file("a/f", "1")
                .file("b/f", "1")
                .file("gone", "")
                .finish(),
            "1",
        ),
        room.apply(
            &Archive::new()
                .file("a/g", "2")
                .file("b/.wh..wh..opq", "")
                .file(".wh.gone", "")
                .finish(),
            "2",
        ),
        room.apply(&Archive::new().file("a/h", "3").finish(), "3"),
    ];
    let (tree, upper) = room.writable(&lowers, "upper");
    fs::remove_dir_all(inside(&tree, "a")).unwrap();
    fs::create_dir(inside(&tree, "b/new")).unwrap();
    fs::write(inside(&tree, "gone"), "").unwrap();
    fs::remove_file(inside(&tree, "gone")).unwrap();
    let (tar, stats) = diff(&upper, &lowers);
    assert_eq!(listed(&tar), [".wh.a", "b/", "b/new/"]);
    assert_eq!(stats.deletions, 1);
}

#[test]
fn a_cancelled_diff_says_so() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("f"), "").unwrap();
    let cancel = crate::vocab::Cancel::new();
    cancel.cancel(crate::vocab::CancelReason::Timeout);
    let mut out =
        crate::layer::LayerWriter::new(Vec::new(), crate::vocab::Compression::Uncompressed, 1);
    let result = write_layer(host.path(), &[], Times::Kept, &mut out, &cancel);
    assert!(matches!(result, Err(RootfsError::Cancelled)));
}

#[test]
fn add_unpacks_into_the_root() {
    if !can_mount("add_unpacks_into_the_root") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let below = Archive::new()
        .symlink("opt", "real")
        .directory("usr/lib")
        .symlink("lib", "usr/lib")
        .file("usr/lib/old", "");
    let lowers = [room.apply(&below.finish(), "below")];
    let (tree, upper) = room.writable(&lowers, "upper");
    let owner = match std::env::var_os(super::IN_NAMESPACE) {
        Some(_) => (0, 0),
        None => (5, 6),
    };
    let tar = Archive::new()
        .directory("./")
        .directory("d")
        .file("implied/f", "x")
        .hard_link("twin", "implied/f")
        .file(".wh.d", "plain")
        .symlink("out", "../../../../usr")
        .file("out/lib/through", "")
        .finish();
    extract_archive(&mut &tar[..], &tree, b"/opt/app/", Some(owner), None).unwrap();
    let stat = |path: &str| tree.stat(path.as_bytes(), false).unwrap().unwrap();
    assert_eq!((stat("real/app/d").uid, stat("real/app/d").gid), owner);
    assert_eq!(
        (stat("real/app/twin").uid, stat("real/app/twin").links),
        (owner.0, 2)
    );
    assert_eq!(
        (stat("real/app/implied").uid, stat("real/app/implied").mode),
        (0, 0o755)
    );
    assert_eq!(fs::read(inside(&tree, "real/app/.wh.d")).unwrap(), b"plain");
    // To the archive the destination is the root.
    assert_eq!(stat("real/app/usr/lib/through").size, 0);
    assert_eq!(tree.stat(b"usr/lib/through", false).unwrap(), None);
    assert!(matches!(
        try_diff(&upper, &lowers),
        Err(RootfsError::WhiteoutName { .. })
    ));

    // The archive's own directory takes the place of a link; an implied one goes through it.
    let tar = Archive::new().file("lib/new", "").finish();
    extract_archive(&mut &tar[..], &tree, b"/", None, None).unwrap();
    assert!(stat("usr/lib/new").size == 0);
    let tar = Archive::new()
        .directory("lib")
        .file("lib/newer", "")
        .finish();
    extract_archive(&mut &tar[..], &tree, b"/", None, None).unwrap();
    assert!(stat("lib").is_directory());
    assert_eq!(tree.stat(b"usr/lib/newer", false).unwrap(), None);

    let error = extract_archive(&mut &tar[..], &tree, b"/usr/lib/old/x", None, None).unwrap_err();
    assert_eq!(error.to_string(), "`/usr/lib/old` is not a directory");
}

#[test]
fn a_whole_tree_is_written_and_reads_back_as_itself() {
    if !can_mount("a_whole_tree_is_written_and_reads_back_as_itself") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let below = base()
        .hard_link("d/twin", "d/f")
        .xattr("user.overlay.x", b"inside")
        .file("marked", "");
    let above = Archive::new()
        .file(".wh.top", "")
        .file("d/sub/.wh..wh..opq", "")
        .file("d/sub/h", "");
    let layers = [
        room.apply(&below.finish(), "below"),
        room.apply(&above.finish(), "above"),
    ];
    let tree = read_only(&layers);
    let mut out =
        crate::layer::LayerWriter::new(Vec::new(), crate::vocab::Compression::Uncompressed, 1);
    let stats = write_tree(
        &tree,
        "",
        Times::Kept,
        &mut out,
        &crate::vocab::Cancel::new(),
    )
    .unwrap();
    let tar = out.finish().unwrap().0;
    assert_eq!(stats.entries, 7);
    let whole = read_only(&[room.apply(&tar, "whole")]);
    let (mut found, mut expected) = (snapshot(&whole), snapshot(&tree));
    assert_eq!(found, expected);
    // As files on the host, the kernel's own marks apart.
    found.clear();
    let stats = export_tree(
        &tree,
        &room.dir("out"),
        Times::Kept,
        &crate::vocab::Cancel::new(),
    )
    .unwrap();
    assert_eq!(stats.entries, 7);
    found = snapshot(&Tree::open(&room.dir("out")).unwrap());
    expected.remove("marked");
    found.remove("marked");
    assert_eq!(found, expected);
}
