//! Streams that go to a place and come back.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::cuts::tests::noise;
use super::index::{Index, PACK};
use super::*;
use crate::cache::Place;
use crate::registry::{Client, Threads};
use crate::vocab::{CachePlace, CacheScope, Cancel, Digest, RegistryOptions, Timestamp};

/// Files as two streams.
#[derive(Clone, Default)]
struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    fn read(&self, streams: &mut Streams<'_>) -> io::Result<()> {
        for (header, content) in &self.0 {
            streams.header(header.as_bytes())?;
            streams.border(content.len() as u64)?;
            streams.content(content)?;
            streams.border(content.len() as u64)?;
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let lengths = self
            .0
            .iter()
            .map(|(header, content)| header.len() + content.len());
        lengths.sum::<usize>() as u64
    }

    fn streams(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut headers, mut contents) = (Vec::new(), Vec::new());
        for (header, content) in &self.0 {
            headers.extend_from_slice(header.as_bytes());
            contents.extend_from_slice(content);
        }
        (headers, contents)
    }
}

/// Returns `count` files of up to `most` bytes that do not compress.
fn files(seed: u64, count: usize, most: usize) -> Files {
    let file = |at: usize| {
        let length = noise(seed + at as u64, 8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize % most;
        let header = format!("{:?}", noise(at as u64, 60));
        (header, noise(seed * 7919 + at as u64, length))
    };
    Files((0..count).map(file).collect())
}

struct Shared {
    directory: tempfile::TempDir,
    client: Client,
}

impl Shared {
    fn new() -> Shared {
        Shared {
            directory: tempfile::tempdir().unwrap(),
            client: Client::new(&RegistryOptions::default(), Threads::None).unwrap(),
        }
    }

    fn place(&self) -> Place {
        let path = self.directory.path().join("cache");
        Place::new(&CachePlace::Directory { path }, &CacheScope::default())
    }

    fn scratch(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.directory.path()).unwrap()
    }

    fn blobs(&self) -> Vec<PathBuf> {
        let directory = self.directory.path().join("cache/blobs/sha256");
        let blobs = fs::read_dir(directory).unwrap();
        blobs.map(|blob| blob.unwrap().path()).collect()
    }

    fn version(&self) -> Option<Version> {
        look_up(&self.client, &self.place(), &name("a")).unwrap()
    }

    /// Saves over what is there, and returns the bytes that moved.
    fn save(&self, files: &Files) -> Saved {
        let previous = self.version();
        let read = |streams: &mut Streams<'_>| files.read(streams);
        let outline = Outline::read(files.bytes(), previous.as_ref(), read).unwrap();
        let index =
            previous.map(|previous| previous.fetch_index(&self.client, &self.place()).unwrap());
        let scratch = self.scratch();
        let packed = outline.pack(index.as_ref(), scratch.path(), read).unwrap();
        save(
            &self.client,
            &self.place(),
            &name("a"),
            &outline,
            packed,
            Timestamp::from_seconds(1_795_271_400),
            &Cancel::new(),
            &|done, total| assert!(done <= total),
        )
        .unwrap()
    }

    fn restore(&self) -> Result<(Vec<u8>, Vec<u8>), MountError> {
        let version = self.version().expect("it was saved");
        let index = version.fetch_index(&self.client, &self.place())?;
        let scratch = self.scratch();
        self.restore_by(&index, scratch.path())
    }

    fn restore_by(&self, index: &Index, scratch: &Path) -> Result<(Vec<u8>, Vec<u8>), MountError> {
        let fill = |headers: &mut dyn Read, contents: &mut dyn Read| -> io::Result<_> {
            let mut streams = (Vec::new(), Vec::new());
            // In turns, as directories are filled.
            let mut piece = vec![0; 100_000];
            loop {
                let count = contents.read(&mut piece)?;
                streams.1.extend_from_slice(&piece[..count]);
                let count_of_headers = headers.read(&mut piece[..1000])?;
                streams.0.extend_from_slice(&piece[..count_of_headers]);
                if count + count_of_headers == 0 {
                    return Ok(streams);
                }
            }
        };
        let place = self.place();
        let cancel = Cancel::new();
        let progress = |done, total| assert!(done <= total);
        let filled = restore(
            &self.client,
            &place,
            index,
            scratch,
            &cancel,
            &progress,
            fill,
        )?;
        Ok(filled.expect("whatever cannot be read has its cause in a pack"))
    }
}

fn name(id: &str) -> MountName {
    MountName {
        key: Digest::of(id.as_bytes()),
        id: id.to_owned(),
    }
}

#[test]
fn what_is_saved_comes_back() {
    for files in [
        Files::default(),
        files(1, 1, 10),
        files(2, 300, 9000),
        // Several packs, and files larger than a chunk may be.
        files(3, 60, 1 << 20),
    ] {
        let shared = Shared::new();
        let saved = shared.save(&files);
        assert_eq!(saved.version.bytes, files.bytes());
        assert_eq!(shared.version(), Some(saved.version));
        assert!(shared.restore().unwrap() == files.streams());
        assert_eq!(saved.index.packs.len() > 2, files.bytes() > 2 * PACK as u64);
    }
}

#[test]
fn only_what_changed_moves() {
    let shared = Shared::new();
    let mut files = files(1, 400, 100_000);
    let first = shared.save(&files).sent;
    files.0[200].1.insert(5000, b'x');
    files.0.insert(100, ("new".to_owned(), noise(99, 50_000)));
    files.0.remove(300);
    let second = shared.save(&files).sent;
    assert!(second * 20 < first, "{second} of {first}");
    assert!(shared.restore().unwrap() == files.streams());
    // Touched, all of them: what they hold stays where it is.
    for (header, _) in &mut files.0 {
        header.replace_range(1..3, "77");
    }
    let third = shared.save(&files).sent;
    assert!(third * 20 < first, "{third} of {first}");
    assert!(shared.restore().unwrap() == files.streams());
}

#[test]
fn what_nobody_needs_goes_and_packs_stay_few() {
    let shared = Shared::new();
    let mut all = files(1, 400, 100_000);
    shared.save(&all);
    all.0.truncate(40);
    let saved = shared.save(&all);
    let kept: u64 = saved.index.packs.iter().map(|pack| pack.bytes()).sum();
    assert!(kept <= 2 * all.bytes(), "{kept}");
    for round in 0..30 {
        let name = format!("{round}");
        all.0.push((name, noise(1000 + round, 30_000)));
        let saved = shared.save(&all);
        assert!(saved.index.packs.len() < 14, "{}", saved.index.packs.len());
    }
    assert!(shared.restore().unwrap() == all.streams());
}

#[test]
fn equal_files_are_equal_and_a_change_between_two_readings_is_seen() {
    let shared = Shared::new();
    let one = files(1, 50, 50_000);
    let outline = |files: &Files| -> Outline {
        Outline::read(1000, None, |streams| files.read(streams)).unwrap()
    };
    let identity = outline(&one).identity();
    assert_eq!(outline(&one.clone()).identity(), identity);
    let mut other = one.clone();
    other.0[25].1.push(0);
    assert_ne!(outline(&other).identity(), identity);
    let mut shorter = one.clone();
    shorter.0.pop();
    for changed in [other, shorter, Files::default()] {
        let scratch = shared.scratch();
        let packed = outline(&one).pack(None, scratch.path(), |streams| changed.read(streams));
        assert!(matches!(packed, Err(PackError::Changed)), "{packed:?}");
    }
    let scratch = shared.scratch();
    let packed = outline(&one).pack(None, scratch.path(), |_| Err("no"));
    assert!(matches!(packed, Err(PackError::Read("no"))), "{packed:?}");
    let packed = outline(&one).pack(None, Path::new("/dev/null"), |streams| one.read(streams));
    assert!(matches!(packed, Err(PackError::Keep(_))), "{packed:?}");
}

#[test]
fn whatever_is_damaged_is_noticed() {
    let shared = Shared::new();
    shared.save(&files(1, 60, 400_000));
    for path in shared.blobs() {
        let sound = fs::read(&path).unwrap();
        let mut torn = sound.clone();
        torn[sound.len() / 2] ^= 1;
        for bytes in [&torn[..], &sound[..sound.len() / 2], b""] {
            fs::write(&path, bytes).unwrap();
            let error = shared.restore().unwrap_err();
            assert!(error.is_spoilt(), "{error:?}");
        }
        fs::remove_file(&path).unwrap();
        assert!(shared.restore().unwrap_err().is_spoilt());
        fs::write(&path, sound).unwrap();
    }
    assert!(shared.restore().is_ok());
}

#[test]
fn an_index_that_lies_about_a_pack_is_noticed() {
    let shared = Shared::new();
    let saved = shared.save(&files(1, 60, 400_000));
    let scratch = shared.scratch();
    let check = |change: &dyn Fn(&mut Index)| {
        let mut index = saved.index.clone();
        change(&mut index);
        let error = shared.restore_by(&index, scratch.path()).unwrap_err();
        assert!(error.is_spoilt(), "{error:?}");
    };
    check(&|index| index.packs[0].chunks[0].digest[0] ^= 1);
    check(&|index| index.packs[0].chunks[0].length += 1);
    check(&|index| {
        let last = index.packs.last_mut().unwrap();
        last.chunks.push(last.chunks[0]);
    });
    check(&|index| index.packs[0].blob = Digest::of(b"nothing"));
    check(&|index| index.packs[0].size -= 1);
}

#[test]
fn a_document_that_is_torn_or_anothers_is_refused() {
    let shared = Shared::new();
    shared.save(&files(1, 3, 100));
    let (place, client) = (shared.place(), &shared.client);
    let entries = shared.directory.path().join("cache/entries");
    let path = entries.join(place.mount(&name("a").key));
    let sound = fs::read(&path).unwrap();
    let check = |bytes: &[u8], id: &str, expected: &str| {
        fs::write(entries.join(place.mount(&name(id).key)), bytes).unwrap();
        let error = look_up(client, &place, &name(id)).unwrap_err();
        assert!(error.is_spoilt());
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(&sound, "b", "is another mount's");
    check(&sound[..sound.len() / 2], "a", "is torn");
    let text = String::from_utf8(sound).unwrap();
    check(
        text.replace("mount.v1", "mount.v9").as_bytes(),
        "a",
        "another version",
    );
    check(
        text.replace("power", "force").as_bytes(),
        "a",
        "not understood",
    );
    check(
        text.replace("\\\"power\\\":16", "\\\"power\\\":17")
            .as_bytes(),
        "a",
        "contradicts",
    );
    assert!(look_up(client, &place, &name("c")).unwrap().is_none());
    // What decides about the size has to be true.
    let bytes = format!("\\\"bytes\\\":{}", files(1, 3, 100).bytes());
    let lie = text.replace(&bytes, "\\\"bytes\\\":1");
    assert_ne!(lie, text);
    fs::write(&path, lie).unwrap();
    assert!(shared.restore().unwrap_err().is_spoilt());
}
