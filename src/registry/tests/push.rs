//! Blobs and manifests arrive whole, with as few bytes as the faults allow.

use std::io::{self, Cursor, Read};
use std::sync::Mutex;
use std::time::Duration;

use super::super::fake::{Access, Fault, TokenRules};
use super::super::push::Pushed;
use super::*;

/// Pushes bytes that lie in memory.
fn push(client: &Client, image: &ImageRef, bytes: &[u8]) -> Result<Pushed, RegistryError> {
    push_from(client, image, bytes, &[])
}

fn push_from(
    client: &Client,
    image: &ImageRef,
    bytes: &[u8],
    mount_from: &[&str],
) -> Result<Pushed, RegistryError> {
    let mount_from: Vec<String> = mount_from.iter().map(|name| (*name).to_owned()).collect();
    let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(bytes[offset as usize..].to_vec())))
    };
    client.push_blob(image, &descriptor(bytes), &open, &mount_from, &|_| {})
}

/// Returns the bodies' bytes that the registry read.
fn received(fake: &FakeRegistry) -> u64 {
    fake.take_log().iter().map(|entry| entry.received).sum()
}

/// Returns lines without numbers of uploads.
fn steps(fake: &FakeRegistry) -> Vec<String> {
    lines(fake)
        .iter()
        .map(|line| {
            let (start, status) = line.rsplit_once(' ').unwrap();
            let method = start.split(' ').next().unwrap();
            format!("{method} {status}")
        })
        .collect()
}

#[test]
fn a_blob_takes_four_requests_and_then_none() {
    let bytes = noise(700_000);
    for threads in [Threads::None, Threads::Some] {
        let fake = FakeRegistry::start();
        let client = client_with(&[], RegistryOptions::default(), threads, |_| {});
        let image = image(&fake, "team/app:1");
        assert_eq!(push(&client, &image, &bytes).unwrap(), Pushed::Uploaded);
        let digest = Digest::of(&bytes).to_string();
        assert!(fake.blob("team/app", &digest).as_ref() == Some(&bytes));
        let log = fake.take_log();
        let patch = log.iter().find(|entry| entry.method == "PATCH").unwrap();
        assert_eq!(patch.header("content-length"), Some("700000"));
        assert_eq!(patch.header("transfer-encoding"), None);
        assert_eq!(patch.header("content-range"), None);
        let methods: Vec<&str> = log.iter().map(|entry| entry.method.as_str()).collect();
        assert_eq!(methods, ["TLS", "HEAD", "POST", "PATCH", "PUT"]);
        assert_eq!(push(&client, &image, &bytes).unwrap(), Pushed::Existed);
        assert_eq!(lines(&fake), [""; 0]);
        assert_eq!(
            push(&super::client(), &image, &bytes).unwrap(),
            Pushed::Existed
        );
        assert_eq!(lines(&fake).len(), 1);
    }
}

#[test]
fn blobs_of_every_size_are_pushed() {
    let fake = FakeRegistry::start();
    let client = client();
    for size in [0, 1, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 3_000_000] {
        let bytes = noise(size);
        assert_eq!(
            push(&client, &image(&fake, "a"), &bytes).unwrap(),
            Pushed::Uploaded
        );
        let digest = Digest::of(&bytes).to_string();
        assert!(fake.blob("a", &digest) == Some(bytes), "{size}");
    }
}

#[test]
fn neighbours_are_asked_for_a_mount() {
    let fake = FakeRegistry::start();
    let bytes = noise(1000);
    fake.put_blob("base", &bytes);
    let client = client();
    let to = |name: &str| image(&fake, name);
    assert_eq!(
        push_from(&client, &to("a"), &bytes, &["none", "base"]).unwrap(),
        Pushed::Mounted
    );
    // The session that the first neighbour's miss opened is given back.
    assert_eq!(
        steps(&fake),
        ["HEAD 404", "POST 202", "POST 201", "DELETE 204"]
    );
    assert_eq!(fake.open_uploads(), 0);
    // What this client has pushed elsewhere needs no telling.
    assert_eq!(push(&client, &to("b"), &bytes).unwrap(), Pushed::Mounted);
    assert_eq!(steps(&fake), ["HEAD 404", "POST 201"]);
    // A refusal to mount opens a session, which is used.
    fake.habits(|habits| habits.never_mounts = true);
    assert_eq!(
        push_from(&client, &to("c"), &bytes, &["c", "base"]).unwrap(),
        Pushed::Uploaded
    );
    let steps_of_c = steps(&fake);
    assert_eq!(
        steps_of_c
            .iter()
            .filter(|step| *step == "PATCH 202")
            .count(),
        1
    );
    assert_eq!(fake.open_uploads(), 0);
    // An error says nothing about the upload.
    fake.faults("POST", "mount=", &Fault::Status(500), 2);
    assert_eq!(
        push_from(&super::client(), &to("d"), &bytes, &["base"]).unwrap(),
        Pushed::Uploaded
    );
}

#[test]
fn a_mount_asks_for_rights_on_both_repositories() {
    for one_scope_only in [false, true] {
        let fake = FakeRegistry::start_with(Access::Bearer(TokenRules {
            users: vec![("me".into(), "hunter2".into(), true)],
            one_scope_only,
            ..TokenRules::default()
        }));
        let bytes = noise(1000);
        fake.put_blob("base", &bytes);
        let client = client_of(&fake, "me", "hunter2");
        let pushed = push_from(&client, &image(&fake, "a"), &bytes, &["base"]).unwrap();
        // A service that sells one scope at a time costs the mount, not the push.
        let expected = if one_scope_only {
            Pushed::Uploaded
        } else {
            Pushed::Mounted
        };
        assert_eq!(pushed, expected);
    }
}

#[test]
fn a_cut_upload_goes_on_where_the_registry_stands() {
    let bytes = noise(1_000_000);
    for threads in [Threads::None, Threads::Some] {
        for fault in [
            Fault::CutRequest(400_000),
            Fault::CutRequest(0),
            Fault::CutRequest(999_999),
            Fault::LoseAnswer,
            Fault::Reset,
        ] {
            let fake = FakeRegistry::start();
            fake.fault("PATCH", "", fault.clone());
            let client = client_with(&[], RegistryOptions::default(), threads, |_| {});
            let pushed = push(&client, &image(&fake, "a"), &bytes);
            assert!(
                matches!(pushed, Ok(Pushed::Uploaded)),
                "{fault:?} {pushed:?}"
            );
            let digest = Digest::of(&bytes).to_string();
            assert!(fake.blob("a", &digest).as_ref() == Some(&bytes));
            assert_eq!(received(&fake), 1_000_000, "{fault:?}");
        }
    }
}

#[test]
fn the_second_piece_names_its_range() {
    let fake = FakeRegistry::start();
    fake.fault("PATCH", "", Fault::CutRequest(600));
    push(&client(), &image(&fake, "a"), &noise(1000)).unwrap();
    let log = fake.take_log();
    let range = log
        .iter()
        .rev()
        .find_map(|entry| entry.header("content-range"));
    assert_eq!(range, Some("600-999"));
}

#[test]
fn an_upload_that_was_lost_begins_anew() {
    let bytes = noise(10_000);
    let check = |prepare: fn(&FakeRegistry)| {
        let fake = FakeRegistry::start();
        prepare(&fake);
        assert_eq!(
            push(&client(), &image(&fake, "a"), &bytes).unwrap(),
            Pushed::Uploaded
        );
        assert!(fake.blob("a", &Digest::of(&bytes).to_string()).as_ref() == Some(&bytes));
    };
    check(|fake| {
        fake.habits(|habits| habits.forgets_cut_uploads = true);
        fake.fault("PATCH", "", Fault::CutRequest(5000));
    });
    check(|fake| {
        fake.habits(|habits| habits.hides_upload_state = true);
        fake.fault("PATCH", "", Fault::CutRequest(5000));
    });
    check(|fake| fake.fault("POST", "", Fault::Status(503)));
    check(|fake| fake.fault("POST", "", Fault::LoseAnswer));
    check(|fake| fake.fault("PUT", "", Fault::Status(502)));
    check(|fake| fake.fault("PUT", "", Fault::Reset));
    check(|fake| fake.fault("PATCH", "", Fault::DamageRequest));
}

#[test]
fn an_answer_that_was_lost_is_looked_up() {
    let fake = FakeRegistry::start();
    let bytes = noise(10_000);
    fake.fault("PUT", "", Fault::LoseAnswer);
    assert_eq!(
        push(&client(), &image(&fake, "a"), &bytes).unwrap(),
        Pushed::Uploaded
    );
    assert_eq!(received(&fake), 10_000);
}

#[test]
fn a_registry_that_takes_less_gets_the_rest() {
    let fake = FakeRegistry::start();
    fake.habits(|habits| habits.keeps_of_patch = Some(30_000));
    let bytes = noise(100_000);
    push(&client(), &image(&fake, "a"), &bytes).unwrap();
    assert!(fake.blob("a", &Digest::of(&bytes).to_string()) == Some(bytes));
    assert_eq!(
        steps(&fake)
            .iter()
            .filter(|step| *step == "PATCH 202")
            .count(),
        4
    );
}

#[test]
fn where_pieces_are_refused_the_whole_is_sent() {
    for status in [404, 405, 415, 501] {
        let fake = FakeRegistry::start();
        fake.habits(|habits| habits.refuses_patch = Some(status));
        let client = client();
        let bytes = noise(10_000);
        push(&client, &image(&fake, "a"), &bytes).unwrap();
        assert!(fake.blob("a", &Digest::of(&bytes).to_string()) == Some(bytes));
        steps(&fake);
        // Which is remembered; and a whole that is cut is sent again.
        fake.fault("PUT", "", Fault::CutRequest(500));
        push(&client, &image(&fake, "a"), &noise(1000)).unwrap();
        assert_eq!(
            steps(&fake),
            [
                "HEAD 404", "POST 202", "PUT 0", "HEAD 404", "POST 202", "PUT 201"
            ],
            "{status}"
        );
    }
}

#[test]
fn small_blobs_take_a_request_less() {
    let small = |fake: &FakeRegistry, bytes: &[u8]| {
        let client = client_with(&[], RegistryOptions::default(), Threads::Some, |tuning| {
            tuning.small_blob = 1000;
        });
        let pushed = push(&client, &image(fake, "a"), bytes).unwrap();
        assert_eq!(pushed, Pushed::Uploaded);
        assert!(
            fake.blob("a", &Digest::of(bytes).to_string())
                .is_some_and(|found| found == bytes)
        );
        steps(fake)
    };
    let fake = FakeRegistry::start();
    assert_eq!(
        small(&fake, &noise(1000)),
        ["HEAD 404", "POST 202", "PUT 201"]
    );
    assert_eq!(small(&fake, &noise(1001)).len(), 4);
    // A registry that wants pieces, or a connection that is cut.
    fake.fault("PUT", "", Fault::Status(405));
    assert_eq!(small(&fake, &noise(999)).len(), 6);
    fake.fault("PUT", "", Fault::CutRequest(10));
    assert_eq!(small(&fake, &noise(998)).len(), 6);
}

#[test]
fn what_stays_wrong_is_told() {
    let check = |method: &str, fault: Fault, times: usize, word: &str, most: usize| {
        let fake = FakeRegistry::start();
        fake.faults(method, "uploads", &fault, times);
        let error = push(&client(), &image(&fake, "a"), &noise(10_000)).unwrap_err();
        assert!(told(&error).contains(word), "{fault:?}: {}", told(&error));
        let count = lines(&fake).len();
        assert!(count <= most, "{fault:?}: {count}");
    };
    check("PATCH", Fault::Status(413), 99, "status 413", 12);
    check("PATCH", Fault::Early(413), 99, "status 413", 12);
    check("PATCH", Fault::Status(403), 1, "Denied", 3);
    check(
        "PATCH",
        Fault::RetryAfter(429, "7200".into()),
        1,
        "7200 s",
        3,
    );
    check("POST", Fault::Status(403), 1, "Denied", 2);
    check(
        "POST",
        Fault::Says(202, String::new()),
        9,
        "no `Location`",
        2,
    );
    check("PATCH", Fault::DamageRequest, 99, "DIGEST_INVALID", 12);
    check("PATCH", Fault::CutRequest(0), 99, "broke", 12);
    check("PUT", Fault::Status(500), 99, "status 500", 20);
}

#[test]
fn a_registry_that_stops_reading_is_given_up() {
    let fake = FakeRegistry::start();
    fake.faults("PATCH", "", &Fault::Stall, 2);
    for threads in [Threads::None, Threads::Some] {
        let client = client_with(&[], RegistryOptions::default(), threads, |tuning| {
            tuning.commit = Duration::from_millis(50);
            tuning.tries = 1;
        });
        let error = push(&client, &image(&fake, "a"), &noise(1000)).unwrap_err();
        assert!(matches!(error, RegistryError::Timeout { .. }), "{error:?}");
    }
}

#[test]
fn a_token_that_ends_in_the_middle_is_renewed() {
    let fake = FakeRegistry::start_with(Access::Bearer(TokenRules {
        users: vec![("me".into(), "hunter2".into(), true)],
        ..TokenRules::default()
    }));
    let bytes = noise(300_000);
    for method in ["HEAD", "POST", "PATCH", "PUT"] {
        fake.fault(method, "/v2/", Fault::ExpireTokens);
    }
    let client = client_of(&fake, "me", "hunter2");
    assert_eq!(
        push(&client, &image(&fake, "a"), &bytes).unwrap(),
        Pushed::Uploaded
    );
    assert!(fake.blob("a", &Digest::of(&bytes).to_string()) == Some(bytes));
    assert_eq!(fake.faults_left(), 0);
}

#[test]
fn locations_may_be_absolute_or_lead_elsewhere() {
    let bytes = noise(1000);
    let fake = FakeRegistry::start();
    fake.habits(|habits| habits.locations_begin_with = Some(fake.url()));
    push(&client(), &image(&fake, "a"), &bytes).unwrap();
    // Another host gets the bytes and nothing to identify with.
    let registry = FakeRegistry::start_with(Access::Basic {
        user: "me".into(),
        password: "hunter2".into(),
    });
    let storage = FakeRegistry::start();
    registry.fault("POST", "", Fault::Pass);
    let elsewhere = format!("{}/v2/a/blobs/uploads/", storage.url());
    drop(push(&client(), &image(&storage, "a"), &bytes));
    storage.take_log();
    registry.habits(|habits| habits.locations_begin_with = Some(storage.url()));
    let client = client_of(&registry, "me", "hunter2");
    push(&client, &image(&registry, "a"), &bytes).unwrap_err();
    let log = storage.take_log();
    assert!(
        log.iter().any(|entry| entry.method == "PATCH"),
        "{elsewhere}"
    );
    for entry in &log {
        assert_eq!(entry.header("authorization"), None);
    }
}

#[test]
fn the_local_copy_must_be_what_it_is_said_to_be() {
    let fake = FakeRegistry::start();
    let bytes = noise(300_000);
    let check = |source: &(dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync), word: &str| {
        let error = client()
            .push_blob(
                &image(&fake, "a"),
                &descriptor(&bytes),
                &|_| source(),
                &[],
                &|_| {},
            )
            .unwrap_err();
        assert!(told(&error).contains(word), "{}", told(&error));
        assert_eq!(fake.blob("a", &Digest::of(&bytes).to_string()), None);
    };
    check(
        &|| Ok(Box::new(Cursor::new(bytes[1..].to_vec()))),
        "found 299999",
    );
    check(
        &|| Ok(Box::new(Cursor::new(bytes.clone()).chain(&b"!"[..]))),
        "SizeMismatch",
    );
    check(
        &|| Err(io::Error::other("the disk is gone")),
        "the disk is gone",
    );
    struct Breaks;
    impl Read for Breaks {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("bad sector"))
        }
    }
    check(&|| Ok(Box::new(bytes_then(&bytes, Breaks))), "bad sector");
    fn bytes_then(bytes: &[u8], then: Breaks) -> impl Read + Send + use<> {
        Cursor::new(bytes[..200_000].to_vec()).chain(then)
    }
}

#[test]
fn progress_ends_at_the_size() {
    let fake = FakeRegistry::start();
    let bytes = noise(500_000);
    let heard = Mutex::new(Vec::new());
    let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(bytes[offset as usize..].to_vec())))
    };
    let progress = |done| heard.lock().unwrap().push(done);
    client()
        .push_blob(
            &image(&fake, "a"),
            &descriptor(&bytes),
            &open,
            &[],
            &progress,
        )
        .unwrap();
    let heard = heard.into_inner().unwrap();
    assert!(heard.is_sorted());
    assert_eq!(heard.last(), Some(&500_000));
    assert_eq!(heard.len(), 4);
}

#[test]
fn manifests_go_under_a_tag_or_a_digest() {
    let fake = FakeRegistry::start();
    let client = client();
    let bytes = manifest("a");
    let digest = Digest::of(&bytes);
    let tagged = image(&fake, "a:1");
    assert_eq!(
        client.push_manifest(&tagged, MANIFEST, &bytes).unwrap(),
        digest
    );
    assert_eq!(
        fake.manifest("a", "1"),
        Some((MANIFEST.to_owned(), bytes.clone()))
    );
    client
        .push_manifest(&tagged.with_digest(digest), MANIFEST, &bytes)
        .unwrap();
    assert_eq!(
        lines(&fake),
        [
            "PUT /v2/a/manifests/1 201".to_owned(),
            format!("PUT /v2/a/manifests/{digest} 201")
        ]
    );
    fake.fault("PUT", "", Fault::Status(500));
    fake.fault("PUT", "", Fault::LoseAnswer);
    client.push_manifest(&tagged, MANIFEST, &bytes).unwrap();
    fake.take_log();
    let wrong = tagged.with_digest(Digest::of(b"x"));
    assert!(client.push_manifest(&wrong, MANIFEST, &bytes).is_err());
    assert!(client.push_manifest(&tagged, "a\nb", &bytes).is_err());
    assert_eq!(lines(&fake), [""; 0]);
    fake.fault("PUT", "", Fault::DamageRequest);
    let error = client.push_manifest(&tagged, MANIFEST, &bytes).unwrap_err();
    assert!(
        matches!(error, RegistryError::DigestMismatch { .. }),
        "{error:?}"
    );
}

#[test]
fn a_body_that_is_too_large_goes_in_pieces_and_so_does_the_next_one() {
    let fake = FakeRegistry::start();
    fake.habits(|habits| habits.largest_body = Some(30_000));
    let client = client();
    let bytes = noise(100_000);
    push(&client, &image(&fake, "a"), &bytes).unwrap();
    assert!(fake.blob("a", &Digest::of(&bytes).to_string()).as_ref() == Some(&bytes));
    let patches = |fake: &FakeRegistry| {
        let log = fake.take_log();
        let patches = log.iter().filter(|entry| entry.method == "PATCH");
        patches
            .map(|entry| {
                let range = entry.header("content-range").unwrap_or("-").to_owned();
                format!("{} {range}", entry.status)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        patches(&fake),
        [
            "413 -",
            "413 0-49999",
            "202 0-24999",
            "202 25000-49999",
            "202 50000-74999",
            "202 75000-99999"
        ]
    );
    push(&client, &image(&fake, "a"), &noise(60_000)).unwrap();
    assert_eq!(
        patches(&fake),
        ["202 0-24999", "202 25000-49999", "202 50000-59999"]
    );
}

#[test]
fn where_a_cut_costs_all_that_a_request_brought_requests_become_smaller() {
    let fake = FakeRegistry::start();
    fake.habits(|habits| habits.drops_cut_pieces = true);
    let bytes = noise(1_000_000);
    let client = client_with(&[], RegistryOptions::default(), Threads::Some, |tuning| {
        tuning.piece = 50_000;
    });
    fake.fault("PATCH", "", Fault::CutRequest(700_000));
    for _ in 0..10 {
        fake.fault("PATCH", "", Fault::Pass);
    }
    fake.fault("PATCH", "", Fault::CutRequest(40_000));
    push(&client, &image(&fake, "a"), &bytes).unwrap();
    assert!(fake.blob("a", &Digest::of(&bytes).to_string()).as_ref() == Some(&bytes));
    assert_eq!(fake.faults_left(), 0);
    assert_eq!(received(&fake), 1_000_000 + 700_000 + 40_000);
}

#[test]
fn threads_that_want_one_blob_upload_it_once() {
    let fake = FakeRegistry::start();
    let client = client();
    let bytes = noise(200_000);
    let repositories = ["a", "a", "b", "a", "c", "b"];
    let done: Vec<Pushed> = std::thread::scope(|scope| {
        let threads: Vec<_> = repositories
            .iter()
            .map(|name| {
                let (client, bytes, image) = (&client, &bytes, image(&fake, name));
                scope.spawn(move || push(client, &image, bytes).unwrap())
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let count = |what: Pushed| done.iter().filter(|done| **done == what).count();
    assert_eq!(
        (
            count(Pushed::Uploaded),
            count(Pushed::Mounted),
            count(Pushed::Existed)
        ),
        (1, 2, 3)
    );
    assert_eq!(received(&fake), 200_000);
}

#[test]
fn a_thread_whose_turn_ends_in_failure_leaves_it_to_the_next_one() {
    let fake = FakeRegistry::start();
    let client = client();
    let bytes = noise(10_000);
    fake.fault("POST", "", Fault::Status(403));
    let done: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| push(&client, &image(&fake, "a"), &bytes).is_ok()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(done.iter().filter(|done| **done).count(), 1);
    assert!(fake.blob("a", &Digest::of(&bytes).to_string()).is_some());
}

#[test]
fn a_tag_that_cannot_be_moved_and_need_not_be_is_no_failure() {
    for (status, words) in [
        (
            400,
            r#"{"errors":[{"code":"TAG_INVALID","message":"The image tag '1' already exists in the 'a' repository and cannot be overwritten because the tag is immutable."}]}"#,
        ),
        (
            412,
            r#"{"errors":[{"code":"PRECONDITION","message":"Failed to process request due to 'a:1' configured as immutable."}]}"#,
        ),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"tag is immutable"}]}"#,
        ),
        (
            405,
            r#"{"errors":[{"code":"UNSUPPORTED","message":"The operation is disallowed on locked tag"}]}"#,
        ),
        (409, ""),
    ] {
        let fake = FakeRegistry::start();
        let client = client();
        let tagged = image(&fake, "a:1");
        let first = client
            .push_manifest(&tagged, MANIFEST, &manifest("one"))
            .unwrap();
        fake.habits(|habits| habits.immutable_tags = Some((status, words.to_owned())));
        assert_eq!(
            client
                .push_manifest(&tagged, MANIFEST, &manifest("one"))
                .unwrap(),
            first
        );
        let error = client
            .push_manifest(&tagged, MANIFEST, &manifest("two"))
            .unwrap_err();
        assert!(
            matches!(&error, RegistryError::ImmutableTag { stands, .. } if *stands == first),
            "{}",
            told(&error)
        );
        assert!(told(&error).contains("ignore-immutable-tags"));
        // By digest nothing is in the way.
        let two = tagged.with_digest(Digest::of(&manifest("two")));
        client
            .push_manifest(&two, MANIFEST, &manifest("two"))
            .unwrap();
    }
    // A refusal for another reason stays what it is.
    let fake = FakeRegistry::start();
    let tagged = image(&fake, "a:1");
    fake.put_manifest("a", "1", MANIFEST, &manifest("one"));
    fake.fault("PUT", "", Fault::Says(403, "no rights".to_owned()));
    let error = client()
        .push_manifest(&tagged, MANIFEST, &manifest("two"))
        .unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    // And where the tag does not exist, it is not the tag.
    let fake = FakeRegistry::start();
    fake.fault("PUT", "", Fault::Says(400, "already exists".to_owned()));
    let error = client()
        .push_manifest(&image(&fake, "a:1"), MANIFEST, &manifest("two"))
        .unwrap_err();
    assert!(matches!(error, RegistryError::Status { .. }), "{error:?}");
}
