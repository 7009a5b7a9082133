//! Indexes that several jobs write to: whatever the order of their requests, every entry is there in the end.

use super::super::append::{Addition, Appended};
use super::super::fake::{Fault, Gate};
use super::*;
use crate::image::{Listing, ListingEntry, OCI_INDEX, Slot};
use crate::vocab::Platform;

const ARCHITECTURES: [&str; 8] = [
    "amd64", "arm64", "386", "ppc64le", "s390x", "riscv64", "loong64", "sparc64",
];

fn platform(architecture: &str) -> Platform {
    Platform::new("linux", architecture, None)
}

/// Pushes a manifest by digest, as a job does with its image, and returns it as a part of an index.
fn part(
    client: &Client,
    to: &ImageRef,
    architecture: &str,
    note: &str,
) -> (Slot, Vec<ListingEntry>) {
    let bytes = manifest(&format!("{architecture} {note}"));
    let digest = Digest::of(&bytes);
    client
        .push_manifest(&to.with_digest(digest), MANIFEST, &bytes)
        .unwrap();
    let descriptor = Descriptor {
        media_type: MANIFEST.to_owned(),
        digest,
        size: bytes.len() as u64,
    };
    let platform = platform(architecture);
    let entry = ListingEntry::image(&descriptor, Some(&platform));
    (Slot::Platform(platform), vec![entry])
}

fn append_in(
    client: &Client,
    to: &ImageRef,
    architecture: &str,
    note: &str,
    run: Option<&str>,
    expect: &[Platform],
) -> Result<Appended, RegistryError> {
    let part = part(client, to, architecture, note);
    let addition = Addition {
        parts: &[part],
        run,
        expect,
        annotations: &[],
    };
    client.append(to, &addition)
}

fn append(client: &Client, to: &ImageRef, architecture: &str, note: &str) -> Descriptor {
    match append_in(client, to, architecture, note, None, &[]) {
        Ok(Appended::Published { index, .. }) => index,
        other => panic!("{other:?}"),
    }
}

/// Returns the index under a tag, which must be sound.
fn index(fake: &FakeRegistry, to: &ImageRef) -> Option<Listing> {
    let (media_type, bytes) = fake.manifest(&to.repository, to.tag.as_deref().unwrap())?;
    Some(Listing::parse(&bytes, Some(&media_type)).unwrap().unwrap())
}

/// Returns `ARCHITECTURE=NOTE` for each entry, in order.
fn entries(fake: &FakeRegistry, to: &ImageRef) -> Vec<String> {
    let note = |entry: &ListingEntry| {
        let digest = entry.descriptor().digest.to_string();
        let (_, bytes) = fake.manifest(&to.repository, &digest).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        value["annotations"]["note"]
            .as_str()
            .unwrap()
            .replace(' ', "=")
    };
    let listing = index(fake, to).unwrap();
    listing.entries().iter().map(note).collect()
}

#[test]
fn jobs_one_after_the_other_make_one_index() {
    let fake = FakeRegistry::start();
    let client = client();
    let to = image(&fake, "team/app:1.0");
    append(&client, &to, "arm64", "1");
    append(&client, &to, "amd64", "1");
    assert_eq!(entries(&fake, &to), ["amd64=1", "arm64=1"]);
    assert_eq!(fake.manifest("team/app", "1.0").unwrap().0, OCI_INDEX);
    // Each mark is an image that can be pulled.
    let mark = to.with_tag("1.0.part-linux-arm64");
    assert_eq!(entries(&fake, &mark), ["arm64=1"]);
    // A job that runs again takes its own entry's place; one that changes nothing writes no index.
    append(&client, &to, "arm64", "2");
    let last = append(&client, &to, "amd64", "2");
    assert_eq!(entries(&fake, &to), ["amd64=2", "arm64=2"]);
    fake.take_log();
    assert_eq!(append(&client, &to, "amd64", "2"), last);
    let written = lines(&fake);
    let written: Vec<&String> = written
        .iter()
        .filter(|line| line.starts_with("PUT"))
        .collect();
    assert_eq!(written.len(), 2, "the manifest and the mark: {written:?}");
}

#[test]
fn the_order_of_jobs_does_not_change_the_index() {
    let mut digests = Vec::new();
    for order in [["amd64", "arm64", "386"], ["386", "amd64", "arm64"]] {
        let fake = FakeRegistry::start();
        let client = client();
        let to = image(&fake, "a:1");
        let last = order.map(|architecture| append(&client, &to, architecture, "x"));
        digests.push(last[2].digest);
    }
    assert_eq!(digests[0], digests[1]);
}

/// Holds the first write of the index itself; those of images and marks have other references.
fn hold_first_write(fake: &FakeRegistry, gate: &Gate) {
    let gate = gate.clone();
    let mut is_first = true;
    fake.set_chaos(Some(Box::new(move |method, target| {
        let is_index = method == "PUT" && target.ends_with("/manifests/1");
        (is_index && std::mem::take(&mut is_first)).then(|| Fault::Hold(gate.clone()))
    })));
}

#[test]
fn a_job_that_was_late_does_not_undo_what_another_one_did() {
    // The worst moment: arm64 has seen that nothing is there, and writes after amd64 has written, looked and gone home.
    let fake = FakeRegistry::start();
    let to = image(&fake, "a:1");
    let gate = Gate::default();
    hold_first_write(&fake, &gate);
    let late = std::thread::scope(|scope| {
        let late = scope.spawn(|| append(&client(), &to, "arm64", "late"));
        gate.wait_for(1);
        append(&client(), &to, "amd64", "quick");
        gate.open();
        late.join().unwrap()
    });
    assert_eq!(entries(&fake, &to), ["amd64=quick", "arm64=late"]);
    assert_eq!(late, index(&fake, &to).unwrap().to_bytes().0);
}

#[test]
fn a_job_that_stopped_between_its_mark_and_the_index_is_seen_by_the_next_one() {
    let fake = FakeRegistry::start();
    let to = image(&fake, "a:1");
    fake.set_chaos(Some(Box::new(|method, target| {
        (method == "PUT" && target.ends_with("/manifests/1")).then_some(Fault::Status(403))
    })));
    let error = append_in(&client(), &to, "arm64", "1", None, &[]).unwrap_err();
    assert!(told(&error).contains("Denied"), "{}", told(&error));
    assert_eq!(index(&fake, &to), None);
    fake.set_chaos(None);
    append(&client(), &to, "amd64", "1");
    assert_eq!(entries(&fake, &to), ["amd64=1", "arm64=1"]);
}

#[test]
fn eight_jobs_that_all_saw_nothing_lose_nothing() {
    let fake = FakeRegistry::start();
    let to = image(&fake, "a:1");
    let gate = Gate::default();
    let mut left = ARCHITECTURES.len();
    let held = gate.clone();
    fake.set_chaos(Some(Box::new(move |method, target| {
        if method != "PUT" || !target.ends_with("/manifests/1") || left == 0 {
            return None;
        }
        left -= 1;
        Some(Fault::Hold(held.clone()))
    })));
    std::thread::scope(|scope| {
        for architecture in ARCHITECTURES {
            let to = &to;
            scope.spawn(move || append(&client(), to, architecture, "x"));
        }
        gate.wait_for(ARCHITECTURES.len());
        gate.open();
    });
    assert_eq!(entries(&fake, &to).len(), ARCHITECTURES.len());
}

#[test]
fn a_storm_of_jobs_with_a_bad_network_loses_nothing() {
    for seed in 1..=12_u64 {
        let fake = FakeRegistry::start();
        let to = image(&fake, "a:1");
        let mut state = seed;
        fake.set_chaos(Some(Box::new(move |_, _| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            Some(match (state >> 33) % 20 {
                0 => Fault::Reset,
                1 => Fault::LoseAnswer,
                2 => Fault::Status(500),
                3 => Fault::RetryAfter(429, "0".to_owned()),
                4 => Fault::Drip(7),
                _ => return None,
            })
        })));
        std::thread::scope(|scope| {
            for architecture in ARCHITECTURES {
                let to = &to;
                scope.spawn(move || {
                    let client =
                        client_with(&[], RegistryOptions::default(), Threads::Some, |tuning| {
                            tuning.tries = 12;
                        });
                    append(&client, to, architecture, "x")
                });
            }
        });
        assert_eq!(entries(&fake, &to).len(), ARCHITECTURES.len(), "{seed}");
    }
}

#[test]
fn registries_that_list_tags_in_their_own_way_or_not_at_all() {
    let check = |habit: fn(&FakeRegistry)| {
        let fake = FakeRegistry::start();
        habit(&fake);
        for number in 0..20 {
            let tag = format!("{number}.x");
            fake.put_manifest("a", &tag, MANIFEST, &manifest(&tag));
        }
        let to = image(&fake, "a:1");
        let gate = Gate::default();
        hold_first_write(&fake, &gate);
        std::thread::scope(|scope| {
            scope.spawn(|| append(&client(), &to, "arm64", "late"));
            gate.wait_for(1);
            append(&client(), &to, "amd64", "quick");
            gate.open();
        });
        assert_eq!(entries(&fake, &to), ["amd64=quick", "arm64=late"]);
    };
    check(|fake| fake.habits(|habits| habits.tags_per_page = Some(2)));
    check(|fake| {
        fake.habits(|habits| {
            habits.tags_per_page = Some(1000);
            habits.lists_tags_backwards = true;
        });
    });
    for status in [401, 403, 404, 405, 501] {
        let fake = FakeRegistry::start();
        fake.habits(|habits| habits.hides_tags = Some(status));
        let to = image(&fake, "a:1");
        append(&client(), &to, "arm64", "1");
        append(&client(), &to, "amd64", "1");
        assert_eq!(entries(&fake, &to).len(), 2, "{status}");
    }
    check(|fake| fake.habits(|habits| habits.hides_tags = Some(405)));
}

#[test]
fn tags_of_others_are_no_marks() {
    let fake = FakeRegistry::start();
    let to = image(&fake, "a:1");
    let listing = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
    fake.put_manifest("a", "1.part-linux-386", MANIFEST, &manifest("mine"));
    fake.put_manifest("a", "1.part-x", OCI_INDEX, listing.as_bytes());
    fake.put_manifest("a", "1.part-y", "text/html", b"<html>");
    append(&client(), &to, "amd64", "1");
    assert_eq!(entries(&fake, &to), ["amd64=1"]);
}

#[test]
fn marks_of_an_earlier_index_say_nothing_of_the_present_one() {
    let fake = FakeRegistry::start();
    let client = client();
    let to = image(&fake, "a:1");
    append(&client, &to, "arm64", "old");
    append(&client, &to, "386", "old");
    // Another tool has written an index of its own.
    let mut other = Listing::new(crate::image::MediaTypes::Oci);
    other.put(&part(&client, &to, "s390x", "theirs").1);
    fake.put_manifest("a", "1", OCI_INDEX, &other.to_bytes().1);
    append(&client, &to, "amd64", "new");
    assert_eq!(entries(&fake, &to), ["amd64=new", "s390x=theirs"]);
    append(&client, &to, "386", "new");
    assert_eq!(
        entries(&fake, &to),
        ["386=new", "amd64=new", "s390x=theirs"]
    );
}

#[test]
fn a_run_begins_anew_and_is_published_when_it_is_complete() {
    let fake = FakeRegistry::start();
    let client = client();
    let to = image(&fake, "a:1");
    let wanted = [platform("amd64"), platform("arm64")];
    let run = |architecture, run, note| {
        append_in(&client, &to, architecture, note, Some(run), &wanted).unwrap()
    };
    let missing = |appended| match appended {
        Appended::Waiting { missing } => missing,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(run("amd64", "41", "a")), [platform("arm64")]);
    assert_eq!(index(&fake, &to), None);
    assert!(matches!(
        run("arm64", "41", "a"),
        Appended::Published { .. }
    ));
    assert_eq!(entries(&fake, &to), ["amd64=a", "arm64=a"]);
    // The next run: the index is never half of one and half of the other.
    assert_eq!(missing(run("arm64", "42", "b")), [platform("amd64")]);
    assert_eq!(entries(&fake, &to), ["amd64=a", "arm64=a"]);
    run("amd64", "42", "b");
    assert_eq!(entries(&fake, &to), ["amd64=b", "arm64=b"]);
    // Without a list of what is expected, the first job of a run replaces the index.
    append_in(&client, &to, "386", "c", Some("43"), &[]).unwrap();
    assert_eq!(entries(&fake, &to), ["386=c"]);
}

#[test]
fn the_last_of_two_jobs_for_one_platform_stands_and_the_other_one_is_told() {
    let fake = FakeRegistry::start();
    let to = image(&fake, "a:1");
    let gate = Gate::default();
    hold_first_write(&fake, &gate);
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| append_in(&client(), &to, "amd64", "first", None, &[]));
        gate.wait_for(1);
        append(&client(), &to, "amd64", "second");
        gate.open();
        first.join().unwrap().unwrap()
    });
    assert_eq!(entries(&fake, &to), ["amd64=second"]);
    let Appended::Published { replaced, .. } = first else {
        panic!("{first:?}")
    };
    assert_eq!(replaced, [Slot::Platform(platform("amd64"))]);
}

#[test]
fn an_image_under_the_tag_becomes_the_first_entry() {
    let fake = FakeRegistry::start();
    let config = br#"{"architecture":"arm","variant":"v6","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let digest = fake.put_blob("a", config);
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{}}},"layers":[]}}"#,
        config.len()
    );
    fake.put_manifest("a", "1", MANIFEST, text.as_bytes());
    let to = image(&fake, "a:1");
    // A config that comes damaged once is asked for again.
    fake.fault("GET", "/blobs/", Fault::DamageBody);
    append(&client(), &to, "amd64", "x");
    let platforms: Vec<String> = index(&fake, &to)
        .unwrap()
        .platforms()
        .iter()
        .map(Platform::to_string)
        .collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm/v6"]);
}

#[test]
fn what_stands_in_the_way_is_told() {
    let check = |prepare: fn(&FakeRegistry), word: &str| {
        let fake = FakeRegistry::start();
        let to = image(&fake, "a:1");
        append(&client(), &to, "arm64", "1");
        prepare(&fake);
        let error = append_in(&client(), &to, "amd64", "1", None, &[]).unwrap_err();
        assert!(told(&error).contains(word), "{}", told(&error));
    };
    check(
        |fake| {
            fake.habits(|habits| {
                habits.immutable_tags = Some((
                    400,
                    "cannot be overwritten because the tag is immutable".to_owned(),
                ));
            });
        },
        "does not let it be changed",
    );
    check(
        |fake| {
            fake.put_manifest("a", "1", MANIFEST, &manifest("an artifact"));
        },
        "cannot be added to",
    );
    // A registry that says yes and does nothing.
    check(
        |fake| {
            fake.set_chaos(Some(Box::new(|method, target| {
                (method == "PUT" && target.ends_with("/manifests/1"))
                    .then(|| Fault::Says(201, String::new()))
            })));
        },
        "again and again",
    );
    // What was read is not known to be all there is.
    check(
        |fake| {
            fake.set_chaos(Some(Box::new(|_, target| {
                target.contains("tags/list").then_some(Fault::Status(503))
            })));
        },
        "status 503",
    );
    let digest = image(&FakeRegistry::start(), "a").with_digest(Digest::of(b"x"));
    let addition = Addition {
        parts: &[],
        run: None,
        expect: &[],
        annotations: &[],
    };
    let error = client().append(&digest, &addition).unwrap_err();
    assert!(told(&error).contains("under a tag"), "{}", told(&error));
}

#[test]
fn the_index_is_read_at_the_registry_and_at_no_mirror() {
    let fake = FakeRegistry::start();
    let mirror = FakeRegistry::start();
    let to = image(&fake, "a:1");
    append(&client(), &to, "arm64", "1");
    let stale = Listing::new(crate::image::MediaTypes::Oci);
    mirror.put_manifest("a", "1", OCI_INDEX, &stale.to_bytes().1);
    let options = RegistryOptions {
        mirrors: vec![(fake.host(), mirror.url())],
        ..RegistryOptions::default()
    };
    let client = client_with(&[], options, Threads::Some, |_| {});
    append(&client, &to, "amd64", "1");
    assert_eq!(entries(&fake, &to).len(), 2);
    assert_eq!(lines(&mirror), [""; 0]);
}

#[test]
fn annotations_of_several_jobs_come_together() {
    let fake = FakeRegistry::start();
    let client = client();
    let to = image(&fake, "a:1");
    for (architecture, key, text) in [("arm64", "a", "1"), ("amd64", "b", "2"), ("386", "a", "3")] {
        let part = part(&client, &to, architecture, "x");
        let addition = Addition {
            parts: &[part],
            run: None,
            expect: &[],
            annotations: &[(key.to_owned(), text.to_owned())],
        };
        client.append(&to, &addition).unwrap();
    }
    let listing = index(&fake, &to).unwrap();
    assert_eq!(listing.annotation("a"), Some("1"));
    assert_eq!(listing.annotation("b"), Some("2"));
}
