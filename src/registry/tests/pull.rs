//! Manifests, tags and blobs are right or an error, whatever happens on the way.

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use super::super::fake::{FakeRegistry, Fault};
use super::*;

#[test]
fn a_tag_is_resolved_with_one_head() {
    let fake = FakeRegistry::start();
    let bytes = manifest("a");
    let digest = fake.put_manifest("team/app", "1", MANIFEST, &bytes);
    for threads in [Threads::None, Threads::Some] {
        let client = client_with(&[], RegistryOptions::default(), threads, |_| {});
        let resolved = client.resolve(&image(&fake, "team/app:1")).unwrap();
        assert_eq!(resolved.descriptor.digest.to_string(), digest);
        assert_eq!(resolved.descriptor.size, bytes.len() as u64);
        assert_eq!(resolved.descriptor.media_type, MANIFEST);
        assert_eq!(lines(&fake), ["HEAD /v2/team/app/manifests/1 200"]);
    }
}

#[test]
fn a_tag_stands_for_one_image_in_one_process() {
    let fake = FakeRegistry::start();
    let first = fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let client = client();
    let tagged = image(&fake, "a:1");
    let digest = |client: &Client| {
        let resolved = client.resolve_once(&tagged).unwrap();
        resolved.descriptor.digest.to_string()
    };
    assert_eq!(digest(&client), first);
    let second = fake.put_manifest("a", "1", MANIFEST, &manifest("b"));
    assert_eq!(digest(&client.clone()), first);
    assert_eq!(lines(&fake).len(), 1);
    assert_eq!(digest(&super::client()), second);
    // What this client writes itself it knows of.
    client
        .push_manifest(&tagged, MANIFEST, &manifest("c"))
        .unwrap();
    assert_eq!(digest(&client), Digest::of(&manifest("c")).to_string());
    // A failure is not remembered.
    fake.fault("", "", Fault::Status(403));
    fake.fault("", "", Fault::Status(403));
    assert!(super::client().resolve_once(&image(&fake, "b:1")).is_err());
}

#[test]
fn where_head_does_not_say_enough_get_is_asked() {
    let check = |prepare: fn(&FakeRegistry)| {
        let fake = FakeRegistry::start();
        let digest = fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
        prepare(&fake);
        let resolved = client().resolve(&image(&fake, "a:1")).unwrap();
        assert_eq!(resolved.descriptor.digest.to_string(), digest);
        assert_eq!(resolved.descriptor.media_type, MANIFEST);
        let lines = lines(&fake);
        assert_eq!(lines.last().unwrap(), "GET /v2/a/manifests/1 200");
    };
    check(|fake| fake.fault("HEAD", "", Fault::Status(405)));
    check(|fake| fake.fault("HEAD", "", Fault::Status(400)));
    check(|fake| fake.fault("HEAD", "", Fault::Status(403)));
    check(|fake| fake.faults("HEAD", "", &Fault::Status(500), 5));
    check(|fake| fake.habits(|habits| habits.hides_digests = true));
    check(|fake| fake.habits(|habits| habits.content_type = Some("application/json".into())));
}

#[test]
fn what_is_missing_is_said_with_the_registrys_words() {
    let fake = FakeRegistry::start();
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let error = client().manifest(&image(&fake, "a:2")).unwrap_err();
    assert!(error.is_not_found());
    assert!(told(&error).contains("MANIFEST_UNKNOWN"), "{error}");
    assert!(error.hint().unwrap().contains("tag"));
    let error = client().manifest(&image(&fake, "b:2")).unwrap_err();
    assert!(error.hint().unwrap().contains("no such repository"));
    let error = client().resolve(&image(&fake, "b:2")).unwrap_err();
    assert!(error.is_not_found());
    let absent = image(&fake, "a").with_digest(Digest::of(b"absent"));
    let error = client().resolve(&absent).unwrap_err();
    assert!(error.hint().unwrap().contains("digest"));
    assert!(client().blob(&absent, &descriptor(b"absent")).is_err());
    assert_eq!(
        client().has_blob(&absent, &Digest::of(b"absent")).ok(),
        Some(false)
    );
}

#[test]
fn manifests_are_right_or_refused() {
    let fake = FakeRegistry::start();
    let bytes = manifest("a");
    let digest: Digest = fake
        .put_manifest("a", "1", MANIFEST, &bytes)
        .parse()
        .unwrap();
    let by_tag = image(&fake, "a:1");
    let by_digest = by_tag.with_digest(digest);
    for image in [&by_tag, &by_digest] {
        let fetched = client().manifest(image).unwrap();
        assert_eq!(fetched.bytes, bytes);
        assert_eq!(
            fetched.descriptor,
            Descriptor {
                media_type: MANIFEST.into(),
                ..descriptor(&bytes)
            }
        );
    }
    // A fault that passes is not seen.
    for fault in [
        Fault::DamageBody,
        Fault::CutBody(10),
        Fault::TruncateBody(10),
        Fault::Reset,
        Fault::Status(503),
        Fault::Status(429),
        Fault::Drip(7),
    ] {
        fake.fault("GET", "", fault);
        assert_eq!(client().manifest(&by_digest).unwrap().bytes, bytes);
        assert_eq!(fake.faults_left(), 0);
    }
    // One that stays is named.
    fake.faults("GET", "", &Fault::DamageBody, 5);
    let error = client().manifest(&by_digest).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { expected, .. } if expected == digest));
    // The registry serves other bytes under a digest.
    let lie = image(&fake, "a").with_digest(Digest::of(b"other"));
    fake.put_manifest("a", &Digest::of(b"other").to_string(), MANIFEST, &bytes);
    let error = client().manifest(&lie).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }));
    let error = client().resolve(&lie).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }));
}

#[test]
fn a_manifest_of_any_size_does_not_fill_the_memory() {
    let fake = FakeRegistry::start();
    let huge = vec![b' '; 9 * 1024 * 1024];
    fake.put_manifest("a", "1", MANIFEST, &huge);
    for hides_lengths in [false, true] {
        fake.habits(|habits| habits.hides_lengths = hides_lengths);
        let error = client().manifest(&image(&fake, "a:1")).unwrap_err();
        assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn what_may_pass_is_tried_again_and_what_stays_is_not() {
    let check = |fault: Fault, times: usize, requests: usize, word: Option<&str>| {
        let fake = FakeRegistry::start();
        fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
        fake.faults("GET", "", &fault, times);
        let result = client().manifest(&image(&fake, "a:1"));
        let told = result.as_ref().err().map(told);
        match word {
            None => assert_eq!(told, None, "{fault:?}"),
            Some(word) => assert!(told.clone().unwrap().contains(word), "{fault:?}: {told:?}"),
        }
        assert_eq!(lines(&fake).len(), requests, "{fault:?}");
    };
    check(Fault::Status(503), 4, 5, None);
    check(Fault::Status(503), 9, 5, Some("status 503"));
    check(Fault::Status(408), 1, 2, None);
    check(Fault::Status(429), 1, 2, None);
    check(Fault::RetryAfter(429, "0".into()), 2, 3, None);
    check(Fault::RetryAfter(503, "0".into()), 1, 2, None);
    check(
        Fault::RetryAfter(429, "3600".into()),
        1,
        1,
        Some("try again in 3600 s"),
    );
    check(Fault::Status(429), 9, 5, Some("TooManyRequests"));
    check(Fault::Status(501), 9, 1, Some("status 501"));
    check(Fault::Status(400), 9, 1, Some("FAULT"));
    check(Fault::Status(403), 9, 1, Some("Denied"));
    check(Fault::Status(418), 9, 1, Some("status 418"));
}

#[test]
fn a_dead_host_is_an_error_in_the_end() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let image: ImageRef = format!("127.0.0.1:{port}/a").parse().unwrap();
    let error = client().resolve(&image).unwrap_err();
    assert!(matches!(error, RegistryError::Connect { .. }), "{error:?}");
    assert!(told(&error).contains("refused"), "{}", told(&error));
}

#[test]
fn a_host_that_is_silent_is_given_up() {
    let fake = FakeRegistry::start();
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let bytes = noise(1000);
    fake.put_blob("a", &bytes);
    let client = client_with(&[], RegistryOptions::default(), Threads::Some, |tuning| {
        tuning.idle = Duration::from_millis(150);
        tuning.tries = 2;
    });
    let image = image(&fake, "a:1");
    client.resolve(&image).unwrap();
    fake.faults("GET", "manifests", &Fault::Stall, 2);
    let error = client.manifest(&image).unwrap_err();
    assert!(matches!(error, RegistryError::Timeout { .. }), "{error:?}");
    // In the middle of a body, once: it goes on where it stopped.
    fake.fault("GET", "blobs", Fault::StallBody(600));
    assert_eq!(pull(&client, &image, &descriptor(&bytes)), Ok(bytes));
}

#[test]
fn blobs_of_every_size_arrive() {
    let fake = FakeRegistry::start();
    for threads in [Threads::None, Threads::Some] {
        let client = client_with(&[], RegistryOptions::default(), threads, |_| {});
        for size in [0, 1, 8191, 3_000_000] {
            let bytes = noise(size);
            fake.put_blob("a", &bytes);
            let pulled = pull(&client, &image(&fake, "a"), &descriptor(&bytes));
            assert!(pulled == Ok(bytes), "{size}");
        }
    }
}

#[test]
fn a_cut_blob_goes_on_at_the_byte_that_it_had_reached() {
    let bytes = noise(500_000);
    let wanted = descriptor(&bytes);
    for threads in [Threads::None, Threads::Some] {
        for fault in [
            Fault::CutBody(200_000),
            Fault::TruncateBody(200_000),
            Fault::CutBody(0),
            Fault::Reset,
            Fault::Status(500),
        ] {
            let fake = FakeRegistry::start();
            fake.put_blob("a", &bytes);
            let client = client_with(&[], RegistryOptions::default(), threads, |_| {});
            fake.fault("GET", "", fault.clone());
            let pulled = pull(&client, &image(&fake, "a"), &wanted);
            assert!(
                pulled.as_ref() == Ok(&bytes),
                "{fault:?}: {:?}",
                pulled.err()
            );
            let log = fake.take_log();
            let last = log.last().unwrap();
            if matches!(fault, Fault::TruncateBody(_)) {
                assert_eq!(last.status, 206);
                assert_eq!(last.header("range"), Some("bytes=200000-"));
            }
            let sent: u64 = log
                .iter()
                .filter(|entry| entry.status / 100 == 2)
                .map(|entry| entry.sent)
                .sum();
            // A reset throws away what the kernel still holds.
            assert!(sent <= 700_000, "{fault:?}: {sent}");
        }
    }
}

#[test]
fn many_cuts_with_progress_are_survived_and_endless_ones_without_are_not() {
    let fake = FakeRegistry::start();
    let bytes = noise(1000);
    fake.put_blob("a", &bytes);
    fake.faults("GET", "", &Fault::TruncateBody(50), 19);
    let pulled = pull(&client(), &image(&fake, "a"), &descriptor(&bytes));
    assert_eq!(pulled, Ok(bytes.clone()));
    fake.take_log();
    fake.faults("GET", "", &Fault::TruncateBody(0), 9);
    let error = pull(&client(), &image(&fake, "a"), &descriptor(&bytes)).unwrap_err();
    assert!(error.contains("broke"), "{error}");
    assert_eq!(lines(&fake).len(), 5);
}

#[test]
fn a_registry_without_ranges_is_read_again() {
    let fake = FakeRegistry::start();
    let bytes = noise(100_000);
    fake.put_blob("a", &bytes);
    fake.habits(|habits| habits.ignores_ranges = true);
    fake.fault("GET", "", Fault::TruncateBody(60_000));
    let pulled = pull(&client(), &image(&fake, "a"), &descriptor(&bytes));
    assert!(pulled == Ok(bytes));
    let statuses: Vec<u16> = fake.take_log().iter().map(|entry| entry.status).collect();
    assert_eq!(statuses, [400, 200, 200]);
}

#[test]
fn no_wrong_byte_is_ever_accepted() {
    let bytes = noise(100_000);
    let wanted = descriptor(&bytes);
    let check = |prepare: &dyn Fn(&FakeRegistry), word: &str| {
        let fake = FakeRegistry::start();
        fake.put_blob("a", &bytes);
        prepare(&fake);
        let error = pull(&client(), &image(&fake, "a"), &wanted).unwrap_err();
        assert!(error.contains(word), "{error}");
    };
    check(
        &|fake| fake.fault("GET", "", Fault::DamageBody),
        "DigestMismatch",
    );
    check(
        &|fake| fake.faults("GET", "", &Fault::ShortenBody(10), 9),
        "SizeMismatch",
    );
    check(
        &|fake| fake.fault("GET", "", Fault::LengthenBody(10)),
        "SizeMismatch",
    );
    let hide = |fake: &FakeRegistry| fake.habits(|habits| habits.hides_lengths = true);
    check(
        &|fake| {
            hide(fake);
            fake.fault("GET", "", Fault::LengthenBody(10));
        },
        "SizeMismatch",
    );
    check(
        &|fake| {
            hide(fake);
            fake.put_blob_as("a", &wanted.digest.to_string(), &bytes[..99_999]);
        },
        "SizeMismatch",
    );
    check(
        &|fake| fake.put_blob_as("a", &wanted.digest.to_string(), &noise(100_008)[8..]),
        "DigestMismatch",
    );
    // A body that ends with its connection may be cut without a sign.
    let fake = FakeRegistry::start();
    fake.put_blob("a", &bytes);
    hide(&fake);
    fake.fault("GET", "", Fault::TruncateBody(10));
    assert!(pull(&client(), &image(&fake, "a"), &wanted) == Ok(bytes.clone()));
}

#[test]
fn redirects_do_not_carry_secrets_to_another_host() {
    let registry = FakeRegistry::start_with(super::super::fake::Access::Basic {
        user: "me".into(),
        password: "hunter2".into(),
    });
    let storage = FakeRegistry::start();
    let bytes = noise(50_000);
    registry.put_blob("a", &bytes);
    storage.put_blob("a", &bytes);
    registry.habits(|habits| habits.redirects_blobs_to = Some(storage.url()));
    let client = client_of(&registry, "me", "hunter2");
    let image = image(&registry, "a");
    // Cut on the way, so that the second request goes through the redirect again.
    storage.fault("GET", "", Fault::TruncateBody(20_000));
    assert!(pull(&client, &image, &descriptor(&bytes)) == Ok(bytes.clone()));
    let log = storage.take_log();
    assert_eq!(log.len(), 2);
    for entry in &log {
        assert_eq!(entry.header("authorization"), None);
    }
    // A permission that ended is asked for again.
    storage.fault("GET", "", Fault::Status(403));
    assert!(pull(&client, &image, &descriptor(&bytes)) == Ok(bytes.clone()));
    // Errors do not show the signature.
    storage.faults("GET", "", &Fault::Status(403), 9);
    let error = pull(&client, &image, &descriptor(&bytes)).unwrap_err();
    assert!(
        error.contains("403") && !error.contains("s3cr3t"),
        "{error}"
    );
    storage.faults("GET", "", &Fault::Reset, 9);
    let error = pull(&client, &image, &descriptor(&bytes)).unwrap_err();
    assert!(!error.contains("s3cr3t"), "{error}");
}

#[test]
fn redirects_within_the_host_keep_the_authorization_and_loops_end() {
    let fake = FakeRegistry::start_with(super::super::fake::Access::Basic {
        user: "me".into(),
        password: "hunter2".into(),
    });
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let client = client_of(&fake, "me", "hunter2");
    client.resolve(&image(&fake, "a:1")).unwrap();
    for status in [301, 302, 303, 307, 308] {
        fake.fault(
            "GET",
            "/v2/a/manifests/2",
            Fault::Redirect(status, "/v2/a/manifests/1".into()),
        );
        assert!(client.manifest(&image(&fake, "a:2")).is_ok(), "{status}");
    }
    let itself = Fault::Redirect(302, "/v2/a/manifests/3".into());
    fake.faults("GET", "/v2/a/manifests/3", &itself, 99);
    let error = client.manifest(&image(&fake, "a:3")).unwrap_err();
    assert!(told(&error).contains("redirects"), "{error}");
    fake.fault(
        "GET",
        "/v2/a/manifests/4",
        Fault::Redirect(302, "ftp://x/".into()),
    );
    let error = client.manifest(&image(&fake, "a:4")).unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error:?}");
}

#[test]
fn readers_may_be_dropped_and_interleaved() {
    let fake = FakeRegistry::start();
    let (a, b) = (noise(2_000_000), noise(2_500_000));
    for bytes in [&a, &b] {
        fake.put_blob("a", bytes);
    }
    let image = image(&fake, "a");
    for threads in [Threads::None, Threads::Some] {
        let client = client_with(&[], RegistryOptions::default(), threads, |_| {});
        let mut unread = client.blob(&image, &descriptor(&a)).unwrap();
        unread.read_exact(&mut [0; 10]).unwrap();
        let mut first = client.blob(&image, &descriptor(&a)).unwrap();
        let mut second = client.blob(&image, &descriptor(&b)).unwrap();
        drop(unread);
        let mut bytes = vec![0; 1_500_000];
        second.read_exact(&mut bytes).unwrap();
        assert!(client.has_blob(&image, &Digest::of(&a)).unwrap());
        let mut all = Vec::new();
        first.read_to_end(&mut all).unwrap();
        assert!(all == a);
        // Readers outlive the client.
        drop(client);
        second.read_to_end(&mut bytes).unwrap();
        assert!(bytes == b);
    }
}

#[test]
fn tags_come_in_pages() {
    let fake = FakeRegistry::start();
    for tag in ["1", "2", "3", "4", "5"] {
        fake.put_manifest("a", tag, MANIFEST, &manifest(tag));
    }
    fake.habits(|habits| habits.tags_per_page = Some(2));
    let tags = client().tags(&image(&fake, "a")).unwrap();
    assert_eq!(tags, ["1", "2", "3", "4", "5"]);
    assert_eq!(lines(&fake).len(), 3);
    assert_eq!(client().tags(&image(&fake, "none")).unwrap(), [""; 0]);
    fake.fault("GET", "tags", Fault::Says(200, "{\"tags\": 3}".into()));
    assert!(client().tags(&image(&fake, "a")).is_err());
}
