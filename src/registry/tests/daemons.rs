//! What the files of containerd, BuildKit and Docker mean for real requests.

use super::certificates::{AUTHORITY, CLIENT, CLIENT_KEY, SERVER, SERVER_KEY};
use super::config::{Machine, hosts_toml, note, parsed, registry};
use super::hosts::tls_registry;
use super::*;

#[test]
fn hosts_toml_says_who_is_asked_for_what() {
    let fakes = ["pull", "both", "server"].map(registry);
    let bytes = noise(500);
    for fake in &fakes {
        fake.put_blob("a", &bytes);
    }
    let machine = Machine::new();
    hosts_toml(
        &machine,
        "name.test_5000_",
        &format!(
            "server = '{}'\n[host.'{}']\ncapabilities = ['pull']\n[host.'{}']\ncapabilities = ['pull', 'resolve']\n",
            fakes[2].url(),
            fakes[0].url(),
            fakes[1].url()
        ),
    );
    let client = machine.client();
    assert_eq!(note(&client, "name.test:5000/a:1"), "both");
    pull(&client, &parsed("name.test:5000/a:1"), &descriptor(&bytes)).unwrap();
    client
        .push_manifest(&parsed("name.test:5000/a:2"), MANIFEST, &manifest("x"))
        .unwrap();
    let digest = Digest::of(&bytes);
    assert_eq!(
        lines(&fakes[0]),
        [format!("GET /v2/a/blobs/{digest}?ns=name.test:5000 200")]
    );
    assert_eq!(
        lines(&fakes[1]),
        ["GET /v2/a/manifests/1?ns=name.test:5000 200"]
    );
    assert_eq!(lines(&fakes[2]), ["PUT /v2/a/manifests/2 201"]);
}

#[test]
fn hosts_toml_says_where_pushes_go() {
    let (writer, other) = (FakeRegistry::start(), FakeRegistry::start());
    let machine = Machine::new();
    hosts_toml(
        &machine,
        "_default",
        &format!(
            "[host.'{}']\ncapabilities = ['pull', 'resolve']\n[host.'{}']\ncapabilities = ['push']\n",
            other.url(),
            writer.url()
        ),
    );
    let client = machine.client();
    client
        .push_manifest(&parsed("name.test/a:1"), MANIFEST, &manifest("x"))
        .unwrap();
    let open = |_| -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(b"bytes".to_vec())))
    };
    client
        .push_blob(
            &parsed("name.test/a:1"),
            &descriptor(b"bytes"),
            &open,
            &[],
            &|_| (),
        )
        .unwrap();
    assert!(writer.manifest("a", "1").is_some());
    assert!(
        writer
            .blob("a", &Digest::of(b"bytes").to_string())
            .is_some()
    );
    assert_eq!(lines(&other), [""; 0]);
    // One logs in where the name says, all the same.
    let secret = crate::vocab::Secret::new("x".to_owned());
    client.check_login(&other.host(), "me", &secret).unwrap();
    assert_eq!(other.take_log().last().unwrap().line(), "GET /v2/ 200");
    // A registry of its own has a directory of its own.
    let path = hosts_toml(
        &machine,
        "never.test",
        "capabilities = ['pull', 'resolve']\n",
    );
    let error = client
        .push_manifest(&parsed("never.test/a:1"), MANIFEST, &manifest("x"))
        .unwrap_err();
    assert!(told(&error).contains(&path), "{}", told(&error));
}

#[test]
fn headers_of_hosts_toml_go_to_that_host_alone() {
    let (mirror, storage) = (registry("mirror"), FakeRegistry::start());
    let bytes = noise(500);
    let digest = Digest::of(&bytes).to_string();
    mirror.put_blob("a", &bytes);
    storage.put_blob("a", &bytes);
    mirror.habits(|habits| habits.redirects_blobs_to = Some(storage.url()));
    let machine = Machine::new();
    hosts_toml(
        &machine,
        "name.test",
        &format!(
            "[host.'{0}']\n[host.'{0}'.header]\nAuthorization = 'Bearer hunter2'\nx-team = ['a', 'b']\n",
            mirror.url()
        ),
    );
    let client = machine.client();
    // The storage refuses, being a registry; what it was sent is what matters.
    drop(pull(&client, &parsed("name.test/a"), &descriptor(&bytes)));
    let asked = mirror.take_log();
    let blob = asked
        .iter()
        .find(|entry| entry.target.contains(&digest))
        .unwrap();
    assert_eq!(blob.header("authorization"), Some("Bearer hunter2"));
    assert!(blob.header("x-team").is_some());
    let log = storage.take_log();
    assert!(!log.is_empty());
    for entry in log {
        assert_eq!(entry.header("authorization"), None);
        assert_eq!(entry.header("x-team"), None);
    }
    let failed = client.manifest(&parsed("name.test/a:9")).unwrap_err();
    assert!(!told(&failed).contains("hunter2"), "{}", told(&failed));
}

#[test]
fn hosts_toml_says_how_certificates_are_checked() {
    let fake = tls_registry(SERVER, SERVER_KEY, true);
    let machine = Machine::new();
    machine.hosts(&["reg.test"]);
    let port = fake.port();
    let host = format!("reg.test:{port}");
    let name = parsed(&format!("{host}/a:1"));
    let fails = |text: &str| {
        hosts_toml(&machine, &host, text);
        machine.client().resolve(&name).unwrap_err()
    };
    machine.write(&format!("etc/containerd/certs.d/{host}/ca.pem"), AUTHORITY);
    machine.write(
        &format!("etc/containerd/certs.d/{host}/both.pem"),
        &format!("{CLIENT}{CLIENT_KEY}"),
    );
    fails("client = 'both.pem'\n");
    fails("ca = 'ca.pem'\n");
    hosts_toml(&machine, &host, "ca = 'ca.pem'\nclient = 'both.pem'\n");
    machine.client().resolve(&name).unwrap();
    hosts_toml(&machine, &host, "skip_verify = true\nclient = 'both.pem'\n");
    machine.client().resolve(&name).unwrap();
    let error = fails("ca = 'other.pem'\n");
    assert!(told(&error).contains("other.pem"), "{}", told(&error));
    // Without the file, certificates beside it are Docker's way.
    machine.remove(&format!("etc/containerd/certs.d/{host}/hosts.toml"));
    let directory = format!("etc/containerd/certs.d/reg.test_{port}_");
    machine.write(&format!("{directory}/ca.crt"), AUTHORITY);
    machine.write(&format!("{directory}/c.cert"), CLIENT);
    machine.write(&format!("{directory}/c.key"), CLIENT_KEY);
    machine.client().resolve(&name).unwrap();
}

#[test]
fn daemon_json_has_mirrors_of_docker_hub_and_insecure_hosts() {
    let (mirror, plain) = (FakeRegistry::start(), registry("plain"));
    mirror.put_manifest("library/alpine", "1", MANIFEST, &manifest("mirror"));
    let machine = Machine::new();
    machine.hosts(&["plain.test"]);
    machine.write(
        "etc/docker/daemon.json",
        &format!(
            r#"{{"registry-mirrors": ["{}"], "insecure-registries": ["plain.test:{}"], "debug": true}}"#,
            mirror.url(),
            plain.port()
        ),
    );
    let client = machine.client();
    assert_eq!(note(&client, "alpine:1"), "mirror");
    assert_eq!(
        note(&client, &format!("plain.test:{}/a:1", plain.port())),
        "plain"
    );
    assert_eq!(lines(&mirror), ["GET /v2/library/alpine/manifests/1 200"]);
    // The user's own stands for the system's.
    machine.write("home/.config/docker/daemon.json", "{}");
    let name = parsed(&format!("plain.test:{}/a:1", plain.port()));
    machine.client().manifest(&name).unwrap_err();
}

#[test]
fn buildkitd_toml_has_mirrors_and_certificates_by_registry() {
    let (mirror, secure) = (
        FakeRegistry::start(),
        tls_registry(SERVER, SERVER_KEY, true),
    );
    mirror.put_manifest("hub/library/alpine", "1", MANIFEST, &manifest("mirror"));
    let machine = Machine::new();
    machine.hosts(&["reg.test", "mirror.test"]);
    let ca = machine.write("ca.pem", AUTHORITY);
    let cert = machine.write("c.pem", CLIENT);
    let key = machine.write("k.pem", CLIENT_KEY);
    let reg = format!("reg.test:{}", secure.port());
    let text = format!(
        "[registry.'docker.io']\nmirrors = ['mirror.test:{0}/hub']\n[registry.'mirror.test:{0}']\nhttp = true\n[registry.'{reg}']\nca = ['{ca}']\n[[registry.'{reg}'.keypair]]\ncert = '{cert}'\nkey = '{key}'\n",
        mirror.port()
    );
    machine.write("etc/buildkit/buildkitd.toml", &text);
    let client = machine.client();
    assert_eq!(note(&client, "alpine:1"), "mirror");
    // Plain at once: no handshake was tried.
    assert_eq!(
        mirror.take_lines(),
        ["GET /v2/hub/library/alpine/manifests/1?ns=docker.io 200"]
    );
    client.resolve(&parsed(&format!("{reg}/a:1"))).unwrap();
    let without = text.split("[[registry").next().unwrap();
    machine.write("etc/buildkit/buildkitd.toml", without);
    machine
        .client()
        .resolve(&parsed(&format!("{reg}/a:1")))
        .unwrap_err();
    let insecure = format!("[registry.'{reg}']\ninsecure = true\ntlsconfigdir = ['tls']\n");
    machine.write("etc/buildkit/buildkitd.toml", &insecure);
    machine.write("etc/buildkit/tls/a.cert", CLIENT);
    machine.write("etc/buildkit/tls/a.key", CLIENT_KEY);
    machine
        .client()
        .resolve(&parsed(&format!("{reg}/a:1")))
        .unwrap();
}
