//! What is attached is found again, whether the registry keeps the list or we do.

use std::collections::BTreeMap;

use super::super::fake::{Fault, Gate};
use super::super::referrers::Attachment;
use super::*;

const SBOM: &str = "application/spdx+json";
const PROVENANCE: &str = "application/vnd.in-toto+json";

/// Puts an image to attach to.
fn subject(fake: &FakeRegistry) -> Descriptor {
    let bytes = manifest("subject");
    fake.put_manifest("a", "1", MANIFEST, &bytes);
    Descriptor {
        media_type: MANIFEST.to_owned(),
        ..descriptor(&bytes)
    }
}

fn attach(
    client: &Client,
    to: &ImageRef,
    subject: &Descriptor,
    artifact_type: &str,
    text: &str,
) -> Result<Descriptor, RegistryError> {
    let annotations = BTreeMap::from([("note".to_owned(), text.to_owned())]);
    let attachment = Attachment {
        artifact_type,
        blobs: &[("application/json", text.as_bytes())],
        annotations: &annotations,
    };
    client.attach(to, subject, &attachment)
}

fn notes(client: &Client, to: &ImageRef, subject: &Descriptor, kind: Option<&str>) -> Vec<String> {
    let found = client.referrers(to, &subject.digest, kind).unwrap();
    let mut notes: Vec<String> = found
        .iter()
        .map(|found| found.annotations["note"].clone())
        .collect();
    notes.sort();
    notes
}

#[test]
fn what_is_attached_is_listed_by_kind_and_page() {
    for pages in [None, Some(1000), Some(1)] {
        let fake = FakeRegistry::start();
        fake.habits(|habits| habits.lists_referrers = pages);
        let client = client();
        let to = image(&fake, "a:1");
        let subject = subject(&fake);
        assert_eq!(client.referrers(&to, &subject.digest, None).unwrap(), []);
        let sbom = attach(&client, &to, &subject, SBOM, "one").unwrap();
        attach(&client, &to, &subject, PROVENANCE, "two").unwrap();
        attach(&client, &to, &subject, SBOM, "three").unwrap();
        // Again: the same manifest, the same list.
        assert_eq!(attach(&client, &to, &subject, SBOM, "one").unwrap(), sbom);
        assert_eq!(notes(&client, &to, &subject, None), ["one", "three", "two"]);
        assert_eq!(notes(&client, &to, &subject, Some(SBOM)), ["one", "three"]);
        assert_eq!(notes(&client, &to, &subject, Some("x")), [""; 0]);
        let tag = format!("sha256-{}", subject.digest.hex());
        let fallback = fake.manifest("a", &tag);
        assert_eq!(fallback.is_some(), pages.is_none(), "{pages:?}");
        // The image stays what it was, and what was attached can be read.
        assert_eq!(fake.manifest("a", "1").unwrap().1, manifest("subject"));
        let (_, bytes) = fake.manifest("a", &sbom.digest.to_string()).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(document["subject"]["digest"], subject.digest.to_string());
        assert_eq!(document["artifactType"], SBOM);
        let layer = document["layers"][0]["digest"].as_str().unwrap();
        assert_eq!(fake.blob("a", layer).unwrap(), b"one");
        let config = document["config"]["digest"].as_str().unwrap();
        assert_eq!(fake.blob("a", config).unwrap(), b"{}");
    }
}

#[test]
fn nothing_to_hold_is_fine_too() {
    let fake = FakeRegistry::start();
    let to = image(&fake, "a:1");
    let subject = subject(&fake);
    let attachment = Attachment {
        artifact_type: "a/b",
        blobs: &[],
        annotations: &BTreeMap::new(),
    };
    client().attach(&to, &subject, &attachment).unwrap();
    let found = client().referrers(&to, &subject.digest, None).unwrap();
    assert_eq!(found[0].artifact_type.as_deref(), Some("a/b"));
}

#[test]
fn jobs_that_attach_at_the_same_time_lose_nothing() {
    let fake = FakeRegistry::start();
    let to = image(&fake, "a:1");
    let subject = subject(&fake);
    let tag = format!("/manifests/sha256-{}", subject.digest.hex());
    let gate = Gate::default();
    let held = gate.clone();
    let mut is_first = true;
    fake.set_chaos(Some(Box::new(move |method, target| {
        let is_list = method == "PUT" && target.ends_with(&tag);
        (is_list && std::mem::take(&mut is_first)).then(|| Fault::Hold(held.clone()))
    })));
    std::thread::scope(|scope| {
        scope.spawn(|| attach(&client(), &to, &subject, SBOM, "late").unwrap());
        gate.wait_for(1);
        for text in ["quick", "quicker"] {
            attach(&client(), &to, &subject, SBOM, text).unwrap();
        }
        gate.open();
    });
    assert_eq!(
        notes(&client(), &to, &subject, None),
        ["late", "quick", "quicker"]
    );
}

#[test]
fn a_registry_without_such_a_list_says_so_in_many_ways() {
    let check = |fault: Fault| {
        let fake = FakeRegistry::start();
        let client = client();
        let to = image(&fake, "a:1");
        let subject = subject(&fake);
        attach(&client, &to, &subject, SBOM, "one").unwrap();
        fake.fault("GET", "/referrers/", fault.clone());
        assert_eq!(notes(&client, &to, &subject, None), ["one"], "{fault:?}");
        assert_eq!(fake.faults_left(), 0);
    };
    for status in [400, 404, 405, 406, 501] {
        check(Fault::Status(status));
    }
    check(Fault::Says(200, "<html>welcome</html>".to_owned()));
}

#[test]
fn a_list_that_cannot_be_trusted_is_refused() {
    let fake = FakeRegistry::start();
    fake.habits(|habits| habits.lists_referrers = Some(10));
    let to = image(&fake, "a:1");
    let subject = subject(&fake);
    fake.faults("GET", "/referrers/", &Fault::Status(500), 9);
    let error = client().referrers(&to, &subject.digest, None).unwrap_err();
    assert!(told(&error).contains("status 500"));
    let fake = FakeRegistry::start();
    fake.habits(|habits| habits.lists_referrers = Some(10));
    let to = image(&fake, "a:1");
    fake.fault("GET", "/referrers/", Fault::ShortenBody(20));
    let error = client().referrers(&to, &subject.digest, None).unwrap_err();
    assert!(told(&error).contains("no index"), "{}", told(&error));
    // A fallback tag that is something else is no list.
    let fake = FakeRegistry::start();
    let to = image(&fake, "a:1");
    let tag = format!("sha256-{}", subject.digest.hex());
    fake.put_manifest("a", &tag, MANIFEST, &manifest("x"));
    assert_eq!(client().referrers(&to, &subject.digest, None).unwrap(), []);
}

#[test]
fn only_what_names_a_subject_can_be_attached() {
    let fake = FakeRegistry::start();
    let to = image(&fake, "a:1");
    for text in [manifest("x"), b"{}".to_vec(), b"".to_vec()] {
        let error = client().attach_manifest(&to, MANIFEST, &text).unwrap_err();
        assert!(told(&error).contains("cannot be attached"));
    }
    assert_eq!(lines(&fake), [""; 0]);
}
