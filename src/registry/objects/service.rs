//! The requests of GitHub's cache service, version 2: JSON to a method, tried again where it fails in passing.
//!
//! In: keys of entries. Out: URLs to read from and to write to, or the reason why there is none. The token goes to the service and
//! nowhere else; URLs that it gives are secrets.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::endpoint::Rules;
use super::super::error::{Action, RegistryError, Said};
use super::super::exchange::Exchange;
use super::super::retry::Tries;
use super::super::transport::{Answer, Outgoing, authority};
use crate::vocab::{ActionsPlace, Digest, Secret};

const METHODS: &str = "twirp/github.actions.results.api.v1.CacheService";
const MOST_ANSWER: u64 = 1024 * 1024;
/// Entries of one name that are tried, should their moments be taken.
const MOST_MOMENTS: u64 = 20;

/// A cache service, who asks it, and what is known of it.
pub(super) struct Service {
    pub(super) exchange: Arc<Exchange>,
    pub(super) rules: Rules,
    /// With a slash at its end.
    pub(super) url: Url,
    token: HeaderValue,
    /// For messages to be cleaned of.
    secret: Secret<String>,
    pub(super) timeout: Duration,
    /// Tells entries of this program from those of others, whatever their names.
    version: String,
    /// Blobs that were seen there.
    held: Mutex<HashSet<Digest>>,
}

/// An entry that can be read.
pub(super) struct Found {
    pub(super) url: Secret<Url>,
}

#[derive(Deserialize)]
struct Reserved {
    #[serde(default)]
    ok: bool,
    #[serde(default, alias = "signedUploadUrl")]
    signed_upload_url: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Finalized {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Located {
    #[serde(default)]
    ok: bool,
    #[serde(default, alias = "signedDownloadUrl")]
    signed_download_url: String,
    #[serde(default, alias = "matchedKey")]
    matched_key: String,
}

/// What the service said.
enum Told {
    Answer(Vec<u8>),
    /// Such an entry exists.
    Taken,
    /// No such entry exists.
    Nothing,
}

impl Service {
    pub(super) fn new(
        exchange: Arc<Exchange>,
        place: &ActionsPlace,
    ) -> Result<Service, RegistryError> {
        let wrong = |what: &str| RegistryError::Option {
            what: format!("the cache of GitHub Actions cannot be used: {what}"),
        };
        let text = format!("{}/", place.service.trim_end_matches('/'));
        let url = Url::parse(&text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| wrong("its address is no URL"))?;
        let bearer = format!("Bearer {}", place.token.reveal().trim());
        let mut token = HeaderValue::from_str(&bearer)
            .map_err(|_| wrong("its token holds what no header can"))?;
        token.set_sensitive(true);
        Ok(Service {
            rules: exchange.rules().for_downloads(),
            exchange,
            url,
            token,
            secret: place.token.clone(),
            timeout: place.timeout,
            version: Digest::of(b"builder cache 1").hex(),
            held: Mutex::default(),
        })
    }

    /// Returns where it is, for messages.
    pub(super) fn host(&self) -> String {
        authority(&self.url)
    }

    pub(super) fn held(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Ends what takes longer than the user allows.
    pub(super) async fn limited<T>(
        &self,
        what: &str,
        end: Instant,
        future: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        match tokio::time::timeout_at(end, future).await {
            Ok(done) => done,
            Err(_) => Err(RegistryError::TookTooLong {
                host: self.host(),
                what: what.to_owned(),
                limit: self.timeout,
            }),
        }
    }

    /// Asks the service until there is an answer, or a failure that stays.
    async fn ask(&self, method: &str, body: &Value, key: &str) -> Result<Told, RegistryError> {
        let url = self.url.join(&format!("{METHODS}/{method}"));
        let url = url.map_err(|_| self.protocol("its address takes no path"))?;
        let action = match method {
            "GetCacheEntryDownloadURL" => Action::Pull,
            _ => Action::Push,
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = Bytes::from(body.to_string());
        let mut tries = Tries::new(self.exchange.tuning());
        loop {
            let outgoing = Outgoing {
                method: Method::POST,
                headers: &headers,
                authorization: Some(&self.token),
                body: Some(body.clone()),
                patience: self.exchange.tuning().idle,
                stays: true,
            };
            let transport = self.exchange.transport();
            let answer = transport
                .send(&self.rules, outgoing, url.clone(), false)
                .await;
            let told = match answer {
                Ok(answer) if answer.status().as_u16() == 200 => {
                    let body = transport.read(answer, "answer", MOST_ANSWER).await;
                    body.map(Told::Answer)
                }
                Ok(answer) => self.refusal(answer, action, key).await,
                Err(error) => Err(error),
            };
            match told {
                Ok(told) => return Ok(told),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    async fn refusal(
        &self,
        answer: Answer,
        action: Action,
        key: &str,
    ) -> Result<Told, RegistryError> {
        let status = answer.status().as_u16();
        let retry_after = self.exchange.retry_after(&answer);
        let transport = self.exchange.transport();
        let body = transport.read(answer, "refusal", MOST_ANSWER).await;
        // The status says the most important part.
        let body = body.unwrap_or_default();
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        let code = value["code"].as_str().unwrap_or_default();
        let said = match value["msg"].as_str() {
            Some(message) => Said::from_body(format!("{code}: {message}").as_bytes()),
            None => Said::from_body(&body),
        };
        let said = said.without(&[self.secret.reveal().trim()]);
        let hint = match (status, code) {
            (409, _) | (_, "already_exists") => return Ok(Told::Taken),
            (404, "not_found") => return Ok(Told::Nothing),
            (401, _) => {
                "the token of a job ends with the job: pass ACTIONS_RUNTIME_TOKEN on in the job that builds".to_owned()
            }
            (403, _) => self.denied_hint(action),
            (404, _) => {
                "check ACTIONS_RESULTS_URL (url_v2=): there is no cache service of version 2 there"
                    .to_owned()
            }
            _ => {
                return Err(RegistryError::Status {
                    registry: self.host(),
                    action,
                    what: key.to_owned(),
                    status: match code {
                        "resource_exhausted" => 429,
                        _ => status,
                    },
                    retry_after,
                    said,
                });
            }
        };
        Err(self.refused(action, key, status, said, hint))
    }

    fn refused(
        &self,
        action: Action,
        key: &str,
        status: u16,
        said: Said,
        hint: String,
    ) -> RegistryError {
        RegistryError::Refused {
            host: self.host(),
            action,
            what: key.to_owned(),
            status,
            said,
            hint,
        }
    }

    fn denied_hint(&self, action: Action) -> String {
        match action {
            Action::Push => "this job may read the cache and not write it, as GitHub has it for jobs that strangers can start: `--cache-from type=gha` alone, or ignore-error=true",
            _ => "this job may not read the cache: its workflow says so (cache-mode)",
        }
        .to_owned()
    }

    fn protocol(&self, what: &str) -> RegistryError {
        RegistryError::Protocol {
            host: self.host(),
            what: what.to_owned(),
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, body: &[u8]) -> Result<T, RegistryError> {
        // The parser's own message would quote the answer.
        serde_json::from_slice(body)
            .map_err(|_| self.protocol("its answer is not the JSON that was wanted"))
    }

    /// Reads a URL of the storage.
    fn storage(&self, text: &str) -> Result<Secret<Url>, RegistryError> {
        let url = Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                // What came by a secure way is not to go by another.
                && (url.scheme() == "https" || self.url.scheme() == "http")
        });
        url.map(Secret::new)
            .ok_or_else(|| self.protocol("it points to no storage that can be reached"))
    }

    /// Returns the newest entry whose key begins so.
    pub(super) async fn find(&self, prefix: &str) -> Result<Option<Found>, RegistryError> {
        let body = json!({ "key": prefix, "restore_keys": [prefix], "version": self.version });
        let told = self.ask("GetCacheEntryDownloadURL", &body, prefix).await?;
        let Told::Answer(body) = told else {
            return Ok(None);
        };
        let located: Located = self.parse(&body)?;
        if !located.ok || located.signed_download_url.is_empty() {
            return Ok(None);
        }
        // A service that forgot which key was found gives what was asked for.
        let is_ours = located.matched_key.is_empty() || located.matched_key.starts_with(prefix);
        if !is_ours {
            return Err(self.protocol("it found another entry than was asked for"));
        }
        Ok(Some(Found {
            url: self.storage(&located.signed_download_url)?,
        }))
    }

    /// Returns where an entry can be written; `None` if there is one.
    pub(super) async fn reserve(&self, key: &str) -> Result<Option<Secret<Url>>, RegistryError> {
        let body = json!({ "key": key, "version": self.version });
        let told = self.ask("CreateCacheEntry", &body, key).await?;
        let Told::Answer(body) = told else {
            return Ok(None);
        };
        let reserved: Reserved = self.parse(&body)?;
        if !reserved.ok {
            self.check_denied(key, &reserved.message)?;
            return Ok(None);
        }
        self.storage(&reserved.signed_upload_url).map(Some)
    }

    /// A refusal for good comes as a success that is none.
    fn check_denied(&self, key: &str, message: &str) -> Result<(), RegistryError> {
        match message.contains("denied") {
            false => Ok(()),
            true => {
                let said = Said::from_body(message.as_bytes());
                let said = said.without(&[self.secret.reveal().trim()]);
                let hint = self.denied_hint(Action::Push);
                Err(self.refused(Action::Push, key, 200, said, hint))
            }
        }
    }

    /// Returns where an entry can be written that is newer than those of the same name.
    pub(super) async fn reserve_a_moment(
        &self,
        name: &str,
    ) -> Result<(String, Secret<Url>), RegistryError> {
        let now = jiff::Timestamp::now()
            .as_millisecond()
            .max(0)
            .unsigned_abs();
        for later in 0..MOST_MOMENTS {
            // Of one length: their order is that of their texts.
            let key = format!("{name}.{:012x}", now + later);
            if let Some(url) = self.reserve(&key).await? {
                return Ok((key, url));
            }
        }
        Err(RegistryError::Contended {
            image: name.to_owned(),
            rounds: MOST_MOMENTS as u32,
        })
    }

    pub(super) async fn finalize(&self, key: &str, size: u64) -> Result<(), RegistryError> {
        // 64 bits are a text in the JSON of protocol buffers.
        let body = json!({ "key": key, "size_bytes": size.to_string(), "version": self.version });
        let told = self.ask("FinalizeCacheEntryUpload", &body, key).await?;
        let finalized: Finalized = match told {
            Told::Answer(body) => self.parse(&body)?,
            // An earlier attempt was heard, and only its answer was lost.
            Told::Taken => return Ok(()),
            Told::Nothing => return Err(self.protocol("it has forgotten what it was given")),
        };
        match finalized.ok {
            true => Ok(()),
            false => {
                self.check_denied(key, &finalized.message)?;
                Err(self.protocol("it did not take what it was given"))
            }
        }
    }
}
