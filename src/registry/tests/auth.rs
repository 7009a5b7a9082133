//! Credentials reach the right place, tokens are bought once, and no secret is told.

use super::super::fake::{Access, FakeRegistry, Fault, TokenRules};
use super::*;
use crate::vocab::Secret;

fn bearer(change: impl FnOnce(&mut TokenRules)) -> FakeRegistry {
    let mut rules = TokenRules {
        users: vec![
            ("writer".into(), "hunter2".into(), true),
            ("reader".into(), "hunter3".into(), false),
        ],
        ..TokenRules::default()
    };
    change(&mut rules);
    let fake = FakeRegistry::start_with(Access::Bearer(rules));
    for repository in ["a", "b"] {
        fake.put_manifest(repository, "1", MANIFEST, &manifest(repository));
    }
    fake
}

fn basic() -> FakeRegistry {
    let fake = FakeRegistry::start_with(Access::Basic {
        user: "writer".into(),
        password: "hunter2".into(),
    });
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    fake
}

fn with_auths(fake: &FakeRegistry, entry: &str) -> Client {
    let text = format!(r#"{{"auths": {{"{}": {entry}}}}}"#, fake.host());
    client_with(
        &[("DOCKER_AUTH_CONFIG", &text)],
        RegistryOptions::default(),
        Threads::Some,
        |_| {},
    )
}

fn tokens_bought(fake: &FakeRegistry) -> usize {
    let log = fake.take_log();
    log.iter()
        .filter(|entry| entry.target.starts_with("/token"))
        .count()
}

#[test]
fn an_anonymous_token_is_bought_once_for_a_repository() {
    let fake = bearer(|_| {});
    let client = client();
    for _ in 0..2 {
        client.resolve(&image(&fake, "a:1")).unwrap();
        client.manifest(&image(&fake, "a:1")).unwrap();
    }
    assert_eq!(
        lines(&fake),
        [
            "HEAD /v2/a/manifests/1 401",
            "GET /token?service=fake%2C+inc&scope=repository%3Aa%3Apull&client_id=builder 200",
            "HEAD /v2/a/manifests/1 200",
            "GET /v2/a/manifests/1 200",
            "HEAD /v2/a/manifests/1 200",
            "GET /v2/a/manifests/1 200",
        ]
    );
    // Another repository needs another token, and no refusal to learn that.
    client.resolve(&image(&fake, "b:1")).unwrap();
    assert_eq!(lines(&fake).len(), 2);
}

#[test]
fn threads_share_a_token() {
    let fake = bearer(|_| {});
    let client = client();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| client.resolve(&image(&fake, "a:1")).unwrap());
        }
    });
    assert_eq!(tokens_bought(&fake), 1);
}

#[test]
fn basic_credentials_are_shown_on_demand() {
    let fake = basic();
    let client = client_of(&fake, "writer", "hunter2");
    client.resolve(&image(&fake, "a:1")).unwrap();
    client.manifest(&image(&fake, "a:1")).unwrap();
    let log = fake.take_log();
    let shown: Vec<bool> = log
        .iter()
        .filter(|entry| entry.method != "TLS")
        .map(|entry| entry.header("authorization").is_some())
        .collect();
    assert_eq!(shown, [false, true, true]);
    let error = client_of(&fake, "writer", "wrong").resolve(&image(&fake, "a:1"));
    assert!(matches!(error, Err(RegistryError::Unauthorized { .. })));
    let error = super::client().resolve(&image(&fake, "a:1")).unwrap_err();
    assert!(matches!(
        error,
        RegistryError::Denied {
            had_credentials: false,
            ..
        }
    ));
    assert!(
        error
            .hint()
            .unwrap()
            .contains(&format!("builder login {}", fake.host()))
    );
}

#[test]
fn every_kind_of_credential_buys_a_token() {
    let check = |rules: fn(&mut TokenRules), entry: &str, requests: &[&str]| {
        let fake = bearer(rules);
        let client = with_auths(&fake, entry);
        client
            .manifest(&image(&fake, "a:1"))
            .unwrap_or_else(|error| panic!("{entry}: {error}"));
        let bought: Vec<String> = fake
            .take_log()
            .iter()
            .filter(|entry| entry.target.starts_with("/token"))
            .map(|entry| format!("{} {}", entry.method, entry.status))
            .collect();
        assert_eq!(bought, requests, "{entry}");
    };
    let password = r#"{"username": "writer", "password": "hunter2"}"#;
    let identity = r#"{"username": "writer", "identitytoken": "refresh"}"#;
    let private = |rules: &mut TokenRules| {
        rules.public = false;
        rules.identity_tokens = vec!["refresh".into()];
    };
    check(private, password, &["GET 200"]);
    check(private, identity, &["POST 200"]);
    check(
        |rules| {
            rules.public = false;
            rules.takes_get = false;
        },
        password,
        &["GET 405", "POST 200"],
    );
    check(
        |rules| {
            rules.public = false;
            rules.takes_post = false;
            rules.identity_tokens = vec!["refresh".into()];
        },
        identity,
        &["POST 405", "GET 200"],
    );
}

#[test]
fn an_access_token_is_used_as_it_is() {
    let fake = bearer(|rules| rules.public = false);
    client_of(&fake, "writer", "hunter2")
        .resolve(&image(&fake, "a:1"))
        .unwrap();
    let log = fake.take_log();
    let shown = log.last().unwrap().header("authorization").unwrap();
    let token = shown.strip_prefix("Bearer ").unwrap();
    let client = with_auths(&fake, &format!(r#"{{"registrytoken": "{token}"}}"#));
    client.resolve(&image(&fake, "a:1")).unwrap();
    assert_eq!(tokens_bought(&fake), 0);
    fake.expire_tokens();
    let error = client.resolve(&image(&fake, "a:1")).unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Denied {
                had_credentials: true,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_token_that_ends_is_renewed_once_for_each_request() {
    let fake = bearer(|_| {});
    let client = client();
    client.resolve(&image(&fake, "a:1")).unwrap();
    fake.take_log();
    fake.fault("GET", "manifests", Fault::ExpireTokens);
    client.manifest(&image(&fake, "a:1")).unwrap();
    assert_eq!(
        lines(&fake)
            .iter()
            .map(|line| line.rsplit_once(' ').unwrap().1)
            .collect::<Vec<_>>(),
        ["401", "200", "200"]
    );
    fake.faults("GET", "manifests", &Fault::ExpireTokens, 2);
    let error = client.manifest(&image(&fake, "a:1")).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
}

#[test]
fn a_blob_survives_the_end_of_its_token() {
    let fake = bearer(|_| {});
    let bytes = noise(100_000);
    fake.put_blob("a", &bytes);
    let client = client();
    fake.fault("GET", "blobs", Fault::Pass);
    fake.fault("GET", "blobs", Fault::TruncateBody(50_000));
    fake.fault("GET", "blobs", Fault::ExpireTokens);
    assert!(pull(&client, &image(&fake, "a"), &descriptor(&bytes)) == Ok(bytes));
    assert_eq!(tokens_bought(&fake), 2);
}

#[test]
fn refusals_say_who_asked_for_what() {
    let fake = bearer(|_| {});
    let reader = client_of(&fake, "reader", "hunter3");
    let error = reader
        .push_manifest(&image(&fake, "a:2"), MANIFEST, &manifest("x"))
        .unwrap_err();
    match &error {
        RegistryError::Denied {
            repository,
            action: super::super::Action::Push,
            had_credentials: true,
            ..
        } => assert_eq!(repository, "a"),
        other => panic!("{other:?}"),
    }
    let wrong = client_of(&fake, "reader", "wrong");
    let error = wrong.resolve(&image(&fake, "a:1")).unwrap_err();
    assert!(
        matches!(error, RegistryError::Unauthorized { .. }),
        "{error:?}"
    );
    assert!(told(&error).contains("incorrect username or password"));
}

#[test]
fn a_token_service_that_stumbles_is_asked_again() {
    let fake = bearer(|_| {});
    for fault in [Fault::Status(503), Fault::Reset, Fault::Status(429)] {
        fake.fault("GET", "/token", fault);
    }
    client().resolve(&image(&fake, "a:1")).unwrap();
    for (text, word) in [
        ("{\"token\": \"hunter2", "JSON"),
        ("{\"token\": 5, \"x\": \"hunter2\"}", "JSON"),
        ("{\"token\": \"\"}", "no token"),
        ("{\"token\": \"hunter2\\nX: y\"}", "header"),
        ("{}", "no token"),
    ] {
        fake.fault("GET", "/token", Fault::Says(200, text.into()));
        let error = client().resolve(&image(&fake, "a:1")).unwrap_err();
        let told = told(&error);
        assert!(told.contains(word), "{text}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_scope_that_the_registry_adds_is_bought() {
    let fake = bearer(|_| {});
    fake.habits(|habits| habits.extra_scope = Some("aws registry:catalog:*".into()));
    let client = client();
    client.resolve(&image(&fake, "a:1")).unwrap();
    client.resolve(&image(&fake, "b:1")).unwrap();
    let log = fake.take_log();
    let bought: Vec<&str> = log
        .iter()
        .map(|entry| entry.target.as_str())
        .filter(|target| target.starts_with("/token"))
        .collect();
    assert_eq!(bought.len(), 2);
    for target in bought {
        assert!(
            target.contains("scope=aws&scope=registry%3Acatalog%3A*"),
            "{target}"
        );
    }
}

#[test]
fn realms_that_make_no_sense_are_refused() {
    for realm in ["/token", "not a url", "ftp://x/token", ""] {
        let fake = bearer(|rules| rules.realm = Some(realm.into()));
        let error = client().resolve(&image(&fake, "a:1")).unwrap_err();
        assert!(
            matches!(error, RegistryError::Protocol { .. }),
            "{realm}: {error:?}"
        );
    }
}

#[test]
fn repositories_may_have_accounts_of_their_own() {
    let fake = bearer(|rules| rules.public = false);
    let host = fake.host();
    let text = format!(
        r#"{{"auths": {{
            "{host}/a": {{"username": "writer", "password": "hunter2"}},
            "{host}": {{"username": "reader", "password": "hunter3"}}
        }}}}"#
    );
    let client = client_with(
        &[("DOCKER_AUTH_CONFIG", &text)],
        RegistryOptions::default(),
        Threads::Some,
        |_| {},
    );
    client
        .push_manifest(&image(&fake, "a:2"), MANIFEST, &manifest("x"))
        .unwrap();
    client.resolve(&image(&fake, "b:1")).unwrap();
    client
        .push_manifest(&image(&fake, "b:2"), MANIFEST, &manifest("x"))
        .unwrap_err();
}

#[test]
fn credentials_may_be_given_by_name() {
    let fake = bearer(|rules| rules.public = false);
    let credentials = super::super::Credentials::of_process().with(
        &fake.host(),
        "writer",
        Secret::new("hunter2".to_owned()),
    );
    let client =
        Client::with_credentials(&RegistryOptions::default(), Threads::Some, credentials).unwrap();
    client.resolve(&image(&fake, "a:1")).unwrap();
}

#[test]
fn logins_are_checked_where_they_are_meant_for() {
    let right = Secret::new("hunter2".to_owned());
    let wrong = Secret::new("hunter9".to_owned());
    for fake in [basic(), bearer(|_| {})] {
        let client = client();
        client.check_login(&fake.host(), "writer", &right).unwrap();
        let error = client
            .check_login(&fake.host(), "writer", &wrong)
            .unwrap_err();
        assert!(
            matches!(error, RegistryError::Unauthorized { .. }),
            "{error:?}"
        );
        assert!(!told(&error).contains("hunter9"));
    }
    let open = FakeRegistry::start();
    client()
        .check_login(&open.host(), "anybody", &wrong)
        .unwrap();
    open.fault("GET", "/v2/", Fault::Status(404));
    let error = client().check_login(&open.host(), "x", &right).unwrap_err();
    assert!(told(&error).contains("no registry's API"), "{error}");
}

#[test]
fn a_registry_that_says_secrets_back_is_not_quoted() {
    for fake in [basic(), bearer(|_| {})] {
        let client = client_of(&fake, "writer", "hunter2");
        client.resolve(&image(&fake, "a:1")).unwrap();
        fake.fault("GET", "manifests", Fault::Echo);
        let error = client.manifest(&image(&fake, "a:1")).unwrap_err();
        let told = told(&error);
        assert!(told.contains("you sent"), "{told}");
        for secret in ["hunter2", "issued-token", "d3JpdGVyOmh1bnRlcjI="] {
            assert!(!told.contains(secret), "{told}");
        }
        assert!(!format!("{client:?}").contains("hunter2"));
    }
    let fake = bearer(|_| {});
    fake.fault(
        "GET",
        "/token",
        Fault::Says(401, "{\"details\": \"not hunter2\"}".into()),
    );
    let client = client_of(&fake, "writer", "hunter2");
    let error = client.resolve(&image(&fake, "a:1")).unwrap_err();
    assert!(told(&error).contains("not ***"), "{}", told(&error));
}
