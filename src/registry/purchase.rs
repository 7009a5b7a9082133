//! Buying a token from the service that a registry names (the distribution project's token and OAuth2 flows).
//!
//! In: the service, the scopes, and perhaps an account. Out: the token and its lifetime. A service that has one of the two ways only is
//! asked in the other one. Nothing is kept here.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::auth_file::Credential;
use super::endpoint::{Endpoint, is_loopback};
use super::error::RegistryError;
use super::exchange::Exchange;
use super::retry::Tries;
use super::scope::Scopes;
use super::site::split_port;
use super::token::Grant;
use super::transport::{Answer, Outgoing, authority};
use crate::vocab::Secret;

const CLIENT_ID: &str = "builder";
/// What the token specification says of a token without a lifetime.
const DEFAULT_LIFETIME: u64 = 60;
const MOST_TOKEN_BYTES: u64 = 1024 * 1024;

/// What a token is bought with.
pub(super) struct Purchase<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) realm: &'a Url,
    pub(super) service: Option<&'a str>,
    pub(super) scopes: &'a Scopes,
    pub(super) account: Option<&'a Credential>,
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

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

impl Exchange {
    /// Buys a token: anonymously, with a password, or with an identity token. Returns how long it will be good.
    pub(super) async fn buy(
        &self,
        purchase: &Purchase<'_>,
    ) -> Result<(Secret<String>, Duration), RegistryError> {
        let account = purchase.account;
        if account.is_some() {
            self.check_realm(purchase)?;
        }
        let first_is_post = matches!(account, Some(Credential::Identity { .. }));
        let answer = self.ask_service(purchase, first_is_post).await?;
        // A service that has one way only says so with these; 401 is what GitLab says to a POST.
        let other_way = match answer.status().as_u16() {
            404 | 405 => account.is_some(),
            400 | 401 | 501 => first_is_post,
            _ => false,
        };
        let answer = if other_way {
            self.ask_service(purchase, !first_is_post).await?
        } else {
            answer
        };
        self.read_token(purchase, answer).await
    }

    /// Refuses to show credentials over plain HTTP to a host that nobody said may be reached so: only the registry was.
    fn check_realm(&self, purchase: &Purchase<'_>) -> Result<(), RegistryError> {
        let realm = purchase.realm;
        let service = authority(realm);
        let (name, _) = split_port(&service);
        let (own, _) = split_port(purchase.endpoint.host.authority());
        let is_fine = realm.scheme() == "https"
            || name.eq_ignore_ascii_case(own)
            || is_loopback(&service)
            || self.rules().terms(&service)?.plain;
        if is_fine {
            return Ok(());
        }
        Err(RegistryError::Protocol {
            host: purchase.endpoint.host.registry().to_owned(),
            what: format!(
                "its token service `{service}` would take credentials over plain HTTP, and is not said to be insecure"
            ),
        })
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
                // A form holds the password.
                stays: post,
            };
            let answer = self
                .transport()
                .send(host.rules(), outgoing, url, host.may_be_plain())
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
