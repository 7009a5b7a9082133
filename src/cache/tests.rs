//! Entries as documents, places as directories, and what readers and givers make of them.

use std::io::Read;
use std::sync::Mutex;

use super::*;
use crate::image::{ImageConfig, Manifest, parse_config, parse_manifest};
use crate::registry::{Client, Threads};
use crate::vocab::{
    CacheKey, CachePlace, CacheScope, Cancel, Compression, Descriptor, DiffId, Digest, Event,
    EventSink, KeyComponent, LayerForm, LayerId, RegistryOptions, ResultId, Timestamp,
};

const GZIP: LayerForm = LayerForm {
    compression: Compression::Gzip { level: 6 },
    clamp: None,
};

const NOW: Timestamp = Timestamp {
    seconds: 1_795_300_000,
    nanoseconds: 0,
};

fn key(name: &str) -> CacheKey {
    CacheKey(Digest::of(name.as_bytes()))
}

fn form(bytes: &[u8], form: LayerForm) -> PackedForm {
    PackedForm {
        form,
        diff_id: DiffId(Digest::of(&[bytes, b"tar"].concat())),
        blob: Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        },
        uncompressed_size: 10,
    }
}

fn entry(name: &str, forms: Option<Vec<PackedForm>>) -> Entry {
    Entry {
        key: key(name),
        components: components(name),
        description: format!("[1/1] RUN {name}"),
        result: ResultId(Digest::of(b"result")),
        layer: forms.map(|forms| EntryLayer {
            id: LayerId(Digest::of(name.as_bytes())),
            forms,
        }),
        created: Timestamp {
            seconds: 1_795_271_400,
            nanoseconds: 500_000_000,
        },
        size: 7,
        used: None,
    }
}

/// The same as it is found.
fn found(entry: Entry) -> Entry {
    Entry {
        used: Some(NOW),
        ..entry
    }
}

fn components(name: &str) -> Vec<KeyComponent> {
    vec![KeyComponent {
        name: "argv".to_owned(),
        value: name.to_owned(),
    }]
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl EventSink for Warnings {
    fn emit(&self, event: Event) {
        if let Event::Diagnostic(diagnostic) = event {
            self.0.lock().unwrap().push(diagnostic.message);
        }
    }
}

fn client() -> Client {
    Client::new(&RegistryOptions::default(), Threads::None).unwrap()
}

fn directory(temp: &tempfile::TempDir, scope: &str) -> Place {
    let place = CachePlace::Directory {
        path: temp.path().join("cache"),
    };
    Place::new(&place, &CacheScope::new(scope))
}

fn ready(form: &PackedForm, bytes: &'static [u8]) -> ToPublish {
    ToPublish {
        form: form.clone(),
        open: std::sync::Arc::new(move |offset| {
            Ok(Box::new(&bytes[offset as usize..]) as Box<dyn Read + Send>)
        }),
        mount_from: None,
        is_wanted: true,
    }
}

/// Publishes one step with its layer.
fn publish(place: &Place, entry: Entry, bytes: &'static [u8]) {
    let to = vec![Publication {
        place: place.clone(),
        ignore_error: false,
        all_layers: true,
        compression: Compression::Gzip { level: 6 },
    }];
    let publisher = Publisher::new(to, false, NOW, &Cancel::new());
    let layer = LayerId(Digest::of(b"step"));
    publisher.note(entry, None);
    publisher.layer_ready(
        &client(),
        layer,
        vec![ready(&form(bytes, GZIP), bytes)],
        true,
    );
    let failures = publisher.finish(&client());
    assert!(failures.is_empty());
}

#[test]
fn an_entry_is_an_ordinary_image_and_comes_back_as_it_was() {
    let clamped = LayerForm {
        clamp: Some(5),
        ..GZIP
    };
    for forms in [
        None,
        Some(Vec::new()),
        Some(vec![form(b"a", GZIP)]),
        Some(vec![form(b"a", GZIP), form(b"b", clamped)]),
    ] {
        let entry = entry("step", forms);
        let documents = entry.documents(NOW).unwrap();
        let Ok(Manifest::Image { config, layers }) = parse_manifest(&documents.manifest, None)
        else {
            panic!("it is an image");
        };
        assert_eq!(config, documents.config);
        assert!(!layers.is_empty(), "some registries want layers");
        let config = parse_config(&documents.config_bytes).unwrap();
        assert_eq!(config.rootfs.diff_ids.len(), layers.len());
        let parsed = Entry::parse(&entry.key, &documents.manifest);
        assert_eq!(parsed, Ok(found(entry)));
    }
}

#[test]
fn what_is_no_entry_of_the_key_is_refused() {
    let documents = entry("step", Some(vec![form(b"a", GZIP)]))
        .documents(NOW)
        .unwrap();
    let text = String::from_utf8(documents.manifest).unwrap();
    let check = |key: CacheKey, text: &str, expected: &str| {
        let refused = Entry::parse(&key, text.as_bytes()).unwrap_err();
        assert!(refused.contains(expected), "{refused}: {text}");
    };
    check(key("other"), &text, "is another step's");
    check(key("step"), &text[..text.len() / 2], "is torn");
    check(key("step"), "", "is torn");
    let of_another_version = text.replace("builder.cache.step.v1", "builder.cache.step.v9");
    check(key("step"), &of_another_version, "no record");
    check(
        key("step"),
        &text.replace("gzip-6", "lzma-6"),
        "contradicts",
    );
    let layers = text.find("\"layers\":[").unwrap() + 10;
    let mut without_layers = text.clone();
    without_layers.replace_range(layers..text[layers..].find(']').unwrap() + layers, "");
    check(key("step"), &without_layers, "contradicts");
}

#[test]
fn a_step_with_endless_inputs_is_not_shared() {
    let mut entry = entry("step", None);
    entry.components[0].value = "x".repeat(4 << 20);
    assert!(entry.documents(NOW).is_none());
}

#[test]
fn records_travel_inside_an_image() {
    let mut config = ImageConfig::default();
    let (whole, alone) = (entry("step", Some(Vec::new())), entry("other", None));
    let packed = form(b"layer", GZIP);
    let layers = [None, Some((LayerId(Digest::of(b"step")), packed.clone()))];
    put_records(&mut config, &[whole.clone(), alone.clone()], &layers);
    let bytes = serde_json::to_vec(&config).unwrap();
    let config = parse_config(&bytes).unwrap();
    let blobs = [form(b"base", GZIP).blob, packed.blob.clone()];
    let mut expected = whole;
    expected.layer.as_mut().unwrap().forms = vec![packed];
    assert_eq!(entry::records(&config, &blobs), [expected, alone.clone()]);
    // An image whose layers were taken away keeps what needs none.
    assert_eq!(entry::records(&config, &blobs[..1]), [alone]);
}

#[test]
fn what_was_published_is_found_with_the_same_inputs_only() {
    let temp = tempfile::tempdir().unwrap();
    let place = directory(&temp, "main");
    publish(&place, entry("step", Some(Vec::new())), b"bytes");
    let warnings = Warnings::default();
    let look_up = |place: Place, components: &[KeyComponent]| {
        let shared = Shared::new(vec![place], &warnings, &Cancel::new());
        let found = shared.look_up(&client(), &key("step"), components);
        found.map(|(entry, _)| entry)
    };
    let hit = look_up(place.clone(), &components("step")).unwrap();
    let expected = entry("step", Some(vec![form(b"bytes", GZIP)]));
    assert_eq!(hit, found(expected));
    assert_eq!(
        look_up(directory(&temp, "other"), &components("step")),
        None
    );
    assert_eq!(warnings.0.lock().unwrap().len(), 0);
    assert_eq!(look_up(place, &components("changed")), None);
    let warnings = warnings.0.into_inner().unwrap();
    assert!(warnings[0].contains("states other inputs"), "{warnings:?}");
}

#[test]
fn what_another_published_first_stays_unless_it_is_a_record_alone_or_spoilt() {
    let temp = tempfile::tempdir().unwrap();
    let place = directory(&temp, "main");
    let read = || {
        let bytes = place
            .document(&client(), &place.step(&key("step")))
            .unwrap()
            .unwrap();
        Entry::parse(&key("step"), &bytes).unwrap()
    };
    let with_result = |text: &[u8]| Entry {
        result: ResultId(Digest::of(text)),
        ..entry("step", Some(Vec::new()))
    };
    let give = |entry: Entry, replace: bool| {
        let to = vec![Publication {
            place: place.clone(),
            ignore_error: false,
            all_layers: true,
            compression: Compression::Gzip { level: 6 },
        }];
        let publisher = Publisher::new(to, false, NOW, &Cancel::new());
        if replace {
            publisher.replace(&[entry.key]);
        }
        publisher.note(entry, None);
        assert!(publisher.finish(&client()).is_empty());
    };
    give(with_result(b"record"), false);
    assert_eq!(read().result, ResultId(Digest::of(b"record")));
    publish(&place, with_result(b"first"), b"bytes");
    assert_eq!(read().result, ResultId(Digest::of(b"first")));
    publish(&place, with_result(b"second"), b"other");
    give(with_result(b"third"), false);
    assert_eq!(read().result, ResultId(Digest::of(b"first")));
    give(with_result(b"fourth"), true);
    assert_eq!(read().result, ResultId(Digest::of(b"fourth")));
}

#[test]
fn a_blob_that_changed_is_lost_and_its_entry_a_miss() {
    let temp = tempfile::tempdir().unwrap();
    let place = directory(&temp, "main");
    publish(&place, entry("step", Some(Vec::new())), b"bytes");
    let warnings = Warnings::default();
    let shared = Shared::new(vec![place], &warnings, &Cancel::new());
    let found = shared.look_up(&client(), &key("step"), &components("step"));
    let layer = found.unwrap().0.layer.unwrap();
    let blob = &layer.forms[0].blob;
    let read = |shared: &Shared<'_>| {
        let mut bytes = Vec::new();
        let mut reader = shared.open(&client(), blob).unwrap();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    };
    assert_eq!(read(&shared).unwrap(), b"bytes");
    assert_eq!(shared.forget_lost(), []);
    let path = temp
        .path()
        .join("cache/blobs/sha256")
        .join(blob.digest.hex());
    std::fs::write(&path, b"bytez").unwrap();
    read(&shared).unwrap_err();
    assert_eq!(shared.forget_lost(), [key("step")]);
    assert_eq!(shared.forget_lost(), []);
    let found = shared.look_up(&client(), &key("step"), &components("step"));
    assert!(found.is_none());
}

#[test]
fn nothing_is_read_through_links_or_waited_for() {
    let temp = tempfile::tempdir().unwrap();
    let place = directory(&temp, "main");
    publish(&place, entry("step", Some(Vec::new())), b"bytes");
    let entries = temp.path().join("cache/entries");
    let name = format!("main-step-{}", key("step"));
    let moved = temp.path().join("elsewhere");
    std::fs::rename(entries.join(&name), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, entries.join(&name)).unwrap();
    place
        .document(&client(), &place.step(&key("step")))
        .unwrap_err();
    std::fs::remove_file(entries.join(&name)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        entries.join(&name),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    place
        .document(&client(), &place.step(&key("step")))
        .unwrap_err();
}

#[test]
fn what_is_spoilt_is_replaced_at_every_place() {
    let temps = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let places = temps.each_ref().map(|temp| directory(temp, "main"));
    for place in &places {
        publish(place, entry("step", Some(Vec::new())), b"bytes");
    }
    let to = places.iter().map(|place| Publication {
        place: place.clone(),
        ignore_error: false,
        all_layers: true,
        compression: Compression::Gzip { level: 6 },
    });
    let publisher = Publisher::new(to.collect(), false, NOW, &Cancel::new());
    let other = Entry {
        result: ResultId(Digest::of(b"other")),
        ..entry("step", Some(Vec::new()))
    };
    publisher.replace(&[other.key]);
    publisher.note(other.clone(), None);
    assert!(publisher.finish(&client()).is_empty());
    let read = |place: &Place| {
        let bytes = place.document(&client(), &place.step(&key("step")));
        Entry::parse(&key("step"), &bytes.unwrap().unwrap()).unwrap()
    };
    for place in &places {
        assert_eq!(read(place).result, other.result);
    }
    // Also where it was given already.
    let last = Entry {
        result: ResultId(Digest::of(b"last")),
        ..other
    };
    publisher.replace(&[last.key]);
    publisher.note(last.clone(), None);
    assert!(publisher.finish(&client()).is_empty());
    for place in &places {
        assert_eq!(read(place).result, last.result);
    }
}

#[test]
fn a_layer_that_is_not_given_is_not_promised() {
    let temps = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = temps.each_ref().map(|temp| directory(temp, "main"));
    let other_scope = directory(&temps[0], "other");
    publish(&first, entry("step", Some(Vec::new())), b"bytes");
    let forms = |place: &Place| {
        let bytes = place.document(&client(), &place.step(&key("step")));
        let there = Entry::parse(&key("step"), &bytes.unwrap().unwrap());
        there.unwrap().forms().len()
    };
    let give = |place: &Place| {
        let warnings = Warnings::default();
        let shared = Shared::new(vec![first.clone()], &warnings, &Cancel::new());
        let found = shared.look_up(&client(), &key("step"), &components("step"));
        let (entry, found_at) = found.unwrap();
        let to = vec![Publication {
            place: place.clone(),
            ignore_error: false,
            all_layers: true,
            compression: Compression::Gzip { level: 6 },
        }];
        let publisher = Publisher::new(to, false, NOW, &Cancel::new());
        publisher.note(entry, Some(found_at));
        assert!(publisher.finish(&client()).is_empty());
    };
    give(&second);
    assert_eq!(forms(&second), 0);
    // Blobs belong to all scopes.
    give(&other_scope);
    assert_eq!(forms(&other_scope), 1);
    std::fs::remove_dir_all(temps[0].path().join("cache/blobs")).unwrap();
    let third = directory(&temps[0], "third");
    give(&third);
    assert_eq!(forms(&third), 0);
}
