//! Which host is asked, over what, and with whose certificates.

use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::fake::{Access, Fault, Wrap};
use super::certificates::{
    AUTHORITY, CLIENT, CLIENT_KEY, SELF_SIGNED, SELF_SIGNED_KEY, SERVER, SERVER_KEY,
};
use super::*;

/// Returns a wrap that speaks TLS; with `clients`, only to those that show a certificate of the authority.
pub(super) fn tls(certificate: &str, key: &str, clients: bool) -> Wrap {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let builder = if clients {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(AUTHORITY.as_bytes()).unwrap())
            .unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let config = Arc::new(builder.with_single_cert(vec![certificate], key).unwrap());
    Box::new(move |connection| {
        let session = rustls::ServerConnection::new(config.clone()).unwrap();
        Ok(Box::new(rustls::StreamOwned::new(session, connection)))
    })
}

pub(super) fn tls_registry(certificate: &str, key: &str, clients: bool) -> FakeRegistry {
    let wrap = tls(certificate, key, clients);
    let fake = FakeRegistry::start_wrapped(Access::Open, "https", Some(wrap));
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    fake
}

fn mirrors(mirrors: &[(&str, String)]) -> RegistryOptions {
    RegistryOptions {
        mirrors: mirrors
            .iter()
            .map(|(host, url)| ((*host).to_owned(), url.clone()))
            .collect(),
        ..RegistryOptions::default()
    }
}

fn client_for(options: RegistryOptions) -> Client {
    client_with(&[], options, Threads::Some, |_| {})
}

#[test]
fn loopback_hosts_are_asked_for_https_once_and_remembered() {
    let fake = FakeRegistry::start();
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let client = client();
    client.resolve(&image(&fake, "a:1")).unwrap();
    client.resolve(&image(&fake, "a:1")).unwrap();
    assert_eq!(
        fake.take_lines(),
        [
            "TLS  400",
            "HEAD /v2/a/manifests/1 200",
            "HEAD /v2/a/manifests/1 200"
        ]
    );
    assert!(!client.has_loaded_roots());
    let local: ImageRef = format!("localhost:{}/a:1", fake.port()).parse().unwrap();
    client.resolve(&local).unwrap();
}

#[test]
fn requests_name_the_program() {
    let fake = FakeRegistry::start();
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    client().manifest(&image(&fake, "a:1")).unwrap();
    let log = fake.take_log();
    let entry = log.last().unwrap();
    let agent = entry.header("user-agent").unwrap();
    assert_eq!(agent, format!("builder/{}", env!("CARGO_PKG_VERSION")));
    let accept = entry.header("accept").unwrap();
    for kind in [
        "oci.image.index",
        "oci.image.manifest",
        "manifest.list",
        "docker.distribution.manifest.v2",
    ] {
        assert!(accept.contains(kind), "{accept}");
    }
}

#[test]
fn certificates_are_checked_against_the_roots_that_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let authority = write("ca.pem", AUTHORITY);
    let own = write("own.pem", SELF_SIGNED);
    let empty = write("empty.pem", "");
    let with_roots = |path: &str| {
        client_with(
            &[("SSL_CERT_FILE", path)],
            RegistryOptions::default(),
            Threads::Some,
            |_| {},
        )
    };
    let fake = tls_registry(SERVER, SERVER_KEY, false);
    let client = with_roots(&authority);
    client.resolve(&image(&fake, "a:1")).unwrap();
    assert!(client.has_loaded_roots());
    // Another authority: refused, and plain HTTP is not tried with a host that speaks TLS.
    fake.take_log();
    let error = with_roots(&own).resolve(&image(&fake, "a:1")).unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("SSL_CERT_FILE") && hint.contains("--insecure-registry"),
        "{hint}"
    );
    assert_eq!(lines(&fake), [""; 0]);
    let error = with_roots(&empty)
        .resolve(&image(&fake, "a:1"))
        .unwrap_err();
    assert!(told(&error).contains("SSL_CERT_FILE"), "{}", told(&error));
    // A directory of them, whatever the files are called.
    let folder = directory.path().join("certificates");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("README"), "nothing to see").unwrap();
    std::fs::write(folder.join("corp.pem"), AUTHORITY).unwrap();
    let with_directory = |path: &Path| {
        client_with(
            &[("SSL_CERT_DIR", path.to_str().unwrap())],
            RegistryOptions::default(),
            Threads::Some,
            |_| {},
        )
    };
    with_directory(&folder)
        .resolve(&image(&fake, "a:1"))
        .unwrap();
    std::fs::remove_file(folder.join("corp.pem")).unwrap();
    let error = with_directory(&folder)
        .resolve(&image(&fake, "a:1"))
        .unwrap_err();
    assert!(told(&error).contains("SSL_CERT_DIR"), "{}", told(&error));
    // The name must be the server's, too.
    let other: ImageRef = format!("127.0.0.2:{}/a:1", fake.port()).parse().unwrap();
    with_roots(&authority).resolve(&other).unwrap_err();
    // A server that is its own authority, named as such.
    let fake = tls_registry(SELF_SIGNED, SELF_SIGNED_KEY, false);
    with_roots(&own).resolve(&image(&fake, "a:1")).unwrap();
    with_roots(&authority)
        .resolve(&image(&fake, "a:1"))
        .unwrap_err();
}

#[test]
fn insecure_hosts_show_any_certificate() {
    let fake = tls_registry(SERVER, SERVER_KEY, false);
    let client = client_for(RegistryOptions {
        insecure: vec![fake.host()],
        ..RegistryOptions::default()
    });
    client.resolve(&image(&fake, "a:1")).unwrap();
    assert!(!client.has_loaded_roots());
}

#[test]
fn hosts_may_have_certificates_of_their_own() {
    let etc = tempfile::tempdir().unwrap();
    let fake = tls_registry(SERVER, SERVER_KEY, true);
    let directory = etc.path().join("docker/certs.d").join(fake.host());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("ca.crt"), AUTHORITY).unwrap();
    let client = || {
        Client::with(
            &RegistryOptions::default(),
            Threads::Some,
            Environment::of(etc.path(), &[]),
            Tuning::for_tests(),
        )
        .unwrap()
    };
    // The server wants to see one as well.
    client().resolve(&image(&fake, "a:1")).unwrap_err();
    std::fs::write(directory.join("me.cert"), CLIENT).unwrap();
    let error = client().resolve(&image(&fake, "a:1")).unwrap_err();
    assert!(told(&error).contains("me.key"), "{}", told(&error));
    std::fs::write(directory.join("me.key"), CLIENT_KEY).unwrap();
    client().resolve(&image(&fake, "a:1")).unwrap();
}

#[test]
fn names_come_from_the_hosts_file_and_unknown_ones_are_not_tried_again() {
    let etc = tempfile::tempdir().unwrap();
    std::fs::write(etc.path().join("hosts"), "127.0.0.1 reg.test\n").unwrap();
    let fake = FakeRegistry::start();
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let client = Client::with(
        &RegistryOptions {
            insecure: vec!["reg.test".to_owned()],
            ..RegistryOptions::default()
        },
        Threads::Some,
        Environment::of(etc.path(), &[]),
        Tuning::for_tests(),
    )
    .unwrap();
    let image = |host: &str| -> ImageRef { format!("{host}:{}/a:1", fake.port()).parse().unwrap() };
    client.resolve(&image("reg.test")).unwrap();
    let error = client.resolve(&image("other.test")).unwrap_err();
    assert!(told(&error).contains("resolv.conf"), "{}", told(&error));
}

#[test]
fn without_a_word_from_the_user_plain_http_is_for_loopback_only() {
    let etc = tempfile::tempdir().unwrap();
    std::fs::write(etc.path().join("hosts"), "127.0.0.1 reg.test\n").unwrap();
    let fake = FakeRegistry::start();
    let client = Client::with(
        &RegistryOptions::default(),
        Threads::Some,
        Environment::of(etc.path(), &[]),
        Tuning::for_tests(),
    )
    .unwrap();
    let image: ImageRef = format!("reg.test:{}/a:1", fake.port()).parse().unwrap();
    let error = client.resolve(&image).unwrap_err();
    assert!(
        error
            .hint()
            .unwrap()
            .contains("--insecure-registry reg.test"),
        "{}",
        told(&error)
    );
    assert!(fake.take_lines().iter().all(|line| line.starts_with("TLS")));
}

#[test]
fn mirrors_are_asked_first_and_the_registry_in_the_end() {
    let (mirror, registry) = (FakeRegistry::start(), FakeRegistry::start());
    let (old, new) = (manifest("old"), manifest("new"));
    mirror.put_manifest("proxy/a", "1", MANIFEST, &old);
    registry.put_manifest("a", "1", MANIFEST, &new);
    registry.put_manifest("a", "2", MANIFEST, &new);
    let options = mirrors(&[(&registry.host(), format!("{}/proxy", mirror.url()))]);
    let client = client_for(options.clone());
    assert_eq!(
        client.manifest(&image(&registry, "a:1")).unwrap().bytes,
        old
    );
    assert_eq!(registry.take_lines(), [""; 0]);
    // What it lacks and what it breaks comes from the registry.
    assert_eq!(
        client.manifest(&image(&registry, "a:2")).unwrap().bytes,
        new
    );
    mirror.faults("GET", "", &Fault::Status(500), 2);
    assert_eq!(
        client.manifest(&image(&registry, "a:1")).unwrap().bytes,
        new
    );
    assert_eq!(mirror.faults_left(), 0);
    // Pushes go to the registry, and so does the question for what is there.
    mirror.take_log();
    client
        .push_manifest(&image(&registry, "a:3"), MANIFEST, &old)
        .unwrap();
    client
        .has_blob(&image(&registry, "a"), &Digest::of(b""))
        .unwrap();
    assert_eq!(
        client.tags(&image(&registry, "a")).unwrap(),
        ["1", "2", "3"]
    );
    assert_eq!(mirror.take_lines(), [""; 0]);
    // Where all fail, all are named.
    mirror.faults("GET", "", &Fault::Status(502), 2);
    let error = client.manifest(&image(&registry, "a:9")).unwrap_err();
    assert!(error.is_not_found());
    assert!(told(&error).contains("502"), "{}", told(&error));
    let error = client.manifest(&image(&registry, "a:9")).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    let said = told(&error);
    assert!(
        said.contains(&format!("`{}`: not there", mirror.host())),
        "{said}"
    );
}

#[test]
fn a_mirror_that_keeps_failing_is_left_out() {
    let (mirror, registry) = (FakeRegistry::start(), FakeRegistry::start());
    registry.put_manifest("a", "1", MANIFEST, &manifest("a"));
    mirror.faults("", "", &Fault::Status(503), 99);
    let client = client_for(mirrors(&[(&registry.host(), mirror.url())]));
    for _ in 0..6 {
        client.manifest(&image(&registry, "a:1")).unwrap();
    }
    // Two attempts each of three undertakings.
    assert_eq!(99 - mirror.faults_left(), 6);
    let error = client.manifest(&image(&registry, "a:9")).unwrap_err();
    assert!(told(&error).contains("503"), "{}", told(&error));
}

#[test]
fn a_mirror_that_wants_to_be_left_alone_is_not_waited_for() {
    let (mirror, registry) = (FakeRegistry::start(), FakeRegistry::start());
    registry.put_manifest("a", "1", MANIFEST, &manifest("a"));
    mirror.faults("", "", &Fault::RetryAfter(429, "50".to_owned()), 9);
    let client = client_for(mirrors(&[(&registry.host(), mirror.url())]));
    client.manifest(&image(&registry, "a:1")).unwrap();
    assert_eq!(9 - mirror.faults_left(), 1);
}

#[test]
fn a_mirror_whose_certificate_is_wrong_is_left_out() {
    let registry = FakeRegistry::start();
    registry.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let mirror = tls_registry(SERVER, SERVER_KEY, false);
    let client = client_for(mirrors(&[(&registry.host(), mirror.url())]));
    client.manifest(&image(&registry, "a:1")).unwrap();
    assert_eq!(lines(&mirror), [""; 0]);
    let error = client.manifest(&image(&registry, "a:9")).unwrap_err();
    assert!(
        told(&error).contains("no secure connection"),
        "{}",
        told(&error)
    );
}

#[test]
fn a_dead_mirror_is_left_out_after_the_first_time() {
    let registry = FakeRegistry::start();
    registry.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let mirror = FakeRegistry::start();
    let url = mirror.url();
    mirror.faults("", "", &Fault::Stall, 9);
    let client = client_with(
        &[],
        mirrors(&[(&registry.host(), url)]),
        Threads::Some,
        |tuning| tuning.idle = std::time::Duration::from_millis(200),
    );
    client.resolve(&image(&registry, "a:1")).unwrap();
    let asked = 9 - mirror.faults_left();
    assert_eq!(asked, 2);
    client.resolve(&image(&registry, "a:1")).unwrap();
    assert_eq!(9 - mirror.faults_left(), 2);
}

#[test]
fn a_blob_that_a_mirror_cannot_finish_is_finished_by_the_registry() {
    let (mirror, registry) = (FakeRegistry::start(), FakeRegistry::start());
    let bytes = noise(100_000);
    mirror.put_blob("a", &bytes);
    registry.put_blob("a", &bytes);
    let client = client_for(mirrors(&[(&registry.host(), mirror.url())]));
    mirror.fault("GET", "blobs", Fault::TruncateBody(40_000));
    mirror.faults("GET", "blobs", &Fault::Status(404), 9);
    assert!(pull(&client, &image(&registry, "a"), &descriptor(&bytes)) == Ok(bytes.clone()));
    let log = registry.take_log();
    assert_eq!(log.last().unwrap().header("range"), Some("bytes=40000-"));
    // A mirror that lies is not asked again.
    let client = client_for(mirrors(&[(&registry.host(), mirror.url())]));
    drop(mirror.take_log());
    let mirror = FakeRegistry::start();
    mirror.put_blob_as("a", &Digest::of(&bytes).to_string(), &noise(100_008)[8..]);
    drop(client);
    let client = client_for(mirrors(&[(&registry.host(), mirror.url())]));
    let error = pull(&client, &image(&registry, "a"), &descriptor(&bytes)).unwrap_err();
    assert!(error.contains("DigestMismatch"), "{error}");
    assert!(pull(&client, &image(&registry, "a"), &descriptor(&bytes)) == Ok(bytes));
}

#[test]
fn mirrors_get_their_own_credentials_and_no_others() {
    let mirror = FakeRegistry::start();
    let registry = FakeRegistry::start_with(Access::Basic {
        user: "me".into(),
        password: "hunter2".into(),
    });
    registry.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let text = account(&registry.host(), "me", "hunter2");
    // The mirror demands credentials: those of the registry are not for it.
    let challenge = FakeRegistry::start_with(Access::Basic {
        user: "me".into(),
        password: "hunter2".into(),
    });
    let client = client_with(
        &[("DOCKER_AUTH_CONFIG", &text)],
        mirrors(&[
            (&registry.host(), mirror.url()),
            (&registry.host(), challenge.url()),
        ]),
        Threads::Some,
        |_| {},
    );
    client.resolve(&image(&registry, "a:1")).unwrap();
    for fake in [&mirror, &challenge] {
        let log = fake.take_log();
        assert!(!log.is_empty());
        assert!(
            log.iter()
                .all(|entry| entry.header("authorization").is_none())
        );
    }
}

/// Runs one test of this program again in a process of its own, where it does what its variable says.
fn in_child(test: &str, variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("registry::tests::hosts::{test}"),
            "--nocapture",
        ])
        .args(["--test-threads", "1"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn without_threads_no_thread_is_started() {
    const CHILD: &str = "BUILDER_TEST_THREADLESS";
    if let Ok(port) = std::env::var(CHILD) {
        let count = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let before = count();
        let client = client_with(&[], RegistryOptions::default(), Threads::None, |_| {});
        let image: ImageRef = format!("localhost:{port}/a:1").parse().unwrap();
        client.manifest(&image).unwrap();
        let bytes = noise(2_000_000);
        let mut reader = client.blob(&image, &descriptor(&bytes)).unwrap();
        reader.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(count(), before);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(io::Cursor::new(
                noise(2_000_000)[offset as usize..].to_vec(),
            )))
        };
        let to: ImageRef = format!("localhost:{port}/b:1").parse().unwrap();
        client
            .push_blob(&to, &descriptor(&bytes), &open, &[], &|_| {
                assert_eq!(count(), before);
            })
            .unwrap();
        assert_eq!(count(), before);
        return;
    }
    let fake = FakeRegistry::start();
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    fake.put_blob("a", &noise(2_000_000));
    in_child(
        "without_threads_no_thread_is_started",
        &[(CHILD, &fake.port().to_string())],
    );
    assert!(
        fake.blob("b", &Digest::of(&noise(2_000_000)).to_string())
            .is_some()
    );
}
