//! What is to go goes, and nothing else with it.

use super::super::error::Action;
use super::super::fake::{Access, Fault, TokenRules};
use super::*;

/// Puts one manifest under two tags, and another one.
fn filled(fake: &FakeRegistry) -> Digest {
    fake.put_manifest("a", "one", MANIFEST, &manifest("shared"));
    let digest = fake.put_manifest("a", "two", MANIFEST, &manifest("shared"));
    fake.put_manifest("a", "other", MANIFEST, &manifest("other"));
    digest.parse().unwrap()
}

#[test]
fn a_manifest_goes_with_all_its_tags_and_a_tag_alone() {
    let fake = FakeRegistry::start();
    let digest = filled(&fake);
    let (client, image) = (client(), image(&fake, "a"));
    assert!(client.remove_manifest(&image.with_tag("one")).unwrap());
    assert_eq!(client.own_tags(&image).unwrap(), ["other", "two"]);
    let standing = client.standing_digest(&image.with_tag("two"));
    assert_eq!(standing.unwrap(), Some(digest));
    assert!(client.remove_manifest(&image.with_digest(digest)).unwrap());
    assert_eq!(client.own_tags(&image).unwrap(), ["other"]);
    let standing = client.standing_digest(&image.with_tag("two"));
    assert_eq!(standing.unwrap(), None);
    // Somebody else was quicker.
    assert!(!client.remove_manifest(&image.with_digest(digest)).unwrap());
    assert!(!client.remove_manifest(&image.with_tag("one")).unwrap());
}

#[test]
fn a_lost_answer_is_no_failure() {
    let fake = FakeRegistry::start();
    let digest = filled(&fake);
    fake.fault("DELETE", "", Fault::LoseAnswer);
    fake.fault("DELETE", "", Fault::Status(503));
    let image = image(&fake, "a");
    client()
        .remove_manifest(&image.with_digest(digest))
        .unwrap();
    assert_eq!(
        (fake.tags("a"), fake.faults_left()),
        (vec!["other".to_owned()], 0)
    );
}

#[test]
fn a_registry_that_deletes_nothing_is_told_of_with_what_to_switch_on() {
    for status in [400, 405, 501, 404] {
        let fake = FakeRegistry::start();
        let digest = filled(&fake);
        fake.fault("DELETE", "", Fault::Status(status));
        let image = image(&fake, "a").with_digest(digest);
        let error = client().remove_manifest(&image).unwrap_err();
        assert!(matches!(error, RegistryError::NoDeletion { .. }), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("REGISTRY_STORAGE_DELETE_ENABLED"), "{hint}");
        assert_eq!(fake.tags("a").len(), 3);
    }
}

#[test]
fn to_delete_is_a_right_of_its_own() {
    for grants_deletion in [true, false] {
        let fake = FakeRegistry::start_with(Access::Bearer(TokenRules {
            users: vec![("user".to_owned(), "password".to_owned(), true)],
            grants_deletion,
            ..TokenRules::default()
        }));
        let digest = filled(&fake);
        let client = client_of(&fake, "user", "password");
        let image = image(&fake, "a").with_digest(digest);
        let removed = client.remove_manifest(&image);
        let asked = fake.take_lines().into_iter();
        let tokens: Vec<String> = asked.filter(|line| line.contains("/token")).collect();
        assert!(tokens[0].contains("delete"), "{tokens:?}");
        if grants_deletion {
            assert!(removed.unwrap());
            continue;
        }
        let error = removed.unwrap_err();
        let is_right = matches!(
            error,
            RegistryError::Denied {
                action: Action::Delete,
                ..
            }
        );
        assert!(is_right, "{error}");
        assert!(error.to_string().contains("denied delete"), "{error}");
        assert!(error.hint().unwrap().contains("permission of its own"));
    }
}
