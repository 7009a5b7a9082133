//! Who one is at a registry: where credentials are looked for, and in which order.
//!
//! Places, in order: the file in `REGISTRY_AUTH_FILE`, `${XDG_RUNTIME_DIR}/containers/auth.json`,
//! `~/.config/containers/auth.json`, the text in `DOCKER_AUTH_CONFIG`, `${DOCKER_CONFIG:-~/.docker}/config.json`. The first place
//! that knows the registry decides. Within a place: the helper named for the registry (`credHelpers`), the entry with the longest
//! path (`auths`), the helper for everything (`credsStore`).
//!
//! Nothing is read before a registry asks who one is. A missing file says nothing; a file that cannot be read is an error if a
//! variable names it and is passed over otherwise (HOME may be another user's); a file that cannot be understood is an error.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::auth_file::{AuthFile, Credential, key_to_write};
use super::endpoint::canonical_registry;
use super::environment::Environment;
use super::error::RegistryError;
use super::helper::Helper;
use super::retry::Tuning;
use crate::vocab::Secret;

/// Looks credentials up, each place read once.
pub struct Credentials {
    pub(super) environment: Environment,
    pub(super) helper_limit: Duration,
    /// Given by name, before every place.
    given: Vec<(String, Credential)>,
    places: Mutex<Option<Arc<Vec<AuthFile>>>>,
    /// What helpers answered, by helper and registry: they may ask a network or a user.
    asked: Mutex<HashMap<(String, String), Option<Credential>>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Returns those that this process's user has.
    pub fn of_process() -> Credentials {
        Credentials::new(Environment::of_process(), Tuning::default().helper)
    }

    pub(super) fn new(environment: Environment, helper_limit: Duration) -> Credentials {
        Credentials {
            environment,
            helper_limit,
            given: Vec::new(),
            places: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// Adds a user name and a password that go before every file.
    pub fn with(mut self, registry: &str, user: &str, password: Secret<String>) -> Credentials {
        let credential = Credential::Password {
            user: user.to_owned(),
            password,
        };
        self.given.push((canonical_registry(registry), credential));
        self
    }

    /// Finds the credential for a repository (empty: for the registry as a whole).
    pub(super) fn find(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, RegistryError> {
        let registry = canonical_registry(registry);
        if let Some((_, credential)) = self.given.iter().find(|(given, _)| *given == registry) {
            return Ok(Some(credential.clone()));
        }
        for place in self.places()?.iter() {
            if let Some(helper) = place.helper(&registry)
                && let Some(credential) = self.ask(helper, &registry)?
            {
                return Ok(Some(credential));
            }
            if let Some(credential) = place.find(&registry, repository) {
                return Ok(Some(credential.clone()));
            }
            if let Some(helper) = place.store()
                && let Some(credential) = self.ask(helper, &registry)?
            {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    fn ask(&self, helper: &str, registry: &str) -> Result<Option<Credential>, RegistryError> {
        let key = (helper.to_owned(), registry.to_owned());
        let asked = || self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = asked().get(&key) {
            return Ok(answer.clone());
        }
        let answer = Helper::new(helper, self.helper_limit, &self.environment)
            .get(&key_to_write(registry, true))?;
        asked().insert(key, answer.clone());
        Ok(answer)
    }

    fn places(&self) -> Result<Arc<Vec<AuthFile>>, RegistryError> {
        let mut slot = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = &*slot {
            return Ok(places.clone());
        }
        let environment = &self.environment;
        let runtime = environment.path("XDG_RUNTIME_DIR");
        let is_docker_named = environment.get("DOCKER_CONFIG").is_some();
        let before = [
            (environment.path("REGISTRY_AUTH_FILE"), true),
            (runtime.map(|at| at.join("containers/auth.json")), false),
            (environment.user_config("containers/auth.json"), false),
        ];
        let mut places = Vec::new();
        for (path, is_named) in before {
            places.extend(read_place(path, is_named)?);
        }
        if let Some(text) = environment.get("DOCKER_AUTH_CONFIG") {
            places.push(AuthFile::parse(
                "DOCKER_AUTH_CONFIG",
                &text.to_string_lossy(),
            )?);
        }
        places.extend(read_place(self.docker_config(), is_docker_named)?);
        let places = Arc::new(places);
        *slot = Some(places.clone());
        Ok(places)
    }

    pub(super) fn docker_config(&self) -> Option<PathBuf> {
        self.environment
            .path("DOCKER_CONFIG")
            .or_else(|| self.environment.home(".docker"))
            .map(|directory| directory.join("config.json"))
    }
}

/// Reads a file and understands it.
fn read_place(path: Option<PathBuf>, is_named: bool) -> Result<Option<AuthFile>, RegistryError> {
    let Some(path) = path else { return Ok(None) };
    match read_file(&path, is_named)? {
        Some(text) => AuthFile::parse(&path.display().to_string(), &text).map(Some),
        None => Ok(None),
    }
}

/// Reads a file; `None` if there is none, or if it is somebody else's and nobody named it.
pub(super) fn read_file(path: &Path, is_named: bool) -> Result<Option<String>, RegistryError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(_) if !is_named => Ok(None),
        Err(source) => Err(RegistryError::File {
            verb: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::ffi::OsStr;
    use std::process::Command;

    use super::*;

    pub(in super::super) const NO_LIMIT: Duration = Duration::from_secs(60);

    fn auths(registry: &str, user: &str) -> String {
        format!(r#"{{"auths": {{"{registry}": {{"username": "{user}", "password": "p"}}}}}}"#)
    }

    pub(in super::super) fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(in super::super) fn user(found: Option<Credential>) -> Option<String> {
        found.map(|credential| match credential {
            Credential::Password { user, .. } | Credential::Identity { user, .. } => user,
            Credential::Access(_) => "access".to_owned(),
        })
    }

    /// A helper that is a shell script; another process writes it, so that no child of ours holds it open while it is started.
    pub(in super::super) fn write_helper(directory: &Path, name: &str, script: &str) {
        let path = directory.join(format!("docker-credential-{name}"));
        let status = Command::new("/bin/sh")
            .arg("-c")
            .arg(r#"printf '%s\n' "$2" > "$1" && chmod 755 "$1""#)
            .arg("sh")
            .arg(&path)
            .arg(format!("#!/bin/sh\n{script}"))
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn places_are_looked_at_in_order() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        write(&at("named.json"), &auths("reg.io", "named"));
        write(&at("run/containers/auth.json"), &auths("reg.io", "runtime"));
        write(
            &at("home/.config/containers/auth.json"),
            &auths("reg.io", "config"),
        );
        write(&at("home/.docker/config.json"), &auths("reg.io", "docker"));
        write(&at("dockercfg/config.json"), &auths("reg.io", "dockercfg"));
        let text = auths("reg.io", "variable");
        let variables = [
            (
                "REGISTRY_AUTH_FILE",
                at("named.json").into_os_string(),
                "named",
            ),
            ("XDG_RUNTIME_DIR", at("run").into_os_string(), "runtime"),
            (
                "XDG_CONFIG_HOME",
                at("home/.config").into_os_string(),
                "config",
            ),
            ("DOCKER_AUTH_CONFIG", text.into(), "variable"),
            (
                "DOCKER_CONFIG",
                at("dockercfg").into_os_string(),
                "dockercfg",
            ),
        ];
        // Without the first n places, the next one decides.
        for first in 0..variables.len() {
            let set: Vec<(&'static str, &OsStr)> = variables[first..]
                .iter()
                .map(|(name, value, _)| (*name, value.as_os_str()))
                .collect();
            let credentials = Credentials::new(Environment::of(root.path(), &set), NO_LIMIT);
            let found = credentials.find("reg.io", "a/b").unwrap();
            assert_eq!(user(found).as_deref(), Some(variables[first].2));
            assert_eq!(credentials.find("other.io", "a").unwrap(), None);
        }
        let home = at("home");
        let only_home = [("HOME", home.as_os_str())];
        let credentials = Credentials::new(Environment::of(root.path(), &only_home), NO_LIMIT);
        let found = credentials.find("reg.io", "").unwrap();
        assert_eq!(user(found).as_deref(), Some("config"));
        std::fs::remove_dir_all(at("home/.config")).unwrap();
        let credentials = Credentials::new(Environment::of(root.path(), &only_home), NO_LIMIT)
            .with("given.io", "given", Secret::new("p".into()));
        let found = credentials.find("reg.io", "").unwrap();
        assert_eq!(user(found).as_deref(), Some("docker"));
        let found = credentials.find("given.io", "x").unwrap();
        assert_eq!(user(found).as_deref(), Some("given"));
    }

    #[test]
    fn helpers_answer_once_and_have_a_limit() {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("log");
        write_helper(
            root.path(),
            "good",
            &format!(
                r#"read server; echo "$1 $server" >> {}
case $server in
  https://index.docker.io/v1/) echo '{{"ServerURL":"x","Username":"<token>","Secret":"t"}}';;
  reg.io) echo '{{"Username":"helped","Secret":"hunter2"}}';;
  broken.io) echo 'Secret hunter2';;
  locked.io) echo 'the keyring is locked'; exit 1;;
  *) echo 'credentials not found in native keychain'; exit 1;;
esac"#,
                log.display()
            ),
        );
        write_helper(root.path(), "hangs", "exec tail -f /dev/null");
        let config = root.path().join("config.json");
        write(
            &config,
            r#"{"auths": {"file.io": {"username": "file", "password": "p"}},
                "credHelpers": {"slow.io": "hangs", "gone.io": "nosuch", "evil.io": "../../bin/sh"},
                "credsStore": "good"}"#,
        );
        let variables = [
            ("PATH", root.path().as_os_str()),
            ("DOCKER_CONFIG", root.path().as_os_str()),
        ];
        let environment = Environment::of(root.path(), &variables);
        let credentials = Credentials::new(environment.clone(), NO_LIMIT);
        let find = |registry: &str| credentials.find(registry, "x");
        assert_eq!(user(find("reg.io").unwrap()).as_deref(), Some("helped"));
        assert_eq!(user(find("reg.io").unwrap()).as_deref(), Some("helped"));
        assert!(matches!(
            find("docker.io").unwrap(),
            Some(Credential::Identity { .. })
        ));
        assert_eq!(user(find("file.io").unwrap()).as_deref(), Some("file"));
        assert_eq!(find("nobody.io").unwrap(), None);
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            "get reg.io\nget https://index.docker.io/v1/\nget nobody.io\n"
        );
        for (registry, word) in [
            ("locked.io", "locked"),
            ("broken.io", "JSON"),
            ("gone.io", "no `docker-credential-nosuch` in PATH"),
            ("evil.io", "slash"),
        ] {
            let error = find(registry).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let hasty = Credentials::new(environment, Duration::from_millis(20));
        let error = hasty.find("slow.io", "x").unwrap_err().to_string();
        assert!(error.contains("did not end"), "{error}");
    }

    #[test]
    fn unreadable_files_matter_only_where_they_are_named() {
        let root = tempfile::tempdir().unwrap();
        // A directory in the file's place cannot be read by anybody, root included.
        std::fs::create_dir_all(root.path().join("home/.docker/config.json")).unwrap();
        let home = root.path().join("home");
        let environment = Environment::of(root.path(), &[("HOME", home.as_os_str())]);
        let credentials = Credentials::new(environment, NO_LIMIT);
        assert_eq!(credentials.find("reg.io", "").unwrap(), None);
        let docker = home.join(".docker");
        let environment = Environment::of(root.path(), &[("DOCKER_CONFIG", docker.as_os_str())]);
        let credentials = Credentials::new(environment, NO_LIMIT);
        assert!(matches!(
            credentials.find("reg.io", ""),
            Err(RegistryError::File { verb: "read", .. })
        ));
    }
}
