//! In whose name a registry is asked: the account that was found, a cloud's own login, or nobody.
//!
//! What somebody said about a registry (options, variables of ours, files) is used and nothing else. What merely lies around (a CI
//! system's token, a cloud's identity) must not stand in the way of public images:
//!
//! | found | to read where tokens are for everybody | otherwise |
//! |---|---|---|
//! | what somebody said | that | that |
//! | a CI system's account | that, else nobody | that |
//! | a cloud's identity that variables name | that, else nobody | that |
//! | perhaps a cloud's machine | nobody, else that | that |
//! | nothing | nobody | nobody |
//!
//! So the metadata service of a machine is asked only where nothing else is known and the registry refuses strangers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::auth_file::Credential;
use super::cloud::{Caller, Cloud};
use super::credentials::Found;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::exchange::Exchange;

/// A login that ends within this time is renewed before it is used.
const MARGIN: Duration = Duration::from_secs(60);

/// What is known about accounts at one host.
#[derive(Default)]
pub(super) struct Accounts {
    /// By repository.
    found: HashMap<String, Option<Arc<Found>>>,
    login: Login,
    /// Repositories that strangers may not read.
    closed: HashSet<String>,
}

/// The cloud's own login at one host.
#[derive(Default)]
enum Login {
    #[default]
    Unknown,
    /// There is no identity to log in with.
    Absent,
    Held {
        credential: Arc<Credential>,
        until: Instant,
    },
}

/// In whose name to ask.
#[derive(Clone, Debug)]
pub(super) enum Name {
    Nobody,
    Found(Arc<Found>),
    Cloud(Cloud),
}

impl Accounts {
    /// Remembers that strangers may not read a repository.
    pub(super) fn close(&mut self, repository: &str) {
        self.closed.insert(repository.to_owned());
    }

    /// Tells whether there is an account for a repository.
    pub(super) fn has_one(&self, repository: &str) -> bool {
        matches!(self.found.get(repository), Some(Some(_)))
            || matches!(self.login, Login::Held { .. })
    }
}

impl Exchange {
    /// Returns the names under which to ask, best first.
    pub(super) fn names(
        &self,
        endpoint: &Endpoint,
        accounts: &mut Accounts,
        may_be_public: bool,
    ) -> Result<Vec<Name>, RegistryError> {
        let may_be_public = may_be_public && !accounts.closed.contains(&endpoint.repository);
        let nobody = may_be_public.then_some(Name::Nobody);
        if let Some(found) = self.found(endpoint, accounts)? {
            let nobody = nobody.filter(|_| !found.is_firm);
            return Ok([Name::Found(found)].into_iter().chain(nobody).collect());
        }
        let cloud = match self.credentials().cloud(endpoint.host.registry()) {
            Some(cloud) if !matches!(accounts.login, Login::Absent) => cloud,
            _ => return Ok(vec![Name::Nobody]),
        };
        let is_named = cloud.is_named(&self.credentials().environment)
            || matches!(accounts.login, Login::Held { .. });
        let cloud = Name::Cloud(cloud);
        Ok(match nobody {
            None => vec![cloud],
            Some(nobody) if is_named => vec![cloud, nobody],
            Some(nobody) => vec![nobody, cloud],
        })
    }

    /// Returns the account of a name: `Some(None)` is nobody's; `None` if the name turns out to be nobody's and others were tried.
    pub(super) async fn account(
        &self,
        endpoint: &Endpoint,
        accounts: &mut Accounts,
        name: &Name,
    ) -> Result<Option<Option<Arc<Credential>>>, RegistryError> {
        match name {
            Name::Nobody => Ok(Some(None)),
            Name::Found(found) => {
                let credential = found.credential.clone();
                endpoint.host.auth.remember(credential.secret());
                Ok(Some(Some(Arc::new(credential))))
            }
            Name::Cloud(cloud) => match self.log_in(endpoint, accounts, cloud).await? {
                Some(credential) => Ok(Some(Some(credential))),
                // As if there were no cloud; where strangers were asked first, they have been refused.
                None if accounts.closed.contains(&endpoint.repository) => Ok(None),
                None => Ok(Some(None)),
            },
        }
    }

    /// Looks a name's account up once more, after it was forgotten.
    pub(super) async fn account_anew(
        &self,
        endpoint: &Endpoint,
        accounts: &mut Accounts,
        name: &Name,
    ) -> Result<Option<Option<Arc<Credential>>>, RegistryError> {
        let name = match name {
            Name::Found(_) => match self.found(endpoint, accounts)? {
                Some(found) => Name::Found(found),
                None => return Ok(None),
            },
            other => other.clone(),
        };
        self.account(endpoint, accounts, &name).await
    }

    /// Forgets accounts that `is_meant` and that may come out otherwise when they are looked up again: those of programs and clouds.
    /// Returns whether there was one.
    pub(super) fn forget(
        &self,
        endpoint: &Endpoint,
        accounts: &mut Accounts,
        is_meant: &dyn Fn(&Credential) -> bool,
    ) -> bool {
        if let Login::Held { credential, .. } = &accounts.login
            && is_meant(credential)
        {
            accounts.login = Login::Unknown;
            return true;
        }
        let is_helpers = accounts
            .found
            .values()
            .flatten()
            .any(|found| found.is_from_helper && is_meant(&found.credential));
        if !is_helpers || !self.credentials().forget(endpoint.host.registry()) {
            return false;
        }
        accounts.found.clear();
        true
    }

    fn found(
        &self,
        endpoint: &Endpoint,
        accounts: &mut Accounts,
    ) -> Result<Option<Arc<Found>>, RegistryError> {
        if let Some(found) = accounts.found.get(&endpoint.repository) {
            return Ok(found.clone());
        }
        let found = self
            .credentials()
            .find(endpoint.host.registry(), &endpoint.repository)?
            .map(Arc::new);
        accounts
            .found
            .insert(endpoint.repository.clone(), found.clone());
        Ok(found)
    }

    async fn log_in(
        &self,
        endpoint: &Endpoint,
        accounts: &mut Accounts,
        cloud: &Cloud,
    ) -> Result<Option<Arc<Credential>>, RegistryError> {
        if let Login::Held { credential, until } = &accounts.login
            && Instant::now() + MARGIN < *until
        {
            return Ok(Some(credential.clone()));
        }
        accounts.login = Login::Unknown;
        // Clouds are no registries: what is said of these does not hold for them.
        let rules = self.rules().for_downloads();
        let caller = Caller {
            transport: self.transport(),
            rules: &rules,
            tuning: self.tuning(),
            environment: &self.credentials().environment,
        };
        let pass = cloud
            .log_in(&caller)
            .await
            .map_err(|source| RegistryError::Login {
                registry: endpoint.host.registry().to_owned(),
                cloud: cloud.name(),
                source: Box::new(source),
            })?;
        let Some(pass) = pass else {
            accounts.login = Login::Absent;
            return Ok(None);
        };
        endpoint.host.auth.remember(pass.credential.secret());
        let credential = Arc::new(pass.credential);
        accounts.login = Login::Held {
            credential: credential.clone(),
            until: Instant::now() + pass.lifetime,
        };
        Ok(Some(credential))
    }
}
