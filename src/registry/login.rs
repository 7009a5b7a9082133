//! `login` and `logout`: the one place of this room that writes to disk.
//!
//! In: a registry, a user name, a password. Out: one entry of a file that Docker or podman read too, or of the helper that the file
//! names. What the file holds besides stays; readers see the old file or the new one; nobody else may read it.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::auth_file::{AuthFile, is_key_of, key_to_write, malformed};
use super::credentials::{Credentials, read_file};
use super::endpoint::canonical_registry;
use super::error::RegistryError;
use super::helper::Helper;
use crate::vocab::{RegistryOptions, Secret};

/// Keeps a user name and a password for `registry` where pulls and pushes (Docker's too) find them: in the file of `--authfile` or
/// `REGISTRY_AUTH_FILE`, else in Docker's `config.json`, or in the helper that the file names. Returns the file. Nothing is checked;
/// see [`Client::check_login`](super::Client::check_login).
pub fn login(
    options: &RegistryOptions,
    registry: &str,
    user: &str,
    password: &Secret<String>,
) -> Result<PathBuf, RegistryError> {
    let credentials = Credentials::of_process().with_options(options);
    credentials.login(registry, user, password)
}

/// Forgets what [`login`] keeps. Returns whether there was something.
pub fn logout(options: &RegistryOptions, registry: &str) -> Result<bool, RegistryError> {
    let credentials = Credentials::of_process().with_options(options);
    credentials.logout(registry)
}

impl Credentials {
    /// Returns the file that `login` writes, and whether it is Docker's.
    fn file_to_write(&self) -> Result<(PathBuf, bool), RegistryError> {
        if let Some(path) = self.named_file() {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::credentials::tests::{NO_LIMIT, user, write, write_helper};
    use super::super::environment::Environment;
    use super::*;

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
        assert_eq!(found.credential.secret(), "pa:ss");
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
}
