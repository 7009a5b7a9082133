//! What other programs write: the machine's `tar` where there is one, and headers made here by hand.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::layer::header;

/// Runs a program; `None`, said aloud, if the machine has none of this name.
fn run(program: &str, arguments: &[&str], folder: &Path) -> Option<Vec<u8>> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{program} {arguments:?}: {}",
                output.stderr.escape_ascii()
            );
            Some(output.stdout)
        }
        Err(error) => {
            let required =
                std::env::var_os("BUILDER_TEST_REQUIRE_ALL").is_some_and(|value| value == "1");
            assert!(!required, "cannot run {program}: {error}");
            #[expect(clippy::print_stderr, reason = "a test that does not run says so")]
            {
                eprintln!("NOT TESTED: cannot run {program}: {error}");
            }
            None
        }
    }
}

/// A folder with one of each kind that needs no power to make.
fn sample(folder: &Path) {
    let long = "d".repeat(90);
    fs::create_dir_all(folder.join(&long).join(&long)).unwrap();
    fs::write(folder.join(&long).join(&long).join("f".repeat(120)), "deep").unwrap();
    fs::write(folder.join("file"), prose(1, 5000)).unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    fs::hard_link(folder.join("file"), folder.join("hard")).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), folder.join("link")).unwrap();
    std::os::unix::fs::symlink("../file", folder.join("short")).unwrap();
}

#[test]
fn gnu_tar_archives_of_each_format_are_read() {
    let folder = tempfile::tempdir().unwrap();
    sample(folder.path());
    for format in ["gnu", "oldgnu", "pax", "ustar", "v7"] {
        let mut arguments = vec!["--format", format, "--sort=name", "-cf", "-"];
        if matches!(format, "ustar" | "v7") {
            // What these cannot hold.
            arguments.extend(["--exclude=link", "--exclude=ddd*"]);
        }
        arguments.push(".");
        let Some(archive) = run("tar", &arguments, folder.path()) else {
            return;
        };
        let tree = read(Trickle(&archive[..], 3)).unwrap();
        let find = |path: &str| {
            tree.iter()
                .find(|(entry, _)| entry.path == path.as_bytes())
                .unwrap_or_else(|| panic!("{format}: no {path}"))
        };
        assert_eq!(find("").0.kind, EntryKind::Directory);
        let (entry, content) = find("file");
        assert_eq!(entry.kind, EntryKind::File { size: 5000 });
        assert_eq!(content, &prose(1, 5000));
        let metadata = fs::metadata(folder.path().join("file")).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((entry.uid, entry.gid), (metadata.uid(), metadata.gid()));
        assert_eq!(entry.mode, metadata.mode() & 0o7777);
        let wanted = Mtime {
            seconds: metadata.mtime(),
            nanoseconds: if format == "pax" {
                metadata.mtime_nsec() as u32
            } else {
                0
            },
        };
        assert_eq!(entry.mtime, wanted, "{format}");
        let target = b"file".to_vec();
        assert_eq!(find("hard").0.kind, EntryKind::HardLink { target });
        let target = b"../file".to_vec();
        assert_eq!(find("short").0.kind, EntryKind::Symlink { target });
        if !matches!(format, "ustar" | "v7") {
            let target = "t".repeat(150).into_bytes();
            assert_eq!(find("link").0.kind, EntryKind::Symlink { target });
            let long = "d".repeat(90);
            assert_eq!(
                find(&format!("{long}/{long}/{}", "f".repeat(120))).1,
                b"deep"
            );
        }
    }
}

#[test]
fn gnu_tar_sparse_files_of_each_encoding_are_filled_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("sparse-{}", "x".repeat(120)));
    let file = fs::File::create(&path).unwrap();
    let length = 3_000_000_u64;
    // More pieces than a header and one extension block hold.
    for at in 0..60 {
        file.write_all_at(&noise(at, 4096), at * 49152).unwrap();
    }
    file.set_len(length).unwrap();
    fs::write(folder.path().join("z-after"), "after").unwrap();
    let expected = fs::read(&path).unwrap();
    for arguments in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let mut all = vec![
            "--sparse",
            "--hole-detection=raw",
            "--sort=name",
            "-cf",
            "-",
        ];
        all.extend(arguments);
        all.push(".");
        let Some(archive) = run("tar", &all, folder.path()) else {
            return;
        };
        assert!(archive.len() < 500_000, "{arguments:?} is not sparse");
        let tree = read(&archive[..]).unwrap();
        assert_eq!(tree.len(), 3, "{arguments:?}");
        assert_eq!(tree[1].0.path, path.file_name().unwrap().as_encoded_bytes());
        assert_eq!(tree[1].0.kind, EntryKind::File { size: length });
        assert!(tree[1].1 == expected, "{arguments:?}");
        assert_eq!(tree[2].1, b"after");

        let mut reader = TarReader::new(&archive[..]);
        reader.next().unwrap();
        reader.next().unwrap();
        let mut copied = Vec::new();
        assert_eq!(reader.copy_content(&mut copied).unwrap(), length);
        assert!(copied == expected);
    }
}

#[test]
fn gnu_tar_lists_and_unpacks_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let long = "n".repeat(200);
    let mut small = file("dir/small", "content");
    small.0.mtime = Mtime {
        seconds: 1_600_000_000,
        nanoseconds: 250_000_000,
    };
    let tree = vec![
        directory("dir"),
        small,
        file(&format!("dir/{long}"), prose(3, 70_000)),
        (
            entry(
                "dir/hard",
                EntryKind::HardLink {
                    target: b"dir/small".to_vec(),
                },
            ),
            Vec::new(),
        ),
        (
            entry(
                "dir/link",
                EntryKind::Symlink {
                    target: long.clone().into_bytes(),
                },
            ),
            Vec::new(),
        ),
    ];
    let mut tree = tree;
    tree[0].0.mode = 0o755;
    fs::write(folder.path().join("a.tar"), write(&tree)).unwrap();
    if run("tar", &["--no-same-owner", "-xf", "a.tar"], folder.path()).is_none() {
        return;
    }
    let dir = folder.path().join("dir");
    assert_eq!(fs::read(dir.join("hard")).unwrap(), b"content");
    assert_eq!(fs::read(dir.join("link")).unwrap(), prose(3, 70_000));
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(dir.join("small")).unwrap();
    assert_eq!(
        (metadata.mtime(), metadata.mtime_nsec()),
        (1_600_000_000, 250_000_000)
    );
}

/// A header with a right checksum around the given fields.
fn raw(name: &[u8], kind: u8, size: u64, edit: impl FnOnce(&mut header::Block)) -> Vec<u8> {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[header::TYPE] = kind;
    header::put_octal(&mut block[header::MODE], 0o644);
    header::put_octal(&mut block[header::SIZE], size);
    block[header::MAGIC].copy_from_slice(b"ustar\x0000");
    edit(&mut block);
    header::put_checksum(&mut block);
    block.to_vec()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn names(archive: &[u8]) -> Vec<String> {
    let tree = read(archive).unwrap();
    let name = |(entry, _): (Entry, _)| String::from_utf8(entry.path).unwrap();
    tree.into_iter().map(name).collect()
}

#[test]
fn names_are_brought_to_one_form() {
    for (raw_name, expected) in [
        ("./a/b", "a/b"),
        ("/etc/passwd", "etc/passwd"),
        ("a//b", "a/b"),
        ("./", ""),
    ] {
        assert_eq!(
            names(&raw(raw_name.as_bytes(), b'5', 0, |_| {})),
            [expected]
        );
    }
    let link = raw(b"l", b'1', 0, |block| {
        block[157..161].copy_from_slice(b"./.a")
    });
    let target = b".a".to_vec();
    assert_eq!(
        read(&link[..]).unwrap()[0].0.kind,
        EntryKind::HardLink { target }
    );
    let link = raw(b"l", b'2', 0, |block| {
        block[157..161].copy_from_slice(b"./.a")
    });
    let target = b"./.a".to_vec();
    assert_eq!(
        read(&link[..]).unwrap()[0].0.kind,
        EntryKind::Symlink { target }
    );
}

#[test]
fn an_old_directory_is_told_by_its_slash() {
    for kind in [0, b'0'] {
        let mut archive = raw(b"dir/", kind, 3, |block| block[header::MAGIC].fill(0));
        archive.extend(padded(b"xyz"));
        archive.extend(raw(b"next", b'0', 0, |_| {}));
        let tree = read(&archive[..]).unwrap();
        assert_eq!(tree[0].0.kind, EntryKind::Directory);
        assert_eq!(tree[0].1, b"");
        assert_eq!(tree[1].0.path, b"next");
    }
}

#[test]
fn only_files_are_followed_by_content() {
    for kind in *b"123456" {
        let mut archive = raw(b"x", kind, 5000, |_| {});
        archive.extend(raw(b"next", b'0', 0, |_| {}));
        assert_eq!(names(&archive), ["x", "next"]);
    }
}

#[test]
fn the_prefix_is_read_in_posix_headers_alone() {
    let with_magic = |magic: &[u8; 8]| {
        names(&raw(b"name", b'0', 0, |block| {
            block[header::MAGIC].copy_from_slice(magic);
            block[345..351].copy_from_slice(b"prefix");
        }))
    };
    assert_eq!(with_magic(b"ustar\x0000"), ["prefix/name"]);
    assert_eq!(with_magic(b"ustar  \0"), ["name"]);
    assert_eq!(with_magic(&[0; 8]), ["name"]);
    let star = raw(b"name", b'0', 0, |block| {
        block[345..351].copy_from_slice(b"prefix");
        block[476..480].copy_from_slice(b"0123");
        block[508..].copy_from_slice(b"tar\0");
    });
    assert_eq!(names(&star), ["prefix/name"]);
}

fn records(list: &[(&str, &str)]) -> Vec<u8> {
    let mut records = Vec::new();
    for (key, value) in list {
        pax::put(&mut records, key.as_bytes(), value.as_bytes());
    }
    records
}

fn extended(kind: u8, list: &[(&str, &str)]) -> Vec<u8> {
    let records = records(list);
    let mut bytes = raw(b"PaxHeader", kind, records.len() as u64, |_| {});
    bytes.extend(padded(&records));
    bytes
}

#[test]
fn a_size_in_a_record_decides_what_follows() {
    // The header says 512, the record 1536: what a reader of the header alone takes for an entry is content.
    let mut archive = extended(b'x', &[("size", "1536")]);
    archive.extend(raw(b"outer", b'0', 512, |_| {}));
    archive.extend([b'x'; 512]);
    archive.extend(raw(b"smuggled", b'0', 512, |_| {}));
    archive.extend([b'y'; 512]);
    archive.extend(raw(b"after", b'0', 0, |_| {}));
    assert_eq!(names(&archive), ["outer", "after"]);
    assert_eq!(read(&archive[..]).unwrap()[0].1.len(), 1536);
}

#[test]
fn global_headers_give_defaults_and_name_nothing() {
    let mut archive = extended(
        b'g',
        &[
            ("uid", "7"),
            ("comment", "0123"),
            ("SCHILY.xattr.user.g", "1"),
        ],
    );
    archive.extend(raw(b"a", b'0', 0, |_| {}));
    archive.extend(extended(b'x', &[("uid", "8")]));
    archive.extend(raw(b"b", b'0', 0, |_| {}));
    archive.extend(extended(b'x', &[("uid", "")]));
    archive.extend(raw(b"c", b'0', 0, |_| {}));
    let tree = read(&archive[..]).unwrap();
    assert_eq!(
        tree.iter().map(|(entry, _)| entry.uid).collect::<Vec<_>>(),
        [7, 8, 0]
    );
    assert!(tree.iter().all(|(entry, _)| entry.xattrs.len() == 1));
    for key in ["path", "linkpath", "size", "GNU.sparse.major"] {
        let archive = extended(b'g', &[(key, "1")]);
        assert!(
            matches!(read(&archive[..]), Err(TarError::Pax { .. })),
            "{key}"
        );
    }
}

#[test]
fn gnu_long_names_and_links_are_read() {
    let long = "n".repeat(3000);
    let mut archive = raw(b"././@LongLink", b'K', 3001, |_| {});
    archive.extend(padded(format!("{long}\0").as_bytes()));
    archive.extend(raw(b"././@LongLink", b'L', 3001, |_| {}));
    archive.extend(padded(format!("{long}\0").as_bytes()));
    archive.extend(raw(b"short", b'2', 0, |_| {}));
    let tree = read(&archive[..]).unwrap();
    assert_eq!(tree[0].0.path, long.as_bytes());
    let target = long.into_bytes();
    assert_eq!(tree[0].0.kind, EntryKind::Symlink { target });
}

#[test]
fn base_256_numbers_are_read() {
    let archive = raw(b"x", b'0', 0, |block| {
        block[header::UID].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff");
        block[header::MTIME].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    });
    let tree = read(&archive[..]).unwrap();
    assert_eq!(tree[0].0.uid, u32::MAX);
    assert_eq!(tree[0].0.mtime.seconds, -1);
}

#[test]
fn compressed_layers_satisfy_the_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let tree: Tree = (0..40)
        .map(|at| file(&format!("f{at}"), prose(at, 70_000)))
        .collect();
    for (program, name, compression) in [
        (
            "gzip",
            "layer.gz",
            crate::vocab::Compression::Gzip { level: 6 },
        ),
        (
            "zstd",
            "layer.zst",
            crate::vocab::Compression::Zstd { level: 3 },
        ),
    ] {
        let mut writer = LayerWriter::new(Vec::new(), compression, 2);
        for (entry, content) in &tree {
            writer.entry(entry, &mut &content[..]).unwrap();
        }
        let (blob, layer) = writer.finish().unwrap();
        assert!(layer.members.len() > 2);
        fs::write(folder.path().join(name), blob).unwrap();
        run(program, &["-t", name], folder.path());
        if let Some(tar) = run(program, &["-dc", name], folder.path()) {
            assert_eq!(crate::vocab::Digest::of(&tar), layer.diff_id.0);
        }
    }
}
