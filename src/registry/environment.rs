//! What the room takes from the process's surroundings: a handful of variables, and where `/etc` lies.
//!
//! Read once when a client is made, so that everything after is a function of values, and tests need not change the process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The variables that mean something here; the proxy ones are read by the HTTP client itself.
const NAMES: [&str; 9] = [
    "DOCKER_AUTH_CONFIG",
    "DOCKER_CONFIG",
    "HOME",
    "PATH",
    "REGISTRY_AUTH_FILE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];

#[derive(Clone)]
pub(super) struct Environment {
    variables: BTreeMap<&'static str, OsString>,
    etc: PathBuf,
}

impl Environment {
    /// Reads the process's.
    pub(super) fn of_process() -> Environment {
        let mut variables = BTreeMap::new();
        for name in NAMES {
            if let Some(value) = std::env::var_os(name) {
                variables.insert(name, value);
            }
        }
        Environment {
            variables,
            etc: PathBuf::from("/etc"),
        }
    }

    /// Returns one that holds nothing but what is given.
    #[cfg(test)]
    pub(super) fn of(etc: &Path, variables: &[(&'static str, &OsStr)]) -> Environment {
        for (name, _) in variables {
            assert!(NAMES.contains(name), "{name} is not read");
        }
        Environment {
            variables: variables
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
            etc: etc.to_owned(),
        }
    }

    /// Returns a variable; one that is empty counts as absent.
    pub(super) fn get(&self, name: &'static str) -> Option<&OsStr> {
        debug_assert!(NAMES.contains(&name), "{name} is not read");
        self.variables
            .get(name)
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// Returns a variable that holds a path.
    pub(super) fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// Returns a path in the home directory.
    pub(super) fn home(&self, below: &str) -> Option<PathBuf> {
        self.path("HOME").map(|home| home.join(below))
    }

    /// Returns a path in the user's configuration directory.
    pub(super) fn user_config(&self, below: &str) -> Option<PathBuf> {
        self.path("XDG_CONFIG_HOME")
            .or_else(|| self.home(".config"))
            .map(|directory| directory.join(below))
    }

    /// Returns where the system's configuration lies.
    pub(super) fn etc(&self) -> &Path {
        &self.etc
    }
}
