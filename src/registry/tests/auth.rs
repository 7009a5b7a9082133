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

/// Returns a client that knows what variables and options say.
fn client_from(variables: &[(&'static str, &str)], options: RegistryOptions) -> Client {
    client_with(variables, options, Threads::Some, |_| {})
}

#[test]
fn a_ci_systems_account_keeps_nobody_from_what_is_public() {
    let fake = bearer(|_| {});
    let host = fake.host();
    let variables = [("CI_REGISTRY", host.as_str()), ("CI_JOB_TOKEN", "hunter9")];
    let client = client_from(&variables, RegistryOptions::default());
    client.resolve(&image(&fake, "a:1")).unwrap();
    // The account was shown first: it may have been good for more.
    let log = fake.take_log();
    let shown: Vec<bool> = log
        .iter()
        .filter(|entry| entry.target.starts_with("/token"))
        .map(|entry| entry.header("authorization").is_some())
        .collect();
    assert_eq!(shown, [true, false]);
    let error = client
        .push_manifest(&image(&fake, "a:2"), MANIFEST, &manifest("x"))
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::Unauthorized { .. }),
        "{error:?}"
    );
    assert!(!told(&error).contains("hunter9"));
    // What somebody wrote down for this registry is meant.
    let variables = [
        ("BUILDER_REGISTRY", host.as_str()),
        ("BUILDER_REGISTRY_USER", "writer"),
        ("BUILDER_REGISTRY_PASSWORD", "hunter9"),
    ];
    let client = client_from(&variables, RegistryOptions::default());
    let error = client.resolve(&image(&fake, "a:1")).unwrap_err();
    assert!(
        matches!(error, RegistryError::Unauthorized { .. }),
        "{error:?}"
    );
}

#[test]
fn options_name_accounts_and_the_file() {
    let fake = basic();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    std::fs::write(&file, account(&fake.host(), "writer", "hunter2")).unwrap();
    let wrong = account(&fake.host(), "writer", "wrong");
    let other = directory.path().join("other.json");
    std::fs::write(&other, &wrong).unwrap();
    let with_file = |file: &Path| RegistryOptions {
        auth_file: Some(file.to_owned()),
        ..RegistryOptions::default()
    };
    let named = [
        ("REGISTRY_AUTH_FILE", other.to_str().unwrap()),
        ("DOCKER_AUTH_CONFIG", wrong.as_str()),
    ];
    client_from(&named, with_file(&file))
        .resolve(&image(&fake, "a:1"))
        .unwrap();
    let missing = directory.path().join("missing.json");
    let error = client_from(&[], with_file(&missing))
        .resolve(&image(&fake, "a:1"))
        .unwrap_err();
    assert!(told(&error).contains("missing.json"), "{error}");
    let options = RegistryOptions {
        accounts: vec![crate::vocab::RegistryAccount {
            registry: fake.host(),
            user: "writer".into(),
            password: Secret::new("hunter2".into()),
        }],
        ..with_file(&other)
    };
    assert!(!format!("{options:?}").contains("hunter2"));
    client_from(&named, options)
        .resolve(&image(&fake, "a:1"))
        .unwrap();
}

#[test]
fn a_helper_is_asked_again_when_what_it_gave_has_ended() {
    use super::super::credentials::tests::write_helper;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    // The first answer is what the helper still had; the second one is good.
    write_helper(
        directory.path(),
        "slow",
        &format!(
            r#"read server
test -e {path}/asked && secret=hunter2 || secret=old
echo "$server" >> {path}/asked
echo "{{\"Username\":\"writer\",\"Secret\":\"$secret\"}}""#
        ),
    );
    let config = r#"{"credsStore": "slow"}"#;
    let variables = [("PATH", path), ("DOCKER_AUTH_CONFIG", config)];
    for (fake, tries) in [(bearer(|rules| rules.public = false), 1), (basic(), 2)] {
        let asked = directory.path().join("asked");
        drop(std::fs::remove_file(&asked));
        let client = client_from(&variables, RegistryOptions::default());
        // A token service is asked again at once; a registry that takes passwords itself, with the next request.
        for _ in 1..tries {
            client.resolve(&image(&fake, "a:1")).unwrap_err();
        }
        for _ in 0..2 {
            client.resolve(&image(&fake, "a:1")).unwrap();
        }
        let asked = std::fs::read_to_string(&asked).unwrap();
        assert_eq!(asked.lines().count(), 2, "{asked}");
    }
}

#[test]
fn one_token_is_for_several_repositories_and_a_refresh_token_buys_it() {
    let fake = bearer(|rules| {
        rules.public = false;
        rules.identity_tokens = vec!["refresh".into()];
    });
    let bytes = noise(1000);
    fake.put_blob("base", &bytes);
    let entry = r#"{"username": "writer", "identitytoken": "refresh"}"#;
    let client = with_auths(&fake, entry);
    // The repository's own rights are known before, and do not cover its neighbour's.
    client.resolve(&image(&fake, "a:1")).unwrap();
    fake.take_log();
    let open =
        |_: u64| -> io::Result<Box<dyn Read + Send>> { panic!("what is mounted is not read") };
    let from = ["base".to_owned()];
    let pushed = client.push_blob(
        &image(&fake, "a"),
        &descriptor(&bytes),
        &open,
        &from,
        &|_| {},
    );
    assert_eq!(pushed.unwrap(), super::super::push::Pushed::Mounted);
    let lines = lines(&fake);
    let steps: Vec<&str> = lines
        .iter()
        .map(|line| line.split('?').next().unwrap())
        .map(|line| line.split(" sha").next().unwrap())
        .collect();
    // One token to write here, one to write here and read there.
    assert_eq!(
        steps
            .iter()
            .filter(|step| step.starts_with("POST /token"))
            .count(),
        2,
        "{lines:?}"
    );
    assert!(lines.last().unwrap().ends_with(" 201"), "{lines:?}");
}

#[test]
fn an_upload_goes_on_where_it_stood_when_its_token_ended() {
    let fake = bearer(|_| {});
    // The registry keeps this much of each piece, so that several follow; after a failure no more than that is sent at once.
    fake.habits(|habits| habits.keeps_of_patch = Some(100_000));
    fake.fault("PATCH", "", Fault::Pass);
    fake.fault("PATCH", "", Fault::ExpireTokens);
    let bytes = noise(300_000);
    let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(bytes[offset as usize..].to_vec())))
    };
    let client = client_of(&fake, "writer", "hunter2");
    let name = image(&fake, "a");
    client
        .push_blob(&name, &descriptor(&bytes), &open, &[], &|_| {})
        .unwrap();
    let digest = Digest::of(&bytes).to_string();
    assert!(fake.blob("a", &digest) == Some(bytes.clone()));
    let log = fake.take_log();
    let patches: Vec<(u16, &str)> = log
        .iter()
        .filter(|entry| entry.method == "PATCH")
        .map(|entry| (entry.status, entry.header("content-range").unwrap_or("")))
        .collect();
    assert_eq!(
        patches,
        [
            (202, ""),
            (401, "100000-299999"),
            (202, "100000-199999"),
            (202, "200000-299999"),
        ]
    );
    let begun = log
        .iter()
        .filter(|entry| entry.line().starts_with("POST /v2/"))
        .count();
    assert_eq!(begun, 1, "one session from the first byte to the last");
}

#[test]
fn a_token_services_redirect_takes_no_password_elsewhere() {
    let elsewhere = FakeRegistry::start();
    for status in [302, 307, 308] {
        for (method, entry) in [
            (
                "POST",
                r#"{"username": "writer", "identitytoken": "hunter2"}"#,
            ),
            ("GET", r#"{"username": "writer", "password": "hunter2"}"#),
        ] {
            let fake = bearer(|rules| rules.public = false);
            let to = format!("{}/token", elsewhere.url());
            fake.fault(method, "/token", Fault::Redirect(status, to));
            // A GET follows, finds no service, and the form is tried at home.
            if let Err(error) = with_auths(&fake, entry).resolve(&image(&fake, "a:1")) {
                assert!(told(&error).contains(&status.to_string()), "{error}");
                assert!(!told(&error).contains("hunter2"));
            }
            assert_eq!(fake.faults_left(), 0);
            let log = elsewhere.take_log();
            assert!(
                log.iter().all(|entry| entry.method != "POST"
                    && entry.received == 0
                    && entry.header("authorization").is_none()),
                "{log:?}"
            );
        }
    }
}

#[test]
fn passwords_go_over_plain_http_only_where_that_was_said() {
    let etc = tempfile::tempdir().unwrap();
    std::fs::write(etc.path().join("hosts"), "127.0.0.1 reg.test tokens.test\n").unwrap();
    let check = |insecure: &[&str], account_at: bool, is_fine: bool| {
        let service = bearer(|rules| rules.public = true);
        let realm = format!("http://tokens.test:{}/token", service.port());
        let fake = bearer(|rules| rules.realm = Some(realm));
        let registry = format!("reg.test:{}", fake.port());
        let text = account(&registry, "writer", "hunter2");
        let variables = [("DOCKER_AUTH_CONFIG", OsStr::new(&text))];
        let variables = if account_at { &variables[..] } else { &[] };
        let options = RegistryOptions {
            insecure: insecure.iter().map(|host| (*host).to_owned()).collect(),
            ..RegistryOptions::default()
        };
        let environment = Environment::of(etc.path(), variables);
        let client =
            Client::with(&options, Threads::Some, environment, Tuning::for_tests()).unwrap();
        let name: ImageRef = format!("{registry}/a:1").parse().unwrap();
        // The service's tokens are not the registry's: what matters is whether it was asked.
        let error = client.resolve(&name).unwrap_err();
        assert!(!told(&error).contains("hunter2"), "{error:?}");
        let asked = !service.take_log().is_empty();
        assert_eq!(asked, is_fine, "{insecure:?} {account_at}: {error}");
        if !is_fine && !insecure.is_empty() {
            assert!(error.to_string().contains("plain HTTP"), "{error}");
        }
    };
    check(&["reg.test"], true, false);
    check(&["reg.test"], false, true);
    check(&["reg.test", "tokens.test"], true, true);
    check(&[], true, false);
}
