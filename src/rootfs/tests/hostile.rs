//! One test per class of flaw that archive extractors have had. Each archive is applied beside files of the host that must
//! stay as they were.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use super::super::*;
use super::archive::Archive;
use super::{Room, can_mount, inside, is_root, read_only};
use crate::vocab::Ownership;

/// A layer directory two levels below a host directory with things to reach for.
struct Host {
    top: tempfile::TempDir,
    layer: PathBuf,
}

const KEPT: &str = "the host's own";

impl Host {
    fn new() -> Host {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("outside/sub")).unwrap();
        fs::write(top.path().join("secret"), KEPT).unwrap();
        fs::write(top.path().join("outside/file"), KEPT).unwrap();
        fs::set_permissions(
            top.path().join("outside"),
            fs::Permissions::from_mode(0o711),
        )
        .unwrap();
        fs::set_permissions(top.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let layer = top.path().join("layer");
        fs::create_dir(&layer).unwrap();
        Host { top, layer }
    }

    fn path(&self, name: &str) -> String {
        self.top.path().join(name).to_str().unwrap().to_owned()
    }

    /// Applies as a layer and extracts as ADD does; both leave the host alone. Returns what the layer came to.
    fn attack(&self, archive: impl Fn() -> Archive) -> Result<Applied, String> {
        let tar = archive().finish();
        let extracted = self.top.path().join("extracted");
        fs::create_dir(&extracted).unwrap();
        // Only containment matters here: names such as `.wh.x` are plain to ADD.
        drop(extract_archive(
            &mut &tar[..],
            &Tree::open(&extracted).unwrap(),
            b"sub/dir",
            None,
            None,
        ));
        self.check();
        let applied = apply_layer(&mut &tar[..], &self.layer, Ownership::OnDisk);
        self.check();
        applied.map_err(|error| {
            let mut text = error.to_string();
            let mut next = std::error::Error::source(&error);
            while let Some(source) = next {
                text = format!("{text}: {source}");
                next = source.source();
            }
            text
        })
    }

    fn check(&self) {
        assert_eq!(fs::read_to_string(self.path("secret")).unwrap(), KEPT);
        assert_eq!(fs::read_to_string(self.path("outside/file")).unwrap(), KEPT);
        let secret = fs::symlink_metadata(self.path("secret")).unwrap();
        assert_eq!((secret.mode() & 0o7777, secret.nlink()), (0o600, 1));
        let outside = fs::symlink_metadata(self.path("outside")).unwrap();
        assert_eq!(outside.mode() & 0o7777, 0o711);
        let mut names: Vec<_> = fs::read_dir(self.path("outside"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["file", "sub"]);
        let outside = fs::File::open(self.path("outside")).unwrap();
        assert!(!xattr::is_opaque(&outside).unwrap());
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.layer.join(name)
    }
}

#[test]
fn dot_dot_in_a_path_is_refused() {
    if !is_root("dot_dot_in_a_path_is_refused") {
        return;
    }
    for path in ["../secret", "a/../../secret", "a/.."] {
        let host = Host::new();
        let error = host
            .attack(|| Archive::new().file(path, "evil"))
            .unwrap_err();
        assert!(error.contains("leaves its root"), "{error}");
    }
}

#[test]
fn an_absolute_path_starts_at_the_layers_root() {
    if !is_root("an_absolute_path_starts_at_the_layers_root") {
        return;
    }
    let host = Host::new();
    let secret = host.path("secret");
    host.attack(|| Archive::new().file(&secret, "evil"))
        .unwrap();
    assert_eq!(fs::read(host.layer(&secret[1..])).unwrap(), b"evil");
}

#[test]
fn a_file_through_a_link_stays_inside() {
    if !is_root("a_file_through_a_link_stays_inside") {
        return;
    }
    for target in [
        "..",
        "../..",
        "/",
        "../outside",
        "/proc/self/root",
        "/proc/self/cwd",
    ] {
        let host = Host::new();
        let applied = host.attack(|| {
            Archive::new()
                .symlink("evil", target)
                .file("evil/secret", "x")
                .file("evil/outside/file", "x")
        });
        applied.unwrap();
    }
    let host = Host::new();
    let outside = host.path("outside");
    host.attack(|| {
        Archive::new()
            .symlink("evil", &outside)
            .file("evil/file", "x")
    })
    .unwrap();
    assert_eq!(
        fs::read(host.layer(&format!("{}/file", &outside[1..]))).unwrap(),
        b"x"
    );
}

#[test]
fn a_chain_of_links_stays_inside() {
    if !is_root("a_chain_of_links_stays_inside") {
        return;
    }
    let host = Host::new();
    let archive = || {
        Archive::new()
            .directory("a")
            .symlink("a/b", "../..")
            .symlink("a/c", "b/../../outside")
            .file("a/c/file", "x")
            .symlink("loop", "loop")
    };
    host.attack(archive).unwrap();
    let host = Host::new();
    let error = host
        .attack(|| Archive::new().symlink("loop", "loop").file("loop/x", "x"))
        .unwrap_err();
    assert!(error.contains("/loop"), "{error}");
}

#[test]
fn a_link_in_a_files_place_is_replaced_not_written_through() {
    if !is_root("a_link_in_a_files_place_is_replaced_not_written_through") {
        return;
    }
    let host = Host::new();
    let secret = host.path("secret");
    host.attack(|| {
        Archive::new()
            .symlink("f", "../secret")
            .symlink("g", &secret)
            .file("f", "evil")
            .file("g", "evil")
    })
    .unwrap();
    assert!(fs::symlink_metadata(host.layer("f")).unwrap().is_file());
    assert_eq!(fs::read(host.layer("g")).unwrap(), b"evil");
}

/// The story of CVE-2026-33056: a directory entry over a link changed the mode of the link's target.
#[test]
fn a_directory_over_a_link_does_not_change_the_links_target() {
    if !is_root("a_directory_over_a_link_does_not_change_the_links_target") {
        return;
    }
    let host = Host::new();
    let outside = host.path("outside");
    let archive = || {
        Archive::new()
            .symlink("d", &outside)
            .add("d", b'5', "", 0o777, b"")
            .symlink("e", "../outside")
            .add("e/", b'5', "", 0o777, b"")
    };
    host.attack(archive).unwrap();
    assert!(fs::symlink_metadata(host.layer("d")).unwrap().is_dir());
}

#[test]
fn a_hard_link_reaches_nothing_outside() {
    if !is_root("a_hard_link_reaches_nothing_outside") {
        return;
    }
    let secret = |host: &Host| host.path("secret");
    for target in ["../secret", "../../secret"] {
        let host = Host::new();
        let error = host
            .attack(|| Archive::new().hard_link("h", target))
            .unwrap_err();
        assert!(error.contains("leaves its root"), "{error}");
    }
    let host = Host::new();
    let absolute = secret(&host);
    let error = host
        .attack(|| Archive::new().hard_link("h", &absolute))
        .unwrap_err();
    assert!(error.contains("hard link to nothing"), "{error}");
    let host = Host::new();
    let error = host
        .attack(|| Archive::new().symlink("d", "..").hard_link("h", "d/secret"))
        .unwrap_err();
    assert!(error.contains("hard link to nothing"), "{error}");
}

#[test]
fn a_hard_link_to_a_link_changes_the_link_alone() {
    if !is_root("a_hard_link_to_a_link_changes_the_link_alone") {
        return;
    }
    let host = Host::new();
    let secret = host.path("secret");
    let archive = || {
        Archive::new()
            .symlink("l", &secret)
            .add("h", b'1', "l", 0o777, b"")
            .add("h", b'0', "", 0o666, b"x")
    };
    host.attack(archive).unwrap();
    assert!(fs::symlink_metadata(host.layer("l")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(host.layer("h")).unwrap().is_file());
}

#[test]
fn a_hard_link_to_a_directory_or_itself_is_refused() {
    if !is_root("a_hard_link_to_a_directory_or_itself_is_refused") {
        return;
    }
    let host = Host::new();
    let error = host
        .attack(|| Archive::new().directory("d").hard_link("h", "d"))
        .unwrap_err();
    assert!(error.contains("hard link to a directory"), "{error}");
    let host = Host::new();
    let error = host
        .attack(|| Archive::new().file("f", "x").hard_link("f", "f"))
        .unwrap_err();
    assert!(error.contains("hard link to itself"), "{error}");
}

#[test]
fn a_forged_deletion_mark_is_refused() {
    if !is_root("a_forged_deletion_mark_is_refused") {
        return;
    }
    let host = Host::new();
    let error = host
        .attack(|| Archive::new().device("etc/passwd", 0, 0))
        .unwrap_err();
    assert!(error.contains("takes for a deletion"), "{error}");
    let host = Host::new();
    let error = host
        .attack(|| Archive::new().file(".wh.a", "").hard_link("b", "a"))
        .unwrap_err();
    assert!(error.contains("hard link to nothing"), "{error}");
}

#[test]
fn a_device_is_made_or_counted_as_skipped() {
    if !is_root("a_device_is_made_or_counted_as_skipped") {
        return;
    }
    let host = Host::new();
    let applied = host.attack(|| Archive::new().device("null", 1, 3)).unwrap();
    match applied.skipped_devices {
        0 => assert!(
            fs::symlink_metadata(host.layer("null"))
                .unwrap()
                .file_type()
                .is_char_device()
        ),
        skipped => assert_eq!((skipped, host.layer("null").exists()), (1, false)),
    }
}

#[test]
fn a_deletion_through_a_link_stays_inside() {
    if !is_root("a_deletion_through_a_link_stays_inside") {
        return;
    }
    let host = Host::new();
    let outside = host.path("outside");
    let archive = || {
        Archive::new()
            .symlink("d", "../outside")
            .file("d/.wh.file", "")
            .file("d/.wh..wh..opq", "")
            .symlink("e", &outside)
            .file("e/.wh.sub", "")
    };
    host.attack(archive).unwrap();
    assert!(
        fs::symlink_metadata(host.layer("outside/file"))
            .unwrap()
            .file_type()
            .is_char_device()
    );
}

#[test]
fn a_deletion_of_no_name_is_refused() {
    if !is_root("a_deletion_of_no_name_is_refused") {
        return;
    }
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        let host = Host::new();
        let error = host.attack(|| Archive::new().file(name, "")).unwrap_err();
        assert!(error.contains("deletes no name"), "{name}: {error}");
    }
    let host = Host::new();
    host.attack(|| {
        Archive::new()
            .file(".wh..wh.plnk/x", "")
            .file(".wh..wh.aufs", "")
    })
    .unwrap();
}

#[test]
fn attributes_of_an_archive_do_not_steer_the_mount() {
    if !can_mount("attributes_of_an_archive_do_not_steer_the_mount") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let room = Room::new(host.path());
    let below = Archive::new()
        .directory("d")
        .file("d/below", "")
        .file("f", "below")
        .file("g", "below");
    let above = Archive::new()
        .xattr("user.overlay.opaque", b"y")
        .directory("d")
        .xattr("user.overlay.whiteout", b"y")
        .file("f", "")
        .xattr("user.overlay.redirect", b"/d")
        .directory("r")
        .xattr("trusted.overlay.opaque", b"y")
        .directory("d");
    let layers = [
        room.apply(&below.finish(), "below"),
        room.apply(&above.finish(), "above"),
    ];
    let tree = read_only(&layers);
    assert!(inside(&tree, "d/below").exists());
    assert!(inside(&tree, "f").exists());
    assert_eq!(fs::read_dir(inside(&tree, "r")).unwrap().count(), 0);
}

/// chown clears setuid and capabilities, so the order in which metadata is set decides what is left.
#[test]
fn setuid_and_capabilities_survive_the_change_of_owner() {
    if !is_root("setuid_and_capabilities_survive_the_change_of_owner") {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let owner = match rustix::process::geteuid().is_root()
        && std::env::var_os(super::IN_NAMESPACE).is_none()
    {
        true => (1000, 1001),
        false => (0, 0),
    };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Archive::new()
        .xattr("security.capability", &capability)
        .owned("ping", b'0', 0o4755, owner)
        .owned("group", b'5', 0o2775, owner)
        .add("alias", b'1', "ping", 0o6755, b"")
        .finish();
    let Ok(applied) = apply_layer(&mut &tar[..], host.path(), Ownership::OnDisk) else {
        super::not_run(
            "setuid_and_capabilities_survive_the_change_of_owner",
            "no right to set capabilities",
        );
        return;
    };
    assert_eq!((applied.entries, applied.skipped_xattrs), (3, 0));
    let ping = fs::metadata(host.path().join("ping")).unwrap();
    // The hard link's header speaks of the same file, and comes last.
    assert_eq!(
        (ping.mode() & 0o7777, ping.uid(), ping.nlink()),
        (0o6755, 0, 2)
    );
    let file = fs::File::open(host.path().join("ping")).unwrap();
    let value = xattr::get(std::os::fd::AsFd::as_fd(&file), b"security.capability").unwrap();
    assert_eq!(value.as_deref(), Some(capability.as_slice()));
    let group = fs::metadata(host.path().join("group")).unwrap();
    assert_eq!(
        (group.mode() & 0o7777, group.uid(), group.gid()),
        (0o2775, owner.0, owner.1)
    );
}

/// A thousand bytes that say they are terabytes: neither time nor disk is spent on what is not there.
#[test]
fn a_hole_of_any_size_costs_nothing() {
    if !is_root("a_hole_of_any_size_costs_nothing") {
        return;
    }
    let archive = |size: u64, map: &str, content: &str| {
        Archive::new()
            .extended("GNU.sparse.map", map.as_bytes())
            .extended("GNU.sparse.size", size.to_string().as_bytes())
            .file("f", content)
            .file("next", "after")
    };
    let (large, end) = (1_u64 << 43, (1_u64 << 43) - 1);
    let map = format!("0,1,{},1,{end},1", 1_u64 << 42);
    let check = |at: &std::path::Path| {
        let file = fs::File::open(at.join("f")).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), large);
        assert!(metadata.blocks() < 100, "{} blocks", metadata.blocks());
        let byte = |at| {
            let mut byte = [9];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, at).unwrap();
            byte[0]
        };
        let bytes = [0, 1, (1 << 42) - 1, 1 << 42, (1 << 42) + 1, end].map(byte);
        assert_eq!(bytes, [b'a', 0, 0, b'b', 0, b'c']);
        assert_eq!(fs::read(at.join("next")).unwrap(), b"after");
    };
    let host = Host::new();
    match host.attack(|| archive(large, &map, "abc")) {
        Ok(applied) => {
            assert_eq!(applied.bytes, large + 5);
            check(&host.layer);
            assert_eq!(tree_size(&host.layer).unwrap(), large + 5);
        }
        // A file system without files of such a size.
        Err(error) => assert!(error.contains("/f"), "{error}"),
    }
    let context = tempfile::tempdir().unwrap();
    let tar = archive(large, &map, "abc").finish();
    let tree = Tree::open(context.path()).unwrap();
    match extract_context(&mut &tar[..], &tree, Default::default()) {
        Ok(_) => check(context.path()),
        Err(error) => assert!(error.to_string().contains("/f"), "{error}"),
    }
    // The largest that there can be, three times: more than a number holds.
    let host = Host::new();
    let most = i64::MAX as u64;
    let all = || {
        ["f", "g", "h"]
            .iter()
            .fold(Archive::new(), |archive, name| {
                archive
                    .extended("GNU.sparse.map", b"")
                    .extended("GNU.sparse.size", most.to_string().as_bytes())
                    .file(name, "")
            })
    };
    match host.attack(all) {
        Ok(_) => assert_eq!(tree_size(&host.layer).unwrap(), u64::MAX),
        Err(error) => assert!(error.contains("/f"), "{error}"),
    }
}

#[test]
fn a_cut_archive_is_an_error() {
    if !is_root("a_cut_archive_is_an_error") {
        return;
    }
    let tar = Archive::new().file("f", &"x".repeat(3000)).finish();
    let large = Archive::new().file("f", &"x".repeat(3 << 20)).finish();
    for length in [700, 2000, 3500] {
        let host = Host::new();
        let error = apply_layer(&mut &tar[..length], &host.layer, Ownership::OnDisk).unwrap_err();
        assert!(matches!(error, RootfsError::Archive(_)), "{error:?}");
    }
    // Most of it is on disk by then; the cause is told, not the file that misses its end.
    let host = Host::new();
    let error = apply_layer(&mut &large[..2 << 20], &host.layer, Ownership::OnDisk).unwrap_err();
    assert!(matches!(error, RootfsError::Archive(_)), "{error:?}");
}
