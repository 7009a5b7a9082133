//! What other tools' files mean for real requests.

use super::certificates::{SERVER, SERVER_KEY};
use super::hosts::tls_registry;
use super::*;

/// A machine's files: `/etc` and a home.
pub(super) struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    pub(super) fn new() -> Machine {
        Machine {
            root: tempfile::tempdir().unwrap(),
        }
    }

    /// Writes a file below the root and returns its path.
    pub(super) fn write(&self, path: &str, text: &str) -> String {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(super) fn remove(&self, path: &str) {
        std::fs::remove_file(self.root.path().join(path)).unwrap();
    }

    /// Has names be this machine's, without being loopback by their name.
    pub(super) fn hosts(&self, names: &[&str]) {
        self.write("etc/hosts", &format!("127.0.0.1 {}\n", names.join(" ")));
    }

    pub(super) fn client(&self) -> Client {
        self.client_with(&[], RegistryOptions::default())
    }

    pub(super) fn client_with(
        &self,
        variables: &[(&'static str, &str)],
        options: RegistryOptions,
    ) -> Client {
        let home = self.root.path().join("home");
        let mut all: Vec<(&'static str, &OsStr)> = vec![("HOME", home.as_os_str())];
        all.extend(
            variables
                .iter()
                .map(|(name, value)| (*name, OsStr::new(*value))),
        );
        let environment = Environment::of(&self.root.path().join("etc"), &all);
        Client::with(&options, Threads::Some, environment, Tuning::for_tests()).unwrap()
    }
}

/// Returns a registry that has `a:1` with a text of its own.
pub(super) fn registry(note: &str) -> FakeRegistry {
    let fake = FakeRegistry::start();
    fake.put_manifest("a", "1", MANIFEST, &manifest(note));
    fake
}

pub(super) fn parsed(text: &str) -> ImageRef {
    text.parse().unwrap()
}

/// Returns the text of the registry that answered.
pub(super) fn note(client: &Client, name: &str) -> String {
    let fetched = client.manifest(&parsed(name)).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&fetched.bytes).unwrap();
    document["annotations"]["note"].as_str().unwrap().to_owned()
}

/// Writes the file of containerd about a registry.
pub(super) fn hosts_toml(machine: &Machine, host: &str, text: &str) -> String {
    machine.write(&format!("etc/containerd/certs.d/{host}/hosts.toml"), text)
}

const REGISTRIES: &str = "etc/containers/registries.conf";

#[test]
fn registries_conf_puts_names_elsewhere_with_mirrors_in_front() {
    let (mirror, place) = (FakeRegistry::start(), FakeRegistry::start());
    mirror.put_manifest("cache/b", "1", MANIFEST, &manifest("mirror"));
    place.put_manifest("t/b", "1", MANIFEST, &manifest("place"));
    place.put_manifest("t/c", "1", MANIFEST, &manifest("place"));
    let machine = Machine::new();
    machine.write(
        REGISTRIES,
        &format!(
            "[[registry]]\nprefix = 'name.test/team'\nlocation = '{}/t'\n[[registry.mirror]]\nlocation = '{}/cache'\n",
            place.host(),
            mirror.host()
        ),
    );
    let client = machine.client();
    assert_eq!(note(&client, "name.test/team/b:1"), "mirror");
    assert_eq!(note(&client, "name.test/team/c:1"), "place");
    assert_eq!(
        lines(&mirror),
        [
            "GET /v2/cache/b/manifests/1 200",
            "GET /v2/cache/c/manifests/1 404"
        ]
    );
    assert_eq!(lines(&place), ["GET /v2/t/c/manifests/1 200"]);
    // All places are named where none has it.
    let said = told(&client.manifest(&parsed("name.test/team/d:1")).unwrap_err());
    assert!(
        said.contains(&mirror.host()) && said.contains(&place.host()),
        "{said}"
    );
}

#[test]
fn registries_conf_says_which_hosts_are_insecure() {
    let fake = registry("plain");
    let port = fake.port();
    let machine = Machine::new();
    machine.hosts(&["plain.test", "other.test"]);
    let name = format!("plain.test:{port}/a:1");
    machine.client().manifest(&parsed(&name)).unwrap_err();
    machine.write(
        REGISTRIES,
        &format!("[[registry]]\nlocation = 'plain.test:{port}'\ninsecure = true\n"),
    );
    assert_eq!(note(&machine.client(), &name), "plain");
    let other = format!("other.test:{port}/a:1");
    machine.client().manifest(&parsed(&other)).unwrap_err();
    // A path that is insecure says nothing of the rest of the host.
    machine.write(
        REGISTRIES,
        &format!("[[registry]]\nlocation = 'plain.test:{port}/b'\ninsecure = true\n"),
    );
    machine.client().manifest(&parsed(&name)).unwrap_err();
    let tls = tls_registry(SERVER, SERVER_KEY, false);
    let name = format!("plain.test:{}/a:1", tls.port());
    machine.write(
        REGISTRIES,
        &format!(
            "[[registry]]\nlocation = 'plain.test:{}'\ninsecure = true\n",
            tls.port()
        ),
    );
    machine.client().manifest(&parsed(&name)).unwrap();
}

#[test]
fn registries_conf_blocks_before_anybody_is_asked() {
    let (mirror, fake) = (registry("mirror"), registry("source"));
    let machine = Machine::new();
    let blocked = format!(
        "[[registry]]\nlocation = '{}'\nblocked = true\n",
        fake.host()
    );
    let path = machine.write(REGISTRIES, &blocked);
    let name = format!("{}/a:1", fake.host());
    let client = machine.client();
    let error = client.manifest(&parsed(&name)).unwrap_err();
    assert!(matches!(error, RegistryError::Blocked { .. }), "{error:?}");
    assert!(told(&error).contains(&path), "{}", told(&error));
    client.resolve(&parsed(&name)).unwrap_err();
    pull(&client, &parsed(&name), &descriptor(b"x")).unwrap_err();
    client
        .push_manifest(&parsed(&name), MANIFEST, &manifest("x"))
        .unwrap_err();
    // Its mirrors are what remains.
    machine.write(
        REGISTRIES,
        &format!(
            "{blocked}[[registry.mirror]]\nlocation = '{}'\n",
            mirror.host()
        ),
    );
    let client = machine.client();
    assert_eq!(note(&client, &name), "mirror");
    let missing = client.manifest(&parsed(&format!("{}/a:2", fake.host())));
    assert!(told(&missing.unwrap_err()).contains("blocked"));
    assert_eq!(lines(&fake), [""; 0]);
    machine.client().resolve(&parsed(&name)).unwrap();
}

#[test]
fn mirrors_for_digests_are_not_asked_for_tags() {
    let (mirror, fake) = (FakeRegistry::start(), registry("new"));
    let bytes = noise(1000);
    for fake in [&mirror, &fake] {
        fake.put_blob("a", &bytes);
    }
    mirror.put_manifest("a", "1", MANIFEST, &manifest("old"));
    let machine = Machine::new();
    machine.write(
        REGISTRIES,
        &format!(
            "[[registry]]\nlocation = '{}'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = '{}'\n",
            fake.host(),
            mirror.host()
        ),
    );
    let client = machine.client();
    let name = image(&fake, "a:1");
    assert_eq!(note(&client, &name.to_string()), "new");
    assert_eq!(lines(&mirror), [""; 0]);
    assert!(pull(&client, &name, &descriptor(&bytes)) == Ok(bytes));
    let old = Digest::of(&manifest("old"));
    client.manifest(&name.with_digest(old)).unwrap();
    assert_eq!(lines(&mirror).len(), 2);
}

#[test]
fn short_names_follow_aliases_and_search_lists() {
    let (first, second) = (FakeRegistry::start(), FakeRegistry::start());
    second.put_manifest("debian", "12", MANIFEST, &manifest("second"));
    first.put_manifest("other/place", "12", MANIFEST, &manifest("alias"));
    let machine = Machine::new();
    machine.write(
        REGISTRIES,
        &format!(
            "unqualified-search-registries = ['{}', '{}']\n[aliases]\n'app' = '{}/other/place'\n",
            first.host(),
            second.host(),
            first.host()
        ),
    );
    let client = machine.client();
    assert_eq!(note(&client, "debian:12"), "second");
    assert_eq!(note(&client, "app:12"), "alias");
    assert_eq!(
        lines(&first),
        [
            "GET /v2/debian/manifests/12 404",
            "GET /v2/other/place/manifests/12 200"
        ]
    );
    let said = told(&client.manifest(&parsed("debian:13")).unwrap_err());
    assert!(
        said.contains(&first.host()) && said.contains(&second.host()),
        "{said}"
    );
    lines(&first);
    // A host that was written is the host that is meant; so is the one of a push.
    for _ in 0..2 {
        let error = client
            .manifest(&parsed("docker.io/library/debian:12"))
            .unwrap_err();
        assert!(
            told(&error).contains("registry-1.docker.io"),
            "{}",
            told(&error)
        );
    }
    let error = client
        .push_manifest(&parsed("app:12"), MANIFEST, &manifest("x"))
        .unwrap_err();
    assert!(
        told(&error).contains("registry-1.docker.io"),
        "{}",
        told(&error)
    );
    assert_eq!(lines(&first), [""; 0]);
    // Docker's own registry among them: as ever.
    machine.write(
        "etc/containers/registries.conf.d/10.conf",
        &format!(
            "unqualified-search-registries = ['{}', 'docker.io']\n",
            second.host()
        ),
    );
    lines(&second);
    let error = machine.client().manifest(&parsed("debian:12")).unwrap_err();
    assert!(
        told(&error).contains("registry-1.docker.io"),
        "{}",
        told(&error)
    );
    assert_eq!(lines(&second), [""; 0]);
}

#[test]
fn what_was_pushed_is_found_where_it_was_pushed() {
    let (place, named) = (FakeRegistry::start(), FakeRegistry::start());
    let machine = Machine::new();
    machine.write(
        REGISTRIES,
        &format!(
            "[[registry]]\nprefix = '{}'\nlocation = '{}'\n",
            named.host(),
            place.host()
        ),
    );
    let client = machine.client();
    let name = image(&named, "a:1");
    let open = |_| -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(b"bytes".to_vec())))
    };
    client
        .push_blob(&name, &descriptor(b"bytes"), &open, &[], &|_| ())
        .unwrap();
    client
        .push_manifest(&name, MANIFEST, &manifest("x"))
        .unwrap();
    client.standing(&name).unwrap().unwrap();
    let mut reader = client.own_blob(&name, &descriptor(b"bytes")).unwrap();
    reader.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(lines(&place), [""; 0]);
    client.manifest(&name).unwrap_err();
    assert_eq!(lines(&place).len(), 1);
}

#[test]
fn a_user_s_files_go_before_the_system_s_and_named_ones_before_both() {
    let fakes = [
        "system",
        "drop-in",
        "user",
        "user's drop-in",
        "named",
        "named drop-in",
    ]
    .map(registry);
    let machine = Machine::new();
    let put = |fake: &FakeRegistry| {
        format!(
            "[[registry]]\nprefix = 'name.test'\nlocation = '{}'\n",
            fake.host()
        )
    };
    let said = |variables: &[(&'static str, &str)]| {
        let client = machine.client_with(variables, RegistryOptions::default());
        note(&client, "name.test/a:1")
    };
    machine.write(REGISTRIES, &put(&fakes[0]));
    assert_eq!(said(&[]), "system");
    machine.write("etc/containers/registries.conf.d/50.conf", &put(&fakes[1]));
    machine.write("etc/containers/registries.conf.d/60.txt", "not TOML");
    assert_eq!(said(&[]), "drop-in");
    machine.write("home/.config/containers/registries.conf", &put(&fakes[2]));
    assert_eq!(said(&[]), "user");
    let dir = machine.write(
        "home/.config/containers/registries.conf.d/1.conf",
        &put(&fakes[3]),
    );
    assert_eq!(said(&[]), "user's drop-in");
    machine.remove("home/.config/containers/registries.conf");
    assert_eq!(said(&[]), "user's drop-in");
    std::fs::remove_file(dir).unwrap();
    assert_eq!(said(&[]), "drop-in");
    let named = machine.write("mine.conf", &put(&fakes[4]));
    let own = machine.write("mine.d/1.conf", &put(&fakes[5]));
    let own = Path::new(&own).parent().unwrap().to_str().unwrap();
    assert_eq!(
        said(&[("CONTAINERS_REGISTRIES_CONF_DIR", own)]),
        "named drop-in"
    );
    assert_eq!(
        said(&[
            ("CONTAINERS_REGISTRIES_CONF", &named),
            ("CONTAINERS_REGISTRIES_CONF_DIR", "/nonexistent"),
        ]),
        "named"
    );
    // What was named is meant.
    let client = machine.client_with(
        &[("CONTAINERS_REGISTRIES_CONF", "/nonexistent")],
        RegistryOptions::default(),
    );
    let error = client.manifest(&parsed("name.test/a:1")).unwrap_err();
    assert!(told(&error).contains("/nonexistent"), "{}", told(&error));
}

#[test]
fn the_first_kind_of_file_that_speaks_of_a_registry_decides() {
    let fakes = ["flag", "containers", "containerd", "buildkit", "docker"].map(|note| {
        let fake = FakeRegistry::start();
        fake.put_manifest("library/a", "1", MANIFEST, &manifest(note));
        fake
    });
    let url = |at: usize| fakes[at].url();
    let machine = Machine::new();
    let files = [
        (
            REGISTRIES,
            format!(
                "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = '{}'\n",
                fakes[1].host()
            ),
        ),
        (
            "etc/containerd/certs.d/docker.io/hosts.toml",
            format!("[host.'{}']\n", url(2)),
        ),
        (
            "etc/buildkit/buildkitd.toml",
            format!("[registry.'docker.io']\nmirrors = ['{}']\n", url(3)),
        ),
        (
            "etc/docker/daemon.json",
            format!(r#"{{"registry-mirrors": ["{}"]}}"#, url(4)),
        ),
    ];
    for (path, text) in &files {
        machine.write(path, text);
    }
    let flags = RegistryOptions {
        mirrors: vec![("docker.io".to_owned(), url(0))],
        ..RegistryOptions::default()
    };
    let client = machine.client_with(&[], flags.clone());
    assert_eq!(note(&client, "a:1"), "flag");
    // After the flag's mirror come those of the file, and no other file's.
    let error = client.manifest(&parsed("a:9")).unwrap_err();
    assert!(
        told(&error).contains("registry-1.docker.io"),
        "{}",
        told(&error)
    );
    assert_eq!(lines(&fakes[0]).len(), 2);
    assert_eq!(lines(&fakes[1]).len(), 1);
    for fake in &fakes[2..] {
        assert_eq!(lines(fake), [""; 0]);
    }
    for (at, (path, _)) in files.iter().enumerate() {
        let expected = ["containers", "containerd", "buildkit", "docker"][at];
        assert_eq!(note(&machine.client(), "a:1"), expected);
        machine.remove(path);
    }
}

#[test]
fn files_are_read_with_the_first_question_and_once() {
    let (first, second) = (registry("first"), registry("second"));
    let machine = Machine::new();
    let put = |fake: &FakeRegistry| {
        format!(
            "[[registry]]\nprefix = 'name.test'\nlocation = '{}'\n",
            fake.host()
        )
    };
    let client = machine.client();
    machine.write(REGISTRIES, &put(&first));
    assert_eq!(note(&client, "name.test/a:1"), "first");
    machine.write(REGISTRIES, &put(&second));
    assert_eq!(note(&client, "name.test/a:1"), "first");
    assert_eq!(note(&machine.client(), "name.test/a:1"), "second");
}

#[test]
fn a_file_that_cannot_be_understood_stops_requests_and_says_where() {
    let fake = registry("a");
    let name = parsed(&format!("{}/a:1", fake.host()));
    for (file, text, line) in [
        (REGISTRIES, "\n[[registry]\n", 2),
        (
            "etc/containers/registries.conf.d/1.conf",
            "short-name-mode = 'x'",
            1,
        ),
        ("etc/docker/daemon.json", "{\n\n", 3),
        ("etc/buildkit/buildkitd.toml", "[registry]\n\nx = 1\n", 3),
    ] {
        let machine = Machine::new();
        let path = machine.write(file, text);
        let client = machine.client();
        let error = client.resolve(&name).unwrap_err();
        let said = told(&error);
        assert!(said.contains(&format!("`{path}`, line {line}")), "{said}");
        assert!(error.hint().is_some(), "{said}");
        client
            .push_manifest(&name, MANIFEST, &manifest("x"))
            .unwrap_err();
        client.tags(&name).unwrap_err();
        pull(&client, &name, &descriptor(b"")).unwrap_err();
    }
    let machine = Machine::new();
    let host = fake.host();
    hosts_toml(&machine, &host, "capabilities = 1\n");
    let said = told(&machine.client().resolve(&name).unwrap_err());
    assert!(said.contains("hosts.toml`, line 1"), "{said}");
    // Of another registry it says nothing.
    let other = registry("b");
    machine
        .client()
        .resolve(&parsed(&format!("{}/a:1", other.host())))
        .unwrap();
    assert_eq!(lines(&fake), [""; 0]);
}

#[test]
fn odd_files_are_neither_read_forever_nor_passed_over() {
    let machine = Machine::new();
    let path = machine.write(REGISTRIES, "");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let said = told(&machine.client().resolve(&parsed("a.test/b")).unwrap_err());
    assert!(said.contains("regular file"), "{said}");
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    let said = told(&machine.client().resolve(&parsed("a.test/b")).unwrap_err());
    assert!(said.contains("utf-8"), "{said}");
}

#[test]
fn downloads_do_not_depend_on_registries() {
    struct Nowhere;
    impl crate::registry::Sink for Nowhere {
        fn restart(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn take(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }
    let fake = registry("a");
    let machine = Machine::new();
    machine.write(REGISTRIES, "not TOML");
    let url = format!("{}/v2/", fake.url());
    let fetch = crate::registry::Fetch {
        url: &url,
        ..crate::registry::Fetch::default()
    };
    machine.client().download(&fetch, &mut Nowhere).unwrap();
}
