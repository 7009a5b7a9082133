//! Buckets against a store that checks every signature.

use std::time::Duration;

use super::super::fake_objects::{BUCKET, FakeObjects, KEY, REGION, SECRET, Trouble};
use super::super::objects::Bucket;
use super::*;
use crate::vocab::{BucketKeys, BucketPlace, Secret};

const HOUR: Duration = Duration::from_secs(3600);

fn place(fake: &FakeObjects) -> BucketPlace {
    BucketPlace {
        bucket: BUCKET.to_owned(),
        region: Some(REGION.to_owned()),
        endpoint: Some(fake.url()),
        path_style: None,
        keys: Some(keys(KEY, SECRET, None)),
        prefix: String::new(),
        blobs: String::new(),
        documents: String::new(),
        layers_at_once: 1,
    }
}

fn keys(id: &str, secret: &str, session: Option<&str>) -> BucketKeys {
    BucketKeys {
        id: id.to_owned(),
        secret: Secret::new(secret.to_owned()),
        session: session.map(|session| Secret::new(session.to_owned())),
    }
}

fn bucket(fake: &FakeObjects) -> Bucket {
    client().bucket(&place(fake)).unwrap()
}

fn give(bucket: &Bucket, name: &str, bytes: &[u8]) -> Result<(), String> {
    let put = bucket.put_blob(name, &descriptor(bytes), &open_of(bytes), HOUR);
    put.map_err(|error| clean_told(&error))
}

fn take(bucket: &Bucket, name: &str, wanted: &Descriptor) -> Result<Vec<u8>, String> {
    let reader = bucket
        .blob(name, wanted)
        .map_err(|error| clean_told(&error))?;
    let mut reader = reader.ok_or("nothing")?;
    drain(&mut reader).map_err(clean)
}

#[test]
fn documents_and_blobs_come_back() {
    let fake = FakeObjects::start();
    let bucket = bucket(&fake);
    assert_eq!(bucket.get("manifests/a", 100).unwrap(), None);
    bucket.put("manifests/a", b"one".to_vec()).unwrap();
    bucket.put("manifests/a", b"other".to_vec()).unwrap();
    assert_eq!(bucket.get("manifests/a", 100).unwrap().unwrap(), b"other");
    let error = bucket.get("manifests/a", 4).unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
    // The last one is of four pieces, as pieces are in tests.
    for length in [0, 1, 99_999, 100_000, 100_001, 350_000] {
        let bytes = noise(length);
        let name = format!("p+x/blobs/{}", descriptor(&bytes).digest);
        assert!(!bucket.has(&name, length as u64).unwrap());
        give(&bucket, &name, &bytes).unwrap();
        assert_eq!(take(&bucket, &name, &descriptor(&bytes)).unwrap(), bytes);
        assert_eq!(fake.objects()[&name], bytes);
        assert!(bucket.has(&name, length as u64).unwrap());
    }
    assert_eq!(fake.open_uploads(), 0);
    let nothing = take(&bucket, "blobs/x", &descriptor(b"x")).unwrap_err();
    assert_eq!(nothing, "nothing");
}

#[test]
fn what_is_there_is_not_sent_again_and_asked_for_once() {
    let fake = FakeObjects::start();
    let bytes = noise(1000);
    give(&bucket(&fake), "b", &bytes).unwrap();
    fake.take_lines();
    let second = bucket(&fake);
    give(&second, "b", &bytes).unwrap();
    give(&second, "b", &bytes).unwrap();
    assert_eq!(fake.take_lines(), ["HEAD /shared-cache/b 200"]);
    // What may be about to go because it is old is sent again.
    fake.manners(|manners| manners.age = HOUR);
    give(&bucket(&fake), "b", &bytes).unwrap();
    assert_eq!(count_of(&fake.take_lines(), "PUT"), 1);
    // What is torn is another size.
    fake.put_object("b", &bytes[..10]);
    give(&bucket(&fake), "b", &bytes).unwrap();
    assert_eq!(fake.objects()["b"], bytes);
}

#[test]
fn one_client_has_one_bucket_for_one_place() {
    let fake = FakeObjects::start();
    let client = client();
    let bytes = noise(1000);
    give(&client.bucket(&place(&fake)).unwrap(), "b", &bytes).unwrap();
    fake.take_lines();
    give(&client.bucket(&place(&fake)).unwrap(), "b", &bytes).unwrap();
    assert_eq!(fake.take_lines(), [""; 0]);
}

#[test]
fn what_may_pass_is_tried_again() {
    let slow = Trouble::Says(
        503,
        "<Error><Code>SlowDown</Code><Message>slow</Message></Error>".to_owned(),
    );
    let tired = Trouble::Says(
        400,
        "<Error><Code>RequestTimeout</Code><Message>idle</Message></Error>".to_owned(),
    );
    for trouble in [
        slow,
        tired,
        Trouble::Status(500),
        Trouble::RetryAfter(429, "0".to_owned()),
        Trouble::Reset,
        Trouble::LoseAnswer,
    ] {
        for (method, part) in [
            ("HEAD", "/b"),
            ("POST", "uploads"),
            ("PUT", "partNumber=2"),
            ("POST", "uploadId"),
            ("GET", "/b"),
            ("PUT", "/d"),
            ("GET", "/d"),
        ] {
            // An answer to HEAD has no words.
            if method == "HEAD" && matches!(trouble, Trouble::Says(400, _)) {
                continue;
            }
            let fake = FakeObjects::start();
            fake.troubles(method, part, &trouble, 2);
            let bucket = bucket(&fake);
            let bytes = noise(250_000);
            give(&bucket, "b", &bytes).unwrap();
            assert_eq!(take(&bucket, "b", &descriptor(&bytes)).unwrap(), bytes);
            bucket.put("d", b"d".to_vec()).unwrap();
            assert_eq!(bucket.get("d", 10).unwrap().unwrap(), b"d");
            assert_eq!(fake.troubles_left(), 0, "{method} {part} {trouble:?}");
        }
    }
}

#[test]
fn what_does_not_pass_ends_after_a_few_attempts() {
    let fake = FakeObjects::start();
    fake.troubles("GET", "/d", &Trouble::Status(503), 5);
    let error = bucket(&fake).get("d", 10).unwrap_err();
    assert!(clean_told(&error).contains("status 503"), "{error}");
    assert_eq!(fake.take_lines().len(), 5);
    // Who wants to be left alone for long is.
    fake.trouble("GET", "/d", Trouble::RetryAfter(503, "1000".to_owned()));
    bucket(&fake).get("d", 10).unwrap_err();
    assert_eq!(fake.take_lines().len(), 1);
}

#[test]
fn a_success_that_turns_out_to_be_none_is_tried_again() {
    let fake = FakeObjects::start();
    let body = "<Error><Code>InternalError</Code></Error>".to_owned();
    fake.trouble("POST", "uploadId", Trouble::Succeeds(body));
    let bytes = noise(250_000);
    let bucket = bucket(&fake);
    give(&bucket, "b", &bytes).unwrap();
    assert_eq!(fake.objects()["b"], bytes);
}

#[test]
fn an_upload_that_fails_leaves_nothing_behind() {
    for (method, part) in [("PUT", "partNumber=2"), ("POST", "uploadId")] {
        let fake = FakeObjects::start();
        fake.trouble(method, part, Trouble::Status(400));
        let error = give(&bucket(&fake), "b", &noise(250_000)).unwrap_err();
        assert!(error.contains("status 400"), "{error}");
        assert_eq!((fake.open_uploads(), fake.objects().len()), (0, 0));
    }
    let fake = FakeObjects::start();
    let bytes = noise(250_000);
    let cut = open_of(&bytes[..240_000]);
    let error = bucket(&fake).put_blob("b", &descriptor(&bytes), &cut, HOUR);
    let error = clean_told(&error.unwrap_err());
    assert!(error.contains("has another size"), "{error}");
    assert_eq!((fake.open_uploads(), fake.objects().len()), (0, 0));
}

#[test]
fn reading_goes_on_where_it_was_cut() {
    let fake = FakeObjects::start();
    let bytes = noise(500_000);
    fake.put_object("b", &bytes);
    let bucket = bucket(&fake);
    fake.trouble("GET", "/b", Trouble::CutBody(100_000));
    fake.trouble("GET", "/b", Trouble::CutBody(200_000));
    assert_eq!(take(&bucket, "b", &descriptor(&bytes)).unwrap(), bytes);
    let lines = fake.take_lines();
    assert_eq!(
        (count_of(&lines, " 200"), count_of(&lines, " 206")),
        (1, 2),
        "{lines:?}"
    );
    // A store without ranges.
    fake.trouble("GET", "/b", Trouble::CutBody(100_000));
    fake.trouble("GET", "/b", Trouble::IgnoreRange);
    assert_eq!(take(&bucket, "b", &descriptor(&bytes)).unwrap(), bytes);
}

#[test]
fn wrong_bytes_are_never_taken() {
    let fake = FakeObjects::start();
    let bytes = noise(500_000);
    let bucket = bucket(&fake);
    let wanted = descriptor(&bytes);
    fake.put_object("b", &bytes);
    fake.trouble("GET", "/b", Trouble::DamageBody);
    let error = take(&bucket, "b", &wanted).unwrap_err();
    assert!(error.contains("another digest"), "{error}");
    fake.put_object("b", &[&bytes[..], b"x"].concat());
    let error = take(&bucket, "b", &wanted).unwrap_err();
    assert!(error.contains("another size"), "{error}");
    fake.put_object("b", &bytes[..400_000]);
    assert!(take(&bucket, "b", &wanted).is_err());
    fake.put_object("b", b"");
    assert!(take(&bucket, "b", &wanted).is_err());
}

#[test]
fn refusals_say_what_helps_and_nothing_secret() {
    let fake = FakeObjects::start();
    let check = |change: &dyn Fn(&mut BucketPlace), expected: &[&str]| {
        let mut place = place(&fake);
        change(&mut place);
        let bucket = client().bucket(&place).unwrap();
        for error in [
            bucket.get("d", 10).unwrap_err(),
            bucket.put("d", b"x".to_vec()).unwrap_err(),
        ] {
            let text = clean_told(&error);
            for expected in expected {
                assert!(text.contains(expected), "`{expected}` is not in {text}");
            }
        }
    };
    let secret = "hunter2-other";
    check(
        &|place| place.keys = Some(keys(KEY, secret, None)),
        &["status 403", "SignatureDoesNotMatch", "check the key's ID"],
    );
    check(
        &|place| place.keys = Some(keys("OTHER", secret, None)),
        &["InvalidAccessKeyId", "check the key's ID"],
    );
    check(
        &|place| place.region = Some("us-east-1".to_owned()),
        &["AuthorizationHeaderMalformed", "region=eu-test-1"],
    );
    check(
        &|place| place.bucket = "other".to_owned(),
        &["NoSuchBucket", "check the bucket's name"],
    );
    fake.manners(|manners| manners.session = Some("hunter2-session".to_owned()));
    check(
        &|place| place.keys = Some(keys(KEY, SECRET, Some("hunter2-old"))),
        &["ExpiredToken", "get new keys"],
    );
    fake.manners(|manners| manners.session = None);
    fake.manners(|manners| manners.denies_writes = true);
    let error = give(&bucket(&fake), "b", b"x").unwrap_err();
    assert!(
        error.contains("AccessDenied") && error.contains("s3:PutObject"),
        "{error}"
    );
    assert!(error.contains("s3://shared-cache/b"), "{error}");
}

#[test]
fn a_redirect_takes_no_signed_request_to_another_host() {
    let (fake, other) = (FakeObjects::start(), FakeObjects::start());
    let to = format!("{}/{BUCKET}/d", other.url());
    fake.trouble("GET", "/d", Trouble::Header(307, "location".to_owned(), to));
    let error = bucket(&fake).get("d", 10).unwrap_err();
    assert!(clean_told(&error).contains("endpoint_url="), "{error:?}");
    assert_eq!(other.take_lines(), [""; 0]);
    let region = "x-amz-bucket-region".to_owned();
    fake.trouble(
        "GET",
        "/d",
        Trouble::Header(301, region, "eu-west-9".to_owned()),
    );
    let error = bucket(&fake).get("d", 10).unwrap_err();
    assert!(clean_told(&error).contains("region=eu-west-9"), "{error:?}");
}

#[test]
fn keys_are_found_where_the_tools_of_aws_find_them() {
    let fake = FakeObjects::start();
    let unsigned = BucketPlace {
        keys: None,
        ..place(&fake)
    };
    let get = |variables: &[(&'static str, &str)]| {
        let client = client_with(variables, RegistryOptions::default(), Threads::None, |_| {});
        let bucket = client.bucket(&unsigned).unwrap();
        bucket.get("d", 10).map_err(|error| clean_told(&error))
    };
    fake.put_object("d", b"x");
    let found = get(&[
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ]);
    assert_eq!(found.unwrap().unwrap(), b"x");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("credentials");
    let text = format!("[ci]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n");
    std::fs::write(&path, text).unwrap();
    let file = ("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap());
    let found = get(&[file, ("AWS_PROFILE", "ci")]);
    assert_eq!(found.unwrap().unwrap(), b"x");
    let nobody = ("AWS_EC2_METADATA_DISABLED", "true");
    let error = get(&[nobody]).unwrap_err();
    assert!(error.contains("AWS_ACCESS_KEY_ID"), "{error}");
    let error = get(&[("AWS_ACCESS_KEY_ID", KEY)]).unwrap_err();
    assert!(error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
    let error = get(&[
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", "hunter2\nhunter2"),
    ])
    .unwrap_err();
    assert!(error.contains("cannot be used"), "{error}");
}

#[test]
fn the_region_may_come_from_a_profile() {
    let fake = FakeObjects::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    std::fs::write(&path, format!("[profile ci]\nregion={REGION}\n")).unwrap();
    let client = client_with(
        &[
            ("AWS_CONFIG_FILE", path.to_str().unwrap()),
            ("AWS_PROFILE", "ci"),
        ],
        RegistryOptions::default(),
        Threads::None,
        |_| {},
    );
    let place = BucketPlace {
        region: None,
        ..place(&fake)
    };
    assert_eq!(client.bucket(&place).unwrap().get("d", 10).unwrap(), None);
    let nowhere = BucketPlace {
        region: None,
        endpoint: None,
        ..place
    };
    let error = super::client().bucket(&nowhere).unwrap_err();
    assert!(error.to_string().contains("AWS_REGION"), "{error}");
}

#[test]
fn keys_that_end_in_the_middle_are_asked_for_again() {
    let fake = FakeObjects::start();
    let url = format!("{}/keys", fake.url());
    fake.manners(|manners| manners.session = Some("hunter2-first".to_owned()));
    let client = client_with(
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)],
        RegistryOptions::default(),
        Threads::Some,
        |_| {},
    );
    let place = BucketPlace {
        keys: None,
        ..place(&fake)
    };
    let bucket = client.bucket(&place).unwrap();
    bucket.put("d", b"x".to_vec()).unwrap();
    bucket.get("d", 10).unwrap().unwrap();
    assert_eq!(count_of(&fake.take_lines(), "/keys"), 1);
    fake.manners(|manners| manners.session = Some("hunter2-second".to_owned()));
    bucket.get("d", 10).unwrap().unwrap();
    assert_eq!(count_of(&fake.take_lines(), "/keys"), 1);
}

#[test]
fn names_are_listed_page_by_page_and_removed() {
    let fake = FakeObjects::start();
    fake.manners(|manners| manners.names_per_page = Some(2));
    let bucket = bucket(&fake);
    for name in ["m/a-1", "m/a-2", "m/a-3", "m/a-4", "m/b", "x"] {
        bucket.put(name, name.as_bytes().to_vec()).unwrap();
    }
    let names = |prefix: &str| -> Vec<String> {
        let objects = bucket.list(prefix).unwrap().into_iter();
        objects
            .map(|object| format!("{} {}", object.name, object.size))
            .collect()
    };
    assert_eq!(names("m/a-"), ["m/a-1 5", "m/a-2 5", "m/a-3 5", "m/a-4 5"]);
    assert_eq!(names("m/").len(), 5);
    assert_eq!(names("y"), [""; 0]);
    let modified = |object: super::super::objects::Object| {
        let since = object.modified.duration_since(std::time::UNIX_EPOCH);
        since.unwrap().as_secs()
    };
    let (listed, found) = (bucket.list("x").unwrap(), bucket.find("x").unwrap());
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(now - modified(listed[0].clone()) < 3600, "{listed:?}");
    assert_eq!(modified(listed[0].clone()), modified(found.unwrap()));
    bucket.remove("m/a-2").unwrap();
    bucket.remove("m/a-2").unwrap();
    assert_eq!(names("m/a-").len(), 3);
}

#[test]
fn one_thread_suffices() {
    let fake = FakeObjects::start();
    let client = client_with(&[], RegistryOptions::default(), Threads::None, |_| {});
    let bucket = client.bucket(&place(&fake)).unwrap();
    let bytes = noise(500_000);
    give(&bucket, "b", &bytes).unwrap();
    assert_eq!(take(&bucket, "b", &descriptor(&bytes)).unwrap(), bytes);
}
