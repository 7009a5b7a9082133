//! Who one is at a registry: where credentials are looked for, and in which order.
//!
//! Places, in order: what options give (`--creds`); the variables `BUILDER_REGISTRY…`; files; what a CI system sets. Of files: the one
//! of `--authfile` or `REGISTRY_AUTH_FILE`, else `${XDG_RUNTIME_DIR}/containers/auth.json`; `~/.config/containers/auth.json`; the text
//! in `DOCKER_AUTH_CONFIG`; `${DOCKER_CONFIG:-~/.docker}/config.json`. The first place that knows the registry decides. Within a file:
//! the helper named for the registry (`credHelpers`), the entry with the longest path (`auths`), the helper for everything
//! (`credsStore`). Where nothing is found, [`cloud`](super::cloud) may log in by itself.
//!
//! Nothing is read before a registry asks who one is. A missing file says nothing, unless `--authfile` names it; a file that cannot be
//! read is an error if it was named and is passed over otherwise (HOME may be another user's); a file that cannot be understood is an
//! error.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::auth_file::{AuthFile, Credential, key_to_write};
use super::cloud::Cloud;
use super::endpoint::canonical_registry;
use super::environment::Environment;
use super::error::RegistryError;
use super::helper::Helper;
use super::retry::Tuning;
use super::variables::Variables;
use crate::vocab::{RegistryOptions, Secret};

/// Helpers of clouds. Where such a program is missing, the built-in login does its work.
const CLOUD_HELPERS: [&str; 6] = [
    "acr-env",
    "acr-linux",
    "acr-login",
    "ecr-login",
    "gcloud",
    "gcr",
];

/// Looks credentials up, each place read once.
pub struct Credentials {
    pub(super) environment: Environment,
    pub(super) helper_limit: Duration,
    /// Given by name, before every place.
    given: Vec<(String, Credential)>,
    /// The file of `--authfile`.
    file: Option<PathBuf>,
    places: Mutex<Option<Arc<Vec<AuthFile>>>>,
    /// What helpers answered, by helper and registry: they may ask a network or a user.
    asked: Mutex<HashMap<(String, String), Option<Credential>>>,
}

/// A credential, and how far it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) credential: Credential,
    /// Somebody said that it is for this registry. What a CI system leaves in the environment may be good for nothing, and must not
    /// stand in the way of what is public.
    pub(super) is_firm: bool,
    /// A program gave it, and may give another one when it has expired.
    pub(super) is_from_helper: bool,
}

impl Found {
    fn firm(credential: Credential) -> Found {
        Found {
            credential,
            is_firm: true,
            is_from_helper: false,
        }
    }
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
            file: None,
            places: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// Adds a user name and a password that go before every other place.
    pub fn with(mut self, registry: &str, user: &str, password: Secret<String>) -> Credentials {
        let credential = Credential::Password {
            user: user.to_owned(),
            password,
        };
        self.given.push((canonical_registry(registry), credential));
        self
    }

    /// Adds what options say.
    pub fn with_options(mut self, options: &RegistryOptions) -> Credentials {
        self.file.clone_from(&options.auth_file);
        for account in &options.accounts {
            self = self.with(&account.registry, &account.user, account.password.clone());
        }
        self
    }

    /// Finds the credential for a repository (empty: for the registry as a whole).
    pub(super) fn find(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Found>, RegistryError> {
        let registry = canonical_registry(registry);
        if let Some((_, credential)) = self.given.iter().find(|(given, _)| *given == registry) {
            return Ok(Some(Found::firm(credential.clone())));
        }
        let own = Variables::own(&self.environment)?;
        if let Some(credential) = own.find(&registry, repository)? {
            return Ok(Some(Found::firm(credential)));
        }
        for place in self.places()?.iter() {
            if let Some(found) = self.find_in(place, &registry, repository)? {
                return Ok(Some(found));
            }
        }
        let of_ci = Variables::of_ci(&self.environment);
        let found = of_ci.find(&registry, repository)?;
        Ok(found.map(|credential| Found {
            is_firm: false,
            ..Found::firm(credential)
        }))
    }

    fn find_in(
        &self,
        place: &AuthFile,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Found>, RegistryError> {
        let from_helper = |credential| Found {
            is_from_helper: true,
            ..Found::firm(credential)
        };
        if let Some(name) = place.helper(registry)
            && let is_cloud = self.cloud(registry).is_some()
            && let Some(credential) = self.ask(name, registry, is_cloud)?
        {
            return Ok(Some(from_helper(credential)));
        }
        if let Some(credential) = place.find(registry, repository) {
            return Ok(Some(Found::firm(credential.clone())));
        }
        let Some(name) = place.store() else {
            return Ok(None);
        };
        Ok(self.ask(name, registry, true)?.map(from_helper))
    }

    /// Returns the cloud whose registry this is.
    pub(super) fn cloud(&self, registry: &str) -> Option<Cloud> {
        Cloud::of_registry(self.environment.known_name(registry))
    }

    /// Forgets what helpers said of a registry. Returns whether there was something.
    pub(super) fn forget(&self, registry: &str) -> bool {
        let registry = canonical_registry(registry);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let before = asked.len();
        asked.retain(|(_, of), _| *of != registry);
        asked.len() < before
    }

    /// Asks a helper; `may_lack`: a cloud's one may be missing.
    fn ask(
        &self,
        name: &str,
        registry: &str,
        may_lack: bool,
    ) -> Result<Option<Credential>, RegistryError> {
        let key = (name.to_owned(), registry.to_owned());
        let asked = || self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = asked().get(&key) {
            return Ok(answer.clone());
        }
        let helper = Helper::new(name, self.helper_limit, &self.environment);
        let answer = if may_lack && CLOUD_HELPERS.contains(&name) && !helper.is_there() {
            None
        } else {
            helper.get(&key_to_write(registry, true))?
        };
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
        let mut places = Vec::new();
        if let Some(path) = &self.file {
            let text = read_file(path, true)?.ok_or_else(|| RegistryError::File {
                verb: "read",
                path: path.clone(),
                source: io::ErrorKind::NotFound.into(),
            })?;
            places.push(AuthFile::parse(&path.display().to_string(), &text)?);
        } else if let Some(path) = environment.path("REGISTRY_AUTH_FILE") {
            places.extend(read_place(Some(path), true)?);
        } else {
            let path = runtime.map(|at| at.join("containers/auth.json"));
            places.extend(read_place(path, false)?);
        }
        places.extend(read_place(
            environment.user_config("containers/auth.json"),
            false,
        )?);
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

    /// Returns the file that options or variables name for everything but Docker.
    pub(super) fn named_file(&self) -> Option<PathBuf> {
        let named = || self.environment.path("REGISTRY_AUTH_FILE");
        self.file.clone().or_else(named)
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
    use crate::vocab::RegistryAccount;

    pub(in super::super) const NO_LIMIT: Duration = Duration::from_secs(60);

    fn auths(registry: &str, user: &str) -> String {
        format!(r#"{{"auths": {{"{registry}": {{"username": "{user}", "password": "p"}}}}}}"#)
    }

    pub(in super::super) fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(in super::super) fn user(found: Option<Found>) -> Option<String> {
        found.map(|found| match found.credential {
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
        write(&at("option.json"), &auths("ghcr.io", "option"));
        write(&at("named.json"), &auths("ghcr.io", "named"));
        write(
            &at("run/containers/auth.json"),
            &auths("ghcr.io", "runtime"),
        );
        write(
            &at("home/.config/containers/auth.json"),
            &auths("ghcr.io", "config"),
        );
        write(&at("home/.docker/config.json"), &auths("ghcr.io", "docker"));
        write(&at("dockercfg/config.json"), &auths("ghcr.io", "dockercfg"));
        let text = auths("ghcr.io", "variable");
        let path = |name: &str| at(name).into_os_string();
        // Options, variables, and who decides while all that follow are there as well.
        let places = [
            ("--creds", "given".into(), "given"),
            ("BUILDER_REGISTRY_USER", "fields".into(), "fields"),
            ("--authfile", path("option.json"), "option"),
            ("REGISTRY_AUTH_FILE", path("named.json"), "named"),
            ("XDG_RUNTIME_DIR", path("run"), "runtime"),
            ("XDG_CONFIG_HOME", path("home/.config"), "config"),
            ("DOCKER_AUTH_CONFIG", text.into(), "variable"),
            ("DOCKER_CONFIG", path("dockercfg"), "dockercfg"),
            ("HOME", path("home2"), "octocat"),
        ];
        for first in 0..places.len() {
            let mut set: Vec<(&str, &OsStr)> = vec![
                ("BUILDER_REGISTRY", OsStr::new("ghcr.io")),
                ("GITHUB_TOKEN", OsStr::new("p")),
                ("GITHUB_ACTOR", OsStr::new("octocat")),
            ];
            let mut options = RegistryOptions::default();
            for (name, value, _) in &places[first..] {
                match *name {
                    "--creds" => options.accounts.push(RegistryAccount {
                        registry: "GHCR.io".into(),
                        user: "given".into(),
                        password: Secret::new("p".into()),
                    }),
                    "--authfile" => options.auth_file = Some(value.into()),
                    "BUILDER_REGISTRY_USER" => {
                        set.push((name, value));
                        set.push(("BUILDER_REGISTRY_PASSWORD", OsStr::new("p")));
                    }
                    name => set.push((name, value)),
                }
            }
            let credentials = Credentials::new(Environment::of(root.path(), &set), NO_LIMIT)
                .with_options(&options);
            let found = credentials.find("ghcr.io", "a/b").unwrap();
            let is_firm = found.as_ref().unwrap().is_firm;
            assert_eq!(is_firm, places[first].0 != "HOME");
            assert_eq!(user(found).as_deref(), Some(places[first].2));
            assert_eq!(credentials.find("other.io", "a").unwrap(), None);
        }
        // The file that is named takes the place of the one at run time, and of no other.
        let set = [
            ("REGISTRY_AUTH_FILE", at("none.json").into_os_string()),
            ("XDG_RUNTIME_DIR", path("run")),
            ("HOME", path("home")),
        ];
        let set: Vec<(&str, &OsStr)> = set
            .iter()
            .map(|(name, value)| (*name, value.as_os_str()))
            .collect();
        let credentials = Credentials::new(Environment::of(root.path(), &set), NO_LIMIT);
        let found = credentials.find("ghcr.io", "").unwrap();
        assert_eq!(user(found).as_deref(), Some("config"));
        std::fs::remove_dir_all(at("home/.config")).unwrap();
        let credentials = Credentials::new(Environment::of(root.path(), &set), NO_LIMIT);
        let found = credentials.find("ghcr.io", "").unwrap();
        assert_eq!(user(found).as_deref(), Some("docker"));
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
            find("docker.io").unwrap().unwrap().credential,
            Credential::Identity { .. }
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
