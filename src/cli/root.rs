//! What every subcommand starts with: the state directory and how registries are reached.

use std::path::{Path, PathBuf};

use crate::pipeline::{self, Failure};
use crate::store::{Store, StoreError};
use crate::ui;
use crate::vocab::{Diagnostic, ExitCode, RegistryOptions};

use super::args::Global;
use super::request::duration;
use super::usage;

/// Goes to the directory of `-C`, which everything is relative to.
pub(super) fn enter(directory: &Path) -> Result<(), Failure> {
    std::env::set_current_dir(directory).map_err(|error| {
        let mut failure = usage(format!(
            "cannot work in the directory `{}`",
            directory.display()
        ));
        failure.diagnostics[0].causes.push(error.to_string());
        failure
    })
}

impl Global {
    /// Returns the state directory: the flag, the environment, or the default of this user.
    pub(super) fn state_directory(&self) -> Result<PathBuf, Failure> {
        if let Some(root) = &self.root {
            return Ok(std::path::absolute(root).unwrap_or_else(|_| root.clone()));
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/builder"));
        }
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map(|data| data.join("builder"))
            .ok_or_else(|| {
                let mut failure =
                    usage("there is no place for the state directory: HOME is not set");
                failure.diagnostics[0]
                    .hints
                    .push("name one with `--root DIR` or BUILDER_ROOT".to_owned());
                failure
            })
    }

    /// Opens the state directory.
    pub(super) fn store(&self) -> Result<Store, Failure> {
        let store = Store::open_over(&self.state_directory()?, &self.lower_directories())
            .map_err(|error| store_failed(&error))?;
        for warning in pipeline::unused_lower_stores(&store) {
            ui::report(&warning);
        }
        Ok(store)
    }

    /// Returns the state directories that are only read. An empty name counts as none, as in PATH-like variables that were put
    /// together.
    pub(super) fn lower_directories(&self) -> Vec<PathBuf> {
        let named = self.lower_root.iter().filter(|root| !root.is_empty());
        named
            .map(|root| std::path::absolute(root).unwrap_or_else(|_| PathBuf::from(root)))
            .collect()
    }

    /// Returns how registries are reached.
    pub(super) fn registry_options(&self) -> Result<RegistryOptions, Failure> {
        let mirrors = self
            .registry_mirror
            .iter()
            .map(|text| {
                let pair = text
                    .split_once('=')
                    .filter(|(host, url)| !host.is_empty() && !url.is_empty());
                pair.map(|(host, url)| (host.to_owned(), url.to_owned()))
                    .ok_or_else(|| usage(format!("`--registry-mirror {text}` is not HOST=URL")))
            })
            .collect::<Result<_, _>>()?;
        Ok(RegistryOptions {
            mirrors,
            insecure: self.insecure_registry.clone(),
            auth_file: self.authfile.clone(),
            accounts: Vec::new(),
            cert_dir: self.cert_dir.clone(),
            authorities: self.authorities()?,
            identities: self.identities()?,
            retries: self.retry,
            retry_delay: self
                .retry_delay
                .as_deref()
                .map(|text| duration("--retry-delay", text))
                .transpose()?,
        })
    }

    fn authorities(&self) -> Result<Vec<(String, PathBuf)>, Failure> {
        let read = |text: &String| {
            let (host, file) = of_host(text)?;
            Some((host.to_owned(), PathBuf::from(file)))
        };
        let typed = self.registry_certificate.iter();
        typed
            .map(|text| {
                read(text).ok_or_else(|| {
                    usage(format!("`--registry-certificate {text}` is not HOST=FILE"))
                })
            })
            .collect()
    }

    fn identities(&self) -> Result<Vec<(String, PathBuf, PathBuf)>, Failure> {
        let read = |text: &String| {
            let (host, files) = of_host(text)?;
            let (chain, key) = files.split_once(',')?;
            let is_whole = !chain.is_empty() && !key.is_empty();
            is_whole.then(|| (host.to_owned(), PathBuf::from(chain), PathBuf::from(key)))
        };
        let typed = self.registry_client_cert.iter();
        typed
            .map(|text| {
                read(text).ok_or_else(|| {
                    usage(format!(
                        "`--registry-client-cert {text}` is not HOST=CERT,KEY"
                    ))
                })
            })
            .collect()
    }
}

/// Splits `HOST=…`.
fn of_host(text: &str) -> Option<(&str, &str)> {
    let (host, rest) = text.split_once('=')?;
    (!host.is_empty() && !rest.is_empty()).then_some((host, rest))
}

/// Joins a store's error with what it means for a command.
pub(super) fn store_failed(error: &StoreError) -> Failure {
    let mut diagnostic = Diagnostic::error("the state directory cannot be used").caused_by(error);
    diagnostic.hints.push(error.hint());
    Failure::new(ExitCode::Store, diagnostic)
}
