//! Writing and reading back, and the `tar` crate as a second opinion on both.

use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = Vec<u8>> {
    let component = prop_oneof![
        4 => "[a-z.-]{1,12}".prop_map(String::into_bytes),
        1 => "[a-z]{80,160}".prop_map(String::into_bytes),
        1 => prop::collection::vec((1_u8..=255).prop_filter("slash", |byte| *byte != b'/'), 1..20),
    ];
    prop::collection::vec(
        component.prop_filter("dots", |component| component != b"." && component != b".."),
        1..8,
    )
    .prop_map(|components| components.join(&b'/'))
}

fn target() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        name(),
        name().prop_map(|name| [b"/", &name[..]].concat()),
        name().prop_map(|name| [b"../../", &name[..], b"/"].concat()),
    ]
}

fn kind() -> impl Strategy<Value = (EntryKind, Vec<u8>)> {
    let plain = |kind: EntryKind| (kind, Vec::new());
    let device = (0..0o10_000_000_u32, 0..0o10_000_000_u32);
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..1500).prop_map(|content| {
            (EntryKind::File { size: content.len() as u64 }, content)
        }),
        2 => Just(plain(EntryKind::Directory)),
        1 => Just(plain(EntryKind::Fifo)),
        1 => target().prop_map(move |target| plain(EntryKind::Symlink { target })),
        1 => name().prop_map(move |target| plain(EntryKind::HardLink { target })),
        1 => device.clone().prop_map(move |(major, minor)| plain(EntryKind::CharDevice { major, minor })),
        1 => device.prop_map(move |(major, minor)| plain(EntryKind::BlockDevice { major, minor })),
    ]
}

fn id() -> impl Strategy<Value = u32> {
    prop_oneof![
        0..70_000_u32,
        any::<u32>(),
        Just(0o7_777_777),
        Just(0o10_000_000)
    ]
}

fn mtime() -> impl Strategy<Value = Mtime> {
    let seconds = prop_oneof![
        4 => 0..2_000_000_000_i64,
        1 => any::<i64>(),
        1 => -1000..1000_i64,
        1 => Just(0o100_000_000_000),
    ];
    let nanoseconds = prop_oneof![Just(0), 0..1_000_000_000_u32];
    (seconds, nanoseconds).prop_map(|(seconds, nanoseconds)| Mtime {
        seconds,
        nanoseconds,
    })
}

fn xattrs() -> impl Strategy<Value = BTreeMap<Vec<u8>, Vec<u8>>> {
    prop_oneof![
        3 => Just(BTreeMap::new()),
        1 => prop::collection::btree_map(
            "(user|security|trusted)\\.[a-z=%\n ]{0,8}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..120),
            0..4,
        ),
    ]
}

fn arbitrary_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    (
        name(),
        kind(),
        0..=0o7777_u32,
        id(),
        id(),
        mtime(),
        xattrs(),
    )
        .prop_map(|(path, (kind, content), mode, uid, gid, mtime, xattrs)| {
            let entry = Entry {
                path,
                kind,
                mode,
                uid,
                gid,
                mtime,
                xattrs,
            };
            (entry, content)
        })
}

/// The `tar` crate takes each newline for a record's end, whatever the record's length says.
fn without_newlines(mut tree: Tree) -> Tree {
    let clean = |text: &mut Vec<u8>| {
        text.iter_mut()
            .filter(|byte| **byte == b'\n')
            .for_each(|byte| *byte = b'n')
    };
    for (entry, _) in &mut tree {
        clean(&mut entry.path);
        if let EntryKind::Symlink { target } | EntryKind::HardLink { target } = &mut entry.kind {
            clean(target);
        }
        let xattrs = std::mem::take(&mut entry.xattrs);
        for (mut name, mut value) in xattrs {
            clean(&mut name);
            clean(&mut value);
            entry.xattrs.insert(name, value);
        }
    }
    tree
}

/// Reads with the `tar` crate what it can tell.
fn read_with_tar(archive: &[u8]) -> Tree {
    let mut reader = ::tar::Archive::new(archive);
    let mut tree = Tree::new();
    for found in reader.entries().unwrap() {
        let mut found = found.unwrap();
        let mut xattrs = BTreeMap::new();
        let mut mtime = Mtime {
            seconds: found.header().mtime().unwrap() as i64,
            nanoseconds: 0,
        };
        let (mut uid, mut gid) = (found.header().uid().unwrap(), found.header().gid().unwrap());
        for record in found.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            let number = || record.value().unwrap().parse().unwrap();
            match record.key().unwrap() {
                "mtime" => {
                    let mut attributes = pax::Attributes::default();
                    let mut text = Vec::new();
                    pax::put(&mut text, b"mtime", record.value_bytes());
                    attributes.apply(&text).unwrap();
                    mtime = attributes.mtime.unwrap();
                }
                "uid" => uid = number(),
                "gid" => gid = number(),
                key => {
                    if let Some(key) = key.strip_prefix("SCHILY.xattr.") {
                        let key = key.replace("%3D", "=").replace("%25", "%");
                        xattrs.insert(key.into_bytes(), record.value_bytes().to_vec());
                    }
                }
            }
        }
        let link = || found.link_name_bytes().unwrap().to_vec();
        let header = found.header();
        let (major, minor) = (
            header.device_major().ok().flatten().unwrap_or(0),
            header.device_minor().ok().flatten().unwrap_or(0),
        );
        let kind = match header.entry_type() {
            ::tar::EntryType::Regular => EntryKind::File { size: found.size() },
            ::tar::EntryType::Directory => EntryKind::Directory,
            ::tar::EntryType::Symlink => EntryKind::Symlink { target: link() },
            ::tar::EntryType::Link => EntryKind::HardLink { target: link() },
            ::tar::EntryType::Char => EntryKind::CharDevice { major, minor },
            ::tar::EntryType::Block => EntryKind::BlockDevice { major, minor },
            ::tar::EntryType::Fifo => EntryKind::Fifo,
            other => panic!("{other:?}"),
        };
        let path = found.path_bytes();
        let entry = Entry {
            path: path.strip_suffix(b"/").unwrap_or(&path).to_vec(),
            kind,
            mode: header.mode().unwrap(),
            uid: uid as u32,
            gid: gid as u32,
            mtime,
            xattrs,
        };
        let mut content = Vec::new();
        found.read_to_end(&mut content).unwrap();
        tree.push((entry, content));
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_entries_come_back_as_they_were(tree in prop::collection::vec(arbitrary_entry(), 0..12)) {
        let archive = write(&tree);
        prop_assert_eq!(archive.len() % 512, 0);
        prop_assert_eq!(&read(&archive[..]).unwrap(), &tree);
        prop_assert_eq!(&read(Trickle(&archive[..], 7)).unwrap(), &tree);
    }

    #[test]
    fn the_tar_crate_reads_the_same(tree in prop::collection::vec(arbitrary_entry(), 0..12)) {
        let tree = without_newlines(tree);
        prop_assert_eq!(read_with_tar(&write(&tree)), tree);
    }

    #[test]
    fn what_the_tar_crate_writes_is_read(
        tree in prop::collection::vec(
            // The crate cannot write a long path of other bytes.
            (name().prop_filter("UTF-8", |name| std::str::from_utf8(name).is_ok()), prop::collection::vec(any::<u8>(), 0..1500), 0..0o7777_u32, any::<u32>(), 0..1_u64 << 40),
            0..10,
        ),
    ) {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut expected = Tree::new();
        for (path, content, mode, id, seconds) in tree {
            use std::os::unix::ffi::OsStrExt;
            let mut header = ::tar::Header::new_gnu();
            header.set_mode(mode);
            header.set_uid(u64::from(id));
            header.set_gid(u64::from(id / 2));
            header.set_mtime(seconds);
            header.set_size(content.len() as u64);
            let name = std::path::Path::new(std::ffi::OsStr::from_bytes(&path));
            builder.append_data(&mut header, name, &content[..]).unwrap();
            let (mut entry, content) = file("", content);
            entry.path = path;
            entry.mode = mode;
            entry.uid = id;
            entry.gid = id / 2;
            entry.mtime.seconds = seconds as i64;
            expected.push((entry, content));
        }
        let archive = builder.into_inner().unwrap();
        prop_assert_eq!(read(&archive[..]).unwrap(), expected);
    }
}

#[test]
fn the_root_is_written_and_read() {
    let tree = vec![directory(""), directory("a"), file("a/b", "c")];
    let archive = write(&tree);
    assert_eq!(&archive[..3], b"./\0");
    assert_eq!(read(&archive[..]).unwrap(), tree);
}

#[test]
fn paths_of_every_length_survive() {
    for length in (1..300).chain([4094, 4095, 4096]) {
        for slash_every in [7, 60, 99, 100, 101, 150, 156, 5000] {
            let mut path = vec![b'x'; length];
            for at in (slash_every..length - 1).step_by(slash_every + 1) {
                path[at] = b'/';
            }
            for kind in [EntryKind::Directory, EntryKind::Fifo] {
                let mut entry = entry("", kind);
                entry.path = path.clone();
                let tree = vec![(entry, Vec::new())];
                let archive = write(&tree);
                assert_eq!(read(&archive[..]).unwrap(), tree, "{length} {slash_every}");
                if length < 257 {
                    assert_eq!(read_with_tar(&archive), tree, "{length} {slash_every}");
                }
            }
        }
    }
}

#[test]
fn small_metadata_needs_no_extended_header() {
    let mut path = entry(
        &format!("{}/{}", "p".repeat(155), "n".repeat(100)),
        EntryKind::Fifo,
    );
    path.uid = 0o7_777_777;
    path.mtime.seconds = 0o77_777_777_777;
    assert_eq!(write(&[(path, Vec::new())]).len(), 512 + 1024);
}

#[test]
fn a_file_of_8_gib_is_stated_in_a_record() {
    let entry = entry("large", EntryKind::File { size: 8 << 30 });
    let mut archive = Vec::new();
    let mut encoder = encoder::Encoder::default();
    encoder.encode(&entry).unwrap();
    archive.extend_from_slice(encoder.encoded());
    let mut reader = TarReader::new(&archive[..]);
    assert_eq!(reader.next().unwrap(), Some(entry));
    assert!(matches!(reader.next(), Err(TarError::Truncated { .. })));
}

#[test]
fn content_of_another_length_is_an_error_and_ends_the_archive() {
    let (entry, _) = file("f", "1234");
    for content in ["", "123", "12345"] {
        let mut writer = TarWriter::new(Vec::new());
        let error = writer.entry(&entry, &mut content.as_bytes()).unwrap_err();
        assert!(error.get_ref().unwrap().is::<EntryError>(), "{error}");
        assert!(writer.entry(&entry, &mut &b"1234"[..]).is_err());
        assert!(writer.finish().is_err());
    }
}

#[test]
fn entries_that_no_reader_could_give_back_are_refused() {
    let mut writer = TarWriter::new(Vec::new());
    let mut refuse = |entry: Entry| {
        let error = writer.entry(&entry, &mut io::empty()).unwrap_err();
        assert!(error.get_ref().unwrap().is::<EntryError>(), "{entry:?}");
    };
    for path in ["/a", "a/", "a//b", "./a", "a/./b", "..", "a/../b", "a\0b"] {
        refuse(entry(path, EntryKind::Fifo));
        let target = path.into();
        refuse(entry("x", EntryKind::HardLink { target }));
    }
    refuse(entry("", EntryKind::Fifo));
    refuse(entry(&"x".repeat(4097), EntryKind::Fifo));
    refuse(entry(
        "x",
        EntryKind::Symlink {
            target: b"a\0".to_vec(),
        },
    ));
    refuse(entry(
        "x",
        EntryKind::CharDevice {
            major: 0o10_000_000,
            minor: 0,
        },
    ));
    refuse(entry("x", EntryKind::File { size: u64::MAX }));
    let mut odd = entry("x", EntryKind::Fifo);
    odd.mode = 0o100_644;
    refuse(odd.clone());
    odd.mode = 0o644;
    odd.mtime.nanoseconds = 1_000_000_000;
    refuse(odd.clone());
    odd.mtime.nanoseconds = 0;
    odd.xattrs.insert(b"user.big".to_vec(), vec![0; 2 << 20]);
    refuse(odd.clone());
    odd.xattrs = BTreeMap::from([(Vec::new(), Vec::new())]);
    refuse(odd);
    writer
        .entry(&entry("good", EntryKind::Fifo), &mut io::empty())
        .unwrap();
    assert_eq!(read(&writer.finish().unwrap()[..]).unwrap().len(), 1);
}

#[test]
fn content_that_is_not_read_is_stepped_over() {
    let tree: Tree = (0..50_usize)
        .map(|at| file(&format!("f{at}"), noise(at as u64, at * at * 40)))
        .collect();
    let archive = write(&tree);
    let mut reader = TarReader::new(&archive[..]);
    for (at, (entry, content)) in tree.iter().enumerate() {
        assert_eq!(reader.next().unwrap().as_ref(), Some(entry));
        let mut part = vec![0; content.len().min(at * 37)];
        reader.content().read_exact(&mut part).unwrap();
        assert_eq!(part, content[..part.len()]);
        if at % 3 == 0 {
            let mut rest = Vec::new();
            reader.copy_content(&mut rest).unwrap();
            assert_eq!(rest, content[part.len()..]);
        }
    }
    assert_eq!(reader.next().unwrap(), None);
    assert!(reader.has_end());
}

#[test]
fn the_bytes_of_one_archive_are_pinned() {
    let mut odd = entry(
        "odd",
        EntryKind::Symlink {
            target: b"\xff".to_vec(),
        },
    );
    odd.mtime = Mtime {
        seconds: -2,
        nanoseconds: 5,
    };
    odd.uid = u32::MAX;
    odd.xattrs.insert(b"user.a=b".to_vec(), b"\0\n".to_vec());
    let archive = write(&[directory(""), file("a", "text"), (odd, Vec::new())]);
    let digest = crate::vocab::Digest::of(&archive);
    expect_test::expect!["sha256:9d75611fd00969ae365355c2183de1837b045dd084bfb580b82f79c7c33f57fb"]
        .assert_eq(&digest.to_string());
}
