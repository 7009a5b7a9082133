//! What the room takes from the process's surroundings: known variables, and where `/etc` lies.
//!
//! Read once when a client is made, so that everything after is a function of values, and tests need not change the process. Tests
//! may also have the fixed addresses of clouds lead to a server of theirs ([`Detour`]); nothing outside of tests can.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The variables that mean something here, besides those of `config` and `proxy`.
const NAMES: [&str; 46] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_TENANT_ID",
    "CI_DEPENDENCY_PROXY_PASSWORD",
    "CI_DEPENDENCY_PROXY_SERVER",
    "CI_DEPENDENCY_PROXY_USER",
    "CI_JOB_TOKEN",
    "CI_REGISTRY",
    "CI_REGISTRY_PASSWORD",
    "CI_REGISTRY_USER",
    "CLOUDSDK_CONFIG",
    "DOCKER_AUTH_CONFIG",
    "DOCKER_CONFIG",
    "GITHUB_ACTOR",
    "GITHUB_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HOME",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IMDS_ENDPOINT",
    "PATH",
    "REGISTRY_AUTH_FILE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    OWN,
];

/// The variable of our own for a registry; those of its account, and of more registries, begin with it.
pub(super) const OWN: &str = "BUILDER_REGISTRY";

#[derive(Clone)]
pub(super) struct Environment {
    variables: BTreeMap<String, OsString>,
    etc: PathBuf,
    #[cfg(test)]
    detour: Detour,
}

/// Where a test has requests go that are for addresses known to everybody.
#[cfg(test)]
#[derive(Clone, Default)]
pub(super) struct Detour {
    /// Takes the place of `scheme://`, for every fixed address: `http://127.0.0.1:1/`.
    pub(super) site: Option<String>,
    /// A registry's host, and the cloud's registry that it plays.
    pub(super) plays: Vec<(String, String)>,
}

impl Environment {
    /// Reads the process's.
    pub(super) fn of_process() -> Environment {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| is_read(name))
            .collect();
        Environment {
            variables,
            etc: PathBuf::from("/etc"),
            #[cfg(test)]
            detour: Detour::default(),
        }
    }

    /// Returns one that holds nothing but what is given.
    #[cfg(test)]
    pub(super) fn of(etc: &Path, variables: &[(&str, &OsStr)]) -> Environment {
        for (name, _) in variables {
            assert!(is_read(name), "{name} is not read");
        }
        Environment {
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            etc: etc.to_owned(),
            detour: Detour::default(),
        }
    }

    /// Has fixed addresses lead elsewhere.
    #[cfg(test)]
    pub(super) fn with_detour(mut self, detour: Detour) -> Environment {
        self.detour = detour;
        self
    }

    /// Returns the address to ask in place of one that is fixed in the program.
    #[cfg(test)]
    pub(super) fn place_of(&self, url: &str) -> String {
        match (&self.detour.site, url.split_once("://")) {
            (Some(site), Some((_, rest))) => format!("{site}{rest}"),
            _ => url.to_owned(),
        }
    }

    #[cfg(not(test))]
    pub(super) fn place_of(&self, url: &str) -> String {
        url.to_owned()
    }

    /// Returns the name by which a registry is known.
    #[cfg(test)]
    pub(super) fn known_name<'a>(&'a self, registry: &'a str) -> &'a str {
        let mut plays = self.detour.plays.iter();
        plays
            .find(|(host, _)| host == registry)
            .map_or(registry, |(_, name)| name)
    }

    #[cfg(not(test))]
    pub(super) fn known_name<'a>(&'a self, registry: &'a str) -> &'a str {
        registry
    }

    /// Returns a variable; one that is empty counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        debug_assert!(is_read(name), "{name} is not read");
        self.variables
            .get(name)
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// Returns a variable that holds a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// Returns a variable that holds text, without the blanks and line ends around it.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text = self.get(name)?.to_string_lossy().trim().to_owned();
        Some(text).filter(|text| !text.is_empty())
    }

    /// Returns the names of all variables that begin so.
    pub(super) fn names_with(&self, prefix: &str) -> impl Iterator<Item = &str> {
        let names = self.variables.keys().map(String::as_str);
        names.filter(move |name| name.starts_with(prefix))
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

fn is_read(name: &str) -> bool {
    NAMES.contains(&name)
        || name.starts_with(OWN)
        || super::config::VARIABLES.contains(&name)
        || super::proxy::VARIABLES.contains(&name)
}
