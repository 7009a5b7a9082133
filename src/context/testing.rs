//! Trees for tests, written and shown as lines of text.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

/// Makes what `lines` say below `root`, parents included:
///
/// `dir PATH [MODE]`, `file PATH [MODE] [= CONTENT]`, `link PATH -> TARGET`, `hard PATH = PATH`, `fifo PATH`, `socket PATH`,
/// `time PATH SECONDS`, `own PATH UID GID`, `mode PATH MODE`
pub(crate) fn plant(root: &Path, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (words, text) = match line.split_once(" = ") {
            Some((words, text)) => (words, text),
            None => (line.trim_end_matches(" ="), ""),
        };
        let words: Vec<&str> = words.split_whitespace().collect();
        let path = root.join(words[1]);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mode = |default| match words.get(2) {
            Some(mode) => u32::from_str_radix(mode, 8).unwrap(),
            None => default,
        };
        let set = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        match words[0] {
            "dir" => {
                std::fs::create_dir_all(&path).unwrap();
                set(mode(0o755));
            }
            "file" => {
                std::fs::write(&path, text).unwrap();
                set(mode(0o644));
            }
            "mode" => set(mode(0)),
            "link" => std::os::unix::fs::symlink(words[3], &path).unwrap(),
            "hard" => std::fs::hard_link(root.join(text), &path).unwrap(),
            "fifo" => mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap(),
            "socket" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            "own" => std::os::unix::fs::lchown(
                &path,
                Some(words[2].parse().unwrap()),
                Some(words[3].parse().unwrap()),
            )
            .unwrap(),
            "time" => set_mtime(&path, words[2].parse().unwrap()),
            other => panic!("{other}"),
        }
    }
}

pub(crate) fn set_mtime(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Shows a tree, a line per entry in the order of a walk: `d 755 PATH`, `f 644 PATH = CONTENT`, `l PATH -> TARGET`,
/// `p 640 PATH`; owners other than 0:0 come after the mode, names of one inode share a `#number`.
pub(crate) fn show(root: &Path) -> String {
    let (mut text, mut inodes) = (String::new(), Vec::new());
    show_below(root, root, &mut text, &mut inodes);
    text
}

fn show_below(root: &Path, directory: &Path, text: &mut String, inodes: &mut Vec<u64>) {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    for name in names {
        let path = directory.join(&name);
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let letter = match FileType::from_raw_mode(meta.mode()) {
            FileType::Directory => 'd',
            FileType::Symlink => 'l',
            FileType::Fifo => 'p',
            FileType::Socket => 's',
            FileType::CharacterDevice => 'c',
            FileType::BlockDevice => 'b',
            _ => 'f',
        };
        text.push(letter);
        if !kind.is_symlink() {
            write!(text, " {:o}", meta.mode() & 0o7777).unwrap();
        }
        if (meta.uid(), meta.gid()) != (0, 0) {
            write!(text, " {}:{}", meta.uid(), meta.gid()).unwrap();
        }
        let shown = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        write!(text, " {}", shown.escape_ascii()).unwrap();
        if kind.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            write!(text, " -> {}", target.display()).unwrap();
        }
        if kind.is_file() && meta.len() > 0 {
            let content = std::fs::read(&path).unwrap();
            write!(text, " = {}", String::from_utf8_lossy(&content)).unwrap();
        }
        if kind.is_file() && meta.nlink() > 1 {
            let at = inodes.iter().position(|&inode| inode == meta.ino());
            let at = at.unwrap_or_else(|| {
                inodes.push(meta.ino());
                inodes.len() - 1
            });
            write!(text, " #{at}").unwrap();
        }
        text.push('\n');
        if kind.is_dir() {
            show_below(root, &path, text, inodes);
        }
    }
}

/// Makes one file whose name is no text.
pub(crate) fn plant_bytes(root: &Path, name: &[u8], content: &str) {
    std::fs::write(root.join(OsStr::from_bytes(name)), content).unwrap();
}

/// Makes a chain of `depth` directories named `d` below `root`, with a file `f` in the last.
pub(crate) fn plant_deep(root: &Path, depth: usize) {
    use crate::context::open_directory;

    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let mut directory = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&directory, "d", Mode::from_raw_mode(0o755)).unwrap();
        directory = open_directory(&directory, "d").unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(&directory, "f", flags, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
}

/// Returns a directory for a deep tree, in memory if possible: disks take their time to make one.
pub(crate) fn deep_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Removes a tree that may be deeper than the standard library's recursion can go on a test's stack.
pub(crate) fn remove_deep(root: &Path) {
    let status = std::process::Command::new("rm")
        .arg("-rf")
        .arg(root)
        .status();
    assert!(status.unwrap().success());
}

/// Returns whether the test may go on: it needs to be root. Says loudly when it does not run, and fails instead where
/// `BUILDER_TEST_REQUIRE_ALL=1` says that every power is required.
pub(crate) fn is_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("BUILDER_TEST_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{test} needs root"
    );
    // Not `eprintln!`, which the test harness keeps to itself.
    writeln!(std::io::stderr(), "NOT RUN: {test}: needs root").unwrap();
    false
}
