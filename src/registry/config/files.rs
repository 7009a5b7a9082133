//! The files of settings of other tools: where they lie, read when the first request needs them, and once.
//!
//! In: an image's name. Out: its places, by the first kind of file that speaks of its registry. A file that is wrong is an error of
//! every request that would have to obey it. A daemon's file that this user may not read is as if it were not there, because the
//! daemon's clients never read it either.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::super::environment::Environment;
use super::super::site::{Terms, canonical_registry, split_port};
use super::buildkit::Buildkit;
use super::containerd::Hosts;
use super::containers::Containers;
use super::docker::Docker;
use super::mistake::{Mistake, Source};
use super::place::{Place, Wanted};
use crate::vocab::ImageRef;

/// No file that is meant well is larger.
const MOST_BYTES: u64 = 4 << 20;

pub(in crate::registry) struct Files {
    environment: Environment,
    common: OnceLock<Result<Common, Mistake>>,
    /// containerd's, by registry.
    hosts: Mutex<HashMap<String, HostsFound>>,
}

/// What was found in a registry's directory.
type HostsFound = Result<Option<Arc<Hosts>>, Mistake>;

/// What is not by registry.
struct Common {
    containers: Containers,
    buildkit: Buildkit,
    docker: Docker,
}

impl Files {
    /// Reads nothing yet.
    pub(in crate::registry) fn new(environment: Environment) -> Files {
        Files {
            environment,
            common: OnceLock::new(),
            hosts: Mutex::default(),
        }
    }

    /// Returns the full names that a name stands for, in the order in which they are tried.
    pub(in crate::registry) fn names(&self, image: &ImageRef) -> Result<Vec<ImageRef>, Mistake> {
        self.common()?.containers.names(image)
    }

    /// Returns where a repository is, if any file says so.
    pub(in crate::registry) fn places(
        &self,
        image: &ImageRef,
        wanted: Wanted,
    ) -> Result<Option<Vec<Place>>, Mistake> {
        let common = self.common()?;
        if let Some(places) = common.containers.places(image, wanted)? {
            return Ok(Some(places));
        }
        if let Some(hosts) = self.hosts(&canonical_registry(&image.registry), true)? {
            return Ok(Some(hosts.places(image, wanted)));
        }
        let places = match common.buildkit.places(image, wanted) {
            Some(places) => Some(places),
            None => common.docker.places(image, wanted),
        };
        let Some(mut places) = places else {
            return Ok(None);
        };
        for place in &mut places {
            place.site.terms = self.terms(&place.site.registry)?;
        }
        Ok(Some(places))
    }

    /// Returns the terms of a host, by the first kind of file that speaks of it.
    pub(in crate::registry) fn terms(&self, host: &str) -> Result<Terms, Mistake> {
        let common = self.common()?;
        if let Some(terms) = common.containers.terms(host) {
            return Ok(terms);
        }
        if let Some(hosts) = self.hosts(&canonical_registry(host), false)?
            && let Some(terms) = hosts.terms(host)
        {
            return Ok(terms);
        }
        if let Some(mut terms) = common.buildkit.terms(host) {
            for directory in common.buildkit.directories(host) {
                add_directory(directory, &mut terms)?;
            }
            return Ok(terms);
        }
        Ok(common.docker.terms(host).unwrap_or_default())
    }

    fn common(&self) -> Result<&Common, Mistake> {
        self.common
            .get_or_init(|| {
                Ok(Common {
                    containers: self.containers()?,
                    buildkit: self.daemon("buildkit/buildkitd.toml", Buildkit::read)?,
                    docker: self.daemon("docker/daemon.json", Docker::read)?,
                })
            })
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Reads `registries.conf` and its drop-ins: the user's file instead of the system's, the drop-ins of both.
    fn containers(&self) -> Result<Containers, Mistake> {
        let environment = &self.environment;
        let system = environment.etc().join("containers/registries.conf");
        let user = environment.user_config("containers/registries.conf");
        let named = environment.path("CONTAINERS_REGISTRIES_CONF");
        let mut files = Vec::new();
        let mut is_users = false;
        if let Some(named) = named {
            let text = read(&named, Whose::Named)?;
            files.extend(text.map(|text| (named, text)));
        } else {
            let own = match &user {
                Some(user) => read(user, Whose::Ours)?.map(|text| (user.clone(), text)),
                None => None,
            };
            is_users = own.is_some();
            match own {
                Some(own) => files.push(own),
                None => files.extend(read(&system, Whose::Ours)?.map(|text| (system, text))),
            }
        }
        let directories = match environment.path("CONTAINERS_REGISTRIES_CONF_DIR") {
            Some(named) => vec![named],
            None => {
                let system = environment.etc().join("containers/registries.conf.d");
                let user = environment.user_config("containers/registries.conf.d");
                // A user who has a file of the own wants nothing of the system's.
                let system = Some(system).filter(|_| !is_users);
                system.into_iter().chain(user).collect()
            }
        };
        for directory in directories {
            for path in drop_ins(&directory)? {
                let text = read(&path, Whose::Ours)?;
                files.extend(text.map(|text| (path, text)));
            }
        }
        let mut containers = Containers::default();
        for (path, text) in &files {
            containers.add(Source { path, text })?;
        }
        Ok(containers)
    }

    /// Reads a daemon's file: the user's, else the system's.
    fn daemon<T: Default>(
        &self,
        name: &str,
        parse: impl Fn(Source<'_>) -> Result<T, Mistake>,
    ) -> Result<T, Mistake> {
        let places = [
            self.environment.user_config(name),
            Some(self.environment.etc().join(name)),
        ];
        for path in places.into_iter().flatten() {
            if let Some(text) = read(&path, Whose::Daemons)? {
                let (path, text) = (&path, &text);
                // An empty file is how some machines come.
                return match text.trim().is_empty() {
                    true => Ok(T::default()),
                    false => parse(Source { path, text }),
                };
            }
        }
        Ok(T::default())
    }

    /// Returns the `hosts.toml` of a registry; `or_default`: else that of all others.
    fn hosts(&self, registry: &str, or_default: bool) -> HostsFound {
        let own = self.hosts_of(registry)?;
        if own.is_some() || !or_default {
            return Ok(own);
        }
        self.hosts_of("_default")
    }

    fn hosts_of(&self, registry: &str) -> HostsFound {
        let mut known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .entry(registry.to_owned())
            .or_insert_with(|| self.read_hosts(registry))
            .clone()
    }

    fn read_hosts(&self, registry: &str) -> HostsFound {
        for directory in containerd_directories(&self.environment, registry) {
            let path = directory.join("hosts.toml");
            if let Some(text) = read(&path, Whose::Daemons)? {
                let hosts = Hosts::read(Source {
                    path: &path,
                    text: &text,
                })?;
                return Ok(Some(Arc::new(hosts)));
            }
        }
        Ok(None)
    }
}

/// Returns the directories in which containerd keeps what is about a registry: `HOST_PORT_` or `HOST:PORT`.
pub(in crate::registry) fn containerd_directories(
    environment: &Environment,
    registry: &str,
) -> Vec<PathBuf> {
    if !is_directory_name(registry) {
        return Vec::new();
    }
    let bases = [
        environment.user_config("containerd/certs.d"),
        Some(environment.etc().join("containerd/certs.d")),
    ];
    let underscored = match split_port(registry) {
        (host, Some(port)) => Some(format!("{host}_{port}_")),
        _ => None,
    };
    bases
        .into_iter()
        .flatten()
        .flat_map(|base| {
            let names = underscored.iter().map(String::as_str).chain([registry]);
            names.map(|name| base.join(name)).collect::<Vec<_>>()
        })
        .collect()
}

/// Tells whether a host's name leads to a directory right below another and to no other place.
pub(in crate::registry) fn is_directory_name(host: &str) -> bool {
    !host.is_empty() && !host.starts_with('.') && !host.contains(['/', '\0'])
}

/// Adds what lies in a directory: `*.crt` are authorities, `*.cert` with `*.key` is an identity.
pub(in crate::registry) fn add_directory(
    directory: &Path,
    terms: &mut Terms,
) -> Result<(), Mistake> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        // One that may not be read belongs to somebody else.
        Err(error) if is_absence(&error) || error.kind() == ErrorKind::PermissionDenied => {
            return Ok(());
        }
        Err(error) => return Err(unreadable(directory, &error)),
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in &files {
        let extension = file.extension().unwrap_or_default();
        if extension == "crt" {
            terms.authorities.push(file.clone());
        } else if extension == "cert" {
            terms
                .identities
                .push((file.clone(), file.with_extension("key")));
        } else if extension == "key" && !files.contains(&file.with_extension("cert")) {
            return Err(Mistake {
                path: file.clone(),
                line: None,
                what: "the key has no certificate beside it".to_owned(),
                hint: format!(
                    "a client certificate is `{}`; authorities are `*.crt`",
                    file.with_extension("cert").display()
                ),
            });
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The user said where it is.
    Named,
    /// Meant for programs such as this.
    Ours,
    /// Meant for a daemon.
    Daemons,
}

/// Reads a file; `None` if there is none.
fn read(path: &Path, whose: Whose) -> Result<Option<String>, Mistake> {
    let result = std::fs::metadata(path).and_then(|metadata| {
        if !metadata.is_file() {
            // A device or a pipe would have no end.
            return Err(std::io::Error::other("it is no regular file"));
        }
        if metadata.len() > MOST_BYTES {
            return Err(std::io::Error::other(format!(
                "it is larger than {MOST_BYTES} bytes"
            )));
        }
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(MOST_BYTES)
            .read_to_string(&mut text)?;
        Ok(text)
    });
    match result {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absence(&error) && whose != Whose::Named => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied && whose == Whose::Daemons => {
            Ok(None)
        }
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Mistake {
    Mistake {
        path: path.to_owned(),
        line: None,
        what: format!("it cannot be read: {}", error.to_string().to_lowercase()),
        hint: "it decides where images come from, so it is not passed over".to_owned(),
    }
}

/// Returns the `*.conf` of a directory in the order of their names.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, Mistake> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(directory, &error)),
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    files.sort();
    Ok(files)
}
