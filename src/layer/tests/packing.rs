//! Layers: digests, members, threads, re-use.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;
use crate::vocab::{Compression, Digest};

const COMPRESSIONS: [Compression; 3] = [
    Compression::Uncompressed,
    Compression::Gzip { level: 6 },
    Compression::Zstd { level: 3 },
];

/// Small files, files around the step, and a large one; text and noise.
fn mixed() -> Tree {
    let mut tree = vec![directory("small")];
    for at in 0..600_u64 {
        tree.push(file(
            &format!("small/{at}"),
            prose(at, (at * 37 % 9000) as usize),
        ));
    }
    tree.push(file(
        "large",
        [prose(1, 1_500_000), noise(1, 1_200_001)].concat(),
    ));
    for (at, size) in [1 << 20, (1 << 20) - 1, (1 << 20) + 1, 600_000]
        .into_iter()
        .enumerate()
    {
        tree.push(file(&format!("edge/{at}"), prose(at as u64, size)));
    }
    for at in 0..100_u64 {
        tree.push(file(&format!("small2/{at}"), noise(at, 3000)));
    }
    tree
}

fn pack(tree: &Tree, compression: Compression, threads: usize) -> (Vec<u8>, PackedLayer) {
    let mut writer = LayerWriter::new(Vec::new(), compression, threads);
    for (entry, content) in tree {
        writer.entry(entry, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn digests_sizes_and_members_are_those_of_the_bytes() {
    let tree = mixed();
    let tar = write(&tree);
    for compression in COMPRESSIONS {
        let (blob, layer) = pack(&tree, compression, 2);
        assert_eq!(layer.digest, Digest::of(&blob));
        assert_eq!(layer.size, blob.len() as u64);
        assert_eq!(layer.diff_id.0, Digest::of(&tar));
        assert_eq!(layer.uncompressed_size, tar.len() as u64);
        let mut plain = Vec::new();
        decompress(io::Cursor::new(blob.clone()))
            .unwrap()
            .read_to_end(&mut plain)
            .unwrap();
        assert!(plain == tar, "{compression:?}");
        if compression == Compression::Uncompressed {
            assert!(layer.members.is_empty());
            continue;
        }
        let (mut offset, mut uncompressed_offset) = (0, 0);
        for member in &layer.members {
            assert_eq!(
                (member.offset, member.uncompressed_offset),
                (offset, uncompressed_offset)
            );
            let bytes = &blob[offset as usize..][..member.len as usize];
            let mut part = Vec::new();
            decompress(io::Cursor::new(bytes.to_vec()))
                .unwrap()
                .read_to_end(&mut part)
                .unwrap();
            assert_eq!(part.len() as u64, member.uncompressed_len);
            assert_eq!(*blake3::hash(&part).as_bytes(), member.digest);
            assert!(member.uncompressed_len < (1 << 20) + 4096);
            offset += member.len;
            uncompressed_offset += member.uncompressed_len;
        }
        assert_eq!(
            (offset, uncompressed_offset),
            (layer.size, layer.uncompressed_size)
        );
    }
}

#[test]
fn the_number_of_threads_does_not_show() {
    let tree = mixed();
    for compression in COMPRESSIONS {
        let one = pack(&tree, compression, 1);
        for threads in [0, 2, 3, 8] {
            assert!(
                pack(&tree, compression, threads) == one,
                "{compression:?} {threads}"
            );
        }
    }
}

#[test]
fn an_edit_of_one_file_changes_few_members() {
    let tree = |edited: Option<(u64, usize)>| -> Tree {
        (0..2000_u64)
            .map(|at| {
                let size = 1000 + (at * 7919 % 14_000) as usize;
                match edited {
                    Some((which, growth)) if which == at => {
                        file(&format!("src/{at}.rs"), prose(at + 9, size + growth))
                    }
                    _ => file(&format!("src/{at}.rs"), prose(at, size)),
                }
            })
            .collect()
    };
    let compression = Compression::Gzip { level: 1 };
    let (_, before) = pack(&tree(None), compression, 2);
    assert!(before.members.len() > 12, "{}", before.members.len());
    let known: std::collections::HashSet<_> =
        before.members.iter().map(|member| member.digest).collect();
    let mut changed = Vec::new();
    for which in (0..2000).step_by(97) {
        for growth in [0, 1, 5000] {
            let (_, after) = pack(&tree(Some((which, growth))), compression, 2);
            let fresh = after
                .members
                .iter()
                .filter(|member| !known.contains(&member.digest));
            changed.push(fresh.count());
        }
    }
    assert!(
        changed.iter().all(|count| (1..=3).contains(count)),
        "{changed:?}"
    );
}

#[test]
fn content_of_a_large_file_is_cut_whatever_comes_before_it() {
    let layer = |before: Tree| {
        let mut tree = before;
        tree.push(file("large", prose(1, 5_000_000)));
        pack(&tree, Compression::Gzip { level: 1 }, 2).1
    };
    let first = layer(vec![file("a", "b")]);
    let second = layer(
        (0..30)
            .map(|at| file(&format!("{at}"), prose(at, 3333)))
            .collect(),
    );
    let known: Vec<_> = first.members.iter().map(|member| member.digest).collect();
    let shared = second
        .members
        .iter()
        .filter(|member| known.contains(&member.digest));
    // All but what holds the headers before it; the last step has the archive's end in both.
    assert_eq!(shared.count(), 5);
}

#[test]
fn known_members_are_taken_and_give_the_same_bytes() {
    let tree = mixed();
    for compression in &COMPRESSIONS[1..] {
        let (blob, layer) = pack(&tree, *compression, 2);
        let kept: HashMap<_, _> = layer
            .members
            .iter()
            .map(|member| {
                (
                    member.digest,
                    blob[member.offset as usize..][..member.len as usize].to_vec(),
                )
            })
            .collect();
        for threads in [1, 3] {
            let asked = Arc::new(Mutex::new((0, 0)));
            let (kept, counts) = (kept.clone(), Arc::clone(&asked));
            // Every third member is unknown.
            let known = move |digest: &[u8; 32]| {
                let mut counts = counts.lock().unwrap();
                counts.0 += 1;
                let answer = kept
                    .get(digest)
                    .filter(|_| !digest[0].is_multiple_of(3))
                    .cloned();
                counts.1 += usize::from(answer.is_some());
                answer
            };
            let mut writer =
                LayerWriter::new(Vec::new(), *compression, threads).with_known_members(known);
            for (entry, content) in &tree {
                writer.entry(entry, &mut &content[..]).unwrap();
            }
            assert!(writer.finish().unwrap() == (blob.clone(), layer.clone()));
            let (asked, answered) = *asked.lock().unwrap();
            assert_eq!(asked, layer.members.len());
            assert!(answered > 0 && answered < asked);
        }
    }
}

#[test]
fn a_mixed_up_member_is_not_used() {
    let tree = mixed();
    for compression in &COMPRESSIONS[1..] {
        let expected = pack(&tree, *compression, 2);
        let foreign = pack(&vec![file("other", "content")], *compression, 1).0;
        for wrong in [
            Vec::new(),
            vec![0; 40],
            foreign.clone(),
            foreign[..foreign.len() - 1].to_vec(),
        ] {
            let mut writer = LayerWriter::new(Vec::new(), *compression, 2)
                .with_known_members(move |_| Some(wrong.clone()));
            for (entry, content) in &tree {
                writer.entry(entry, &mut &content[..]).unwrap();
            }
            assert!(writer.finish().unwrap() == expected);
        }
    }
}

#[test]
fn gzip_members_have_the_same_plain_header() {
    for level in [0, 1, 6, 9, 12, u32::MAX] {
        let (blob, layer) = pack(
            &vec![file("f", prose(1, 2_000_000))],
            Compression::Gzip { level },
            2,
        );
        for member in &layer.members {
            let header = &blob[member.offset as usize..][..10];
            assert_eq!(header, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
        }
    }
}

#[test]
fn levels_out_of_range_are_the_nearest() {
    let tree = vec![file("f", prose(1, 300_000))];
    let gzip = |level| pack(&tree, Compression::Gzip { level }, 1);
    assert!(gzip(100) == gzip(9));
    assert!(gzip(9).0.len() < gzip(1).0.len());
    let zstd = |level| pack(&tree, Compression::Zstd { level }, 1);
    assert!(zstd(100) == zstd(22));
    assert!(zstd(i32::MIN).1.digest == zstd(-131_072).1.digest);
    assert!(zstd(19).0.len() < zstd(1).0.len());
}

#[test]
fn what_cannot_be_compressed_is_stored_and_what_hides_among_it_is_not() {
    let size_of = |content: Vec<u8>, compression| {
        let length = content.len() as f64;
        pack(&vec![file("f", content)], compression, 1).0.len() as f64 / length
    };
    for compression in [
        Compression::Gzip { level: 6 },
        Compression::Zstd { level: 19 },
    ] {
        let ratio = size_of(noise(1, 1 << 20), compression);
        assert!((0.99..1.01).contains(&ratio), "{ratio}");
        // Text between the places that are looked at first.
        let mut hidden = noise(1, 1 << 20);
        hidden[20_000..320_000].copy_from_slice(&prose(1, 300_000));
        assert!(size_of(hidden, compression) < 0.9);
    }
}

/// Fails after so many bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn errors_of_the_sink_surface() {
    let tree = mixed();
    for compression in COMPRESSIONS {
        for (threads, room) in [(1, 0), (1, 300_000), (3, 0), (3, 300_000)] {
            let mut writer = LayerWriter::new(Full(room), compression, threads);
            let mut result = Ok(());
            for (entry, content) in &tree {
                result = writer.entry(entry, &mut &content[..]);
                if result.is_err() {
                    assert!(writer.entry(entry, &mut &content[..]).is_err());
                    break;
                }
            }
            let error = match result {
                Err(error) => error,
                Ok(()) => writer.finish().err().expect("the sink is too small"),
            };
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }
}

#[test]
fn content_of_another_length_is_an_error() {
    for size in [10, 3_000_000] {
        for difference in [-1, 1] {
            let entry = entry("f", EntryKind::File { size });
            let content = vec![0; (size as i64 + difference) as usize];
            let mut writer = LayerWriter::new(Vec::new(), Compression::default(), 2);
            let error = writer.entry(&entry, &mut &content[..]).unwrap_err();
            assert!(error.get_ref().unwrap().is::<EntryError>(), "{error}");
            assert!(writer.finish().is_err());
        }
    }
}

#[test]
fn a_panic_of_the_callers_function_is_an_error_and_not_a_hang() {
    let mut writer = LayerWriter::new(Vec::new(), Compression::default(), 2)
        .with_known_members(|_| panic!("on purpose"));
    let (entry, content) = file("f", prose(1, 6_000_000));
    let result = writer.entry(&entry, &mut &content[..]);
    assert!(result.is_err() || writer.finish().is_err());
}

#[test]
fn dropping_the_writer_in_the_middle_ends_it() {
    for compression in COMPRESSIONS {
        let mut writer = LayerWriter::new(Vec::new(), compression, 4);
        for (entry, content) in mixed().iter().take(640) {
            writer.entry(entry, &mut &content[..]).unwrap();
        }
        drop(writer);
    }
}

#[test]
fn an_empty_layer_is_a_layer() {
    for compression in COMPRESSIONS {
        let (blob, layer) = pack(&Tree::new(), compression, 2);
        assert_eq!(layer.uncompressed_size, 1024);
        assert_eq!(
            read(decompress(io::Cursor::new(blob)).unwrap()).unwrap(),
            []
        );
    }
}

#[test]
fn the_bytes_of_one_layer_are_pinned() {
    let tree = mixed();
    let digest = |compression| pack(&tree, compression, 2).1.digest.to_string();
    expect_test::expect!["sha256:dfc584de318b74abe04bf4ab9862ed60153d424950665169f83465603349fbed"]
        .assert_eq(&digest(Compression::Uncompressed));
    // These change with libdeflate and libzstd; that such an update changes layers should be seen.
    expect_test::expect!["sha256:eac9e52a0444d14cc0a6c4ad6ca922ba76fa404f9796054ac3b986921b190d42"]
        .assert_eq(&digest(Compression::Gzip { level: 6 }));
    expect_test::expect!["sha256:06f4044edf874b5a0cb898fab3bb080fc1e5bf022a849458d50e823ba29a1999"]
        .assert_eq(&digest(Compression::Zstd { level: 3 }));
}
