//! The cache service of GitHub Actions and its storage, with faults.

use std::time::Duration;

use super::super::fake_objects::{FakeObjects, TOKEN, Trouble};
use super::super::objects::ActionsCache;
use super::*;
use crate::vocab::{ActionsPlace, Secret};

fn place(fake: &FakeObjects) -> ActionsPlace {
    ActionsPlace {
        service: fake.url(),
        token: Secret::new(TOKEN.to_owned()),
        timeout: Duration::from_secs(600),
    }
}

fn cache(fake: &FakeObjects) -> ActionsCache {
    client().actions_cache(&place(fake)).unwrap()
}

fn give(cache: &ActionsCache, bytes: &[u8]) -> Result<(), String> {
    let put = cache.put_blob(&descriptor(bytes), &open_of(bytes));
    put.map_err(|error| clean_told(&error))
}

fn take(cache: &ActionsCache, wanted: &Descriptor) -> Result<Vec<u8>, String> {
    let reader = cache.blob(wanted).map_err(|error| clean_told(&error))?;
    let mut reader = reader.ok_or("nothing")?;
    drain(&mut reader).map_err(clean)
}

#[test]
fn of_several_documents_the_newest_is_found() {
    let fake = FakeObjects::start();
    let cache = cache(&fake);
    assert_eq!(cache.document("s-step-1", 100).unwrap(), None);
    for text in ["one", "two", "three"] {
        cache
            .put_document("s-step-1", text.as_bytes().to_vec())
            .unwrap();
        let found = cache.document("s-step-1", 100).unwrap().unwrap();
        assert_eq!(found, text.as_bytes());
    }
    assert_eq!(fake.entries().len(), 3);
    // Another name that begins alike, and the same one of another program.
    cache.put_document("s-step-12", b"other".to_vec()).unwrap();
    fake.change_entries(|entries| {
        let mut foreign = entries[0].clone();
        foreign.version = "0".repeat(64);
        foreign.key = "s-step-1.zzz".to_owned();
        foreign.bytes = Some(b"foreign".to_vec());
        entries.push(foreign);
    });
    assert_eq!(cache.document("s-step-1", 100).unwrap().unwrap(), b"three");
    let error = cache.document("s-step-1", 4).unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
}

#[test]
fn blobs_come_back_and_are_sent_once() {
    let fake = FakeObjects::start();
    let first = cache(&fake);
    // The last one is of four blocks, as pieces are in tests.
    for length in [0, 1, 100_000, 100_001, 350_000] {
        let bytes = noise(length);
        assert!(!first.has(&descriptor(&bytes)).unwrap());
        give(&first, &bytes).unwrap();
        assert_eq!(take(&first, &descriptor(&bytes)).unwrap(), bytes);
        assert!(first.has(&descriptor(&bytes)).unwrap());
    }
    fake.take_lines();
    let second = cache(&fake);
    give(&second, &noise(350_000)).unwrap();
    give(&second, &noise(350_000)).unwrap();
    let lines = fake.take_lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("GetCacheEntryDownloadURL"), "{lines:?}");
    // One client has one for one place.
    let client = client();
    for _ in 0..2 {
        give(
            &client.actions_cache(&place(&fake)).unwrap(),
            &noise(350_000),
        )
        .unwrap();
    }
    assert_eq!(fake.take_lines().len(), 1);
    assert_eq!(take(&second, &descriptor(b"never")).unwrap_err(), "nothing");
}

#[test]
fn a_name_that_a_killed_job_has_taken_is_no_obstacle() {
    let fake = FakeObjects::start();
    let bytes = noise(1000);
    give(&cache(&fake), &bytes).unwrap();
    fake.change_entries(|entries| {
        entries[0].is_final = false;
        entries[0].bytes = None;
    });
    give(&cache(&fake), &bytes).unwrap();
    assert_eq!(fake.entries().len(), 2);
    assert_eq!(take(&cache(&fake), &descriptor(&bytes)).unwrap(), bytes);
}

#[test]
fn what_may_pass_is_tried_again() {
    let storage = "/storage/";
    for trouble in [
        Trouble::Status(503),
        Trouble::Says(500, r#"{"code":"internal","msg":"x"}"#.to_owned()),
        Trouble::RetryAfter(429, "0".to_owned()),
        Trouble::Reset,
        Trouble::LoseAnswer,
    ] {
        for (method, part) in [
            ("POST", "CreateCacheEntry"),
            ("POST", "FinalizeCacheEntryUpload"),
            ("POST", "GetCacheEntryDownloadURL"),
            ("PUT", storage),
            ("PUT", "comp=block&"),
            ("PUT", "comp=blocklist"),
            ("GET", storage),
        ] {
            let fake = FakeObjects::start();
            fake.troubles(method, part, &trouble, 2);
            let cache = cache(&fake);
            let bytes = noise(250_000);
            give(&cache, &bytes).unwrap();
            assert_eq!(take(&cache, &descriptor(&bytes)).unwrap(), bytes);
            cache.put_document("d", b"d".to_vec()).unwrap();
            assert_eq!(cache.document("d", 10).unwrap().unwrap(), b"d");
            assert_eq!(fake.troubles_left(), 0, "{method} {part} {trouble:?}");
        }
    }
}

#[test]
fn who_wants_to_be_left_alone_for_long_is() {
    let fake = FakeObjects::start();
    fake.trouble("POST", "", Trouble::RetryAfter(429, "1000".to_owned()));
    let error = cache(&fake).document("d", 10).unwrap_err();
    assert!(clean_told(&error).contains("status 429"), "{error:?}");
    assert_eq!(fake.take_lines().len(), 1);
}

#[test]
fn reading_goes_on_where_it_was_cut_and_with_another_url_where_one_has_ended() {
    let fake = FakeObjects::start();
    let cache = cache(&fake);
    let bytes = noise(500_000);
    give(&cache, &bytes).unwrap();
    fake.take_lines();
    fake.trouble("GET", "/storage/", Trouble::CutBody(100_000));
    fake.trouble("GET", "/storage/", Trouble::Status(403));
    fake.trouble("GET", "/storage/", Trouble::CutBody(200_000));
    assert_eq!(take(&cache, &descriptor(&bytes)).unwrap(), bytes);
    let lines = fake.take_lines();
    assert_eq!(count_of(&lines, "GetCacheEntryDownloadURL"), 2, "{lines:?}");
    assert_eq!(
        (count_of(&lines, " 403"), count_of(&lines, " 206")),
        (1, 2),
        "{lines:?}"
    );
    fake.trouble("GET", "/storage/", Trouble::CutBody(100_000));
    fake.trouble("GET", "/storage/", Trouble::IgnoreRange);
    assert_eq!(take(&cache, &descriptor(&bytes)).unwrap(), bytes);
    cache.put_document("d", noise(1000)).unwrap();
    fake.trouble("GET", "/storage/", Trouble::Status(403));
    fake.trouble("GET", "/storage/", Trouble::CutBody(10));
    assert_eq!(cache.document("d", 1000).unwrap().unwrap(), noise(1000));
}

#[test]
fn wrong_bytes_are_never_taken() {
    let fake = FakeObjects::start();
    let cache = cache(&fake);
    let bytes = noise(500_000);
    let wanted = descriptor(&bytes);
    give(&cache, &bytes).unwrap();
    fake.trouble("GET", "/storage/", Trouble::DamageBody);
    let error = take(&cache, &wanted).unwrap_err();
    assert!(error.contains("another digest"), "{error}");
    fake.change_entries(|entries| entries[0].bytes = Some(bytes[..400_000].to_vec()));
    assert!(take(&cache, &wanted).is_err());
    fake.change_entries(|entries| entries[0].bytes = Some([&bytes[..], b"x"].concat()));
    let error = take(&cache, &wanted).unwrap_err();
    assert!(error.contains("another size"), "{error}");
}

#[test]
fn refusals_say_what_helps_and_nothing_secret() {
    let fake = FakeObjects::start();
    fake.manners(|manners| manners.read_only = true);
    let read_only = cache(&fake);
    assert_eq!(read_only.document("d", 10).unwrap(), None);
    for error in [
        give(&read_only, b"x").unwrap_err(),
        clean_told(&read_only.put_document("d", vec![1]).unwrap_err()),
    ] {
        assert!(error.contains("no writable scopes"), "{error}");
        assert!(error.contains("ignore-error=true"), "{error}");
    }
    let stranger = ActionsPlace {
        token: Secret::new("hunter2-wrong".to_owned()),
        ..place(&fake)
    };
    let stranger = client().actions_cache(&stranger).unwrap();
    let error = clean_told(&stranger.document("d", 10).unwrap_err());
    assert!(
        error.contains("status 401") && error.contains("***"),
        "{error}"
    );
    assert!(error.contains("ACTIONS_RUNTIME_TOKEN"), "{error}");
    fake.trouble("POST", "", Trouble::Status(404));
    let error = clean_told(&cache(&fake).document("d", 10).unwrap_err());
    assert!(error.contains("ACTIONS_RESULTS_URL"), "{error}");
    fake.manners(|manners| manners.read_only = false);
    // What the storage says of a signature is not repeated.
    let body = "<Error><Code>AuthenticationFailed</Code><Message>sig=hunter2</Message></Error>";
    fake.trouble("PUT", "/storage/", Trouble::Says(403, body.to_owned()));
    let error = give(&cache(&fake), b"y").unwrap_err();
    assert!(error.contains("AuthenticationFailed"), "{error}");
}

#[test]
fn answers_that_make_no_sense_are_told_of() {
    let fake = FakeObjects::start();
    let check = |body: &str, expected: &str| {
        fake.trouble("POST", "Download", Trouble::Succeeds(body.to_owned()));
        let error = clean_told(&cache(&fake).document("d", 10).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    check("hunter2", "not the JSON that was wanted");
    check(
        r#"{"ok":true,"signed_download_url":"file:///hunter2","matched_key":"d.1"}"#,
        "no storage that can be reached",
    );
    check(
        r#"{"ok":true,"signed_download_url":"http://x/hunter2","matched_key":"other"}"#,
        "another entry than was asked for",
    );
    // As some services write the names.
    let url = format!("{}/storage/0?sig=hunter2%2Fsignature%3D", fake.url());
    cache(&fake).put_document("d", b"x".to_vec()).unwrap();
    let body = format!(r#"{{"ok":true,"signedDownloadUrl":"{url}","matchedKey":"d.1"}}"#);
    fake.trouble("POST", "Download", Trouble::Succeeds(body));
    assert_eq!(cache(&fake).document("d", 10).unwrap().unwrap(), b"x");
}

#[test]
fn neither_token_nor_signature_go_where_they_are_not_for() {
    let (fake, other) = (FakeObjects::start(), FakeObjects::start());
    fake.trouble(
        "POST",
        "",
        Trouble::Header(307, "location".to_owned(), other.url()),
    );
    let error = clean_told(&cache(&fake).document("d", 10).unwrap_err());
    assert!(error.contains("status 307"), "{error}");
    assert_eq!(other.take_lines(), [""; 0]);
    // The fake itself sees to it that its storage is sent no token.
    let error = client().actions_cache(&ActionsPlace {
        token: Secret::new("hunter2\nX-Y: z".to_owned()),
        ..place(&fake)
    });
    clean_told(&error.unwrap_err());
}

#[test]
fn what_takes_longer_than_the_user_allows_is_ended() {
    let fake = FakeObjects::start();
    let hasty = ActionsPlace {
        timeout: Duration::from_millis(50),
        ..place(&fake)
    };
    let hasty = client().actions_cache(&hasty).unwrap();
    fake.troubles("", "", &Trouble::Stall, 3);
    for error in [
        clean_told(&hasty.document("d", 10).unwrap_err()),
        clean_told(&hasty.put_document("d", vec![1]).unwrap_err()),
        take(&hasty, &descriptor(b"x")).unwrap_err(),
    ] {
        assert!(error.contains("for more than 50ms"), "{error}");
    }
}
