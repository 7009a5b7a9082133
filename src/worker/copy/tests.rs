//! Tests of the module beside.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags, mknodat, open, setxattr};

use super::*;
use crate::context::testing::{
    deep_directory, is_root, plant, plant_bytes, plant_deep, remove_deep, set_mtime, show,
};
use crate::context::{Meta, Query, select};
use crate::rootfs::FileKind;
use crate::vocab::{DeviceNumber, Ownership};

const NOW: i64 = 1_600_000_000;

fn open_root(path: &Path) -> OwnedFd {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// Performs `COPY` with the words of `instruction`: `--chown=U:G --chmod= --link --parents --exclude= --from` (the context is a
/// stage) `--epoch=`, sources (`<<NAME` is a heredoc that says `inline`), destination.
fn perform(context: &Path, root: &Path, instruction: &str) -> Result<CopyStats, CopyError> {
    perform_as(
        (&Owners::OnDisk, &Owners::OnDisk),
        context,
        root,
        instruction,
    )
}

/// Performs `COPY` with what the files of the context, if it is a stage, and of the root are.
fn perform_as(
    ledgers: (&Owners, &Owners),
    context: &Path,
    root: &Path,
    instruction: &str,
) -> Result<CopyStats, CopyError> {
    let mut words: Vec<&str> = instruction.split_whitespace().collect();
    let destination = words.pop().unwrap();
    let mut options = CopyOptions {
        destination,
        owner: None,
        chmod: None,
        link: false,
        parents: false,
        epoch: None,
        now: Timestamp::from_seconds(NOW),
    };
    let (mut chmod, mut exclude, mut from, mut sources) = (None, Vec::new(), false, Vec::new());
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("--chown", owner) => {
                let (uid, gid) = owner.split_once(':').unwrap();
                options.owner = Some((uid.parse().unwrap(), gid.parse().unwrap()));
            }
            ("--chmod", mode) => chmod = Some(Chmod::parse(mode).unwrap()),
            ("--epoch", time) => {
                options.epoch = Some(Timestamp::from_seconds(time.parse().unwrap()));
            }
            ("--exclude", pattern) => exclude.push(pattern.to_owned()),
            ("--link", _) => options.link = true,
            ("--parents", _) => options.parents = true,
            ("--from", _) => from = true,
            _ => sources.push(word),
        }
    }
    options.chmod = chmod.as_ref();
    let source = match from {
        true => Source::tree(open_root(context), ledgers.0.ledger()),
        false => Source::directory(context, None).unwrap(),
    };
    let mut selections = Vec::new();
    for word in &sources {
        let query = Query {
            pattern: word,
            parents: options.parents,
            exclude: &exclude,
        };
        selections.push(match word.starts_with("<<") {
            true => None,
            false => Some(select(&source, &query).unwrap()),
        });
    }
    let items: Vec<Item<'_>> = sources
        .iter()
        .zip(&selections)
        .map(|(word, selection)| match selection {
            Some(selection) => Item::Selected {
                source: &source,
                selection,
            },
            None => Item::Inline {
                name: &word[2..],
                content: b"inline",
            },
        })
        .collect();
    // As the root of a step comes: mounts have no other descriptors.
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let root = Tree::from_fd(root).with_owners(ledgers.1.clone());
    copy(&root, &items, &options, &Cancel::new())
}

/// Takes a planted tree's owners from the disk into a ledger.
fn into_ledger(root: &Path) -> Owners {
    let owners = Owners::new(Ownership::InLedger);
    for path in walked(root) {
        let (parent, name) = (path.parent().unwrap(), path.file_name().unwrap());
        let parent = open_root(parent);
        let meta = path.symlink_metadata().unwrap();
        std::os::unix::fs::lchown(&path, Some(0), Some(0)).unwrap();
        let ids = (meta.uid(), meta.gid());
        let mode = meta.mode() & 0o7777;
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let kind = FileType::from_raw_mode(stat.st_mode);
        let name = name.as_bytes();
        let described = match kind {
            FileType::Directory => owners.describe(open_root(&path).as_fd(), ids, mode),
            FileType::Symlink => owners.describe_at(parent.as_fd(), name, ids, None),
            FileType::CharacterDevice => {
                std::fs::remove_file(&path).unwrap();
                let device = DeviceNumber {
                    is_block: false,
                    major: rustix::fs::major(stat.st_rdev),
                    minor: rustix::fs::minor(stat.st_rdev),
                };
                owners.make_device(parent.as_fd(), name, device).unwrap();
                owners.describe_at(parent.as_fd(), name, ids, Some(mode))
            }
            _ => owners.describe_at(parent.as_fd(), name, ids, Some(mode)),
        };
        described.unwrap();
        set_mtime_of(&path, &meta);
    }
    owners
}

/// Gives a tree of a ledger its owners on disk, so that it can be shown.
fn onto_disk(root: &Path, owners: &Owners) {
    for path in walked(root) {
        let meta = path.symlink_metadata().unwrap();
        let parent = open_root(path.parent().unwrap());
        let name = path.file_name().unwrap().as_bytes();
        let stat = owners.stat_at(&parent, name).unwrap().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "given away: {path:?}");
        let is_device = matches!(stat.kind, FileKind::CharDevice | FileKind::BlockDevice);
        if is_device {
            assert!(meta.is_file(), "made: {path:?}");
            std::fs::remove_file(&path).unwrap();
            let number = rustix::fs::makedev(stat.rdev.0, stat.rdev.1);
            let kind = match stat.kind {
                FileKind::BlockDevice => FileType::BlockDevice,
                _ => FileType::CharacterDevice,
            };
            mknodat(&parent, name, kind, Mode::RUSR, number).unwrap();
        }
        Owners::OnDisk
            .describe_at(
                parent.as_fd(),
                name,
                (stat.uid, stat.gid),
                (!meta.is_symlink()).then_some(stat.mode),
            )
            .unwrap();
        set_mtime_of(&path, &meta);
    }
}

fn set_mtime_of(path: &Path, meta: &std::fs::Metadata) {
    let mtime = Mtime {
        seconds: meta.mtime(),
        nanoseconds: meta.mtime_nsec() as u32,
    };
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times(mtime), flags).unwrap();
}

/// Returns the paths of all files below a directory, directories after what is in them.
fn walked(root: &Path) -> Vec<PathBuf> {
    let mut waiting = vec![root.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        for entry in std::fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.reverse();
    found
}

/// Compares the root after `instruction` with `expected`, which is also the error's text.
#[track_caller]
fn check(context: &str, root: &str, instruction: &str, expected: &str) {
    if !is_root("copy tests") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(from.path(), context);
    plant(to.path(), root);
    let found = match perform(from.path(), to.path(), instruction) {
        Ok(_) => show(to.path()),
        Err(error) => format!("error: {error}"),
    };
    let lines = |text: &str| {
        let lines = text.lines().map(|line| line.trim().to_owned());
        lines
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(lines(&found), lines(expected), "COPY {instruction}");

    // Once more where no file can be given away.
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(from.path(), context);
    plant(to.path(), root);
    let source = match instruction.contains("--from") {
        true => into_ledger(from.path()),
        false => Owners::OnDisk,
    };
    let target = into_ledger(to.path());
    let found = match perform_as((&source, &target), from.path(), to.path(), instruction) {
        Ok(_) => {
            onto_disk(to.path(), &target);
            show(to.path())
        }
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(
        lines(&found),
        lines(expected),
        "COPY {instruction}, in a ledger"
    );
}

/// Compares times after `instruction`: `PATH SECONDS` a line.
#[track_caller]
fn check_times(context: &str, root: &str, instruction: &str, expected: &str) {
    if !is_root("copy tests") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(from.path(), context);
    plant(to.path(), root);
    perform(from.path(), to.path(), instruction).unwrap();
    for line in expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (path, seconds) = line.split_once(' ').unwrap();
        let meta = to.path().join(path).symlink_metadata().unwrap();
        assert_eq!(
            meta.mtime(),
            seconds.parse::<i64>().unwrap(),
            "{path} of COPY {instruction}"
        );
    }
}

const TREE: &str = "
    dir d 700
    file d/f 640 = one
    dir d/sub 750
    file d/sub/g 4755 = two
    file a = a
    file b 600 = b
";

#[test]
fn a_file_goes_into_a_directory_or_takes_the_name() {
    check(TREE, "", "a /x", "f 644 x = a");
    check(TREE, "", "a /x/", "d 755 x\nf 644 x/a = a");
    check(TREE, "dir x 700", "a /x", "d 700 x\nf 644 x/a = a");
    check(TREE, "dir x 700", "a /x/", "d 700 x\nf 644 x/a = a");
    check(TREE, "", "a /", "f 644 a = a");
    check(TREE, "", "a b /x/", "d 755 x\nf 644 x/a = a\nf 600 x/b = b");
    check(TREE, "file x 600 = old", "a /x", "f 644 x = a");
    check(TREE, "file x/a 600 = old", "a /x", "d 755 x\nf 644 x/a = a");
    check(
        TREE,
        "file x",
        "a /x/",
        "error: cannot copy to non-directory `/x`",
    );
    check(
        TREE,
        "file x",
        "a /x/y",
        "error: cannot copy to non-directory `/x`",
    );
    check(
        TREE,
        "dir x/a",
        "a /x",
        "error: cannot replace the directory `/x/a` with a file",
    );
    check(
        TREE,
        "dir x/a",
        "a /x/a",
        "d 755 x\nd 755 x/a\nf 644 x/a/a = a",
    );
    // `..` stops at the root; a caller cleans, but nothing depends on it.
    check(TREE, "", "a /../../x", "f 644 x = a");
}

#[test]
fn a_directory_is_copied_as_its_contents() {
    let contents = "d 755 x\nf 640 x/f = one\nd 750 x/sub\nf 4755 x/sub/g = two";
    check(TREE, "", "d /x", contents);
    check(TREE, "", "d /x/", contents);
    check(TREE, "", "d/ /x/", contents);
    check(TREE, "", "[d] /x", contents);
    check(
        TREE,
        "",
        "d /",
        "f 640 f = one\nd 750 sub\nf 4755 sub/g = two",
    );
    check(
        TREE,
        "file x",
        "d /x",
        "error: cannot copy to non-directory `/x`",
    );
    check(
        TREE,
        "file x",
        "d /x/y",
        "error: cannot copy to non-directory `/x`",
    );
    check(
        TREE,
        "file x/sub",
        "d /x",
        "error: cannot copy to non-directory `/x/sub`",
    );
    check(
        TREE,
        "dir x/f",
        "d /x",
        "error: cannot replace the directory `/x/f` with a file",
    );
    check("dir d", "", "d /x", "d 755 x");
    check(TREE, "", "*.none /x/", "");
}

#[test]
fn several_sources_for_one_name_are_refused() {
    let refusal =
        "error: cannot copy several sources to `/x`: it is no directory and does not end with `/`";
    check(TREE, "", "a b /x", refusal);
    check(TREE, "", "[ab] /x", refusal);
    check(TREE, "", "d a /x", refusal);
    check(TREE, "", "a <<EOF /x", refusal);
    check(TREE, "file x", "a b /x", refusal);
    check(TREE, "link x -> y", "a b /x", refusal);
    check(TREE, "", "a none* /x", "f 644 x = a");
    check(
        TREE,
        "dir x",
        "a b /x",
        "d 755 x\nf 644 x/a = a\nf 600 x/b = b",
    );
    check(
        TREE,
        "dir y\nlink x -> y",
        "a b /x",
        "l x -> y\nd 755 y\nf 644 y/a = a\nf 600 y/b = b",
    );
    check(
        "file d/f\nfile e/g",
        "",
        "d e /x",
        "d 755 x\nf 644 x/f\nf 644 x/g",
    );
}

#[test]
fn missing_parents_are_0755_and_0_0() {
    check(TREE, "", "a /p/q/x", "d 755 p\nd 755 p/q\nf 644 p/q/x = a");
    check(
        TREE,
        "",
        "d/sub /p/q",
        "d 755 p\nd 755 p/q\nf 4755 p/q/g = two",
    );
    check(
        TREE,
        "dir p 700",
        "a /p/q/x",
        "d 700 p\nd 755 p/q\nf 644 p/q/x = a",
    );
    check(
        TREE,
        "",
        "--chown=5:6 a /p/q/x",
        "d 755 5:6 p\nd 755 5:6 p/q\nf 644 5:6 p/q/x = a",
    );
    check(TREE, "", "--chmod=600 a /p/x", "d 600 p\nf 600 p/x = a");
    check(TREE, "", "--chmod=7777 a /p/x", "d 777 p\nf 7777 p/x = a");
    // A symbolic mode changes what is there, and these are not there.
    check(TREE, "", "--chmod=a-x,u+x a /p/x", "d 755 p\nf 744 p/x = a");
    check(
        TREE,
        "dir p 700",
        "--chown=5:6 --chmod=777 a /p/x",
        "d 700 p\nf 777 5:6 p/x = a",
    );
}

#[test]
fn chmod_and_chown_apply_to_a_whole_tree_but_not_to_links() {
    let tree = "file d/f 640\ndir d/s 700\nlink d/l -> f\nfifo d/p";
    check(
        tree,
        "",
        "--chmod=1777 --chown=5:6 d /x",
        "d 777 5:6 x\nf 1777 5:6 x/f\nl 5:6 x/l -> f\np 1777 5:6 x/p\nd 1777 5:6 x/s",
    );
    check(
        tree,
        "",
        "--chmod=600 d /x",
        "d 600 x\nf 600 x/f\nl x/l -> f\np 600 x/p\nd 600 x/s",
    );
    check(
        tree,
        "",
        "--chmod=u=rwX,go=rX d /x",
        "d 755 x\nf 644 x/f\nl x/l -> f\np 644 x/p\nd 755 x/s",
    );
    check(
        tree,
        "",
        "--chmod=0 d /x",
        "d 0 x\nf 0 x/f\nl x/l -> f\np 0 x/p\nd 0 x/s",
    );
}

#[test]
fn owners_are_0_0_from_the_host_and_kept_from_a_stage() {
    let tree = "file d/f\nfile d/s/g\nlink d/l -> f\nfifo d/p\nown d 1 1\nown d/f 2 3\nown d/s 4 5\nown d/l 6 7\nown d/p 8 9";
    check(
        tree,
        "",
        "d /x",
        "d 755 x\nf 644 x/f\nl x/l -> f\np 640 x/p\nd 755 x/s\nf 644 x/s/g",
    );
    // Of the destination itself neither mode nor owner is taken.
    check(
        tree,
        "",
        "--from d /x",
        "d 755 x\nf 644 2:3 x/f\nl 6:7 x/l -> f\np 640 8:9 x/p\nd 755 4:5 x/s\nf 644 x/s/g",
    );
    check(tree, "", "--from d/f /x", "f 644 2:3 x");
    check(tree, "", "--from --chown=0:0 d/f /x", "f 644 x");
}

#[test]
fn modes_are_kept_with_their_special_bits() {
    check(
        "file d/a 4755\nfile d/b 2755\nfile d/c 1644\nfile d/e 0 = x\ndir d/s 1777\ndir d/t 2770\ndir d/u 0",
        "",
        "d /x",
        "d 755 x\nf 4755 x/a\nf 2755 x/b\nf 1644 x/c\nf 0 x/e = x\nd 1777 x/s\nd 2770 x/t\nd 0 x/u",
    );
    check("file f 6755", "", "--chown=5:6 f /x", "f 6755 5:6 x");
    // A setgid directory gives its group to nobody.
    check(
        "file f\nfile d/g",
        "dir x 2755\nown x 0 7\ndir x 2755",
        "f /x",
        "d 2755 0:7 x\nf 644 x/f",
    );
    check(
        "dir d/s 755",
        "dir x 2755\nown x 0 7\ndir x 2755",
        "d /x",
        "d 2755 0:7 x\nd 755 x/s",
    );
}

#[test]
fn merging_keeps_the_directory_and_replaces_files() {
    check(
        TREE,
        "dir x 711\nown x 8 9\nfile x/f 600 = old\nown x/f 8 9\nfile x/other 600 = kept\nown x/other 8 9",
        "d /x",
        "d 711 8:9 x\nf 640 x/f = one\nf 600 8:9 x/other = kept\nd 750 x/sub\nf 4755 x/sub/g = two",
    );
    // A directory below takes the source's.
    check(
        TREE,
        "dir x/sub 711\nown x/sub 8 9",
        "d /x",
        "d 755 x\nf 640 x/f = one\nd 750 x/sub\nf 4755 x/sub/g = two",
    );
    // A link where a file or link goes is replaced, and what it led to is not touched.
    check(
        "file d/f = new\nlink d/l -> here",
        "file t = t\nlink x/f -> ../t\nlink x/l -> ../t",
        "d /x",
        "f 644 t = t\nd 755 x\nf 644 x/f = new\nl x/l -> here",
    );
    // Below the destination links are not followed.
    check(
        "file d/s/f",
        "dir y\nlink x/s -> ../y",
        "d /x",
        "error: cannot copy to non-directory `/x/s`",
    );
    // A hard link is taken apart, not written through.
    check(
        "file f = new",
        "file x = old\nhard y = x",
        "f /x",
        "f 644 x = new\nf 644 y = old",
    );
}

#[test]
fn links_in_the_destination_are_followed_inside_the_root() {
    check(
        "file f = f",
        "dir real\nlink l -> real",
        "f /l",
        "l l -> real\nd 755 real\nf 644 real/f = f",
    );
    check(
        "file f = f",
        "dir real\nlink l -> real",
        "f /l/x",
        "l l -> real\nd 755 real\nf 644 real/x = f",
    );
    check(
        "file d/f = f",
        "dir real\nlink l -> real",
        "d /l",
        "l l -> real\nd 755 real\nf 644 real/f = f",
    );
    check(
        "file f = f",
        "dir a/real\nlink b/l -> /a/real",
        "f /b/l/",
        "d 755 a\nd 755 a/real\nf 644 a/real/f = f\nd 755 b\nl b/l -> /a/real",
    );
    check(
        "file f = f",
        "link up -> ../../../../etc",
        "f /up/x",
        "d 755 etc\nf 644 etc/x = f\nl up -> ../../../../etc",
    );
    // To a file: that file is overwritten, the link stays.
    check(
        "file f = f",
        "file t 600 = old\nlink l -> t",
        "f /l",
        "l l -> t\nf 644 t = f",
    );
    // Dangling: the directories that it names are made.
    check(
        "file f = f",
        "link l -> /p/q/t",
        "f /l",
        "l l -> /p/q/t\nd 755 p\nd 755 p/q\nf 644 p/q/t = f",
    );
    check(
        "file f = f",
        "link l -> /p/q",
        "f /l/",
        "l l -> /p/q\nd 755 p\nd 755 p/q\nf 644 p/q/f = f",
    );
    check(
        "file f = f",
        "link l -> p/q/",
        "f /l",
        "l l -> p/q/\nd 755 p\nd 755 p/q\nf 644 p/q/f = f",
    );
    check(
        "file d/f = f",
        "link l -> p",
        "d /l/m",
        "l l -> p\nd 755 p\nd 755 p/m\nf 644 p/m/f = f",
    );
    check(
        "file f = f",
        "link a -> b\nlink b -> /c\ndir c",
        "f /a/x",
        "l a -> b\nl b -> /c\nd 755 c\nf 644 c/x = f",
    );
    check(
        "file f",
        "link a -> b\nlink b -> a",
        "f /a/x",
        "error: too many symbolic links in the destination `/a`",
    );
    check(
        "file f",
        "file t\nlink l -> t",
        "f /l/",
        "error: cannot copy to non-directory `/t`",
    );
}

#[test]
fn links_in_a_tree_stay_links() {
    check(
        "link d/a -> f\nlink d/b -> /etc/passwd\nlink d/c -> ../../..\nlink d/e -> gone\nfile d/f\nlink l -> d",
        "",
        "l /x",
        "d 755 x\nl x/a -> f\nl x/b -> /etc/passwd\nl x/c -> ../../..\nl x/e -> gone\nf 644 x/f",
    );
    check(
        "file f = f\nlink l -> f",
        "",
        "l /x/",
        "d 755 x\nf 644 x/l = f",
    );
    check("file f = f\nlink l -> f", "", "l /x", "f 644 x = f");
}

#[test]
fn hard_links_inside_one_tree_stay_hard_links() {
    check(
        "file d/a = 1\nhard d/s/b = d/a\nhard d/c = d/a\nfile d/e = 2\nhard outside = d/e",
        "",
        "d /x",
        "d 755 x\nf 644 x/a = 1 #0\nf 644 x/c = 1 #0\nf 644 x/e = 2\nd 755 x/s\nf 644 x/s/b = 1 #0",
    );
    check(
        "file d/a = 1\nhard e/b = d/a",
        "",
        "d/a e/b /x/",
        "d 755 x\nf 644 x/a = 1\nf 644 x/b = 1",
    );
    check(
        "file d/a = 1\nhard e/b = d/a",
        "",
        "d e /x/",
        "d 755 x\nf 644 x/a = 1\nf 644 x/b = 1",
    );
    // Also where a file of that name is replaced.
    check(
        "file d/a = 1\nhard d/b = d/a",
        "file x/b = old",
        "d /x",
        "d 755 x\nf 644 x/a = 1 #0\nf 644 x/b = 1 #0",
    );
    check(
        "file d/a = 1\nhard d/b = d/a",
        "dir x/b",
        "d /x",
        "error: cannot replace the directory `/x/b` with a file",
    );
}

#[test]
fn fifos_are_copied_and_sockets_become_empty_files() {
    check(
        "fifo d/p\nsocket d/s\nmode d/s 640",
        "",
        "d /x",
        "d 755 x\np 640 x/p\nf 640 x/s",
    );
    check("fifo p", "", "p /x", "p 640 x");
    check("socket s\nmode s 600", "", "s /x", "f 600 x");
    check("fifo p", "file x", "p /x", "p 640 x");
}

#[test]
fn devices_are_copied_where_the_kernel_lets_us() {
    if !is_root("devices_are_copied_where_the_kernel_lets_us") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mode = Mode::from_raw_mode(0o620);
    let device = rustix::fs::makedev(1, 3);
    let path = from.path().join("null");
    if mknodat(
        rustix::fs::CWD,
        &path,
        FileType::CharacterDevice,
        mode,
        device,
    )
    .is_err()
    {
        return; // Root of a user namespace only.
    }
    perform(from.path(), to.path(), "--from null /x").unwrap();
    let meta = to.path().join("x").metadata().unwrap();
    assert_eq!((meta.rdev(), meta.mode()), (device, 0o020600));
    perform(from.path(), to.path(), "--from --chmod=1666 null /y").unwrap();
    assert_eq!(
        to.path().join("y").metadata().unwrap().mode() & 0o7777,
        0o1666
    );
}

#[test]
fn a_whiteout_in_a_source_is_refused() {
    if !is_root("a_whiteout_in_a_source_is_refused") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = from.path().join("passwd");
    let kind = FileType::CharacterDevice;
    mknodat(rustix::fs::CWD, &path, kind, Mode::empty(), 0).unwrap();
    for instruction in ["passwd /x", ". /x", "--link . /"] {
        let outcome = perform(from.path(), to.path(), instruction);
        assert!(
            matches!(outcome, Err(CopyError::Whiteout { .. })),
            "{outcome:?}"
        );
    }
}

#[test]
fn times_come_from_the_source_and_from_the_build() {
    let tree = "file d/f\nfile d/s/g\nlink d/l -> f\nfifo d/p\ntime d/f 1000\ntime d/l 1001\ntime d/p 1002\ntime d/s/g 1003\ntime d/s 1004\ntime d 1005";
    check_times(
        tree,
        "",
        "d /p/x",
        &format!("p {NOW}\np/x 1005\np/x/f 1000\np/x/l 1001\np/x/p 1002\np/x/s 1004\np/x/s/g 1003"),
    );
    check_times(tree, "", "d/f /p/x", &format!("p {NOW}\np/x 1000"));
    check_times(
        tree,
        "",
        "--epoch=77 d/f /p/q/x",
        "p 77\np/q 77\np/q/x 1000",
    );
    check_times(tree, "", "--epoch=77 <<EOF /p/", "p 77\np/EOF 77");
    check_times(tree, "", "<<EOF /e", &format!("e {NOW}"));
    // Merged: the destination gets the source's, what is on the way stays as it was.
    check_times(
        tree,
        "dir p/x/s\ntime p/x/s 5\ntime p/x 6\ntime p 7",
        "d /p/x",
        "p 7\np/x 1005\np/x/s 1004",
    );
    check_times(
        tree,
        "dir p/x\ntime p/x 6\ntime p 7",
        "d/f /p/x/",
        &format!("p 7\np/x {NOW}"),
    );
    check_times(
        tree,
        "dir p\ntime p 7",
        "d/f /p/q/f",
        &format!("p {NOW}\np/q {NOW}"),
    );
    check_times(
        tree,
        "",
        "--link d /p/x",
        &format!("p {NOW}\np/x 1005\np/x/s 1004"),
    );
}

#[test]
fn times_keep_their_nanoseconds_also_before_1970() {
    if !is_root("times_keep_their_nanoseconds_also_before_1970") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(from.path(), "file d/f\nfile d/old");
    set_mtime(&from.path().join("d/old"), -5);
    let time = Timespec {
        tv_sec: 12,
        tv_nsec: 345_678_901,
    };
    let both = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let flags = AtFlags::empty();
    rustix::fs::utimensat(rustix::fs::CWD, from.path().join("d/f"), &both, flags).unwrap();
    perform(from.path(), to.path(), "d /x").unwrap();
    let meta = to.path().join("x/f").metadata().unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (12, 345_678_901));
    assert_eq!(to.path().join("x/old").metadata().unwrap().mtime(), -5);
}

#[test]
fn attributes_and_capabilities_survive_chown_and_chmod() {
    if !is_root("attributes_and_capabilities_survive_chown_and_chmod") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(from.path(), "file d/f 755 = x\ndir d/s");
    // Version 2, effective, cap_net_bind_service.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = |path: &str, name: &str, value: &[u8]| {
        setxattr(from.path().join(path), name, value, XattrFlags::empty()).unwrap();
    };
    set("d/f", "user.note", b"kept");
    set("d/f", "security.capability", &capability);
    set("d/f", "user.overlay.redirect", b"/etc");
    set("d/s", "user.dir", b"too");
    let stats = perform(from.path(), to.path(), "--chown=5:6 --chmod=4755 d /x").unwrap();
    assert_eq!(stats.lost_xattrs, 0);
    let get = |path: &str, name: &str| {
        let mut value = [0; 64];
        rustix::fs::getxattr(to.path().join(path), name, &mut value[..])
            .map(|length| value[..length].to_vec())
            .ok()
    };
    assert_eq!(get("x/f", "user.note"), Some(b"kept".to_vec()));
    assert_eq!(get("x/f", "security.capability"), Some(capability.to_vec()));
    assert_eq!(get("x/f", "user.overlay.redirect"), None);
    assert_eq!(get("x/s", "user.dir"), Some(b"too".to_vec()));
    let meta = to.path().join("x/f").metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o4755, 5));
}

#[test]
fn heredocs_are_0644_files() {
    check("", "", "<<EOF /x", "f 644 x = inline");
    check("", "", "<<EOF /x/", "d 755 x\nf 644 x/EOF = inline");
    check("", "dir x", "<<EOF /x", "d 755 x\nf 644 x/EOF = inline");
    check(
        "file a = a",
        "",
        "a <<A <<B /x/",
        "d 755 x\nf 644 x/A = inline\nf 644 x/B = inline\nf 644 x/a = a",
    );
    check(
        "",
        "",
        "--chown=5:6 --chmod=700 <<A /p/x",
        "d 700 5:6 p\nf 700 5:6 p/x = inline",
    );
    check("", "", "--chmod=+x <<A /p/x", "d 755 p\nf 755 p/x = inline");
    check("", "file x 600 = old", "<<A /x", "f 644 x = inline");
    check("", "", "<<a/b /x/", "error: `a/b` is not a file name");
    check("", "", "<<.. /x/", "error: `..` is not a file name");
}

#[test]
fn link_copies_as_onto_an_empty_root() {
    check(TREE, "", "--link a /p/x", "d 755 p\nf 644 p/x = a");
    // A link in the path becomes a real directory.
    check(
        TREE,
        "dir real\nlink l -> real",
        "--link a /l/x",
        "d 755 l\nf 644 l/x = a\nd 755 real",
    );
    check(
        TREE,
        "link l -> gone",
        "--link d /l",
        "d 755 l\nf 640 l/f = one\nd 750 l/sub\nf 4755 l/sub/g = two",
    );
    check(
        TREE,
        "file t\nlink l -> t",
        "--link a /l",
        "f 644 l = a\nf 644 t",
    );
    // Parents that are there become 0755 0:0, or what the flags say.
    check(
        TREE,
        "dir p 700\nown p 8 9\nfile p/k 600",
        "--link a /p/x",
        "d 755 p\nf 600 p/k\nf 644 p/x = a",
    );
    check(
        TREE,
        "dir p 700",
        "--link --chown=5:6 a /p/x",
        "d 755 5:6 p\nf 644 5:6 p/x = a",
    );
    // A directory in the way of a file is replaced, and a file in the way of a directory.
    check(TREE, "file x/deep/down/f", "--link a /x", "f 644 x = a");
    check(TREE, "file x", "--link a /x/y", "d 755 x\nf 644 x/y = a");
    check(
        TREE,
        "file x/f/g/h\nfile x/sub",
        "--link d /x",
        "d 755 x\nf 640 x/f = one\nd 750 x/sub\nf 4755 x/sub/g = two",
    );
    check(
        TREE,
        "dir y\nlink x/sub -> ../y",
        "--link d /x",
        "d 755 x\nf 640 x/f = one\nd 750 x/sub\nf 4755 x/sub/g = two\nd 755 y",
    );
    check(
        TREE,
        "dir x/sub 711\nown x/sub 8 9",
        "--link d /x",
        "d 755 x\nf 640 x/f = one\nd 750 x/sub\nf 4755 x/sub/g = two",
    );
    // A trailing slash makes a directory as ever.
    check(
        TREE,
        "dir x 700",
        "--link a b /x/",
        "d 755 x\nf 644 x/a = a\nf 600 x/b = b",
    );
    let refusal =
        "error: cannot copy several sources to `/x`: it is no directory and does not end with `/`";
    check(TREE, "dir x", "--link a b /x", refusal);
}

#[test]
fn parents_keep_the_path_of_the_source() {
    let tree =
        "file p/q/f 600 = f\nfile p/q/g\nfile p/z\ndir p 711\ndir p/q 2750\ntime p/q 55\ntime p 44";
    check(
        tree,
        "",
        "--parents p/q/f /x",
        "d 755 x\nd 711 x/p\nd 2750 x/p/q\nf 600 x/p/q/f = f",
    );
    check(
        tree,
        "",
        "--parents p/./q/f /x/",
        "d 755 x\nd 2750 x/q\nf 600 x/q/f = f",
    );
    check(
        tree,
        "",
        "--parents p/q /x",
        "d 755 x\nd 711 x/p\nd 2750 x/p/q\nf 600 x/p/q/f = f\nf 644 x/p/q/g",
    );
    check(
        tree,
        "",
        "--parents **/g /",
        "d 711 p\nd 2750 p/q\nf 644 p/q/g",
    );
    check(
        tree,
        "",
        "--parents p/q/f p/z /x",
        "d 755 x\nd 711 x/p\nd 2750 x/p/q\nf 600 x/p/q/f = f\nf 644 x/p/z",
    );
    check(
        tree,
        "",
        "--parents --chown=5:6 p/q/g /x",
        "d 755 5:6 x\nd 711 5:6 x/p\nd 2750 5:6 x/p/q\nf 644 5:6 x/p/q/g",
    );
    check(
        tree,
        "",
        "--parents --chmod=700 p/q/g /x",
        "d 700 x\nd 700 x/p\nd 700 x/p/q\nf 700 x/p/q/g",
    );
    // What is there keeps its mode.
    check(
        tree,
        "dir x/p 700",
        "--parents p/q/g /x",
        "d 755 x\nd 700 x/p\nd 2750 x/p/q\nf 644 x/p/q/g",
    );
    check(
        tree,
        "file x/p",
        "--parents p/q/g /x",
        "error: cannot copy to non-directory `/x/p`",
    );
    check(tree, "", "--parents none* /x", "");
    check(
        tree,
        "",
        "--parents --exclude=**/f p /x",
        "d 755 x\nd 711 x/p\nd 2750 x/p/q\nf 644 x/p/q/g\nf 644 x/p/z",
    );
    check(
        tree,
        "",
        "--parents p/q/g <<EOF /x",
        "d 755 x\nf 644 x/EOF = inline\nd 711 x/p\nd 2750 x/p/q\nf 644 x/p/q/g",
    );
    check_times(
        tree,
        "",
        "--parents p/q/f p/z /x",
        &format!("x {NOW}\nx/p 44\nx/p/q 55"),
    );
    check_times(
        tree,
        "dir x/p\ntime x/p 3",
        "--parents p/q/f /x",
        &format!("x {NOW}\nx/p 44\nx/p/q 55"),
    );
}

#[test]
fn from_a_stage_owners_of_parents_are_kept() {
    check(
        "file p/q/f\nown p 1 2\nown p/q 3 4\nown p/q/f 5 6",
        "",
        "--from --parents p/q/f /x",
        "d 755 x\nd 755 1:2 x/p\nd 755 3:4 x/p/q\nf 644 5:6 x/p/q/f",
    );
}

#[test]
fn excluded_files_are_not_copied() {
    check(TREE, "", "--exclude=sub d /x", "d 755 x\nf 640 x/f = one");
    check(
        TREE,
        "",
        "--exclude=**/g d /x",
        "d 755 x\nf 640 x/f = one\nd 750 x/sub",
    );
    check(
        TREE,
        "",
        "--exclude=* --exclude=!sub/g d /x",
        "d 755 x\nd 755 x/sub\nf 4755 x/sub/g = two",
    );
    // A directory that is there for what it holds leaves one that exists as it is.
    check(
        TREE,
        "dir x/sub 711",
        "--exclude=* --exclude=!sub/g d /x",
        "d 755 x\nd 711 x/sub\nf 4755 x/sub/g = two",
    );
}

#[test]
fn a_link_swapped_in_after_selecting_does_not_lead_out() {
    if !is_root("a_link_swapped_in_after_selecting_does_not_lead_out") {
        return;
    }
    // Each case: what is selected, then what an attacker replaces.
    for (pattern, victim, is_refused) in [
        ("d/f", "d/f", true),
        ("d/f", "d", true),
        ("d/s", "d/s", true),
        ("d/s", "d", true),
        // Inside a copied directory a link is copied as a link.
        ("d", "d/f", false),
        ("d", "d/s", false),
    ] {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = tempfile::tempdir().unwrap();
        plant(secret.path(), "file f = secret\nfile s/g = secret");
        plant(from.path(), "file d/f = ok\nfile d/s/g = ok");
        let source = Source::directory(from.path(), None).unwrap();
        let query = Query {
            pattern,
            parents: false,
            exclude: &[],
        };
        let selection = select(&source, &query).unwrap();
        let victim = from.path().join(victim);
        std::fs::rename(&victim, from.path().join("aside")).unwrap();
        let target = match victim.ends_with("d") {
            true => secret.path().to_owned(),
            false => secret.path().join(victim.file_name().unwrap()),
        };
        std::os::unix::fs::symlink(&target, &victim).unwrap();
        let options = CopyOptions {
            destination: "/x/",
            owner: None,
            chmod: None,
            link: false,
            parents: false,
            epoch: None,
            now: Timestamp::from_seconds(NOW),
        };
        let item = Item::Selected {
            source: &source,
            selection: &selection,
        };
        let outcome = copy(
            &Tree::open(to.path()).unwrap(),
            &[item],
            &options,
            &Cancel::new(),
        );
        let refused = matches!(
            outcome,
            Err(CopyError::Source(ContextError::Changed { .. }))
        );
        assert_eq!(refused, is_refused, "{pattern} {victim:?} {outcome:?}");
        assert!(!show(to.path()).contains("= secret"), "{}", show(to.path()));
        assert_eq!(
            show(secret.path()),
            "f 644 f = secret\nd 755 s\nf 644 s/g = secret\n"
        );
    }
}

#[test]
fn a_fifo_swapped_in_for_a_file_does_not_block() {
    if !is_root("a_fifo_swapped_in_for_a_file_does_not_block") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(from.path(), "fifo p");
    let directory = open_root(from.path());
    let mut meta = Meta::at(&directory, "p").unwrap();
    meta.kind = Kind::File;
    let node = Node {
        path: b"p",
        name: b"p",
        source_path: b"p",
        meta,
        parent: directory.as_fd(),
    };
    let options = CopyOptions {
        destination: "/x",
        owner: None,
        chmod: None,
        link: false,
        parents: false,
        epoch: None,
        now: Timestamp::from_seconds(NOW),
    };
    let (root, cancel) = (open_root(to.path()), Cancel::new());
    let mut copier = Copier::new(root.as_fd(), &Owners::OnDisk, &options, &cancel);
    let outcome = copier.place(root.as_fd(), b"x", &node, Path::new("/x"));
    assert!(matches!(
        outcome,
        Err(CopyError::Source(ContextError::Changed { .. }))
    ));
}

#[test]
fn names_that_are_no_text_are_copied() {
    if !is_root("names_that_are_no_text_are_copied") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant_bytes(from.path(), b"\xff\xfe", "1");
    plant_bytes(from.path(), b"new\nline", "2");
    plant_bytes(from.path(), b"-rf", "3");
    plant_bytes(from.path(), &[b'n'; 255], "4");
    perform(from.path(), to.path(), ". /x/").unwrap();
    perform(from.path(), to.path(), "* /x/").unwrap();
    assert_eq!(
        show(to.path()),
        format!(
            "d 755 x\nf 644 x/-rf = 3\nf 644 x/new\\nline = 2\nf 644 x/{} = 4\nf 644 x/\\xff\\xfe = 1\n",
            "n".repeat(255)
        )
    );
}

#[test]
fn a_tree_five_thousand_deep_is_copied_and_replaced() {
    if !is_root("a_tree_five_thousand_deep_is_copied_and_replaced") {
        return;
    }
    let (from, to) = (deep_directory(), deep_directory());
    plant_deep(from.path(), 5000);
    plant(from.path(), "file f = f");
    let stats = perform(from.path(), to.path(), "d /x").unwrap();
    assert_eq!((stats.files, stats.directories), (1, 4999));
    // And removed again, which must not recurse either.
    perform(from.path(), to.path(), "--link f /x").unwrap();
    assert_eq!(show(to.path()), "f 644 x = f\n");
    remove_deep(&from.path().join("d"));
}

#[test]
fn large_files_and_holes_arrive_whole() {
    if !is_root("large_files_and_holes_arrive_whole") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes: Vec<u8> = (0..3_000_001_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for length in [0, 1, 4096, 128 * 1024, 128 * 1024 + 1, bytes.len()] {
        std::fs::write(from.path().join(length.to_string()), &bytes[..length]).unwrap();
    }
    let holes = std::fs::File::create(from.path().join("holes")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"middle", 1 << 30).unwrap();
    holes.set_len(1 << 31).unwrap();
    std::fs::File::create(from.path().join("hole"))
        .unwrap()
        .set_len(1 << 31)
        .unwrap();
    let stats = perform(from.path(), to.path(), ". /").unwrap();
    for length in [0, 1, 4096, 128 * 1024, 128 * 1024 + 1, bytes.len()] {
        assert!(
            std::fs::read(to.path().join(length.to_string())).unwrap() == bytes[..length],
            "{length}"
        );
    }
    for name in ["holes", "hole"] {
        let meta = to.path().join(name).metadata().unwrap();
        assert_eq!(meta.len(), 1 << 31);
        assert!(meta.blocks() < 10_000, "{}", meta.blocks());
    }
    let copied = std::fs::File::open(to.path().join("holes")).unwrap();
    let mut middle = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&copied, &mut middle, (1 << 30) - 1).unwrap();
    assert_eq!(&middle, b"\0middle\0");
    assert_eq!(stats.files, 8);
}

#[test]
fn a_cancelled_copy_stops() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(from.path(), "file f");
    let source = Source::directory(from.path(), None).unwrap();
    let query = Query {
        pattern: ".",
        parents: false,
        exclude: &[],
    };
    let selection = select(&source, &query).unwrap();
    let cancel = Cancel::new();
    cancel.cancel(crate::vocab::CancelReason::Interrupted);
    let options = CopyOptions {
        destination: "/",
        owner: None,
        chmod: None,
        link: false,
        parents: false,
        epoch: None,
        now: Timestamp::from_seconds(NOW),
    };
    let item = Item::Selected {
        source: &source,
        selection: &selection,
    };
    let outcome = copy(&Tree::open(to.path()).unwrap(), &[item], &options, &cancel);
    assert!(matches!(outcome, Err(CopyError::Cancelled)));
    assert_eq!(show(to.path()), "");
}

#[test]
fn what_was_done_is_counted() {
    if !is_root("what_was_done_is_counted") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(from.path(), TREE);
    let stats = perform(from.path(), to.path(), "d a <<EOF /x/").unwrap();
    assert_eq!(
        stats,
        CopyStats {
            files: 4,
            directories: 1,
            bytes: 3 + 3 + 1 + 6,
            lost_xattrs: 0,
        }
    );
}
