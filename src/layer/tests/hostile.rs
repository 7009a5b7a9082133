//! Archives that lie: each is refused with the error that names the lie, and none panics or asks for endless memory.

use proptest::prelude::*;

use super::*;
use crate::layer::{header, pax};

fn raw(name: &[u8], kind: u8, size: u64) -> Vec<u8> {
    edited(name, kind, size, |_| {})
}

fn edited(name: &[u8], kind: u8, size: u64, edit: impl FnOnce(&mut header::Block)) -> Vec<u8> {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[header::TYPE] = kind;
    header::put_octal(&mut block[header::SIZE], size);
    block[header::MAGIC].copy_from_slice(b"ustar\x0000");
    edit(&mut block);
    header::put_checksum(&mut block);
    block.to_vec()
}

fn extended(list: &[(&str, &[u8])]) -> Vec<u8> {
    let mut records = Vec::new();
    for (key, value) in list {
        pax::put(&mut records, key.as_bytes(), value);
    }
    let mut bytes = raw(b"PaxHeader", b'x', records.len() as u64);
    bytes.extend(&records);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

macro_rules! refused {
    ($archive:expr, $error:pat) => {
        let archive: Vec<u8> = $archive;
        let result = read(&archive[..]);
        assert!(matches!(result, Err($error)), "{result:?}");
    };
}

#[test]
fn names_that_leave_the_root_are_refused_and_can_be_passed_over() {
    for name in ["..", "../x", "a/../../x", "/../x", "a/.."] {
        refused!(raw(name.as_bytes(), b'0', 0), TarError::Escapes { .. });
        refused!(
            [extended(&[("path", name.as_bytes())]), raw(b"x", b'0', 0)].concat(),
            TarError::Escapes { .. }
        );
        refused!(
            edited(b"x", b'1', 0, |block| block[157..157 + name.len()]
                .copy_from_slice(name.as_bytes())),
            TarError::Escapes { .. }
        );
    }
    let mut archive = raw(b"../x", b'0', 700);
    archive.extend([b'x'; 1024]);
    archive.extend(raw(b"good", b'0', 0));
    let mut reader = TarReader::new(&archive[..]);
    assert!(matches!(reader.next(), Err(TarError::Escapes { .. })));
    assert_eq!(reader.next().unwrap().unwrap().path, b"good");
}

#[test]
fn names_with_nul_or_without_bytes_are_refused() {
    refused!(
        [extended(&[("path", b"a\0b")]), raw(b"x", b'0', 0)].concat(),
        TarError::NulInName { .. }
    );
    refused!(
        [extended(&[("linkpath", b"a\0b")]), raw(b"x", b'2', 0)].concat(),
        TarError::NulInName { .. }
    );
    refused!(raw(b"", b'0', 0), TarError::EmptyName { .. });
    refused!(raw(b".", b'0', 0), TarError::EmptyName { .. });
    refused!(raw(b"././", b'2', 0), TarError::EmptyName { .. });
}

#[test]
fn lengths_are_limited() {
    let long = vec![b'x'; 5000];
    refused!(
        [extended(&[("path", &long)]), raw(b"x", b'0', 0)].concat(),
        TarError::TooLong { .. }
    );
    refused!(
        [extended(&[("linkpath", &long)]), raw(b"x", b'2', 0)].concat(),
        TarError::TooLong { .. }
    );
    refused!(raw(b"x", b'x', 2 << 20), TarError::TooLong { .. });
    refused!(raw(b"x", b'L', 0o77_777_777_777), TarError::TooLong { .. });
    refused!(raw(b"x", b'g', 0o77_777_777_777), TarError::TooLong { .. });
    refused!(raw(b"x", b'x', 0).repeat(5000), TarError::TooLong { .. });
    let mut globals = Vec::new();
    for at in 0..40 {
        let name = format!("SCHILY.xattr.user.{at}");
        let mut header = extended(&[(&name, &vec![b'v'; 40_000])]);
        header[header::TYPE] = b'g';
        let mut block = *header.first_chunk().unwrap();
        header::put_checksum(&mut block);
        header[..512].copy_from_slice(&block);
        globals.extend(header);
        globals.extend(raw(b"x", b'0', 0));
    }
    refused!(globals, TarError::TooLong { .. });
}

#[test]
fn archives_that_end_inside_an_entry_are_refused() {
    let whole = write(&[file("a", prose(1, 1000)), file(&"l".repeat(300), "x")]);
    for cut in 0..whole.len() {
        let result = read(&whole[..cut]);
        // In front of a header, and in or behind the end's first block.
        let good = [0, 1536].contains(&cut) || cut >= 3584 && cut % 512 == 0;
        match result {
            Ok(_) => assert!(good, "cut at {cut}"),
            // Content that ends early.
            Err(TarError::Read(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                assert!(!good);
            }
            Err(error) => assert!(
                !good && matches!(error, TarError::Truncated { .. }),
                "{cut}: {error}"
            ),
        }
    }
}

#[test]
fn an_end_without_its_blocks_is_told() {
    let whole = write(&[file("a", "b")]);
    for (cut, marked) in [(0, true), (512, false), (1024, false)] {
        let mut reader = TarReader::new(&whole[..whole.len() - cut]);
        while reader.next().unwrap().is_some() {}
        assert_eq!(reader.has_end(), marked);
    }
}

#[test]
fn what_follows_the_end_is_read_but_not_believed() {
    let mut archive = write(&[file("a", "b")]);
    archive.extend(raw(b"ghost", b'0', 0));
    archive.extend(noise(1, 400_000));
    let mut reader = TarReader::new(DigestingReader::new(&archive[..]));
    let mut count = 0;
    while reader.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 1);
    let (digest, length) = reader.finish().unwrap().finish();
    assert_eq!(digest, crate::vocab::Digest::of(&archive));
    assert_eq!(length, archive.len() as u64);
}

#[test]
fn a_lone_block_of_zeros_is_refused() {
    refused!(
        [raw(b"a", b'0', 0), vec![0; 512], raw(b"b", b'0', 0)].concat(),
        TarError::LoneZeroBlock { .. }
    );
}

#[test]
fn an_extended_header_without_its_entry_is_refused() {
    refused!(extended(&[("path", b"x")]), TarError::Truncated { .. });
    refused!(
        [extended(&[("path", b"x")]), vec![0; 1024]].concat(),
        TarError::Truncated { .. }
    );
}

#[test]
fn errors_are_final() {
    let mut archive = raw(b"a", b'0', 0);
    archive[0] ^= 1;
    archive.extend(raw(b"b", b'0', 0));
    let mut reader = TarReader::new(&archive[..]);
    assert!(matches!(
        reader.next(),
        Err(TarError::Checksum { offset: 0 })
    ));
    assert!(matches!(reader.next(), Err(TarError::GivenUp)));
}

#[test]
fn odd_numbers_and_types_are_refused() {
    for (range, field) in [
        (header::MODE, "mode"),
        (header::UID, "uid"),
        (header::GID, "gid"),
        (header::SIZE, "size"),
        (header::MTIME, "mtime"),
    ] {
        let start = range.start;
        refused!(
            edited(b"x", b'0', 0, |block| block[start] = b'z'),
            TarError::Number { .. }
        );
        if field != "mtime" {
            refused!(
                edited(b"x", b'0', 0, |block| block[range].fill(0xff)),
                TarError::Number { .. }
            );
        }
    }
    refused!(
        edited(b"x", b'3', 0, |block| block[329] = b'z'),
        TarError::Number {
            field: "devmajor",
            ..
        }
    );
    for kind in *b"MNSZ\x01\xff" {
        let result = read(&raw(b"x", kind, 0)[..]);
        assert!(
            matches!(
                result,
                Err(TarError::UnsupportedType { .. } | TarError::Sparse { .. })
            ),
            "{kind} {result:?}"
        );
    }
}

#[test]
fn a_sparse_file_of_lies_is_refused() {
    for list in [
        &[("GNU.sparse.map", &b"0,10"[..])][..],
        &[("GNU.sparse.size", b"5"), ("GNU.sparse.map", b"0,10")],
        &[("GNU.sparse.size", b"50"), ("GNU.sparse.map", b"0,10,5,3")],
        &[("GNU.sparse.size", b"50"), ("GNU.sparse.map", b"0,10,20")],
        &[("GNU.sparse.size", b"50"), ("GNU.sparse.map", b"0,9")],
        &[
            ("GNU.sparse.size", b"50"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", b"0,10"),
        ],
        &[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"50"),
        ],
        &[
            ("GNU.sparse.major", b"2"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"50"),
        ],
    ] {
        let mut archive = extended(list);
        archive.extend(raw(b"x", b'0', 10));
        archive.extend([b'x'; 512]);
        refused!(archive, TarError::Sparse { .. });
    }
    // Extension blocks that say nothing but that there are more.
    let mut archive = edited(b"x", b'S', 0, |block| {
        block[header::MAGIC].copy_from_slice(b"ustar  \0");
        block[header::GNU_SPARSE_EXTENDED] = 1;
    });
    let mut block = [0; 512];
    block[504] = 1;
    archive.extend(block.repeat(10));
    refused!(archive, TarError::Sparse { .. });
}

#[test]
fn a_huge_hole_costs_no_memory() {
    let mut archive = extended(&[
        ("GNU.sparse.size", b"9000000000000000000"),
        ("GNU.sparse.map", b""),
    ]);
    archive.extend(raw(b"x", b'0', 0));
    archive.extend(raw(b"next", b'0', 0));
    let mut reader = TarReader::new(&archive[..]);
    let entry = reader.next().unwrap().unwrap();
    assert_eq!(
        entry.kind,
        EntryKind::File {
            size: 9_000_000_000_000_000_000
        }
    );
    let mut some = [1; 100];
    reader.content().read_exact(&mut some).unwrap();
    assert_eq!(some, [0; 100]);
    assert_eq!(
        reader.stretch(),
        Some(Stretch::Hole(9_000_000_000_000_000_000 - 100))
    );
    assert_eq!(reader.stretch(), None);
    assert_eq!(reader.next().unwrap().unwrap().path, b"next");
}

/// A few archives with every construction that the reader knows.
fn seeds() -> Vec<Vec<u8>> {
    let mut odd = file(&"o".repeat(200), prose(2, 3000));
    odd.0.xattrs.insert(b"user.x".to_vec(), vec![0, 1, 2]);
    odd.0.mtime.nanoseconds = 7;
    let mut sparse = extended(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"5000"),
        ("GNU.sparse.name", b"real"),
    ]);
    sparse.extend(raw(b"x", b'0', 1024));
    let mut map = b"2\n0\n12\n4000\n500\n".to_vec();
    map.resize(512, 0);
    sparse.extend(map);
    sparse.extend([b'x'; 512]);
    let mut old = edited(b"x", b'S', 10, |block| {
        block[header::MAGIC].copy_from_slice(b"ustar  \0");
        block[386..398].copy_from_slice(b"00000000000\0");
        block[398..410].copy_from_slice(b"00000000005\0");
        block[header::GNU_SPARSE_EXTENDED] = 1;
        block[header::GNU_SPARSE_SIZE].copy_from_slice(b"00000001000\0");
    });
    let mut extension = [0; 512];
    extension[..12].copy_from_slice(b"00000000020\0");
    extension[12..24].copy_from_slice(b"00000000005\0");
    old.extend(extension);
    old.extend([b'y'; 512]);
    let mut long = raw(b"././@LongLink", b'L', 200);
    long.extend([b'n'; 512]);
    long.extend(raw(b"x", b'0', 0));
    assert_eq!(read(&sparse[..]).unwrap()[0].1.len(), 5000);
    assert_eq!(read(&old[..]).unwrap()[0].1.len(), 512);
    vec![write(&[directory("d"), odd]), sparse, old, long]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_mutation_makes_the_reader_panic_or_run_away(
        seed in 0..4_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        fix_checksums in any::<bool>(),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut archive = seeds().swap_remove(seed);
        for (at, byte) in edits {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        if fix_checksums {
            for block in archive.chunks_exact_mut(512) {
                if &block[257..262] == b"ustar" {
                    let mut fixed = *block.first_chunk().unwrap();
                    header::put_checksum(&mut fixed);
                    block.copy_from_slice(&fixed);
                }
            }
        }
        if let Some(cut) = cut {
            archive.truncate(cut.index(archive.len()));
        }
        let mut reader = TarReader::new(&archive[..]);
        let mut steps = 0;
        while let Ok(Some(_)) | Err(TarError::Escapes { .. }) = reader.next() {
            // A hole may be as long as it likes; what is read of it is the caller's choice.
            drop(io::copy(&mut reader.content().take(1 << 20), &mut io::sink()));
            steps += 1;
            prop_assert!(steps < 100);
        }
    }

    #[test]
    fn noise_is_no_archive(bytes in prop::collection::vec(any::<u8>(), 1..2000)) {
        prop_assert!(read(&bytes[..]).is_err());
        drop(decompress(io::Cursor::new(bytes)).and_then(|mut reader| io::copy(&mut reader, &mut io::sink())));
    }

    #[test]
    fn no_mutation_makes_decompression_panic(
        format in 0..2_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        use crate::vocab::Compression;
        let compression = [Compression::Gzip { level: 1 }, Compression::Zstd { level: 1 }][format];
        let mut writer = LayerWriter::new(Vec::new(), compression, 1);
        let (entry, content) = file("f", prose(1, 2000));
        writer.entry(&entry, &mut &content[..]).unwrap();
        let (mut blob, _) = writer.finish().unwrap();
        for (at, byte) in edits {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        if let Ok(reader) = decompress(io::Cursor::new(blob)) {
            drop(read(reader.take(1 << 20)));
        }
    }
}
