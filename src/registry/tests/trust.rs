//! Whose certificates are believed, and which of ours are shown.

use super::super::fake::Access;
use super::certificates::{
    AUTHORITY, CLIENT, CLIENT_KEY, SELF_SIGNED, SELF_SIGNED_KEY, SERVER, SERVER_KEY, STRANGER,
    STRANGER_KEY,
};
use super::config::{Machine, note, parsed, registry};
use super::hosts::{tls, tls_registry};
use super::proxies::Tunnel;
use super::*;

#[test]
fn a_registry_s_authority_is_believed_for_its_token_service() {
    let token = FakeRegistry::start_wrapped(
        Access::Bearer(super::super::fake::TokenRules::default()),
        "https",
        Some(tls(SERVER, SERVER_KEY, false)),
    );
    let rules = super::super::fake::TokenRules {
        realm: Some(format!("https://auth.reg.test:{}/token", token.port())),
        ..super::super::fake::TokenRules::default()
    };
    // The certificate is not for this name, but it is of the authority: that is what is to be seen.
    let fake = FakeRegistry::start_wrapped(
        Access::Bearer(rules),
        "https",
        Some(tls(SERVER, SERVER_KEY, false)),
    );
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let machine = Machine::new();
    machine.hosts(&["reg.test", "auth.reg.test"]);
    machine.write(
        &format!("etc/docker/certs.d/reg.test:{}/ca.crt", fake.port()),
        AUTHORITY,
    );
    let error = machine
        .client()
        .resolve(&parsed(&format!("reg.test:{}/a:1", fake.port())))
        .unwrap_err();
    let said = told(&error);
    assert!(
        said.contains("auth.reg.test") && said.contains("not valid for name"),
        "{said}"
    );
}

#[test]
fn cert_dir_is_for_every_registry_and_instead_of_the_hosts_own() {
    let fake = tls_registry(SERVER, SERVER_KEY, true);
    let machine = Machine::new();
    machine.hosts(&["reg.test"]);
    machine.write("mine/ca.crt", AUTHORITY);
    machine.write("mine/me.cert", CLIENT);
    let key = machine.write("mine/me.key", CLIENT_KEY);
    let directory = Path::new(&key).parent().unwrap().to_owned();
    let name = parsed(&format!("reg.test:{}/a:1", fake.port()));
    let client = |directory: &Path| {
        machine.client_with(
            &[],
            RegistryOptions {
                cert_dir: Some(directory.to_owned()),
                ..RegistryOptions::default()
            },
        )
    };
    client(&directory).resolve(&name).unwrap();
    machine.client().resolve(&name).unwrap_err();
    let error = client(Path::new("/nonexistent"))
        .resolve(&name)
        .unwrap_err();
    assert!(told(&error).contains("/nonexistent"), "{}", told(&error));
    // A key alone shows nobody.
    machine.remove("mine/me.cert");
    let error = client(&directory).resolve(&name).unwrap_err();
    assert!(told(&error).contains("me.key"), "{}", told(&error));
}

#[test]
fn of_several_certificates_the_one_that_the_server_wants_is_shown() {
    let fake = tls_registry(SERVER, SERVER_KEY, true);
    let machine = Machine::new();
    machine.hosts(&["reg.test"]);
    let directory = format!("home/.config/containers/certs.d/reg.test:{}", fake.port());
    machine.write(&format!("{directory}/ca.crt"), AUTHORITY);
    // The first by its name is of nobody whom the server knows.
    machine.write(&format!("{directory}/a.cert"), STRANGER);
    machine.write(&format!("{directory}/a.key"), STRANGER_KEY);
    machine.write(&format!("{directory}/z.cert"), CLIENT);
    machine.write(&format!("{directory}/z.key"), CLIENT_KEY);
    let name = parsed(&format!("reg.test:{}/a:1", fake.port()));
    machine.client().resolve(&name).unwrap();
}

#[test]
fn ipv6_addresses_are_hosts_of_images_mirrors_and_directories() {
    let fake = tls_registry(SELF_SIGNED, SELF_SIGNED_KEY, false);
    let plain = registry("plain");
    let (Ok(secure), Ok(open)) = (
        Tunnel::pass("[::1]:0", fake.port()),
        Tunnel::pass("[::1]:0", plain.port()),
    ) else {
        // A machine without IPv6.
        assert!(std::env::var_os("BUILDER_TEST_REQUIRE_ALL").is_none());
        return;
    };
    let machine = Machine::new();
    let (secure, open) = (
        format!("[::1]:{}", secure.port()),
        format!("[::1]:{}", open.port()),
    );
    let client = machine.client_with(
        &[],
        RegistryOptions {
            mirrors: vec![("name.test".to_owned(), format!("http://{open}"))],
            ..RegistryOptions::default()
        },
    );
    assert_eq!(note(&client, &format!("{open}/a:1")), "plain");
    assert_eq!(note(&client, "name.test/a:1"), "plain");
    // The certificate is for 127.0.0.1 alone: that the name is what is wrong shows that the directory was found.
    let name = parsed(&format!("{secure}/a:1"));
    let said = told(&machine.client().resolve(&name).unwrap_err());
    assert!(!said.contains("not valid for name"), "{said}");
    machine.write(&format!("etc/docker/certs.d/{secure}/ca.crt"), SELF_SIGNED);
    let said = told(&machine.client().resolve(&name).unwrap_err());
    assert!(said.contains("not valid for name"), "{said}");
}

#[test]
fn certificates_of_the_command_line_are_for_one_registry() {
    let fake = tls_registry(SERVER, SERVER_KEY, true);
    let machine = Machine::new();
    machine.hosts(&["reg.test", "other.test"]);
    let authority = machine.write("ca.crt", AUTHORITY);
    let chain = machine.write("me.cert", CLIENT);
    let key = machine.write("me.key", CLIENT_KEY);
    let client = |host: &str| {
        machine.client_with(
            &[],
            RegistryOptions {
                authorities: vec![(host.to_owned(), authority.clone().into())],
                identities: vec![(host.to_owned(), chain.clone().into(), key.clone().into())],
                ..RegistryOptions::default()
            },
        )
    };
    let host = format!("reg.test:{}", fake.port());
    let name = parsed(&format!("{host}/a:1"));
    client(&host).resolve(&name).unwrap();
    client("REG.test").resolve(&name).unwrap();
    client("other.test").resolve(&name).unwrap_err();
    client("reg.test:1").resolve(&name).unwrap_err();
}

#[test]
fn a_star_is_every_registry_and_no_plain_download() {
    let fake = tls_registry(SELF_SIGNED, SELF_SIGNED_KEY, false);
    let machine = Machine::new();
    machine.hosts(&["reg.test"]);
    let name = parsed(&format!("reg.test:{}/a:1", fake.port()));
    machine.client().resolve(&name).unwrap_err();
    let options = RegistryOptions {
        insecure: vec!["*".to_owned()],
        ..RegistryOptions::default()
    };
    machine
        .client_with(&[], options.clone())
        .resolve(&name)
        .unwrap();
    let rules = super::super::rules::Rules::new(&options).unwrap();
    assert!(rules.is_insecure("reg.test"));
    assert!(!rules.for_downloads().is_insecure("reg.test"));
}

#[test]
fn attempts_are_as_many_as_the_user_says() {
    use std::time::Duration;

    use super::super::retry::Tuning;

    let tuning = |retries, retry_delay| {
        let options = RegistryOptions {
            retries,
            retry_delay,
            ..RegistryOptions::default()
        };
        let tuning = Tuning::default().asked(&options);
        (tuning.tries, tuning.pause, tuning.longest_pause)
    };
    let usual = Tuning::default();
    assert_eq!(
        tuning(None, None),
        (usual.tries, usual.pause, usual.longest_pause)
    );
    let minute = Duration::from_secs(60);
    assert_eq!(tuning(Some(0), Some(minute)), (1, minute, minute));
    assert_eq!(tuning(Some(u32::MAX), None).0, u32::MAX);
}
