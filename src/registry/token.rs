//! Showing who one is: Basic, and bearer tokens bought from the service that a registry names.
//!
//! A host is asked without credentials until it demands them; what it demanded is remembered, so that later requests carry the right
//! header at once. In whose name tokens are bought is [`account`](super::account)'s to say. Tokens are kept by account and scopes, a
//! wider token serves a narrower request, and one request at a time buys tokens from a host's service: many threads that pull one
//! image cost one token.
//!
//! Invariant: a password goes to the registry's own host (Basic), or to the realm that it named, and over plain HTTP only where the
//! registry itself is reached so.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::account::{Accounts, Name};
use super::auth_file::Credential;
use super::challenge::{Challenge, parse};
use super::endpoint::{Endpoint, Host};
use super::error::{RegistryError, Said};
use super::exchange::Exchange;
use super::purchase::Purchase;
use super::scope::Scopes;
use crate::vocab::Secret;

/// The value of an `Authorization` header.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) header: HeaderValue,
    /// The part that must not be shown.
    secret: Secret<String>,
    is_basic: bool,
    pub(super) had_credentials: bool,
}

impl Grant {
    pub(super) fn new(
        scheme: &str,
        secret: Secret<String>,
        had_credentials: bool,
        host: &Host,
    ) -> Result<Grant, RegistryError> {
        let mut header =
            HeaderValue::from_str(&format!("{scheme} {}", secret.reveal())).map_err(|_| {
                RegistryError::Protocol {
                    host: host.registry().to_owned(),
                    what: "a token holds characters that no header can".to_owned(),
                }
            })?;
        header.set_sensitive(true);
        Ok(Grant {
            header,
            is_basic: scheme == "Basic",
            secret,
            had_credentials,
        })
    }

    /// Tells whether it is a user name and a password, rather than a token.
    pub(super) fn is_basic(&self) -> bool {
        self.is_basic
    }

    /// Tells whether it is a token that anybody can have.
    pub(super) fn is_public(&self) -> bool {
        !self.is_basic && !self.had_credentials
    }

    fn shows(&self, credential: &Credential) -> bool {
        self.is_basic
            && credential
                .basic()
                .is_some_and(|secret| secret.reveal() == self.secret.reveal())
    }
}

/// What a host demanded, and what was shown to it.
#[derive(Default)]
pub(super) struct Auth {
    state: tokio::sync::Mutex<State>,
    /// All that went out, so that an echo of it can be blotted out.
    secrets: Mutex<BTreeSet<String>>,
}

#[derive(Default)]
struct State {
    demand: Option<Demand>,
    accounts: Accounts,
    tokens: Vec<Token>,
}

#[derive(Clone)]
enum Demand {
    Basic,
    Bearer {
        realm: Url,
        service: Option<String>,
        /// Scopes that the host wants in every token.
        always: Scopes,
    },
}

struct Token {
    account: Option<Arc<Credential>>,
    scopes: Scopes,
    value: Secret<String>,
    expires: Instant,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth")
    }
}

impl Auth {
    /// Has a secret blotted out of what this host says from now on.
    pub(super) fn remember(&self, secret: &str) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        // A word that short would blot out half of every message, and no one can guard it.
        if secret.len() >= 4 {
            secrets.insert(secret.to_owned());
        }
    }

    /// Blots out what this host was shown.
    pub(super) fn redact(&self, said: Said) -> Said {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        said.without(&secrets)
    }
}

impl Exchange {
    /// Returns what a request should carry from the start: nothing, as long as the host has demanded nothing.
    pub(super) async fn authorization(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
    ) -> Result<Option<Grant>, RegistryError> {
        let mut state = endpoint.host.auth.state.lock().await;
        match state.demand.clone() {
            None => Ok(None),
            Some(demand) => {
                self.grant(endpoint, &mut state, &demand, scopes, None)
                    .await
            }
        }
    }

    /// Reads the challenges of a 401 and returns what to try next; `None` if there is nothing better than `used`.
    pub(super) async fn renew(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        used: Option<&Grant>,
        headers: &HeaderMap,
    ) -> Result<Option<Grant>, RegistryError> {
        let challenges: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect();
        let mut state = endpoint.host.auth.state.lock().await;
        let mut scopes = scopes.clone();
        let demand = match demand(&endpoint.host, &challenges)? {
            Some((demand, wanted)) => {
                scopes = scopes.union(&wanted);
                state.demand = Some(demand.clone());
                demand
            }
            // Some proxies drop the header: what was known still holds.
            None => match state.demand.clone() {
                Some(demand) => demand,
                None => return Ok(None),
            },
        };
        if let Some(used) = used {
            if used.is_public() {
                state.accounts.close(&endpoint.repository);
            }
            self.forget(endpoint, &mut state.accounts, &|credential| {
                used.shows(credential)
            });
        }
        let grant = self
            .grant(endpoint, &mut state, &demand, &scopes, used)
            .await?;
        Ok(grant.filter(|grant| used.is_none_or(|used| used.header != grant.header)))
    }

    /// Tells whether requests for a repository are made in somebody's name.
    pub(super) async fn has_credentials(&self, endpoint: &Endpoint) -> bool {
        let state = endpoint.host.auth.state.lock().await;
        state.accounts.has_one(&endpoint.repository)
    }

    /// Tells whether an answer with this status may come out otherwise with another header: once for a registry that wants to know who
    /// asks (or no longer takes what it was shown), and once more for a cloud's registry that was asked in nobody's name, which some of
    /// them refuse with 403.
    pub(super) fn may_renew(
        &self,
        endpoint: &Endpoint,
        status: u16,
        used: Option<&Grant>,
        renewals: u32,
    ) -> bool {
        let may_log_in = || {
            used.is_some_and(Grant::is_public)
                && self.credentials().cloud(endpoint.host.registry()).is_some()
        };
        match (status, renewals) {
            (401, 0) => true,
            (401 | 403, 0 | 1) => may_log_in(),
            _ => false,
        }
    }

    /// Returns the header for the best of the names under which one can ask.
    async fn grant(
        &self,
        endpoint: &Endpoint,
        state: &mut State,
        demand: &Demand,
        scopes: &Scopes,
        refused: Option<&Grant>,
    ) -> Result<Option<Grant>, RegistryError> {
        let may_be_public = matches!(demand, Demand::Bearer { .. }) && scopes.only_pull();
        let mut failure: Option<RegistryError> = None;
        let mut names = self.names(endpoint, &mut state.accounts, may_be_public)?;
        names.reverse();
        while let Some(name) = names.pop() {
            let asked = Asked {
                endpoint,
                demand,
                scopes,
                refused,
            };
            let error = match self.grant_to(&asked, state, &name).await {
                Ok(Some(grant)) => return Ok(Some(grant)),
                Ok(None) => continue,
                Err(error) => error,
            };
            match &error {
                RegistryError::Denied { .. } => state.accounts.close(&endpoint.repository),
                RegistryError::Unauthorized { .. } | RegistryError::Login { .. } => {}
                _ => return Err(error),
            }
            // That nobody may do it says less than why somebody may not.
            if !matches!(failure, Some(ref told) if !is_of_nobody(told)) {
                failure = Some(error);
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(None),
        }
    }

    /// Returns the header for one name; an expired account is renewed once.
    async fn grant_to(
        &self,
        asked: &Asked<'_>,
        state: &mut State,
        name: &Name,
    ) -> Result<Option<Grant>, RegistryError> {
        let Some(account) = self
            .account(asked.endpoint, &mut state.accounts, name)
            .await?
        else {
            return Ok(None);
        };
        let refusal = match self.grant_with(asked, state, account.clone()).await {
            Err(error @ RegistryError::Unauthorized { .. }) => error,
            other => return other,
        };
        let is_used = |credential: &Credential| account.as_deref() == Some(credential);
        if !self.forget(asked.endpoint, &mut state.accounts, &is_used) {
            return Err(refusal);
        }
        let anew = self
            .account_anew(asked.endpoint, &mut state.accounts, name)
            .await?;
        match anew {
            Some(anew) if anew != account => self.grant_with(asked, state, anew).await,
            _ => Err(refusal),
        }
    }

    async fn grant_with(
        &self,
        asked: &Asked<'_>,
        state: &mut State,
        account: Option<Arc<Credential>>,
    ) -> Result<Option<Grant>, RegistryError> {
        let host = &asked.endpoint.host;
        let (realm, service, always) = match asked.demand {
            Demand::Basic => {
                let Some(secret) = account.as_ref().and_then(|account| account.basic()) else {
                    return Ok(None);
                };
                host.auth.remember(secret.reveal());
                return Grant::new("Basic", secret, true, host).map(Some);
            }
            Demand::Bearer {
                realm,
                service,
                always,
            } => (realm, service.as_deref(), always),
        };
        if let Some(Credential::Access(token)) = account.as_deref() {
            return Grant::new("Bearer", token.clone(), true, host).map(Some);
        }
        let scopes = asked.scopes.clone().union(always);
        let now = Instant::now();
        state.tokens.retain(|token| {
            let was_refused = asked.refused.is_some_and(|grant| {
                !grant.is_basic && grant.secret.reveal() == token.value.reveal()
            });
            token.expires > now && !was_refused
        });
        let known = state
            .tokens
            .iter()
            .find(|token| token.account == account && token.scopes.covers(&scopes));
        if let Some(token) = known {
            return Grant::new("Bearer", token.value.clone(), account.is_some(), host).map(Some);
        }
        let purchase = Purchase {
            endpoint: asked.endpoint,
            realm,
            service,
            scopes: &scopes,
            account: account.as_deref(),
        };
        let (value, lifetime) = self.buy(&purchase).await?;
        host.auth.remember(value.reveal());
        let grant = Grant::new("Bearer", value.clone(), account.is_some(), host)?;
        state.tokens.push(Token {
            account,
            scopes,
            value,
            // A token that ends on its way is worth nothing.
            expires: now + lifetime - (lifetime / 4).min(Duration::from_secs(10)),
        });
        Ok(Some(grant))
    }
}

/// What a header is wanted for.
struct Asked<'a> {
    endpoint: &'a Endpoint,
    demand: &'a Demand,
    scopes: &'a Scopes,
    refused: Option<&'a Grant>,
}

fn is_of_nobody(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Denied {
            had_credentials: false,
            ..
        }
    )
}

/// Picks what can be met: a bearer token before Basic, as every registry's own client does.
fn demand(
    host: &Host,
    challenges: &[Challenge],
) -> Result<Option<(Demand, Scopes)>, RegistryError> {
    let protocol = |what: &str| RegistryError::Protocol {
        host: host.registry().to_owned(),
        what: what.to_owned(),
    };
    let bearer = challenges.iter().find(|challenge| {
        challenge.scheme == "bearer" && challenge.parameters.contains_key("realm")
    });
    if let Some(bearer) = bearer {
        let realm = Url::parse(&bearer.parameters["realm"])
            .ok()
            .filter(|realm| matches!(realm.scheme(), "http" | "https") && realm.has_host())
            .ok_or_else(|| protocol("the realm of its token service is no URL"))?;
        if realm.scheme() == "http" && !host.is_plain() && !host.may_be_plain() {
            return Err(protocol(
                "its token service would take credentials over plain HTTP",
            ));
        }
        let wanted = Scopes::parse(bearer.parameters.get("scope").map_or("", String::as_str));
        let demand = Demand::Bearer {
            realm,
            service: bearer.parameters.get("service").cloned(),
            always: wanted.beside_repositories(),
        };
        return Ok(Some((demand, wanted)));
    }
    let basic = challenges
        .iter()
        .any(|challenge| challenge.scheme == "basic");
    Ok(basic.then(|| (Demand::Basic, Scopes::default())))
}
