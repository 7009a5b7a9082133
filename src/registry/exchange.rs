//! A request to a repository with everything that makes it robust: which scheme, who one is, a renewed token, another attempt.
//!
//! This is the room's engine: `manifest`, `pull` and `push` say what they want of an [`Endpoint`], this module gets an answer or a
//! typed reason. It holds what a process learns about hosts.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};

use super::config::{Place, Wanted};
use super::credentials::Credentials;
use super::endpoint::{Endpoint, Host, Rules, Scheme, Site};
use super::environment::Environment;
use super::error::{Action, RegistryError, Said};
use super::manifest::Resolved;
use super::retry::{self, Tries, Tuning};
use super::scope::Scopes;
use super::token::Grant;
use super::transport::{Answer, Outgoing, Transport};
use super::turns::Turns;
use crate::vocab::{Digest, ImageRef};

pub(super) use super::trail::Trail;

/// Of the body of a refusal, this much is read.
const MOST_REFUSAL: u64 = 64 * 1024;

pub(super) struct Exchange {
    rules: Rules,
    credentials: Credentials,
    transport: Transport,
    tuning: Tuning,
    hosts: Mutex<HashMap<Site, Arc<Host>>>,
    /// Blobs that a repository is known to have: registry, repository, digest.
    held: Mutex<HashSet<(String, String, Digest)>>,
    /// What names stood for when they were first asked about.
    resolved: Mutex<HashMap<ImageRef, Resolved>>,
    /// Uploads under way.
    pub(super) turns: Turns,
    /// By registry: the largest body that is sent in one request, where a larger one was refused.
    largest_bodies: Mutex<HashMap<String, u64>>,
}

/// One thing to ask of a repository.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) scopes: Scopes,
    pub(super) action: Action,
    /// What messages call the thing.
    pub(super) what: String,
    /// How long the answer may take to begin; the idle limit if `None`.
    pub(super) patience: Option<Duration>,
}

pub(super) enum Target {
    /// A path below the API's base; begins with `/`.
    Tail(String),
    /// What a `Location` said.
    Url(Url),
}

impl Ask {
    /// Returns a request to read something of a repository.
    pub(super) fn read(method: Method, endpoint: &Endpoint, rest: &str, what: &str) -> Ask {
        Ask {
            method,
            target: Target::Tail(endpoint.tail(rest)),
            headers: HeaderMap::new(),
            body: None,
            scopes: Scopes::pull(&endpoint.repository),
            action: Action::Pull,
            what: what.to_owned(),
            patience: None,
        }
    }

    /// Returns a request to change something in a repository.
    pub(super) fn write(method: Method, endpoint: &Endpoint, target: Target, what: &str) -> Ask {
        Ask {
            target,
            scopes: Scopes::push(&endpoint.repository),
            action: Action::Push,
            ..Ask::read(method, endpoint, "", what)
        }
    }
}

impl Exchange {
    pub(super) fn new(
        rules: Rules,
        credentials: Credentials,
        environment: &Environment,
        tuning: Tuning,
    ) -> Exchange {
        Exchange {
            rules: rules.with_files(environment),
            credentials,
            transport: Transport::new(environment, tuning),
            tuning,
            hosts: Mutex::default(),
            held: Mutex::default(),
            resolved: Mutex::default(),
            turns: Turns::default(),
            largest_bodies: Mutex::default(),
        }
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// Returns attempts for what is asked of `endpoint`: fewer where another place can be asked.
    pub(super) fn tries(&self, endpoint: &Endpoint) -> Tries {
        let tries = Tries::new(self.tuning);
        if endpoint.is_mirror {
            tries.at_most(2)
        } else {
            tries
        }
    }

    /// Returns where pushes go: the registry itself, mostly.
    pub(super) fn origin(&self, image: &ImageRef) -> Endpoint {
        let mut places = self.rules.places(image, Wanted::Push);
        self.endpoint(places.remove(0))
    }

    /// Returns a registry without a repository: where one logs in, whoever takes its pushes.
    pub(super) fn registry(&self, name: &str) -> Endpoint {
        self.endpoint(self.rules.registry(name))
    }

    /// Returns where to read the manifest of an image, in order: mirrors, then the registry.
    pub(super) fn sources(&self, image: &ImageRef) -> Vec<Endpoint> {
        self.endpoints(image, Wanted::manifest_of(image))
    }

    /// Returns where to read a blob of an image, in order.
    pub(super) fn blob_sources(&self, image: &ImageRef) -> Vec<Endpoint> {
        self.endpoints(image, Wanted::blob_of(image))
    }

    fn endpoints(&self, image: &ImageRef, wanted: Wanted) -> Vec<Endpoint> {
        let places = self.rules.places(image, wanted);
        places
            .into_iter()
            .map(|place| self.endpoint(place))
            .collect()
    }

    fn endpoint(&self, place: Place) -> Endpoint {
        Endpoint {
            host: self.host(place.site),
            repository: place.repository,
            is_mirror: place.is_mirror,
            namespace: place.namespace,
            bar: place.bar,
        }
    }

    fn host(&self, site: Site) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts
            .entry(site.clone())
            .or_insert_with(|| Arc::new(Host::new(site, &self.rules)))
            .clone()
    }

    /// Tells whether a repository was seen to have a blob.
    pub(super) fn holds(&self, endpoint: &Endpoint, digest: Digest) -> bool {
        self.held().contains(&held_key(endpoint, digest))
    }

    /// Remembers that a repository has a blob.
    pub(super) fn set_holds(&self, endpoint: &Endpoint, digest: Digest) {
        self.held().insert(held_key(endpoint, digest));
    }

    /// Returns another repository of the same registry that has a blob.
    pub(super) fn holder(&self, endpoint: &Endpoint, digest: Digest) -> Option<String> {
        self.held()
            .iter()
            .find(|(registry, repository, held)| {
                *held == digest
                    && registry == endpoint.host.registry()
                    && *repository != endpoint.repository
            })
            .map(|(_, repository, _)| repository.clone())
    }

    pub(super) fn resolved(&self) -> MutexGuard<'_, HashMap<ImageRef, Resolved>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the most bytes that one request to a registry may carry, as far as that was found out.
    pub(super) fn largest_body(&self, endpoint: &Endpoint) -> Option<u64> {
        let known = self.largest_bodies.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        known.get(endpoint.host.registry()).copied()
    }

    pub(super) fn set_largest_body(&self, endpoint: &Endpoint, size: u64) {
        let known = self.largest_bodies.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        known.insert(endpoint.host.registry().to_owned(), size);
    }

    fn held(&self) -> MutexGuard<'_, HashSet<(String, String, Digest)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until there is a success, a status among `accepted`, or a failure that stays.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        accepted: &[u16],
    ) -> Result<Answer, RegistryError> {
        let mut tries = self.tries(endpoint);
        loop {
            match self.ask_once(endpoint, ask, accepted).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    /// Asks once, apart from a renewed token.
    pub(super) async fn ask_once(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        accepted: &[u16],
    ) -> Result<Answer, RegistryError> {
        let (answer, grant) = self.exchange(endpoint, ask).await?;
        if answer.status().is_success() || accepted.contains(&answer.status().as_u16()) {
            return Ok(answer);
        }
        Err(self.refusal(endpoint, ask, answer, grant.as_ref()).await)
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
    ) -> Result<(Answer, Option<Grant>), RegistryError> {
        // Before anybody is asked for credentials.
        endpoint.check()?;
        let mut grant = self.grant_for(endpoint, ask).await?;
        let mut answer = self.send(endpoint, ask, grant.as_ref()).await?;
        for renewals in 0.. {
            let status = answer.status().as_u16();
            if answer.is_foreign || !self.may_renew(endpoint, status, grant.as_ref(), renewals) {
                break;
            }
            let headers = answer.response.headers().clone();
            let renewed = self
                .renew(endpoint, &ask.scopes, grant.as_ref(), &headers)
                .await?;
            let Some(renewed) = renewed else { break };
            // A short body that was read leaves the connection fit for the next request; a failure to read it does not matter.
            drop(self.transport.read(answer, "refusal", MOST_REFUSAL).await);
            answer = self.send(endpoint, ask, Some(&renewed)).await?;
            grant = Some(renewed);
        }
        Ok((answer, grant))
    }

    /// Returns the header's value for a request; nothing for a URL on another host.
    async fn grant_for(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
    ) -> Result<Option<Grant>, RegistryError> {
        match &ask.target {
            Target::Url(url) if !endpoint.host.is_origin_of(url) => Ok(None),
            _ => self.authorization(endpoint, &ask.scopes).await,
        }
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        grant: Option<&Grant>,
    ) -> Result<Answer, RegistryError> {
        let host = &endpoint.host;
        let tail = match &ask.target {
            Target::Url(url) => {
                let mut answer = self.send_to(host, ask, grant, url.clone()).await?;
                answer.is_foreign |= !host.is_origin_of(url);
                return Ok(answer);
            }
            Target::Tail(tail) => tail,
        };
        if let Some(scheme) = host.scheme() {
            return self
                .send_to(host, ask, grant, host.url(scheme, tail)?)
                .await;
        }
        let secure = host.url(Scheme::Https, tail)?;
        let error = match self.send_to(host, ask, grant, secure).await {
            Ok(answer) => {
                host.settle(Scheme::Https);
                return Ok(answer);
            }
            Err(error) => error,
        };
        if !may_speak_plain(&error) {
            return Err(error);
        }
        let plain = host.url(Scheme::Http, tail)?;
        match self.send_to(host, ask, grant, plain).await {
            // What a server of TLS says to plain HTTP: the handshake is what went wrong.
            Ok(answer)
                if answer.status() == StatusCode::BAD_REQUEST && is_of_tls_server(&error) =>
            {
                Err(error)
            }
            Ok(answer) => {
                host.settle(Scheme::Http);
                Ok(answer)
            }
            Err(plain) => Err(plain),
        }
    }

    async fn send_to(
        &self,
        host: &Host,
        ask: &Ask,
        grant: Option<&Grant>,
        url: Url,
    ) -> Result<Answer, RegistryError> {
        let outgoing = Outgoing {
            method: ask.method.clone(),
            headers: &ask.headers,
            authorization: grant.map(|grant| &grant.header),
            body: ask.body.clone(),
            patience: ask.patience.unwrap_or(self.tuning.idle),
            stays: false,
        };
        self.transport
            .send(host.rules(), outgoing, url, host.may_be_plain())
            .await
    }

    /// Makes the error of an answer that is no success.
    pub(super) async fn refusal(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        answer: Answer,
        grant: Option<&Grant>,
    ) -> RegistryError {
        let host = &endpoint.host;
        let status = answer.status().as_u16();
        let retry_after = self.retry_after(&answer);
        if answer.is_foreign && matches!(status, 401 | 403) {
            // The permission that the registry's redirect carried has ended; the registry will give another.
            return RegistryError::Broken {
                host: super::transport::authority(answer.response.url()),
                source: super::error::Cause::new(format!(
                    "status {status} from the storage that the registry redirected to"
                )),
            };
        }
        let said = host.auth.redact(self.said(answer).await);
        let registry = host.registry().to_owned();
        let had_credentials = match grant {
            Some(grant) => grant.had_credentials,
            None => self.has_credentials(endpoint).await,
        };
        match status {
            404 => RegistryError::NotFound {
                image: ask.what.clone(),
                said,
            },
            401 if had_credentials && grant.is_none_or(Grant::is_basic) => {
                RegistryError::Unauthorized { registry, said }
            }
            401 | 403 => RegistryError::Denied {
                registry,
                repository: endpoint.repository.clone(),
                action: ask.action,
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
                registry,
                action: ask.action,
                what: ask.what.clone(),
                status,
                retry_after,
                said,
            },
        }
    }

    /// Reads what a refusal says.
    pub(super) async fn said(&self, answer: Answer) -> Said {
        match self.transport.read(answer, "refusal", MOST_REFUSAL).await {
            Ok(body) => Said::from_body(&body),
            // The status says the most important part.
            Err(_) => Said::default(),
        }
    }

    pub(super) fn retry_after(&self, answer: &Answer) -> Option<Duration> {
        retry::retry_after(answer.header("retry-after")?, jiff::Timestamp::now())
    }
}

fn held_key(endpoint: &Endpoint, digest: Digest) -> (String, String, Digest) {
    (
        endpoint.host.registry().to_owned(),
        endpoint.repository.clone(),
        digest,
    )
}

/// Tells whether a failed attempt with HTTPS may mean that the host speaks plain HTTP. A certificate that was refused means that it
/// does not.
fn may_speak_plain(error: &RegistryError) -> bool {
    match error {
        RegistryError::Tls { source, .. } => !source.to_string().contains("certificate"),
        RegistryError::Connect { unknown_name, .. } => !unknown_name,
        RegistryError::Timeout { .. } | RegistryError::Broken { .. } => true,
        _ => false,
    }
}

/// Tells whether a handshake failed with something that does speak TLS.
fn is_of_tls_server(error: &RegistryError) -> bool {
    match error {
        // What comes back is not TLS at all: an HTTP server's complaint.
        RegistryError::Tls { source, .. } => !source.to_string().contains("corrupt message"),
        _ => false,
    }
}
