//! Who one is at a registry: where credentials are looked for, in which order, and `login` and `logout`.
//!
//! Places, in order: the file in `REGISTRY_AUTH_FILE`, `${XDG_RUNTIME_DIR}/containers/auth.json`,
//! `~/.config/containers/auth.json`, the text in `DOCKER_AUTH_CONFIG`, `${DOCKER_CONFIG:-~/.docker}/config.json`. The first place
//! that knows the registry decides. Within a place: the helper named for the registry (`credHelpers`), the entry with the longest
//! path (`auths`), the helper for everything (`credsStore`).
//!
//! Nothing is read before a registry asks who one is. A missing file says nothing; a file that cannot be read is an error if a
//! variable names it and is passed over otherwise (HOME may be another user's); a file that cannot be understood is an error.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::auth_file::{AuthFile, Credential, is_key_of, key_to_write, malformed};
use super::endpoint::canonical_registry;
use super::environment::Environment;
use super::error::RegistryError;
use super::helper::Helper;
use super::retry::Tuning;
use crate::vocab::Secret;

/// Looks credentials up, each place read once.
pub struct Credentials {
    environment: Environment,
    helper_limit: Duration,
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

    fn docker_config(&self) -> Option<PathBuf> {
        self.environment
            .path("DOCKER_CONFIG")
            .or_else(|| self.environment.home(".docker"))
            .map(|directory| directory.join("config.json"))
    }

    /// Returns the file that `login` writes, and whether it is Docker's.
    fn file_to_write(&self) -> Result<(PathBuf, bool), RegistryError> {
        if let Some(path) = self.environment.path("REGISTRY_AUTH_FILE") {
            return Ok((path, false));
        }
        let path = self
            .docker_config()
            .ok_or_else(|| RegistryError::Credentials {
                place: "HOME".to_owned(),
                what: "neither it nor DOCKER_CONFIG nor REGISTRY_AUTH_FILE is set".to_owned(),
            })?;
        Ok((path, true))
    }

    fn login(
        &self,
        registry: &str,
        user: &str,
        password: &Secret<String>,
    ) -> Result<PathBuf, RegistryError> {
        let registry = canonical_registry(registry);
        let (path, for_docker) = self.file_to_write()?;
        let mut document = Document::read(&path)?;
        let file = document.meaning()?;
        let key = key_to_write(&registry, for_docker);
        document.remove(&registry)?;
        let entry = match file.helper(&registry).or(file.store()) {
            Some(helper) => {
                Helper::new(helper, self.helper_limit, &self.environment).store(
                    &key_to_write(&registry, true),
                    user,
                    password.reveal(),
                )?;
                serde_json::json!({})
            }
            None => {
                let plain = format!("{user}:{}", password.reveal());
                serde_json::json!({"auth": STANDARD.encode(plain)})
            }
        };
        document.auths()?.insert(key, entry);
        document.write()?;
        Ok(path)
    }

    fn logout(&self, registry: &str) -> Result<bool, RegistryError> {
        let registry = canonical_registry(registry);
        let (path, _) = self.file_to_write()?;
        let mut document = Document::read(&path)?;
        let file = document.meaning()?;
        let mut was_there = document.remove(&registry)?;
        if let Some(helper) = file.helper(&registry).or(file.store()) {
            let helper = Helper::new(helper, self.helper_limit, &self.environment);
            let key = key_to_write(&registry, true);
            if helper.get(&key)?.is_some() {
                helper.erase(&key)?;
                was_there = true;
            }
        }
        if was_there {
            document.write()?;
        }
        Ok(was_there)
    }
}

/// Keeps a user name and a password for `registry` where pulls and pushes (Docker's too) find them: in the file of
/// `REGISTRY_AUTH_FILE`, else in Docker's `config.json`, or in the helper that the file names. Returns the file. Nothing is checked;
/// see [`Client::check_login`](super::Client::check_login).
pub fn login(
    registry: &str,
    user: &str,
    password: &Secret<String>,
) -> Result<PathBuf, RegistryError> {
    Credentials::of_process().login(registry, user, password)
}

/// Forgets what [`login`] keeps. Returns whether there was something.
pub fn logout(registry: &str) -> Result<bool, RegistryError> {
    Credentials::of_process().logout(registry)
}

/// A file of credentials as it is changed: what it holds besides stays.
struct Document {
    path: PathBuf,
    text: String,
    root: Map<String, Value>,
}

impl Document {
    fn read(path: &Path) -> Result<Document, RegistryError> {
        let text = read_file(path, true)?.unwrap_or_default();
        let place = path.display().to_string();
        let root = match text.trim() {
            "" => Map::new(),
            text => serde_json::from_str(text).map_err(|error| malformed(&place, &error))?,
        };
        Ok(Document {
            path: path.to_owned(),
            text,
            root,
        })
    }

    fn meaning(&self) -> Result<AuthFile, RegistryError> {
        AuthFile::parse(&self.path.display().to_string(), &self.text)
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>, RegistryError> {
        let auths = self
            .root
            .entry("auths")
            .or_insert_with(|| Value::Object(Map::new()));
        if auths.is_null() {
            *auths = Value::Object(Map::new());
        }
        auths
            .as_object_mut()
            .ok_or_else(|| RegistryError::Credentials {
                place: self.path.display().to_string(),
                what: "its `auths` is no object".to_owned(),
            })
    }

    fn remove(&mut self, registry: &str) -> Result<bool, RegistryError> {
        let auths = self.auths()?;
        let before = auths.len();
        auths.retain(|key, _| !is_key_of(key, registry));
        Ok(auths.len() < before)
    }

    /// Writes beside and renames, so that a reader sees the old file or the new one; nobody else may read it.
    fn write(&self) -> Result<(), RegistryError> {
        let failed = |verb: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| RegistryError::File { verb, path, source }
        };
        // A link to a file elsewhere stays a link.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        std::fs::create_dir_all(&directory).map_err(failed("create the directory", &directory))?;
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        serde::Serialize::serialize(&self.root, &mut serializer)
            .expect("a map of JSON values is JSON");
        text.push(b'\n');
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let beside = directory.join(name);
        // One that a killed process of the same number left.
        drop(std::fs::remove_file(&beside));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .map_err(failed("create", &beside))?;
        let written = file
            .write_all(&text)
            .and_then(|()| file.sync_all())
            .map_err(failed("write", &beside))
            .and_then(|()| std::fs::rename(&beside, &path).map_err(failed("replace", &path)));
        if written.is_err() {
            drop(std::fs::remove_file(&beside));
        }
        written
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
fn read_file(path: &Path, is_named: bool) -> Result<Option<String>, RegistryError> {
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
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    const NO_LIMIT: Duration = Duration::from_secs(60);

    fn auths(registry: &str, user: &str) -> String {
        format!(r#"{{"auths": {{"{registry}": {{"username": "{user}", "password": "p"}}}}}}"#)
    }

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn user(found: Option<Credential>) -> Option<String> {
        found.map(|credential| match credential {
            Credential::Password { user, .. } | Credential::Identity { user, .. } => user,
            Credential::Access(_) => "access".to_owned(),
        })
    }

    /// A helper that is a shell script; another process writes it, so that no child of ours holds it open while it is started.
    fn write_helper(directory: &Path, name: &str, script: &str) {
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
    fn login_changes_its_own_entry_only() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("docker/config.json");
        write(
            &config,
            r#"{"HttpHeaders": {"a": "b"}, "psFormat": "x", "auths": {"docker.io": {"auth": "b2xkOm9sZA=="}, "keep.io": {"auth": "azpr"}}}"#,
        );
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).unwrap();
        let docker = root.path().join("docker");
        let environment = Environment::of(root.path(), &[("DOCKER_CONFIG", docker.as_os_str())]);
        let credentials = || Credentials::new(environment.clone(), NO_LIMIT);
        let password = Secret::new("pa:ss".to_owned());
        let path = credentials().login("docker.io", "me", &password).unwrap();
        assert_eq!(path, config);
        credentials().login("new.io:5000", "me", &password).unwrap();
        let mode = std::fs::metadata(&config).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let value: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        let auth = STANDARD.encode("me:pa:ss");
        assert_eq!(
            value,
            serde_json::json!({
                "HttpHeaders": {"a": "b"}, "psFormat": "x",
                "auths": {
                    "https://index.docker.io/v1/": {"auth": auth},
                    "keep.io": {"auth": "azpr"},
                    "new.io:5000": {"auth": auth},
                },
            })
        );
        let found = credentials()
            .find("docker.io", "library/a")
            .unwrap()
            .unwrap();
        assert_eq!(found.secret(), "pa:ss");
        assert!(credentials().logout("docker.io").unwrap());
        assert!(!credentials().logout("docker.io").unwrap());
        assert_eq!(credentials().find("docker.io", "a").unwrap(), None);
        assert!(credentials().find("keep.io", "a").unwrap().is_some());
        assert_eq!(std::fs::read_dir(&docker).unwrap().count(), 1);
    }

    #[test]
    fn login_makes_the_file_that_is_named_and_keeps_links() {
        let root = tempfile::tempdir().unwrap();
        let named = root.path().join("new/auth.json");
        let environment =
            Environment::of(root.path(), &[("REGISTRY_AUTH_FILE", named.as_os_str())]);
        let credentials = Credentials::new(environment.clone(), NO_LIMIT);
        let password = Secret::new("p".to_owned());
        credentials.login("docker.io", "me", &password).unwrap();
        assert!(
            std::fs::read_to_string(&named)
                .unwrap()
                .contains("\"docker.io\"")
        );
        let real = root.path().join("real.json");
        std::fs::rename(&named, &real).unwrap();
        std::os::unix::fs::symlink(&real, &named).unwrap();
        credentials.login("other.io", "me", &password).unwrap();
        assert!(std::fs::symlink_metadata(&named).unwrap().is_symlink());
        assert!(std::fs::read_to_string(&real).unwrap().contains("other.io"));
        std::fs::write(&real, "{ not json hunter2").unwrap();
        let error = credentials.login("x.io", "me", &password).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(
            std::fs::read_to_string(&real).unwrap(),
            "{ not json hunter2"
        );
    }

    #[test]
    fn login_gives_the_password_to_the_helper_where_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        let kept = root.path().join("kept");
        write_helper(
            root.path(),
            "kept",
            &format!(
                r#"case $1 in
  store) cat > {0};;
  get) test -e {0} || {{ echo 'credentials not found in native keychain'; exit 1; }}; cat {0};;
  erase) rm {0};;
esac"#,
                kept.display()
            ),
        );
        let config = root.path().join("config.json");
        write(&config, r#"{"credsStore": "kept"}"#);
        let directory = root.path().as_os_str();
        let variables = [("PATH", directory), ("DOCKER_CONFIG", directory)];
        let environment = Environment::of(root.path(), &variables);
        let credentials = || Credentials::new(environment.clone(), NO_LIMIT);
        let password = Secret::new("hunter2".to_owned());
        credentials().login("reg.io", "me", &password).unwrap();
        assert!(
            !std::fs::read_to_string(&config)
                .unwrap()
                .contains("hunter2")
        );
        let found = credentials().find("reg.io", "a").unwrap();
        assert_eq!(user(found).as_deref(), Some("me"));
        assert!(credentials().logout("reg.io").unwrap());
        assert_eq!(credentials().find("reg.io", "a").unwrap(), None);
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
