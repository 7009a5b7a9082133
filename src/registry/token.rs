//! Showing who one is: Basic, and bearer tokens bought from the service that a registry names.
//!
//! A host is asked without credentials until it demands them; what it demanded is remembered, so that later requests carry the right
//! header at once. Tokens are kept by account and scopes, a wider token serves a narrower request, and one request at a time buys
//! tokens from a host's service: many threads that pull one image cost one token.
//!
//! Invariant: a password goes to the registry's own host (Basic), or to the realm that it named, and over plain HTTP only where the
//! registry itself is reached so.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::auth_file::Credential;
use super::challenge::{Challenge, parse};
use super::endpoint::{Endpoint, Host};
use super::error::{RegistryError, Said};
use super::exchange::Exchange;
use super::retry::Tries;
use super::scope::Scopes;
use super::transport::{Answer, Outgoing, authority};
use crate::vocab::Secret;

const CLIENT_ID: &str = "builder";
/// What the token specification says of a token without a lifetime.
const DEFAULT_LIFETIME: u64 = 60;
const MOST_TOKEN_BYTES: u64 = 1024 * 1024;

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
    fn new(
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
    /// By repository.
    accounts: HashMap<String, Option<Arc<Credential>>>,
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
    fn remember(&self, secret: &str) {
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

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
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
        let grant = self
            .grant(endpoint, &mut state, &demand, &scopes, used)
            .await?;
        Ok(grant.filter(|grant| used.is_none_or(|used| used.header != grant.header)))
    }

    /// Tells whether requests for a repository are made in somebody's name.
    pub(super) async fn has_credentials(&self, endpoint: &Endpoint) -> bool {
        let state = endpoint.host.auth.state.lock().await;
        matches!(state.accounts.get(&endpoint.repository), Some(Some(_)))
    }

    async fn grant(
        &self,
        endpoint: &Endpoint,
        state: &mut State,
        demand: &Demand,
        scopes: &Scopes,
        refused: Option<&Grant>,
    ) -> Result<Option<Grant>, RegistryError> {
        let host = &endpoint.host;
        let account = self.account(endpoint, state)?;
        let (realm, service, always) = match demand {
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
        let scopes = scopes.clone().union(always);
        let now = Instant::now();
        state.tokens.retain(|token| {
            let was_refused = refused.is_some_and(|grant| {
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
        let (value, lifetime) = self
            .buy(endpoint, realm, service, &scopes, account.as_deref())
            .await?;
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

    fn account(
        &self,
        endpoint: &Endpoint,
        state: &mut State,
    ) -> Result<Option<Arc<Credential>>, RegistryError> {
        if let Some(account) = state.accounts.get(&endpoint.repository) {
            return Ok(account.clone());
        }
        let host = &endpoint.host;
        let account = self
            .credentials()
            .find(host.registry(), &endpoint.repository)?
            .map(Arc::new);
        if let Some(account) = &account {
            host.auth.remember(account.secret());
        }
        state
            .accounts
            .insert(endpoint.repository.clone(), account.clone());
        Ok(account)
    }

    /// Buys a token: anonymously, with a password, or with an identity token.
    async fn buy(
        &self,
        endpoint: &Endpoint,
        realm: &Url,
        service: Option<&str>,
        scopes: &Scopes,
        account: Option<&Credential>,
    ) -> Result<(Secret<String>, Duration), RegistryError> {
        let purchase = Purchase {
            endpoint,
            realm,
            service,
            scopes,
            account,
        };
        let first_is_post = matches!(account, Some(Credential::Identity { .. }));
        let answer = self.ask_service(&purchase, first_is_post).await?;
        // A service that has one way only says so with these; 401 is what GitLab says to a POST.
        let other_way = match answer.status().as_u16() {
            404 | 405 => account.is_some(),
            400 | 401 | 501 => first_is_post,
            _ => false,
        };
        let answer = if other_way {
            self.ask_service(&purchase, !first_is_post).await?
        } else {
            answer
        };
        self.read_token(&purchase, answer).await
    }

    /// Asks a token service, again where it fails in passing. A refusal is an answer.
    async fn ask_service(
        &self,
        purchase: &Purchase<'_>,
        post: bool,
    ) -> Result<Answer, RegistryError> {
        let host = &purchase.endpoint.host;
        let mut tries = Tries::new(self.tuning());
        loop {
            let mut url = purchase.realm.clone();
            let mut headers = HeaderMap::new();
            let mut authorization = None;
            let mut body = None;
            if post {
                let form = purchase.form();
                headers.insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/x-www-form-urlencoded"),
                );
                body = Some(Bytes::from(form));
            } else {
                purchase.add_query(&mut url);
                if let Some(secret) = purchase.account.and_then(Credential::basic) {
                    host.auth.remember(secret.reveal());
                    authorization = Some(Grant::new("Basic", secret, true, host)?.header);
                }
            }
            let outgoing = Outgoing {
                method: if post { Method::POST } else { Method::GET },
                headers: &headers,
                authorization: authorization.as_ref(),
                body,
                patience: self.tuning().idle,
            };
            let answer = self
                .transport()
                .send(self.rules(), outgoing, url, host.may_be_plain())
                .await;
            let error = match answer {
                Ok(answer) => match answer.status().as_u16() {
                    408 | 429 | 500 | 502..=504 => self.service_error(purchase, answer).await,
                    _ => return Ok(answer),
                },
                Err(error) => error,
            };
            tries.after(error).await?;
        }
    }

    async fn read_token(
        &self,
        purchase: &Purchase<'_>,
        answer: Answer,
    ) -> Result<(Secret<String>, Duration), RegistryError> {
        if answer.status() != StatusCode::OK {
            return Err(self.service_error(purchase, answer).await);
        }
        let protocol = |what: &str| RegistryError::Protocol {
            host: authority(purchase.realm),
            what: what.to_owned(),
        };
        let body = self
            .transport()
            .read(answer, "token", MOST_TOKEN_BYTES)
            .await?;
        // The parser's own message would quote the token.
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| protocol("the token service's answer is not the JSON that was wanted"))?;
        let token = answer
            .token
            .filter(|token| !token.is_empty())
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| protocol("the token service's answer holds no token"))?;
        let lifetime = match answer.expires_in {
            Some(seconds) if seconds.is_finite() && seconds >= 1.0 => seconds.min(86400.0) as u64,
            Some(_) | None => DEFAULT_LIFETIME,
        };
        Ok((Secret::new(token), Duration::from_secs(lifetime)))
    }

    async fn service_error(&self, purchase: &Purchase<'_>, answer: Answer) -> RegistryError {
        let host = &purchase.endpoint.host;
        let registry = host.registry().to_owned();
        let status = answer.status().as_u16();
        let retry_after = self.retry_after(&answer);
        let said = host.auth.redact(self.said(answer).await);
        let had_credentials = purchase.account.is_some();
        match status {
            401 | 403 if had_credentials => RegistryError::Unauthorized { registry, said },
            401 | 403 => RegistryError::Denied {
                registry,
                repository: purchase.endpoint.repository.clone(),
                action: purchase.scopes.action(),
                had_credentials,
                said,
            },
            429 => RegistryError::TooManyRequests {
                registry,
                retry_after,
                had_credentials,
                said,
            },
            _ => RegistryError::Status {
                registry: authority(purchase.realm),
                action: purchase.scopes.action(),
                what: "a token".to_owned(),
                status,
                retry_after,
                said,
            },
        }
    }
}

/// What a token is bought with.
struct Purchase<'a> {
    endpoint: &'a Endpoint,
    realm: &'a Url,
    service: Option<&'a str>,
    scopes: &'a Scopes,
    account: Option<&'a Credential>,
}

impl Purchase<'_> {
    fn add_query(&self, url: &mut Url) {
        let mut query = url.query_pairs_mut();
        if let Some(service) = self.service {
            query.append_pair("service", service);
        }
        for scope in self.scopes.words() {
            query.append_pair("scope", &scope);
        }
        if let Some(Credential::Password { user, .. } | Credential::Identity { user, .. }) =
            self.account
        {
            query.append_pair("account", user);
        }
        query.append_pair("client_id", CLIENT_ID);
    }

    /// Returns the body of the OAuth2 request.
    fn form(&self) -> String {
        let mut url = Url::parse("http://form").expect("the text is a URL");
        {
            let mut form = url.query_pairs_mut();
            match self.account {
                Some(Credential::Identity { token, .. }) => {
                    form.append_pair("grant_type", "refresh_token");
                    form.append_pair("refresh_token", token.reveal());
                }
                Some(Credential::Password { user, password }) => {
                    form.append_pair("grant_type", "password");
                    form.append_pair("username", user);
                    form.append_pair("password", password.reveal());
                }
                Some(Credential::Access(_)) | None => {}
            }
            if let Some(service) = self.service {
                form.append_pair("service", service);
            }
            form.append_pair("client_id", CLIENT_ID);
            form.append_pair("scope", &self.scopes.words().join(" "));
        }
        url.query().unwrap_or_default().to_owned()
    }
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
